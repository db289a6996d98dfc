"""A program or plan on disk, as the command line sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from ...codegen.artifact.artifact import SCRIPT, SEARCH, Artifact, InvalidArtifact, read
from ...codegen.artifact.typed import Misfit, decode
from ...runtime.load import load
from ...runtime.program import Program
from ...runtime.saved_script import decode_play
from ..errors import ArtifactError, UsageError, quoted, shown
from ..loading import operator
from ..show.figures import Figures

if TYPE_CHECKING:
    from ...placement.cost.timing import Timing
    from ...placement.machine.wafer import Wafer
    from ...placement.plan.plan import Plan
    from ...runtime.script import Play


class Saved:
    """An artifact at `path`, and of it the entry that is called `entry`, or the first.

    entry: "" where nothing runs on the wafer. artifact: what is there, if it was read already.

    Raises OSError; ArtifactError, naming the path, for what is wrong inside; UsageError for an entry that
    it does not have.
    """

    def __init__(self, path: str, entry: str | None = None, artifact: Artifact | None = None) -> None:
        self.path = path
        with self._named():
            self.artifact: Artifact = artifact or read(path)
            self.entries = self.artifact.entries
        self.entry = entry or next(iter(self.entries), "")
        if self.entry not in (self.entries or ("",)):
            names = ", ".join(map(quoted, self.entries)) or "no entries"
            raise UsageError(f"--entry {shown(self.entry)}: {quoted(path)} has {names}")

    def of(self, entry: str) -> Saved:
        """The same artifact, and another entry of it."""
        return self if entry == self.entry else Saved(self.path, entry, self.artifact)

    @contextmanager
    def _named(self) -> Generator[None]:
        try:
            yield
        except InvalidArtifact as e:
            reason = str(e).removeprefix(f"{self.path}: ")
            raise ArtifactError(f"{quoted(self.path)}: {shown(reason, 200)}") from None

    def _need_entries(self) -> None:
        if not self.entries:
            raise UsageError(f"nothing of {quoted(self.path)} runs on the wafer: there is nothing to show")

    @property
    def manifest(self) -> dict[str, Any]:
        return dict(self.artifact.manifest)

    @cached_property
    def figures(self) -> Figures:
        """The entry's totals."""
        return self.figures_of(self.entry)

    def figures_of(self, entry: str) -> Figures:
        """An entry's totals as `compile` found them: no plan is built for them."""
        self._need_entries()
        with self._named():
            try:
                return Figures.read(_member(_member(self.manifest, "figures"), entry))
            except Misfit as e:
                raise InvalidArtifact(f"manifest.json: figures of {entry!r}: {e}") from None

    @cached_property
    def wafer(self) -> Wafer:
        from ...codegen.artifact.encode import Undecodable, decode_wafer

        with self._named():
            try:
                return decode_wafer(self.artifact.json("wafer.json"))
            except Undecodable as e:
                raise InvalidArtifact(f"wafer.json: {e}") from None

    @cached_property
    def plan(self) -> Plan:
        self._need_entries()
        with self._named():
            return self.artifact.plan(self.entry)

    @property
    def attempts(self) -> str:
        """What the search for the entry's plan attempted, one plan a line; "" where nobody knows."""
        with self._named():
            return self.artifact.phases(self.entry).get(SEARCH, "")

    @cached_property
    def timing(self) -> Timing:
        from ...placement.cost.timing import simulate

        return simulate(self.plan)

    @property
    def dims(self) -> dict[str, int]:
        """What symbolic dimensions were bound to, in this entry."""
        with self._named():
            try:
                own = _members(self.manifest.get("entry_dims", {})).get(self.entry, {})
                dims = {**_members(self.manifest.get("dims", {})), **_members(own)}
                return {name: decode(size, int) for name, size in dims.items()}
            except Misfit as e:
                raise InvalidArtifact(f"manifest.json: dims: {e}") from None

    @property
    def hosts(self) -> dict[str, int]:
        """The operators that run on the host, and how many nodes each stands for."""
        with self._named():
            try:
                rows: Any = decode(self.manifest.get("host", []), tuple[tuple[str, str, int], ...])
            except Misfit as e:
                raise InvalidArtifact(f"manifest.json: host: {e}") from None
        counts: Counter[str] = Counter()
        for kind, domain, n in rows:
            counts[f"{domain}.{kind}" if domain else kind] += n
        return dict(counts)

    @property
    def host_line(self) -> str:
        """The same in words; "" for none."""
        return ", ".join(shown(name) + (f" x {n}" if n > 1 else "") for name, n in self.hosts.items())

    @property
    def play(self) -> Play | None:
        """What calls the entries, with the host's operators between them; None for entries alone."""
        with self._named():
            return decode_play(self.artifact) if SCRIPT in self.artifact.files else None

    def program(self, threads: int | None = None, guard: bool = False) -> Program:
        with self._named(), self.running():
            return load(self.artifact, threads, guard, operator)

    @contextmanager
    def running(self) -> Generator[None]:
        """ArtifactError for a rule that a run with guard sees broken: nothing says who made the file."""
        try:
            yield
        except RuntimeError as e:
            from ...runtime.guard import GuardViolation

            if not isinstance(e, GuardViolation):
                raise
            ours = "if waferc made this program, that is a bug of ours"
            raise ArtifactError(f"{quoted(self.path)}: {shown(str(e), 300)}; {ours}") from None


def _members(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise Misfit("is not an object")
    return cast(dict[str, Any], data)


def _member(data: Any, name: str) -> Any:
    if not isinstance(data, dict) or name not in data:
        raise Misfit("is missing", f".{name}")
    return cast(dict[str, Any], data)[name]
