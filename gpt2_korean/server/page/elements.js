export const $ = (id) => document.getElementById(id);

export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

/** Put the text of an element into the clipboard, or where a browser does not let us, select it where it stands. */
export async function copyText(element, button) {
  const label = (button.dataset.label ??= button.textContent); // pressed again, it still says what was done
  getSelection().selectAllChildren(element);
  // Browsers have a clipboard for https and local pages only; what is selected they copy for any.
  const written = await navigator.clipboard?.writeText(element.textContent).then(() => true, () => false);
  button.textContent = written || document.execCommand("copy") ? "복사했습니다" : "선택된 글을 직접 복사하세요";
  setTimeout(() => (button.textContent = label), 3000);
}
