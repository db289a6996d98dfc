// The clock: a slider, a play button, and the call along it: steps as bars, bytes under way as a curve.

const PLAY_SECONDS = 12; // for a whole call at normal speed
const LANE = 9; // pixels of a bar's lane

function timeline(page) {
  const canvas = byId("time"), slider = byId("clock"), play = byId("play"), speed = byId("speed"), number = byId("cycle");
  const view = { from: 0, until: 1 }; // the cycles in sight
  const still = { canvas: el("canvas"), of: "" }; // what the clock does not change
  let lanes = [], asked = null, playing = 0, width = 0, height = 0, shown = 0; // shown: where the clock's line is

  const fit = () => { view.from = 0; view.until = Math.max(1, page.plan.cycles); };
  const measure = () => { width = canvas.clientWidth; height = canvas.clientHeight; };
  const px = (cycle) => ((cycle - view.from) / (view.until - view.from)) * width;
  const cycleAt = (x) => Math.max(0, Math.min(page.plan.cycles, Math.round(view.from + (x / width) * (view.until - view.from))));
  const laneHeight = () => Math.max(2, Math.min(LANE, (height - 60) / Math.max(1, lanes.count)));
  const draw = (all = false) => { if (all) still.of = ""; asked ??= requestAnimationFrame(() => { asked = null; drawNow(); }); };

  function drawNow() {
    const ratio = window.devicePixelRatio || 1, c = canvas.getContext("2d");
    if (!width) return;
    c.save();
    const of = [width, height, ratio, view.from, view.until, page.plan.number, page.ready, theme.stage, written(state.selection)].join();
    if (still.of !== of) {
      for (const each of [canvas, still.canvas]) { each.width = width * ratio; each.height = height * ratio; }
      still.of = of;
      drawStill(still.canvas.getContext("2d"), ratio);
    } else clipTo(c, [Math.floor((shown - 2) * ratio), 0, Math.ceil(4 * ratio) + 1, canvas.height], [Math.floor((px(state.at) - 2) * ratio), 0, Math.ceil(4 * ratio) + 1, canvas.height]);
    shown = px(state.at);
    c.drawImage(still.canvas, 0, 0);
    c.scale(ratio, ratio);
    c.fillStyle = theme.mark;
    c.fillRect(shown - 1, 0, 2, height - 16);
    c.restore();
  }

  // All but the clock.
  function drawStill(c, ratio) {
    c.scale(ratio, ratio);
    c.fillStyle = theme.stage;
    c.fillRect(0, 0, width, height);
    drawTicks(c);
    const below = height - 16, high = laneHeight();
    const chosen = chosenSteps(page);
    for (const { step, lane } of lanes) {
      const x = px(step.first), w = Math.max(1, px(step.last) - x);
      if (x > width || x + w < 0) continue;
      c.fillStyle = page.kinds.get(step.op) ?? theme.soft;
      c.globalAlpha = chosen && !chosen.has(step.number) ? 0.3 : 1;
      c.fillRect(x, 4 + lane * high, w, high - 1);
    }
    c.globalAlpha = 1;
    if (page.ready) drawCurve(c, below);
  }

  function drawTicks(c) {
    c.font = "10px system-ui, sans-serif";
    c.textBaseline = "bottom";
    c.textAlign = "center";
    const step = niceStep(((view.until - view.from) * 80) / width);
    for (let v = Math.ceil(view.from / step) * step; v <= view.until; v += step) {
      const x = px(v);
      c.fillStyle = theme.line;
      c.fillRect(x, 0, 1, height - 14);
      c.fillStyle = theme.soft;
      if (x > 18 && x < width - 18) c.fillText(whole(v), x, height - 1);
    }
  }

  // Bytes under way on links, at the foot.
  function drawCurve(c, below) {
    const [times, bytes] = page.plan.way.map((t) => page.tables.get(t)), most = bytes.reduce((a, b) => Math.max(a, b), 1), H = 36;
    c.beginPath();
    c.moveTo(px(times[0]), below);
    for (let i = 0; i < times.length; i++) {
      const y = below - (bytes[i] / most) * H;
      c.lineTo(px(times[i]), y);
      c.lineTo(px(times[i + 1] ?? page.plan.cycles), y);
    }
    c.lineTo(width, below);
    c.fillStyle = theme.consumer;
    c.globalAlpha = 0.35;
    c.fill();
    c.globalAlpha = 1;
    tag(c, `bytes under way on links, at most ${whole(most)}`, 4, below - H - 5);
  }

  const tell = () => {
    slider.value = state.at;
    number.value = state.at;
    slider.setAttribute("aria-valuetext", `cycle ${whole(state.at)} of ${whole(page.plan.cycles)}`);
  };
  const tellLength = () => {
    slider.max = number.max = page.plan.cycles;
    byId("of").textContent = `of ${whole(page.plan.cycles)}`;
  };

  function stop() {
    cancelAnimationFrame(playing);
    playing = 0;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  }

  function start() {
    if (state.layer !== "busy") change({ layer: "busy" });
    let last = performance.now(), at = state.at >= page.plan.cycles ? 0 : state.at;
    play.textContent = "Pause";
    play.setAttribute("aria-pressed", "true");
    const tick = (now) => {
      at += ((now - last) / 1000 / PLAY_SECONDS) * page.plan.cycles * Number(speed.value);
      last = now;
      change({ at: Math.min(page.plan.cycles, Math.round(at)) });
      if (at >= page.plan.cycles) stop();
      else playing = requestAnimationFrame(tick);
    };
    playing = requestAnimationFrame(tick);
  }

  const toggle = () => (playing ? stop() : start());
  play.addEventListener("click", toggle);
  slider.addEventListener("input", () => { stop(); change({ at: Number(slider.value), ...(state.layer === "sram" || state.layer === "cycles" || state.layer === "ops" ? { layer: "busy" } : {}) }); });
  number.addEventListener("change", () => change({ at: Math.max(0, Math.min(page.plan.cycles, Math.round(Number(number.value) || 0))) }));
  byId("time-in").addEventListener("click", () => zoom(0.5));
  byId("time-out").addEventListener("click", () => zoom(2));
  byId("time-fit").addEventListener("click", () => { fit(); draw(); });

  function zoom(factor, around = state.at) {
    const whole = page.plan.cycles, span = Math.min(whole, Math.max(20, (view.until - view.from) * factor));
    const share = Math.min(1, Math.max(0, (around - view.from) / (view.until - view.from)));
    view.from = Math.max(0, Math.min(whole - span, around - share * span));
    view.until = view.from + span;
    draw();
  }

  const stepUnder = (e) => {
    const r = canvas.getBoundingClientRect(), y = e.clientY - r.top, x = e.clientX - r.left, high = laneHeight();
    const hit = lanes.filter(({ step, lane }) => Math.floor((y - 4) / high) === lane && px(step.first) - 2 <= x && x <= Math.max(px(step.last), px(step.first) + 2) + 1);
    return { step: hit[0]?.step, cycle: cycleAt(x) };
  };
  canvas.addEventListener("click", (e) => {
    const { step, cycle } = stepUnder(e);
    change({ at: cycle });
    if (step) select({ kind: "step", step: step.number });
  });
  canvas.addEventListener("pointermove", (e) => {
    const { step, cycle } = stepUnder(e);
    canvas.title = step ? `step ${step.number}: ${step.name}\n${step.op}, cycles ${whole(step.first)} to ${whole(step.last)}` : `cycle ${whole(cycle)}`;
  });
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    zoom(Math.exp(e.deltaY * 0.0015), cycleAt(e.clientX - canvas.getBoundingClientRect().left));
  }, { passive: false });

  const arrange = () => { lanes = lanesOf(page.plan); fit(); tellLength(); tell(); draw(); };
  subscribe((changed) => {
    if (changed.has("entry")) { stop(); arrange(); }
    if (changed.has("at")) tell();
    if (["at", "selection", "theme"].some((k) => changed.has(k))) draw();
  });
  new ResizeObserver(() => { measure(); draw(); }).observe(canvas);
  measure();
  arrange();
  return { draw, toggle, stop };
}

