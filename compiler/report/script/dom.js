// Building blocks of the page. Text reaches it through textContent alone, so no name can be markup.

const byId = (id) => document.getElementById(id);
const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const whole = (v) => WHOLE.format(Math.round(v));
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

const MOST_ROWS = 100; // of a table that are made before somebody asks for more

// A table with titles. Its rows are lists of text, numbers (shown with separators, to the right) or elements, `row`
// makes one of a thing; those past the first hundred are made when they are asked for. `current` judges by a
// thing whether its row is marked, by the clock where it is `clocked`.
function tableOf(titles, things, { row = (thing) => thing, caption = "", current = null, clocked = false } = {}) {
  const first = things.slice(0, MOST_ROWS).map(row), made = [], body = el("tbody", {});
  const numbers = titles.map((_, i) => first.length > 0 && first.every((cells) => typeof cells[i] === "number"));
  const cell = (v) => (typeof v === "number" ? el("td", { className: "number" }, whole(v)) : el("td", {}, v));
  const mark = () => made.forEach((line, i) => {
    const now = current(things[i]);
    if (now === line.hasAttribute("aria-current")) return;
    if (now) line.setAttribute("aria-current", "true");
    else line.removeAttribute("aria-current");
  });
  const add = (rows) => {
    for (const cells of rows) made.push(el("tr", {}, cells.map(cell)));
    body.append(...made.slice(body.rows.length));
    if (current) mark();
  };
  add(first);
  if (current && clocked) followClock(mark);
  const left = things.length - first.length;
  return el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": caption || titles.join(", ") },
    el("table", {},
      caption && el("caption", {}, caption),
      el("thead", {}, el("tr", {}, titles.map((t, i) => el("th", { scope: "col", className: numbers[i] ? "number" : "" }, t)))),
      body),
    left > 0 && el("button", { type: "button", className: "more", click: (e) => { e.target.remove(); add(things.slice(MOST_ROWS).map(row)); } }, `${whole(left)} more`));
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
