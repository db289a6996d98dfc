"""JSON values as the data that annotations describe.

A class says once, in its fields' annotations, what it is made of; what may stand in a file follows from them.
Every type is checked, nothing is converted, evaluated or unpickled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from ...ir.affine import Affine
from ...ir.dtypes import DType, by_name

MOST = 1 << 64  # of any whole number
SHOWN = 60  # characters of a value in a message

Reader = Callable[[Any], Any]


class Misfit(ValueError):
    """A value that is not what its place asks for. path: of the place, ".nodes[3].op"."""

    def __init__(self, what: str, path: str = "") -> None:
        self.what, self.path = what, path
        super().__init__(f"{path.removeprefix('.')}: {what}" if path else what)

    def inside(self, part: str | int) -> Misfit:
        """The same, seen from outside."""
        return Misfit(self.what, (f"[{part}]" if isinstance(part, int) else f".{part}") + self.path)


def encode(value: Any) -> Any:
    """A JSON value for numbers, strings, tuples, mappings, DTypes and our dataclasses."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, DType):
        return {"type": value.name}
    if isinstance(value, Affine):
        return {"affine": [[[a, c] for a, c in value.terms], value.const]}
    if isinstance(value, tuple | list):
        return [encode(v) for v in cast(tuple[Any, ...], value)]
    if isinstance(value, Mapping):
        return {"map": [[encode(k), encode(v)] for k, v in cast(Mapping[Any, Any], value).items()]}
    if is_dataclass(value) and not isinstance(value, type):
        return {
            "class": type(value).__name__,
            "fields": {f.name: encode(getattr(value, f.name)) for f in fields(value)},
        }
    raise TypeError(f"cannot encode {type(value).__name__}")


def decode(value: Any, hint: Any) -> Any:
    """The value of type `hint` that `encode` wrote; lists become tuples. Raises Misfit."""
    return _reader(hint)(value)


def member(data: Any, name: str, hint: Any) -> Any:
    """`decode` of one member of an object."""
    if not isinstance(data, dict):
        raise _misfit("an object", data)
    if name not in data:
        raise Misfit("is missing", f".{name}")
    try:
        return decode(data[name], hint)
    except Misfit as e:
        raise e.inside(name) from None


def classes(base: type[Any]) -> dict[str, type[Any]]:
    """A class and all that derive from it, by name."""
    out: dict[str, type[Any]] = {}
    todo = [base]
    while todo:
        one = todo.pop()
        if out.setdefault(one.__name__, one) is not one:
            raise TypeError(f"two classes are called {one.__name__}: a file could not tell them apart")
        todo += one.__subclasses__()
    return out


def _misfit(wanted: str, value: Any) -> Misfit:
    text = repr(value)
    return Misfit(f"{text if len(text) <= SHOWN else text[: SHOWN - 3] + '...'} is not {wanted}")


@cache
def _reader(hint: Any) -> Reader:
    """What reads a value of an annotated type. TypeError for a type that has no form in a file."""
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _one_of(inner)
    if origin in (Union, UnionType):
        return _any_of(hint, inner)
    if origin is tuple:
        return _list_of(inner[0]) if inner[1:] == (...,) else _row_of(inner)
    if origin is not None and issubclass(origin, Mapping):
        return _map_of(*inner)
    if is_dataclass(hint):
        return _instance_of(cast(type[Any], hint))
    raise TypeError(f"no form in a file for {hint}")


# -- plain values ---------------------------------------------------------------------------------


def _of_type(kind: type[Any], wanted: str) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise _misfit(wanted, value)
        return value

    return read


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise _misfit("a whole number", value)
    if abs(value) > MOST:
        raise Misfit(f"a number of {value.bit_length()} bits")
    return value


def _number(value: Any) -> float | int:
    """A float as `encode` writes it, which may be NaN or infinite; any other number is finite."""
    match value:
        case {"float": str() as text} if len(value) == 1:
            try:
                return float.fromhex(text)
            except (ValueError, OverflowError):
                raise _misfit("a float", text) from None
        case float() if math.isfinite(value):
            return value
        case int() if not isinstance(value, bool):
            return _whole(value)
        case _:
            raise _misfit("a number", value)


