"""The artifact: one zip file, its files stored, every one with its SHA-256 in the manifest.

Same plans, same bytes: files in a fixed order with a fixed time. A program (`.wafer`) has one or several
entries, each with a folder of its name: the graph and the placement, from which its plan is rebuilt on
demand, and the tables of its calls. Beside the folders lies what all entries share: wafer, weights, and
kernels as LLVM bitcode. A plan (`.plan`) lacks weights, tables and kernels.

The digests find damage; who forges a file can renew them. So what is read is judged: the container here, a
JSON file's text in `strict_json`, its fields where they are decoded.
"""

from __future__ import annotations

import errno
import hashlib
import io
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

from ...ir.absent import lacking
from ...ir.disk import open_regular, replacing
from ...ir.dtypes import BF16, SMALL
from ...ir.op import Array
from .container import NotAContainer, judge_container
from .foreign import instead_of_artifact
from .strict_json import dumps, parsed
from .typed import Misfit, decode

if TYPE_CHECKING:
    from ...ir.graph import Graph
    from ...placement.build.companions import Companions
    from ...placement.machine.wafer import Wafer
    from ...placement.plan.plan import Plan

FORMAT = 4
EPOCH = (1980, 1, 1, 0, 0, 0)
SCRIPT = "script.json"  # of a program that runs on the host, too; see `runtime.script`
SEARCH = "search"  # the phase whose text is what a search for the plan attempted, one plan a line
MAIN = "main"  # the entry of a program that has one
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")  # of an entry: a folder in the artifact

