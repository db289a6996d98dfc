// Puts the page together: reads the data, makes the parts, and lets each of them follow the state.

let look = null; // the page that is shown, for the tests and for who opens the console

async function main() {
  const { data, tables } = headOf(await unpacked(byId("head").textContent));
  readTheme();
  const page = {
    wafer: data.wafer, tables, ready: false, notes: data.notes, provenance: data.provenance,
    shades: shadesOf(data.colours), dead: new Set(tables.get(data.wafer.dead)),
  };
  if (!data.entries.length) return showEmpty(page);
  entryNames = data.entries.map((e) => e.entry);
  page.plans = data.entries.map((e, i) => new Plan(e, i, data.wafer, tables));
  Object.assign(state, readFragment(location.hash, (s, entry) => exists(page.plans[entry], s)));
  takeEntry(page);
  subscribe((changed) => { if (changed.has("entry")) takeEntry(page); }); // before all others hear of it
  look = page;
  const stage = (page.stage = new Stage(page));
  stage.overlays = overlaysOf(page);
  page.timeline = timeline(page);
  modelList(page);
  followPointer(page, stage);
  followKeys(page, stage);
  controls(page, stage);
  shortcuts(page, stage);
  subscribe((changed) => follow(page, stage, changed));
  place(stage);
  stage.repaint();
  showControls(page);
  inspect(page);
  await new Promise((done) => { requestAnimationFrame(() => setTimeout(done)); }); // the first picture is there
  tables.read(await unpacked(byId("tail").textContent), 0, 0);
  page.ready = true;
  document.body.dataset.ready = "true";
  stage.repaint();
  showControls(page);
  if (state.selection) inspect(page);
  else for (const f of followers.resting) f(); // the summary was there without the data
  page.timeline.draw();
  return null;
}

function takeEntry(page) {
  page.plan = page.plans[state.entry];
  page.kinds = pageKinds = kindsOf(page.plan);
  state.at = Math.min(state.at, page.plan.cycles);
  if (!exists(page.plan, state.selection)) state.selection = null;
}

// After a change of the state.
function follow(page, stage, changed) {
  if (changed.has("entry")) {
    stage.cursor = null;
    place(stage);
  }
  if (changed.has("theme")) readTheme();
  const only = (...those) => [...changed].every((k) => those.includes(k));
  if (["entry", "layer", "theme"].some((k) => changed.has(k)) || (changed.has("selection") && state.layer === "tensor")) stage.repaint();
  else {
    if (changed.has("at")) stage.advance();
    if (!only("at")) stage.draw();
  }
  if (!only("at", "view")) showControls(page);
  else if (state.layer === "busy") legend(page, stage.layer);
  if (changed.has("selection") || changed.has("entry")) inspect(page);
  else if (changed.has("at") || changed.has("layer")) tellClock(page);
  if (changed.has("selection")) say(nameOf(page.plan, state.selection));
}

function place(stage) {
  if (state.view) stage.showView(state.view);
  else stage.show(stage.page.plan.box);
}

// -- the inspector -----------------------------------------------------------------------------

let soon = 0;

// What the inspector shows of the clock follows it: marks at once, what has to be made anew once the clock rests.
function tellClock(page) {
  for (const f of followers.moving) f();
  clearTimeout(soon);
  soon = setTimeout(() => {
    soon = 0;
    for (const f of followers.resting) f();
    nameGrid(page);
  }, 250);
}

function inspect(page) {
  clearTimeout(soon);
  soon = 0;
  followers.moving = [];
  followers.resting = [];
  const s = state.selection, body = byId("inspector-body"), scrolled = body.scrollTop, same = body.dataset.of === written(s);
  byId("inspector-title").textContent = s ? nameOf(page.plan, s) : "Summary";
  byId("clear").hidden = !s;
  byId("to-selection").disabled = !s;
  const parts = !page.ready && s ? [el("p", {}, "unpacking the data…")] : {
    core: coreFacts, link: linkFacts, route: routeFacts, step: stepFacts, node: nodeFacts, tensor: tensorFacts, region: regionFacts, none: summaryFacts,
  }[s?.kind ?? "none"](page, s);
  body.replaceChildren(...parts.flat().filter(Boolean));
  body.dataset.of = written(s);
  body.scrollTop = same ? scrolled : 0;
}

