import { $ } from "./elements.js";
import { clean } from "./keep.js";
import { asInField, change, clip, follow } from "./marks.js";

const FORMAT = "gpt2-korean";

/**
 * The buttons that write and read files, and the one that forgets.
 *
 * now(): all that is kept. chat: whether it is a conversation. limit: the most characters of a text.
 * tooLong(count): the words for so many characters that did not fit.
 * onForget(): leave nothing kept. onImport(state): a file was read, its text no longer than the limit.
 */
export function createFiles({ now, chat, limit, tooLong, onForget }, onImport) {
  const name = () => `gpt2-korean-${new Date().toISOString().slice(0, 10)}`;
  const tell = (words) => ($("file-error").textContent = words && `오류: ${words}`);

  $("export").onclick = () => save(`${name()}.json`, JSON.stringify({ format: FORMAT, ...now() }, null, 1));
  $("save").onclick = () => {
    const { text, turns } = now();
    save(`${name()}.txt`, chat ? turns.map(([asked, answered]) => `나: ${asked}\n모델: ${answered.trim()}\n`).join("\n") : text);
  };
  $("import").onclick = () => $("file").click();
  const take = async (file) => {
    try {
      const state = await read(file, chat), fitting = cut(state, limit);
      const missing = state.text.length - fitting.text.length;
      onImport(fitting);
      tell(missing ? tooLong(missing) : "");
    } catch (error) {
      tell(error.message);
    }
  };
  $("file").onchange = () => {
    const [file] = $("file").files;
    $("file").value = "";
    if (file) take(file);
  };
  // A file that is dropped is imported too: a browser would leave the page for it, and with it all that can be undone.
  for (const name of ["dragover", "drop"]) {
    document.addEventListener(name, (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      if (name !== "drop" || $("import").disabled) return;
      const { files } = event.dataTransfer;
      files.length > 1 ? tell("한 번에 파일 하나만 가져올 수 있습니다.") : take(files[0]);
    });
  }
  $("forget").onclick = () => {
    if (!confirm("이 브라우저에 저장된 글과 대화와 설정을 모두 지울까요? 되돌릴 수 없습니다.")) return;
    onForget();
    location.reload();
  };
}

function save(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/**
 * What an exported file holds, or the text of any other. Throws an Error that says what is wrong with it, as turns are
 * where the page is no `chat`.
 */
async function read(file, chat) {
  if (file.size > 5_000_000) throw Error("파일이 너무 큽니다. 5MB까지 가져올 수 있습니다.");
  const text = asInField(decode(await file.arrayBuffer().catch(() => null))); // null: a folder, or it is gone
  let data = null;
  if (!file.name.endsWith(".json")) return { text, marks: [], last: null };
  try {
    data = JSON.parse(text);
  } catch {} // as any other file that is not ours
  if (data?.format !== FORMAT) throw Error("이 페이지에서 내보낸 파일이 아닙니다.");
  const { start, ...state } = clean(data);
  if (state.turns.length && !chat) throw Error("대화하는 웹 페이지에서 내보낸 파일입니다. 대화 모델의 웹 페이지에서 가져오세요.");
  return state;
}

/**
 * The text of a file, in one of the encodings of Windows's Notepad: UTF-8, UTF-16 by its mark, ANSI (CP949). Throws an
 * Error where it is in none of them, or cannot be read (null).
 */
function decode(bytes) {
  const [first, second] = new Uint8Array(bytes);
  for (const name of first === 0xff && second === 0xfe ? ["utf-16le"] : ["utf-8", "euc-kr"]) { // which has all of CP949
    try {
      return new TextDecoder(name, { fatal: true }).decode(bytes);
    } catch {}
  }
  throw Error("글로 읽을 수 없는 파일입니다. UTF-8로 저장한 .txt나 이 페이지에서 내보낸 파일을 주세요.");
}

function cut(state, limit) {
  const text = clip(state.text, limit), made = { from: text.length, to: state.text.length, size: 0 };
  return { ...state, text, marks: change(state.marks, made), last: state.last && follow(state.last, made) };
}
