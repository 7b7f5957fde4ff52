// One chart for whole lineages: panels under each other along one axis, read from the server as far as they are seen.

import { getCurve } from "./api.js";
import { chartControls } from "./chart_controls.js";
import { figureOf, heightOf, widthText } from "./chart_figure.js";
import { countIn, defaultMetrics, looksOf, rowsOf } from "./curve_data.js";
import { el, perFrame, showError } from "./dom.js";
import { number } from "./format.js";
import { loadPlotly } from "./plotly_loader.js";
import { widthOf } from "./smoothing.js";

/** Runs that one chart draws at most. */
export const MAX_RUNS = 60;
const ZOOM_WAIT_MS = 80;
const LIVE_WAIT_MS = 120;

/**
 * Draw runs into root.
 *
 * options: runs: [{id, name, fork_step, started, ended, parent, metrics: names}]; unit: of positions, such as "steps"; state: the page's view state;
 * prefix: of its names in the URL, where a page has several charts; axes: which of position, own, time, elapsed can be chosen (the first is the default);
 * choose(names): the metrics shown where none are chosen; looks(): run id -> {colour, dash}, where a legend has settled them; only(name): whether a metric
 * belongs to this chart; wait: milliseconds between two readings of news, at least.
 * Returns {refresh(ids), setRuns(runs), close()}: refresh re-reads those runs' curves, one read after the other, and
 * its promise is kept once the last of them is drawn.
 */
