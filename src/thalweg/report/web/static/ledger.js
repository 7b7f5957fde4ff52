// What a study has spent, against its budget.

import { el, empty, fill } from "./dom.js";
import { duration, number } from "./format.js";
import { drawPlot } from "./search_plots.js";

/** A large count in few digits: 1.74 M, 9.4 T. */
function large(amount) {
  const [size, unit] = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"]].find(([least]) => amount >= least) ?? [1, ""];
  return unit ? `${Number((amount / size).toPrecision(3))} ${unit}` : number(amount);
}

const WRITE = { seconds: duration, device_seconds: duration, runs: number, samples: large, tokens: large, flops: large };
const LIMITS = { seconds: "Time of the study", device_seconds: "Device time", runs: "Runs from scratch", samples: "Samples", tokens: "Tokens", flops: "FLOPs" };
const COSTS = [["device_seconds", "Device time"], ["seconds", "Time"], ["tokens", "Tokens"], ["samples", "Samples"], ["flops", "FLOPs"]];
const KINDS = {
  train: "Training", evaluate: "Evaluating", checkpoint: "Checkpoints", setup: "Setting up", repeated: "Training done again after a loss",
};

/** The budget's limits, the ledger by kind and over the runs, into root. Returns {update(project), close()}. */
export function drawLedger(root, { project, state }) {
  const limits = el("section", { class: "card" });
  const kinds = el("section", { class: "card" });
  const chart = el("section", { class: "card" });
  fill(root, el("div", { class: "columns" }, limits, kinds), chart);
  let plot = null;

  function update({ budget, ledger }) {
    fill(limits, el("h2", {}, "Budget"), limitBars(budget));
    fill(kinds, el("h2", {}, "Spent"), kindTable(ledger));
    plot?.refresh();
  }
  update(project);
  plot = drawPlot(chart, { project: project.name, kind: "ledger", state });
  return { update, close: () => plot.close() };
}

function limitBars({ limits, spent, left }) {
  const names = Object.keys(limits);
  if (!names.length) return empty("No limit is set", "The study ends when its strategy has nothing more to try.");
  return el("div", { class: "limits" }, names.map((name) => {
    const write = WRITE[name] ?? number;
    const share = Math.min(Math.max(spent[name] / limits[name], 0), 1);
    return el("div", {},
      el("div", { class: "limit-head" }, el("span", {}, LIMITS[name] ?? name), el("span", {}, `${write(spent[name])} of ${write(limits[name])}`)),
      el("div", { class: left[name] > 0 ? "limit-bar" : "limit-bar full", role: "meter", "aria-label": LIMITS[name] ?? name, "aria-valuemin": 0, "aria-valuemax": limits[name], "aria-valuenow": spent[name] }, el("div", { style: { width: `${100 * share}%` } })),
      el("span", { class: "soft small" }, left[name] > 0 ? `${write(left[name])} left` : "used up"));
  }));
}

function kindTable({ kinds, total }) {
  const columns = COSTS.filter(([field]) => total[field] > 0);
  if (!columns.length) return empty("Nothing was spent yet");
  const cells = (cost) => columns.map(([field]) => el("td", { class: "num", title: String(cost[field]) }, cost[field] ? WRITE[field](cost[field]) : "\u2013"));
  const used = Object.entries(kinds).filter(([, cost]) => columns.some(([field]) => cost[field] > 0));
  return el("div", { class: "wide" }, el("table", { class: "spent" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "For"), columns.map(([, title]) => el("th", { scope: "col", class: "num" }, title)))),
    el("tbody", {}, used.map(([kind, cost]) => el("tr", {}, el("th", { scope: "row" }, KINDS[kind] ?? kind), cells(cost))),
      el("tr", {}, el("th", { scope: "row" }, "In all"), cells(total)))));
}
