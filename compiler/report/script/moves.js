// Moves: who sends how much to whom, along which links, and when; as placement/plan/move.py and
// placement/cost/links.py have it.

const sides = new Map(); // those that were asked for: layers that are alike share them

// A move along both sides: at, to: wafer coordinates of the producer's and the consumer's columns (x) or rows (y);
// lo, hi: how far each producer sends, lo > hi where it does not; heard: how many producers each consumer hears;
// hears: whether consumer i hears producer j.
function sidesOf(plan, move) {
  const by = plan.steps[move.by], step = plan.steps[move.step];
  return { x: sideOf(plan, by, step, "x", move.reach_x), y: sideOf(plan, by, step, "y", move.reach_y) };
}

function sideOf(plan, by, step, side, table) {
  const key = [plan.number, side, table, by.region, by.grid, step.region, step.grid].join();
  if (sides.has(key)) return sides.get(key);
  const where = side === "x" ? "columnsOf" : "rowsOf";
  const at = plan[where](by.region, by.grid), to = plan[where](step.region, step.grid);
  const matrix = plan.tables.get(table), n = at.length;
  const lo = new Int32Array(n).fill(1), hi = new Int32Array(n).fill(0), heard = new Int32Array(to.length);
  for (let i = 0; i < to.length; i++) {
    for (let j = 0; j < n; j++) {
      if (!matrix[i * n + j]) continue;
      heard[i]++;
      if (lo[j] > hi[j]) lo[j] = hi[j] = at[j];
      lo[j] = Math.min(lo[j], to[i]);
      hi[j] = Math.max(hi[j], to[i]);
    }
  }
  const out = { at, to, lo, hi, heard, hears: (i, j) => matrix[i * n + j] !== 0 };
  sides.set(key, out);
  return out;
}

// Bytes that a move puts on the outgoing link of (x, y) in a direction.
function bytesOn(plan, move, x, y, direction) {
  if (move.route === "local") return 0;
  if (move.route === "join") return mergedOn(plan, move, x, y, direction);
  const own = sidesOf(plan, move), along = direction === "east" || direction === "west" ? "x" : "y";
  const { at, lo, hi } = own[along], c = along === "x" ? x : y;
  let covered = 0;
  for (let j = 0; j < at.length; j++) {
    if (lo[j] > hi[j]) continue;
    if (direction === "east" || direction === "south" ? at[j] <= c && c < hi[j] : lo[j] < c && c <= at[j]) covered++;
  }
  if (!covered) return 0;
  if (along === "x") {
    const s = own.y, sends = s.at.some((v, j) => v === y && s.lo[j] <= s.hi[j]);
    return sends ? covered * move.sent : 0;
  }
  let count = 0;
  for (let i = 0; i < own.x.to.length; i++) if (own.x.to[i] === x) count += own.x.heard[i];
  return count ? Math.min(covered * count * move.sent, move.through) : 0;
}

// The same of a reduction: down each column to the roots' rows, then along these; a link carries what lies behind
// it once for each root that it leads to.
function mergedOn(plan, move, x, y, direction) {
  const own = sidesOf(plan, move), level = direction === "east" || direction === "west", { at, to, heard, hears } = level ? own.x : own.y;
  const c = level ? x : y, up = direction === "east" || direction === "south";
  let roots = 0;
  for (let i = 0; i < to.length; i++) {
    if (!heard[i]) continue;
    let lo = to[i], hi = to[i];
    for (let j = 0; j < at.length; j++) if (hears(i, j)) { lo = Math.min(lo, at[j]); hi = Math.max(hi, at[j]); }
    if (up ? lo <= c && c < to[i] : to[i] < c && c <= hi) roots++;
  }
  if (!roots) return 0;
  if (level) return own.y.to.some((row, r) => row === y && own.y.heard[r]) ? roots * move.merged : 0;
  let lines = 0;
  own.x.at.forEach((column, j) => { if (column === x) for (let i = 0; i < own.x.to.length; i++) lines += own.x.hears(i, j) ? 1 : 0; });
  return roots * lines * move.merged;
}