# The one form of .npy that `npy` writes: format 1.0, C order, plain numbers. Nothing of it is evaluated.
# Types that NumPy itself lacks go by their names.
_NAMED = {t.numpy.name for t in (BF16, *SMALL)}
HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)(\{'descr': '([<|][fiub][1248]|%s)', 'fortran_order': False, "
    rb"'shape': \(((?:\d{1,12}, ?)*(?:\d{1,12})?)\), \} *\n)" % "|".join(sorted(_NAMED)).encode(),
    re.DOTALL,
)


class InvalidArtifact(ValueError):
    """A file that is no artifact, is damaged, or is of another format version."""


@dataclass(frozen=True)
class Artifact:
    """An artifact in memory, its digests checked."""

    manifest: Mapping[str, Any]
    files: Mapping[str, bytes]

    @property
    def entries(self) -> tuple[str, ...]:
        """The names of the entries, in order; the first one is called where none is named."""
        names: Any = self.manifest.get("entries")
        if not isinstance(names, list) or not all(map(is_name, cast(list[Any], names))):
            raise InvalidArtifact("manifest.json: entries without a proper name")
        if not names and SCRIPT not in self.files:
            raise InvalidArtifact("manifest.json: no entries")
        if len(set(cast(list[str], names))) < len(cast(list[str], names)):
            raise InvalidArtifact("manifest.json: two entries of one name")
        return tuple(cast(list[str], names))

    def graph(self, entry: str | None = None) -> Graph:
        """An entry's graph (None: the first one's); constants have values if the artifact holds them."""
        from .encode import Undecodable, decode_graph

        path = f"{self._known(entry)}/graph.json"
        try:
            return decode_graph(self.json(path), self.constants() if "weights.json" in self.files else None)
        except Undecodable as e:
            raise InvalidArtifact(f"{path}: {e}") from None

    def plan(self, entry: str | None = None) -> Plan:
        """An entry's plan (None: the first one's), built again from graph, wafer and placement."""
        name, first = self._known(entry), self._first_plan()
        return first if name == self.entries[0] else self._later_plan(name, first)

    def plans(self) -> dict[str, Plan]:
        """The plans of all entries, each legal: to be run, not only to be shown."""
        from ...placement.judge.judge import judge
        from ...placement.judge.verdict import IllegalPlan

        if not self.entries:
            return {}
        first = self._first_plan()
        made = {self.entries[0]: first, **{name: self._later_plan(name, first) for name in self.entries[1:]}}
        for name, plan in made.items():
            if lacking(list(plan.graph.constants.values())) is not None:
                raise InvalidArtifact("weights.json is missing, and a run needs the constants")
            try:
                judge(plan)
            except IllegalPlan as e:
                raise InvalidArtifact(f"{name}/placement.json: {e}") from None
        return made

    def _first_plan(self) -> Plan:
        from ...placement.build.companions import Companions

        others = tuple(self.graph(name) for name in self.entries[1:])
        return self._plan(self.entries[0], Companions(others))

    def _later_plan(self, entry: str, first: Plan) -> Plan:
        from ...placement.build.companions import Companions

        return self._plan(entry, Companions(first=first))

    def _plan(self, entry: str, companions: Companions) -> Plan:
        from ...placement.build.placement_file import PlacementError, read
        from ...placement.build.routes import routed
        from .encode import Undecodable, decode_wafer

        try:
            wafer = decode_wafer(self.json("wafer.json"))
        except Undecodable as e:
            raise InvalidArtifact(f"wafer.json: {e}") from None
        path = f"{entry}/placement.json"
        try:
            return routed(read(self.json(path), self.graph(entry), wafer, companions))
        except PlacementError as e:
            raise InvalidArtifact(f"{path}: {e}") from None

    def constants(self) -> dict[str, Array]:
        """The constants' values, of all entries; none in a plan."""
        return self._arrays("weights") if "weights.json" in self.files else {}

    def _arrays(self, folder: str) -> dict[str, Array]:
        try:
            names: tuple[str, ...] = decode(self.json(f"{folder}.json"), tuple[str, ...])
        except Misfit as e:
            raise InvalidArtifact(f"{folder}.json: {e}") from None
        if len(set(names)) < len(names):
            raise InvalidArtifact(f"{folder}.json: a name twice")
        return {n: self.array(f"{folder}/{i}.npy") for i, n in enumerate(names)}

    def values(self) -> dict[str, Array]:
        """The values of inputs that became constants."""
        return self._arrays("values") if "values.json" in self.files else {}

    def phases(self, entry: str | None = None) -> dict[str, str]:
        """Each phase's text, of an entry (None: the first one)."""
        folder = f"{self._known(entry)}/phases/"
        texts = {n[len(folder) : -4]: data for n, data in self.files.items() if n.startswith(folder)}
        try:
            return {n: data.decode() for n, data in texts.items()}
        except ValueError as e:
            raise InvalidArtifact(f"a phase's text: {e}") from None

    def _known(self, entry: str | None) -> str:
        if not self.entries:
            raise InvalidArtifact("nothing of this program runs on the wafer")
        if entry is not None and entry not in self.entries:
            raise InvalidArtifact(f"no entry {entry!r}; entries are {', '.join(self.entries)}")
        return entry or self.entries[0]

    @property
    def runnable(self) -> bool:
        return "kernels.bc" in self.files or not self.entries

    def array(self, name: str, dtype: Any = None, rank: int | None = None) -> Array:
        """The array in a file, read-only, of that type and rank where given."""
        data = self.file(name)
        found = HEADER.match(data)
        if found is None or int.from_bytes(found[1], "little") != found.end() - found.start(2):
            raise InvalidArtifact(f"file {name!r} is no array that waferc writes")
        kind = np.dtype(found[3].decode())
        shape = [int(n) for n in found[4].split(b",") if n.strip()]
        if prod(shape) * kind.itemsize != len(data) - found.end():
            raise InvalidArtifact(f"file {name!r}: {kind}{shape} in {len(data) - found.end()} bytes")
        if (dtype is not None and kind != dtype) or (rank is not None and len(shape) != rank):
            raise InvalidArtifact(f"file {name!r} is {kind}{shape}")
        return np.frombuffer(data, kind, offset=found.end()).reshape(shape)

    def file(self, name: str) -> bytes:
        if name not in self.files:
            raise InvalidArtifact(f"file {name!r} is missing")
        return self.files[name]

    def json(self, name: str) -> Any:
        try:
            return parsed(self.file(name))
        except InvalidArtifact:
            raise
        except ValueError as e:
            raise InvalidArtifact(f"file {name!r} is not JSON: {e}") from None


def npy(array: Any) -> bytes:
    """An array as a file: in C order, whatever the array's own."""
    return b"".join(_npy_parts(array))


def _npy_parts(array: Any) -> tuple[bytes, Any]:
    """A file's header, and the array's elements as bytes: where they are, if they are in C order."""
    whole = np.asarray(array, order="C")
    head = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(whole)
    if whole.dtype.name in _NAMED:
        header["descr"] = whole.dtype.name
    np.lib.format.write_array_header_1_0(head, header)
    return head.getvalue(), whole.reshape(-1).view(np.uint8)


def is_name(name: object) -> bool:
    """Whether an entry may be called so."""
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def by_entry(plans: Plan | Mapping[str, Plan]) -> Mapping[str, Plan]:
    """The plans of a program by entry; one alone is that of the entry MAIN."""
    return plans if isinstance(plans, Mapping) else {MAIN: plans}


def constants_of(plans: Mapping[str, Plan]) -> dict[str, Array]:
    """The constants of all entries; ValueError where one name stands for two."""
    from ...ir.entries import constants_together  # a run has its constants from the file

    return constants_together({name: plan.graph for name, plan in plans.items()})


def describe(
    plans: Plan | Mapping[str, Plan], phases: Mapping[str, Mapping[str, str]], wafer: Wafer | None = None
) -> dict[str, bytes]:
    """The files of any artifact: what the plans are made from, and each phase's text, by entry.

    wafer: of a program without entries.
    """
    from ...placement.build import placement_file as written
    from .encode import encode, encode_graph

    named = by_entry(plans)
    out = {"wafer.json": dumps(encode(next((p.wafer for p in named.values()), wafer)))}
    for entry, plan in named.items():
        out[f"{entry}/graph.json"] = dumps(encode_graph(plan.graph))
        out[f"{entry}/placement.json"] = dumps(written.write(plan))
        texts = phases.get(entry, {})
        out |= {f"{entry}/phases/{n}.txt": text.encode() for n, text in texts.items()}
    return out


def weights(plans: Plan | Mapping[str, Plan]) -> dict[str, bytes | Array]:
    """The files that hold the constants laid by the plans."""
    return _named_arrays("weights", constants_of(by_entry(plans)))


def bound(values: Mapping[str, Array]) -> dict[str, bytes | Array]:
    """The files that hold the values of inputs that became constants; none without such."""
    return _named_arrays("values", values) if values else {}


def _named_arrays(folder: str, arrays: Mapping[str, Array]) -> dict[str, bytes | Array]:
    names = sorted(arrays)
    out = {f"{folder}/{i}.npy": arrays[n] for i, n in enumerate(names)}
    return {f"{folder}.json": dumps(names), **out}


def write(path: str | Path, manifest: Mapping[str, Any], files: Mapping[str, bytes | Array]) -> None:
    """Writes an artifact whole or not at all: to a temporary file there, synced, renamed. Raises OSError.

    files: an array is written as .npy, its elements from where they are.
    """

    def parts(name: str) -> tuple[bytes, Any]:
        file = files[name]
        return (file, b"") if isinstance(file, bytes) else _npy_parts(file)

    def digest(name: str) -> str:
        out = hashlib.sha256()
        for part in parts(name):
            out.update(part)
        return out.hexdigest()

    digests = {n: digest(n) for n in sorted(files)}
    head = dumps({"format": FORMAT, **manifest, "sha256": digests})
    with replacing(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as z:
        for n in ("manifest.json", *digests):
            info = zipfile.ZipInfo(n, EPOCH)
            info.create_system = 3  # the same bytes from every system
            info.external_attr = 0o644 << 16
            stored = parts(n) if n in digests else (head,)
            info.file_size = sum(map(len, stored))
            with z.open(info, "w") as entry:
                for one in stored:
                    entry.write(one)


def read(path: str | Path) -> Artifact:
    """Reads an artifact and checks every digest. Raises InvalidArtifact, OSError, MemoryError."""
    with open_regular(path) as f:
        size, memory = os.fstat(f.fileno()).st_size, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if size > memory:
            raise MemoryError(f"{path}: {size:,} bytes; this machine's memory has {memory:,}")
        try:
            files = _files(path, f)
        except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, struct.error, OverflowError) as e:
            if isinstance(e, InvalidArtifact):
                raise
            raise InvalidArtifact(_not_ours(path, str(e))) from None
        except OSError as e:
            if e.errno != errno.EINVAL:  # a place outside the file
                raise
            raise InvalidArtifact(_not_ours(path, str(e))) from None
    manifest = _manifest(path, files.pop("manifest.json"))
    version, listed = manifest["format"], manifest.get("sha256")
    if version != FORMAT:
        raise InvalidArtifact(
            f"{path}: format {version!r}; this waferc reads {FORMAT}; compile the model again"
        )
    if not isinstance(listed, dict):
        raise InvalidArtifact(f"{path}: manifest.json is damaged: no digests")
    digests = cast(dict[str, Any], listed)
    if set(digests) != set(files):
        odd = sorted(set(digests) ^ set(files))[0]
        raise InvalidArtifact(f"{path}: file {odd!r} is missing or not in the manifest")
    for n, data in files.items():
        if hashlib.sha256(data).hexdigest() != digests[n]:
            raise InvalidArtifact(f"{path}: file {n!r} does not match its SHA-256 in the manifest")
    return Artifact(manifest, files)


def _not_ours(path: str | Path, why: str) -> str:
    known = instead_of_artifact(path)
    return f"{path}: not a waferc artifact" + (f": {known}" if known else f" ({why})")


def _manifest(path: str | Path, data: bytes) -> dict[str, Any]:
    try:
        manifest = parsed(data)
    except ValueError as e:
        raise InvalidArtifact(f"{path}: manifest.json is damaged: {e}") from None
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise InvalidArtifact(f"{path}: manifest.json is damaged: no format")
    return cast(dict[str, Any], manifest)


def _files(path: str | Path, file: IO[bytes]) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as z:
        try:
            judge_container(z, file)
        except NotAContainer as e:
            raise InvalidArtifact(f"{path}: {e}") from None
        names = z.namelist()
        if "manifest.json" not in names:
            raise InvalidArtifact(_not_ours(path, "no manifest.json"))
        return {n: z.read(n) for n in names}
