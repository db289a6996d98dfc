"""Judging SRAM: sizes, budgets, lifetimes and addresses of buffers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..plan.layout import Grid, Ints, Layout, layout
from ..plan.plan import Buffer, Plan, Role, Step
from .verdict import IllegalPlan, Index, buffer_name, grid_core, step_name


def judge_memory(plan: Plan, index: Index) -> None:
    """Raises IllegalPlan unless every buffer fits, lives long enough and is alone at its addresses."""
    for i, b in enumerate(plan.buffers):
        _judge_buffer(plan, b, i)
    users: list[list[int]] = [[] for _ in plan.buffers]
    takers: dict[int, Step] = {}
    for s in plan.steps:
        _judge_step(plan, s, users, takers)
    _judge_lifetimes(plan, index, users)
    for b in plan.buffers:
        if b.over != -1:
            _judge_over(plan, index, b, users)
    for r in range(len(plan.regions)):
        judge_addresses(plan, [b for b in plan.buffers if b.region == r and b.bytes])


def _judge_buffer(plan: Plan, b: Buffer, number: int) -> None:
    """A buffer lies on its region's cores, above the code and below the budget."""
    if b.number != number or not 0 <= b.region < len(plan.regions):
        raise IllegalPlan(f"{buffer_name(b)}: stands at {number}, in region {b.region}")
    r, (x0, y0, x1, y1) = plan.regions[b.region], b.grid.box
    if x0 < 0 or y0 < 0 or x1 > r.columns or y1 > r.rows:
        raise IllegalPlan(
            f"{buffer_name(b)}: grid ends at ({x1}, {y1}), region {r.name!r} has {r.columns}x{r.rows}"
        )
    if sorted(b.order) != list(range(len(b.shape))) or min(b.shape, default=0) < 0:
        raise IllegalPlan(f"{buffer_name(b)}: order {b.order} of shape {b.shape}")
    core, code = grid_core(plan, b.region, b.grid, 0, 0), plan.code_bytes[b.region]
    if b.address < code or b.address % b.dtype.bytes:
        raise IllegalPlan(
            f"{buffer_name(b)}: address {b.address} on {core}; code ends at {code}, elements are "
            f"{b.dtype.bytes} bytes"
        )
    if b.address + b.bytes > plan.wafer.sram_bytes:
        raise IllegalPlan(
            f"{buffer_name(b)}: ends at {b.address + b.bytes} on {core}, budget {plan.wafer.sram_bytes}"
        )


def _judge_step(plan: Plan, s: Step, users: list[list[int]], takers: dict[int, Step]) -> None:
    """A step's buffers are its own, on its grid, and large enough; notes who uses what when."""
    op, p = s.op, s.position
    pasts, own = {past for past, _ in plan.graph.states}, plan.graph.in_place
    role: Role = "result"
    if s.kind in ("input", "update") or s.tensor in own:
        role = "state" if s.tensor in pasts or s.tensor in own else "input"
    _match(plan, s, s.result, (role,), s.hold)
    users[s.result].append(p)
    for j, (o, access) in enumerate(zip(s.operands, op.reads, strict=False)):
        users[o.buffer].append(p)
        if o.received:
            if o.buffer in takers:
                raise IllegalPlan(
                    f"{step_name(s)}: operand {j} is received into the buffer of "
                    f"{step_name(takers[o.buffer])}"
                )
            takers[o.buffer] = s
            _match(plan, s, o.buffer, ("receive",), layout(access, op.axes, s.split))
        elif o.tensor in plan.graph.constants:
            _match(plan, s, o.buffer, ("constant",), layout(access, op.axes, s.split, merge_time=True))
        for m in o.moves:
            users[m.source].append(p)
    for m in s.moves:
        users[m.source].append(p)
    if s.kind == "task":
        _, scratch = plan.wafer.task(op, s.split.extents(op.axes))
        have = plan.buffers[s.scratch].bytes if s.scratch >= 0 else 0
        if have < int(scratch):
            raise IllegalPlan(f"{step_name(s)}: scratch of {have} bytes, {op.name} takes {int(scratch)}")
        if s.scratch >= 0:
            _match(plan, s, s.scratch, ("scratch",), None)
            users[s.scratch].append(p)


