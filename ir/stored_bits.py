"""Numbers of a few bits as a model's file has them, several in a byte: taken apart when somebody asks.

Apart they take two to four times the memory, and what reads most of them wants words (`ir.packing`).
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from .op import Array, product
from .packing import PLACES, WORD, count, packed

AT_ONCE = 1 << 22  # words that are made together


def bits_apart(stored: Array, bits: int) -> Array:
    """The numbers in bytes, those in a byte's low bits first, along the last dimension."""
    each = 8 // bits
    shifts = np.arange(each, dtype=np.uint8) * np.uint8(bits)
    parts = (stored[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return parts.reshape(*stored.shape[:-1], stored.shape[-1] * each)


class StoredBits(NDArrayOperatorsMixin):
    """Stands for an array of numbers of 2, 4 or 8 bits.

    source: uint8 [..., bytes]. numbers: how many of those in the last dimension are meant. order: of the
    source's dimensions, as they stand here. dtype: of a number, of one byte. Shape and type are known at
    once; whatever else is asked is asked of the numbers, which are taken apart for that each time.
    """

    def __init__(self, source: Array, bits: int, numbers: int, order: Sequence[int], dtype: Any) -> None:
        self.source, self.bits, self.numbers, self.order = source, bits, numbers, tuple(order)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        whole = (*source.shape[:-1], numbers)
        self.shape = tuple(whole[d] for d in self.order)
        self.ndim, self.size = len(self.shape), int(product(self.shape))
        self.nbytes = self.size * self.dtype.itemsize
        self._words: dict[int, Array] = {}

    def apart(self) -> Array:
        """The numbers."""
        made = bits_apart(self.source, self.bits)[..., : self.numbers].astype(self.dtype)
        give_back(self.source)
        return np.ascontiguousarray(made.transpose(self.order))

    def words(self, dim: int) -> Array:
        """uint32: as `packing.packed` of the numbers along a dimension; made once, as entries share it."""
        if dim not in self._words:
            along = self.numbers * self.bits // 8
            whole = self.order[dim] == self.source.ndim - 1 and along % 4 == 0 and self.source.ndim > 1
            whole = whole and self.numbers % count(self.bits) == 0 and self.size > 0
            self._words[dim] = self._in_order(along) if whole else packed(self._unsigned(), dim, self.bits)
        return self._words[dim]

    def alike(self, other: StoredBits) -> bool:
        """Whether all but the bytes is the same."""
        return self._what() == other._what()

    def _what(self) -> tuple[Any, ...]:
        return self.bits, self.order, self.shape, self.dtype, self.source.shape

    def _unsigned(self) -> Array:
        return self.apart().astype(np.uint8)

    def _in_order(self, along: int) -> Array:
        """The words, of numbers that lie behind one another in bytes: their places in a word change."""
        rows = self.source[..., :along].reshape(-1, along)
        sizes = (*self.source.shape[:-1], along // 4)
        out = np.empty([sizes[d] for d in self.order], WORD.numpy)
        # Where a word goes, by the row that it comes from.
        there = out.transpose(np.argsort(self.order))
        step = max(1, AT_ONCE // max(1, int(product(sizes[1:]))))
        inner = len(rows) // sizes[0]
        for i in range(0, sizes[0], step):
            some = np.ascontiguousarray(rows[i * inner : (i + step) * inner]).view("<u4").astype(np.uint32)
            there[i : i + step] = _placed(some, self.bits).reshape(-1, *sizes[1:])
        give_back(self.source)
        return out

    # What an array is asked: of the numbers.
    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return self.apart() if dtype is None else self.apart().astype(dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *operands: Any, **named: Any) -> Any:
        apart = [o.apart() if isinstance(o, StoredBits) else o for o in operands]
        return getattr(ufunc, method)(*apart, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # protocols that NumPy and Python try
            raise AttributeError(name)
        return getattr(self.apart(), name)

    def __getitem__(self, at: Any) -> Any:
        return self.apart()[at]

    def __len__(self) -> int:
        return self.shape[0]


def stored_bits(value: Array) -> StoredBits | None:
    """The value, if it is one that stands for numbers."""
    found = cast(Any, value)
    return found if isinstance(found, StoredBits) else None


def _placed(stored: Array, bits: int) -> Array:
    """Words with their numbers, which lie lowest bits first, in the places of `packing`."""
    masks: dict[int, int] = {}
    for j, (place, _) in enumerate(PLACES[bits]):
        shift = place - j * bits
        masks[shift] = masks.get(shift, 0) | ((1 << bits) - 1) << (j * bits)
    out = np.zeros_like(stored)
    for shift, mask in masks.items():
        part = stored & np.uint32(mask)
        out |= part << np.uint32(shift) if shift >= 0 else part >> np.uint32(-shift)
    return out


def give_back(value: Array) -> None:
    """Lets go of the memory that shows a mapped file's bytes; who asks for them reads them again."""
    base: Any = value
    while isinstance(base, np.ndarray):
        base = cast(Any, base).base
    if isinstance(base, mmap.mmap) and memoryview(base).readonly and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
