// The page: one state, changed by what the user points at, clicks and types; everything on the screen follows from it.

import * as api from "/api.js";
import { TICKS, image, onTheme, place } from "/colour.js";
import { Head } from "/head.js";
import { Grid, Ranking } from "/heads.js";
import { Heatmap } from "/heatmap.js";
import { Second, grow, targetOf } from "/second.js";
import { Sentence, sideOf, written } from "/sentence.js";

const PICTURE = 32; // cells along a side of a small picture
const PAUSE = 60; // milliseconds a pooled cell is pointed at before its weights are fetched
const SWEEP = 2 ** 27; // weights behind the small pictures above which they are fetched layer by layer

const $ = (id) => document.getElementById(id);
const state = {
  model: null, openings: {}, look: null, kind: null, layer: 0, head: 0, // what is looked at
  query: null, key: null, links: null, // the chosen link, and the heads ranked by it
  pointed: null, leaveOut: false, // the word or the cell's row under the pointer
  chosen: null, // the head itself
};

// In cross-attention one text reads another: `sentence` is what is read, `readers` what reads. Else one text is both.
const sentence = new Sentence($("sentence"), $("heard"), {
  point: (i, spoken) => two() || point(i, spoken),
  pick: (i) => guarded(() => (two() ? pickRead(i) : pick(i))),
});
const readers = new Sentence($("readers"), $("heard"), {
  point: (i, spoken) => point(i, spoken),
  pick: (i) => guarded(() => pickReader(i)),
});
const second = new Second($("second"), $("kinds"), {
  again: () => guarded(() => lookAt($("text").value)),
  choose: (kind) => guarded(() => chooseKind(kind)),
});
const sides = () => state.look.kinds[state.kind].sides;
const two = () => sides()[0] !== sides()[1];
const reading = () => (two() ? readers : sentence);
const grid = new Grid($("grid"), (layer, head) => guarded(() => choose(layer, head)));
const ranking = new Ranking($("links"), $("more"), (layer, head) => guarded(() => choose(layer, head)));
const heatmap = new Heatmap($("map"), {
  point: (cell, spoken) => pointAtCell(cell, spoken),
  pick: (cell) => guarded(() => pickCell(cell)),
});

// ── looking ────────────────────────────────────────────────────────────────────────────────────────────────────────

let asking = new AbortController();

/** Run the model over a text. `wish` may say which head and which link to show; else a strong one is found. */
async function lookAt(text, wish = {}) {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  say("Looking…");
  $("main").setAttribute("aria-busy", "true");
  const look = await api.look({ text, model: state.model, ...second.said(wish, state.look) }, signal);
  if (signal.aborted) return;
  const kind = [wish.kind, state.look?.model === look.model ? state.kind : null, "cross", Object.keys(look.kinds)[0]].find((kind) => look.kinds[kind]);
  const shape = look.kinds[kind];
  const within = (n, size) => Math.min(Math.max(Number(n) || 0, 0), size - 1);
  Object.assign(state, { look, kind, query: null, key: null, links: null, pointed: null, chosen: null });
  state.layer = within(wish.layer ?? state.layer, shape.layers);
  state.head = within(wish.head ?? state.head, shape.heads);
  $("main").hidden = false;
  second.show(look, kind);
  describe();
  grid.show(shape.layers, shape.heads);
  grid.select(state.layer, state.head);
  const pictures = fetchPictures(look);
  pictures.catch(() => {}); // told below, where it is awaited
  const chosen = await fetchHead();
  const [query, key] = tokensOf(wish, look) ?? (await chosen.strongest(restingPlaces()));
  if (look !== state.look) return;
  Object.assign(state, { query, key });
  $("readers").hidden = !two();
  sentence.show(sideOf(look, sides()[1]), two() ? (key ?? 0) : query);
  if (two()) readers.show(sideOf(look, sides()[0]), query);
  reading().reveal(query);
  await show();
  $("main").setAttribute("aria-busy", "false");
  const target = look.takes_target ? ` read, ${look.target_tokens.length} written${look.written ? " by the model itself" : ""}` : "";
  say(`${look.tokens.length} tokens${target}, ${shape.layers * shape.heads} heads`);
  await Promise.all([pictures, rank()]);
  remember();
}

