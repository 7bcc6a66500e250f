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
  const empty = () => ($("context").textContent = context ? `${context.toLocaleString()}토큰` : unlimited);
  name(start.model);
  empty();
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
    empty, // the context, as before anything is read
    /** Show how fast it writes, and how full its context is after the `read` tokens before. */
    count(tokens, seconds, read) {
      const used = Math.min(read + tokens, context ?? Infinity).toLocaleString();
      $("speed").textContent = `초당 ${(tokens / seconds).toFixed(1)}토큰`;
      $("context").textContent = `${used}${context ? `/${context.toLocaleString()}` : ""}토큰`;
    },
  };
}
