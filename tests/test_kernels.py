"""Kernels in native code: elementwise families on every type, strides, ragged sizes, and the guard."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import jit
import llvmlite.binding as llvm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampled import sampled
from waferc.codegen.kernels import guard
from waferc.codegen.kernels.kernel import Kernel, kernel_for, make_module, stride_kinds
from waferc.codegen.processor import Processor
from waferc.ir.affine import Affine, axis
from waferc.ir.dtypes import (
    ALL,
    BF16,
    BOOL,
    F4E2M1,
    F8E5M2,
    F8E8M0,
    F16,
    F32,
    F64,
    I4,
    I8,
    I32,
    I64,
    MINIFLOATS,
    SMALL,
    U4,
    U8,
    U32,
    U64,
    DType,
)
from waferc.ir.op import Array, Op, broadcast_access, identity
from waferc.ir.ops import activation, conversion, elementwise, logic
from waferc.ir.ops.contract import Contract
from waferc.ir.ops.elementwise import Elementwise
from waferc.ir.ops.rearrange import Copy

W = jit.processor().lanes
RAGGED = (1, W - 1, W, W + 1, 3 * W + 5)
NUMBERS = tuple(t for t in ALL if t != BOOL)
INTEGERS = tuple(t for t in NUMBERS if not t.is_float)


def elementwise_op(
    kind: type[Elementwise],
    shapes: Sequence[tuple[int, ...]],
    types: Sequence[DType],
    out: DType | None = None,
) -> Elementwise:
    axes = tuple((f"d{i}", n) for i, n in enumerate(np.broadcast_shapes(*shapes)))
    return kind(
        axes=axes,
        reads=tuple(broadcast_access(s, axes) for s in shapes),
        write=identity([a for a, _ in axes]),
        in_types=tuple(types),
        out_type=out or kind.result_type(*types),
    )


def values(dtype: DType, shape: tuple[int, ...], seed: int = 0) -> Array:
    """Small numbers and, among them, the type's edges."""
    rng = np.random.default_rng(seed)
    if dtype == BOOL:
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.is_float:
        x = rng.normal(0, 10, shape).astype(dtype.numpy)
        edges = [0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1.0, -1.0]
    else:
        least, most = dtype.limits
        x = rng.integers(max(int(least), -20), 20, shape).astype(dtype.numpy)
        edges = [least, most, 0, most, least, 1]
    flat = x.reshape(-1)
    at = rng.integers(0, flat.size, flat.size // 4)
    flat[at] = rng.choice(np.array(edges, dtype.numpy), at.size)
    return x


def compare(op: Op, *operands: Array, **options: object) -> None:
    got = jit.run(op, operands, **options)  # type: ignore[arg-type]
    wanted = op.reference(*operands)
    assert wanted.dtype == got.dtype
    np.testing.assert_array_equal(plain(got), plain(wanted))


def plain(x: Array) -> Array:
    """In a type of NumPy's own, whose NaN are alike to its assertions."""
    return x.astype(np.float64) if x.dtype.kind == "V" or x.dtype.name == "float8_e5m2" else x


def gemm(m: int, n: int, k: int) -> Op:
    return Contract(
        axes=(("m", m), ("n", n), ("k", k)),
        reads=((axis("m"), axis("k")), (axis("k"), axis("n"))),
        write=(axis("m"), axis("n")),
        in_types=(F32, F32),
        out_type=F32,
    )


ARITHMETIC = [elementwise.Add, elementwise.Sub, elementwise.Mul, logic.Less, logic.Equal]


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
@pytest.mark.parametrize("kind", ARITHMETIC, ids=lambda k: k.__name__)
def test_every_type_at_ragged_sizes(kind: type[Elementwise], dtype: DType) -> None:
    for n in RAGGED:
        op = elementwise_op(kind, [(3, n), (3, n)], [dtype, dtype])
        compare(op, values(dtype, (3, n)), values(dtype, (3, n), 1))


@pytest.mark.parametrize("dtype", [F16, BF16, F32, F64, I8, I64, U8], ids=str)
def test_extremes_propagate_nan(dtype: DType) -> None:
    for kind in (elementwise.Min, elementwise.Max):
        compare(
            elementwise_op(kind, [(200,)] * 2, [dtype] * 2), values(dtype, (200,)), values(dtype, (200,), 1)
        )
    compare(elementwise_op(activation.Relu, [(200,)], [dtype]), values(dtype, (200,)))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integer_division_never_traps(dtype: DType) -> None:
    x, y = values(dtype, (300,)), values(dtype, (300,), 1)
    info = np.iinfo(dtype.numpy.name)
    x[:3], y[:3] = info.min, np.array([-1 if info.min else 1, 0, 1], dtype.numpy)
    got = jit.run(elementwise_op(elementwise.Div, [(300,)] * 2, [dtype] * 2), [x, y]).tolist()
    for a, b, q in zip(x.tolist(), y.tolist(), got, strict=True):
        exact = 0 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        assert q == (info.min if exact > info.max else exact), (a, b)


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
def test_remainders(dtype: DType) -> None:
    x, y = values(dtype, (300,)), values(dtype, (300,), 1)
    op = elementwise_op(elementwise.Mod, [(300,)] * 2, [dtype] * 2)
    compare(replace(op, fmod=1), x, y)
    if not dtype.is_float:
        compare(op, x, y)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_shifts_by_any_amount(dtype: DType) -> None:
    bits = 8 * dtype.bytes
    x = values(dtype, (300,))
    y = np.resize(np.array([0, 1, bits - 1, bits, 127, -1 if dtype.kind == "i" else bits], dtype.numpy), 300)
    op = elementwise_op(logic.BitShift, [(300,)] * 2, [dtype] * 2)
    left, right = (jit.run(replace(op, direction=d), [x, y]).tolist() for d in ("LEFT", "RIGHT"))
    for a, n, up, down in zip(x.tolist(), y.tolist(), left, right, strict=True):
        inside = 0 <= n < bits
        wrapped = np.array((a << n if inside else 0) & (2**bits - 1), np.uint64).astype(dtype.numpy)
        assert up == wrapped and down == (a >> n if inside else -1 if a < 0 else 0), (a, n)


@pytest.mark.thorough
@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
def test_any_vector_width_computes_the_same(lanes: int) -> None:
    a, b = values(F32, (9, 37)), values(F32, (37, 21), 1)
    a, b = np.nan_to_num(a, posinf=3, neginf=4), np.nan_to_num(b, posinf=3, neginf=4)
    for lane in ("m", "n", "k"):
        got = jit.run(gemm(9, 21, 37), [a, b], lanes=lanes, lane_axis=lane)
        np.testing.assert_allclose(got, a.astype(np.float64) @ b, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("shapes", [[(2, 1, 35), (4, 1)], [(35,), (2, 4, 1)], [(2, 4, 35), ()]], ids=str)
@pytest.mark.parametrize("dtype", [F32, I8], ids=str)
def test_broadcast_operands(shapes: list[tuple[int, ...]], dtype: DType) -> None:
    op = elementwise_op(elementwise.Sub, shapes, [dtype, dtype])
    operands = [values(dtype, s, i) for i, s in enumerate(shapes)]
    for lane in ("d0", "d1", "d2"):
        compare(op, *operands, lane_axis=lane)
        compare(op, *operands, lane_axis=lane, guard=True)


@pytest.mark.parametrize("dtype", [F16, F32, F64, I8, I64, BOOL], ids=str)
def test_strided_operands_and_results(dtype: DType) -> None:
    kind = logic.Xor if dtype == BOOL else elementwise.Add
    base = values(dtype, (7, 3 * W + 5))
    other = values(dtype, (2 * (3 * W + 5), 14), 1)[::2, ::2].T
    out = np.zeros((3 * W + 5, 7), dtype.numpy).T
    reverse = base[::-1, ::-1]
    op = elementwise_op(kind, [base.shape] * 2, [dtype] * 2)
    for guarded in (False, True):
        jit.run(op, [reverse, other], out=out, guard=guarded)
        np.testing.assert_array_equal(out, op.reference(reverse, other))


def test_a_store_keeps_to_its_lanes() -> None:
    for n in RAGGED:
        room = np.full(n + 2 * W, 7, np.float32)
        op = elementwise_op(elementwise.Neg, [(n,)], [F32])
        jit.run(op, [values(F32, (n,))], out=room[W : W + n])
        assert (room[:W] == 7).all() and (room[W + n :] == 7).all()


def test_a_scalar_op() -> None:
    for x in (-3.0, 3.0):
        compare(elementwise_op(activation.Relu, [()], [F32]), np.array(x, np.float32))


@pytest.mark.parametrize("source", sampled([*ALL, *SMALL], 4), ids=str)
def test_casts(source: DType) -> None:
    x = values(source, (150,))
    with np.errstate(all="ignore"):
        for to in (*ALL, *SMALL):
            if to != source:
                op = elementwise_op(conversion.Cast, [(150,)], [source], to)
                compare(op, x)
                if to in SMALL:
                    compare(replace(op, saturate=0, round_mode="nearest"), x)


@pytest.mark.parametrize("to", [t for t in (F16, BF16, *MINIFLOATS) if t != F8E8M0], ids=str)
def test_f64_is_rounded_once(to: DType) -> None:
    bits = np.arange(1 << (to.bits - 1), dtype=f"u{to.bytes}")
    numbers = np.sort(bits.view(to.numpy).astype(np.float64))
    numbers = numbers[np.isfinite(numbers)]
    middle = (numbers[:-1] + numbers[1:]) / 2
    x = np.concatenate([numbers, middle, np.nextafter(middle, 0), np.nextafter(middle, np.inf)])
    even = np.where(numbers[:-1].astype(to.numpy).view(bits.dtype) % 2, numbers[1:], numbers[:-1])
    nearest = np.concatenate([numbers, even, numbers[:-1], numbers[1:]])
    op = elementwise_op(conversion.Cast, [x.shape], [F64], to)
    for sign in (1, -1):
        np.testing.assert_array_equal(jit.run(op, [sign * x]).astype(np.float64), sign * nearest)
        compare(op, sign * x)


@pytest.mark.parametrize("to", [BF16, F8E5M2], ids=str)
@pytest.mark.parametrize("source", [I32, U32, I64, U64], ids=str)
def test_integers_are_rounded_once(source: DType, to: DType) -> None:
    """Next to what lies in the middle between two numbers, which f32 and f64 cannot tell from it."""
    places = 8 if to == BF16 else 3
    ends = range(places + 2, source.bits - (source.kind == "i") if to == BF16 else 16)
    middles = [(1 << e) + (1 << (e - places)) for e in ends]
    x = np.array([m + d for m in middles for d in (-1, 0, 1)], source.numpy)
    want = [v for e in ends for v in (1 << e, 1 << e, (1 << e) + (1 << (e - places + 1)))]
    got = jit.run(elementwise_op(conversion.Cast, [x.shape], [source], to), [x])
    assert got.astype(np.float64).tolist() == want
    compare(elementwise_op(conversion.Cast, [x.shape], [source], to), x)


def test_floats_past_an_integer_are_no_trap() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 2.0**63, -(2.0**63), 255.9, -0.9], np.float32)
    wanted = {I32: [0, 2**31 - 1, -(2**31)], U8: [0, 255, 0], I64: [0, 2**63 - 1, -(2**63)]}
    for to, first in wanted.items():
        op = elementwise_op(conversion.Cast, [x.shape], [F32], to)
        assert jit.run(op, [x]).tolist()[:3] == first
        compare(op, x)


