// The grid as a part of it is seen: `scale` pixels a core, core (0, 0) at pixel (left, top) of the canvas.

const MOST_SCALE = 160; // pixels of a core
const MARGIN = { left: 46, top: 24, right: 14, bottom: 34 }; // for axes and the scale bar

class Stage {
  constructor(page) {
    this.page = page;
    this.canvas = byId("grid");
    this.scale = 1;
    this.left = this.top = 0;
    this.layer = null;
    this.cursor = null; // [x, y] of the core under the pointer or the arrow keys
    this.overlays = [];
    this.stale = []; // boxes of cores to draw anew at the next frame
    this.marks = ""; // what the overlays show of the clock
    this.measure();
  }

  // Takes the canvas's size, in pixels of the page.
  measure() {
    this.size = [this.canvas.clientWidth, this.canvas.clientHeight];
  }

  repaint() {
    this.layer = paintLayer(this.page, state.layer);
    this.draw();
  }

  // After the clock moved: what it changed of the cores, and all where it changed what lies over them.
  advance() {
    if (state.layer === "busy" && this.page.ready) {
      this.layer = paintLayer(this.page, "busy");
      if (this.layer.changed) this.draw(this.layer.changed);
    }
    if (clockMarks(this.page) !== this.marks) this.draw();
  }

  // Draws a box of cores, or all, at the next frame, once however often it is asked.
  draw(box = null) {
    this.stale.push(box);
    this.asked ??= requestAnimationFrame(() => {
      this.asked = null;
      this.drawNow();
    });
  }

