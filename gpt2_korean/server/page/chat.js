import { copyText, make } from "./elements.js";
import { isSending } from "./keys.js";

/**
 * The turns of a conversation, [what was asked, what was answered], each with what can be done with it.
 *
 * onEdit(index, text): one has asked something else in that turn; gives whether it was answered.
 */
export function createChat(box, onEdit) {
  let shown = [];

  function add([asked, answered], index) {
    const turn = make("div", "turn");
    const question = make("p", "asked", asked);
    const answer = make("p", "answered", answered.trimStart());
    const edit = make("button", "small", "고치기");
    const copy = make("button", "small", "복사");
    edit.ariaLabel = "내 말 고치기";
    copy.ariaLabel = "답 복사";
    edit.onclick = () => openEditor(question, edit, index).focus();
    copy.onclick = () => copyText(answer, copy);
    const mine = make("div", "said mine"), its = make("div", "said");
    mine.append(make("span", "unseen", "나:"), question, edit);
    its.append(make("span", "unseen", "모델:"), answer, copy);
    turn.append(mine, its);
    box.append(turn);
  }

  function openEditor(question, button, index) {
    const form = make("form", "editor");
    const field = make("textarea");
    const [send, cancel] = [make("button", "main small", "보내기"), make("button", "small", "취소")];
    const close = () => {
      form.replaceWith(question);
      button.hidden = false;
      button.focus();
    };
    field.value = question.textContent;
    field.ariaLabel = "고칠 말";
    field.onkeydown = (event) => {
      if (event.key === "Escape") {
        event.stopPropagation(); // an answer that is being written goes on
        if (!event.isComposing) close();
      }
      if (isSending(event)) {
        event.preventDefault();
        send.click();
      }
    };
    cancel.type = "button";
    cancel.onclick = close;
    form.onsubmit = async (event) => {
      event.preventDefault();
      if (!field.value.trim()) return;
      close();
      if (await onEdit(index, field.value)) return;
      const [again, its] = box.children[index].querySelectorAll(".asked, .mine button"); // made anew
      openEditor(again, its, index).value = field.value;
    };
    form.append(field, send, cancel);
    button.hidden = true;
    question.replaceWith(form);
    return field;
  }

  /** The last answer; it stays in sight, unless one has scrolled up. */
  function grow(text) {
    const follows = box.scrollTop + box.clientHeight > box.scrollHeight - 40;
    box.lastChild.querySelector(".answered").textContent = text.trimStart();
    if (follows) box.scrollTop = box.scrollHeight;
  }

  return {
    show(turns) {
      let same = 0;
      while (same < turns.length && turns[same] === shown[same]) same++;
      const grows = same === turns.length - 1 && same === shown.length - 1 && turns[same][0] === shown[same][0];
      shown = turns;
      if (grows) return grow(turns[same][1]);
      while (box.children.length > same) box.lastChild.remove();
      turns.slice(same).forEach((turn, index) => add(turn, same + index));
      box.hidden = !turns.length;
      if (same < turns.length) box.scrollTop = box.scrollHeight;
    },
    lock(writing) {
      for (const button of box.querySelectorAll("button")) button.disabled = writing;
    },
  };
}