@pytest.mark.parametrize(
    ("round_mode", "saturate", "codes"),
    [
        ("up", 1, [0, 0, 1, 127, 128, 128, 254, 254, 254]),
        ("down", 1, [0, 0, 0, 127, 127, 128, 254, 254, 254]),
        ("nearest", 0, [255, 0, 1, 127, 128, 128, 254, 255, 255]),
    ],
)
def test_powers_of_two(round_mode: str, saturate: int, codes: list[int]) -> None:
    most = 2.0**127
    x = np.array([0, 2.0**-127, 1.5 * 2.0**-127, 1, 1.5, 2, most, 1.9 * most, np.inf], np.float32)
    op = replace(
        elementwise_op(conversion.Cast, [x.shape], [F32], F8E8M0), round_mode=round_mode, saturate=saturate
    )
    assert jit.run(op, [x]).view(np.uint8).tolist() == codes
    compare(op, x)


def test_an_elementwise_op_of_bf16_is_rounded_once() -> None:
    x = values(BF16, (500,))
    for kind in (activation.Softsign, activation.Sigmoid, elementwise.Reciprocal):
        wide = jit.run(elementwise_op(kind, [x.shape], [F32]), [x.astype(np.float32)])
        got = jit.run(elementwise_op(kind, [x.shape], [BF16]), [x])
        np.testing.assert_array_equal(plain(got), plain(wide.astype(BF16.numpy)))


