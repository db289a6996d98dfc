"""Measurements of wafers, as a table: what `accuracy.py` compares predictions with.

Columns: id, class, machine (a preset), grid, parameters (`key=value` joined by `;`), value, unit, source,
kind (silicon, formula, vendor simulator, unclear) and role (calibration: constants may be fitted to it;
regression: a formula that must keep agreeing; anything else is neither). `CLASSES` says what each class must
and may state.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from waferc.placement.machine.presets import preset
from waferc.placement.machine.wafer import MAX_SIDE, Wafer, WaferError

COLUMNS = ("id", "class", "machine", "grid", "parameters", "value", "unit", "source", "kind", "role")
UNITS = ("cycles", "GB/s", "us")
MOST = 1 << 40  # of any number in a row

ATTENTION = ("dim", "heads", "kv_heads")
LAYER = (*ATTENTION, "ffn")
SIZES = ("head_dim", "weights", "model")  # of a layer, with defaults
COLLECTIVES = ("broadcast", "star", "chain", "tree", "two_phase")
REDUCTIONS = COLLECTIVES[1:]
KINDS = (*COLLECTIVES, *(f"allreduce_{k}" for k in (*REDUCTIONS, "ring")))
PHASES = ("qkv", "qk_norm_rope", "scores", "softmax", "weighted_values", "output", "residual")
BLOCKS = ("attention", "ffn")
OPERATIONS = ("copy_f16", "copy_f32", "fma_f16", "fma_f32", "fma_mixed")


@dataclass(frozen=True)
class Rules:
    """What the rows of a class state. one_of: at least one of these groups is given whole."""

    needs: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    one_of: tuple[tuple[str, ...], ...] = ()
    grid: bool = False  # must name at least one rectangle


CLASSES: Mapping[str, Rules] = {
    "vector": Rules(("op", "n")),
    "vector_loop": Rules(("op", "n", "form")),
    "point_to_point": Rules((), ("turns",), (("quantity",), ("hops", "wavelets"))),
    "relay": Rules(("stages", "wavelets")),
    "multicast": Rules(("receivers", "bytes"), ("statistic", "subtracted_per_hop")),
    "collective": Rules(("kind", "cores", "wavelets"), ("ramp",)),
    "gemv": Rules(("k", "n"), ("m", "weights"), grid=True),
    "gemm": Rules(("m", "k", "n"), ("weights",), grid=True),
    "decode_layer": Rules((*LAYER, "context"), SIZES, grid=True),
    "prefill_layer": Rules((*LAYER, "tokens"), (*SIZES, "context"), grid=True),
    "decode_phase": Rules(("phase", *ATTENTION, "context"), (*SIZES, "ffn"), grid=True),
    "decode_block": Rules(("block", *LAYER, "context"), SIZES, grid=True),
    "decode_token": Rules((*LAYER, "context", "layers"), (*SIZES, "batch"), grid=True),
    "decode_batch": Rules((*LAYER, "context", "layers", "batch"), SIZES, grid=True),
    "pipeline_interval": Rules(
        (*LAYER, "context", "layers_per_stage"), (*SIZES, "layers", "batch"), grid=True
    ),
    "host": Rules(("direction",), ("streams", "bytes")),
}
CHOICES: Mapping[str, Sequence[str]] = {
    "op": OPERATIONS,
    "quantity": ("per_hop", "per_wavelet", "per_turn"),
    "statistic": ("min", "median"),
    "kind": KINDS,
    "phase": PHASES,
    "block": BLOCKS,
    "direction": ("in", "out", "round trip"),
    "weights": ("f32", "f16", "bf16"),
}
TEXTS = frozenset({*CHOICES, "form", "model"})
KNOWN = frozenset(
    n for r in CLASSES.values() for n in (*r.needs, *r.may, *(m for group in r.one_of for m in group))
)
FROM_ZERO = frozenset({"hops", "turns", "subtracted_per_hop", "ramp"})


class BadRow(ValueError):
    """A row that says nothing that can be priced; the message names the row and what is wrong."""


@dataclass(frozen=True)
class Blocks:
    """`count` rectangles of `width` x `height` cores (columns x rows)."""

    count: int
    width: int
    height: int


@dataclass(frozen=True)
class Row:
    """One measurement. wafer: its machine; numbers, texts: its parameters; blocks: None where no grid is
    named."""

    id: str
    group: str
    wafer: Wafer
    grid: str
    blocks: Blocks | None
    numbers: Mapping[str, float]
    texts: Mapping[str, str]
    value: float
    unit: str
    source: str
    kind: str
    role: str

    @property
    def label(self) -> str:
        """What its errors stand beside: its class, or the part of it that one formula is for."""
        part = self.texts.get("statistic", "min") if self.group == "multicast" else ""
        if self.group == "collective":
            kind = self.texts["kind"]
            part = (
                kind if kind == "broadcast" else "allreduce" if kind.startswith("allreduce") else "reduction"
            )
        return f"{self.group}, {part}" if part else self.group

    def whole(self, name: str, default: int = 1) -> int:
        """An integer parameter."""
        return int(self.numbers.get(name, default))

    @property
    def square(self) -> Blocks:
        """The rectangles of a class that must name some."""
        assert self.blocks is not None
        return self.blocks


def read(path: Path) -> tuple[list[Row], list[str]]:
    """The rows of a table, and a line for each that is bad. Raises BadRow for no table at all, and
    OSError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file, strict=True)
            names = tuple(lines.fieldnames or ())
            if missing := [c for c in COLUMNS if c not in names]:
                raise BadRow(f"{path}: no column {missing[0]!r}; a table has {', '.join(COLUMNS)}")
            rows: list[Row] = []
            bad: list[str] = []
            for fields in lines:
                try:
                    rows.append(parsed(fields))
                except BadRow as e:
                    bad.append(f"{path}, line {lines.line_num}: {e}")
    except (csv.Error, UnicodeDecodeError) as e:
        raise BadRow(f"{path}: not a table of comma-separated values: {e}") from None
    return rows, bad


