"""Products and look-ups of constants that onnxruntime keeps in a few bits: blocks of them share a scale.

What is left is the standard's DequantizeLinear of a constant in blocks, `StoredBits`, of which a pass makes
words in the kernels' order (`compiler/passes/packed_weights.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..absent import folded, lacking
from ..dtypes import F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, I4, I32, I64, U2, U4, U8, DType
from ..graph import Unsupported
from ..op import Array, product
from ..rules import GraphBuilder, Spec
from ..stored_bits import StoredBits, bits_apart, give_back
from .contract import product_of
from .contrib import FLOATS, Writer, contrib, need, operand, shaped
from .conversion import cast
from .elementwise import Add, Mul, Sub
from .rearrange import expand, normal_axis, reshape, transpose

STORED = {2: U2, 4: U4, 8: U8}  # by bits
LEAST_BLOCK = 16

# What the 16 codes of bitsandbytes' types stand for, as its source lists them.
FP4 = (0, 0.00520833333, 0.66666667, 1, 0.33333333, 0.5, 0.16666667, 0.25)
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023,
    1.0,
)  # fmt: skip


def remade(w: Writer, name: str, shape: Sequence[int], dtype: DType, make: Callable[[Array], Array]) -> str:
    """A constant made of another one's values, once for all graphs of the model; absent where that is."""
    value = w.g.known(name, "what is packed")
    if (lack := lacking([value])) is not None:
        return w.g.constant(folded(lack, name, shape, dtype.numpy), name)
    # By its place in memory, where it stays: it is kept with what is made of it.
    key = (value.__array_interface__["data"][0], value.shape, tuple(shape), dtype, make.__code__)
    if key not in w.g.remade:
        made = make(value).astype(dtype.numpy).reshape(tuple(shape))
        w.g.remade[key] = np.ascontiguousarray(made), value
        give_back(value)
    return w.g.constant(w.g.remade[key][0], name)


def numbers_of(
    w: Writer, name: str, rows: Sequence[int], numbers: int, dtype: DType, order: Sequence[int]
) -> str:
    """The numbers of a constant of bytes, [rows, bytes], once for all graphs of the model.

    numbers: those that are meant of each row. order: the dimensions' order in the result.
    """
    value = w.g.known(name, "what is packed")
    if (lack := lacking([value])) is not None:
        whole = (*rows, numbers)
        return w.g.constant(folded(lack, name, [whole[d] for d in order], dtype.numpy), name)
    key = (value.__array_interface__["data"][0], value.shape, tuple(rows), numbers, dtype, tuple(order))
    if key not in w.g.remade:
        source = value.reshape(*rows, int(product(value.shape[len(rows) :])))
        made: Any = StoredBits(source, dtype.bits, numbers, order, dtype.numpy)
        w.g.remade[key] = made, value
    return w.g.constant(w.g.remade[key][0], name)


def turned(w: Writer, name: str, shape: Sequence[int], order: Sequence[int]) -> str:
    """A tensor in another shape, its dimensions then in another order; a constant once for all graphs."""
    g = w.g
    if g.value(name) is None or g.follows_length(name):
        return transpose(g, reshape(g, name, shape, w.hint), order, w.hint)
    out = [shape[d] for d in order]
    return remade(w, name, out, g.dtype(name), lambda s: s.reshape(tuple(shape)).transpose(order))


def judge_block(op_type: str, size: int) -> None:
    """Raises InvalidModel for a block that is none."""
    need(
        size >= LEAST_BLOCK and size & (size - 1) == 0,
        f"{op_type}: block_size {size} is no power of 2 from 16 on",
    )


def _bits(own_type: str, bits: int) -> DType:
    stored = STORED.get(bits)
    if stored is None:
        raise Unsupported(f"{own_type} of {bits} bits; known are {', '.join(map(str, STORED))}")
    return stored


@contrib("MatMulNBits", "A:T1 B:T2 scales:T1 zero_points:T3? g_idx:T4? bias:T1? -> Y:T1",
         {"T1": FLOATS, "T2": (U8,), "T3": (U8, *FLOATS), "T4": (I32,)},
         {"K": int, "N": int, "bits": 4, "block_size": int, "accuracy_level": 0, "weight_prepacked": 0},
         limits="weights constant; computed as accuracy_level 0 is")  # fmt: skip
