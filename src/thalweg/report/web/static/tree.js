// The fork tree: a run is a line from its fork to where it is, on one axis of steps; forks branch off where they begin.

import { navigate } from "./app.js";
import { el, fill, perFrame, runPath, svg } from "./dom.js";
import { count, number } from "./format.js";
import { changesBetween, changeText } from "./run_facts.js";
import { lastValue, treeColours } from "./tree_colours.js";
import { inView, ticks, treeRows } from "./tree_layout.js";

const ROW = 26;
const AXIS = 30;
const RIGHT = 92;
/** Rows drawn above and below what is seen, so that scrolling does not show gaps. */
const SPARE = 8;
let numTrees = 0;

/**
 * Draw runs (as /api/projects/NAME/runs gives them) as a tree into root.
 *
 * options: unit; state: the page's view state (colour and folded runs are kept there under prefix + "colour" and "shut"); here: the id of the run to mark.
 * Returns cleanup(), which has update(runs) for news.
 */
export function drawTree(root, runs, { unit = "steps", state, prefix = "", here = null } = {}) {
  const name = `tree${++numTrees}`;
  const known = { runs, byId: new Map(), rows: [], colours: null, end: 1, active: here };
  const shut = () => new Set(state.getList(`${prefix}shut`));
  const colourBy = () => state.get(`${prefix}colour`, "");

  const axis = svg("svg", { class: "axis", height: AXIS, "aria-hidden": "true" });
  const canvas = svg("svg", { role: "presentation", style: { position: "absolute", left: "0" } });
  const sizer = el("div", { style: { position: "relative" } }, canvas);
  const scroller = el("div", { class: "tree-scroll", tabindex: 0, role: "tree", "aria-label": "Runs and their forks: arrow keys to move, Enter to open" }, sizer);
  const legend = el("span", { class: "row" });
  const chooser = el("select", { "aria-label": "What the colours show", onchange: (event) => state.set(`${prefix}colour`, event.target.value, "") });
  const tip = el("div", { class: "tree-tip", hidden: true });
  const box = el("div", { class: "tree" }, el("div", { class: "tree-head" }, el("label", {}, "Colour", chooser), legend, el("span", { class: "space" }), el("span", { class: "soft total" })), axis, scroller, tip);
  root.append(box);
  const paintSoon = perFrame(paint);

  function layOut() {
    known.byId = new Map(known.runs.map((run) => [run.id, run]));
    known.rows = treeRows(known.runs, shut());
    known.colours = treeColours(known.runs, colourBy());
    known.end = known.rows.reduce((end, { run }) => Math.max(end, run.step ?? 0, run.fork_step ?? 0, run.status === "running" ? (run.horizon ?? 0) : 0), 0) || 1;
    const metrics = [...new Set(known.runs.flatMap(({ latest }) => Object.keys(latest ?? {})))].sort();
    // Rebuilt only when there is something new: an open list would shut.
    if (chooser.dataset.names !== JSON.stringify(metrics)) {
      chooser.dataset.names = JSON.stringify(metrics);
      fill(chooser, el("option", { value: "" }, "status"), metrics.slice(0, 300).map((metric) => el("option", { value: metric }, metric || "(no name)")));
    }
    chooser.value = colourBy();
    fill(legend, known.colours.legend);
    box.querySelector(".total").textContent = count(known.runs.length, "run");
    sizer.style.setProperty("height", `${known.rows.length * ROW + 6}px`);
  }

  /** Pixels from a step. */
  function scale() {
    const width = scroller.clientWidth;
    const left = width < 700 ? 130 : 210;
    const room = Math.max(width - left - RIGHT, 80);
    return { width, left, x: (step) => left + (Math.min(Math.max(step ?? 0, 0), known.end) / known.end) * room, room };
  }

  function paint() {
    const { width, left, x, room } = scale();
    const first = Math.max(Math.floor(scroller.scrollTop / ROW) - SPARE, 0);
    const end = Math.min(first + Math.ceil(scroller.clientHeight / ROW) + 2 * SPARE, known.rows.length);
    const top = first * ROW;
    canvas.setAttribute("width", width);
    canvas.setAttribute("height", Math.max((end - first) * ROW, 1));
    canvas.style.setProperty("top", `${top}px`);
    const { shown, lines } = inView(known.rows, first, end);
    const y = (row) => Math.min(Math.max(row * ROW + ROW / 2 - top, -ROW), (end - first + 1) * ROW);
    fill(canvas,
      // Grounds first, so that the lines to forks lie over them and not under.
      shown.map(({ run, row }) => svg("rect", { class: "ground", x: 0, y: row * ROW - top, width, height: ROW, fill: run.id === here ? "var(--mark)" : "transparent" })),
      svg("g", { "aria-hidden": "true" }, lines.map((line) => elbow(line, x, y))),
      shown.map((entry) => node(entry, { x, left, y: y(entry.row), width })));
    paintAxis(width, left, x, room);
    const active = shown.find(({ run }) => run.id === known.active);
    if (active) scroller.setAttribute("aria-activedescendant", `${name}-${active.row}`);
    else scroller.removeAttribute("aria-activedescendant");
  }

  function elbow({ x: step, from, to, child }, x, y) {
    const run = child === null ? null : known.rows[child].run;
    return svg("path", { d: `M${x(step)} ${y(from)}V${y(to)}`, fill: "none", stroke: run ? known.colours.colourOf(run) : "var(--soft)", "stroke-width": 1.5, opacity: 0.75 });
  }

  function node({ run, row, depth, hasForks, numHidden }, { x, left, y, width }) {
    const colour = run.ghost ? "var(--soft)" : known.colours.colourOf(run);
    const [from, to] = [x(run.fork_step), Math.max(x(run.step), x(run.fork_step) + 3)];
    const shown = run.name || run.id;
    const metric = colourBy();
    const value = metric && Number.isFinite(lastValue(run, metric)) ? number(lastValue(run, metric), 4) : "";
    const note = numHidden ? `+${numHidden.toLocaleString("en-US")}` : value;
    const ahead = run.status === "running" && run.horizon > run.step && svg("line", { x1: to, x2: x(run.horizon), y1: y, y2: y, stroke: colour, "stroke-width": 1.5, "stroke-dasharray": "2 4", opacity: 0.7 });
    const body = [
      svg("rect", { class: "ground", x: 1, y: y - ROW / 2 + 1, width: width - 2, height: ROW - 2, rx: 4 }),
      svg("text", { x: 24, y: y + 4, class: run.ghost ? "ghost" : null }, cut(run.ghost ? `waiting: ${run.name}` : shown, left - 34)),
      ahead,
      svg("line", { x1: from, x2: to, y1: y, y2: y, stroke: colour, "stroke-width": run.id === here ? 5 : 3, "stroke-linecap": "round", "stroke-dasharray": run.ghost ? "4 5" : null }),
      !run.ghost && svg("circle", { cx: to, cy: y, r: 4, fill: colour }),
      note && svg("text", { x: to + 10, y: y + 4, class: "value" }, note),
    ];
    const attributes = {
      id: `${name}-${row}`, role: "treeitem", "aria-level": depth + 1, "aria-expanded": hasForks ? String(!numHidden) : null, "aria-label": spoken(run, numHidden),
      class: `tree-node${run.id === here ? " here" : ""}${run.id === known.active ? " active" : ""}`, dataset: { run: run.id }, tabindex: -1,
      onpointerenter: (event) => showTip(event, run), onpointermove: moveTip, onpointerleave: hideTip,
    };
    const place = run.ghost ? svg("g", attributes, body) : svg("a", { ...attributes, href: runPath(run.id) }, body);
    if (!hasForks) return place;
    const fold = svg("g", { class: "tree-fold", "aria-hidden": "true", onclick: () => toggle(run.id) },
      svg("rect", { x: 2, y: y - 11, width: 20, height: 22, fill: "transparent" }),
      svg("path", { d: numHidden ? `M9 ${y - 4.5}l5 4.5l-5 4.5z` : `M7 ${y - 2.5}h9l-4.5 5z`, fill: "var(--soft)" }));
    return [place, fold];
  }

  function paintAxis(width, left, x, room) {
    axis.setAttribute("width", width);
    fill(axis,
      svg("text", { x: 12, y: 20 }, unit),
      ticks(known.end, Math.max(Math.floor(room / 110), 1)).map((step) => [
        svg("line", { x1: x(step), x2: x(step), y1: AXIS - 6, y2: AXIS }),
        svg("text", { x: x(step), y: AXIS - 10, "text-anchor": "middle" }, number(step)),
      ]));
  }

  function spoken(run, numHidden) {
    if (run.ghost) return `${run.name}, not there yet: its forks wait for it`;
    const parent = known.byId.get(run.parent);
    const fork = run.parent ? `, fork of ${run.parent} at ${number(run.fork_step)}` : "";
    const changes = parent ? changesBetween(parent.hyperparameters, run.hyperparameters).map(changeText).slice(0, 4).join(", ") : "";
    return `${run.name ? `${run.name}, ` : ""}${run.id}, ${run.status} at ${number(run.step)} ${unit}${fork}${changes && `, ${changes}`}${numHidden ? `, ${count(numHidden, "fork")} folded away` : ""}`;
  }

  function showTip(event, run) {
    const parent = known.byId.get(run.parent);
    const changes = parent ? changesBetween(parent.hyperparameters, run.hyperparameters).map(changeText) : Object.entries(run.hyperparameters ?? {}).map(([key, now]) => changeText({ name: key, now }));
    const lines = run.ghost ? ["Not there yet. Runs that were forked from it wait for it."] : [
      `${run.status} at ${number(run.step)} ${unit}`,
      run.parent && `fork of ${run.parent} at ${number(run.fork_step)}`,
      ...(changes.length ? changes.slice(0, 12) : parent ? ["no hyperparameter changed"] : []),
      changes.length > 12 && `and ${changes.length - 12} more`,
      colourBy() && `${colourBy()}: ${number(lastValue(run, colourBy()))}`,
    ];
    fill(tip, el("p", {}, el("b", {}, run.name ? `${run.name} (${run.id})` : run.id)), lines.filter(Boolean).map((line) => el("p", {}, line)));
    tip.hidden = false;
    moveTip(event);
  }

  function moveTip(event) {
    const area = box.getBoundingClientRect();
    const [x, y] = [event.clientX - area.left + 14, event.clientY - area.top + 14];
    tip.style.setProperty("left", `${Math.max(Math.min(x, area.width - tip.offsetWidth - 8), 8)}px`);
    tip.style.setProperty("top", `${y + tip.offsetHeight + area.top > innerHeight ? y - tip.offsetHeight - 26 : y}px`);
  }

  const hideTip = () => (tip.hidden = true);

  function toggle(id) {
    const now = shut();
    if (!now.delete(id)) now.add(id);
    state.set(`${prefix}shut`, [...now], []);
  }

  function activate(row) {
    const entry = known.rows[Math.min(Math.max(row, 0), known.rows.length - 1)];
    if (!entry) return;
    known.active = entry.run.id;
    const place = entry.row * ROW;
    if (place < scroller.scrollTop) scroller.scrollTop = place;
    else if (place + ROW > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = place + ROW - scroller.clientHeight;
    paint();
  }

  function onKey(event) {
    const entry = known.rows.find(({ run }) => run.id === known.active);
    const at = entry?.row ?? -1;
    const page = Math.max(Math.floor(scroller.clientHeight / ROW) - 1, 1);
    const moves = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: known.rows.length - 1 };
    if (event.key in moves) activate(moves[event.key]);
    else if (event.key === "Enter" && entry && !entry.run.ghost) navigate(runPath(entry.run.id));
    else if (event.key === "ArrowLeft" && entry?.hasForks && !entry.numHidden) toggle(entry.run.id);
    else if (event.key === "ArrowLeft" && entry && entry.parentRow >= 0) activate(entry.parentRow);
    else if (event.key === "ArrowRight" && entry?.numHidden) toggle(entry.run.id);
    else if (event.key === "ArrowRight" && entry?.hasForks) activate(at + 1);
    else return;
    event.preventDefault();
  }

  const update = (given) => {
    known.runs = given;
    layOut();
    paintSoon();
  };
  const off = state.on((changed) => {
    if (changed.includes(`${prefix}shut`) || changed.includes(`${prefix}colour`)) update(known.runs);
  });
  const sizes = new ResizeObserver(paintSoon);
  layOut();
  const marked = known.rows.find(({ run }) => run.id === here);
  if (marked) scroller.scrollTop = Math.max(marked.row * ROW - scroller.clientHeight / 2, 0);
  paint();
  sizes.observe(scroller);
  scroller.addEventListener("scroll", paintSoon, { passive: true });
  scroller.addEventListener("keydown", onKey);

  const cleanup = () => {
    off();
    sizes.disconnect();
    paintSoon.cancel();
    box.remove();
  };
  cleanup.update = update;
  return cleanup;
}

/** A text cut to about so many pixels of 12-pixel type, without measuring it. */
function cut(text, pixels) {
  const most = Math.max(Math.floor(pixels / 6.6), 4);
  const letters = [...text];
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}\u2026` : text;
}
