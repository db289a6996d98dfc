"""Transposed convolution, as a convolution for each phase of its stride.

The result at `o = q*s + phase` adds `x[i] * w[r]` over all `i*s + r*d - pad = o`. For one
phase the taps r lie `s / gcd(s, d)` apart and i is affine in q and the tap's number: an
ordinary contraction. The phases stand side by side in one tensor, which reshapes to the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product as combinations
from math import gcd

from ..affine import Affine, axis, constant
from ..graph import GraphBuilder, InvalidModel, Spec, Unsupported, register
from .contract import Contract, transposed
from .elementwise import Add
from .rearrange import pad, reshape, slice_axis
from .window import per_channel


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

    def first_tap(self, phase: int) -> int:
        """The first tap that reaches `phase`; Unsupported where none can."""
        for r in range(self.apart):
            if (phase + self.before - r * self.dilation) % self.stride == 0:
                return r
        raise Unsupported(
            f"ConvTranspose whose stride {self.stride} and dilation {self.dilation} share a factor"
        )


def spreads(spec: Spec, sizes: Sequence[int], kernel: Sequence[int]) -> list[Spread]:
    """The spatial dimensions, from strides, dilations, pads, auto_pad, output_padding and output_shape."""
    rank = len(sizes)
    strides = spec.attribute("strides") or [1] * rank
    dilations = spec.attribute("dilations") or [1] * rank
    pads = spec.attribute("pads") or [0] * 2 * rank
    extra = spec.attribute("output_padding") or [0] * rank
    auto = spec.attribute("auto_pad", "NOTSET")
    wanted = spec.attribute("output_shape") or ()
    if auto.startswith("SAME") and not wanted:
        wanted = [n * s for n, s in zip(sizes, strides, strict=False)]
    if not len(kernel) == len(strides) == len(dilations) == len(extra) == len(pads) // 2 == rank:
        raise InvalidModel(f"ConvTranspose: strides, dilations, pads or kernel do not fit {rank} dimensions")
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


def _conv_transpose(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    x, w, hint = spec.inputs[0], spec.inputs[1], spec.outputs[0]
    (n, channels, *sizes), (given, each, *kernel) = g.shape(x), g.shape(w)
    group = int(spec.attribute("group", 1))
    if channels != given or channels % group:
        raise InvalidModel(f"ConvTranspose of {g.tensors[x]} with {g.tensors[w]} in {group} groups")
    along = spreads(spec, sizes, kernel)
    rank = len(along)
    # Every phase needs a tap: a kernel shorter than the stride gets taps of weight 0.
    short = [max(0, s.apart - s.kernel) for s in along]
    w = pad(g, w, [0] * (rank + 2), [0, 0, *short], 0.0, hint)
    taps = [k + more for k, more in zip(kernel, short, strict=True)]
    turned = transposed(g, w, (0, *range(2, rank + 2), 1))

    # One filter for each group needs no axis.
    f = axis("f") if group == 1 or each > 1 else Affine()

    def part(phases: Sequence[int]) -> tuple[Contract, list[str]]:
        """The contraction that computes one phase in every dimension."""
        first = [s.first_tap(p) for s, p in zip(along, phases, strict=True)]
        counts = [-(-(k - r) // s.apart) for s, k, r in zip(along, taps, first, strict=True)]
        image: list[Affine] = []
        tap: list[Affine] = []
        write: list[Affine] = [axis("n"), axis("g", each).plus(f)]
        for i, (s, phase, r) in enumerate(zip(along, phases, first, strict=True)):
            back = -(s.dilation * s.apart // s.stride)
            at = axis(f"y{i}", 1, (phase + s.before - r * s.dilation) // s.stride)
            image.append(at.plus(axis(f"r{i}", back)))
            tap.append(axis(f"r{i}", s.apart, r))
            write += [axis(f"y{i}"), constant(phase)]
        channel = axis("g", channels // group).plus(axis("c"))
        op = Contract(
            axes=(
                *(("n", n), ("g", group), *((a, each) for a in f.axes)),
                *((f"y{i}", s.places) for i, s in enumerate(along)),
                ("c", channels // group),
                *((f"r{i}", c) for i, c in enumerate(counts)),
            ),
            reads=(
                (axis("n"), channel, *image),
                (channel, *tap, f) if turned else (channel, f, *tap),
            ),
            write=tuple(write),
            in_types=(g.dtype(x), g.dtype(w)),
            out_type=g.dtype(x),
        )
        return op, [x, turned or w]

    parts = [part(phases) for phases in combinations(*(range(s.stride) for s in along))]
    shape = [n, each * group, *(size for s in along for size in (s.places, s.stride))]
    out = g.emit_parts(parts, shape, g.dtype(x), hint)
    out = reshape(g, out, [n, each * group, *(s.places * s.stride for s in along)], hint)
    for i, s in enumerate(along):
        out = slice_axis(g, out, i + 2, 0, s.count, hint)
    return [per_channel(g, Add, out, spec.inputs[2], hint)] if spec.has(2) else [out]


register("ConvTranspose", _conv_transpose)
