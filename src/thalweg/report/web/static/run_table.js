// The table of a project's runs: filter, groups, columns and selection around the rows. What is set is in the URL.

import { navigate } from "./app.js";
import { differenceTable } from "./compare_page.js";
import { comparePath, el, empty, fill, runPath } from "./dom.js";
import { readFilter } from "./filter_query.js";
import { count, number } from "./format.js";
import { readNumbers, writeNumbers } from "./run_numbers.js";
import { columnPicker } from "./table_columns_picker.js";
import { columnsOf, defaultColumns, fieldsOf, searchText } from "./table_columns.js";
import { goalOf, groupRuns, rowsToShow, sortRuns } from "./table_rows.js";
import { tableView } from "./table_view.js";

const FILTER_WAIT_MS = 120;
/** Runs whose hyperparameters are put side by side. */
const MOST_COMPARED = 20;
/** Runs that one comparison page draws. */
const MOST_CHARTED = 60;

/** The runs that are selected, by the page's view state. */
export function selectedRuns(runs, state) {
  const has = readNumbers(state.get("sel"));
  return runs.filter((run) => has(run.number));
}

/**
 * Draw the table into root. options: runs, project (as the API gives them), state: the page's view state;
 * actions(runs) -> nodes: what can be done to the selected runs; showChart(): open the chart of the selected ones.
 * Returns {update(runs), close()}.
 */
