// What the lens does, in the page: A[i, j] = exp(cap(q·k·scale) + bias − lse), for the weights that someone looks at.

/** Which query may read which key. A rule is a function of their positions; all rules must agree. */
const RULES = {
  causal: () => (i, j) => j <= i,
  window: ({ size }) => (i, j) => Math.abs(i - j) < size,
  prefix: ({ length }) => (i, j) => j <= i || j < length,
  keys: ({ real }) => (i, j) => real[j] === 1,
  documents: ({ query, key }) => (i, j) => query[i] === key[j],
};

/** The q, k and log-sum-exp of all heads of one layer. */
class Call {
  constructor(facts, numbers) {
    Object.assign(this, facts);
    const { heads, kvHeads, width, rows, cols } = facts;
    let at = 0;
    const take = (count) => numbers.subarray(at, (at += count));
    this.q = take(heads * rows * width);
    this.k = take(kvHeads * cols * width);
    this.lse = take(heads * rows);
    this.span = rows + cols - 1; // one number for each distance from the last query's first key on
    this.byDistance = facts.distance ? take(heads * this.span) : null;
    this.allowed = facts.rules.map((rule) => RULES[rule.rule](rule));
  }

  weight(head, i, j) {
    return this.row(head, i, j, j + 1)[0];
  }

  /** What query i reads of keys from…to−1. */
  row(head, i, from = 0, to = this.cols) {
    const { q, k, width, scale, softcap, byDistance, allowed } = this;
    const position = i + this.offset;
    const query = (head * this.rows + i) * width;
    const keys = Math.floor(head / (this.heads / this.kvHeads)) * this.cols;
    const bias = head * this.span + this.rows - 1 - i; // + j: the number of distance j − i
    const lse = this.lse[head * this.rows + i];
    const weights = new Float64Array(to - from);
    next: for (let j = from; j < to; j++) {
      for (const allows of allowed) if (!allows(position, j)) continue next;
      let score = 0;
      for (let d = 0, key = (keys + j) * width; d < width; d++) score += q[query + d] * k[key + d];
      score *= scale;
      if (softcap !== null) score = softcap * Math.tanh(score / softcap);
      if (byDistance) score += byDistance[bias + j];
      weights[j - from] = Math.exp(score - lse);
    }
    return weights;
  }

  /** The largest weight of each of height × width blocks, a row of blocks at a time. */
  *pool(head, height, width) {
    for (let a = 0; a < height; a++) {
      const line = new Float64Array(width);
      for (let i = edge(a, this.rows, height); i < edge(a + 1, this.rows, height); i++) {
        const weights = this.row(head, i);
        for (let b = 0; b < width; b++) {
          const last = edge(b + 1, this.cols, width);
          for (let j = edge(b, this.cols, width); j < last; j++) if (weights[j] > line[b]) line[b] = weights[j];
        }
      }
      yield line;
    }
  }
}

/** Where block n of `blocks` begins in `size` indices. */
const edge = (n, size, blocks) => Math.floor((n * size) / blocks);

/** Read call number n out of the page: base64, deflate, four planes of bytes. */
async function readCall(n) {
  const facts = JSON.parse(document.getElementById(`call-${n}`).textContent);
  const element = document.getElementById(`data-${n}`);
  const letters = atob(element.textContent);
  const packed = new Uint8Array(letters.length);
  for (let i = 0; i < packed.length; i++) packed[i] = letters.charCodeAt(i);
  element.remove();
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = planes.length / 4;
  const words = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    words[i] = (planes[i] << 24) | (planes[count + i] << 16) | (planes[2 * count + i] << 8) | planes[3 * count + i];
  }
  return new Call(facts, new Float32Array(words.buffer));
}
