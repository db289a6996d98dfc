"""The bits of a block are those of the tiles that it stands for, however it is cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import jit
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waferc.ir.affine import Affine, axis, constant
from waferc.ir.builder import FRESH, JOIN, RESUME
from waferc.ir.dtypes import BF16, F16, F32, I32, I64, DType, stored_as
from waferc.ir.op import Array, Op, identity
from waferc.ir.ops.contract import Contract
from waferc.ir.ops.index import Gather
from waferc.ir.ops.normalize import LayerNorm, Softmax
from waferc.ir.ops.reduce import ReduceMax, ReduceProd, ReduceSum

SIZES = st.integers(1, 60)
LANES = st.sampled_from([4, 8, 16])
GUARD = st.booleans()  # guarded kernels have the same bodies in smaller register tiles
CUTS = st.lists(st.integers(1, 59), max_size=3)
Span = tuple[int, int]


def pieces(size: int, cuts: Sequence[int]) -> list[Span]:
    """0 .. size, cut at those of `cuts` that lie inside."""
    at = [0, *sorted({c for c in cuts if c < size}), size]
    return list(pairwise(at))


def numbers(dtype: DType, *shape: int) -> Array:
    """Numbers whose sums round differently in different orders, and a few zeros of either sign."""
    random = np.random.default_rng(sum(shape))
    if not dtype.is_float:
        return random.integers(-1000, 1000, shape).astype(dtype.numpy)
    x = random.standard_normal(shape) * np.exp2(random.integers(-6, 6, shape))
    x.flat[::7], x.flat[3::7] = 0.0, -0.0
    return x.astype(dtype.numpy)


def same(a: Array, b: Array) -> None:
    """Equal bits."""
    np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))


def gemm(m: int, n: int, k: int, a: DType = F32, b: DType = F32, out: DType = F32) -> Op:
    return Contract(
        axes=(("m", m), ("n", n), ("k", k)),
        reads=((axis("m"), axis("k")), (axis("k"), axis("n"))),
        write=identity(["m", "n"]),
        in_types=(a, b),
        out_type=out,
    )


@pytest.mark.thorough
@settings(max_examples=60, deadline=None)
@given(
    m=SIZES, n=SIZES, k=SIZES, ms=CUTS, ns=CUTS, ks=CUTS, lanes=LANES, lane=st.sampled_from("mn"), guard=GUARD
)
def test_sums_in_order_resume(
    m: int, n: int, k: int, ms: list[int], ns: list[int], ks: list[int], lanes: int, lane: str, guard: bool
) -> None:
    """Register tiles of any shape, lanes along either axis, the sum interrupted anywhere."""
    a, b = numbers(F32, m, k), numbers(F32, k, n)
    block = jit.run(gemm(m, n, k), [a, b], lanes=lanes, lane_axis="n")
    tiles = np.full((m, n), np.nan, np.float32)
    for i, j in pieces(m, ms):
        for p, q in pieces(n, ns):
            for u, v in pieces(k, ks):
                jit.run(
                    gemm(j - i, q - p, v - u),
                    [a[i:j, u:v], b[u:v, p:q]],
                    lanes=lanes,
                    lane_axis=lane,
                    out=tiles[i:j, p:q],
                    mode=RESUME if u else FRESH,
                    guard=guard,
                )
    same(block, tiles)


@pytest.mark.thorough
@settings(max_examples=60, deadline=None)
@given(
    m=SIZES,
    n=SIZES,
    k=SIZES,
    chunk=st.integers(0, 20),
    ks=CUTS,
    lanes=LANES,
    lane=st.sampled_from("mn"),
    guard=GUARD,
    turned=st.booleans(),
)
def test_pairs_of_bf16_are_chains_of_single_products(
    m: int,
    n: int,
    k: int,
    chunk: int,
    ks: list[int],
    lanes: int,
    lane: str,
    guard: bool,
    turned: bool,
) -> None:
    """By the host's instruction and without it, from odd places on, to the bits of f32 products."""
    a, b = (stored_as(numbers(F32, *shape), BF16) for shape in ((m, k), (k, n)))
    a = np.asfortranarray(a) if turned else a
    wide = [x.astype(np.float32) for x in (a, b)]
    part = "k" if chunk else ""
    right = jit.run(gemm(m, n, k), wide, lanes=lanes, lane_axis="n", part=part, chunk=chunk)
    native = [False, jit.has_pairs() and lanes == jit.processor().lanes]
    for dot2 in dict.fromkeys(native):
        op = gemm(m, n, k, BF16, BF16)
        same(jit.run(op, [a, b], None, lanes, "n", part=part, chunk=chunk, dot2=dot2), right)
        tiles = np.full((m, n), np.nan, np.float32)
        for u, v in pieces(k, ks if not chunk else range(chunk, k, chunk)):
            op = gemm(m, n, v - u, BF16, BF16)
            mode = FRESH if not u else JOIN if chunk else RESUME
            jit.run(op, [a[:, u:v], b[u:v]], None, lanes, lane, tiles, mode, guard=guard, dot2=dot2)
        same(tiles, right)