  drawNow() {
    const ratio = window.devicePixelRatio || 1, [width, height] = this.size;
    let part = this.stale.includes(null) ? null : around(this.stale);
    this.stale = [];
    if (!width || !this.layer) return;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
      part = null;
    }
    const c = this.canvas.getContext("2d");
    c.save();
    c.setTransform(1, 0, 0, 1, 0, 0);
    if (part) clipTo(c, this.pixelsOf(part, ratio));
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.drawAll(c, width, height);
    c.restore();
    this.marks = clockMarks(this.page);
  }

  // The device's pixels that show a box of cores, with what smoothing mixes in: [left, top, width, height].
  pixelsOf([x, y, w, h], ratio) {
    const [left, top] = this.pixel(x, y).map((v) => Math.floor(v * ratio) - 2), [right, bottom] = this.pixel(x + w, y + h).map((v) => Math.ceil(v * ratio) + 2);
    return [left, top, right - left, bottom - top];
  }

  drawAll(c, width, height) {
    c.fillStyle = theme.stage;
    c.fillRect(0, 0, width, height);
    this.drawCores(c);
    for (const overlay of this.overlays) overlay(c, this);
    this.drawAxes(c, width, height);
  }

  drawCores(c) {
    const { wafer, plan } = this.page, { left, top, scale } = this, [x, y, w, h] = plan.box;
    c.fillStyle = theme.page;
    c.fillRect(left, top, wafer.width * scale, wafer.height * scale);
    c.strokeStyle = theme.line;
    c.lineWidth = 1;
    c.strokeRect(left - 0.5, top - 0.5, wafer.width * scale + 1, wafer.height * scale + 1);
    c.imageSmoothingEnabled = scale < 1;
    c.globalAlpha = state.layer === "links" && scale >= LINK_SCALE ? 0.2 : 1; // arrows say it then
    c.drawImage(this.layer.canvas, left + x * scale, top + y * scale, w * scale, h * scale);
    c.globalAlpha = 1;
    if (scale >= 7) this.drawLines(c);
    this.drawDead(c);
  }

  // The numbers of the first and last column and row in sight.
  get sight() {
    const { wafer } = this.page, [width, height] = this.size, { left, top, scale } = this;
    const within = (v, most) => Math.min(most, Math.max(0, v));
    return [within(Math.floor(-left / scale), wafer.width), within(Math.floor(-top / scale), wafer.height),
      within(Math.ceil((width - left) / scale), wafer.width), within(Math.ceil((height - top) / scale), wafer.height)];
  }

  drawLines(c) {
    const [x0, y0, x1, y1] = this.sight, { left, top, scale } = this;
    c.strokeStyle = theme.stage;
    c.lineWidth = 1;
    c.beginPath();
    for (let x = x0; x <= x1; x++) { c.moveTo(left + x * scale, top + y0 * scale); c.lineTo(left + x * scale, top + y1 * scale); }
    for (let y = y0; y <= y1; y++) { c.moveTo(left + x0 * scale, top + y * scale); c.lineTo(left + x1 * scale, top + y * scale); }
    c.stroke();
  }

  // Dead cores are crossed.
  drawDead(c) {
    const { wafer, dead } = this.page, { scale } = this, [x0, y0, x1, y1] = this.sight, side = Math.max(1, scale);
    c.fillStyle = theme.dead;
    c.strokeStyle = "#fff"; // dead cores are black by day and by night
    c.lineWidth = Math.max(1, scale / 14);
    for (const core of dead) {
      const cx = core % wafer.width, cy = Math.floor(core / wafer.width);
      if (cx < x0 || cy < y0 || cx >= x1 || cy >= y1) continue;
      const [x, y] = this.pixel(cx, cy);
      c.fillRect(x, y, side, side);
      if (scale < 7) continue;
      c.beginPath();
      c.moveTo(x + side * 0.25, y + side * 0.25); c.lineTo(x + side * 0.75, y + side * 0.75);
      c.moveTo(x + side * 0.75, y + side * 0.25); c.lineTo(x + side * 0.25, y + side * 0.75);
      c.stroke();
    }
  }

  // Coordinates along the top and the left, and a bar that says how long some cores are.
  drawAxes(c, width, height) {
    const { left, top, scale } = this, [x0, y0, x1, y1] = this.sight;
    c.font = "11px system-ui, sans-serif";
    c.fillStyle = theme.stage;
    c.globalAlpha = 0.88;
    c.fillRect(0, 0, width, 18);
    c.fillRect(0, 0, 40, height);
    c.globalAlpha = 1;
    c.fillStyle = theme.soft;
    const step = niceStep(52 / scale), middle = scale >= 3 ? scale / 2 : 0;
    c.textAlign = "center";
    c.textBaseline = "middle";
    for (let x = Math.ceil(x0 / step) * step; x < x1; x += step) {
      const px = left + x * scale + middle;
      if (px > 44) { c.fillText(x, px, 9); c.fillRect(px, 16, 1, 4); }
    }
    c.textAlign = "right";
    for (let y = Math.ceil(y0 / step) * step; y < y1; y += step) {
      const py = top + y * scale + middle;
      if (py > 22) { c.fillText(y, 34, py); c.fillRect(37, py, 4, 1); }
    }
    c.textAlign = "left";
    c.fillText("y \\ x", 6, 9);
    const cores = niceStep(90 / scale), long = cores * scale, words = plural(cores, "core");
    const at = width - long - 16;
    c.globalAlpha = 0.88;
    c.fillStyle = theme.stage;
    c.fillRect(at - 6, height - 30, long + 12, 26);
    c.globalAlpha = 1;
    c.fillStyle = theme.ink;
    c.fillRect(at, height - 10, long, 2);
    c.fillRect(at, height - 13, 1, 8);
    c.fillRect(at + long - 1, height - 13, 1, 8);
    c.textAlign = "center";
    c.fillText(words, at + long / 2, height - 20);
    c.textAlign = "left";
  }

  // -- where things are ----------------------------------------------------------------------

  pixel(x, y) {
    return [this.left + x * this.scale, this.top + y * this.scale];
  }

  middle(x, y) {
    return this.pixel(x + 0.5, y + 0.5);
  }

  // The core at a pixel, null outside the wafer.
  coreAt(px, py) {
    const x = Math.floor((px - this.left) / this.scale), y = Math.floor((py - this.top) / this.scale);
    const { wafer } = this.page;
    return x < 0 || y < 0 || x >= wafer.width || y >= wafer.height ? null : [x, y];
  }

  // -- what is in sight ------------------------------------------------------------------------

  // Shows a box of cores as large as fits.
  show([x, y, width, height], most = 72) {
    const [w, h] = this.size, room = [w - MARGIN.left - MARGIN.right, h - MARGIN.top - MARGIN.bottom];
    this.scale = Math.max(0.05, Math.min(room[0] / width, room[1] / height, most));
    this.left = MARGIN.left + (room[0] - width * this.scale) / 2 - x * this.scale;
    this.top = MARGIN.top + (room[1] - height * this.scale) / 2 - y * this.scale;
    this.draw();
  }

  showUsed() {
    change({ view: null });
    this.show(this.page.plan.box);
  }

  showWafer() {
    this.show([0, 0, this.page.wafer.width, this.page.wafer.height]);
    this.tellView();
  }

  showView([x, y, across]) {
    const [w, h] = this.size;
    this.scale = Math.min(MOST_SCALE, w / across);
    this.left = w / 2 - x * this.scale;
    this.top = h / 2 - y * this.scale;
    this.draw();
  }

  zoom(factor, px = this.size[0] / 2, py = this.size[1] / 2) {
    const next = Math.min(MOST_SCALE, Math.max(0.1, this.scale * factor)), ratio = next / this.scale;
    this.scale = next;
    this.move(px - (px - this.left) * ratio, py - (py - this.top) * ratio);
  }

  move(left, top) {
    this.left = left;
    this.top = top;
    this.draw();
    this.tellView();
  }

  // Moves so that a core is in sight.
  reveal(x, y) {
    const [px, py] = this.middle(x, y), [w, h] = this.size;
    if (px < MARGIN.left || py < MARGIN.top || px > w - MARGIN.right || py > h - MARGIN.bottom) this.move(this.left + w / 2 - px, this.top + h / 2 - py);
  }

  // What is in sight, to the digits that the address has: who opens that sees the same.
  tellView() {
    const [w, h] = this.size, view = [(w / 2 - this.left) / this.scale, (h / 2 - this.top) / this.scale, w / this.scale].map((v) => +v.toFixed(4));
    this.showView(view);
    change({ view });
  }
}

function clipTo(c, ...boxes) {
  c.beginPath();
  for (const box of boxes) c.rect(...box);
  c.clip();
}

// The least of 1, 2, 5, 10, 20, ... that is at least `v`.
function niceStep(v) {
  const unit = 10 ** Math.floor(Math.log10(Math.max(1, v)));
  return [1, 2, 5, 10].map((m) => m * unit).find((s) => s >= v) ?? 10 * unit;
}
