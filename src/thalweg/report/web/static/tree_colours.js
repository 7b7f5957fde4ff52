// The fork tree's colours: by status, or by a metric's last value.

import { toNumber } from "./api.js";
import { el } from "./dom.js";
import { number } from "./format.js";
import { STATUS_COLOURS } from "./run_facts.js";

/** Dark to light (Viridis, without its ends, which vanish on one ground or the other). */
const SCALE = ["#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39"];
export const NO_VALUE = "#8a9099";

/** The last value of a metric; NaN where there is none. */
export const lastValue = (run, metric) => toNumber(run.latest?.[metric]?.[1]);

/**
 * colourOf(run) and a legend's nodes. by: "" (the status) or a metric's name.
 * A metric's colours span the values from the 5th to the 95th percentile: one run that has diverged does not make all the others alike.
 */
export function treeColours(runs, by) {
  if (!by) {
    const present = [...new Set(runs.map(({ status }) => status))];
    return {
      colourOf: ({ status }) => STATUS_COLOURS[status] ?? NO_VALUE,
      legend: present.map((status) => el("span", { class: "status", style: { "--status": STATUS_COLOURS[status] ?? NO_VALUE } }, status)),
    };
  }
  const values = runs.map((run) => lastValue(run, by)).filter(Number.isFinite).sort((a, b) => a - b);
  const at = (share) => values[Math.round(share * (values.length - 1))];
  const [low, high] = [at(0.05), at(0.95)];
  const shareOf = (value) => (high > low ? Math.min(Math.max((value - low) / (high - low), 0), 1) : 0.5);
  return {
    colourOf: (run) => (Number.isFinite(lastValue(run, by)) ? between(shareOf(lastValue(run, by))) : NO_VALUE),
    legend: values.length
      ? [el("span", {}, number(low, 3)), el("span", { class: "tree-scale", style: { background: `linear-gradient(to right, ${SCALE.join(", ")})` } }), el("span", {}, number(high, 3))]
      : [el("span", {}, "no values yet")],
  };
}

function between(share) {
  const place = share * (SCALE.length - 1);
  const index = Math.min(Math.floor(place), SCALE.length - 2);
  const part = (colour, from) => parseInt(colour.slice(from, from + 2), 16);
  const mix = (from) => Math.round(part(SCALE[index], from) + (place - index) * (part(SCALE[index + 1], from) - part(SCALE[index], from)));
  return `rgb(${mix(1)}, ${mix(3)}, ${mix(5)})`;
}
