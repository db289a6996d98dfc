// Building blocks of the page. Text reaches it through textContent alone, so no name can be markup.

const byId = (id) => document.getElementById(id);
const whole = (v) => Math.round(v).toLocaleString("en");
const percent = (v) => (v * 100 >= 9.95 || v === 0 ? (v * 100).toFixed(0) : v * 100 >= 0.1 ? (v * 100).toFixed(1) : "<0.1") + " %";
const plural = (n, what) => `${whole(n)} ${what}${n === 1 ? "" : "s"}`;

// An element. `of` sets properties; "data-", "aria-" and `role` attributes; functions on events.
function el(tag, of = {}, ...children) {
  const out = tag.startsWith("svg:") ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4)) : document.createElement(tag);
  for (const [key, value] of Object.entries(of)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") out.addEventListener(key, value);
    else if (tag.startsWith("svg:") || /^(aria-|data-|role$|for$|colspan$|scope$)/.test(key)) out.setAttribute(key, value);
    else out[key] = value;
  }
  out.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return out;
}

// A table with titles; rows are lists of text, numbers (shown with separators, to the right) or elements.
function tableOf(titles, rows, { caption = "", current = () => false } = {}) {
  const numbers = titles.map((_, i) => rows.length > 0 && rows.every((row) => typeof row[i] === "number"));
  const cell = (v) => (typeof v === "number" ? el("td", { className: "number" }, whole(v)) : el("td", {}, v));
  return el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": caption || titles.join(", ") },
    el("table", {},
      caption && el("caption", {}, caption),
      el("thead", {}, el("tr", {}, titles.map((t, i) => el("th", { scope: "col", className: numbers[i] ? "number" : "" }, t)))),
      el("tbody", {}, rows.map((row, i) => el("tr", current(i) ? { "aria-current": "true" } : {}, row.map(cell))))));
}

// Facts as a list of terms; rows of which the text is empty are left out.
function factsOf(rows) {
  return el("dl", {}, rows.filter(([, v]) => v !== "" && v !== null && v !== undefined)
    .map(([k, v]) => [el("dt", {}, k), el("dd", {}, v)]));
}

// The end of a name, which is what tells paths apart; the whole one is in the title.
function brief(name, most = 44) {
  return name.length <= most ? name : "…" + name.slice(name.length - most + 1);
}

// What a screen reader is told.
function say(text) {
  byId("said").textContent = text;
}
