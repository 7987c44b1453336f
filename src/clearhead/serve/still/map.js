// One head's map. Each row reads the columns; where it has more cells than dots, a dot is the largest of its block. In a
// long text nearly all weights are small: the map's scale then ends where all but a few dots lie below, and has a legend.

const map = { canvas: at("map"), picture: document.createElement("canvas"), cell: 1, left: 0, top: 0, width: 0, height: 0, full: 1 };

/** Derive the chosen head's picture, a few milliseconds at a time, then show it. */
async function drawMap() {
  const run = (drawMap.run = Symbol("run"));
  const its = call();
  const [rows, cols] = sides().map(names);
  const room = Math.max(map.canvas.parentElement.clientWidth, 200);
  const measure = map.canvas.getContext("2d");
  measure.font = font(12);
  const longest = (words) => Math.min(96, Math.max(...words.slice(0, 200).map((word) => measure.measureText(word).width)) + 8);
  const lettered = (room - longest(rows)) / its.cols >= 12;
  map.left = lettered ? longest(rows) : 0;
  map.top = lettered ? longest(cols) : 0;
  const most = Math.min(room - map.left, 34 * its.cols);
  const cell = most / its.cols;
  map.cell = cell >= 4 ? Math.floor(cell) : cell;
  map.width = map.cell * its.cols;
  map.height = map.cell * its.rows;
  map.lettered = lettered;
  const dots = Math.ceil(map.width * devicePixelRatio);
  const [height, width] = [Math.min(its.rows, Math.ceil(map.height * devicePixelRatio)), Math.min(its.cols, dots)];
  const lines = [];
  let began = performance.now();
  for (const line of its.pool(state.head, height, width)) {
    lines.push(line);
    if (performance.now() - began > 12) {
      await pause();
      if (drawMap.run !== run) return;
      began = performance.now();
    }
  }
  map.full = lettered ? 1 : scaleEnd(lines);
  paint(map.picture, lines, map.full);
  at("map-legend").hidden = map.full === 1;
  showLegend(at("map-legend"), map.full);
  showMap();
}

/** The least of 1, 0.5, 0.2, 0.1 … that no more than one dot in 200 lies above. */
function scaleEnd(lines) {
  const dots = Float64Array.from(lines.flatMap((line) => [...line])).sort();
  const most = dots[Math.floor(0.995 * (dots.length - 1))];
  return [0.01, 0.02, 0.05, 0.1, 0.2, 0.5].find((end) => most <= end) ?? 1;
}

const font = (size) => `${size}px ${getComputedStyle(document.body).fontFamily}`;

function showMap() {
  const { canvas, picture, cell, left, top, width, height, lettered } = map;
  const ratio = devicePixelRatio;
  Object.assign(canvas, { width: Math.round((left + width + 1) * ratio), height: Math.round((top + height + 1) * ratio) });
  Object.assign(canvas.style, { width: `${left + width + 1}px`, height: `${top + height + 1}px` });
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const [ink, soft, line] = ["--ink", "--soft", "--line"].map((name) => style.getPropertyValue(name));
  pen.scale(ratio, ratio);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(picture, left, top, width, height);
  pen.strokeStyle = line;
  pen.strokeRect(left + 0.5, top + 0.5, width, height);
  const spot = state.point ?? state;
  if (lettered) {
    const [rows, cols] = sides().map(names);
    pen.textBaseline = "middle";
    const label = (word, x, y, strong) => {
      pen.font = (strong ? "600 " : "") + font(12);
      pen.fillStyle = strong ? ink : soft;
      pen.fillText(cut(pen, word, 88), x, y);
    };
    pen.textAlign = "right";
    rows.forEach((word, i) => label(word, left - 6, top + (i + 0.5) * cell, i === reader()));
    pen.rotate(-Math.PI / 2);
    pen.textAlign = "left";
    cols.forEach((word, j) => label(word, -top + 6, left + (j + 0.5) * cell, j === spot.key));
    pen.rotate(Math.PI / 2);
  }
  pen.strokeStyle = ink;
  pen.lineWidth = 1;
  const box = Math.max(cell, 3);
  pen.globalAlpha = 0.55;
  pen.strokeRect(left + 0.5, top + reader() * cell + 0.5, width, box);
  pen.globalAlpha = 1;
  if (spot.key != null) {
    pen.lineWidth = 2;
    pen.strokeRect(left + spot.key * cell + 0.5, top + reader() * cell + 0.5, box, box);
  }
}

function cut(pen, word, room) {
  if (pen.measureText(word).width <= room) return word;
  while (word && pen.measureText(`${word}…`).width > room) word = word.slice(0, -1);
  return `${word}…`;
}

/** The query and key under the pointer; where several share a dot, those of its largest weight. */
function under(event) {
  const box = map.canvas.getBoundingClientRect();
  const x = (event.clientX - box.left - map.left) / map.cell;
  const y = (event.clientY - box.top - map.top) / map.cell;
  const its = call();
  if (!(x >= 0 && y >= 0 && x < its.cols && y < its.rows)) return null;
  const dot = Math.max(1, Math.round(1 / map.cell));
  let best = { query: Math.floor(y), key: Math.floor(x) };
  let most = -1;
  for (let i = Math.floor(y); i < Math.min(y + dot, its.rows); i++) {
    for (let j = Math.floor(x); j < Math.min(x + dot, its.cols); j++) {
      const weight = its.weight(state.head, i, j);
      if (weight > most) [most, best] = [weight, { query: i, key: j }];
    }
  }
  return best;
}

map.canvas.onpointermove = (event) => point(under(event));
map.canvas.onpointerleave = () => point(null);
map.canvas.onclick = (event) => {
  const where = under(event);
  if (where) Object.assign(state, where, { point: null });
  show();
};
map.canvas.onkeydown = (event) => {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!step) return;
  event.preventDefault();
  const its = call();
  const inside = (n, size) => Math.min(Math.max(n, 0), size - 1);
  Object.assign(state, { query: inside((state.query ?? 0) + step[0], its.rows), key: inside((state.key ?? 0) + step[1], its.cols) });
  show();
};