def _match(plan: Plan, s: Step, number: int, roles: Sequence[Role], held: Layout | None) -> None:
    """Buffer `number` has one of `roles`, the step's region and grid, and room for `held`."""
    if not 0 <= number < len(plan.buffers):
        raise IllegalPlan(f"{step_name(s)}: buffer {number} of {len(plan.buffers)}")
    b = plan.buffers[number]
    if b.role not in roles:
        raise IllegalPlan(f"{step_name(s)}: {buffer_name(b)} should be a {roles[0]}")
    if (b.region, b.grid) != (s.region, s.grid):
        raise IllegalPlan(f"{step_name(s)}: on grid {s.grid}, but {buffer_name(b)} on {b.grid}")
    if held is None:
        return
    if len(b.shape) != len(held):
        raise IllegalPlan(f"{step_name(s)}: {buffer_name(b)} has {len(b.shape)} dimensions, not {len(held)}")
    for d, (n, pieces) in enumerate(zip(b.shape, held, strict=True)):
        longest = int((pieces.hi - pieces.lo).max(initial=0))
        if n < longest:
            raise IllegalPlan(
                f"{step_name(s)}: {buffer_name(b)} has {n} elements along dimension {d}, needs {longest}"
            )


def _judge_lifetimes(plan: Plan, index: Index, users: Sequence[Sequence[int]]) -> None:
    """A buffer lives from when it is written to its last use; resident ones always."""
    end = len(plan.steps)
    output = {s.result for t in plan.graph.outputs for s in index.writers.get(t, ())}
    for b, at in zip(plan.buffers, users, strict=True):
        if not at:
            continue
        first = -1 if b.stays or b.role == "input" else min(at)
        last = end if b.stays or b.number in output else max(at)
        if b.live[0] > first or b.live[1] < last:
            raise IllegalPlan(
                f"{buffer_name(b)}: lives from {b.live[0]} to {b.live[1]}, is used from {first} to {last}"
            )


def _judge_over(plan: Plan, index: Index, new: Buffer, users: Sequence[Sequence[int]]) -> None:
    """A buffer takes over another: its step writes each element where it read that same element, as
    the last one to read it."""
    if not 0 <= new.over < len(plan.buffers) or new.over == new.number:
        raise IllegalPlan(f"{buffer_name(new)}: takes over buffer {new.over} of {len(plan.buffers)}")
    old, s = plan.buffers[new.over], index.owner.get(new.number)
    where = f"{buffer_name(new)}: takes over {buffer_name(old)}"
    made = index.owner.get(old.number)
    kept = s is not None and plan.graph.in_place.get(s.tensor, "") == old.name
    if s is None or made is None or {new.role, old.role} != {"state" if kept else "result"}:
        raise IllegalPlan(f"{where}; only a result can take over a result, a state's new value its old one")
    for what in ("region", "grid", "shape", "pitches", "address"):
        a, b = getattr(new, what), getattr(old, what)
        if a != b:
            raise IllegalPlan(f"{where}: {what} is {a}, must be {b}")
    if old.dtype.bytes != new.dtype.bytes:
        raise IllegalPlan(f"{where}: elements are {new.dtype.bytes} bytes, must be {old.dtype.bytes}")
    reads = [j for j, o in enumerate(s.operands) if o.buffer == old.number]
    if not reads or s.kind != "task" or s.part:
        raise IllegalPlan(f"{where}, which {step_name(s)} does not read where it lies")
    for j in reads:
        if not s.op.overwrites(j):
            raise IllegalPlan(
                f"{where}: {step_name(s)} reads other elements of operand {j} {s.operands[j].tensor!r} "
                "than it writes"
            )
    _judge_begins(plan, s, made, where)
    if not kept and (old.live[1] != s.position or new.live[0] != s.position):
        raise IllegalPlan(
            f"{where} at position {s.position}; they live until {old.live[1]} and from {new.live[0]}"
        )
    for r in (plan.steps[p] for p in users[old.number]):
        at_once = r is s or r.wavefront >= s.wavefront
        if at_once and (old.number in r.fetched or r.leader != s.leader):
            raise IllegalPlan(f"{where} in wavefront {s.wavefront}, in which {step_name(r)} reads it")


