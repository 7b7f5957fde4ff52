// The run table's columns: what can be shown of a run, how it is read, written and compared.

import { toNumber } from "./api.js";
import { ago, duration, moment, number, value } from "./format.js";

/** A value of an object that has it itself: data may have names such as `__proto__`. */
export const own = (object, name) => (object && Object.hasOwn(object, name) ? object[name] : undefined);

/** The last value of a metric; null where there is none. */
export function latest(run, metric) {
  const entry = own(run.latest, metric);
  return entry === undefined ? null : toNumber(entry[1]);
}

const shown = (given) => (typeof given === "number" ? number(given) : value(given));
const exact = (given) => (typeof given === "number" ? String(given) : value(given));
const text = (given) => given ?? "";

/** What a column is, beside its id, title and group: kind decides on the alignment; read gives what is sorted, filtered and grouped by. */
const BUILT_IN = [
  { id: "name", title: "Run", kind: "name", read: (run) => run.name || run.id, write: text, also: ["run"] },
  { id: "id", title: "Id", kind: "text", read: (run) => run.id, write: text },
  { id: "number", title: "Number", kind: "number", read: (run) => run.number, write: shown },
  { id: "status", title: "Status", kind: "status", read: (run) => run.status, write: text },
  { id: "score", title: "Score", kind: "number", read: (run) => (run.score === null || run.score === undefined ? null : toNumber(run.score)), write: shown },
  { id: "step", title: "Step", kind: "number", read: (run) => run.step, write: shown },
  { id: "horizon", title: "Horizon", kind: "number", read: (run) => run.horizon || null, write: shown },
  { id: "tags", title: "Tags", kind: "tags", read: (run) => run.tags, write: (tags) => tags.join(", ") },
  { id: "parent", title: "Fork of", kind: "text", read: (run) => run.parent ?? run.waiting_parent ?? null, write: text },
  { id: "fork_step", title: "Forked at", kind: "number", read: (run) => (run.parent || run.waiting_parent ? run.fork_step : null), write: shown },
  { id: "origin", title: "Asked by", kind: "text", read: (run) => run.origin, write: text },
  { id: "created", title: "Created", kind: "time", read: (run) => run.created, write: ago },
  { id: "started", title: "Started", kind: "time", read: (run) => run.started, write: ago },
  { id: "ended", title: "Ended", kind: "time", read: (run) => run.ended, write: ago },
  { id: "duration", title: "Took", kind: "number", read: took, write: duration },
  { id: "cost", title: "Device time", kind: "number", read: (run) => run.cost_seconds ?? null, write: duration },
  { id: "notes", title: "Notes", kind: "number", read: (run) => run.num_notes || null, write: shown },
].map((column) => ({ ...column, group: "Run", full: column.kind === "time" ? moment : column.kind === "number" ? exact : column.write }));

function took(run) {
  if (!run.started) return null;
  return run.ended ? run.ended - run.started : run.status === "running" ? Date.now() / 1000 - run.started : null;
}

/**
 * All columns of these runs, and which of them are the same in every run.
 *
 * Returns {columns: [{id, title, group, kind, read, write, full, constant, present}], byId}: constant: all runs have the same value (or none has any);
 * present: how many runs have one.
 */
export function columnsOf(runs, project) {
  const parameters = scan(runs, (run) => run.hyperparameters, (entry) => entry);
  const metrics = scan(runs, (run) => run.latest, (entry) => entry[1]);
  const columns = [
    ...BUILT_IN.map((column) => ({ ...column, ...builtInFacts(column, runs), title: column.id === "score" && project.metric ? project.metric.name : column.title })),
    ...[...parameters].map(([name, facts]) => ({
      id: `h:${name}`, title: name, group: "Hyperparameters", kind: facts.numeric ? "number" : "text", read: (run) => own(run.hyperparameters, name) ?? null,
      write: shown, full: exact, constant: facts.constant && facts.present === runs.length, present: facts.present,
    })),
    ...[...metrics].sort(([a], [b]) => a.localeCompare(b)).map(([name, facts]) => ({
      id: `m:${name}`, title: name, group: "Latest metrics", kind: "number", read: (run) => latest(run, name), write: shown, full: exact,
      constant: facts.constant && facts.present === runs.length, present: facts.present,
    })),
  ];
  if (!project.metric) columns.splice(columns.findIndex(({ id }) => id === "score"), 1);
  return { columns, byId: new Map(columns.map((column) => [column.id, column])) };
}

