"""Plan -> sweeps: how the host runs a step for all its cores at once.

A sweep is one op over its whole iteration space, on homes instead of cores' buffers, in blocks. It computes
what the step's tasks compute, from the same operands, by the same body, each sum in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...ir.affine import axis
from ...ir.builder import FRESH
from ...ir.dtypes import BF16, F32
from ...ir.op import Op
from ...ir.ops.conversion import plain_cast
from ...ir.ops.elementwise import join_of
from ...ir.ops.rearrange import plain_copy
from ...placement.plan.plan import Plan
from .blocks import LITTLE, NEAR, Boxes, boxes, steps_of
from .entry_homes import EntryHomes, Task, padded_reads, tasks_of, whole
from .homes import Home, Lay, Margin, Stock, View, elements_of, view
from .merge_axes import merged
from .orientation import Filled, fastest_of_cache, fastest_of_result, filled_axis, vectors_axis
from .panels import Factor, PanelHomes, panel_width, starts_evenly
from .sum_order import Order, Stage, across, orders

ONCE = Order((Stage({}, FRESH),))
FETCH = 2  # elements that a vector instruction takes while a byte comes from memory


@dataclass(frozen=True)
class Sweep:
    """One op in blocks. views: of the operands, then the result. part, chunk: see `sum_order.Order`.

    filled: the axis that runs over the positions of a cache, "" for none, and how many of them it takes at a
    step: past those that it holds, the cache is 0.
    """

    name: str
    op: Op
    lane: str
    views: tuple[View, ...]
    part: str
    chunk: int
    boxes: Boxes
    work: int  # elements that pass through vector instructions, or that are fetched in the same time
    shared: bool  # whether that is worth more than one thread
    filled: Filled = ("", 1)


@dataclass(frozen=True)
class Part:
    """An entry: what is laid and read, and the sweeps of a call. first: the number of the first sweep."""

    inputs: tuple[Lay, ...]
    outputs: tuple[Lay, ...]
    sweeps: tuple[Sweep, ...]
    first: int


def sweeps_of(plan: Plan, lanes: int, stock: Stock, widens: bool) -> Part:
    """The sweeps of one plan, for a host with `lanes` f32 lanes; their homes go into the stock.

    widens: whether what is multiplied with bf16 weights is made f32 before, once for all products: for a host
    that multiplies pairs of bf16 no faster. A product of two bf16 numbers is exact in f32: the same bits.
    """
    tasks, graph = tasks_of(plan), plan.graph
    homes = EntryHomes(plan, tasks, stock)
    becomes = {past: present for present, past in graph.in_place.items()}
    states = {past for past, _ in graph.states}
    inputs: list[Lay] = []
    for s in plan.steps:
        if s.kind == "input":
            kept = s.tensor in states
            inner = fastest_of_cache(graph, becomes.get(s.tensor)) if kept else None
            home = homes.state(s.tensor, inner) if kept else homes.new(s.tensor, "input", None)
            inputs.append(whole(home))
    walk = _Walk(plan, lanes, homes, frozenset(becomes), widens)
    for t in tasks:
        walk.task(t)
    for past, present in graph.update_order():
        walk.copy(past, homes.of(present), homes.of(past))
    outputs = homes.close(tuple(plan.outputs), walk.number)
    return Part(tuple(inputs), outputs, tuple(walk.sweeps), homes.first + 1)


@dataclass(frozen=True)
class _Computation:
    """What a sweep computes: an op on views of homes, its sums in an order. tensors: its operands."""

    name: str
    op: Op
    views: tuple[View, ...]
    order: Order = ONCE
    tensors: tuple[str, ...] = ()


class _Walk:
    """Goes through the tasks of a plan and makes their sweeps. caches: states that change where they lie."""

    def __init__(
        self, plan: Plan, lanes: int, homes: EntryHomes, caches: frozenset[str], widens: bool
    ) -> None:
        self.plan, self.graph, self.lanes, self.homes, self.caches = plan, plan.graph, lanes, homes, caches
        self.widens = widens
        self.sweeps: list[Sweep] = []
        self.panels = PanelHomes(plan.graph, homes)
        self.padded: dict[tuple[str, Margin], Home] = {}
        self.widened: dict[tuple[str, Margin | None], Home] = {}

    @property
    def number(self) -> int:
        """That of the next sweep; after the last one, of when the outputs are read."""
        return self.homes.first + 1 + len(self.sweeps)

    def task(self, t: Task) -> None:
        """The sweeps of a step with its join."""
        op = t.step.op
        narrow = self._narrow(t)
        operands = [self._wider(t, j) if j in narrow else self._operand(t, j) for j in range(len(op.reads))]
        op = replace(op, in_types=tuple(F32 if j in narrow else d for j, d in enumerate(op.in_types)))
        if op.updates is not None:
            self.homes.lies_in(t.tensor, t.step.operands[op.updates].tensor)
        elif self.homes.find(t.tensor) is None:
            self.homes.new(t.tensor, "result", fastest_of_result(self.graph, t, operands))
        result = view(self.homes.of(t.tensor), op.write, [a for a, _ in op.axes])
        tensors = tuple(o.tensor for o in t.step.operands)
        first, *rest = orders(t.step)
        whole = _Computation(t.step.name, op, (*operands, result), first, tensors)
        self._sum(t, whole)
        for order in rest:
            self._joined(t, replace(whole, order=order))

    def copy(self, name: str, old: Home, new: Home) -> None:
        """A sweep that copies a whole tensor from home to home, as the type of the new one."""
        names = [f"d{i}" for i in range(len(old.shape))]
        access = tuple(axis(a) for a in names)
        axes = tuple(zip(names, old.shape, strict=True))
        op: Op = plain_copy(axes, access, old.dtype)
        if new.dtype != old.dtype:
            op = plain_cast(axes, access, old.dtype, new.dtype)
        self._free(_Computation(name, op, (view(old, access, names), view(new, access, names))))

    # -- operands -----------------------------------------------------------------------------
    def _operand(self, t: Task, j: int) -> View:
        tensor, op = t.step.operands[j].tensor, t.step.op
        home = self.homes.of(tensor)
        need = dict(padded_reads(self.plan, t)).get(tensor)
        if need is not None and home.fill != need.fill:
            home = self._refilled(tensor, need)
        return view(home, op.reads[j], [a for a, _ in op.axes])

    def _refilled(self, tensor: str, margin: Margin) -> Home:
        """A copy of a tensor with other margins than its home has."""
        if (tensor, margin) not in self.padded:
            old = self.homes.of(tensor)
            self.padded[tensor, margin] = new = self.homes.alike(old, margin)
            self.copy(f"{tensor} padded", old, new)
        return self.padded[tensor, margin]

    def _narrow(self, t: Task) -> list[int]:
        """Operands in bf16 that are multiplied with constants in bf16, where these are widened."""
        op, constants = t.step.op, self.graph.constants
        both = {*op.in_types} == {BF16}
        if not (self.widens and both and op.paired and op.collapsible) or across(t.step):
            return []
        held = [o.tensor in constants for o in t.step.operands]
        return [j for j in op.panels if not held[j] and any(held)]

    def _wider(self, t: Task, j: int) -> View:
        """An operand in f32."""
        tensor, op = t.step.operands[j].tensor, t.step.op
        margin = dict(padded_reads(self.plan, t)).get(tensor)
        if (tensor, margin) not in self.widened:
            old = self.homes.of(tensor)
            self.widened[tensor, margin] = new = self.homes.alike(old, margin, F32)
            self.copy(f"{tensor} in f32", old, new)
        return view(self.widened[tensor, margin], op.reads[j], [a for a, _ in op.axes])

    # -- sums ---------------------------------------------------------------------------------
    def _joined(self, t: Task, c: _Computation) -> None:
        """A partial result apart, and what joins it to the result so far."""
        total, op = self.homes.of(t.tensor), c.op
        apart = self.homes.alike(total, None)
        self._sum(t, replace(c, views=(*c.views[:-1], view(apart, op.write, [a for a, _ in op.axes]))))
        join = join_of(op)
        views = [view(h, op.write, [a for a, _ in join.axes]) for h in (total, apart, total)]
        self._free(_Computation(f"{t.step.name} joined", join, tuple(views)))

    def _sum(self, t: Task, c: _Computation) -> None:
        op = c.op
        if op.collapsible:
            self._free(c, across(t.step))
            return
        lane = op.lane_axis(op.size)
        if op.updates is not None:
            steps = {a: n for a, n in op.axes if a not in op.reduced}  # little is touched: one call
        else:
            steps = steps_of(op, lane, 0, self.lanes, [*op.whole, lane])
        names = {a: a for a in op.reduced}
        self._add(c, lane, boxes(op.axes, steps, c.order.stages, names))

    def _free(self, c: _Computation, lanes_across: str = "") -> None:
        """A sweep of an op whose axes may be dropped, merged and reordered."""
        op, views, names = merged(c.op, c.views, c.order, lanes_across)
        order = replace(c.order, part=names.get(c.order.part, ""))
        filled = self._filled(op, views)
        lane = names.get(lanes_across, "")
        step = 0  # along the panels
        if not lane:
            lane = self._vectors_axis(op, views, c.tensors)
            if op.panels and lane:
                evenly = starts_evenly(op, order, names)
                factors = {j: self.panels.factor(op, c.tensors[j], views[j], lane, evenly) for j in op.panels}
                width = self.panels.width(tuple(factors.values()), self.lanes)
                step = min(width, panel_width(op, views[:-1], lane, self.lanes))
                for j, factor in factors.items():
                    views[j] = self._stood(factor, width)
        steps = steps_of(op, lane, step, self.lanes, [])
        for v in views:
            if v.panels is not None:
                steps[v.panels.axis] = min(step, v.panels.width)  # no call passes a panel's end
        done = replace(c, op=op, views=tuple(views), order=order)
        outermost = lane if self._weights_last(op, views) else ""
        self._add(done, lane, boxes(op.axes, steps, order.stages, names, outermost), filled)

    def _weights_last(self, op: Op, views: Sequence[View]) -> bool:
        """Whether items go through the factor in panels once, and through the others for each panel: where it
        is the larger, and no cache of one processor keeps it from one block of rows to the next."""
        size = {True: 0, False: 0}
        for v in views[:-1]:
            size[v.panels is not None] += elements_of(op, v) * self.homes.stock.homes[v.home].dtype.bytes
        return size[True] > max(size[False], NEAR)

    def _filled(self, op: Op, views: Sequence[View]) -> Filled:
        """The axis that runs over the positions of a cache; see `filled_axis`."""
        length = self.graph.length
        if length is None:
            return "", 1
        found = [(self.homes.find(past), dim) for past, dim in length.dims if past in self.caches]
        caches = [(home, dim) for home, dim in found if home is not None]
        return filled_axis(op, views[:-1], caches, length.capacity)

    def _vectors_axis(self, op: Op, views: Sequence[View], tensors: Sequence[str]) -> str:
        def packed(j: int, lane: str) -> bool:
            return j in op.panels and self.panels.packs(Factor(op, tensors[j], views[j], lane))

        return vectors_axis(op, views, self.lanes, packed)

    def _stood(self, f: Factor, width: int) -> View:
        """A factor in panels where it is worth while; what a call computes is brought there first."""
        stood = self.panels.stand(f, width)
        if stood.copy is not None:
            copy = stood.copy
            steps = {**steps_of(copy, f.lane, 0, self.lanes, []), f.lane: width}
            made = boxes(copy.axes, steps, ONCE.stages, {})
            self._add(_Computation(f"{f.tensor} in panels", copy, (f.view, stood.view)), f.lane, made)
        return stood.view

    def _add(self, c: _Computation, lane: str, made: Boxes, filled: Filled = ("", 1)) -> None:
        op, order = c.op, c.order
        work = sum(int(w.elements) for w in op.work(op.size)) + FETCH * self._fetched(c)
        for v in c.views:
            self.homes.stock.touch(v.home, self.number)
        shared = work >= LITTLE
        self.sweeps.append(
            Sweep(c.name, op, lane, c.views, order.part, order.chunk, made, work, shared, filled)
        )

    def _fetched(self, c: _Computation) -> int:
        """Bytes of constants, which come from the host's main memory."""
        homes = [(v, self.homes.stock.homes[v.home]) for v in c.views]
        return sum(elements_of(c.op, v) * h.dtype.bytes for v, h in homes if h.kind == "constant")
