"""An op on as few axes as it takes: what is one run through memory becomes one axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from ...ir.affine import Access, Affine, access_axes
from ...ir.op import Op
from .homes import View
from .sum_order import Order


def merged(
    op: Op, views: Sequence[View], sums: Order, lanes_across: str
) -> tuple[Op, list[View], dict[str, str]]:
    """The op on as few axes as it takes: those of one iteration go, those that all views run through
    as one become one. Also the new names of the old axes that are left."""
    size = op.size
    kept = [a for a in access_axes(op.write) if size[a] > 1]
    kept.sort(key=lambda a: -abs(views[-1].strides[a]))
    reduced = [a for a in op.reduced if size[a] > 1]
    fixed = {sums.part, lanes_across}
    for stage in sums.stages:
        fixed |= {a for a, bounds in stage.bounds.items() if bounds != (0, size[a])}
    groups: list[tuple[str, list[str]]] = []
    for letter, axes in (("x", kept), ("r", reduced)):
        runs: list[list[str]] = []
        for a in axes:
            if runs and not (letter == "r" and lanes_across) and _one(runs[-1], a, size, views, fixed):
                runs[-1].append(a)
            else:
                runs.append([a])
        groups += [(f"{letter}{i}", g) for i, g in enumerate(runs)]
    sizes = [(name, prod(size[a] for a in group)) for name, group in groups]
    new_views = [
        replace(v, strides={name: v.strides[g[-1]] for name, g in groups if v.strides.get(g[-1])})
        for v in views
    ]
    accesses: list[Access] = [(Affine(tuple((a, 1) for a in v.strides)),) for v in new_views]
    write = (Affine(tuple((name, 1) for name, _ in groups if name[0] == "x")),)
    made = replace(op, axes=tuple(sizes), reads=tuple(accesses[:-1]), write=write, fill=0.0)
    return made, new_views, {g[0]: name for name, g in groups if len(g) == 1}


def _one(
    outer: list[str], inner: str, size: Mapping[str, int], views: Sequence[View], fixed: set[str]
) -> bool:
    """Whether every view steps along `outer` as along the end of `inner`."""
    if inner in fixed or outer[-1] in fixed:
        return False
    return all(v.strides.get(outer[-1], 0) == v.strides.get(inner, 0) * size[inner] for v in views)
