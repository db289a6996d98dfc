"""How large elements can be: what a scale that is to be moved behind a product has to know.

The sum over k of (x[k] * s) * w[k] is s times the sum of x[k] * w[k], but x[k] * w[k] may leave f32's range,
at either end, where (x[k] * s) * w[k] does not. Two kinds of numerators stay inside:

* x with s at most R and falling with the sum of the squares of x, of which every x[k] is one (RMSNorm's,
  LayerNorm's; R is 1 over the root of epsilon). While that sum is finite, as the norm itself needs, no |x[k]|
  is past the root of the largest f32. Times the power of two next above R, which s is divided by, no term is
  smaller than it was, either.
* powers of at most 1 over their sum (a softmax's). Times 2^-k, with 2^k the number of terms, no sum of them
  with anything passes the largest of that. A weight loses by it, like the smallest in the softmax itself
  (`math.weight`), what is below n * 2^-150 of the largest weight.

Factors are powers of two, so that nothing is rounded by them. What is neither, such as x over the sum of x,
is scaled where it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, frexp, isfinite, log2

import numpy as np

from ...ir.absent import lacking
from ...ir.affine import Access, Affine
from ...ir.dtypes import F32
from ...ir.graph import Graph, Node
from ...ir.op import Array, Op, identity, product
from ...ir.ops.elementwise import Mul
from .compose import Match, dense
from .rewriter import Rewriter

LARGEST = F32.limits[1]
MOST_STEPS = 16  # elementwise ops between a sum of squares and the scale
TRAINED = 2.0**16  # what no weight is expected to pass whose values are not at hand


@dataclass(frozen=True)
class Numerators:
    """A graph in which some nodes scale what is bounded.

    most: by what such a node writes and by what it scales it, the largest absolute value of what it scales.
    """

    graph: Graph
    most: Mapping[tuple[str, str], float]

    def may_wait(self, scaled: tuple[str, str], terms: int, other: str, factor: float = 1.0) -> bool:
        """Whether a sum of so many products of `scaled` with what `factor` times `other` bounds may be scaled
        after it."""
        most = self.most.get(scaled)
        if most is None:
            return False
        size = terms * most * factor
        if size <= 1:
            return True
        largest = magnitude(self.graph, other)
        return largest is not None and size * largest < LARGEST / 2


def magnitude(graph: Graph, tensor: str, steps: int = MOST_STEPS) -> float | None:
    """What no absolute value of a tensor passes, however its inputs are; None where nothing bounds it.

    Constants are bounded by their values, what is dequantised by its stored type and its scale, norms by the
    root of what they are over, and what is only moved by what it is moved from, for so many steps.
    """
    value = graph.constants.get(tensor)
    if value is not None:
        return TRAINED if lacking([value]) is not None else _largest(value)
    makers = [graph.nodes[i] for i in graph.writers.get(tensor, ())]
    found = [_made(graph, node, steps - 1) for node in makers if steps]
    if not found or len(found) < len(makers) or None in found:
        return None
    return max(size for size in found if size is not None)


def _made(graph: Graph, node: Node, steps: int) -> float | None:
    op, sizes = node.op, node.op.size
    if op.dequantises:
        scale = magnitude(graph, node.inputs[1], steps)
        stored = [op.in_types[0], *op.in_types[2:]]
        return None if scale is None else scale * sum(max(map(abs, t.limits)) for t in stored)
    if op.sign and op.fill == op.fill:
        moved = magnitude(graph, node.inputs[0], steps)
        return None if moved is None else max(moved, abs(op.fill))
    if (norm := op.normalisation) is not None and norm.epsilon >= 0:
        gain, *bias = (magnitude(graph, t, steps) for t in node.inputs[1:])
        if gain is None or None in bias:
            return None
        return product([sizes[a] for a in norm.over]) ** 0.5 * 2 * gain + sum(b or 0.0 for b in bias)
    return 1.0 if op.softmax_over else op.most


def _largest(value: Array) -> float:
    largest = float(np.max(np.abs(value.astype(np.float64, copy=False)), initial=0.0))
    return largest if isfinite(largest) else LARGEST


def bounded(graph: Graph, uses: Mapping[str, int]) -> Numerators:
    """The graph with factors at the numerators that allow it. uses: what is scaled, and how many terms the
    longest sum over it has."""
    r = Rewriter(graph)
    most: dict[tuple[str, str], float] = {}
    shrunk: dict[str, Op] = {}
    for node in graph.nodes:
        if node.output not in uses or not _scales(graph, node):
            r.nodes.append(node)
            continue
        found = _of_powers(graph, node, uses[node.output])
        if found is not None:
            powers, op = found
            if powers not in shrunk or (op.most or 0) < (shrunk[powers].most or 0):
                shrunk[powers] = op
            most[node.output, node.inputs[1]] = op.most or 1.0
            r.nodes.append(node)
            continue
        for j, scale in enumerate(node.inputs):
            if not node.op.linear_in(1 - j):
                continue
            up = _of_squares(graph, node, j)
            if up is not None:
                x = _times(r, node, node.inputs[1 - j], up)
                down = _times(r, node, scale, 1 / up if node.op.linear_in(j) else up)
                node = replace(node, inputs=(x, down) if j else (down, x))
                most[node.output, down] = LARGEST**0.5 * up
                break
        r.nodes.append(node)
    r.nodes = [replace(n, op=shrunk[n.output]) if n.output in shrunk else n for n in r.nodes]
    return Numerators(r.finish(), most)


def _scales(graph: Graph, node: Node) -> bool:
    op = node.op
    plain = op.elementwise and len(op.reads) == 2 and op.linear_in(0) and {*op.in_types, op.out_type} == {F32}
    return plain and len(graph.writers[node.output]) == 1


def _maker(graph: Graph, tensor: str) -> Node | None:
    """The one node that writes a tensor."""
    makers = graph.writers.get(tensor, ())
    return graph.nodes[makers[0]] if len(makers) == 1 else None


def _times(r: Rewriter, node: Node, tensor: str, factor: float) -> str:
    """`tensor` times a power of two."""
    if factor == 1:
        return tensor
    name = f"{tensor}.times"
    axes = tuple((f"d{i}", n) for i, n in enumerate(r.shape(tensor)))
    whole = identity([a for a, _ in axes])
    out = r.tensor(name, r.shape(tensor), F32)
    number = r.constant(np.asarray(factor, F32.numpy), f"{tensor}.power")
    op = Mul(axes=axes, reads=(whole, ()), write=whole, in_types=(F32, F32), out_type=F32)
    r.add(op, (tensor, number), out, node.source)
    return out


# -- powers over their sum -------------------------------------------------------------------------
def _of_powers(graph: Graph, node: Node, terms: int) -> tuple[str, Op] | None:
    """What writes a numerator of powers over their sum, and the op that writes a fitting share of them."""
    powers, total = node.inputs
    maker, adder = _maker(graph, powers), _maker(graph, total)
    if maker is None or adder is None or maker.op.most is None or powers in graph.results:
        return None
    sums = adder.op.combine == "add" and not adder.op.product and adder.inputs == (powers,)
    if not sums or total in graph.results or node.op.linear_in(1):
        return None
    readers = {i for t in (powers, total) for i, _ in graph.readers.get(t, ())}
    both = all(graph.nodes[i] is adder or graph.nodes[i].inputs == node.inputs for i in readers)
    same = all(not graph.nodes[i].op.linear_in(1) for i in readers if graph.nodes[i] is not adder)
    op = maker.op.times(2.0 ** -ceil(log2(max(1, terms * maker.op.most)))) if both and same else None
    return None if op is None else (powers, op)


# -- what is scaled by the sum of its squares ---------------------------------------------------------
def _of_squares(graph: Graph, node: Node, operand: int) -> float | None:
    """The power of two from which on operand number `operand` scales down; None where it is no scale that
    falls with the sum of the other operand's squares."""
    x, tensor = node.inputs[1 - operand], node.inputs[operand]
    steps: list[Node] = []
    for _ in range(MOST_STEPS):
        maker = _maker(graph, tensor)
        if maker is None:
            return None
        op = maker.op
        if op.reduced:
            sums = _sums_squares(graph, node, operand, maker, x)
            return _highest(graph, node, operand, steps) if sums else None
        open_ends = [j for j, t in enumerate(maker.inputs) if _number(graph, t) is None]
        plain = op.elementwise and op.monotone and {*op.in_types, op.out_type} == {F32}
        if not plain or len(open_ends) != 1 or _live(op.reads[open_ends[0]], op) != _live(op.write, op):
            return None
        steps.append(maker)
        tensor = maker.inputs[open_ends[0]]
    return None


