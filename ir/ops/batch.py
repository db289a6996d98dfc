"""BatchNormalization: one scale and one shift for each channel."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Unsupported
from ..op import product
from ..rules import GraphBuilder, Spec, register
from .contract import Contract
from .conversion import cast
from .elementwise import Add, Div, Mul, Sqrt, Sub, apply, scalar_constant
from .loops import accumulator
from .rearrange import reshape
from .reduce import ReduceSum, reduce_over
from .window import per_channel


def _batch_norm(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """One scale and one shift for each channel, from given statistics or, in training, the batch's own."""
    if spec.attribute("spatial", 1) != 1:
        raise Unsupported("BatchNormalization with spatial=0")
    x, scale, bias, mean, variance = spec.inputs
    hint, given = spec.outputs[0], g.dtype(spec.inputs[0])
    training = spec.attribute("training_mode", 0) if spec.opset >= 14 else any(spec.outputs[1:])
    running: list[str] = []
    if training:
        if spec.opset < 14 and any(spec.outputs[3:]):
            raise Unsupported("BatchNormalization with saved statistics, which the standard does not define")
        own = _batch_statistics(g, x, hint)
        momentum = float(spec.attribute("momentum", 0.9))
        running = [
            _moved(g, old, new, momentum, hint) for old, new in zip((mean, variance), own, strict=True)
        ]
        mean, variance = (cast(g, t, g.dtype(scale).wide) for t in own)
    scale, bias, mean, variance = (cast(g, t, g.dtype(t).wide) for t in (scale, bias, mean, variance))
    epsilon = scalar_constant(g, spec.attribute("epsilon", 1e-5), g.dtype(variance))
    deviation = apply(g, Sqrt, [apply(g, Add, [variance, epsilon], hint)], hint)
    factor = apply(g, Div, [scale, cast(g, deviation, g.dtype(scale))], hint)
    shift = apply(g, Sub, [bias, apply(g, Mul, [cast(g, mean, g.dtype(scale)), factor], hint)], hint)
    x, factor, shift = (cast(g, t, given.wide) for t in (x, factor, shift))
    out = per_channel(g, Add, per_channel(g, Mul, x, factor, hint), shift, hint)
    return [cast(g, out, given, hint), *running]


def _batch_statistics(g: GraphBuilder, x: str, hint: str) -> list[str]:
    """Mean and variance of each channel over all the rest."""
    over = [d for d in range(len(g.shape(x))) if d != 1]
    share = 1 / product([g.shape(x)[d] for d in over])
    wide = cast(g, x, accumulator(g.dtype(x)))
    mean = reduce_over(g, ReduceSum, wide, over, hint, scale=share)
    squares = reduce_over(g, Contract, apply(g, Sub, [wide, mean], hint), over, hint, keep=False)
    variance = apply(g, Mul, [squares, scalar_constant(g, share, g.dtype(squares))], hint)
    return [reshape(g, mean, g.shape(variance), hint), variance]


def _moved(g: GraphBuilder, old: str, new: str, momentum: float, hint: str) -> str:
    """old * momentum + new * (1 - momentum)."""
    dtype, wide = g.dtype(old), g.dtype(old).wide
    kept, added = (scalar_constant(g, v, wide) for v in (momentum, 1 - momentum))
    pairs = [cast(g, old, wide), kept], [cast(g, new, wide), added]
    return cast(g, apply(g, Add, [apply(g, Mul, pair, hint) for pair in pairs], hint), dtype, hint)


register("BatchNormalization", _batch_norm, limits="no saved statistics, no spatial=0")
