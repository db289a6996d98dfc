"""Key-value caches: states of fixed capacity that a call fills further from a run-time position on.

A model says `present = Concat(past, new)`: its caches grow. Here the past has all of its capacity from the
start, `new` is written at position `length`, which the runtime keeps, and whatever sums or compares over
positions sees those at or past `length + new` as nothing: `visible` masks them, whatever the model's own
mask does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from ..ir.absent import lacking
from ..ir.affine import Access, axis
from ..ir.dtypes import I64
from ..ir.graph import Graph, GraphBuilder, Length, Node
from ..ir.op import Op
from ..ir.ops.contract import Contract
from ..ir.ops.conversion import Where
from ..ir.ops.elementwise import Add, Mul, apply
from ..ir.ops.index import TensorScatter, emit_scatter
from ..ir.ops.logic import Less
from ..ir.ops.loops import neutral
from ..ir.ops.normalize import Softmax
from ..ir.ops.rearrange import Copy, reshape
from ..ir.ops.reduce import Reduce
from .errors import UnsupportedModel, UsageError, quoted, shown

PASTS = ("past_key_values", "past")  # what names of caches begin with, and their presents with "present"


def named_pairs(graph: onnx.GraphProto) -> tuple[tuple[str, str], ...]:
    """Inputs and outputs that are caches by their names: past_key_values.0.key and present.0.key."""
    outputs = {o.name for o in graph.output}
    out: list[tuple[str, str]] = []
    for v in graph.input:
        for start in PASTS:
            present = "present" + v.name.removeprefix(start)
            if v.name.startswith(start) and present in outputs:
                out.append((v.name, present))
                break
    return tuple(out)


def growing(graph: onnx.GraphProto, pairs: Sequence[tuple[str, str]], dims: Mapping[str, int]) -> str:
    """The symbol of the caches' length, one for all of them; "" where the model has fixed lengths.

    A dimension of a past that is not bound and that its present does not share.
    """
    shapes = {v.name: v.type.tensor_type.shape.dim for v in (*graph.input, *graph.output)}
    found: dict[str, str] = {}
    for past, present in pairs:
        if past not in shapes or present not in shapes:
            continue  # `Builder.finish` says so
        kept = [d.dim_param for d in shapes[present]]
        for i, d in enumerate(shapes[past]):
            if d.dim_param and d.dim_param not in dims and (i >= len(kept) or kept[i] != d.dim_param):
                found[d.dim_param] = past
    if len(found) > 1:
        (a, x), (b, y) = list(found.items())[:2]
        raise UsageError(
            f"--capacity: caches {quoted(x)} and {quoted(y)} grow by dimensions of their own, "
            f"{quoted(a)} and {quoted(b)}; bind one with --dim"
        )
    return next(iter(found), "")


def totals(
    graph: onnx.GraphProto, symbol: str, dims: Mapping[str, int]
) -> tuple[list[str], list[tuple[str, int]]]:
    """Unbound symbols that stand for the past and the new positions together, by their names, and the
    inputs (with the dimension) that have them: an attention mask."""
    shapes = [(v.name, v.type.tensor_type.shape.dim) for v in graph.input]
    places = [(n, d, p.dim_param) for n, shape in shapes for d, p in enumerate(shape)]
    found = {p for _, _, p in places if p not in {"", symbol, *dims} and (symbol in p or "total" in p)}
    return sorted(found), [(n, d) for n, d, p in places if p in found]


def new_rows(graph: onnx.GraphProto, dims: Mapping[str, int]) -> int:
    """How many tokens a call takes: the last dimension of the first input of integers, 1 where it is open."""
    for v in graph.input:
        t = v.type.tensor_type
        if t.elem_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32) and len(t.shape.dim) == 2:
            last = t.shape.dim[1]
            return last.dim_value or dims.get(last.dim_param, 1)
    return 1


def added(graph: Graph, pairs: Sequence[tuple[str, str]]) -> int:
    """The positions by which the first growing cache grows in a call."""
    for past, present in pairs:
        for n, m in zip(graph.tensors[past].shape, graph.tensors[present].shape, strict=False):
            if n != m:
                return m - n
    raise UsageError("--capacity: no cache of the model grows")


@dataclass(frozen=True)
class _Cache:
    """What writes a cache. copies: nodes of the past's copy and of the new rows'."""

    past: str
    present: str
    dim: int
    copies: tuple[int, int]
    added: int


def fixed(
    graph: Graph, pairs: Sequence[tuple[str, str]], capacity: int, others: Sequence[tuple[str, int]]
) -> Graph:
    """The graph with caches of fixed capacity in place of growing ones.

    graph: with presents of `capacity` positions. others: inputs besides the caches that have a dimension
    of positions. Raises UsageError for a pair that is no cache,
    UnsupportedModel where a model does with its caches what cannot be done in place.
    """
    caches = [_cache(graph, past, present) for past, present in pairs]
    added = {c.added for c in caches}
    if len(added) != 1:
        raise UnsupportedModel(f"caches of one model that grow by {sorted(added)} positions a call")
    g = GraphBuilder(dict(graph.tensors), dict(graph.constants))
    length = g.tensor("length", (), I64)
    rewritten = {c.copies[1]: c for c in caches}
    dropped = {c.copies[0] for c in caches}
    for c in caches:
        old = g.tensors[c.past]
        shape = (*old.shape[: c.dim], capacity, *old.shape[c.dim + 1 :])
        g.tensors[c.past] = replace(old, shape=shape)
    for i, node in enumerate(graph.nodes):
        g.source = node.source
        if i in rewritten:
            c = rewritten[i]
            made = emit_scatter(g, c.past, node.inputs[0], length, c.dim, c.present, in_place=True)
            last = g.nodes.pop()
            del g.tensors[made]
            g.nodes.append(replace(last, output=c.present))
        elif i not in dropped:
            g.nodes.append(node)
    states = (*(s for s in graph.states if s not in pairs), *pairs)
    presents = {present for _, present in pairs}
    out = replace(
        graph,
        tensors=g.tensors,
        constants=g.constants,
        nodes=tuple(g.nodes),
        inputs=(*graph.inputs, length),
        outputs=tuple(t for t in graph.outputs if t not in presents),
        states=states,
        length=Length(length, capacity, added.pop(), (*((c.past, c.dim) for c in caches), *others)),
    )
    out.check()
    return visible_only(out)


def _cache(graph: Graph, past: str, present: str) -> _Cache:
    """How `present` is made of `past` and new rows."""
    a, b = graph.tensors[past], graph.tensors[present]
    what = f"--state {shown(past)}={shown(present)}"
    grown = [d for d, (n, m) in enumerate(zip(a.shape, b.shape, strict=False)) if n != m]
    if len(a.shape) != len(b.shape) or a.dtype != b.dtype or len(grown) != 1 or a.bytes > b.bytes:
        raise UsageError(f"{what}: {shown(str(a))} does not grow into {shown(str(b))} along one dimension")
    dim = grown[0]
    writers = graph.writers()[present]
    readers = graph.readers().get(past, [])
    if len(writers) == 2 and [i for i, _ in readers] == [writers[0]]:
        old, new = (graph.nodes[i] for i in writers)
        if (
            all(isinstance(n.op, Copy) for n in (old, new))
            and _plain(old.op, old.op.reads[0], 0, dim)
            and _plain(old.op, old.op.write, 0, dim)
            and _plain(new.op, new.op.reads[0], 0, dim)
            and _plain(new.op, new.op.write, a.shape[dim], dim)
        ):
            return _Cache(past, present, dim, (writers[0], writers[1]), b.shape[dim] - a.shape[dim])
    raise UnsupportedModel(f"{what}: not Concat of the cache and new rows, or the old cache is read besides")


def _plain(op: Op, access: Access, offset: int, dim: int) -> bool:
    """Whether an access is the identity, but for `offset` in dimension `dim`."""
    names = [a for a, _ in op.axes]
    return access == tuple(axis(a, 1, offset if d == dim else 0) for d, a in enumerate(names))


def in_place(graph: Graph) -> Graph:
    """The graph with states that TensorScatter makes of their past changed where they lie.

    Their presents are no outputs any more: what stays on the wafer is not read each call.
    """
    pasts = {present: past for past, present in graph.states}
    readers = graph.readers()

    def changed(node: Node) -> Node:
        op = node.op
        past = pasts.get(node.output)
        if past is None or not isinstance(op, TensorScatter):
            return node
        if node.inputs[0] == past and len(readers[past]) == 1:
            return replace(node, op=replace(op, in_place=True))
        return node

    out = replace(graph, nodes=tuple(map(changed, graph.nodes)))
    own = out.in_place
    return replace(out, outputs=tuple(t for t in graph.outputs if t not in own))


# -- what depends on how long the past is ------------------------------------------------------
def judge_positions(short: Graph, long: Graph) -> None:
    """UnsupportedModel where values, not only shapes, depend on the past's length.

    short, long: the model built with pasts of different lengths. A position that an exporter took from
    the shape of a cache would be the capacity's, not the run's.
    """
    if len(short.nodes) != len(long.nodes):
        raise UnsupportedModel("the model computes differently for another length of its caches")
    grown = {t for t, a in long.tensors.items() if t in short.tensors and a.shape != short.tensors[t].shape}
    for a, b in zip(short.nodes, long.nodes, strict=True):
        alike = type(a.op) is type(b.op) and a.op.reads == b.op.reads
        if alike and (a.op.write == b.op.write or b.output in grown):
            alike = all(
                _agree(short, x, long, y)
                for x, y in zip(a.inputs, b.inputs, strict=True)
                if x in short.constants or y in long.constants
            )
        if not alike:
            where = quoted(b.source[0] if b.source else b.output)
            raise UnsupportedModel(
                f"node {where} ({b.op.name}) computes with the length of the cache, taken from its shape; "
                "export the model with position_ids as an input"
            )


def _agree(short: Graph, x: str, long: Graph, y: str) -> bool:
    """Whether two constants are equal as far as both go."""
    a, b = short.constants.get(x), long.constants.get(y)
    if a is None or b is None or a.ndim != b.ndim:
        return False
    if a is b or lacking((a, b)) is not None:
        return lacking((a,)) == lacking((b,))
    both = tuple(slice(min(n, m)) for n, m in zip(a.shape, b.shape, strict=True))
    return np.array_equal(a[both], b[both], equal_nan=a.dtype.kind == "f")


# -- what positions that hold nothing may touch ---------------------------------------------------
def visible_only(graph: Graph) -> Graph:
    """The graph with positions past `length + added` masked wherever they would be summed or compared."""
    assert graph.length is not None
    return _Masking(graph, graph.length).run()


@dataclass
class _Masking:
    """dims: for each tensor the dimensions that run over positions; nothing: tensors that are 0 past the
    visible ones."""

    graph: Graph
    length: Length
    dims: dict[str, tuple[int, ...]] = field(default_factory=lambda: {})
    nothing: set[str] = field(default_factory=lambda: set())
    _visible: str = ""

    def run(self) -> Graph:
        graph = self.graph
        self.g = g = GraphBuilder(dict(graph.tensors), dict(graph.constants))
        for node in graph.nodes:
            g.source = node.source
            positions = set(self._positions(node))
            g.nodes.append(self._masked(node, positions))
            self._note(g.nodes[-1], positions)
        out = replace(graph, tensors=g.tensors, constants=g.constants, nodes=tuple(g.nodes))
        out.check()
        return out

    def _positions(self, node: Node) -> Iterator[str]:
        """The node's axes that run over positions."""
        op = node.op
        if isinstance(op, TensorScatter) and op.in_place:
            yield "c"
            return
        for t, access in zip(node.inputs, op.reads, strict=True):
            for d in self.dims.get(t, ()):
                e = access[d]
                if len(e.terms) != 1 or e.terms[0][1] != 1 or e.const:
                    raise UnsupportedModel(
                        f"node {quoted(node.source[0] if node.source else op.name)} ({op.name}) takes a part "
                        "of a cache's positions, or several at once"
                    )
                yield e.terms[0][0]

    def _masked(self, node: Node, positions: set[str]) -> Node:
        """The node with operands that are nothing where no position is."""
        op = node.op
        for a in sorted(positions & {*op.reduced, *op.whole}):
            over = [
                (j, d)
                for j, (t, access) in enumerate(zip(node.inputs, op.reads, strict=True))
                for d in self.dims.get(t, ())
                if access[d].axes == (a,)
            ]
            if isinstance(op, Contract):
                if any(node.inputs[j] in self.nothing for j, _ in over):
                    continue
                fill = 0.0
            elif isinstance(op, Softmax):
                fill = float("-inf")
            elif isinstance(op, Reduce):
                fill = neutral(op.kind, op.in_types[0])
            else:
                raise UnsupportedModel(
                    f"node {quoted(node.source[0] if node.source else op.name)} ({op.name}) combines all "
                    "positions of a cache, also those that hold nothing yet"
                )
            j, d = over[0]
            masked = self._mask(node.inputs[j], d, fill)
            node = replace(node, inputs=(*node.inputs[:j], masked, *node.inputs[j + 1 :]))
        return node

    def _mask(self, tensor: str, dim: int, fill: float) -> str:
        g = self.g
        shape = g.shape(tensor)
        seen = reshape(g, self.visible(), [n if d == dim else 1 for d, n in enumerate(shape)], "visible")
        value = g.constant(np.asarray(fill, g.dtype(tensor).numpy))
        out = apply(g, Where, [seen, tensor, value], tensor)
        self.dims[out] = self.dims[tensor]
        return out

    def visible(self) -> str:
        """bool [capacity]: the positions that hold something once this call's are written."""
        if not self._visible:
            g = self.g
            added = g.constant(np.asarray(self.length.added, np.int64))
            end = apply(g, Add, [self.length.input, added], "end")
            places = g.constant(np.arange(self.length.capacity, dtype=np.int64))
            self._visible = apply(g, Less, [places, end], "visible")
        return self._visible

    def _note(self, node: Node, positions: set[str]) -> None:
        """What is known of the node's result."""
        op = node.op
        found = tuple(d for d, e in enumerate(op.write) if positions & set(e.axes))
        if not found:
            return
        if any(len(op.write[d].terms) != 1 or op.write[d].const for d in found):
            raise UnsupportedModel(f"{op.name} mixes a cache's positions with another dimension")
        self.dims[node.output] = found
        empty = [t in self.nothing for t in node.inputs]
        # 0 stays 0 where it is moved, or multiplied with what is finite.
        if (
            (isinstance(op, TensorScatter) and op.in_place)
            or (isinstance(op, Softmax) and not op.logarithm)
            or (isinstance(op, Copy) and all(empty))
            or (isinstance(op, Mul | Contract) and any(empty))
        ):
            self.nothing.add(node.output)
