// The inspectors of a step, a node, a tensor and a region.

function placeText(plan, thing) {
  const [x, y, w, h] = plan.boxOf(thing.region, thing.grid), [columns, rows, , , dx, dy] = thing.grid;
  return `x ${x}${w > 1 ? `-${x + w - 1}` : ""}, y ${y}${h > 1 ? `-${y + h - 1}` : ""}: ${columns} x ${rows}${dx > 1 || dy > 1 ? `, every ${dx}, ${dy}` : ""}`;
}

// Cycles of the task that ended last, as a bar of three parts.
function partsBar(leg) {
  const all = Math.max(1, leg.fabric + leg.waiting + leg.compute);
  return el("div", { className: "parts", role: "img", "aria-label": `fabric ${whole(leg.fabric)}, waiting ${whole(leg.waiting)}, compute ${whole(leg.compute)} cycles` },
    ["fabric", "waiting", "compute"].map((k) => { const d = el("span", { className: k, title: `${k} ${whole(leg[k])} cycles` }); d.style.width = `${(leg[k] / all) * 100}%`; return d; }));
}

function stepFacts(page, { step: number }) {
  const { plan } = page, s = plan.steps[number], leg = s.leg, buffer = plan.buffers[s.result];
  const blocked = leg.waiting > 0 ? plan.busyUntil(plan.numberOf(...leg.core), leg.end - leg.compute, number) : null;
  const onPath = plan.path.findIndex((l) => l.step === number);
  const rate = s.macs ? s.macs / Math.max(1, s.cores * Math.max(1, leg.compute)) : 0;
  return [
    factsOf([
      ["operation", `${s.op}${s.kind === "join" ? ", a reduction in the fabric" : ""}`],
      ["nodes", s.nodes.length ? s.nodes.flatMap((n, i) => [i ? el("br") : "", nodeLink(n)]) : ""],
      ["layer", plan.parts[s.part]],
      ["cores", `${whole(s.cores)}, ${placeText(plan, s)}, region ${s.region}`],
      ["split", s.split],
      ["tiles", s.tiles ? `${whole(s.tiles)} a call` : ""],
      ["cycles", el("span", {}, cycleLink(s.first), ` to ${whole(s.last)}`)],
      ["wavefront", `${s.wavefront}${s.rides >= 0 ? ", part of the task of step " : ""}`],
      ["rides on", s.rides >= 0 ? stepLink(plan, s.rides) : ""],
      ["bytes", `${whole(s.bytes)} on one core`],
      ["products", s.macs ? `${whole(s.macs)} multiply-adds: ${rate.toFixed(2)} a cycle and core, ${percent(rate / s.rate)} of its peak of ${s.rate}` : ""],
      ["critical path", onPath >= 0 ? `leg ${onPath + 1} of ${plan.path.length}` : "not on it"],
    ]),
    s.kind === "input" ? null : el("section", {}, el("h3", {}, "The task that ends last"), partsBar(leg),
      factsOf([
        ["on core", [coreLink(...leg.core), ` at cycle ${whole(leg.end)}`]],
        ["fabric", `${whole(leg.fabric)} cycles until the last operand was there`],
        ["sent by", leg.after >= 0 ? stepLink(plan, leg.after) : "no step"],
        ["waiting", `${whole(leg.waiting)} cycles for the core`],
        ["kept by", blocked ? stepLink(plan, blocked.number) : ""],
        ["compute", `${whole(leg.compute)} cycles`],
        ["expected error", s.expected ? `${s.expected}; of the cost model's cycles, on wse3` : ""],
      ])),
    el("h3", {}, "Axes"), tableOf(["axis", "size", "of a tile"], s.axes.map(([a, n, t]) => [a, n, t])),
    ...consideredFacts(plan, s),
    ...operandFacts(plan, s),
    el("h3", {}, "Result"),
    factsOf([["tensor", tensorLink(s.tensor)], ["on a core", `${buffer.type} [${buffer.shape.join(", ")}], ${whole(buffer.bytes)} bytes at ${whole(buffer.address)}`],
      ["read by", plan.readers[number].length ? plan.readers[number].flatMap((r, i) => [i ? el("br") : "", stepLink(plan, r)]) : "no step"]]),
  ];
}

// The splits that the planner weighs for the step, the cheapest first.
function consideredFacts(plan, s) {
  if (s.considered < 0) return [];
  const rows = plan.considered[s.considered];
  return [el("h3", {}, "Splits that were weighed"), tableOf(["split", "grid", "cycles", "beside"], rows,
    { caption: "estimates with operands where they lie; what each leaves to later steps, which is weighed too, apart", current: (row) => row[3].startsWith("chosen") })];
}

function operandFacts(plan, s) {
  const rows = [];
  const add = (tensor, writer, buffer, route, received) => rows.push([tensorLink(tensor, 24), writer >= 0 ? stepLink(plan, writer, 18) : buffer.role, route, received, buffer.bytes]);
  for (const o of s.operands) if (!o.moves.length) add(o.tensor, o.writer, plan.buffers[o.buffer], "in place", 0);
  for (const m of s.received) add(m.tensor, m.writer, plan.buffers[m.source], moveLink(plan, m), m.received);
  return rows.length ? [el("h3", {}, "Operands"), tableOf(["tensor", "from", "route", "received", "bytes"], rows, { caption: "received: by all cores together; bytes: held by one core of the source" })] : [];
}

