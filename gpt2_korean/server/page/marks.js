// Which characters of a text the model wrote: marks, a sorted list of [from, to) that neither overlap nor touch.
// A change puts `size` characters in the place of [from, to). Nothing here knows the page.

/** A text as a field gives it back: with line ends of one kind. */
export function asInField(text) {
  return text.replace(/\r\n?/g, "\n");
}

/** The beginning of a text, at most so many units of it long and without half a character at its end. */
export function clip(text, most) {
  const start = text.slice(0, most);
  return start.length < text.length ? start.replace(/[\ud800-\udbff]$/, "") : start;
}

/** What made `after` of `before`, by whoever typed: the caret then stands behind it. */
export function difference(before, after, caret) {
  const most = Math.min(before.length, after.length);
  let tail = 0;
  while (tail < Math.min(most, after.length - caret) && before.at(-1 - tail) === after.at(-1 - tail)) tail++;
  let from = 0;
  while (from < most - tail && before[from] === after[from]) from++;
  return { from, to: before.length - tail, size: after.length - tail - from };
}

/** The marks after a change; what it put there is not the model's. */
export function change(marks, { from, to, size }) {
  const shift = size - (to - from);
  const kept = marks.flatMap(([start, end]) => [
    [start, Math.min(end, from)],
    [Math.max(start, to) + shift, end + shift],
  ]);
  return join(kept.filter(([start, end]) => start < end));
}

/** The marks and one more. */
export function mark(marks, from, to) {
  return join([...marks, [from, to]].filter(([start, end]) => start < end));
}

function join(marks) {
  const joined = [];
  for (const [start, end] of marks.sort((one, other) => one[0] - other[0])) {
    const last = joined.at(-1);
    if (last && start <= last[1]) last[1] = Math.max(last[1], end);
    else joined.push([start, end]);
  }
  return joined;
}

/** The place of what was written last after a change: what lies behind the change, if that was made within it. */
export function follow(place, { from, to, size }) {
  const shift = size - (to - from);
  const [start, end] = place;
  if (from >= end) return place;
  if (to <= start) return [start + shift, end + shift];
  return [from + size, Math.max(from + size, end + shift)];
}
