// Numbers, times and sizes as a person reads them.

const MINUS = "\u2212";

/** A number with about `digits` significant digits: 0.000125 -> 1.25e-4, 1234567 -> 1,234,567, 0.5 -> 0.5. NaN and infinities by name. */
export function number(value, digits = 4) {
  if (typeof value !== "number") return value === null || value === undefined ? "" : String(value);
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "\u221e" : `${MINUS}\u221e`;
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e15) return value.toLocaleString("en-US").replace("-", MINUS);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) {
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
    return `${trim(mantissa)}e${Number(exponent)}`.replaceAll("-", MINUS);
  }
  const text = Number(value.toPrecision(digits));
  return text.toLocaleString("en-US", { maximumFractionDigits: 12 }).replace("-", MINUS);
}

const trim = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);

/** Any hyperparameter's or fact's value as text. */
export function value(given) {
  if (typeof given === "number") return number(given, 6);
  if (typeof given === "string") return given;
  if (given === null || given === undefined) return "";
  return typeof given === "object" ? JSON.stringify(given) : String(given);
}

/** Seconds as a length of time: 0.4 s, 12 s, 3 min 5 s, 2 h 10 min, 3 d 4 h. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 9.95) return `${Number(seconds.toFixed(1))} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return join(Math.floor(whole / 60), "min", whole % 60, "s");
  const minutes = Math.round(whole / 60);
  if (minutes < 1440) return join(Math.floor(minutes / 60), "h", minutes % 60, "min");
  const hours = Math.round(minutes / 60);
  return join(Math.floor(hours / 24), "d", hours % 24, "h");
}

const join = (large, largeUnit, small, smallUnit) => `${large} ${largeUnit}` + (small ? ` ${small} ${smallUnit}` : "");

/** How long ago a time (seconds since 1970) was. */
export function ago(time, now = Date.now() / 1000) {
  if (!Number.isFinite(time)) return "";
  const seconds = now - time;
  return seconds < 5 ? "just now" : `${duration(seconds).split(" ").slice(0, 2).join(" ")} ago`;
}

/** A time (seconds since 1970) in the reader's own time zone: 2026-03-01 14:05:09. */
export function moment(time) {
  if (!Number.isFinite(time)) return "";
  const at = new Date(time * 1000);
  const two = (part) => String(part).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** Bytes: 512 B, 1.5 kB, 20 MB. */
export function bytes(count) {
  if (!Number.isFinite(count)) return "";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let index = 0;
  let size = count;
  while (size >= 999.5 && index < units.length - 1) {
    size /= 1000;
    index++;
  }
  return `${index && size < 10 ? size.toFixed(1) : Math.round(size)} ${units[index]}`;
}

/** "1 run", "2 runs". */
export const count = (num, word, plural = `${word}s`) => `${num.toLocaleString("en-US")} ${num === 1 ? word : plural}`;
