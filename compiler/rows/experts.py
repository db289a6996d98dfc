"""Loops over experts: rows that NonZero takes for one expert after the other, as rows that know their expert.

The loop's e-th pass takes the rows for which a ranking chose e, and does with them what the others do, with
constants of its own; the results are added where the rows came from. All passes are one then, with constants
looked up by row, and only what was chosen is computed. Results are added in the order of a token's choices,
where the loop adds them in that of experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...ir.absent import folded, lacking
from ...ir.affine import Affine, access_axes, axis
from ...ir.evaluate import evaluate
from ...ir.graph import Graph, Node
from ...ir.op import Array, assemble, gather, product
from ...ir.ops.elementwise import Add
from ...ir.ops.index import gather_along, take
from ...ir.ops.order import ranked
from ...ir.ops.rearrange import Copy, emit_copy, reshape
from ...ir.ops.reduce import ReduceSum
from ...ir.ops.scatter import Scatter
from ...ir.rules import GraphBuilder
from .follow import Followed, by_row, in_digits, in_row_order

Operand = tuple[int, int]  # of a node by position its operand
DEPTH = 4  # ops between a constant and what an expert reads: dequantised, turned, cut, scaled


@dataclass(frozen=True)
class Loop:
    """The passes of a loop as one.

    chosen: the ranking's result; places: where in it each row's expert stands. first: the nodes of the pass
    that stands for all, the last of which puts rows in place; others: of those that go, with what adds their
    results. own: by operand of the first's nodes the constants of all experts, in their order, or what the
    same ops compute of constants alone (weights that are dequantised). instead: by tensor what is read for
    it. counted: the dimension of the mask that says where a row belongs.
    """

    chosen: str
    places: Array
    first: tuple[int, ...]
    others: frozenset[int]
    own: Mapping[Operand, tuple[str, ...]]
    instead: Mapping[str, str]
    counted: int


# -- which expert a mask is of -------------------------------------------------------------


def _made_of(graph: Graph, mask: str) -> tuple[str, set[int]] | None:
    """The one tensor that a mask is computed of, element by element, and the nodes that do so."""
    nodes, sources, left = set[int](), set[str](), [mask]
    while left:
        t = left.pop()
        if t in graph.constants:
            continue
        found = graph.writers.get(t, ())
        own = [graph.nodes[i].op for i in found]
        if not own or not all(op.elementwise for op in own):
            sources.add(t)
        elif not nodes.issuperset(found):
            nodes.update(found)
            left += [x for i in found for x in graph.nodes[i].inputs]
    return (sources.pop(), nodes) if len(sources) == 1 else None


def _numbered(shape: Sequence[int]) -> Array:
    return np.arange(int(product(shape))).reshape(tuple(shape))


def _places(graph: Graph, source: str, nodes: Sequence[int]) -> dict[str, Array]:
    """Which element of the source each element of what is computed of it depends on; -1 for none, -2 for
    several."""
    out = {source: _numbered(graph.tensors[source].shape)}
    for i in nodes:
        node = graph.nodes[i]
        op, made = node.op, np.full([n for _, n in node.op.axes], -1, np.int64)
        for t, read in zip(node.inputs, op.reads, strict=True):
            if t in out:
                seen = gather(out[t], read, op.axes, -1)
                made = np.where((made == -1) | (made == seen), seen, np.where(seen == -1, made, -2))
        whole = out.setdefault(node.output, np.full(graph.tensors[node.output].shape, -1, np.int64))
        box = op.hold({a: (0, n) for a, n in op.axes})
        whole[tuple(slice(lo, hi) for lo, hi in box)] = assemble(made, op.write, op.axes)
    return out


@dataclass(frozen=True)
class _Choice:
    """A NonZero's mask: of all elements of `chosen`, in the order `places`, which are `expert`."""

    chosen: str
    expert: int
    places: Array


def _choices(graph: Graph, masks: Mapping[int, str]) -> dict[int, _Choice]:
    """By NonZero what its mask says, of those whose mask says which elements of a ranking are one number."""
    by_source: dict[str, tuple[set[int], list[int]]] = {}
    for i, mask in masks.items():
        if (made := _made_of(graph, mask)) is not None:
            nodes, taken = by_source.setdefault(made[0], (set(), []))
            nodes |= made[1]
            taken.append(i)
    out: dict[int, _Choice] = {}
    for source, (found, taken) in by_source.items():
        writers = graph.writers.get(source, ())
        ranking = ranked(graph.nodes[writers[0]].op) if len(writers) == 1 else None
        if ranking is None:
            continue
        nodes = sorted(found)
        wanted = tuple(dict.fromkeys(masks[i] for i in taken))
        places = _places(graph, source, nodes)
        own = tuple(graph.nodes[i] for i in nodes)
        part = Graph("masks", graph.tensors, own, graph.constants, (source,), wanted)
        t = graph.tensors[source]
        held: dict[str, list[int]] = {mask: [] for mask in wanted}
        for number in range(ranking[0]):
            values = evaluate(part, {source: np.full(t.shape, number, t.dtype.numpy)})
            for mask, value in values.items():
                if value.any():
                    held[mask] += [number] if value.all() else [-1, -1]
        for i in taken:
            at = places[masks[i]].reshape(-1)
            each_once = np.array_equal(np.sort(at), places[source].reshape(-1))
            if len(held[masks[i]]) == 1 and each_once:
                out[i] = _Choice(source, held[masks[i]][0], at)
    return out


