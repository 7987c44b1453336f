// The chosen head. A short text's head is fetched as it is; a long one's is pooled, and its rows and cells when looked at.

import * as api from "/api.js";

const WHOLE = 256; // tokens up to which a head is fetched as it is
const POOLED = 256; // cells along a side of a pooled head
const ROWS = 200; // fetched rows that are kept

export class Head {
  static async fetch(look, place) {
    const { rows, cols } = look.kinds[place.kind];
    const whole = Math.max(rows, cols) <= WHOLE;
    const { shape, data } = whole
      ? await api.tile(look, place, [0, rows], [0, cols])
      : await api.pool(look, place, POOLED);
    return new Head({ look, place, whole, rows, cols, height: shape[0], width: shape[1], data });
  }

  constructor(fetched) {
    Object.assign(this, fetched, { fetched: new Map() });
  }

  /** The weight of a cell: a link's own, or the strongest of the block that was pooled there. */
  cell([i, j]) {
    return this.data[i * this.width + j];
  }

  /** What a token reads. */
  async row(i) {
    if (this.whole) return this.data.subarray(i * this.cols, (i + 1) * this.cols);
    if (!this.fetched.has(i)) {
      const { weights } = await api.row(this.look, this.place, i);
      if (this.fetched.size >= ROWS) this.fetched.clear();
      this.fetched.set(i, weights);
    }
    return this.fetched.get(i);
  }

  /** The queries and keys behind a cell, each from … up to. */
  block([i, j]) {
    const edges = (a, n, size) => [Math.floor((a * size) / n), Math.floor(((a + 1) * size) / n)];
    return [edges(i, this.height, this.rows), edges(j, this.width, this.cols)];
  }

  /** The link behind a cell: itself, or the strongest of its block, from the block's exact weights. */
  async link(cell) {
    if (this.whole) return cell;
    const [rows, cols] = this.block(cell);
    const { shape, data } = await api.tile(this.look, this.place, rows, cols);
    let best = 0;
    for (let i = 1; i < data.length; i++) if (data[i] > data[best]) best = i;
    return [rows[0] + Math.floor(best / shape[1]), cols[0] + (best % shape[1])];
  }

  /** The strongest link that rests on none of these tokens, nor, in one text, on itself. */
  async strongest({ rows, cols }) {
    const { cells } = await api.top(this.look, this.place, 1000);
    const own = this.place.kind !== "cross";
    const cell = cells.find(({ row, column }) => !(own && row === column) && !rows.has(row) && !cols.has(column));
    return cell ? [cell.row, cell.column] : [Math.min(1, this.rows - 1), null];
  }

  /** The weight at the end of the colour scale: 1, or, where columns are left out, the strongest of the rest. */
  full(without, weights) {
    if (!without.size) return 1;
    const values = this.whole ? this.data : weights;
    let most = 0;
    for (let i = 0; i < values.length; i++) if (values[i] > most && !without.has(i % this.cols)) most = values[i];
    return most || 1;
  }
}