// [from, until] cycles in which a move's bytes may be on a link: from the end of the first of its producers that
// sends over it until the start of the last consumer that waits for them.
function windowOn(plan, move, x, y, direction) {
  const own = sidesOf(plan, move), by = plan.steps[move.by], step = plan.steps[move.step], joins = move.route === "join";
  const sender = move.writer >= 0 && sameGrid(plan.steps[move.writer], by) ? plan.steps[move.writer] : by;
  const along = direction === "east" || direction === "west", past = (s, j, c) => s.lo[j] <= c && c <= s.hi[j];
  // Which rows and columns of senders, and which of consumers, the link is on the way of.
  const sends = (i, j) => (joins ? along || own.x.at[i] === x : along ? own.y.at[j] === y && past(own.x, i, x) : past(own.y, j, y));
  const waits = (c, r) => (joins ? !along || own.y.to[r] === y : along || own.x.to[c] === x);
  let from = Infinity, until = 0;
  for (let j = 0; j < own.y.at.length; j++) {
    if (own.y.lo[j] > own.y.hi[j]) continue;
    let some = false;
    for (let i = 0; i < own.x.at.length; i++) {
      if (own.x.lo[i] > own.x.hi[i] || !sends(i, j) || !plan.hasTile(sender, i, j)) continue;
      from = Math.min(from, plan.endAt(sender, i, j));
      some = true;
    }
    if (!some) continue;
    for (let r = 0; r < own.y.to.length; r++) {
      if (!own.y.hears(r, j)) continue;
      for (let c = 0; c < own.x.to.length; c++) if (waits(c, r) && plan.hasTile(step, c, r)) until = Math.max(until, plan.startAt(step, c, r));
    }
  }
  return from === Infinity ? [0, 0] : [from, Math.max(from, until)];
}

function sameGrid(a, b) {
  return a.region === b.region && a.grid.every((v, i) => v === b.grid[i]);
}

// The moves over a link: {move, bytes, from, until}.
function movesOn(plan, x, y, direction) {
  const out = [];
  for (const step of plan.steps) {
    for (const move of step.received) {
      const bytes = bytesOn(plan, move, x, y, direction);
      if (!bytes) continue;
      const [from, until] = windowOn(plan, move, x, y, direction);
      out.push({ move, bytes, from, until });
    }
  }
  return out;
}

// What a consumer's core receives by a move: a map from the producer's core number in its grid to bytes.
function recordsOf(plan, move, column, row) {
  const buffer = plan.buffers[move.source], size = buffer.bytes / buffer.shape.reduce((a, b) => a * b, 1) || 0;
  const out = new Map(), dims = move.dims.map((d) => d.map((t) => plan.tables.get(t)));
  const steps = dims.length ? dims[0][2].length : 1;
  for (let t = 0; t < steps; t++) {
    let found = [[0, 1]];
    for (const [x, y, times, start, core, length] of dims) {
      const piece = x[column] + y[row] + times[t], next = [];
      for (const [c, n] of found) for (let e = start[piece]; e < start[piece + 1]; e++) next.push([c + core[e], n * length[e]]);
      found = next;
    }
    for (const [c, n] of found) out.set(c, (out.get(c) ?? 0) + n * size);
  }
  return out;
}

// What reaches a core for a task of it: {move, source: core number, bytes}, the largest first.
function arrivals(plan, { step, column, row }) {
  const out = [];
  for (const move of step.received) {
    const by = plan.steps[move.by], [columns] = by.grid;
    for (const [n, bytes] of recordsOf(plan, move, column, row)) {
      out.push({ move, source: plan.core(by.region, by.grid, n % columns, Math.floor(n / columns)), bytes });
    }
  }
  return out.sort((a, b) => b.bytes - a.bytes);
}

const MOST_TARGETS = 4096; // of one source that are told apart

// Where the bytes of one producer's core go by a move: {core, bytes} of each consumer.
function targetsOf(plan, move, source) {
  const by = plan.steps[move.by], step = plan.steps[move.step], at = plan.place(by.region, by.grid, source), out = [];
  if (!at) return out;
  const own = sidesOf(plan, move), number = at[1] * by.grid[0] + at[0];
  for (let r = 0; r < own.y.to.length && out.length < MOST_TARGETS; r++) {
    if (!own.y.hears(r, at[1])) continue;
    for (let c = 0; c < own.x.to.length; c++) {
      if (!own.x.hears(c, at[0])) continue;
      const bytes = recordsOf(plan, move, c, r).get(number);
      if (bytes) out.push({ core: plan.core(step.region, step.grid, c, r), bytes });
    }
  }
  return out;
}

// The corners of the way from one core to another: along the row, then along the column (a reduction the other way
// round), or a detour.
function pathOf(plan, move, source, target) {
  const a = plan.xy(source), b = plan.xy(target);
  const detour = move.detours.find((d) => same(d[0], a) && same(d[d.length - 1], b));
  if (detour) return detour;
  if (a[0] === b[0] || a[1] === b[1]) return [a, b];
  return move.route === "join" ? [a, [a[0], b[1]], b] : [a, [b[0], a[1]], b];
}

