// The run table's filter: words that are looked for everywhere, and conditions such as `lr > 1e-4 and status = finished`.
//
//   query     = any ("or" any)*           any   = one ("and"? one)*
//   one       = "not" one | "(" query ")" | condition | word
//   condition = field (= != > >= < <= ~ !~) value          ~ is "contains"
//
// Words and values with blanks or signs stand in quotes. The parser reads this and nothing else: no text is ever run as code.

const SIGNS = ["!=", ">=", "<=", "!~", "==", "=", ">", "<", "~"];

/** What is wrong with a filter, for the person who types it. */
export class FilterError extends Error {}

/**
 * Read a filter. fields: name (as it is typed) -> read(run), the value there, or an array of values of which any may match;
 * textOf(run): all that a word is looked for in, in lower case.
 * Returns test(run), or null for a filter that lets everything through. Throws FilterError.
 */
export function readFilter(text, fields, textOf) {
  const parts = split(text);
  if (!parts.length) return null;
  let at = 0;
  const next = () => parts[at];
  const isWord = (word) => next()?.kind === "word" && next().text.toLowerCase() === word;

  function anyOf() {
    const tests = [allOf()];
    while (isWord("or")) {
      at++;
      tests.push(allOf());
    }
    return tests.length === 1 ? tests[0] : (run) => tests.some((test) => test(run));
  }

  function allOf() {
    const tests = [one()];
    while (next() && next().kind !== ")" && !isWord("or")) {
      if (isWord("and")) at++;
      tests.push(one());
    }
    return tests.length === 1 ? tests[0] : (run) => tests.every((test) => test(run));
  }

  function one() {
    const part = next();
    if (!part) throw new FilterError("The filter ends too early: something is missing at its end.");
    if (isWord("not") && parts[at + 1]?.kind !== "sign") {
      at++;
      const test = one();
      return (run) => !test(run);
    }
    if (part.kind === "(") return inBrackets();
    if (part.kind === ")") throw new FilterError("There is a ) too many.");
    if (part.kind === "sign") throw new FilterError(`What should be ${part.text} something? A name belongs before ${part.text}.`);
    if ((isWord("and") || isWord("or")) && parts[at + 1]?.kind !== "sign") throw new FilterError(`Something is missing before "${part.text}".`);
    at++;
    if (next()?.kind !== "sign") return wordTest(part.text, textOf);
    const sign = parts[at++].text;
    const value = parts[at++];
    if (!value || (value.kind !== "word" && value.kind !== "quoted")) throw new FilterError(`A value is missing after "${part.text} ${sign}".`);
    return condition(fieldOf(part.text, fields), sign, value);
  }

  function inBrackets() {
    at++;
    const test = anyOf();
    if (next()?.kind !== ")") throw new FilterError("A ) is missing.");
    at++;
    return test;
  }

  const test = anyOf();
  if (next()) throw new FilterError("There is a ) too many.");
  return test;
}

/** The parts of a filter: words, quoted texts, signs and brackets. */
function split(text) {
  const parts = [];
  let at = 0;
  while (at < text.length) {
    const rest = text.slice(at);
    const blank = /^\s+/.exec(rest);
    const sign = SIGNS.find((candidate) => rest.startsWith(candidate));
    if (blank) at += blank[0].length;
    else if ("()".includes(rest[0])) {
      parts.push({ kind: rest[0], text: rest[0] });
      at++;
    } else if (rest[0] === '"' || rest[0] === "'") {
      const found = quoted(rest);
      parts.push({ kind: "quoted", text: found.text });
      at += found.length;
    } else if (sign) {
      parts.push({ kind: "sign", text: sign === "==" ? "=" : sign });
      at += sign.length;
    } else {
      const [word] = /^(?:(?!!=|!~)[^\s()"'=<>~])+/.exec(rest) ?? [rest[0]];
      parts.push({ kind: "word", text: word });
      at += word.length;
    }
  }
  return parts;
}

function quoted(rest) {
  let text = "";
  for (let i = 1; i < rest.length; i++) {
    if (rest[i] === rest[0]) return { text, length: i + 1 };
    if (rest[i] === "\\" && i + 1 < rest.length) i++;
    text += rest[i];
  }
  throw new FilterError(`A quotation mark is not closed: ${rest.slice(0, 20)}`);
}

function wordTest(word, textOf) {
  const wanted = word.toLowerCase();
  return (run) => textOf(run).includes(wanted);
}

function fieldOf(name, fields) {
  const exact = fields.get(name);
  if (exact) return exact;
  const lower = name.toLowerCase();
  for (const [known, read] of fields) if (known.toLowerCase() === lower) return read;
  const near = [...fields.keys()].map((known) => [distance(lower, known.toLowerCase()), known]).sort((a, b) => a[0] - b[0]);
  const hint = near.length && near[0][0] <= Math.max(2, lower.length / 3) ? ` Did you mean ${near[0][1]}?` : " A column's name belongs there.";
  throw new FilterError(`There is no column "${name}".${hint}`);
}

function condition(read, sign, { kind, text }) {
  if (sign === "!=" || sign === "!~") {
    const test = condition(read, sign === "!=" ? "=" : "~", { kind, text });
    return (run) => !test(run);
  }
  const wanted = kind === "quoted" ? text : valueOf(text);
  const matches = COMPARE[sign];
  return (run) => {
    const value = read(run);
    if (!Array.isArray(value)) return matches(value, wanted, text);
    return value.length ? value.some((item) => matches(item, wanted, text)) : matches(null, wanted, text);
  };
}

const WORDS = { true: true, false: false, none: null, null: null, nan: NaN, inf: Infinity, "+inf": Infinity, "-inf": -Infinity };

/** What a bare word stands for: a number, true, false, none, or itself. */
function valueOf(text) {
  const word = text.toLowerCase();
  if (Object.hasOwn(WORDS, word)) return WORDS[word];
  const number = Number(text);
  return text !== "" && Number.isFinite(number) ? number : text;
}

const missing = (value) => value === null || value === undefined;

const COMPARE = {
  "=": (value, wanted, text) => {
    if (wanted === null) return missing(value) || value === "";
    if (missing(value)) return false;
    if (typeof value === "number" && typeof wanted === "number") return Object.is(value, wanted) || value === wanted;
    return String(value).toLowerCase() === text.toLowerCase();
  },
  "~": (value, wanted, text) => !missing(value) && String(value).toLowerCase().includes(text.toLowerCase()),
  ">": (value, wanted, text) => order(value, wanted, text) > 0,
  ">=": (value, wanted, text) => order(value, wanted, text) >= 0,
  "<": (value, wanted, text) => order(value, wanted, text) < 0,
  "<=": (value, wanted, text) => order(value, wanted, text) <= 0,
};

/** Below, at or above 0 as the value lies before, at or behind what is wanted; NaN where they cannot be compared. */
function order(value, wanted, text) {
  if (missing(value) || wanted === null) return NaN;
  if (typeof value === "number") return typeof wanted === "number" ? (value === wanted ? 0 : value - wanted) : NaN;
  if (typeof value === "string" && typeof wanted === "string") return value.localeCompare(text, "en", { numeric: true });
  return NaN;
}

/** How many letters are to be added, left out or changed to make one text of the other. */
function distance(one, other) {
  let row = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (let i = 1; i <= one.length; i++) {
    const above = row;
    row = [i];
    for (let j = 1; j <= other.length; j++) {
      row.push(Math.min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (one[i - 1] === other[j - 1] ? 0 : 1)));
    }
  }
  return row[other.length];
}
