"""A study: which models, wafers and options are swept, read from TOML.

title = "A hop of 1 against a link twice as wide"
models = ["llama-3.1-8b"]     # shapes, or .onnx files beside the study
points = "each"               # one parameter moved at a time; "grid": all combinations
base = "wse3"                 # the wafer that is changed
pareto = ["tokens_s", "sram_gb"]
map = ["hop", "wavelet_bytes"]
[wafer]                       # its fields; others are moved from where each has its first value
hop = [2, 1]
"vector.fma_mixed" = [2.92, 0.5]
dead = [0, 0.01]              # a share of its cores, at random, the same ones every time
[options]
weights = ["f16"]
context = [2048]
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from ...ir.disk import read_regular
from ...placement.machine.wafer import Wafer, WaferError
from ..errors import InvalidInput, quoted
from ..request import Request, Weights

MOST_BYTES = 1 << 20  # of a study
MOST_POINTS = 1 << 14
DEAD, SEED = "dead", 0
VECTOR = "vector."
How = Literal["grid", "each"]
KEYS = ("title", "models", "points", "base", "pareto", "map", "wafer", "options")
OPTIONS: Mapping[str, Any] = {"weights": "f16", "context": 2048, "tokens": 1, "acceptance": 0.0}
"""By option its value where a study says nothing. tokens: of a call, the next one and guesses that it judges;
acceptance: the share of guesses that are right where those before are."""

Value = float | int | str
Values = Mapping[str, Value]
COLUMNS = ("tokens_s", "many_tokens_s", "cycles", "sram_gb", "wafers", "joules", "dollars")


@dataclass(frozen=True)
class Study:
    """values: by parameter what it is set to, first of all where others are moved from. names of the wafer's
    come first, those of options after them."""

    title: str
    models: tuple[str, ...]
    base: Wafer
    values: Mapping[str, tuple[Value, ...]]
    points: How
    pareto: tuple[str, str]
    map: tuple[str, ...]
    folder: Path

    def combinations(self) -> Iterator[tuple[str, dict[str, Value]]]:
        """(model, what each parameter is) of every point, in order."""
        names = list(self.values)
        start = {n: v[0] for n, v in self.values.items()}
        if self.points == "grid":
            every = [dict(zip(names, of, strict=True)) for of in product(*self.values.values())]
        else:
            every = [start, *({**start, n: v} for n in names for v in self.values[n][1:])]
        yield from ((model, of) for model in self.models for of in every)


def wafer_of(base: Wafer, values: Values) -> Wafer:
    """The wafer with its parameters set. Raises InvalidInput for one that cannot be."""
    own: dict[str, Any] = {k: v for k, v in values.items() if k in SCALARS}
    vector = dict(base.vector)
    for k, v in values.items():
        if k.startswith(VECTOR):
            kind = k.removeprefix(VECTOR)
            vector[kind] = (vector[kind][0], float(v))
    made = replace(base, **own, vector=vector)
    try:
        made.check()
    except WaferError as e:
        raise InvalidInput(str(e)) from None
    share = float(values.get(DEAD, 0.0))
    if share:
        at = np.random.default_rng(SEED).permutation(made.cores)[: round(share * made.cores)]
        cores = np.stack([at % made.width, at // made.width], 1).tolist()
        made = replace(made, dead_cores=tuple((x, y) for x, y in cores))
    return made


SCALARS = frozenset(f.name for f in fields(Wafer) if f.type in ("int", "float"))
WHOLE = frozenset(f.name for f in fields(Wafer) if f.type == "int")


def load(path: str | Path) -> Study:
    """Raises InvalidInput, UsageError, OSError."""
    where = quoted(str(path))
    try:
        data: dict[str, Any] = tomllib.loads(read_regular(Path(path), MOST_BYTES).decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as e:
        raise InvalidInput(f"{where}: not TOML: {e}") from None
    if unknown := sorted(set(data) - set(KEYS)):
        raise InvalidInput(f"{where}: unknown key {quoted(unknown[0])}; known are {', '.join(KEYS)}")
    models = _words(data.get("models"), f"{where}: models", 1)
    base = Request(wafer=_word(data.get("base", "wse3"), f"{where}: base")).machine()
    values = _values(data, base, where)
    how = data.get("points", "grid")
    if how not in get_args(How):
        raise InvalidInput(f"{where}: points is one of {', '.join(get_args(How))}, not {quoted(str(how))}")
    pareto = _words(data.get("pareto", ["tokens_s", "sram_gb"]), f"{where}: pareto", 2)
    over = _words(data.get("map", []), f"{where}: map", 0)
    for name in pareto:
        if name not in COLUMNS or len(pareto) != 2:
            raise InvalidInput(f"{where}: pareto is two of {', '.join(COLUMNS)}")
    if len(over) not in (0, 2) or not set(over) <= set(values):
        raise InvalidInput(f"{where}: map is two of the parameters: {', '.join(values)}")
    made = Study(
        _word(data.get("title", Path(path).stem), f"{where}: title"),
        models, base, values, cast(How, how), (pareto[0], pareto[1]), over, Path(path).parent,
    )  # fmt: skip
    count = len(models)
    for of in values.values():
        count = count * len(of) if how == "grid" else count + len(models) * (len(of) - 1)
    if count > MOST_POINTS:
        raise InvalidInput(f"{where}: {count:,} points; at most {MOST_POINTS:,} are swept")
    for _, of in made.combinations():
        wafer_of(base, of)
    return made


def _values(data: Mapping[str, Any], base: Wafer, where: str) -> dict[str, tuple[Value, ...]]:
    out: dict[str, tuple[Value, ...]] = {}
    for table in ("wafer", "options"):
        given = data.get(table, {})
        if not isinstance(given, dict):
            raise InvalidInput(f"{where}: {table} is not a table")
        for name, of in cast(dict[str, Any], given).items():
            known = _known(name, base) if table == "wafer" else name in OPTIONS
            if not known:
                names = ", ".join((*sorted(SCALARS), DEAD, VECTOR + "KIND") if table == "wafer" else OPTIONS)
                raise InvalidInput(f"{where}: {table} has no {quoted(name)}; known: {names}")
            listed = cast(list[Any], of) if isinstance(of, list) else [of]
            if not listed:
                raise InvalidInput(f"{where}: {table}.{name} has no value")
            out[name] = tuple(_value(name, v, f"{where}: {table}.{name}") for v in listed)
            if len(set(out[name])) < len(listed):
                raise InvalidInput(f"{where}: {table}.{name} has a value twice")
    return out


def _known(name: str, base: Wafer) -> bool:
    return name in SCALARS or name == DEAD or name.removeprefix(VECTOR) in base.vector


def _value(name: str, v: Any, where: str) -> Value:
    if name == "weights":
        if v not in get_args(Weights):
            raise InvalidInput(f"{where}: {quoted(str(v))} is none of {', '.join(get_args(Weights))}")
        return str(v)
    whole = name in WHOLE or name in ("context", "tokens")
    low, high = LIMITS.get(name, (0, 1e15))
    if isinstance(v, bool) or not isinstance(v, int if whole else int | float) or not low <= v <= high:
        kind = "a whole number" if whole else "a number"
        raise InvalidInput(f"{where}: {quoted(str(v))} is not {kind} from {low:g} to {high:g}")
    return v


LIMITS: Mapping[str, tuple[float, float]] = {
    "context": (2, 1 << 20),
    "tokens": (1, 64),
    "acceptance": (0, 1),
    DEAD: (0, 0.1),
}


def _word(given: Any, where: str) -> str:
    if not isinstance(given, str):
        raise InvalidInput(f"{where} is not a text")
    return given


def _words(given: Any, where: str, least: int) -> tuple[str, ...]:
    listed: Sequence[Any] = cast(list[Any], given) if isinstance(given, list) else ()
    if len(listed) < least or not isinstance(given, list) or not all(isinstance(w, str) for w in listed):
        raise InvalidInput(f"{where} is not a list of at least {least} texts")
    return tuple(listed)
