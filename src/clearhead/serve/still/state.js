// What the page knows: the look, the calls that were read so far, and what is chosen. `show` in page.js draws it.

const look = JSON.parse(document.getElementById("look").textContent);
const at = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const calls = new Map(); // "encoder 5" → Call
const state = { ...look.opening, point: null }; // kind, layer, head; query and key as clicked; point: {query, key} under the pointer

const call = () => calls.get(`${state.kind} ${state.layer}`);
const sides = () => look.kinds[state.kind].sides;
const names = (side) => look.names[side].map(([name]) => name);
const reader = () => state.point?.query ?? state.query ?? 0;
const twice = (words, i) => words.indexOf(words[i]) !== words.lastIndexOf(words[i]);
const strong = (words, i) => make("em", { textContent: words[i] });
/** A word for a list: with its number, where the text has it more than once. */
const numbered = (words, i) => (twice(words, i) ? `${words[i]} ${i}` : words[i]);
const written = (weight) => (weight >= 0.001 || weight === 0 ? weight.toFixed(4) : weight.toExponential(2));
const pause = () => new Promise((done) => setTimeout(done));
