// Sets of runs as short texts for the URL, by the runs' numbers: 0-3.7 is 0, 1, 2, 3 and 7.

/** A set of whole numbers as a text. */
export function writeNumbers(numbers) {
  const sorted = [...new Set(numbers)].sort((a, b) => a - b);
  const parts = [];
  for (let i = 0; i < sorted.length; i++) {
    let j = i;
    while (sorted[j + 1] === sorted[j] + 1) j++;
    parts.push(j > i ? `${sorted[i]}-${sorted[j]}` : String(sorted[i]));
    i = j;
  }
  return parts.join(".");
}

/** The numbers in a text, as a test has(number); what is not understood is passed over. */
export function readNumbers(text) {
  const ranges = [];
  for (const part of (text ?? "").split(".")) {
    const found = /^(\d{1,9})(?:-(\d{1,9}))?$/.exec(part);
    if (found) ranges.push([Number(found[1]), Number(found[2] ?? found[1])]);
  }
  return ranges.length ? (number) => ranges.some(([first, last]) => number >= first && number <= last) : () => false;
}
