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

from ..ir.builder import Combine
from ..ir.dtypes import DType, by_name
from .arithmetic import LLVMArithmetic, type_of

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

    def __init__(self, module: ir.Module, name: str, arguments: int, guard: bool = False) -> None:
        kind = ir.FunctionType(ir.VoidType(), [I64] * arguments)
        self.module = module
        self.function = ir.Function(module, kind, name)
        self.function.attributes.add("nounwind")
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))

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


def emit_pull(module: ir.Module, pull: Pull) -> None:
    """`pull(move, base, x, y, t, error)`: fills one operand of one core.

    Runs the product of the dimensions' entries; for each, copies (or combines) a box. Entries of
    the first dimension of a combining move are joined in their order, the first one copied.
    """
    e = _Emitter(module, pull.symbol, 6)
    b = e.b
    move, base, x, y, t, error = e.function.args
    dtype = by_name(pull.dtype)
    dims_at = e.at(move, MoveWords.DIMENSIONS)
    bases = e.at(move, MoveWords.BASES)
    source0 = e.at(move, MoveWords.SOURCE)
    target0 = b.add(base, e.at(move, MoveWords.TARGET))
    start = e.at(move, MoveWords.START)
    dims: list[dict[DimensionWords, ir.Value]] = []
    spans: list[tuple[ir.Value, ir.Value]] = []
    for d in range(pull.rank):
        at = {w: e.at(dims_at, d * DimensionWords.SIZE + w) for w in DimensionWords if w != DimensionWords.SIZE}
        piece = b.add(b.add(e.at(at[DimensionWords.X], x), e.at(at[DimensionWords.Y], y)), e.at(at[DimensionWords.T], t))
        first = e.at(at[DimensionWords.START], piece)
        last = e.at(at[DimensionWords.START], b.add(piece, word(1)))
        dims.append(at)
        spans.append((first, last))

    def nest(d: int, core: ir.Value, source: ir.Value, target: ir.Value, lengths: list[ir.Value], again: ir.Value | None) -> None:
        if d == pull.rank:
            from_base = e.at(bases, core)
            _box(e, pull, dims, b.add(from_base, source), target, lengths, again, error, dtype)
            return

        def body(i: ir.Value) -> None:
            at = dims[d]
            joined = again
            if pull.combine and d == 0:
                joined = b.icmp_signed(">", i, spans[0][0])
            nest(
                d + 1,
                b.add(core, e.at(at[DimensionWords.CORE], i)),
                b.add(source, e.at(at[DimensionWords.SOURCE], i)),
                b.add(target, e.at(at[DimensionWords.TARGET], i)),
                [*lengths, e.at(at[DimensionWords.LENGTH], i)],
                joined,
            )

        e.loop(*spans[d], body)

    nest(0, start, source0, target0, [], None)
    b.ret_void()


def _box(
    e: _Emitter,
    pull: Pull,
    dims: Sequence[dict[DimensionWords, ir.Value]],
    source: ir.Value,
    target: ir.Value,
    lengths: Sequence[ir.Value],
    again: ir.Value | None,
    error: ir.Value,
    dtype: DType,
) -> None:
    """Copies or combines one box; the last dimension is the innermost in the target."""
    b = e.b
    lead = 1 if pull.combine else 0  # partial results: one at a time, no extent of their own

    def element(s: ir.Value, d: ir.Value) -> None:
        raw = type_of(dtype, 0) if pull.combine else ir.IntType(8 * dtype.bytes)
        sp, dp = b.inttoptr(s, POINTER), b.inttoptr(d, POINTER)
        value = b.load(sp, typ=raw, align=dtype.bytes)
        if pull.guard:
            _check(e, sp, dtype, s, error)
        if pull.combine:
            assert again is not None
            old = b.load(dp, typ=raw, align=dtype.bytes)
            value = b.select(again, _combined(e, pull.combine, dtype, old, value), value)
        b.store(value, dp, align=dtype.bytes)

    def nest(d: int, s: ir.Value, t: ir.Value) -> None:
        if d == len(dims):
            element(s, t)
            return
        sp, tp = dims[d][DimensionWords.SOURCE_PITCH], dims[d][DimensionWords.TARGET_PITCH]
        if d == len(dims) - 1 and not pull.guard and not pull.combine:
            size = word(dtype.bytes)
            dense = b.and_(b.icmp_signed("==", sp, size), b.icmp_signed("==", tp, size))
            copy, strided, after = (b.append_basic_block(n) for n in ("dense", "strided", "copied"))
            b.cbranch(dense, copy, strided)
            b.position_at_end(copy)
            _copy_bytes(e, s, t, b.mul(lengths[d], size))
            b.branch(after)
            b.position_at_end(strided)
            e.loop(word(0), lengths[d], lambda i: element(b.add(s, b.mul(i, sp)), b.add(t, b.mul(i, tp))))
            b.branch(after)
            b.position_at_end(after)
            return
        e.loop(word(0), lengths[d], lambda i: nest(d + 1, b.add(s, b.mul(i, sp)), b.add(t, b.mul(i, tp))))

    if pull.combine and not pull.guard and len(dims) > lead:
        _combine_rows(e, pull, dims, source, target, lengths, again, dtype, nest_from=lead)
        return
    nest(lead, source, target)