def _element_type(value: Any) -> DType:
    match value:
        case {"type": str() as name} if len(value) == 1:
            try:
                return by_name(name)
            except KeyError:
                pass
        case _:
            pass
    raise _misfit("an element type", value)


def _affine(value: Any) -> Affine:
    match value:
        case {"affine": [terms, const]} if len(value) == 1:
            made = Affine(decode(terms, tuple[tuple[str, int], ...]), _whole(const))
        case _:
            raise _misfit("an affine expression", value)
    if len(set(made.axes)) < len(made.terms) or any(c == 0 for _, c in made.terms):
        raise _misfit("a sum with each axis once", value)
    return made


def _as_it_is(value: Any) -> Any:
    return value


_PLAIN: dict[Any, Reader] = {
    Any: _as_it_is,  # the caller's to judge
    NoneType: _of_type(NoneType, "null"),
    bool: _of_type(bool, "true or false"),
    str: _of_type(str, "a text"),
    int: _whole,
    float: _number,
    DType: _element_type,
    Affine: _affine,
}


# -- values of values -----------------------------------------------------------------------------


def _one_of(values: tuple[Any, ...]) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not str or value not in values:
            raise _misfit(f"one of {', '.join(map(str, values))}", value)
        return value

    return read


def _any_of(hint: Any, kinds: tuple[Any, ...]) -> Reader:
    own = [k for k in kinds if is_dataclass(k) and k not in _PLAIN]
    named = {cast(type[Any], k).__name__: k for k in own}

    def read(value: Any) -> Any:
        if (
            isinstance(value, dict)
            and isinstance(name := cast(Any, value).get("class"), str)
            and name in named
        ):
            return decode(value, named[name])  # its own message says which field
        for kind in kinds:
            try:
                return decode(value, kind)
            except Misfit:
                continue
        raise _misfit(str(hint).replace("waferc.ir.ops.", ""), value)

    return read


def _list_of(kind: Any) -> Reader:
    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _misfit("a list", value)
        one, out = _reader(kind), list[Any]()
        for i, v in enumerate(cast(list[Any], value)):
            try:
                out.append(one(v))
            except Misfit as e:
                raise e.inside(i) from None
        return tuple(out)

    return read


def _row_of(kinds: tuple[Any, ...]) -> Reader:
    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(cast(list[Any], value)) != len(kinds):
            raise _misfit(f"a list of {len(kinds)}", value)
        out = list[Any]()
        for i, (kind, v) in enumerate(zip(kinds, cast(list[Any], value), strict=True)):
            try:
                out.append(decode(v, kind))
            except Misfit as e:
                raise e.inside(i) from None
        return tuple(out)

    return read


def _map_of(key: Any, kind: Any) -> Reader:
    pairs = _list_of(tuple[key, kind])

    def read(value: Any) -> dict[Any, Any]:
        match value:
            case {"map": items} if len(value) == 1:
                return dict(pairs(items))
            case _:
                raise _misfit("a map", value)

    return read


def _instance_of(base: type[Any]) -> Reader:
    def read(value: Any) -> Any:
        match value:
            case {"class": str() as name, "fields": found} if len(value) == 2 and isinstance(found, dict):
                made, given = _named(base, name), cast(dict[str, Any], found)
            case _:
                raise _misfit(f"a {base.__name__}", value)
        hints = _hints(made)
        if unknown := given.keys() - hints.keys():
            raise Misfit(f"a {name} has no such field", f".fields.{min(unknown)[:SHOWN]}")
        out = dict[str, Any]()
        for field, v in given.items():
            try:
                out[field] = decode(v, hints[field])
            except Misfit as e:
                raise e.inside(field).inside("fields") from None
        try:
            return made(**out)
        except TypeError as e:  # fields without a default that are missing
            raise Misfit(str(e).removeprefix(f"{name}.__init__() ")) from None

    return read


def _named(base: type[Any], name: str) -> type[Any]:
    made = classes(base).get(name)
    if made is None:
        raise _misfit(f"a {base.__name__} that waferc has", name)
    return made


@cache
def _hints(made: type[Any]) -> dict[str, Any]:
    """The annotations of a class's fields."""
    hints = get_type_hints(made)
    return {f.name: hints[f.name] for f in fields(made)}