function nodeFacts(page, { name }) {
  const { plan } = page, steps = plan.nodes.get(name), sum = (k) => plan.path.filter((l) => steps.some((s) => s.number === l.step)).reduce((n, l) => n + l[k], 0);
  const legs = plan.path.filter((l) => steps.some((s) => s.number === l.step));
  return [
    factsOf([
      ["layer", plan.parts[steps[0].part]],
      ["cycles", el("span", {}, cycleLink(Math.min(...steps.map((s) => s.first))), ` to ${whole(Math.max(...steps.map((s) => s.last)))}`)],
      ["critical path", legs.length ? `${whole(sum("fabric") + sum("waiting") + sum("compute"))} cycles: fabric ${whole(sum("fabric"))}, waiting ${whole(sum("waiting"))}, compute ${whole(sum("compute"))}` : "not on it"],
    ]),
    el("h3", {}, "Its steps"),
    tableOf(["step", "op", "cores", "place", "start", "end"], steps.map((s) => [linkTo({ kind: "step", step: s.number }, String(s.number)), s.kind === "join" ? `${s.op} (join)` : s.op, s.cores, placeText(plan, s), cycleLink(s.first), s.last])),
    el("h3", {}, "Writes"), el("p", {}, [...new Set(steps.map((s) => s.tensor))].flatMap((t, i) => [i ? el("br") : "", tensorLink(t)])),
    el("h3", {}, "Computed together with"), el("p", {}, [...new Set(steps.flatMap((s) => s.nodes))].filter((n) => n !== name).flatMap((n, i) => [i ? el("br") : "", nodeLink(n)]).concat(steps.some((s) => s.nodes.length > 1) ? [] : "no other node")),
  ];
}

function tensorFacts(page, { name }) {
  const { plan } = page, buffers = plan.tensors.get(name), writes = plan.steps.filter((s) => s.tensor === name && s.kind !== "update"), reads = plan.steps.filter((s) => s.operands.some((o) => o.tensor === name));
  const partial = writes.find((s) => s.split.includes("partial sums"));
  const rows = buffers.map((b) => {
    const boxes = plan.boxes(b), cores = b.grid[0] * b.grid[1];
    return [b.role, cores, b.layout ? boxes.count : "", b.layout && boxes.count ? (cores / boxes.count).toFixed(cores % boxes.count ? 1 : 0) : "", b.bytes, b.address, `${b.type} [${b.shape.join(", ")}]`, b.always ? "always" : `${b.live[0]}-${b.live[1]}`, placeText(plan, b)];
  });
  return [
    factsOf([
      ["written by", writes.length ? writes.flatMap((s, i) => [i ? el("br") : "", stepLink(plan, s.number)]) : "the host, once"],
      ["read by", reads.length ? reads.flatMap((s, i) => [i ? el("br") : "", stepLink(plan, s.number)]) : "no step"],
      ["partial sums", partial ? partial.split.slice(partial.split.indexOf("partial sums")) : ""],
    ]),
    el("h3", {}, "Held by"),
    rows.length ? tableOf(["role", "cores", "boxes", "replicas", "bytes", "address", "tile", "live in steps", "place"], rows, { caption: "boxes: different ones; replicas: cores that hold the same; bytes: of one core" }) : el("p", {}, "no core: it is read where its parts lie"),
    el("p", { className: "hint" }, "On the grid equal colours are equal boxes; the pointer or the arrow keys tell each core's."),
    ...heldTable(plan, buffers),
  ];
}

// Which box the first cores hold, in rows.
function heldTable(plan, buffers) {
  const b = buffers.find((v) => v.layout && v.role !== "receive") ?? buffers.find((v) => v.layout);
  if (!b) return [];
  const rows = [], [columns, all] = [b.grid[0], b.grid[0] * b.grid[1]];
  for (let i = 0; i < all && rows.length < 24; i++) {
    const at = [i % columns, Math.floor(i / columns)];
    rows.push([coreLink(...plan.xy(plan.core(b.region, b.grid, ...at))), boxText(plan.held(b, ...at))]);
  }
  return [el("h3", {}, "Boxes"), tableOf(["core", "elements of the tensor"], rows, { caption: all > rows.length ? `the first ${rows.length} of ${whole(all)} cores` : "" })];
}

function regionFacts(page, { region }) {
  const { plan } = page, r = plan.regions[region], steps = plan.steps.filter((s) => s.region === region);
  return [
    factsOf([["place", `${r.columns} x ${r.rows} cores at (${r.box[0]}, ${r.box[1]})${r.box[2] > r.columns ? `, ${r.box[2] - r.columns} spare columns` : ""}`], ["code", `${whole(r.code)} bytes on each core`], ["steps", whole(steps.length)]]),
    tableOf(["step", "op", "cores", "start", "end"], steps, { row: (s) => [stepLink(plan, s.number), s.op, s.cores, s.first, s.last] }),
  ];
}
