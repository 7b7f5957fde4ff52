// A project or a study: its runs as a table, curves and a tree; a study's plots, budget and what was asked of it.

import { getJson, listen } from "./api.js";
import { askedForTable } from "./asked_for.js";
import { drawComparison } from "./compare_page.js";
import { el, empty, fill, showError } from "./dom.js";
import { count, moment, number } from "./format.js";
import { drawLedger } from "./ledger.js";
import { drawRunTable, selectedRuns } from "./run_table.js";
import { statusMark } from "./run_facts.js";
import { drawSearchPlots } from "./search_plots.js";
import { bulkActions, pauseButton } from "./steering.js";
import { drawTree } from "./tree.js";

/** The newest runs are drawn where none is selected. */
const FEW = 8;
/** News are read at most this often; with many runs every piece of news takes longer to show. */
const NEWS_WAIT_MS = 300;
const MANY_RUNS = 2000;
const MANY_WAIT_MS = 1500;
/** Runs that are read by their ids; beyond it all are. */
const MOST_IDS = 100;

/** The page of a project into root. first, listed, session: the API's answers about the project, its runs and who asks. Returns cleanup(). */
export function showProject(root, { name, api, state, first, listed, session }) {
  const page = { name, api, state, project: first, runs: listed.runs, readOnly: session.read_only, setTab: (tab) => state.set("tab", tab, "runs") };
  const tabs = TABS.filter(({ studies }) => !studies || page.project.kind === "study");
  const heading = el("div");
  const bar = el("div", { class: "tabs", role: "tablist", "aria-label": "Views of this project" });
  const panel = el("div", { role: "tabpanel" });
  fill(root, heading, bar, panel);
  let shown = null;
  let closed = false;

  function showHeading() {
    const { project, runs } = page;
    const { metric, strategy, session: loop } = project;
    const live = runs.filter(({ status }) => status === "running").length;
    fill(heading,
      el("div", { class: "heading" }, el("h1", {}, name), project.paused ? statusMark("paused") : loop && statusMark("running"), el("span", { class: "space" }), pauseButton(project, page.readOnly, page.refresh)),
      el("p", { class: "meta" },
        el("span", {}, project.kind), metric && el("span", {}, el("b", {}, `${metric.goal} ${metric.name}`)), strategy && el("span", {}, strategyText(strategy)),
        el("span", {}, count(runs.length, "run"), live > 0 && `, ${number(live)} live`), loop && el("span", {}, `loop on ${loop.host}, process ${loop.pid}`),
        el("span", { title: moment(project.created) }, `in ${project.unit}`)));
  }

  function showTabs() {
    const now = tabNow();
    fill(bar, tabs.map(({ id, title }) => el("button", { type: "button", role: "tab", id: `tab-${id}`, "aria-selected": String(id === now), tabindex: id === now ? 0 : -1, onclick: () => page.setTab(id) }, title(page))));
  }

  const tabNow = () => (tabs.some(({ id }) => id === state.get("tab")) ? state.get("tab") : "runs");

  function showPanel() {
    shown?.close?.();
    showTabs();
    panel.setAttribute("aria-labelledby", `tab-${tabNow()}`);
    shown = tabs.find(({ id }) => id === tabNow()).show(fill(panel), page);
  }

  bar.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = tabs.findIndex(({ id }) => id === tabNow());
    page.setTab(tabs[(at + step + tabs.length) % tabs.length].id);
    bar.querySelector('[aria-selected="true"]').focus();
  });

  /** Take in what has changed: those runs, or all (null). */
  async function news(ids) {
    const some = ids && ids.size <= MOST_IDS;
    const [project, { runs }] = await Promise.all([getJson(api), getJson(`${api}/runs${some ? `?ids=${[...ids].map(encodeURIComponent).join(",")}` : ""}`)]);
    if (closed) return;
    page.project = project;
    page.runs = some ? merged(page.runs, runs) : runs;
    showHeading();
    showTabs();
    shown?.update?.(ids);
  }

  let timer = 0;
  let waiting = new Set();
  let wantsAll = false;
  function soon(ids) {
    if (ids === null) wantsAll = true;
    else for (const id of ids) waiting.add(id);
    timer ||= setTimeout(async () => {
      const asked = wantsAll ? null : waiting;
      waiting = new Set();
      wantsAll = false;
      try {
        await news(asked);
      } catch (error) {
        showError(error);
      }
      timer = 0;
      // What came while it was read.
      if (!closed && (wantsAll || waiting.size)) soon([]);
    }, page.runs.length > MANY_RUNS ? MANY_WAIT_MS : NEWS_WAIT_MS);
  }

  page.again = showPanel;
  page.refresh = () => news(null).catch(showError);
  showHeading();
  showPanel();
  const off = state.on((names) => names.includes("tab") && showPanel());
  const stop = listen(name, {
    runs: ({ ids }) => {
      shown?.points?.(ids);
      soon(ids);
    },
    study: () => soon([]),
    again: () => soon(null),
  });
  return () => {
    closed = true;
    clearTimeout(timer);
    off();
    stop();
    shown?.close?.();
  };
}

