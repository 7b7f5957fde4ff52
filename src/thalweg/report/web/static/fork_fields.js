// The hyperparameters of a fork: an input each, with the old value beside it. Only what differs is sent.

import { el } from "./dom.js";
import { number, value as written } from "./format.js";

/**
 * Inputs for hyperparameters. space: name -> a dimension as in a study's configuration, or a fixed value.
 * Returns {element, changes()}: the changed ones by name; throws an Error that names what cannot be read.
 */
export function forkFields(hyperparameters, space) {
  const names = Object.keys(hyperparameters).filter((name) => Object.hasOwn(space, name));
  if (!names.length) return { element: el("p", { class: "soft" }, "There are none that can be changed."), changes: () => ({}) };
  const fields = names.map((name) => field(name, hyperparameters[name], space[name]));
  return {
    element: el("div", { class: "fields" }, fields.map(({ nodes }) => nodes)),
    changes: () => Object.fromEntries(fields.map(({ name, read }) => [name, read()]).filter(([, now]) => now !== undefined)),
  };
}

function field(name, old, dimension) {
  const options = optionsOf(old, dimension);
  const input = options ? choice(options, old) : el("input", { type: "text", value: plain(old), spellcheck: "false", autocomplete: "off" });
  input.setAttribute("aria-label", name);
  const was = el("span", { class: "was", title: `${plain(old)}; ${hint(old, dimension)}` }, hint(old, dimension));
  const read = () => (options ? readChoice(options, input, old) : readText(name, input.value, old, dimension));
  input.addEventListener("input", () => {
    let [now, wrong] = [undefined, false];
    try {
      now = read();
    } catch {
      wrong = true;
    }
    input.setAttribute("aria-invalid", String(wrong));
    input.classList.toggle("changed-field", now !== undefined);
  });
  return { name, nodes: [el("label", { title: name }, name), input, was], read };
}

/** A value with all its digits, in the shorter of the two ways to write a number. */
function plain(given) {
  if (typeof given !== "number") return String(given);
  const [usual, powers] = [String(given), given.toExponential()];
  return powers.length < usual.length ? powers : usual;
}

function optionsOf(old, dimension) {
  if (typeof old === "boolean") return [true, false];
  const options = dimension?.choice;
  if (!Array.isArray(options)) return null;
  return options.includes(old) ? options : [...options, old];
}

function choice(options, old) {
  return el("select", { value: String(options.indexOf(old)) }, options.map((option, index) => el("option", { value: String(index) }, written(option))));
}

function readChoice(options, input, old) {
  const now = options[Number(input.value)];
  return now === old ? undefined : now;
}

function readText(name, text, old, dimension) {
  const trimmed = text.trim();
  if (typeof old === "string") return text === old ? undefined : text;
  const now = trimmed === "" ? NaN : Number(trimmed);
  if (!Number.isFinite(now)) throw new Error(`${name} = ${trimmed || "nothing"} must be a finite number, such as ${plain(old)}.`);
  if (dimension?.integer && !Number.isInteger(now)) throw new Error(`${name} = ${trimmed} must be a whole number.`);
  if (dimension?.log && now <= 0) throw new Error(`${name} = ${trimmed} must be above zero: it is searched by its logarithm.`);
  return now === old ? undefined : now;
}

/** The old value, and the range that is searched. */
function hint(old, dimension) {
  const range = [dimension?.log, dimension?.linear, dimension?.integer].find(Array.isArray);
  const searched = range?.length === 2 ? `, ${number(range[0])} to ${number(range[1])}` : "";
  return `was ${written(old)}${searched}`;
}
