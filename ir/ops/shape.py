"""ONNX rules that move or reinterpret data: see `rearrange` for what they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..dtypes import by_onnx
from ..graph import InvalidModel, Unsupported
from ..op import Array, product
from ..rules import GraphBuilder, Spec, register
from .conversion import Where, cast
from .elementwise import apply, broadcast
from .index import gather_along
from .logic import Equal, GreaterOrEqual, LessOrEqual
from .rearrange import (
    Cut,
    concat,
    expand,
    integers,
    mirror,
    normal_axis,
    pad,
    reshape,
    slice_axis,
    slice_box,
    transpose,
)


def _axes_of(g: GraphBuilder, spec: Spec, rank: int) -> list[int] | None:
    """`axes` as attribute (before opset 13) or as input 1; None where omitted."""
    given = spec.attribute("axes")
    if given is None and spec.has(1):
        given = g.known(spec.inputs[1], f"{spec.op_type}'s axes")
    return None if given is None else [normal_axis(a, rank) for a in integers(given)]


def _transpose(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    x = spec.inputs[0]
    order = spec.attribute("perm", list(reversed(range(len(g.shape(x))))))
    return [transpose(g, x, integers(order), spec.outputs[0])]


def _reshape(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    x = spec.inputs[0]
    old = g.shape(x)
    wanted = integers(g.known(spec.inputs[1], "Reshape's shape"))
    if not spec.attribute("allowzero", 0):
        if any(n == 0 and i >= len(old) for i, n in enumerate(wanted)):
            raise InvalidModel(f"Reshape of {list(old)} to {wanted}: no dimension to take the 0 from")
        wanted = [old[i] if n == 0 else n for i, n in enumerate(wanted)]
    if wanted.count(-1) > 1 or min(wanted, default=0) < -1:
        raise InvalidModel(f"Reshape to {wanted}")
    if -1 in wanted:
        rest = product([n for n in wanted if n != -1])
        if rest == 0 or product(old) % rest:
            raise InvalidModel(f"Reshape of {list(old)} to {wanted}")
        wanted[wanted.index(-1)] = product(old) // rest
    return [reshape(g, x, wanted, spec.outputs[0])]


def _flatten(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    old = g.shape(spec.inputs[0])
    at = spec.attribute("axis", 1)
    at = at if at == len(old) else normal_axis(at, len(old))
    return [reshape(g, spec.inputs[0], (product(old[:at]), product(old[at:])), spec.outputs[0])]


def _squeeze(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    old = g.shape(spec.inputs[0])
    axes = _axes_of(g, spec, len(old))
    if axes is None:
        axes = [i for i, n in enumerate(old) if n == 1]
    if any(old[a] != 1 for a in axes):
        raise InvalidModel(f"Squeeze of axes {axes} of shape {list(old)}")
    return [reshape(g, spec.inputs[0], [n for i, n in enumerate(old) if i not in axes], spec.outputs[0])]


def _unsqueeze(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    old = list(g.shape(spec.inputs[0]))
    given = spec.attribute("axes")
    if given is None:
        given = g.known(spec.inputs[1], "Unsqueeze's axes")
    rank = len(old) + len(integers(given))
    axes = {normal_axis(a, rank) for a in integers(given)}
    if len(axes) != len(integers(given)):
        raise InvalidModel(f"Unsqueeze with repeated axes {integers(given)}")
    rest = iter(old)
    new = [1 if i in axes else next(rest) for i in range(rank)]
    return [reshape(g, spec.inputs[0], new, spec.outputs[0])]


def _slice(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    x = spec.inputs[0]
    shape = g.shape(x)
    if spec.opset < 10:
        starts, ends = spec.attribute("starts"), spec.attribute("ends")
        axes, steps = spec.attribute("axes"), None
    elif (at := _moving(g, spec)) is not None:
        return [at]
    else:
        names = ("starts", "ends", "axes", "steps")
        starts, ends, axes, steps = (
            g.known(spec.inputs[i], f"Slice's {n}") if spec.has(i) else None for i, n in enumerate(names, 1)
        )
    first, last = integers(starts), integers(ends)
    dims = [normal_axis(a, len(shape)) for a in (range(len(first)) if axes is None else integers(axes))]
    strides = [1] * len(first) if steps is None else integers(steps)
    if 0 in strides or not len(first) == len(last) == len(dims) == len(strides):
        raise InvalidModel(f"Slice from {first} to {last} with axes {dims} and steps {strides}")
    cuts = [Cut(0, 1, n) for n in shape]
    for d, lo, hi, step in zip(dims, first, last, strides, strict=True):
        cuts[d] = _cut(lo, hi, step, shape[d])
    moves = any(t and g.slope(t).any() for t in spec.inputs[1:3])
    return [slice_box(g, x, cuts, spec.outputs[0], moves)]


def _moving(g: GraphBuilder, spec: Spec) -> str | None:
    """A Slice of one axis whose start goes on with the positions in the caches: elements taken at places that
    do. None for any other."""
    x, size = spec.inputs[0], g.tensors[spec.inputs[1]].shape
    growth = g.measure(np.array(g.shape(x), np.int64))
    if size != (1,) or any(g.value(t) is None for t in spec.inputs[3:] if t):
        return None
    if any(g.value(t) is None and not g.slope(t).any() for t in spec.inputs[1:3]):
        return None
    (start, rises), (end, goes) = (
        tuple(int(v.reshape(())) for v in _line(g, t, "Slice's bounds")) for t in spec.inputs[1:3]
    )
    axes = integers(g.known(spec.inputs[3], "Slice's axes")) if spec.has(3) else [0]
    dim = normal_axis(axes[0], len(growth))
    whole, more = g.shape(x)[dim], int(growth[dim])
    start, rises = (start + whole, rises + more) if start < 0 else (start, rises)
    if not rises:
        return None
    end, goes = (end + whole, goes + more) if end < 0 else (end, goes)
    past_end = (end - whole, g.at_first(end - whole, goes - more))  # with full and with empty caches
    end, goes = (whole, more) if min(past_end) >= 0 else (end, goes)
    step = integers(g.known(spec.inputs[4], "Slice's steps")) if spec.has(4) else [1]
    if rises != goes or step != [1] or g.at_first(start, rises) < 0 or min(past_end) < 0 < max(past_end):
        raise Unsupported("Slice's number of elements changes with the number of positions in the caches")
    number = max(end - start, 0)
    places = g.sloping(start + np.arange(number), np.full(number, rises), spec.outputs[0])
    return gather_along(g, x, places, dim, spec.outputs[0])


def _cut(start: int, end: int, step: int, size: int) -> Cut:
    """ONNX's bounds: negative ones count from the end, then both are clamped to the dimension."""
    start, end = (v + size if v < 0 else v for v in (start, end))
    low, high = (0, size) if step > 0 else (-1, size - 1)
    start, end = min(max(start, 0), high), min(max(end, low), high if step < 0 else size)
    chosen = range(start, end, step)
    return Cut(chosen.start, step, len(chosen))


