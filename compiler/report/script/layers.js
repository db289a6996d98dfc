// The layers of the grid: what colour each core has, and what the legend says of it. A layer paints an image of
// the plan's box, one pixel for each core.

// {image: canvas, title, scale or swatches, note, value: (x, y) -> text of a core}
function paintLayer(page, name) {
  const { plan } = page;
  if (name === "tensor" && state.selection?.kind !== "tensor") return paintAmounts(page, "sram");
  if (["sram", "cycles", "links"].includes(name)) return paintAmounts(page, name);
  if (!page.ready) return paintAmounts(page, "sram");
  return { busy: paintBusy, ops: paintOps, tensor: paintTensor }[name](page, plan);
}

// An image of the plan's box; `put` shows the pixels of a part of it, [x, y, width, height] within the box.
function blank(plan) {
  const [, , width, height] = plan.box, canvas = el("canvas", { width, height });
  const context = canvas.getContext("2d"), image = context.createImageData(width, height);
  return { canvas, pixels: new Uint32Array(image.data.buffer), put: (part = [0, 0, width, height]) => context.putImageData(image, 0, 0, ...part) };
}

const packed = ([r, g, b], a = 255) => ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;

// Bytes or cycles on the scale of amounts.
function paintAmounts(page, name) {
  const { plan } = page, { canvas, pixels, put } = blank(plan);
  const values = name === "links" ? fullestLinks(page) : page.tables.get(name === "sram" || !page.ready ? plan.sram : plan.busy);
  const used = page.tables.get(plan.sram), runs = page.tables.get(plan.runs);
  const shown = !page.ready ? "sram" : name;
  const scale = shown === "sram" ? new Scale(0, plan.wafer.sram, { bounded: true }) : scaleOf(values);
  const shades = page.shades.map((c) => packed(c)), over = packed(rgb(theme.over));
  for (let i = 0; i < values.length; i++) {
    const v = values[i], some = shown === "cycles" ? runs[i] : v > 0 || (shown === "links" && used[i]);
    if (!some) continue;
    pixels[i] = scale.bounded && v > scale.high ? over : shades[Math.round(scale.position(v) * 255)];
  }
  put();
  const words = {
    sram: ["SRAM: highest byte in use", "bytes"],
    cycles: ["Cycles spent computing", "cycles a call"],
    links: ["Fullest outgoing link", "bytes a call"],
  }[shown];
  return { canvas, title: words[0], unit: words[1], scale, value: (x, y) => amountAt(page, shown, x, y) };
}

function amountAt(page, name, x, y) {
  const { plan } = page, v = name === "links" ? Math.max(...plan.links.map((t) => plan.at(t, x, y))) : plan.at(name === "sram" ? plan.sram : plan.busy, x, y);
  if (name === "sram") return v ? `${whole(v)} of ${whole(plan.wafer.sram)} bytes (${percent(v / plan.wafer.sram)})` : "nothing held";
  return name === "links" ? `fullest link ${whole(v)} bytes a call` : `${whole(v)} cycles computing`;
}

function fullestLinks(page) {
  if (!page.ready) return page.tables.get(page.plan.sram);
  page.fullest ??= new Map();
  if (!page.fullest.has(page.plan)) {
    const planes = page.plan.links.map((t) => page.tables.get(t));
    page.fullest.set(page.plan, Float64Array.from(planes[0], (v, i) => Math.max(v, planes[1][i], planes[2][i], planes[3][i])));
  }
  return page.fullest.get(page.plan);
}

// The box around boxes, null around none.
function around(boxes) {
  if (!boxes.length) return null;
  const x = Math.min(...boxes.map((b) => b[0])), y = Math.min(...boxes.map((b) => b[1]));
  return [x, y, Math.max(...boxes.map((b) => b[0] + b[2])) - x, Math.max(...boxes.map((b) => b[1] + b[3])) - y];
}

