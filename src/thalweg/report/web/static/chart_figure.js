// What a chart shows, as a Plotly figure: a function of the curves and the view.

import { badRows, extent, markedForks, middleLine, partOf, rawLine, valueNear } from "./curve_data.js";
import { plotlyText } from "./dom.js";
import { duration, number } from "./format.js";
import { plotlyTemplate, themeColours } from "./plotly_loader.js";
import { ema, widthOf, windowLine } from "./smoothing.js";

const TOP_HEIGHT = 320;
const PANEL_HEIGHT = 150;
const GAP = 34;
const MARGIN = { l: 68, r: 20, t: 26, b: 46 };
/** Marks of forks are at least this share of the axis apart. */
const FORK_GAP = 0.015;
const MOST_FORK_LINES = 12;

/**
 * {data, layout} for Plotly.
 *
 * view: {metrics, x: {title, kind: "number" | "date"}, logX, logY, smooth, method, xRange: null | [from, to], yRanges: Map metric -> [low, high], fullRange, unit, inherited}.
 * drawn: [{metric, run, name, look, rows}], ordered; what lies on top comes last.
 */
export function figureOf(view, drawn) {
  const colours = themeColours();
  const data = [];
  const layout = frame(view, drawn, colours);
  view.metrics.forEach((metric, index) => {
    const panel = { x: "x", y: index ? `y${index + 1}` : "y", index };
    const mine = drawn.filter((line) => line.metric === metric);
    for (const line of mine) data.push(...linesOf(view, line, panel, mine.length));
    const marks = mine.flatMap((line) => badMarks(line, panel, view.metrics.length));
    data.push(...marks);
    if (index === 0) for (const line of mine) data.push(...forkMarks(view, line, panel, mine.length === 1));
  });
  return { data, layout };
}

/** The height in pixels of a chart with so many panels. */
export const heightOf = (numPanels) => MARGIN.t + TOP_HEIGHT + Math.max(numPanels - 1, 0) * (PANEL_HEIGHT + GAP) + MARGIN.b;

function frame(view, drawn, colours) {
  const num = Math.max(view.metrics.length, 1);
  const height = heightOf(num);
  const inside = height - MARGIN.t - MARGIN.b;
  const layout = {
    template: plotlyTemplate(), height, autosize: true, margin: MARGIN, showlegend: false, dragmode: "zoom", shapes: [], annotations: [],
    hovermode: drawn.length / num <= 6 ? "x unified" : "closest", hoverdistance: 30, hoversubplots: "axis",
    xaxis: { ...xAxis(view), anchor: num === 1 ? "y" : `y${num}`, domain: [0, 1], showspikes: false },
  };
  let top = inside;
  view.metrics.forEach((metric, index) => {
    const bottom = index ? top - PANEL_HEIGHT : top - TOP_HEIGHT;
    const domain = [Math.max(bottom, 0) / inside, top / inside];
    const name = index ? `yaxis${index + 1}` : "yaxis";
    layout[name] = { ...yAxis(view, metric, drawn), domain, anchor: "x", nticks: index ? 4 : 8 };
    // Not finite values stand at the upper edge of their panel, on an axis of its own.
    layout[`yaxis${num + index + 1}`] = { overlaying: index ? `y${index + 1}` : "y", anchor: "x", range: [0, 1], visible: false, fixedrange: true };
    layout.annotations.push({
      text: plotlyText(titleOf(metric, drawn)), xref: "paper", yref: "paper", x: 0, y: domain[1], xanchor: "left", yanchor: "bottom", showarrow: false,
      font: { size: 13, color: index ? colours.soft : colours.ink }, bgcolor: "rgba(0,0,0,0)", borderpad: 3,
    });
    top = bottom - GAP;
  });
  if (new Set(drawn.map(({ run }) => run)).size === 1) forkLines(view, drawn[0], layout, colours);
  return layout;
}

function titleOf(metric, drawn) {
  const bad = drawn.filter((line) => line.metric === metric).reduce((sum, { rows }) => sum + rows.bad.reduce((a, b) => a + b, 0), 0);
  return bad ? `${metric || "(no name)"} \u2014 ${number(bad)} not finite, marked at the edge` : metric || "(no name)";
}

