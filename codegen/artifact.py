"""The artifact: one zip file, entries stored, every one with its SHA-256 in the manifest.

Same plan, same bytes: entries in a fixed order with a fixed time. A program (`.wafer`) holds the
graph, wafer and placement, from which the plan is rebuilt on demand, and what a run needs without it:
tables, weights and kernels as LLVM bitcode. A plan (`.plan`) lacks weights, tables and kernels.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from ..ir.op import Array

if TYPE_CHECKING:
    from ..ir.graph import Graph
    from ..placement.plan import Plan

FORMAT = 2
EPOCH = (1980, 1, 1, 0, 0, 0)
MOST_BYTES = 1 << 36  # an artifact larger than this is refused

# The one form of .npy that `npy` writes: format 1.0, C order, plain numbers. Nothing of it is evaluated.
HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)(\{'descr': '([<|][fiub][1248])', 'fortran_order': False, "
    rb"'shape': \(((?:\d{1,12}, ?)*(?:\d{1,12})?)\), \} *\n)",
    re.DOTALL,
)


class InvalidArtifact(ValueError):
    """A file that is no artifact, is damaged, or is of another format version."""


@dataclass(frozen=True)
class Artifact:
    """An artifact in memory, its digests checked."""

    manifest: Mapping[str, Any]
    entries: Mapping[str, bytes]

    def graph(self) -> Graph:
        """The graph; constants have values if the artifact holds them."""
        from .encode import Undecodable, decode_graph

        try:
            return decode_graph(self.json("graph.json"), self.constants())
        except Undecodable as e:
            raise InvalidArtifact(f"graph.json: {e}") from None

    def plan(self) -> Plan:
        """The plan, built again from graph, wafer and placement."""
        from ..placement.route import routed
        from ..placement.written import PlacementError, read
        from .encode import Undecodable, decode_wafer

        try:
            wafer = decode_wafer(self.json("wafer.json"))
        except Undecodable as e:
            raise InvalidArtifact(f"wafer.json: {e}") from None
        try:
            return routed(read(self.json("placement.json"), self.graph(), wafer))
        except PlacementError as e:
            raise InvalidArtifact(f"placement.json: {e}") from None

    def constants(self) -> dict[str, Array]:
        """The constants' values; none in a plan."""
        if "weights.json" not in self.entries:
            return {}
        names: Any = self.json("weights.json")
        if not isinstance(names, list):
            raise InvalidArtifact("weights.json is no list")
        return {str(n): self.array(f"weights/{i}.npy") for i, n in enumerate(cast(list[Any], names))}

    def phases(self) -> dict[str, str]:
        """Each phase's text."""
        texts = {n[7:-4]: data for n, data in self.entries.items() if n.startswith("phases/")}
        try:
            return {n: data.decode() for n, data in texts.items()}
        except ValueError as e:
            raise InvalidArtifact(f"a phase's text: {e}") from None

    @property
    def runnable(self) -> bool:
        return "kernels.bc" in self.entries

    def array(self, name: str, dtype: Any = None, rank: int | None = None) -> Array:
        """The array in an entry, read-only, of that type and rank where given."""
        data = self.entry(name)
        found = HEADER.match(data)
        if found is None or int.from_bytes(found[1], "little") != found.end() - found.start(2):
            raise InvalidArtifact(f"entry {name!r} is no array that waferc writes")
        kind = np.dtype(found[3].decode())
        shape = [int(n) for n in found[4].split(b",") if n.strip()]
        if prod(shape) * kind.itemsize != len(data) - found.end():
            raise InvalidArtifact(f"entry {name!r}: {kind}{shape} in {len(data) - found.end()} bytes")
        if (dtype is not None and kind != dtype) or (rank is not None and len(shape) != rank):
            raise InvalidArtifact(f"entry {name!r} is {kind}{shape}")
        return np.frombuffer(data, kind, offset=found.end()).reshape(shape)

    def entry(self, name: str) -> bytes:
        if name not in self.entries:
            raise InvalidArtifact(f"entry {name!r} is missing")
        return self.entries[name]

    def json(self, name: str) -> Any:
        try:
            return json.loads(self.entry(name))
        except (ValueError, RecursionError) as e:
            raise InvalidArtifact(f"entry {name!r} is not JSON: {e}") from None


def npy(array: Any) -> bytes:
    """An array as an entry: in C order, whatever the array's own."""
    return b"".join(_npy_parts(array))


