"""Graph to graph: the same outputs with less to do. Each pass is a function; `simplify` runs them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...ir.absent import lacking
from ...ir.graph import Graph, Node
from ...ir.op import Array, Op
from ...ir.ops.contract import Contract
from ...ir.ops.rearrange import Copy
from .blocked_softmax import local_maxima
from .caches import cut_caches_freely
from .compose import full_box, into_reader, into_writer, leaves
from .fuse import drop_unit_axes, embed_scalars, fuse_elementwise
from .late_scales import scale_results
from .quantised_weights import keep_quantised
from .rotary_halves import merge_halves
from .spread_normalisations import spread_normalisations

Pass = Callable[[Graph], Graph]


def simplify(graph: Graph, fuse: bool = True) -> Graph:
    """Runs the passes until none finds anything. What they change is checked.

    fuse: elementwise chains become one op, so that what lies between them is no tensor any more.
    """
    steps: tuple[Pass, ...] = (
        merge_equal,
        eliminate_dead,
        lambda g: absorb_into_readers(g, splits=False),
        eliminate_dead,
        lambda g: absorb_into_writers(g, splits=False),
        lambda g: absorb_into_writers(g, splits=True),
        lambda g: absorb_into_readers(g, splits=True),
        eliminate_dead,
    )
    graph = drop_unit_axes(eliminate_dead(keep_quantised(_until_stable(graph, steps))))
    graph.check()
    if not fuse:
        return graph
    graph = spread_normalisations(local_maxima(merge_halves(graph)))
    graph = cut_caches_freely(scale_results(graph))
    graph = _until_stable(graph, (embed_scalars, merge_equal, fuse_elementwise, eliminate_dead))
    return eliminate_dead(read_transposed(graph))


def _until_stable(graph: Graph, steps: Sequence[Pass]) -> Graph:
    while True:
        before = graph
        for step in steps:
            last, graph = graph, step(graph)
            if graph.nodes != last.nodes:
                graph.check()
        if graph.nodes == before.nodes:
            return graph


def eliminate_dead(graph: Graph) -> Graph:
    """Without the nodes, tensors and constants that no output depends on. Inputs stay."""
    needed = set(graph.results)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if node.output in needed:
            kept.append(node)
            needed.update(node.inputs)
    needed.update(graph.inputs)
    return replace(
        graph,
        nodes=tuple(reversed(kept)),
        tensors={name: t for name, t in graph.tensors.items() if name in needed},
        constants={name: value for name, value in graph.constants.items() if name in needed},
    )


def merge_equal(graph: Graph) -> Graph:
    """One constant for equal constants and one node for nodes that compute the same."""
    kept = set(graph.results)
    table: dict[str, str] = {}
    alike: dict[object, list[str]] = {}
    for name, value in graph.constants.items():
        others = alike.setdefault(_sample(value), [])
        first = next((n for n in others if _same_bytes(graph.constants[n], value)), None)
        if first is None:
            others.append(name)
        elif name not in kept:
            table[name] = first
    writers = graph.writers
    seen: dict[tuple[Op, tuple[str, ...]], Node] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if not table.keys().isdisjoint(node.inputs):
            node = replace(node, inputs=tuple(table.get(t, t) for t in node.inputs))
        key = (node.op, node.inputs)
        if len(writers[node.output]) == 1 and node.output not in kept and key in seen:
            table[node.output] = seen[key].output
            continue
        if len(writers[node.output]) == 1:
            seen.setdefault(key, node)
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def _sample(value: Array) -> tuple[object, ...]:
    """What equal constants have in common; a model's weights are too many to look at each byte."""
    if lack := lacking([value]):
        return (lack,)
    some = value.reshape(-1)[:: max(1, value.size // 256)]
    return value.dtype, value.shape, some.tobytes()


def _same_bytes(a: Array, b: Array) -> bool:
    if lacking([a, b]):
        return lacking([a]) == lacking([b])
    x, y = (v.reshape(-1).view(np.uint8) for v in (a, b))
    return x.size == y.size and bool((x == y).all())


LARGE = 1 << 20  # bytes of a constant that is not kept twice


def read_transposed(graph: Graph) -> Graph:
    """Products read a large matrix that is another one transposed where that one lies.

    A language model's table of embeddings is also its last product's weights: kept once.
    """
    large = [n for n, v in graph.constants.items() if v.ndim == 2 and v.nbytes >= LARGE]
    table: dict[str, str] = {}
    for i, name in enumerate(large):
        turned = graph.constants[name].T
        others = (n for n in large[:i] if n not in table)
        first = next((n for n in others if _same_matrix(graph.constants[n], turned)), None)
        if first is not None:
            table[name] = first
    return replace(graph, nodes=tuple(_transposed(node, table) for node in graph.nodes)) if table else graph


def _same_matrix(a: Array, b: Array) -> bool:
    """Whether all elements are equal; most that differ do so in the first row already."""
    if lacking([a, b]):
        return lacking([a]) == lacking([b])
    return (a.dtype, a.shape) == (b.dtype, b.shape) and all(np.array_equal(a[:n], b[:n]) for n in (1, len(a)))


def _transposed(node: Node, table: Mapping[str, str]) -> Node:
    """The node with its operands in `table` replaced by their transposes, if it is a product."""
    if not isinstance(node.op, Contract) or not table.keys() & set(node.inputs):
        return node
    reads = tuple(
        tuple(reversed(access)) if t in table else access
        for t, access in zip(node.inputs, node.op.reads, strict=True)
    )
    op = replace(node.op, reads=reads)
    return replace(node, op=op, inputs=tuple(table.get(t, t) for t in node.inputs))


def absorb_into_readers(graph: Graph, splits: bool) -> Graph:
    """Ops that read a Copy's result read its operand instead, through the composed access.

    splits: an op's axis may be cut in two for that. The Copies stay, for `eliminate_dead`.
    """
    nodes: list[Node] = []
    written: dict[str, list[Node]] = {}
    for node in graph.nodes:
        operand = 0
        while operand < len(node.inputs):
            better = _read_through(graph, node, operand, written, splits)
            if better is None:
                operand += 1
            else:
                node = better
        nodes.append(node)
        written.setdefault(node.output, []).append(node)
    return replace(graph, nodes=tuple(nodes))


def _read_through(
    graph: Graph, node: Node, operand: int, written: dict[str, list[Node]], splits: bool
) -> Node | None:
    """`node` with one Copy before `operand` composed into it."""
    tensor = node.inputs[operand]
    makers = written.get(tensor, [])
    for maker in makers:
        if not isinstance(maker.op, Copy):
            continue
        source = maker.inputs[0]
        op = into_reader(
            node.op,
            operand,
            maker.op,
            graph.tensors[source].shape,
            [graph.tensors[t].shape for t in node.inputs],
            sole=len(makers) == 1,
            splits=splits,
        )
        if op is not None:
            inputs = (*node.inputs[:operand], source, *node.inputs[operand + 1 :])
            return Node(op, inputs, node.output, _both(maker.source, node.source))
    return None


def absorb_into_writers(graph: Graph, splits: bool) -> Graph:
    """The only reader of a tensor being a Copy, the tensor's writers write where the Copy would."""
    nodes: list[Node | None] = list(graph.nodes)
    readers, writers = graph.readers, dict(graph.writers)
    for at, node in enumerate(graph.nodes):
        copy = node.op
        if not isinstance(copy, Copy):
            continue
        source = node.inputs[0]
        makers = writers.get(source, [])
        if not makers or len(readers[source]) != 1 or source in graph.results:
            continue
        if leaves(copy.reads[0], full_box(copy), graph.tensors[source].shape):
            continue
        redirected: list[tuple[int, Node]] = []
        for m in makers:
            maker = nodes[m]
            op = into_writer(maker.op, copy, splits) if maker else None
            if maker and op:
                redirected.append((m, Node(op, maker.inputs, node.output, _both(maker.source, node.source))))
        if len(redirected) < len(makers):
            continue
        for m, better in redirected:
            nodes[m] = better
        nodes[at] = None
        # the writers now stand for the Copy, should another Copy read its result
        writers[node.output] = [*(w for w in writers[node.output] if w != at), *makers]
    return replace(graph, nodes=tuple(n for n in nodes if n is not None))


def _both(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))
