"""Operators whose reads depend on data: which element is known only at run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..affine import Access, access_axes, constant
from ..builder import FRESH, Carried, KernelBuilder, Value
from ..dtypes import BOOL, F32, I64, U8
from ..graph import InvalidModel
from ..op import Array, Bound, Extents, Op, Work, assemble, gather, identity, product
from ..packing import Column, Kind, Words
from ..rules import PREPARED, GraphBuilder, Spec, register
from .bounds import index_bounds, judge_indices, report_outside, within
from .conversion import Where, cast
from .elementwise import Sub, apply
from .logic import Equal, Less
from .loops import Index, at_lane, each, untouched
from .packed import HALF_WORD, UNPACKING, Made, judge_packed, numbers_in, split, word_axis
from .rearrange import Axes, Cut, integers, join, normal_axis, pick, reshape, slice_box

SPELLED_OUT = 8  # a Gather with at most so many constant indices is that many slices


@dataclass(frozen=True, kw_only=True)
class Gather(Op):
    """out[...] = data[...] with some of its positions given by further operands, the coordinates.

    Coordinate number j stands for the axis `v{j}`, which only the data have. These axes are reduced:
    whoever holds the element answers with it, all others with zeros, and the sum of the partial results
    is the answer: for floats with -0.0, which leaves every bit of what it is added to. An element outside
    the data yields these zeros. 16-bit data may give an f32 result.

    sizes: of the data along `v0`, `v1`, ... . wraps: a negative coordinate counts from the end. of: which of
    the axes of the model's tensor these are, where a coordinate outside is an error; else ().
    """

    sizes: tuple[int, ...]
    wraps: bool = True
    of: tuple[int, ...] = ()

    combine = "add"
    exact = True
    fills = False

    def takes_narrow(self, operand: int) -> bool:
        return operand == 0

    def packs_along(self, operand: int, dim: int) -> str:
        a = word_axis(self, operand, dim) if operand == 0 and self.out_type == F32 else ""
        return "" if a in (*self.reduced, *self._chosen_by) else a

    def in_words(self, operand: int, how: Words, names: Sequence[str], inputs: Sequence[str]) -> Made:
        s = split(self, operand, how)
        made = PackedGather(
            axes=s.axes,
            reads=(*s.weights, *s.reads[1:]),
            write=s.write,
            in_types=(*how.types, *self.in_types[1:]),
            out_type=self.out_type,
            fill=self.fill,
            sizes=self.sizes,
            wraps=self.wraps,
            of=self.of,
            kind=how.kind,
            digit=s.digit,
        )
        return made, (*names, *inputs[1:])

    def steps_evenly(self, first: Sequence[Array], last: Sequence[Array], steps: int) -> bool:
        at = self.first
        return all(np.array_equal(a, b) for a, b in zip(first[at:], last[at:], strict=True))

    @property
    def first(self) -> int:
        """The number of the first coordinate among the operands."""
        return len(self.reads) - len(self.sizes)

    @property
    def looked_up(self) -> str:
        return "v0" if len(self.reads) == 2 and self.of else ""

    @property
    def order_free(self) -> bool:
        return True  # one term is the element chosen, all others leave it as it is

    def key(self) -> tuple[object, ...]:
        return (self.name, self.sizes, self.wraps, bool(self.of), self._chosen_by)

    @property
    def bounds(self) -> tuple[Bound, ...]:
        return index_bounds(self.first, self.of, self.sizes, self.wraps)

    @property
    def _chosen_by(self) -> tuple[str, ...]:
        """The axes of the result on which a coordinate depends."""
        seen = {a for read in self.reads[self.first :] for a in access_axes(read)}
        return tuple(a for a in access_axes(self.write) if a in seen)

    @property
    def _along(self) -> tuple[str, ...]:
        """The other axes of the result: a run of elements that one choice is for."""
        return tuple(a for a in access_axes(self.write) if a not in self._chosen_by)

    def lane_axis(self, extents: Mapping[str, int]) -> str:
        """An axis of the run: along any other each lane would read elsewhere."""
        wide = [a for a in self._along if extents[a] > 1]
        return wide[-1] if wide else self._along[-1] if self._along else ""

    def reference(self, *operands: Array) -> Array:
        axes = tuple((a, 1 if a in self.reduced else n) for a, n in self.axes)
        chosen: dict[str, Array] = {}
        held: Array = np.ones((), np.bool_)
        for j, (at, size) in enumerate(zip(operands[self.first :], self.sizes, strict=True)):
            place = gather(at, self.reads[self.first + j], axes, 0).astype(np.int64)
            if self.wraps:
                place = np.where(place < 0, place + size, place)
            inside = (place >= 0) & (place < size)
            chosen[f"v{j}"], held = np.where(inside, place, 0), held & inside
        values = self.taken(operands, axes, chosen)
        values = np.where(held, values, np.zeros((), values.dtype))
        kept = tuple(x for x in axes if x[0] not in self.reduced)
        gone = tuple(d for d, (a, _) in enumerate(axes) if a in self.reduced)
        values = np.broadcast_to(values, [n for _, n in axes]).squeeze(gone)
        return assemble(values, self.write, kept)

    def taken(self, operands: Sequence[Array], axes: Axes, chosen: Mapping[str, Array]) -> Array:
        """The elements at the places chosen, one dimension for each axis."""
        data = operands[0] if self.in_types[0] == self.out_type else operands[0].astype(self.out_type.numpy)
        return gather(data, self.reads[0], axes, self.fill, chosen)

    def body(self, k: KernelBuilder) -> None:
        zero = k.const(untouched("add", self.out_type), self.out_type)
        rest = [a for a in self._along if a != k.lane_axis]

        def choose(index: Index) -> None:
            source, held = coordinates(k, index, self.first, self._places, self.wraps, self.bounds)

            def lanes(i: Value, carried: Carried, at: Index) -> Carried:
                here = at_lane(k, at, i)
                value = k.cast(k.load_lanes(0, {**here, **source}), self.out_type)
                k.store_lanes(k.select(held, value, zero), here)
                return carried

            def run(at: Index) -> None:
                k.lane_loop(lambda i, c: lanes(i, c, at))

            # A later step of the same core has nothing to add where another step held the element.
            k.where(k.bit_or(k.in_mode(FRESH), held), lambda: each(k, rest, index, run))

        each(k, self._chosen_by, {}, choose)

    @property
    def _places(self) -> list[tuple[str, int]]:
        return [(f"v{j}", n) for j, n in enumerate(self.sizes)]

    def work(self, extents: Extents) -> tuple[Work, ...]:
        choices = product([extents[a] for a in self._chosen_by])
        return (Work("copy", choices, choices * product([extents[a] for a in self._along])),)


@dataclass(frozen=True, kw_only=True)
class PackedGather(Gather):
    """As `Gather`, of weights in words, see `packed`: of the words, scales, maybe zero points, and
    coordinates.

    digit: the axis of the result along which a word has several numbers.
    """

    kind: Kind
    digit: str

    def steps_evenly(self, first: Sequence[Array], last: Sequence[Array], steps: int) -> bool:
        return False

    @property
    def whole(self) -> tuple[str, ...]:
        return (self.digit,)

    def names_axis(self, axis: str) -> bool:
        return True

    def key(self) -> tuple[object, ...]:
        return (*super().key(), self.kind, self.digit, tuple(a for a, _ in self.axes))

    def check(self) -> None:
        super().check()
        judge_packed(self, 0, self.kind)

    def lane_axis(self, extents: Mapping[str, int]) -> str:
        return super().lane_axis({**extents, self.digit: 1})

    def taken(self, operands: Sequence[Array], axes: Axes, chosen: Mapping[str, Array]) -> Array:
        words, *rest = operands[: self.first]
        at = [a for a, _ in axes].index(self.digit)
        inner = (*axes[:at], *axes[at + 1 :])  # no choice depends on the digit
        places = {a: place.squeeze(at) for a, place in chosen.items()}
        return np.moveaxis(numbers_in(self, 0, words, rest, self.kind, (inner, places)), -1, at)

    def body(self, k: KernelBuilder) -> None:
        """Word by word: rows are short beside what the products read."""
        zero = k.const(untouched("add", self.out_type), self.out_type)
        outer = [a for a in self._along if a != self.digit]

        def choose(index: Index) -> None:
            source, held = coordinates(k, index, self.first, self._places, self.wraps, self.bounds)

            def word(at: Index) -> None:
                here = {**at, **source}
                zeros = k.load(2, here) if self.first > 2 else None
                column = Column.of(k, self.kind, k.load(1, here), zeros)
                for j, value in enumerate(column.weights(k.load(0, here))):
                    number = k.const(j, I64)
                    k.store(k.select(held, value, zero), {**at, self.digit: number})

            k.where(k.bit_or(k.in_mode(FRESH), held), lambda: each(k, outer, index, word))

        each(k, self._chosen_by, {}, choose)

    def work(self, extents: Extents) -> tuple[Work, ...]:
        (copied,) = super().work(extents)
        places = HALF_WORD // self.kind.bits
        return (copied, Work("unpack", UNPACKING * copied.dispatches * places, copied.elements))


def coordinates(
    k: KernelBuilder,
    index: Index,
    first: int,
    places: Sequence[tuple[str, int]],
    wraps: bool,
    bounds: Sequence[Bound],
) -> tuple[Index, Value]:
    """Where the coordinates in the operands from `first` on point in this tile, and whether it is inside.

    places: the axis that each stands for, and the size of the whole tensor along it. A position outside
    the tile is given as 0, which may be read. bounds: what the coordinates are held to, one each, or ().
    """
    source: dict[str, Value] = {}
    given: list[Value] = []
    held: Value | None = None
    zero = k.const(0, I64)
    for j, (name, size) in enumerate(places):
        at = k.cast(k.load(first + j, index), I64)
        given.append(at)
        if wraps:
            at = k.select(k.compare("lt", at, zero), k.add(at, k.const(size, I64)), at)
        at = k.sub(at, k.origin(name))
        inside = k.bit_and(k.compare("ge", at, zero), k.compare("lt", at, k.extent(name)))
        source[name] = k.select(inside, at, zero)
        held = inside if held is None else k.bit_and(held, inside)
    if held is None:
        return source, k.const(True, BOOL)
    if bounds:  # what this tile holds is inside: only the others are looked at
        k.where(k.bit_not(held), lambda: report_outside(k, bounds, given))
    return source, held


def emit_gather(
    g: GraphBuilder,
    of: tuple[str, Sequence[str]],
    at: Sequence[tuple[str, Access]],
    kept: Sequence[tuple[str, int]],
    hint: str,
    ours: bool = False,
) -> str:
    """A result with the axes `kept`: a tensor at the coordinates `at`, each a tensor and its access.

    of: the tensor, and for each of its dimensions the result's axis that runs along it, or `v0`, `v1`, ...
    for one that coordinate 0, 1, ... gives. ours: the coordinates are made by a rule: they count from the
    start, and what they point at outside is 0. The model's own may count from the end, and one outside is an
    error.
    """
    data, dims = of
    if g.dtype(data) == BOOL:  # partial results are summed, which booleans cannot be
        return cast(g, emit_gather(g, (cast(g, data, U8), dims), at, kept, hint, ours), BOOL, hint)
    shape = [n for _, n in kept]
    places = [list(dims).index(f"v{j}") for j in range(len(at))]
    sizes = tuple(g.shape(data)[d] for d in places)
    if 0 in shape or 0 in g.shape(data):
        for bound in index_bounds(0, () if ours else places, sizes, True):
            judge_indices(g, at[bound.operand], kept, bound)
        return g.constant(np.zeros(shape, g.dtype(data).numpy), hint)
    found = [(f"v{j}", n) for j, n in enumerate(sizes)]
    op = Gather(
        axes=(*kept, *found),
        reads=(identity(dims), *(access for _, access in at)),
        write=identity([a for a, _ in kept]),
        in_types=(g.dtype(data), *(g.dtype(t) for t, _ in at)),
        out_type=g.dtype(data),
        sizes=sizes,
        wraps=not ours,
        of=() if ours else tuple(places),
    )
    return g.emit(op, [data, *(t for t, _ in at)], shape, hint)


def gather_along(g: GraphBuilder, data: str, indices: str, dim: int, hint: str) -> str:
    """data taken along `dim` at run-time `indices`, whose dimensions take its place."""
    shape, at = g.shape(data), g.shape(indices)
    chosen = [(f"i{j}", n) for j, n in enumerate(at)]
    whole = [(f"d{j}", n) for j, n in enumerate(shape)]
    dims = ["v0" if j == dim else a for j, (a, _) in enumerate(whole)]
    kept = [*whole[:dim], *chosen, *whole[dim + 1 :]]
    return emit_gather(g, (data, dims), [(indices, identity([a for a, _ in chosen]))], kept, hint)


def take(g: GraphBuilder, data: str, known: Array, dim: int, hint: str) -> str:
    """data taken along `dim` at constant indices: slices where that is not more work."""
    shape = g.shape(data)
    at = [i + shape[dim] if i < 0 else i for i in integers(known)]
    if g.value(data) is not None or not at or not all(0 <= i < shape[dim] for i in at):
        return gather_along(g, data, g.constant(known), dim, hint)
    if known.ndim == 0:
        return pick(g, data, dim, at[0], hint)
    step = at[1] - at[0] if len(at) > 1 else 1
    whole = [Cut(0, 1, n) for n in shape]

    def cut(start: int, step: int, count: int) -> list[Cut]:
        return [*whole[:dim], Cut(start, step, count), *whole[dim + 1 :]]

    if at == [at[0] + i * step for i in range(len(at))]:
        taken = slice_box(g, data, cut(at[0], step, len(at)), hint)
    elif len(at) <= SPELLED_OUT:
        taken = join(g, [(data, cut(i, 1, 1)) for i in at], dim, hint)
    else:
        return gather_along(g, data, g.constant(known), dim, hint)
    return reshape(g, taken, [*shape[:dim], *known.shape, *shape[dim + 1 :]], hint)


def _gather(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    data, indices = spec.inputs
    dim = normal_axis(spec.attribute("axis", 0), len(g.shape(data)))
    known = g.value(indices)
    if known is None:
        return [gather_along(g, data, indices, dim, spec.outputs[0])]
    return [take(g, data, known, dim, spec.outputs[0])]


def _gather_elements(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    data, indices = spec.inputs
    shape, at = g.shape(data), g.shape(indices)
    dim = normal_axis(spec.attribute("axis", 0), len(shape))
    if len(shape) != len(at) or any(
        n > m for d, (n, m) in enumerate(zip(at, shape, strict=True)) if d != dim
    ):
        raise InvalidModel(f"GatherElements of {g.tensors[data]} at {g.tensors[indices]}")
    kept = [(f"d{j}", n) for j, n in enumerate(at)]
    dims = ["v0" if j == dim else a for j, (a, _) in enumerate(kept)]
    return [emit_gather(g, (data, dims), [(indices, identity([a for a, _ in kept]))], kept, spec.outputs[0])]


def _gather_nd(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """The last dimension of the indices holds one coordinate for each dimension after the batch."""
    data, indices = spec.inputs
    (*outer, depth), shape = g.shape(indices), g.shape(data)
    batch = int(spec.attribute("batch_dims", 0))
    if batch + depth > len(shape) or batch > len(outer) or tuple(outer[:batch]) != shape[:batch]:
        raise InvalidModel(f"GatherND of {g.tensors[data]} at {g.tensors[indices]} with {batch} batch dims")
    chosen = [(f"i{j}", n) for j, n in enumerate(outer)]
    rest = [(f"d{j}", n) for j, n in enumerate(shape) if j >= batch + depth]
    dims = [*(a for a, _ in chosen[:batch]), *(f"v{j}" for j in range(depth)), *(a for a, _ in rest)]
    outer_access = identity([a for a, _ in chosen])
    at = [(indices, (*outer_access, constant(j))) for j in range(depth)]
    return [emit_gather(g, (data, dims), at, [*chosen, *rest], spec.outputs[0])]


def _reverse_sequence(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """The first `length` steps backwards, the others as they are: taken at a step for each of a batch."""
    data, hint = spec.inputs[0], spec.outputs[0]
    lengths, shape = cast(g, spec.inputs[1], I64), g.shape(data)
    batch, time = (int(spec.attribute(*a)) for a in (("batch_axis", 1), ("time_axis", 0)))
    if sorted((batch, time)) != [0, 1] or g.shape(lengths) != (shape[batch],):
        raise InvalidModel(f"ReverseSequence of {g.tensors[data]} by {g.tensors[lengths]}")
    lengths = within(g, lengths, Bound(0, 0, shape[time] + 1, "sequence length", time, shape[time]), hint)
    step = g.constant(g.folding.line(shape[time]), hint)
    length = reshape(g, lengths, [shape[batch], 1], hint)
    last = apply(g, Sub, [length, g.constant(np.ones((), np.int64))], hint)
    back = apply(g, Sub, [last, step], hint)
    at = apply(g, Where, [apply(g, Less, [step, length], hint), back, step], hint)
    kept = [(f"d{j}", n) for j, n in enumerate(shape)]
    dims = ["v0" if j == time else a for j, (a, _) in enumerate(kept)]
    return [emit_gather(g, (data, dims), [(at, identity([f"d{batch}", f"d{time}"]))], kept, hint)]


def _compress(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    data, hint = spec.inputs[0], spec.outputs[0]
    chosen = np.flatnonzero(g.fixed(spec.inputs[1], "Compress's condition"))
    if spec.attribute("axis") is None:
        return [take(g, reshape(g, data, [product(g.shape(data))], hint), chosen, 0, hint)]
    return [take(g, data, chosen, normal_axis(spec.attribute("axis"), len(g.shape(data))), hint)]


def _one_hot(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """1 where the index equals the position; a negative index counts from the end."""
    indices, hint = spec.inputs[0], spec.outputs[0]
    depth = int(g.known(spec.inputs[1], "OneHot's depth").reshape(-1)[0])
    if depth < 0:
        raise InvalidModel(f"OneHot of depth {depth}")
    old = g.shape(indices)
    dim = normal_axis(spec.attribute("axis", -1), len(old) + 1)
    at = reshape(g, cast(g, indices, I64), [*old[:dim], 1, *old[dim:]], hint)
    line = g.folding.line(depth).reshape([-1] + [1] * (len(old) - dim))
    from_start = apply(g, Equal, [at, g.constant(line)], hint)
    from_end = apply(g, Equal, [at, g.constant(line - depth)], hint)
    values = spec.inputs[2]
    off, on = (pick(g, values, 0, i, hint) for i in (0, 1))
    hit = apply(g, Where, [from_end, on, off], hint)
    return [apply(g, Where, [from_start, on, hit], hint)]


def _labels_judged(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """The inputs of a loss, its labels held to the classes: its body would count them from the end, too."""
    (scores, labels, *rest), hint = spec.inputs, spec.outputs[0]
    classes = g.shape(scores)[1]
    bound = Bound(0, 0, classes, "label", 1, classes)
    ignored = spec.attribute("ignore_index")
    if ignored is None:
        return [scores, within(g, labels, bound, hint), *rest]
    kind = g.dtype(labels).numpy
    other, first = (g.constant(np.array(v, kind)) for v in (ignored, 0))
    left_out = apply(g, Equal, [labels, other], hint)
    judged = within(g, apply(g, Where, [left_out, first, labels], hint), bound, hint)
    return [scores, apply(g, Where, [left_out, other, judged], hint), *rest]


PREPARED["NegativeLogLikelihoodLoss"] = _labels_judged
register("Gather", _gather, 1)
register("OneHot", _one_hot, 9, limits="depth known")
register("GatherElements", _gather_elements, 11)
register("GatherND", _gather_nd, 11)
register("ReverseSequence", _reverse_sequence, 10)
register("Compress", _compress, 9, limits="condition constant")
