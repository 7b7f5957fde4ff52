// Curves as the server sends them -> lines to draw.

/**
 * A curve's rows in one form, exact points and buckets alike, with x shifted and scaled for the axis.
 *
 * axis: {x: "step" | "time", offset, factor, began}: (x - offset) * factor is drawn; began: when the run itself did, in seconds since 1970.
 *
 * Returns {kind, num, first, last, low, high, middle, bad, own, forks}: arrays with an entry per row. first and last: where the row begins and ends;
 * low and high: its extremes; middle: the value, or where the middle of the bucket is; bad: how many of its points are not finite;
 * own: whether it belongs to the run itself (1) or to an ancestor (0).
 * forks: [{run, x, parent}] for each place where the lineage changes over.
 */
export function rowsOf(curve, axis) {
  const { header, columns } = curve;
  const exact = header.kind === "points";
  const starts = startsOf(curve, axis);
  const first = moved(exact ? columns.x : columns.x_first, axis);
  const last = exact ? first : moved(columns.x_last, axis);
  const low = exact ? columns.value : columns.min;
  const high = exact ? columns.value : columns.max;
  const middle = exact ? columns.value : midway(low, high);
  const bad = exact ? Uint32Array.from(low, (value) => (Number.isFinite(value) ? 0 : 1)) : columns.num_nonfinite;
  return { kind: header.kind, num: header.num, first, last, low, high, middle, bad, own: ownership(curve, starts), forks: forksOf(header, starts, axis) };
}

function moved(values, { offset, factor }) {
  if (offset === 0 && factor === 1) return values;
  return Float64Array.from(values, (value) => (value - offset) * factor);
}

/**
 * Halfway between a bucket's extremes, as the median of it and its neighbours: one point that stands out is in the raw line at its full
 * height, and does not lift the middle to a height at which no point lies.
 */
function midway(low, high) {
  const middle = Float64Array.from(low, (value, index) => value / 2 + high[index] / 2);
  return middle.map((now, index) => {
    const [before, after] = [middle[index - 1] ?? now, middle[index + 1] ?? now];
    const median = Math.max(Math.min(before, now), Math.min(Math.max(before, now), after));
    return Number.isNaN(median) ? now : median;
  });
}

/** Where each run of the lineage begins, in the server's x: known for steps; for times seen from the points' owners, else only the run's own. */
function startsOf({ header, columns }, axis) {
  if (axis.x === "step") return header.lineage.map(({ from_step: from }) => from);
  const starts = header.lineage.map((_, index) => (index === header.lineage.length - 1 ? (axis.began ?? NaN) : NaN));
  if (columns.owner) for (let i = header.num - 1; i >= 0; i--) starts[columns.owner[i]] = columns.x[i];
  return starts;
}

/** For each row, whether the run itself logged it. A bucket that spans the fork counts as the run's own. */
function ownership({ header, columns }, starts) {
  const own = new Uint8Array(header.num).fill(1);
  const self = starts.length - 1;
  if (columns.owner) for (let i = 0; i < own.length; i++) own[i] = columns.owner[i] === self ? 1 : 0;
  else if (self > 0) for (let i = 0; i < own.length; i++) own[i] = columns.x_last[i] <= starts[self] ? 0 : 1;
  return own;
}

function forksOf({ lineage }, starts, { offset, factor }) {
  return lineage.slice(1).map(({ run }, index) => ({ run, parent: lineage[index].run, x: (starts[index + 1] - offset) * factor }));
}

/**
 * The rows of one part of the curve (own: 1 or 0) as indices, from and up to but without. The ancestors' part reaches to the first
 * own row, so that the two join in one line. null where there is no such part.
 */
export function partOf(rows, own) {
  let split = rows.own.indexOf(1);
  if (split < 0) split = rows.num;
  const [from, to] = own ? [split, rows.num] : [0, split && split < rows.num ? split + 1 : split];
  return to > from ? { from, to } : null;
}

/**
 * A line through every row's extremes: nothing that stands out is lost. x and y hold NaN-free numbers and null where the line is
 * interrupted (a value that is not finite). Buckets give two points each; the one that lies nearer the point before comes first.
 */
export function rawLine(rows, { from, to }) {
  const x = [];
  const y = [];
  const exact = rows.kind === "points";
  // Before the first bucket there is nothing to be near to: it begins at the end that lies away from the second.
  let before = rows.middle[from + 1] < rows.middle[from] ? Infinity : -Infinity;
  for (let i = from; i < to; i++) {
    const low = rows.low[i];
    const high = rows.high[i];
    if (!Number.isFinite(low) || !Number.isFinite(high)) {
      x.push(rows.first[i]);
      y.push(null);
    } else if (exact || low === high) {
      x.push(rows.first[i]);
      y.push(low);
      before = low;
    } else {
      // Not by distances: one of two infinite ones is not the smaller.
      const down = before > low / 2 + high / 2;
      x.push(rows.first[i], rows.last[i]);
      y.push(down ? high : low, down ? low : high);
      before = down ? low : high;
    }
  }
  return { x, y };
}

