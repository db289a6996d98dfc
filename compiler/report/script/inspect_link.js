// The inspectors of a link and of a route.

function linkFacts(page, { x, y, direction }) {
  const { plan } = page, bytes = plan.at(plan.links[DIRECTIONS.indexOf(direction)], x, y), [dx, dy] = TOWARDS[direction];
  const wavelets = Math.ceil(bytes / plan.wafer.wavelet_bytes), taken = wavelets * plan.wafer.wavelet;
  const dead = plan.wafer.dead_links.some(([a, b, d]) => a === x && b === y && d === direction);
  const moves = movesOn(plan, x, y, direction).sort((a, b) => a.from - b.from);
  return [
    factsOf([
      ["from, to", [coreLink(x, y), " to ", coreLink(x + dx, y + dy)]],
      ["state", dead ? "dead" : ""],
      ["carries", `${whole(bytes)} bytes a call, ${whole(wavelets)} wavelets`],
      ["is busy", `${whole(taken)} of ${whole(plan.cycles)} cycles (${percent(taken / Math.max(1, plan.cycles))})`],
      ["fullest", plan.fullest_link.at ? linkTo({ kind: "link", x: plan.fullest_link.at[0], y: plan.fullest_link.at[1], direction: plan.fullest_link.at[2] }, `${whole(plan.fullest_link.bytes)} bytes at (${plan.fullest_link.at[0]}, ${plan.fullest_link.at[1]}) ${plan.fullest_link.at[2]}`) : ""],
    ]),
    el("h3", {}, "Load over the call"), loadChart(page, moves),
    el("h3", {}, `Routes over it: ${moves.length}`),
    moves.length ? tableOf(["route", "to step", "bytes", "from cycle", "until", "busy"], moves, {
      row: ({ move, bytes: n, from, until }) => [moveLink(plan, move), stepLink(plan, move.step, 30), n, cycleLink(from), until, percent(busyShare(plan, n, from, until))],
      caption: "from the end of the first task that sends until the last start that waits", clocked: true, current: (m) => m.from <= state.at && state.at < m.until,
    }) : el("p", {}, "none"),
    coloursLine(plan, x, y),
  ];
}

function coloursLine(plan, x, y) {
  const { count, kept, trees } = coloursAt(plan, x, y);
  return factsOf([["router's colours", `${count} of ${plan.wafer.colours} in use: ${kept}${trees.length ? `, ${trees.length} for trees` : ""}`]]);
}

function busyShare(plan, bytes, from, until) {
  return Math.min(1, (Math.ceil(bytes / plan.wafer.wavelet_bytes) * plan.wafer.wavelet) / Math.max(1, until - from));
}

// How much of its capacity the link uses on average, from cycle to cycle: moves that are under way at once add up.
function loadChart(page, moves) {
  const { plan } = page, W = 320, H = 80, px = (v) => (v / Math.max(1, plan.cycles)) * W;
  const edges = [...new Set(moves.flatMap((m) => [m.from, m.until]))].sort((a, b) => a - b);
  const rate = (cycle) => moves.reduce((sum, m) => sum + (m.from <= cycle && cycle < Math.max(m.until, m.from + 1) ? busyShare(plan, m.bytes, m.from, m.until) : 0), 0);
  const loads = edges.map(rate), top = Math.max(1, ...loads);
  const bars = edges.map((from, i) => {
    const until = edges[i + 1] ?? plan.cycles, h = (loads[i] / top) * H;
    return loads[i] ? el("svg:rect", { x: px(from), y: H - h, width: Math.max(0.8, px(until) - px(from)), height: h, class: "load" }, el("svg:title", {}, `cycles ${whole(from)} to ${whole(until)}: ${percent(loads[i])} of its capacity`)) : null;
  });
  const most = loads.reduce((b, v, i) => (v > loads[b] ? i : b), 0);
  return el("figure", {}, el("svg:svg", { viewBox: `0 0 ${W} ${H}`, class: "chart", role: "img", "aria-label": `load over the call, at most ${percent(loads[most] ?? 0)} of the link's capacity` },
    bars.filter(Boolean), el("svg:line", { x1: 0, x2: W, y1: H - H / top, y2: H - H / top, class: "budget" }), nowLine(px, H)),
  el("figcaption", {}, edges.length ? ["most asked of it: ", percent(loads[most]), " of its capacity, from cycle ", cycleLink(edges[most]), "; moves that are under way at once add up"] : "carries nothing"));
}