@pytest.mark.thorough
@settings(max_examples=40, deadline=None)
@given(m=SIZES, n=SIZES, k=SIZES, chunk=st.integers(1, 20), lanes=LANES, out=st.sampled_from([F32, F16, I32]))
def test_chunks_are_partial_results_joined(
    m: int, n: int, k: int, chunk: int, lanes: int, out: DType
) -> None:
    a, b = numbers(out, m, k), numbers(out, k, n)
    block = jit.run(gemm(m, n, k, out, out, out), [a, b], lanes=lanes, lane_axis="n", part="k", chunk=chunk)
    resumed = np.full((m, n), 1, out.numpy)
    jit.run(gemm(m, n, k, out, out, out), [a, b], None, lanes, "n", resumed, mode=JOIN, part="k", chunk=chunk)
    joined = [np.zeros((m, n), out.numpy), np.ones((m, n), out.numpy)]
    for u in range(0, k, chunk):
        v = min(k, u + chunk)
        op = gemm(m, n, v - u, out, out, out)
        operands = [a[:, u:v], b[u:v]]
        part = jit.run(op, operands, lanes=lanes, lane_axis="n")
        with np.errstate(all="ignore"):
            joined[0] = part if not u else joined[0] + part
        jit.run(op, operands, lanes=lanes, lane_axis="n", out=joined[1], mode=JOIN)
    same(block, joined[0])
    same(resumed, joined[1])


def convolution(places: int, filters: int, channels: int, depthwise: bool = False) -> Op:
    """A row of places, 3 taps, stride 2, without padding; channels last."""
    kept = [("f", filters), ("x", places)]
    read = (Affine((("x", 2), ("r", 1))), axis("f" if depthwise else "c"))
    return Contract(
        axes=(*kept, ("r", 3), *([] if depthwise else [("c", channels)])),
        reads=(read, (axis("r"), *([] if depthwise else [axis("c")]), axis("f"))),
        write=(axis("x"), axis("f")),
        in_types=(F32, F32),
        out_type=F32,
    )


@pytest.mark.thorough
@settings(max_examples=40, deadline=None)
@given(x=SIZES, f=SIZES, c=st.integers(1, 9), xs=CUTS, fs=CUTS, depthwise=st.booleans(), lanes=LANES)
def test_convolutions_in_tiles(
    x: int, f: int, c: int, xs: list[int], fs: list[int], depthwise: bool, lanes: int
) -> None:
    image = numbers(F32, 2 * x + 1, f if depthwise else c)
    weights = numbers(F32, 3, f) if depthwise else numbers(F32, 3, c, f)
    block = jit.run(convolution(x, f, c, depthwise), [image, weights], lanes=lanes, lane_axis="f")
    tiles = np.full((x, f), np.nan, np.float32)
    for i, j in pieces(x, xs):
        for p, q in pieces(f, fs):
            here = image[2 * i : 2 * j + 1, p:q] if depthwise else image[2 * i : 2 * j + 1]
            op = convolution(j - i, q - p, c, depthwise)
            jit.run(op, [here, weights[..., p:q]], lanes=lanes, lane_axis="f", out=tiles[i:j, p:q])
    same(block, tiles)


@pytest.mark.thorough
@settings(max_examples=40, deadline=None)
@given(m=SIZES, n=SIZES, k=st.integers(1, 200), ms=CUTS, ns=CUTS, lanes=LANES, guard=GUARD)
def test_dot_products_in_tiles(
    m: int, n: int, k: int, ms: list[int], ns: list[int], lanes: int, guard: bool
) -> None:
    a, b = numbers(F32, m, k), numbers(F32, k, n)
    block = jit.run(gemm(m, n, k), [a, b], lanes=lanes, lane_axis="k")
    tiles = np.full((m, n), np.nan, np.float32)
    for i, j in pieces(m, ms):
        for p, q in pieces(n, ns):
            op = gemm(j - i, q - p, k)
            jit.run(op, [a[i:j], b[:, p:q]], lanes=lanes, lane_axis="k", out=tiles[i:j, p:q], guard=guard)
    same(block, tiles)


def reduction(kind: type[ReduceSum] | type[ReduceProd] | type[ReduceMax], rows: int, columns: int) -> Op:
    """Over the rows."""
    return kind(
        axes=(("n", columns), ("m", rows)),
        reads=(identity(["m", "n"]),),
        write=(constant(0), axis("n")),
        in_types=(F32,),
        out_type=F32,
    )


