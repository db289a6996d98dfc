// What lies over the grid: the selection and what belongs to it, arrows for links, routes, the critical path.

const LINK_SCALE = 14; // pixels of a core from which each link has an arrow
const MOST_ROUTES = 400; // drawn at once

function overlaysOf(page) {
  // Arrows keep the scale's colours, so what tints cores is below them.
  return [drawRegions(page), drawSelection(page), drawLinks(page), drawDeadLinks(page), drawChosenLink(), drawPath(page), drawCursor(page)];
}

// What the overlays show of the clock, in words: they are drawn anew when it changes.
function clockMarks(page) {
  const s = state.selection, { plan } = page, leg = state.path ? plan.legAt(state.at) : "";
  if (s?.kind !== "core" || !page.ready) return `${leg}`;
  return `${leg} ${currentTask(runningOn(plan, s))?.step.number}`;
}

let lastCore = { key: "", running: [] };

// What runs on the selected core, kept while it is selected.
function runningOn(plan, { x, y }) {
  const key = `${plan.number} ${x} ${y}`;
  if (lastCore.key !== key) lastCore = { key, running: plan.running(plan.numberOf(x, y)) };
  return lastCore.running;
}

function outline(c, stage, [x, y, w, h], colour, wide = 2) {
  const [px, py] = stage.pixel(x, y), s = stage.scale;
  c.lineWidth = wide + 2;
  c.strokeStyle = theme.page;
  c.strokeRect(px - 1, py - 1, w * s + 2, h * s + 2);
  c.lineWidth = wide;
  c.strokeStyle = colour;
  c.strokeRect(px - 1, py - 1, w * s + 2, h * s + 2);
}

function tag(c, text, x, y, colour = theme.ink) {
  c.font = "11px system-ui, sans-serif";
  c.textBaseline = "middle";
  c.textAlign = "left";
  const w = c.measureText(text).width;
  c.fillStyle = theme.page;
  c.globalAlpha = 0.9;
  c.fillRect(x, y - 8, w + 8, 16);
  c.globalAlpha = 1;
  c.fillStyle = colour;
  c.fillText(text, x + 4, y);
}

const drawRegions = (page) => (c, stage) => {
  for (const r of page.plan.regions) {
    const [px, py] = stage.pixel(r.box[0], r.box[1]);
    c.strokeStyle = theme.soft;
    c.lineWidth = 1;
    c.strokeRect(px, py, r.box[2] * stage.scale, r.box[3] * stage.scale);
  }
};

// -- links ----------------------------------------------------------------------------------

// Where a link's arrow goes: from the middle towards the neighbour, east and west apart from one another.
function arrowOf(stage, x, y, direction) {
  const [dx, dy] = TOWARDS[direction], [mx, my] = stage.middle(x, y), s = stage.scale, aside = s * 0.14;
  const a = [mx + dx * s * 0.2 - dy * aside, my + dy * s * 0.2 + dx * aside];
  return [a, [a[0] + dx * s * 0.6, a[1] + dy * s * 0.6]];
}

function arrow(c, [a, b], wide, colour) {
  const n = Math.hypot(b[0] - a[0], b[1] - a[1]) || 1, u = [(b[0] - a[0]) / n, (b[1] - a[1]) / n], head = Math.min(n / 2, wide * 1.6 + 2);
  const base = [b[0] - u[0] * head, b[1] - u[1] * head], side = wide / 2 + head * 0.35;
  c.strokeStyle = c.fillStyle = colour;
  c.lineWidth = wide;
  c.beginPath();
  c.moveTo(...a);
  c.lineTo(...base);
  c.stroke();
  c.beginPath();
  c.moveTo(...b);
  c.lineTo(base[0] - u[1] * side, base[1] + u[0] * side);
  c.lineTo(base[0] + u[1] * side, base[1] - u[0] * side);
  c.fill();
}

