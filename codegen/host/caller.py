"""The function that makes a program's calls, and how threads share them, as LLVM IR.

`call(groups, count, thread, threads, counters)` runs `count` groups. An item makes the calls of each of the
group's sweeps in turn. Each thread has a share of a group's items, the same for groups of as many items, so
that it finds in its cache what it wrote; when it is through, it takes what is left of the others' shares.

Other threads than the first stay in `serve(control)`, which spins for a while and then returns for its
thread to sleep. `post(control, job)` starts a job there and tells whether the thread must be woken;
`finish(control, job)` waits until it is done. Each thread has its own control block, see `ControlWords`.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from ..kernels.arithmetic import I64_TYPE, POINTER
from ..kernels.emit import Emitter, declared, word
from .records import ASLEEP, ENDED, LINE, ControlWords, GroupWords, SweepWords

PATIENCE = 20_000  # turns of a thread that waits for work before it sleeps: some 100 microseconds
SPINS = 2_000  # turns of a thread that waits for another before it yields its processor


def make_caller() -> str:
    """LLVM IR of `call`, `serve`, `post` and `finish`."""
    module = ir.Module("caller")
    _emit_call(module)
    _emit_serve(module)
    _emit_post(module)
    _emit_finish(module)
    return str(module)


def _emit_call(module: ir.Module) -> None:
    """counters: a cache line for the barriers, then one for each group and thread; zeros to begin with.

    The barriers' counter counts arrivals and only grows: barrier number k is passed at k * threads, so no
    late leaver can meet a reset. The others count the items taken from a thread's share of a group.
    """
    e = Emitter(module, "call", 5)
    b = e.b
    groups, count, thread, threads, counters = e.function.args
    passed = b.alloca(I64_TYPE)
    b.store(word(0), passed)
    alone = b.icmp_signed("==", threads, word(1))

    def meet() -> None:
        goal = b.add(b.load(passed, typ=I64_TYPE), threads)
        b.store(goal, passed)
        b.atomic_rmw("add", b.inttoptr(counters, POINTER), word(1), "acq_rel")
        _wait(e, lambda: b.icmp_signed(">=", _acquired(e, counters), goal))

    def group(g: ir.Value) -> None:
        record = b.add(groups, b.mul(g, word(8 * GroupWords.SIZE)))
        items, sweeps, table = (
            e.at(record, w) for w in (GroupWords.ITEMS, GroupWords.SWEEPS, GroupWords.TABLE)
        )

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

        def share(turn: ir.Value) -> None:
            """What is left of one thread's items, this thread's own first."""
            owner = b.srem(b.add(thread, turn), threads)
            begin = b.sdiv(b.mul(items, owner), threads)
            end = b.sdiv(b.mul(items, b.add(owner, word(1))), threads)
            line = b.add(b.add(b.mul(g, threads), owner), word(1))
            counter = b.inttoptr(b.add(counters, b.mul(line, word(LINE))), POINTER)
            before, take, run, done = b.block, *(b.append_basic_block(n) for n in ("take", "run", "done"))
            b.position_at_end(before)
            b.branch(take)
            b.position_at_end(take)
            i = b.add(begin, b.atomic_rmw("add", counter, word(1), "monotonic"))
            b.cbranch(b.icmp_signed("<", i, end), run, done)
            b.position_at_end(run)
            item(i)
            b.branch(take)
            b.position_at_end(done)

        def together() -> None:
            shared = b.icmp_signed("!=", e.at(record, GroupWords.SHARED), word(0))
            first = b.icmp_signed("==", thread, word(0))
            single = b.select(first, items, word(0))
            e.when(shared, lambda: e.loop(word(0), threads, share), lambda: e.loop(word(0), single, item))
            e.when(b.icmp_signed("!=", e.at(record, GroupWords.BARRIER), word(0)), meet)

        e.when(alone, lambda: e.loop(word(0), items, item), together)

    e.loop(word(0), count, group)
    b.ret_void()


def _emit_serve(module: ir.Module) -> None:
    """`serve(control)`: 1 when the thread shall end, 0 when it shall sleep until it is woken."""
    e = Emitter(module, "serve", 1, I64_TYPE)
    b = e.b
    (control,) = e.function.args
    post = b.add(control, word(8 * ControlWords.POST))
    look, work, idle, rest, ended, asleep = (
        b.append_basic_block(n) for n in ("look", "work", "idle", "rest", "ended", "asleep")
    )
    turns = b.alloca(I64_TYPE)
    b.store(word(0), turns)
    b.branch(look)
    b.position_at_end(look)
    job = _acquired(e, post)
    last = e.at(control, ControlWords.LAST)
    new = b.and_(b.icmp_signed("!=", job, last), b.icmp_signed("!=", job, word(ASLEEP)))
    b.cbranch(new, work, idle)
    b.position_at_end(work)
    over = b.append_basic_block("over")
    b.cbranch(b.icmp_signed("==", job, word(ENDED)), ended, over)
    b.position_at_end(over)
    words = (
        ControlWords.GROUPS,
        ControlWords.COUNT,
        ControlWords.THREAD,
        ControlWords.THREADS,
        ControlWords.COUNTERS,
    )
    b.call(module.globals["call"], [e.at(control, w) for w in words])
    e.put(control, ControlWords.LAST, job)
    done = b.inttoptr(b.add(control, word(8 * ControlWords.DONE)), POINTER)
    b.atomic_rmw("xchg", done, job, "release")
    b.store(word(0), turns)
    b.branch(look)
    b.position_at_end(idle)
    turn = b.add(b.load(turns, typ=I64_TYPE), word(1))
    b.store(turn, turns)
    b.cbranch(b.icmp_signed("<", turn, word(PATIENCE)), look, rest)
    b.position_at_end(rest)
    # Asleep from here on, unless a job came in between.
    swap = b.cmpxchg(b.inttoptr(post, POINTER), last, word(ASLEEP), "acq_rel", "acquire")
    b.cbranch(b.extract_value(swap, 1), asleep, look)
    b.position_at_end(asleep)
    b.ret(word(0))
    b.position_at_end(ended)
    b.ret(word(1))


def _emit_post(module: ir.Module) -> None:
    """`post(control, job)`: starts a job of a new number; 1 if its thread sleeps and must be woken."""
    e = Emitter(module, "post", 2, I64_TYPE)
    b = e.b
    control, job = e.function.args
    post = b.inttoptr(b.add(control, word(8 * ControlWords.POST)), POINTER)
    old = b.atomic_rmw("xchg", post, job, "acq_rel")
    b.ret(b.zext(b.icmp_signed("==", old, word(ASLEEP)), I64_TYPE))


def _emit_finish(module: ir.Module) -> None:
    """`finish(control, job)`: returns when the thread has done the job."""
    e = Emitter(module, "finish", 2)
    b = e.b
    control, job = e.function.args
    done = b.add(control, word(8 * ControlWords.DONE))
    _wait(e, lambda: b.icmp_signed("==", _acquired(e, done), job))
    b.ret_void()


def _acquired(e: Emitter, address: ir.Value) -> ir.Value:
    return e.b.load_atomic(e.b.inttoptr(address, POINTER), "acquire", 8, typ=I64_TYPE)


def _wait(e: Emitter, holds: Callable[[], ir.Value]) -> None:
    """Spins until `holds()`; yields the processor now and then."""
    b = e.b
    yield_ = declared(e.module, "sched_yield", ir.FunctionType(ir.IntType(32), []))

    def give_way() -> None:
        b.call(yield_, [])

    before, spin, done = b.block, b.append_basic_block("spin"), b.append_basic_block("met")
    b.branch(spin)
    b.position_at_end(spin)
    turns = b.phi(I64_TYPE)
    turns.add_incoming(word(0), before)
    met = holds()
    following = b.add(turns, word(1))
    e.when(b.icmp_signed("==", b.srem(following, word(SPINS)), word(0)), give_way)
    turns.add_incoming(following, b.block)
    b.cbranch(met, done, spin)
    b.position_at_end(done)
