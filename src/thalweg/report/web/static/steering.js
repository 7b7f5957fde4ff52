// Asking for things: stop, continue, fork, restart, pause. Each becomes a request that the study's loop answers.

import { getJson, getSession, post } from "./api.js";
import { askNodes } from "./asked_for.js";
import { el, fill, openDialog, projectPath, showError, showMessage, snippet } from "./dom.js";
import { count, number } from "./format.js";
import { forkFields } from "./fork_fields.js";

const runApi = (id) => `/api/runs/${encodeURIComponent(id)}`;
const projectApi = (name) => `/api/projects/${encodeURIComponent(name)}`;
const ENDED = new Set(["finished", "diverged", "failed", "stopped"]);
const WAITING = new Set(["paused", "interrupted", "crashed"]);
/** How often it is looked whether the loop has answered. */
const ANSWER_WAIT_MS = 1500;
/** Ancestors whose checkpoints are offered to fork from. */
const MOST_ANCESTORS = 8;

/** What can be asked for of a run, as a bar of buttons; empty in read-only mode. run, project: as the API gives them; refresh(): after a change. */
export function steeringBar(run, project, refresh) {
  const bar = el("div", { class: "steering" });
  const waiting = el("span", { class: "pending-asks", role: "status" });
  const ask = (dialog, title, attributes = {}) => el("button", { type: "button", onclick: () => dialog().catch(showError), ...attributes }, title);
  const asked = async (answer) => {
    showMessage(answer.message, "done");
    refresh();
    if (answer.request !== null) await follow();
  };
  const isStudy = project.kind === "study";

  function showWaiting(requests) {
    const mine = requests.filter((request) => !request.answered && (request.ask.run ?? request.ask.parent) === run.id);
    fill(waiting, mine.slice(0, 3).map(({ ask: what, author }) => el("span", { title: "See what became of it under Asked for" }, "Asked for: ", askNodes(what), author ? ` (${author}) ` : " ")),
      mine.length > 0 && el("a", { href: `${projectPath(project.name)}?tab=asked` }, "waits"));
    return mine.length > 0;
  }

  async function follow() {
    const { requests } = await getJson(projectApi(project.name));
    const open = showWaiting(requests);
    if (open && bar.isConnected) setTimeout(() => bar.isConnected && follow().catch(() => {}), ANSWER_WAIT_MS);
  }

  getSession().then(({ read_only: readOnly }) => {
    if (readOnly) return;
    fill(bar, waiting,
      !ENDED.has(run.status) && (isStudy || run.status === "running") && ask(() => stopDialog([run], project, asked), "Stop", { class: "danger" }),
      isStudy && WAITING.has(run.status) && ask(() => continueDialog(run, project, asked), "Continue"),
      ask(() => (isStudy ? forkDialog(run, project, asked) : snippetDialog("Fork this run", run, run.snippet)), "Fork"),
      run.status !== "running" && ask(() => (isStudy ? restartDialog(run, project, asked) : snippetDialog("Go back in this run", run, rewindSnippet(run, project))), "Restart"),
      ask(() => noteDialog([run], asked), "Note"), ask(() => tagsDialog([run], asked), "Tags"), ask(() => nameDialog(run, asked), "Rename", { class: "quiet" }));
    if (showWaiting(project.requests ?? [])) setTimeout(() => bar.isConnected && follow().catch(() => {}), ANSWER_WAIT_MS);
  }).catch(showError);
  return bar;
}

/** Pause, or go on, for a study; nothing for a project and in read-only mode. */
export function pauseButton(project, readOnly, refresh) {
  if (readOnly || project.kind !== "study") return null;
  const { paused, name } = project;
  const text = paused ? "Go on" : "Pause the study";
  const open = () => openDialog(paused ? `Go on with ${name}?` : `Pause ${name}?`,
    el("p", {}, paused ? "Its loop trains again, and spends of its budget." : "Runs write their checkpoints and wait. Nothing is lost, and nothing new begins until somebody lets it go on."),
    [{ text: "Cancel" }, { text, kind: "primary", act: async () => {
      const { message } = await post(`${projectApi(name)}/${paused ? "unpause" : "pause"}`);
      showMessage(message, "done");
      refresh();
    } }]);
  return el("button", { type: "button", onclick: open }, text);
}

