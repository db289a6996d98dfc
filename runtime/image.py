"""A program as data, free of addresses, and its form in an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ..codegen.artifact import Artifact, InvalidArtifact, dumps, npy
from ..codegen.records import Base, Calls, GroupWords, Margins, Placed, SweepWords
from .ports import Port, Ports

MOST_BYTES = 1 << 40  # of an arena


@dataclass(frozen=True)
class Image:
    """A program's ports, calls, and the symbols of its kernels."""

    ports: Ports
    calls: Calls
    symbols: tuple[str, ...]

    def check(self) -> None:
        """Raises InvalidArtifact unless tables, copies and arena are consistent.

        Guards against an artifact made of parts that do not belong together. Its kernels are native
        code: a program is run only if its source is trusted.
        """
        _judge_copies(self)
        _judge_relocations(self)
        _judge_groups(self.calls)


def encode(image: Image) -> dict[str, bytes]:
    """An image as entries of an artifact."""
    c = image.calls
    facts = {
        "inputs": [[p.name, list(p.shape), p.dtype.name] for p in image.ports.inputs],
        "outputs": [[p.name, list(p.shape), p.dtype.name] for p in image.ports.outputs],
        "states": [list(s) for s in image.ports.states],
        "symbols": list(image.symbols),
        "groups": list(c.groups),
        "arena": c.arena,
        "shared": c.shared,
        "constants": [_copy(p) for p in c.constants],
        "laid": [_copy(p) for p in c.inputs],
        "read": [_copy(p) for p in c.outputs],
        "margins": [[m.offset, m.elements, m.dtype, m.fill.hex()] for m in c.margins],
    }
    return {
        "image.json": dumps(facts),
        "tables/words.npy": npy(c.words),
        "tables/relocations.npy": npy(c.relocations),
    }


def decode(artifact: Artifact) -> Image:
    """The image in an artifact, checked. Raises InvalidArtifact."""
    facts: Any = artifact.json("image.json")
    try:
        first, count = facts["groups"]
        margins = tuple(
            Margins(int(o), int(n), np.dtype(str(t)).name, float.fromhex(f))
            for o, n, t, f in facts["margins"]
        )
        calls = Calls(
            artifact.array("tables/words.npy", np.int64, 1),
            artifact.array("tables/relocations.npy", np.int64, 2),
            (int(first), int(count)),
            int(facts["arena"]),
            *(tuple(_placed(row) for row in facts[name]) for name in ("constants", "laid", "read")),
            margins=margins,
            shared=bool(facts["shared"]),
        )
        ports = Ports(
            _ports(facts["inputs"]),
            _ports(facts["outputs"]),
            tuple((str(a), str(b)) for a, b in facts["states"]),
        )
        image = Image(ports, calls, tuple(map(str, facts["symbols"])))
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        if isinstance(e, InvalidArtifact):
            raise
        raise InvalidArtifact(f"image.json is not complete: {e!r}") from None
    image.check()
    return image


def _copy(p: Placed) -> list[Any]:
    return [p.tensor, p.dtype, list(p.shape), p.offset, list(p.strides), p.host_offset, list(p.host_strides)]


def _placed(row: Any) -> Placed:
    name, dtype, shape, offset, strides, host_offset, host_strides = row
    whole = [tuple(int(n) for n in values) for values in (shape, strides, host_strides)]
    if not len(whole[0]) == len(whole[1]) == len(whole[2]):
        raise InvalidArtifact(f"image.json: the copy of {name!r} has strides for another rank")
    return Placed(
        str(name), np.dtype(str(dtype)).name, whole[0], int(offset), whole[1], int(host_offset), whole[2]
    )


def _ports(data: Any) -> tuple[Port, ...]:
    out = tuple(Port(str(n), tuple(int(d) for d in shape), np.dtype(str(t))) for n, shape, t in data)
    if any(d < 0 for p in out for d in p.shape):
        raise InvalidArtifact("image.json: a port has a negative dimension")
    return out


# -- judging ---------------------------------------------------------------------------------
def _span(offset: int, shape: Sequence[int], strides: Sequence[int], size: int) -> tuple[int, int]:
    """The bytes that a strided array touches, [first, end); nothing for an empty one."""
    if 0 in shape:
        return offset, offset
    reach = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
    return offset + sum(min(0, r) for r in reach), offset + sum(max(0, r) for r in reach) + size


