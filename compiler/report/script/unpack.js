// The page's data: base64, deflate, and tables that are stored as differences (report/tables.py).

// Inflates zlib data (RFC 1950, 1951) where the browser has no DecompressionStream.
function inflate(bytes) {
  const BASE_LENGTH = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
  const MORE_LENGTH = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
  const BASE_DISTANCE = [1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577];
  const MORE_DISTANCE = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];
  const ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
  let at = 2, hold = 0, held = 0; // after zlib's two bytes
  let out = new Uint8Array(bytes.length * 8 + 1024), size = 0;

  const room = (n) => {
    if (size + n <= out.length) return;
    const more = new Uint8Array(Math.max(out.length * 2, size + n));
    more.set(out);
    out = more;
  };
  const bits = (n) => {
    while (held < n) { hold |= bytes[at++] << held; held += 8; }
    const value = hold & ((1 << n) - 1);
    hold >>>= n;
    held -= n;
    return value;
  };
  // A code by its lengths: how many codes each length has, and the symbols in their order.
  const tree = (lengths) => {
    const count = new Uint16Array(16), next = new Uint16Array(16), symbols = new Uint16Array(lengths.length);
    for (const n of lengths) count[n]++;
    count[0] = 0;
    for (let i = 1; i < 16; i++) next[i] = next[i - 1] + count[i - 1];
    lengths.forEach((n, symbol) => { if (n) symbols[next[n]++] = symbol; });
    return { count, symbols };
  };
  const symbol = ({ count, symbols }) => {
    let code = 0, first = 0, index = 0;
    for (let length = 1; length < 16; length++) {
      code |= bits(1);
      if (code - count[length] < first) return symbols[index + code - first];
      index += count[length];
      first = (first + count[length]) << 1;
      code <<= 1;
    }
    throw new Error("damaged data");
  };
  const fixed = [tree([...Array(144).fill(8), ...Array(112).fill(9), ...Array(24).fill(7), ...Array(8).fill(8)]), tree(Array(30).fill(5))];
  const dynamic = () => {
    const literals = bits(5) + 257, distances = bits(5) + 1, codes = bits(4) + 4;
    const lengths = Array(19).fill(0);
    for (let i = 0; i < codes; i++) lengths[ORDER[i]] = bits(3);
    const code = tree(lengths), all = [];
    while (all.length < literals + distances) {
      const s = symbol(code);
      if (s < 16) all.push(s);
      else if (s === 16) { const last = all[all.length - 1]; for (let n = 3 + bits(2); n; n--) all.push(last); }
      else for (let n = s === 17 ? 3 + bits(3) : 11 + bits(7); n; n--) all.push(0);
    }
    return [tree(all.slice(0, literals)), tree(all.slice(literals))];
  };

  for (let last = 0; !last;) {
    last = bits(1);
    const kind = bits(2);
    if (kind === 0) {
      hold = held = 0;
      const n = bytes[at] | (bytes[at + 1] << 8);
      room(n);
      out.set(bytes.subarray(at + 4, at + 4 + n), size);
      at += 4 + n;
      size += n;
      continue;
    }
    const [literal, distance] = kind === 1 ? fixed : dynamic();
    for (let s = symbol(literal); s !== 256; s = symbol(literal)) {
      room(258);
      if (s < 256) { out[size++] = s; continue; }
      const length = BASE_LENGTH[s - 257] + bits(MORE_LENGTH[s - 257]), d = symbol(distance);
      const back = BASE_DISTANCE[d] + bits(MORE_DISTANCE[d]);
      for (let i = 0; i < length; i++, size++) out[size] = out[size - back];
    }
  }
  return out.slice(0, size).buffer;
}

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text.trim()), (c) => c.charCodeAt(0));
  if (typeof DecompressionStream !== "function") return inflate(bytes);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
}

// The JSON and the early tables of the first part.
function headOf(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const data = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const tables = new Tables(data.tables);
  tables.read(buffer, 4 + length + (-length & 3), 1);
  return { data, tables };
}

const MOST_KEPT = 1 << 25; // elements of tables that stay expanded

// Integer tables by number. Those of the second part are there once it is read.
class Tables {
  constructor(shapes) {
    this.shapes = shapes;
    this.raw = [];
    this.open = new Map(); // expanded ones, those used last at the end
    this.kept = 0;
  }

  // The tables of one part, which stand in `buffer` from `offset` on.
  read(buffer, offset, early) {
    this.shapes.forEach(([rows, columns, width, first], i) => {
      if (first !== early) return;
      this.raw[i] = { buffer, offset };
      const bytes = rows * columns * width;
      offset += width === 8 ? bytes : bytes + (-bytes & 3);
    });
  }

  // The elements of a table, row by row.
  get(number) {
    const known = this.open.get(number);
    if (known) {
      this.open.delete(number);
      this.open.set(number, known);
      return known;
    }
    const values = this.expand(number);
    this.open.set(number, values);
    this.kept += values.length;
    for (const [old, table] of this.open) {
      if (this.kept <= MOST_KEPT || old === number) break;
      this.open.delete(old);
      this.kept -= table.length;
    }
    return values;
  }

  expand(number) {
    const [rows, columns, width] = this.shapes[number], { buffer, offset } = this.raw[number], n = rows * columns;
    if (width < 8) {
      const Kind = { 1: Int8Array, 2: Int16Array, 4: Int32Array }[width];
      return summed(new Kind(buffer, offset, n), rows, columns);
    }
    const low = summed(new Int32Array(buffer, offset, n), rows, columns);
    const high = summed(new Int32Array(buffer, offset + 4 * n, n), rows, columns);
    return Float64Array.from(low, (v, i) => high[i] * 4294967296 + (v >>> 0));
  }
}

// From differences along columns, then rows, to the values; modulo 2^32.
function summed(differences, rows, columns) {
  const out = new Int32Array(rows * columns);
  for (let j = 0, i = 0; j < rows; j++) {
    for (let c = 0, left = 0; c < columns; c++, i++) {
      left = (left + differences[i]) | 0;
      out[i] = j ? (out[i - columns] + left) | 0 : left;
    }
  }
  return out;
}
