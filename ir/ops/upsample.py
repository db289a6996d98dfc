"""Transposed convolution and Col2Im: a contraction or a sum for each phase of their stride.

The result at `o = q*s + phase` adds `x[i] * w[r]` over all `i*s + r*d - pad = o`. For one
phase the taps r lie `s / gcd(s, d)` apart and i is affine in q and the tap's number: an
ordinary contraction. The phases stand side by side in one tensor, which reshapes to the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product as combinations
from math import gcd

import numpy as np

from ..affine import Access, Affine, axis, constant
from ..dtypes import DType
from ..graph import InvalidModel, Unsupported
from ..op import Op, identity, product
from ..rules import GraphBuilder, Spec, register
from .contract import Contract, transposed
from .conversion import cast
from .elementwise import Add
from .rearrange import integers, make_copy, reshape, slice_axis
from .reduce import ReduceSum
from .window import judge_kernel, per_channel

MOST_PHASES = 4096


@dataclass(frozen=True)
class Spread:
    """One spatial dimension: `size` elements in, `count` out."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    count: int

    @property
    def apart(self) -> int:
        """The distance of two taps of one phase."""
        return self.stride // gcd(self.stride, self.dilation)

    @property
    def places(self) -> int:
        """Results of one phase; the last ones of some phases lie past the result."""
        return -(-self.count // self.stride)

    def phase(self, number: int, place: str, tap: str) -> Phase | None:
        """What phase `number` adds up at axis `place`, over the axis `tap`; None where no tap reaches it."""
        for r in range(min(self.apart, self.kernel)):
            start, rest = divmod(number + self.before - r * self.dilation, self.stride)
            if rest == 0:
                image = axis(place, 1, start).plus(axis(tap, -(self.dilation * self.apart // self.stride)))
                return Phase(-(-(self.kernel - r) // self.apart), axis(tap, self.apart, r), image)
        return None


@dataclass(frozen=True)
class Phase:
    """`count` taps and, for one of them, its place in the window and what it sees of the input."""

    count: int
    tap: Affine
    image: Affine


def spreads(spec: Spec, sizes: Sequence[int], kernel: Sequence[int]) -> list[Spread]:
    """The spatial dimensions, from strides, dilations, pads, auto_pad, output_padding and output_shape."""
    rank = len(sizes)
    strides = spec.attribute("strides") or [1] * rank
    dilations = spec.attribute("dilations") or [1] * rank
    pads = spec.attribute("pads") or [0] * 2 * rank
    extra = spec.attribute("output_padding") or [0] * rank
    auto = spec.attribute("auto_pad") or "NOTSET"
    wanted = spec.attribute("output_shape") or ()
    if auto.startswith("SAME") and not wanted:
        wanted = [n * s for n, s in zip(sizes, strides, strict=False)]
    if not len(kernel) == len(strides) == len(dilations) == len(extra) == len(pads) // 2 == rank:
        raise InvalidModel(f"ConvTranspose: strides, dilations, pads or kernel do not fit {rank} dimensions")
    for more, s, d in zip(extra, strides, dilations, strict=True):
        if more >= max(s, d):
            raise InvalidModel(
                f"ConvTranspose: output_padding {more} with stride {s} and dilation {d}: it must be less"
            )
    out: list[Spread] = []
    for i, (n, taps, s, d) in enumerate(zip(sizes, kernel, strides, dilations, strict=True)):
        full = (n - 1) * s + extra[i] + (taps - 1) * d + 1
        before, after = (0, 0) if auto == "VALID" else (int(pads[i]), int(pads[i + rank]))
        if wanted:
            total = max(0, full - wanted[len(wanted) - rank + i])
            before = total // 2 if auto == "SAME_UPPER" else total - total // 2
            after = full - wanted[len(wanted) - rank + i] - before
        if full - before - after < 1:
            raise InvalidModel(f"ConvTranspose: padding {before} + {after} of {full} elements")
        out.append(Spread(n, int(taps), int(s), int(d), before, int(full - before - after)))
    return out


Part = Callable[[Sequence[Phase], Sequence[tuple[str, int]], Access], tuple[Op, Sequence[str]]]
"""The op of one phase in each dimension, from these, the axes of the places and the write of all of them."""


def _in_phases(
    g: GraphBuilder, along: Sequence[Spread], outer: Sequence[int], part: Part, dtype: DType, hint: str
) -> str:
    """The result, [*outer, *spatial], each phase by its own op; zeros where no tap reaches it."""
    if (phases := product([s.stride for s in along])) > MOST_PHASES:
        raise Unsupported(f"a stride of {phases:,} elements in all, past {MOST_PHASES:,}: each is an op")
    places = [(f"y{i}", s.places) for i, s in enumerate(along)]
    parts: list[tuple[Op, Sequence[str]]] = []
    for numbers in combinations(*(range(s.stride) for s in along)):
        found = [s.phase(n, f"y{i}", f"r{i}") for i, (s, n) in enumerate(zip(along, numbers, strict=True))]
        write = tuple(e for (a, _), n in zip(places, numbers, strict=True) for e in (axis(a), constant(n)))
        phases = [p for p in found if p]
        if len(phases) == len(along):
            parts.append(part(phases, places, write))
            continue
        axes = (*((f"o{i}", n) for i, n in enumerate(outer)), *places)
        zero = g.constant(np.zeros((), dtype.numpy))
        whole = (*identity([a for a, _ in axes[: len(outer)]]), *write)
        parts.append((make_copy(g, zero, axes, (), whole), [zero]))
    out = g.emit_parts(parts, [*outer, *(n for s in along for n in (s.places, s.stride))], dtype, hint)
    out = reshape(g, out, [*outer, *(s.places * s.stride for s in along)], hint)
    for i, s in enumerate(along):
        out = slice_axis(g, out, len(outer) + i, 0, s.count, hint)
    return out


def _conv_transpose(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    hint, given, dtype = spec.outputs[0], g.dtype(spec.inputs[0]), g.dtype(spec.inputs[0]).wide
    x, w, *bias = (t for t in spec.inputs if t)
    (n, channels, *sizes), (depth, each, *kernel) = g.shape(x), g.shape(w)
    group = int(spec.attribute("group", 1))
    if channels != depth or channels % group:
        raise InvalidModel(f"ConvTranspose of {g.tensors[x]} with {g.tensors[w]} in {group} groups")
    judge_kernel(spec, kernel)
    along = spreads(spec, sizes, kernel)
    turned = transposed(g, w, (0, *range(2, len(along) + 2), 1))
    # One filter for each group needs no axis.
    f = axis("f") if group == 1 or each > 1 else Affine()

    def part(
        phases: Sequence[Phase], places: Sequence[tuple[str, int]], write: Access
    ) -> tuple[Op, list[str]]:
        channel = axis("g", channels // group).plus(axis("c"))
        tap = [p.tap for p in phases]
        op = Contract(
            axes=(
                *(("n", n), ("g", group), *((a, each) for a in f.axes), *places, ("c", channels // group)),
                *((f"r{i}", p.count) for i, p in enumerate(phases)),
            ),
            reads=(
                (axis("n"), channel, *(p.image for p in phases)),
                (channel, *tap, f) if turned else (channel, f, *tap),
            ),
            write=(axis("n"), axis("g", each).plus(f), *write),
            in_types=(given, given),
            out_type=dtype,
        )
        return op, [x, turned or w]

    out = _in_phases(g, along, [n, each * group], part, dtype, hint)
    out = per_channel(g, Add, out, cast(g, bias[0], dtype), hint) if bias else out
    return [cast(g, out, given, hint)]


def _col2im(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Blocks, the columns of [n, channels * block, blocks], added up where they lie in the image."""
    hint, given, dtype = spec.outputs[0], g.dtype(spec.inputs[0]), g.dtype(spec.inputs[0]).wide
    sizes, kernel = (
        integers(g.known(t, f"Col2Im's {name}"))
        for t, name in zip(spec.inputs[1:], ("image_shape", "block_shape"), strict=True)
    )
    x, rank = spec.inputs[0], len(sizes)
    strides, dilations = (spec.attribute(name) or [1] * rank for name in ("strides", "dilations"))
    pads = spec.attribute("pads") or [0] * 2 * rank
    along: list[Spread] = []
    for i, (size, k, s, d) in enumerate(zip(sizes, kernel, strides, dilations, strict=True)):
        blocks = (size + pads[i] + pads[rank + i] - d * (k - 1) - 1) // s + 1
        along.append(Spread(blocks, k, s, d, pads[i], size))
    n, columns, count = g.shape(x)
    channels, rest = divmod(columns, product(kernel))
    if rest or count != product([s.size for s in along]):
        raise InvalidModel(f"Col2Im of {g.tensors[x]} to {sizes} in blocks of {kernel}")
    x = reshape(g, x, [n, channels, *kernel, *(s.size for s in along)], hint)

    def part(
        phases: Sequence[Phase], places: Sequence[tuple[str, int]], write: Access
    ) -> tuple[Op, list[str]]:
        outer = (axis("n"), axis("c"))
        op = ReduceSum(
            axes=(
                *(("n", n), ("c", channels), *places),
                *((f"r{i}", p.count) for i, p in enumerate(phases)),
            ),
            reads=((*outer, *(p.tap for p in phases), *(p.image for p in phases)),),
            write=(*outer, *write),
            in_types=(given,),
            out_type=dtype,
        )
        return op, [x]

    return [cast(g, _in_phases(g, along, [n, channels], part, dtype, hint), given, hint)]


register("Col2Im", _col2im, 18, limits="image_shape and block_shape known")
register("ConvTranspose", _conv_transpose)