/** Name -> {constant, present, numeric} over what the runs have under names of their own. */
function scan(runs, entriesOf, valueOf) {
  const found = new Map();
  for (const run of runs) {
    const entries = entriesOf(run);
    for (const name in entries) {
      const now = valueOf(entries[name]);
      const facts = found.get(name);
      if (!facts) found.set(name, { first: now, constant: true, present: 1, numeric: typeof now === "number" });
      else {
        facts.present++;
        if (facts.constant && !same(facts.first, now)) facts.constant = false;
        if (facts.numeric && typeof now !== "number") facts.numeric = false;
      }
    }
  }
  return found;
}

const same = (one, other) => one === other || (typeof one === "object" && JSON.stringify(one) === JSON.stringify(other));

function builtInFacts({ read }, runs) {
  const first = runs.length ? JSON.stringify(read(runs[0]) ?? null) : "null";
  let [constant, present] = [true, 0];
  for (const run of runs) {
    const now = read(run) ?? null;
    if (now !== null && now.length !== 0) present++;
    if (constant && JSON.stringify(now) !== first) constant = false;
  }
  return { constant, present };
}

const MOST_PARAMETERS = 8;
const MOST_METRICS = 5;
const USEFUL = [/(^|\/)(val|eval|test|validation).*(loss|acc)/i, /loss/i, /acc/i];

/**
 * The ids of the columns that are shown where nobody has chosen: what differs between the runs. What is the same in all of them is
 * left out, but for what says which run it is and how it stands.
 */
export function defaultColumns({ columns }, project) {
  const differs = ({ constant, present }) => !constant && present > 0;
  const builtIn = columns.filter((column) => ALWAYS.has(column.id) || (WHERE_ANY.has(column.id) && column.present) || (WHERE_DIFFERENT.has(column.id) && differs(column)));
  const parameters = columns.filter((column) => column.group === "Hyperparameters" && differs(column)).slice(0, MOST_PARAMETERS);
  const scoreOf = project.metric && `m:validation/${project.metric.name}`;
  const rank = ({ title }) => USEFUL.findIndex((pattern) => pattern.test(title)) + 1 || USEFUL.length + 1;
  const metrics = columns.filter((column) => column.group === "Latest metrics" && column.present && column.id !== scoreOf)
    .sort((a, b) => rank(a) - rank(b)).slice(0, MOST_METRICS);
  const [before, after] = [builtIn.filter(({ id }) => BEFORE.has(id)), builtIn.filter(({ id }) => !BEFORE.has(id))];
  return [...before, ...parameters, ...metrics, ...after].map(({ id }) => id);
}

const ALWAYS = new Set(["name", "status", "score", "step", "created"]);
/** What people have written is not hidden, even where it is the same in all runs. */
const WHERE_ANY = new Set(["tags", "notes"]);
const WHERE_DIFFERENT = new Set(["parent", "cost"]);
const BEFORE = new Set(["name", "status", "score", "step"]);

/** What a filter may name: ids, titles, and the plain names of hyperparameters and metrics, in the order in which they win. */
export function fieldsOf({ columns }) {
  const fields = new Map();
  const add = (name, read) => fields.has(name) || fields.set(name, read);
  for (const { id, read, also = [] } of columns) for (const name of [id, ...also]) add(name, read);
  for (const group of ["Hyperparameters", "Latest metrics", "Run"]) for (const { title, read } of columns.filter((column) => column.group === group)) add(title, read);
  return fields;
}

/** All that a word of a filter is looked for in. */
export function searchText(run) {
  const parameters = [];
  for (const name in run.hyperparameters) parameters.push(name, value(run.hyperparameters[name]));
  return [run.id, run.name, run.status, run.origin, run.parent, ...run.tags, ...parameters].filter(Boolean).join("\n").toLowerCase();
}