def _number(graph: Graph, tensor: str) -> Array | None:
    value = graph.constants.get(tensor)
    if value is None or value.size != 1 or lacking([value]) is not None:
        return None
    return value.reshape(())


def _live(access: Access, op: Op) -> tuple[Affine, ...]:
    """An access without the axes of one element, and the dimensions of one."""
    sizes = op.size
    return tuple(
        e for e in (Affine(tuple(t for t in e.terms if sizes[t[0]] > 1), e.const) for e in access) if e.terms
    )


def _sums_squares(graph: Graph, node: Node, operand: int, adder: Node, x: str) -> bool:
    """Whether each element of `x` that the node scales has its square in the sum that it is scaled by."""
    op, inputs = adder.op, adder.inputs
    if op.combine != "add" or {*op.in_types, op.out_type} != {F32}:
        return False
    read = op.reads[0]
    if not op.product:
        square = _maker(graph, inputs[0])
        if len(inputs) != 1 or square is None or not _live_square(square) or square.inputs[0] != x:
            return False
    elif inputs != (x, x) or op.reads[0] != op.reads[1]:
        return False
    sizes = graph.tensors[x].shape
    covers = dense(read, op.size) and product([n for _, n in op.axes]) == product(sizes)
    match = Match(allow_splits=False)
    theirs = node.op.reads[1 - operand]
    found = all(match.dimension(a, op, b, node.op) for a, b in zip(read, theirs, strict=True))
    if not covers or any(e.const for e in read) or not found or match.outside:
        return False
    row = match.through(op.write, op.size)
    return row is not None and _live(row, node.op) == _live(node.op.reads[operand], node.op)


def _live_square(node: Node) -> bool:
    """Whether the node multiplies a tensor with itself, element by element."""
    op = node.op
    squares = op.elementwise and len(op.reads) == 2 and op.linear_in(0) and op.linear_in(1)
    return squares and node.inputs[0] == node.inputs[1] and op.reads[0] == op.reads[1] == op.write


def _highest(graph: Graph, node: Node, operand: int, steps: Sequence[Node]) -> float | None:
    """The power of two from the largest factor on that the scale can be, 1 at least."""
    ends = [np.asarray(v, F32.numpy) for v in (0.0, LARGEST)]
    for maker in reversed(steps):
        numbers = [_number(graph, t) for t in maker.inputs]
        op = maker.op
        bare = replace(op, axes=(), reads=((),) * len(op.reads), write=(), fill=0.0)
        ends = [bare.reference(*(end if n is None else n for n in numbers)) for end in ends]
        if not all(isfinite(float(end)) and float(end) >= 0 for end in ends):
            return None
    low, high = sorted(float(end) for end in ends)
    if node.op.linear_in(operand):
        factor = high
    elif low > 0:
        factor = 1 / low
    else:
        return None
    return 2.0 ** max(0, frexp(factor)[1])
