"""Operators about the order of the elements of a row: which is the greatest, and the k greatest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..affine import Access, axis, constant
from ..builder import RESULT, Carried, KernelBuilder, Value
from ..dtypes import BOOL, I32, I64
from ..graph import InvalidModel
from ..op import Array, Extents, Op, Work, assemble, gather, identity, product
from ..rules import GraphBuilder, Rule, Spec, register
from .conversion import cast
from .elementwise import Add, apply
from .index import emit_gather
from .logic import Equal
from .loops import Index, combine, each, neutral, view
from .rearrange import concat, normal_axis, reshape, slice_axis
from .reduce import Reduce, ReduceMax, ReduceMin, reduce_over

LONG_ROW = 1024  # elements; a longer row is cut into such parts, which several cores may have


# -- the place of an extreme ----------------------------------------------------------------
class FirstMatch(Reduce):
    """The least of the numbers of those elements that equal the best one; NaN equals NaN.

    Operands: x, the best element, and a number for each element, of type i32.
    """

    combine = "min"
    ufunc = np.minimum
    neutral_in = Reduce.neutral_in  # as good as the best it may be: its number is greater than that one's
    exact = True

    def reference(self, *operands: Array) -> Array:
        x, best, number = (view(self, i, a) for i, a in enumerate(operands))
        over = tuple(i for i, (a, _) in enumerate(self.axes) if a in self.reduced)
        none = np.asarray(neutral(self.kind, I32), np.int32)
        with np.errstate(invalid="ignore"):
            found = np.where((x == best) | (x != x), number, none)
        out = np.asarray(self.ufunc.reduce(found, axis=over, initial=none)).astype(self.out_type.numpy)
        return assemble(out, self.write, [(a, n) for a, n in self.axes if a not in self.reduced])

    def _start(self, k: KernelBuilder) -> Value:
        return k.splat(k.const(neutral(self.kind, I32), I32))

    def _join(self, k: KernelBuilder, total: Value, at: Index, other: float | int) -> Value:
        none = neutral(self.kind, I32)
        x, best = k.load_lanes(0, at), k.load_lanes(1, at)
        hit = k.bit_or(k.compare("eq", x, best), k.compare("ne", x, x))
        found = k.select(hit, k.load_lanes(2, at, other=none), k.const(none, I32))
        return combine(k, self.kind, total, found)

    def work(self, extents: Extents) -> tuple[Work, ...]:
        """Two comparisons, a choice and the reduction."""
        (one,) = super().work(extents)
        return (Work("fma", 4 * one.dispatches, 4 * one.elements),)


class LastMatch(FirstMatch):
    """The greatest of the numbers."""

    combine = "max"
    ufunc = np.maximum


def emit_match(
    g: GraphBuilder,
    kind: type[FirstMatch],
    axes: Sequence[tuple[str, int]],
    operands: Sequence[tuple[str, Access]],
    write: Access,
    shape: Sequence[int],
    hint: str,
    fill: float = 0.0,
) -> str:
    """The numbers of x's best elements. operands: x, best and number with their accesses."""
    op = kind(
        axes=tuple(axes),
        reads=tuple(access for _, access in operands),
        write=write,
        in_types=tuple(g.dtype(t) for t, _ in operands),
        out_type=I64,
        fill=fill,
    )
    return g.emit(op, [t for t, _ in operands], shape, hint)


def place_of(g: GraphBuilder, best: type[Reduce], x: str, dim: int, hint: str, last: bool = False) -> str:
    """The position along `dim` of the greatest or least element, the first or last of equals; keeps `dim`."""
    shape = g.shape(x)
    if shape[dim] == 0:
        raise InvalidModel(f"the extreme of no element of {g.tensors[x]}")
    whole = [(f"d{i}", n) for i, n in enumerate(shape)]
    read = identity([a for a, _ in whole])
    write = tuple(constant(0) if i == dim else e for i, e in enumerate(read))
    number = g.constant(g.folding.line(shape[dim]).astype(np.int32), hint)
    operands = [(x, read), (reduce_over(g, best, x, [dim], hint), write), (number, (axis(f"d{dim}"),))]
    axes = [a for i, a in enumerate(whole) if i != dim] + [whole[dim]]
    kept = [1 if i == dim else n for i, n in enumerate(shape)]
    return emit_match(g, LastMatch if last else FirstMatch, axes, operands, write, kept, hint)


