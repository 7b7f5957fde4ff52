// All projects and studies of the store.

import { getJson, listen, toNumber } from "./api.js";
import { setTrail } from "./app.js";
import { el, empty, fill, link, projectPath, runPath, showError, snippet } from "./dom.js";
import { ago, moment, number } from "./format.js";
import { statusMark } from "./run_facts.js";
import { compareValues } from "./table_rows.js";

/** The list follows news at most this often: each time it is read as a whole. */
const WAIT_MS = 1000;

const BEGIN = `import thalweg

with thalweg.init("my-project", hyperparameters={"lr": 3e-4}) as run:
    for step in range(1000):
        run.log({"loss": 1 / (step + 1)}, step=step)
`;

const COLUMNS = [
  { id: "name", title: "Name", read: ({ name }) => name },
  { id: "kind", title: "Kind", read: ({ kind }) => kind },
  { id: "runs", title: "Runs", read: ({ num_runs: runs }) => runs, num: true },
  { id: "live", title: "Live", read: ({ num_live: live }) => live, num: true },
  { id: "best", title: "Best so far", read: ({ best }) => best && toNumber(best.value) },
  { id: "updated", title: "Last change", read: ({ updated }) => updated, num: true },
];

export async function show(root, params, state) {
  setTrail([]);
  let { projects } = await getJson("/api/projects");
  const search = el("input", { type: "search", placeholder: "Find a project", "aria-label": "Find a project", value: state.get("find", ""), oninput: () => state.set("find", search.value, "") });
  const place = el("div");
  fill(root, el("div", { class: "heading" }, el("h1", {}, "Projects"), el("span", { class: "space" }), search), place);

  function draw() {
    search.hidden = projects.length < 6;
    if (!projects.length) {
      fill(place, el("section", { class: "card" }, empty("Nothing is tracked in this store yet", "Track a run from your own training code:"), snippet(BEGIN), el("p", { class: "soft" }, "Or let Thalweg search hyperparameters: ", el("code", {}, "thalweg tune study.toml"), ".")));
      return;
    }
    const wanted = state.get("find", "").trim().toLowerCase();
    const sort = state.get("sort", "-updated");
    const column = COLUMNS.find(({ id }) => id === sort.replace("-", "")) ?? COLUMNS[0];
    const found = projects.filter(({ name }) => name.toLowerCase().includes(wanted))
      .sort((a, b) => compareValues(column.read(a) ?? -Infinity, column.read(b) ?? -Infinity) * (sort.startsWith("-") ? -1 : 1) || compareValues(a.name, b.name));
    const head = COLUMNS.map(({ id, title, num }) => el("th", { scope: "col", class: num ? "num" : null, "aria-sort": column.id === id ? (sort.startsWith("-") ? "descending" : "ascending") : "none" },
      el("button", { type: "button", class: "quiet", onclick: () => state.set("sort", sort === `-${id}` ? id : `-${id}`, "-updated") }, title)));
    fill(place, el("section", { class: "card" }, el("div", { class: "wide" }, el("table", { class: "projects" }, el("thead", {}, el("tr", {}, head)), el("tbody", {}, found.map(row)))),
      !found.length && empty("No project has such a name")));
  }

  function row(project) {
    const { best, metric } = project;
    return el("tr", {},
      el("td", {}, link(projectPath(project.name), project.name)),
      el("td", { class: "soft" }, project.kind, project.running && [" ", statusMark("running")], project.paused && " (paused)"),
      el("td", { class: "num" }, number(project.num_runs)),
      el("td", { class: "num" }, project.num_live ? number(project.num_live) : el("span", { class: "soft" }, "\u2013")),
      el("td", {}, best ? [el("span", { title: String(best.value) }, `${metric?.name ?? "score"} ${number(toNumber(best.value))}`), " ", link(runPath(best.run), best.run, { class: "small" })] : el("span", { class: "soft" }, "\u2013")),
      el("td", { class: "num soft", title: moment(project.updated) }, ago(project.updated)));
  }

  let closed = false;
  let timer = 0;
  const soon = () => {
    timer ||= setTimeout(async () => {
      timer = 0;
      try {
        const fresh = (await getJson("/api/projects")).projects;
        if (closed) return;
        projects = fresh;
        draw();
      } catch (error) {
        showError(error);
      }
    }, WAIT_MS);
  };
  draw();
  const off = state.on(draw);
  const stop = listen(null, { runs: soon, study: soon, again: soon });
  return () => {
    closed = true;
    clearTimeout(timer);
    off();
    stop();
  };
}
