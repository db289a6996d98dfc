"""The literal executor, as LLVM IR: walks the steps of a plan core by core over tables of 64-bit words.

`execute(steps, count)` runs `count` step records. For each core and time step it pulls what the operands
need, then calls the kernel. `records` has the layout of the tables; `tables` fills them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from llvmlite import ir

from ..kernels.arithmetic import I64_TYPE, POINTER
from ..kernels.emit import Emitter, word
from ..words import StepWords
from .pulls import emit_pull
from .records import AxisWords, BackwardWords, FillWords, MoveWords, OperandWords, Pull, WatchWords
from .watch import emit_watch

MOST_WORDS = 512  # of a task block; an op with more operands and axes is refused when tables are made


def make_executor(pulls: Iterable[Pull]) -> str:
    """LLVM IR of the executor with the pull functions that a program needs."""
    module = ir.Module("executor")
    emit_watch(module)
    for pull in sorted(set(pulls)):
        emit_pull(module, pull)
    _emit_fill(module)
    _Tasks(module).finish()
    _emit_execute(module)
    return str(module)


def _emit_fill(module: ir.Module) -> None:
    """`fill(record, base)`: sets a buffer's elements to a value (padding)."""
    e = Emitter(module, "fill", 2)
    b = e.b
    record, base = e.function.args
    start = b.add(base, e.at(record, FillWords.OFFSET))
    value, count = e.at(record, FillWords.VALUE), e.at(record, FillWords.ELEMENTS)
    size = e.at(record, FillWords.BYTES)

    def elements(n: int) -> Callable[[], None]:
        def each(i: ir.Value) -> None:
            narrow = b.trunc(value, ir.IntType(8 * n)) if n < 8 else value
            b.store(narrow, b.inttoptr(b.add(start, b.mul(i, word(n))), POINTER), align=n)

        return lambda: e.loop(word(0), count, each)

    for n in (1, 2, 4, 8):
        e.when(b.icmp_signed("==", size, word(n)), elements(n))
    b.ret_void()


