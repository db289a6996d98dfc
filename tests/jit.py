"""Runs one kernel on NumPy arrays, for tests: the caller's half of the kernel's ABI."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from waferc.codegen.kernels.kernel import Kernel, kernel_for, make_module, stride_kinds
from waferc.codegen.processor import Processor
from waferc.ir.builder import FRESH
from waferc.ir.op import Array, Op
from waferc.runtime.engine import has_pairs, host, processor
from waferc.runtime.reports import NOTHING


def target_machine(opt: int = 2) -> Any:
    """The host, with the options that the runtime sets."""
    cpu, features = host()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=cpu, features=features, opt=opt, jit=True
    )


@cache
def engine() -> Any:
    """What keeps the machine code of every kernel that was asked for: many tests ask for the same ones."""
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())


@cache
def compiled(kernel: Kernel) -> Any:
    """The kernel as a ctypes function of (task, op)."""
    module = llvm.parse_assembly(make_module([kernel]), context=llvm.create_context())
    module.verify()
    engine().add_object_file(llvm.ObjectFileRef.from_data(target_machine().emit_object(module)))
    engine().finalize_object()
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
    return kind(engine().get_function_address(kernel.symbol))


def element_strides(array: Array) -> list[int]:
    return [s // array.itemsize for s in array.strides]


def axis_strides(op: Op, arrays: Sequence[Array]) -> list[dict[str, int]]:
    """Elements per step of each axis, for the operands and the result."""
    out: list[dict[str, int]] = []
    for access, array in zip((*op.reads, op.write), arrays, strict=True):
        steps: dict[str, int] = {}
        for e, pitch in zip(access, element_strides(array), strict=True):
            for a, c in e.terms:
                steps[a] = steps.get(a, 0) + c * pitch
        out.append(steps)
    return out


def call(
    kernel: Kernel,
    arrays: Sequence[Array],
    starts: Sequence[int],
    steps: Sequence[Mapping[str, int]],
    extents: Mapping[str, int],
    origins: Mapping[str, int] | None = None,
    mode: int = FRESH,
    chunk: int = 0,
    bounds: Sequence[tuple[int, int]] = (),
) -> list[int]:
    """Runs the kernel; the words of its error record (zeros when it is not guarded).

    starts: addresses at iteration 0. bounds: valid byte addresses, for guarded kernels.
    """
    axes = kernel.signature.axes
    record = np.zeros(4, np.int64)
    words = [*starts, *(extents[a] for a in axes), *((origins or {}).get(a, 0) for a in axes), mode, chunk]
    if kernel.signature.guard:
        for low, end in bounds:
            words += [low, end]
        words.append(record.ctypes.data)
    reports = np.tile(np.array(NOTHING, np.int64), (max(1, len(kernel.op.bounds)), 1))
    if kernel.signature.guard or kernel.signature.reports:
        words.append(reports.ctypes.data)
    assert len(words) == kernel.signature.layout.words(kernel.signature.guard)
    task = np.array(words, np.int64)
    op = np.array([s.get(a, 0) for s in steps for a in axes] or [0], np.int64)
    compiled(kernel)(task.ctypes.data, op.ctypes.data)
    assert len(arrays) == len(starts)  # and are alive until here
    return record.tolist()


def padded(op: Op, operand: int, array: Array) -> tuple[Array, int]:
    """`array` with `op.fill` around it wherever the op reads past it, and the address of iteration 0."""
    box = op.need(operand, {a: (0, n) for a, n in op.axes})
    before = [max(0, -lo) for lo, _ in box]
    after = [max(0, hi - n) for (_, hi), n in zip(box, array.shape, strict=True)]
    if any(before) or any(after):
        fill = np.asarray(op.fill, array.dtype)
        array = np.pad(array, list(zip(before, after, strict=True)), constant_values=fill)
    at = sum((e.const + b) * s for e, b, s in zip(op.reads[operand], before, array.strides, strict=True))
    return array, array.ctypes.data + at


def run(
    op: Op,
    operands: Sequence[Array],
    out_shape: Sequence[int] | None = None,
    lanes: int | None = None,
    lane_axis: str | None = None,
    out: Array | None = None,
    mode: int = FRESH,
    chunk: int = 0,
    guard: bool = False,
    part: str = "",
    dot2: bool | None = None,
) -> Array:
    """The op's kernel on one tile that is all of it; the result may be given to be accumulated onto.

    AssertionError when a guarded kernel records a violation.
    """
    extents = dict(op.axes)
    if out is None:
        box = op.hold({a: (0, n) for a, n in op.axes})
        out = np.zeros(
            tuple(out_shape) if out_shape is not None else [hi for _, hi in box], op.out_type.numpy
        )
    assert out.dtype == op.out_type.numpy
    ready = [padded(op, j, x) for j, x in enumerate(operands)]
    for (x, _), t in zip(ready, op.in_types, strict=True):
        assert x.dtype == t.numpy
    arrays = [*(x for x, _ in ready), out]
    at = sum(e.const * s for e, s in zip(op.write, out.strides, strict=True))
    starts = [*(a for _, a in ready), out.ctypes.data + at]
    steps = axis_strides(op, arrays)
    along = op.lane_axis(extents) if lane_axis is None else lane_axis
    native = has_pairs() if dot2 is None else dot2
    kinds = stride_kinds(op, steps, along)
    kernel = kernel_for(op, along, kinds, Processor(lanes or processor().lanes, native), guard, part)
    bounds = [np.lib.array_utils.byte_bounds(a) for a in arrays]
    record = call(kernel, arrays, starts, steps, extents, None, mode, chunk, bounds)
    assert record == [0, 0, 0, 0], f"guard: {record}"
    return out
