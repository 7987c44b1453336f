// One colour scale. Lightness falls (by day) or rises (by night) all the way, in even steps of OKLab. A weight lies on it
// by its square root: in a long text most are near 1/T, and on a plain scale all of those would look like nothing.

const DAY = ["#fdfaf3", "#fbe8c4", "#f5bb68", "#db722d", "#9e340f", "#451006"];
const NIGHT = ["#1c1b20", "#45211f", "#8c3a1c", "#d4762c", "#f6bd60", "#fff6df"];
const TICKS = [0, 0.05, 0.25, 0.5, 1];
const STEPS = 256;

const place = (weight) => Math.sqrt(Math.min(Math.max(weight, 0), 1)) || 0;

function buildScale(stops) {
  const labs = stops.map(toLab);
  return Array.from({ length: STEPS }, (_, n) => {
    const at = (n / (STEPS - 1)) * (labs.length - 1);
    const left = Math.min(Math.floor(at), labs.length - 2);
    const rgb = fromLab(labs[left].map((from, c) => from + (labs[left + 1][c] - from) * (at - left)));
    const [r, g, b] = rgb.map((c) => linear(c / 255));
    const luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
    return { rgb, css: `rgb(${rgb.join(" ")})`, ink: luminance > 0.179 ? "#000" : "#fff" };
  });
}

function linear(c) {
  return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
}

function gamma(c) {
  return c <= 0.0031308 ? 12.92 * c : 1.055 * c ** (1 / 2.4) - 0.055;
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