# -- passes ---------------------------------------------------------------------------------


def loops(graph: Graph, followed: Followed) -> Iterator[Loop]:
    """The loops over all experts of a ranking."""
    choices = _choices(graph, {i: t.mask for i, t in followed.taken.items()})
    groups: dict[str, list[int]] = {}
    for i, choice in choices.items():
        groups.setdefault(choice.chosen, []).append(i)
    passes: dict[int, list[int]] = {}
    for i, owner in followed.owners.items():
        if graph.nodes[i].output not in followed.known:
            passes.setdefault(owner, []).append(i)
    equal = _equal_tensors(graph)
    for taken in groups.values():
        each = [passes.get(i, []) for i in taken]
        found = _loop(graph, followed, equal, [choices[i] for i in taken], each)
        if found is not None:
            yield found


def _equal_tensors(graph: Graph) -> dict[str, str]:
    """For each tensor that one node makes the first that is computed of the same by the same op."""
    first: dict[tuple[object, ...], str] = {}
    out: dict[str, str] = {}
    for node in graph.nodes:
        if len(graph.writers[node.output]) == 1:
            key = (node.op, *(out.get(t, t) for t in node.inputs))
            out[node.output] = first.setdefault(key, node.output)
    return out


def _loop(
    graph: Graph,
    followed: Followed,
    equal: Mapping[str, str],
    choices: Sequence[_Choice],
    passes: Sequence[Sequence[int]],
) -> Loop | None:
    """The loop of these passes, each with its choice; None: it is none."""
    first = passes[0]
    ranking = ranked(graph.nodes[graph.writers[choices[0].chosen][0]].op)
    experts = [c.expert for c in choices]
    if ranking is None or sorted(experts) != list(range(ranking[0])) or not first:
        return None
    if not all(np.array_equal(c.places, choices[0].places) for c in choices):
        return None
    own: dict[Operand, list[str]] = {}
    for number, nodes in enumerate(passes):
        same = _alike(graph, followed, equal, (first, nodes))
        if same is None:
            return None
        for at, name in same.items():
            own.setdefault(at, [""] * len(experts))[experts[number]] = name
    counted = _counted(graph, followed, first[-1], choices[0], ranking[1])
    instead = _added(graph, followed, passes)
    if counted is None or instead is None:
        return None
    gone = {i for nodes in passes[1:] for i in nodes}
    gone |= {i for t in instead for i in graph.writers[t]}
    different = {at: tuple(names) for at, names in own.items() if len({*names}) > 1}
    return Loop(
        choices[0].chosen, choices[0].places, tuple(first), frozenset(gone), different, instead, counted
    )


def _alike(
    graph: Graph, followed: Followed, equal: Mapping[str, str], passes: tuple[Sequence[int], Sequence[int]]
) -> dict[Operand, str] | None:
    """The constants of a pass that does what the first one does, by operand of the latter's nodes; None where
    it does something else. equal: tensors that are the same."""
    first, second = passes
    ends = [i for i in second if i in followed.ends]
    if len(first) != len(second) or ends != [second[-1]]:
        return None
    same: dict[str, str] = {}
    own: dict[Operand, str] = {}
    for i, other in zip(first, second, strict=True):
        a, b = graph.nodes[i], graph.nodes[other]
        if a.op != b.op:
            return None
        same[a.output] = b.output
        for j, (s, t) in enumerate(zip(a.inputs, b.inputs, strict=True)):
            if i == first[-1] and j == 0:
                continue  # what the rows are added to
            if s in followed.known or t in followed.known:
                known = [followed.known.get(x) for x in (s, t)]
                if known[0] is None or known[1] is None or not np.array_equal(known[0], known[1]):
                    return None
            elif _made_alike(graph, s, t):
                own[i, j] = t
            elif same.get(s, equal.get(s, s)) != (t if s in same else equal.get(t, t)):
                return None
    return own


