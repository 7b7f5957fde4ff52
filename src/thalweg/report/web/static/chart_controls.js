// The controls above a chart. Each one sets the view's state, nothing else.

import { el, fill } from "./dom.js";

/**
 * names: the state's names with the chart's prefix; metrics(): all that can be chosen; chosen(): those shown.
 * axes: [{key, title}]. Returns {element, update(reading, zoomed)}.
 */
export function chartControls(state, names, { metrics, chosen, axes, forks, resetZoom }) {
  const picker = metricPicker(state, names, metrics, chosen);
  const reading = el("output", { class: "reading" });
  const slider = el("input", {
    type: "range", min: 0, max: 100, step: 1, "aria-label": "Smoothing", value: String(state.getNumber(names.smooth, 0)),
    oninput: (event) => state.set(names.smooth, Number(event.target.value), 0),
  });
  const method = choice("How the line is smoothed", state.get(names.method, "window"), [["window", "window"], ["ema", "EMA"]], (value) => state.set(names.method, value, "window"));
  const reset = el("button", { type: "button", class: "quiet", hidden: true, onclick: resetZoom }, "Reset zoom");
  const element = el("div", { class: "chart-controls" },
    picker.element,
    axes.length > 1 && el("label", {}, "Along", choice("Horizontal axis", state.get(names.x, axes[0].key), axes.map(({ key, title }) => [key, title]), (value) => {
      state.setAll({ [names.x]: value === axes[0].key ? null : value, [names.from]: null, [names.to]: null });
    })),
    check(state, names.logx, "log x"),
    check(state, names.logy, "log y"),
    forks && check(state, names.inherited, "inherited parts", true),
    el("label", {}, "Smooth", slider), method, reading,
    reset,
  );
  return {
    element,
    update(text, zoomed) {
      reading.textContent = text;
      reset.hidden = !zoomed;
      picker.update();
    },
  };
}

function check(state, name, text, fallback = false) {
  return el("label", {}, el("input", { type: "checkbox", checked: state.getFlag(name, fallback), onchange: (event) => state.set(name, event.target.checked, fallback) }), text);
}

function choice(label, value, options, choose) {
  const known = options.some(([key]) => key === value) ? value : options[0][0];
  return el("select", { "aria-label": label, value: known, onchange: (event) => choose(event.target.value) }, options.map(([key, text]) => el("option", { value: key }, text)));
}

function metricPicker(state, names, metrics, chosen) {
  const list = el("div", { role: "group", "aria-label": "Metrics to show" });
  const summary = el("summary", {}, "Metrics");
  const element = el("details", { class: "picker" }, summary, list);
  const search = el("input", { type: "search", placeholder: "Find a metric", "aria-label": "Find a metric", oninput: () => show() });
  const boxes = el("div");
  fill(list, search, boxes);

  function show() {
    const wanted = search.value.toLowerCase();
    const shown = chosen();
    const found = metrics().filter((name) => name.toLowerCase().includes(wanted));
    search.hidden = metrics().length < 12;
    fill(boxes, found.slice(0, 200).map((name) => el("label", { title: name }, el("input", {
      type: "checkbox", checked: shown.includes(name),
      onchange: (event) => {
        const now = chosen().filter((other) => other !== name);
        state.set(names.metric, event.target.checked ? [...now, name] : now);
      },
    }), name || "(no name)")), found.length > 200 && el("p", { class: "soft small" }, `${found.length - 200} more: type to find them`));
  }

  element.addEventListener("toggle", () => element.open && show());
  const shut = (event) => {
    if (element.open && !element.contains(event.target)) element.open = false;
  };
  // Listens only while it is open: a picker that is gone leaves nothing behind.
  element.addEventListener("toggle", () => (element.open ? addEventListener("pointerdown", shut) : removeEventListener("pointerdown", shut)));
  element.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    element.open = false;
    summary.focus();
  });
  return { element, update: () => (summary.textContent = `Metrics (${chosen().length} of ${metrics().length})`) };
}
