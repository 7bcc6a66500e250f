/**
 * What can be undone and done again. A state is whatever `now()` gives and `show(state)` shows.
 *
 * record(label, options): a change named `label` comes next; call it before, or give it the `state` that stood then.
 * Changes of one `group` that follow each other within a second are one; with `joins` it is one with the last.
 */
export function createHistory(now, show, most = 300) {
  const past = [], future = [];
  let group = null, time = 0;

  function move(from, to) {
    const entry = from.pop();
    if (!entry) return null;
    to.push({ label: entry.label, state: now() });
    group = null;
    show(entry.state);
    return entry.label;
  }

  return {
    record(label, { group: its = null, joins = false, state = now() } = {}) {
      const follows = joins || (its && its === group && Date.now() - time < 1000);
      [group, time] = [its, Date.now()];
      future.length = 0;
      if (!follows) past.push({ label, state });
      if (past.length > most) past.shift();
    },
    pause() { group = null; }, // what comes next is a change of its own
    undo: () => move(past, future),
    redo: () => move(future, past),
    get canUndo() { return past.length > 0; },
    get canRedo() { return future.length > 0; },
  };
}
