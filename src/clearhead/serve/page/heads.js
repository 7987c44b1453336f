// All heads: a grid of small pictures, layers down and heads across, and the ranking of heads by one link.

import { image } from "/colour.js";
import { written } from "/sentence.js";

const SHOWN = 12; // rows of the ranking before "all"

export class Grid {
  constructor(element, choose) {
    Object.assign(this, { element, choose, pictures: [] });
    element.addEventListener("click", (event) => {
      const head = event.target.closest("button");
      if (head) choose(Number(head.dataset.layer), Number(head.dataset.head));
    });
    element.addEventListener("keydown", (event) => this.#move(event));
  }

  /** Empty frames for all heads; the pictures come when they are there. */
  show(layers, heads) {
    Object.assign(this, { layers, heads, pictures: [] });
    this.element.style.setProperty("--heads", heads);
    this.element.style.setProperty("--widest", heads > 8 ? "3rem" : heads > 4 ? "4.25rem" : "5.5rem");
    const cells = [label("", "corner"), ...count(heads, (head) => label(head, "across"))];
    for (let layer = 0; layer < layers; layer++) {
      cells.push(label(layer, "down"), ...count(heads, (head) => this.#frame(layer, head)));
    }
    this.element.replaceChildren(...cells);
  }

  /** The pictures of some layers, from `first` on; `shape` is layers, heads, height, width. */
  picture(first, shape, data) {
    const [layers, heads, height, width] = shape;
    for (let layer = 0; layer < layers; layer++) {
      for (let head = 0; head < heads; head++) {
        const start = (layer * heads + head) * height * width;
        this.pictures[(first + layer) * heads + head] = { height, width, data: data.subarray(start, start + height * width) };
      }
    }
  }

  /** Draw all pictures. `without` are columns left out, where a picture has a column for each token. */
  draw(columns, without, full) {
    this.pictures.forEach(({ height, width, data }, at) => {
      const canvas = this.#button(at).firstChild;
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      canvas.getContext("2d").putImageData(image(data, height, width, full, width === columns ? without : undefined), 0, 0);
    });
  }

  select(layer, head) {
    for (const button of this.element.querySelectorAll("button")) {
      const chosen = Number(button.dataset.layer) === layer && Number(button.dataset.head) === head;
      button.setAttribute("aria-checked", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
    }
  }

  /** Mark each head with the weight of a link; null takes the marks away. */
  mark(links) {
    for (const button of this.element.querySelectorAll("button")) {
      button.style.removeProperty("--weight");
      button.title = `layer ${button.dataset.layer}, head ${button.dataset.head}`;
    }
    for (const { layer, head, weight } of links ?? []) {
      const button = this.#button(layer * this.heads + head);
      button.style.setProperty("--weight", weight ?? 0);
      button.title += `: ${written(weight)}`;
    }
  }

  focus(layer, head) {
    this.#button(layer * this.heads + head).focus();
  }

  #button(at) {
    const layer = Math.floor(at / this.heads);
    return this.element.children[(layer + 1) * (this.heads + 1) + 1 + (at % this.heads)];
  }

  #frame(layer, head) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(Object.assign(document.createElement("canvas"), { width: 1, height: 1 }));
    Object.assign(button.dataset, { layer, head });
    button.setAttribute("role", "radio");
    button.setAttribute("aria-label", `layer ${layer}, head ${head}`);
    return button;
  }

  #move(event) {
    const button = event.target.closest("button");
    const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!button || !by) return;
    event.preventDefault();
    const layer = Number(button.dataset.layer) + by[0];
    const head = Number(button.dataset.head) + by[1];
    if (layer < 0 || layer >= this.layers || head < 0 || head >= this.heads) return;
    this.choose(layer, head);
    this.focus(layer, head);
  }
}

export class Ranking {
  constructor(element, more, choose) {
    Object.assign(this, { element, more, all: false });
    element.addEventListener("click", (event) => {
      const row = event.target.closest("button");
      if (row) choose(Number(row.dataset.layer), Number(row.dataset.head));
    });
    more.addEventListener("click", () => {
      this.all = !this.all;
      this.show(this.links, this.chosen);
    });
  }

  /** `links` as the server ranked them, or null for none; the chosen head stands out. */
  show(links, chosen) {
    Object.assign(this, { links, chosen });
    const shown = this.all ? (links ?? []) : (links ?? []).slice(0, SHOWN);
    this.element.replaceChildren(...shown.map((link) => row(link, chosen)));
    this.more.hidden = (links?.length ?? 0) <= SHOWN;
    this.more.textContent = this.all ? `only the first ${SHOWN}` : `all ${links?.length} heads`;
  }
}

function row({ layer, head, weight }, chosen) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const parts = [`${layer}.${head}`, "", written(weight)].map((textContent, i) =>
    Object.assign(document.createElement("span"), { textContent, className: ["name", "bar", "number"][i] }),
  );
  parts[1].style.setProperty("--weight", weight ?? 0);
  button.append(...parts);
  button.type = "button";
  Object.assign(button.dataset, { layer, head });
  button.setAttribute("aria-label", `layer ${layer}, head ${head}: ${written(weight)}`);
  if (layer === chosen.layer && head === chosen.head) button.setAttribute("aria-current", "true");
  item.append(button);
  return item;
}

const count = (n, make) => Array.from({ length: n }, (_, i) => make(i));
const label = (text, className) => Object.assign(document.createElement("span"), { textContent: text, className });
