"use strict";
// Draws the picture that report.py embedded. Text from the model reaches the page through textContent alone.

const picture = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const [boxX, boxY, boxWidth, boxHeight] = picture.box;
const css = (c) => `rgb(${c[0]},${c[1]},${c[2]})`;
const format = (v) => v.toLocaleString("en", { maximumFractionDigits: Number.isInteger(v) ? 0 : 2 });

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

function position(metric, value) {
  if (metric.logarithmic) {
    const low = Math.log(metric.low);
    return Math.min(1, Math.max(0, (Math.log(Math.max(value, metric.low)) - low) / (Math.log(metric.high) - low)));
  }
  return Math.min(1, Math.max(0, (value - metric.low) / (metric.high - metric.low)));
}

function colour(at) {
  const table = picture.colours;
  const t = at * (table.length - 1);
  const i = Math.min(table.length - 2, Math.floor(t));
  return table[i].map((c, k) => Math.round(c + (table[i + 1][k] - c) * (t - i)));
}

// One pixel per core of the used box; the browser scales it.
function paint(metric, deadSet) {
  const canvas = document.createElement("canvas");
  canvas.width = boxWidth;
  canvas.height = boxHeight;
  const context = canvas.getContext("2d");
  const image = context.createImageData(boxWidth, boxHeight);
  const shades = Array.from({ length: 256 }, (_, i) => colour(i / 255));
  for (let i = 0; i < metric.data.length; i++) {
    const value = metric.data[i];
    const core = (boxY + Math.floor(i / boxWidth)) * picture.width + boxX + (i % boxWidth);
    const c = deadSet.has(core) ? picture.dead_colour : Number.isNaN(value) ? picture.unused
      : shades[Math.round(position(metric, value) * 255)];
    image.data.set([c[0], c[1], c[2], 255], i * 4);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

function drawLegend(metric) {
  byId("legend-title").textContent = `${metric.title}, ${metric.unit}${metric.logarithmic ? ", logarithmic" : ""}`;
  const canvas = byId("legend");
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const top = 10, height = 205;
  for (let i = 0; i < height; i++) {
    context.fillStyle = css(colour(1 - i / (height - 1)));
    context.fillRect(0, top + i, 22, 1);
  }
  context.fillStyle = "#1e1e1e";
  context.font = "12px system-ui, Helvetica, Arial, sans-serif";
  context.textBaseline = "middle";
  for (const tick of [...metric.ticks, metric.high]) {
    const y = top + (1 - position(metric, tick)) * (height - 1);
    if (tick !== metric.high && y - top < 13) continue;
    context.fillRect(22, Math.round(y), 5, 1);
    context.fillText(format(tick), 31, y);
  }
}

async function main() {
  const dead = new Uint32Array(await unpack(picture.dead));
  const deadSet = new Set(dead);
  for (const metric of picture.metrics) metric.data = new Float32Array(await unpack(metric.values));

  const canvas = byId("grid"), stage = byId("stage"), tip = byId("tip"), select = byId("metric");
  let metric = picture.metrics[0], raster = null;
  let scale = 1, left = 0, top = 0; // pixels per core; pixel of core (0, 0)
  let marked = null; // the box of a chosen region

  function draw() {
    const ratio = window.devicePixelRatio || 1;
    const width = stage.clientWidth, height = stage.clientHeight;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.imageSmoothingEnabled = false;
    context.fillStyle = css(picture.unused);
    context.fillRect(left, top, picture.width * scale, picture.height * scale);
    context.fillStyle = css(picture.dead_colour);
    for (const core of dead) {
      const x = left + (core % picture.width) * scale, y = top + Math.floor(core / picture.width) * scale;
      if (x + scale > 0 && y + scale > 0 && x < width && y < height) context.fillRect(x, y, Math.max(1, scale), Math.max(1, scale));
    }
    if (raster) context.drawImage(raster, left + boxX * scale, top + boxY * scale, boxWidth * scale, boxHeight * scale);
    if (scale >= 8) {
      context.strokeStyle = "rgba(255,255,255,0.7)";
      context.lineWidth = 1;
      context.beginPath();
      const x0 = Math.max(0, Math.floor(-left / scale)), x1 = Math.min(picture.width, Math.ceil((width - left) / scale));
      const y0 = Math.max(0, Math.floor(-top / scale)), y1 = Math.min(picture.height, Math.ceil((height - top) / scale));
      for (let x = x0; x <= x1; x++) { context.moveTo(left + x * scale, top + y0 * scale); context.lineTo(left + x * scale, top + y1 * scale); }
      for (let y = y0; y <= y1; y++) { context.moveTo(left + x0 * scale, top + y * scale); context.lineTo(left + x1 * scale, top + y * scale); }
      context.stroke();
      context.strokeStyle = "#fff";
      context.beginPath();
      for (const core of dead) {
        const x = left + (core % picture.width) * scale, y = top + Math.floor(core / picture.width) * scale, a = scale * 0.2, b = scale * 0.8;
        if (x + scale < 0 || y + scale < 0 || x > width || y > height) continue;
        context.moveTo(x + a, y + a); context.lineTo(x + b, y + b);
        context.moveTo(x + a, y + b); context.lineTo(x + b, y + a);
      }
      context.stroke();
    }
    context.font = "11px system-ui, Helvetica, Arial, sans-serif";
    context.textBaseline = "middle";
    const named = new Map(); // regions on one rectangle share a label
    for (const region of picture.regions) {
      const id = region.box.join();
      named.set(id, { box: region.box, labels: [...(named.get(id)?.labels ?? []), region.label] });
    }
    for (const { box: [x, y, w, h], labels } of named.values()) {
      const px = left + x * scale, py = top + y * scale;
      context.strokeStyle = "#141414";
      context.lineWidth = scale < 4 ? 1 : 2;
      context.strokeRect(px, py, w * scale, h * scale);
      let text = labels[0] + (labels.length > 1 ? ` and ${labels.length - 1} more` : "");
      const room = w * scale - 8;
      if (h * scale < 17 || room < 40) continue;
      while (text.length > 6 && context.measureText(text).width > room) text = "…" + text.slice(2);
      if (context.measureText(text).width > room) continue;
      context.fillStyle = "#141414";
      context.fillRect(px + 1, py + 1, context.measureText(text).width + 7, 15);
      context.fillStyle = "#fff";
      context.fillText(text, px + 4, py + 9);
    }
    if (marked) {
      context.strokeStyle = "#c80078";
      context.lineWidth = 3;
      context.strokeRect(left + marked[0] * scale - 2, top + marked[1] * scale - 2, marked[2] * scale + 4, marked[3] * scale + 4);
    }
  }

  function show(x, y, width, height) {
    const margin = 24;
    scale = Math.min((stage.clientWidth - margin) / width, (stage.clientHeight - margin) / height, 64);
    left = stage.clientWidth / 2 - (x + width / 2) * scale;
    top = stage.clientHeight / 2 - (y + height / 2) * scale;
    draw();
  }

  function zoom(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
    const next = Math.min(160, Math.max(0.1, scale * factor));
    left = x - (x - left) * (next / scale);
    top = y - (y - top) * (next / scale);
    scale = next;
    draw();
  }

  function choose(index) {
    metric = picture.metrics[index];
    raster = paint(metric, deadSet);
    drawLegend(metric);
    draw();
  }

  function facts(x, y) {
    const lines = [`core (${x}, ${y})`];
    if (deadSet.has(y * picture.width + x)) lines.push("dead");
    const inside = picture.regions.filter(({ box }) => x >= box[0] && y >= box[1] && x < box[0] + box[2] && y < box[1] + box[3]);
    for (const region of inside.slice(0, 6)) {
      const nodes = region.nodes.slice(0, 4).join(", ") + (region.nodes.length > 4 ? ` and ${region.nodes.length - 4} more` : "");
      lines.push(nodes ? `${region.name}: ${nodes}` : region.name);
    }
    if (inside.length > 6) lines.push(`and ${inside.length - 6} more regions`);
    const at = (y - boxY) * boxWidth + x - boxX;
    const within = x >= boxX && y >= boxY && x < boxX + boxWidth && y < boxY + boxHeight;
    for (const m of picture.metrics) {
      const value = within ? m.data[at] : NaN;
      lines.push(`${m.title}: ${Number.isNaN(value) ? "unused" : `${format(value)} ${m.unit}`}`);
    }
    return lines.join("\n");
  }

  let drag = null;
  canvas.addEventListener("pointerdown", (e) => { drag = [e.clientX - left, e.clientY - top]; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointerup", () => { drag = null; });
  canvas.addEventListener("pointerleave", () => { tip.style.display = "none"; });
  canvas.addEventListener("pointermove", (e) => {
    if (drag) {
      left = e.clientX - drag[0];
      top = e.clientY - drag[1];
      tip.style.display = "none";
      draw();
      return;
    }
    const x = Math.floor((e.offsetX - left) / scale), y = Math.floor((e.offsetY - top) / scale);
    if (x < 0 || y < 0 || x >= picture.width || y >= picture.height) { tip.style.display = "none"; return; }
    tip.textContent = facts(x, y);
    tip.style.display = "block";
    tip.style.left = `${Math.min(e.offsetX + 14, stage.clientWidth - tip.offsetWidth - 4)}px`;
    tip.style.top = `${Math.min(e.offsetY + 14, stage.clientHeight - tip.offsetHeight - 4)}px`;
  });
  canvas.addEventListener("wheel", (e) => { e.preventDefault(); zoom(Math.exp(-e.deltaY * 0.002), e.offsetX, e.offsetY); }, { passive: false });
  byId("fit").onclick = () => show(boxX, boxY, boxWidth, boxHeight);
  byId("whole").onclick = () => show(0, 0, picture.width, picture.height);
  byId("closer").onclick = () => zoom(1.5);
  byId("farther").onclick = () => zoom(1 / 1.5);
  select.onchange = () => choose(select.selectedIndex);
  window.addEventListener("resize", draw);

  for (const m of picture.metrics) select.append(new Option(`${m.title} (${m.unit})`, m.name));
  byId("unused").style.background = css(picture.unused);
  byId("dead").style.background = css(picture.dead_colour);
  byId("dead-count").textContent = `dead (${format(dead.length)} cores)`;
  for (const [key, value] of picture.summary) {
    const row = byId("summary").insertRow();
    row.insertCell().textContent = key;
    row.insertCell().textContent = value;
  }
  table((name) => {
    const region = picture.regions.find((r) => r.name === name);
    if (!region) return;
    marked = region.box;
    show(...region.box);
    stage.scrollIntoView({ block: "center" });
  });
  if (picture.metrics.length) choose(0);
  show(boxX, boxY, boxWidth, boxHeight);
}

// The operations: a click on a title sorts, one on a row shows its region.
function table(showRegion) {
  const head = byId("operations").tHead.insertRow(), body = byId("operations").tBodies[0];
  const regionColumn = picture.columns.indexOf("region");
  let rows = picture.operations, sorted = -1, up = true;
  function fill() {
    body.textContent = "";
    for (const values of rows) {
      const row = body.insertRow();
      for (const value of values) {
        const cell = row.insertCell();
        cell.textContent = typeof value === "number" ? format(value) : value;
        if (typeof value === "number") cell.className = "number";
      }
      row.onclick = () => showRegion(values[regionColumn]);
    }
  }
  picture.columns.forEach((title, i) => {
    const th = document.createElement("th"), button = document.createElement("button");
    button.textContent = title;
    button.onclick = () => {
      up = sorted === i ? !up : true;
      sorted = i;
      const order = (a, b) => (typeof a[i] === "number" && typeof b[i] === "number" ? a[i] - b[i] : String(a[i]).localeCompare(String(b[i])));
      rows = [...picture.operations].sort((a, b) => (up ? order(a, b) : order(b, a)));
      for (const other of head.cells) other.removeAttribute("aria-sort");
      th.setAttribute("aria-sort", up ? "ascending" : "descending");
      fill();
    };
    th.append(button);
    head.append(th);
  });
  fill();
}

main();