function same(a, b) {
  return a[0] === b[0] && a[1] === b[1];
}

function hopsOf(corners) {
  let n = 0;
  for (let i = 1; i < corners.length; i++) n += Math.abs(corners[i][0] - corners[i - 1][0]) + Math.abs(corners[i][1] - corners[i - 1][1]);
  return n;
}

// The cores where a task relays on the shared lanes: at the ends of the long hops, then after each short one.
function relaysOf(plan, move, corners) {
  if (move.route !== "relay") return [];
  const hops = hopsOf(corners), { express } = plan.wafer, far = Math.floor(hops / express), stops = [];
  for (let i = 1; i <= far; i++) stops.push(i * express);
  for (let h = far * express + 1; h <= hops; h++) stops.push(h);
  return stops.filter((h) => h < hops).map((h) => along(corners, h));
}

function along(corners, hops) {
  for (let i = 1; i < corners.length; i++) {
    const [a, b] = [corners[i - 1], corners[i]], n = Math.abs(b[0] - a[0]) + Math.abs(b[1] - a[1]);
    if (hops <= n) return [a[0] + Math.sign(b[0] - a[0]) * hops, a[1] + Math.sign(b[1] - a[1]) * hops];
    hops -= n;
  }
  return corners[corners.length - 1];
}

// Whether one of a side's producers sends its bytes over `at` towards higher (sign 1) or lower coordinates.
function passes(side, at, sign) {
  return side.at.some((from, i) => {
    const end = sign > 0 ? side.hi[i] : side.lo[i];
    return side.lo[i] <= side.hi[i] && (end - from) * sign > 0 && (at - from) * sign >= 0 && (end - at) * sign >= 0;
  });
}

// Where producers that send are, and where what hears them is.
const sending = (side) => side.at.filter((_, i) => side.lo[i] <= side.hi[i]);
const hearing = (side) => side.to.filter((_, i) => side.heard[i]);

// What a relayed or joined move takes at a router: its lanes, or the sides of its reduction.
function takenAt(plan, move, x, y) {
  const { x: sx, y: sy } = sidesOf(plan, move), join = move.route === "join", out = [];
  for (const [name, side, at, onLine] of [
    ["x", sx, x, (join ? hearing(sy) : sending(sy)).includes(y)], ["y", sy, y, (join ? sending(sx) : hearing(sx)).includes(x)],
  ]) {
    if (!onLine) continue;
    const far = side.at.some((from, i) => side.lo[i] <= side.hi[i] && Math.max(side.hi[i] - from, from - side.lo[i]) >= plan.wafer.express);
    for (const sign of [1, -1]) {
      if (!passes(side, at, sign)) continue;
      out.push(...(join ? [name] : far ? [`${name}${sign}`, `${name}${sign} far`] : [`${name}${sign}`]));
    }
  }
  return out;
}

// The colours in use at a router: {kept: what is no tree's, in words, count, trees: [{colour, moves}]}.
function coloursAt(plan, x, y) {
  const trees = new Map(), lanes = new Set(), sums = new Set();
  for (const step of plan.steps) {
    for (const move of step.received) {
      if (move.route === "relay") takenAt(plan, move, x, y).forEach((lane) => lanes.add(lane));
      if (move.route === "join") takenAt(plan, move, x, y).forEach((side) => sums.add(side));
      if (move.route !== "tree") continue;
      const { x: sx, y: sy } = sidesOf(plan, move), cx = plan.tables.get(move.colour_x), cy = plan.tables.get(move.colour_y);
      const own = new Set();
      sy.at.forEach((row, j) => {
        if (sy.lo[j] > sy.hi[j] || sy.lo[j] > y || sy.hi[j] < y) return;
        sx.at.forEach((column, i) => {
          if (sx.lo[i] > sx.hi[i]) return;
          const trunk = row === y && sx.lo[i] <= x && x <= sx.hi[i];
          const branch = sx.to.some((to, c) => to === x && sx.hears(c, i));
          if (trunk || branch) own.add(cx[i] + cy[j]);
        });
      });
      for (const colour of own) trees.set(colour, [...(trees.get(colour) ?? []), move]);
    }
  }
  const { kept } = plan, own = lanes.size * kept.lane, summed = sums.size * kept.reduction;
  const words = [own ? `${own} for the shared lanes` : "", summed ? `${summed} for reductions` : "", `${kept.host} for the host`];
  return { count: own + summed + kept.host + trees.size, kept: words.filter(Boolean).join(", "), trees: [...trees].sort((a, b) => a[0] - b[0]).map(([colour, moves]) => ({ colour, moves })) };
}
