// One run: its lineage's chart, its place in the tree, and all that is known about it.

import { getJson, getSession, listen, post } from "./api.js";
import { setTrail } from "./app.js";
import { drawChart } from "./chart.js";
import { forChart } from "./compare_page.js";
import { el, fill, projectPath, showError, showMessage } from "./dom.js";
import { hyperparameterTable, statusMark } from "./run_facts.js";
import { checkpointsSection, costSection, errorSection, factsSection, filesSection, lineageSection, metaLine, notesList, snippetSection } from "./run_sections.js";
import { steeringBar } from "./steering.js";
import { drawTree } from "./tree.js";
import { familyOf } from "./tree_layout.js";

const runApi = (id) => `/api/runs/${encodeURIComponent(id)}`;
const projectApi = (name) => `/api/projects/${encodeURIComponent(name)}`;
/** The page's facts follow a run's news at most this often; its curves follow at once. */
const FACTS_WAIT_MS = 1000;

export async function show(root, { run: id }, state) {
  const [first, session] = await Promise.all([getJson(runApi(id)), getSession()]);
  let run = first;
  const [project, parent] = await Promise.all([getJson(projectApi(run.project)), run.parent ? getJson(runApi(run.parent)) : null]);
  const { unit } = project;
  setTrail([{ text: run.project, href: projectPath(run.project) }, { text: run.name || run.id }]);

  const parts = Object.fromEntries(["heading", "meta", "steering", "error", "parameters", "lineage", "notes", "tags", "files", "checkpoints", "cost", "facts", "snippet"].map((name) => [name, el("div")]));
  const chartCard = el("section", { class: "card", "aria-label": "Curves" });
  const systemCard = el("section", { class: "card", hidden: true });
  const family = el("section", { class: "card", hidden: true }, el("h2", {}, "Family"));
  const card = (title, ...inside) => el("section", { class: "card" }, el("h2", {}, title), inside);
  const [files, facts] = [card("Files", parts.files), card("Code and environment", parts.facts)];
  const [checkpoints, cost] = [card("Checkpoints", parts.checkpoints), card("Cost", parts.cost)];
  fill(root, parts.heading, parts.meta, parts.error, chartCard, family,
    el("div", { class: "columns" },
      el("div", {}, card("Hyperparameters", parts.parameters), card("Notes", parts.notes, !session.read_only && noteForm()), card("Tags", parts.tags), facts),
      el("div", {}, card("Lineage and forks", parts.lineage, parts.snippet), files, checkpoints, cost)),
    systemCard);

  function showFacts() {
    const name = run.name || run.id;
    fill(parts.heading, el("div", { class: "heading" }, el("h1", {}, name), statusMark(run.status), el("span", { class: "space" }), parts.steering));
    fill(parts.meta, metaLine(run, unit));
    fill(parts.error, errorSection(run));
    fill(parts.parameters, hyperparameterTable(run.hyperparameters, parent?.hyperparameters));
    fill(parts.lineage, lineageSection(run));
    fill(parts.notes, notesList(run));
    fill(parts.tags, session.read_only ? tagList() : tagEditor());
    fill(parts.files, filesSection(run));
    fill(parts.checkpoints, checkpointsSection(run, unit));
    fill(parts.cost, costSection(run));
    // No empty cards for what runs of this kind do not usually have.
    const isStudy = project.kind === "study";
    files.hidden = isStudy && !run.files.length;
    facts.hidden = isStudy && !Object.keys(run.facts).length;
    checkpoints.hidden = !isStudy && !run.checkpoints.length;
    cost.hidden = !isStudy && !Object.keys(run.cost).length;
  }

  function tagList() {
    return run.tags.length ? el("div", { class: "row" }, run.tags.map((tag) => el("span", { class: "tag" }, tag))) : el("p", { class: "soft" }, "No tags.");
  }

  function tagEditor() {
    const save = async (tags) => {
      try {
        await post(`${runApi(id)}/tags`, { tags });
        await refresh();
      } catch (error) {
        showError(error);
      }
    };
    const input = el("input", { type: "text", placeholder: "Add a tag", "aria-label": "Add a tag", size: 14 });
    const form = el("form", { onsubmit: (event) => {
      event.preventDefault();
      const tag = input.value.trim();
      if (tag && !run.tags.includes(tag)) save([...run.tags, tag]);
    } }, input);
    return el("div", { class: "row" }, run.tags.map((tag) => el("span", { class: "tag" }, tag, el("button", {
      type: "button", class: "quiet", "aria-label": `Remove the tag ${tag}`, onclick: () => save(run.tags.filter((other) => other !== tag)),
    }, "\u00d7"))), form);
  }

  function noteForm() {
    const text = el("textarea", { placeholder: "Write a note about this run", "aria-label": "A new note", rows: 2 });
    const button = el("button", { type: "submit" }, "Add note");
    return el("form", { onsubmit: async (event) => {
      event.preventDefault();
      if (!text.value.trim()) return text.focus();
      button.disabled = true;
      try {
        await post(`${runApi(id)}/note`, { text: text.value });
        text.value = "";
        showMessage("The note was added.", "done");
        await refresh();
      } catch (error) {
        showError(error);
      } finally {
        button.disabled = false;
      }
    } }, text, button);
  }

  let charts = [];
  let system = null;
  let tree = null;
  let closed = false;

  /** Everything but the curves. */
  async function refresh() {
    const before = run;
    run = await getJson(runApi(id));
    if (closed) return;
    showFacts();
    // The buttons are made anew only when what they offer may have changed: a click must not fall between two of them.
    if (run.status !== before.status || run.checkpoints.length !== before.checkpoints.length || run.name !== before.name) showSteering();
    for (const chart of charts) chart.setRuns([forChart(run)]);
    showSystem();
    if (run.lineage.length !== before.lineage.length || run.children.length !== before.children.length || tree) await showFamily();
  }

  const showSteering = () => fill(parts.steering, steeringBar(run, project, () => refresh().catch(showError)));

  async function showFamily() {
    if (run.lineage.length < 2 && !run.children.length && !run.waiting_parent) return;
    const { runs } = await getJson(`${projectApi(run.project)}/runs`);
    if (closed) return;
    const mine = familyOf(runs, id);
    family.hidden = false;
    if (tree) tree.update(mine);
    else tree = drawTree(family, mine, { unit, state, prefix: "tree.", here: id });
  }

  function showSystem() {
    if (system || !run.metrics.some((name) => name.startsWith("system/"))) return;
    systemCard.hidden = false;
    const place = el("div");
    const fold = el("details", { open: state.getFlag("system") }, el("summary", {}, "CPU, memory and GPU while it ran"), place);
    fill(systemCard, el("h2", {}, "System"), fold);
    const open = () => {
      state.set("system", fold.open, false);
      if (!fold.open || charts.includes(system)) return;
      system = drawChart(place, { runs: [forChart(run)], unit, state, prefix: "system.", axes: ["elapsed", "time"], choose: systemMetrics, only: (name) => name.startsWith("system/") });
      charts.push(system);
    };
    system = true;
    fold.addEventListener("toggle", open);
    if (fold.open) open();
  }

  showFacts();
  showSteering();
  fill(parts.facts, factsSection(run));
  fill(parts.snippet, snippetSection(run));
  charts = [drawChart(chartCard, { runs: [forChart(run)], unit, state, only: (name) => !name.startsWith("system/") })];
  showSystem();

  let timer = 0;
  const soon = () => {
    timer ||= setTimeout(() => {
      timer = 0;
      refresh().catch(showError);
    }, FACTS_WAIT_MS);
  };
  const relatives = () => new Set([id, ...run.lineage.map((entry) => entry.run), ...run.children.map((child) => child.id)]);
  const stop = listen(run.project, {
    runs: ({ ids }) => {
      const mine = relatives();
      if (!ids.some((other) => mine.has(other))) return;
      // An ancestor's news may be points that this run inherits.
      if (ids.some((other) => other === id || run.lineage.some((entry) => entry.run === other))) for (const chart of charts) chart.refresh([id]);
      soon();
    },
    study: soon,
    again: () => {
      for (const chart of charts) chart.refresh([id]);
      soon();
    },
  });
  charts[0].ready.then(() => closed || showFamily()).catch(showError);
  return () => {
    closed = true;
    clearTimeout(timer);
    stop();
    for (const chart of charts) chart.close();
    tree?.();
  };
}

const systemMetrics = (names) => {
  const wanted = [/gpu.*util/i, /cpu/i, /mem/i];
  const found = wanted.map((pattern) => names.find((name) => pattern.test(name))).filter(Boolean);
  return found.length ? [...new Set(found)] : names.slice(0, 3);
};
