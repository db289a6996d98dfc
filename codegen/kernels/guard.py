"""Checks that a guarded kernel makes: bounds at every access, poison at every load."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from ...ir.dtypes import BOOL, DType
from .addresses import Addresses
from .arithmetic import I1_TYPE, I64_TYPE, POINTER
from .signature import TaskLayout

READ_OUTSIDE, WRITE_OUTSIDE, STALE_READ = 1, 2, 3
# Every byte of a dead buffer: no number in f16, one near the end in bf16 and f32, a rare one in integers.
POISON = 0xFE


class Guard:
    """Emits the checks of one kernel; the first violation is kept in the task's error record."""

    def __init__(self, module: ir.Module, builder: ir.IRBuilder, at: Addresses, layout: TaskLayout) -> None:
        self._module, self._builder, self._at, self._layout = module, builder, at, layout

    def access(
        self,
        operand: int,
        pointer: ir.Value,
        span: tuple[ir.Value, ir.Value],
        code: int,
        emit: Callable[[], ir.Value],
    ) -> ir.Value:
        """`emit()` if the bytes [span) from `pointer` lie in the operand's buffer, else zero."""
        e = self._builder
        base = e.ptrtoint(pointer, I64_TYPE)
        low, high = e.add(base, span[0]), e.add(base, span[1])
        lowest = self._at.task_word(self._layout.bound(operand)).ir
        end = self._at.task_word(self._layout.bound(operand) + 1).ir
        under = e.icmp_unsigned("<", low, lowest)
        bad = e.or_(under, e.icmp_unsigned(">", high, end))
        inside, outside, after = (e.append_basic_block(n) for n in ("inside", "outside", "after"))
        e.cbranch(bad, outside, inside)
        self._at.enter(outside)
        past = e.select(e.icmp_unsigned(">", low, end), low, end)
        self._record(code, operand, e.select(under, low, past))
        e.branch(after)
        self._at.enter(inside)
        done = emit()
        inside = e.block
        e.branch(after)
        self._at.enter(after)
        if isinstance(done.type, ir.VoidType):
            return done
        value = e.phi(done.type)
        value.add_incoming(ir.Constant(done.type, None), outside)
        value.add_incoming(done, inside)
        return value

    def loaded(
        self,
        operand: int,
        dtype: DType,
        value: ir.Value,
        pointer: ir.Value,
        active: ir.Value | None,
        pitch: ir.Value,
    ) -> None:
        """Records a stale read if an active lane of `value`, as stored in memory, is poison.

        active: mask of the lanes, None for one element. One byte can be anything, unless it is
        a bool; two bytes are trusted to be poison only beside another such lane, as one pattern
        in 65,536 is met in honest data.
        """
        e = self._builder
        if (dtype.bytes == 1 and dtype != BOOL) or (dtype.bytes == 2 and active is None):
            return
        lanes = value.type.count if isinstance(value.type, ir.VectorType) else 1
        integer = ir.IntType(8 * dtype.bytes)
        type = ir.VectorType(integer, lanes) if active is not None else integer
        word = 1 if dtype == BOOL else int.from_bytes(bytes([POISON] * dtype.bytes), "little")
        constant = ir.Constant(type, [word] * lanes if active is not None else word)
        found: ir.Value = e.icmp_unsigned(">" if dtype == BOOL else "==", e.bitcast(value, type), constant)
        if active is None:
            offset: ir.Value = ir.Constant(I64_TYPE, 0)
        else:
            bits = ir.IntType(lanes)
            set_lanes: ir.Value = e.bitcast(e.and_(found, active), bits)
            if dtype.bytes == 2:
                set_lanes = e.and_(set_lanes, e.lshr(set_lanes, ir.Constant(bits, 1)))
            found = e.icmp_unsigned("!=", set_lanes, ir.Constant(bits, 0))
            kind = ir.FunctionType(bits, [bits, I1_TYPE])
            name = f"llvm.cttz.i{lanes}"
            count = self._module.globals.get(name) or ir.Function(self._module, kind, name)
            lane = e.call(count, [set_lanes, ir.Constant(I1_TYPE, 0)])
            offset = e.mul(e.zext(lane, I64_TYPE) if lanes < 64 else lane, pitch)
        stale, after = e.append_basic_block("stale"), e.append_basic_block("after")
        e.cbranch(found, stale, after)
        self._at.enter(stale)
        self._record(STALE_READ, operand, e.add(e.ptrtoint(pointer, I64_TYPE), offset))
        e.branch(after)
        self._at.enter(after)

    def _record(self, code: int, operand: int, address: ir.Value) -> None:
        number, kind = ir.Constant(I64_TYPE, operand), ir.Constant(I64_TYPE, code)
        record = self._at.task_word(self._layout.error).ir
        self._builder.call(_recorder(self._module), [record, kind, number, address])


def _recorder(module: ir.Module) -> ir.Value:
    """The module's function that fills an error record unless it is filled."""
    name = "guard_record"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64_TYPE] * 4), name)
    function.linkage = "internal"
    e = ir.IRBuilder(function.append_basic_block("entry"))
    fill, done = function.append_basic_block("fill"), function.append_basic_block("done")
    record = e.inttoptr(function.args[0], POINTER)
    e.cbranch(e.icmp_unsigned("==", e.load(record, typ=I64_TYPE), ir.Constant(I64_TYPE, 0)), fill, done)
    e.position_at_end(fill)
    for word, value in enumerate(function.args[1:]):
        at = e.gep(record, [ir.Constant(I64_TYPE, word)], source_etype=I64_TYPE)
        e.store(value, at, align=8)
    e.branch(done)
    e.position_at_end(done)
    e.ret_void()
    return function