def _npy_parts(array: Any) -> tuple[bytes, Any]:
    """An entry's header, and the array's elements as bytes: where they are, if they are in C order."""
    whole = np.asarray(array, order="C")
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(whole))
    return head.getvalue(), whole.reshape(-1).view(np.uint8)


def dumps(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=True).encode()


def describe(plan: Plan, phases: Mapping[str, str]) -> dict[str, bytes]:
    """The entries of any artifact: what the plan is made from, and each phase's text."""
    from ..placement import written
    from .encode import encode, encode_graph

    out = {
        "graph.json": dumps(encode_graph(plan.graph)),
        "wafer.json": dumps(encode(plan.wafer)),
        "placement.json": dumps(written.write(plan)),
    }
    return out | {f"phases/{n}.txt": t.encode() for n, t in phases.items()}


def weights(plan: Plan) -> dict[str, bytes | Array]:
    """The entries that hold the constants laid by the plan."""
    names = sorted(plan.graph.constants)
    out = {f"weights/{i}.npy": plan.graph.constants[n] for i, n in enumerate(names)}
    return {"weights.json": dumps(names), **out}


def write(path: str | Path, manifest: Mapping[str, Any], entries: Mapping[str, bytes | Array]) -> None:
    """Writes an artifact whole or not at all: to a temporary file there, synced, renamed. Raises OSError.

    entries: an array is written as .npy, its elements from where they are.
    """
    import tempfile  # not for a run, which only reads

    def parts(name: str) -> tuple[bytes, Any]:
        entry = entries[name]
        return (entry, b"") if isinstance(entry, bytes) else _npy_parts(entry)

    def digest(name: str) -> str:
        out = hashlib.sha256()
        for part in parts(name):
            out.update(part)
        return out.hexdigest()

    digests = {n: digest(n) for n in sorted(entries)}
    head = dumps({"format": FORMAT, **manifest, "entries": digests})
    target = Path(path)
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as f:
            with zipfile.ZipFile(f, "w", zipfile.ZIP_STORED) as z:
                for n in ("manifest.json", *digests):
                    info = zipfile.ZipInfo(n, EPOCH)
                    info.create_system = 3  # the same bytes from every system
                    info.external_attr = 0o644 << 16
                    stored = parts(n) if n in digests else (head,)
                    info.file_size = sum(map(len, stored))
                    with z.open(info, "w") as entry:
                        for part in stored:
                            entry.write(part)
            f.flush()
            os.fsync(f.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
    except BaseException as e:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(e, OSError):
            e.filename, e.filename2 = str(path), None
        raise


def read(path: str | Path) -> Artifact:
    """Reads an artifact and checks every digest. Raises InvalidArtifact, OSError."""
    with open(path, "rb") as f:
        try:
            entries = _entries(path, f)
        except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, struct.error, OverflowError) as e:
            if isinstance(e, InvalidArtifact):
                raise
            raise InvalidArtifact(f"{path}: not a waferc artifact ({e})") from None
        except OSError as e:
            if e.errno != errno.EINVAL:  # a place outside the file
                raise
            raise InvalidArtifact(f"{path}: not a waferc artifact ({e})") from None
    try:
        manifest = json.loads(entries.pop("manifest.json"))
        digests = dict(manifest["entries"])
        version = manifest["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidArtifact(f"{path}: manifest.json is damaged") from None
    if version != FORMAT:
        raise InvalidArtifact(
            f"{path}: format {version!r}; this waferc reads {FORMAT}; compile the model again"
        )
    if set(digests) != set(entries):
        odd = sorted(set(digests) ^ set(entries))[0]
        raise InvalidArtifact(f"{path}: entry {odd!r} is missing or not in the manifest")
    for n, data in entries.items():
        if hashlib.sha256(data).hexdigest() != digests[n]:
            raise InvalidArtifact(f"{path}: entry {n!r} does not match its SHA-256 in the manifest")
    return Artifact(manifest, entries)


def _entries(path: str | Path, file: IO[bytes]) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as z:
        infos = z.infolist()
        names = [i.filename for i in infos]
        if sum(i.file_size for i in infos) > MOST_BYTES:
            raise InvalidArtifact(f"{path}: entries of more than {MOST_BYTES:,} bytes")
        if "manifest.json" not in names:
            raise InvalidArtifact(f"{path}: not a waferc artifact (no manifest.json)")
        if len(set(names)) != len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise InvalidArtifact(f"{path}: two entries are called {twice!r}")
        if any(i.compress_type != zipfile.ZIP_STORED for i in infos):
            raise InvalidArtifact(f"{path}: an entry is compressed; waferc stores them")
        return {n: z.read(n) for n in names}
