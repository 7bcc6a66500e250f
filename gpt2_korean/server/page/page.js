// The page to write with. All that is written is put in as text, never as HTML; nothing is loaded from elsewhere.

const $ = (id) => document.getElementById(id);
const field = $("text");
const start = await (await fetch("settings")).json();

let turns = []; // of a conversation: [what was asked, what was answered]
let last = null; // what was written last, to write it again: {prompt, turns}
let work = null; // the AbortController of the text under way
let asking = null; // and that of the suggestions
let chosen = 0; // which suggestion Tab takes
let waiting; // the timer until the next suggestions

// Settings: a slider and a field for the same value each. The field takes values between and beyond the slider's.
for (const { name, words, value, least, most, step } of start.sliders) {
  const row = $("slider").content.cloneNode(true);
  const [number, range] = row.querySelectorAll("input");
  number.id = name;
  row.querySelector("label").append(name);
  row.querySelector("label").htmlFor = name;
  row.querySelector("p").append(words);
  Object.assign(range, { min: least, max: most, step, value, ariaLabel: name });
  number.value = value;
  range.oninput = () => (number.value = range.value);
  number.oninput = () => (range.value = number.value);
  $("sliders").append(row);
}
$("seed-words").append(start.seed.words);
$("seed").value = start.seed.value ?? "";
$("fixed").checked = start.seed.value !== null;
$("seed").oninput = () => ($("fixed").checked = $("seed").value !== "");
field.value ||= start.prompt; // one may have begun to type
field.maxLength = start.characters;
if (start.chat) {
  field.rows = 3;
  field.placeholder = "여기에 말을 걸어 보세요.";
  $("write").textContent = "보내기";
  $("new").hidden = false;
}
if (!start.suggests) {
  $("guide").textContent = "말을 걸면 답합니다. 모델이 지어낸 답이므로 사실과 다를 수 있습니다.";
  $("suggesting").checked = false;
  $("suggesting").parentElement.hidden = true;
}

function settings() {
  return Object.fromEntries(start.sliders.map(({ name }) => [name, $(name).value]));
}

/** What the server answers: an event a line, as they come. Ends without an error when `signal` is aborted. */
async function* ask(path, body, signal) {
  try {
    const response = await fetch(path, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
    });
    if (!response.ok) return yield await response.json();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) yield JSON.parse(line);
    }
  } catch {
    if (!signal.aborted) yield { error: "generate.py에 닿지 않습니다. 터미널에서 돌고 있는지 보세요." };
  }
}

async function write(prompt, earlier) {
  const show = start.chat ? showTurn(prompt) : showText(prompt);
  last = { prompt, turns: earlier };
  work = new AbortController();
  const signal = work.signal;
  lock(true);
  let text = "", words = "", failed = false;
  $("status").textContent = "쓰는 중입니다.";
  const drawing = setInterval(() => show(text), 50); // a fast model writes faster than a browser draws
  const seed = $("fixed").checked ? $("seed").value : null;
  for await (const event of ask("write", { prompt, turns: earlier, settings: settings(), seed }, signal)) {
    if (event.error) [words, failed] = [event.error, true];
    if (event.waiting) $("status").textContent = `앞의 ${event.waiting}개를 기다립니다.`;
    if (event.seed) {
      $("seed").value = event.seed;
      $("command").textContent = event.command ?? ""; // none asks with earlier turns
      $("sharing").hidden = !event.command;
      words = event.notice ?? "다 썼습니다.";
      $("status").textContent = "쓰는 중입니다.";
    }
    text += event.text ?? "";
  }
  clearInterval(drawing);
  show(text);
  turns = failed ? earlier : [...earlier, [prompt, text]];
  lock(false);
  $("status").textContent = signal.aborted ? "멈췄습니다." : words;
  field.focus();
}

/** Where the text that continues `prompt` is shown: behind it, in the field. */
function showText(prompt) {
  field.value = prompt;
  return (text) => {
    field.value = prompt + text;
    field.scrollTop = field.scrollHeight;
  };
}

/** Where the answer to `prompt` is shown: below it, among the turns. */
function showTurn(prompt) {
  const answer = document.createElement("p");
  const question = answer.cloneNode();
  question.className = "asked";
  question.textContent = prompt;
  answer.className = "answered";
  $("turns").append(question, answer);
  field.value = "";
  return (text) => (answer.textContent = text.trimStart());
}

function lock(writing) {
  hideSuggestions();
  field.readOnly = writing;
  $("write").hidden = writing;
  $("stop").hidden = !writing;
  $("again").disabled = $("new").disabled = writing;
}

$("write").onclick = () => {
  if (field.value.trim() || !start.chat) write(field.value, start.chat ? turns : []);
};
$("stop").onclick = () => work.abort();
$("again").onclick = () => {
  while ($("turns").children.length > 2 * last.turns.length) $("turns").lastChild.remove();
  write(last.prompt, last.turns);
};
$("new").onclick = () => {
  turns = [];
  $("turns").replaceChildren();
  $("again").disabled = true;
};
$("copy").onclick = async () => {
  getSelection().selectAllChildren($("command"));
  await navigator.clipboard?.writeText($("command").textContent); // browsers have it for local pages only
  $("copy").textContent = navigator.clipboard ? "복사했습니다" : "고른 것을 복사하세요";
};

// Suggestions: asked for when one pauses at the end of the text.
async function suggest() {
  const atEnd = field.selectionStart === field.value.length;
  if (!$("suggesting").checked || !atEnd || !field.value.trim() || field.readOnly) return;
  asking = new AbortController();
  const body = { prompt: field.value, turns, settings: settings() };
  for await (const { suggestions } of ask("suggest", body, asking.signal)) if (suggestions) showSuggestions(suggestions);
}

function hideSuggestions() {
  clearTimeout(waiting);
  asking?.abort();
  showSuggestions([]);
}

function showSuggestions(texts) {
  chosen = 0;
  $("suggestions").replaceChildren(...texts.map((text) => {
    const button = document.createElement("button");
    button.textContent = text.trim();
    button.role = "option";
    button.tabIndex = -1;
    button.onclick = () => take(text);
    return button;
  }));
  $("keys").classList.toggle("none", texts.length === 0);
  choose(0);
}

function choose(index) {
  const buttons = [...$("suggestions").children];
  chosen = index % (buttons.length || 1);
  buttons.forEach((button, place) => (button.ariaSelected = place === chosen));
}

function take(text) {
  field.blur(); // ends the syllable that is being composed, which would be typed once more behind what we put in
  field.focus();
  field.setRangeText(text, field.value.length, field.value.length, "end");
  field.scrollTop = field.scrollHeight;
  field.dispatchEvent(new Event("input"));
}

field.oninput = () => {
  hideSuggestions();
  waiting = setTimeout(suggest, 400);
};
field.onkeydown = (event) => {
  const suggested = $("suggestions").children;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey || (start.chat && !event.shiftKey && !event.isComposing))) {
    event.preventDefault();
    if (!field.readOnly) $("write").click();
  } else if (event.key === "Escape") {
    field.readOnly ? work.abort() : hideSuggestions();
  } else if (event.key === "Tab" && suggested.length) {
    event.preventDefault();
    event.shiftKey ? choose(chosen + 1) : suggested[chosen].click();
  }
};