const drawLinks = (page) => (c, stage) => {
  const { plan } = page;
  if (state.layer !== "links" || stage.scale < LINK_SCALE || !page.ready || !stage.layer.scale) return;
  const [x0, y0, x1, y1] = stage.sight;
  for (let y = y0; y < y1; y++) {
    for (let x = x0; x < x1; x++) {
      for (let d = 0; d < 4; d++) {
        const bytes = plan.at(plan.links[d], x, y);
        if (!bytes) continue;
        const share = stage.layer.scale.position(bytes), colour = css(page.shades[Math.round(share * 255)]), ends = arrowOf(stage, x, y, DIRECTIONS[d]);
        arrow(c, ends, stage.scale * (0.05 + 0.1 * share) + 2, theme.ink);
        arrow(c, ends, stage.scale * (0.05 + 0.1 * share), colour);
      }
    }
  }
};

// The link whose arrow is nearest to a pixel, where arrows are drawn.
function linkAt(page, stage, px, py) {
  const core = stage.coreAt(px, py);
  if (state.layer !== "links" || stage.scale < LINK_SCALE || !page.ready || !core) return null;
  let best = null;
  for (let dy = -1; dy <= 1; dy++) {
    for (let dx = -1; dx <= 1; dx++) {
      const [x, y] = [core[0] + dx, core[1] + dy];
      DIRECTIONS.forEach((direction, d) => {
        if (!page.plan.at(page.plan.links[d], x, y)) return;
        const [a, b] = arrowOf(stage, x, y, direction), along = Math.max(0, Math.min(1, ((px - a[0]) * (b[0] - a[0]) + (py - a[1]) * (b[1] - a[1])) / ((b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2)));
        const far = Math.hypot(px - a[0] - along * (b[0] - a[0]), py - a[1] - along * (b[1] - a[1]));
        if (far < stage.scale * 0.12 && (!best || far < best.far)) best = { far, x, y, direction };
      });
    }
  }
  return best;
}

// -- the selection ------------------------------------------------------------------------------

const drawSelection = (page) => (c, stage) => {
  const s = state.selection, { plan } = page;
  if (!s) return;
  if (s.kind === "region") outline(c, stage, plan.regions[s.region].box, theme.mark, 3);
  if (s.kind === "core") {
    if (page.ready) drawArrivals(c, stage, plan, s);
    outline(c, stage, [s.x, s.y, 1, 1], theme.mark, stage.scale < 6 ? 2 : 3);
    if (stage.scale < 6) ring(c, stage, s.x, s.y);
  }
  if (!page.ready) return;
  if (s.kind === "step") drawStep(c, stage, page, plan.steps[s.step]);
  if (s.kind === "node") for (const step of plan.nodes.get(s.name) ?? []) drawTint(c, stage, page, step, theme.mark, 0.5);
  if (s.kind === "route") drawRoute(c, stage, plan, s);
};

const drawChosenLink = () => (c, stage) => {
  const s = state.selection;
  if (s?.kind !== "link") return;
  outline(c, stage, [s.x, s.y, 1, 1], theme.mark, 1);
  if (stage.scale < LINK_SCALE) return ring(c, stage, s.x, s.y);
  const ends = arrowOf(stage, s.x, s.y, s.direction), wide = Math.max(5, stage.scale * 0.18);
  arrow(c, ends, wide + 4, theme.page);
  arrow(c, ends, wide, theme.mark);
};

// Dead links are barred.
const drawDeadLinks = ({ wafer }) => (c, stage) => {
  const { scale } = stage, half = scale * 0.22, wide = Math.max(2, scale / 8);
  if (scale < 4) return;
  for (const [more, colour] of [[2, theme.page], [0, theme.over]]) {
    c.strokeStyle = colour;
    c.lineWidth = wide + more;
    c.beginPath();
    for (const [cx, cy, direction] of wafer.dead_links) {
      const [dx, dy] = TOWARDS[direction], [x, y] = stage.middle(cx + dx / 2, cy + dy / 2), long = half + more / 2;
      c.moveTo(x - dy * long, y - dx * long);
      c.lineTo(x + dy * long, y + dx * long);
    }
    c.stroke();
  }
};

function ring(c, stage, x, y) {
  const [px, py] = stage.middle(x, y);
  for (const [wide, colour] of [[5, theme.page], [2, theme.mark]]) {
    c.lineWidth = wide;
    c.strokeStyle = colour;
    c.beginPath();
    c.arc(px, py, 9, 0, 7);
    c.stroke();
  }
}

// The cores of a step in a colour, exactly: grids may have pitches, regions holes.
function drawTint(c, stage, page, step, colour, alpha) {
  const { plan } = page;
  page.tints ??= new Map();
  const key = `${plan.number} ${step.number} ${colour}`;
  if (!page.tints.has(key)) {
    if (page.tints.size > 24) page.tints.clear();
    const { canvas, pixels, put } = blank(plan), value = packed(rgb(colour));
    plan.eachRun(step, (pixel, n) => pixels.fill(value, pixel, pixel + n));
    put();
    page.tints.set(key, canvas);
  }
  const [x, y, w, h] = plan.box;
  c.globalAlpha = alpha;
  c.imageSmoothingEnabled = stage.scale < 1;
  c.drawImage(page.tints.get(key), ...stage.pixel(x, y), w * stage.scale, h * stage.scale);
  c.globalAlpha = 1;
  outline(c, stage, plan.boxOf(step.region, step.grid), colour, 2);
}

// A step, who sends to it and whom it sends to, and the links that bring it what it needs.
function drawStep(c, stage, page, step) {
  const { plan } = page;
  const from = new Set(step.received.map((m) => m.writer).filter((w) => w >= 0));
  for (const w of from) outline(c, stage, plan.boxOf(plan.steps[w].region, plan.steps[w].grid), theme.producer, 2);
  for (const r of plan.readers[step.number]) outline(c, stage, plan.boxOf(plan.steps[r].region, plan.steps[r].grid), theme.consumer, 2);
  for (const move of step.received) drawMove(c, stage, plan, move);
  drawTint(c, stage, page, step, theme.mark, 0.45);
  const [x, y] = plan.boxOf(step.region, step.grid), [px, py] = stage.pixel(x, y);
  tag(c, `step ${step.number}: ${step.op}`, Math.max(46, px), Math.max(30, py - 10), theme.ink);
}

// All links of a move as lines: the rows that send, then the columns that are reached.
function drawMove(c, stage, plan, move, alpha = 0.5) {
  if (move.route === "local") return;
  const { x, y } = sidesOf(plan, move), extent = (s) => s.at.reduce(([a, b], _, j) => (s.lo[j] > s.hi[j] ? [a, b] : [Math.min(a, s.lo[j]), Math.max(b, s.hi[j])]), [Infinity, -Infinity]);
  const [x0, x1] = extent(x), [y0, y1] = extent(y);
  c.strokeStyle = theme.consumer;
  c.globalAlpha = alpha;
  c.lineWidth = Math.max(1, Math.min(4, stage.scale * 0.12));
  c.beginPath();
  const joins = move.route === "join", used = (s) => s.at.filter((_, j) => s.lo[j] <= s.hi[j]), heard = (s) => s.to.filter((_, i) => s.heard[i]);
  if (x1 > x0) for (const row of joins ? heard(y) : used(y)) { c.moveTo(...stage.middle(x0, row)); c.lineTo(...stage.middle(x1, row)); }
  if (y1 > y0) for (const column of joins ? used(x) : heard(x)) { c.moveTo(...stage.middle(column, y0)); c.lineTo(...stage.middle(column, y1)); }
  c.stroke();
  c.globalAlpha = 1;
}

// What comes to a core for the task that it runs at the clock's cycle, or begins next.
function drawArrivals(c, stage, plan, { x, y }) {
  const task = currentTask(runningOn(plan, { x, y }));
  if (!task) return;
  for (const { move, source } of arrivals(plan, task).slice(0, MOST_ROUTES)) drawWay(c, stage, plan, move, source, plan.numberOf(x, y));
}

// The task at the clock's cycle, the next one, or the last.
function currentTask(running) {
  const tasks = running.filter((t) => t.step.kind !== "input").sort((a, b) => a.start - b.start);
  return tasks.find((t) => state.at < t.end) ?? tasks[tasks.length - 1];
}

function drawWay(c, stage, plan, move, source, target) {
  if (source === target) return;
  const corners = pathOf(plan, move, source, target), points = corners.map(([x, y]) => stage.middle(x, y));
  for (const [wide, colour] of [[4, theme.page], [2, theme.consumer]]) {
    c.lineWidth = wide;
    c.strokeStyle = colour;
    c.beginPath();
    points.forEach((p, i) => (i ? c.lineTo(...p) : c.moveTo(...p)));
    c.stroke();
  }
  const last = points[points.length - 1], before = points[points.length - 2] ?? last;
  const n = Math.hypot(last[0] - before[0], last[1] - before[1]) || 1, back = Math.min(n, 10);
  arrow(c, [[last[0] - ((last[0] - before[0]) / n) * back, last[1] - ((last[1] - before[1]) / n) * back], last], 3, theme.consumer);
  for (const [x, y] of relaysOf(plan, move, corners)) dot(c, ...stage.middle(x, y), theme.page, theme.consumer);
}

function dot(c, x, y, fill, line, r = 3.5) {
  c.fillStyle = fill;
  c.strokeStyle = line;
  c.lineWidth = 2;
  c.beginPath();
  c.arc(x, y, r, 0, 7);
  c.fill();
  c.stroke();
}

// A route: of one source to all that hear it, or all links of the move.
function drawRoute(c, stage, plan, { step, move, source }) {
  const m = plan.steps[step].received[move];
  if (!source) {
    drawMove(c, stage, plan, m, 0.7);
    outline(c, stage, plan.boxOf(plan.steps[m.by].region, plan.steps[m.by].grid), theme.producer, 2);
    outline(c, stage, plan.boxOf(plan.steps[step].region, plan.steps[step].grid), theme.mark, 2);
    return;
  }
  const from = plan.numberOf(...source);
  for (const { core } of targetsOf(plan, m, from).slice(0, MOST_ROUTES)) drawWay(c, stage, plan, m, from, core);
  outline(c, stage, [...source, 1, 1], theme.producer, 3);
  if (stage.scale < 6) ring(c, stage, ...source);
}

// -- the critical path -----------------------------------------------------------------------------

const MOST_LEGS = 48; // of a critical path that are all drawn alike
const NEAR_LEGS = 10; // before and behind the clock's, of a longer one

// The critical path with its legs' numbers; of a long one those that the clock is near stand out.
const drawPath = (page) => (c, stage) => {
  const legs = page.plan.path;
  if (!state.path || !legs.length) return;
  const points = legs.map((leg) => stage.middle(...leg.core)), now = page.plan.legAt(state.at), long = legs.length > MOST_LEGS;
  const first = long ? Math.max(0, now - NEAR_LEGS) : 0, last = long ? Math.min(legs.length - 1, now + NEAR_LEGS) : legs.length - 1;
  const line = (from, until, wide, colour) => {
    c.lineWidth = wide;
    c.strokeStyle = colour;
    c.beginPath();
    c.moveTo(...points[from]);
    for (let i = from + 1; i <= until; i++) {
      c.lineTo(...stage.middle(legs[i].core[0], legs[i - 1].core[1]));
      c.lineTo(...points[i]);
    }
    c.stroke();
  };
  if (long) {
    c.globalAlpha = 0.3;
    line(0, legs.length - 1, 1, theme.mark);
    c.globalAlpha = 1;
  }
  line(first, last, 5, theme.page);
  line(first, last, 2.5, theme.mark);
  const taken = [], order = Array.from({ length: last - first + 1 }, (_, i) => first + i).sort((a, b) => Math.abs(a - now) - Math.abs(b - now));
  for (const i of long ? order : order.sort((a, b) => (b === now) - (a === now) || a - b)) {
    const [x, y] = points[i], r = i < 99 ? 9 : 11;
    if (taken.some((p) => Math.hypot(p[0] - x, p[1] - y) < 2 * r + 2)) continue;
    taken.push([x, y]);
    dot(c, x, y, i === now ? theme.mark : theme.page, theme.mark, r);
    c.fillStyle = i === now ? theme.page : theme.ink;
    c.font = "bold 10px system-ui, sans-serif";
    c.textAlign = "center";
    c.textBaseline = "middle";
    c.fillText(i + 1, x, y);
  }
};

const drawCursor = () => (c, stage) => {
  if (!stage.cursor || document.activeElement !== stage.canvas) return;
  c.setLineDash([4, 3]);
  outline(c, stage, [...stage.cursor, 1, 1], theme.ink, 2);
  c.setLineDash([]);
};
