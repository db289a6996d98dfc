// Pointer and keyboard on the grid: drag, pinch, wheel, tap, arrows.

function followPointer(page, stage) {
  const { canvas } = stage, tip = byId("tip"), down = new Map(); // pointers that are down: where
  let moved = 0, apart = 0;
  const at = (e) => { const r = canvas.getBoundingClientRect(); return [e.clientX - r.left, e.clientY - r.top]; };
  const hide = () => { tip.hidden = true; };
  canvas.addEventListener("pointerdown", (e) => {
    down.set(e.pointerId, at(e));
    moved = 0;
    canvas.setPointerCapture(e.pointerId);
  });
  canvas.addEventListener("pointermove", (e) => {
    const [x, y] = at(e);
    if (!down.has(e.pointerId)) return showTip(page, stage, tip, x, y);
    const [ox, oy] = down.get(e.pointerId);
    down.set(e.pointerId, [x, y]);
    moved += Math.abs(x - ox) + Math.abs(y - oy);
    hide();
    if (down.size === 1) return moved > 4 && stage.move(stage.left + x - ox, stage.top + y - oy);
    const [a, b] = [...down.values()], now = Math.hypot(a[0] - b[0], a[1] - b[1]);
    if (apart) stage.zoom(now / apart, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
    apart = now;
    return null;
  });
  const up = (e) => {
    const tapped = down.size === 1 && moved <= 6 && e.type === "pointerup";
    down.delete(e.pointerId);
    apart = 0;
    if (tapped) pick(page, stage, ...at(e));
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", hide);
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    stage.zoom(Math.exp(-e.deltaY * (e.ctrlKey ? 0.01 : 0.0015)), ...at(e));
  }, { passive: false });
}

// Selects what is at a pixel: a link's arrow, else the core.
function pick(page, stage, px, py) {
  const link = linkAt(page, stage, px, py), core = stage.coreAt(px, py);
  if (link) select({ kind: "link", x: link.x, y: link.y, direction: link.direction });
  else if (core) {
    stage.cursor = core;
    select({ kind: "core", x: core[0], y: core[1] });
  } else select(null);
}

function showTip(page, stage, tip, px, py) {
  const link = linkAt(page, stage, px, py), core = stage.coreAt(px, py);
  if (!core) { tip.hidden = true; return; }
  tip.textContent = link ? linkText(page, link) : coreText(page, stage, core);
  tip.hidden = false;
  const [w, h] = stage.size;
  tip.style.left = `${Math.min(px + 16, w - tip.offsetWidth - 6)}px`;
  tip.style.top = `${py + 18 + tip.offsetHeight > h ? py - tip.offsetHeight - 10 : py + 18}px`;
}

// A core in few words: what it is, what the layer says of it, what it runs most.
function coreText(page, stage, [x, y]) {
  const { plan, dead } = page, core = plan.numberOf(x, y);
  if (dead.has(core)) return `core (${x}, ${y}): dead`;
  const lines = [`core (${x}, ${y})`, stage.layer.value(x, y)];
  if (page.ready && plan.at(plan.runs, x, y)) {
    const task = currentTask(plan.running(core));
    if (task) lines.push(`${task.start <= state.at && state.at < task.end ? "runs" : state.at < task.start ? "runs next" : "ran last"} step ${task.step.number}, ${task.step.op}: ${brief(task.step.name, 36)}`);
  } else if (plan.at(plan.sram, x, y)) lines.push("runs no step");
  return lines.join("\n");
}

function linkText(page, { x, y, direction }) {
  const bytes = page.plan.at(page.plan.links[DIRECTIONS.indexOf(direction)], x, y);
  return `link from (${x}, ${y}) ${direction}\n${whole(bytes)} bytes a call`;
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// Arrows move a cursor from core to core, ten at a time with Shift; Enter selects what it is on.
function followKeys(page, stage) {
  stage.canvas.addEventListener("keydown", (e) => {
    const by = ARROWS[e.key], { wafer, plan } = page;
    if (by) {
      e.preventDefault();
      const s = state.selection, from = stage.cursor ?? (s && "x" in s ? [s.x, s.y] : null), far = e.shiftKey ? 10 : 1;
      const next = from ? [from[0] + by[0] * far, from[1] + by[1] * far] : [plan.box[0], plan.box[1]];
      stage.cursor = [Math.max(0, Math.min(wafer.width - 1, next[0])), Math.max(0, Math.min(wafer.height - 1, next[1]))];
      stage.reveal(...stage.cursor);
      stage.draw();
      say(coreText(page, stage, stage.cursor).replace(/\n/g, "; "));
    } else if ((e.key === "Enter" || e.key === " ") && stage.cursor) {
      e.preventDefault();
      e.stopPropagation();
      select({ kind: "core", x: stage.cursor[0], y: stage.cursor[1] });
    }
  });
  for (const kind of ["focus", "blur"]) stage.canvas.addEventListener(kind, () => stage.draw());
}