// The kind of operation on which each core spends most cycles.
function paintOps(page, plan) {
  const { canvas, pixels, put } = blank(plan), [x0, y0, width] = plan.box;
  page.dominant ??= new Map();
  if (!page.dominant.has(plan)) page.dominant.set(plan, dominantOps(page, plan));
  const { kinds, of } = page.dominant.get(plan), colours = kinds.map((k) => packed(rgb(page.kinds.get(k)))), code = packed(rgb(theme.unused));
  const held = page.tables.get(plan.sram), counts = new Float64Array(kinds.length);
  for (let i = 0; i < of.length; i++) {
    if (of[i] >= 0) { pixels[i] = colours[of[i]]; counts[of[i]]++; } else if (held[i]) pixels[i] = code;
  }
  put();
  const swatches = kinds.map((k, i) => [page.kinds.get(k), `${k}: ${plural(counts[i], "core")}`, counts[i]]).filter((s) => s[2]).sort((a, b) => b[2] - a[2]);
  return {
    canvas, title: "Operation that takes most cycles", swatches: [...swatches, [theme.unused, "holds, runs nothing"]],
    value: (x, y) => {
      const [bx, by] = [x - x0, y - y0], n = bx < 0 || by < 0 || bx >= width || by * width + bx >= of.length ? -1 : of[by * width + bx];
      return n >= 0 ? `mostly ${kinds[n]}` : "runs nothing";
    },
  };
}

function dominantOps(page, plan) {
  const kinds = [...page.kinds.keys()], [, , width, height] = plan.box;
  const sums = kinds.map(() => null), of = new Int8Array(width * height).fill(-1), most = new Float64Array(width * height);
  for (const step of plan.steps) {
    if (step.kind === "input") continue;
    const k = kinds.indexOf(step.op);
    sums[k] ??= new Float64Array(width * height);
    const long = plan.tables.get(step.long), sum = sums[k];
    plan.eachRun(step, (pixel, n, first) => {
      for (let i = pixel, j = first; i < pixel + n; i++, j++) {
        const v = (sum[i] += long[j] || 0.01);
        if (v > most[i]) { most[i] = v; of[i] = k; }
      }
    });
  }
  return { kinds, of };
}

// Which box of the selected tensor each core holds: equal colours are replicas.
function paintTensor(page, plan) {
  const name = state.selection.name, { canvas, pixels, put } = blank(plan), [x0, y0, width] = plan.box, wide = plan.wafer.width;
  const holders = (plan.tensors.get(name) ?? []).filter((b) => b.role !== "receive" && b.role !== "scratch");
  const buffers = holders.length ? holders : plan.tensors.get(name) ?? [];
  let count = 0, cores = 0;
  for (const buffer of buffers) {
    const boxes = plan.boxes(buffer), [columns] = buffer.grid;
    boxes.of.forEach((n, i) => {
      if (n < 0) return;
      const core = plan.core(buffer.region, buffer.grid, i % columns, Math.floor(i / columns));
      const shade = page.shades[Math.round((boxes.count > 1 ? n / (boxes.count - 1) : 0.5) * 255)];
      pixels[(Math.floor(core / wide) - y0) * width + (core % wide) - x0] = packed(shade);
      cores++;
    });
    count = Math.max(count, boxes.count);
  }
  put();
  const partial = plan.steps.some((s) => s.tensor === name && s.split.includes("partial sums"));
  return {
    canvas, title: `Boxes of ${brief(name, 36)}`, scale: new Scale(0, Math.max(1, count - 1)), unit: "number of the box",
    note: `${plural(cores, "core")} hold ${plural(count, "different box").replace("boxs", "boxes")}${partial ? ", of partial sums" : cores > count && count ? `: ${(cores / count).toFixed(cores % count ? 1 : 0)} replicas of each` : ""}`,
    value: (x, y) => heldText(plan, buffers, plan.numberOf(x, y)) || "holds nothing of it",
  };
}

// The box of a tensor on a core, as "[0:4, 24:36]".
function heldText(plan, buffers, core) {
  return buffers.map((b) => {
    const at = plan.place(b.region, b.grid, core), box = at && plan.held(b, ...at);
    return box ? boxText(box) : "";
  }).filter(Boolean).join("; ");
}

function boxText(box) {
  return box.some(([lo, hi]) => hi <= lo) ? "nothing" : `[${box.map(([lo, hi]) => `${lo}:${hi}`).join(", ")}]`;
}
