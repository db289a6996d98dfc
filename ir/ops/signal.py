"""Fourier transforms as products with constant matrices of cosines and sines, and mel weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..affine import Access, Affine, axis
from ..dtypes import by_onnx
from ..folding import judge_made
from ..graph import InvalidModel, Unsupported
from ..op import Array, identity
from ..rules import GraphBuilder, Spec, judge_size, register
from .contract import Contract
from .conversion import rounded_once
from .elementwise import Mul, apply, scalar_constant
from .rearrange import normal_axis, reshape, slice_axis

CONJUGATE = np.array([[1, -1], [-1, 1]])  # signs of a table's [parts, 2] that change with that of the angle


def _turns(rows: int, columns: int, length: int) -> Array:
    """The angles 2 pi i j / length, [rows, columns]; whole turns are left out before rounding."""
    steps = np.arange(rows)[:, None] * np.arange(columns) % length
    return 2 * np.pi / length * steps


def _forward(terms: int, parts: int, bins: int, length: int) -> Array:
    """[terms, parts, bins, 2]: exp(-i angle) of each term's real part and, with two parts, imaginary one."""
    judge_made(8 * 2 * parts * terms * bins, f"a table of {terms:,} by {bins:,} angles")
    angle = _turns(terms, bins, length)
    real = np.stack([np.cos(angle), -np.sin(angle)], axis=-1)
    imaginary = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
    return np.stack([real, imaginary][:parts], axis=1)


def _inverse(terms: int, parts: int, length: int) -> Array:
    """[terms, parts, length, 2]: exp(i angle) / length."""
    return _forward(terms, parts, length, length) * CONJUGATE[:parts, None] / length


def _inverse_real(terms: int, parts: int, length: int) -> Array:
    """[terms, parts, length, 1]: the real part of `_inverse` of bins whose conjugates are not given."""
    whole = _inverse(terms, parts, length)[..., :1]
    bins = np.arange(terms)
    twice = np.where((bins == 0) | (2 * bins == length), 1, 2)
    return whole * twice[:, None, None, None]


def _split(length: int) -> int:
    """The largest factor of `length` that is not past its root."""
    return max(n for n in range(1, int(length**0.5) + 1) if length % n == 0)


def _transform(g: GraphBuilder, x: str, dim: int, terms: int, table: Array, hint: str) -> str:
    """The first `terms` elements along `dim`, and parts along the last dimension, times table[j, c, k, r]."""
    shape = g.shape(x)
    names = [f"d{i}" for i in range(len(shape) - 1)]
    kept = [(a, shape[i]) for i, a in enumerate(names) if i != dim]
    op = Contract(
        axes=(*kept, ("k", table.shape[2]), ("r", table.shape[3]), ("j", terms), ("c", shape[-1])),
        reads=(identity([*names[:dim], "j", *names[dim + 1 :], "c"]), identity(["j", "c", "k", "r"])),
        write=identity([*names[:dim], "k", *names[dim + 1 :], "r"]),
        in_types=(g.dtype(x),) * 2,
        out_type=g.dtype(x),
    )
    result = [*shape[:dim], table.shape[2], *shape[dim + 1 : -1], table.shape[3]]
    return g.emit(op, [x, g.constant(table.astype(g.dtype(x).numpy))], result, hint)