/** The runs with those that came in place of what was known of them; new ones at the end. */
function merged(runs, fresh) {
  const byId = new Map(fresh.map((run) => [run.id, run]));
  const kept = runs.map((run) => byId.get(run.id) ?? run);
  const known = new Set(runs.map(({ id }) => id));
  return [...kept, ...fresh.filter(({ id }) => !known.has(id))].sort((a, b) => a.number - b.number);
}

function strategyText({ name, ...options }) {
  const shown = Object.entries(options).filter(([, value]) => value !== null && typeof value !== "object").map(([key, value]) => `${key} ${value}`);
  return shown.length ? `${name} (${shown.join(", ")})` : name;
}

const TABS = [
  { id: "runs", title: () => "Runs", show: showRuns },
  { id: "chart", title: () => "Chart", show: showChart },
  { id: "tree", title: () => "Tree", show: showTree },
  { id: "search", title: () => "Search", studies: true, show: (root, { project, state }) => {
    const plots = drawSearchPlots(root, { project, state });
    return { update: plots.refresh, close: plots.close };
  } },
  { id: "budget", title: () => "Budget", studies: true, show: (root, page) => {
    const ledger = drawLedger(root, page);
    return { update: () => ledger.update(page.project), close: ledger.close };
  } },
  { id: "asked", title: ({ project }) => {
    const open = project.requests.filter(({ answered }) => !answered).length;
    return open ? `Asked for (${open})` : "Asked for";
  }, show: showAsked },
  { id: "settings", title: () => "Settings", show: showSettings },
];

function showRuns(root, page) {
  const actions = (runs) => bulkActions(runs, page.project, page.readOnly, page.refresh);
  const table = drawRunTable(root, { runs: page.runs, project: page.project, state: page.state, actions, showChart: () => page.setTab("chart") });
  return { update: () => table.update(page.runs), close: table.close };
}

function showChart(root, page) {
  if (!page.runs.length) return fillEmpty(root, page);
  const note = el("p", { class: "soft small" });
  const card = el("section", { class: "card" });
  root.append(note, card);
  const wanted = () => {
    const chosen = selectedRuns(page.runs, page.state);
    note.textContent = chosen.length ? "The runs that are selected in the table." : `No runs are selected in the table: the newest ${Math.min(FEW, page.runs.length)} are drawn.`;
    return chosen.length ? chosen : page.runs.slice(-FEW);
  };
  let runs = wanted();
  const chart = drawComparison(card, { runs, unit: page.project.unit, state: page.state, prefix: "c." });
  const kinds = (given) => JSON.stringify(given.map((run) => [run.id, run.name, run.ended, Object.keys(run.latest)]));
  return {
    // Points are read at once, before the table's rows are.
    points: (ids) => chart.refresh(ids.filter((id) => runs.some((run) => run.id === id))),
    update() {
      const fresh = wanted();
      if (kinds(fresh) !== kinds(runs)) chart.setRuns(fresh);
      runs = fresh;
    },
    close: chart.close,
  };
}

function showTree(root, page) {
  if (!page.runs.length) return fillEmpty(root, page);
  const tree = drawTree(root, page.runs, { unit: page.project.unit, state: page.state, prefix: "tree." });
  return { update: () => tree.update(page.runs), close: tree };
}

function showAsked(root, page) {
  const card = el("section", { class: "card" });
  root.append(card);
  const update = () => fill(card, askedForTable(page.project.requests));
  update();
  return { update };
}

function showSettings(root, { project }) {
  const config = Object.keys(project.config).length ? JSON.stringify(project.config, null, 2) : null;
  root.append(el("section", { class: "card" }, el("h2", {}, "Configuration"), config
    ? el("pre", { class: "settings" }, config)
    : empty("This project has no configuration", "Runs that are tracked by hand carry their own hyperparameters.")));
  return {};
}

function fillEmpty(root, page) {
  root.append(el("section", { class: "card" }, empty("No runs yet", "They appear here as soon as they begin.")));
  return { update: () => page.runs.length && page.again() };
}
