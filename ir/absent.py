"""Constants of which only shape and type are known: a model is planned before its weights are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, cast

import numpy as np

from .op import Array, product


class ValuesNeeded(ValueError):
    """The values of a constant that has none decide what the model is."""


@dataclass(frozen=True)
class Absent:
    """Stands for an array whose values are not at hand. Turning and reshaping give another one.

    origin: the initializer it comes from, and what was done to it. order: the origin's dimensions in the
    order in which they stand here. Two are equal only where their values must be. Whoever asks for
    values gets ValuesNeeded.
    """

    origin: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(product(self.shape))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def T(self) -> Absent:
        return self.transpose(range(self.ndim)[::-1])

    def transpose(self, order: Sequence[int]) -> Absent:
        shape = tuple(self.shape[d] for d in order)
        return replace(self, shape=shape, order=tuple(self.order[d] for d in order))

    def made(self, how: str, shape: Sequence[int], dtype: np.dtype[Any]) -> Absent:
        """What an operation that is known by name, and by nothing else it reads, makes of it."""
        origin = (*self.origin, *map(str, self.order), how)
        return Absent(origin, tuple(map(int, shape)), dtype, tuple(range(len(shape))))

    def reshape(self, shape: Sequence[int] | int) -> Absent:
        """shape: with an int, as NumPy has it, one dimension."""
        return self.made("reshape", (self.size,) if isinstance(shape, int) else shape, self.dtype)

    def astype(self, dtype: Any) -> Absent:
        return self.made("astype", self.shape, np.dtype(dtype))

    def item(self) -> NoReturn:
        raise ValuesNeeded(f"the values of {self.origin[0]!r} are needed, and there are no weights")

    def __getattr__(self, name: str) -> NoReturn:
        """Whatever else an array can be asked: its values."""
        if name.startswith("_"):  # protocols that NumPy and Python try
            raise AttributeError(name)
        self.item()

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        self.item()

    def _asked(self, *_: Any) -> NoReturn:
        self.item()

    # Python looks these up in the class; without them a truth would be true, and a number a TypeError.
    __getitem__ = __len__ = __iter__ = __contains__ = _asked
    __bool__ = __int__ = __float__ = __complex__ = __index__ = __round__ = _asked
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _asked
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = _asked
    __neg__ = __abs__ = __invert__ = __and__ = __or__ = __xor__ = _asked
    __lt__ = __le__ = __gt__ = __ge__ = _asked


def absent(name: str, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Constant `name` without its values, to be kept where arrays are."""
    return cast(Array, Absent((name,), tuple(shape), dtype, tuple(range(len(shape)))))


def lacking(values: Sequence[Array]) -> Absent | None:
    """The first of `values` that is absent."""
    return next((v for v in cast(Sequence[Any], values) if isinstance(v, Absent)), None)


def folded(lack: Absent, name: str, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """Constant `name`, which would be computed from others: no other constant is known to equal it."""
    return cast(Array, lack.made(name, shape, dtype))
