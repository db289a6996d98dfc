"""Key-value caches: states of fixed capacity that a call fills further from a run-time position on.

A model says `present = Concat(past, new)`: its caches grow. Here the past has all of its capacity from the
start, and `new` is written at position `length`, which the runtime keeps. What is read of them then is for
`mask_caches`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from ...ir.absent import lacking
from ...ir.affine import Access, axis
from ...ir.dtypes import I64
from ...ir.graph import Graph, Length, Node
from ...ir.op import Op
from ...ir.ops.tensor_scatter import emit_scatter
from ..errors import UnsupportedModel, UsageError, quoted, shown
from .mask_caches import mask_caches, positions_of
from .rewriter import Rewriter


def positions_added(graph: Graph, pairs: Sequence[tuple[str, str]]) -> int:
    """The positions by which the first growing cache grows in a call."""
    for past, present in pairs:
        for n, m in zip(graph.tensors[past].shape, graph.tensors[present].shape, strict=False):
            if n != m:
                return m - n
    raise UsageError("--capacity: no cache of the model grows")


@dataclass(frozen=True)
class Computed:
    """What a graph makes of its caches' length. length: its input that holds it, "" without one. grown: of
    tensors the dimensions that have as many elements as there are positions after a call."""

    length: str = ""
    grown: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])


NOTHING_COMPUTED = Computed()


@dataclass(frozen=True)
class _Cache:
    """What writes a cache. copies: nodes of the past's copy and of the new rows'."""

    past: str
    present: str
    dim: int
    copies: tuple[int, int]
    added: int


def of_capacity(
    graph: Graph,
    pairs: Sequence[tuple[str, str]],
    capacity: int,
    others: Sequence[tuple[str, int]] = (),
    computed: Computed = NOTHING_COMPUTED,
) -> Graph:
    """The graph with caches of fixed capacity in place of growing ones.

    graph: with presents of `capacity` positions. others: inputs besides the caches that have a dimension
    of positions. computed: what it makes of their length.

    Raises UsageError for a pair that is no cache, UnsupportedModel where a model does with its caches what
    cannot be done in place.
    """
    caches = [_cache(graph, past, present) for past, present in pairs]
    added = {c.added for c in caches}
    if len(added) != 1:
        raise UnsupportedModel(f"caches of one model that grow by {sorted(added)} positions a call")
    r = Rewriter(graph)
    inputs, length = graph.inputs, computed.length
    if not length:
        length = r.tensor("length", (), I64)
        inputs = (*inputs, length)
    rewritten = {c.copies[1]: c for c in caches}
    dropped = {c.copies[0] for c in caches}
    for c in caches:
        old = r.tensors[c.past]
        shape = (*old.shape[: c.dim], capacity, *old.shape[c.dim + 1 :])
        r.tensors[c.past] = replace(old, shape=shape)
    for i, node in enumerate(graph.nodes):
        r.source = node.source
        if i in rewritten:
            c = rewritten[i]
            made = emit_scatter(r, c.past, (node.inputs[0], length), c.dim, c.present, in_place=True)
            last = r.nodes.pop()
            del r.tensors[made]
            r.nodes.append(replace(last, output=c.present))
        elif i not in dropped:
            r.nodes.append(node)
    states = tuple(dict.fromkeys((*graph.states, *pairs)))
    presents = {present for _, present in pairs}
    kept = Length(length, capacity, added.pop(), (*((c.past, c.dim) for c in caches), *others))
    out = r.finish(
        inputs=inputs,
        outputs=tuple(t for t in graph.outputs if t not in presents),
        states=states,
        length=kept,
    )
    return mask_caches(out, kept, computed.grown)


def _cache(graph: Graph, past: str, present: str) -> _Cache:
    """How `present` is made of `past` and new rows."""
    a, b = graph.tensors[past], graph.tensors[present]
    what = f"--state {shown(past)}={shown(present)}"
    grown = [d for d, (n, m) in enumerate(zip(a.shape, b.shape, strict=False)) if n != m]
    if len(a.shape) != len(b.shape) or a.dtype != b.dtype or len(grown) != 1 or a.bytes > b.bytes:
        raise UsageError(f"{what}: {shown(str(a))} does not grow into {shown(str(b))} along one dimension")
    dim = grown[0]
    writers = graph.writers[present]
    readers = graph.readers.get(past, ())
    if len(writers) == 2 and [i for i, _ in readers] == [writers[0]]:
        old, new = (graph.nodes[i] for i in writers)
        if (
            all(n.op.is_copy for n in (old, new))
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

    def changed(node: Node) -> Node:
        op, past = node.op.updating(), pasts.get(node.output)
        if op is None or op.updates is None or past is None or node.inputs[op.updates] != past:
            return node
        return replace(node, op=op) if len(graph.readers[past]) == 1 else node

    out = replace(graph, nodes=tuple(map(changed, graph.nodes)))
    own = out.in_place
    return replace(out, outputs=tuple(t for t in graph.outputs if t not in own))


# -- what depends on how long the past is ------------------------------------------------------
def judge_positions(
    short: Graph, long: Graph, others: Sequence[tuple[str, int]], totals: tuple[int, int]
) -> dict[str, tuple[int, ...]]:
    """The dimensions of tensors that run over all positions; UnsupportedModel where values that no slope
    tells of depend on the past's length.

    short, long: the model built by `frontend.lengths` with pasts of different lengths. totals: positions that
    they have after a call. A number that a rule took from the shape of a cache would be the capacity's, not
    the run's. So would a sum over positions that `mask_caches` does not see, of what is neither made of
    caches nor of `others`, see `of_capacity`.
    """
    if len(short.nodes) != len(long.nodes):
        raise UnsupportedModel("the model computes differently for another length of its caches")
    grown = {t for t, a in long.tensors.items() if t in short.tensors and a.shape != short.tensors[t].shape}
    seen = {*(past for past, _ in long.states), *(name for name, _ in others)}
    dims: dict[str, tuple[int, ...]] = {}
    for a, b in zip(short.nodes, long.nodes, strict=True):
        where = quoted(b.source[0] if b.source else b.output)
        alike = a.op.name == b.op.name and a.op.reads == b.op.reads and _factors(a.op) == _factors(b.op)
        if alike and (a.op.write == b.op.write or b.output in grown):
            alike = all(
                _agree(short, x, long, y)
                for x, y in zip(a.inputs, b.inputs, strict=True)
                if x in short.constants or y in long.constants
            )
        if not alike:
            raise UnsupportedModel(
                f"node {where} ({b.op.name}) computes with the size of something that grows with the caches"
            )
        for x, y in zip(a.inputs, b.inputs, strict=True):
            sizes = zip(short.tensors[x].shape, long.tensors[y].shape, strict=True)
            dims[y] = tuple(d for d, both in enumerate(sizes) if both == totals and totals[0] != totals[1])
        if not seen.isdisjoint(b.inputs):
            seen.add(b.output)
        elif not b.op.bounds:
            changed = {x for x in (*b.op.reduced, *b.op.whole) if a.op.size.get(x) != b.op.size[x]}
            if changed - {x for x, _ in positions_of(b, dims)}:
                raise UnsupportedModel(
                    f"node {where} ({b.op.name}) combines all positions, also those that hold nothing yet"
                )
    return {t: found for t, found in dims.items() if found}


def _factors(op: Op) -> list[float]:
    """The floats that an op computes with: the divisor of a mean is one."""
    values = (getattr(op, f.name) for f in fields(op))
    return [v for v in values if isinstance(v, float)]


def _agree(short: Graph, x: str, long: Graph, y: str) -> bool:
    """Whether two constants are equal as far as both go."""
    a, b = short.constants.get(x), long.constants.get(y)
    if a is None or b is None or a.ndim != b.ndim:
        return False
    if a is b or lacking((a, b)) is not None:
        return lacking((a,)) == lacking((b,))
    both = tuple(slice(min(n, m)) for n, m in zip(a.shape, b.shape, strict=True))
    return np.array_equal(a[both], b[both], equal_nan=a.dtype.kind == "f")
