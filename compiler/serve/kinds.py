"""Kinds of values in a request's body. A kind judges a value, says what it takes, and has its JSON schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeGuard

from ..errors import quoted, shown
from .refusals import Refused

DEEPEST = 64  # levels of what is taken as it is
MOST_TEXT = 1 << 22  # characters


class Kind(Protocol):
    """at: the path of the value. `judge` gives the value as it is used from there on, or raises Refused."""

    def judge(self, value: Any, at: str) -> Any: ...

    def schema(self) -> dict[str, Any]: ...

    def __str__(self) -> str: ...


def is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def misfit(kind: Kind, value: Any, at: str) -> Refused:
    """The refusal of a value that is of another kind."""
    return Refused(f"{at}: {_described(value)} is not {kind}", at)


def _described(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quoted(value, 40)
    if isinstance(value, int | float):
        return shown(repr(value), 40)
    return "a list" if is_list(value) else "an object"


@dataclass(frozen=True)
class Text:
    """least: characters."""

    least: int = 0

    def judge(self, value: Any, at: str) -> str:
        if not isinstance(value, str) or not self.least <= len(value) <= MOST_TEXT:
            raise misfit(self, value, at)
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", **({"minLength": self.least} if self.least else {})}

    def __str__(self) -> str:
        return "a text that is not empty" if self.least else "a text"


@dataclass(frozen=True)
class Flag:
    def judge(self, value: Any, at: str) -> bool:
        if not isinstance(value, bool):
            raise misfit(self, value, at)
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}

    def __str__(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class Number:
    """From low to high, both included. whole: no fraction."""

    low: float
    high: float
    whole: bool = False

    def judge(self, value: Any, at: str) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not self.low <= value <= self.high or (self.whole and value != int(value)):
            raise misfit(self, value, at)
        return int(value) if self.whole else float(value)

    def schema(self) -> dict[str, Any]:
        low, high = (int(self.low), int(self.high)) if self.whole else (self.low, self.high)
        return {"type": "integer" if self.whole else "number", "minimum": low, "maximum": high}

    def __str__(self) -> str:
        low, high = (int(self.low), int(self.high)) if self.whole else (self.low, self.high)
        what = "a whole number" if self.whole else "a number"
        return f"{what} from {low:,} to {high:,}"


def whole(low: int, high: int) -> Number:
    return Number(low, high, True)


@dataclass(frozen=True)
class OneOf:
    """One of these texts."""

    values: tuple[str, ...]

    def judge(self, value: Any, at: str) -> str:
        if not isinstance(value, str) or value not in self.values:
            raise misfit(self, value, at)
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.values)}

    def __str__(self) -> str:
        return " or ".join(map(quoted, self.values))


@dataclass(frozen=True)
class ListOf:
    item: Kind
    least: int
    most: int

    def judge(self, value: Any, at: str) -> list[Any]:
        if not is_list(value) or not self.least <= len(value) <= self.most:
            raise misfit(self, value, at)
        return [self.item.judge(v, f"{at}[{i}]") for i, v in enumerate(value)]

    def schema(self) -> dict[str, Any]:
        bounds = {"minItems": self.least, "maxItems": self.most}
        return {"type": "array", "items": self.item.schema(), **bounds}

    def __str__(self) -> str:
        return f"a list of {self.least:,} to {self.most:,}, each {self.item}"


@dataclass(frozen=True)
class Either:
    """The first of the kinds that takes the value."""

    kinds: tuple[Kind, ...]

    def judge(self, value: Any, at: str) -> Any:
        last: Refused | None = None
        for kind in self.kinds:
            try:
                return kind.judge(value, at)
            except Refused as e:
                # One that is about a part of the value says more than that the whole is no text.
                if last is None or len(e.param or "") > len(last.param or ""):
                    last = e
        assert last is not None
        raise misfit(self, value, at) if last.param == at else last

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [kind.schema() for kind in self.kinds]}

    def __str__(self) -> str:
        return ", or ".join(map(str, self.kinds))


@dataclass(frozen=True)
class Mapped:
    """An object with names that are whole numbers of at least 0."""

    value: Kind
    most: int

    def judge(self, value: Any, at: str) -> dict[int, Any]:
        if not is_object(value) or len(value) > self.most:
            raise misfit(self, value, at)
        found: dict[int, Any] = {}
        for name, one in value.items():
            if not (name.isascii() and name.isdecimal() and len(name) < 10):
                raise Refused(f"{at}: {quoted(name, 40)} is not a token's number", at)
            found[int(name)] = self.value.judge(one, f"{at}.{name}")
        return found

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "patternProperties": {"^[0-9]{1,9}$": self.value.schema()},
            "additionalProperties": False,
            "maxProperties": self.most,
        }

    def __str__(self) -> str:
        return f"an object of at most {self.most:,} tokens' numbers, each with {self.value}"


@dataclass(frozen=True)
class Anything:
    """An object that is taken as it is. open: any other value, too."""

    open: bool = False

    def judge(self, value: Any, at: str) -> Any:
        if not self.open and not is_object(value):
            raise misfit(self, value, at)
        level, here = 0, [value]
        while here:
            if level == DEEPEST:
                raise Refused(f"{at}: more than {DEEPEST} levels of objects and lists", at)
            inner = [(v.values() if is_object(v) else v) for v in here if is_object(v) or is_list(v)]
            here, level = [v for values in inner for v in values], level + 1
        return value

    def schema(self) -> dict[str, Any]:
        return {} if self.open else {"type": "object"}

    def __str__(self) -> str:
        return "any value" if self.open else "an object"


Support = Literal["used", "ignored", "refused"]


@dataclass(frozen=True)
class Field:
    """A member of an object. support: a field that is refused may be null, or its default; what is ignored
    cannot change the answer. what: for the documentation. null: whether that stands for the default.
    """

    name: str
    kind: Kind
    what: str = ""
    default: Any = None
    support: Support = "used"
    required: bool = False
    null: bool = True

    def judge(self, value: Any, at: str) -> Any:
        if self.support == "refused":
            if value != self.default or isinstance(value, bool) != isinstance(self.default, bool):
                raise Refused(f"{at} is not supported: {self.what}", at, code="unsupported_parameter")
            return self.default
        return self.kind.judge(value, at)


@dataclass(frozen=True)
class Struct:
    """An object with these members and no others. called: what messages call it."""

    fields: tuple[Field, ...]
    called: str = "an object"

    @property
    def by_name(self) -> Mapping[str, Field]:
        return {f.name: f for f in self.fields}

    def judge(self, value: Any, at: str) -> dict[str, Any]:
        """All members, those that are left out with their defaults."""
        if not is_object(value):
            raise misfit(self, value, at) if at else Refused("the body is no JSON object")
        known, head = self.by_name, f"{at}." if at else ""
        for name in value:
            if name not in known:
                raise Refused(
                    f"{head}{shown(name, 60)} is not known here; known are {', '.join(known)}",
                    f"{head}{name}",
                    code="unknown_parameter",
                )
        found: dict[str, Any] = {}
        for name, field in known.items():
            one, path = value.get(name), f"{head}{name}"
            if one is None and (name not in value or field.null):
                if field.required:
                    raise Refused(f"{path} is missing", path, code="missing_required_parameter")
                found[name] = field.default
            else:
                found[name] = field.judge(one, path)
        return found

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {f.name: _member(f) for f in self.fields},
            "required": [f.name for f in self.fields if f.required],
            "additionalProperties": False,
        }

    def __str__(self) -> str:
        return self.called


def _member(field: Field) -> dict[str, Any]:
    said = {"description": field.what} if field.what else {}
    if field.support == "refused":
        only = [None] if field.default is None else [None, field.default]
        return {"enum": only, "description": f"not supported: {field.what}"}
    inner = field.kind.schema()
    if field.required or not field.null:
        return {**inner, **said}
    return {"anyOf": [inner, {"type": "null"}], **said, "default": field.default}


@dataclass(frozen=True)
class Tagged:
    """An object whose member `tag` says which of these it is."""

    tag: str
    structs: Sequence[tuple[str, Struct]]

    def judge(self, value: Any, at: str) -> dict[str, Any]:
        if not is_object(value):
            raise misfit(self, value, at)
        path = f"{at}.{self.tag}"
        if self.tag not in value:
            raise Refused(f"{path} is missing", path, code="missing_required_parameter")
        known = dict(self.structs)
        named = OneOf(tuple(known)).judge(value[self.tag], path)
        return known[named].judge(value, at)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [struct.schema() for _, struct in self.structs]}

    def __str__(self) -> str:
        return f"an object whose {self.tag} is {OneOf(tuple(n for n, _ in self.structs))}"


def tagged(tag: str, **structs: tuple[Field, ...]) -> Tagged:
    """Objects with a member `tag`, each with these fields besides."""
    made = [
        (name, Struct((Field(tag, OneOf((name,)), required=True), *fields)))
        for name, fields in structs.items()
    ]
    return Tagged(tag, made)
