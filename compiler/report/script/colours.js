// Colours of the grid: a map for amounts, one colour for each kind of operation, and the theme's own.

// Okabe and Ito's colours, told apart with any colour blindness; then darker and lighter ones of them.
const KINDS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#8a63d2", "#004b76", "#8c6100", "#00664a"];
const OTHER_KINDS = "#7a7a7a";

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const css = (c) => `rgb(${c[0]},${c[1]},${c[2]})`;

let theme = {};

// The colours that the style sheet gives for the reader's setting.
function readTheme() {
  const of = getComputedStyle(document.documentElement), get = (name) => of.getPropertyValue(name).trim();
  theme = Object.fromEntries(["ink", "soft", "line", "page", "stage", "unused", "dead", "mark", "producer", "consumer", "over", "way"].map((n) => [n, get(`--${n}`)]));
}

// Viridis, as in the heatmaps: 256 shades of the colours that Python gives.
function shadesOf(colours) {
  return Array.from({ length: 256 }, (_, i) => {
    const t = (i / 255) * (colours.length - 1), j = Math.min(colours.length - 2, Math.floor(t));
    return colours[j].map((c, k) => Math.round(c + (colours[j + 1][k] - c) * (t - j)));
  });
}

// A scale from low to high; `bounded`: what is past high is over the budget.
class Scale {
  constructor(low, high, { logarithmic = false, bounded = false } = {}) {
    Object.assign(this, { low, high: high > low ? high : low + 1, logarithmic, bounded });
  }

  position(value) {
    const f = this.logarithmic ? (v) => Math.log(Math.max(v, this.low)) : (v) => v;
    return Math.min(1, Math.max(0, (f(value) - f(this.low)) / (f(this.high) - f(this.low))));
  }

  // Round numbers along the scale, both ends included.
  ticks() {
    const out = [this.low];
    if (this.logarithmic) for (let v = 10 ** Math.ceil(Math.log10(this.low)); v < this.high; v *= 10) out.push(v);
    else {
      const span = this.high - this.low, unit = 10 ** Math.floor(Math.log10(span / 2));
      const step = [1, 2, 5, 10].map((m) => m * unit).find((s) => span / s <= 5);
      for (let v = Math.ceil(this.low / step) * step; v < this.high; v += step) out.push(v);
    }
    return [...new Set([...out, this.high])];
  }
}

const HUGE_RANGE = 1000; // largest over smallest from which a scale is logarithmic

function scaleOf(values) {
  let high = 0, least = Infinity;
  for (const v of values) {
    if (v > high) high = v;
    if (v > 0 && v < least) least = v;
  }
  return high / least > HUGE_RANGE ? new Scale(least, high, { logarithmic: true }) : new Scale(0, high);
}

// The kinds of operations of a plan, those that take most cycles first, with a colour each as far as these go.
function kindsOf(plan) {
  const cycles = new Map();
  for (const s of plan.steps) if (s.kind !== "input") cycles.set(s.op, (cycles.get(s.op) ?? 0) + (s.last - s.first));
  const names = [...cycles].sort((a, b) => b[1] - a[1]).map(([name]) => name);
  return new Map(names.map((name, i) => [name, KINDS[i] ?? OTHER_KINDS]));
}