function xAxis(view) {
  const axis = { title: { text: plotlyText(view.x.title) }, type: view.x.kind === "date" ? "date" : view.logX ? "log" : "linear" };
  if (view.x.kind === "number") axis.exponentformat = "none", axis.separatethousands = true;
  if (view.logX) axis.exponentformat = "power";
  const range = view.xRange ?? view.fullRange;
  if (!range) return { ...axis, autorange: true };
  let [from, to] = range;
  if (from === to) [from, to] = view.x.kind === "date" ? [from - 1000, to + 1000] : [from - 0.5, to + 0.5];
  // Some air around the whole curve, so that its first and last points are not cut in half.
  const air = view.xRange ? 0 : (to - from) * 0.008;
  if (axis.type !== "log") return { ...axis, range: [from - air, to + air] };
  return { ...axis, range: [Math.log10(from > 0 ? from : Math.max(to * 1e-6, Number.MIN_VALUE)), Math.log10(to > 0 ? to : 1)] };
}

function yAxis(view, metric, drawn) {
  // Not with SI letters: a learning rate of 300\u00b5 is not what people write.
  const axis = { type: view.logY ? "log" : "linear", exponentformat: "power", hoverformat: ".6~g", tickformat: "~g" };
  const range = view.yRanges.get(metric) ?? fitted(view, metric, drawn);
  if (!range) return { ...axis, range: view.logY ? [-1, 0] : [0, 1] };
  if (!view.logY) return { ...axis, range };
  // Over few decades the powers of ten alone would be one tick or none.
  const ticks = range[1] / range[0] > 30 ? { dtick: 1, tickformat: "" } : {};
  return { ...axis, ...ticks, range: range.map(Math.log10) };
}

/** The range that all visible points fit in, with some air. */
function fitted(view, metric, drawn) {
  const range = view.xRange ?? [-Infinity, Infinity];
  let low = Infinity;
  let high = -Infinity;
  for (const { rows, metric: its } of drawn) {
    const found = its === metric ? extent(rows, { from: 0, to: rows.num }, range, view.logY) : null;
    if (found) [low, high] = [Math.min(low, found[0]), Math.max(high, found[1])];
  }
  if (low > high) return null;
  if (view.logY) return low === high ? [low / 2, high * 2] : [low / (high / low) ** 0.05, high * (high / low) ** 0.05];
  // Halved first: the distance of 1e308 and -1e308 is no number.
  const air = low === high ? Math.abs(low) * 0.1 || 1 : (high / 2 - low / 2) * 0.1;
  return [Math.max(low - air, -Number.MAX_VALUE), Math.min(high + air, Number.MAX_VALUE)];
}

/** A curve's traces: for each of its two parts the raw line, and over it the middle of buckets or the smoothed line. */
function linesOf(view, line, panel, numLines) {
  const { rows, look } = line;
  const width = widthOf(view.smooth, view.fullRange ? view.fullRange[1] - view.fullRange[0] : 0);
  const exact = rows.kind === "points";
  const average = view.method === "ema" ? ema : windowLine;
  const smooth = width > 0 ? average(rows.first, rows.middle, width) : null;
  const traces = [];
  for (const own of [0, 1]) {
    const part = partOf(rows, own);
    if (!part) continue;
    const shade = own ? 1 : 0.42;
    const raw = rawLine(rows, part);
    const over = smooth ? middleLine(rows, smooth, part) : exact ? null : middleLine(rows, rows.middle, part);
    const base = { type: "scatter", xaxis: panel.x, yaxis: panel.y, connectgaps: false, showlegend: false, cliponaxis: true };
    const sparse = exact && part.to - part.from <= 40;
    traces.push({
      ...base, ...raw, uid: uidOf(line, own, "raw"), mode: sparse || hasLonePoints(raw) ? "lines+markers" : "lines",
      line: { color: look.colour, width: over ? 1 : 1.6, dash: over ? "solid" : look.dash }, marker: { size: raw.x.length <= 3 ? 7 : 4, color: look.colour },
      opacity: over ? shade * (exact ? 0.38 : 0.5) : shade,
      ...(over ? { hoverinfo: "skip" } : hoverOf(line, own, numLines)),
    });
    if (over) {
      traces.push({ ...base, ...over, uid: uidOf(line, own, "over"), mode: "lines", line: { color: look.colour, width: smooth ? 2.2 : 1.6, dash: look.dash }, opacity: shade,
        ...hoverOf(line, own, numLines, smooth ? "smoothed" : exact ? "" : "middle"), ...rangeText(rows, part, smooth) });
    }
  }
  return traces;
}

