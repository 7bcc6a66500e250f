import { ask } from "./ask.js";
import { $, make } from "./elements.js";

/**
 * Ways to go on, shown below the text when one pauses at the end of a word.
 *
 * question(): {prompt, turns, settings} for the server, null where nothing is to be suggested.
 * onTake(text): one of them is chosen. onError(event): the server has refused.
 */
export function createSuggestions(question, onTake, onError) {
  let waiting, asking, texts = [], chosen = 0, prompt = "";

  async function find() {
    const body = question();
    if (!body) return;
    asking = new AbortController();
    for await (const event of ask("suggest", body, asking.signal)) {
      if (event.error) onError(event);
      if (event.suggestions?.length && question()?.prompt === body.prompt) show(event.suggestions, body.prompt);
    }
  }

  function show(found, its = "") {
    [texts, prompt] = [found, its];
    const buttons = texts.map((text) => {
      const button = make("button");
      const [sign, heard] = glue(text, prompt);
      button.append(make("span", "glue", sign), text.trim());
      button.firstChild.ariaHidden = "true";
      button.setAttribute("aria-label", `${heard}${text.trim()}`);
      button.onclick = () => onTake(text);
      return button;
    });
    $("suggestions").replaceChildren(...buttons.map((button) => {
      const item = make("li");
      item.append(button);
      return item;
    }));
    $("keys").classList.toggle("none", !texts.length);
    choose(0);
    if (!texts.length) return ($("heard").textContent = "");
    const all = buttons.map((button) => button.ariaLabel).join(", ");
    $("heard").textContent = `이어질 말 ${texts.length}개: ${all}. Tab으로 첫째를 넣습니다.`;
  }

  function choose(index) {
    const buttons = $("suggestions").querySelectorAll("button");
    chosen = (index + buttons.length) % (buttons.length || 1);
    buttons.forEach((button, place) => (button.ariaCurrent = place === chosen ? "true" : null));
    return buttons[chosen]?.ariaLabel;
  }

  function hide() {
    clearTimeout(waiting);
    asking?.abort();
    if (texts.length) show([]);
  }

  return {
    hide,
    later() {
      hide();
      waiting = setTimeout(find, 400);
    },
    takeChosen: () => onTake(texts[chosen]),
    next(by) { $("heard").textContent = choose(chosen + by); },
    get shown() { return texts.length > 0; },
    get prompt() { return prompt; }, // what those that are shown go on with
  };
}

/** How a text joins what it follows, as it is seen and heard: a word of its own, or the rest of one. */
function glue(text, prompt) {
  if (text.startsWith(" ")) return ["␣", "띄고 "];
  return prompt === "" || /\s$/.test(prompt) ? ["", ""] : ["…", "붙여서 "];
}
