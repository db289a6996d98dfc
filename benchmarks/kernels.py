"""Single kernels beside the host's limits: `python benchmarks/kernels.py [NAME...]`.

Each kernel runs on one thread, called from native code, in turn with the loop that measures its limit, in
windows of the same length, between which a loop of `nop` tells whether something else uses the core (see
`compiler.verify.quiet`). Printed are medians of the windows that were ours alone, and how many those were;
of all, and so said, where there are fewer than a quarter.

"fma": the peak of fused multiply-adds, or of vector instructions where a polynomial takes more than memory;
an instruction counts as one FMA of two operations. "L1", "L2", "memory": bytes read and written per second,
against a loop that copies (or only reads, where the kernel hardly writes) as much.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
from waferc.codegen.kernels.kernel import kernel_for, make_module, stride_kinds
from waferc.compiler.verify.quiet import Watch
from waferc.ir.affine import Affine, axis
from waferc.ir.builder import FRESH
from waferc.ir.count import instructions
from waferc.ir.dtypes import BF16, F16, F32, DType
from waferc.ir.op import Array, Op, identity
from waferc.ir.ops.activation import Erf, Exp, Relu, Tanh
from waferc.ir.ops.contract import Contract
from waferc.ir.ops.elementwise import Add, Elementwise
from waferc.ir.ops.normalize import LayerNorm, Softmax
from waferc.ir.ops.pool import MaxPool
from waferc.ir.ops.rearrange import Copy
from waferc.ir.ops.reduce import ReduceSum
from waferc.runtime.engine import Code, bitcode, processor

LANES = processor().lanes
CHAINS = 16  # of the peak loop: more than two FMA units have stages
ROUNDS = 60
SECONDS = 0.0003  # of a window, about: what else uses a core comes and goes within seconds
L1, L2, MEMORY = 24 << 10, 768 << 10, 192 << 20  # bytes of what a kernel touches, at most


# -- native loops -----------------------------------------------------------------------
def _driver() -> str:
    """repeat(kernel, task, op, times, deltas, words): adds `deltas` to the task's first words after a call.
    peak(times, buffer): CHAINS FMAs each. read and copy(source, target, vectors, times), four at a time."""
    v = f"<{LANES} x float>"
    each = range(CHAINS)
    four = range(4)

    def at(base: str, to: str, j: int) -> str:
        return f"  %{to}i{j} = add i64 %i, {j}\n  %{to}{j} = getelementptr {v}, ptr {base}, i64 %{to}i{j}\n"

    def sweep(name: str, body: str, phis: str = "", end: str = "") -> str:
        return f"""
define void @{name}(i64 %s, i64 %t, i64 %n, i64 %times) {{
entry:
  %source = inttoptr i64 %s to ptr
  %target = inttoptr i64 %t to ptr
  br label %again
again:
  %time = phi i64 [0, %entry], [%time1, %end]
  br label %loop
loop:
  %i = phi i64 [0, %again], [%i4, %loop]
{phis}{body}  %i4 = add i64 %i, 4
  %more = icmp slt i64 %i4, %n
  br i1 %more, label %loop, label %end
end:
{end}  %time1 = add i64 %time, 1
  %rest = icmp slt i64 %time1, %times
  br i1 %rest, label %again, label %done
done:
  ret void
}}
"""

    def keep_sum(c: int) -> str:
        return f"  %q{c} = getelementptr {v}, ptr %at, i64 {c}\n  store {v} %t{c}, ptr %q{c}, align 4\n"

    loads = "".join(at("%source", "p", j) + f"  %x{j} = load {v}, ptr %p{j}, align 4\n" for j in four)
    stores = "".join(at("%target", "q", j) + f"  store {v} %x{j}, ptr %q{j}, align 4\n" for j in four)
    adds = "".join(f"  %b{j} = fadd {v} %a{j}, %x{j}\n" for j in four)
    sums = "".join(f"  %a{j} = phi {v} [zeroinitializer, %again], [%b{j}, %loop]\n" for j in four)
    keep = "".join(
        at("%target", "q", j).replace("%i,", "0,") + f"  store {v} %b{j}, ptr %q{j}, align 4\n" for j in four
    )
    return f"""