def _concat(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    rank = len(g.shape(spec.inputs[0]))
    if any(len(g.shape(t)) != rank for t in spec.inputs):
        raise InvalidModel("Concat of tensors of different rank")
    return [concat(g, spec.inputs, normal_axis(spec.attribute("axis", 1), rank), spec.outputs[0])]


def _split(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    x = spec.inputs[0]
    dim = normal_axis(spec.attribute("axis", 0), len(g.shape(x)))
    size = g.shape(x)[dim]
    sizes = spec.attribute("split")
    if sizes is None and spec.has(1):
        sizes = g.known(spec.inputs[1], "Split's sizes")
    if sizes is None:
        number = spec.attribute("num_outputs", len(spec.outputs))
        if number != len(spec.outputs):
            raise InvalidModel(f"Split into num_outputs {number}, but {len(spec.outputs)} outputs are named")
        each = -(-size // number)
        sizes = [max(0, min(each, size - i * each)) for i in range(number)]
    sizes = integers(sizes)
    if sum(sizes) != size or len(sizes) < len(spec.outputs):
        raise InvalidModel(f"Split of {size} into {sizes}")
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [
        slice_axis(g, x, dim, start, count, hint) if hint else ""
        for hint, start, count in zip(spec.outputs, starts, sizes, strict=False)
    ]


def _pad(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Widths, value and axes are attributes before opset 11, inputs since."""
    x, hint = spec.inputs[0], spec.outputs[0]
    rank = len(g.shape(x))
    if spec.opset < 11:
        widths, fill = integers(spec.attribute("pads")), spec.attribute("value", 0.0)
    else:
        widths = integers(g.known(spec.inputs[1], "Pad's widths"))
        fill = g.known(spec.inputs[2], "Pad's value").reshape(()).item() if spec.has(2) else 0.0
    dims = list(range(rank))
    if spec.has(3):
        dims = [normal_axis(a, rank) for a in integers(g.known(spec.inputs[3], "Pad's axes"))]
    if len(widths) != 2 * len(dims):
        raise InvalidModel(f"Pad with {len(widths)} widths for {len(dims)} axes")
    before, after = [0] * rank, [0] * rank
    for i, d in enumerate(dims):
        before[d], after[d] = widths[i], widths[len(dims) + i]
    mode = spec.attribute("mode", "constant")
    if mode == "constant":
        if float(fill) != fill:
            raise Unsupported(f"Pad with the value {fill}, which no float holds")
        return [pad(g, x, before, after, float(fill), hint)]
    if mode not in ("reflect", "edge", "wrap"):
        raise InvalidModel(f"Pad in mode {mode!r}")
    for d in range(rank):
        if before[d] or after[d]:
            x = mirror(g, x, mode, d, (before[d], after[d]), hint)
    return [x]


def _center_crop_pad(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """As much cut off or added before as after; of an odd number one more after."""
    x, rank = spec.inputs[0], len(g.shape(spec.inputs[0]))
    axes = spec.attribute("axes") or range(rank)
    before, after = [0] * rank, [0] * rank
    for a, n in zip(axes, integers(g.known(spec.inputs[1], "CenterCropPad's shape")), strict=True):
        d = normal_axis(a, rank)
        more = n - g.shape(x)[d]
        before[d] = abs(more) // 2 * (1 if more > 0 else -1)
        after[d] = more - before[d]
    return [pad(g, x, before, after, 0.0, spec.outputs[0])]


def _expand(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    wanted = integers(g.known(spec.inputs[1], "Expand's shape"))
    shape = broadcast(g.shape(spec.inputs[0]), tuple(wanted))
    return [expand(g, spec.inputs[0], shape, spec.outputs[0])]


def _tile(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """[a, b] repeated (r, s) times: [1, a, 1, b] expanded to [r, a, s, b], then merged."""
    x, hint = spec.inputs[0], spec.outputs[0]
    shape = g.shape(x)
    repeats = integers(g.known(spec.inputs[1], "Tile's repeats"))
    if len(repeats) != len(shape):
        raise InvalidModel(f"Tile of shape {list(shape)} by {repeats}")
    paired = reshape(g, x, [m for n in shape for m in (1, n)], hint)
    wide = expand(g, paired, [m for r, n in zip(repeats, shape, strict=True) for m in (r, n)], hint)
    return [reshape(g, wide, [r * n for r, n in zip(repeats, shape, strict=True)], hint)]


def _depth_to_space(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    n, c, h, w = g.shape(spec.inputs[0])
    s, hint = spec.attribute("blocksize"), spec.outputs[0]
    if c % (s * s):
        raise InvalidModel(f"DepthToSpace of {c} channels with blocks of {s}")
    if spec.attribute("mode", "DCR") == "DCR":
        split, order = (n, s, s, c // (s * s), h, w), (0, 3, 4, 1, 5, 2)
    else:
        split, order = (n, c // (s * s), s, s, h, w), (0, 1, 4, 2, 5, 3)
    blocks = transpose(g, reshape(g, spec.inputs[0], split, hint), order, hint)
    return [reshape(g, blocks, (n, c // (s * s), h * s, w * s), hint)]


def _space_to_depth(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    n, c, h, w = g.shape(spec.inputs[0])
    s, hint = spec.attribute("blocksize"), spec.outputs[0]
    if h % s or w % s:
        raise InvalidModel(f"SpaceToDepth of {h}x{w} with blocks of {s}")
    order = (0, 3, 5, 1, 2, 4) if spec.attribute("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    blocks = reshape(g, spec.inputs[0], (n, c, h // s, s, w // s, s), hint)
    return [reshape(g, transpose(g, blocks, order, hint), (n, c * s * s, h // s, w // s), hint)]


# -- constants and shapes ---------------------------------------------------------------


def _constant(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    kinds = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    value: Any = spec.attribute("value")
    for name, dtype in kinds.items():
        if spec.attribute(name) is not None:
            value = np.asarray(spec.attribute(name), dtype)
    if value is None:
        raise Unsupported("a Constant that is not a tensor of numbers")
    return [g.brought(np.asarray(value), spec.outputs[0])]


def _constant_of_shape(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    shape = integers(g.known(spec.inputs[0], "ConstantOfShape's shape"))
    value = np.asarray(spec.attribute("value", np.zeros(1, np.float32)))
    if min(shape, default=0) < 0:
        raise InvalidModel(f"ConstantOfShape of shape {shape}")
    if value.size != 1:
        raise InvalidModel(f"ConstantOfShape of {value.size} elements, the operator wants 1")
    return [expand(g, g.constant(value.reshape(())), shape, spec.outputs[0])]


def _shape(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    shape = g.shape(spec.inputs[0])
    part = shape[spec.attribute("start", 0) : spec.attribute("end")]
    return [g.measured(np.array(part, np.int64), spec.outputs[0])]


def _size(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    return [g.measured(np.array(product(g.shape(spec.inputs[0])), np.int64), spec.outputs[0])]


def _steps(start: Any, limit: Any, delta: Any) -> int:
    """ceil((limit - start) / delta): of integers exactly, whatever their distance."""
    if np.issubdtype(start.dtype, np.integer):
        return -((int(start) - int(limit)) // int(delta))
    with np.errstate(all="ignore"):
        steps = float(np.ceil((limit - start) / delta))
    if not np.isfinite(steps):
        raise InvalidModel(f"Range from {start} to {limit} by {delta}")
    return int(steps)


def _range(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    (start, rises), (limit, grows), (delta, changes) = (_bound(g, t) for t in spec.inputs)
    if delta == 0:
        raise InvalidModel("Range with a step of 0")
    more, rest = divmod(grows - rises, int(delta)) if grows != rises else (0, 0)
    if changes or rest:
        raise Unsupported("Range's steps depend on the length of the caches")
    number = g.counted(max(_steps(start, limit, delta), 0), more, "Range's number of elements")
    g.folding.need(number * 8, f"Range of {number:,} elements")
    value = (start + np.arange(number) * delta).astype(start.dtype)
    return [g.sloping(value, np.full(number, rises), spec.outputs[0])]


def _bound(g: GraphBuilder, name: str) -> tuple[Any, int]:
    """A bound of Range, and by how much it grows with each position in the caches."""
    value, slope = _line(g, name, "Range's bounds")
    return value.reshape(()), int(slope.reshape(()))


def _line(g: GraphBuilder, name: str, what: str) -> tuple[Array, Array]:
    """A parameter whose rule does with its slope what is right."""
    slope = g.slope(name)
    return g.constants[name] if slope.any() else g.known(name, what), slope


def _eye_like(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    rows, columns = g.shape(spec.inputs[0])
    dtype = by_onnx(spec.attribute("dtype")) if spec.attribute("dtype") else g.dtype(spec.inputs[0])
    if dtype is None:
        raise Unsupported(f"EyeLike of ONNX element type {spec.attribute('dtype')}")
    row, column = _places(g, rows, columns, int(spec.attribute("k", 0)))
    same = apply(g, Equal, [row, column], spec.outputs[0])
    return [cast(g, same, dtype, spec.outputs[0])]


def _places(g: GraphBuilder, rows: int, columns: int, offset: int) -> tuple[str, str]:
    """[rows, 1], the column of each row's diagonal, and [1, columns], the column."""
    row = g.folding.line(rows).reshape(-1, 1) + min(max(offset, -rows), columns)
    return g.constant(row), g.constant(g.folding.line(columns).reshape(1, -1))


def _trilu(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    x = spec.inputs[0]
    known = g.known(spec.inputs[1], "Trilu's k") if spec.has(1) else np.zeros((), np.int64)
    if known.size != 1 or len(g.shape(x)) < 2:
        raise InvalidModel(f"Trilu of {g.tensors[x]} with {known.size} numbers as k")
    offset = int(known.reshape(()))
    rows, columns = g.shape(x)[-2:]
    row, column = _places(g, rows, columns, offset)
    kind = GreaterOrEqual if spec.attribute("upper", 1) else LessOrEqual
    keep = apply(g, kind, [column, row], spec.outputs[0])
    zero = g.constant(np.zeros((), g.dtype(x).numpy))
    return [apply(g, Where, [keep, x, zero], spec.outputs[0])]


register("Transpose", _transpose, 1)
register("Reshape", _reshape, 5, limits="shape known")
register("Flatten", _flatten, 1)
register("Squeeze", _squeeze, 1, limits="axes known")
register("Unsqueeze", _unsqueeze, 1, limits="axes known")
register("Slice", _slice, 1, limits="starts, ends, axes, steps known")
register("Concat", _concat, 4)
register("Split", _split, 2, limits="sizes known")
register("Pad", _pad, 2, limits="widths, value and axes known")
register("CenterCropPad", _center_crop_pad, 18, limits="shape known")
register("Expand", _expand, 8, limits="shape known")
register("Tile", _tile, 6, limits="repeats known")
register("DepthToSpace", _depth_to_space, 1)
register("SpaceToDepth", _space_to_depth, 1)
register("Constant", _constant, 1, limits="numbers only")
register("ConstantOfShape", _constant_of_shape, 9, limits="shape known")
register("Shape", _shape, 1)
register("Size", _size, 1)
register("Range", _range, 11, limits="bounds known")
register("EyeLike", _eye_like, 9)
register("Trilu", _trilu, 14, limits="k known")
