export const $ = (id) => document.getElementById(id);

export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

/** Put a text into the clipboard, or where a browser does not let us, select it where it stands. */
export async function copyText(text, element, button) {
  const label = (button.dataset.label ??= button.textContent); // pressed again, it still says what was done
  getSelection().selectAllChildren(element);
  try {
    await navigator.clipboard.writeText(text); // browsers have it for local pages only
    button.textContent = "복사했습니다";
  } catch {
    button.textContent = "선택된 글을 Ctrl+C로 복사하세요";
  }
  setTimeout(() => (button.textContent = label), 3000);
}