/** The middles of some rows, NaN as null. values: one per row (the middles, or a smoothed form of them). */
export function middleLine(rows, values, { from, to }) {
  const x = [];
  const y = [];
  for (let i = from; i < to; i++) {
    x.push(rows.first[i] / 2 + rows.last[i] / 2);
    y.push(Number.isFinite(values[i]) ? values[i] : null);
  }
  return { x, y };
}

/**
 * Forks to mark in a range, the nearest ancestor's first: those that are closer to a marked one than `apart` are left out, as a lineage
 * may be a thousand forks deep.
 */
export function markedForks(forks, [from, to], apart) {
  const kept = [];
  for (const fork of [...forks].reverse()) {
    if (fork.x >= from && fork.x <= to && kept.every(({ x }) => Math.abs(x - fork.x) >= apart)) kept.push(fork);
  }
  return kept;
}

/** Where points are not finite: [{x, last, num, value}], value NaN, Infinity or -Infinity (NaN for buckets, which only count them). */
export function badRows(rows, { from, to }) {
  const found = [];
  for (let i = from; i < to; i++) {
    if (rows.bad[i]) found.push({ x: rows.first[i], last: rows.last[i], num: rows.bad[i], value: rows.kind === "points" ? rows.low[i] : NaN });
  }
  return found;
}

/** The least and greatest finite value with x in [from, to], only positive ones for a logarithmic axis; null where there is none. */
export function extent(rows, part, [from, to], positive) {
  let low = Infinity;
  let high = -Infinity;
  for (let i = part.from; i < part.to; i++) {
    if (rows.last[i] < from || rows.first[i] > to) continue;
    for (const value of [rows.low[i], rows.high[i]]) {
      if (!Number.isFinite(value) || (positive && value <= 0)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return low <= high ? [low, high] : null;
}

/** How many rows lie in a range. */
export function countIn(rows, [from, to]) {
  let num = 0;
  for (let i = 0; i < rows.num; i++) if (rows.last[i] >= from && rows.first[i] <= to) num++;
  return num;
}

/** The value of the row nearest to x; null for none. */
export function valueNear(rows, x) {
  let low = 0;
  let high = rows.num - 1;
  while (low < high) {
    const half = (low + high) >> 1;
    if (rows.last[half] < x) low = half + 1;
    else high = half;
  }
  const found = rows.middle[low];
  return Number.isFinite(found) ? found : null;
}

/** Colours that people with any kind of colour blindness tell apart (Okabe and Ito), readable on white and on near-black. */
export const PALETTE = ["#2b7fc3", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8a9099"];
const DASHES = ["solid", "dash", "dot", "dashdot"];

/**
 * Run id -> {colour, dash}. A run keeps its colour whatever it is shown with, by the number at the end of its id, except where two that
 * are shown want the same one: then the later takes a free one, and once none is free another dash.
 */
export function looksOf(ids) {
  const looks = new Map();
  const taken = new Set();
  for (const id of [...ids].sort((a, b) => numberOf(a) - numberOf(b) || (a < b ? -1 : 1))) {
    let slot = numberOf(id) % PALETTE.length;
    for (let tries = 0; taken.has(slot) && tries < PALETTE.length * DASHES.length; tries++) {
      const colour = (slot + 1) % PALETTE.length;
      const dash = Math.floor(slot / PALETTE.length) + (tries % PALETTE.length === PALETTE.length - 1 ? 1 : 0);
      slot = (dash % DASHES.length) * PALETTE.length + colour;
    }
    taken.add(slot);
    looks.set(id, { colour: PALETTE[slot % PALETTE.length], dash: DASHES[Math.floor(slot / PALETTE.length) % DASHES.length] });
  }
  return looks;
}

function numberOf(id) {
  const digits = /(\d+)$/.exec(id);
  return digits ? Number(digits[1]) % 1e9 : 0;
}

const RANKS = [
  [/^loss$/, /^train[/_. ]?loss$/, /loss/i],
  [/^lr$/, /^learning[_ ]?rate$/i, /(^|[/_.])lr($|[/_.])/i, /learning.?rate/i],
  [/grad.*norm/i],
];

/** What is shown where nothing is chosen: a loss, the learning rate and the gradient norm, as far as there are such metrics; else the first. */
export function defaultMetrics(names) {
  const plain = names.filter((name) => !name.startsWith("system/"));
  const chosen = RANKS.map((patterns) => patterns.map((pattern) => plain.find((name) => pattern.test(name))).find(Boolean)).filter(Boolean);
  const unique = [...new Set(chosen)];
  return unique.length ? unique : plain.slice(0, 1);
}
