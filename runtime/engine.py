"""Native code: LLVM IR or bitcode to callable addresses, through a cache on disk.

The only place that uses llvmlite's binding. A cache entry is keyed by the code, the host's CPU and
llvmlite's version.
"""

from __future__ import annotations

import ctypes
import hashlib
import time
from collections.abc import Callable, Sequence
from functools import cache

import llvmlite
import llvmlite.binding as llvm

from ..codegen.processor import Processor
from .cache import read_entry, write_entry

OPTIONS = "-disable-lsr"  # loop strength reduction spills vector registers under run-time strides


@cache
def _start() -> None:
    """Once in a process, before any target machine: options are the whole process's."""
    llvm.set_option("waferc", OPTIONS)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()  # for instructions by name, as `compiler.verify.quiet` has them


@cache
def host() -> tuple[str, str]:
    """(CPU name, its features as LLVM writes them)."""
    _start()
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


@cache
def processor() -> Processor:
    """What kernels are made for on this host."""
    features = llvm.get_host_cpu_features()
    lanes = 16 if features.get("avx512f") else 8 if features.get("avx2") else 4
    return Processor(lanes, dot2=has_pairs() and pairs_pay())


@cache
def has_pairs() -> bool:
    """Whether the host has the instruction for pairs of bf16."""
    return bool(llvm.get_host_cpu_features().get("avx512bf16"))


def pairs_pay() -> bool:
    """Whether the host multiplies pairs of bf16 faster by their instruction than one by one in f32.

    No description of a processor says it: Intel's take it at half the rate, AMD's do not. Measured once and
    kept with the kernels; either way gives the same bits, but for numbers below 2^-126.
    """
    name = hashlib.sha256("\0".join([PAIRS, *host(), OPTIONS]).encode()).hexdigest() + ".pairs"
    known = read_entry(name)
    if known not in (b"0", b"1"):
        code = Code(bitcode(PAIRS))
        ways = [code.function(symbol, 1) for symbol in ("pairs", "floats")]
        took = [[_seconds(way) for way in ways] for _ in range(TIMES)]
        known = b"1" if min(t[0] for t in took) < min(t[1] for t in took) else b"0"
        write_entry(name, known)
    return known == b"1"


TIMES, TURNS = 15, 2000  # measurements of each way, the least of which counts, and turns of a loop in one


def _seconds(way: Callable[..., int]) -> float:
    start = time.perf_counter()
    way(TURNS)
    return time.perf_counter() - start


def _loop(name: str, step: str, times: int) -> str:
    """A function with a loop of 12 chains of `step`, which says how %b comes of %a, `times` in a turn."""
    head, body = list[str](), list[str]()
    for i in range(12):
        head.append(f"  %s{i} = phi <16 x float> [ zeroinitializer, %entry ], [ %s{i}.{times}, %loop ]")
        for j in range(times):
            old = f"%s{i}.{j}" if j else f"%s{i}"
            body.append("  " + step.replace("%b", f"%s{i}.{j + 1}").replace("%a", old))
    # What is computed is used, or LLVM would leave it out.
    total = [f"  %t{i} = fadd <16 x float> {f'%t{i - 1}' if i else '%x'}, %s{i}.{times}" for i in range(12)]
    return "\n".join(
        [
            f"define void @{name}(i64 %turns) {{\nentry:",
            "  %place = alloca <16 x float>",
            "  store volatile <16 x float> zeroinitializer, ptr %place",
            "  %x = load volatile <16 x float>, ptr %place",
            "  %h = bitcast <16 x float> %x to <32 x bfloat>",
            "  br label %loop\nloop:",
            "  %n = phi i64 [ 0, %entry ], [ %m, %loop ]",
            *head,
            *body,
            "  %m = add i64 %n, 1\n  %more = icmp slt i64 %m, %turns",
            "  br i1 %more, label %loop, label %done\ndone:",
            *total,
            "  store volatile <16 x float> %t11, ptr %place\n  ret void\n}\n",
        ]
    )


_VECTOR = "<16 x float>"
_DP, _FMA = "@llvm.x86.avx512bf16.dpbf16ps.512", "@llvm.fma.v16f32"
PAIRS = (
    f"declare {_VECTOR} {_DP}({_VECTOR}, <32 x bfloat>, <32 x bfloat>)\n"
    f"declare {_VECTOR} {_FMA}({_VECTOR}, {_VECTOR}, {_VECTOR})\n"
    + _loop("pairs", f"%b = call {_VECTOR} {_DP}({_VECTOR} %a, <32 x bfloat> %h, <32 x bfloat> %h)", 1)
    + _loop("floats", f"%b = call {_VECTOR} {_FMA}({_VECTOR} %x, {_VECTOR} %x, {_VECTOR} %a)", 2)
)


def bitcode(*texts: str) -> bytes:
    """LLVM IR modules linked into one, verified, as bitcode."""
    _start()
    own = llvm.create_context()  # LLVM's global one would keep their types and constants for ever
    module = llvm.parse_assembly(texts[0], context=own)
    for text in texts[1:]:
        module.link_in(llvm.parse_assembly(text, context=own))
    module.verify()
    return module.as_bitcode()


class Code:
    """Loaded native code; addresses stay valid while it lives. RuntimeError for bitcode that is none."""

    def __init__(self, code: bytes) -> None:
        cpu, features = host()
        self._machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=cpu, features=features, opt=2, jit=True
        )
        key = hashlib.sha256(
            b"\0".join(
                [code, cpu.encode(), features.encode(), llvmlite.__version__.encode(), OPTIONS.encode()]
            )
        ).hexdigest()
        made = read_entry(f"{key}.o")
        if made is None:
            made = self._machine.emit_object(llvm.parse_bitcode(code, context=llvm.create_context()))
            write_entry(f"{key}.o", made)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self._machine)
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(made))
        self._engine.finalize_object()

    def addresses(self, symbols: Sequence[str]) -> list[int]:
        return [self._engine.get_function_address(s) for s in symbols]

    def missing(self, symbols: Sequence[str]) -> str | None:
        """The first of `symbols` that the code does not define."""
        return next((s for s, at in zip(symbols, self.addresses(symbols), strict=True) if not at), None)

    def function(self, symbol: str, words: int, returns: bool = False) -> Callable[..., int]:
        """A function of 64-bit words as a Python callable that releases the interpreter while it runs."""
        kind = ctypes.CFUNCTYPE(ctypes.c_int64 if returns else None, *[ctypes.c_int64] * words)
        return kind(self._engine.get_function_address(symbol))
