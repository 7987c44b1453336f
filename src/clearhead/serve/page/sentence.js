// The sentence: each token a button, tinted by the weight that the reading token gives it, the strongest written under it.

import { css, ink } from "/colour.js";

const WINDOW = 1500; // tokens on the page at a time; a longer text shows those around the chosen one
const NUMBERS = 6; // weights written out
const UNKNOWN = /^(\[unk\]|<unk>|<\|unk\|>)$/i; // shown as it is: the model did not see what was typed
const LEAST = 0.02; // weights smaller than this are written only if they are among the first three

/** A weight as it is written: two decimals, more where it is small. */
export function written(weight) {
  if (weight === null || !Number.isFinite(weight)) return "–";
  if (weight >= 0.01) return weight.toFixed(2);
  return weight >= 0.001 ? weight.toFixed(3) : weight === 0 ? "0" : weight.toExponential(0);
}

/** One text of a look, "text" or "target": its words, where they stood, and which tokens are the tokenizer's own. */
export function sideOf(look, name) {
  if (name === "target") return { text: look.target, tokens: look.target_tokens, offsets: look.target_offsets, special: look.target_special };
  return { text: look.text, tokens: look.tokens, offsets: look.offsets, special: look.special };
}

/** What each token looks like: the text it stands for, or its own name where it stands for none. */
export function namesOf(side) {
  const characters = [...side.text];
  const special = new Set(side.special);
  return side.tokens.map((label, i) => {
    const [start, end] = side.offsets[i];
    const again = i > 0 && side.offsets[i - 1][0] === start && side.offsets[i - 1][1] === end;
    const text = special.has(i) || again || UNKNOWN.test(label) ? label : characters.slice(start, end).join("");
    return text.trim() || label.replace(/\n/g, "↵").trim() || "␣";
  });
}

/** A name where there is little room. */
const short = (name) => ([...name].length > 18 ? `${[...name].slice(0, 17).join("")}…` : name);

/** Whether a token goes on with the word of the token before it. */
function goesOn(side, characters, i) {
  const [[from, before], [start]] = [side.offsets[i - 1], side.offsets[i]];
  return before > from && before === start && /\S/.test(characters[start] ?? " ") && /\S/.test(characters[start - 1]);
}

export class Sentence {
  /** `on.point(i)`: a token is pointed at, null when it no longer is; `on.pick(i)`: it is clicked. */
  constructor(element, heard, on) {
    Object.assign(this, { element, heard, on, tokens: new Map(), first: 0 });
    const index = (event) => {
      const token = event.target.closest?.(".token");
      return token ? Number(token.dataset.token) : null;
    };
    element.addEventListener("pointerover", (event) => {
      if (event.pointerType !== "touch" && index(event) !== null) on.point(index(event)); // a gap keeps the last word
    });
    element.addEventListener("pointerleave", () => on.point(null));
    element.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && on.point(index(event), true));
    element.addEventListener("focusout", () => on.point(null));
    element.addEventListener("click", (event) => index(event) !== null && on.pick(index(event)));
    element.addEventListener("keydown", (event) => this.#move(event, index(event)));
  }

  /** Show one text of a look (`sideOf`), from about a token on where it is long. */
  show(side, around = 0) {
    this.side = side;
    this.names = namesOf(side);
    this.short = this.names.map(short);
    this.special = new Set(side.special);
    const count = side.tokens.length;
    this.first = count <= WINDOW ? 0 : Math.max(0, Math.min(around - WINDOW / 2, count - WINDOW));
    const last = Math.min(count, this.first + WINDOW);
    this.tokens.clear();
    const words = [];
    const characters = [...side.text];
    for (let i = this.first; i < last; i++) {
      if (i === this.first || this.special.has(i) || !goesOn(side, characters, i)) words.push(Object.assign(document.createElement("span"), { className: "word" }));
      words.at(-1).append(this.#token(i));
    }
    this.element.replaceChildren(...words);
    this.element.dataset.size = count <= 40 ? "short" : count <= 160 ? "middle" : "long";
    if (count > WINDOW) this.element.append(note(`tokens ${this.first} to ${last - 1} of ${count}`));
    this.#makeReachable(Math.max(around, this.first));
  }

  /** Bring a token of a long text to where it can be seen. */
  reveal(i) {
    if (!this.tokens.has(i)) this.show(this.side, i);
    const { offsetTop, offsetHeight } = this.tokens.get(i);
    if (this.element.dataset.size === "long") this.element.scrollTop = offsetTop - (this.element.clientHeight - offsetHeight) / 2;
  }

  /** Tint all tokens by `weights`, what token `reader` reads; `without` are left untinted. */
  tint(reader, weights, { query, key, without, full }) {
    const order = [...this.tokens.keys()].filter((i) => !without.has(i)).sort((a, b) => weights[b] - weights[a]);
    const numbered = new Set(order.slice(0, NUMBERS).filter((i, n) => weights[i] > 0 && (n < 3 || weights[i] >= LEAST)));
    for (const [i, token] of this.tokens) {
      const left = without.has(i);
      token.style.background = left ? "" : css(weights[i], full);
      token.style.color = left ? "" : ink(weights[i], full);
      token.lastChild.textContent = numbered.has(i) ? written(weights[i]) : "";
      token.classList.toggle("strongest", i === order[0]);
      token.classList.toggle("left", left);
    }
    this.mark({ reader, query, key });
    return order.slice(0, 3).filter((i) => weights[i] > 0);
  }

  /** Frame the token that reads, and those of the chosen link; null where one stands in another text. */
  mark({ reader, query, key }) {
    for (const [i, token] of this.tokens) {
      token.classList.toggle("reader", i === reader);
      token.classList.toggle("query", i === query);
      token.classList.toggle("key", i === key);
      token.setAttribute("aria-pressed", String(i === query || i === key));
    }
  }

  say(line) {
    this.heard.textContent = line;
  }

  #token(i) {
    const token = document.createElement("button");
    const text = document.createElement("span");
    const number = document.createElement("span");
    text.textContent = this.names[i];
    text.className = "text";
    number.className = "number";
    token.append(text, number);
    token.type = "button";
    token.tabIndex = -1;
    token.className = this.special.has(i) ? "token special" : "token";
    token.dataset.token = i;
    token.title = `token ${i}: ${this.side.tokens[i]}`;
    this.tokens.set(i, token);
    return token;
  }

  #makeReachable(i) {
    this.reachable?.setAttribute("tabindex", "-1");
    this.reachable = this.tokens.get(i) ?? this.tokens.values().next().value;
    this.reachable?.setAttribute("tabindex", "0");
  }

  #move(event, i) {
    const last = this.first + this.tokens.size - 1;
    const to = { ArrowLeft: i - 1, ArrowRight: i + 1, Home: this.first, End: last }[event.key];
    if (i === null || to === undefined || !this.tokens.has(to)) return;
    event.preventDefault();
    this.#makeReachable(to);
    this.tokens.get(to).focus();
  }
}

function note(text) {
  return Object.assign(document.createElement("span"), { className: "note", textContent: text });
}