def _in_two(g: GraphBuilder, x: str, dim: int, length: int, bins: int, inverse: bool, hint: str) -> str:
    """A transform of length n m as m of length n, turned, and n of length m (Cooley and Tukey).

    With j = a m + b and k = p + n q: X[k] = sum_b w_m^(b q) w^(b p) sum_a w_n^(a p) x[j].
    """
    n = _split(length)
    m = length // n
    shape, dtype = g.shape(x), g.dtype(x)
    names = [f"d{i}" for i in range(len(shape) - 1)]
    kept = [(a, shape[i]) for i, a in enumerate(names) if i != dim]

    def at(*here: Affine) -> Access:
        outer = identity(names)
        return (*outer[:dim], *here, *outer[dim + 1 :])

    def stage(
        x: str,
        axes: Sequence[tuple[str, int]],
        read: Access,
        table: Array,
        order: Sequence[str],
        write: Access,
        sizes: Sequence[int],
    ) -> str:
        op = Contract(
            axes=(*kept, *axes),
            reads=(read, identity(order)),
            write=write,
            in_types=(dtype, dtype),
            out_type=dtype,
        )
        result = [*shape[:dim], *sizes, *shape[dim + 1 : -1], 2]
        return g.emit(op, [x, g.constant(table.astype(dtype.numpy))], result, hint)

    def table(rows: int, parts: int, columns: int, of: int) -> Array:
        forward = _forward(rows, parts, columns, of)
        return forward * CONJUGATE[:parts, None] if inverse else forward

    b, p, r, c = axis("b"), axis("p"), axis("r"), axis("c")
    spread = [("b", m), ("p", n), ("r", 2)]
    ends = [*spread, ("a", n), ("c", shape[-1])]
    source = (*at(axis("a", m).plus(b)), c)
    x = stage(x, ends, source, table(n, shape[-1], n, n), ["a", "c", "p", "r"], (*at(b, p), r), [m, n])
    turned = table(m, 2, n, length)
    x = stage(x, [*spread, ("c", 2)], (*at(b, p), c), turned, ["b", "c", "p", "r"], (*at(b, p), r), [m, n])
    rounds = -(-bins // n)
    last = table(m, 2, rounds, m)
    ends = [("p", n), ("q", rounds), ("r", 2), ("b", m), ("c", 2)]
    target = (*at(p.plus(axis("q", n))), r)
    x = stage(x, ends, (*at(b, p), c), last, ["b", "c", "q", "r"], target, [rounds * n])
    x = slice_axis(g, x, dim, 0, bins, hint)
    return apply(g, Mul, [x, scalar_constant(g, 1 / length, dtype)], hint) if inverse else x


def _dft(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """In two stages where that is less work. The axis is an input since opset 20."""
    x, hint = spec.inputs[0], spec.outputs[0]
    shape = g.shape(x)
    at = spec.attribute("axis", 1)
    if spec.opset >= 20:
        at = int(g.known(spec.inputs[2], "DFT's axis").reshape(-1)[0]) if spec.has(2) else -2
    dim = normal_axis(at, len(shape))
    size, parts = shape[dim], shape[-1]
    inverse, onesided = bool(spec.attribute("inverse", 0)), bool(spec.attribute("onesided", 0))
    length = 2 * (size - 1) if inverse and onesided else size
    if spec.has(1):
        length = int(g.known(spec.inputs[1], "DFT's length").reshape(-1)[0])
    if parts not in (1, 2) or dim == len(shape) - 1 or length < 1:
        raise InvalidModel(f"DFT of {g.tensors[x]} along axis {dim} with length {length}")
    judge_size([length, parts], g.dtype(x))  # before its factors are looked for
    half = length // 2 + 1
    if inverse and onesided:
        terms = min(size, half)
        return [_transform(g, x, dim, terms, _inverse_real(terms, parts, length), hint)]
    bins = half if onesided else length
    n = _split(length)
    if n > 1 and parts * n * length + 2 * length + 2 * length // n * bins < parts * length * bins:
        return [_in_two(g, x, dim, length, bins, inverse, hint)]
    terms = min(size, length)
    table = _inverse(terms, parts, length) if inverse else _forward(terms, parts, bins, length)
    return [_transform(g, x, dim, terms, table, hint)]


def _stft(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Frame number f starts at f * step: a product over a window, as a convolution is."""
    x, hint = spec.inputs[0], spec.outputs[0]
    if len(g.shape(x)) not in (2, 3):
        raise InvalidModel(f"STFT of {g.tensors[x]}, which should have 2 or 3 dimensions")
    batch, size, *rest = g.shape(x)
    parts = rest[0] if rest else 1
    x = reshape(g, x, [batch, size, parts], hint)
    step = int(g.known(spec.inputs[1], "STFT's frame_step").reshape(-1)[0])
    length = g.shape(spec.inputs[2])[0] if spec.has(2) else size
    if spec.has(3):
        length = int(g.known(spec.inputs[3], "STFT's frame_length").reshape(-1)[0])
    if parts not in (1, 2) or step < 1 or not 1 <= length <= size:
        raise InvalidModel(f"STFT of {g.tensors[x]} in frames of {length}, {step} apart")
    bins = length // 2 + 1 if spec.attribute("onesided", 1) else length
    table = _forward(length, parts, bins, length).astype(g.dtype(x).numpy)
    weight = g.constant(table)
    if spec.has(2):
        if g.shape(spec.inputs[2]) != (length,):
            raise InvalidModel(f"STFT in frames of {length} with the window {g.tensors[spec.inputs[2]]}")
        weight = apply(g, Mul, [weight, reshape(g, spec.inputs[2], [length, 1, 1, 1], hint)], hint)
    frames = 1 + (size - length) // step
    op = Contract(
        axes=(("b", batch), ("f", frames), ("k", bins), ("r", 2), ("j", length), ("c", parts)),
        reads=(
            (axis("b"), axis("f", step).plus(axis("j")), axis("c")),
            identity(["j", "c", "k", "r"]),
        ),
        write=identity(["b", "f", "k", "r"]),
        in_types=(g.dtype(x), g.dtype(weight)),
        out_type=g.dtype(x),
    )
    return [g.emit(op, [x, weight], [batch, frames, bins, 2], hint)]


def _mel_weights(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """[dft_length // 2 + 1, mel bins]: triangles, evenly spaced in mel, over the bins of a spectrum."""
    names = ("num_mel_bins", "dft_length", "sample_rate", "lower_edge_hertz", "upper_edge_hertz")
    values = [g.known(t, f"MelWeightMatrix's {n}").item() for t, n in zip(spec.inputs, names, strict=True)]
    mels, length, rate = (int(v) for v in values[:3])
    low, high = (2595 * np.log10(1 + v / 700) for v in values[3:])
    if mels < 0 or length < 0:
        raise InvalidModel(f"MelWeightMatrix of {mels} bins of {length}")
    if rate <= 0 or not 0 <= values[3] <= values[4]:
        raise InvalidModel(
            f"MelWeightMatrix from {values[3]:g} to {values[4]:g} Hz of {rate} samples a second"
        )
    g.folding.need(8 * (length // 2 + 1 + 4) * (mels + 2), f"MelWeightMatrix of {mels:,} bins of {length:,}")
    # The standard's step is a share of all edges, one less than are between them.
    edges = 700 * (10 ** ((np.arange(mels + 2) * (high - low) / (mels + 2) + low) / 2595) - 1)
    edges = [int(e) for e in (length + 1) * edges // rate]
    if edges[-1] > length // 2 + 1:
        raise InvalidModel(
            f"MelWeightMatrix up to {values[4]:g} Hz; {rate} samples a second have {rate / 2:g} at most"
        )
    out = np.zeros((length // 2 + 1, mels))
    for i, (left, middle, right) in enumerate(zip(edges[:-2], edges[1:-1], edges[2:], strict=True)):
        rising: Array = np.arange(left, middle + 1)
        falling: Array = np.arange(middle, right)
        out[rising, i] = (rising - left) / (middle - left) if middle > left else 1
        if right > middle:
            out[falling, i] = (right - falling) / (right - middle)
    dtype = by_onnx(spec.attribute("output_datatype", 1))
    if dtype is None:
        raise Unsupported(f"MelWeightMatrix of ONNX element type {spec.attribute('output_datatype')}")
    return [g.constant(out.astype(dtype.numpy), spec.outputs[0])]


register("DFT", rounded_once(_dft), 17, limits="length and axis known")
register("STFT", rounded_once(_stft), 17, limits="frame step and length known")
register("MelWeightMatrix", _mel_weights, 17, limits="all inputs known")