export function drawChart(root, { runs, unit, state, prefix = "", axes = ["position", "own", "time", "elapsed"], choose = defaultMetrics, looks = null, only = null, wait = LIVE_WAIT_MS }) {
  const names = Object.fromEntries(["metric", "x", "logx", "logy", "smooth", "method", "inherited", "from", "to", "y"].map((name) => [name, prefix + name]));
  const allMetrics = () => [...new Set(runs.flatMap(({ metrics }) => metrics))].filter((name) => !only || only(name)).sort();
  const chosen = () => {
    const known = new Set(allMetrics());
    return state.getList(names.metric, choose([...known])).filter((name) => known.has(name));
  };
  let allAxes = axesOf(unit, runs);
  const offered = axes.map((key) => ({ key, title: allAxes[key].choice }));
  const axisKey = () => (axes.includes(state.get(names.x)) ? state.get(names.x) : axes[0]);
  const resetZoom = () => state.setAll({ [names.from]: null, [names.to]: null, [names.y]: null });

  const controls = chartControls(state, names, { metrics: allMetrics, chosen, axes: offered, forks: runs.some(({ parent }) => parent), resetZoom });
  const plot = el("div", { class: "chart-plot", role: "img", "aria-label": "Curves" });
  const countLine = el("p", { class: "chart-count", "aria-live": "off" });
  root.append(controls.element, plot, countLine);
  reserve();

  /** Run and metric -> {overview, detail}, each a curve with its rows. */
  let curves = new Map();
  let controller = new AbortController();
  let closed = false;
  let dirty = false;
  let working = false;
  let stale = false;
  let zoomTimer = 0;
  let asked = null;
  let Plotly = null;
  const drawSoon = perFrame(draw);

  function reserve() {
    plot.hidden = !chosen().length;
    plot.style.setProperty("min-height", `${heightOf(chosen().length)}px`);
  }

  function axisOf(run) {
    const { x, offset, factor } = allAxes[axisKey()];
    return { x, offset: offset(run), factor, began: run.started ?? run.created };
  }

  function range() {
    const [from, to] = [state.getNumber(names.from), state.getNumber(names.to)];
    if (from === null || to === null || !(from < to)) return null;
    const { factor, offset } = axisOf(runs[0] ?? {});
    const shift = axisKey() === "time" ? offset : 0;
    return [(from - shift) * factor, (to - shift) * factor];
  }

  function setRange(from, to) {
    const { factor, offset } = axisOf(runs[0]);
    const shift = axisKey() === "time" ? offset : 0;
    return { [names.from]: from / factor + shift, [names.to]: to / factor + shift };
  }

  /** Read what is shown. what: "all" (everything anew), "detail" (the range that is zoomed to), or a set of run ids that have news. */
  async function read(what) {
    controller.abort();
    const mine = (controller = new AbortController());
    if (what === "all") {
      curves = new Map();
      allAxes = axesOf(unit, runs);
    }
    const shown = range();
    const jobs = [];
    const fresh = new Map();
    for (const run of runs.slice(0, MAX_RUNS)) {
      for (const metric of chosen().filter((name) => run.metrics.includes(name))) {
        if (what instanceof Set && !what.has(run.id)) continue;
        jobs.push(readOne(run, metric, shown, what, mine.signal).then((found) => fresh.set(`${run.id}\n${metric}`, found)));
      }
    }
    const plotly = loadPlotly();
    await Promise.all(jobs);
    Plotly = await plotly;
    if (closed || mine.signal.aborted) return;
    for (const [key, found] of fresh) curves.set(key, found);
    draw();
  }

  async function readOne(run, metric, shown, what, signal) {
    const had = curves.get(`${run.id}\n${metric}`) ?? { overview: null, detail: null };
    const axis = axisOf(run);
    const buckets = Math.max(200, Math.min(2000, Math.floor(8000 / Math.max(runs.length, 1))));
    const options = { buckets, x: axis.x, inherited: state.getFlag(names.inherited, true), signal };
    const get = async (more) => {
      const curve = await getCurve(run.id, metric, { ...options, ...more });
      return { ...curve, rows: rowsOf(curve, axis) };
    };
    // While it is zoomed in, news are read for what is seen; the overview follows once it is seen again.
    const keepsOverview = had.overview && shown && what !== "all" && (what === "detail" || had.overview.header.kind !== "points");
    if (keepsOverview && what !== "detail") stale = true;
    const overview = keepsOverview || (what === "detail" && had.overview && !stale) ? had.overview : await get({});
    if (!shown || overview.header.kind === "points") return { overview, detail: null };
    const pad = (shown[1] - shown[0]) / 1000;
    const [first, last] = [shown[0] - pad, shown[1] + pad].map((value) => value / axis.factor + axis.offset);
    return { overview, detail: await get({ first, last }) };
  }

  function view() {
    const { title, kind, words } = allAxes[axisKey()];
    const yRanges = new Map(state.getList(names.y).map((text) => {
      const [low, high, ...metric] = text.split(":");
      return [metric.join(":"), [Number(low), Number(high)]];
    }));
    const logY = state.getFlag(names.logy);
    for (const [metric, [low, high]] of yRanges) if (!(low < high) || (logY && low <= 0)) yRanges.delete(metric);
    return {
      metrics: chosen(), x: { title, kind, unit: words }, logX: state.getFlag(names.logx) && kind === "number", logY,
      smooth: Math.min(Math.max(state.getNumber(names.smooth, 0), 0), 100), method: state.get(names.method, "window"),
      xRange: range(), yRanges, fullRange: fullRange(), inherited: state.getFlag(names.inherited, true),
    };
  }

  function fullRange() {
    let [from, to] = [Infinity, -Infinity];
    for (const { overview } of curves.values()) {
      const { rows } = overview ?? {};
      if (rows?.num) [from, to] = [Math.min(from, rows.first[0]), Math.max(to, rows.last[rows.num - 1])];
    }
    return from <= to ? [from, to] : null;
  }

  function drawnLines(metrics, shown) {
    const known = looks?.() ?? looksOf(runs.map(({ id }) => id));
    const lines = [];
    for (const metric of metrics) {
      for (const run of runs.slice(0, MAX_RUNS)) {
        const found = curves.get(`${run.id}\n${metric}`);
        const curve = (shown && found?.detail) || found?.overview;
        if (curve) lines.push({ metric, run: run.id, name: run.name || run.id, look: known.get(run.id), rows: curve.rows, header: curve.header });
      }
    }
    return lines;
  }

  function draw() {
    if (closed || !Plotly) return;
    const now = view();
    plot.hidden = !now.metrics.length;
    const lines = drawnLines(now.metrics, now.xRange);
    reserve();
    const { data, layout } = figureOf(now, lines);
    const isNew = !plot.data;
    Plotly.react(plot, data, layout, { responsive: true, displayModeBar: false, doubleClick: false, scrollZoom: false, showTips: false });
    if (isNew) follow();
    const width = widthOf(now.smooth, now.fullRange ? now.fullRange[1] - now.fullRange[0] : 0);
    controls.update(width > 0 ? widthText(now, width) : "off", now.xRange !== null || now.yRanges.size > 0);
    countLine.textContent = countText(now, lines);
  }

  function countText(now, lines) {
    if (!now.metrics.length) return allMetrics().length ? "Choose a metric to draw." : "Nothing has been logged yet. Points appear here as they are.";
    const first = lines.filter(({ metric }) => metric === now.metrics[0]);
    const total = first.reduce((sum, { header }) => sum + header.total, 0);
    const shown = now.xRange ?? [-Infinity, Infinity];
    const rows = first.reduce((sum, line) => sum + countIn(line.rows, shown), 0);
    const exact = first.every(({ rows: { kind } }) => kind === "points");
    const what = exact
      ? `${number(rows)} of ${number(total)} points shown, each one.`
      : `${number(total)} points, ${now.xRange ? "this range" : "all"} drawn as ${number(rows)} buckets with their exact least and greatest values.`;
    const more = runs.length > MAX_RUNS ? ` The first ${MAX_RUNS} of ${runs.length} runs are drawn.` : "";
    const help = now.xRange ? "Double click: the whole range." : "Drag to zoom in, or turn the wheel with Ctrl held.";
    return `${now.metrics.length > 1 ? `${now.metrics[0]}: ` : ""}${what}${more} ${help}`;
  }

  function follow() {
    plot.on("plotly_relayout", (change) => {
      const update = {};
      const x = rangeIn(change, "xaxis");
      if (x) Object.assign(update, setRange(...x.map((end) => axisValue(end, plot.layout.xaxis.type))));
      const ys = new Map(state.getList(names.y).map((text) => [text.split(":").slice(2).join(":"), text]));
      chosen().forEach((metric, index) => {
        const y = rangeIn(change, index ? `yaxis${index + 1}` : "yaxis");
        if (y) ys.set(metric, `${y.map((end) => axisValue(end, plot.layout.yaxis.type)).join(":")}:${metric}`);
      });
      update[names.y] = ys.size ? [...ys.values()] : null;
      if (x || ys.size) state.setAll(update);
    });
    plot.on("plotly_doubleclick", resetZoom);
    plot.addEventListener("wheel", onWheel, { passive: false });
  }

  function onWheel(event) {
    const area = plot.querySelector(".nsewdrag")?.getBoundingClientRect();
    if (!(event.ctrlKey || event.metaKey) || !area || event.clientX < area.left || event.clientX > area.right) return;
    event.preventDefault();
    const log = plot.layout.xaxis.type === "log";
    const ends = plot.layout.xaxis.range.map((end) => (plot.layout.xaxis.type === "date" ? axisValue(end, "date") : Number(end)));
    const share = (event.clientX - area.left) / area.width;
    const factor = Math.exp(Math.max(-1, Math.min(1, event.deltaY / 250)));
    const middle = ends[0] + share * (ends[1] - ends[0]);
    const [from, to] = ends.map((end) => middle + (end - middle) * factor).map((end) => (log ? 10 ** end : end));
    if (to > from && Number.isFinite(to - from)) state.setAll(setRange(from, to));
  }

  async function attempt(what) {
    try {
      await read(what);
      return true;
    } catch (error) {
      if (error.name !== "AbortError" && !closed) showError(error);
      return error.name !== "AbortError";
    }
  }

  /** What the user has asked to see. News wait for it: they would cut it short. */
  function show(what) {
    const mine = (asked = attempt(what).finally(() => {
      if (asked === mine) asked = null;
    }));
    return mine;
  }

  /** One read after the other for as long as there is news: a slow one is not overtaken, a fast stream does not pile up. */
  const news = new Set();
  let pumping = Promise.resolve();
  function pump() {
    if (!working) pumping = readNews();
    return pumping;
  }

  async function readNews() {
    working = true;
    while (dirty && !closed) {
      dirty = false;
      while (asked) await asked;
      const ids = new Set(news);
      news.clear();
      const begun = performance.now();
      // A zoom that came between has read only what it shows.
      if (!(await attempt(ids))) for (const id of ids) (dirty = true), news.add(id);
      await new Promise((resolve) => setTimeout(resolve, Math.max(wait, performance.now() - begun)));
    }
    working = false;
  }

  const off = state.on((changed) => {
    const touches = (...keys) => keys.some((key) => changed.includes(names[key]));
    if (touches("metric", "x", "inherited")) {
      reserve();
      show("all");
    } else if (touches("from", "to", "y")) {
      drawSoon();
      clearTimeout(zoomTimer);
      zoomTimer = setTimeout(() => show("detail").then(() => range() ?? (stale = false)), ZOOM_WAIT_MS);
    } else if (touches("logx", "logy", "smooth", "method")) drawSoon();
  });
  addEventListener("thalweg:theme", drawSoon);

  return {
    /** The promise of the first drawing. */
    ready: show("all"),
    refresh(ids) {
      for (const id of ids) news.add(id);
      dirty = true;
      return pump();
    },
    setRuns(given) {
      const same = given.length === runs.length && given.every(({ id }, index) => id === runs[index].id);
      const more = given.some(({ metrics }, index) => metrics.length !== runs[index]?.metrics.length);
      runs = given;
      if (!same || more) show("all");
    },
    close() {
      closed = true;
      off();
      controller.abort();
      clearTimeout(zoomTimer);
      drawSoon.cancel();
      removeEventListener("thalweg:theme", drawSoon);
      plot.removeEventListener("wheel", onWheel);
      if (Plotly && plot.data) Plotly.purge(plot);
    },
  };
}

