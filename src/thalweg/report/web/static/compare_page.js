// Several runs on one chart, and what sets them apart.

import { getJson, listen } from "./api.js";
import { setTrail } from "./app.js";
import { drawChart, MAX_RUNS } from "./chart.js";
import { looksOf } from "./curve_data.js";
import { el, empty, fill, link, projectPath, runPath, showError, svg } from "./dom.js";
import { count, value } from "./format.js";
import { statusMark } from "./run_facts.js";

/**
 * Legend and chart of some runs into root. runs: as /api/projects/NAME/runs or /api/runs/ID gives them.
 * Hiding a run by its legend entry is kept in the view's state. Returns what drawChart does.
 */
export function drawComparison(root, { runs, unit, state, prefix = "" }) {
  let all = runs;
  const looks = () => looksOf(all.map(({ id }) => id));
  const legend = el("div", { class: "legend", role: "group", "aria-label": "Runs" });
  const hidden = () => new Set(state.getList(`${prefix}off`));
  const visible = () => all.filter(({ id }) => !hidden().has(id));
  const chartRuns = () => visible().map(forChart);

  function showLegend() {
    const off = hidden();
    const known = looks();
    fill(legend, all.slice(0, MAX_RUNS).map((run) => {
      const { colour, dash } = known.get(run.id);
      const toggle = () => state.set(`${prefix}off`, off.has(run.id) ? [...off].filter((id) => id !== run.id) : [...off, run.id], []);
      return el("span", { class: off.has(run.id) ? "legend-item off" : "legend-item" },
        el("input", { type: "checkbox", checked: !off.has(run.id), onchange: toggle, "aria-label": `Show ${run.id}` }),
        svg("svg", { width: 22, height: 8, "aria-hidden": "true" }, svg("line", { x1: 0, x2: 22, y1: 4, y2: 4, stroke: colour, "stroke-width": 3, "stroke-dasharray": DASHES[dash] })),
        link(runPath(run.id), run.name ? `${run.name} (${run.id})` : run.id, { title: run.name ? `${run.name} (${run.id})` : run.id }));
    }));
  }

  root.append(legend);
  showLegend();
  const chart = drawChart(root, { runs: chartRuns(), unit, state, prefix, looks });
  const off = state.on((changed) => {
    if (!changed.includes(`${prefix}off`)) return;
    showLegend();
    chart.setRuns(chartRuns());
  });
  return {
    ...chart,
    setRuns(given) {
      all = given;
      showLegend();
      chart.setRuns(chartRuns());
    },
    close() {
      off();
      chart.close();
    },
  };
}

const DASHES = { solid: null, dash: "6 3", dot: "2 2", dashdot: "6 2 2 2" };

/** What a chart needs of a run. */
export function forChart(run) {
  const { id, name, fork_step, started, created, ended, parent, metrics, latest } = run;
  return { id, name, fork_step, started, created, ended, parent, metrics: metrics ?? Object.keys(latest ?? {}).sort() };
}

export async function show(root, params, state) {
  const ids = [...new Set((state.get("runs") ?? "").split(",").filter(Boolean))];
  setTrail([{ text: "Compare" }]);
  if (!ids.length) {
    fill(root, empty("No runs are chosen", "Open a project, select runs in its table, and choose Compare."));
    return () => {};
  }
  const found = await Promise.all(ids.slice(0, MAX_RUNS).map((id) => getJson(`/api/runs/${encodeURIComponent(id)}`)));
  let runs = found;
  const names = [...new Set(runs.map(({ project }) => project))];
  const project = await getJson(`/api/projects/${encodeURIComponent(names[0])}`);
  setTrail([...names.map((name) => ({ text: name, href: projectPath(name) })), { text: `Compare ${count(runs.length, "run")}` }]);
  const chartCard = el("section", { class: "card" });
  const table = el("div", { class: "wide" });
  const same = el("input", { type: "checkbox", checked: state.getFlag("same"), onchange: (event) => state.set("same", event.target.checked, false) });
  fill(root,
    el("div", { class: "heading" }, el("h1", {}, `${count(runs.length, "run")} side by side`)),
    chartCard,
    el("section", { class: "card" }, el("div", { class: "heading" }, el("h2", {}, "Hyperparameters"), el("label", { class: "soft" }, same, "also those that are the same")), table));
  const showTable = () => fill(table, differenceTable(runs, state.getFlag("same")));
  showTable();
  const chart = drawComparison(chartCard, { runs, unit: project.unit, state });
  const off = state.on((changed) => changed.includes("same") && showTable());

  async function update(changed) {
    try {
      const news = runs.filter(({ id }) => changed === null || changed.has(id));
      if (!news.length) return;
      const fresh = new Map((await Promise.all(news.map(({ id }) => getJson(`/api/runs/${encodeURIComponent(id)}`)))).map((run) => [run.id, run]));
      const known = new Map(runs.map((run) => [run.id, run.metrics.length]));
      runs = runs.map((run) => fresh.get(run.id) ?? run);
      showTable();
      if (runs.some(({ id, metrics }) => metrics.length !== known.get(id))) chart.setRuns(runs);
    } catch (error) {
      showError(error);
    }
  }
  const stop = listen(names.length === 1 ? names[0] : null, {
    runs: ({ ids: changed }) => {
      const mine = new Set(changed.filter((id) => ids.includes(id)));
      if (!mine.size) return;
      chart.refresh(mine);
      scheduleUpdate(mine);
    },
    again: () => {
      chart.refresh(ids);
      update(null);
    },
  });
  // The table changes seldom: it need not follow every logged point.
  const waiting = new Set();
  let timer = 0;
  function scheduleUpdate(mine) {
    for (const id of mine) waiting.add(id);
    timer ||= setTimeout(() => {
      timer = 0;
      const news = new Set(waiting);
      waiting.clear();
      update(news);
    }, 1000);
  }
  return () => {
    clearTimeout(timer);
    stop();
    off();
    chart.close();
  };
}

/** A row per hyperparameter, a column per run; values that are not the most common one are marked, where one is common at all. */
export function differenceTable(runs, withSame = false) {
  const names = [...new Set(runs.flatMap(({ hyperparameters }) => Object.keys(hyperparameters)))];
  const texts = new Map(names.map((name) => [name, runs.map(({ hyperparameters }) => (name in hyperparameters ? JSON.stringify(hyperparameters[name]) : ""))]));
  const shown = names.filter((name) => withSame || new Set(texts.get(name)).size > 1);
  if (!shown.length) return el("p", { class: "soft" }, names.length ? "All hyperparameters are the same." : "These runs have no hyperparameters.");
  return el("table", {},
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Hyperparameter"), runs.map((run) => el("th", { scope: "col" }, link(runPath(run.id), run.name || run.id), " ", statusMark(run.status))))),
    el("tbody", {}, shown.map((name) => {
      const usual = mostCommon(texts.get(name));
      return el("tr", {}, el("th", { scope: "row" }, name), runs.map(({ hyperparameters }, index) =>
        el("td", { class: usual === null || texts.get(name)[index] === usual ? "num" : "num changed" }, name in hyperparameters ? value(hyperparameters[name]) : "\u2013")));
    })));
}

function mostCommon(items) {
  const counts = new Map();
  for (const item of items) counts.set(item, (counts.get(item) ?? 0) + 1);
  const [item, times] = [...counts].reduce((best, entry) => (entry[1] > best[1] ? entry : best));
  return times > 1 ? item : null;
}