def _judge_begins(plan: Plan, s: Step, made: Step, where: str) -> None:
    """The boxes that two steps hold begin alike on each core: who computes an element finds it at the
    address where it writes it."""
    empty: Any = np.zeros((1, 1), np.bool_)
    for n in s.hold:
        empty = empty | (n.hi <= n.lo)[n.number()[0]]
    for d, (n, h) in enumerate(zip(s.hold, made.hold, strict=True)):
        apart = (n.lo[n.number()[0]] != h.lo[h.number()[0]]) & ~empty
        if apart.any():
            row, column = (int(i) for i in np.argwhere(apart)[0])
            core = grid_core(plan, s.region, s.grid, column, row)
            raise IllegalPlan(f"{where}: dimension {d}: its box begins elsewhere on {core}")


def judge_addresses(plan: Plan, buffers: Sequence[Buffer]) -> None:
    """No two buffers of a region share a core, a moment and an address."""
    order = sorted(buffers, key=lambda b: (b.address, b.number))
    clashes: list[tuple[int, int, tuple[int, int]]] = []
    for i, near in _neighbours(order):
        for k in near:
            b, other = order[i], order[k]
            shared = _shared(b.grid, other.grid)
            if shared is not None and b.over != other.number and other.over != b.number:
                clashes.append((min(i, k), max(i, k), shared))
    if clashes:
        i, k, (x, y) = min(clashes)
        b, other = order[i], order[k]
        core = grid_core(plan, b.region, Grid(1, 1, x, y), 0, 0)
        raise IllegalPlan(
            f"{buffer_name(b)} and {buffer_name(other)} both have address {other.address} on {core} "
            f"at position {max(b.live[0], other.live[0])}"
        )


def _neighbours(order: Sequence[Buffer]) -> Iterator[tuple[int, list[int]]]:
    """Pairs of buffers, by number in `order`, that share addresses, moments and the hulls of their grids.

    Each pair once: what stays is looked for along the addresses, where it is alone, what comes and goes along
    the moments: at one address a long program has as many buffers as steps.
    """
    lo: Any = np.array([b.address for b in order], np.int64)
    hi: Any = np.array([b.address + b.bytes for b in order], np.int64)
    live: Any = np.array([b.live for b in order], np.int64).reshape(-1, 2)
    box: Any = np.array([b.grid.box for b in order], np.int64).reshape(-1, 4)
    stays: Any = np.array([b.stays for b in order], np.bool_)
    last: Any = lo.searchsorted(hi, side="left")

    def near(i: int, j: Ints) -> list[int]:
        after = j > i  # in the order of addresses
        addresses: Any = (after & (lo[j] < hi[i])) | (~after & (lo[i] < hi[j]))
        moments: Any = (live[j, 0] <= live[i, 1]) & (live[i, 0] <= live[j, 1])
        cores: Any = (box[j, :2] < box[i, 2:]).all(1) & (box[i, :2] < box[j, 2:]).all(1)
        return j[addresses & moments & cores].tolist()

    kept: Ints = np.flatnonzero(stays)
    first: Ints = kept.searchsorted(np.arange(1, len(order) + 1))
    end: Ints = kept.searchsorted(np.asarray(last))
    for i in range(len(order)):
        yield i, near(i, np.arange(i + 1, int(last[i])) if stays[i] else kept[first[i] : end[i]])
    passing: Ints = np.flatnonzero(~stays)
    passing = passing[np.argsort(live[passing, 0], kind="stable")]
    until = live[passing, 0].searchsorted(live[passing, 1], side="right")
    for at, i in enumerate(passing.tolist()):
        yield i, near(i, passing[at + 1 : int(until[at])])


def _shared(a: Grid, b: Grid) -> tuple[int, int] | None:
    """A logical core of both grids, None where there is none."""
    x = np.intersect1d(a.x + a.dx * np.arange(a.columns), b.x + b.dx * np.arange(b.columns))
    y = np.intersect1d(a.y + a.dy * np.arange(a.rows), b.y + b.dy * np.arange(b.rows))
    return (int(x[0]), int(y[0])) if len(x) and len(y) else None