/** What can be asked for of several runs at once. */
export function bulkActions(runs, project, readOnly, refresh) {
  if (readOnly) return null;
  const done = async ({ message }) => {
    showMessage(message, "done");
    refresh();
  };
  const going = runs.filter(({ status }) => !ENDED.has(status) && (project.kind === "study" || status === "running"));
  const button = (text, open, attributes = {}) => el("button", { type: "button", onclick: () => open().catch(showError), ...attributes }, text);
  return [
    going.length > 0 && button("Stop", () => stopDialog(going, project, done), { class: "danger" }),
    button("Note", () => noteDialog(runs, done)),
    button("Tags", () => tagsDialog(runs, done)),
  ];
}

async function stopDialog(runs, project, asked) {
  const what = runs.length === 1 ? runs[0].id : count(runs.length, "run");
  const effect = project.kind === "study"
    ? "The search gives it up: it is not continued, and what it has spent stays spent. It can still be forked from its checkpoints."
    : "Its program sees run.should_stop and decides itself what to do.";
  openDialog(`Stop ${what}?`, el("p", {}, effect), [{ text: "Cancel" }, { text: "Stop", kind: "danger", act: () => forEach(runs, "stop", () => ({}), asked) }]);
}

async function continueDialog(run, project, asked) {
  const until = el("input", { type: "text", inputmode: "decimal", placeholder: `to its end${run.horizon ? `, ${number(run.horizon)}` : ""}`, "aria-label": `Until, in ${project.unit}` });
  openDialog(`Continue ${run.id}`, [
    el("p", {}, `It stands at ${number(run.step)}${run.horizon ? ` of ${number(run.horizon)}` : ""} ${project.unit}. Training it further costs compute.`),
    el("div", { class: "fields" }, el("label", {}, "Until"), until, el("span", { class: "soft" }, project.unit)),
  ], [{ text: "Cancel" }, { text: "Continue", kind: "primary", act: async () => {
    const step = readStep(until, "Until");
    if (step !== null && step <= run.step) throw new Error(`Until must lie beyond ${number(run.step)}, where the run is.`);
    await asked(await post(`${runApi(run.id)}/continue`, step === null ? {} : { until: step }));
  } }]);
}

async function forkDialog(run, project, asked) {
  const points = await checkpointsOf(run);
  if (!points.length) return noCheckpoints(run);
  const at = pointChoice(points, "Fork at");
  const until = el("input", { type: "text", inputmode: "decimal", placeholder: "to its end", "aria-label": `Until, in ${project.unit}` });
  const fields = forkFields(run.hyperparameters, project.space ?? {});
  openDialog(`Fork ${run.id}`, [
    el("p", {}, "A new run begins from a checkpoint of this one, with what you change here. It costs compute."),
    el("div", { class: "fields" }, el("label", {}, "At"), at, el("span", { class: "soft" }, project.unit), el("label", {}, "Until"), until, el("span", { class: "soft" }, project.unit)),
    el("h3", {}, "Hyperparameters"), fields.element,
  ], [{ text: "Cancel" }, { text: "Fork", kind: "primary", act: async () => {
    const [from, step, changes] = [Number(at.value), readStep(until, "Until"), fields.changes()];
    if (step !== null && step <= from) throw new Error(`Until must lie beyond ${number(from)}, where the fork begins.`);
    await asked(await post(`${runApi(run.id)}/fork`, { at: from, changes, ...(step === null ? {} : { until: step }) }));
  } }]);
}

async function restartDialog(run, project, asked) {
  // Where it began there is always something to begin from: nothing at all, or its parent's checkpoint.
  const steps = [...new Set([run.fork_step, ...run.checkpoints.map(({ step }) => step)])].filter((step) => step < run.horizon).sort((x, y) => y - x);
  const points = steps.map((step) => ({ step, run: run.id }));
  const from = pointChoice(points, "Restart from");
  openDialog(`Restart ${run.id}`, [
    el("p", {}, "It goes on from an earlier position. What it logged after that is hidden, not deleted, and is trained again: that costs compute."),
    el("div", { class: "fields" }, el("label", {}, "From"), from, el("span", { class: "soft" }, project.unit)),
  ], [{ text: "Cancel" }, { text: "Restart", kind: "danger", act: async () => asked(await post(`${runApi(run.id)}/restart`, { from: Number(from.value) })) }]);
}

async function noteDialog(runs, asked) {
  const text = el("textarea", { rows: 4, "aria-label": "Note" });
  openDialog(runs.length === 1 ? `A note on ${runs[0].id}` : `A note on ${count(runs.length, "run")}`, text, [{ text: "Cancel" }, { text: "Add note", kind: "primary", act: async () => {
    if (!text.value.trim()) throw new Error("The note is empty.");
    await forEach(runs, "note", () => ({ text: text.value }), asked);
  } }]);
}