function routeFacts(page, { step, move: k, source }) {
  const { plan } = page, move = plan.steps[step].received[k], by = plan.steps[move.by], buffer = plan.buffers[move.source];
  const { x, y } = sidesOf(plan, move), senders = x.lo.filter((v, i) => v <= x.hi[i]).length * y.lo.filter((v, i) => v <= y.hi[i]).length;
  const kinds = { tree: "multicast trees: along the row, then along the columns, copied by the routers", relay: "on the shared lanes: tasks relay at the stops", join: "a reduction in the fabric, merged on the way", local: "within each core, over no link" };
  const facts = factsOf([
    ["tensor", tensorLink(move.tensor)],
    ["from", move.writer >= 0 ? stepLink(plan, move.writer) : stepLink(plan, move.by)],
    ["to", stepLink(plan, step)],
    ["route", `${move.route}: ${kinds[move.route] ?? ""}`],
    ["combines", move.combine],
    ["sent", `${whole(move.sent)} bytes from each of ${plural(senders, "core")}`],
    ["received", `${whole(move.received)} bytes by all cores of the step together`],
    ["type", buffer.type],
    ["colours", move.route === "tree" ? treeColours(plan, move) : move.route === "local" ? "none" : move.route === "join" ? "a reduction's" : `the lanes', 0 to ${plan.kept.lanes - 1}`],
    ["detours", move.detours.length ? plural(move.detours.length, "record") + " around dead links" : ""],
  ]);
  return [facts, ...(source ? targetFacts(plan, move, source) : sourceFacts(plan, move, by, senders))];
}

function treeColours(plan, move) {
  const all = new Set();
  for (const a of plan.tables.get(move.colour_x)) for (const b of plan.tables.get(move.colour_y)) all.add(a + b);
  return [...all].sort((a, b) => a - b).join(", ");
}

function sourceFacts(plan, move, by, senders) {
  const { x, y } = sidesOf(plan, move), rows = [];
  for (let j = 0; j < y.at.length && rows.length < 40; j++) {
    for (let i = 0; i < x.at.length && rows.length < 40; i++) {
      if (x.lo[i] > x.hi[i] || y.lo[j] > y.hi[j]) continue;
      const [cx, cy] = plan.xy(plan.core(by.region, by.grid, i, j));
      rows.push([linkTo({ kind: "route", step: move.step, move: move.k, source: [cx, cy] }, `(${cx}, ${cy})`), cycleLink(plan.endAt(by, i, j))]);
    }
  }
  return [el("h3", {}, "Sent by"), tableOf(["core", "sends from cycle"], rows, { caption: senders > rows.length ? `the first ${rows.length} of ${whole(senders)}` : "" })];
}

function targetFacts(plan, move, source) {
  const from = plan.numberOf(...source), targets = targetsOf(plan, move, from);
  const row = ({ core, bytes }) => {
    const corners = pathOf(plan, move, from, core), hops = hopsOf(corners);
    return [coreLink(...plan.xy(core)), Math.round(bytes), hops, Math.max(0, corners.length - 2), relaysOf(plan, move, corners).length];
  };
  const away = targets.filter((t) => t.core !== from);
  return [
    factsOf([["from core", coreLink(...source)], ["goes to", `${plural(targets.length, "core")}${targets.length >= MOST_TARGETS ? " or more" : ""}, ${whole(away.reduce((n, t) => n + t.bytes, 0))} bytes over links`],
      ["all sources", moveLink(plan, move, "show the whole move")]]),
    el("h3", {}, "Goes to"), tableOf(["core", "bytes", "hops", "turns", "relays"], targets, { row }),
  ];
}