async function fetchPictures(look) {
  const { layers, heads, rows, cols } = look.kinds[state.kind];
  const atOnce = layers * heads * rows * cols <= SWEEP ? [null] : [...Array(layers).keys()];
  for (const layer of atOnce) {
    const asked = { kind: state.kind, size: PICTURE, ...(layer === null ? {} : { layer }) };
    const { shape, data } = await api.thumbs(look, asked);
    if (look !== state.look) return;
    grid.picture(layer ?? 0, shape, data);
    drawGrid();
  }
}

async function fetchHead() {
  const { look, kind, layer, head } = state;
  const chosen = await Head.fetch(look, { kind, layer, head });
  if (look === state.look && layer === state.layer && head === state.head) state.chosen = chosen;
  return chosen;
}

/** The wish's link as tokens: indices, or words of the text. */
function tokensOf({ reads, read }, look) {
  const find = (place, side) => {
    if (place === undefined || place === null || place === "") return null;
    const { tokens } = sideOf(look, side);
    if (/^\d+$/.test(place)) return Number(place) < tokens.length ? Number(place) : null;
    const i = tokens.findIndex((token) => token.trim().toLowerCase() === place.toLowerCase());
    return i < 0 ? null : i;
  };
  const query = find(reads, sides()[0]);
  return query === null ? null : [query, find(read, sides()[1])];
}

// ── choosing ───────────────────────────────────────────────────────────────────────────────────────────────────────

async function choose(layer, head) {
  Object.assign(state, { layer, head });
  grid.select(layer, head);
  ranking.show(state.links, state);
  await fetchHead();
  await show();
  remember();
}

/** A word is clicked: the first click chooses the reader, the second what it reads, the next begins anew. */
async function pick(i) {
  const begin = state.query === null || state.key !== null;
  if (begin) Object.assign(state, { query: i, key: null, links: null });
  else state.key = i;
  turnRound();
  await link();
}

/** Another attention of the same look: the text's own, what is written's own, or how that reads the text. */
async function chooseKind(kind) {
  const { look } = state;
  await lookAt(look.text, { kind, layer: 0, head: 0, target: targetOf(look) });
  second.focus();
}

/** In cross-attention the word that reads is clicked in one text, and what it reads in the other. */
const pickReader = (i) => link({ query: i, links: null });
const pickRead = (i) => link({ key: i });

/** Choose a link, or a part of one, and show it. */
async function link(change = {}) {
  Object.assign(state, change);
  await show();
  await rank();
  remember();
}

/** In a decoder the later word reads the earlier one, whichever was clicked first; the status line says so. */
function turnRound() {
  const { query, key, kind, look } = state;
  if (!look.kinds[kind].causal || key === null || key <= query) return;
  Object.assign(state, { query: key, key: query });
  say(`“${reading().short[key]}” comes later, so it is the reader: a decoder reads only what came before.`);
}

async function pickCell(cell) {
  const [query, key] = await state.chosen.link(cell);
  Object.assign(state, { query, key });
  turnRound();
  reading().reveal(state.query);
  if (two()) sentence.reveal(state.key);
  await link();
}

async function rank() {
  const { look, query, key } = state;
  let links = null;
  if (query !== null && key !== null) ({ links } = await api.links(look, state.kind, query, key));
  if (look !== state.look || query !== state.query || key !== state.key) return;
  state.links = links;
  ranking.show(links, state);
  grid.mark(links);
  titleRanking();
}

// ── pointing ───────────────────────────────────────────────────────────────────────────────────────────────────────

function point(i, spoken = false) {
  if (i === state.pointed && !spoken) return;
  state.pointed = i;
  guarded(() => show(spoken && i !== null));
}

let pause = 0;

function pointAtCell(cell, spoken) {
  clearTimeout(pause);
  const { chosen } = state;
  if (!chosen) return;
  if (chosen.whole) {
    state.pointed = cell?.[0] ?? null;
    guarded(() => show());
    return readOut(cell, { spoken });
  }
  heatmap.draw();
  if (!cell) return readOut(null);
  $("readout").textContent = `at most ${written(chosen.cell(cell))} here …`;
  pause = setTimeout(() => guarded(async () => {
    const link = await chosen.link(cell);
    if (String(cell) === String(heatmap.cell)) readOut(link, { spoken, weight: chosen.cell(cell), block: chosen.block(cell) });
  }), PAUSE);
}

