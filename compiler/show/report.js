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

// Numbers of the dead cores, and each metric's values, by core of the used box.
async function decode() {
  for (const metric of picture.metrics) metric.data = new Float32Array(await unpack(metric.values));
  return new Uint32Array(await unpack(picture.dead));
}

// Regions on one rectangle share a label.
function namedBoxes() {
  const named = new Map();
  for (const region of picture.regions) {
    const id = region.box.join();
    named.set(id, { box: region.box, labels: [...(named.get(id)?.labels ?? []), region.label] });
  }
  return [...named.values()];
}

// The wafer as a part of it is seen: `scale` pixels per core, core (0, 0) at pixel (left, top).
class Stage {
  constructor(dead) {
    this.dead = dead;
    this.element = byId("stage");
    this.canvas = byId("grid");
    this.named = namedBoxes();
    this.raster = null; // the painted metric
    this.marked = null; // the box of a chosen region
    this.scale = 1;
    this.left = this.top = 0;
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const width = this.element.clientWidth, height = this.element.clientHeight;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.imageSmoothingEnabled = false;
    this.drawCores(context, width, height);
    if (this.scale >= 8) this.drawLines(context, width, height);
    this.drawRegions(context);
    if (this.marked) this.drawMark(context);
  }

  drawCores(context, width, height) {
    const { left, top, scale } = this;
    context.fillStyle = css(picture.unused);
    context.fillRect(left, top, picture.width * scale, picture.height * scale);
    context.fillStyle = css(picture.dead_colour);
    for (const core of this.dead) {
      const [x, y] = this.pixel(core);
      if (x + scale > 0 && y + scale > 0 && x < width && y < height) context.fillRect(x, y, Math.max(1, scale), Math.max(1, scale));
    }
    if (this.raster) context.drawImage(this.raster, left + boxX * scale, top + boxY * scale, boxWidth * scale, boxHeight * scale);
  }

  // Between cores; a cross on each dead one.
  drawLines(context, width, height) {
    const { left, top, scale } = this;
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
    for (const core of this.dead) {
      const [x, y] = this.pixel(core), a = scale * 0.2, b = scale * 0.8;
      if (x + scale < 0 || y + scale < 0 || x > width || y > height) continue;
      context.moveTo(x + a, y + a); context.lineTo(x + b, y + b);
      context.moveTo(x + a, y + b); context.lineTo(x + b, y + a);
    }
    context.stroke();
  }

  drawRegions(context) {
    const { left, top, scale } = this;
    context.font = "11px system-ui, Helvetica, Arial, sans-serif";
    context.textBaseline = "middle";
    for (const { box: [x, y, w, h], labels } of this.named) {
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
  }

  drawMark(context) {
    const [x, y, w, h] = this.marked, { left, top, scale } = this;
    context.strokeStyle = "#c80078";
    context.lineWidth = 3;
    context.strokeRect(left + x * scale - 2, top + y * scale - 2, w * scale + 4, h * scale + 4);
  }

  // Where a core's picture starts.
  pixel(core) {
    return [this.left + (core % picture.width) * this.scale, this.top + Math.floor(core / picture.width) * this.scale];
  }

  // The core at a pixel, null outside the wafer.
  coreAt(px, py) {
    const x = Math.floor((px - this.left) / this.scale), y = Math.floor((py - this.top) / this.scale);
    return x < 0 || y < 0 || x >= picture.width || y >= picture.height ? null : [x, y];
  }

  show(x, y, width, height) {
    const margin = 24, { clientWidth, clientHeight } = this.element;
    this.scale = Math.min((clientWidth - margin) / width, (clientHeight - margin) / height, 64);
    this.move(clientWidth / 2 - (x + width / 2) * this.scale, clientHeight / 2 - (y + height / 2) * this.scale);
  }

  zoom(factor, x = this.element.clientWidth / 2, y = this.element.clientHeight / 2) {
    const next = Math.min(160, Math.max(0.1, this.scale * factor)), ratio = next / this.scale;
    this.scale = next;
    this.move(x - (x - this.left) * ratio, y - (y - this.top) * ratio);
  }

  move(left, top) {
    this.left = left;
    this.top = top;
    this.draw();
  }
}

// What is to be said of one core, a line each.
function facts(x, y, deadSet) {
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

// Drag to move, wheel to zoom, hover for a core's facts.
function followPointer(stage, deadSet) {
  const tip = byId("tip"), { canvas, element } = stage;
  const hide = () => { tip.style.display = "none"; };
  let drag = null;
  canvas.addEventListener("pointerdown", (e) => { drag = [e.clientX - stage.left, e.clientY - stage.top]; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointerup", () => { drag = null; });
  canvas.addEventListener("pointerleave", hide);
  canvas.addEventListener("pointermove", (e) => {
    if (drag) {
      hide();
      stage.move(e.clientX - drag[0], e.clientY - drag[1]);
      return;
    }
    const core = stage.coreAt(e.offsetX, e.offsetY);
    if (!core) return hide();
    tip.textContent = facts(...core, deadSet);
    tip.style.display = "block";
    tip.style.left = `${Math.min(e.offsetX + 14, element.clientWidth - tip.offsetWidth - 4)}px`;
    tip.style.top = `${Math.min(e.offsetY + 14, element.clientHeight - tip.offsetHeight - 4)}px`;
  });
  canvas.addEventListener("wheel", (e) => { e.preventDefault(); stage.zoom(Math.exp(-e.deltaY * 0.002), e.offsetX, e.offsetY); }, { passive: false });
}

// The buttons above the stage, and the metric's choice.
function connectBar(stage, choose) {
  const select = byId("metric");
  byId("fit").onclick = () => stage.show(boxX, boxY, boxWidth, boxHeight);
  byId("whole").onclick = () => stage.show(0, 0, picture.width, picture.height);
  byId("closer").onclick = () => stage.zoom(1.5);
  byId("farther").onclick = () => stage.zoom(1 / 1.5);
  for (const m of picture.metrics) select.append(new Option(`${m.title} (${m.unit})`, m.name));
  select.onchange = () => choose(picture.metrics[select.selectedIndex]);
}

function fillSummary(deadCount) {
  byId("unused").style.background = css(picture.unused);
  byId("dead").style.background = css(picture.dead_colour);
  byId("dead-count").textContent = `dead (${format(deadCount)} cores)`;
  for (const [key, value] of picture.summary) {
    const row = byId("summary").insertRow();
    row.insertCell().textContent = key;
    row.insertCell().textContent = value;
  }
}

async function main() {
  const dead = await decode(), deadSet = new Set(dead), stage = new Stage(dead);
  const choose = (metric) => {
    stage.raster = paint(metric, deadSet);
    drawLegend(metric);
    stage.draw();
  };
  followPointer(stage, deadSet);
  connectBar(stage, choose);
  window.addEventListener("resize", () => stage.draw());
  fillSummary(dead.length);
  table((name) => {
    const region = picture.regions.find((r) => r.name === name);
    if (!region) return;
    stage.marked = region.box;
    stage.show(...region.box);
    stage.element.scrollIntoView({ block: "center" });
  });
  if (picture.metrics.length) choose(picture.metrics[0]);
  stage.show(boxX, boxY, boxWidth, boxHeight);
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
