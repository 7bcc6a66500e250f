/** Whether a key sends what is written: Enter, unless it ends a syllable or a line. */
export function isSending(event) {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;
}

/**
 * The keys of the page. sendsByEnter: Enter alone sends, as in a conversation; with Ctrl it always does.
 * suggestions: of createSuggestions, which have keys while they are shown.
 */
export function listenToKeys(field, { sendsByEnter, suggestions, onSend, onEscape, onUndo, onRedo }) {
  field.addEventListener("keydown", (event) => {
    const sends = event.key === "Enter" && (event.ctrlKey || event.metaKey);
    if (sends || (sendsByEnter && isSending(event))) onSend();
    else if (!suggestions.shown) return;
    else if (event.key === "Tab" && !event.shiftKey) suggestions.takeChosen();
    else if (event.altKey && event.key === "ArrowDown") suggestions.next(1);
    else if (event.altKey && event.key === "ArrowUp") suggestions.next(-1);
    else return;
    event.preventDefault();
  });
  field.addEventListener("beforeinput", (event) => {
    if (!event.inputType.startsWith("history")) return; // of a menu
    event.preventDefault();
    event.inputType === "historyUndo" ? onUndo() : onRedo();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return onEscape();
    const undoesItself = event.target !== field && event.target.matches("textarea, [type=number], #seed");
    if (undoesItself || !(event.ctrlKey || event.metaKey) || event.altKey || event.isComposing) return;
    // With a Korean keyboard the key is ㅋ; what letter is on it says its place.
    const letter = /^[a-z]$/i.test(event.key) ? event.key.toLowerCase() : event.code.slice(3).toLowerCase();
    if (letter !== "z" && letter !== "y") return;
    event.preventDefault();
    letter === "y" || event.shiftKey ? onRedo() : onUndo();
  });
}
