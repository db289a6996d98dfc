"""A program as data, free of addresses, and its form in an artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from typing import Any, TypeVar

import numpy as np

from ..codegen.artifact.artifact import Artifact, InvalidArtifact, npy
from ..codegen.artifact.strict_json import dumps
from ..codegen.artifact.typed import Misfit, member
from ..codegen.host.records import Calls, HostCopy, Margins, Resident
from ..codegen.words import Judged
from ..ir.graph import Length
from ..ir.op import Bound
from .judge import TYPES, is_shape, judge, judge_arena, judge_resident, judge_together
from .ports import Port, Ports

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """What goes in and out of an entry, and its calls."""

    ports: Ports
    calls: Calls


@dataclass(frozen=True)
class Image:
    """A program's entries, what they share, and the symbols of all kernels.

    dot2: whether kernels that multiply pairs of bf16 do so by the host's instruction; None if none does.
    """

    entries: Mapping[str, Entry]
    resident: Resident
    symbols: tuple[str, ...]
    dot2: bool | None

    def check(self) -> None:
        """Raises InvalidArtifact unless tables, copies and arena are consistent."""
        arena, used = self.resident.arena, judge_resident(self.resident)
        for name, entry in self.entries.items():
            try:
                used = max(used, judge(entry.ports, entry.calls, arena, self.symbols))
            except InvalidArtifact as e:
                raise InvalidArtifact(f"{name}/{e}") from None
        judge_arena(arena, used)
        judge_together([(e.ports, e.calls) for e in self.entries.values()])


def encode(image: Image) -> dict[str, bytes]:
    """An image as files of an artifact: what all entries share, and a folder for each."""
    r = image.resident
    facts = {
        "symbols": list(image.symbols),
        "dot2": image.dot2,
        "arena": r.arena,
        "constants": [_copy(p) for p in r.constants],
        "margins": [[m.offset, m.elements, m.dtype, m.fill.hex()] for m in r.margins],
    }
    out = {"image.json": dumps(facts)}
    for name, entry in image.entries.items():
        out |= {f"{name}/{file}": data for file, data in _encode_entry(entry).items()}
    return out


def _encode_entry(entry: Entry) -> dict[str, bytes]:
    ports, c = entry.ports, entry.calls
    facts = {
        "inputs": [[p.name, list(p.shape), p.dtype.name] for p in ports.inputs],
        "outputs": [[p.name, list(p.shape), p.dtype.name] for p in ports.outputs],
        "states": [list(s) for s in ports.states],
        "length": None if (at := ports.length) is None else _counted(at),
        "groups": list(c.groups),
        "shared": c.shared,
        "bound": sorted(c.bound),
        "judged": [[j.node, *astuple(j.bound)] for j in c.judged],
        "laid": [_copy(p) for p in c.inputs],
        "read": [_copy(p) for p in c.outputs],
    }
    return {
        "image.json": dumps(facts),
        "tables/words.npy": npy(c.words),
        "tables/relocations.npy": npy(c.relocations),
        "tables/fills.npy": npy(c.fills),
    }


_COPY = tuple[str, str, tuple[int, ...], int, tuple[int, ...], int, tuple[int, ...]]
_JUDGED = tuple[str, int, int, int, str, int, int]  # a node, and the fields of a Bound
_PORTS = tuple[tuple[str, tuple[int, ...], str], ...]
_LENGTH = tuple[str, int, int, tuple[tuple[str, int], ...]]


def decode(artifact: Artifact) -> Image:
    """The image in an artifact, checked. Raises InvalidArtifact."""
    entries = {entry: _said(_decode_entry, artifact, f"{entry}/") for entry in artifact.entries}
    image = _said(_decode_image, artifact, "", entries)
    image.check()
    return image


def _said(step: Callable[..., T], artifact: Artifact, folder: str, *rest: Any) -> T:
    """What a step reads of an image.json; a misfit names the file."""
    try:
        return step(artifact, folder, *rest)
    except Misfit as e:
        raise InvalidArtifact(f"{folder}image.json: {e}") from None


def _decode_image(artifact: Artifact, folder: str, entries: Mapping[str, Entry]) -> Image:
    facts: Any = artifact.json("image.json")
    margins = tuple(
        Margins(offset, elements, _type(kind, f".margins[{i}]").name, _fill(fill, f".margins[{i}]"))
        for i, (offset, elements, kind, fill) in enumerate(
            member(facts, "margins", tuple[tuple[int, int, str, str], ...])
        )
    )
    resident = Resident(member(facts, "arena", int), _copies(facts, "constants"), margins)
    symbols: tuple[str, ...] = member(facts, "symbols", tuple[str, ...])
    return Image(entries, resident, symbols, member(facts, "dot2", bool | None))


def _decode_entry(artifact: Artifact, folder: str) -> Entry:
    facts: Any = artifact.json(f"{folder}image.json")
    calls = Calls(
        artifact.array(f"{folder}tables/words.npy", np.int64, 1),
        artifact.array(f"{folder}tables/relocations.npy", np.int64, 2),
        artifact.array(f"{folder}tables/fills.npy", np.int64, 2),
        member(facts, "groups", tuple[int, int]),
        _copies(facts, "laid"),
        _copies(facts, "read"),
        bound=frozenset(member(facts, "bound", tuple[str, ...])),
        shared=member(facts, "shared", bool),
        judged=tuple(
            Judged(node, Bound(*row)) for node, *row in member(facts, "judged", tuple[_JUDGED, ...])
        ),
    )
    length = member(facts, "length", _LENGTH | None)
    ports = Ports(
        ports_in(facts, "inputs"),
        ports_in(facts, "outputs"),
        member(facts, "states", tuple[tuple[str, str], ...]),
        None if length is None else Length(*length),
    )
    return Entry(ports, calls)


def ports_in(facts: Any, name: str) -> tuple[Port, ...]:
    """A member that lists ports. Raises Misfit."""
    out: list[Port] = []
    for i, (port, shape, kind) in enumerate(member(facts, name, _PORTS)):
        where = f".{name}[{i}]"
        if not is_shape(shape):
            raise Misfit(f"port {port!r} has shape {list(shape)}", where)
        out.append(Port(port, shape, _type(kind, where)))
    return tuple(out)


def _copies(facts: Any, name: str) -> tuple[HostCopy, ...]:
    out: list[HostCopy] = []
    for i, (tensor, kind, shape, offset, strides, at, steps) in enumerate(
        member(facts, name, tuple[_COPY, ...])
    ):
        where = f".{name}[{i}]"
        if not len(shape) == len(strides) == len(steps):
            raise Misfit(f"the copy of {tensor!r} has strides for another rank", where)
        out.append(HostCopy(tensor, _type(kind, where).name, shape, offset, strides, at, steps))
    return tuple(out)


def _copy(p: HostCopy) -> list[Any]:
    return [p.tensor, p.dtype, list(p.shape), p.offset, list(p.strides), p.host_offset, list(p.host_strides)]


def _counted(at: Length) -> list[Any]:
    return [at.input, at.capacity, at.added, [list(d) for d in at.dims]]


def _fill(text: str, where: str) -> float:
    try:
        return float.fromhex(text)
    except (ValueError, OverflowError):
        raise Misfit(f"{text[:40]!r} is no float", where) from None


def _type(name: str, where: str) -> np.dtype[Any]:
    if name not in TYPES:
        raise Misfit(f"{name[:40]!r} is no element type", where)
    return np.dtype(name)
