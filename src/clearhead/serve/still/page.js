// The page: the lists, the caption, and the order in which everything is read and drawn.

/** Fill a list with rows of {label, weight, act, chosen}. Its buttons stay: one that is pressed must still be there when
 * it is let go, whatever was drawn in between. */
function fillList(list, rows) {
  while (list.children.length > rows.length) list.lastChild.remove();
  rows.forEach(({ label, weight, act, chosen }, n) => {
    if (!list.children[n]) {
      const spans = ["label", "weight", "bar"].map((className) => make("span", { className }));
      list.append(make("li", {}, make("button", { type: "button" }, ...spans)));
    }
    const button = list.children[n].firstChild;
    button.onclick = act;
    button.toggleAttribute("aria-current", Boolean(chosen));
    const [name, number, bar] = button.children;
    name.textContent = label;
    number.textContent = written(weight);
    bar.style.width = `${Math.min(weight, 1) * 100}%`;
  });
}

function showLists(weights) {
  const [rows, cols] = sides().map(names);
  const i = reader();
  const best = [...weights.keys()].sort((a, b) => weights[b] - weights[a]).filter((j) => weights[j] > 0).slice(0, 6);
  at("top-title").replaceChildren(strong(rows, i), " reads, in this head");
  const pin = (key) => () => {
    Object.assign(state, { query: i, key, point: null });
    show();
  };
  fillList(at("top"), best.map((j) => ({ label: numbered(cols, j), weight: weights[j], act: pin(j) })));
  if (state.point) return; // the ranking follows clicks, not the pointer
  const link = state.query !== null && state.key !== null;
  at("ranked-title").replaceChildren(...(link ? ["Heads by ", strong(rows, state.query), " → ", strong(cols, state.key)] : []));
  const ranked = [];
  if (link) {
    for (const its of calls.values()) {
      if (its.kind !== state.kind) continue;
      for (let head = 0; head < its.heads; head++) ranked.push([its.weight(head, state.query, state.key), its.layer, head]);
    }
  }
  ranked.sort((a, b) => b[0] - a[0]);
  const rankedRows = ranked.slice(0, 10).map(([weight, layer, head]) => {
    const chosen = layer === state.layer && head === state.head;
    return { label: `${layer}.${head}`, weight, act: () => choose(layer, head), chosen };
  });
  fillList(at("ranked"), rankedRows);
}

function show() {
  const its = call();
  if (!its) return;
  const weights = its.row(state.head, reader());
  const [rows, cols] = sides().map(names);
  const key = state.point ? state.point.key : state.key;
  const most = weights.indexOf(Math.max(...weights));
  const weight = make("span", { textContent: written(weights[key ?? most]), title: weights[key ?? most].toPrecision(7) });
  const which = make("span", { className: "soft", textContent: ` in head ${state.layer}.${state.head}` });
  at("caption").replaceChildren(strong(rows, reader()), " reads ", strong(cols, key ?? most), key == null ? " most, " : " ", weight, which);
  at("readout").textContent = key == null ? "Each row reads the columns; point at a cell, or move with the arrow keys." : `${rows[reader()]} (${reader()}) → ${cols[key]} (${key}): ${weights[key].toPrecision(7)}`;
  at("whole-title").replaceChildren("Head ", make("em", { textContent: `${state.layer}.${state.head}` }));
  map.canvas.setAttribute("aria-label", `The map of head ${state.layer}.${state.head}; arrow keys move through it`);
  showTexts(weights);
  showLists(weights);
  for (const cell of at("grid").querySelectorAll(".head")) {
    const chosen = Number(cell.dataset.layer) === state.layer && Number(cell.dataset.head) === state.head;
    cell.setAttribute("aria-checked", chosen);
    cell.tabIndex = chosen ? 0 : -1;
  }
  if (map.picture.width && map.width) showMap();
}

/** Which colour is which weight, on a scale that ends at `full`. */
function showLegend(legend = at("legend"), full = 1) {
  const [strip, marks] = [legend.querySelector("canvas"), legend.querySelector("ol")];
  paint(strip, [Float64Array.from({ length: 256 }, (_, n) => Math.max((n / 255) ** 2, 1e-9))]);
  marks.replaceChildren(...TICKS.map((tick) => {
    const more = tick === 1 && full < 1 ? "≥" : "";
    const mark = make("li", { textContent: more + Number((tick * full).toPrecision(3)) });
    mark.style.left = `${place(tick) * 100}%`;
    return mark;
  }));
}

function showKinds() {
  const kinds = Object.keys(look.kinds);
  at("kinds").hidden = kinds.length < 2;
  const buttons = kinds.map((kind) => {
    const button = make("button", { type: "button", textContent: kind, tabIndex: kind === state.kind ? 0 : -1 });
    button.setAttribute("role", "radio");
    button.setAttribute("aria-checked", kind === state.kind);
    button.onclick = () => {
      Object.assign(state, { kind, layer: 0, head: 0, query: null, key: null, point: null });
      begin();
      at("kinds").children[kinds.indexOf(kind)].focus();
    };
    return button;
  });
  at("kinds").onkeydown = (event) => rove(event, buttons, { ArrowLeft: -1, ArrowRight: 1 })?.click();
  at("kinds").replaceChildren(...buttons);
}

function begin() {
  showKinds();
  fillTexts();
  fillGrid();
  show();
  drawMap();
  paintGrid();
  at("sentence").children[state.query ?? 0]?.scrollIntoView({ block: "nearest" });
}

async function open() {
  at("model").textContent = look.model;
  const { layers, heads } = look.kinds[state.kind];
  at("facts").textContent = `${layers} layers × ${heads} heads · ${look.tokens.length} tokens · ${look.device} ${look.dtype} · ${look.kernel}`;
  const close = look.bits === null
    ? " q and k are held to the bit."
    : ` To keep this page small, q and k are rounded here, to steps that move a score by about 2^−${Math.round(look.bits)}: no weight that was compared is further than ${look.error.toExponential(1)} from the exact one.`;
  at("exact").textContent = `Nothing here is a stored table: each weight is derived in this page, when you look, from the q, k and log-sum-exp of the kernel that ran: A = exp(q·k·scale + bias − lse).${close} The page loads nothing from anywhere.`;
  showLegend();
  const numbers = [...document.querySelectorAll("script[id^=call-]")].map((element) => Number(element.id.slice(5)));
  const first = numbers.find((n) => {
    const facts = JSON.parse(at(`call-${n}`).textContent);
    return facts.kind === state.kind && facts.layer === state.layer;
  });
  for (const n of [first, ...numbers.filter((n) => n !== first)]) {
    const its = await readCall(n);
    calls.set(`${its.kind} ${its.layer}`, its);
    if (n === first) begin();
  }
  show();
  paintGrid();
}

onTheme(() => {
  showLegend();
  begin();
});
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) drawMap();
  width = innerWidth;
});

/** For the console: what token `query` reads, in any head. */
window.weights = (layer, head, query, kind = state.kind) => calls.get(`${kind} ${layer}`).row(head, query);

open().catch((error) => {
  at("caption").textContent = `This browser cannot open the page (${error.message}); any of 2023 or later can.`;
});
