"""The executor, as LLVM IR: walks the steps of a program over tables of 64-bit words.

`execute(steps, count, thread, threads, arrived)` runs `count` step records. Each thread takes
an equal share of a step's cores; after a step that others depend on, all threads meet at a barrier.
For each core and time step it pulls what the operands need, then calls the kernel. The layout of
the records is `Record`, `AxisWords`, `OperandWords`, `MoveWords` and `DimensionWords`; `tables` fills them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from llvmlite import ir

from ..ir.dtypes import DType, by_name
from .arithmetic import LLVMArithmetic, LLVMValue, type_of
from .guard import POISON, STALE_READ

I64 = ir.IntType(64)
I8 = ir.IntType(8)
POINTER = ir.PointerType()
MOST_WORDS = 512  # of a task block; an op with more operands and axes is refused when tables are made
SPINS = 2000  # before a waiting thread yields its processor


class Record(IntEnum):
    """Words of a step record."""

    KERNEL = 0  # function, 0: none
    STRIDES = 1  # the kernel's op block
    COLUMNS = 2
    ROWS = 3
    STEPS = 4
    AXES = 5  # count
    OPERANDS = 6  # count, with the result
    BASES = 7  # i64 per core of the region: address of its SRAM
    START = 8  # number of the grid's first core
    COLUMN_PITCH = 9
    ROW_PITCH = 10
    AXIS_TABLE = 11
    OPERAND_TABLE = 12
    MOVES = 13  # count
    MOVE_TABLE = 14
    FIRST = 15  # i64 per time step
    FILLS = 16  # count
    FILL_TABLE = 17
    BARRIER = 18  # 1: all threads meet after this step
    BOUNDS = 19  # guard: [operands, 2] byte offsets in SRAM
    ERROR = 20  # guard: address of the error record
    NUMBER = 21  # the step's number, for error records
    SIZE = 22


class AxisWords(IntEnum):
    X = 0
    Y = 1
    T = 2
    EXTENT = 3
    ORIGIN = 4
    SIZE = 5


class OperandWords(IntEnum):
    OFFSET = 0  # bytes in the core's SRAM
    X = 1  # bytes per column, row, step
    Y = 2
    T = 3
    SIZE = 4


class MoveWords(IntEnum):
    FUNCTION = 0
    BASES = 1
    SOURCE = 2  # byte offset in the source core's SRAM
    TARGET = 3  # byte offset in the consumer's
    START = 4
    DIMENSIONS = 5
    SIZE = 6


class DimensionWords(IntEnum):
    X = 0
    Y = 1
    T = 2
    START = 3
    CORE = 4
    SOURCE = 5
    TARGET = 6
    LENGTH = 7
    SOURCE_PITCH = 8
    TARGET_PITCH = 9
    SIZE = 10


class FillWords(IntEnum):
    OFFSET = 0
    ELEMENTS = 1
    VALUE = 2
    BYTES = 3  # of an element
    SIZE = 4


@dataclass(frozen=True, order=True)
class Pull:
    """Which pull function a move needs. combine "" copies; guard checks what it reads for poison."""

    rank: int
    dtype: str
    combine: str = ""
    guard: bool = False

    @property
    def symbol(self) -> str:
        kind = f"{self.combine}_{self.dtype}" if self.combine else f"copy{by_name(self.dtype).bytes}"
        return f"pull{self.rank}_{kind}{'_guard' if self.guard else ''}"


class _Emitter:
    """Loops and word accesses of one function."""

    def __init__(self, module: ir.Module, name: str, arguments: int) -> None:
        kind = ir.FunctionType(ir.VoidType(), [I64] * arguments)
        self.module = module
        self.function = ir.Function(module, kind, name)
        self.function.attributes.add("nounwind")
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.element = 0  # bytes of what a pull moves

    def at(self, base: ir.Value, index: ir.Value | int) -> ir.Value:
        """The word number `index` of the table at address `base`."""
        i = word(index) if isinstance(index, int) else index
        pointer = self.b.inttoptr(base, POINTER)
        return self.b.load(self.b.gep(pointer, [i], source_etype=I64), typ=I64, align=8)

    def loop(self, start: ir.Value, end: ir.Value, body: Callable[[ir.Value], None]) -> None:
        """`body(i)` for i in [start, end)."""
        b = self.b
        before, head, after = b.block, b.append_basic_block("loop"), b.append_basic_block("after")
        b.cbranch(b.icmp_signed("<", start, end), head, after)
        b.position_at_end(head)
        i = b.phi(I64)
        i.add_incoming(start, before)
        body(i)
        following = b.add(i, word(1))
        i.add_incoming(following, b.block)
        b.cbranch(b.icmp_signed("<", following, end), head, after)
        b.position_at_end(after)

    def when(self, condition: ir.Value, then: Callable[[], None]) -> None:
        b = self.b
        inside, after = b.append_basic_block("then"), b.append_basic_block("after")
        b.cbranch(condition, inside, after)
        b.position_at_end(inside)
        then()
        b.branch(after)
        b.position_at_end(after)

    def call(self, address: ir.Value, arguments: Sequence[ir.Value]) -> None:
        kind = ir.FunctionType(ir.VoidType(), [a.type for a in arguments])
        self.b.call(self.b.inttoptr(address, kind.as_pointer()), list(arguments))


def word(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def _declared(module: ir.Module, name: str, kind: ir.FunctionType) -> ir.Function:
    found = module.globals.get(name)
    return found if found is not None else ir.Function(module, kind, name)


Dimension = dict[DimensionWords, ir.Value]


def emit_pull(module: ir.Module, pull: Pull) -> None:
    """`pull(move, base, x, y, t, error)`: fills one operand of one core.

    Runs the product of the dimensions' entries and copies a box for each. A combining move's first
    dimension runs innermost instead: each element is joined over all partial results, in their
    order, before it is stored once.
    """
    e = _Emitter(module, pull.symbol, 6)
    b = e.b
    move, base, x, y, t, error = e.function.args
    dims_at = e.at(move, MoveWords.DIMENSIONS)
    bases = e.at(move, MoveWords.BASES)
    source = e.at(move, MoveWords.SOURCE)
    target = b.add(base, e.at(move, MoveWords.TARGET))
    dims: list[Dimension] = []
    spans: list[tuple[ir.Value, ir.Value]] = []
    for d in range(pull.rank):
        at = {w: e.at(dims_at, d * DimensionWords.SIZE + w) for w in DimensionWords if w != DimensionWords.SIZE}
        row = b.add(e.at(at[DimensionWords.X], x), e.at(at[DimensionWords.Y], y))
        piece = b.add(row, e.at(at[DimensionWords.T], t))
        first = e.at(at[DimensionWords.START], piece)
        dims.append(at)
        spans.append((first, e.at(at[DimensionWords.START], b.add(piece, word(1)))))
    lead = 1 if pull.combine else 0

    def nest(d: int, core: ir.Value, source: ir.Value, target: ir.Value, lengths: list[ir.Value]) -> None:
        if d < pull.rank:

            def body(i: ir.Value) -> None:
                at = dims[d]
                nest(
                    d + 1,
                    b.add(core, e.at(at[DimensionWords.CORE], i)),
                    b.add(source, e.at(at[DimensionWords.SOURCE], i)),
                    b.add(target, e.at(at[DimensionWords.TARGET], i)),
                    [*lengths, e.at(at[DimensionWords.LENGTH], i)],
                )

            e.loop(*spans[d], body)
        elif pull.combine:
            parts = _Parts(e, pull, dims[0], spans[0], bases, core, error)
            _box(e, dims[1:], lengths, source, target, parts.join, parts.join_vector if not pull.guard else None)
        else:
            start = b.add(e.at(bases, core), source)
            copy = _Copies(e, pull, error)
            _box(e, dims, lengths, start, target, copy.element, None if pull.guard else copy.row)

    nest(lead, e.at(move, MoveWords.START), source, target, [])
    b.ret_void()


Element = Callable[[ir.Value, ir.Value], None]  # (source address or offset, target address)
Row = Callable[[ir.Value, ir.Value, ir.Value], ir.Value]  # the same and a length -> elements done


def _box(
    e: _Emitter,
    dims: Sequence[Dimension],
    lengths: Sequence[ir.Value],
    source: ir.Value,
    target: ir.Value,
    element: Element,
    row: Row | None,
) -> None:
    """Every element of a box; `row` does what it can of an innermost dimension that is dense on both sides."""
    b = e.b

    def nest(d: int, s: ir.Value, t: ir.Value) -> None:
        if d == len(dims):
            element(s, t)
            return
        sp, tp = dims[d][DimensionWords.SOURCE_PITCH], dims[d][DimensionWords.TARGET_PITCH]
        begin: ir.Value = word(0)
        if d == len(dims) - 1 and row is not None:
            dense = b.icmp_signed("==", sp, tp)
            rows, other, after = (b.append_basic_block(n) for n in ("rows", "other", "each"))
            b.cbranch(dense, rows, other)
            b.position_at_end(rows)
            done = row(s, t, b.select(b.icmp_signed("==", sp, word(e.element)), lengths[d], word(0)))
            rows = b.block
            b.branch(after)
            b.position_at_end(other)
            b.branch(after)
            b.position_at_end(after)
            phi = b.phi(I64)
            phi.add_incoming(done, rows)
            phi.add_incoming(word(0), other)
            begin = phi
        e.loop(begin, lengths[d], lambda i: nest(d + 1, b.add(s, b.mul(i, sp)), b.add(t, b.mul(i, tp))))

    nest(0, source, target)


class _Copies:
    """Element and row of a copying pull."""

    def __init__(self, e: _Emitter, pull: Pull, error: ir.Value) -> None:
        self.e, self.guard, self.error = e, pull.guard, error
        self.dtype = by_name(pull.dtype)
        e.element = self.dtype.bytes

    def element(self, s: ir.Value, t: ir.Value) -> None:
        b, size = self.e.b, self.dtype.bytes
        pointer = b.inttoptr(s, POINTER)
        value = b.load(pointer, typ=ir.IntType(8 * size), align=size)
        if self.guard:
            _check(self.e, value, self.dtype, s, self.error)
        b.store(value, b.inttoptr(t, POINTER), align=size)

    def row(self, s: ir.Value, t: ir.Value, length: ir.Value) -> ir.Value:
        _copy_bytes(self.e, s, t, self.e.b.mul(length, word(self.dtype.bytes)))
        return length


class _Parts:
    """One element, or a vector of them, joined over the partial results of a combining pull."""

    WIDTH = 8

    def __init__(
        self,
        e: _Emitter,
        pull: Pull,
        lead: Dimension,
        span: tuple[ir.Value, ir.Value],
        bases: ir.Value,
        core: ir.Value,
        error: ir.Value,
    ) -> None:
        self.e, self.pull, self.lead, self.span = e, pull, lead, span
        self.bases, self.core, self.error = bases, core, error
        self.dtype = by_name(pull.dtype)
        e.element = self.dtype.bytes

    def _at(self, i: ir.Value, s: ir.Value) -> ir.Value:
        e = self.e
        base = e.at(self.bases, e.b.add(self.core, e.at(self.lead[DimensionWords.CORE], i)))
        return e.b.add(base, e.b.add(s, e.at(self.lead[DimensionWords.SOURCE], i)))

    def _total(self, s: ir.Value, lanes: int) -> ir.Value:
        e, b = self.e, self.e.b
        arithmetic = LLVMArithmetic(e.module, b, self.WIDTH)
        kind = type_of(self.dtype, lanes)

        def part(i: ir.Value) -> LLVMValue:
            at = self._at(i, s)
            raw = b.load(b.inttoptr(at, POINTER), typ=kind, align=self.dtype.bytes)
            if self.pull.guard:
                bits = ir.IntType(8 * self.dtype.bytes)
                _check(e, b.load(b.inttoptr(at, POINTER), typ=bits, align=self.dtype.bytes), self.dtype, at, self.error)
            return arithmetic.make(self.dtype, raw, lanes)

        join = getattr(arithmetic, self.pull.combine)
        first = part(self.span[0])
        before, head, after = b.block, b.append_basic_block("parts"), b.append_basic_block("joined")
        start = b.add(self.span[0], word(1))
        b.cbranch(b.icmp_signed("<", start, self.span[1]), head, after)
        b.position_at_end(head)
        i, total = b.phi(I64), b.phi(first.ir.type)
        i.add_incoming(start, before)
        total.add_incoming(first.ir, before)
        joined = _as(join(arithmetic.make(self.dtype, total, lanes), part(i)))
        following = b.add(i, word(1))
        i.add_incoming(following, b.block)
        total.add_incoming(joined.ir, b.block)
        end = b.block
        b.cbranch(b.icmp_signed("<", following, self.span[1]), head, after)
        b.position_at_end(after)
        out = b.phi(first.ir.type)
        out.add_incoming(first.ir, before)
        out.add_incoming(joined.ir, end)
        return out

    def join(self, s: ir.Value, t: ir.Value) -> None:
        value = self._total(s, 0)
        self.e.b.store(value, self.e.b.inttoptr(t, POINTER), align=self.dtype.bytes)

    def join_vector(self, s: ir.Value, t: ir.Value, length: ir.Value) -> ir.Value:
        b = self.e.b
        count = b.sdiv(length, word(self.WIDTH))
        wide = word(self.WIDTH * self.dtype.bytes)

        def one(i: ir.Value) -> None:
            value = self._total(b.add(s, b.mul(i, wide)), self.WIDTH)
            pointer = b.inttoptr(b.add(t, b.mul(i, wide)), POINTER)
            b.store(value, pointer, align=self.dtype.bytes)

        self.e.loop(word(0), count, one)
        return b.mul(count, word(self.WIDTH))


def _as(value: object) -> LLVMValue:
    assert isinstance(value, LLVMValue)
    return value


def _copy_bytes(e: _Emitter, source: ir.Value, target: ir.Value, count: ir.Value) -> None:
    kind = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, I64, ir.IntType(1)])
    function = _declared(e.module, "llvm.memcpy.p0.p0.i64", kind)
    e.b.call(function, [e.b.inttoptr(target, POINTER), e.b.inttoptr(source, POINTER), count, ir.Constant(ir.IntType(1), 0)])


def _check(e: _Emitter, raw: ir.Value, dtype: DType, address: ir.Value, error: ir.Value) -> None:
    """Records a stale read (operand -1) when the bits of an element are poison; see `guard`."""
    b = e.b
    if dtype.bytes == 1 and dtype.kind != "b":
        return
    pattern = ir.Constant(raw.type, int.from_bytes(bytes([POISON]) * dtype.bytes, "little"))
    none = b.icmp_signed("==", e.at(error, 0), word(0))

    def record() -> None:
        for i, v in enumerate((word(STALE_READ), word(-1), address)):
            p = b.gep(b.inttoptr(error, POINTER), [word(i)], source_etype=I64)
            b.store(v, p, align=8)

    e.when(b.and_(none, b.icmp_unsigned("==", raw, pattern)), record)


def emit_fill(module: ir.Module) -> None:
    """`fill(record, base)`: sets a buffer's elements to a value (padding)."""
    e = _Emitter(module, "fill", 2)
    b = e.b
    record, base = e.function.args
    start = b.add(base, e.at(record, FillWords.OFFSET))
    value, count = e.at(record, FillWords.VALUE), e.at(record, FillWords.ELEMENTS)
    size = e.at(record, FillWords.BYTES)
    for n in (1, 2, 4, 8):
        raw = ir.IntType(8 * n)
        narrow = b.trunc(value, raw) if n < 8 else value

        def each(i: ir.Value, n: int = n, narrow: ir.Value = narrow) -> None:
            at = b.inttoptr(b.add(start, b.mul(i, word(n))), POINTER)
            b.store(narrow, at, align=n)

        e.when(b.icmp_signed("==", size, word(n)), lambda each=each: e.loop(word(0), count, each))
    b.ret_void()


