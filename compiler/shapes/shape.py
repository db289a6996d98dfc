"""What a published model's graph is made of: its sizes, read from `models.toml` or a file like it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from ...ir.disk import read_regular
from ..errors import InvalidInput, UsageError, quoted

FILE = Path(__file__).parent / "models.toml"
MOST_BYTES = 1 << 20  # of a file of shapes
MOST = 1 << 24  # of any size in it


@dataclass(frozen=True)
class Grouped:
    """Attention with `kv_heads` heads of keys and values, shared by `heads` heads of queries.

    head: elements of one. rotary: how many of them are turned by their position, all by default. norm: RMS
    normalisation of queries and keys, of each head or of all heads together. biased: Q, K and V have biases;
    output_biased: so has the projection behind them. sinks: softmax's sum has one more term for each head.
    """

    KEY: ClassVar[str] = "grouped"
    heads: int
    kv_heads: int
    head: int = 128
    rotary: int = 0
    norm: Literal["", "head", "all"] = ""
    biased: bool = False
    output_biased: bool = False
    sinks: bool = False

    @property
    def turned(self) -> int:
        return self.rotary or self.head

    @property
    def cached(self) -> int:
        """Elements that a position adds to the caches of a layer."""
        return 2 * self.kv_heads * self.head


@dataclass(frozen=True)
class Latent:
    """Attention whose cache holds one vector of `latent` elements and one of `rotary` for all heads.

    query: elements that queries are made of. plain: of a head's query, those without a position. value: of a
    head's result.
    """

    KEY: ClassVar[str] = "latent"
    heads: int
    query: int
    latent: int
    plain: int
    rotary: int
    value: int

    @property
    def cached(self) -> int:
        return self.latent + self.rotary


@dataclass(frozen=True)
class Experts:
    """A feed-forward layer of `count` experts `width` wide, `chosen` of them for a token, `shared` always.

    gate: how chosen ones are weighed: "softmax" over them; "sigmoid" of each over their sum, chosen with a
    bias; "input": the expert's input is multiplied by the sigmoid. scale: of the weights. clipped: SiLU is
    x sigmoid(1.702 x), its operands clipped at 7, and the products have biases.
    """

    count: int
    chosen: int
    width: int
    shared: int = 0
    gate: Literal["softmax", "sigmoid", "input"] = "softmax"
    scale: float = 1.0
    clipped: bool = False


@dataclass(frozen=True)
class Shape:
    """A decoder: RMSNorm, rotary positions, gated SiLU; `encoder` layers before it make it Whisper's kind.

    hidden: width of the feed-forward layers without experts, which the first `dense` layers are, or every one
    where there are no experts. window: positions that a layer looks back; of every `period` layers the last
    `full` look back at all (of the first if `full_first`). unturned: the layers that look at all have no
    rotary positions. tied: the table of embeddings is the last product's, too.

    total: parameters as published, in billions, by `source`; 0 where nobody did. beside: of them, those of
    parts that are not here (`beside_what`). bits: of experts' weights as published, else 16.
    """

    name: str
    layers: int
    width: int
    vocabulary: int
    attention: Grouped | Latent
    hidden: int = 0
    experts: Experts | None = None
    dense: int = 0
    window: int = 0
    period: int = 1
    unturned: bool = False
    tied: bool = False
    context: int = 131_072
    theta: float = 10_000.0
    epsilon: float = 1e-5
    encoder: int = 0
    frames: int = 0
    channels: int = 0
    total: float = 0.0
    digits: float = 0.0
    beside: float = 0.0
    beside_what: str = ""
    bits: float = 16.0
    source: str = ""
    aliases: tuple[str, ...] = ()

    def has_experts(self, layer: int) -> bool:
        return self.experts is not None and layer >= self.dense

    def window_of(self, layer: int) -> int:
        """Positions that a layer looks back at, 0 for all."""
        return self.window if self.window and (layer + 1) % self.period else 0

    def turns(self, layer: int) -> bool:
        """Whether the layer's queries and keys have rotary positions."""
        return not (self.unturned and self.window_of(layer) == 0)

    @property
    def kinds(self) -> Mapping[int, int]:
        """The first layer of each kind, and how many there are of it."""
        first: dict[tuple[bool, int, bool], int] = {}
        count: dict[int, int] = {}
        for i in range(self.layers):
            at = first.setdefault((self.has_experts(i), self.window_of(i), self.turns(i)), i)
            count[at] = count.get(at, 0) + 1
        return count

    def small(self) -> Shape:
        """A model of the same kind that takes a moment: a layer of each kind, few of anything."""
        a = self.attention
        if isinstance(a, Latent):
            small: Grouped | Latent = Latent(2, 12, 8, 8, 4, 6)
        else:
            heads = 4 if a.heads > a.kv_heads else 2
            small = replace(a, heads=heads, kv_heads=2, head=8, rotary=4 if a.rotary else 0)
        experts = self.experts and replace(
            self.experts, count=6, chosen=min(2, self.experts.chosen), width=10, shared=self.experts.shared
        )
        return replace(
            self,
            layers=max(2, self.period, self.dense + 1 if self.experts else 0),
            width=small.heads * 8 if self.encoder else 24,
            vocabulary=40,
            attention=small,
            hidden=self.hidden and 20,
            experts=experts,
            window=self.window and 4,
            encoder=self.encoder and 2,
            frames=self.frames and 10,
            channels=self.channels and 6,
            context=32,
        )

    def check(self) -> None:
        """Raises InvalidInput for sizes that contradict one another."""
        a = self.attention
        for part in (self, a, *([self.experts] if self.experts else [])):
            for f in fields(part):
                value = getattr(part, f.name)
                if f.type in ("int", "float") and not 0 <= value <= MOST:
                    raise InvalidInput(f"shape {quoted(self.name)}: {f.name} is {value:g}, not 0 to {MOST:,}")
        if not (self.layers and self.width and self.vocabulary and a.heads):
            raise InvalidInput(
                f"shape {quoted(self.name)}: layers, width, vocabulary and heads are at least 1"
            )
        if isinstance(a, Grouped) and (
            a.kv_heads < 1 or a.heads % a.kv_heads or a.head % 2 or a.turned > a.head
        ):
            raise InvalidInput(
                f"shape {quoted(self.name)}: {a.heads} heads of {a.head} do not share {a.kv_heads} of keys"
            )
        e = self.experts
        if e is not None and not 1 <= e.chosen <= e.count:
            raise InvalidInput(f"shape {quoted(self.name)}: {e.chosen} of {e.count} experts cannot be chosen")
        if not self.hidden and (e is None or self.dense):
            raise InvalidInput(f"shape {quoted(self.name)}: dense layers need hidden")
        if self.window and not 1 <= self.period <= self.layers:
            raise InvalidInput(f"shape {quoted(self.name)}: period is 1 to {self.layers} layers")


