// The server's HTTP API.

/** What the server, or the way to it, refused. status is 0 where no answer came. */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.name = "ApiError";
    this.status = status;
  }
}

/** A number as the API writes it: JSON has no NaN and no infinities, they come as texts. null and anything else that is no number: NaN. */
export function toNumber(value) {
  if (typeof value === "number") return value;
  return { nan: NaN, inf: Infinity, "-inf": -Infinity }[value] ?? NaN;
}

/** GET a JSON object. Throws ApiError. */
export async function getJson(path, { signal } = {}) {
  return (await ask(path, { signal })).json();
}

let session = null;

/** {token, read_only, user}, asked for once. */
export function getSession() {
  session ??= getJson("/api/session").catch((error) => {
    session = null;
    throw error;
  });
  return session;
}

/** POST a JSON object with the session's token; the answer. Throws ApiError. */
export async function post(path, body = {}) {
  for (let attempt = 0; ; attempt++) {
    const { token } = await getSession();
    try {
      const headers = { "Content-Type": "application/json", "X-Thalweg-Token": token ?? "" };
      return await (await ask(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
    } catch (error) {
      // A server that was started anew has a new token.
      if (error.status !== 401 || attempt) throw error;
      session = null;
    }
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached. Is `thalweg serve` still running?", 0);
  }
  if (response.ok) return response;
  let message = `${response.status} ${response.statusText}`;
  try {
    message = (await response.json()).error ?? message;
  } catch {
    // Not an answer of ours (a proxy's page): the status says what there is to say.
  }
  throw new ApiError(message, response.status);
}

/**
 * A metric's curve over a run's lineage: {header, columns: {name: Float64Array}, num_bytes}.
 * options: buckets, first, last (in x's unit), x ("step" or "time"), inherited, signal.
 */
export async function getCurve(run, metric, options = {}) {
  const query = new URLSearchParams({ metric, buckets: String(options.buckets ?? 2000), x: options.x ?? "step" });
  query.set("inherited", options.inherited === false ? "0" : "1");
  for (const end of ["first", "last"]) if (Number.isFinite(options[end])) query.set(end, String(options[end]));
  const response = await ask(`/api/runs/${encodeURIComponent(run)}/curve?${query}`, { signal: options.signal });
  return readCurve(await response.arrayBuffer());
}

/** Take a curve's bytes apart: uint32 length of the header, the header as JSON, then the columns as float64, all little endian. */
export function readCurve(buffer) {
  const view = new DataView(buffer);
  const start = 4 + view.getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, start - 4)));
  const columns = {};
  header.columns.forEach((name, index) => {
    columns[name] = floats(buffer, start + index * header.num * 8, header.num);
  });
  for (const name of ["first_x", "last_x", "finite_min", "finite_max"]) header[name] = toNumber(header[name]);
  return { header, columns, num_bytes: buffer.byteLength };
}

const LITTLE_ENDIAN = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

function floats(buffer, offset, num) {
  if (LITTLE_ENDIAN && offset % 8 === 0) return new Float64Array(buffer, offset, num);
  const view = new DataView(buffer);
  return Float64Array.from({ length: num }, (_, index) => view.getFloat64(offset + index * 8, true));
}

let connections = 0;

/**
 * Listen to what happens in the store. project: a name, or null for all.
 * handlers: runs({ids, projects}), study({name}), again() (after a connection was lost: anything may have changed).
 * Returns close(). The window gets "thalweg:live" events, detail true or false, for the bar.
 */
export function listen(project, handlers) {
  let source = null;
  let timer = 0;
  let delay = 500;
  let lost = false;
  connections++;

  function open() {
    source = new EventSource("/api/events" + (project === null ? "" : `?project=${encodeURIComponent(project)}`));
    source.addEventListener("open", () => {
      delay = 500;
      announce(true);
      if (lost) handlers.again?.();
      lost = false;
    });
    source.addEventListener("runs", (event) => handlers.runs?.(JSON.parse(event.data)));
    source.addEventListener("study", (event) => handlers.study?.(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      // The browser's own reconnection gives up after some answers; ours does not.
      source.close();
      lost = true;
      announce(false);
      timer = setTimeout(open, delay);
      delay = Math.min(delay * 2, 5000);
    });
  }

  open();
  return () => {
    clearTimeout(timer);
    source.close();
    if (--connections === 0) announce(null);
  };
}

function announce(live) {
  dispatchEvent(new CustomEvent("thalweg:live", { detail: live }));
}
