// The list in which the run table's columns are chosen.

import { el, fill } from "./dom.js";

/** Entries that are listed at once; the search box finds the rest. */
const MOST_LISTED = 200;

/**
 * A picker. chosen(): the columns that are shown; defaults(): ids where nobody has chosen; set(ids or null): what is chosen now, null for the default.
 * Returns {element, update(columns)}.
 */
export function columnPicker({ chosen, defaults, set }) {
  let columns = [];
  const search = el("input", { type: "search", placeholder: "Find a column", "aria-label": "Find a column" });
  const list = el("div", { class: "picker-list" });
  const element = el("details", { class: "picker" }, el("summary", {}, "Columns"),
    el("div", {}, search, el("div", { class: "row" }, button("Default", () => set(null)), button("All that differ", () => set(allThatDiffer()))), list));

  function button(text, act) {
    return el("button", { type: "button", class: "quiet", onclick: () => { act(); draw(); } }, text);
  }

  function allThatDiffer() {
    const first = defaults().filter((id) => columns.some((column) => column.id === id && column.group === "Run"));
    return [...first, ...columns.filter((column) => column.group !== "Run" && !column.constant && column.present).map(({ id }) => id)];
  }

  function toggle(id, wanted) {
    const ids = chosen().map((column) => column.id);
    set(wanted ? [...ids, id] : ids.filter((other) => other !== id));
  }

  function draw() {
    const wanted = search.value.trim().toLowerCase();
    const shown = new Set(chosen().map(({ id }) => id));
    const found = columns.filter(({ title }) => title.toLowerCase().includes(wanted));
    const groups = [...new Set(found.map(({ group }) => group))];
    let left = MOST_LISTED;
    fill(list, groups.map((group) => {
      const members = found.filter((column) => column.group === group).slice(0, Math.max(left, 0));
      left -= members.length;
      return members.length > 0 && [el("h3", {}, group), members.map((column) => el("label", {},
        el("input", { type: "checkbox", checked: shown.has(column.id), onchange: (event) => toggle(column.id, event.target.checked) }),
        column.title || "(no name)", (column.constant || !column.present) && el("span", { class: "soft small" }, column.present ? "same in all" : "empty")))];
    }), found.length > MOST_LISTED && el("p", { class: "soft small" }, `${found.length - MOST_LISTED} more: search for their names.`),
    !found.length && el("p", { class: "soft small" }, "No column has such a name."));
  }

  search.addEventListener("input", draw);
  element.addEventListener("toggle", () => element.open && draw());
  element.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !element.open) return;
    element.open = false;
    element.querySelector("summary").focus();
  });
  // A list that hangs open over the rows is in the way.
  element.addEventListener("focusout", (event) => {
    if (event.relatedTarget && !element.contains(event.relatedTarget)) element.open = false;
  });
  return {
    element,
    update(given) {
      columns = given;
    },
  };
}
