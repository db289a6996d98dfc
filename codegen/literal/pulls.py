"""Pull functions, as LLVM IR: one operand of one core, fetched from the cores that hold it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from ...ir.dtypes import by_name
from ..kernels.arithmetic import POINTER, LLVMArithmetic, LLVMValue, type_of
from ..kernels.emit import Emitter, word
from ..kernels.guard import WRITE_OUTSIDE
from .records import READ_FOREIGN, DimensionWords, MoveWords, Pull
from .watch import HeldElement, access, not_poison

Dimension = dict[DimensionWords, ir.Value]
Element = Callable[[ir.Value, ir.Value], None]  # (source address or offset, target address)


class _Function(Emitter):
    """`pull(move, base, x, y, t, watch)` under construction."""

    def __init__(self, module: ir.Module, pull: Pull) -> None:
        super().__init__(module, pull.symbol, 6)
        self.pull, self.dtype = pull, by_name(pull.dtype)
        self.move, self.base, self.x, self.y, self.t, self.watch = self.function.args
        self.bases = self.at(self.move, MoveWords.BASES)
        self.tables: list[Dimension] = []
        self.spans: list[tuple[ir.Value, ir.Value]] = []
        dimensions = self.at(self.move, MoveWords.DIMENSIONS)
        for d in range(pull.rank):
            first = d * DimensionWords.SIZE
            at = {w: self.at(dimensions, first + w) for w in DimensionWords if w != DimensionWords.SIZE}
            piece = self.at(at[DimensionWords.X], self.x)
            piece = self.b.add(piece, self.at(at[DimensionWords.Y], self.y))
            piece = self.b.add(piece, self.at(at[DimensionWords.T], self.t))
            starts = at[DimensionWords.START]
            self.tables.append(at)
            self.spans.append((self.at(starts, piece), self.at(starts, self.b.add(piece, word(1)))))
        self.operand = self.at(self.move, MoveWords.OPERAND)
        self.source_tag = self.at(self.move, MoveWords.SOURCE_TAG)
        self.target_tag = self.at(self.move, MoveWords.TARGET_TAG)

    def load(self, address: ir.Value, kind: ir.Type) -> ir.Value:
        """The element at `address`, checked."""
        size = self.dtype.bytes
        held = HeldElement(self.operand, address, size, self.source_tag)
        at = access(self, self.watch, READ_FOREIGN, held)
        pointer = self.b.inttoptr(at, POINTER)
        raw = self.b.load(pointer, typ=ir.IntType(8 * size), align=size)
        not_poison(self, self.watch, held, raw, self.dtype)
        return self.b.load(pointer, typ=kind, align=size)

    def target(self, address: ir.Value) -> ir.Value:
        """A pointer to the element to be written at `address`, checked."""
        held = HeldElement(self.operand, address, self.dtype.bytes, self.target_tag)
        at = access(self, self.watch, WRITE_OUTSIDE, held)
        return self.b.inttoptr(at, POINTER)


def emit_pull(module: ir.Module, pull: Pull) -> None:
    """Defines a pull function: it runs the product of the dimensions' entries and copies a box for each.

    A combining move's first dimension runs over the partial results, inside the others: the first one
    is copied, the rest are joined onto it, in their order.
    """
    e = _Function(module, pull)
    b = e.b

    def nest(d: int, core: ir.Value, source: ir.Value, target: ir.Value, lengths: list[ir.Value]) -> None:
        if d < pull.rank:
            at = e.tables[d]
            looped = d >= pull.rank - pull.box

            def body(i: ir.Value) -> None:
                nest(
                    d + 1,
                    b.add(core, e.at(at[DimensionWords.CORE], i)),
                    b.add(source, e.at(at[DimensionWords.SOURCE], i)),
                    b.add(target, e.at(at[DimensionWords.TARGET], i)),
                    [*lengths, e.at(at[DimensionWords.LENGTH], i)] if looped else lengths,
                )

            e.loop(*e.spans[d], body)
        elif pull.combine:
            _parts(e, lengths, core, source, target)
        else:
            _copied(e, lengths, b.add(e.at(e.bases, core), source), target)

    source, target = e.at(e.move, MoveWords.SOURCE), b.add(e.base, e.at(e.move, MoveWords.TARGET))
    nest(1 if pull.combine else 0, e.at(e.move, MoveWords.START), source, target, [])
    b.ret_void()


def _copied(e: _Function, lengths: Sequence[ir.Value], source: ir.Value, target: ir.Value) -> None:
    _box(e, lengths, source, target, lambda s, t: _element(e, s, t))


def _parts(
    e: _Function, lengths: Sequence[ir.Value], core: ir.Value, source: ir.Value, target: ir.Value
) -> None:
    """One box, from each of the cores that hold partial results of it."""
    b, lead = e.b, e.tables[0]
    first, end = e.spans[0]

    def part(i: ir.Value) -> ir.Value:
        base = e.at(e.bases, b.add(core, e.at(lead[DimensionWords.CORE], i)))
        return b.add(base, b.add(source, e.at(lead[DimensionWords.SOURCE], i)))

    def joined(i: ir.Value) -> None:
        _box(e, lengths, part(i), target, lambda s, t: _join(e, s, t))

    _copied(e, lengths, part(first), target)
    e.loop(b.add(first, word(1)), end, joined)


def _box(
    e: _Function, lengths: Sequence[ir.Value], source: ir.Value, target: ir.Value, element: Element
) -> None:
    """Every element of a box of the last dimensions."""
    b = e.b
    dims = e.tables[len(e.tables) - len(lengths) :]

    def nest(d: int, s: ir.Value, t: ir.Value) -> None:
        if d == len(dims):
            element(s, t)
            return
        sp, tp = dims[d][DimensionWords.SOURCE_PITCH], dims[d][DimensionWords.TARGET_PITCH]
        e.loop(word(0), lengths[d], lambda i: nest(d + 1, b.add(s, b.mul(i, sp)), b.add(t, b.mul(i, tp))))

    nest(0, source, target)


def _element(e: _Function, s: ir.Value, t: ir.Value) -> None:
    size = e.dtype.bytes
    e.b.store(e.load(s, ir.IntType(8 * size)), e.target(t), align=size)


def _join(e: _Function, s: ir.Value, t: ir.Value) -> None:
    """Joins one element onto what the target holds."""
    arithmetic = LLVMArithmetic(e.module, e.b, 2)
    kind, size = type_of(e.dtype, 0), e.dtype.bytes
    new = arithmetic.make(e.dtype, e.load(s, kind), 0)
    pointer = e.target(t)
    total = arithmetic.make(e.dtype, e.b.load(pointer, typ=kind, align=size), 0)
    out = getattr(arithmetic, e.pull.combine)(total, new)
    assert isinstance(out, LLVMValue)
    e.b.store(out.ir, pointer, align=size)
