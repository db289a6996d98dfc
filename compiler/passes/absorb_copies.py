"""Copies that become part of the ops that read their results, or of those that wrote their operands."""

from __future__ import annotations

from dataclasses import replace

from ...ir.graph import Graph, Node
from .compose import full_box, into_reader, into_writer, leaves
from .rewriter import sources


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
        if not maker.op.is_copy:
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
            return Node(op, inputs, node.output, sources(maker, node))
    return None


def absorb_into_writers(graph: Graph, splits: bool) -> Graph:
    """The only reader of a tensor being a Copy, the tensor's writers write where the Copy would."""
    nodes: list[Node | None] = list(graph.nodes)
    readers, results = graph.readers, set(graph.results)
    writers = {t: dict.fromkeys(at) for t, at in graph.writers.items()}
    for at, node in enumerate(graph.nodes):
        copy = node.op
        if not copy.is_copy:
            continue
        source = node.inputs[0]
        makers = writers.get(source, {})
        if not makers or len(readers[source]) != 1 or source in results:
            continue
        if leaves(copy.reads[0], full_box(copy), graph.tensors[source].shape):
            continue
        redirected: list[tuple[int, Node]] = []
        for m in makers:
            maker = nodes[m]
            op = into_writer(maker.op, copy, splits) if maker else None
            if maker and op:
                redirected.append((m, Node(op, maker.inputs, node.output, sources(maker, node))))
        if len(redirected) < len(makers):
            continue
        for m, better in redirected:
            nodes[m] = better
        nodes[at] = None
        # the writers now stand for the Copy, should another Copy read its result
        del writers[node.output][at]
        writers[node.output] |= makers
    return replace(graph, nodes=tuple(n for n in nodes if n is not None))
