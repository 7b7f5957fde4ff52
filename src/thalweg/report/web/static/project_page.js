// A project's or a study's page: asks for what it shows, and meanwhile loads the code that shows it.

import { getJson, getSession } from "./api.js";
import { setTrail } from "./app.js";

export async function show(root, { name }, state) {
  setTrail([{ text: name }]);
  const api = `/api/projects/${encodeURIComponent(name)}`;
  // Thousands of runs take the server a while: that time is used.
  const answers = Promise.all([getJson(api), getJson(`${api}/runs`), getSession()]);
  const [{ showProject }, [first, listed, session]] = await Promise.all([import("./project_view.js"), answers]);
  return showProject(root, { name, api, state, first, listed, session });
}
