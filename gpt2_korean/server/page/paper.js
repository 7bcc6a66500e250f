import { clip, difference } from "./marks.js";
import { createMirror } from "./mirror.js";

/**
 * The field that one writes in. It is a plain textarea, so that every keyboard and input method works as anywhere; the
 * layer behind it shows what the model wrote.
 *
 * limit: the most characters one can put in. onEdit(text, change, {joins, missing}): one has edited. joins: the same
 * syllable as before; missing: how many characters did not fit.
 */
export function createPaper(paper, field, mirror, limit, onEdit) {
  const behind = createMirror(mirror);
  let known = "", composing = false, fresh = true;
  let end = { top: 0, bottom: 0 }; // where the caret was last

  field.addEventListener("compositionstart", () => (composing = fresh = true));
  field.addEventListener("compositionend", (event) => {
    composing = false;
    look(event);
  });
  field.addEventListener("input", look);

  // Where a syllable is deleted it may be typed anew at once: by iPhones, which tell of no composition of Hangul, for each
  // letter; by Safari where it is done. That is one edit or none, so one looks a moment later at what has become of it.
  let waiting;
  function look({ inputType }) {
    const renewed = inputType === "deleteCompositionText" || (inputType === "deleteContentBackward" && !composing);
    if (renewed) waiting ??= setTimeout(edited, 10);
    else if (!waiting) edited();
  }

  function edited() {
    waiting = undefined;
    let text = field.value, missing = 0;
    const made = difference(known, text, field.selectionEnd);
    const room = Math.max(0, limit - (text.length - made.size));
    if (made.size > room && !composing) {
      const end = made.from + clip(text.slice(made.from, made.from + made.size), room).length;
      missing = made.from + made.size - end;
      text = text.slice(0, end) + text.slice(end + missing);
      field.value = text;
      field.setSelectionRange(end, end);
      made.size -= missing;
    }
    if (text === known && !missing) return;
    known = text;
    onEdit(text, made, { joins: composing && !fresh, missing });
    fresh = false;
  }

  function draw(marks, caret) {
    behind.draw(known, marks);
    end = behind.place(caret);
  }

  const isSeen = () => end.bottom <= paper.scrollTop + paper.clientHeight;

  function reveal() {
    paper.scrollTop = Math.min(end.top - 12, Math.max(paper.scrollTop, end.bottom + 12 - paper.clientHeight));
  }

  return {
    /** Show a text; the caret is brought in sight, unless one has scrolled up while it is written. */
    show(text, marks, caret) {
      if (field.value !== text) {
        field.value = text;
        field.setSelectionRange(caret, caret);
      }
      known = text;
      const follows = !field.readOnly || isSeen();
      draw(marks, caret);
      if (follows) reveal();
    },
    /** The marks of what one has edited oneself. The field grows with them, so the browser has not seen the caret. */
    drawMarks(marks) {
      draw(marks, field.selectionEnd);
      reveal();
    },
    /** Keep the height while a text is written: what stands below, the button that stops it, would move away. */
    hold(still) { paper.style.height = still ? `${paper.offsetHeight}px` : ""; },
    /** End the syllable that is being composed, which would be typed once more behind what is put in. */
    endComposition() {
      if (!composing) return;
      const [start, end] = [field.selectionStart, field.selectionEnd];
      field.blur();
      field.focus();
      field.setSelectionRange(start, end);
    },
  };
}
