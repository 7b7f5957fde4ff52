// The sections of a run's page: each takes the run, as /api/runs/ID gives it, and returns its element.

import { el, link, runPath, snippet } from "./dom.js";
import { ago, bytes, count, duration, moment, number, value } from "./format.js";
import { statusMark } from "./run_facts.js";

/** The line under the heading. */
export function metaLine(run, unit) {
  const length = run.started ? (run.ended ?? Date.now() / 1000) - run.started : null;
  return el("p", { class: "meta" },
    el("span", {}, el("b", {}, number(run.step)), run.horizon > run.step ? ` of ${number(run.horizon)} ${unit}` : ` ${unit}`),
    run.score !== null && run.score !== undefined && el("span", {}, "result ", el("b", {}, value(run.score))),
    run.parent && el("span", {}, "fork of ", link(runPath(run.parent), run.parent), ` at ${number(run.fork_step)}`),
    run.waiting_parent && el("span", {}, `its parent ${run.waiting_parent} is not there yet`),
    el("span", { title: moment(run.created) }, `created ${ago(run.created)}`),
    length !== null && el("span", {}, run.ended ? `took ${duration(length)}` : `for ${duration(length)}`),
    run.cost_seconds !== null && el("span", {}, `device time ${duration(run.cost_seconds)}`),
    run.name && el("span", {}, run.id));
}

export function errorSection(run) {
  if (!run.error) return null;
  const lines = run.error.trimEnd().split("\n");
  const title = run.status === "diverged" ? "Why it diverged" : "The error that ended it";
  if (lines.length === 1) return el("section", { class: "card" }, el("h2", {}, title), el("p", { class: "problem" }, lines[0]));
  return el("section", { class: "card" }, el("h2", {}, title), el("p", { class: "problem" }, lines[lines.length - 1]),
    el("details", {}, el("summary", {}, "Traceback"), el("pre", {}, run.error)));
}

export function lineageSection(run) {
  const { lineage, children } = run;
  if (lineage.length < 2 && !children.length) {
    return el("p", { class: "soft" }, "No other run belongs to it yet: it was begun from scratch, and nothing was forked from it.");
  }
  // Of a thousand ancestors, the first and the nearest.
  const shown = lineage.length > 14 ? [...lineage.slice(0, 2), null, ...lineage.slice(-10)] : lineage;
  return el("div", {},
    lineage.length > 1 && [el("h3", {}, "Lineage"), el("table", { class: "pairs" }, el("tbody", {}, shown.map((entry, index) => entry === null
      ? el("tr", {}, el("td", { colspan: 2, class: "soft" }, `${lineage.length - 12} more`))
      : el("tr", {}, el("th", { scope: "row" }, entry.run === run.id ? "this run" : link(runPath(entry.run), entry.run)), el("td", {}, index ? `from ${number(entry.from_step)}` : "from scratch"))))),
    ],
    children.length > 0 && [el("h3", {}, count(children.length, "fork")), el("table", { class: "pairs" }, el("tbody", {}, children.slice(0, 100).map((child) =>
      el("tr", {}, el("th", { scope: "row" }, link(runPath(child.id), child.name ? `${child.name} (${child.id})` : child.id)), el("td", {}, `at ${number(child.fork_step)} `, statusMark(child.status)))))),
      children.length > 100 && el("p", { class: "soft" }, `and ${children.length - 100} more`)]);
}

export function filesSection(run) {
  if (!run.files.length) return el("p", { class: "soft" }, "No files. Keep one with ", el("code", {}, "run.save(path)"), ".");
  return el("table", { class: "files" }, el("tbody", {}, run.files.map((file) => el("tr", {},
    el("td", {}, file.url ? el("a", { href: file.url, download: true }, file.name) : el("span", { title: "Only its place is remembered: it was not copied" }, file.name)),
    el("td", { class: "num" }, file.step === null ? "" : number(file.step)), el("td", { class: "num" }, bytes(file.num_bytes)),
    el("td", { class: "soft" }, file.run === run.id ? "" : ["from ", link(runPath(file.run), file.run)])))));
}

export function checkpointsSection(run, unit) {
  if (!run.checkpoints.length) return el("p", { class: "soft" }, "No checkpoints are kept of this run.");
  return el("table", {}, el("thead", {}, el("tr", {}, el("th", { class: "num" }, unit), el("th", { class: "num" }, "Size"))),
    el("tbody", {}, run.checkpoints.slice(-50).map((point) => el("tr", {}, el("td", { class: "num" }, number(point.step)), el("td", { class: "num" }, bytes(point.num_bytes))))));
}

const COSTS = [["device_seconds", "Device time", duration], ["seconds", "Time", duration], ["tokens", "Tokens", number], ["samples", "Samples", number], ["flops", "FLOPs", number]];

export function costSection(run) {
  const kinds = Object.entries(run.cost);
  const columns = COSTS.filter(([field]) => kinds.some(([, cost]) => cost[field] > 0));
  if (!kinds.length || !columns.length) return el("p", { class: "soft" }, "Nothing was entered in a ledger for this run.");
  return el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "Kind"), columns.map(([, title]) => el("th", { class: "num" }, title)))),
    el("tbody", {}, kinds.map(([kind, cost]) => el("tr", {}, el("th", { scope: "row" }, kind), columns.map(([field, , text]) => el("td", { class: "num" }, cost[field] ? text(cost[field]) : "\u2013"))))));
}

/** Code version, environment and the like: nested facts are flattened, long ones folded. */
export function factsSection(run) {
  const rows = flat(run.facts);
  if (!rows.length) return el("p", { class: "soft" }, "No code version or environment was recorded.");
  return el("table", { class: "pairs" }, el("tbody", {}, rows.map(([name, fact]) => {
    const text = value(fact);
    const shown = text.length > 160 || text.includes("\n") ? el("details", {}, el("summary", {}, `${text.slice(0, 60)}\u2026`), el("pre", {}, text)) : text;
    return el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, shown));
  })));
}

function flat(facts, prefix = "") {
  return Object.entries(facts).flatMap(([name, fact]) =>
    fact !== null && typeof fact === "object" && !Array.isArray(fact) ? flat(fact, `${prefix}${name}.`) : [[prefix + name, fact]]);
}

export function snippetSection(run) {
  return el("details", {}, el("summary", {}, "Fork this run from Python"), snippet(run.snippet));
}

export function notesList(run) {
  if (!run.notes.length) return el("p", { class: "soft" }, "No notes yet.");
  return el("div", {}, run.notes.map((note) => el("div", { class: "note-item" }, el("p", {}, note.text), el("span", { class: "soft small", title: moment(note.created) }, [note.author, ago(note.created)].filter(Boolean).join(", ")))));
}
