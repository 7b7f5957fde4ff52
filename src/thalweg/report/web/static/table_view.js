// The part of the run table that scrolls: only the rows in view are in the document, however many there are.

import { el, fill, link, perFrame, runPath } from "./dom.js";
import { count, number } from "./format.js";
import { statusMark } from "./run_facts.js";

const ROW = 32;
/** Rows above and below what is seen, so that scrolling shows no gaps. */
const SPARE = 10;
const FONT = "14px system-ui, sans-serif";
const NARROWEST = 58;
const WIDEST = 280;
let numTables = 0;

/**
 * A scrolling table into root.
 *
 * on: {sort(column id, added: bool), select(run, wanted, reachesFrom: run or null), all(wanted), fold(group key), open(run)}.
 * Returns {show({columns, rows, sorted, selected, dimmed, numRuns, measure}), close()}: columns as in table_columns.js; rows as in table_rows.js;
 * sorted: [{id, down}]; selected, dimmed: sets of run ids; measure: {title, write} of the groups' best and mean.
 */
export function tableView(root, on) {
  const prefix = `table${++numTables}-`;
  const head = el("thead");
  const body = el("tbody");
  const widths = el("colgroup");
  const table = el("table", { class: "runs", role: "grid", tabindex: 0, "aria-multiselectable": "true", "aria-label": "Runs: arrow keys to move, Space to select, Enter to open" }, widths, head, body);
  const scroller = el("div", { class: "runs-scroll" }, table);
  root.append(scroller);
  let now = { columns: [], rows: [], sorted: [], selected: new Set(), dimmed: new Set(), numRuns: 0, measure: null };
  let active = -1;
  let anchor = null;
  /** Row key -> its element, as far as they are in the document. */
  let drawn = new Map();
  let headKey = "";
  const [above, below] = [spacer(), spacer()];
  const paintSoon = perFrame(paint);

  function show(given) {
    const activeKey = now.rows[active]?.key;
    now = given;
    active = activeKey === undefined ? -1 : now.rows.findIndex(({ key }) => key === activeKey);
    showHead();
    table.setAttribute("aria-rowcount", now.rows.length + 1);
    table.setAttribute("aria-colcount", now.columns.length + 1);
    paint();
  }

  function showHead() {
    const key = JSON.stringify([now.columns.map(({ id, title, kind }) => [id, title, kind]), now.sorted]);
    const all = el("input", { type: "checkbox", "aria-label": "Select all runs that are shown", tabindex: -1, onchange: (event) => on.all(event.target.checked) });
    if (key !== headKey) {
      const isNew = !sameColumns(headKey, key);
      headKey = key;
      fill(head, el("tr", { "aria-rowindex": 1 }, el("th", { class: "pick", scope: "col" }, all), now.columns.map(headCell), el("th", { "aria-hidden": "true" })));
      // What is in the document has the old columns.
      if (isNew) drawn = new Map();
      if (isNew) setWidths();
    }
    const box = head.querySelector("input");
    const shown = now.rows.filter(({ run }) => run);
    const numSelected = shown.filter(({ run }) => now.selected.has(run.id)).length;
    box.checked = numSelected > 0 && numSelected === shown.length;
    box.indeterminate = numSelected > 0 && numSelected < shown.length;
  }

  const sameColumns = (before, after) => before !== "" && JSON.stringify(JSON.parse(before)[0]) === JSON.stringify(JSON.parse(after)[0]);

  function headCell(column) {
    const at = now.sorted.findIndex(({ id }) => id === column.id);
    const sort = at < 0 ? null : now.sorted[at];
    const mark = sort ? `${sort.down ? "\u2193" : "\u2191"}${now.sorted.length > 1 ? at + 1 : ""}` : "";
    return el("th", { scope: "col", class: isNumber(column) ? "num" : null, "aria-sort": sort ? (sort.down ? "descending" : "ascending") : "none", dataset: { column: column.id } },
      el("button", { type: "button", class: "sorter", title: `${column.title}${column.group === "Run" ? "" : ` (${column.group.toLowerCase()})`}: click to sort, with Shift as a further key`, onclick: (event) => on.sort(column.id, event.shiftKey) },
        el("span", { class: "sorter-title" }, column.title || "(no name)"), mark && el("span", { class: "sorter-mark" }, mark)));
  }

  /** Widths by what the columns hold, so that scrolling does not move them. */
  function setWidths() {
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = FONT;
    const runs = now.rows.filter(({ run }) => run).slice(0, 400).map(({ run }) => run);
    const sizes = now.columns.map((column) => {
      let widest = pen.measureText(column.title).width * 0.96 + 22;
      for (const run of runs) {
        const value = column.read(run);
        if (value !== null && value !== undefined) widest = Math.max(widest, pen.measureText(String(column.write(value)).slice(0, 60)).width + EXTRA[column.kind]);
      }
      return Math.ceil(Math.min(Math.max(widest + 18, NARROWEST), column.kind === "number" ? 170 : WIDEST));
    });
    fill(widths, el("col", { style: { width: "38px" } }), sizes.map((size) => el("col", { style: { width: `${size}px` } })), el("col"));
    table.style.setProperty("min-width", `${38 + sizes.reduce((sum, size) => sum + size, 0)}px`);
  }

  function paint() {
    const height = scroller.clientHeight || 600;
    const numRows = now.rows.length;
    const first = Math.max(Math.min(Math.floor(scroller.scrollTop / ROW) - SPARE, numRows - 1), 0);
    const end = Math.min(first + Math.ceil(height / ROW) + 2 * SPARE, numRows);
    const kept = new Map();
    const wanted = [above];
    for (let index = first; index < end; index++) {
      const row = now.rows[index];
      const node = drawn.get(row.key) ?? el("tr");
      patch(node, row, index);
      kept.set(row.key, node);
      wanted.push(node);
    }
    wanted.push(below);
    drawn = kept;
    setHeight(above, first * ROW);
    setHeight(below, (numRows - end) * ROW);
    arrange(wanted);
    if (active >= 0) table.setAttribute("aria-activedescendant", `${prefix}${active}`);
    else table.removeAttribute("aria-activedescendant");
  }

  /** Rows that stay are not taken out and put back: a click that has begun on one would be lost. */
  function arrange(wanted) {
    const keep = new Set(wanted);
    for (const node of [...body.children]) if (!keep.has(node)) node.remove();
    wanted.forEach((node, index) => {
      if (body.children[index] !== node) body.insertBefore(node, body.children[index] ?? null);
    });
  }

  function patch(node, row, index) {
    node.id = `${prefix}${index}`;
    node.setAttribute("aria-rowindex", index + 2);
    node.dataset.index = index;
    if (row.group) return patchGroup(node, row, index);
    const { run } = row;
    const selected = now.selected.has(run.id);
    setClass(node, `${selected ? "selected" : ""}${index === active ? " active" : ""}${now.dimmed.has(run.id) ? " dimmed" : ""}`);
    node.setAttribute("aria-selected", String(selected));
    if (!node.firstChild) {
      node.append(el("td", { class: "pick" }, el("input", { type: "checkbox", tabindex: -1, "aria-label": `Select ${run.id}` })));
      for (const column of now.columns) node.append(el("td", { class: CLASSES[column.kind] }));
      // What is left of the width.
      node.append(el("td", { "aria-hidden": "true" }));
    }
    node.firstChild.firstChild.checked = selected;
    now.columns.forEach((column, k) => patchCell(node.children[k + 1], column, run));
    return node;
  }

  function patchGroup(node, { group, open }, index) {
    setClass(node, `group${index === active ? " active" : ""}`);
    node.setAttribute("aria-expanded", String(open));
    const { title, write } = now.measure ?? {};
    const numbers = group.best === null ? "" : `best ${title} ${write(group.best)}, mean ${write(group.mean)}`;
    const text = JSON.stringify([group.label, group.runs.length, numbers, open]);
    if (node.dataset.text === text) return;
    node.dataset.text = text;
    fill(node, el("td", { class: "pick" }, el("span", { class: open ? "fold open" : "fold", "aria-hidden": "true" })),
      el("td", { colspan: now.columns.length + 1 }, el("b", {}, group.label), el("span", { class: "soft" }, ` ${count(group.runs.length, "run")}`), numbers && [" ", el("span", { class: "soft group-numbers" }, numbers)]));
  }

  function onClick(event) {
    const node = event.target.closest("tr");
    const row = node && node.dataset.index !== undefined ? now.rows[Number(node.dataset.index)] : null;
    if (!row) return;
    active = Number(node.dataset.index);
    if (row.group) return on.fold(row.group.key);
    if (event.target.closest("a")) return;
    const box = node.querySelector("input");
    // A click anywhere in the first cell is meant for its box.
    const isBox = event.target === box;
    if (isBox || event.target.closest(".pick")) {
      const wanted = isBox ? box.checked : !now.selected.has(row.run.id);
      on.select(row.run, wanted, event.shiftKey ? anchor : null);
      anchor = row.run;
      return;
    }
    paint();
  }

  function onKey(event) {
    if (event.target !== table) return;
    const page = Math.max(Math.floor(scroller.clientHeight / ROW) - 2, 1);
    const moves = { ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + page, PageUp: active - page, Home: 0, End: now.rows.length - 1 };
    const row = now.rows[active];
    if (event.key in moves) activate(moves[event.key], event.shiftKey);
    else if (row?.group && [" ", "Enter"].includes(event.key)) on.fold(row.group.key);
    else if (row?.group && event.key === (row.open ? "ArrowLeft" : "ArrowRight")) on.fold(row.group.key);
    else if (row?.run && event.key === " ") {
      on.select(row.run, !now.selected.has(row.run.id), null);
      anchor = row.run;
    } else if (row?.run && event.key === "Enter") on.open(row.run);
    else return;
    event.preventDefault();
  }

  function activate(index, extending) {
    active = Math.min(Math.max(index, 0), now.rows.length - 1);
    const row = now.rows[active];
    if (!row) return;
    const [top, bottom] = [active * ROW, (active + 1) * ROW + head.offsetHeight];
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (bottom > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = bottom - scroller.clientHeight;
    if (extending && row.run) on.select(row.run, true, null);
    else paint();
  }

  const sizes = new ResizeObserver(paintSoon);
  sizes.observe(scroller);
  scroller.addEventListener("scroll", paintSoon, { passive: true });
  body.addEventListener("click", onClick);
  table.addEventListener("keydown", onKey);
  return {
    show,
    close() {
      sizes.disconnect();
      paintSoon.cancel();
      scroller.remove();
    },
  };
}

const isNumber = ({ kind }) => kind === "number" || kind === "time";
const CLASSES = { number: "num", time: "num soft", text: "text", name: "name", status: "text", tags: "text" };
/** Pixels beside a cell's text: marks and frames. */
const EXTRA = { number: 4, time: 4, text: 2, name: 4, status: 18, tags: 26 };

function patchCell(cell, column, run) {
  const value = column.read(run) ?? null;
  const text = value === null ? "" : String(column.write(value));
  const key = `${column.kind === "name" ? run.id : ""}\n${text}`;
  if (cell.dataset.text === key) return;
  cell.dataset.text = key;
  const full = value === null ? "" : String(column.full(value));
  cell.title = column.kind === "name" && run.name ? `${run.name} (${run.id})` : full.slice(0, 2000);
  const bad = typeof value === "number" && !Number.isFinite(value);
  if (column.kind === "name") fill(cell, link(runPath(run.id), text || run.id, { tabindex: -1 }));
  else if (column.kind === "status") fill(cell, statusMark(text));
  else if (column.kind === "tags") fill(cell, value.map((tag) => el("span", { class: "tag" }, tag)));
  else fill(cell, bad ? el("span", { class: "problem" }, number(value)) : text);
}

const spacer = () => el("tr", { class: "spacer", "aria-hidden": "true" }, el("td"));

function setHeight(node, height) {
  node.firstChild.style.setProperty("height", `${height}px`);
  node.hidden = height === 0;
}

function setClass(node, text) {
  if (node.className !== text.trim()) node.className = text.trim();
}