declare {v} @llvm.fma.v{LANES}f32({v}, {v}, {v})
define void @repeat(i64 %kernel, i64 %task.at, i64 %op, i64 %times, i64 %deltas.at, i64 %words) {{
entry:
  %call = inttoptr i64 %kernel to ptr
  %task = inttoptr i64 %task.at to ptr
  %deltas = inttoptr i64 %deltas.at to ptr
  %strides = inttoptr i64 %op to ptr
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%i1, %moved]
  call void %call(ptr %task, ptr %strides)
  br label %move
move:
  %j = phi i64 [0, %loop], [%j1, %move]
  %p = getelementptr i64, ptr %task, i64 %j
  %d = getelementptr i64, ptr %deltas, i64 %j
  %old = load i64, ptr %p
  %by = load i64, ptr %d
  %new = add i64 %old, %by
  store i64 %new, ptr %p
  %j1 = add i64 %j, 1
  %more = icmp slt i64 %j1, %words
  br i1 %more, label %move, label %moved
moved:
  %i1 = add i64 %i, 1
  %again = icmp slt i64 %i1, %times
  br i1 %again, label %loop, label %end
end:
  ret void
}}
define void @peak(i64 %times, i64 %buffer) {{
entry:
  %at = inttoptr i64 %buffer to ptr
  %x = load {v}, ptr %at, align 4
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%i1, %loop]
{"".join(f"  %s{c} = phi {v} [%x, %entry], [%t{c}, %loop]{chr(10)}" for c in each)}
{"".join(f"  %t{c} = call {v} @llvm.fma.v{LANES}f32({v} %x, {v} %x, {v} %s{c}){chr(10)}" for c in each)}
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %times
  br i1 %more, label %loop, label %end
end:
{"".join(keep_sum(c) for c in each)}
  ret void
}}
{sweep("copy", loads + stores)}
{sweep("read", loads + adds, sums, keep)}
"""


@cache
def _native() -> dict[str, Callable[..., int]]:
    code = Code(bitcode(_driver()))
    _KEPT.append(code)
    return {n: code.function(n, w) for n, w in (("repeat", 6), ("peak", 2), ("copy", 4), ("read", 4))}


_KEPT: list[object] = []  # loaded code, alive while it may be called


def seconds(function: Callable[..., int], *arguments: int) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def aligned(shape: Sequence[int], dtype: DType = F32) -> Array:
    """Small positive numbers from an address that is a multiple of 64."""
    count = int(np.prod(shape))
    raw = np.zeros(count * dtype.bytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    flat = raw[start : start + count * dtype.bytes]
    if dtype == F32:
        np.random.default_rng(0).random(out=flat.view(np.float32), dtype=np.float32)
    else:
        flat[...] = 60  # 0x3C3C: about 1.06 as f16, 0.01 as bf16
    return flat.view(np.uint16 if dtype == BF16 else dtype.numpy).reshape(tuple(shape))


# -- cases ------------------------------------------------------------------------------
@dataclass(frozen=True)
class Case:
    """One kernel. arrays: operands and result. deltas: bytes to move each by after a call, `calls` times.

    limit: "fma" and how many a call has, or a level and the bytes that a call moves through it.
    """

    name: str
    op: Op
    arrays: tuple[Array, ...]
    lane: str
    limit: str
    amount: float
    deltas: tuple[int, ...] = ()
    calls: int = 0
    writes: bool = True
    part: str = ""
    chunk: int = 0
    pairs: bool = False  # the second operand is in pairs (`codegen.homes.View`)


def strides(op: Op, arrays: Sequence[Array]) -> list[dict[str, int]]:
    out: list[dict[str, int]] = []
    for access, array in zip((*op.reads, op.write), arrays, strict=True):
        steps: dict[str, int] = {}
        for e, pitch in zip(access, array.strides, strict=True):
            for a, c in e.terms:
                steps[a] = steps.get(a, 0) + c * pitch // array.itemsize
        out.append(steps)
    return out


def gemm(m: int, n: int, k: int, b: DType = F32, a: DType = F32) -> Contract:
    return Contract(
        axes=(("m", m), ("n", n), ("k", k)),
        reads=((axis("m"), axis("k")), (axis("k"), axis("n"))),
        write=identity("mn"),
        in_types=(a, b),
        out_type=F32,
    )


def product(name: str, m: int, n: int, k: int, kind: DType = F32, **more: Any) -> Case:
    arrays = (aligned((m, k), kind), aligned((k, n), kind), aligned((m, n)))
    return Case(name, gemm(m, n, k, kind, kind), arrays, "n", "fma", m * n * k / LANES, **more)


def vector_product(name: str, kind: DType) -> Case:
    """A row of 2048 by weights in panels of 8 vectors, from memory."""
    k, n = 2048, 8 * LANES
    bytes_each = k * n * kind.bytes
    panels = MEMORY // bytes_each
    arrays = (aligned((1, k)), aligned((panels, k, n), kind)[0], aligned((panels, 1, n))[0])
    deltas = (0, bytes_each, 4 * n)
    return Case(name, gemm(1, n, k, kind), arrays, "n", "memory", bytes_each, deltas, panels, False)


def convolution(
    name: str,
    rows: int,
    places: int,
    channels: int,
    filters: int,
    taps: int,
    step: int = 1,
    chunk: int = 0,
) -> Case:
    """A block of a convolution, channels last in a home with margins; no filters: depthwise.

    chunk: of the channels, which then go outside the taps, as a plan that cuts them has it.
    """
    depthwise, along = not filters, (("y", rows), ("x", places))
    windows = tuple(Affine(((a, step), (f"r{a}", 1))) if taps > 1 else axis(a, step) for a, _ in along)
    image = aligned([*((n - 1) * step + taps for _, n in along), channels])
    reduced = [(f"r{a}", taps) for a, _ in along if taps > 1]
    out = ("f", channels if depthwise else filters)
    if not depthwise:
        reduced.insert(0 if chunk else len(reduced), ("c", channels))
    op = Contract(
        axes=(out, *along, *reduced),
        reads=((*windows, axis("f" if depthwise else "c")), (*(axis(a) for a, _ in reduced), axis("f"))),
        write=(*(axis(a) for a, _ in along), axis("f")),
        in_types=(F32, F32),
        out_type=F32,
    )
    weights = aligned([*(n for _, n in reduced), out[1]])
    result = aligned([*(n for _, n in along), out[1]])
    fmas = float(np.prod([n for _, n in op.axes])) / LANES
    part = "c" if chunk else ""
    return Case(name, op, (image, weights, result), "f", "fma", fmas, part=part, chunk=chunk)


def rows_of(kind: str, m: int, n: int) -> Case:
    common: dict[str, Any] = {
        "axes": (("m", m), ("n", n)),
        "write": identity("mn"),
        "out_type": F32,
        "over": ("n",),
    }
    x, out = aligned((m, n)), aligned((m, n))
    if kind == "softmax":
        op: Op = Softmax(reads=(identity("mn"),), in_types=(F32,), **common)
        arrays = (x, out)
    else:
        op = LayerNorm(
            reads=(identity("mn"), (axis("n"),), (axis("n"),)), in_types=(F32,) * 3, epsilon=1e-5, **common
        )
        arrays = (x, aligned((n,)), aligned((n,)), out)
    (work,) = op.work(op.size)
    return Case(f"{kind} {m}x{n}", op, arrays, "n", "fma", work.elements / LANES)


def mapped(kind: type[Elementwise], n: int, limit: str, arity: int = 1) -> Case:
    op = kind(
        axes=(("d0", n),),
        reads=((axis("d0"),),) * arity,
        write=(axis("d0"),),
        in_types=(F32,) * arity,
        out_type=F32,
    )
    amount = instructions(op.scalar, op.in_types) * n / LANES if limit == "fma" else 4.0 * n * (arity + 1)
    arrays = tuple(aligned((n,)) for _ in range(arity + 1))
    return Case(f"{op.name} {n}", op, arrays, "d0", limit, amount)


def transposed(m: int, n: int, limit: str) -> Case:
    op = Copy(
        axes=(("m", m), ("n", n)),
        reads=(identity("nm"),),
        write=identity("mn"),
        in_types=(F32,),
        out_type=F32,
    )
    return Case(f"transpose {m}x{n}", op, (aligned((n, m)), aligned((m, n))), "n", limit, 8.0 * m * n)


def pooled(name: str, places: int, channels: int) -> Case:
    """2x2 maxima, channels last."""
    op = MaxPool(
        axes=(("c", channels), ("y", places), ("x", places), ("r", 2), ("s", 2)),
        reads=((Affine((("y", 2), ("r", 1))), Affine((("x", 2), ("s", 1))), axis("c")),),
        write=identity("yxc"),
        in_types=(F32,),
        out_type=F32,
        fill=float("-inf"),
    )
    arrays = (aligned((2 * places, 2 * places, channels)), aligned((places, places, channels)))
    return Case(name, op, arrays, "c", "L2", 20.0 * places * places * channels)


def summed(name: str, m: int, n: int, kept: str) -> Case:
    """Of the rows, with lanes along them, or of the columns, with lanes across these."""
    size = {"m": m, "n": n}
    op = ReduceSum(
        axes=tuple((a, size[a]) for a in (kept, "mn".replace(kept, ""))),
        reads=(identity("mn"),),
        write=(axis(kept),),
        in_types=(F32,),
        out_type=F32,
    )
    return Case(name, op, (aligned((m, n)), aligned((size[kept],))), "n", "L2", 4.0 * m * n, writes=False)


def cases() -> Iterator[Callable[[], Case]]:
    yield partial(product, "gemm 64x64x64", 64, 64, 64)
    yield partial(product, "gemm panel 128x32x384", 128, 32, 384)
    yield partial(product, "gemm panel 7x32x256", 7, 32, 256)
    yield partial(product, "gemm in chunks of 4 128x32x384", 128, 32, 384, part="k", chunk=4)
    yield partial(product, "gemm panel bf16 128x32x384", 128, 32, 384, BF16, pairs=True)
    yield partial(product, "gemm panel bf16 7x32x255", 7, 32, 255, BF16, pairs=True)
    for kind in (F32, F16, BF16):
        yield partial(vector_product, f"matrix-vector {kind}", kind)
    yield partial(convolution, "conv 3x3 64->32, 4x28", 4, 28, 64, 32, 3)
    yield partial(convolution, "conv 3x3 channels in 8s, 7x7", 7, 7, 512, 32, 3, chunk=8)
    yield partial(convolution, "conv 7x7 stride 2 3->32, 4x56", 4, 56, 3, 32, 7, 2)
    yield partial(convolution, "conv 1x1 256->32, 4x14", 4, 14, 256, 32, 1)
    yield partial(convolution, "depthwise 3x3 32, 4x28", 4, 28, 32, 0, 3)
    yield partial(convolution, "depthwise 5x5 96, 7x7", 7, 7, 96, 0, 5)
    yield partial(rows_of, "softmax", 64, 128)
    yield partial(rows_of, "softmax", 12, 768)
    yield partial(rows_of, "layer norm", 64, 768)  # twice L1: as fast as L2 gives and takes it
    yield partial(rows_of, "layer norm", 8, 768)
    for kind in (Exp, Tanh, Erf):
        yield partial(mapped, kind, 2048, "fma")
    yield partial(mapped, Relu, 2048, "L1")
    yield partial(mapped, Add, 32768, "L2", 2)
    yield partial(mapped, Copy, 2048, "L1")
    yield partial(mapped, Copy, 65536, "L2")
    yield partial(transposed, 128, 384, "L2")
    yield partial(pooled, "max pool 2x2 28x28x64", 28, 64)
    yield partial(summed, "sum of rows 128x768", 128, 768, "m")
    yield partial(summed, "sum of columns 128x768", 128, 768, "n")


# -- measuring --------------------------------------------------------------------------
def limit(case: Case) -> Callable[[], float]:
    """A function that measures the limit once, in the units of `Case.amount` per second."""
    native, scratch = _native(), aligned((CHAINS, LANES))
    if case.limit == "fma":
        first = 10_000
        times = int(first * SECONDS / seconds(native["peak"], first, scratch.ctypes.data))
        return lambda: times * CHAINS / seconds(native["peak"], times, scratch.ctypes.data)
    size = {"L1": L1, "L2": L2, "memory": MEMORY}[case.limit]
    share = 2 if case.writes else 1
    vectors = size // share // (4 * LANES)
    source, target = aligned((vectors, LANES)), aligned((vectors, LANES)) if case.writes else scratch
    loop = native["copy" if case.writes else "read"]
    once = seconds(loop, source.ctypes.data, target.ctypes.data, vectors, 1)
    rounds = max(1, int(SECONDS / once))
    return lambda: rounds * size / seconds(loop, source.ctypes.data, target.ctypes.data, vectors, rounds)


@dataclass(frozen=True)
class Measured:
    """seconds: of a call. limit: amounts per second. alone: windows that were ours alone, of ROUNDS."""

    seconds: float
    limit: float
    alone: int


def measure(case: Case) -> Measured:
    op, steps = case.op, strides(case.op, case.arrays)
    if case.pairs:
        steps[1][case.lane] = 2
    kinds = stride_kinds(op, steps, case.lane, (False, case.pairs))
    ahead = case.limit == "memory"
    kernel = kernel_for(op, case.lane, kinds, replace(processor(), ahead=ahead), part=case.part)
    code = Code(bitcode(make_module([kernel])))
    (address,) = code.addresses([kernel.symbol])
    axes = kernel.signature.axes
    starts = [a.ctypes.data for a in case.arrays]
    words = [*starts, *(op.size[a] for a in axes), *[0] * len(axes), FRESH, case.chunk]
    pitches = np.array([s.get(a, 0) for s in steps for a in axes], np.int64)
    deltas = np.array([*case.deltas, *[0] * (len(starts) - len(case.deltas))], np.int64)
    repeat = _native()["repeat"]

    def run(times: int) -> float:
        task = np.array(words, np.int64)
        addresses = task.ctypes.data, pitches.ctypes.data, times, deltas.ctypes.data, len(starts)
        return seconds(repeat, address, *addresses) / times

    bound = limit(case)
    run(case.calls or 1)
    times = case.calls or max(1, int(SECONDS / run(10)))
    watch, pairs = Watch(), list[tuple[float, float]]()
    watch.probe()
    for _ in range(ROUNDS):
        pairs.append((run(times), bound()))
        watch.probe()
    alone = [pair for pair, disturbed in zip(pairs, watch.disturbed(), strict=True) if not disturbed]
    taken, bounds = zip(*(alone if 4 * len(alone) >= ROUNDS else pairs), strict=True)
    return Measured(statistics.median(taken), statistics.median(bounds), len(alone))


def main(names: Sequence[str]) -> None:
    print(f"{'kernel':<36} {'time':>10} {'rate':>13} {'limit':>13}  share  alone")
    for make in cases():
        case = make()
        if names and not any(n in case.name for n in names):
            continue
        found = measure(case)
        rate = case.amount / found.seconds
        scale, unit = (2e-9 * LANES, "GFLOP/s") if case.limit == "fma" else (1e-9, "GB/s")
        print(
            f"{case.name:<36} {found.seconds * 1e6:7.2f} us {rate * scale:5.0f} {unit:<7} "
            f"{found.limit * scale:5.0f} {case.limit:<7} {rate / found.limit:5.0%}  {found.alone:2}/{ROUNDS}"
            f"{'  disturbed' if 4 * found.alone < ROUNDS else ''}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