def test_bits_as_another_type() -> None:
    for a, b in ((F32, I32), (F16, BF16), (I64, F64), (BOOL, U8), (U8, BOOL), (I4, U4), (F4E2M1, I4)):
        compare(elementwise_op(conversion.BitCast, [(99,)], [a], b), values(a, (99,)))


# -- identity ---------------------------------------------------------------------
def kernel_of(op: Op, *operands: Array, guarded: bool = False) -> Kernel:
    arrays = [*operands, op.reference(*operands)]
    lane = op.lane_axis(dict(op.axes))
    return kernel_for(
        op, lane, stride_kinds(op, jit.axis_strides(op, arrays), lane), jit.processor(), guarded
    )


def add_of(n: int) -> Op:
    return elementwise_op(elementwise.Add, [(3, n), (3, n)], [F32, F32])


def test_sizes_share_a_kernel_and_everything_else_separates() -> None:
    kernels = {n: kernel_of(add_of(n), *[values(F32, (3, n))] * 2) for n in (20, 400)}
    assert kernels[20] == kernels[400] and kernels[20].symbol == kernels[400].symbol
    x = values(F32, (3, 20))
    sub = elementwise_op(elementwise.Sub, [x.shape] * 2, [F32] * 2)
    others = [
        kernel_of(sub, x, x),
        kernel_of(add_of(20), x, x, guarded=True),
        kernel_of(add_of(20), x, np.asfortranarray(x)),
        kernel_of(elementwise_op(elementwise.Add, [x.shape] * 2, [F64] * 2), *[x.astype(np.float64)] * 2),
    ]
    assert len({k.symbol for k in [kernels[20], *others]}) == 5
    assert make_module([*kernels.values(), *others]).count("define void") == 5