// Each step's lane: bars of one lane follow one another.
function lanesOf(plan) {
  const free = [], out = [];
  for (const step of plan.steps.filter((s) => s.kind !== "input").sort((a, b) => a.first - b.first)) {
    let lane = free.findIndex((end) => end <= step.first);
    if (lane < 0) lane = free.length;
    free[lane] = Math.max(step.last, step.first + 1);
    out.push({ step, lane });
  }
  out.count = free.length;
  return out;
}

// The numbers of the steps that a selection is about, null where it is about none in particular.
function chosenSteps(page) {
  const s = state.selection, { plan } = page;
  if (!s) return null;
  if (s.kind === "step" || s.kind === "route") return new Set([s.step]);
  if (s.kind === "node") return new Set(plan.nodes.get(s.name).map((t) => t.number));
  if (s.kind === "tensor") return new Set(plan.steps.filter((t) => t.tensor === s.name || t.operands.some((o) => o.tensor === s.name)).map((t) => t.number));
  if (s.kind === "region") return new Set(plan.steps.filter((t) => t.region === s.region).map((t) => t.number));
  if (s.kind === "core") return page.ready ? new Set(plan.running(plan.numberOf(s.x, s.y)).map((t) => t.step.number)) : null;
  return null;
}

// The next (1) or previous (-1) cycle at which a step begins.
function nextEvent(plan, at, way) {
  const starts = plan.steps.map((s) => s.first).sort((a, b) => a - b);
  return way > 0 ? starts.find((v) => v > at) ?? plan.cycles : starts.reverse().find((v) => v < at) ?? 0;
}
