// The inspector of a core: its memory over the call, what it runs, what comes from where, its router.

function coreFacts(page, { x, y }) {
  const { plan, dead } = page, core = plan.numberOf(x, y);
  if (dead.has(core)) return [factsOf([["state", "dead: it holds and runs nothing; its router forwards"]]), routerFacts(plan, x, y)];
  const running = plan.running(core).sort((a, b) => a.start - b.start || a.step.number - b.step.number), code = plan.codeAt(core);
  const buffers = plan.buffersAt(core), sram = plan.at(plan.sram, x, y), tasks = running.filter((t) => t.step.kind !== "input");
  if (!sram) return [factsOf([["state", "unused"]]), routerFacts(plan, x, y)];
  const use = useOf(plan, core, running), peak = peakOf(use);
  const regions = plan.regions.flatMap((r, i) => (plan.inRegion(i, core) ? [linkTo({ kind: "region", region: i }, `${i}: ${brief(r.name, 30)}`)] : []));
  return [
    factsOf([
      ["region", regions.length ? regions : "none"],
      ["highest byte", `${whole(sram)} of ${whole(plan.wafer.sram)} (${percent(sram / plan.wafer.sram)})`],
      ["most live", peak ? el("span", {}, `${whole(peak.bytes)} bytes, from cycle `, cycleLink(peak.start), ", ", stepLink(plan, peak.step.number, 24)) : ""],
      ["code", `${whole(code)} bytes`],
      ["computes", `${whole(plan.at(plan.busy, x, y))} of ${whole(plan.cycles)} cycles, ${plural(tasks.length, "step")}`],
      ["state", tasks.length ? "" : "runs no step"],
    ]),
    el("h3", {}, "Memory over the call"), memoryMap(page, core, livesOf(plan, core, running), use, code),
    el("h3", {}, "Runs"),
    running.length ? tableOf(["step", "op", "start", "end"], running, {
      row: (t) => [stepLink(plan, t.step.number, 30), t.step.kind === "input" ? "input" : t.step.op, cycleLink(t.start), t.end],
      caption: "in order of start, in cycles", clocked: true, current: (t) => t.start <= state.at && state.at < t.end,
    }) : el("p", {}, "nothing"),
    arrivalFacts(plan, running, x, y),
    el("h3", {}, "Holds"),
    tableOf(["address", "bytes", "role", "tensor", "box", "live in steps"], [null, ...buffers], {
      row: (held) => {
        if (held === null) return [0, code, "code", "kernels", "", "always"];
        const { buffer: b, column, row } = held, box = plan.held(b, column, row);
        return [b.address, b.bytes, b.role, tensorLink(b.name, 26), box ? boxText(box) : "", b.always ? "always" : `${b.live[0]}-${b.live[1]}`];
      }, caption: "by address",
    }),
    routerFacts(plan, x, y),
  ];
}

// What arrives for the step at the clock's cycle, or the next: made anew when the clock rests on another one.
function arrivalFacts(plan, running, x, y) {
  const out = el("section", {}), own = plan.numberOf(x, y);
  let shown = null;
  followClock(() => {
    const task = currentTask(running);
    if (!task || task === shown) return;
    shown = task;
    const all = arrivals(plan, task);
    out.replaceChildren(el("h3", {}, `Arrives for step ${task.step.number}`),
      all.length ? tableOf(["from", "bytes", "route", "tensor"], all, {
        row: ({ move, source, bytes }) => {
          const [sx, sy] = plan.xy(source), from = { kind: "route", step: move.step, move: move.k, source: [sx, sy] };
          return [source === own ? "itself" : coreLink(sx, sy), Math.round(bytes), linkTo(from, move.route), tensorLink(move.tensor, 22)];
        }, caption: "the step at the clock's cycle, or the next; the largest first",
      }) : el("p", {}, "nothing: all operands lie here"));
  }, "resting");
  return out;
}

