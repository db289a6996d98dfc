"""Inputs of runs: read from files, made from a seed, or several calls in a row."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from ...codegen.artifact.strict_json import MOST, parsed
from ...ir.disk import read_regular
from ...ir.dtypes import is_float, of_numpy
from ...ir.op import Array
from ...runtime.program import InputError, Port, misshaped, mistyped
from ..errors import InvalidInput, UsageError, quoted, shown
from .array_files import StoredArray, array_archive, array_file

WIDEST = 16  # bytes of an element of a number

Feed = dict[str, Array]
"""Input name -> value: what one call is given."""


@dataclass(frozen=True)
class Feeding:
    """Where inputs come from. Files win over `seed`, which makes all that no file gives.

    ranges: name -> (low, high): uniform in [low, high). steps: a file whose arrays' first axis
    counts the calls.
    """

    files: Mapping[str, str] = field(default_factory=dict[str, str])
    archive: str | None = None
    seed: int | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    steps: str | None = None

    def calls(
        self,
        ports: Sequence[Port],
        states: Collection[str] = (),
        constants: Collection[str] = (),
        others: Collection[str] = (),
    ) -> list[Feed]:
        """One feed per call of a program with inputs `ports`; `states`, and inputs that are `constants` of
        it, only where a file gives them. others: inputs that no seed makes, such as of str.

        Raises UsageError for an unknown name or inputs that do not match, InvalidInput for a damaged file.
        """
        names = [*(p.name for p in ports), *constants, *others]
        for name in [*self.files, *self.ranges]:
            _known(name, names)
        by_name = {p.name: p for p in ports}
        given: Feed = {}
        if self.archive is not None:
            given |= _read_all(self.archive, names, by_name)
        for name, path in self.files.items():
            if name in others and path.lower().endswith(".json"):
                given[name] = load_map(path)
                continue
            with array_file(path) as stored:
                given[name] = _read(stored, name, by_name.get(name))
        stepped = {} if self.steps is None else _read_all(self.steps, names, by_name, calls=True)
        for name in others:
            if name not in {**given, **stepped}:
                raise UsageError(f"no value for input {quoted(name)}, which no seed makes; give --input")
        wanted = [p for p in ports if p.name not in states]
        return [self._call(wanted, {**given, **one}, i) for i, one in enumerate(_calls(stepped))]

    def _call(self, wanted: Sequence[Port], given: Feed, number: int) -> Feed:
        missing = [p for p in wanted if p.name not in given]
        if missing and self.seed is None:
            p = missing[0]
            what = f"{quoted(p.name)}, {p.dtype}{list(p.shape)}"
            raise UsageError(f"no value for input {what}; give --input, --inputs, --steps or --random 0")
        typed = {p.name: _typed(given[p.name], p) for p in wanted if p.name in given}
        return given | typed | random_feed(missing, [self.seed or 0, number], self.ranges)


def _typed(array: Array, port: Port) -> Array:
    """What a file of NumPy's holds for a type that NumPy lacks, bytes, as that type."""
    bare = array.dtype == np.dtype(f"V{port.dtype.itemsize}")
    return array.view(port.dtype) if bare else array


def random_feed(
    ports: Sequence[Port], seed: Sequence[int], ranges: Mapping[str, tuple[float, float]]
) -> Feed:
    """A value for each port: floats from the normal distribution, others 0 or 1; uniform in its range."""
    rng = np.random.default_rng(seed)
    return {p.name: _random(p, rng, ranges.get(p.name)) for p in ports}


def _calls(stepped: Feed) -> Sequence[Feed]:
    """The arrays of --steps cut along their first axis; one empty call without any."""
    if not stepped:
        return [{}]
    count = len(next(iter(stepped.values())))
    return [{name: np.asarray(a[i]) for name, a in stepped.items()} for i in range(count)]


def _judge_calls(shapes: Mapping[str, Sequence[int]]) -> None:
    """Raises UsageError for arrays of --steps that count no calls, or not the same number."""
    counts = {name: shape[0] if shape else -1 for name, shape in shapes.items()}
    first, count = next(iter(counts.items()), ("", 0))
    for name, other in counts.items():
        if other < 1:
            raise UsageError(f"--steps: {quoted(name)} has no calls along its first axis")
        if other != count:
            raise UsageError(f"--steps: {quoted(first)} has {count} calls, {quoted(name)} has {other}")


def _random(port: Port, rng: np.random.Generator, limits: tuple[float, float] | None) -> Array:
    floating = is_float(port.dtype)
    drawn: Any
    if limits is None:
        drawn = rng.standard_normal(port.shape) if floating else rng.integers(0, 2, port.shape)
    elif floating:
        drawn = rng.uniform(*limits, port.shape)
    else:
        low, high = int(limits[0]), int(limits[1])
        least, most = (0, 1) if port.dtype.kind == "b" else _span(port)
        if not least <= low < high <= most + 1:
            raise UsageError(f"--range {shown(port.name)}={low}:{high}: {port.dtype} holds {least} to {most}")
        drawn = rng.integers(low, high - 1, port.shape, dtype=_wide(port), endpoint=True)
    return np.asarray(drawn).astype(port.dtype)


def _span(port: Port) -> tuple[int, int]:
    least, most = of_numpy(port.dtype).limits
    return int(least), int(most)


def _wide(port: Port) -> type[np.int64] | type[np.uint64]:
    return np.uint64 if of_numpy(port.dtype).kind == "u" else np.int64


def _known(name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise UsageError(f"no input {quoted(name)}; the inputs are {', '.join(map(quoted, names))}")


def load_array(path: str) -> Array:
    """The array in a .npy file. Raises OSError, InvalidInput."""
    with array_file(path) as stored:
        return stored.read()


def load_map(path: str) -> Any:
    """A map, or a sequence of maps, in a .json file. Raises OSError, InvalidInput."""
    try:
        value = parsed(read_regular(path, MOST))
    except ValueError as e:
        raise InvalidInput(f"{quoted(path)} is not JSON: {shown(str(e))}") from None
    maps = cast(list[Any], value if isinstance(value, list) else [value])
    if all(isinstance(m, dict) for m in maps):
        return cast(Any, value)
    raise InvalidInput(f"{quoted(path)} holds neither an object, for a map, nor a list of objects")


def _read_all(path: str, names: Sequence[str], ports: Mapping[str, Port], calls: bool = False) -> Feed:
    """The arrays in an .npz file, once each is as its input needs. calls: their first axis counts them."""
    with array_archive(path, lambda name: _known(name, names)) as stored:
        if calls:
            _judge_calls({name: s.shape for name, s in stored.items()})
        return {name: _read(s, name, ports.get(name), calls) for name, s in stored.items()}


def _read(stored: StoredArray, name: str, port: Port | None, calls: bool = False) -> Array:
    """Its elements. Raises InputError for what is larger than the input, before any is read."""
    if port is not None:
        # What else is wrong the program says, where it gets them.
        shape = stored.shape[1:] if calls else stored.shape
        if math.prod(shape) > math.prod(port.shape):
            raise InputError(misshaped(name, shape, port))
        if stored.dtype.itemsize > WIDEST:
            raise InputError(mistyped(name, stored.dtype, port))
    if port is None or calls:
        stored.need_modest()
    return stored.read()
