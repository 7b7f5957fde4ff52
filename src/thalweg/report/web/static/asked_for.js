// What people have asked a study for, and what came of it.

import { el, empty, link, runPath } from "./dom.js";
import { ago, moment, number, value } from "./format.js";

/** Beyond any horizon: the server's way to say "to its horizon". */
const TO_THE_HORIZON = 2 ** 62;

const until = ({ until: step }) => (typeof step === "number" && step < TO_THE_HORIZON ? ` until ${number(step)}` : "");
const changesText = (changes) => Object.entries(changes ?? {}).map(([name, now]) => `${name} = ${value(now)}`).join(", ");

/** What an ask says, as nodes. */
export function askNodes(ask) {
  const run = ask.run ?? ask.parent;
  const at = run === undefined ? null : link(runPath(run), run);
  switch (ask.action) {
    case "stop": return ["Stop ", at];
    case "continue": return ["Continue ", at, until(ask)];
    case "fork": return ["Fork ", at, ` at ${number(ask.at)}`, changesText(ask.changes) && ` with ${changesText(ask.changes)}`, until(ask)];
    case "restart": return ["Restart ", at, ` from ${number(ask.at)}`];
    case "start": return [`Start a run with ${changesText(ask.hyperparameters)}`, until(ask)];
    case "pause": return ["Pause the study"];
    case "unpause": return ["Go on with the study"];
    default: return [ask.action, " ", at];
  }
}

/** The list of requests, newest first. */
export function askedForTable(requests) {
  if (!requests.length) return empty("Nothing was asked for yet", "What anybody asks for on a run's page or by the command line is listed here, with what came of it.");
  return el("div", { class: "wide" }, el("table", { class: "asked" },
    el("thead", {}, el("tr", {}, ["When", "Who", "What", "Outcome"].map((title) => el("th", { scope: "col" }, title)))),
    el("tbody", {}, requests.map(({ ask, author, created, answered, outcome }) => el("tr", {},
      el("td", { class: "soft", title: moment(created) }, ago(created)),
      el("td", {}, author ?? el("span", { class: "soft" }, "unknown")),
      el("td", {}, askNodes(ask)),
      el("td", { title: answered ? moment(answered) : null }, answered ? outcome || "done" : el("span", { class: "soft" }, "waits for the study's loop")))))));
}
