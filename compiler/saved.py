"""A program or plan on disk, as the command line sees it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from ..codegen.artifact import Artifact, InvalidArtifact, read
from ..placement.plan import Plan
from ..placement.timing import Timing, simulate
from ..runtime.load import load
from ..runtime.program import Program
from .errors import ArtifactError, quoted, shown


class Saved:
    """An artifact at `path`. Raises OSError; ArtifactError, naming the path, for what is wrong inside."""

    def __init__(self, path: str) -> None:
        self.path = path
        with self._named():
            self.artifact: Artifact = read(path)

    @contextmanager
    def _named(self) -> Generator[None]:
        try:
            yield
        except InvalidArtifact as e:
            reason = str(e).removeprefix(f"{self.path}: ")
            raise ArtifactError(f"{quoted(self.path)}: {shown(reason, 200)}") from None

    @property
    def manifest(self) -> dict[str, Any]:
        return dict(self.artifact.manifest)

    @cached_property
    def plan(self) -> Plan:
        with self._named():
            return self.artifact.plan()

    @cached_property
    def timing(self) -> Timing:
        return simulate(self.plan)

    def program(self, threads: int | None = None, guard: bool = False) -> Program:
        with self._named():
            return load(self.artifact, threads, guard)
