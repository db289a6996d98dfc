// The layer of the clock: what computes, receives and rests at its cycle. The image is kept, and a move of the clock
// paints the boxes of the steps for which it changes something.

class BusyImage {
  constructor(page) {
    const { plan } = page;
    Object.assign(this, blank(plan), { page, plan, colour: theme.unused });
    this.idle = packed(rgb(theme.unused));
    this.waits = packed(rgb(theme.way));
    this.rest = Uint32Array.from(page.tables.get(plan.sram), (v) => (v ? this.idle : 0)); // what no running step paints over
    this.pixels.set(this.rest);
    this.ahead = new Set(); // steps that no core has begun, with their data on its way
    this.awaited = new Uint16Array(this.rest.length); // of how many of them each core has a task
    this.waiting = 0; // cores that have some
    this.lit = []; // boxes of the steps that are painted over the rest
    this.fresh = true; // whether nothing was put yet
  }

  // Paints a cycle: {running: [step, cores that compute], computing, waiting, changed: the box of what may differ}.
  paint(at) {
    const { plan, page } = this, ahead = new Set(), begun = [];
    for (const step of plan.steps) {
      if (step.kind === "input" || at >= step.last || at < receivesFrom(plan, step)) continue;
      if (at >= step.first) begun.push(step);
      else if (step.received.length) ahead.add(step);
    }
    const lit = begun.map((s) => plan.boxOf(s.region, s.grid)), stale = [...this.lit, ...lit];
    for (const step of this.ahead) if (!ahead.has(step)) stale.push(this.await(step, -1));
    for (const step of ahead) if (!this.ahead.has(step)) stale.push(this.await(step, 1));
    this.ahead = ahead;
    this.lit = lit;
    for (const box of stale) this.restore(box);
    let computing = 0, { waiting } = this;
    const running = [];
    for (const step of begun) {
      const [here, more] = this.paintStep(step, at, packed(rgb(page.kinds.get(step.op))));
      computing += here;
      waiting += more;
      if (here) running.push([step, here]);
    }
    const changed = this.fresh ? plan.box : around(stale);
    this.fresh = false;
    if (changed) this.put([changed[0] - plan.box[0], changed[1] - plan.box[1], changed[2], changed[3]]);
    return { running, computing, waiting, changed };
  }

  // A step begins (1) or ceases (-1) to be ahead. Returns its box.
  await(step, by) {
    const { awaited, rest, waits, idle } = this, none = by > 0 ? 0 : 1, colour = by > 0 ? waits : idle;
    this.plan.eachRun(step, (first, n) => {
      for (let i = first; i < first + n; i++) {
        if (awaited[i] === none) { rest[i] = colour; this.waiting += by; }
        awaited[i] += by;
      }
    });
    return this.plan.boxOf(step.region, step.grid);
  }

  restore([x, y, w, h]) {
    const [x0, y0, width] = this.plan.box;
    for (let i = (y - y0) * width + x - x0, rows = h; rows; rows--, i += width) this.pixels.set(this.rest.subarray(i, i + w), i);
  }

  // The cores of a step that has begun: [those that compute, how many more wait than before].
  paintStep(step, at, colour) {
    const { pixels, idle, waits, plan } = this, now = at - step.base, hears = step.received.length > 0;
    const start = plan.tables.get(step.start), long = plan.tables.get(step.long);
    let computing = 0, waiting = 0;
    plan.eachRun(step, (pixel, n, first) => {
      for (let i = first, p = pixel; i < first + n; i++, p++) {
        if (start[i] > now) {
          if (hears && pixels[p] === idle) { pixels[p] = waits; waiting++; }
        } else if (now < start[i] + long[i]) {
          if (pixels[p] === waits) waiting--;
          pixels[p] = colour;
          computing++;
        }
      }
    });
    return [computing, waiting];
  }
}

function paintBusy(page, plan) {
  if (page.busyImage?.plan !== plan || page.busyImage.colour !== theme.unused) page.busyImage = new BusyImage(page);
  const { canvas } = page.busyImage, { running, computing, waiting, changed } = page.busyImage.paint(state.at);
  return {
    canvas, title: `Busy at cycle ${whole(state.at)}`, running, changed,
    key: `busy ${plan.number} ${theme.page}`, lit: new Set(running.map(([s]) => page.kinds.get(s.op))),
    swatches: [...kindSwatches(page.kinds), [theme.way, "data on its way here"], [theme.unused, "at rest"]],
    note: `${plural(computing, "core")} compute, ${whole(waiting)} wait for data on its way`,
    value: (x, y) => taskAt(plan, x, y),
  };
}

// A swatch for each colour: [colour, the operation or how many others share it, the colour to mark it by].
function kindSwatches(kinds) {
  const others = [...kinds].filter(([, colour]) => colour === OTHER_KINDS).map(([op]) => op);
  const own = [...kinds].filter(([, colour]) => colour !== OTHER_KINDS).map(([op, colour]) => [colour, op, colour]);
  return others.length ? [...own, [OTHER_KINDS, others.length > 3 ? `${others.length} others` : others.join(", "), OTHER_KINDS]] : own;
}

// The cycle from which all of a step's data may be on its way: when each step that writes some, for it to be sent or
// read where it lies, has ended a task.
function receivesFrom(plan, step) {
  if (step.from === undefined) {
    const sent = step.received.filter((m) => m.route !== "local"), lying = step.operands.filter((o) => !o.moves.length);
    const ready = [...sent, ...lying].filter((o) => o.writer >= 0).map((o) => plan.steps[o.writer].done);
    step.from = sent.length && ready.length ? Math.min(step.first, Math.max(...ready)) : step.first;
  }
  return step.from;
}

function taskAt(plan, x, y) {
  const found = plan.running(plan.numberOf(x, y)).find((t) => t.step.kind !== "input" && t.start <= state.at && state.at < t.end);
  return found ? `${found.step.op}: ${brief(found.step.name)}` : "computes nothing now";
}
