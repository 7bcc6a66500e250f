import { $, make } from "./elements.js";

/**
 * The settings beside the text: presets, and a slider and a field for each value. The field takes values between and
 * beyond the slider's.
 *
 * start: what /settings answers. onChange(before, name): one has changed something; before: all values until now.
 */
export function createSettings(start, onChange) {
  const names = start.sliders.map(({ name }) => name);
  const ranges = {};
  for (const { name, label, words, value, least, most, step } of start.sliders) {
    const row = $("slider").content.cloneNode(true);
    const [number, range] = row.querySelectorAll("input");
    const [error, help] = row.querySelectorAll("p");
    row.querySelector("label").append(label, " ", make("small", "", name));
    row.querySelector("label").htmlFor = number.id = name;
    [error.id, help.id] = [`${name}-error`, `${name}-words`];
    help.append(words);
    number.setAttribute("aria-describedby", `${error.id} ${help.id}`);
    Object.assign(range, { min: least, max: most, step, value, ariaLabel: `${label} 슬라이더` });
    ranges[name] = range;
    number.value = value;
    range.oninput = () => {
      number.value = range.value;
      changed(name);
    };
    number.oninput = () => changed(name);
    $("sliders").append(row);
  }
  for (const { name, values } of start.presets) {
    const label = make("label");
    const radio = Object.assign(make("input"), { type: "radio", name: "preset", value: name });
    radio.onchange = () => {
      for (const [key, value] of Object.entries(values)) $(key).value = value;
      changed("preset");
    };
    label.append(radio, name);
    $("presets").append(label);
  }
  $("seed").value = start.seed ?? "";
  $("fixed").checked = start.seed !== null;
  $("seed").oninput = () => {
    $("fixed").checked = $("seed").value !== "";
    changed("seed");
  };
  for (const name of ["fixed", "suggesting"]) $(name).onchange = () => changed(name);
  $("details").open = matchMedia("(min-width: 50rem)").matches;
  if (!start.suggests) $("suggesting").parentElement.hidden = true;

  let known = read();
  shape();

  function changed(name) {
    const before = known;
    known = read();
    shape();
    clearErrors();
    onChange(before, name);
  }

  /** Bring sliders and presets in line with the values. */
  function shape() {
    for (const name of names) ranges[name].value = known[name];
    start.presets.forEach(({ values }, index) => {
      const fits = Object.entries(values).every(([name, value]) => Number(known[name]) === value && known[name] !== "");
      $("presets").children[index].firstChild.checked = fits;
    });
  }

  function read() {
    const values = Object.fromEntries(names.map((name) => [name, $(name).value]));
    return { ...values, seed: $("seed").value, fixed: $("fixed").checked, suggesting: $("suggesting").checked };
  }

  function clearErrors() {
    for (const name of [...names, "seed"]) {
      $(name).ariaInvalid = null;
      $(`${name}-error`).textContent = "";
    }
  }

  return {
    read,
    clearErrors,
    write(values) {
      for (const name of [...names, "seed"]) if (name in values) $(name).value = values[name];
      for (const name of ["fixed", "suggesting"]) if (name in values) $(name).checked = values[name] === true;
      known = read();
      shape();
    },
    /** What a request has of them. */
    get asked() { return Object.fromEntries(names.map((name) => [name, known[name]])); },
    get seed() { return known.fixed && known.seed ? known.seed : null; }, // one that is still to be drawn is kept then
    /** Show beside its field what the server says of it. */
    showError({ field, error }, focus = false) {
      $("details").open = true;
      $(field).ariaInvalid = "true";
      $(`${field}-error`).textContent = `오류: ${error}`;
      if (focus) $(field).focus();
    },
  };
}