def emit_tasks(module: ir.Module, guard: bool) -> None:
    """`tasks(record, begin, end)`: the cores [begin, end) of a step, row by row."""
    e = _Emitter(module, "tasks", 3)
    b = e.b
    record, begin, end = e.function.args
    block = b.alloca(I64, word(MOST_WORDS))
    block.align = 64
    block_at = b.ptrtoint(block, I64)
    r = {w: e.at(record, w) for w in Record if w != Record.SIZE}
    empty = b.alloca(I64)

    def put(index: ir.Value, value: ir.Value) -> None:
        b.store(value, b.gep(block, [index], source_etype=I64), align=8)

    def core(number: ir.Value) -> None:
        y = b.sdiv(number, r[Record.COLUMNS])
        x = b.sub(number, b.mul(y, r[Record.COLUMNS]))
        at = b.add(r[Record.START], b.add(b.mul(x, r[Record.COLUMN_PITCH]), b.mul(y, r[Record.ROW_PITCH])))
        base = e.at(r[Record.BASES], at)

        def step(t: ir.Value) -> None:
            b.store(word(0), empty)

            def axis(a: ir.Value) -> None:
                table = b.add(r[Record.AXIS_TABLE], b.mul(a, word(8 * AxisWords.SIZE)))
                piece = b.add(
                    b.add(e.at(e.at(table, AxisWords.X), x), e.at(e.at(table, AxisWords.Y), y)),
                    e.at(e.at(table, AxisWords.T), t),
                )
                extent = e.at(e.at(table, AxisWords.EXTENT), piece)
                put(b.add(r[Record.OPERANDS], a), extent)
                put(b.add(b.add(r[Record.OPERANDS], r[Record.AXES]), a), e.at(e.at(table, AxisWords.ORIGIN), piece))
                none = b.icmp_signed("<=", extent, word(0))
                b.store(b.or_(b.load(empty, typ=I64), b.zext(none, I64)), empty)

            e.loop(word(0), r[Record.AXES], axis)

            def run() -> None:
                def operand(j: ir.Value) -> None:
                    table = b.add(r[Record.OPERAND_TABLE], b.mul(j, word(8 * OperandWords.SIZE)))
                    offset = b.add(
                        b.add(e.at(e.at(table, OperandWords.X), x), e.at(e.at(table, OperandWords.Y), y)),
                        e.at(e.at(table, OperandWords.T), t),
                    )
                    put(j, b.add(base, b.add(e.at(table, OperandWords.OFFSET), offset)))

                e.loop(word(0), r[Record.OPERANDS], operand)
                after = b.add(r[Record.OPERANDS], b.mul(r[Record.AXES], word(2)))
                put(after, e.at(r[Record.FIRST], t))
                if guard:

                    def bound(i: ir.Value) -> None:
                        put(b.add(b.add(after, word(1)), i), b.add(base, e.at(r[Record.BOUNDS], i)))

                    twice = b.mul(r[Record.OPERANDS], word(2))
                    e.loop(word(0), twice, bound)
                    put(b.add(b.add(after, word(1)), twice), r[Record.ERROR])

                def filled(f: ir.Value) -> None:
                    fill = module.globals["fill"]
                    b.call(fill, [b.add(r[Record.FILL_TABLE], b.mul(f, word(8 * FillWords.SIZE))), base])

                e.loop(word(0), r[Record.FILLS], filled)

                def moved(m: ir.Value) -> None:
                    move = b.add(r[Record.MOVE_TABLE], b.mul(m, word(8 * MoveWords.SIZE)))
                    e.call(e.at(move, MoveWords.FUNCTION), [move, base, x, y, t, r[Record.ERROR]])

                e.loop(word(0), r[Record.MOVES], moved)
                e.when(
                    b.icmp_signed("!=", r[Record.KERNEL], word(0)),
                    lambda: e.call(r[Record.KERNEL], [block_at, r[Record.STRIDES]]),
                )
                if guard:

                    def where() -> None:
                        for i, v in ((3, b.add(b.mul(r[Record.NUMBER], word(1 << 32)), at)),):
                            p = b.gep(b.inttoptr(r[Record.ERROR], POINTER), [word(i)], source_etype=I64)
                            b.store(b.add(v, word(1)), p, align=8)

                    found = b.icmp_signed("!=", e.at(r[Record.ERROR], 0), word(0))
                    unplaced = b.icmp_signed("==", e.at(r[Record.ERROR], 3), word(0))
                    e.when(b.and_(found, unplaced), where)

            e.when(b.icmp_signed("==", b.load(empty, typ=I64), word(0)), run)

        e.loop(word(0), r[Record.STEPS], step)

    e.loop(begin, end, core)
    b.ret_void()


