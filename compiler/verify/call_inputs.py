"""Inputs of runs: read from files, made from a seed, or several calls in a row."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...ir.dtypes import is_float, of_numpy
from ...ir.op import Array
from ...runtime.program import Port
from ..errors import InvalidInput, UsageError, quoted, shown

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
        given: Feed = {}
        if self.archive is not None:
            given |= _archive(self.archive, names)
        for name, path in self.files.items():
            read = load_map if name in others and path.lower().endswith(".json") else load_array
            given[name] = read(path)
        stepped = {} if self.steps is None else _archive(self.steps, names)
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
    counts = {name: len(a) if a.ndim else -1 for name, a in stepped.items()}
    first, count = next(iter(counts.items()))
    for name, other in counts.items():
        if other < 1:
            raise UsageError(f"--steps: {quoted(name)} has no calls along its first axis")
        if other != count:
            raise UsageError(f"--steps: {quoted(first)} has {count} calls, {quoted(name)} has {other}")
    return [{name: np.asarray(a[i]) for name, a in stepped.items()} for i in range(count)]


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


def _archive(path: str, names: Sequence[str]) -> Feed:
    loaded = _open(path)
    if isinstance(loaded, np.ndarray):
        raise InvalidInput(f"{quoted(path)} holds one array, not an .npz of named ones")
    with loaded:
        for name in loaded.files:
            _known(name, names)
        return {name: _entry(loaded, name, path) for name in loaded.files}


def _entry(loaded: Any, name: str, path: str) -> Array:
    try:
        return np.asarray(loaded[name])
    except (ValueError, zipfile.BadZipFile, EOFError) as e:
        raise InvalidInput(f"{quoted(path)}: array {quoted(name)} is damaged: {shown(str(e))}") from None


def load_array(path: str) -> Array:
    """The array in a .npy file. Raises OSError, InvalidInput."""
    loaded = _open(path)
    if isinstance(loaded, np.lib.npyio.NpzFile):
        loaded.close()
        raise InvalidInput(f"{quoted(path)} is an .npz; give it with --inputs")
    return loaded


def load_map(path: str) -> Any:
    """A map, or a sequence of maps, in a .json file. Raises OSError, InvalidInput."""
    try:
        value: Any = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as e:
        raise InvalidInput(f"{quoted(path)} is not JSON: {shown(str(e))}") from None
    maps = cast(list[Any], value if isinstance(value, list) else [value])
    if all(isinstance(m, dict) for m in maps):
        return cast(Any, value)
    raise InvalidInput(f"{quoted(path)} holds neither an object, for a map, nor a list of objects")


def _open(path: str) -> Any:
    try:
        return np.load(Path(path), allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as e:
        raise InvalidInput(
            f"{quoted(path)} is no NumPy file: {shown(str(e).splitlines()[0] if str(e) else 'empty')}"
        ) from None