class _Tasks(Emitter):
    """`tasks(record)`: all cores of a step."""

    def __init__(self, module: ir.Module) -> None:
        super().__init__(module, "tasks", 1)
        (self.record,) = self.function.args
        self.block = self.b.ptrtoint(self.b.alloca(I64_TYPE, word(MOST_WORDS)), I64_TYPE)
        self.empty = self.b.ptrtoint(self.b.alloca(I64_TYPE, word(1)), I64_TYPE)
        self.r = {w: self.at(self.record, w) for w in StepWords if w != StepWords.SIZE}
        self.watch = self.r[StepWords.WATCH]

    def finish(self) -> None:
        cores = self.b.mul(self.r[StepWords.COLUMNS], self.r[StepWords.ROWS])
        self.loop(word(0), cores, self._core)
        self.b.ret_void()

    def _core(self, number: ir.Value) -> None:
        b, r = self.b, self.r
        y = b.sdiv(number, r[StepWords.COLUMNS])
        x = b.sub(number, b.mul(y, r[StepWords.COLUMNS]))
        core = b.add(r[StepWords.START], b.mul(x, r[StepWords.COLUMN_PITCH]))
        core = b.add(core, b.mul(y, r[StepWords.ROW_PITCH]))
        base = self.at(r[StepWords.BASES], core)
        self._claim(base, 1)

        def step(t: ir.Value) -> None:
            self._axes(x, y, t)
            some = b.icmp_signed("==", self.at(self.empty, 0), word(0))
            self.when(some, lambda: self._task(core, base, x, y, t))

        self.loop(word(0), r[StepWords.STEPS], step)

    def _claim(self, base: ir.Value, once: int) -> None:
        r = self.r
        claims = [self.watch, base, r[StepWords.CLAIM_TABLE], r[StepWords.CLAIMS], word(once)]
        self.b.call(self.module.globals["watch_claim"], claims)

    def _axes(self, x: ir.Value, y: ir.Value, t: ir.Value) -> None:
        """Puts the tile's extents and origins into the task block; `empty` says whether an extent is 0."""
        b, r = self.b, self.r
        self.put(self.empty, 0, word(0))

        def axis(a: ir.Value) -> None:
            table = b.add(r[StepWords.AXIS_TABLE], b.mul(a, word(8 * AxisWords.SIZE)))
            piece = b.add(self.at(self.at(table, AxisWords.X), x), self.at(self.at(table, AxisWords.Y), y))
            piece = b.add(piece, self.at(self.at(table, AxisWords.T), t))
            extent = self.at(self.at(table, AxisWords.EXTENT), piece)
            at = b.add(r[StepWords.OPERANDS], a)
            self.put(self.block, at, extent)
            origin = self.at(self.at(table, AxisWords.ORIGIN), piece)
            self.put(self.block, b.add(at, r[StepWords.AXES]), origin)
            none = b.zext(b.icmp_signed("<=", extent, word(0)), I64_TYPE)
            self.put(self.empty, 0, b.or_(self.at(self.empty, 0), none))

        self.loop(word(0), r[StepWords.AXES], axis)

    def _task(self, core: ir.Value, base: ir.Value, x: ir.Value, y: ir.Value, t: ir.Value) -> None:
        """Fills and pulls the operands of one tile and calls its kernel."""
        b, r = self.b, self.r

        def operand(j: ir.Value) -> None:
            table = b.add(r[StepWords.OPERAND_TABLE], b.mul(j, word(8 * OperandWords.SIZE)))
            at = b.add(self.at(self.at(table, OperandWords.X), x), self.at(self.at(table, OperandWords.Y), y))
            at = b.add(at, self.at(self.at(table, OperandWords.T), t))
            at = b.add(base, b.add(self.at(table, OperandWords.OFFSET), at))
            self.put(self.block, j, at)
            rows = self.at(table, OperandWords.BACKWARD_TABLE)

            def backward(i: ir.Value) -> None:
                row = b.add(rows, b.mul(i, word(8 * BackwardWords.SIZE)))
                axis = b.add(r[StepWords.OPERANDS], self.at(row, BackwardWords.AXIS))
                last = b.sub(self.at(self.block, axis), word(1))
                reach = b.mul(last, self.at(row, BackwardWords.BYTES))
                self.put(self.block, j, b.add(self.at(self.block, j), reach))

            self.loop(word(0), self.at(table, OperandWords.BACKWARD), backward)

        def filled(f: ir.Value) -> None:
            table = b.add(r[StepWords.FILL_TABLE], b.mul(f, word(8 * FillWords.SIZE)))
            b.call(self.module.globals["fill"], [table, base])

        def moved(m: ir.Value) -> None:
            move = b.add(r[StepWords.MOVE_TABLE], b.mul(m, word(8 * MoveWords.SIZE)))
            self.call(self.at(move, MoveWords.FUNCTION), [move, base, x, y, t, self.watch])

        self.loop(word(0), r[StepWords.OPERANDS], operand)
        first = b.add(r[StepWords.OPERANDS], b.mul(r[StepWords.AXES], word(2)))
        self.put(self.block, first, self.at(r[StepWords.FIRST], t))
        self.put(self.block, b.add(first, word(1)), word(0))
        self._claim(base, 0)
        self.loop(word(0), r[StepWords.FILLS], filled)
        self.loop(word(0), r[StepWords.MOVES], moved)
        self._guarded(base, b.add(first, word(2)))
        computes = b.icmp_signed("!=", r[StepWords.KERNEL], word(0))
        self.when(computes, lambda: self.call(r[StepWords.KERNEL], [self.block, r[StepWords.STRIDES]]))
        self._place(core, t)

    def _guarded(self, base: ir.Value, at: ir.Value) -> None:
        """Bounds of the buffers, watch record and reports, behind the task block; whose the buffers are."""
        b, r = self.b, self.r

        def bound(i: ir.Value) -> None:
            self.put(self.block, b.add(at, i), b.add(base, self.at(r[StepWords.BOUNDS], i)))

        twice = b.mul(r[StepWords.OPERANDS], word(2))
        self.loop(word(0), twice, bound)
        self.put(self.block, b.add(at, twice), self.watch)
        self.put(self.block, b.add(at, b.add(twice, word(1))), r[StepWords.REPORTS])
        owned = [self.watch, base, r[StepWords.OWNED_TABLE], r[StepWords.OWNED]]
        b.call(self.module.globals["watch_owned"], owned)

    def _place(self, core: ir.Value, t: ir.Value) -> None:
        """Says where a violation was found that has no place yet."""
        b = self.b

        def place() -> None:
            number = b.add(self.r[StepWords.NUMBER], word(1))
            self.put(self.watch, WatchWords.CORE, core)
            self.put(self.watch, WatchWords.TIME, t)
            self.put(self.watch, WatchWords.STEP, number)
            self.put(self.watch, WatchWords.PLACED, word(1))

        found = b.icmp_signed("!=", self.at(self.watch, WatchWords.CODE), word(0))
        unplaced = b.icmp_signed("==", self.at(self.watch, WatchWords.PLACED), word(0))
        self.when(b.and_(found, unplaced), place)


def _emit_execute(module: ir.Module) -> None:
    """`execute(steps, count)`; see the module's docstring."""
    e = Emitter(module, "execute", 2)
    b = e.b
    steps, count = e.function.args

    def each(i: ir.Value) -> None:
        record = b.add(steps, b.mul(i, word(8 * StepWords.SIZE)))
        b.call(module.globals["tasks"], [record])

    e.loop(word(0), count, each)
    b.ret_void()
