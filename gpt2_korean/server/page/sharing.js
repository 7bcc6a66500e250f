import { $, copyText } from "./elements.js";

const UNFIT = "이 글에는 Windows의 명령줄에 그대로 넣을 수 없는 글자(줄 바꿈, 따옴표, $ % ! `)가 있습니다.";

/** The command that writes the same text, for the shell that one chooses. */
export function createSharing() {
  let commands = null, shell = /win/i.test(navigator.platform) ? "windows" : "posix";

  function draw() {
    $("sharing").hidden = !commands; // none asks with earlier turns
    for (const name of ["posix", "windows"]) $(name).ariaPressed = String(name === shell);
    $("command").textContent = commands?.[shell] ?? UNFIT;
    $("copy").disabled = !commands?.[shell];
  }

  for (const name of ["posix", "windows"]) {
    $(name).onclick = () => {
      shell = name;
      draw();
    };
  }
  $("copy").onclick = () => copyText($("command"), $("copy"));
  return {
    show(next) {
      if (next === commands) return; // drawn anew it would lose what one has selected of it
      commands = next;
      draw();
    },
  };
}
