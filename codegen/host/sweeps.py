"""Plan -> sweeps: how the host runs a step for all its cores at once.

A sweep is one op over its whole iteration space, on homes instead of cores' buffers, in blocks. It computes
what the step's tasks compute, from the same operands, by the same body, each sum in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ...ir.affine import Affine, access_axes, axis
from ...ir.builder import FRESH
from ...ir.dtypes import DType
from ...ir.op import Op
from ...ir.ops.contract import Contract
from ...ir.ops.elementwise import Add, Elementwise, Mul
from ...ir.ops.rearrange import Copy
from ...ir.ops.reduce import Reduce
from ...placement.plan.plan import Plan, Step
from .blocks import LITTLE, Boxes, boxes, steps_of
from .homes import Home, Kind, Lay, Margin, Standing, Stock, View, lay_out, margins_of, taken_over, view
from .merge_axes import merged
from .panels import apart, elements_of, in_panels, lays, panel_width, stands
from .sum_order import WIDE, Order, Stage, across, orders

FREE = (Elementwise, Contract, Reduce)  # families whose bodies only know which axes are reduced
JOINS: dict[str, type[Elementwise]] = {"add": Add, "mul": Mul}  # of partial results
ONCE = Order((Stage({}, FRESH),))
STRIDED = 8.0  # cost of an access to elements that are apart, against one to neighbours
TURNED = 2.0  # of a copy's reads of such elements, which are turned in registers
BOUND = 1 << 16  # bytes from which an input or output is used where the caller has it
FETCH = 2  # elements that a vector instruction takes while a byte comes from memory
REUSE = 4  # reads of an operand that pay for standing it in panels


@dataclass(frozen=True)
class Sweep:
    """One op in blocks. views: of the operands, then the result. part, chunk: see `sums.Order`.

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
    filled: tuple[str, int] = ("", 1)


@dataclass(frozen=True)
class Part:
    """An entry: what is laid and read, and the sweeps of a call. first: the number of the first sweep."""

    inputs: tuple[Lay, ...]
    outputs: tuple[Lay, ...]
    sweeps: tuple[Sweep, ...]
    first: int


@dataclass(frozen=True)
class _Task:
    """A step with the join of its partial results: `tensor` is the whole result."""

    step: Step
    tensor: str


