"""A program as data, free of addresses, and its form in an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from ..codegen.artifact.artifact import Artifact, InvalidArtifact, dumps, npy
from ..codegen.host.records import Calls, HostCopy, Margins, Resident
from ..codegen.words import Judged
from ..ir.graph import Length
from ..ir.op import Bound
from .judge import TYPES, judge, judge_resident, judge_together
from .ports import Port, Ports


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
        judge_resident(self.resident)
        for name, entry in self.entries.items():
            try:
                judge(entry.ports, entry.calls, self.resident.arena, len(self.symbols))
            except InvalidArtifact as e:
                raise InvalidArtifact(f"{name}/{e}") from None
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


def decode(artifact: Artifact) -> Image:
    """The image in an artifact, checked. Raises InvalidArtifact."""
    name = ""
    try:
        entries: dict[str, Entry] = {}
        for entry in artifact.entries:
            name = f"{entry}/"
            entries[entry] = _decode_entry(artifact, name)
        name = ""
        facts: Any = artifact.json("image.json")
        margins = tuple(
            Margins(int(o), int(n), _type(t).name, float.fromhex(f)) for o, n, t, f in facts["margins"]
        )
        constants = tuple(_placed(row) for row in facts["constants"])
        symbols = tuple(map(str, facts["symbols"]))
        dot2 = None if facts["dot2"] is None else bool(facts["dot2"])
        image = Image(entries, Resident(int(facts["arena"]), constants, margins), symbols, dot2)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as e:
        if isinstance(e, InvalidArtifact):
            raise
        raise InvalidArtifact(f"{name}image.json is not complete: {e!r}") from None
    image.check()
    return image


def _decode_entry(artifact: Artifact, folder: str) -> Entry:
    facts: Any = artifact.json(f"{folder}image.json")
    first, count = facts["groups"]
    calls = Calls(
        artifact.array(f"{folder}tables/words.npy", np.int64, 1),
        artifact.array(f"{folder}tables/relocations.npy", np.int64, 2),
        artifact.array(f"{folder}tables/fills.npy", np.int64, 2),
        (int(first), int(count)),
        tuple(_placed(row) for row in facts["laid"]),
        tuple(_placed(row) for row in facts["read"]),
        bound=frozenset(map(str, facts["bound"])),
        shared=bool(facts["shared"]),
        judged=tuple(Judged(str(node), _bound(row)) for node, *row in facts["judged"]),
    )
    ports = Ports(
        _ports(facts["inputs"]),
        _ports(facts["outputs"]),
        tuple((str(a), str(b)) for a, b in facts["states"]),
        None if facts["length"] is None else _length(*facts["length"]),
    )
    return Entry(ports, calls)


def _bound(row: Any) -> Bound:
    operand, low, high, what, axis, size = row
    return Bound(int(operand), int(low), int(high), str(what), int(axis), int(size))


def _copy(p: HostCopy) -> list[Any]:
    return [p.tensor, p.dtype, list(p.shape), p.offset, list(p.strides), p.host_offset, list(p.host_strides)]


def _placed(row: Any) -> HostCopy:
    name, dtype, shape, offset, strides, host_offset, host_strides = row
    whole = [tuple(int(n) for n in values) for values in (shape, strides, host_strides)]
    if not len(whole[0]) == len(whole[1]) == len(whole[2]):
        raise InvalidArtifact(f"image.json: the copy of {name!r} has strides for another rank")
    return HostCopy(str(name), _type(dtype).name, whole[0], int(offset), whole[1], int(host_offset), whole[2])


def _ports(data: Any) -> tuple[Port, ...]:
    return tuple(Port(str(n), tuple(int(d) for d in shape), _type(t)) for n, shape, t in data)


def _counted(at: Length) -> list[Any]:
    return [at.input, at.capacity, at.added, [list(d) for d in at.dims]]


def _length(name: Any, capacity: Any, added: Any, dims: Any) -> Length:
    return Length(str(name), int(capacity), int(added), tuple((str(n), int(d)) for n, d in dims))


def _type(name: Any) -> np.dtype[Any]:
    if name not in TYPES:
        raise InvalidArtifact(f"image.json: type {name!r}")
    return np.dtype(str(name))
