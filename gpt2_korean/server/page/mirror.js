import { make } from "./elements.js";

/**
 * The layer behind a field: the same text, invisible, with a line under what the model wrote. It is a block for each
 * line, and those that have changed alone are made anew: a long text would be laid out for each letter otherwise.
 */
export function createMirror(layer) {
  let lines = [], keys = [];

  function draw(text, marks) {
    lines = text.split("\n");
    let from = 0;
    const marked = lines.map((line) => {
      const own = marks.filter(([start, end]) => start < from + line.length && end > from);
      const cut = own.map(([start, end]) => [Math.max(start - from, 0), Math.min(end - from, line.length)]);
      from += line.length + 1;
      return cut;
    });
    const wanted = lines.map((line, index) => `${line}\n${marked[index]}`);
    let head = 0, tail = 0;
    while (head < Math.min(wanted.length, keys.length) && wanted[head] === keys[head]) head++;
    while (tail < Math.min(wanted.length, keys.length) - head && wanted.at(-1 - tail) === keys.at(-1 - tail)) tail++;
    for (let count = keys.length - head - tail; count > 0; count--) layer.children[head].remove();
    const blocks = lines.slice(head, lines.length - tail).map((line, index) => block(line, marked[head + index]));
    if (head < layer.children.length) layer.children[head].before(...blocks);
    else layer.append(...blocks);
    keys = wanted;
  }

  function block(line, marks) {
    const element = make("div");
    let done = 0;
    const put = (tag, end) => {
      if (end > done) element.append(make(tag, "", line.slice(done, end)));
      done = end;
    };
    for (const [start, end] of marks) {
      put("span", start);
      put("mark", end);
    }
    put("span", line.length);
    if (!line) element.append(make("br")); // it has its height, too
    return element;
  }

  /** Where the character before `at` stands: {top, bottom} in pixels from the top of the layer. */
  function place(at) {
    let index = 0, left = at;
    while (index < lines.length - 1 && left > lines[index].length) left -= lines[index++].length + 1;
    const range = document.createRange();
    range.selectNodeContents(layer.children[index]);
    for (const { firstChild } of layer.children[index].children) {
      if (firstChild && left <= firstChild.length) {
        range.setStart(firstChild, Math.max(left - 1, 0));
        range.setEnd(firstChild, Math.max(left, 1));
        break;
      }
      left -= firstChild?.length ?? 0;
    }
    const rect = [...range.getClientRects()].at(-1) ?? layer.children[index].getBoundingClientRect();
    const { top } = layer.getBoundingClientRect();
    return { top: rect.top - top, bottom: rect.bottom - top };
  }

  return { draw, place };
}