export function drawRunTable(root, { runs: given, project, state, actions = () => null, showChart }) {
  let runs = given;
  let known = columnsOf(runs, project);
  let filter = { text: null, test: null, problem: "" };
  const texts = new WeakMap();
  let shown = [];

  const search = el("input", { type: "search", class: "filter", value: state.get("filter", ""), placeholder: "Filter: words, or lr > 1e-4 and status = finished", "aria-label": "Filter runs", spellcheck: "false", autocomplete: "off" });
  const problem = el("span", { class: "problem", role: "alert", hidden: true });
  const grouping = el("select", { "aria-label": "Group by", onchange: (event) => state.set("group", event.target.value, "") });
  const picker = columnPicker({ chosen: () => chosenColumns(), defaults: () => defaultColumns(known, project), set: (ids) => state.set("cols", ids, null) });
  const total = el("span", { class: "soft total", role: "status" });
  const hiddenBox = el("span", { class: "soft" });
  const selection = el("div", { class: "selection" });
  const same = el("details", { class: "same" });
  const place = el("div");
  const differences = el("section", { class: "card", hidden: true });
  root.append(
    el("div", { class: "table-tools" }, search, problem, el("label", { class: "soft" }, "Group by", grouping), picker.element, el("span", { class: "space" }), hiddenBox, total),
    selection, differences, place, same);
  const view = tableView(place, { sort, select, all, fold, open: (run) => leaveFor(runPath(run.id)) });
  const nothing = el("div", { hidden: true });
  place.append(nothing);

  /** What is set just now is written into this page's URL, not into the next one's. */
  function leaveFor(href) {
    state.flush();
    navigate(href);
  }

  const readSort = () => state.getList("sort", ["-number"]).map((text) => ({ id: text.replace(/^-/, ""), down: text.startsWith("-") })).filter(({ id }) => known.byId.has(id));
  const chosenColumns = () => {
    const ids = state.getList("cols", null) ?? defaultColumns(known, project);
    return ids.map((id) => known.byId.get(id)).filter(Boolean);
  };

  function applyFilter() {
    const text = state.get("filter", "");
    if (filter.text === text && filter.known === known) return;
    try {
      filter = { text, known, problem: "", test: readFilter(text, fieldsOf(known), (run) => cachedText(run)) };
    } catch (error) {
      // While a condition is typed it is wrong most of the time: the rows stay as they were.
      filter = { ...filter, text, known, problem: error.message };
    }
    problem.textContent = filter.problem;
    problem.hidden = !filter.problem;
    search.setAttribute("aria-invalid", String(Boolean(filter.problem)));
  }

  function cachedText(run) {
    let text = texts.get(run);
    if (text === undefined) texts.set(run, (text = searchText(run)));
    return text;
  }

  /** What groups are measured by: the first metric that is sorted by, else the study's, else the first that is shown. */
  function measure() {
    const isMetric = (column) => column?.id === "score" || column?.group === "Latest metrics";
    const column = readSort().map(({ id }) => known.byId.get(id)).find(isMetric) ?? known.byId.get("score") ?? chosenColumns().find(isMetric);
    return column ? { ...column, goal: goalFor(column) } : null;
  }

  const goalFor = ({ id, title }) => (project.metric && (id === "score" || title === `validation/${project.metric.name}`) ? project.metric.goal : goalOf(title));

  function refresh() {
    applyFilter();
    const isHidden = readNumbers(state.get("hide"));
    const isSelected = readNumbers(state.get("sel"));
    const showHidden = state.getFlag("hidden");
    const hidden = runs.filter((run) => isHidden(run.number));
    const visible = runs.filter((run) => (showHidden || !isHidden(run.number)) && (!filter.test || filter.test(run)));
    shown = sortRuns(visible, readSort().map(({ id, down }) => ({ read: known.byId.get(id).read, down })));
    const by = known.byId.get(state.get("group", ""));
    const measured = by ? measure() : null;
    const groups = by && groupRuns(shown, by.read, measured).map((group) => ({ ...group, label: `${by.title}: ${group.value === null ? "none" : by.write(group.value)}` }));
    const rows = rowsToShow(shown, groups, new Set(state.getList("shut")));
    const columns = chosenColumns();
    const selected = runs.filter((run) => isSelected(run.number));
    view.show({ columns, rows, sorted: readSort(), selected: new Set(selected.map(({ id }) => id)), dimmed: new Set(showHidden ? hidden.map(({ id }) => id) : []), numRuns: runs.length, measure: measured });
    total.textContent = shown.length === runs.length ? count(runs.length, "run") : `${number(shown.length)} of ${count(runs.length, "run")}`;
    showNothing(rows);
    showHidden_(hidden, showHidden);
    showGrouping();
    picker.update(known.columns);
    showSelection(selected, isHidden);
    showSame(columns);
    showDifferences(selected);
  }

  function showNothing(rows) {
    nothing.hidden = rows.length > 0;
    place.firstChild.hidden = rows.length === 0;
    if (!rows.length) fill(nothing, runs.length ? empty("No run passes", filter.test ? "Change the filter, or show the hidden runs." : "All runs are hidden.") : empty("No runs yet", "They appear here as soon as they begin."));
  }

  function showHidden_(hidden, showHidden) {
    hiddenBox.hidden = !hidden.length;
    if (!hidden.length) return;
    const box = el("input", { type: "checkbox", checked: showHidden, onchange: (event) => state.set("hidden", event.target.checked, false) });
    fill(hiddenBox, el("label", {}, box, `show ${number(hidden.length)} hidden`));
  }

  function showGrouping() {
    const now = state.get("group", "");
    const options = known.columns.filter((column) => column.id === now || (GROUPABLE.has(column.id) || column.group === "Hyperparameters") && !column.constant);
    const key = JSON.stringify(options.map(({ id }) => id));
    if (grouping.dataset.key !== key) {
      grouping.dataset.key = key;
      fill(grouping, el("option", { value: "" }, "nothing"), options.map(({ id, title }) => el("option", { value: id }, title || "(no name)")));
    }
    grouping.value = known.byId.has(now) ? now : "";
  }

  let selectionKey = null;
  function showSelection(selected, isHidden) {
    // A menu in it would shut with every point that is logged: it is made anew only where something differs.
    const key = JSON.stringify([selected.map(({ id, status }) => [id, status]), selected.map(({ number: at }) => isHidden(at)), state.getFlag("diff")]);
    if (key === selectionKey) return;
    selectionKey = key;
    // The bar is there without a selection too: rows that jump away under the pointer are a nuisance.
    if (!selected.length) return fill(selection, el("span", { class: "soft" }, "Select runs to chart, compare, hide or steer them."));
    const numbers = selected.map((run) => run.number);
    const hide = (wanted) => {
      const chosen = new Set(numbers);
      const rest = runs.filter((run) => isHidden(run.number) && !chosen.has(run.number)).map((run) => run.number);
      state.setAll({ hide: wanted ? writeNumbers([...rest, ...numbers]) : writeNumbers(rest) || null, sel: wanted ? null : state.get("sel") });
    };
    const button = (text, act, attributes = {}) => el("button", { type: "button", onclick: act, ...attributes }, text);
    fill(selection, el("b", {}, `${number(selected.length)} selected`),
      button("Chart", showChart),
      button("Compare", () => leaveFor(comparePath(selected.slice(0, MOST_CHARTED).map(({ id }) => id)))),
      button("Differences", () => state.set("diff", !state.getFlag("diff"), false), { disabled: selected.length < 2, "aria-pressed": String(state.getFlag("diff")), title: selected.length < 2 ? "Select two runs or more" : null }),
      selected.some((run) => !isHidden(run.number)) && button("Hide", () => hide(true)),
      selected.some((run) => isHidden(run.number)) && button("Show again", () => hide(false)),
      actions(selected), el("span", { class: "space" }), button("Clear", () => state.set("sel", null), { class: "quiet" }));
  }

  function showSame(columns) {
    const visible = new Set(columns.map(({ id }) => id));
    const alike = known.columns.filter((column) => column.group === "Hyperparameters" && column.constant && !visible.has(column.id));
    same.hidden = !alike.length || runs.length < 2;
    const key = JSON.stringify(alike.map((column) => [column.id, column.full(column.read(runs[0]))]));
    if (same.hidden || same.dataset.key === key) return;
    same.dataset.key = key;
    fill(same, el("summary", {}, `${count(alike.length, "hyperparameter")} the same in all runs`),
      el("div", { class: "same-list" }, alike.slice(0, 500).map((column) => el("span", {}, el("span", { class: "soft" }, column.title), " ", el("span", { title: column.full(column.read(runs[0])) }, column.write(column.read(runs[0])))))));
  }

  function showDifferences(selected) {
    differences.hidden = !state.getFlag("diff") || selected.length < 2;
    if (differences.hidden) return;
    const more = selected.length > MOST_COMPARED ? ` The first ${MOST_COMPARED} of ${selected.length} runs are shown.` : "";
    fill(differences, el("h2", {}, "Differences in hyperparameters"), el("p", { class: "soft small" }, `Values that are not the most common one are marked.${more}`),
      el("div", { class: "wide" }, differenceTable(selected.slice(0, MOST_COMPARED))));
  }

  function sort(id, added) {
    const sorted = readSort();
    const before = sorted.find((key) => key.id === id);
    const column = known.byId.get(id);
    // First the way that is wanted most: the best or the newest on top, names from A.
    const down = column.id === "score" || column.group === "Latest metrics" ? goalFor(column) === "max" : column.kind === "time" || id === "number";
    const next = before === undefined ? { id, down } : before.down === down ? { id, down: !down } : null;
    const rest = added ? sorted.filter((key) => key.id !== id) : [];
    const place_ = added && before ? sorted.indexOf(before) : rest.length;
    if (next) rest.splice(place_, 0, next);
    state.set("sort", rest.map((key) => (key.down ? "-" : "") + key.id), null);
  }

  function setSelection(wanted) {
    state.set("sel", writeNumbers(wanted) || null);
  }

  function select(run, wanted, from) {
    const numbers = new Set(selectedRuns(runs, state).map((each) => each.number));
    const [a, b] = [shown.indexOf(run), from ? shown.findIndex(({ id }) => id === from.id) : -1];
    const reached = b < 0 ? [run] : shown.slice(Math.min(a, b), Math.max(a, b) + 1);
    for (const each of reached) numbers[wanted ? "add" : "delete"](each.number);
    setSelection(numbers);
  }

  function all(wanted) {
    const numbers = new Set(selectedRuns(runs, state).map((each) => each.number));
    for (const run of shown) numbers[wanted ? "add" : "delete"](run.number);
    setSelection(numbers);
  }

  function fold(key) {
    const shut = new Set(state.getList("shut"));
    if (!shut.delete(key)) shut.add(key);
    state.set("shut", [...shut], []);
  }

  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => state.set("filter", search.value, ""), FILTER_WAIT_MS);
  });
  const off = state.on((names) => {
    if (names.some((name) => OURS.has(name))) refresh();
  });
  refresh();
  return {
    update(fresh) {
      runs = fresh;
      known = columnsOf(runs, project);
      refresh();
    },
    close() {
      clearTimeout(timer);
      off();
      view.close();
    },
  };
}

const GROUPABLE = new Set(["status", "parent", "origin", "tags"]);
const OURS = new Set(["filter", "sort", "group", "cols", "hide", "hidden", "sel", "shut", "diff"]);