def _made_alike(graph: Graph, first: str, second: str, depth: int = DEPTH) -> bool:
    """Whether two tensors are constants of one shape and type, or are computed of such by the same ops, at
    most `depth` of them one after the other."""
    if first in graph.constants or second in graph.constants:
        both = first in graph.constants and second in graph.constants
        return both and replace(graph.tensors[first], name=second) == graph.tensors[second]
    nodes = [[graph.nodes[i] for i in graph.writers.get(t, ())] for t in (first, second)]
    if depth == 0 or any(len(found) != 1 for found in nodes):
        return False
    (a,), (b,) = nodes
    inputs = zip(a.inputs, b.inputs, strict=True)
    return a.op == b.op and all(_made_alike(graph, s, t, depth - 1) for s, t in inputs)


def _counted(graph: Graph, followed: Followed, end: int, choice: _Choice, dim: int) -> int | None:
    """The dimension of the mask that says where rows belong, each with one row of the ranking.

    dim: of the ranking, along which it chose.
    """
    node, row = graph.nodes[end], followed.axes[end]
    op, sizes = node.op, followed.taken[followed.owners[end]].sizes
    assert isinstance(op, Scatter)
    if len(op.places) != 1 or op.reduced != (row,) or op.reduction not in ("none", "add"):
        return None
    at = by_row(node, 2, row, followed.known[node.inputs[2]])
    if followed.taken[followed.owners[end]].alone:
        return 0 if at is not None and not at.any() and op.sizes == (1,) else None
    found = None if at is None else in_digits(at, sizes)
    wide = [d for d, n in enumerate(sizes) if n == op.sizes[0] and found and (n == 1 or found[1][d])]
    if found is None or found[0] or not wide or sum(map(bool, found[1])) != (sizes[wide[0]] > 1):
        return None
    if found[1][wide[0]] not in (0, 1):
        return None
    shape = graph.tensors[choice.chosen].shape
    chosen_in = _numbered(shape).take([0], dim).repeat(shape[dim], dim)
    rows: Array = chosen_in.reshape(-1)[choice.places].reshape(sizes)
    each_row: Array = np.moveaxis(rows, wide[0], 0).reshape(sizes[wide[0]], -1)
    first = each_row[:, :1]
    one_each = np.array_equal(each_row, np.broadcast_to(first, each_row.shape))
    return wide[0] if one_each and len(np.unique(first)) == len(first) else None


def _zeros(graph: Graph, tensor: str) -> bool:
    value = graph.constants.get(tensor)
    return value is not None and lacking([value]) is None and not value.any()


def _added(graph: Graph, followed: Followed, passes: Sequence[Sequence[int]]) -> dict[str, str] | None:
    """What is read for the sums that go with all passes but the first; None where sums are no chain."""
    instead: dict[str, str] = {}
    so_far = ""
    for number, nodes in enumerate(passes):
        node = graph.nodes[nodes[-1]]
        op, data = node.op, node.inputs[0]
        assert isinstance(op, Scatter)
        total, before = node.output, data
        if op.reduction == "none":
            if not _zeros(graph, data):
                return None
            readers = graph.readers.get(node.output, ())
            adder = graph.nodes[readers[0][0]] if len(readers) == 1 else None
            if adder is None or not _adds(graph, adder) or node.output in graph.results:
                return None
            total, before = adder.output, adder.inputs[1 - readers[0][1]]
        if number and before != so_far:
            return None
        if number:
            if len(graph.readers.get(before, ())) != 1 or before in graph.results:
                return None
            instead[total] = before
        so_far = total
    if so_far in graph.results:
        return None
    return instead


def _adds(graph: Graph, node: Node) -> bool:
    """Whether the node adds two tensors of one shape."""
    shapes = {graph.tensors[t].shape for t in (*node.inputs, node.output)}
    return isinstance(node.op, Add) and len(shapes) == 1 and len(graph.writers[node.output]) == 1


# -- one pass for all -------------------------------------------------------------------------


