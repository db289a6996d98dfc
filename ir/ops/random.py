"""Random operators. What is drawn is drawn when compiling, as constants: every call, split and number of
threads sees the same.

The generator is NumPy's RandomState (MT19937, and its way to normal numbers), whose numbers for a seed are
promised to stay as they are: a node with a seed has those of the standard's reference evaluator. One without
gets the CRC-32 of its name and its first output's as seed, so that a model compiles to the same program
every time and its nodes draw apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np

from ..dtypes import F32, F64, I32, DType
from ..graph import InvalidModel
from ..op import Array, product
from ..rules import GraphBuilder, Spec, register
from .activation import Exp
from .conversion import Where, cast, dtype_attribute
from .elementwise import Mul, Reciprocal, Sub, apply, scalar_constant
from .logic import GreaterOrEqual, Less, LessOrEqual, Not, Or
from .rearrange import expand, reshape, slice_axis
from .reduce import ReduceMax, ReduceSum, reduce_over
from .running import Course, RunningSum, running


def _generator(g: GraphBuilder, spec: Spec, shape: Sequence[int]) -> np.random.RandomState:
    """For so many draws, which are made when compiling. Raises TooLarge."""
    if min(shape, default=0) < 0:
        raise InvalidModel(f"{spec.op_type} of shape {list(shape)}")
    g.folding.need(8 * product(shape), f"{spec.op_type} of shape {list(shape)}")
    seed = spec.attribute("seed")
    if seed is None:
        seed = crc32(f"{spec.name}/{spec.outputs[0]}".encode())
    return np.random.RandomState(int(seed) % (1 << 32))


def _build(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """RandomUniform and RandomNormal, with a shape or like another tensor."""
    like = spec.op_type.endswith("Like")
    shape = g.shape(spec.inputs[0]) if like else tuple(map(int, spec.attribute("shape")))
    dtype = g.dtype(spec.inputs[0]) if like else F32
    if spec.attribute("dtype"):
        dtype = dtype_attribute(spec, "dtype")
    random = _generator(g, spec, shape)
    if "Uniform" in spec.op_type:
        low, high = float(spec.attribute("low", 0.0)), float(spec.attribute("high", 1.0))
        drawn, factor, offset = random.random_sample(shape), high - low, low
    else:
        factor, offset = float(spec.attribute("scale", 1.0)), float(spec.attribute("mean", 0.0))
        drawn = random.standard_normal(shape)
    return [g.constant(_stretched(drawn, dtype, factor, offset), spec.outputs[0])]


def _stretched(drawn: Array | float, dtype: DType, factor: float, offset: float) -> Array:
    """drawn * factor + offset, each step in the result's type, as the reference has it."""
    values: Array = np.asarray(drawn).astype(dtype.numpy)
    return values * np.asarray(factor, dtype.numpy) + np.asarray(offset, dtype.numpy)


def _bernoulli(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """1 with the probability that the input gives; the standard's function body has 0 with it."""
    x, hint = spec.inputs[0], spec.outputs[0]
    dtype = dtype_attribute(spec, "dtype") if spec.attribute("dtype") else g.dtype(x)
    wide = F64 if g.dtype(x) == F64 else F32
    draws = g.constant(_generator(g, spec, g.shape(x)).random_sample(g.shape(x)).astype(wide.numpy), hint)
    return [cast(g, apply(g, Less, [draws, cast(g, x, wide, hint)], hint), dtype, hint)]


def _multinomial(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """For each row of logarithms of weights, `sample_size` classes: where a running sum passes a draw."""
    x, hint = spec.inputs[0], spec.outputs[0]
    if len(g.shape(x)) != 2:
        raise InvalidModel(f"Multinomial of {g.tensors[x]}, which is no matrix")
    rows, classes = g.shape(x)
    if not classes:
        raise InvalidModel(f"Multinomial of {g.tensors[x]}: there are no classes to draw from")
    drawn = rows, int(spec.attribute("sample_size", 1)), 1
    draws = _generator(g, spec, drawn).random_sample(drawn)
    wide = cast(g, x, F64 if g.dtype(x) == F64 else F32, hint)
    dtype = g.dtype(wide)
    powers = apply(g, Exp, [apply(g, Sub, [wide, reduce_over(g, ReduceMax, wide, [1], hint)], hint)], hint)
    sums = running(g, Course(RunningSum), powers, 1, hint)
    total = reshape(g, slice_axis(g, sums, 1, classes - 1, 1, hint), (rows, 1, 1), hint)
    marks = apply(g, Mul, [g.constant(draws.astype(dtype.numpy), hint), total], hint)
    # The last class is never passed: a draw times the total may round up to it.
    before = reshape(g, slice_axis(g, sums, 1, 0, classes - 1, hint), (rows, 1, classes - 1), hint)
    passed = cast(g, apply(g, LessOrEqual, [before, marks], hint), I32, hint)
    chosen = reduce_over(g, ReduceSum, passed, [2], hint, keep=False)
    return [cast(g, chosen, dtype_attribute(spec, "dtype") if spec.attribute("dtype") else I32, hint)]


def _dropout(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """In training an element becomes 0 with probability `ratio`, others grow by 1 / (1 - ratio).

    Else nothing happens, and the mask is all true. Whether it is training may be known at run time only.
    """
    x, hint = spec.inputs[0], spec.outputs[0]
    training = spec.inputs[2] if spec.has(2) else ""
    known = g.value(training) if training else np.zeros((), np.bool_)
    if known is not None and not known.any():
        mask = expand(g, g.constant(np.ones((), np.bool_)), g.shape(x), hint) if len(spec.outputs) > 1 else ""
        return [x, mask]
    wide = F64 if g.dtype(x) == F64 else F32
    ratio = scalar_constant(g, 0.5, wide)
    if spec.has(1):
        ratio = reshape(g, cast(g, spec.inputs[1], wide, hint), (), hint)
    draws = _generator(g, spec, g.shape(x)).random_sample(g.shape(x)).astype(wide.numpy)
    mask = apply(g, GreaterOrEqual, [g.constant(draws, hint), ratio], hint)
    share = apply(g, Reciprocal, [apply(g, Sub, [scalar_constant(g, 1, wide), ratio], hint)], hint)
    grown = apply(g, Mul, [x, cast(g, share, g.dtype(x), hint)], hint)
    out = apply(g, Where, [mask, grown, scalar_constant(g, 0, g.dtype(x))], hint)
    if known is None:
        training = reshape(g, training, (), hint)
        out = apply(g, Where, [training, out, x], hint)
        mask = apply(g, Or, [mask, apply(g, Not, [training], hint)], hint)
    return [out, mask]


for _op_type in ("RandomUniform", "RandomUniformLike", "RandomNormal", "RandomNormalLike"):
    register(_op_type, _build, 1, limits="drawn when compiling")
register("Bernoulli", _bernoulli, 15, limits="drawn when compiling")
register("Multinomial", _multinomial, 7, limits="drawn when compiling")
register("Dropout", _dropout, 7, limits="in training drawn when compiling")
