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
 * Mean over the points within width / 2 to either side. At the ends the window narrows to what there is on both sides, so that
 * the line does not run flat where the curve is steep.
 */
export function windowMean(x, y, width) {
  const smooth = new Float64Array(y.length).fill(NaN);
  const known = [];
  for (let i = 0; i < y.length; i++) if (Number.isFinite(y[i]) && Number.isFinite(x[i])) known.push(i);
  if (!known.length) return smooth;
  const start = x[known[0]];
  const end = x[known[known.length - 1]];
  let low = 0;
  let high = 0;
  for (const i of known) {
    const half = Math.min(width / 2, x[i] - start, end - x[i]);
    // Both ends of the window only ever move to the right: half changes no faster than x.
    while (x[known[low]] < x[i] - half) low++;
    if (high < low) high = low;
    while (high < known.length && x[known[high]] <= x[i] + half) high++;
    // Summed anew and not by differences: a spike of 1e30 that leaves a running sum takes all digits with it.
    smooth[i] = mean(y, known, low, high);
  }
  return smooth;
}

function mean(y, known, low, high) {
  let sum = 0;
  for (let k = low; k < high; k++) sum += y[known[k]];
  return sum / (high - low);
}