function routerFacts(plan, x, y) {
  const links = DIRECTIONS.map((d, i) => [d, plan.at(plan.links[i], x, y)]);
  const { count, kept, trees } = coloursAt(plan, x, y);
  return el("section", {}, el("h3", {}, "Router"),
    tableOf(["link", "bytes a call"], links.map(([d, bytes]) => [linkTo({ kind: "link", x, y, direction: d }, d), bytes])),
    factsOf([
      ["colours", `${count} of ${plan.wafer.colours}: ${kept}${trees.length ? `, ${trees.length} for trees` : ""}`],
      ...trees.map(({ colour, moves }) => [`colour ${colour}`, moves.slice(0, 6).flatMap((m, i) => [i ? ", " : "", moveLink(plan, m, `tree to step ${m.step}`)]).concat(moves.length > 6 ? ` and ${moves.length - 6} more` : "")]),
    ]));
}

// Buffers as bars, addresses upward, cycles to the right; the clock as a line, the budget as the upper edge.
function memoryMap(page, core, lives, use, code) {
  const { plan } = page, W = 320, H = 190, top = Math.max(plan.wafer.sram, ...lives.map((l) => l.buffer.address + l.buffer.bytes));
  const px = (cycle) => (cycle / Math.max(1, plan.cycles)) * W, py = (address) => H - (address / top) * H;
  const bar = (from, until, address, bytes, kind, text, selection) => {
    const h = Math.max(0.6, (bytes / top) * H), w = Math.max(1.2, px(until) - px(from));
    return el("svg:rect", { x: Math.min(px(from), W - 1.2), y: py(address + bytes), width: w, height: h, class: `bar ${kind}${h < 2 ? " thin" : ""}`, ...(selection ? { click: () => select(selection) } : {}) }, el("svg:title", {}, text));
  };
  const bars = lives.filter((l) => l.buffer.over < 0 || l.buffer.bytes).map(({ buffer: b, from, until }) =>
    bar(from, until, b.address, b.bytes, b.role, `${b.name}\n${b.role}, ${whole(b.bytes)} bytes at ${whole(b.address)}\n${b.always ? "always" : `steps ${b.live[0]} to ${b.live[1]}, cycles ${whole(from)} to ${whole(until)}`}`, { kind: "tensor", name: b.name }));
  const curve = use.map((u, i) => `${i ? `H ${px(u.start).toFixed(1)} V` : `M ${px(u.start).toFixed(1)}`} ${py(u.bytes).toFixed(1)}`).join(" ") + (use.length ? ` H ${W}` : "");
  const peak = peakOf(use);
  const svg = el("svg:svg", { viewBox: `0 0 ${W} ${H}`, class: "memory", role: "img", "aria-label": `memory map: ${plural(lives.length, "buffer")}, at most ${peak ? whole(peak.bytes) : 0} bytes live of ${whole(plan.wafer.sram)}` },
    bar(0, plan.cycles, 0, code, "code", `code, ${whole(code)} bytes`), bars,
    el("svg:path", { d: curve, class: "use" }),
    el("svg:line", { x1: 0, x2: W, y1: py(plan.wafer.sram), y2: py(plan.wafer.sram), class: "budget" }),
    peak && el("svg:circle", { cx: px(peak.start), cy: py(peak.bytes), r: 3, class: "peak" }, el("svg:title", {}, `peak: ${whole(peak.bytes)} bytes live from cycle ${whole(peak.start)}`)),
    nowLine(px, H));
  const roles = ["code", ...new Set(lives.map((l) => l.buffer.role))];
  return el("figure", {}, svg, el("figcaption", {}, `0 to ${whole(top)} bytes upward, 0 to ${whole(plan.cycles)} cycles to the right; the line: bytes live. `,
    roles.map((r) => el("span", { className: "key" }, el("span", { className: `swatch role-${r}` }), r, " "))));
}

// The clock's cycle in a picture over the call.
function nowLine(px, height) {
  const line = el("svg:line", { y1: 0, y2: height, class: "now" });
  followClock(() => { for (const end of ["x1", "x2"]) line.setAttribute(end, px(state.at)); });
  return line;
}
