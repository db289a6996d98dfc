// The inspector where nothing is selected: totals, where the cycles go, limits of the machine, provenance.

function summaryFacts(page) {
  const { plan } = page, f = plan.fullest, link = plan.fullest_link, total = plan.path_parts[plan.path_parts.length - 1];
  return [
    factsOf([...page.notes, ...plan.summary.map(([k, v]) => [k, k === "fullest core" ? linkTo({ kind: "core", x: f.core[0], y: f.core[1] }, v) : k === "fullest link" && link.at ? linkTo({ kind: "link", x: link.at[0], y: link.at[1], direction: link.at[2] }, v) : v])]),
    computingFacts(page),
    el("h3", {}, "Where the cycles go"), partsBar(total),
    tableOf(["part", "cycles", "fabric", "waiting", "compute"], plan.path_parts.map((p) => [p.part, p.cycles, p.fabric, p.waiting, p.compute]), { caption: "along the critical path; fabric: until the last operand is there; waiting: the core is busy" }),
    ...adviceFacts(plan),
    ...attemptFacts(plan),
    el("h3", {}, "The critical path, leg by leg"),
    legNow(plan),
    tableOf(["leg", "step", "core", "end", "fabric", "waiting", "compute"], [...plan.path.keys()], {
      row: (i) => { const l = plan.path[i]; return [i + 1, stepLink(plan, l.step, 26), coreLink(...l.core), cycleLink(l.end), l.fabric, l.waiting, l.compute]; },
      clocked: true, current: (i) => i === plan.legAt(state.at),
    }),
    el("h3", {}, "Against the machine's limits"),
    el("div", { className: "limits" }, plan.limits.map((l) => el("div", {}, el("div", {}, el("b", {}, l.name), " ", percent(l.share)), meter(l), el("div", { className: "hint" }, l.text)))),
    el("h3", {}, "Regions"), tableOf(["region", "cores", "place"], plan.regions.map((r, i) => [linkTo({ kind: "region", region: i }, `${i}: ${brief(r.name, 24)}`), r.columns * r.rows, `${r.columns} x ${r.rows} at ${r.box[0]}, ${r.box[1]}`])),
    ...provenance(page),
  ];
}

// What bounds the plan, and what to ask for instead; nothing where nothing helps.
function adviceFacts(plan) {
  if (!plan.advice) return [];
  const { bounds, remedies } = plan.advice;
  return [
    bounds.length ? [el("h3", {}, "Bound by"), tableOf(["part", "kind", "cycles", "share", "most in step"], bounds.map((b) => [b.part, b.kind, b.cycles, percent(b.share), stepLink(plan, b.step, 24)]))] : null,
    remedies.length ? [el("h3", {}, "To try"), factsOf(remedies.map((r) => [r.ask, `${r.why}: ${r.how_sure} ${r.unit === "cycles" ? `${whole(r.gain)} cycles less (${percent(r.share)})` : `${whole(r.gain)} more ${r.unit}`}`]))] : null,
  ];
}

// What the planner tried, and what came of it: the plan that is shown is the last best one.
function attemptFacts(plan) {
  if (!plan.attempts.length) return [];
  const last = plan.attempts.findLast((a) => a[2].includes("the best so far"));
  return [el("h3", {}, "Plans that were tried"), tableOf(["way", "on", "came to"], plan.attempts, { current: (a) => a === last })];
}

// The steps that compute at the clock's cycle, once that rests.
function computingFacts(page) {
  const { plan } = page, out = el("section", {});
  followClock(() => {
    const running = state.layer === "busy" && page.ready ? page.stage.layer?.running ?? [] : [];
    if (!running.length && !out.firstChild) return;
    out.replaceChildren(...(running.length ? [el("h3", {}, `Computing at cycle ${whole(state.at)}`),
      tableOf(["step", "op", "cores"], running, { row: ([s, n]) => [stepLink(plan, s.number), s.op, n] })] : []));
  }, "resting");
  return out;
}

// The leg that is under way at the clock's cycle.
function legNow(plan) {
  const out = el("p", { className: "hint" });
  let shown = -1;
  followClock(() => {
    const now = plan.legAt(state.at);
    if (now === shown || !plan.path.length) return;
    shown = now;
    out.replaceChildren(`at the clock's cycle: leg ${now + 1} of ${plan.path.length}, `, stepLink(plan, plan.path[now].step, 26));
  }, "resting");
  return out;
}

function meter(limit) {
  const inner = el("span"), share = Math.min(1, limit.share);
  inner.style.width = `${share * 100}%`;
  return el("div", { className: `meter${limit.share > 1 ? " over" : ""}`, role: "img", "aria-label": `${limit.name}: ${percent(limit.share)}` }, inner);
}

function provenance(page) {
  return [el("h3", {}, "Made"), factsOf(page.provenance),
    el("details", {}, el("summary", {}, `Constants of the wafer ${page.wafer.name}`), factsOf(page.wafer.constants.map(([k, v, origin]) => [k, origin ? `${v} (${origin})` : v])))];
}

// The page of a model of which nothing is planned.
function emptyFacts(page) {
  return [factsOf(page.notes), ...provenance(page)];
}
