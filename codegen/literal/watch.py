"""Guard, beside the kernels' own checks: who owns which SRAM, and what moves read and write.

Every GRANULE bytes of the literal SRAM have a tag: the buffer that holds them. A step claims its
result and receive buffers (which poisons them, but for a result that takes over an operand's), a dead
buffer is claimed for nobody. Before a kernel runs, its buffers must hold their tags; so must every element
that a move reads or writes.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from ...ir.dtypes import BOOL, DType
from ..kernels.arithmetic import I8_TYPE, I32_TYPE, I64_TYPE, POINTER
from ..kernels.emit import Emitter, word
from ..kernels.guard import POISON, STALE_READ
from .records import GRANULE, HOST_TAG, READ_FOREIGN, ClaimWords, OwnedWords, WatchWords


def emit_watch(module: ir.Module) -> None:
    """Defines `watch_note`, `watch_access`, `watch_claim` and `watch_owned`."""
    _note(module)
    _access(module)
    _claim(module)
    _owned(module)


@dataclass(frozen=True)
class HeldElement:
    """An element of `size` bytes that the buffer `tag` should hold at `address`, for operand `operand`."""

    operand: ir.Value
    address: ir.Value
    size: int
    tag: ir.Value


def access(e: Emitter, watch: ir.Value, code: int, held: HeldElement) -> ir.Value:
    """The address to use for an element.

    A harmless one, and a note of the violation `code`, where the buffer does not hold the element.
    """
    arguments = [watch, word(code), held.operand, held.address, word(held.size), held.tag]
    return e.b.call(e.module.globals["watch_access"], arguments)


def not_poison(e: Emitter, watch: ir.Value, held: HeldElement, raw: ir.Value, dtype: DType) -> None:
    """Notes a stale read when `raw`, the bits of an element that a move read from SRAM, are poison.

    One byte can be anything, unless it is a bool; one pattern in 65,536 of two bytes is met in
    honest data, so there two in a row must be poison.
    """
    b = e.b
    if dtype.bytes == 1 and dtype != BOOL:
        return
    if dtype == BOOL:
        found: ir.Value = b.icmp_unsigned(">", raw, ir.Constant(I8_TYPE, 1))
    else:
        pattern = int.from_bytes(bytes([POISON]) * dtype.bytes, "little")
        found = b.icmp_unsigned("==", raw, ir.Constant(raw.type, pattern))
    if dtype.bytes == 2:
        previous = b.icmp_signed("!=", e.at(watch, WatchWords.PREVIOUS), word(0))
        e.put(watch, WatchWords.PREVIOUS, b.zext(found, I64_TYPE))
        found = b.and_(found, previous)
    stale = b.and_(found, b.icmp_signed("!=", held.tag, word(HOST_TAG)))
    note = e.module.globals["watch_note"]
    e.when(stale, lambda: _void(b.call(note, [watch, word(STALE_READ), held.operand, held.address])))


def _void(_: object) -> None:
    """A call whose result is nothing."""


def _note(module: ir.Module) -> None:
    """`watch_note(watch, code, operand, address)`: keeps the first violation of a thread."""
    e = Emitter(module, "watch_note", 4)
    watch, *facts = e.function.args

    def fill() -> None:
        for at, value in zip((WatchWords.CODE, WatchWords.OPERAND, WatchWords.ADDRESS), facts, strict=True):
            e.put(watch, at, value)

    e.when(e.b.icmp_signed("==", e.at(watch, WatchWords.CODE), word(0)), fill)
    e.b.ret_void()


def _tag_of(e: Emitter, watch: ir.Value, offset: ir.Value) -> ir.Value:
    """Pointer to the tag of the byte at `offset` of the arena."""
    tags = e.b.inttoptr(e.at(watch, WatchWords.TAGS), POINTER)
    return e.b.gep(tags, [e.b.udiv(offset, word(GRANULE))], source_etype=I32_TYPE)


def _access(module: ir.Module) -> None:
    """`watch_access(watch, code, operand, address, bytes, tag)`; see `access`."""
    e = Emitter(module, "watch_access", 6, I64_TYPE)
    b = e.b
    watch, code, operand, address, size, tag = e.function.args
    inside, good, bad = (b.append_basic_block(n) for n in ("inside", "good", "bad"))
    check = b.append_basic_block("check")
    b.cbranch(b.icmp_signed("==", tag, word(HOST_TAG)), good, check)
    b.position_at_end(check)
    offset = b.sub(address, e.at(watch, WatchWords.ARENA))
    whole = e.at(watch, WatchWords.BYTES)
    ends = b.icmp_unsigned("<=", b.add(offset, size), whole)
    b.cbranch(b.and_(b.icmp_unsigned("<", offset, whole), ends), inside, bad)
    b.position_at_end(inside)
    held = b.load(_tag_of(e, watch, offset), typ=I32_TYPE, align=4)
    b.cbranch(b.icmp_signed("==", held, b.trunc(tag, I32_TYPE)), good, bad)
    b.position_at_end(good)
    b.ret(address)
    b.position_at_end(bad)
    b.call(module.globals["watch_note"], [watch, code, operand, address])
    b.ret(b.add(watch, word(8 * WatchWords.HARMLESS)))


def _claim(module: ir.Module) -> None:
    """`watch_claim(watch, base, claims, count, once)`: poisons and tags ranges of a core's SRAM."""
    e = Emitter(module, "watch_claim", 5)
    b = e.b
    watch, base, claims, count, once = e.function.args

    def each(i: ir.Value) -> None:
        at = b.add(claims, b.mul(i, word(8 * ClaimWords.SIZE)))

        def take() -> None:
            start = b.add(base, e.at(at, ClaimWords.OFFSET))
            offset = b.sub(start, e.at(watch, WatchWords.ARENA))
            tag = b.trunc(e.at(at, ClaimWords.TAG), I32_TYPE)
            size = e.at(at, ClaimWords.BYTES)

            def poison(k: ir.Value) -> None:
                pointer = b.inttoptr(b.add(start, k), POINTER)
                b.store(ir.Constant(I8_TYPE, POISON), pointer, align=1)

            foreign = b.icmp_signed("==", e.at(at, ClaimWords.KEPT), word(0))
            e.when(foreign, lambda: e.loop(word(0), size, poison))
            e.loop(
                word(0),
                size,
                lambda k: _void(b.store(tag, _tag_of(e, watch, b.add(offset, k)), align=4)),
                GRANULE,
            )

        e.when(b.icmp_signed("==", e.at(at, ClaimWords.ONCE), once), take)

    e.loop(word(0), count, each)
    b.ret_void()


def _owned(module: ir.Module) -> None:
    """`watch_owned(watch, base, ranges, count)`: notes a range of a core's SRAM with another tag."""
    e = Emitter(module, "watch_owned", 4)
    b = e.b
    watch, base, ranges, count = e.function.args

    def each(i: ir.Value) -> None:
        at = b.add(ranges, b.mul(i, word(8 * OwnedWords.SIZE)))
        start = b.add(base, e.at(at, OwnedWords.OFFSET))
        tag, operand = e.at(at, OwnedWords.TAG), e.at(at, OwnedWords.OPERAND)
        size = e.at(at, OwnedWords.BYTES)

        def check(k: ir.Value) -> None:
            access(e, watch, READ_FOREIGN, HeldElement(operand, b.add(start, k), 1, tag))

        e.loop(word(0), size, check, GRANULE)

    e.loop(word(0), count, each)
    b.ret_void()