def emit_execute(module: ir.Module) -> None:
    """`execute(steps, count, thread, threads, arrived)`; see the module's docstring.

    `arrived` counts arrivals and only grows: barrier number k is passed at k * threads, so no
    late leaver can meet a reset. The caller zeroes it before the first thread starts.
    """
    e = _Emitter(module, "execute", 5)
    b = e.b
    steps, count, thread, threads, arrived = e.function.args
    yield_ = _declared(module, "sched_yield", ir.FunctionType(ir.IntType(32), []))
    pointer = b.inttoptr(arrived, POINTER)
    passed = b.alloca(I64)
    b.store(word(0), passed)

    def barrier() -> None:
        goal = b.add(b.load(passed, typ=I64), threads)
        b.store(goal, passed)
        b.atomic_rmw("add", pointer, word(1), "acq_rel")
        spin, done = b.append_basic_block("spin"), b.append_basic_block("met")
        before = b.block
        b.branch(spin)
        b.position_at_end(spin)
        turns = b.phi(I64)
        turns.add_incoming(word(0), before)
        now = b.load_atomic(pointer, "acquire", 8, typ=I64)
        following = b.add(turns, word(1))

        def give_way() -> None:
            b.call(yield_, [])

        e.when(b.icmp_signed("==", b.srem(following, word(SPINS)), word(0)), give_way)
        turns.add_incoming(following, b.block)
        b.cbranch(b.icmp_signed(">=", now, goal), done, spin)
        b.position_at_end(done)

    def each(i: ir.Value) -> None:
        record = b.add(steps, b.mul(i, word(8 * Record.SIZE)))
        total = b.mul(e.at(record, Record.COLUMNS), e.at(record, Record.ROWS))
        begin = b.sdiv(b.mul(total, thread), threads)
        end = b.sdiv(b.mul(total, b.add(thread, word(1))), threads)
        b.call(module.globals["tasks"], [record, begin, end])
        meet = b.and_(
            b.icmp_signed("!=", e.at(record, Record.BARRIER), word(0)), b.icmp_signed(">", threads, word(1))
        )
        e.when(meet, barrier)

    e.loop(word(0), count, each)
    b.ret_void()


def make_executor(pulls: Iterable[Pull], guard: bool = False) -> str:
    """LLVM IR of the executor with the pull functions that a program needs."""
    module = ir.Module("executor")
    for pull in sorted(set(pulls)):
        emit_pull(module, pull)
    emit_fill(module)
    emit_tasks(module, guard)
    emit_execute(module)
    return str(module)