// -- controls -------------------------------------------------------------------------------------

function controls(page, stage) {
  const layer = byId("layer"), entry = byId("entry");
  layer.replaceChildren(...LAYERS.map(([value, text]) => el("option", { value }, text)));
  layer.addEventListener("change", () => change({ layer: layer.value }));
  entry.replaceChildren(...entryNames.map((n, i) => el("option", { value: i }, n)));
  byId("entry-label").hidden = entryNames.length < 2;
  entry.addEventListener("change", () => change({ entry: Number(entry.value), view: null }, { push: true }));
  byId("path").addEventListener("click", () => change({ path: !state.path }));
  byId("used").addEventListener("click", () => stage.showUsed());
  byId("wafer").addEventListener("click", () => stage.showWafer());
  byId("closer").addEventListener("click", () => stage.zoom(1.5));
  byId("farther").addEventListener("click", () => stage.zoom(1 / 1.5));
  byId("to-selection").addEventListener("click", () => zoomToSelection(page, stage));
  byId("clear").addEventListener("click", () => select(null));
  byId("copy").addEventListener("click", () => copyLink());
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  for (const tab of document.querySelectorAll("[role=tab]")) tab.addEventListener("click", () => showTab(tab));
  byId("tabs").addEventListener("keydown", (e) => {
    const tabs = [...document.querySelectorAll("[role=tab]")], i = tabs.indexOf(document.activeElement), by = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (!by || i < 0) return;
    const next = tabs[(i + by + tabs.length) % tabs.length];
    next.focus();
    showTab(next);
  });
  subscribe((changed) => { if (changed.has("selection") && state.selection) showTab(byId("tab-inspector")); });
  window.addEventListener("hashchange", () => goTo(page));
  window.addEventListener("popstate", () => goTo(page));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readTheme(); stage.repaint(); page.timeline.draw(); });
  new ResizeObserver(() => { stage.measure(); if (state.view) stage.draw(); else place(stage); }).observe(stage.canvas);
}

// What the fragment asks for: a link that was followed, or a step back in the history.
function goTo(page) {
  if (location.hash === fragment()) return;
  const next = readFragment(location.hash, (s, entry) => exists(page.plans[entry], s));
  change(next);
  place(page.stage);
}

function showTab(tab) {
  for (const t of document.querySelectorAll("[role=tab]")) {
    t.setAttribute("aria-selected", String(t === tab));
    t.tabIndex = t === tab ? 0 : -1;
  }
  document.body.dataset.tab = tab.dataset.panel;
}

function zoomToSelection(page, stage) {
  const box = page.ready && boxOfSelection(page.plan, state.selection);
  if (!box) return;
  stage.show(box, 48);
  stage.tellView();
}