/** Write a link beside the map; null where no cell is pointed at. */
function readOut(link, { spoken = false, weight = link && state.chosen.cell(link), block = [] } = {}) {
  const sizes = block.map(([from, to]) => to - from);
  const several = sizes.some((size) => size > 1) ? `, the strongest of ${sizes.join(" × ")}` : "";
  const [reads, read] = link ? [reading().short[link[0]], sentence.short[link[1]]] : [];
  const nothing = state.chosen.whole ? "" : "pooled: each cell is the strongest of its block";
  $("readout").textContent = link ? `${reads} → ${read} ${written(weight)}${several}` : nothing;
  if (spoken) sentence.say($("readout").textContent);
}

// ── showing ────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The tokens where heads rest, of what reads and of what is read: the tokenizer's own, or a decoder's first. */
const restingPlaces = () => {
  const { look, kind } = state;
  const of = (side) => {
    const { special } = sideOf(look, side);
    return new Set(special.length || !look.kinds[kind].causal ? special : [0]);
  };
  const [rows, cols] = sides().map(of);
  return { rows, cols };
};

async function show(spoken = false) {
  const { look, chosen } = state;
  const reader = state.pointed ?? state.query;
  if (!chosen || reader === null) return;
  const weights = await chosen.row(reader);
  if (look !== state.look || reader !== (state.pointed ?? state.query) || chosen !== state.chosen) return;
  const without = state.leaveOut ? restingPlaces().cols : new Set();
  const full = chosen.full(without, weights);
  const { query, key } = state;
  const strongestThree = sentence.tint(two() ? null : reader, weights, { query: two() ? null : query, key, without, full });
  if (two()) readers.mark({ reader, query, key: null });
  const { layer, head } = state;
  const name = Object.assign(document.createElement("em"), { textContent: reading().short[reader] });
  $("caption").replaceChildren("What “", name, `” reads in layer ${layer}, head ${head}`);
  const read = strongestThree.map((i) => `${sentence.short[i]} ${written(weights[i])}`);
  if (spoken) sentence.say(`${reading().short[reader]} reads ${read.join(", ") || "nothing"}`);

  const { whole, height, rows } = chosen;
  heatmap.show({ ...chosen, names: whole ? { rows: reading().short, cols: sentence.short } : null });
  const best = state.pointed === null && key !== null ? key : strongestThree[0]; // the chosen link, while it is shown
  const band = [(reader * height) / rows, ((reader + 1) * height) / rows];
  heatmap.draw({ reader, read: best, band, without: whole ? without : new Set(), full: whole ? full : 1 });
  $("map").setAttribute("aria-label", `Heat map of layer ${layer}, head ${head}: ${reading().short[reader]} reads ${read.join(", ")}`);
  $("whole-title").textContent = `Head ${layer}.${head}: rows read, columns are read`;
  if (!heatmap.cell) readOut(whole ? [reader, best ?? 0] : null);
  drawLegend(full);
  if (full !== drawn.full || state.leaveOut !== drawn.leaveOut) drawGrid(full);
}

const drawn = { full: 1, leaveOut: false };

function drawGrid(full = drawn.full) {
  Object.assign(drawn, { full, leaveOut: state.leaveOut });
  const without = state.leaveOut ? restingPlaces().cols : new Set();
  grid.draw(state.look.kinds[state.kind].cols, without, full);
}

function drawLegend(full) {
  const bar = $("legend").querySelector("canvas");
  const ramp = Float32Array.from({ length: bar.width }, (_, i) => (i / (bar.width - 1)) ** 2);
  bar.getContext("2d").putImageData(image(ramp, 1, bar.width), 0, 0);
  const ticks = TICKS.map((tick) => {
    const item = Object.assign(document.createElement("li"), { textContent: tick === 0 ? "0" : written(tick * full).replace(/\.?0+$/, "") });
    item.style.left = `${100 * place(tick)}%`;
    return item;
  });
  $("legend").querySelector("ol").replaceChildren(...ticks);
  $("legend").setAttribute("aria-label", `Colour scale: weights from 0 to ${written(full)}, by their square root`);
}

function titleRanking() {
  const { query, key, links } = state;
  const said = [query === null ? "…" : reading().short[query], key === null ? "…" : sentence.short[key]];
  const parts = said.map((textContent) => Object.assign(document.createElement("em"), { textContent }));
  $("ranked-title").replaceChildren("Heads by ", parts[0], " → ", parts[1]);
  $("ranked").classList.toggle("empty", !links);
}