def _combine_rows(
    e: _Emitter,
    pull: Pull,
    dims: Sequence[dict[DimensionWords, ir.Value]],
    source: ir.Value,
    target: ir.Value,
    lengths: Sequence[ir.Value],
    again: ir.Value | None,
    dtype: DType,
    nest_from: int,
) -> None:
    """As the element-wise nest, with vectors of 8 along a dense innermost dimension."""
    b = e.b
    assert again is not None
    vector = ir.VectorType(type_of(dtype, 0), 8)

    def one(s: ir.Value, t: ir.Value, kind: ir.Type) -> None:
        sp, dp = b.inttoptr(s, POINTER), b.inttoptr(t, POINTER)
        value = b.load(sp, typ=kind, align=dtype.bytes)
        old = b.load(dp, typ=kind, align=dtype.bytes)
        b.store(b.select(again, _combined(e, pull.combine, dtype, old, value), value), dp, align=dtype.bytes)

    def nest(d: int, s: ir.Value, t: ir.Value) -> None:
        sp, tp = dims[d][DimensionWords.SOURCE_PITCH], dims[d][DimensionWords.TARGET_PITCH]
        if d < len(dims) - 1:
            e.loop(word(0), lengths[d], lambda i: nest(d + 1, b.add(s, b.mul(i, sp)), b.add(t, b.mul(i, tp))))
            return
        size = word(dtype.bytes)
        dense = b.and_(b.icmp_signed("==", sp, size), b.icmp_signed("==", tp, size))
        eights = b.select(dense, b.sdiv(lengths[d], word(8)), word(0))
        wide = b.mul(size, word(8))
        e.loop(word(0), eights, lambda i: one(b.add(s, b.mul(i, wide)), b.add(t, b.mul(i, wide)), vector))
        e.loop(
            b.mul(eights, word(8)),
            lengths[d],
            lambda i: one(b.add(s, b.mul(i, sp)), b.add(t, b.mul(i, tp)), type_of(dtype, 0)),
        )

    nest(nest_from, source, target)


def _combined(e: _Emitter, combine: str, dtype: DType, a: ir.Value, c: ir.Value) -> ir.Value:
    """a (combine) c, with the semantics of the kernels' own arithmetic."""
    lanes = a.type.count if isinstance(a.type, ir.VectorType) else 0
    arithmetic = LLVMArithmetic(e.module, e.b, 8)
    kind: Combine = "add" if combine == "add" else "mul" if combine == "mul" else "min" if combine == "min" else "max"
    join = {"add": arithmetic.add, "mul": arithmetic.mul, "min": arithmetic.min, "max": arithmetic.max}[kind]
    return join(arithmetic.make(dtype, a, lanes), arithmetic.make(dtype, c, lanes)).ir  # type: ignore[attr-defined]


def _copy_bytes(e: _Emitter, source: ir.Value, target: ir.Value, count: ir.Value) -> None:
    kind = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, I64, ir.IntType(1)])
    function = _declared(e.module, "llvm.memcpy.p0.p0.i64", kind)
    e.b.call(function, [e.b.inttoptr(target, POINTER), e.b.inttoptr(source, POINTER), count, ir.Constant(ir.IntType(1), 0)])


def _check(e: _Emitter, pointer: ir.Value, dtype: DType, address: ir.Value, error: ir.Value) -> None:
    """Records a stale read (code 3, operand -1) when the element is poison; see `guard`."""
    b = e.b
    if dtype.bytes == 1 and dtype.kind != "b":
        return
    raw = b.load(pointer, typ=ir.IntType(8 * dtype.bytes), align=dtype.bytes)
    pattern = ir.Constant(raw.type, int.from_bytes(bytes([0xA5]) * dtype.bytes, "little"))
    none = b.icmp_signed("==", e.at(error, 0), word(0))

    def record() -> None:
        for i, v in enumerate((word(3), word(-1), address)):
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
