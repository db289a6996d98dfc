"""What becomes of rows that NonZero takes: what has them, what computes with them, where they end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.absent import lacking
from ...ir.affine import Affine, access_axes, axis
from ...ir.graph import Graph, Node, Unsupported
from ...ir.op import Array, gather, product
from ...ir.ops.order import Places
from ...ir.ops.scatter import Scatter
from ...ir.rules import result_of
from ..errors import quoted
from ..frontend.open_rows import OpenRows


@dataclass(frozen=True)
class Taken:
    """A NonZero: its node, the mask that it reads, and the mask's sizes."""

    node: Node
    mask: str
    sizes: tuple[int, ...]

    @property
    def alone(self) -> bool:
        """Whether the mask has one element; then there is a second row that no run has."""
        return product(self.sizes) == 1

    @property
    def digits(self) -> tuple[int, ...]:
        """Sizes whose product is the number of rows, in their order."""
        return (2,) if self.alone else self.sizes

    @property
    def rows(self) -> int:
        return product(self.digits)


@dataclass(frozen=True)
class Mark:
    """A tensor with a row for each place: of which NonZero, by its position in the graph, along which
    dimension."""

    taken: int
    dim: int


@dataclass(frozen=True)
class Followed:
    """What becomes of rows. By position in the graph: the NonZeros, the axis of rows of each node that
    computes with them, and of each the NonZero; those of these nodes that put rows where they belong. By
    tensor: marks, and what is known: places, and what is computed of them alone."""

    taken: Mapping[int, Taken]
    axes: Mapping[int, str]
    owners: Mapping[int, int]
    ends: frozenset[int]
    marks: Mapping[str, Mark]
    known: Mapping[str, Array]


class _Walk:
    """Goes through a graph's nodes in their order."""

    def __init__(self, graph: Graph, rows: OpenRows) -> None:
        self.graph, self.rows = graph, rows
        self.taken: dict[int, Taken] = {}
        self.axes: dict[int, str] = {}
        self.owners: dict[int, int] = {}
        self.ends: set[int] = set()
        self.marks: dict[str, Mark] = {}
        self.known: dict[str, Array] = {}

    def followed(self) -> Followed:
        opened = self.rows.sizes | self.rows.numbers
        for i, node in enumerate(self.graph.nodes):
            if isinstance(node.op, Places):
                self.taken[i] = taken = Taken(node, node.inputs[0], node.op.sizes)
                self.marks[node.output] = Mark(i, 1)
                self.known[node.output] = node.op.reference()
            elif not self.marks.keys().isdisjoint(node.inputs):
                self._enter(i, node)
            elif not opened.isdisjoint(node.inputs):
                raise _refused(node)
        for t in self.graph.results:
            if t in self.marks:
                raise Unsupported(f"output {quoted(t)} has them")
        taken, ends = self.taken, frozenset(self.ends)
        return Followed(taken, self.axes, self.owners, ends, self.marks, self.known)

    def _enter(self, i: int, node: Node) -> None:
        op = node.op
        found = [(j, self.marks[t]) for j, t in enumerate(node.inputs) if t in self.marks]
        owners = {m.taken for _, m in found}
        rows = {op.reads[j][m.dim] for j, m in found}
        if len(owners) > 1 or len(rows) > 1:
            raise _refused(node)
        owner, (e,) = owners.pop(), rows
        count = self.taken[owner].rows
        if len(e.terms) != 1 or e != axis(e.axes[0]) or op.size[e.axes[0]] != count:
            raise _refused(node)
        row = e.axes[0]
        self.axes[i], self.owners[i] = row, owner
        for j, t in enumerate(node.inputs):
            if t not in self.marks and not self._same_for_all(node, j, row):
                raise _refused(node)
        if isinstance(op, Scatter) and row in op.reduced:
            if node.inputs[0] in self.marks or any(t not in self.known for t in node.inputs[2:]):
                raise _refused(node)
            self.ends.add(i)
            return
        if any(b.operand in dict(found) and node.inputs[b.operand] not in self.known for b in op.bounds):
            raise _refused(node)  # a row that no run has must not end the call
        self._result(node, row, owner)

    def _same_for_all(self, node: Node, operand: int, row: str) -> bool:
        """Whether an operand without rows of its own gives each row the same."""
        t, read = node.inputs[operand], node.op.reads[operand]
        if t in self.rows.numbers:
            return False
        if row not in access_axes(read) and t not in self.rows.sizes:
            return True
        value = self.graph.constants.get(t)
        return value is not None and lacking([value]) is None and bool((value == value.reshape(-1)[:1]).all())

    def _result(self, node: Node, row: str, owner: int) -> None:
        op, t = node.op, node.output
        dims = [d for d, e in enumerate(op.write) if e.coefficient(row)]
        mark = Mark(owner, dims[0]) if len(dims) == 1 else None
        plain = mark is not None and op.write[dims[0]] == axis(row) and row not in op.whole
        if mark is None or not plain or self.marks.setdefault(t, mark) != mark:
            raise _refused(node)
        values = [self.known.get(x, self.graph.constants.get(x)) for x in node.inputs]
        if len(self.graph.writers[t]) == 1 and lacking([v for v in values if v is not None]) is None:
            whole = [v for v in values if v is not None]
            if len(whole) == len(values):
                self.known[t] = result_of(op, whole, self.graph.tensors[t].shape)


def _refused(node: Node) -> Unsupported:
    name = quoted(node.source[0]) if node.source else "a node"
    return Unsupported(
        f"node {name} ({node.op.name}) does more than compute each for itself or put it in place"
    )


def follow(graph: Graph, rows: OpenRows) -> Followed:
    """What becomes of rows. Raises Unsupported, what of them is more than rows, each for itself."""
    if rows.problem:
        raise Unsupported(rows.problem)
    return _Walk(graph, rows).followed()


# -- places as numbers ------------------------------------------------------------------------


def in_row_order(names: Sequence[str], sizes: Sequence[int]) -> Affine:
    """The place of an element of dimensions `names` among all, row by row; those of one element count for
    nothing."""
    terms = [(a, product(sizes[d + 1 :])) for d, (a, n) in enumerate(zip(names, sizes, strict=True)) if n > 1]
    return Affine(tuple(terms))


def in_digits(value: Array, sizes: Sequence[int]) -> tuple[int, tuple[int, ...]] | None:
    """Places of rows as a number and how much each dimension of the mask adds to it; None: they are none."""
    whole = value.reshape(tuple(sizes))
    first = int(whole.reshape(-1)[0])
    origin = (0,) * len(sizes)
    factors = [
        int(whole[(*origin[:d], 1, *origin[d + 1 :])]) - first if n > 1 else 0 for d, n in enumerate(sizes)
    ]
    made = first + np.tensordot(np.array(factors, np.int64), np.indices(tuple(sizes)), 1)
    return (first, tuple(factors)) if np.array_equal(made, whole) else None


def by_row(node: Node, operand: int, row: str, value: Array) -> Array | None:
    """What is known of an operand, one number for each row; None where that depends on more."""
    read, size = node.op.reads[operand], node.op.size
    alone = tuple(Affine(tuple(t for t in e.terms if t[0] == row), e.const) for e in read)
    seen = gather(value, alone, [(row, size[row])], 0)
    others = [(a, size[a]) for a in access_axes(read) if a != row]
    whole = gather(value, read, [(row, size[row]), *others], 0)
    return seen if np.array_equal(whole, np.broadcast_to(_column(seen, whole.ndim), whole.shape)) else None


def _column(line: Array, dimensions: int) -> Array:
    return line.reshape([-1] + [1] * (dimensions - 1))
