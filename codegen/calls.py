"""Sweeps -> tables of kernel calls, relocatable, and the function that makes them.

`call(groups, count, thread, threads, arrived)` runs `count` groups. A group's items are shared out
among the threads; an item makes the calls of each of the group's sweeps in turn. Every call is laid out
beforehand: a kernel gets the address of its task block, and nothing is computed between two calls.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from ..placement.plan import Plan
from .emit import Barrier, Emitter, word
from .kernels import Kernel, kernel_for, stride_kinds
from .pool import Entry, Pool
from .records import Base, Calls, GroupWords, Margins, Placed, SweepWords
from .sweeps import Lay, Shared, Sweep, share


def make_calls(plan: Plan, lanes: int) -> tuple[Calls, tuple[Kernel, ...]]:
    """The calls of a plan for a host with `lanes` f32 lanes, and the kernels that they call."""
    shared = share(plan, lanes)
    pool = Pool()
    kernels: dict[Kernel, int] = {}
    groups: list[Entry] = []
    sweeps = shared.sweeps
    for i, s in enumerate(sweeps):
        words = [0] * GroupWords.SIZE
        words[GroupWords.ITEMS] = len(s.boxes.items) - 1
        words[GroupWords.SWEEPS] = 1
        words[GroupWords.SHARED] = int(s.shared)
        follows = i + 1 < len(sweeps)
        words[GroupWords.BARRIER] = int(follows and (s.shared or sweeps[i + 1].shared))
        table = pool.table([_sweep(s, shared, pool, kernels, lanes)])
        groups.append(Entry(words, {int(GroupWords.TABLE): table}))
    section = pool.table(groups), len(groups)
    margins = tuple(
        Margins(h.offset, h.elements, str(h.dtype.numpy), h.fill)
        for h in shared.homes.values()
        if h.fill is not None
    )
    return Calls(
        pool.words(),
        pool.relocations(),
        section,
        shared.bytes,
        tuple(_placed(lay, shared) for lay in shared.constants),
        tuple(_placed(lay, shared) for lay in shared.inputs),
        tuple(_placed(lay, shared) for lay in shared.outputs),
        margins,
        any(s.shared for s in sweeps),
    ), tuple(kernels)


def _placed(lay: Lay, shared: Shared) -> Placed:
    home = shared.homes[lay.home]
    size = home.dtype.bytes
    return Placed(
        lay.tensor,
        str(home.dtype.numpy),
        lay.shape,
        home.offset + lay.offset * size,
        tuple(s * size for s in lay.strides),
        lay.host_offset * size,
        tuple(s * size for s in lay.host_strides),
    )


def _sweep(s: Sweep, shared: Shared, pool: Pool, kernels: dict[Kernel, int], lanes: int) -> Entry:
    axes = [a for a, _ in s.op.axes]
    rows = [dict(v.strides) for v in s.views]
    kernel = kernel_for(s.op, s.lane, stride_kinds(s.op, rows, s.lane), lanes, part=s.part)
    layout = kernel.signature.layout
    b = s.boxes
    calls = np.zeros((len(b.mode), layout.words(False)), np.int64)
    first = {a: b.first[:, i] for i, a in enumerate(axes)}
    for j, v in enumerate(s.views):
        home = shared.homes[v.home]
        calls[:, j] = home.offset + v.at(first) * home.dtype.bytes
    for i, a in enumerate(axes):
        calls[:, layout.extent(a)] = b.extent[:, i]
        calls[:, layout.origin(a)] = b.first[:, i]
    calls[:, layout.mode] = b.mode
    calls[:, layout.chunk] = s.chunk
    words = [0] * SweepWords.SIZE
    words[SweepWords.BYTES] = 8 * calls.shape[1]
    return Entry(
        words,
        {
            int(SweepWords.STRIDES): pool.add([r.get(a, 0) for r in rows for a in axes]),
            int(SweepWords.CALLS): pool.addressed(calls, len(s.views)),
            int(SweepWords.ITEMS): pool.add(b.items),
        },
        {int(SweepWords.KERNEL): (Base.KERNEL, kernels.setdefault(kernel, len(kernels)))},
    )


def make_caller() -> str:
    """LLVM IR of `call`; see the module's docstring."""
    module = ir.Module("call")
    e = Emitter(module, "call", 5)
    b = e.b
    groups, count, thread, threads, arrived = e.function.args
    meet = Barrier(e, threads, arrived)

    def group(g: ir.Value) -> None:
        record = b.add(groups, b.mul(g, word(8 * GroupWords.SIZE)))
        items, sweeps, table = (
            e.at(record, w) for w in (GroupWords.ITEMS, GroupWords.SWEEPS, GroupWords.TABLE)
        )
        shared = b.icmp_signed("!=", e.at(record, GroupWords.SHARED), word(0))
        lone = b.icmp_signed("==", thread, word(0))
        begin = b.select(shared, b.sdiv(b.mul(items, thread), threads), word(0))
        end = b.sdiv(b.mul(items, b.add(thread, word(1))), threads)
        end = b.select(shared, end, b.select(lone, items, word(0)))

        def item(i: ir.Value) -> None:
            def sweep(s: ir.Value) -> None:
                own = b.add(table, b.mul(s, word(8 * SweepWords.SIZE)))
                kernel, strides = e.at(own, SweepWords.KERNEL), e.at(own, SweepWords.STRIDES)
                calls, size = e.at(own, SweepWords.CALLS), e.at(own, SweepWords.BYTES)
                starts = e.at(own, SweepWords.ITEMS)

                def one(c: ir.Value) -> None:
                    e.call(kernel, [b.add(calls, b.mul(c, size)), strides])

                e.loop(e.at(starts, i), e.at(starts, b.add(i, word(1))), one)

            e.loop(word(0), sweeps, sweep)

        e.loop(begin, end, item)
        asked = b.icmp_signed("!=", e.at(record, GroupWords.BARRIER), word(0))
        e.when(b.and_(asked, b.icmp_signed(">", threads, word(1))), meet.emit)

    e.loop(word(0), count, group)
    b.ret_void()
    return str(module)
