"""Native code: LLVM IR or bitcode to callable addresses, through a cache on disk.

The only place that uses llvmlite's binding. A cache entry is keyed by the code, the host's CPU and
llvmlite's version.
"""

from __future__ import annotations

import ctypes
import hashlib
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
    return Processor(lanes, dot2=bool(features.get("avx512bf16")))


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