def _arg(best: type[Reduce]) -> Rule:
    def build(g: GraphBuilder, spec: Spec) -> Sequence[str]:
        (x,), hint = spec.inputs, spec.outputs[0]
        shape = g.shape(x)
        dim = normal_axis(spec.attribute("axis", 0), len(shape))
        at = place_of(g, best, x, dim, hint, bool(spec.attribute("select_last_index", 0)))
        if spec.attribute("keepdims", 1):
            return [at]
        return [reshape(g, at, [n for d, n in enumerate(shape) if d != dim], hint)]

    return build


def _hardmax(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """1 at the first greatest element of each row. Before opset 13 rows run from `axis` to the end."""
    (x,), hint = spec.inputs, spec.outputs[0]
    shape = g.shape(x)
    dim = normal_axis(spec.attribute("axis", -1 if spec.opset >= 13 else 1), len(shape))
    rows = shape if spec.opset >= 13 else (product(shape[:dim]), product(shape[dim:]))
    dim = dim if spec.opset >= 13 else 1
    seen = reshape(g, x, rows, hint)
    line = g.folding.line(rows[dim]).reshape([-1] + [1] * (len(rows) - 1 - dim))
    hit = apply(g, Equal, [place_of(g, ReduceMax, seen, dim, hint), g.constant(line)], hint)
    return [reshape(g, cast(g, hit, g.dtype(x), hint), shape, hint)]


# -- the first k --------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class Ranking(Op):
    """The places of the greatest (or least) elements of a row, best first; of equals the lower place.

    Axis `k` runs over the places found and `v` along the row; both stay on one core. NaN is greater than
    any number, as where NumPy sorts.
    """

    largest: bool

    exact = True

    @property
    def whole(self) -> tuple[str, ...]:
        return ("k", "v")

    def key(self) -> tuple[object, ...]:
        return (self.name, self.largest)

    def lane_axis(self, extents: Mapping[str, int]) -> str:
        return ""

    def reference(self, *operands: Array) -> Array:
        source = [(a, n) for a, n in self.axes if a != "k"]
        row = np.broadcast_to(gather(operands[0], self.reads[0], source, self.fill), [n for _, n in source])
        # of the row turned round, the lower of equal places comes last in an order that rises
        turned = row[..., ::-1] if self.largest else row
        at = np.argsort(turned, axis=-1, kind="stable")
        at = row.shape[-1] - 1 - at[..., ::-1] if self.largest else at
        return assemble(at[..., : self.size["k"]], self.write, [(a, n) for a, n in self.axes if a != "v"])

    def body(self, k: KernelBuilder) -> None:
        """Elements sink into the places found so far, which are kept in the result."""
        outer = [a for a, _ in self.axes if a not in ("k", "v")]
        zero, none = k.const(0, I64), k.const(-1, I64)
        last = k.sub(k.extent("k"), k.const(1, I64))

        def beats(a: Value, b: Value) -> Value:
            more = k.compare("gt" if self.largest else "lt", a, b)
            high, low = (a, b) if self.largest else (b, a)
            return k.bit_or(more, k.bit_and(k.compare("ne", high, high), k.compare("eq", low, low)))

        def row(at: Index) -> None:
            def element(place: Value) -> Value:
                return k.load(0, {**at, "v": k.select(k.compare("lt", place, zero), zero, place)})

            def sink(rank: Value, carried: Carried) -> Carried:
                value, place = carried
                held = k.load(RESULT, {**at, "k": rank})
                other = element(held)
                before = k.bit_and(k.bit_not(beats(other, value)), k.compare("lt", place, held))
                better = k.bit_or(k.bit_or(k.compare("lt", held, zero), beats(value, other)), before)
                k.store(k.select(better, place, held), {**at, "k": rank})
                return [k.select(better, other, value), k.select(better, held, place)]

            def visit(at_row: Index) -> None:
                place = at_row["v"]
                value, worst = k.load(0, at_row), k.load(RESULT, {**at, "k": last})
                found = k.bit_or(k.compare("lt", worst, zero), beats(value, element(worst)))
                k.where(found, lambda: _run(k, sink, [value, place]))

            each(k, ["k"], at, lambda i: k.store(none, i))
            each(k, ["v"], at, visit)

        each(k, outer, {}, row)

    def work(self, extents: Extents) -> tuple[Work, ...]:
        """Each element is compared with the worst one found; in a random row k (1 + log(v/k)) then sink."""
        rows = product([extents[a] for a, _ in self.axes if a not in ("k", "v")])
        n, found = extents["v"], extents["k"]
        sinking = np.ceil(found * found * (1 + np.log(n / found))).astype(np.int64)
        steps = rows * (n + sinking)
        return (Work("fma", steps, steps),)


def _run(k: KernelBuilder, sink: Any, start: Carried) -> None:
    k.loop(k.extent("k"), sink, start)


def ranking(g: GraphBuilder, x: str, dim: int, count: int, largest: bool, hint: str) -> str:
    """The places of the first `count` of each row along `dim`.

    Of a long row first those of its parts, then those of what is left: equals stay in their order.
    """
    shape = list(g.shape(x))
    parts, rest = divmod(shape[dim], LONG_ROW)
    if shape[dim] <= LONG_ROW or 4 * count > LONG_ROW:
        return _emit_ranking(g, x, dim, count, largest, hint)
    main = slice_axis(g, x, dim, 0, parts * LONG_ROW, hint)
    main = reshape(g, main, [*shape[:dim], parts, LONG_ROW, *shape[dim + 1 :]], hint)
    at = _emit_ranking(g, main, dim + 1, count, largest, hint)
    first = LONG_ROW * g.folding.line(parts).reshape([-1] + [1] * (len(shape) - dim))
    at = apply(g, Add, [at, g.constant(first)], hint)
    at = reshape(g, at, [*shape[:dim], parts * count, *shape[dim + 1 :]], hint)
    if rest:
        tail = slice_axis(g, x, dim, parts * LONG_ROW, rest, hint)
        more = _emit_ranking(g, tail, dim, min(count, rest), largest, hint)
        more = apply(g, Add, [more, g.constant(np.array(parts * LONG_ROW))], hint)
        at = concat(g, [at, more], dim, hint)
    chosen = ranking(g, _elements(g, x, at, dim, hint), dim, count, largest, hint)
    return _elements(g, at, chosen, dim, hint)


def _emit_ranking(g: GraphBuilder, x: str, dim: int, count: int, largest: bool, hint: str) -> str:
    shape = g.shape(x)
    outer = [(f"d{i}", n) for i, n in enumerate(shape) if i != dim]
    names = [f"d{i}" for i in range(len(shape))]
    op = Ranking(
        axes=(*outer, ("k", count), ("v", shape[dim])),
        reads=(identity([*names[:dim], "v", *names[dim + 1 :]]),),
        write=identity([*names[:dim], "k", *names[dim + 1 :]]),
        in_types=(g.dtype(x),),
        out_type=I64,
        largest=largest,
    )
    return g.emit(op, [x], [*shape[:dim], count, *shape[dim + 1 :]], hint)


def _elements(g: GraphBuilder, x: str, at: str, dim: int, hint: str) -> str:
    """The elements of x at the places `at` along `dim`."""
    kept = [(f"d{i}", n) for i, n in enumerate(g.shape(at))]
    names = [a for a, _ in kept]
    dims = [*names[:dim], "v0", *names[dim + 1 :]]
    return emit_gather(g, (x, dims), [(at, identity(names))], kept, hint, ours=True)


def _top_k(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Sorted, which an order of no meaning (sorted=0) allows. k is an attribute before opset 10."""
    x = spec.inputs[0]
    dim = normal_axis(spec.attribute("axis", -1), len(g.shape(x)))
    count = spec.attribute("k") if spec.opset < 10 else g.known(spec.inputs[1], "TopK's k").reshape(-1)[0]
    count, size = int(count), g.shape(x)[dim]
    if not 0 <= count <= size:
        raise InvalidModel(f"TopK of {count} of {size} elements")
    at = ranking(g, x, dim, count, bool(spec.attribute("largest", 1)), spec.outputs[1])
    return [_elements(g, x, at, dim, spec.outputs[0]), at]


# -- what gives its own shape: of constants only ----------------------------------------------------
def _unique(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """Unsorted, in order of first occurrence."""
    x = g.fixed(spec.inputs[0], "Unique's result's shape")
    along = spec.attribute("axis")
    found = np.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=along)
    values, first, inverse, counts = (np.asarray(f) for f in found)
    if not spec.attribute("sorted", 1):
        order = np.argsort(first)
        rank = np.argsort(order)
        values = np.take(values, order, 0 if along is None else along)
        first, inverse, counts = first[order], rank[inverse], counts[order]
    results = (values, first.astype(np.int64), inverse.reshape(-1).astype(np.int64), counts.astype(np.int64))
    return [g.constant(r, name) if name else "" for r, name in zip(results, spec.outputs, strict=False)]


@dataclass(frozen=True, kw_only=True)
class Places(Op):
    """The places of all elements of a mask, [dimensions, elements], of which a run has those that hold.

    They are two at least, to tell rows from a dimension of one: no run has the second of one element.
    No core carries it out: it stands for its result until the front end knows what becomes of each place
    (`frontend.open_rows`).
    """

    sizes: tuple[int, ...]

    def reference(self, *operands: Array) -> Array:
        places = np.indices(self.sizes).reshape(len(self.sizes), -1)
        return places.repeat(2, 1) if places.shape[1] == 1 else places


def _non_zero(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    x, hint = spec.inputs[0], spec.outputs[0]
    if g.value(x) is None and g.opens_rows and g.shape(x):
        mask, sizes = cast(g, x, BOOL, hint), g.shape(x)
        places = max(2, product(sizes)) if 0 not in sizes else 0
        op = Places(
            axes=(("d", len(sizes)), ("r", places)),
            reads=(tuple(constant(0) for _ in sizes),),
            write=identity(["d", "r"]),
            in_types=(BOOL,),
            out_type=I64,
            sizes=sizes,
        )
        return [g.emit(op, [mask], [len(sizes), places], hint)]
    known = g.fixed(x, "NonZero's result's shape")
    return [g.constant(np.asarray(np.nonzero(np.atleast_1d(known)), np.int64), hint)]


def ranked(op: Op) -> tuple[int, int] | None:
    """Of an op whose elements are places, each at most once in a row: how many there are, and the rows'
    dimension. None: it is another one."""
    if not isinstance(op, Ranking):
        return None
    found = [d for d, e in enumerate(op.write) if e == axis("k")]
    return (op.size["v"], found[0]) if found else None


register("ArgMax", _arg(ReduceMax), 1)
register("ArgMin", _arg(ReduceMin), 1)
register("Hardmax", _hardmax, 1)
register("TopK", _top_k, 1, limits="k known")
register("Unique", _unique, 11, limits="input constant")
register("NonZero", _non_zero, 9, limits="input constant, or rows taken and added")
