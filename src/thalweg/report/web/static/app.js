// The router and the bar on top.

import { el, fill, link, showError } from "./dom.js";
import { loadPlotly } from "./plotly_loader.js";
import { viewState } from "./view_state.js";

/** Path -> [module, parameters]. */
function match(path) {
  const parts = path.split("/").filter(Boolean).map(decodePart);
  if (!parts.length) return ["./projects_page.js", {}];
  if (parts[0] === "p" && parts.length === 2) return ["./project_page.js", { name: parts[1] }];
  if (parts[0] === "r" && parts.length === 2) return ["./run_page.js", { run: parts[1] }];
  if (parts[0] === "compare" && parts.length === 1) return ["./compare_page.js", {}];
  return null;
}

function decodePart(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

const page = document.getElementById("page");
let leave = () => {};
/** Writes what the page has set into its own URL, before another one takes its place. */
let settle = () => {};
let visit = 0;

/** Show the page of the present URL. */
async function route() {
  const mine = ++visit;
  leave();
  leave = () => {};
  const state = viewState();
  settle = () => state.flush();
  leave = () => state.close();
  const root = el("div", { class: "page" });
  setTrail([]);
  // In the document from the start: charts measure the room that they have.
  fill(page, root);
  const found = match(location.pathname);
  // The largest thing that such a page needs: on its way while the modules are.
  if (found?.[0] === "./run_page.js" || found?.[0] === "./compare_page.js") loadPlotly().catch(() => {});
  try {
    if (found === null) throw new Error(`There is no page ${location.pathname}.`);
    const [module, params] = found;
    const { show } = await import(module);
    if (mine !== visit) return;
    const cleanup = await show(root, params, state);
    if (mine !== visit) return cleanup?.();
    leave = () => {
      state.close();
      cleanup?.();
    };
  } catch (error) {
    if (mine !== visit || error?.name === "AbortError") return;
    if (!(error?.status >= 0)) console.warn(error);
    fill(root, el("div", { class: "empty", role: "alert" }, el("p", { class: "empty-title" }, error.message), link("/", "All projects")));
  }
}

/** Go to another page of the dashboard. */
export function navigate(href) {
  settle();
  history.pushState(null, "", href);
  scrollTo(0, 0);
  route();
}

const trail = el("nav", { class: "trail", "aria-label": "Where you are" });

/** What stands in the bar and the window's title: [{text, href?}], outermost first. */
export function setTrail(crumbs) {
  fill(trail, crumbs.map(({ text, href }) => [el("span", { class: "trail-mark", "aria-hidden": "true" }, "/"), href ? link(href, text) : el("span", { "aria-current": "page" }, text)]));
  document.title = [...crumbs.map(({ text }) => text).reverse(), "Thalweg"].join(" \u00b7 ");
}

function liveMark() {
  const mark = el("span", { class: "live", hidden: true });
  addEventListener("thalweg:live", ({ detail }) => {
    mark.hidden = detail === null;
    mark.className = detail ? "live on" : "live off";
    mark.textContent = detail ? "Live" : "Offline";
    mark.title = detail ? "Changes are shown as they happen" : "The server cannot be reached; trying again";
  });
  return mark;
}

function themeButton() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = el("button", { type: "button", class: "quiet theme" });
  const dark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const showChoice = () => {
    button.textContent = dark() ? "Light" : "Dark";
    button.title = dark() ? "Use the light colours" : "Use the dark colours";
    dispatchEvent(new CustomEvent("thalweg:theme"));
  };
  try {
    const chosen = localStorage.getItem("thalweg-theme");
    if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage may be off: the choice then lasts until the page is closed.
  }
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    try {
      localStorage.setItem("thalweg-theme", document.documentElement.dataset.theme);
    } catch {
      // As above.
    }
    showChoice();
  });
  system.addEventListener("change", showChoice);
  showChoice();
  return button;
}

function onClick(event) {
  if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const anchor = event.target.closest?.("a[href]");
  // An SVG link's href is an object; its attribute is a text in both kinds.
  const href = anchor?.getAttribute("href");
  if (!href?.startsWith("/") || anchor.hasAttribute("download") || anchor.getAttribute("target")) return;
  if (href.startsWith("/api/") || href.startsWith("/static/") || href.startsWith("//")) return;
  event.preventDefault();
  navigate(href);
}

fill(document.getElementById("bar"), link("/", "Thalweg", { class: "brand" }), trail, el("span", { class: "space" }), liveMark(), themeButton());
addEventListener("click", onClick);
addEventListener("popstate", route);
addEventListener("unhandledrejection", (event) => {
  if (event.reason?.name === "AbortError" || event.reason?.name === "ApiError") event.preventDefault();
  showError(event.reason);
});
addEventListener("error", (event) => showError(event.error ?? event.message));
route();
