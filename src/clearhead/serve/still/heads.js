// Small pictures of all heads, painted as their numbers are read and derived; and how a picture is painted.

function fillGrid() {
  const { layers } = look.kinds[state.kind];
  const cells = [];
  const lines = [];
  for (let layer = 0; layer < layers; layer++) {
    const heads = look.heads[state.kind][layer];
    const line = make("div", { className: "layer" }, make("span", { className: "number", textContent: layer }));
    for (let head = 0; head < heads; head++) {
      const cell = make("button", { type: "button", className: "head", tabIndex: -1 }, make("canvas"));
      cell.setAttribute("role", "radio");
      cell.setAttribute("aria-label", `Head ${layer}.${head}`);
      cell.title = `${layer}.${head}`;
      Object.assign(cell.dataset, { layer, head });
      cell.onclick = () => choose(layer, head);
      line.append(cell);
      cells.push(cell);
    }
    lines.push(line);
  }
  const widest = Math.max(...look.heads[state.kind]);
  const numbers = Array.from({ length: widest }, (_, head) => make("span", { className: "number", textContent: head }));
  const top = make("div", { className: "layer" }, make("span", { className: "number" }), ...numbers);
  at("grid").replaceChildren(top, ...lines);
  at("grid").style.setProperty("--heads", widest);
  at("grid").onkeydown = (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -widest, ArrowDown: widest };
    const next = rove(event, cells, steps);
    if (next) choose(Number(next.dataset.layer), Number(next.dataset.head));
  };
}

function choose(layer, head) {
  if (!calls.has(`${state.kind} ${layer}`)) return; // not read yet
  Object.assign(state, { layer, head });
  show();
  drawMap();
}

async function paintGrid() {
  const run = (paintGrid.run = Symbol("run"));
  let began = performance.now();
  for (const cell of at("grid").querySelectorAll(".head")) {
    const { layer, head } = cell.dataset;
    const its = calls.get(`${state.kind} ${layer}`);
    if (!its) continue;
    const [height, width] = [its.rows, its.cols].map((n) => Math.min(n, 36));
    const lines = [];
    for (const line of its.pool(Number(head), height, width)) {
      lines.push(line);
      if (performance.now() - began > 12) {
        await pause();
        if (paintGrid.run !== run) return;
        began = performance.now();
      }
    }
    paint(cell.firstChild, lines);
  }
}

/** Lines of weights as a picture on a scale that ends at `full`; exactly 0, which may not be read, is left clear. */
function paint(canvas, lines, full = 1) {
  const [height, width] = [lines.length, lines[0].length];
  Object.assign(canvas, { width, height });
  const weights = Float64Array.from({ length: height * width }, (_, n) => lines[Math.floor(n / width)][n % width]);
  const picture = image(weights, height, width, full);
  weights.forEach((weight, n) => weight > 0 || (picture.data[4 * n + 3] = 0));
  canvas.getContext("2d").putImageData(picture, 0, 0);
}
