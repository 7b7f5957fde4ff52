// The order of the fork tree's rows. Pure functions: no drawing.

/**
 * Rows of the tree, from top to bottom: each run is followed by its forks with theirs, the latest fork first, so that the lines
 * that lead down to forks never cross a run that comes later.
 *
 * runs: [{id, number, parent, waiting_parent, fork_step, step}]; shut: ids whose forks are folded away.
 * A parent that is not there yet becomes a row of its own (ghost: true); one that is only missing from `runs` does not: its child is a root here.
 * Returns [{run, depth, row, parentRow (-1 for roots), numHidden, hasForks}].
 */
export function treeRows(runs, shut = new Set()) {
  const known = new Map(runs.map((run) => [run.id, run]));
  const children = new Map();
  const roots = [];
  const ghosts = new Map();
  for (const run of runs) {
    let parent = run.parent !== null && known.has(run.parent) ? run.parent : null;
    if (parent === null && run.waiting_parent) {
      parent = `waiting for ${run.waiting_parent}`;
      if (!ghosts.has(parent)) {
        const ghost = { id: parent, name: run.waiting_parent, ghost: true, number: run.number, parent: null, fork_step: 0, step: 0, status: "pending", hyperparameters: {}, latest: {}, tags: [] };
        ghosts.set(parent, ghost);
        roots.push(ghost);
      }
      ghosts.get(parent).step = Math.max(ghosts.get(parent).step, run.fork_step);
    }
    if (parent === null) roots.push(run);
    else if (children.has(parent)) children.get(parent).push(run);
    else children.set(parent, [run]);
  }
  for (const forks of children.values()) forks.sort((a, b) => b.fork_step - a.fork_step || a.number - b.number);
  return inOrder(roots, children, shut);
}

function inOrder(roots, children, shut) {
  const rows = [];
  // A stack and not a recursion: lineages can be a thousand forks deep.
  const waiting = roots.map((run) => ({ run, depth: 0, parentRow: -1 })).reverse();
  while (waiting.length) {
    const { run, depth, parentRow } = waiting.pop();
    const forks = children.get(run.id) ?? [];
    const folded = forks.length > 0 && shut.has(run.id);
    const row = rows.length;
    rows.push({ run, depth, row, parentRow, hasForks: forks.length > 0, numHidden: folded ? numBelow(run.id, children) : 0 });
    if (!folded) for (let i = forks.length - 1; i >= 0; i--) waiting.push({ run: forks[i], depth: depth + 1, parentRow: row });
  }
  return rows;
}

function numBelow(id, children) {
  let num = 0;
  const waiting = [id];
  while (waiting.length) {
    for (const { id: child } of children.get(waiting.pop()) ?? []) {
      num++;
      waiting.push(child);
    }
  }
  return num;
}

/** The rows from `first` up to and but `end`, and the lines to forks that pass through there: [{x (fork_step), from, to}], rows. */
export function inView(rows, first, end) {
  const shown = rows.slice(first, end);
  const lines = new Map();
  const add = ({ run, row, parentRow }) => {
    if (parentRow < 0) return;
    const line = { x: run.fork_step, from: parentRow, to: row, child: row >= first && row < end ? row : null };
    // Lines that only pass through, at one place, look like one.
    const key = line.child === null ? `${line.from < first},${line.x}` : `row ${row}`;
    const other = lines.get(key);
    lines.set(key, other ? { ...line, from: Math.min(line.from, other.from), to: Math.max(line.to, other.to) } : line);
  };
  for (const row of shown) add(row);
  // What passes through belongs to the shown rows or to ancestors of the first of them.
  const parents = new Set(shown.map(({ row }) => row));
  for (let at = shown[0]?.parentRow ?? -1; at >= 0; at = rows[at].parentRow) parents.add(at);
  for (let i = end; i < rows.length && parents.size; i++) if (parents.has(rows[i].parentRow)) add(rows[i]);
  return { shown, lines: [...lines.values()] };
}

/** A run with its ancestors, their other forks, and all that was forked from it: the family that its page shows. */
export function familyOf(runs, id) {
  const known = new Map(runs.map((run) => [run.id, run]));
  const ancestors = new Set();
  for (let at = known.get(id)?.parent; at && !ancestors.has(at); at = known.get(at)?.parent) ancestors.add(at);
  const kept = new Set([...ancestors, id]);
  const below = new Set([id]);
  const forks = new Map();
  for (const run of runs) {
    if (!run.parent) continue;
    if (ancestors.has(run.parent)) kept.add(run.id);
    if (forks.has(run.parent)) forks.get(run.parent).push(run.id);
    else forks.set(run.parent, [run.id]);
  }
  for (const at of below) for (const fork of forks.get(at) ?? []) below.add(fork);
  return runs.filter((run) => kept.has(run.id) || below.has(run.id));
}

/** Round numbers along an axis from 0 to `end`, at most `most` of them. */
export function ticks(end, most) {
  if (!(end > 0) || most < 1) return [0];
  const rough = end / most;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * size).find((wide) => wide >= rough * (1 - 1e-9));
  return Array.from({ length: Math.floor(end / step + 1e-9) + 1 }, (_, index) => Number((index * step).toPrecision(12)));
}
