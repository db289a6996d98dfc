"""Queries in the order in which a group's heads share a core.

Where several heads read one head of keys, a product makes head after head, depth after depth. A core of the
scores wants the same few depths of all heads of a group: the product's columns are ordered so that these are
next to one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...ir.absent import Absent
from ...ir.affine import Access, Affine, access_axes, axis
from ...ir.graph import Graph, Node
from ...ir.op import Array, Op
from .compose import full_box
from .rewriter import Rewriter


@dataclass(frozen=True)
class _Order:
    """A dimension of groups x heads x depth elements, in that order; then its heads come last."""

    groups: int
    heads: int
    depth: int

    @property
    def size(self) -> int:
        return self.groups * self.heads * self.depth

    def of(self, values: Array | Absent) -> Any:
        """A constant with its last dimension in the new order."""
        before, last = tuple(values.shape[:-1]), len(values.shape) - 1
        apart = values.reshape((*before, self.groups, self.heads, self.depth))
        turned = apart.transpose((*range(last), last, last + 2, last + 1))
        return turned.reshape((*before, self.size))


@dataclass(frozen=True)
class _Read:
    """A node that reads head after head: in dimension `at` of an operand, `depth` times its axis `head`."""

    node: int
    head: str


def order_by_group(graph: Graph) -> Graph:
    """Products whose columns are heads that share keys in groups, with all heads of a depth side by side."""
    r = Rewriter(graph)
    nodes = list(graph.nodes)
    done = set[int]()
    for order, product in _wanted(graph):
        if product in done:
            continue
        found = _reached(graph, product, order)
        if found is None:
            continue
        same, reads = found
        for i in (product, *same):
            nodes[i] = _turned(graph, r, i, order, product if i == product else -1)
        for read in reads:
            nodes[read.node] = _by_group(graph, nodes[read.node], read, order, (product, *same))
        done |= {product, *same}
    r.nodes += nodes
    return r.finish()


def _wanted(graph: Graph) -> Iterator[tuple[_Order, int]]:
    """(order, product whose columns want it), by the products that read heads in groups."""
    for node in graph.nodes:
        for operand, (tensor, read) in enumerate(zip(node.inputs, node.op.reads, strict=True)):
            if not node.op.product or tensor in graph.constants:
                continue
            other = {a for j, e in enumerate(node.op.reads) if j != operand for a in access_axes(e)}
            for at, e in enumerate(read):
                found = _groups(node.op, e, other)
                inner = [f for f in read[at + 1 :] if f.terms and f.axes[0] in node.op.reduced]
                if found is None or len(inner) != 1 or len(inner[0].terms) != 1:
                    continue
                depth = node.op.size[inner[0].axes[0]]
                for product in _makers(graph, tensor):
                    yield _Order(*found, depth), product


def _groups(op: Op, e: Affine, other: set[str]) -> tuple[int, int] | None:
    """(groups, heads of each) where an operand's dimension is heads * group + head, and the other operand is
    the same for all heads."""
    if len(e.terms) != 2 or e.const:
        return None
    (group, heads), (head, one) = sorted(e.terms, key=lambda t: -t[1])
    kept = access_axes(op.write)
    alone = one == 1 and head in kept and head not in other and group in kept and group in other
    return (op.size[group], heads) if alone and op.size[head] == heads else None


def _makers(graph: Graph, tensor: str) -> Iterator[int]:
    """The products with constants that a tensor comes from through elementwise ops."""
    seen, left = {tensor}, [tensor]
    while left:
        for i in graph.writers.get(left.pop(), ()):
            node = graph.nodes[i]
            if node.op.product:
                if any(t in graph.constants for t in node.inputs):
                    yield i
            elif node.op.elementwise:
                new = [t for t in node.inputs if t not in seen and t in graph.writers]
                seen.update(new)
                left += new


def _reached(graph: Graph, product: int, order: _Order) -> tuple[list[int], list[_Read]] | None:
    """(elementwise nodes whose results are turned with the product's, nodes that read head after head); None
    where somebody reads what it made in another way."""
    node = graph.nodes[product]
    if not _columns(graph, node, order):
        return None
    same: list[int] = []
    reads: list[_Read] = []
    left = [node.output]
    for tensor in left:
        if tensor in graph.outputs or len(graph.writers[tensor]) > 1 or _dimension(graph, tensor, order) < 0:
            return None
        at = _dimension(graph, tensor, order)
        for i, operand in graph.readers.get(tensor, ()):
            reader = graph.nodes[i]
            e = reader.op.reads[operand][at]
            if not reader.op.elementwise:
                return None
            if _alike(graph, reader, e, order):
                if i not in same:
                    same.append(i)
                    left.append(reader.output)
            elif (head := _head(reader.op, e, order)) and not reader.op.names_axis(head):
                if all(read != _Read(i, head) for read in reads):
                    reads.append(_Read(i, head))
            else:
                return None
    turned = {graph.nodes[i].output for i in (product, *same)}
    whole = all(_others_known(graph, graph.nodes[i], turned, order) for i in same)
    once = len({read.node for read in reads}) == len(reads) and reads
    return (same, reads) if whole and once else None


def _dimension(graph: Graph, tensor: str, order: _Order) -> int:
    """The one dimension of a tensor that has a row of `order`; -1 where there is none."""
    shape = graph.tensors[tensor].shape
    found = [d for d, n in enumerate(shape) if n == order.size]
    return found[0] if len(found) == 1 and all(n == 1 for n in shape[found[0] + 1 :]) else -1


def _columns(graph: Graph, node: Node, order: _Order) -> bool:
    """Whether a product's result has its constant's columns, each by itself, along one axis."""
    op, at = node.op, _dimension(graph, node.output, order)
    if at < 0 or len(op.write[at].terms) != 1 or len(node.inputs) != 2:
        return False
    n = op.write[at].axes[0]
    constants = [j for j, t in enumerate(node.inputs) if t in graph.constants]
    if op.write[at] != axis(n) or op.size[n] != order.size or len(constants) != 1:
        return False
    (j,) = constants
    value, read = graph.constants[node.inputs[j]], op.reads[j]
    others = (e for k, access in enumerate(op.reads) for e in (access if k != j else read[:-1]))
    plain = value.ndim == 2 and value.shape[-1] == order.size and op.in_types[j].is_float
    return plain and read[-1] == axis(n) and all(n not in e.axes for e in others)


def _alike(graph: Graph, node: Node, e: Affine, order: _Order) -> bool:
    """Whether an elementwise op takes its operand's elements in their order and leaves them so."""
    at = _dimension(graph, node.output, order)
    if at < 0 or len(e.terms) != 1 or node.op.size[e.axes[0]] != order.size:
        return False
    return e == axis(e.axes[0]) == node.op.write[at]


def _others_known(graph: Graph, node: Node, turned: set[str], order: _Order) -> bool:
    """Whether what else an op reads along the turned axis is turned, too, or a constant that can be."""
    n = node.op.write[_dimension(graph, node.output, order)].axes[0]
    for t, read in zip(node.inputs, node.op.reads, strict=True):
        along = [e for e in read if n in e.axes]
        last = along == [read[-1]] == [axis(n)] if read else False
        constant = last and t in graph.constants and graph.constants[t].shape[-1] == order.size
        if along and t not in turned and not constant:
            return False
    return True


def _head(op: Op, e: Affine, order: _Order) -> str:
    """The axis of the heads in an expression that reads head after head; "" where it is another."""
    found = [a for a, c in e.terms if c == order.depth and op.size[a] == order.groups * order.heads]
    if len(found) != 1:
        return ""
    rest = Affine(tuple(t for t in e.terms if t[0] != found[0]), e.const)
    lo, hi = rest.hull(full_box(op))
    return found[0] if lo >= 0 and hi <= order.depth else ""


def _turned(graph: Graph, r: Rewriter, number: int, order: _Order, product: int) -> Node:
    """A node with its constants along the turned axis in the new order."""
    node = graph.nodes[number]
    n = node.op.write[_dimension(graph, node.output, order)].axes[0]
    inputs = list(node.inputs)
    for j, (t, read) in enumerate(zip(node.inputs, node.op.reads, strict=True)):
        if t in graph.constants and read and read[-1] == axis(n):
            value = order.of(graph.constants[t])
            inputs[j] = r.constant(value, f"{t}.by_group")
    return replace(node, inputs=tuple(inputs))


def _by_group(graph: Graph, node: Node, read: _Read, order: _Order, turned: Sequence[int]) -> Node:
    """A node that read head after head: its heads as group and head, and what it reads in the new order."""
    op, results = node.op, {graph.nodes[i].output for i in turned}
    taken = set(op.size)
    group, head = (_fresh(f"{read.head}_{i}", taken) for i in range(2))
    apart = axis(group, order.heads).plus(axis(head))

    def through(access: Access) -> Access:
        return tuple(e.substitute(read.head, apart) for e in access)

    def ordered(tensor: str, access: Access) -> Access:
        if tensor not in results:
            return through(access)
        at = _dimension(graph, tensor, order)
        e = access[at]
        rest = Affine(tuple(t for t in e.terms if t[0] != read.head), e.const).times(order.heads)
        place = axis(group, order.heads * order.depth).plus(axis(head)).plus(rest)
        return tuple(place if d == at else through((f,))[0] for d, f in enumerate(access))

    axes: list[tuple[str, int]] = []
    for a, n in op.axes:
        axes += [(group, order.groups), (head, order.heads)] if a == read.head else [(a, n)]
    reads = tuple(ordered(t, access) for t, access in zip(node.inputs, op.reads, strict=True))
    return replace(node, op=replace(op, axes=tuple(axes), reads=reads, write=through(op.write)))


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name
