"""The judge: cuts are allowed, and the steps that write a tensor write each of its elements once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ir.affine import Affine
from ..plan.layout import Ints
from ..plan.plan import Plan, Step
from .verdict import IllegalPlan, step_name


def judge_split(step: Step) -> None:
    """Cuts are on axes that may be cut; a reduced axis is cut in space only as the part."""
    op, reduced = step.op, set(step.op.reduced)
    size = op.size
    for c in step.split.cuts:
        where = f"{step_name(step)}: cut {c.axis}/{c.ways} along {c.side}"
        if c.ways < 1:
            raise IllegalPlan(f"{where}: must be at least 1")
        if c.axis not in size:
            raise IllegalPlan(f"{where}: {op.name} has no such axis")
        if c.ways > 1 and c.axis in op.whole:
            raise IllegalPlan(f"{where}: {op.name} keeps axis {c.axis} (size {size[c.axis]}) whole")
        if c.ways > 1 and c.axis in reduced and c.side != "t" and c.axis != step.part:
            raise IllegalPlan(f"{where}: a reduced axis cut in space without partial results")
    if step.part and (step.part not in reduced or op.combine is None):
        raise IllegalPlan(
            f"{step_name(step)}: {step.part} is no reduced axis of {op.name} that can be joined"
        )


def _merged_tiles(step: Step, name: str) -> tuple[Ints, Ints]:
    """[tiles]: where each core's share of an axis starts and ends, its time steps as one."""
    size, own = step.op.size[name], [c for c in step.split.cuts if c.axis == name and c.ways > 1]
    in_time = [c.side == "t" for c in own]
    if sorted(in_time) != in_time:
        raise IllegalPlan(f"{step_name(step)}: axis {name} is cut in time outside of a cut in space")
    ways = int(np.prod([c.ways for c in own], dtype=np.int64))
    steps = int(np.prod([c.ways for c in own if c.side == "t"], dtype=np.int64))
    share = -(-size // ways) * steps
    at = np.arange(ways // steps, dtype=np.int64) * share
    return np.minimum(at, size), np.minimum(at + share, size)


def _written(step: Step, expression: Affine) -> tuple[Ints, Ints, Ints]:
    """(first, end, elements in fact) of what each non-empty tile writes in one dimension, sorted."""
    lo = hi = np.full(1, expression.const, np.int64)
    count = np.ones(1, np.int64)
    for name, c in expression.terms:
        start, end = _merged_tiles(step, name)
        near, far = (start, end - 1) if c > 0 else (end - 1, start)
        lo = (lo[:, None] + c * near).ravel()
        hi = (hi[:, None] + c * far).ravel()
        count = (count[:, None] * (end - start)).ravel()
    order = np.argsort(lo, kind="stable")
    order = order[count[order] > 0]
    return lo[order], hi[order] + 1, count[order]


def _box(step: Step) -> list[tuple[int, int]]:
    """The box that a step writes; raises unless its tiles are dense, apart and leave no gap."""
    out: list[tuple[int, int]] = []
    for d, e in enumerate(step.write):
        lo, hi, count = _written(step, e)
        if not len(lo):
            return [(0, 0)] * len(step.write)
        if (hi - lo != count).any():
            i = int(np.flatnonzero(hi - lo != count)[0])
            raise IllegalPlan(
                f"{step_name(step)}: a tile spans {hi[i] - lo[i]} elements of dimension {d}, "
                f"but writes {count[i]}"
            )
        if (lo[1:] != hi[:-1]).any():
            i = int(np.flatnonzero(lo[1:] != hi[:-1])[0])
            raise IllegalPlan(
                f"{step_name(step)}: tiles of dimension {d} end at {hi[i]} and start at {lo[i + 1]}"
            )
        held = step.hold[d + (1 if step.part else 0)]
        used = np.flatnonzero(held.hi > held.lo)
        used = used[np.argsort(held.lo[used], kind="stable")]
        if not (np.array_equal(held.lo[used], lo) and np.array_equal(held.hi[used], hi)):
            raise IllegalPlan(
                f"{step_name(step)}: {len(used)} pieces of dimension {d} are said to be held, "
                f"{len(lo)} others are written"
            )
        out.append((int(lo[0]), int(hi[-1])))
    return out


def judge_partition(plan: Plan, tensor: str, steps: Sequence[Step]) -> None:
    """The steps that write a tensor write each of its elements once."""
    shape = plan.tensors[tensor].shape
    lead = 1 if steps[0].part else 0
    if len(steps) > 1 and lead:
        raise IllegalPlan(f"{step_name(steps[1])}: {len(steps)} steps write the partial results {tensor!r}")
    if len(shape) != lead + len(steps[0].write):
        raise IllegalPlan(
            f"{step_name(steps[0])}: writes {len(steps[0].write)} dimensions of {tensor!r}{shape}"
        )
    if lead and int(steps[0].hold[0].hi.max(initial=0)) > shape[0]:
        raise IllegalPlan(
            f"{step_name(steps[0])}: {steps[0].hold[0].hi.max()} partial results, {tensor!r} has {shape[0]}"
        )
    boxes: Any = np.array([_box(s) for s in steps], np.int64).reshape(len(steps), -1, 2)
    for s, box in zip(steps, boxes, strict=True):
        for d, ((lo, hi), n) in enumerate(zip(box, shape[lead:], strict=True)):
            if lo < 0 or hi > n:
                raise IllegalPlan(f"{step_name(s)}: writes [{lo}, {hi}) of dimension {d}, {tensor!r} has {n}")
    _judge_apart(tensor, steps, boxes)
    written = int((boxes[:, :, 1] - boxes[:, :, 0]).prod(1).sum())
    total = int(np.prod(shape[lead:], dtype=np.int64))
    if written != total:
        raise IllegalPlan(
            f"{step_name(steps[0])}: {written} of the {total} elements of {tensor!r} are written"
        )


def _judge_apart(tensor: str, steps: Sequence[Step], boxes: Any) -> None:
    """No two steps write the same element. boxes: [steps, dimensions, 2], first and end."""
    for i, s in enumerate(steps):
        lo = np.maximum(boxes[:i, :, 0], boxes[i, :, 0])
        hi = np.minimum(boxes[:i, :, 1], boxes[i, :, 1])
        both = np.flatnonzero((hi > lo).all(1))
        if len(both):
            raise IllegalPlan(
                f"{step_name(s)} and {step_name(steps[int(both[0])])} write the same of {tensor!r}"
            )
