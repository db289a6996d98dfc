"""Which way tensors and vectors run: the dimension whose elements are neighbours, the axis of the vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from ...ir.affine import access_axes, axis
from ...ir.graph import Graph
from ...ir.op import Op
from .entry_homes import Task
from .homes import Home, View, elements_of
from .sum_order import WIDE

STRIDED = 8.0  # cost of an access to elements that are apart, against one to neighbours
TURNED = 2.0  # of reads of such elements that are turned in registers

Filled = tuple[str, int]  # see `Sweep.filled`


def fastest_of_result(graph: Graph, t: Task, operands: Sequence[View]) -> int | None:
    """The dimension of the result that shall run fastest; None: the last.

    That of the weights' own axis of a product (the channels of a convolution), else that along which
    the largest operand runs fastest.
    """
    op = t.step.op
    constant = [o.tensor in graph.constants for o in t.step.operands]
    chosen: list[str] = []
    if op.panels:
        chosen = [a for j in op.panels if constant[j] for a in _own(op, j)]
        chosen.sort(key=lambda a: (-op.size[a], a))
    elif operands:
        sizes = [elements_of(op, v) * (not constant[j]) for j, v in enumerate(operands)]
        main = operands[sizes.index(max(sizes))]
        chosen = [a for a, s in main.strides.items() if s == 1 and op.size[a] > 1]
    for a in chosen:
        found = [d for d, e in enumerate(op.write) if e.coefficient(a) == 1]
        if found:
            return found[0]
    return None


def fastest_of_cache(graph: Graph, present: str | None) -> int | None:
    """The dimension of a cache that shall run fastest: the one that a product reads along its vectors.

    present: what the cache becomes where it lies.
    """
    for node in graph.nodes:
        op = node.op
        if present in node.inputs and op.panels:
            j = node.inputs.index(present)
            best = max(_own(op, j), key=lambda a: (op.size[a], a), default="")
            return next((d for d, e in enumerate(op.reads[j]) if e == axis(best)), None)
    return None


def _own(op: Op, operand: int) -> list[str]:
    """The axes of a product's result that one of its factors has alone, those worth vectors.

    Of more than two operands all but the first are one factor.
    """
    first = operand == 0
    others = {a for j in op.panels if (j == 0) != first for a in access_axes(op.reads[j])}
    own = set(access_axes(op.reads[operand])) - others
    return [a for a in own if a not in op.reduced and op.size[a] >= WIDE]


def vectors_axis(op: Op, views: Sequence[View], lanes: int, packed: Callable[[int, str], bool]) -> str:
    """The kept axis that vectors run along: where most accesses are to neighbours.

    packed: whether an operand stands in panels if vectors run along an axis.
    """
    inner = prod(op.size[a] for a in op.reduced)
    best, least = "", float("inf")
    for a, n in op.axes:
        if a in op.reduced:
            continue
        cost = 1.0
        for j, v in enumerate(views):
            stride = v.strides.get(a, 0)
            result = j == len(views) - 1
            near = stride == 1 or (not result and packed(j, a))
            apart = TURNED if op.turns_squares and not result else STRIDED
            if stride:
                cost += (1.0 if near else apart) / (inner if result else 1)
        cost *= -(-n // lanes) * lanes / n
        if cost < least:
            best, least = a, cost
    return best


def filled_axis(
    op: Op, operands: Sequence[View], caches: Sequence[tuple[Home, int]], capacity: int
) -> Filled:
    """The axis of a sum that runs over the positions of a cache which it reads, "" for none.

    And how many of them it takes at a step: one, or a block where the sum keeps the blocks apart.
    caches: the home of each, and its dimension of positions, of which there are `capacity`.
    """
    if op.combine != "add" or not op.zero_absorbs:
        return "", 1
    for home, dim in caches:
        for v in (v for v in operands if v.home == home.number):
            for a, n in op.axes:
                step, rest = divmod(capacity, n)
                covers = rest == 0 and v.strides.get(a) == step * home.pitches[dim]
                if covers and (step == 1 or a not in op.reduced):
                    return a, step
    return "", 1
