// A study's plots: drawn by the server as Plotly figures, shown here in the page's colours. A click on a run's point opens the run.

import { getJson } from "./api.js";
import { navigate } from "./app.js";
import { el, empty, fill, runPath, showError } from "./dom.js";
import { loadPlotly, plotlyTemplate } from "./plotly_loader.js";

const PLOTS = {
  history: "History", parallel: "Parallel coordinates", importance: "Importance", slices: "Slices", contour: "Contour", rungs: "Rungs", pareto: "Pareto",
};

/** Strategies that compare runs before their horizon, as rung_places.py knows them. */
const WITH_RUNGS = ["asha", "auto", "bohb", "freeze_thaw", "halving", "hyperband", "lr_race", "successive_halving", "two_stage"];
const hasRungs = (strategy) => WITH_RUNGS.includes(strategy?.name) && !strategy.shortened;

/** News of the runs are drawn at most this often: a figure is read as a whole. */
const NEWS_WAIT_MS = 3000;

/**
 * The plots with their choice into root. Which one, and its options, are in the URL.
 * Returns {refresh(), close()}: refresh reads the figure anew, soon.
 */
export function drawSearchPlots(root, { project, state }) {
  const kinds = Object.keys(PLOTS).filter((kind) => kind !== "rungs" || hasRungs(project.strategy));
  const kindNow = () => (kinds.includes(state.get("plot")) ? state.get("plot") : kinds[0]);
  const buttons = el("div", { class: "row plot-kinds", role: "group", "aria-label": "Plot" });
  const card = el("section", { class: "card" });
  fill(root, buttons, card);
  let drawn = null;

  function show() {
    const kind = kindNow();
    fill(buttons, kinds.map((name) => el("button", { type: "button", "aria-pressed": String(name === kind), onclick: () => state.set("plot", name, kinds[0]) }, PLOTS[name])));
    drawn?.close();
    fill(card);
    drawn = drawPlot(card, { project: project.name, kind, state });
  }
  show();
  const off = state.on((names) => names.includes("plot") && show());
  return {
    refresh: () => drawn.refresh(),
    close() {
      off();
      drawn.close();
    },
  };
}

/**
 * One plot with its title, note and options into root. Its options are in the URL as KIND.NAME.
 * Returns {refresh(), close()}.
 */
export function drawPlot(root, { project, kind, state }) {
  const title = el("h2", {}, PLOTS[kind] ?? "");
  const controls = el("span", { class: "row" });
  const note = el("p", { class: "plot-note" }, "Drawing \u2026");
  const plot = el("div", { class: "plot" });
  const instead = el("div", { hidden: true });
  root.append(el("div", { class: "heading" }, title, el("span", { class: "space" }), controls), note, plot, instead);
  const stateName = (option) => `${kind}.${option}`;
  let options = [];
  let controller = new AbortController();
  let timer = 0;
  let closed = false;
  let Plotly = null;
  let figure = null;

  async function read() {
    controller.abort();
    const mine = (controller = new AbortController());
    const query = new URLSearchParams();
    for (const option of OPTIONS[kind] ?? []) if (state.get(stateName(option)) !== null) query.set(option, state.get(stateName(option)));
    const loading = loadPlotly();
    try {
      const answer = await getJson(`/api/projects/${encodeURIComponent(project)}/plots/${kind}?${query}`, { signal: mine.signal });
      Plotly = await loading;
      if (closed || mine.signal.aborted) return;
      ({ figure } = answer);
      draw();
    } catch (error) {
      if (closed || mine.signal.aborted || error.name === "AbortError") return;
      if (error.status !== 422) return showError(error);
      // Too few runs, or an option that is not there: what the server says is what there is to show.
      plot.hidden = true;
      instead.hidden = false;
      note.textContent = "";
      fill(instead, empty("Nothing to draw here yet", error.message),
        Object.keys(OPTIONS).includes(kind) && el("p", { class: "row" }, el("button", { type: "button", onclick: reset }, "Reset the plot's options")));
    }
  }

  function reset() {
    state.setAll(Object.fromEntries(OPTIONS[kind].map((option) => [stateName(option), null])));
  }

  function draw() {
    if (closed || !figure) return;
    const { meta } = figure.layout;
    title.textContent = meta?.title ?? PLOTS[kind] ?? "";
    note.textContent = meta?.note ?? "";
    options = meta?.options ?? [];
    showControls();
    plot.hidden = false;
    instead.hidden = true;
    plot.style.setProperty("min-height", `${figure.layout.height ?? 380}px`);
    const isNew = !plot.data;
    Plotly.react(plot, figure.data, { ...figure.layout, template: plotlyTemplate() }, { responsive: true, displayModeBar: false, showTips: false });
    if (isNew) plot.on("plotly_click", ({ points }) => {
      const run = points.map(({ customdata }) => customdata).find((id) => typeof id === "string");
      if (!run) return;
      state.flush();
      navigate(runPath(run));
    });
  }

  function showControls() {
    if (controls.dataset.key === JSON.stringify(options)) return;
    controls.dataset.key = JSON.stringify(options);
    fill(controls, options.map(({ name, title: text, values, value }) => el("label", { class: "soft" }, text,
      el("select", { value, onchange: (event) => choose(name, event.target.value) }, values.map((each) => el("option", { value: each }, each.replaceAll("_", " ")))))));
  }

  /** Of two hyperparameters that are the same after a choice, the other takes the former value: the two change places. */
  function choose(name, value) {
    const wanted = { [stateName(name)]: value };
    const twin = options.find((option) => option.name !== name && option.value === value && kind === "contour");
    if (twin) wanted[stateName(twin.name)] = options.find((option) => option.name === name).value;
    else for (const option of options) if (option.name !== name) wanted[stateName(option.name)] = option.value;
    state.setAll(wanted);
  }

  const off = state.on((names) => names.some((name) => name.startsWith(`${kind}.`)) && read());
  addEventListener("thalweg:theme", draw);
  read();
  return {
    refresh() {
      timer ||= setTimeout(() => {
        timer = 0;
        read();
      }, NEWS_WAIT_MS);
    },
    close() {
      closed = true;
      clearTimeout(timer);
      controller.abort();
      off();
      removeEventListener("thalweg:theme", draw);
      if (Plotly && plot.data) Plotly.purge(plot);
    },
  };
}

/** The options of each kind, as the server knows them. */
const OPTIONS = { contour: ["x", "y"], pareto: ["against"], ledger: ["field"] };
