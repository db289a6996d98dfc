// A plan on its wafer: where the cores of regions, steps and buffers are, and when they compute.

const DIRECTIONS = ["east", "west", "south", "north"];
const TOWARDS = { east: [1, 0], west: [-1, 0], south: [0, 1], north: [0, -1] };

class Plan {
  constructor(data, number, wafer, tables) {
    Object.assign(this, data);
    this.number = number; // of the entry
    this.wafer = wafer;
    this.tables = tables;
    this.inverse = new Map(); // of regions that are not regular: place by core
    this.boxed = new Map(); // and the boxes of grids on them
    this.steps.forEach((s, i) => {
      s.number = i;
      s.received = [...s.operands.flatMap((o) => o.moves.map((m) => ({ ...m, tensor: o.tensor }))),
        ...s.moves.map((m) => ({ ...m, tensor: s.tensor }))];
      s.received.forEach((m, k) => Object.assign(m, { step: i, k }));
    });
    this.readers = this.steps.map(() => []);
    for (const s of this.steps) {
      const heard = new Set([...s.operands.filter((o) => !o.moves.length).map((o) => o.writer), ...s.received.map((m) => m.writer)]);
      for (const w of heard) if (w >= 0) this.readers[w].push(s.number);
    }
    this.buffers.forEach((b, i) => { b.number = i; });
    this.nodes = this.byName((s) => (s.nodes.length ? s.nodes : s.kind === "input" ? [] : [s.name]), this.steps);
    this.tensors = this.byName((b) => [b.name], this.buffers);
    for (const s of this.steps) for (const t of [s.tensor, ...s.operands.map((o) => o.tensor)]) if (!this.tensors.has(t)) this.tensors.set(t, []);
  }

  byName(names, things) {
    const out = new Map();
    for (const thing of things) for (const n of names(thing)) out.set(n, [...(out.get(n) ?? []), thing]);
    return out;
  }

  // -- places ---------------------------------------------------------------------------

  // The number of the physical core in a column and row of a region's grid.
  core(region, [, , x, y, dx, dy], column, row) {
    const r = this.regions[region], i = x + column * dx, j = y + row * dy;
    return r.cores < 0 ? (r.box[1] + j) * this.wafer.width + r.box[0] + i : this.tables.get(r.cores)[j * r.columns + i];
  }

  // [column, row] of a core in a region's grid, null where the grid does not have it.
  place(region, [columns, rows, x, y, dx, dy], core) {
    const at = this.inRegion(region, core);
    if (!at) return null;
    const i = at[0] - x, j = at[1] - y;
    if (i < 0 || j < 0 || i % dx || j % dy || i / dx >= columns || j / dy >= rows) return null;
    return [i / dx, j / dy];
  }

  // [column, row] of a core in a region, its spare and dead cores left out.
  inRegion(region, core) {
    const r = this.regions[region], { width } = this.wafer;
    if (r.cores < 0) {
      const i = (core % width) - r.box[0], j = Math.floor(core / width) - r.box[1];
      return i < 0 || j < 0 || i >= r.columns || j >= r.rows ? null : [i, j];
    }
    if (!this.inverse.has(region)) {
      const of = new Map();
      this.tables.get(r.cores).forEach((c, n) => of.set(c, n));
      this.inverse.set(region, of);
    }
    const n = this.inverse.get(region).get(core);
    return n === undefined ? null : [n % r.columns, Math.floor(n / r.columns)];
  }

  // What the cost model takes as the wafer's coordinates of a grid's columns, and rows.
  columnsOf(region, [columns, , x, , dx]) {
    const r = this.regions[region], along = r.cores < 0 ? null : this.tables.get(r.along_x);
    return Int32Array.from({ length: columns }, (_, i) => (along ? along[x + i * dx] : r.box[0] + x + i * dx));
  }

  rowsOf(region, [, rows, , y, , dy]) {
    return Int32Array.from({ length: rows }, (_, j) => this.regions[region].box[1] + y + j * dy);
  }

  // The box [x, y, width, height] around a grid's cores.
  boxOf(region, grid) {
    const r = this.regions[region], [columns, rows, x, y, dx, dy] = grid, key = `${region} ${grid}`;
    if (r.cores < 0) return [r.box[0] + x, r.box[1] + y, (columns - 1) * dx + 1, (rows - 1) * dy + 1];
    if (this.boxed.has(key)) return this.boxed.get(key);
    let x0 = Infinity, y0 = Infinity, x1 = -1, y1 = -1;
    for (let j = 0; j < rows; j++) {
      for (let i = 0; i < columns; i++) {
        const [cx, cy] = this.xy(this.core(region, grid, i, j));
        x0 = Math.min(x0, cx); x1 = Math.max(x1, cx); y0 = Math.min(y0, cy); y1 = Math.max(y1, cy);
      }
    }
    this.boxed.set(key, [x0, y0, x1 - x0 + 1, y1 - y0 + 1]);
    return this.boxed.get(key);
  }

  xy(core) {
    return [core % this.wafer.width, Math.floor(core / this.wafer.width)];
  }

