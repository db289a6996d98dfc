// Links within the page: each sets the selection, and says so in its address for those who copy it.

function linkTo(selection, text, { title } = {}) {
  return el("a", {
    href: fragment(selection), title,
    click: (e) => {
      if (e.ctrlKey || e.metaKey || e.shiftKey) return;
      e.preventDefault();
      select(selection);
    },
  }, text);
}

const coreLink = (x, y) => linkTo({ kind: "core", x, y }, `(${x}, ${y})`);
const stepLink = (plan, number, most = 40) => linkTo({ kind: "step", step: number }, `${number}: ${brief(plan.steps[number].name, most)}`, { title: plan.steps[number].name });
const tensorLink = (name, most = 40) => linkTo({ kind: "tensor", name }, brief(name, most), { title: name });
const nodeLink = (name, most = 48) => linkTo({ kind: "node", name }, brief(name, most), { title: name });
const cycleLink = (cycle) => el("button", { type: "button", className: "plain", title: "set the clock to this cycle", click: () => change({ at: cycle }) }, whole(cycle));

function moveLink(plan, move, text = move.route) {
  return linkTo({ kind: "route", step: move.step, move: move.k }, text);
}

// What a selection is, in words.
function nameOf(plan, s) {
  if (!s) return plan ? plan.name : "";
  const words = {
    core: () => `core (${s.x}, ${s.y})`, link: () => `link from (${s.x}, ${s.y}) ${s.direction}`,
    step: () => `step ${s.step}: ${plan.steps[s.step].name}`, node: () => `node ${s.name}`, tensor: () => `tensor ${s.name}`,
    region: () => `region ${s.region}: ${plan.regions[s.region].name}`,
    route: () => `route ${s.step}.${s.move} to step ${s.step}${s.source ? ` from core (${s.source.join(", ")})` : ""}`,
  };
  return words[s.kind]();
}

// Whether a plan has what a selection names.
function exists(plan, s) {
  if (!s) return true;
  const on = (x, y) => x < plan.wafer.width && y < plan.wafer.height;
  return {
    core: () => on(s.x, s.y), link: () => on(s.x, s.y), step: () => s.step < plan.steps.length, region: () => s.region < plan.regions.length,
    node: () => plan.nodes.has(s.name), tensor: () => plan.tensors.has(s.name),
    route: () => s.move < (plan.steps[s.step]?.received.length ?? 0) && (!s.source || on(...s.source)),
  }[s.kind]();
}

// The box of cores that a selection is on, null for none.
function boxOfSelection(plan, s) {
  const of = (things) => around(things.map((t) => plan.boxOf(t.region, t.grid)));
  if (!s) return plan.box;
  if (s.kind === "core" || s.kind === "link") return [s.x - 3, s.y - 3, 7, 7];
  if (s.kind === "step") return of([plan.steps[s.step]]);
  if (s.kind === "route") return of([plan.steps[s.step], plan.steps[plan.steps[s.step].received[s.move].by]]);
  if (s.kind === "node") return of(plan.nodes.get(s.name));
  if (s.kind === "tensor") return of(plan.tensors.get(s.name));
  return plan.regions[s.region].box;
}
