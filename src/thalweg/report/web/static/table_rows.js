// The run table's rows: filtered, sorted and grouped. Pure functions of the runs.

const isMissing = (value) => value === null || value === undefined || value === "" || Number.isNaN(value) || (Array.isArray(value) && !value.length);

/** Values in rising order; numbers before texts. */
export function compareValues(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other || 0;
  if (typeof one !== typeof other) return typeof one === "number" ? -1 : typeof other === "number" ? 1 : 0;
  return collator.compare(Array.isArray(one) ? one.join() : String(one), Array.isArray(other) ? other.join() : String(other));
}

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/**
 * Sort runs by several columns. keys: [{read, down}], the first counts most. What has no value (or is NaN) comes last either way;
 * runs that are equal keep their order.
 */
export function sortRuns(runs, keys) {
  if (!keys.length) return runs;
  const columns = keys.map(({ read }) => runs.map(read));
  const order = runs.map((_, index) => index);
  order.sort((a, b) => {
    for (let k = 0; k < keys.length; k++) {
      const [one, other] = [columns[k][a], columns[k][b]];
      const [noOne, noOther] = [isMissing(one), isMissing(other)];
      if (noOne || noOther) {
        if (noOne !== noOther) return noOne ? 1 : -1;
        continue;
      }
      const found = compareValues(one, other);
      if (found) return keys[k].down ? -found : found;
    }
    return a - b;
  });
  return order.map((index) => runs[index]);
}

/**
 * Put sorted runs into groups. read: what they are grouped by; measure: {read, goal} or null, for the best and the mean of each group.
 * Returns [{key, value, runs, best, mean}]: groups by rising value, those without one last; runs keep their order.
 */
export function groupRuns(runs, read, measure) {
  const groups = new Map();
  for (const run of runs) {
    const value = read(run);
    const key = isMissing(value) ? "" : `${typeof value}:${JSON.stringify(value)}`;
    if (!groups.has(key)) groups.set(key, { key, value: isMissing(value) ? null : value, runs: [] });
    groups.get(key).runs.push(run);
  }
  const found = [...groups.values()].sort((a, b) => (a.value === null) - (b.value === null) || compareValues(a.value ?? 0, b.value ?? 0));
  return found.map((group) => ({ ...group, ...summary(group.runs, measure) }));
}

function summary(runs, measure) {
  if (!measure) return { best: null, mean: null };
  const values = runs.map(measure.read).filter((value) => typeof value === "number" && Number.isFinite(value));
  if (!values.length) return { best: null, mean: null };
  const best = values.reduce((one, other) => (measure.goal === "min" ? Math.min(one, other) : Math.max(one, other)));
  return { best, mean: values.reduce((sum, value) => sum + value / values.length, 0) };
}

/** The rows to show: {group} for a group's head, {run} for a run; those of shut groups are left out. */
export function rowsToShow(runs, groups, shut) {
  if (!groups) return runs.map((run) => ({ key: run.id, run }));
  return groups.flatMap((group) => {
    const head = { key: `group ${group.key}`, group, open: !shut.has(group.key) };
    return head.open ? [head, ...group.runs.map((run) => ({ key: run.id, run }))] : [head];
  });
}

/** Whether less or more of a metric is better, by its name, where nobody has said. */
export const goalOf = (name) => (/loss|error|perplexity|regret|nll|time|bits/i.test(name) ? "min" : "max");