  numberOf(x, y) {
    return y * this.wafer.width + x;
  }

  // A value of a table over the plan's box; `none` outside.
  at(table, x, y, none = 0) {
    const [x0, y0, width, height] = this.box;
    if (x < x0 || y < y0 || x >= x0 + width || y >= y0 + height) return none;
    return this.tables.get(table)[(y - y0) * width + x - x0];
  }

  // -- times ------------------------------------------------------------------------------

  hasTile(step, column, row) {
    return step.mask < 0 || this.tables.get(step.mask)[row * step.grid[0] + column] !== 0;
  }

  startAt(step, column, row) {
    return step.base + this.tables.get(step.start)[row * step.grid[0] + column];
  }

  endAt(step, column, row) {
    const i = row * step.grid[0] + column;
    return step.base + this.tables.get(step.start)[i] + this.tables.get(step.long)[i];
  }

  // What runs on a core, in schedule order: {step, column, row, start, end}.
  running(core) {
    const out = [];
    for (const step of this.steps) {
      const at = this.place(step.region, step.grid, core);
      if (!at || !this.hasTile(step, ...at)) continue;
      out.push({ step, column: at[0], row: at[1], start: this.startAt(step, ...at), end: this.endAt(step, ...at) });
    }
    return out;
  }

  // Calls f(pixel, n, first) for runs of a step's cores that have tiles: n pixels of the plan's box from `pixel` on,
  // whose times and tiles are those from `first` on in the step's tables.
  eachRun(step, f) {
    const [columns, rows, x, y, dx, dy] = step.grid, mask = step.mask < 0 ? null : this.tables.get(step.mask), r = this.regions[step.region];
    const own = r.cores < 0 ? null : this.tables.get(r.cores), wide = this.wafer.width, [x0, y0, width] = this.box;
    for (let j = 0, i = 0; j < rows; j++) {
      let pixel = (r.box[1] + y + j * dy - y0) * width + r.box[0] + x - x0;
      if (dx === 1 && own === null && mask === null) {
        f(pixel, columns, i);
        i += columns;
        continue;
      }
      for (let c = 0; c < columns; c++, i++, pixel += dx) {
        if (mask !== null && mask[i] === 0) continue;
        if (own !== null) {
          const core = own[(y + j * dy) * r.columns + x + c * dx], row = Math.floor(core / wide);
          pixel = (row - y0) * width + core - row * wide - x0;
        }
        f(pixel, 1, i);
      }
    }
  }

  // The number of the critical path's leg that is under way at a cycle, the last one behind all.
  legAt(cycle) {
    let low = 0, high = this.path.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (cycle < this.path[middle].end) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  // The step that kept a core busy until a cycle; null for none.
  busyUntil(core, cycle, besides) {
    const found = this.running(core).filter((t) => t.step.number < besides && t.step.kind !== "input" && t.end > t.start && Math.abs(t.end - cycle) <= 1);
    return found.length ? found[found.length - 1].step : null;
  }

  // -- memory ------------------------------------------------------------------------------

  buffersAt(core) {
    const out = [];
    for (const buffer of this.buffers) {
      const at = this.place(buffer.region, buffer.grid, core);
      if (at) out.push({ buffer, column: at[0], row: at[1] });
    }
    return out.sort((a, b) => a.buffer.address - b.buffer.address || a.buffer.number - b.buffer.number);
  }

  // [lo, hi] of each dimension of the tensor that a core holds; null where nobody says.
  held(buffer, column, row) {
    if (!buffer.layout) return null;
    return buffer.layout.map((dimension) => {
      const [x, y, lo, hi] = dimension.map((t) => this.tables.get(t)), p = x[column] + y[row];
      return [lo[p], hi[p]];
    });
  }

  // Which of a buffer's different boxes each core has: a number below `count`, by row and column.
  boxes(buffer) {
    const [columns, rows] = buffer.grid, out = new Int32Array(columns * rows);
    if (!buffer.layout) return { of: out, count: 1 };
    const known = new Map(), dims = buffer.layout.map((d) => d.map((t) => this.tables.get(t)));
    for (let j = 0, i = 0; j < rows; j++) {
      for (let c = 0; c < columns; c++, i++) {
        let key = 0, empty = false;
        for (const [x, y, lo, hi] of dims) {
          const p = x[c] + y[j];
          key = key * lo.length + p;
          empty ||= hi[p] <= lo[p];
        }
        if (!known.has(key)) known.set(key, empty ? -1 : known.size);
        out[i] = known.get(key);
      }
    }
    return { of: out, count: new Set([...known.values()].filter((v) => v >= 0)).size };
  }

  codeAt(core) {
    return this.regions.reduce((most, r, i) => (this.inRegion(i, core) ? Math.max(most, r.code) : most), 0);
  }

  // -- words -------------------------------------------------------------------------------

  label(step) {
    return brief(step.nodes.length > 1 ? `${step.name} +${step.nodes.length - 1}` : step.name, 60);
  }
}