@pytest.mark.parametrize("make", [add_of, lambda n: gemm(n, n, 3 * n)], ids=["Add", "Contract"])
def test_code_depends_on_nothing_outside_the_identity(make: Callable[[int], Op]) -> None:
    texts: list[str] = []
    for n in (20, 400):
        op = make(n)
        operands = [
            np.ones([hi for _, hi in op.need(j, {a: (0, s) for a, s in op.axes})], np.float32) for j in (0, 1)
        ]
        texts.append(make_module([kernel_of(op, *operands)]))
    assert texts[0] == texts[1]


def test_a_module_is_the_same_in_every_process() -> None:
    code = (
        "import test_kernels as t; x = t.values(t.F32, (3, 20));"
        "print(t.make_module([t.kernel_of(t.add_of(20), x, x, guarded=g) for g in (False, True)]))"
    )
    texts = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            cwd=jit.__file__.rpartition("/")[0],
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert texts[0] == texts[1] and b"define void" in texts[0]


# -- the guard --------------------------------------------------------------------
def guarded_call(dtype: DType, n: int, bounds: list[tuple[int, int]], x: Array, out: Array) -> list[int]:
    op = elementwise_op(logic.Not if dtype == BOOL else elementwise.Neg, [(n,)], [dtype])
    steps = jit.axis_strides(op, [x, out])
    kernel = kernel_for(op, "d0", stride_kinds(op, steps, "d0"), jit.processor(), guard=True)
    starts = [x.ctypes.data, out.ctypes.data]
    return jit.call(kernel, [x, out], starts, steps, {"d0": n}, bounds=bounds)


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("n", [1, W, 2 * W + 3])
def test_guard_names_a_read_one_element_past_its_buffer(n: int, stride: int) -> None:
    x, out = np.ones(stride * n, np.float32)[::stride], np.zeros(n, np.float32)
    last = x.ctypes.data + 4 * stride * (n - 1)
    whole, short = (x.ctypes.data, last + 4), (x.ctypes.data, last)
    target = (out.ctypes.data, out.ctypes.data + 4 * n)
    assert guarded_call(F32, n, [whole, target], x, out) == [0, 0, 0, 0]
    assert (out == -1).all()
    out[:] = 5
    code, operand, address, _ = guarded_call(F32, n, [short, target], x, out)
    assert (code, operand) == (guard.READ_OUTSIDE, 0) and address >= last
    assert out[-1] == 0  # the value of a load that was not performed
    late = (x.ctypes.data + 1, last + 4)
    assert guarded_call(F32, n, [late, target], x, out)[:3] == [guard.READ_OUTSIDE, 0, x.ctypes.data]


