// Building the page. Data become text nodes and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An HTML element: el("a", {class: "run", href: "/r/x", onclick: f}, "text", child, [more children]).
 *
 * Attributes: functions under on... are listeners; true is the bare attribute; null, undefined and false are left out;
 * `value`, `checked`, `selected`, `disabled`, `indeterminate` and `open` are set as properties; `dataset` and `style` take objects.
 * Children: strings and numbers become text; null, undefined and false are left out.
 */
export function el(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return dress(document.createElementNS(SVG, tag), attributes, children);
}

const PROPERTIES = new Set(["value", "checked", "selected", "disabled", "indeterminate", "open"]);

function dress(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) {
      if (PROPERTIES.has(name) && value === false) node[name] = false;
    } else if (name.startsWith("on") && typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(node.dataset, value);
    // Rules are set one by one: a style attribute in markup is what a content security policy forbids.
    else if (name === "style") for (const [rule, text] of Object.entries(value)) node.style.setProperty(rule, text);
    else if (PROPERTIES.has(name)) node[name] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  add(node, children);
  // A select's value can be set only once its options are there.
  if (node.tagName === "SELECT" && attributes?.value !== undefined) node.value = attributes.value;
  return node;
}

function add(node, children) {
  for (const child of children) {
    if (Array.isArray(child)) add(node, child);
    else if (child !== null && child !== undefined && child !== false) {
      node.append(child instanceof Node ? child : String(child));
    }
  }
}

/** Put these children in place of what a node holds. */
export function fill(node, ...children) {
  node.replaceChildren();
  add(node, children);
  return node;
}

/** A link inside the page: the router follows it without a reload. */
export function link(href, text, attributes = {}) {
  return el("a", { href, ...attributes }, text);
}

export const runPath = (id) => `/r/${encodeURIComponent(id)}`;
export const projectPath = (name) => `/p/${encodeURIComponent(name)}`;
export const comparePath = (ids) => `/compare?runs=${ids.map(encodeURIComponent).join(",")}`;

/** What to show where there is nothing: says what to do. */
export function empty(title, ...advice) {
  return el("div", { class: "empty" }, el("p", { class: "empty-title" }, title), advice.map((line) => el("p", {}, line)));
}

/** A text that can be copied by a click. */
export function snippet(text) {
  const button = el("button", { type: "button", class: "quiet copy" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      // No permission for the clipboard (a page that is not on loopback or https): the text can still be selected.
      getSelection().selectAllChildren(button.previousSibling);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return el("div", { class: "snippet" }, el("pre", {}, text), button);
}

/** A message at the foot of the page. kind: "error" (stays until dismissed) or "done" (goes away). The same text is shown once. */
export function showMessage(text, kind = "error") {
  const place = document.getElementById("messages");
  for (const shown of place.children) if (shown.dataset.text === text) return;
  const box = el("div", { class: `message ${kind}`, role: kind === "error" ? "alert" : null, dataset: { text } }, el("span", {}, text));
  box.append(el("button", { type: "button", class: "quiet", "aria-label": "Dismiss", onclick: () => box.remove() }, "\u00d7"));
  place.append(box);
  while (place.children.length > 4) place.firstChild.remove();
  if (kind !== "error") setTimeout(() => box.remove(), 4000);
}

/** The message of an error, for a person. */
export function showError(error) {
  if (error?.name === "AbortError") return;
  showMessage(error?.message ?? String(error));
}

/**
 * A modal dialog. content: nodes; actions: [{text, kind?: "primary" | "danger", act?: async () => keepOpen?}]; one without `act` closes it.
 * An error that `act` throws is shown in the dialog, which stays open. Returns the <dialog>.
 */
export function openDialog(title, content, actions) {
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const buttons = actions.map(({ text, kind, act }) =>
    el("button", {
      type: "button",
      class: kind ?? "",
      onclick: async (event) => {
        if (!act) return dialog.close();
        event.target.disabled = true;
        try {
          if (!(await act())) dialog.close();
        } catch (error) {
          problem.textContent = error?.message ?? String(error);
          problem.hidden = false;
        } finally {
          event.target.disabled = false;
        }
      },
    }, text),
  );
  const dialog = el("dialog", { "aria-label": title }, el("h2", {}, title), content, problem, el("div", { class: "dialog-actions" }, buttons));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

const PLOTLY_ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", "{": "&#123;" };

/**
 * Text that Plotly shows as it is. Plotly reads a small subset of HTML in names, labels and hover texts, and %{templates};
 * whatever is data goes through here first. Control characters, which would break its SVG, become blanks.
 */
export function plotlyText(text) {
  // eslint-disable-next-line no-control-regex
  return String(text).replace(/[\u0000-\u001f\u007f]/g, " ").replace(/[&<>{]/g, (character) => PLOTLY_ESCAPES[character]);
}

/** Call `work` at most once per animation frame, however often it is asked for. */
export function perFrame(work) {
  let asked = 0;
  const ask = () => {
    if (!asked) asked = requestAnimationFrame(() => { asked = 0; work(); });
  };
  ask.cancel = () => { cancelAnimationFrame(asked); asked = 0; };
  return ask;
}