/** What was run, said in full: nothing about a number is left to be guessed. */
function describe() {
  const { look, kind } = state;
  const { layers, heads } = look.kinds[kind];
  $("facts").textContent = `${layers} layers × ${heads} heads`;
  $("how").textContent = two()
    ? `Point at a word ${look.takes_target ? "that is written" : "of the upper line"} to see what it reads. Click it, and the word it reads, to rank all heads by that link.`
    : "Point at a word to see what it reads. Click two, the reader first, to rank all heads by that link.";
  $("heads-title").textContent = `All ${layers * heads} heads`;
  $("exact").textContent =
    `Exact weights, re-derived from q, k and the log-sum-exp of the ${look.kernel.startsWith("fused") ? "fused " : ""}kernel that ran. ` +
    `Model ${look.model} · kernel: ${look.kernel} · ${look.dtype} on ${look.device}.`;
  const read = sideOf(look, sides()[1]);
  const special = [...new Set(read.special.map((i) => read.tokens[i].trim()))];
  const names = special.length || !look.kinds[kind].causal ? special : ["the first token"];
  $("leave").hidden = names.length === 0;
  $("leave").lastElementChild.textContent = `Leave out ${names.join(" and ")}, rescale colours to the rest`;
  document.title = `${look.text.slice(0, 60)} – clearhead`;
}

function say(line, bad = false) {
  $("status").textContent = line;
  $("status").classList.toggle("bad", bad);
}

// ── the address holds the view ─────────────────────────────────────────────────────────────────────────────────────

function remember() {
  const { look, kind, layer, head, query, key, leaveOut } = state;
  if (query === null) return;
  const view = { model: look.model, text: look.text };
  if (look.target !== undefined) Object.assign(view, targetOf(look) ? { target: look.target } : {}, { kind });
  if (look.source_language) view.from = look.source_language;
  if (look.target_language) view.into = look.target_language;
  Object.assign(view, { layer, head, reads: query });
  if (key !== null) view.read = key;
  if (leaveOut) view.without = "resting";
  history.replaceState(null, "", `#${new URLSearchParams(view)}`);
}

async function open() {
  const asked = new URLSearchParams(location.hash.slice(1)); // before a look that is under way writes its own there
  const { models, default: first, opening, openings } = await api.models();
  const view = asked.has("text") ? Object.fromEntries(asked) : opening;
  Object.assign(state, { openings, model: models.includes(view.model) ? view.model : first });
  $("model").replaceChildren(...models.map((name) => new Option(name, name, false, name === state.model)));
  $("choose-model").hidden = models.length < 2;
  state.leaveOut = $("leave-out").checked = view.without === "resting";
  $("text").value = view.text;
  grow($("text"));
  await lookAt(view.text, { target: "", from: "", into: "", ...view }); // all there is to say, whatever the fields have
}

// ── what the user does ─────────────────────────────────────────────────────────────────────────────────────────────

/** Run it; a mistake becomes the status line; a look that the server let go is had again, once. */
async function guarded(work) {
  try {
    await work();
  } catch (mistake) {
    if (mistake.name === "AbortError") return;
    if (mistake.forgotten && state.look) {
      const { look, kind, layer, head, query, key } = state;
      state.look = null;
      const target = targetOf(look);
      return guarded(() => lookAt(look.text, { target, kind, layer, head, reads: String(query), read: String(key ?? "") }));
    }
    $("main").setAttribute("aria-busy", "false");
    $("main").hidden = !state.look; // nothing was seen yet: no empty frames under the message
    say(mistake.message, true);
    if (!(mistake instanceof api.Mistake)) throw mistake;
  }
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  guarded(() => lookAt($("text").value));
});
for (const box of [$("text"), $("target")]) {
  box.addEventListener("input", () => grow(box));
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("form").requestSubmit();
  });
}
$("model").addEventListener("change", () => {
  const text = $("text").value;
  const own = state.openings[state.model]?.text === text; // nothing was typed: the other model has a text of its own
  state.model = $("model").value;
  second.hide(); // another model's second text and languages are not this one's
  const view = own ? state.openings[state.model] : { text };
  $("text").value = view.text;
  grow($("text"));
  guarded(() => lookAt(view.text, view));
});
$("leave-out").addEventListener("change", () => {
  state.leaveOut = $("leave-out").checked;
  guarded(() => show());
  remember();
});
addEventListener("hashchange", () => guarded(open));
addEventListener("resize", () => [$("text"), $("target")].forEach(grow));
onTheme(() => {
  if (!state.look) return;
  drawn.full = null;
  guarded(() => show());
});

guarded(open);