class OnePass:
    """Adds the nodes of a loop's first pass, for all experts."""

    def __init__(self, g: GraphBuilder, graph: Graph, followed: Followed, loop: Loop) -> None:
        self.g, self.graph, self.followed, self.loop = g, graph, followed, loop
        self._rows = ""
        self._stacks: dict[tuple[str, ...], str] = {}

    def node(self, i: int, node: Node) -> Node:
        """One of the first pass's nodes with the constants of each row's expert."""
        row = self.followed.axes[i]
        if self._alone:
            node = self._one_row(node, row)
        op = node.op
        inputs, reads = list(node.inputs), list(op.reads)
        for j in range(len(inputs)):
            if (i, j) in self.loop.own:
                inputs[j] = self._looked_up(self.loop.own[i, j])
                reads[j] = (axis(row), *reads[j])
        return replace(node, op=replace(op, reads=tuple(reads)), inputs=tuple(inputs))

    @property
    def _alone(self) -> bool:
        return self.followed.taken[self.followed.owners[self.loop.first[-1]]].alone

    def _one_row(self, node: Node, row: str) -> Node:
        """The node without the row that no run has."""
        tensor, mark = self.graph.tensors[node.output], self.followed.marks[node.output]
        shape = (*tensor.shape[: mark.dim], 1, *tensor.shape[mark.dim + 1 :])
        self.g.tensors[node.output] = replace(tensor, shape=shape)
        axes = tuple((a, 1 if a in (row, f"{row}_0") else n) for a, n in node.op.axes)
        return replace(node, op=replace(node.op, axes=axes))

    def _looked_up(self, names: tuple[str, ...]) -> str:
        """[rows, ...]: for each row its expert's constant."""
        g = self.g
        self._rows = self._rows or self._experts()
        if names not in self._stacks:
            self._stacks[names] = gather_along(g, self._stacked(names), self._rows, 0, names[0])
        return self._stacks[names]

    def _stacked(self, names: tuple[str, ...]) -> str:
        """[experts, ...]: what each expert has."""
        g, graph = self.g, self.graph
        if names[0] not in graph.constants:
            return self._computed(names)
        values = [graph.constants[t] for t in names]
        shape = (len(names), *values[0].shape)
        if (lack := lacking(values)) is not None:
            name = g.fresh(names[0])
            return g.constant(folded(lack, name, shape, values[0].dtype), name)
        return g.constant(np.stack(values), names[0])

    def _computed(self, names: tuple[str, ...]) -> str:
        """The same of what is computed of constants: once for all. What all have in common is no stack."""
        nodes = [self.graph.nodes[self.graph.writers[t][0]] for t in names]
        op = nodes[0].op
        expert = f"{op.axes[0][0]}_expert" if op.axes else "expert"
        inputs, reads = list(nodes[0].inputs), list(op.reads)
        for j in range(len(inputs)):
            own = tuple(n.inputs[j] for n in nodes)
            if not self._common(own):
                inputs[j], reads[j] = self._stacked(own), (axis(expert), *reads[j])
        axes = ((expert, len(names)), *op.axes)
        every = replace(op, axes=axes, reads=tuple(reads), write=(axis(expert), *op.write))
        shape = (len(names), *self.graph.tensors[names[0]].shape)
        return self.g.emit(every, inputs, shape, names[0])

    def _common(self, names: tuple[str, ...]) -> bool:
        """Whether these are one number, for all."""
        values = [self.graph.constants.get(t) for t in names]
        if any(v is None or v.size != 1 or lacking([v]) is not None for v in values):
            return len({*names}) == 1
        return len({v.tobytes() for v in values if v is not None}) == 1

    def _experts(self) -> str:
        """[rows]: the number of each row's expert."""
        g, loop = self.g, self.loop
        flat = reshape(g, loop.chosen, [product(g.shape(loop.chosen))], loop.chosen)
        sizes = self.followed.taken[self.followed.owners[loop.first[-1]]].sizes
        found = in_digits(loop.places, sizes)
        if self._alone:
            return flat
        if found is None:
            return take(g, flat, loop.places, 0, loop.chosen)
        names = [f"d{i}" for i in range(len(sizes))]
        place = Affine(tuple((a, f) for a, f in zip(names, found[1], strict=True) if f), found[0])
        axes = tuple((a, n) for a, n in zip(names, sizes, strict=True) if n > 1)
        write = (in_row_order(names, sizes),)
        return emit_copy(g, flat, axes, (place,), write, [product(sizes)], loop.chosen)

    def put_in_place(self, node: Node) -> Node:
        """What adds the rows where they belong: a sum over all other dimensions of the mask."""
        op, end = node.op, self.loop.first[-1]
        assert isinstance(op, Scatter)
        row, (place,) = self.followed.axes[end], op.places
        sizes = self.followed.taken[self.followed.owners[end]].sizes
        names = [place if d == self.loop.counted else f"{row}_{d}" for d in range(len(sizes))]
        whole = in_row_order(names, sizes)
        kept = tuple((a, n) for a, n in op.axes if a != row)
        added = tuple((a, n) for a, n in zip(names, sizes, strict=True) if a != place and n > 1)
        total = (ReduceSum if added else Copy)(
            axes=(*kept, *added),
            reads=(tuple(e.substitute(row, whole) for e in op.reads[1]),),
            write=op.write,
            in_types=(op.in_types[1],),
            out_type=op.out_type,
        )
        data = node.inputs[0]
        if _zeros(self.graph, data):
            return replace(node, op=total, inputs=(node.inputs[1],))
        g = self.g
        summed = g.emit(total, [node.inputs[1]], g.shape(node.output), node.output)
        both = Add(
            axes=kept,
            reads=(op.reads[0], op.write),
            write=op.write,
            in_types=(op.in_types[0], op.out_type),
            out_type=op.out_type,
        )
        assert set(access_axes(op.reads[0])) <= {a for a, _ in kept}
        return replace(node, op=both, inputs=(data, summed))
