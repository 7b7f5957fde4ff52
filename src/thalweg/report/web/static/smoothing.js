// Smoothing over unevenly spaced points. The raw line is always drawn as well.

/** The widths that the slider gives: 0 is off, 1 to 100 are 0.03 % to 30 % of the curve's whole range, evenly in the logarithm. */
export function widthOf(slider, range) {
  return slider > 0 && range > 0 ? range * 10 ** (-3.5 + (3 * (slider - 1)) / 99) : 0;
}

/**
 * Exponential moving average along x. A point `width` back weighs 1/e of the newest one, whatever the spacing: so a curve looks
 * the same reduced and at full resolution. Started without bias: the first value counts as itself, not as a step up from 0.
 *
 * x: rising; y: values, those that are not finite are passed over and give NaN. Returns a Float64Array.
 */
export function ema(x, y, width) {
  const smooth = new Float64Array(y.length).fill(NaN);
  let sum = 0;
  let weight = 0;
  let before = NaN;
  for (let i = 0; i < y.length; i++) {
    if (!Number.isFinite(y[i]) || !Number.isFinite(x[i])) continue;
    const keep = Number.isNaN(before) ? 0 : Math.exp(-(x[i] - before) / width);
    sum = sum * keep + y[i];
    weight = weight * keep + 1;
    smooth[i] = sum / weight;
    before = x[i];
  }
  return smooth;
}

/**
 * The straight line fitted to the points within width / 2 to either side, at the point itself. Amid evenly spaced points that is their mean;
 * at the ends of the curve, where points lie to one side only, it does not lag behind a slope as a mean would.
 */
export function windowLine(x, y, width) {
  const smooth = new Float64Array(y.length).fill(NaN);
  const known = [];
  for (let i = 0; i < y.length; i++) if (Number.isFinite(y[i]) && Number.isFinite(x[i])) known.push(i);
  let low = 0;
  let high = 0;
  for (const i of known) {
    while (x[known[low]] < x[i] - width / 2) low++;
    while (high < known.length && x[known[high]] <= x[i] + width / 2) high++;
    // Summed anew and not by differences: a spike of 1e30 that leaves a running sum takes all digits with it.
    smooth[i] = fitted(x, y, known, low, high, x[i]);
  }
  return smooth;
}

function fitted(x, y, known, low, high, at) {
  const num = high - low;
  let [sumX, sumY] = [0, 0];
  for (let k = low; k < high; k++) {
    sumX += x[known[k]] - at;
    sumY += y[known[k]] / num;
  }
  const middle = sumX / num;
  let [spread, slope] = [0, 0];
  for (let k = low; k < high; k++) {
    const away = x[known[k]] - at - middle;
    spread += away * away;
    slope += away * y[known[k]];
  }
  // Of two points the line would be the raw one.
  return num > 2 && spread > 0 ? sumY - (slope / spread) * middle : sumY;
}
