"""Homes: where tensors lie in the host's memory when equal bytes of many cores are shared.

A tensor's elements are written once and stay until the last read, so what any core holds or receives
of it are equal, immutable bytes: one array, the tensor's home, backs them all. The judge has shown
that every byte that a core needs is delivered to it; a read of the home is that read. The last to read a
tensor may write its own result there, element by element: the home is then that of both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import prod
from typing import Any, Literal

import numpy as np

from ...ir.affine import Access
from ...ir.dtypes import DType
from ...ir.graph import Graph
from ...ir.op import Op
from ...placement.plan.plan import Step
from .records import LINE

Kind = Literal["constant", "input", "state", "result"]


@dataclass(frozen=True)
class Home:
    """One array in the arena. Lengths, pitches and `origin` are in elements.

    pitches: by dimension of the tensor. origin: from the array's start to element (0, 0, ...), for
    the margins before it. fill: what the margins hold, None without margins. live: first and last
    sweep that touches it, counted through all entries; all of them where it keeps its value between
    calls. offset: bytes from the arena's start. bound: the caller's own array stands in for it; its place
    in the arena is only a number.
    """

    number: int
    tensor: str
    kind: Kind
    dtype: DType
    shape: tuple[int, ...]
    pitches: tuple[int, ...]
    origin: int
    elements: int
    fill: float | None = None
    live: tuple[int, int] = (-1, -1)
    offset: int = -1
    bound: bool = False

    @property
    def stays(self) -> bool:
        """Whether it keeps its value between calls."""
        return self.kind in ("constant", "state")

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.bytes


@dataclass(frozen=True)
class Panels:
    """Elements along `axis` stand `width` at a time, densely; the next ones `pitch` elements further."""

    axis: str
    width: int
    pitch: int


@dataclass(frozen=True)
class View:
    """A home as iterations see it: element `offset + sum(strides[axis] * index)`, but for the panels' axis.

    pairs: what is neighbours along the op's paired axis stands side by side, the second one first, and
    along the panels' axis the stride is 2. Only even places along the paired axis have an address.
    """

    home: int
    offset: int
    strides: Mapping[str, int]
    panels: Panels | None = None
    pairs: bool = False

    def at(self, first: Mapping[str, Any]) -> Any:
        """Elements from the home's start to the iteration `first`; NumPy arrays broadcast."""
        total: Any = self.offset
        for a, stride in self.strides.items():
            i = first[a]
            if self.panels is not None and a == self.panels.axis:
                width = self.panels.width
                total = total + (i // width) * self.panels.pitch + stride * (i % width)
            else:
                total = total + stride * i
        return total


def view(home: Home, access: Access, axes: Sequence[str]) -> View:
    """`home` through an affine access."""
    offset = home.origin + sum(e.const * p for e, p in zip(access, home.pitches, strict=True))
    strides = {a: sum(e.coefficient(a) * p for e, p in zip(access, home.pitches, strict=True)) for a in axes}
    return View(home.number, offset, {a: s for a, s in strides.items() if s})


def elements_of(op: Op, v: View) -> int:
    """Elements of an operand that the iterations tell apart."""
    return prod(n for a, n in op.axes if v.strides.get(a))


@dataclass(frozen=True)
class Margin:
    """Elements that reads of a tensor want before and after each dimension, and what they hold."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    fill: float


@dataclass
class Stock:
    """The homes of a program under construction. Constants and states have theirs in common for all entries.

    margins: of constants and states. kept: the homes of states, and of constants in their own order, by
    tensor. panels: the homes of constants in panels, by what stands there how. touched: sweeps by home.
    count: of the sweeps so far; those of an entry have a place before them for what is laid, and one
    after them for what is read.
    """

    margins: Mapping[str, Margin]
    homes: dict[int, Home] = field(default_factory=lambda: {})
    kept: dict[str, Home] = field(default_factory=lambda: {})
    panels: dict[Any, Standing] = field(default_factory=lambda: {})
    constants: list[Lay] = field(default_factory=lambda: [])
    touched: dict[int, list[int]] = field(default_factory=lambda: {})
    count: int = -1

    def add(
        self,
        tensor: str,
        kind: Kind,
        dtype: DType,
        shape: tuple[int, ...],
        laid_out: tuple[tuple[int, ...], int, int],
        fill: float | None = None,
    ) -> Home:
        """A new home. laid_out: see `lay_out`."""
        home = Home(len(self.homes), tensor, kind, dtype, shape, *laid_out, fill)
        self.homes[home.number] = home
        return home

    def touch(self, home: int, sweep: int) -> None:
        self.touched.setdefault(home, []).append(sweep)


@dataclass(frozen=True)
class Standing:
    """A home that holds panels of `width` elements."""

    home: int
    width: int


def margins_of(reads: Iterable[tuple[str, Margin]]) -> dict[str, Margin]:
    """What the padded reads of each tensor want that have the fill of the first of them."""
    wanted: dict[str, dict[float, Margin]] = {}
    for tensor, need in reads:
        known = wanted.setdefault(tensor, {})
        old = known.get(need.fill, need)
        known[need.fill] = Margin(
            tuple(map(max, old.before, need.before)), tuple(map(max, old.after, need.after)), need.fill
        )
    return {name: next(iter(found.values())) for name, found in wanted.items()}


@dataclass(frozen=True)
class Lay:
    """A strided copy between an array of the host (in C order) and a home; all in elements."""

    tensor: str
    home: int
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...]
    host_offset: int
    host_strides: tuple[int, ...]


def taken_over(graph: Graph, steps: Sequence[Step], padded: Collection[str]) -> dict[str, str]:
    """For each tensor whose home others take over, the last of those that lie there in turn.

    steps: of the graph's nodes, in the order in which they are carried out. padded: tensors that want
    margins of their own. A step writes over an operand if it reads each element where it writes it, as the
    last to read it: the rule for cores' buffers, which knows nothing of how the bytes got there.
    """
    writers = graph.writers
    kept = {*graph.inputs, *graph.outputs, *graph.constants, *padded, *chain.from_iterable(graph.states)}
    last: dict[str, str] = {}
    read: set[str] = set()  # by later steps
    for op, node in ((s.op, graph.nodes[s.node]) for s in reversed(steps)):
        new = graph.tensors[node.output]
        for j, name in enumerate(node.inputs):
            old = graph.tensors[name]
            if (
                op.overwrites(j)
                and name not in read
                and name not in kept
                and len(writers[name]) == len(writers[node.output]) == 1
                and (old.shape, old.dtype) == (new.shape, new.dtype)
                and all(op.overwrites(k) for k, other in enumerate(node.inputs) if other == name)
            ):
                last[name] = last.get(node.output, node.output)
                break
        read.update(node.inputs)
    return last


def lay_out(
    shape: Sequence[int], inner: int | None, margin: Margin | None
) -> tuple[tuple[int, ...], int, int]:
    """(pitches, origin, elements) with dimension `inner` (None: the last) running fastest, in margins."""
    rank = len(shape)
    before = margin.before if margin else (0,) * rank
    after = margin.after if margin else (0,) * rank
    order = list(range(rank))
    if inner is not None:
        order.remove(inner)
        order.append(inner)
    pitches = [0] * rank
    step = 1
    for d in reversed(order):
        pitches[d] = step
        step *= before[d] + shape[d] + after[d]
    origin = sum(b * p for b, p in zip(before, pitches, strict=True))
    return tuple(pitches), origin, step


def allocate(homes: Sequence[Home]) -> tuple[tuple[Home, ...], int]:
    """The homes with offsets, multiples of a cache line, and the arena's bytes.

    First fit, the longest-lived and largest first.
    """
    order = sorted(homes, key=lambda h: (h.live[0] - h.live[1], -h.bytes, h.number))
    n = len(order)
    first, last, low, high = (np.zeros(n, np.int64) for _ in range(4))
    out: dict[int, Home] = {}
    for i, h in enumerate(order):
        clash = (first[:i] <= h.live[1]) & (last[:i] >= h.live[0])
        lo, hi = low[:i][clash], high[:i][clash]
        at = 0
        for j in np.argsort(lo, kind="stable"):
            if lo[j] - at >= h.bytes:
                break
            at = max(at, int(hi[j]))
        out[h.number] = replace(h, offset=at)
        first[i], last[i], low[i], high[i] = *h.live, at, -(-(at + h.bytes) // LINE) * LINE
    return tuple(out[h.number] for h in homes), int(high.max(initial=0))
