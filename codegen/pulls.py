"""Pull functions, as LLVM IR: one operand of one core, fetched from the cores that hold it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from ..ir.dtypes import by_name
from .arithmetic import I64_TYPE, POINTER, LLVMArithmetic, LLVMValue, type_of
from .emit import Emitter, declared, word
from .guard import WRITE_OUTSIDE
from .records import READ_FOREIGN, DimensionWords, MoveWords, Pull
from .watch import access, not_poison

WIDTHS = (8, 4)  # elements of partial results joined at once, largest first
LONG = 256  # bytes of a row that is worth a call

Dimension = dict[DimensionWords, ir.Value]
Element = Callable[[ir.Value, ir.Value], None]  # (source address or offset, target address)
Row = Callable[[ir.Value, ir.Value, ir.Value], ir.Value]  # the same and a length -> elements done


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
        if pull.guard:
            self.operand = self.at(self.move, MoveWords.OPERAND)
            self.source_tag = self.at(self.move, MoveWords.SOURCE_TAG)
            self.target_tag = self.at(self.move, MoveWords.TARGET_TAG)

    def load(self, address: ir.Value, kind: ir.Type) -> ir.Value:
        """What lies at `address`; guard checks a single element."""
        size = self.dtype.bytes
        if not self.pull.guard:
            return self.b.load(self.b.inttoptr(address, POINTER), typ=kind, align=size)
        at = access(self, self.watch, READ_FOREIGN, self.operand, address, size, self.source_tag)
        pointer = self.b.inttoptr(at, POINTER)
        raw = self.b.load(pointer, typ=ir.IntType(8 * size), align=size)
        not_poison(self, self.watch, self.operand, raw, self.dtype, address, self.source_tag)
        return self.b.load(pointer, typ=kind, align=size)

    def store(self, value: ir.Value, address: ir.Value) -> None:
        size = self.dtype.bytes
        if self.pull.guard:
            address = access(self, self.watch, WRITE_OUTSIDE, self.operand, address, size, self.target_tag)
        self.b.store(value, self.b.inttoptr(address, POINTER), align=size)


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
    _box(e, lengths, source, target, lambda s, t: _element(e, s, t), None if e.pull.guard else _row(e))


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
        row = None if e.pull.guard else _joined_row(e)
        _box(e, lengths, part(i), target, lambda s, t: _join(e, s, t, 0), row)

    _copied(e, lengths, part(first), target)
    e.loop(b.add(first, word(1)), end, joined)


def _box(
    e: _Function,
    lengths: Sequence[ir.Value],
    source: ir.Value,
    target: ir.Value,
    element: Element,
    row: Row | None,
) -> None:
    """Every element of a box of the last dimensions; `row` does what it can of a dense innermost one."""
    b = e.b
    dims = e.tables[len(e.tables) - len(lengths) :]

    def each(d: int, s: ir.Value, t: ir.Value, begin: ir.Value) -> None:
        sp, tp = dims[d][DimensionWords.SOURCE_PITCH], dims[d][DimensionWords.TARGET_PITCH]
        e.loop(begin, lengths[d], lambda i: nest(d + 1, b.add(s, b.mul(i, sp)), b.add(t, b.mul(i, tp))))

    def nest(d: int, s: ir.Value, t: ir.Value) -> None:
        if d == len(dims):
            element(s, t)
        elif d == len(dims) - 1 and row is not None:
            size = word(e.dtype.bytes)
            dense = b.and_(
                b.icmp_signed("==", dims[d][DimensionWords.SOURCE_PITCH], size),
                b.icmp_signed("==", dims[d][DimensionWords.TARGET_PITCH], size),
            )
            by_row = row
            e.when(dense, lambda: each(d, s, t, by_row(s, t, lengths[d])), lambda: each(d, s, t, word(0)))
        else:
            each(d, s, t, word(0))

    nest(0, source, target)


def _element(e: _Function, s: ir.Value, t: ir.Value) -> None:
    e.store(e.load(s, ir.IntType(8 * e.dtype.bytes)), t)


def _row(e: _Function) -> Row:
    """Copies dense rows: long ones by a call, others by overlapping words of their own size's class."""

    def part(s: ir.Value, t: ir.Value, at: ir.Value, size: int) -> None:
        kind = ir.IntType(8 * size)
        value = e.b.load(e.b.inttoptr(e.b.add(s, at), POINTER), typ=kind, align=1)
        e.b.store(value, e.b.inttoptr(e.b.add(t, at), POINTER), align=1)

    def pieces(s: ir.Value, t: ir.Value, count: ir.Value, sizes: Sequence[int]) -> None:
        """Rows of at least sizes[0] bytes by that; shorter ones by the next size."""
        size, rest = sizes[0], sizes[1:]
        last = e.b.sub(count, word(size))

        def enough() -> None:
            e.loop(word(0), last, lambda k: part(s, t, k, size), size)
            part(s, t, last, size)

        fits = e.b.icmp_signed(">=", count, word(size))
        e.when(fits, enough, (lambda: pieces(s, t, count, rest)) if rest else None)

    def row(s: ir.Value, t: ir.Value, length: ir.Value) -> ir.Value:
        count = e.b.mul(length, word(e.dtype.bytes))
        sizes = [n for n in (16, 8, 4, 2, 1) if n >= e.dtype.bytes]
        long = e.b.icmp_signed(">", count, word(LONG))
        e.when(long, lambda: _copy(e, s, t, count), lambda: pieces(s, t, count, sizes))
        return length

    return row


def _copy(e: Emitter, source: ir.Value, target: ir.Value, count: ir.Value) -> None:
    flag = ir.IntType(1)
    kind = ir.FunctionType(ir.VoidType(), [POINTER, POINTER, I64_TYPE, flag])
    function = declared(e.module, "llvm.memcpy.p0.p0.i64", kind)
    pointers = [e.b.inttoptr(a, POINTER) for a in (target, source)]
    e.b.call(function, [*pointers, count, ir.Constant(flag, 0)])


def _join(e: _Function, s: ir.Value, t: ir.Value, lanes: int) -> None:
    """Joins one element, or a vector of them, onto what the target holds."""
    arithmetic = LLVMArithmetic(e.module, e.b, lanes or WIDTHS[0])
    kind, size = type_of(e.dtype, lanes), e.dtype.bytes
    new = arithmetic.make(e.dtype, e.load(s, kind), lanes)
    if e.pull.guard:
        t = access(e, e.watch, WRITE_OUTSIDE, e.operand, t, size, e.target_tag)
    pointer = e.b.inttoptr(t, POINTER)
    total = arithmetic.make(e.dtype, e.b.load(pointer, typ=kind, align=size), lanes)
    out = getattr(arithmetic, e.pull.combine)(total, new)
    assert isinstance(out, LLVMValue)
    e.b.store(out.ir, pointer, align=size)


def _joined_row(e: _Function) -> Row:
    """Joins dense rows by vectors, as far as they go."""

    def row(s: ir.Value, t: ir.Value, length: ir.Value) -> ir.Value:
        done: ir.Value = word(0)
        for lanes in WIDTHS:
            end = e.b.and_(length, word(-lanes))

            def one(i: ir.Value, lanes: int = lanes) -> None:
                at = e.b.mul(i, word(e.dtype.bytes))
                _join(e, e.b.add(s, at), e.b.add(t, at), lanes)

            e.loop(done, end, one, lanes)
            done = end
        return done

    return row