def _judge_copies(image: Image) -> None:
    """Every copy stays inside the arena and, for ports, inside the port's array."""
    c, ports = image.calls, image.ports
    if not 0 <= c.arena <= MOST_BYTES:
        raise InvalidArtifact(f"image.json: an arena of {c.arena} bytes")
    for p in (*c.constants, *c.inputs, *c.outputs):
        size = np.dtype(p.dtype).itemsize
        low, high = _span(p.offset, p.shape, p.strides, size)
        if min(p.shape, default=0) < 0 or low < 0 or high > c.arena:
            raise InvalidArtifact(f"image.json: {p.tensor!r} leaves the arena of {c.arena} bytes")
    for m in c.margins:
        if m.elements < 0 or m.offset < 0 or m.offset + m.elements * np.dtype(m.dtype).itemsize > c.arena:
            raise InvalidArtifact(f"image.json: margins leave the arena of {c.arena} bytes")
    for kind, copies, known in (("input", c.inputs, ports.inputs), ("output", c.outputs, ports.outputs)):
        by_name = {p.name: p for p in known}
        if sorted(p.tensor for p in copies) != sorted(by_name):
            raise InvalidArtifact(f"image.json: not every {kind} is copied once")
        for p in copies:
            port = by_name[p.tensor]
            low, high = _span(p.host_offset, p.shape, p.host_strides, port.dtype.itemsize)
            if p.dtype != port.dtype.name or low < 0 or high > prod(port.shape) * port.dtype.itemsize:
                raise InvalidArtifact(f"image.json: the copy of {kind} {p.tensor!r} leaves its array")
    if not {past for past, _ in ports.states} <= {p.name for p in ports.inputs}:
        raise InvalidArtifact("image.json: a state that is no input")


def judge_constants(image: Image, constants: Any) -> None:
    """InvalidArtifact unless every constant is there and holds what its copies read."""
    for p in image.calls.constants:
        if p.tensor not in constants:
            raise InvalidArtifact(f"weights.json: constant {p.tensor!r} is missing")
        value = constants[p.tensor]
        low, high = _span(p.host_offset, p.shape, p.host_strides, value.dtype.itemsize)
        if value.dtype.name != p.dtype or low < 0 or high > value.nbytes:
            raise InvalidArtifact(f"image.json: the copy of constant {p.tensor!r} leaves its array")


def _judge_relocations(image: Image) -> None:
    c = image.calls
    r = c.relocations
    if r.shape[1] != 3:
        raise InvalidArtifact(f"tables/relocations.npy has {r.shape[1]} columns, not 3")
    at, kind, value = r.T
    limits = np.zeros(len(Base), np.int64)
    limits[Base.WORDS], limits[Base.KERNEL], limits[Base.ARENA] = 1, len(image.symbols), 1
    if len(r) and not (
        0 <= at.min() <= at.max() < len(c.words) and 0 <= kind.min() <= kind.max() < len(limits)
    ):
        raise InvalidArtifact(f"tables/relocations.npy leaves the {len(c.words)} words")
    if (value < 0).any() or (value >= limits[kind]).any() or len(np.unique(at)) != len(at):
        raise InvalidArtifact("tables/relocations.npy names a kernel or table that is not there")
    inside = c.words[at[kind == Base.WORDS]]
    if (inside < 0).any() or (inside >= 8 * len(c.words)).any() or (inside % 8).any():
        raise InvalidArtifact("tables/words.npy: an offset leaves the table")
    homes = c.words[at[kind == Base.ARENA]]
    # An iteration may lie outside the arena (a window's first tap, an axis that runs backwards) but not far.
    if (np.abs(homes) > MOST_BYTES).any():
        raise InvalidArtifact("tables/words.npy: an address leaves the arena")


def _judge_groups(c: Calls) -> None:
    """Groups, sweeps and task blocks lie inside the words."""
    total = len(c.words)

    def inside(first: int, words: int, what: str) -> None:
        if first < 0 or words < 0 or first + words > total:
            raise InvalidArtifact(f"tables/words.npy: {what} leaves the {total} words")

    offset, count = c.groups
    inside(offset, count * GroupWords.SIZE, "a group")
    for g in c.words[offset : offset + count * GroupWords.SIZE].reshape(count, GroupWords.SIZE):
        items, sweeps, table = (int(g[w]) for w in (GroupWords.ITEMS, GroupWords.SWEEPS, GroupWords.TABLE))
        inside(table // 8, sweeps * SweepWords.SIZE, "a sweep")
        rows = c.words[table // 8 : table // 8 + sweeps * SweepWords.SIZE].reshape(sweeps, SweepWords.SIZE)
        for s in rows:
            starts = int(s[SweepWords.ITEMS]) // 8
            inside(starts, items + 1, "an item")
            inside(
                int(s[SweepWords.CALLS]) // 8,
                int(c.words[starts + items]) * (int(s[SweepWords.BYTES]) // 8),
                "a call",
            )