def parse(text: str, where: str) -> tuple[Shape, ...]:
    """Shapes from TOML: a table [NAME] each, with [NAME.grouped] or [NAME.latent], and [NAME.experts].

    Raises InvalidInput.
    """
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        raise InvalidInput(f"{where}: not TOML: {e}") from None
    return tuple(_shape(name, table, where) for name, table in data.items())


def _shape(name: str, table: Any, where: str) -> Shape:
    given = dict(_table(table, where, name))
    attention = {kind: given.pop(kind) for kind in (Grouped.KEY, Latent.KEY) if kind in given}
    experts = given.pop("experts", None)
    if len(attention) != 1:
        raise InvalidInput(f"{where}: {quoted(name)} needs one of grouped and latent")
    ((kind, of),) = attention.items()
    parts: dict[str, Any] = {
        "name": name,
        "attention": _made(Grouped if kind == Grouped.KEY else Latent, where, f"{name}.{kind}", of),
        "experts": None if experts is None else _made(Experts, where, f"{name}.experts", experts),
    }
    shape: Shape = _made(Shape, where, name, given, parts)
    shape = replace(shape, aliases=tuple(shape.aliases))
    shape.check()
    return shape


def _table(given: Any, where: str, name: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise InvalidInput(f"{where}: {quoted(name)} is not a table of sizes")
    return cast(dict[str, Any], given)


TYPES: Mapping[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}


def _made(kind: type[Any], where: str, name: str, given: Any, parts: Mapping[str, Any] | None = None) -> Any:
    """A `kind` of the fields in a TOML table, and of `parts`. Raises InvalidInput for others, missing or
    mistyped ones."""
    parts = parts or {}
    known = {f.name: f for f in fields(kind) if f.name not in parts}
    values = _table(given, where, name)
    if unknown := sorted(set(values) - set(known)):
        raise InvalidInput(f"{where}: {quoted(name)} has no {quoted(unknown[0])}; known: {', '.join(known)}")
    for key, value in values.items():
        wanted = TYPES.get(str(known[key].type), (str, list))
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted != (bool,)):
            raise InvalidInput(f"{where}: {quoted(name)}: {key} = {value!r} is no {known[key].type}")
    needed = [f for f, of in known.items() if of.default is MISSING and f not in values]
    if needed:
        raise InvalidInput(f"{where}: {quoted(name)} needs {needed[0]}")
    return kind(**parts, **values)


@cache
def shapes() -> Mapping[str, Shape]:
    """All shapes that are known by name."""
    return {s.name: s for s in parse(FILE.read_text("utf-8"), FILE.name)}


def key(name: str) -> str:
    """A name as it is compared: "LLaMA3-8B" and "llama_3 8b" are alike."""
    return "".join(c for c in name.lower() if c.isalnum())


def shape(name: str) -> Shape:
    """The shape called `name` or so, or the one in a TOML file. Raises UsageError, InvalidInput, OSError."""
    if name.endswith(".toml"):
        found = parse(_text(name), quoted(name))
        if len(found) != 1:
            raise UsageError(f"{quoted(name)} holds {len(found)} shapes, not one")
        return found[0]
    wanted = key(name)
    for s in shapes().values():
        if wanted in map(key, (s.name, *s.aliases)):
            return s
    raise UsageError(f"no shape is called {quoted(name)}; 'waferc shapes' lists them, or give a .toml file")


def _text(path: str) -> str:
    try:
        return read_regular(Path(path), MOST_BYTES).decode()
    except UnicodeDecodeError as e:
        raise InvalidInput(f"{quoted(path)}: not TOML: {e}") from None