def parsed(fields: Mapping[str, str | None]) -> Row:
    """A row from its fields. Raises BadRow."""
    if short := [c for c in COLUMNS if fields.get(c) is None]:
        raise BadRow(f"no field {short[0]!r}; a row has {len(COLUMNS)}")
    text = {c: (fields[c] or "").strip() for c in COLUMNS}
    name = _shown(text["id"])
    rules = CLASSES.get(text["class"])
    if rules is None:
        raise BadRow(f"{name}: unknown class {_shown(text['class'])}; known are {', '.join(CLASSES)}")
    try:
        wafer = preset(text["machine"])
    except WaferError as e:
        raise BadRow(f"{name}: {e}") from None
    if text["unit"] not in UNITS:
        raise BadRow(f"{name}: unit {_shown(text['unit'])}; known are {', '.join(UNITS)}")
    value = _number(text["value"], f"{name}: value")
    if value <= 0:
        raise BadRow(f"{name}: value {value:g}; it must be above 0")
    numbers, texts = _parameters(text["parameters"], name)
    _complete(rules, {*numbers, *texts}, name, text["class"])
    blocks = blocks_of(text["grid"])
    if rules.grid and blocks is None:
        raise BadRow(
            f"{name}: grid {_shown(text['grid'])} names no WIDTHxHEIGHT, which a {text['class']} needs"
        )
    if blocks is not None and not (1 <= blocks.width <= MAX_SIDE and 1 <= blocks.height <= MAX_SIDE):
        raise BadRow(f"{name}: grid {blocks.width}x{blocks.height}; sides go from 1 to {MAX_SIDE}")
    if blocks is not None and not 1 <= blocks.count <= MAX_SIDE:
        raise BadRow(f"{name}: grid of {blocks.count} blocks; there are 1 to {MAX_SIDE}")
    own = (text["source"], text["kind"], text["role"])
    return Row(
        text["id"], text["class"], wafer, text["grid"], blocks, numbers, texts, value, text["unit"], *own
    )


def blocks_of(grid: str) -> Blocks | None:
    """The rectangles that a grid names: `420x420`, `8 blocks of 256x128`, `8 x 256x128`; None where it names
    none."""
    sides = re.search(r"(\d{1,9})\s*[x×]\s*(\d{1,9})(?!\s*[x×]?\s*\d)", grid)
    if sides is None:
        return None
    rest = grid[: sides.start()] + " " + grid[sides.end() :]
    count = re.search(r"(\d{1,9})\s*(?:[x×*]|blocks?|regions?|stages?|of|tiles?)", rest)
    return Blocks(int(count[1]) if count else 1, int(sides[1]), int(sides[2]))


def unused(row: Row) -> list[str]:
    """Parameters that the row's class knows nothing of."""
    rules = CLASSES[row.group]
    known = {*rules.needs, *rules.may, *(n for group in rules.one_of for n in group)}
    return sorted({*row.numbers, *row.texts} - known)


def _parameters(text: str, name: str) -> tuple[dict[str, float], dict[str, str]]:
    numbers: dict[str, float] = {}
    texts: dict[str, str] = {}
    for key, value in _pairs(text, name):
        if key in numbers or key in texts:
            raise BadRow(f"{name}: parameter {_shown(key)} stands twice")
        if key in KNOWN - TEXTS:
            numbers[key] = _number(value, f"{name}: {_shown(key)}")
            if not (0 if key in FROM_ZERO else 1) <= numbers[key] <= MOST:
                raise BadRow(
                    f"{name}: {_shown(key)} = {numbers[key]:g}; it must be from "
                    f"{0 if key in FROM_ZERO else 1} to {MOST}"
                )
            if key not in FROM_ZERO and not numbers[key].is_integer():
                raise BadRow(f"{name}: {_shown(key)} = {numbers[key]:g} is no whole number")
            continue
        texts[key] = value.replace("_", " ") if key == "direction" else value
        if key in CHOICES and texts[key] not in CHOICES[key]:
            raise BadRow(f"{name}: {key} {_shown(value)}; known are {', '.join(CHOICES[key])}")
    return numbers, texts


def _pairs(text: str, name: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, (p.strip() for p in text.split(";"))):
        key, equals, value = part.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise BadRow(f"{name}: parameter {_shown(part)} is not key=value")
        yield key.strip(), value.strip()


def _complete(rules: Rules, given: set[str], name: str, group: str) -> None:
    if missing := [n for n in rules.needs if n not in given]:
        raise BadRow(f"{name}: no parameter {missing[0]!r}; a {group} has {', '.join(rules.needs)}")
    if rules.one_of and not any(given >= set(g) for g in rules.one_of):
        ways = " or ".join(" and ".join(g) for g in rules.one_of)
        raise BadRow(f"{name}: a {group} gives {ways}")


def _number(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadRow(f"{what}: {_shown(text)} is no number") from None
    if not math.isfinite(value):
        raise BadRow(f"{what}: {_shown(text)} is not finite")
    return value


def _shown(text: str) -> str:
    """A text of the table's in a message: quoted, without what would steer a terminal, at most 40 long."""
    return ascii(text if len(text) <= 40 else text[:37] + "...")