@settings(max_examples=40, deadline=None)
@given(
    m=SIZES,
    n=st.integers(1, 150),
    chunk=st.integers(0, 20),
    ns=CUTS,
    lanes=LANES,
    kind=st.sampled_from([ReduceSum, ReduceProd, ReduceMax]),
)
def test_reductions_in_tiles_and_chunks(
    m: int, n: int, chunk: int, ns: list[int], lanes: int, kind: type[ReduceSum]
) -> None:
    x = numbers(F32, m, n)
    block = jit.run(reduction(kind, m, n), [x], lanes=lanes, lane_axis="n", part="m", chunk=chunk)
    tiles = np.full((1, n), np.nan, np.float32)
    for p, q in pieces(n, ns):
        for u in range(0, m, chunk or m):
            v = min(m, u + (chunk or m))
            op = reduction(kind, v - u, q - p)
            mode = JOIN if u else FRESH
            jit.run(op, [x[u:v, p:q]], lanes=lanes, lane_axis="n", out=tiles[:, p:q], mode=mode)
    same(block, tiles)


ROWS: list[Callable[[int, int], Op]] = [
    lambda m, n: Softmax(
        axes=(("m", m), ("n", n)),
        reads=(identity(["m", "n"]),),
        write=identity(["m", "n"]),
        in_types=(F32,),
        out_type=F32,
        over=("n",),
    ),
    lambda m, n: LayerNorm(
        axes=(("m", m), ("n", n)),
        reads=(identity(["m", "n"]), (axis("n"),)),
        write=identity(["m", "n"]),
        in_types=(F32, F32),
        out_type=F32,
        over=("n",),
        epsilon=1e-5,
    ),
    lambda m, n: ReduceSum(
        axes=(("m", m), ("n", n)),
        reads=(identity(["m", "n"]),),
        write=(axis("m"), constant(0)),
        in_types=(F32,),
        out_type=F32,
    ),
]


@pytest.mark.parametrize("make", ROWS, ids=["softmax", "layer norm", "sum"])
@settings(max_examples=20, deadline=None)
@given(m=SIZES, n=st.integers(1, 150), ms=CUTS, lane=st.sampled_from("mn"))
def test_rows_do_not_know_of_each_other(
    make: Callable[[int, int], Op], m: int, n: int, ms: list[int], lane: str
) -> None:
    op = make(m, n)
    x, more = numbers(F32, m, n), [numbers(F32, n)] * (len(op.reads) - 1)
    block = jit.run(op, [x, *more], lane_axis=lane)
    tiles = np.full_like(block, np.nan)
    for i, j in pieces(m, ms):
        jit.run(make(j - i, n), [x[i:j], *more], lane_axis=lane, out=tiles[i:j])
    same(block, tiles)


def test_a_gather_leaves_every_bit_of_what_it_joins() -> None:
    """A row that another core holds is -0.0: 0.0 would turn its negative zeros."""
    data = np.array([[0.0, -0.0, 1.0], [-0.0, 2.0, -0.0]], np.float32)
    at = np.array([1, 0, -1])

    def gather(rows: int, data: Array, origin: int) -> Array:
        op = Gather(
            axes=(("i0", 3), ("d1", 3), ("v0", rows)),
            reads=(identity(["v0", "d1"]), identity(["i0"])),
            write=identity(["i0", "d1"]),
            in_types=(F32, I64),
            out_type=F32,
            sizes=(2,),
        )
        out = np.full((3, 3), np.nan, np.float32)
        steps = jit.axis_strides(op, [data, at, out])
        kernel = jit.kernel_for(op, "d1", jit.stride_kinds(op, steps, "d1"), jit.processor())
        starts = [data.ctypes.data, at.ctypes.data, out.ctypes.data]
        jit.call(kernel, [data, at, out], starts, steps, op.size, {"v0": origin})
        return out

    parts = [gather(1, data[:1], 0), gather(1, data[1:], 1)]
    same(parts[0] + parts[1], data[at])
    same(gather(2, data, 0), data[at])


# -- lanes ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("op", "across"),
    [
        (gemm(128, 32, 384), ""),
        (gemm(1, 8, 384), ""),
        (gemm(1, 3, 384), "k"),
        (gemm(3, 3, 2), ""),
        (gemm(1, 1, 2), "k"),
        (convolution(7, 64, 1, depthwise=True), ""),
        (reduction(ReduceSum, 300, 40), ""),
        (ROWS[0](4, 300), "n"),
        (ROWS[0](300, 4), ""),
        (ROWS[0](1, 4), "n"),
        (ROWS[2](300, 4), ""),
        (ROWS[2](300, 40), "n"),
    ],
)
def test_which_way_lanes_run_depends_on_the_whole_op(op: Op, across: str) -> None:
    assert op.across == across
    tiny = {a: 1 for a, _ in op.axes}
    for extents in (op.size, tiny):
        lane = op.lane_axis(extents)
        assert lane == across if across else lane not in op.reduced
