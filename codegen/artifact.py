"""The artifact: one zip file, entries stored, every one with its SHA-256 in the manifest.

Same plan, same bytes: entries in a fixed order with a fixed time. A program (`.wafer`) holds the
graph, wafer and placement, from which the plan is rebuilt on demand, and what a run needs without it:
tables, weights and kernels as LLVM bitcode. A plan (`.plan`) lacks weights, tables and kernels.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..ir.op import Array

if TYPE_CHECKING:
    from ..ir.graph import Graph
    from ..placement.plan import Plan

FORMAT = 1
EPOCH = (1980, 1, 1, 0, 0, 0)
MOST_BYTES = 1 << 36  # an artifact larger than this is refused


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
        """The array in an entry, of that type and rank where given."""
        data = io.BytesIO(self.entry(name))
        try:
            out = np.lib.format.read_array(data, allow_pickle=False)
        except (ValueError, EOFError, OverflowError, MemoryError, SyntaxError, TypeError) as e:
            raise InvalidArtifact(f"entry {name!r} is no array: {e}") from None
        if data.read(1):
            raise InvalidArtifact(f"entry {name!r} is longer than its array")
        if (dtype is not None and out.dtype != dtype) or (rank is not None and out.ndim != rank):
            raise InvalidArtifact(f"entry {name!r} is {out.dtype}{list(out.shape)}")
        return out

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
    out = io.BytesIO()
    np.lib.format.write_array(out, np.asarray(array), version=(1, 0), allow_pickle=False)
    return out.getvalue()


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


def weights(plan: Plan) -> dict[str, bytes]:
    """The entries that hold the constants laid by the plan."""
    names = sorted(plan.graph.constants)
    out = {f"weights/{i}.npy": npy(plan.graph.constants[n]) for i, n in enumerate(cast(list[Any], names))}
    return {"weights.json": dumps(names), **out}


def write(path: str | Path, manifest: Mapping[str, Any], entries: Mapping[str, bytes]) -> None:
    """Writes an artifact whole or not at all: to a temporary file there, synced, renamed."""
    digests = {n: hashlib.sha256(entries[n]).hexdigest() for n in sorted(entries)}
    head = dumps({"format": FORMAT, **manifest, "entries": digests})
    target = Path(path)
    handle, name = tempfile.mkstemp(dir=target.parent or Path("."), prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as f:
            with zipfile.ZipFile(f, "w", zipfile.ZIP_STORED) as z:
                for n, data in [("manifest.json", head), *((n, entries[n]) for n in digests)]:
                    info = zipfile.ZipInfo(n, EPOCH)
                    info.external_attr = 0o644 << 16
                    z.writestr(info, data)
            f.flush()
            os.fsync(f.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read(path: str | Path) -> Artifact:
    """Reads an artifact and checks every digest. Raises InvalidArtifact, OSError."""
    entries: dict[str, bytes] = {}
    with open(path, "rb") as f:
        try:
            with zipfile.ZipFile(f) as z:
                infos = z.infolist()
                if sum(i.file_size for i in infos) > MOST_BYTES:
                    raise InvalidArtifact(f"{path}: entries of more than {MOST_BYTES:,} bytes")
                names = [i.filename for i in infos]
                if "manifest.json" not in names or len(set(names)) != len(names):
                    raise InvalidArtifact(f"{path}: not a waferc artifact (no manifest.json)")
                if any(i.compress_type != zipfile.ZIP_STORED for i in infos):
                    raise InvalidArtifact(f"{path}: an entry is compressed; waferc stores them")
                entries = {n: z.read(n) for n in names}
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as e:
            raise InvalidArtifact(f"{path}: not a waferc artifact ({e})") from None
    try:
        manifest = json.loads(entries.pop("manifest.json"))
        digests = dict(manifest["entries"])
        version = manifest["format"]
    except (ValueError, KeyError, TypeError):
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
