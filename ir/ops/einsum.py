"""Einsum: any sum of products, as reductions and contractions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..affine import Affine, axis
from ..graph import InvalidModel
from ..rules import GraphBuilder, Spec, register
from .contract import Contract
from .conversion import cast
from .reduce import ReduceSum

Labels = tuple[str, ...]  # one per dimension: a letter, or ".0", ".1", ... for those of an ellipsis


def parse(equation: str, ranks: Sequence[int]) -> tuple[list[Labels], Labels]:
    """The labels of every operand and of the result. An ellipsis counts from the last dimension."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise InvalidModel(f"Einsum {equation!r} of {len(ranks)} operands")

    def labels(term: str, rank: int) -> Labels:
        head, dots, tail = term.partition("...")
        hidden = rank - len(head) - len(tail)
        if hidden < 0 or (hidden and not dots) or not all(a.isalpha() for a in head + tail):
            raise InvalidModel(f"Einsum term {term!r} for {rank} dimensions")
        return (*head, *(f".{i}" for i in reversed(range(hidden))), *tail)

    operands = [labels(t, rank) for t, rank in zip(terms, ranks, strict=True)]
    seen = [a for names in operands for a in names]
    hidden = sorted({a for a in seen if a[0] == "."}, key=lambda a: -int(a[1:]))
    if arrow:
        if hidden and "..." not in right:
            raise InvalidModel(f"Einsum {equation!r} leaves the dimensions of '...' out of its result")
        result = labels(right, len(right.replace("...", "")) + (len(hidden) if "..." in right else 0))
    else:
        result = (*hidden, *sorted(a for a in set(seen) if seen.count(a) == 1 and a[0] != "."))
    if len(set(result)) < len(result) or not set(result) <= set(seen):
        raise InvalidModel(f"Einsum {equation!r} has a result that its operands do not give")
    return operands, result


def sum_of_products(
    g: GraphBuilder, operands: Sequence[str], labels: Sequence[Labels], result: Labels, hint: str
) -> str:
    """Adds one op: operands multiplied, and summed over what `result` leaves out."""
    sizes: dict[str, int] = {}
    for t, names in zip(operands, labels, strict=True):
        for a, n in zip(names, g.shape(t), strict=True):
            if sizes.get(a, 1) != 1 and n not in (1, sizes[a]):
                raise InvalidModel(f"Einsum dimension {a!r} is {sizes[a]} and {n}")
            sizes[a] = n if sizes.get(a, 1) == 1 else sizes[a]
    order = [*result, *(a for a in sizes if a not in result)]
    # Kernels are shared by axis names, so these say what an axis is, not what the model calls it.
    number: Mapping[str, str] = {a: f"{'d' if a in result else 'k'}{i}" for i, a in enumerate(order)}

    def read(t: str, names: Labels) -> tuple[Affine, ...]:
        return tuple(
            Affine() if n == 1 and sizes[a] != 1 else axis(number[a])
            for a, n in zip(names, g.shape(t), strict=True)
        )

    kind = Contract if len(operands) == 2 else ReduceSum
    op = kind(
        axes=tuple((number[a], sizes[a]) for a in order),
        reads=tuple(read(t, names) for t, names in zip(operands, labels, strict=True)),
        write=tuple(axis(number[a]) for a in result),
        in_types=tuple(g.dtype(t) for t in operands),
        out_type=g.dtype(operands[0]).wide,
    )
    return g.emit(op, operands, [sizes[a] for a in result], hint)


def _einsum(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    equation, hint = spec.attribute("equation"), spec.outputs[0]
    rest, given = list(spec.inputs), g.dtype(spec.inputs[0])
    labels, result = parse(equation, [len(g.shape(t)) for t in rest])
    while len(rest) > 2:
        # Two at a time, keeping what later operands or the result ask for.
        later = {a for names in labels[2:] for a in names} | set(result)
        between = tuple(dict.fromkeys(a for a in (*labels[0], *labels[1]) if a in later))
        rest[:2] = [sum_of_products(g, rest[:2], labels[:2], between, hint)]  # in `DType.wide`
        labels[:2] = [between]
    return [cast(g, sum_of_products(g, rest, labels, result, hint), given, hint)]


register("Einsum", _einsum, since=12)
