// What the user has set, kept in the URL's query: a copied URL gives the same view.

const EMPTY_LIST = "~";

/**
 * The state of the page that is shown now.
 *
 *   get(name, fallback)          a text; fallback (default null) where it is not in the URL
 *   getNumber(name, fallback)    a finite number; anything else in the URL counts as absent
 *   getFlag(name, fallback)      true or false
 *   getList(name, fallback)      texts; repeated in the URL (?metric=loss&metric=lr), so that they may hold any character
 *   set(name, value, fallback)   a text, number, flag or list; null and the fallback are left out of the URL
 *   setAll({name: value})        several at once, one call of the listeners
 *   on(listener) -> off          listener(names) after a change
 *   flush()                      what is set is in the URL now, and not only soon
 *   close()                      the page is left: nothing more is written
 */
export function viewState(write = writeUrl, search = location.search) {
  const query = new URLSearchParams(search);
  const listeners = new Set();
  let closed = false;
  let pending = 0;

  function put(name, value, fallback) {
    query.delete(name);
    if (value === null || value === undefined || same(value, fallback)) return;
    if (Array.isArray(value)) {
      for (const item of value.length ? value : [null]) query.append(name, item === null ? EMPTY_LIST : encodeItem(String(item)));
    } else query.set(name, typeof value === "boolean" ? (value ? "1" : "0") : String(value));
  }

  function changed(names) {
    if (closed) return;
    // Browsers refuse more than a few hundred history calls in some seconds, which a slider reaches.
    if (!pending) pending = setTimeout(flush, 100);
    for (const listener of [...listeners]) listener(names);
  }

  function flush() {
    clearTimeout(pending);
    pending = 0;
    if (!closed) write(query);
  }

  return {
    get: (name, fallback = null) => query.get(name) ?? fallback,
    getNumber(name, fallback = null) {
      const text = query.get(name);
      const value = text === null || text.trim() === "" ? NaN : Number(text);
      return Number.isFinite(value) ? value : fallback;
    },
    getFlag(name, fallback = false) {
      const text = query.get(name);
      return text === "1" ? true : text === "0" ? false : fallback;
    },
    getList(name, fallback = []) {
      const items = query.getAll(name);
      if (!items.length) return fallback;
      return items.length === 1 && items[0] === EMPTY_LIST ? [] : items.map(decodeItem);
    },
    set(name, value, fallback) {
      put(name, value, fallback);
      changed([name]);
    },
    setAll(values) {
      for (const [name, value] of Object.entries(values)) put(name, value);
      changed(Object.keys(values));
    },
    on(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    flush,
    close() {
      // The address may be another page's by now.
      clearTimeout(pending);
      closed = true;
      listeners.clear();
    },
  };
}

// An empty text and one that begins with ~ are marked, so that an empty list can be told from them.
const encodeItem = (item) => (item === "" || item.startsWith(EMPTY_LIST) ? `${EMPTY_LIST}=${item}` : item);
const decodeItem = (item) => (item.startsWith(`${EMPTY_LIST}=`) ? item.slice(2) : item);

function same(value, fallback) {
  if (Array.isArray(value) && Array.isArray(fallback)) {
    return value.length === fallback.length && value.every((item, index) => item === fallback[index]);
  }
  return fallback !== undefined && value === fallback;
}

function writeUrl(query) {
  const text = query.toString();
  history.replaceState(history.state, "", location.pathname + (text ? `?${text}` : "") + location.hash);
}
