"""What the siege found: confirmed, made smaller, and written down with the command that shows it."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from supervised import Died
from supervised import Worker as Process

from siege.items import Item
from siege.models import M
from siege.trial import Finding, Outcome, Worker, patience, shown_command, site_in, write_files

PATIENCE = 20.0  # seconds for making one finding smaller
Key = tuple[str, str, str]


class Findings:
    """One for each harness, kind and site; what comes again is counted. Those that these harnesses had
    found before are gone."""

    def __init__(self, folder: Path, harnesses: Iterable[str]) -> None:
        self.folder = folder
        for harness in harnesses:
            for old in folder.glob(f"{harness}-*"):
                shutil.rmtree(old, ignore_errors=True)
        self._counts: dict[Key, int] = {}
        self._kept: dict[Key, tuple[Finding, Path]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def died(self, item: Item, how: Died, stacks: Path) -> None:
        self.found(item, _death(item, how, stacks))

    def found(self, item: Item, finding: Finding) -> None:
        key = (item.harness, finding.kind, finding.site)
        self._counts[key] = self._counts.get(key, 0) + 1
        if self._counts[key] > 1:
            return
        again = tried(item)
        if again is None:
            return  # a machine that was busy, or what an earlier execution had left in the process
        key = (item.harness, again.kind, again.site)
        if key in self._kept:
            return
        small, last = smaller(item, again)
        self._kept[key] = last, self._write(small, last)

    def _write(self, item: Item, finding: Finding) -> Path:
        name = re.sub(r"[^A-Za-z0-9]+", "-", f"{item.harness} {finding.kind} {finding.site}").strip("-")[:90]
        folder = self.folder / f"{name}-{item.name[:4]}"
        folder.mkdir(parents=True, exist_ok=True)
        write_files(item, folder)
        commands = " && ".join(map(shown_command, item.commands))
        (folder / "COMMAND").write_text(f"{commands}\n{finding.kind} at {finding.site}: {finding.text}\n")
        (folder / "item.json").write_text(item.dumps())
        return folder

    def lines(self) -> Iterator[str]:
        for (harness, kind, site), (finding, folder) in sorted(self._kept.items()):
            times = self._counts.get((harness, kind, site), 1)
            yield f"FINDING {harness}: {kind} at {site} ({times}x): {finding.text[:160]}"
            yield f"  cd {folder} && {(folder / 'COMMAND').read_text().splitlines()[0]}"


def _death(item: Item, how: Died, stacks: Path) -> Finding:
    text = stacks.read_text(errors="replace") if stacks.exists() else ""
    kind = "hang" if how.how.startswith("no end") or how.how.endswith("SIGPROF") else how.how
    return Finding(kind, site_in(text), how.how, shown_command(item.commands[-1]))


def tried(item: Item) -> Finding | None:
    """The finding of an item in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="siege-") as folder:
        process: Process[Item, Outcome] = Process(Worker(Path(folder), set()))
        try:
            process.give(item)
            result = None
            while result is None:
                assert process.pipe is not None
                process.pipe.poll(0.2)
                result = process.taken(patience())
        finally:
            process.stop()
        if isinstance(result, Died):
            finding = _death(item, result, Path(folder) / "stacks")
            return None if finding.site.startswith("compiler/verify/golden.py") else finding
        return result.finding


def smaller(item: Item, finding: Finding) -> tuple[Item, Finding]:
    """The item with less of everything, as far as it still shows the same."""
    end = time.monotonic() + PATIENCE
    changed = True
    while changed and time.monotonic() < end:
        changed = False
        for candidate in _less(item):
            if time.monotonic() > end:
                break
            again = tried(candidate)
            if again is not None and (again.kind, again.site) == (finding.kind, finding.site):
                item, finding, changed = candidate, again, True
                break
    return item, finding


def _less(item: Item) -> Iterator[Item]:
    for i in range(len(item.commands) - 1, -1, -1):
        if len(item.commands) > 1:
            yield replace(item, commands=(*item.commands[:i], *item.commands[i + 1 :]))
    for name, (base, edits) in item.forged.items():
        for i in range(len(edits)):
            yield replace(item, forged={**item.forged, name: (base, (*edits[:i], *edits[i + 1 :]))})
    if item.harness == "import" and M in item.files:
        for content in _less_of_model(item.files[M]):
            yield replace(item, files={**item.files, M: content})


def _less_of_model(content: bytes) -> Iterator[bytes]:
    """Models without one of their parts, the large ones first."""
    try:
        whole = onnx.ModelProto.FromString(content)
    except DecodeError:
        return
    parts: list[Callable[[onnx.ModelProto], object]] = [
        lambda m: m.functions,
        lambda m: m.graph.node,
        lambda m: m.graph.output,
        lambda m: m.graph.input,
        lambda m: m.graph.initializer,
        lambda m: m.graph.value_info,
        lambda m: m.metadata_props,
    ]
    parts += [lambda m, i=i: m.graph.node[i].attribute for i in range(len(whole.graph.node))]
    for part in parts:
        count = len(part(whole))  # pyright: ignore[reportArgumentType]
        for i in range(count):
            if count > 1 or part in parts[:1] or part in parts[3:]:
                less = onnx.ModelProto()
                less.CopyFrom(whole)
                del part(less)[i]  # pyright: ignore[reportIndexIssue]
                yield less.SerializeToString()
