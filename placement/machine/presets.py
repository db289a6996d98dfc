"""Wafers by name, from TOML files and by their sides."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

from ...ir.disk import read_regular
from .wafer import Wafer, WaferError

FOLDER = Path(__file__).parent / "presets"
GRID = re.compile(r"(\d{1,5})x(\d{1,5})")
MOST_BYTES = 1 << 24  # of a TOML file: dead cores are listed one by one
MOST_PARTS = 100  # of a name in it
Form = tuple[str, Callable[[Any], bool]]  # in words, and whether a value has it


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _row(*kinds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Arrays of so many values, each of its kind."""

    def holds(value: Any) -> bool:
        row = cast(list[Any], value) if isinstance(value, list) else []
        return len(row) == len(kinds) and all(k(v) for k, v in zip(kinds, row, strict=True))

    return holds


def _list(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Arrays of values of a kind."""
    return lambda value: isinstance(value, list) and all(map(kind, cast(list[Any], value)))


def _table(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Tables of values of a kind."""
    return lambda value: isinstance(value, dict) and all(map(kind, cast(dict[str, Any], value).values()))


NUMBER: Form = "a number", _number
FORMS: dict[str, Form] = {
    # Of the fields of a wafer that are not plain numbers.
    "name": ("a text", _text),
    "vector": ("a table of [setup, elements per cycle]", _table(_row(_number, _number))),
    "clocks_hz": ("a list of numbers", _list(_number)),
    "assumed": ("a list of names", _list(_text)),
    "fitted": ("a table of texts", _table(_text)),
    "dead_cores": ("a list of [x, y]", _list(_row(_whole, _whole))),
    "dead_links": ("a list of [x, y, direction]", _list(_row(_whole, _whole, _text))),
    **{f.name: ("a whole number", _whole) for f in fields(Wafer) if f.type == "int"},
}
SQUARES = ("8x8", "16x16", "32x32", "64x64", "128x128")


def described() -> tuple[str, ...]:
    """The presets that have constants of their own: each is a TOML file."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def presets() -> tuple[str, ...]:
    """The names of all presets: those with constants of their own, and squares of some sizes."""
    return *described(), *SQUARES


@cache
def preset(name: str) -> Wafer:
    """The wafer called `name`: one that is described, or WIDTHxHEIGHT with wse3's constants.

    Raises WaferError for any other name.
    """
    if grid := GRID.fullmatch(name):
        wafer = replace(preset("wse3"), name=name, width=int(grid[1]), height=int(grid[2]))
        wafer = replace(wafer, fabric_width=wafer.width, fabric_height=wafer.height)
        wafer.check()
        return wafer
    if name not in described():
        raise WaferError(
            f"no wafer called {name!r}; try {', '.join(presets())}, any WIDTHxHEIGHT, or a TOML file"
        )
    return parse((FOLDER / f"{name}.toml").read_text("utf-8"), name)


def parse(text: str, where: str) -> Wafer:
    """A wafer from TOML. `base = "NAME"` starts from a preset. Raises WaferError."""
    if any(line.partition("=")[0].count(".") > MOST_PARTS for line in text.splitlines()):
        raise WaferError(f"{where}: not a wafer: a name of more than {MOST_PARTS} parts")  # slow to read
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        raise WaferError(f"{where}: not TOML: {e}") from None
    base = data.pop("base", None)
    known = {f.name for f in fields(Wafer)}
    if unknown := sorted(set(data) - known):
        raise WaferError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")
    for name, value in data.items():
        says, holds = FORMS.get(name, NUMBER)
        if not holds(value):
            raise WaferError(f"{where}: {name} = {repr(value)[:40]} is not {says}")
    try:
        vector = {k: (float(v[0]), float(v[1])) for k, v in data.pop("vector", {}).items()}
        for key in ("dead_cores", "dead_links", "assumed", "clocks_hz"):
            if key in data:
                given: list[Any] = list(data[key])
                data[key] = tuple(_tuple(v) for v in given)
        if base is not None:
            start = preset(str(base))
            named = {*data, *(f"vector.{kind}" for kind in vector)} - {*data.get("fitted", ())}
            own = {
                "name": where,
                # Whoever gives a constant anew says where from; else it is assumed.
                "fitted": {k: v for k, v in start.fitted.items() if k not in named},
                "assumed": (*start.assumed, *(k for k in start.fitted if k in named)),
            }
            wafer = replace(start, **{**own, **data, "vector": {**start.vector, **vector}})
        else:
            wafer = Wafer(**data, vector=vector)
        wafer.check()
    except (TypeError, ValueError, IndexError) as e:
        if isinstance(e, WaferError):
            raise
        raise WaferError(f"{where}: {str(e).replace('Wafer.__init__()', 'wafer file')}") from None
    return wafer


def _tuple(value: Any) -> Any:
    """A TOML array as a tuple, anything else as it is."""
    return tuple(value) if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def load(name: str) -> Wafer:
    """A preset by name, or a wafer from the TOML file at that path. Raises WaferError, OSError."""
    path = Path(name)
    if is_preset(name) or not (path.suffix == ".toml" or path.exists()):
        return preset(name)
    try:
        return parse(read_regular(path, MOST_BYTES).decode(), str(path))
    except UnicodeDecodeError as e:
        raise WaferError(f"{name}: not TOML: {e}") from None


def is_preset(name: str) -> bool:
    """Whether `preset` knows it, and no file is asked for."""
    return name in presets() or GRID.fullmatch(name) is not None