/** The two ends of an axis' range in what Plotly says has changed; null where it has not. */
function rangeIn(change, axis) {
  const ends = change[`${axis}.range`] ?? [change[`${axis}.range[0]`], change[`${axis}.range[1]`]];
  return ends[0] === undefined ? null : ends;
}

/** A number on an axis, from the form in which Plotly gives it: dates are texts in UTC, logarithmic axes give exponents. */
function axisValue(end, type) {
  if (type === "log") return 10 ** Number(end);
  if (type !== "date" || typeof end === "number") return Number(end);
  const text = end.replace(" ", "T");
  return Date.parse(text.includes("T") ? `${text}Z` : text);
}

/** The horizontal axes: how the server's x becomes theirs, (x - offset) * factor, and their words. */
function axesOf(unit, runs) {
  const now = Date.now() / 1000;
  const longest = Math.max(0, ...runs.map(({ started, ended }) => (started ? (ended ?? now) - started : 0)));
  const [long, seconds] = longest < 600 ? ["seconds", 1] : longest < 6 * 3600 ? ["minutes", 60] : ["hours", 3600];
  const own = `${unit} since its start`;
  // Plotly shows times as UTC: they are moved so that it shows the reader's own.
  const zone = new Date().getTimezoneOffset() * 60;
  return {
    position: { x: "step", kind: "number", choice: unit, title: unit, words: unit, offset: () => 0, factor: 1 },
    own: { x: "step", kind: "number", choice: own, title: own, words: unit, offset: ({ fork_step: from }) => from ?? 0, factor: 1 },
    time: { x: "time", kind: "date", choice: "time", title: "time", words: "", offset: () => zone, factor: 1000 },
    elapsed: {
      x: "time", kind: "number", choice: "time since the start", title: `${long} since the start`, words: long,
      offset: ({ started, created }) => started ?? created ?? 0, factor: 1 / seconds,
    },
  };
}
