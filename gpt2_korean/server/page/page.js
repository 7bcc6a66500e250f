// The page to write with. All that is written is put in as text, never as HTML; nothing is loaded from elsewhere.

import { ask, at, GONE } from "./ask.js";
import { createChat } from "./chat.js";
import { $ } from "./elements.js";
import { createFiles } from "./files.js";
import { createHeader } from "./header.js";
import { createHistory } from "./history.js";
import { createStore } from "./keep.js";
import { listenToKeys } from "./keys.js";
import { asInField, change, difference, follow, mark } from "./marks.js";
import { createPaper } from "./paper.js";
import { createSettings } from "./settings.js";
import { createSharing } from "./sharing.js";
import { createSuggestions } from "./suggestions.js";

const field = $("text");
const start = await (await fetch(at("settings"))).json();
const limit = start.characters;
const ENDED_AT_ONCE =
  "모델이 여기서 바로 글을 끝냈습니다. 다시 쓰거나, 자세한 설정에서 최소 길이(min_length)를 20쯤으로 올려 보세요.";
const touched = matchMedia("(pointer: coarse)").matches; // there a focus opens the keyboard

// What is written. marks: what of the text is the model's. last: the place of what it wrote last, to write it again.
// turns: of a conversation, [what was asked, what was answered]. written: of what it wrote last the commands that write
// the same, and the tokens used of its context. Never changed in place: history holds them.
let doc = { text: "", marks: [], last: null, turns: [] };
let work = null; // the AbortController of the text under way

const now = () => ({ ...doc, settings: settings.read() });
const history = createHistory(now, ({ settings: values, ...state }) => {
  settings.write(values);
  const { from, size } = difference(doc.text, state.text, 0);
  show(state, doc.text === state.text ? field.selectionEnd : from + size);
});
const KEPT = $("kept").textContent;
const NOT_KEPT = "이 브라우저에 저장할 수 없어(저장이 막혔거나 가득 찼습니다) 새로고침하면 모두 사라집니다. 남기려면 내보내기를 누르세요.";
const toKeep = () => ({ ...now(), written: undefined });
const store = createStore(start.chat ? "chat" : "text", () => ({ ...toKeep(), start: first }), (kept) => {
  $("kept").textContent = kept ? KEPT : NOT_KEPT;
  window.onbeforeunload = kept ? null : () => (doc.text || doc.turns.length ? "" : null); // anything but null asks
});
const first = { values: JSON.stringify([start.presets, start.sliders, start.seed]), prompt: start.prompt };
const settings = createSettings(start, (before, name) => {
  if (!work) history.record("설정", { group: `setting ${name}`, state: { ...doc, settings: before } });
  changed();
});
const paper = createPaper($("paper"), field, $("mirror"), limit, (text, made, { joins, missing }) => {
  const group = made.size > 2 ? null : made.size ? "typing" : "deleting"; // a paste is its own; 한 and ㅏ make two: 하나
  history.record("글 고치기", { group, joins });
  if (/\s$/.test(text.slice(0, made.from + made.size))) history.pause(); // a word a time
  doc = { ...doc, text, marks: change(doc.marks, made), last: doc.last && follow(doc.last, made) };
  paper.drawMarks(doc.marks);
  fail(missing ? tooLong(missing) : "");
  changed();
  suggestions.later();
});
const chat = createChat($("turns"), (index, text) => answer("내 말 고치기", text, doc.turns.slice(0, index)));
const suggestions = createSuggestions(toContinue, take, (event) => event.field && settings.showError(event));
const sharing = createSharing();
const header = createHeader(start);

/** Show a document; the caret goes to `caret`. */
function show(next, caret) {
  doc = next;
  paper.show(doc.text, doc.marks, caret);
  chat.show(doc.turns);
  sharing.show(doc.written?.commands);
  header.fill(doc.written?.used);
  changed();
}

/** After each change: what can be pressed, and what is kept. */
function changed() {
  $("undo").disabled = work || !history.canUndo;
  $("redo").disabled = work || !history.canRedo;
  $("again").disabled = work || !(start.chat ? doc.turns.length : doc.last);
  $("new").disabled = work || !doc.turns.length;
  $("import").disabled = work;
  if (document.activeElement.disabled && !touched) field.focus(); // a button that can do no more loses it
  store.later();
}

function fail(words) {
  $("error").textContent = words && `오류: ${words}`;
  field.ariaInvalid = words ? "true" : null;
}

function tooLong(count) {
  return `글은 ${limit.toLocaleString()}자까지 쓸 수 있어 뒤의 ${count.toLocaleString()}자를 넣지 않았습니다.`;
}

/** The newest turns that may be sent together with `prompt`; the model forgets the older ones as well. */
function newest(turns, prompt) {
  let room = limit - prompt.length;
  const from = turns.findLastIndex(([asked, answered]) => (room -= asked.length + answered.length) < 0) + 1;
  return turns.slice(from);
}

/**
 * Have the model write on from `prompt` after the turns `earlier`; gives whether it did. put(text, written): show the
 * document with that text.
 */
