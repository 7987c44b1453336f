// The text: each token a button, tinted by what the reading token gives it, the strongest written under it.

const LETTERED = 6; // weights written under words

function fill(element, side, pick) {
  const special = new Set(side === "target" ? look.target_special : look.special);
  element.dir = rightToLeft(side) ? "rtl" : "ltr";
  const tokens = look.names[side].map(([name, joined], i, all) => {
    const text = make("span", { textContent: linked(name, joined, all[i + 1]?.[1]) });
    const token = make("button", { type: "button", className: "token", tabIndex: -1 }, text, make("small", { dir: "ltr" }));
    token.classList.toggle("special", special.has(i));
    token.classList.toggle("joined", joined);
    token.onclick = () => pick(i);
    token.onpointerenter = (event) => event.pointerType !== "touch" && point(pick === pickReader || pick === pickEither ? { query: i } : null);
    token.onfocus = () => token.matches(":focus-visible") && token.onpointerenter({});
    token.onblur = () => point(null);
    return token;
  });
  tokens[0].tabIndex = 0;
  element.replaceChildren(...tokens);
  element.dataset.size = tokens.length <= 40 ? "short" : tokens.length <= 160 ? "middle" : "long";
  element.onpointerleave = () => point(null);
  element.onkeydown = (event) => rove(event, tokens, { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 });
}

/** A text runs the way its first letter does. */
function rightToLeft(side) {
  const letter = look[side].match(/\p{L}/u)?.[0] ?? "";
  return /[\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}\p{Script=Adlam}]/u.test(letter);
}

/** A token with the invisible joiners that make Arabic letters take the shape they have within a word. */
function linked(name, before, after) {
  return /\p{Script=Arabic}/u.test(name) ? `${before ? "\u200d" : ""}${name}${after ? "\u200d" : ""}` : name;
}

function rove(event, items, steps) {
  const step = { ...steps, Home: -Infinity, End: Infinity }[event.key];
  if (step === undefined) return;
  const now = items.indexOf(document.activeElement);
  const next = items[Math.min(Math.max(now + step, 0), items.length - 1)];
  event.preventDefault();
  items.forEach((item) => (item.tabIndex = item === next ? 0 : -1));
  next.focus();
  return next;
}

function pickReader(i) {
  Object.assign(state, { query: i, key: null });
  show();
}

function pickRead(j) {
  state.key = j;
  show();
}

/** One text on both sides: the first click says who reads, the second what is read. */
function pickEither(i) {
  if (state.query === null || state.key !== null) pickReader(i);
  else pickRead(i);
}

function point(where) {
  if (!where && !state.point) return;
  state.point = where;
  show();
}

function fillTexts() {
  const [rows, cols] = sides();
  at("readers").hidden = rows === cols;
  const click = rows === cols ? "Click two, the reader first," : "Click it, and the word it reads,";
  at("how").textContent = `Point at a word${rows === cols ? "" : " of the upper text"} to see what it reads. ${click} to rank all heads by that link.`;
  if (rows === cols) fill(at("sentence"), rows, pickEither);
  else {
    fill(at("readers"), rows, pickReader);
    fill(at("sentence"), cols, pickRead);
  }
}

function showTexts(weights) {
  const two = !at("readers").hidden;
  const order = [...weights.keys()].sort((a, b) => weights[b] - weights[a]).slice(0, LETTERED);
  const lettered = new Set(order.filter((j, n) => weights[j] >= (n < 3 ? 0.005 : 0.02))); // less is 0.00
  [...at("sentence").children].forEach((token, j) => {
    token.style.background = weights[j] > 0 ? css(weights[j]) : "";
    token.style.color = weights[j] > 0 ? ink(weights[j]) : "";
    token.lastChild.textContent = lettered.has(j) ? weights[j].toFixed(2) : "";
    token.classList.toggle("reader", !two && j === reader());
    token.classList.toggle("query", !two && j === state.query && !state.point);
    token.classList.toggle("key", j === (state.point ? state.point.key : state.key));
  });
  if (two) [...at("readers").children].forEach((token, i) => token.classList.toggle("reader", i === reader()));
}