async function tagsDialog(runs, asked) {
  const shared = [...new Set(runs.flatMap(({ tags }) => tags))];
  const gone = new Set();
  const added = el("input", { type: "text", "aria-label": "New tags, separated by commas", placeholder: "new tags, separated by commas" });
  const marks = shared.slice(0, 100).map((tag) => el("label", { class: "tag" }, el("input", { type: "checkbox", checked: true, onchange: (event) => gone[event.target.checked ? "delete" : "add"](tag) }), tag));
  openDialog(runs.length === 1 ? `Tags of ${runs[0].id}` : `Tags of ${count(runs.length, "run")}`, [
    shared.length > 0 && el("div", { class: "row" }, marks), el("p", {}, added),
  ], [{ text: "Cancel" }, { text: "Save", kind: "primary", act: async () => {
    const fresh = added.value.split(",").map((tag) => tag.trim()).filter(Boolean);
    if (!fresh.length && !gone.size) throw new Error("Nothing is changed.");
    await forEach(runs, "tags", ({ tags }) => ({ tags: [...new Set([...tags.filter((tag) => !gone.has(tag)), ...fresh])] }), asked);
  } }]);
}

async function nameDialog(run, asked) {
  const name = el("input", { type: "text", value: run.name ?? "", "aria-label": "Name", style: { width: "100%" } });
  openDialog(`Rename ${run.id}`, [name, el("p", { class: "soft small" }, "Without a name, its id is shown.")],
    [{ text: "Cancel" }, { text: "Rename", kind: "primary", act: async () => asked(await post(`${runApi(run.id)}/name`, { name: name.value.trim() || null })) }]);
}

async function snippetDialog(title, run, text) {
  openDialog(title, [el("p", {}, "Your own program trains this run, so it has to be done from there:"), snippet(text)], [{ text: "Close" }]);
}

async function noCheckpoints(run) {
  openDialog("Nothing to fork from", el("p", {}, `No checkpoint of ${run.id} is kept. With keep_checkpoints = "all" in the study file, every one is.`), [{ text: "Close" }]);
}

/** One run after the other: the first refusal ends it and says how far it came. */
async function forEach(runs, verb, bodyOf, asked) {
  let answer = null;
  for (const [index, run] of runs.entries()) {
    try {
      answer = await post(`${runApi(run.id)}/${verb}`, bodyOf(run));
    } catch (error) {
      if (runs.length > 1) error.message = `${run.id}: ${error.message} (${index} of ${runs.length} were done)`;
      throw error;
    }
  }
  await asked(runs.length === 1 ? answer : { request: null, message: `${count(runs.length, "run")}: ${answer.message}` });
}

/** Where it can be forked: its own checkpoints and those of its ancestors up to where it left them; the newest first. */
async function checkpointsOf(run) {
  const points = new Map(run.checkpoints.map(({ step }) => [step, { step, run: run.id }]));
  const line = run.lineage ?? [];
  let limit = Infinity;
  for (let i = line.length - 1; i > 0 && i >= line.length - MOST_ANCESTORS; i--) {
    limit = Math.min(limit, line[i].from_step);
    const ancestor = await getJson(runApi(line[i - 1].run));
    for (const { step } of ancestor.checkpoints) if (step <= limit && !points.has(step)) points.set(step, { step, run: ancestor.id });
  }
  return [...points.values()].sort((a, b) => b.step - a.step);
}

function pointChoice(points, title) {
  const [{ run: own }] = points;
  return el("select", { "aria-label": title }, points.map(({ step, run }) => el("option", { value: String(step) }, run === own ? number(step) : `${number(step)} (${run})`)));
}

/** A step that was typed; null for none. */
function readStep(input, title) {
  const text = input.value.trim().replaceAll(",", "");
  const step = Number(text);
  const wrong = text !== "" && !(Number.isFinite(step) && step >= 0);
  input.setAttribute("aria-invalid", String(wrong));
  if (wrong) throw new Error(`${title} = ${text} must be a number from 0, or empty.`);
  return text === "" ? null : step;
}

/** As the server would write it: go on with a run of one's own program from an earlier step. */
function rewindSnippet(run, project) {
  const place = /, store=(.+)\) as run:/.exec(run.snippet ?? "")?.[1];
  const python = (text) => JSON.stringify(text);
  return `import thalweg

with thalweg.init(${python(project.name)}, run=${python(run.id)}, at=${run.fork_step}${place ? `, store=${place}` : ""}) as run:
    for step in range(int(run.last_step or 0) + 1, ...):
        run.log({"loss": ...}, step=step)
`;
}
