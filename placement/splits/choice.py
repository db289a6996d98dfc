"""The question that a split answers: an op, where its operands lie, where it runs, and what it may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...ir.affine import Access
from ...ir.op import Op
from ..machine.wafer import Wafer
from ..plan.layout import Grid, Split
from .policy import Policy


@dataclass(frozen=True)
class Source:
    """Where a run-time operand lies: the producer's grid, split, write access and axes."""

    grid: Grid
    split: Split
    write: Access
    axes: tuple[tuple[str, int], ...]
    region: int
    distance: float  # hops between the regions' centres
    shape: tuple[int, ...] = ()  # of the tensor

    @classmethod
    def anywhere(cls, distance: float, shape: tuple[int, ...] = ()) -> Source:
        """Of an operand of which only this is known: how far it comes."""
        return cls(Grid(1, 1), Split(), (), (), -1, distance, shape)

    @property
    def known(self) -> bool:
        """Whether it is known who holds what. A scalar has no dimension that would say so."""
        return bool(self.write)


@dataclass(frozen=True)
class Limits:
    """Bytes that one op may take on a core.

    tight: memory is what binds, so cuts of all sizes and along several axes in time are worth weighing.
    uncut: axes that are not cut in space, because that would make copies of a cache. alike: the op of another
    entry of the program that is split in the same way.
    """

    resident: float
    working: float
    tight: bool = False
    uncut: tuple[str, ...] = ()
    alike: Op | None = None

    def in_use(self, op: Op, held: Mapping[str, Any], working: Any) -> Any:
        """The larger of `working` and what the result of the op that is split alike takes, if there is one.

        held: what a core has of each axis of `op`. Axes that only the other one has are cut along time, but
        for its result.
        """
        if self.alike is None:
            return working
        size, own = self.alike.size, op.size
        share = {a: held[a] if own.get(a) == n else n for a, n in size.items()}
        # Partial results, and the operand or joined result beside them.
        return np.maximum(working, 2 * tile_elements(self.alike.write, share) * self.alike.out_type.bytes)

    def excess(self, resident: Any, working: Any) -> Any:
        """How many times over the limits these bytes are; 1 when within. Numbers or arrays."""
        over: Any = np.maximum(np.asarray(resident) / max(self.resident, 1.0), 1.0)
        return over * np.maximum(np.asarray(working) / max(self.working, 1.0), 1.0)


@dataclass(frozen=True)
class Site:
    """A place to run: region number `region`, of columns x rows logical cores.

    wafer, policy: of the whole search, so they do not tell its sites apart (nor does a hash look at them).
    """

    region: int
    columns: int
    rows: int
    wafer: Wafer = field(compare=False, repr=False)
    policy: Policy = field(compare=False, repr=False)

    @property
    def cores(self) -> int:
        return self.columns * self.rows


@dataclass(frozen=True)
class Question:
    """How is `op` split at `site`? sources: by operand; None for one that stays on the cores."""

    op: Op
    sources: tuple[Source | None, ...]
    site: Site
    limits: Limits

    @property
    def kept(self) -> tuple[bool, ...]:
        """By operand, whether it stays on the cores."""
        return tuple(s is None for s in self.sources)

    def near(self, source: Source) -> bool:
        """Whether `source` lies on the site's own region."""
        return source.region == self.site.region

    def excess(self, choice: Choice) -> float:
        """How many times over the limits a choice is; 1 when within."""
        return float(self.limits.excess(choice.resident, choice.working))


@dataclass(frozen=True)
class Choice:
    """A split with its grid and its estimate: cycles, bytes that stay, bytes while it runs.

    fixed: the grid's place matters (it follows a producer, or a placement says so). roots: of a line that
    joins partial results, 0 for as many as `join_split` likes.
    """

    split: Split
    grid: Grid
    part: str
    cycles: float
    resident: float
    working: float
    fixed: bool = False
    roots: int = 0

    @classmethod
    def given(cls, split: Split, grid: Grid, part: str, roots: int = 0) -> Choice:
        """One that nobody weighs any more."""
        return cls(split, grid, part, 0.0, 0.0, 0.0, fixed=True, roots=roots)


def tile_elements(access: Access, extents: Mapping[str, Any]) -> Any:
    """Elements of the hull that a tile touches through `access`."""
    n: Any = 1
    for e in access:
        length: Any = 1
        for a, c in e.terms:
            length = length + abs(c) * (extents[a] - 1)
        n = n * length
    return n