/** The same trace from one drawing to the next. Plotly puts it into a selector: so it is made of letters and digits, whatever the names are. */
function uidOf({ run, metric }, own, what) {
  let [low, high] = [0x811c9dc5, 0x1b873593];
  for (const character of `${run}\n${metric}`) {
    low = Math.imul(low ^ character.codePointAt(0), 0x01000193);
    high = Math.imul(high ^ character.codePointAt(0), 0x85ebca6b) ^ (low >>> 15);
  }
  return `t${(low >>> 0).toString(36)}${(high >>> 0).toString(36)}${own}${what}`;
}

function hasLonePoints({ y }) {
  for (let i = 0; i < y.length; i++) if (y[i] !== null && (y[i - 1] ?? null) === null && (y[i + 1] ?? null) === null) return true;
  return false;
}

function hoverOf({ name, metric }, own, numLines, what = "") {
  const short = (text) => (text.length > 40 ? `${text.slice(0, 39)}\u2026` : text);
  const label = [numLines > 1 ? short(name) : short(metric), own ? "" : "(inherited)"].filter(Boolean).join(" ");
  const values = what === "" ? "%{y}" : what === "smoothed" ? `%{y} ${what} (%{customdata})` : "%{customdata}";
  return { hovertemplate: `${plotlyText(label)}: ${values}<extra></extra>` };
}

/** For hovering over a line that stands for several values: what they are. */
function rangeText(rows, part, smooth) {
  const texts = [];
  for (let i = part.from; i < part.to; i++) {
    const [low, high] = [number(rows.low[i], 5), number(rows.high[i], 5)];
    texts.push(low === high ? (smooth ? `raw ${low}` : low) : `${low} to ${high}`);
  }
  return { customdata: texts };
}

const SYMBOLS = (value) => (value === Infinity ? "triangle-up" : value === -Infinity ? "triangle-down" : "x");

function badMarks(line, panel, numPanels) {
  const found = badRows(line.rows, { from: 0, to: line.rows.num });
  if (!found.length) return [];
  const texts = found.map(({ num, value }) => (num === 1 && line.rows.kind === "points" ? `${number(value)}` : `${number(num)} not finite`));
  return [{
    type: "scatter", mode: "markers", uid: uidOf(line, 1, "bad"), xaxis: panel.x, yaxis: `y${numPanels + panel.index + 1}`, showlegend: false, cliponaxis: false,
    x: found.map(({ x }) => x), y: found.map(({ value }) => (value === -Infinity ? 0.02 : 0.98)),
    marker: { symbol: found.map(({ value }) => SYMBOLS(value)), size: 8, color: line.look.colour, line: { width: 1, color: "#d55e00" } },
    text: texts, hovertemplate: `${plotlyText(line.name)}: %{text}<extra></extra>`,
  }];
}

function forkMarks(view, line, panel, isAlone) {
  // Beside other runs, only where the run itself begins.
  const forks = forksIn(view, isAlone ? line.rows.forks : line.rows.forks.slice(-1));
  if (!forks.length || !line.rows.num || !view.inherited) return [];
  const values = forks.map(({ x }) => valueNear(line.rows, x));
  return [{
    type: "scatter", mode: "markers", uid: uidOf(line, 1, "forks"), xaxis: panel.x, yaxis: panel.y, showlegend: false,
    x: forks.map(({ x }) => x), y: values,
    marker: { symbol: "circle", size: 9, color: themeColours().card, line: { width: 2, color: line.look.colour } },
    text: forks.map(({ run, parent }) => plotlyText(`${run} forks ${parent}`)), hovertemplate: "%{text}<extra></extra>",
  }];
}

function forksIn(view, forks) {
  const range = view.xRange ?? view.fullRange;
  return range ? markedForks(forks.filter(({ x }) => !view.logX || x > 0), range, (range[1] - range[0]) * FORK_GAP) : [];
}

/** With one run on the chart, its forks are lines through all panels. */
function forkLines(view, line, layout, colours) {
  if (!line || !view.inherited) return;
  const forks = forksIn(view, line.rows.forks);
  // More would be a fence before the curve: the marks on it are enough then.
  for (const { x } of forks.length <= MOST_FORK_LINES ? forks : []) {
    layout.shapes.push({ type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, line: { color: colours.soft, width: 1, dash: "dot" }, opacity: 0.6, layer: "below" });
  }
}

/** A width along x, for a person. */
export const widthText = (view, width) => (view.x.kind === "date" ? duration(width / 1000) : `${number(Number(width.toPrecision(2)))} ${view.x.unit}`);