def _product_of_bits(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """A times constants of few bits, [N, blocks, bytes]; each block along K has a scale and a zero point."""
    w, own = Writer(g, spec.outputs[0]), spec.attributes
    x, packed = spec.inputs[:2]
    depth, columns, size = own["K"], own["N"], own["block_size"]
    judge_block(spec.op_type, size)
    need(depth > 0 and columns > 0, f"MatMulNBits of K {depth} and N {columns}")
    need(len(g.shape(x)) > 0 and g.shape(x)[-1] == depth, f"MatMulNBits: A is {g.tensors[x]}, K is {depth}")
    if own["weight_prepacked"]:
        raise Unsupported("weights that are packed for one machine")
    stored, blocks = _bits(spec.op_type, own["bits"]), -(-depth // size)
    if 0 in g.shape(packed):
        out = w.constant(np.zeros((*g.shape(x)[:-1], columns), g.dtype(x).numpy))
    else:
        shaped(g, packed, columns, blocks, size * own["bits"] // 8, name="B")
        numbers = numbers_of(w, packed, (columns,), depth, stored, (1, 0))
        weights = _weights(w, spec, numbers, blocks)
        out = product_of(
            g,
            (x, ["m", "k"] if len(g.shape(x)) > 1 else ["k"]),
            (weights, ["k", "n"]),
            w.hint,
            g.dtype(x).wide,
        )
    if bias := operand(spec, 5):
        shaped(g, bias, columns, name="bias")
        out = w.apply(Add, out, w.wide(bias))
    return [out]


def _weights(w: Writer, spec: Spec, numbers: str, blocks: int) -> str:
    """The floats that a MatMulNBits' [K, N] numbers stand for."""
    g, own = w.g, spec.attributes
    columns, size = own["N"], own["block_size"]
    need(
        int(np.prod(g.shape(spec.inputs[2]))) == columns * blocks,
        f"scales are {g.tensors[spec.inputs[2]]}, not [{columns}, {blocks}]",
    )
    scales = turned(w, spec.inputs[2], (columns, blocks), (1, 0))
    zeros = _zeros(w, spec, blocks)
    at = operand(spec, 4)
    if not at and not g.dtype(zeros).is_float:
        return w("DequantizeLinear", numbers, scales, zeros, axis=0, block_size=size)
    # zero points between numbers, or a block for each row: a scale and a zero point for each element
    places: Array = np.arange(own["K"], dtype=np.int64) // size
    if at:
        shaped(g, at, own["K"], name="g_idx")
        places = g.known(at, "g_idx")
    at_rows = w.constant(places.astype(np.int64))
    scales, zeros = (w("Gather", t, at_rows, axis=0) if g.shape(t) else t for t in (scales, zeros))
    like = g.dtype(scales)
    return w.apply(Mul, w.apply(Sub, cast(g, numbers, like), cast(g, zeros, like)), scales)


def _zeros(w: Writer, spec: Spec, blocks: int) -> str:
    """A MatMulNBits' zero points: [blocks, N], given in bits or as floats, or half of the range, one for
    all."""
    g, own, given = w.g, spec.attributes, operand(spec, 3)
    columns, bits = own["N"], own["bits"]
    if not given:
        return w.constant(np.asarray(1 << (bits - 1)).astype(STORED[bits].numpy))
    count = int(np.prod(g.shape(given)))
    if g.dtype(given).is_float:
        need(count == columns * blocks, f"zero_points are {g.tensors[given]}, not [{columns}, {blocks}]")
        return transpose(g, reshape(g, given, (columns, blocks), w.hint), (1, 0), w.hint)
    room = -(-blocks * bits // 8)
    need(count == columns * room, f"zero_points are {g.tensors[given]}, not [{columns}, {room}]")
    return remade(
        w, given, (blocks, columns), STORED[bits],
        lambda z: bits_apart(z.reshape(columns, room), bits)[:, :blocks].T,
    )  # fmt: skip


FP8 = (F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ)


@contrib("GatherBlockQuantized", "data:T1 indices:I scales:T2 zero_points:T1? -> output:T2",
         {"T1": (I4, U4, U8, *FP8), "T2": FLOATS, "I": (I32, I64)},
         {"bits": 4, "block_size": 128, "gather_axis": 0, "quantize_axis": 1},
         limits="data packed in bytes constant")  # fmt: skip
def _gather_blocks(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Gather of numbers in blocks, their scales and zero points, and then what they stand for."""
    w, own = Writer(g, spec.outputs[0]), spec.attributes
    data, indices, scales = spec.inputs[:3]
    rank, zeros = len(g.shape(data)), operand(spec, 3)
    along, over = normal_axis(own["gather_axis"], rank), normal_axis(own["quantize_axis"], rank)
    if g.dtype(data) == U8:
        bits = own["bits"]
        stored = _bits(spec.op_type, bits)
        need(
            along == 0 and over != 0,
            "GatherBlockQuantized of bytes along dimension 0, in blocks along another",
        )
        data = _unpacked(w, data, g.shape(data)[-1] * 8 // bits, stored, bits)
        wanted = g.shape(scales)[-1]
        stays = all(g.value(t) is not None for t in (data, scales))  # then one for all
        half = np.full(() if stays else g.shape(scales), 1 << (bits - 1)).astype(stored.numpy)
        zeros = _unpacked(w, zeros, wanted, stored, bits) if zeros else w.constant(half)
    shape = g.shape(data)
    size = own["block_size"] or shape[over]
    if own["block_size"] or not g.dtype(data).is_float:
        judge_block(spec.op_type, size)
    each = tuple(-(-n // size) if i == over else n for i, n in enumerate(shape))
    need(
        len(g.shape(scales)) == rank and all(n in (1, m) for n, m in zip(g.shape(scales), each, strict=True)),
        f"scales are {g.tensors[scales]}, not {list(each)}",
    )
    scales = expand(g, scales, each, w.hint)
    if operand(spec, 3):
        need(g.shape(zeros) == each, f"zero_points are {g.tensors[zeros]}, not {list(each)}")
    parts = [data, scales, *([zeros] if zeros else [])]
    if along == over or all(g.value(t) is not None for t in parts):  # a table that stays packed
        whole = w("DequantizeLinear", *parts, axis=over, block_size=size)
        return [w("Gather", whole, indices, axis=along)]
    taken = [w("Gather", t, indices, axis=along) for t in parts]
    at = over + (len(g.shape(indices)) - 1 if over > along else 0)
    return [w("DequantizeLinear", *taken, axis=at, block_size=size)]


def _unpacked(w: Writer, packed: str, count: int, stored: DType, bits: int) -> str:
    """Bytes' numbers, `count` along the last dimension."""
    shape = w.g.shape(packed)
    need(
        -(-count * bits // 8) == shape[-1],
        f"{w.g.tensors[packed]} for {count} numbers of {bits} bits in a row",
    )
    return numbers_of(w, packed, shape[:-1], count, stored, range(len(shape)))


@contrib("MatMulBnb4", "A:T1 B:T2 absmax:T1 -> Y:T1", {"T1": FLOATS, "T2": (U8,)},
         {"K": int, "N": int, "block_size": int, "quant_type": int, "training_mode": 0, "transB": 1},
         limits="B constant")  # fmt: skip
def _product_of_codes(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """A times constants of 4 bits, codes of bitsandbytes' types, the high bits of a byte first."""
    w, own = Writer(g, spec.outputs[0]), spec.attributes
    x, packed, largest = spec.inputs
    depth, columns, size = own["K"], own["N"], own["block_size"]
    judge_block(spec.op_type, size)
    need(own["quant_type"] in (0, 1) and depth > 0 and columns > 0, f"quant_type {own['quant_type']}")
    need(len(g.shape(x)) > 0 and g.shape(x)[-1] == depth, f"MatMulBnb4: A is {g.tensors[x]}, K is {depth}")
    count = depth * columns
    shaped(g, packed, -(-count // 2), name="B")
    shaped(g, largest, -(-count // size), name="absmax")
    if not own["transB"]:
        raise Unsupported("transB 0, which onnxruntime's CPU does not have either")
    table = np.array(NF4 if own["quant_type"] else [*FP4, *(-v for v in FP4)], np.float32)
    codes = remade(w, packed, (count,), U8, lambda b: np.stack([b >> 4, b & 15], -1).reshape(-1)[:count])
    values = w("Gather", w.constant(table), cast(g, codes, I32), axis=0)
    scales = w("Gather", w.wide(largest), w.constant(np.arange(count, dtype=np.int64) // size), axis=0)
    weights = reshape(g, w.apply(Mul, values, scales), (columns, depth), w.hint)
    weights = cast(g, transpose(g, weights, (1, 0), w.hint), g.dtype(x))
    left = ["m", "k"] if len(g.shape(x)) > 1 else ["k"]
    return [product_of(g, (x, left), (weights, ["k", "n"]), w.hint, g.dtype(x).wide)]