@pytest.mark.parametrize("n", [1, W, 2 * W + 3])
def test_guard_names_a_write_outside_and_does_not_perform_it(n: int) -> None:
    x, out = np.ones(n, np.float32), np.full(n, 7, np.float32)
    source = (x.ctypes.data, x.ctypes.data + 4 * n)
    short = (out.ctypes.data, out.ctypes.data + 4 * n - 4)
    code, operand, address, _ = guarded_call(F32, n, [source, short], x, out)
    assert (code, operand, address) == (guard.WRITE_OUTSIDE, 1, short[1])
    assert out[-1] == 7


@pytest.mark.parametrize("dtype", [F16, F32, F64, I32, U64, BOOL], ids=str)
@pytest.mark.parametrize("at", [0, W - 2, 2 * W + 1])
def test_guard_names_a_stale_read(dtype: DType, at: int) -> None:
    n = 2 * W + 3
    x, out = np.ones(n, dtype.numpy), np.zeros(n, dtype.numpy)
    bounds = [(a.ctypes.data, a.ctypes.data + a.nbytes) for a in (x, out)]
    assert guarded_call(dtype, n, bounds, x, out) == [0, 0, 0, 0]
    x.view(np.uint8)[at * dtype.bytes : (at + 2) * dtype.bytes] = guard.POISON
    expected = [guard.STALE_READ, 0, x.ctypes.data + at * dtype.bytes, 0]
    assert guarded_call(dtype, n, bounds, x, out) == expected


def test_guard_keeps_the_first_violation() -> None:
    n = 3 * W
    x, out = np.ones(n, np.float32), np.zeros(n, np.float32)
    x.view(np.uint8)[8:12] = guard.POISON
    bounds = [(x.ctypes.data, x.ctypes.data + 4 * n - 4), (out.ctypes.data, out.ctypes.data + 4)]
    assert guarded_call(F32, n, bounds, x, out) == [guard.STALE_READ, 0, x.ctypes.data + 8, 0]