async function write(label, prompt, earlier, put) {
  if (work) return;
  work = new AbortController();
  const { signal } = work, before = doc, state = now(), caret = field.selectionEnd;
  const body = { prompt, turns: newest(earlier, prompt), settings: settings.asked, seed: settings.seed };
  let raw = "", text = "", words = "완료했습니다.", failed = null, read = 0, ended = null, { written } = doc;
  paper.hold(true);
  put(text, written);
  lock();
  $("status").textContent = "쓰는 중입니다.";
  const drawing = setInterval(() => put(text, written), 50); // a fast model writes faster than a browser draws
  for await (const event of ask("write", body, signal)) {
    if (event.error) failed = event;
    if (event.waiting) $("status").textContent = `앞에 ${event.waiting}개가 대기 중입니다.`;
    if (event.seed) {
      $("status").textContent = "쓰는 중입니다.";
      settings.write({ seed: event.seed });
      header.name(event.model);
      words = event.notice ?? words;
      read = event.read;
      written = { commands: event.commands, used: read };
    }
    if (event.tokens) {
      header.count(event.tokens, event.seconds);
      written = { ...written, used: read + event.tokens };
    }
    text = asInField((raw += event.text ?? ""));
    ended = event.ended ?? ended;
  }
  if (ended === null && !signal.aborted) failed ??= { error: GONE }; // a server that closes breaks off without a word
  clearInterval(drawing);
  paper.hold(false);
  work = null;
  const nothing = start.chat ? !text.trim() : !text;
  if (nothing) show(before, caret);
  else {
    history.record(label, { state });
    put(text, written);
  }
  lock();
  if (ended && nothing) words = ENDED_AT_ONCE;
  else if (ended && !start.chat) words += " 모델이 여기서 글을 끝냈습니다.";
  $("status").textContent = failed ? "" : signal.aborted ? "멈췄습니다." : words;
  $("heard").textContent = text.trim();
  if (!touched) field.focus();
  if (failed?.field) settings.showError(failed, true);
  else if (failed) fail(failed.error);
  return !nothing;
}

/** Bring the page in line with whether a text is being written. */
function lock() {
  if (work) {
    suggestions.hide();
    fail("");
    settings.clearErrors();
  }
  field.readOnly = Boolean(work);
  $("write").hidden = Boolean(work);
  $("stop").hidden = !work;
  chat.lock(Boolean(work));
  changed();
}

/** Write what continues the text before `from` in the place of [from, to). */
function insert(label, from, to) {
  const head = doc.text.slice(0, from), tail = doc.text.slice(to), { marks } = doc;
  write(label, head, [], (text, written) => {
    const end = from + text.length, made = { from, to, size: text.length };
    const its = { text: head + text + tail, marks: mark(change(marks, made), from, end), last: [from, end], written };
    show({ ...doc, ...its }, end);
  });
}

/** Ask `prompt` after the turns `earlier`; `draft` is what is in the field meanwhile. */
function answer(label, prompt, earlier, draft = doc) {
  return write(label, prompt, earlier, (text, written) => {
    show({ ...draft, turns: [...earlier, [prompt, text]], written }, draft.text.length);
  });
}

/** What suggestions go on with; null where one is not at the end of a word. */
function toContinue() {
  const [at, prompt] = [field.selectionEnd, doc.text.slice(0, field.selectionEnd)];
  const within = field.selectionStart !== at || /^[\p{L}\p{N}]/u.test(doc.text.slice(at, at + 2));
  if (!start.suggests || !settings.read().suggesting || work || within || !prompt.trim()) return null;
  return { prompt, turns: newest(doc.turns, prompt), settings: settings.asked };
}

function take(suggested) {
  const text = asInField(suggested);
  suggestions.hide();
  paper.endComposition();
  field.focus();
  const from = field.selectionEnd, end = from + text.length, made = { from, to: from, size: text.length };
  history.record("추천 넣기");
  const marks = mark(change(doc.marks, made), from, end), last = doc.last && follow(doc.last, made);
  show({ ...doc, text: doc.text.slice(0, from) + text + doc.text.slice(from), marks, last }, end);
  suggestions.later();
}

function step(name) {
  if (work) return;
  suggestions.hide();
  const label = history[name]();
  changed();
  $("status").textContent = label ? `${name === "undo" ? "취소했습니다" : "다시 실행했습니다"}: ${label}` : "";
}

$("write").onclick = () => {
  paper.endComposition();
  if (!start.chat) return insert("이어 쓰기", field.selectionEnd, field.selectionEnd);
  if (doc.text.trim()) answer("보내기", doc.text, doc.turns, { ...doc, text: "", marks: [] });
};
$("again").onclick = () => {
  if (start.chat) answer("다시 답하기", doc.turns.at(-1)[0], doc.turns.slice(0, -1));
  else insert("다시 쓰기", ...doc.last);
};
$("stop").onclick = () => work?.abort();
$("undo").onclick = () => step("undo");
$("redo").onclick = () => step("redo");
$("new").onclick = () => {
  history.record("새 대화");
  show({ ...doc, turns: [], written: null }, field.selectionEnd);
  $("status").textContent = "새 대화를 시작했습니다.";
};

listenToKeys(field, {
  sendsByEnter: start.chat,
  suggestions,
  onSend: () => $("write").click(),
  onEscape: () => (work ? work.abort() : suggestions.hide()),
  onUndo: () => step("undo"),
  onRedo: () => step("redo"),
});
document.addEventListener("selectionchange", () => {
  if (suggestions.shown && toContinue()?.prompt !== suggestions.prompt) suggestions.hide();
});

createFiles({ now: toKeep, chat: start.chat, limit, tooLong, onForget: store.forget }, (state) => {
  history.record("가져오기");
  settings.write(state.settings ?? {});
  const { settings: _, ...text } = state;
  show({ ...doc, ...text, written: null }, state.text.length);
});

const { settings: values, start: then, ...kept } = store.load();
const typed = field.value; // before this script had come
if (then?.values === first.values) settings.write(values);
show(kept, kept.text.length);
if (start.prompt && start.prompt !== then?.prompt) {
  if (kept.text) history.record("--prompt의 글");
  show({ ...doc, text: start.prompt, marks: [], last: null }, start.prompt.length);
}
if (typed && typed !== doc.text) show({ ...doc, text: doc.text + typed }, doc.text.length + typed.length);
document.body.dataset.ready = "";
