// One colour scale for everything. Lightness falls (by day) or rises (by night) all the way, in even steps of OKLab, so
// that it reads the same without colour vision. A weight lies on it by its square root: most weights of a long text are
// near 1/T, and on a plain scale all of those would look like nothing. The legend says which colour is which weight.

const DAY = ["#fdfaf3", "#fbe8c4", "#f5bb68", "#db722d", "#9e340f", "#451006"];
const NIGHT = ["#1c1b20", "#45211f", "#8c3a1c", "#d4762c", "#f6bd60", "#fff6df"];
const STEPS = 256;
export const TICKS = [0, 0.05, 0.25, 0.5, 1];

const dark = matchMedia("(prefers-color-scheme: dark)");
let scale = build();

/** Call `then` when the theme changes, after the scale has. */
export function onTheme(then) {
  dark.addEventListener("change", () => {
    scale = build();
    then();
  });
}

/** Where a weight lies on the scale, 0 to 1; `full` is the weight at its end. */
export const place = (weight, full = 1) => Math.sqrt(Math.min(Math.max(weight / full, 0), 1)) || 0;

const step = (weight, full) => Math.round(place(weight, full) * (STEPS - 1));

/** The colour of a weight, as #rrggbb, and the ink that reads on it. */
export const css = (weight, full) => scale.css[step(weight, full)];
export const ink = (weight, full) => scale.ink[step(weight, full)];

/** An image of weights, one pixel each. Those of the columns in `without` are drawn as if they were not there. */
export function image(data, height, width, full = 1, without = new Set()) {
  const pixels = new Uint32Array(height * width);
  for (let i = 0; i < pixels.length; i++) {
    pixels[i] = without.size && without.has(i % width) ? 0 : scale.rgba[step(data[i], full)];
  }
  return new ImageData(new Uint8ClampedArray(pixels.buffer), width, height);
}

function build() {
  const stops = (dark.matches ? NIGHT : DAY).map(toLab);
  const made = { css: [], ink: [], rgba: new Uint32Array(STEPS) };
  for (let i = 0; i < STEPS; i++) {
    const at = (i / (STEPS - 1)) * (stops.length - 1);
    const left = Math.min(Math.floor(at), stops.length - 2);
    const rgb = fromLab(stops[left].map((from, c) => from + (stops[left + 1][c] - from) * (at - left)));
    made.css.push(`rgb(${rgb.join(" ")})`);
    made.ink.push(luminance(rgb) > 0.179 ? "#000" : "#fff"); // where black and white stand off alike, at least 4.58 : 1
    made.rgba[i] = (255 << 24) | (rgb[2] << 16) | (rgb[1] << 8) | rgb[0];
  }
  return made;
}

// OKLab (Ottosson 2020).

function linear(c) {
  return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
}

function gamma(c) {
  return c <= 0.0031308 ? 12.92 * c : 1.055 * c ** (1 / 2.4) - 0.055;
}

function luminance(rgb) {
  const [r, g, b] = rgb.map((c) => linear(c / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function toLab(hex) {
  const [r, g, b] = [1, 3, 5].map((i) => linear(parseInt(hex.slice(i, i + 2), 16) / 255));
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function fromLab([light, a, b]) {
  const l = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (light - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((c) => Math.round(255 * gamma(Math.min(Math.max(c, 0), 1))));
}
