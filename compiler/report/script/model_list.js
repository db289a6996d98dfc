// The model on the left: its layers with their ONNX nodes, and a search over nodes, operators, steps and tensors.

const MOST_FOUND = 150;

function modelList(page) {
  const list = byId("model"), found = byId("found"), search = byId("search");

  const fill = () => {
    const { plan } = page;
    list.replaceChildren(...plan.parts.map((part, p) => {
      const steps = plan.steps.filter((s) => s.part === p);
      const body = el("ul", {}), cycles = plan.path_parts.find((r) => r.part === part)?.cycles ?? 0;
      const details = el("details", { toggle: () => { if (details.open && !body.firstChild) body.append(...nodeRows(plan, steps)); mark(); } },
        el("summary", {}, el("span", { className: "name" }, part), el("span", { className: "count", title: "cycles along the critical path" }, whole(cycles))), body);
      details.part = p;
      return details;
    }));
    if (plan.parts.length === 1 || plan.steps.length < 40) for (const d of list.children) d.open = true;
    mark();
  };

  const mark = () => {
    const s = state.selection, { plan } = page;
    const part = s?.kind === "step" ? plan.steps[s.step].part : s?.kind === "node" ? plan.nodes.get(s.name)?.[0].part : null;
    for (const d of list.children) if (d.part === part && part !== null) d.open = true;
    for (const a of list.querySelectorAll("a")) {
      const own = s?.kind === a.kind && (a.kind === "step" ? s.step === a.key : s.name === a.key);
      if (own) { a.setAttribute("aria-current", "true"); a.scrollIntoView({ block: "nearest" }); } else a.removeAttribute("aria-current");
    }
  };

  const look = () => {
    const text = search.value.trim().toLowerCase();
    list.hidden = text !== "";
    found.hidden = text === "";
    if (!text) return;
    const hits = findAll(page.plan, text);
    const rows = hits.slice(0, MOST_FOUND).map((h) => el("li", {}, linkTo(h.selection, [el("span", { className: "what" }, h.what), " ", brief(h.name, 80)], { title: h.name })));
    found.replaceChildren(el("p", { role: "status" }, hits.length ? `${plural(hits.length, "hit")}${hits.length > MOST_FOUND ? `, the first ${MOST_FOUND}` : ""}` : "nothing found"), el("ul", {}, rows));
  };

  search.addEventListener("input", look);
  search.addEventListener("keydown", (e) => {
    if (e.key === "Enter") found.querySelector("a")?.click();
    if (e.key === "Escape") { search.value = ""; look(); search.blur(); e.stopPropagation(); }
    if (e.key === "ArrowDown") { e.preventDefault(); (found.hidden ? list.querySelector("summary") : found.querySelector("a"))?.focus(); }
  });
  // Arrows go from entry to entry.
  byId("model-panel").addEventListener("keydown", (e) => {
    if (e.target === search || (e.key !== "ArrowDown" && e.key !== "ArrowUp")) return;
    const all = [...byId("model-panel").querySelectorAll("summary, a")].filter((n) => n.offsetParent), i = all.indexOf(document.activeElement);
    e.preventDefault();
    (all[i + (e.key === "ArrowDown" ? 1 : -1)] ?? search).focus();
  });
  subscribe((changed) => {
    if (changed.has("entry")) { fill(); look(); } else if (changed.has("selection")) mark();
  });
  fill();
}

// A row for each node, and for each step of a node that has several.
function nodeRows(plan, steps) {
  const row = (kind, key, selection, op, name, of) => {
    const a = linkTo(selection, [el("span", { className: "swatch", "data-op": op }), el("span", { className: "name" }, name), el("span", { className: "count" }, whole(of))]);
    a.kind = kind;
    a.key = key;
    a.querySelector(".swatch").style.background = pageKinds.get(op) ?? "transparent";
    return el("li", {}, a);
  };
  const byNode = new Map();
  for (const s of steps) byNode.set(s.nodes[0] ?? s.name, [...(byNode.get(s.nodes[0] ?? s.name) ?? []), s]);
  const names = [...byNode.keys()], common = commonPrefix(names);
  return names.map((name) => {
    const own = byNode.get(name), last = Math.max(...own.map((s) => s.last)), first = Math.min(...own.map((s) => s.first));
    const short = name.slice(common.length) || name;
    if (own.length === 1 && !plan.nodes.has(name)) return row("step", own[0].number, { kind: "step", step: own[0].number }, own[0].op, `${own[0].op} ${short}`, last - first);
    const li = row("node", name, { kind: "node", name }, own[0].op, short, last - first);
    li.firstChild.title = name;
    if (own.length > 1) li.append(el("ul", {}, own.map((s) => row("step", s.number, { kind: "step", step: s.number }, s.op, `${s.number} ${s.kind === "join" ? "join " : ""}${s.op}`, s.last - s.first))));
    return li;
  });
}

// What all paths begin with, up to a slash.
function commonPrefix(names) {
  if (names.length < 2) return "";
  let n = 0;
  const [first] = names;
  while (n < first.length && names.every((name) => name[n] === first[n])) n++;
  return first.slice(0, first.lastIndexOf("/", n - 1) + 1);
}

// Hits of a search, the best first: names that end with the text, then those that hold it, then operators.
function findAll(plan, text) {
  const out = [];
  const add = (what, name, selection, more = "") => {
    const low = name.toLowerCase(), at = low.indexOf(text);
    const rank = at >= 0 ? (low.endsWith(text) ? 0 : 1) : more.toLowerCase().includes(text) ? 2 : -1;
    if (rank >= 0) out.push({ what, name, selection, rank });
  };
  for (const [name, steps] of plan.nodes) add("node", name, { kind: "node", name }, steps.map((s) => s.op).join(" "));
  for (const s of plan.steps) add(s.kind === "input" ? "input" : `step ${s.number}`, `${s.op} ${s.name}`, { kind: "step", step: s.number });
  for (const name of plan.tensors.keys()) add("tensor", name, { kind: "tensor", name });
  return out.sort((a, b) => a.rank - b.rank);
}

let pageKinds = new Map(); // colours of the kinds of operations of the plan that is shown
