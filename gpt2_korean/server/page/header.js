import { $ } from "./elements.js";

/** What stands above the text, and the words that are others in a conversation. start: what /settings answers. */
export function createHeader(start) {
  const unlimited = $("context").textContent;
  let context;
  const name = (model) => {
    $("model").textContent = model.name;
    $("device").textContent = model.device;
    context = model.context;
  };
  name(start.model);
  if (start.chat) {
    $("guide").textContent = "말을 걸면 답합니다. 모델이 지어낸 답이므로 사실과 다를 수 있습니다.";
    $("text").placeholder = "여기에 말을 걸어 보세요.";
    $("text").ariaLabel = "건넬 말";
    $("write").textContent = "보내기";
    $("again").textContent = "다시 답하기";
    $("new").hidden = false;
    $("legend").hidden = true;
    document.body.classList.add("chat");
  }
  return {
    name, // the model that writes: since the page was opened the server may have been started with another
    /** Show how fast it writes. */
    count(tokens, seconds) { $("speed").textContent = `초당 ${(tokens / seconds).toFixed(1)}토큰`; },
    /** Show how many tokens of the context are `used`; undefined: nothing was read yet. */
    fill(used) {
      const told = [used && Math.min(used, context ?? Infinity), context].filter(Boolean);
      $("context").textContent = told.length ? `${told.map((count) => count.toLocaleString()).join("/")}토큰` : unlimited;
    },
  };
}
