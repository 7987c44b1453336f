// What the page asks the server. Every answer is JSON, or float32 with its shape in a header; every mistake is one line.

export class Mistake extends Error {
  constructor(status, line) {
    super(line);
    this.status = status;
    this.forgotten = status === 410 || (status === 404 && line.includes("look at the text again"));
  }
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new Mistake(0, "The server does not answer. Is clearhead explore still running?");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Mistake(answer.status, said.error ?? `the server answered ${answer.status}`);
}

const json = async (path, options) => (await ask(path, options)).json();

async function floats(path) {
  const answer = await ask(path);
  const shape = answer.headers.get("X-Shape").split(",").map(Number);
  return { shape, data: new Float32Array(await answer.arrayBuffer()) };
}

const at = (look, answer, parameters) =>
  `/api/looks/${encodeURIComponent(look.id)}/${answer}?${new URLSearchParams(parameters)}`;

export const models = () => json("/api/models");

export const look = (question, signal) =>
  json("/api/look", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(question),
    signal,
  });

export const row = (look, head, i) => json(at(look, "row", { ...head, row: i }));
export const top = (look, head, k) => json(at(look, "top", { ...head, k }));
export const links = (look, kind, query, key) => json(at(look, "ask", { kind, query, key }));
export const thumbs = (look, parameters) => floats(at(look, "thumbs", parameters));
export const pool = (look, head, side) => floats(at(look, "pool", { ...head, height: side, width: side }));
export const tile = (look, head, rows, cols) =>
  floats(at(look, "tile", { ...head, rows: rows.join(":"), cols: cols.join(":") }));
