// What stands in more than one page about a run: its status, its changes, its hyperparameters.

import { el } from "./dom.js";
import { value } from "./format.js";

/** Status -> colour; the same as in the report. */
export const STATUS_COLOURS = {
  finished: "#2b7fc3", paused: "#56b4e9", running: "#009e73", pending: "#8a9099", interrupted: "#e69f00", crashed: "#e69f00",
  diverged: "#d55e00", failed: "#cc79a7", stopped: "#8a9099",
};

/** A run's status with its mark. */
export function statusMark(status) {
  return el("span", { class: "status", style: { "--status": STATUS_COLOURS[status] ?? "#8a9099" } }, status);
}

/** What a fork changed: [{name, before, now}], before or now undefined where one side does not have it. */
export function changesBetween(parent, child) {
  const names = [...new Set([...Object.keys(parent ?? {}), ...Object.keys(child ?? {})])];
  return names
    .filter((name) => JSON.stringify(parent?.[name]) !== JSON.stringify(child?.[name]))
    .map((name) => ({ name, before: parent?.[name], now: child?.[name] }));
}

/** "lr 0.001 -> 0.0005" with an arrow. */
export function changeText({ name, before, now }) {
  if (before === undefined) return `${name} = ${value(now)}`;
  return now === undefined ? `${name} removed (was ${value(before)})` : `${name} ${value(before)} \u2192 ${value(now)}`;
}

/** Hyperparameters as a table; those that differ from the parent's are marked, with what they were. */
export function hyperparameterTable(hyperparameters, parent) {
  const changed = new Map(parent ? changesBetween(parent, hyperparameters).map((change) => [change.name, change]) : []);
  const names = [...new Set([...Object.keys(hyperparameters), ...changed.keys()])];
  if (!names.length) return el("p", { class: "soft" }, "This run has no hyperparameters.");
  return el("table", { class: "pairs" }, el("tbody", {}, names.map((name) => {
    const change = changed.get(name);
    const now = name in hyperparameters ? value(hyperparameters[name]) : "\u2013";
    const was = change && el("span", { class: "was" }, change.before === undefined ? " new" : ` was ${value(change.before)}`);
    return el("tr", { class: change ? "changed" : null }, el("th", { scope: "row" }, name), el("td", { title: String(hyperparameters[name]) }, now, was));
  })));
}