function copyLink() {
  const url = location.href.replace(/#.*$/, "") + fragment();
  const done = () => say("the link to this view is copied");
  if (navigator.clipboard) navigator.clipboard.writeText(url).then(done, () => say(url));
  else say(url);
}

function showControls(page) {
  const { stage } = page;
  byId("layer").value = state.layer;
  byId("entry").value = String(state.entry);
  byId("path").setAttribute("aria-pressed", String(state.path));
  nameGrid(page);
  legend(page, stage.layer);
}

function nameGrid({ plan }) {
  const what = LAYERS.find(([n]) => n === state.layer)[1];
  byId("grid").setAttribute("aria-label", `${plan.name} on ${plan.wafer.name}, ${plan.wafer.width} by ${plan.wafer.height} cores. ${what}. Selected: ${state.selection ? nameOf(plan, state.selection) : "nothing"}. Cycle ${whole(state.at)}. Arrow keys go from core to core.`);
}

// The legend is made anew for another layer; what the clock changes of one is text, and which operations are marked.
function legend(page, layer) {
  const box = byId("legend");
  if (layer.key === undefined || layer.key !== box.of) {
    box.of = layer.key;
    box.replaceChildren(...legendParts(page, layer));
  }
  const title = box.querySelector("b"), note = box.querySelector(".note");
  if (title.textContent !== layer.title) title.textContent = layer.title;
  if (note.textContent !== (layer.note ?? "")) note.textContent = layer.note ?? "";
  for (const key of box.querySelectorAll("[data-kind]")) key.classList.toggle("here", layer.lit?.has(key.dataset.kind) ?? false);
}

function legendParts(page, layer) {
  const parts = [el("b")];
  if (layer.scale) parts.push(scaleLegend(page, layer));
  const swatch = (colour, text, kind) => { const box = el("span", { className: "swatch" }); box.style.background = colour; return el("span", { className: "key", "data-kind": kind }, box, text); };
  for (const [colour, text, kind] of layer.swatches ?? []) parts.push(swatch(colour, text, kind));
  if (layer.scale?.bounded) {
    const over = page.tables.get(page.plan.sram).reduce((n, v) => n + (v > layer.scale.high), 0);
    parts.push(swatch(theme.over, over ? `over the budget: ${plural(over, "core")}` : "over the budget: none"));
  }
  if (page.dead.size) parts.push(swatch(theme.dead, `dead: ${plural(page.dead.size, "core")}`));
  if (page.wafer.dead_links.length) parts.push(swatch(theme.over, `dead: ${plural(page.wafer.dead_links.length, "link")}, barred`));
  return [...parts, el("span", { className: "note" })];
}

function scaleLegend(page, { scale, unit }) {
  const W = 190, canvas = el("canvas", { width: W, height: 12, role: "img", "aria-label": `from ${whole(scale.low)} to ${whole(scale.high)} ${unit}` }), c = canvas.getContext("2d");
  for (let i = 0; i < W; i++) { c.fillStyle = css(page.shades[Math.round((i / (W - 1)) * 255)]); c.fillRect(i, 0, 1, 12); }
  const ends = el("span", { className: "ends" }, el("span", {}, whole(scale.low)), el("span", {}, `${whole(scale.high)} ${unit}${scale.bounded ? ", the budget" : ""}${scale.logarithmic ? ", logarithmic" : ""}`));
  return el("span", { className: "ramp" }, canvas, ends);
}

// -- keys ------------------------------------------------------------------------------------------

function shortcuts(page, stage) {
  const keys = {
    "/": () => { showTab(byId("tab-model")); byId("search").focus(); }, "?": () => byId("help").showModal(),
    "[": () => change({ at: nextEvent(page.plan, state.at, -1) }), "]": () => change({ at: nextEvent(page.plan, state.at, 1) }),
    ",": () => change({ at: Math.max(0, state.at - 1) }), ".": () => change({ at: Math.min(page.plan.cycles, state.at + 1) }),
    " ": () => page.timeline.toggle(), "+": () => stage.zoom(1.5), "=": () => stage.zoom(1.5), "-": () => stage.zoom(1 / 1.5),
    0: () => stage.showUsed(), w: () => stage.showWafer(), z: () => zoomToSelection(page, stage), p: () => change({ path: !state.path }),
    c: () => copyLink(), g: () => stage.canvas.focus(), Escape: () => { if (state.selection) select(null); },
    ...Object.fromEntries(LAYERS.map(([name], i) => [i + 1, () => change({ layer: name })])),
  };
  document.addEventListener("keydown", (e) => {
    const on = document.activeElement;
    if (e.ctrlKey || e.metaKey || e.altKey || byId("help").open || on?.matches("input:not([type=range]), select, textarea")) return;
    if (e.key === " " && on?.matches("button, a, summary, input, canvas")) return;
    const f = keys[e.key];
    if (!f) return;
    e.preventDefault();
    f();
  });
}

function showEmpty(page) {
  document.body.dataset.empty = "true";
  byId("inspector-title").textContent = "Summary";
  byId("inspector-body").replaceChildren(...emptyFacts(page));
  document.body.dataset.ready = "true";
}

main().catch((e) => {
  byId("trouble").textContent = `The page could not be drawn: ${e.message}`;
  byId("trouble").hidden = false;
  throw e;
});
