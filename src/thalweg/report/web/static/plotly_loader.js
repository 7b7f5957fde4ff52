// Plotly, loaded by the pages that draw with it, and its look in the two themes.

import { getSession } from "./api.js";

let loading = null;

/** The Plotly object; its script (nearly 5 MB) is loaded by the first call. */
export function loadPlotly() {
  loading ??= getSession().then(({ plotly }) => new Promise((resolve, reject) => {
    const script = document.createElement("script");
    // With the version in it, the address is kept by the browser for good.
    script.src = plotly;
    script.onload = () => resolve(globalThis.Plotly);
    script.onerror = () => {
      script.remove();
      reject(new Error("Plotly could not be loaded from the server, so nothing can be drawn. Is the plotly package installed there?"));
    };
    document.head.append(script);
  }));
  loading.catch(() => (loading = null));
  return loading;
}

/** The theme's colours: {ink, soft, line, card}. */
export function themeColours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  return { ink: read("--ink"), soft: read("--soft"), line: read("--line"), card: read("--card") };
}

/** A Plotly template in the theme's colours: for `layout.template`. */
export function plotlyTemplate() {
  const { ink, soft, line, card } = themeColours();
  const axis = {
    gridcolor: line, linecolor: line, zerolinecolor: line, zeroline: false, automargin: true, ticklabelstandoff: 4,
    tickfont: { color: soft }, title: { standoff: 12, font: { size: 13 } },
  };
  return {
    layout: {
      font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", size: 12, color: ink },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      xaxis: axis,
      yaxis: axis,
      annotationdefaults: { bgcolor: card },
      hovermode: "closest",
      hoverlabel: { align: "left", bgcolor: card, bordercolor: line, font: { color: ink } },
      margin: { l: 64, r: 24, t: 24, b: 48 },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)" },
    },
  };
}
