import { asInField } from "./marks.js";

// What is kept in the browser: {text, marks, last, turns, settings, start}.

const OURS = "gpt2-korean ";

/**
 * A store of the page of this `kind`. Each tab has its own; a new tab begins with what was kept last.
 *
 * now(): what is to be kept. onSave(kept): whether it was, each time.
 */
export function createStore(kind, now, onSave) {
  const name = OURS + kind;
  let timer;
  function save() {
    clearTimeout(timer);
    timer = undefined;
    try {
      const text = JSON.stringify(now());
      sessionStorage.setItem(name, text);
      localStorage.setItem(name, text);
      onSave(true);
    } catch {
      onSave(false);
    }
  }
  addEventListener("pagehide", () => timer && save());
  document.addEventListener("visibilitychange", () => timer && document.hidden && save());
  return {
    later() { timer ??= setTimeout(save, 300); },
    load() {
      try {
        return clean(JSON.parse(sessionStorage.getItem(name) ?? localStorage.getItem(name) ?? "{}"));
      } catch {
        return clean({});
      }
    },
    forget() {
      clearTimeout(timer);
      timer = 0; // nothing is kept any more: a text may still be coming
      try {
        for (const storage of [sessionStorage, localStorage])
          for (const key of Object.keys(storage)) if (key.startsWith(OURS)) storage.removeItem(key); // the other page's too
      } catch {} // then nothing was kept
    },
  };
}

/** `data` with everything in it that is what it should be, and empty where it is not. */
export function clean(data) {
  const text = typeof data.text === "string" ? asInField(data.text) : "";
  const isPlace = (place) => Array.isArray(place) && place.length === 2 && place.every(Number.isInteger)
    && 0 <= place[0] && place[0] <= place[1] && place[1] <= text.length;
  const isTurn = (turn) => Array.isArray(turn) && turn.length === 2 && turn.every((side) => typeof side === "string");
  const list = (values, fits) => (Array.isArray(values) ? values.filter(fits) : []);
  return {
    text,
    marks: list(data.marks, isPlace),
    last: isPlace(data.last) ? data.last : null,
    turns: list(data.turns, isTurn),
    settings: data.settings instanceof Object ? data.settings : {},
    start: data.start,
  };
}