class Sweeping:
    """Makes the sweeps of one plan, for a host with `lanes` f32 lanes."""

    def __init__(self, plan: Plan, lanes: int) -> None:
        self.plan, self.lanes = plan, lanes
        self.graph = plan.graph
        self.tasks = [_Task(s, plan.graph.nodes[s.node].output) for s in plan.steps if s.kind == "task"]
        self.pasts = {past for past, _ in self.graph.states}
        self.own = {past: present for present, past in plan.graph.in_place.items()}
        self.of: dict[str, Home] = {}
        self.mine: list[int] = []  # homes that live during this entry's calls only
        self.padded: dict[tuple[str, Margin], Home] = {}
        self.margins = margins_of(self.padded_reads())
        self.last = taken_over(self.graph, [t.step for t in self.tasks], self.margins)
        self.sweeps: list[Sweep] = []
        self.packed: dict[Any, Standing] = {}  # panels of what a call computes

    @property
    def work(self) -> int:
        """Iterations of all tasks."""
        return sum(prod(n for _, n in t.step.op.axes) for t in self.tasks)

    def make(self, stock: Stock) -> Part:
        """The plan's sweeps; their homes go into the stock."""
        self.stock, self.first = stock, stock.count
        inputs: list[Lay] = []
        for s in self.plan.steps:
            if s.kind == "input" and s.tensor in self.pasts:
                self.of[s.tensor] = stock.kept.get(s.tensor) or self._home(
                    s.tensor, "state", self._inner_of_cache(s.tensor)
                )
            elif s.kind == "input":
                self._home(s.tensor, "input", None)
            if s.kind == "input":
                inputs.append(_whole(self.of[s.tensor]))
        for t in self.tasks:
            self._task(t)
        for past, present in self.graph.update_order():
            self._update(past, present)
        outputs = [_whole(self._known(name)) for name in self.plan.outputs]
        stock.count = self._number() + 1
        for o in outputs:
            stock.touch(o.home, self._number())
        bound = self._bound()
        for number in self.mine:
            stock.homes[number] = self._lived(stock.homes[number], number in bound)
        return Part(tuple(inputs), tuple(outputs), tuple(self.sweeps), self.first + 1)

    def _number(self) -> int:
        """That of the next sweep; after the last one, of when the outputs are read."""
        return self.first + 1 + len(self.sweeps)

    def _lived(self, home: Home, bound: bool) -> Home:
        at = self.stock.touched.get(home.number, [self.first])
        if bound:
            return replace(home, live=(self.first, self._number()), bound=True)
        return replace(home, live=(self.first if home.kind == "input" else min(at), max(at)))

    def _bound(self) -> set[int]:
        """Homes of inputs and outputs that are an array like the caller's, and large."""
        named = {n: self.of[n] for n in (*self.graph.inputs, *self.plan.outputs)}
        return {
            h.number
            for n, h in named.items()
            if h.kind == ("input" if n in self.graph.inputs else "result")
            and not (n in self.graph.inputs and n in self.plan.outputs)
            and h.fill is None
            and h.pitches == lay_out(h.shape, None, None)[0]
            and h.bytes >= BOUND
        }

    # -- homes --------------------------------------------------------------------------------
    def padded_reads(self, kept: bool = False) -> Iterable[tuple[str, Margin]]:
        """Tensors that are read past their ends, and how far; only constants and states with `kept`."""
        for t in self.tasks:
            for tensor, margin in self._padded_reads(t):
                if not kept or tensor in self.graph.constants or tensor in self.pasts:
                    yield tensor, margin

    def _padded_reads(self, t: _Task) -> Iterable[tuple[str, Margin]]:
        op = t.step.op
        box = {a: (0, n) for a, n in op.axes}
        for tensor, access in zip((o.tensor for o in t.step.operands), op.reads, strict=True):
            hull = [e.hull(box) for e in access]
            shape = self.graph.tensors[tensor].shape
            before = tuple(max(0, -lo) for lo, _ in hull)
            after = tuple(max(0, hi - n) for (_, hi), n in zip(hull, shape, strict=True))
            if any(before) or any(after):
                yield tensor, Margin(before, after, float(op.fill))

    def _home(self, tensor: str, kind: Kind, inner: int | None) -> Home:
        """A new home of a tensor of the graph, and of those that take it over in turn."""
        last = self.last.get(tensor, tensor)
        t = self.graph.tensors[last]
        stays = kind in ("constant", "state")
        margin = (self.stock.margins if stays else self.margins).get(last)
        home = self._add_home(last, kind, t.dtype, t.shape, inner, margin)
        same = [name for name, end in self.last.items() if end == last] if tensor in self.last else []
        self.of |= dict.fromkeys([tensor, last, *same], home)
        if stays:
            self.stock.kept[tensor] = home
        return home

    def _add_home(
        self,
        tensor: str,
        kind: Kind,
        dtype: DType,
        shape: tuple[int, ...],
        inner: int | None,
        margin: Margin | None,
    ) -> Home:
        fill = margin.fill if margin else None
        home = self.stock.add(tensor, kind, dtype, shape, lay_out(shape, inner, margin), fill)
        if not home.stays and margin is None:
            self.mine.append(home.number)
        return home

    def _known(self, tensor: str) -> Home:
        """The home of a tensor; a constant gets one when it is first read in its own order."""
        if tensor not in self.of and tensor in self.stock.kept:
            self.of[tensor] = self.stock.kept[tensor]
        elif tensor not in self.of:
            self.stock.constants.append(_whole(self._home(tensor, "constant", None)))
        return self.of[tensor]

    # -- steps --------------------------------------------------------------------------------
    def _task(self, t: _Task) -> None:
        op = t.step.op
        operands = [self._operand(t, j) for j in range(len(op.reads))]
        if op.updates is not None:
            self.of[t.tensor] = self.of[t.step.operands[op.updates].tensor]
        elif t.tensor not in self.of:
            self._home(t.tensor, "result", self._inner(t, operands))
        result = view(self.of[t.tensor], op.write, [a for a, _ in op.axes])
        self._arrange(t, [*operands, result])

    def _operand(self, t: _Task, j: int) -> View:
        tensor = t.step.operands[j].tensor
        op = t.step.op
        home = self._known(tensor)
        need = dict(self._padded_reads(t)).get(tensor)
        if need is not None and home.fill != need.fill:
            home = self._refilled(tensor, need)
        return view(home, op.reads[j], [a for a, _ in op.axes])

    def _refilled(self, tensor: str, margin: Margin) -> Home:
        """A copy of a tensor with other margins than its home has."""
        if (tensor, margin) not in self.padded:
            old = self._known(tensor)
            self.padded[tensor, margin] = new = self._alike(old, margin)
            self._copy(f"{tensor} padded", old, new)
        return self.padded[tensor, margin]

    def _alike(self, home: Home, margin: Margin | None) -> Home:
        """A new home for as many elements, the same dimension running fastest."""
        inner = next((d for d, p in enumerate(home.pitches) if p == 1 and home.shape[d] > 1), None)
        return self._add_home(home.tensor, "result", home.dtype, home.shape, inner, margin)

    def _update(self, past: str, present: str) -> None:
        self._copy(past, self._known(present), self._known(past))

    def _copy(self, name: str, old: Home, new: Home) -> None:
        names = [f"d{i}" for i in range(len(old.shape))]
        access = tuple(axis(a) for a in names)
        op = Copy(
            axes=tuple(zip(names, old.shape, strict=True)),
            reads=(access,),
            write=access,
            in_types=(old.dtype,),
            out_type=old.dtype,
        )
        views = [view(h, access, names) for h in (old, new)]
        self._free(name, op, views, ONCE, "", [])

    def _inner(self, t: _Task, operands: Sequence[View]) -> int | None:
        """The dimension of the result that shall run fastest; None: the last.

        That of the weights' own axis of a product (the channels of a convolution), else that along which
        the largest operand runs fastest.
        """
        op = t.step.op
        names = [o.tensor for o in t.step.operands]
        chosen: list[str] = []
        if isinstance(op, Contract):
            for j, other in ((0, 1), (1, 0)):
                if names[j] in self.graph.constants:
                    own = set(access_axes(op.reads[j])) - set(access_axes(op.reads[other]))
                    chosen += [a for a in own if a not in op.reduced and op.size[a] >= WIDE]
            chosen.sort(key=lambda a: (-op.size[a], a))
        elif operands:
            sizes = [
                elements_of(op, v) * (names[j] not in self.graph.constants) for j, v in enumerate(operands)
            ]
            main = operands[sizes.index(max(sizes))]
            chosen = [a for a, s in main.strides.items() if s == 1 and op.size[a] > 1]
        for a in chosen:
            found = [d for d, e in enumerate(op.write) if e.coefficient(a) == 1]
            if found:
                return found[0]
        return None

    def _inner_of_cache(self, past: str) -> int | None:
        """The dimension of a cache that shall run fastest: the one that a product reads along its vectors."""
        present = self.own.get(past)
        for node in self.graph.nodes:
            if present in node.inputs and isinstance(node.op, Contract):
                j = node.inputs.index(present)
                own = set(access_axes(node.op.reads[j])) - set(access_axes(node.op.reads[1 - j]))
                kept = [a for a in own if a not in node.op.reduced and node.op.size[a] >= WIDE]
                best = max(kept, key=lambda a: (node.op.size[a], a), default="")
                return next((d for d, e in enumerate(node.op.reads[j]) if e == axis(best)), None)
        return None

    # -- sweeps -------------------------------------------------------------------------------
    def _arrange(self, t: _Task, views: list[View]) -> None:
        first, *rest = orders(t.step)
        self._sum(t, views, first)
        for sums in rest:
            self._joined(t, views, sums)

    def _joined(self, t: _Task, views: list[View], sums: Order) -> None:
        """A partial result apart, and what joins it to the result so far."""
        whole = self.of[t.tensor]
        apart = self._alike(whole, None)
        op = t.step.op
        self._sum(t, [*views[:-1], view(apart, op.write, [a for a, _ in op.axes])], sums)
        kept = tuple((a, n) for a, n in op.axes if a not in op.reduced)
        join = JOINS[op.combine or "add"](
            axes=kept,
            reads=(op.write, op.write),
            write=op.write,
            in_types=(whole.dtype, whole.dtype),
            out_type=whole.dtype,
        )
        joined = [view(h, op.write, [a for a, _ in kept]) for h in (whole, apart, whole)]
        self._free(f"{t.step.name} joined", join, joined, ONCE, "", [])

    def _sum(self, t: _Task, views: list[View], sums: Order) -> None:
        step, op = t.step, t.step.op
        lanes_across = across(step)
        if isinstance(op, FREE):
            tensors = [o.tensor for o in step.operands]
            self._free(step.name, op, views, sums, lanes_across, tensors)
            return
        lane = op.lane_axis(op.size)
        if op.updates is not None:
            steps = {a: n for a, n in op.axes if a not in op.reduced}  # little is touched: one call
        else:
            steps = steps_of(op, lane, 0, self.lanes, [*op.whole, lane])
        names = {a: a for a in op.reduced}
        self._add(step.name, op, lane, views, sums, boxes(op.axes, steps, sums.stages, names))

    def _free(
        self, name: str, op: Op, views: Sequence[View], sums: Order, lanes_across: str, tensors: Sequence[str]
    ) -> None:
        """A sweep of an op whose axes may be dropped, merged and reordered."""
        op, views, names = merged(op, views, sums, lanes_across)
        sums = replace(sums, part=names.get(sums.part, ""))
        filled = self._filled(op, views)
        lane = names.get(lanes_across, "")
        step = 0  # along the panels
        if not lane:
            lane = self._lane(op, views, tensors)
            if isinstance(op, Contract) and lane:
                pairs = _starts_evenly(op, sums, names)
                width = self._width(op, views, lane, tensors, pairs)
                step = min(width, panel_width(op, views[:-1], lane, self.lanes))
                panels = [self._panels(op, views, j, lane, width, tensors, pairs) for j in range(2)]
                views = [*panels, views[-1]]
        steps = steps_of(op, lane, step, self.lanes, [])
        for v in views:
            if v.panel is not None:
                steps[v.panel.axis] = min(step, v.panel.width)  # no call passes a panel's end
        self._add(name, op, lane, views, sums, boxes(op.axes, steps, sums.stages, names), filled)

    def _filled(self, op: Op, views: Sequence[View]) -> tuple[str, int]:
        """The axis of a product that runs over the positions of a cache which it reads, "" for none.

        And how many of them it takes at a step: one, or a block where the product keeps the blocks apart.
        """
        length = self.graph.length
        if length is None or not isinstance(op, Contract):
            return "", 1
        for past, dim in length.dims:
            home = self.of.get(past)
            if home is None or past not in self.own:
                continue
            for v in (v for v in views[:-1] if v.home == home.number):
                for a, n in op.axes:
                    step, rest = divmod(length.capacity, n)
                    whole = rest == 0 and v.strides.get(a) == step * home.pitches[dim]
                    if whole and (step == 1 or a not in op.reduced):
                        return a, step
        return "", 1

    def _lane(self, op: Op, views: Sequence[View], tensors: Sequence[str]) -> str:
        """The kept axis that vectors run along: where most accesses are to neighbours."""
        inner = prod(op.size[a] for a in op.reduced)
        best, least = "", float("inf")
        for a, n in op.axes:
            if a in op.reduced:
                continue
            cost = 1.0
            for j, v in enumerate(views):
                stride = v.strides.get(a, 0)
                result = j == len(views) - 1
                packed = isinstance(op, Contract) and not result and self._packs(op, v, tensors[j], a)
                apart = TURNED if isinstance(op, Copy) and not result else STRIDED
                if stride:
                    cost += (1.0 if stride == 1 or packed else apart) / (inner if result else 1)
            cost *= -(-n // self.lanes) * self.lanes / n
            if cost < least:
                best, least = a, cost
        return best

    def _packs(self, op: Op, v: View, tensor: str, lane: str) -> bool:
        """Whether an operand is stood in panels along `lane`: weights always, others where it pays."""
        if not v.strides.get(lane) or elements_of(op, v) > 2 * prod(self.graph.tensors[tensor].shape):
            return False
        if tensor in self.graph.constants:
            return self.of[tensor].fill is None
        reads = prod(n for a, n in op.axes if not v.strides.get(a))
        return v.strides[lane] != 1 and reads >= REUSE

    def _width(self, op: Op, views: Sequence[View], lane: str, tensors: Sequence[str], pairs: bool) -> int:
        """Of the panels of a product: those in which a constant of it stands already, else its own."""
        for v, tensor in zip(views[:-1], tensors, strict=True):
            if tensor in self.graph.constants and self._packs(op, v, tensor, lane):
                paired = pairs and bool(v.strides.get(op.paired))
                standing = self.stock.panels.get(stands(op, v, lane, paired))
                if standing is not None:
                    return standing.width
        return panel_width(op, views[:-1], lane, self.lanes)

    def _panels(
        self,
        op: Op,
        views: Sequence[View],
        j: int,
        lane: str,
        width: int,
        tensors: Sequence[str],
        pairs: bool,
    ) -> View:
        """Operand `j` with its elements along `lane` side by side, `width` at a time; constants in pairs."""
        old, tensor = views[j], tensors[j]
        if not self._packs(op, old, tensor, lane):
            return old
        constant = tensor in self.graph.constants
        n, (outer, summed) = op.size[lane], apart(op, old, lane)
        used = [*outer, *summed]
        pairs = pairs and constant and bool(old.strides.get(op.paired))
        key = stands(op, old, lane, pairs) if constant else (tensor, width, *stands(op, old, lane, pairs))
        standing = (self.stock.panels if constant else self.packed).get(key)
        number = len(self.stock.homes) if standing is None else standing.home
        new, elements = in_panels(number, outer, summed, (lane, n), width, pairs)
        if standing is not None:
            return new
        dtype = self.graph.tensors[tensor].dtype
        self._add_home(tensor, "constant" if constant else "result", dtype, (elements,), None, None)
        (self.stock.panels if constant else self.packed)[key] = Standing(number, width)
        if constant:
            self.stock.constants += lays(tensor, old, new, used, (lane, n), width)
        else:
            axes = (*used, (lane, n))
            access = (Affine(tuple((a, 1) for a, _ in axes)),)
            copy = Copy(axes=axes, reads=(access,), write=access, in_types=(dtype,), out_type=dtype)
            steps = {**steps_of(copy, lane, 0, self.lanes, []), lane: width}
            self._add(
                f"{tensor} in panels", copy, lane, [old, new], ONCE, boxes(axes, steps, ONCE.stages, {})
            )
        return new

    def _add(
        self,
        name: str,
        op: Op,
        lane: str,
        views: Sequence[View],
        sums: Order,
        made: Boxes,
        filled: tuple[str, int] = ("", 1),
    ) -> None:
        work = sum(int(w.elements) for w in op.work(op.size)) + FETCH * self._fetched(op, views)
        for v in views:
            self.stock.touch(v.home, self._number())
        self.sweeps.append(
            Sweep(name, op, lane, tuple(views), sums.part, sums.chunk, made, work, work >= LITTLE, filled)
        )

    def _fetched(self, op: Op, views: Sequence[View]) -> int:
        """Bytes of constants, which come from the host's main memory."""
        homes = [(v, self.stock.homes[v.home]) for v in views]
        return sum(elements_of(op, v) * h.dtype.bytes for v, h in homes if h.kind == "constant")


def _starts_evenly(op: Op, sums: Order, names: Mapping[str, str]) -> bool:
    """Whether all passes and chunks of a sum start at even places along the op's paired axis."""
    if not op.paired:
        return False
    starts = [lo for s in sums.stages for a, (lo, _) in s.bounds.items() if names.get(a) == op.paired]
    chunks = [sums.chunk] if sums.part == op.paired else []
    return not any(n % 2 for n in (*starts, *chunks))


def _whole(home: Home) -> Lay:
    """A tensor between its home and an array of its shape."""
    pitches, _, _ = lay_out(home.shape, None, None)
    return Lay(home.tensor, home.number, home.shape, home.origin, home.pitches, 0, pitches)
