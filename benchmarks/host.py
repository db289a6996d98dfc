"""What this machine can do at most: floating-point operations and bytes per second, measured by bare loops.

Kernels are judged by their share of these limits, measured in the same run.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm
import numpy as np

CHAINS = 12  # independent sums: two units of four cycles' latency need eight, and all fit in registers
LEVELS = {"16 KiB": 1 << 14, "256 KiB": 1 << 18, "4 MiB": 1 << 22, "256 MiB": 1 << 28}


@dataclass(frozen=True)
class Host:
    """One number of threads. fma: f32 operations per second; read and copy: bytes per second by working set.

    A copy's bytes are those read and those written.
    """

    threads: int
    fma: float
    read: dict[str, float]
    copy: dict[str, float]


def measure(threads: int) -> Host:
    """All limits, each the best of several short runs, with every thread in a working set of its own."""
    read = {level: _bandwidth("read", size, threads) for level, size in LEVELS.items()}
    copy = {level: _bandwidth("copy", size, threads) for level, size in LEVELS.items()}
    return Host(threads, _fma(threads), read, copy)


@cache
def _lanes() -> int:
    """f32 in a vector register."""
    return 16 if llvm.get_host_cpu_features().get("avx512f") else 8


@cache
def _code() -> llvm.ExecutionEngine:
    """fma, read and copy as native code: (passes, steps or bytes of a pass, in, out)."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    # Without the preference LLVM uses half of a 512-bit register on some hosts.
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=f"{features},-prefer-256-bit", opt=2
    )
    module = llvm.parse_assembly(_source(_lanes()))
    module.verify()
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine


def _source(lanes: int) -> str:
    """The loops in LLVM IR."""
    v, size, chains = f"<{lanes} x float>", 4 * lanes, range(CHAINS)
    sums = "".join(f"  %s{i} = phi {v} [ zeroinitializer, %pass ], [ %t{i}, %loop ]\n" for i in chains)
    total = "\n".join(f"  %u{i} = fadd {v} %{f'u{i - 1}' if i > 1 else 't0'}, %t{i}" for i in chains[1:])
    kept = f"{total}\n  store {v} %u{CHAINS - 1}, ptr %out, align 4\n"
    fma = "".join(f"  %t{i} = call {v} @llvm.fma.v{lanes}f32({v} %s{i}, {v} %a, {v} %a)\n" for i in chains)
    loads = "".join(
        f"  %i{i} = add i64 %i, {size * i}\n  %p{i} = getelementptr i8, ptr %in, i64 %i{i}\n"
        f"  %x{i} = load {v}, ptr %p{i}, align {size}\n"
        for i in chains
    )
    adds = "".join(f"  %t{i} = fadd {v} %s{i}, %x{i}\n" for i in chains)
    stores = "".join(
        f"  %q{i} = getelementptr i8, ptr %out, i64 %i{i}\n  store {v} %x{i}, ptr %q{i}, align {size}\n"
        for i in chains
    )

    def function(name: str, step: int, first: str, body: str, last: str) -> str:
        return (
            f"define void @{name}(i64 %times, i64 %count, ptr %in, ptr %out) {{\nentry:\n"
            f"  %a = load {v}, ptr %in, align 4\n  br label %pass\npass:\n"
            "  %r = phi i64 [ 0, %entry ], [ %next, %end ]\n  br label %loop\nloop:\n"
            f"  %i = phi i64 [ 0, %pass ], [ %j, %loop ]\n{first}{body}"
            f"  %j = add i64 %i, {step}\n  %more = icmp ult i64 %j, %count\n"
            f"  br i1 %more, label %loop, label %end\nend:\n{last}  %next = add i64 %r, 1\n"
            "  %again = icmp ult i64 %next, %times\n  br i1 %again, label %pass, label %done\n"
            "done:\n  ret void\n}\n"
        )

    return (
        f"declare {v} @llvm.fma.v{lanes}f32({v}, {v}, {v})\n"
        + function("fma", 1, sums, fma, kept)
        + function("read", size * CHAINS, sums, loads + adds, kept)
        + function("copy", size * CHAINS, "", loads + stores, "")
    )


def _run(name: str, times: int, count: int, ends: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Seconds of one of the loops on pairs of memory, a thread for each."""
    address = _code().get_function_address(name)
    pointers = ctypes.c_void_p, ctypes.c_void_p
    call = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, *pointers)(address)
    return _best([lambda a=a, b=b: call(times, count, a.ctypes.data, b.ctypes.data) for a, b in ends])


def _memory(size: int) -> np.ndarray:
    """Bytes at a multiple of 4,096, written once, or the system would back them all with one page."""
    raw = np.zeros(size + 4096, np.uint8)
    raw[::64] = 1
    start = -raw.ctypes.data % 4096
    return raw[start : start + size]


def _fma(threads: int) -> float:
    count = 4_000_000
    ends = [(_memory(4096), _memory(4096)) for _ in range(threads)]
    return threads * count * CHAINS * _lanes() * 2 / _run("fma", 1, count, ends)


def _bandwidth(kind: str, size: int, threads: int) -> float:
    """Bytes per second through a working set of `size` bytes for each thread."""
    step, sides = 4 * _lanes() * CHAINS, 2 if kind == "copy" else 1
    each = size // sides // step * step
    times = max(1, (1 << 29) // size)
    ends = [(_memory(each), _memory(each if kind == "copy" else 4096)) for _ in range(threads)]
    return threads * times * each * sides / _run(kind, times, each, ends)


def _best(work: Sequence[Callable[[], None]], rounds: int = 5) -> float:
    """Seconds that the fastest of some rounds takes, each piece of work in a thread of its own."""
    with ThreadPoolExecutor(len(work)) as pool:
        took: list[float] = []
        for _ in range(rounds):
            start = time.perf_counter()
            for done in [pool.submit(w) for w in work]:
                done.result()
            took.append(time.perf_counter() - start)
    return min(took)


def table(hosts: Sequence[Host]) -> list[str]:
    """The limits as lines of text, one column for each number of threads."""
    lines = [f"{'host limit':24}" + "".join(f"{f'{h.threads} threads':>16}" for h in hosts)]
    lines.append(f"{'f32 FMA':24}" + "".join(f"{h.fma / 1e9:9.1f} GFLOP/s" for h in hosts))
    for kind in ("read", "copy"):
        for level in LEVELS:
            rates = (getattr(h, kind)[level] for h in hosts)
            lines.append(f"{f'{kind} {level}':24}" + "".join(f"{r / 1e9:11.1f} GB/s" for r in rates))
    return lines


if __name__ == "__main__":
    print("\n".join(table([measure(n) for n in (1, 2)])))
