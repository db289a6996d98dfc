// One selection, one clock. All that the page shows follows from this state, and the address's fragment holds it.

const LAYERS = [
  ["sram", "SRAM against the budget"],
  ["cycles", "Cycles spent computing"],
  ["busy", "Busy at the clock's cycle"],
  ["links", "Link load by direction"],
  ["ops", "Operations"],
  ["tensor", "Who holds the selected tensor"],
];

const state = {
  entry: 0, // number of the entry that is shown
  selection: null, // {kind, ...}: see `readSelection`
  at: 0, // the clock, in cycles
  layer: "sram",
  path: false, // whether the critical path is drawn
  view: null, // [x, y, cores across] of the middle of the grid, null for all that is used
};

const listeners = [];
let entryNames = []; // of the program, in order

// Calls f(what changed: a set of names of `state`) from now on.
function subscribe(f) {
  listeners.push(f);
}

// Changes the state; `step` makes a new entry in the browser's history.
function change(changes, { push = false } = {}) {
  const changed = new Set(Object.keys(changes).filter((k) => JSON.stringify(state[k]) !== JSON.stringify(changes[k])));
  if (!changed.size) return;
  Object.assign(state, changes);
  for (const f of listeners) f(changed);
  writeFragment(push);
}

// What is shown of the clock: functions that bring what is there up to date, each time that it moves or once it rests.
const followers = { moving: [], resting: [] };

function followClock(f, when = "moving") {
  followers[when].push(f);
  f();
}

function select(selection) {
  const more = {};
  if (selection?.kind === "tensor") more.layer = "tensor";
  else if (state.layer === "tensor") more.layer = "sram";
  change({ selection, ...more }, { push: true });
}

// -- the fragment ---------------------------------------------------------------------------

// A selection in words: "core=3,4", "link=3,4,east", "step=12", "route=12.0", "route=12.0@3,4", "node=NAME",
// "tensor=NAME", "region=0".
function written(selection) {
  const s = selection;
  if (!s) return "";
  const value = { core: () => `${s.x},${s.y}`, link: () => `${s.x},${s.y},${s.direction}`, step: () => s.step, region: () => s.region,
    route: () => `${s.step}.${s.move}${s.source ? `@${s.source.join(",")}` : ""}`,
    node: () => encodeURIComponent(s.name), tensor: () => encodeURIComponent(s.name) }[s.kind]();
  return `${s.kind}=${value}`;
}

function readSelection(kind, value) {
  let m;
  if (kind === "core" && (m = /^(\d+),(\d+)$/.exec(value))) return { kind, x: +m[1], y: +m[2] };
  if (kind === "link" && (m = /^(\d+),(\d+),(east|west|south|north)$/.exec(value))) return { kind, x: +m[1], y: +m[2], direction: m[3] };
  if ((kind === "step" || kind === "region") && /^\d+$/.test(value)) return { kind, [kind]: +value };
  if (kind === "route" && (m = /^(\d+)\.(\d+)(?:@(\d+),(\d+))?$/.exec(value))) {
    return { kind, step: +m[1], move: +m[2], ...(m[3] ? { source: [+m[3], +m[4]] } : {}) };
  }
  if (kind === "node" || kind === "tensor") {
    try { return { kind, name: decodeURIComponent(value) }; } catch { return null; }
  }
  return null;
}

function fragment(selection = state.selection) {
  const parts = [written(selection), state.at ? `at=${state.at}` : "", `layer=${state.layer}`];
  if (entryNames.length > 1) parts.push(`entry=${encodeURIComponent(entryNames[state.entry])}`);
  if (state.path) parts.push("path=1");
  if (state.view) parts.push(`view=${state.view.join(",")}`);
  return "#" + parts.filter(Boolean).join("&");
}

let writing = 0;

// Many small changes, as while playing, make one write once they rest: it takes a browser long, and it refuses more
// than some a second.
function writeFragment(push) {
  const put = () => {
    writing = 0;
    history.replaceState(null, "", fragment());
  };
  clearTimeout(writing);
  writing = push ? 0 : setTimeout(put, 200);
  if (push) history.pushState(null, "", fragment());
}

// The state that a fragment asks for; what it does not say is as at the start. `fits` judges a selection.
function readFragment(text, fits) {
  const out = { entry: 0, selection: null, at: 0, layer: "sram", path: false, view: null };
  const pairs = text.replace(/^#/, "").split("&").map((part) => [part.slice(0, part.indexOf("=")), part.slice(part.indexOf("=") + 1)]);
  for (const [key, value] of pairs) {
    if (key === "entry") out.entry = Math.max(0, entryNames.findIndex((n) => encodeURIComponent(n) === value || n === value));
    else if (key === "at" && /^\d+$/.test(value)) out.at = +value;
    else if (key === "layer" && LAYERS.some(([n]) => n === value)) out.layer = value;
    else if (key === "path") out.path = value === "1";
    else if (key === "view" && /^-?[\d.]+,-?[\d.]+,[\d.]+$/.test(value)) out.view = value.split(",").map(Number);
    else out.selection = readSelection(key, value) ?? out.selection;
  }
  if (!fits(out.selection, out.entry)) out.selection = null;
  if (out.selection?.kind === "tensor" && !/(^|[#&])layer=/.test(text)) out.layer = "tensor";
  return out;
}