@pytest.mark.thorough
@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from([F32, F16, I32, U64, BOOL, F64]),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)),
    lane=st.sampled_from(["d0", "d1", "d2"]),
    lanes=st.sampled_from([4, 8, 16]),
    guard=st.booleans(),
)
def test_copies_turn_squares(
    dtype: DType, shape: tuple[int, int, int], lane: str, lanes: int, guard: bool
) -> None:
    n = np.prod(shape)
    x = (np.arange(n) % 2 if dtype == BOOL else np.arange(n)).astype(dtype.numpy).reshape(shape)
    op = Copy(
        axes=(("d0", shape[2]), ("d1", shape[0]), ("d2", shape[1])),
        reads=(identity(["d1", "d2", "d0"]),),
        write=identity(["d0", "d1", "d2"]),
        in_types=(dtype,),
        out_type=dtype,
    )
    got = jit.run(op, [x], lanes=lanes, lane_axis=lane, guard=guard)
    np.testing.assert_array_equal(got, x.transpose(2, 0, 1))


# -- code quality -----------------------------------------------------------------
HOSTS = {
    16: ("x86_64-unknown-linux-gnu", "skylake-avx512"),
    8: ("x86_64-unknown-linux-gnu", "haswell"),
    4: ("aarch64-unknown-linux-gnu", "neoverse-n1"),
}


def assembly_for(lanes: int, op: Op, lane: str, part: str = "") -> str:
    """A contraction's kernel in the assembly of a host with so many lanes."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    jit.host()  # sets LLVM's options
    arrays = [np.ones([op.size[a] for e in r for a in e.axes], np.float32) for r in (*op.reads, op.write)]
    if lane == "k":
        arrays[1] = np.asfortranarray(arrays[1])
    kinds = stride_kinds(op, jit.axis_strides(op, arrays), lane)
    module = llvm.parse_assembly(make_module([kernel_for(op, lane, kinds, Processor(lanes), part=part)]))
    triple, cpu = HOSTS[lanes]
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=2)
    return machine.emit_assembly(module)


@pytest.mark.parametrize("lanes", HOSTS)
@pytest.mark.parametrize(
    ("rows", "lane", "part"),
    [(24, "n", ""), (1, "n", ""), (24, "n", "k"), (1, "n", "k"), (24, "k", "")],
    ids=["rows", "one row", "rows in chunks", "one row in chunks", "dots"],
)
def test_register_tiles_fit_the_registers(lanes: int, rows: int, lane: str, part: str) -> None:
    assembly = assembly_for(lanes, gemm(rows, 32, 16), lane, part)
    assert "fmadd" in assembly or "fmla" in assembly
    vector = re.compile(r"[xyz]mm.*rsp|rsp.*[xyz]mm|\b(?:str|ldr|stp|ldp)\s+q.*sp")
    constants = 1 if part else 0  # kept in memory between tiles: what a total starts from
    assert len([s for s in assembly.splitlines() if vector.search(s)]) <= 2 * constants
    loops = re.split(r"^\.LBB.*:", assembly, flags=re.MULTILINE)
    assert not [s for s in loops if re.search("fmadd|fmla", s) and vector.search(s)]


@pytest.mark.parametrize("lanes", [16, 8])
def test_the_inner_loop_of_a_product_is_lean(lanes: int) -> None:
    assembly = assembly_for(lanes, gemm(24, 32, 16), "n")
    loops = re.split(r"^\.LBB.*:$", assembly, flags=re.MULTILINE)
    inner = max(loops, key=lambda text: text.count("vfmadd"))
    body = inner[: inner.index("\tj")].strip().splitlines()  # up to the loop's branch
    products, loads = inner.count("vfmadd"), inner.count("vbroadcastss") + inner.count("vmovups")
    assert products == (16 if lanes == 16 else 12)
    assert len(body) <= products + loads + 5  # two pointers, a counter, a comparison


def test_windows_read_a_constant_distance_from_a_loop_index() -> None:
    """y[i] = x[3 i + 1] + x[i + 2]: constants and coefficients of accesses reach the addresses."""
    n = 2 * W + 3
    x, y = values(F32, (3 * n,)), values(F32, (n + 2,), 1)
    op = elementwise.Add(
        axes=(("i", n),),
        reads=((Affine((("i", 3),), 1),), (Affine((("i", 1),), 2),)),
        write=(axis("i"),),
        in_types=(F32, F32),
        out_type=F32,
    )
    compare(op, x, y)
    compare(op, x, y, guard=True)
