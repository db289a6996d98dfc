"""The homes of one entry's tensors: which tensor lies in which, with what margins, and when."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

from ...ir.dtypes import DType
from ...placement.plan.plan import Plan, Step
from .homes import Home, Kind, Lay, Margin, Stock, lay_out, margins_of, taken_over

BOUND = 1 << 16  # bytes from which an input or output is used where the caller has it


@dataclass(frozen=True)
class Task:
    """A step with the join of its partial results: `tensor` is the whole result."""

    step: Step
    tensor: str


def tasks_of(plan: Plan) -> tuple[Task, ...]:
    """In the order in which they are carried out."""
    return tuple(Task(s, plan.graph.nodes[s.node].output) for s in plan.steps if s.kind == "task")


def work_of(plan: Plan) -> int:
    """Iterations of all tasks."""
    return sum(prod(n for _, n in s.op.axes) for s in plan.steps if s.kind == "task")


def padded_reads(plan: Plan, t: Task) -> Iterator[tuple[str, Margin]]:
    """Tensors that a task reads past their ends, and how far."""
    op = t.step.op
    box = {a: (0, n) for a, n in op.axes}
    for tensor, access in zip((o.tensor for o in t.step.operands), op.reads, strict=True):
        hull = [e.hull(box) for e in access]
        shape = plan.graph.tensors[tensor].shape
        before = tuple(max(0, -lo) for lo, _ in hull)
        after = tuple(max(0, hi - n) for (_, hi), n in zip(hull, shape, strict=True))
        if any(before) or any(after):
            yield tensor, Margin(before, after, float(op.fill))


def kept_padded_reads(plan: Plan) -> Iterator[tuple[str, Margin]]:
    """Those of constants and of states, whose homes all entries have in common."""
    kept = {*plan.graph.constants, *(past for past, _ in plan.graph.states)}
    for t in tasks_of(plan):
        yield from (read for read in padded_reads(plan, t) if read[0] in kept)


class EntryHomes:
    """The homes of one plan's tensors, made as they are first asked for; they go into the stock.

    first: the number of the sweep before the entry's first one, when its inputs are laid.
    """

    def __init__(self, plan: Plan, tasks: Sequence[Task], stock: Stock) -> None:
        self.stock, self.first = stock, stock.count
        self._graph = plan.graph
        self._of: dict[str, Home] = {}
        self._passing: list[int] = []  # homes that live during this entry's calls only
        self._margins = margins_of(read for t in tasks for read in padded_reads(plan, t))
        self._last = taken_over(self._graph, [t.step for t in tasks], self._margins)

    def find(self, tensor: str) -> Home | None:
        """The home of a tensor, None while it has none."""
        return self._of.get(tensor)

    def of(self, tensor: str) -> Home:
        """The home of a tensor; a constant gets one when it is first read in its own order."""
        if tensor not in self._of and tensor in self.stock.kept:
            self._of[tensor] = self.stock.kept[tensor]
        elif tensor not in self._of:
            self.stock.constants.append(whole(self.new(tensor, "constant", None)))
        return self._of[tensor]

    def new(self, tensor: str, kind: Kind, inner: int | None) -> Home:
        """A new home of a tensor of the graph, and of those that take it over in turn.

        inner: the dimension that runs fastest, None for the last.
        """
        last = self._last.get(tensor, tensor)
        t = self._graph.tensors[last]
        stays = kind in ("constant", "state")
        margin = (self.stock.margins if stays else self._margins).get(last)
        home = self._added(
            self.stock.add(last, kind, t.dtype, t.shape, lay_out(t.shape, inner, margin), _fill(margin))
        )
        same = [name for name, end in self._last.items() if end == last] if tensor in self._last else []
        self._of |= dict.fromkeys([tensor, last, *same], home)
        if stays:
            self.stock.kept[tensor] = home
        return home

    def state(self, tensor: str, inner: int | None) -> Home:
        """The home of a state, which all entries have in common; `inner` as in `new`, of the first entry."""
        if tensor not in self.stock.kept:
            return self.new(tensor, "state", inner)
        self._of[tensor] = self.stock.kept[tensor]
        return self._of[tensor]

    def lies_in(self, tensor: str, other: str) -> None:
        """A tensor is made where another one lies."""
        self._of[tensor] = self._of[other]

    def alike(self, home: Home, margin: Margin | None, dtype: DType | None = None) -> Home:
        """A new home for as many elements, the same dimension running fastest. dtype: by default the same."""
        inner = next((d for d, p in enumerate(home.pitches) if p == 1 and home.shape[d] > 1), None)
        laid_out = lay_out(home.shape, inner, margin)
        return self._added(
            self.stock.add(home.tensor, "result", dtype or home.dtype, home.shape, laid_out, _fill(margin))
        )

    def row(self, tensor: str, elements: int, dtype: DType) -> Home:
        """A new home of so many elements in a row, for a tensor in an order of its own."""
        kind: Kind = "constant" if tensor in self._graph.constants else "result"
        shape = (elements,)
        return self._added(self.stock.add(tensor, kind, dtype, shape, lay_out(shape, None, None)))

    def _added(self, home: Home) -> Home:
        if not home.stays and home.fill is None:
            self._passing.append(home.number)
        return home

    def close(self, outputs: Collection[str], end: int) -> tuple[Lay, ...]:
        """How the outputs are read, after the last sweep, at number `end`; all homes are known by now."""
        read = tuple(whole(self.of(name)) for name in outputs)
        self.stock.count = end + 1
        for o in read:
            self.stock.touch(o.home, end)
        bound = self._bound(outputs)
        for number in self._passing:
            home = self.stock.homes[number]
            self.stock.homes[number] = self._lived(home, end, number in bound)
        return read

    def _lived(self, home: Home, end: int, bound: bool) -> Home:
        if bound:
            return replace(home, live=(self.first, end), bound=True)
        at = self.stock.touched.get(home.number, [self.first])
        return replace(home, live=(self.first if home.kind == "input" else min(at), max(at)))

    def _bound(self, outputs: Collection[str]) -> set[int]:
        """Homes of inputs and outputs that are an array like the caller's, and large."""
        inputs = self._graph.inputs
        named = {n: self._of[n] for n in (*inputs, *outputs)}
        return {
            h.number
            for n, h in named.items()
            if h.kind == ("input" if n in inputs else "result")
            and not (n in inputs and n in outputs)
            and h.fill is None
            and h.pitches == lay_out(h.shape, None, None)[0]
            and h.bytes >= BOUND
        }


def _fill(margin: Margin | None) -> float | None:
    return margin.fill if margin else None


def whole(home: Home) -> Lay:
    """A tensor between its home and an array of its shape."""
    pitches, _, _ = lay_out(home.shape, None, None)
    return Lay(home.tensor, home.number, home.shape, home.origin, home.pitches, 0, pitches)
