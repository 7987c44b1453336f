// One head as a heat map: rows read, columns are read. A long text comes pooled, each cell the strongest of its block.

import { css, image } from "/colour.js";

const LABELLED = 12; // pixels of a cell from which on the words are written beside it
const SLANTED = 17; // and from which on those above it lean, and are easier to read

export class Heatmap {
  /** `on.point(cell)`: a cell is pointed at, null when none is; `on.pick(cell)`: it is clicked. A cell is [row, column]. */
  constructor(canvas, on) {
    Object.assign(this, { canvas, on, cell: null });
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
    canvas.addEventListener("pointermove", (event) => this.#point(this.#under(event)));
    canvas.addEventListener("pointerleave", () => this.#point(null));
    canvas.addEventListener("click", (event) => this.#under(event) && on.pick(this.#under(event)));
    canvas.addEventListener("keydown", (event) => this.#move(event));
    canvas.addEventListener("blur", () => this.#point(null));
  }

  /** `height`×`width` weights, of which `names` ({ rows, cols }) are the words if there is a cell for each. */
  show({ data, height, width, names, special }) {
    if (height !== this.height || width !== this.width) this.cell = null;
    Object.assign(this, { data, height, width, names, special });
  }

  /** `reader`: the row to frame; `without`: columns left out; `full`: the weight at the scale's end. */
  draw(look = this.look) {
    this.look = look;
    if (!this.data || !look) return;
    const size = this.canvas.parentElement.clientWidth;
    const ratio = devicePixelRatio || 1;
    const style = getComputedStyle(this.canvas);
    const pen = this.canvas.getContext("2d");
    this.#measure(pen, size, style);
    const { left, top, side, right } = this;
    const tall = top + side * this.height + 1;
    Object.assign(this.canvas, { width: Math.round(right * ratio), height: Math.round(tall * ratio) });
    Object.assign(this.canvas.style, { width: `${right}px`, height: `${tall}px` });
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.#cells(pen, ratio);
    if (this.labelled) this.#words(pen, style);
    this.#frames(pen, style);
  }

  #measure(pen, size, style) {
    pen.font = this.font = `${style.fontSize} ${style.fontFamily}`;
    const longest = (names) => Math.max(...names.map((name) => pen.measureText(name).width));
    const lay = (left, top, slant) => {
      Object.assign(this, { left, top, slant });
      this.side = Math.min((size - left - slant) / this.width, (size - 2) / this.height);
      if (left) this.side = Math.floor(Math.min(30, this.side));
      return this.side;
    };
    this.labelled = this.names && lay(0, 0, 0) >= LABELLED;
    if (this.labelled) {
      const [before, above] = [longest(this.names.rows), longest(this.names.cols)];
      const left = Math.min(Math.ceil(before) + 10, size * 0.3);
      const lean = Math.min(Math.ceil(above * 0.72) + 14, size * 0.3);
      const leaning = lay(left, lean, Math.min(lean * 0.9, 30)) >= SLANTED; // the last word leans out to the right
      this.labelled = leaning || lay(left, Math.min(Math.ceil(above) + 10, size * 0.3), 0) >= LABELLED;
    }
    if (!this.labelled) lay(0, 0, 0);
    this.right = Math.min(size, this.left + this.side * this.width + this.slant + 1);
  }

  #cells(pen, ratio) {
    const { left, top, side, width, height, data } = this;
    const { full, without } = this.look;
    if (!this.labelled) {
      const small = Object.assign(document.createElement("canvas"), { width, height });
      const columns = this.names ? without : undefined;
      small.getContext("2d").putImageData(image(data, height, width, full, columns), 0, 0);
      pen.imageSmoothingEnabled = false;
      pen.drawImage(small, left, top, side * width, side * height);
      return;
    }
    const gap = 1 / ratio;
    for (let i = 0; i < height; i++) {
      for (let j = 0; j < width; j++) {
        if (without.has(j)) continue;
        pen.fillStyle = css(data[i * width + j], full);
        pen.fillRect(left + j * side, top + i * side, side - gap, side - gap);
      }
    }
  }

  #words(pen, style) {
    const soft = style.getPropertyValue("--soft");
    const [row, col] = this.cell ?? [this.look.reader, this.look.read];
    pen.font = this.font;
    pen.textBaseline = "middle";
    this.names.rows.forEach((name, i) => {
      pen.textAlign = "right";
      pen.fillStyle = i === row ? style.color : soft;
      pen.font = i === row ? `600 ${this.font}` : this.font;
      pen.fillText(name, this.left - 7, this.top + (i + 0.5) * this.side, this.left - 7);
    });
    this.names.cols.forEach((name, i) => {
      const middle = (i + 0.5) * this.side;
      pen.save();
      pen.translate(this.left + middle, this.top - 7);
      pen.rotate(this.slant ? -Math.PI / 4 : -Math.PI / 2);
      pen.textAlign = "left";
      pen.fillStyle = i === col ? style.color : soft;
      pen.font = i === col ? `600 ${this.font}` : this.font;
      pen.fillText(name, 0, 0, this.slant ? undefined : this.top - 7);
      pen.restore();
    });
  }

  #frames(pen, style) {
    const { left, top, side, width, height } = this;
    const across = side * width;
    pen.strokeStyle = style.getPropertyValue("--line");
    pen.lineWidth = 1;
    if (!this.labelled) pen.strokeRect(left + 0.5, top + 0.5, across - 1, side * height - 1);
    pen.strokeStyle = pen.fillStyle = style.color;
    pen.lineWidth = 1.5;
    if (this.look.band) {
      const [from, to] = this.look.band;
      const height = (to - from) * side;
      if (height < 4) pen.fillRect(left, top + from * side, across, Math.max(height, 1.25));
      else pen.strokeRect(left + 0.75, top + from * side - 0.5, across - 1.5, height);
    }
    if (this.cell) {
      const [i, j] = this.cell;
      pen.lineWidth = 2;
      pen.strokeRect(left + j * side, top + i * side, Math.max(side - 0.5, 3), Math.max(side - 0.5, 3));
    }
  }

  #under(event) {
    const box = this.canvas.getBoundingClientRect();
    const j = Math.floor((event.clientX - box.left - this.left) / this.side);
    const i = Math.floor((event.clientY - box.top - this.top) / this.side);
    return i >= 0 && j >= 0 && i < this.height && j < this.width ? [i, j] : null;
  }

  #point(cell, spoken = false) {
    if (String(cell) === String(this.cell)) return;
    this.cell = cell;
    this.on.point(cell, spoken);
  }

  #move(event) {
    if (event.key === "Enter" && this.cell) this.on.pick(this.cell);
    const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!by) return;
    event.preventDefault();
    const [i, j] = this.cell ?? [this.look.reader ?? 0, this.look.read ?? 0];
    const inside = (n, size) => Math.max(0, Math.min(size - 1, n));
    this.#point(this.cell ? [inside(i + by[0], this.height), inside(j + by[1], this.width)] : [i, j], true);
  }
}
