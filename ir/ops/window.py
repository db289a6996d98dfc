"""Windows that slide over an image: convolution and pooling.

A convolution is a contraction and a pooling a reduction whose operand is read at
`y*stride + r*dilation - pad`. What lies outside the image reads as the op's fill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..affine import Affine, axis
from ..dtypes import DType
from ..graph import InvalidModel
from ..op import Array, identity
from ..rules import GraphBuilder, Spec, register
from .contract import Contract, transposed
from .conversion import cast, emit_rounded
from .elementwise import Add, Mul


@dataclass(frozen=True)
class Slide:
    """A window along one dimension: `size` elements of the image, `kernel` of the window.

    before and after: padding. count: how many places the window takes.
    """

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    count: int

    def read(self, place: str, tap: str) -> Affine:
        """Which element the window at `place` sees at `tap`; a window of one element has no tap axis."""
        at = axis(place, self.stride, -self.before)
        return at if self.kernel == 1 else at.plus(axis(tap, self.dilation))

    def taps(self, padding: bool) -> Array:
        """For each place how many taps lie in the image, or in the padded image."""
        at = (
            np.arange(self.count)[:, None] * self.stride
            + np.arange(self.kernel) * self.dilation
            - self.before
        )
        lo, hi = (-self.before, self.size + self.after) if padding else (0, self.size)
        return ((at >= lo) & (at < hi)).sum(axis=1)


def slides(spec: Spec, sizes: Sequence[int], kernel: Sequence[int]) -> list[Slide]:
    """The windows along the spatial dimensions, from strides, dilations, pads, auto_pad and ceil_mode."""
    rank = len(sizes)
    strides = spec.attribute("strides") or [1] * rank
    dilations = spec.attribute("dilations") or [1] * rank
    pads = spec.attribute("pads") or [0] * 2 * rank
    auto = spec.attribute("auto_pad") or "NOTSET"
    if not len(kernel) == len(strides) == len(dilations) == len(pads) // 2 == rank:
        raise InvalidModel(f"{spec.op_type}: strides, dilations, pads or kernel do not fit {rank} dimensions")
    if min((*kernel, *strides, *dilations), default=1) < 1:
        raise InvalidModel(f"{spec.op_type}: a kernel, stride or dilation below 1")
    out: list[Slide] = []
    for i, (n, taps, s, d) in enumerate(zip(sizes, kernel, strides, dilations, strict=True)):
        reach = (taps - 1) * d + 1
        before, after = int(pads[i]), int(pads[i + rank])
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            total = max(0, (-(-n // s) - 1) * s + reach - n)
            before = (total if auto == "SAME_UPPER" else total + 1) // 2
            after = total - before
        elif auto == "VALID":
            before = after = 0
        room = n + before + after - reach
        count = room // s + 1
        if spec.attribute("ceil_mode", 0) and auto == "NOTSET":
            count = -(-room // s) + 1
            # A window must not start in the padding after the image.
            count -= (count - 1) * s >= n + before
        if room < 0:
            raise InvalidModel(f"{spec.op_type}: a window of {reach} over {n + before + after} elements")
        out.append(Slide(n, int(taps), int(s), int(d), before, after, int(count)))
    return out


def judge_kernel(spec: Spec, kernel: Sequence[int]) -> None:
    """Raises InvalidModel where kernel_shape names other sizes than the weights have."""
    named = spec.attribute("kernel_shape")
    if named and list(named) != list(kernel):
        raise InvalidModel(f"{spec.op_type}: kernel_shape {list(named)} with weights of {list(kernel)}")


def place_axes(along: Sequence[Slide]) -> list[tuple[str, int]]:
    return [(f"y{i}", s.count) for i, s in enumerate(along)]


def tap_axes(along: Sequence[Slide]) -> list[tuple[str, int]]:
    return [(f"r{i}", s.kernel) for i, s in enumerate(along) if s.kernel > 1]


def window_read(along: Sequence[Slide]) -> tuple[Affine, ...]:
    return tuple(s.read(f"y{i}", f"r{i}") for i, s in enumerate(along))


# -- convolution --------------------------------------------------------------------
def convolution(g: GraphBuilder, spec: Spec, x: str, w: str, out_type: DType) -> str:
    """`x` convolved with `w` as the attributes of Conv say, without a bias."""
    if len(g.shape(x)) < 3 or len(g.shape(w)) != len(g.shape(x)):
        raise InvalidModel(f"{spec.op_type} of {g.tensors[x]} with {g.tensors[w]}")
    (n, channels, *sizes), (filters, depth, *kernel) = g.shape(x), g.shape(w)
    group = int(spec.attribute("group", 1))
    judge_kernel(spec, kernel)
    if channels != depth * group or filters % group:
        raise InvalidModel(f"{spec.op_type} of {g.tensors[x]} with {g.tensors[w]} in {group} groups")
    along = slides(spec, sizes, kernel)
    each = filters // group
    groups = [("g", group)] if group > 1 else []
    # One filter or one channel for each group (a depthwise convolution) needs no axis.
    outputs = [("f", each)] if group == 1 or each > 1 else []
    inputs = [("c", depth)] if group == 1 or depth > 1 else []

    def channel(name: str, size: int, present: bool) -> Affine:
        out = Affine((("g", size),)) if group > 1 else Affine()
        return out.plus(axis(name)) if present else out

    filter_read = channel("f", each, bool(outputs))
    taps = tuple(axis(f"r{i}") if s.kernel > 1 else Affine() for i, s in enumerate(along))
    w_read = (filter_read, axis("c") if inputs else Affine(), *taps)
    # Constant weights stand with the filters last, so that vectors along them read densely.
    if turned := transposed(g, w, (*range(1, len(w_read)), 0)):
        w, w_read = turned, (*w_read[1:], w_read[0])
    op = Contract(
        axes=(("n", n), *groups, *outputs, *place_axes(along), *inputs, *tap_axes(along)),
        reads=((axis("n"), channel("c", depth, bool(inputs)), *window_read(along)), w_read),
        write=(axis("n"), filter_read, *(axis(a) for a, _ in place_axes(along))),
        in_types=(g.dtype(x), g.dtype(w)),
        out_type=out_type,
    )
    return emit_rounded(g, op, (x, w), (n, filters, *(s.count for s in along)), spec.outputs[0])


def _conv(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    x, w, hint = spec.inputs[0], spec.inputs[1], spec.outputs[0]
    given = g.dtype(x)
    out = convolution(g, spec, x, w, given.wide)
    if spec.has(2):
        out = per_channel(g, Add, out, cast(g, spec.inputs[2], given.wide), hint)
    return [cast(g, out, given, hint)]


def per_channel(g: GraphBuilder, kind: type[Add] | type[Mul], x: str, c: str, hint: str) -> str:
    """x + c or x * c with one element of the 1-D `c` for each channel (dimension 1) of `x`."""
    shape = g.shape(x)
    axes = tuple((f"d{i}", n) for i, n in enumerate(shape))
    if g.shape(c) != shape[1:2]:
        raise InvalidModel(f"{g.tensors[c]} does not give each channel of {g.tensors[x]} a value")
    whole = identity([a for a, _ in axes])
    op = kind(
        axes=axes,
        reads=(whole, (axis("d1"),)),
        write=whole,
        in_types=(g.dtype(x), g.dtype(c)),
        out_type=g.dtype(x),
    )
    return g.emit(op, (x, c), shape, hint)


register("Conv", _conv)
