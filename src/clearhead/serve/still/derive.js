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
  constructor(facts, words) {
    Object.assign(this, facts);
    const { heads, kvHeads, width, rows, cols, steps } = facts;
    let at = 0;
    const take = (count) => words.subarray(at, (at += count));
    const floats = (count) => new Float32Array(words.buffer, 4 * at, ((at += count), count));
    this.q = steps ? unfold(take(heads * rows * width), steps[0], rows, width) : floats(heads * rows * width);
    this.k = steps ? unfold(take(kvHeads * cols * width), steps[1], cols, width) : floats(kvHeads * cols * width);
    const [high, low] = [floats(heads * rows), floats(heads * rows)];
    this.lse = Float64Array.from(high, (number, n) => number + low[n]);
    this.span = rows + cols - 1; // one number for each distance from the last query's first key on
    this.byDistance = facts.distance ? floats(heads * this.span) : null;
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

/** Whole numbers of steps, folded so that both signs begin with zeros, as the numbers they are: (heads, rows, width). */
function unfold(words, exponents, rows, width) {
  const steps = exponents.map((exponent) => 2 ** exponent);
  const numbers = new Float64Array(words.length);
  for (let head = 0, at = 0; at < words.length; head++) {
    for (let row = 0; row < rows; row++) {
      for (let d = head * width; d < (head + 1) * width; d++, at++) {
        numbers[at] = ((words[at] >>> 1) ^ -(words[at] & 1)) * steps[d];
      }
    }
  }
  return numbers;
}

/** The bytes that letters stand for, 15 bits each, U+0100 being 0. */
function bytesOf(letters, count) {
  const bytes = new Uint8Array(count); // what the last letter has beyond them is dropped
  let bits = 0;
  let have = 0;
  for (let i = 0, at = 0; i < letters.length; i++) {
    bits = ((bits & 0xff) << 15) | (letters.charCodeAt(i) - 0x100);
    for (have += 15; have >= 8; ) bytes[at++] = bits >> (have -= 8);
  }
  return bytes;
}

/** Read call number n out of the page: letters, deflate, four planes of bytes. */
async function readCall(n) {
  const facts = JSON.parse(document.getElementById(`call-${n}`).textContent);
  const element = document.getElementById(`data-${n}`);
  const packed = bytesOf(element.textContent, facts.bytes);
  element.remove();
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = planes.length / 4;
  const words = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    words[i] = (planes[i] << 24) | (planes[count + i] << 16) | (planes[2 * count + i] << 8) | planes[3 * count + i];
  }
  return new Call(facts, words);
}
