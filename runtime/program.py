"""A loaded program: calls by name of inputs and outputs, states kept between them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from ..ir.op import Array
from .play import Operator, Player, plain
from .ports import Part, Port, Ports
from .script import Play
from .workers import MOST_THREADS, usable

__all__ = ["InputError", "Kept", "Port", "Program"]


class InputError(ValueError):
    """Inputs that a program cannot take; the message says which, and the two facts that disagree."""


class Machine(Protocol):
    """What a program runs on: homes, or with guard the cores' literal SRAM."""

    def lay(self, entry: str, given: Mapping[str, Array]) -> None:
        """Takes inputs of an entry, dense and of the right shape and type; a state not given stays."""
        ...

    def call(self, entry: str, threads: int) -> dict[str, Array]:
        """Runs an entry on what was laid; the outputs by name."""
        ...

    def read(self, entry: str, parts: Mapping[str, Part]) -> dict[str, Array]:
        """Copies of parts of an entry's states, by name."""
        ...

    def write(self, entry: str, parts: Mapping[str, tuple[Part, Array]]) -> None:
        """Changes parts of an entry's states, by name; between calls."""
        ...


class Idle:
    """The machine of a program whose every operator runs on the host."""

    def lay(self, entry: str, given: Mapping[str, Array]) -> None:
        raise AssertionError(entry)

    def call(self, entry: str, threads: int) -> dict[str, Array]:
        raise AssertionError(entry)

    def read(self, entry: str, parts: Mapping[str, Part]) -> dict[str, Array]:
        raise AssertionError(entry)

    def write(self, entry: str, parts: Mapping[str, tuple[Part, Array]]) -> None:
        raise AssertionError(entry)


@dataclass
class Staged:
    """A program's script and its operators on the host. ran, hosted: how often each entry and each operator
    ran in the last call.
    """

    play: Play
    operators: Sequence[Operator]
    ran: Counter[str] = field(default_factory=Counter[str])
    hosted: Counter[str] = field(default_factory=Counter[str])


@dataclass(frozen=True)
class Kept:
    """What a program's states held at a moment, see `Program.keep`. length: positions that the caches held.

    values: of each state; of a cache the positions that were filled.
    """

    length: int
    values: Mapping[str, Array]

    @property
    def bytes(self) -> int:
        return sum(value.nbytes for value in self.values.values())


class Program:
    """A program in memory. `run` may be called any number of times; state stays between calls.

    entries: what goes in and out of each entry, by its name; states of one name are one state, and how far
    the caches are filled is the same for all. threads: host threads, of a call that does not say; None: as
    many as there are processors. Results do not depend on it. values: of inputs that are constants: a call
    may give them as they are, or leave them out. staged: what a call does that names no entry, where it is
    more than the first entry. Calls from several threads take turns.
    """

    def __init__(
        self,
        entries: Mapping[str, Ports],
        machine: Machine,
        threads: int | None = None,
        values: Mapping[str, Array] | None = None,
        staged: Staged | None = None,
    ) -> None:
        self.entries, self._machine, self.staged = dict(entries), machine, staged
        self.values = dict(values or {})
        self.threads = _limited(threads or usable())
        self._lock = threading.Lock()
        self.length = 0  # positions that the caches hold
        self.changes = 0  # how often states were changed
        self._written = 0  # positions that are not 0: more than `length` after a call that failed
        self.reset()

    @property
    def ports(self) -> Ports:
        """Of a call that names no entry: the first one's, or the script's."""
        return self.entry_ports()

    @property
    def state_inputs(self) -> frozenset[str]:
        """What keeps its value between calls, of all entries."""
        return frozenset[str]().union(*(ports.kept for ports in self.entries.values()))

    @property
    def others(self) -> frozenset[str]:
        """Inputs of a call that names no entry which have no port: of str, sequences, maps, optionals."""
        names = self.staged.play.inputs if self.staged is not None else ()
        return frozenset(names) - self.ports.by_name.keys()

    def entry_ports(self, entry: str | None = None) -> Ports:
        """An entry's; None: of a call that names none. Raises InputError for a name that is none's."""
        if entry is None and self.staged is not None:
            return self.staged.play.ports
        return self.entries[self._named(entry)]

    def run(
        self, inputs: Mapping[str, Any], threads: int | None = None, entry: str | None = None
    ) -> dict[str, Array]:
        """Outputs by name for `inputs` by name. A state may be left out: it keeps its value.

        entry: None calls the first one, or plays the program's script; then values are arrays, lists of them
        for sequences, dicts for maps, None for an empty optional, and HostError is raised where the host's
        part fails. Raises InputError for a missing or unknown name, a wrong shape or type, or where the
        caches have no room for the positions that a call adds: nothing ran. With guard,
        raises GuardViolation if a rule was broken; states then hold what the run left.
        """
        with self._lock:
            if entry is None and self.staged is not None:
                return self._played(self.staged, inputs, threads)
            name = self._named(entry)
            ports = self.entries[name]
            given = _accepted(ports, _open(self.values, inputs))
            at = ports.length
            if at is not None:
                if self.length + at.added > at.capacity:
                    raise InputError(
                        f"the caches hold {self.length} of {at.capacity} positions, a call adds {at.added}; "
                        "reset them, or compile with a larger --capacity"
                    )
                given[at.input] = np.asarray(self.length, np.int64)
            self.changes += 1
            self._forget(self.length)
            self._written += at.added if at is not None else 0
            self._machine.lay(name, given)
            outputs = self._machine.call(name, _limited(threads) if threads else self.threads)
            self.length += at.added if at is not None else 0
            return outputs

    def _played(self, staged: Staged, inputs: Mapping[str, Any], threads: int | None) -> dict[str, Any]:
        play = staged.play
        given = _accepted(play.ports, _open(self.values, inputs), play.inputs)
        used = _limited(threads) if threads else self.threads

        def call(entry: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
            self._machine.lay(entry, arrays)
            return self._machine.call(entry, used)

        player = Player(self.entries, call, staged.operators, play.operators)
        results = player.play(play.script, [given[name] for name in play.inputs])
        staged.ran, staged.hosted = player.ran, player.hosted
        return dict(zip(play.outputs, results, strict=True))

    @property
    def capacity(self) -> int | None:
        """Positions that each cache has room for; None without caches."""
        return next((p.length.capacity for p in self.entries.values() if p.length is not None), None)

    def reset(self) -> None:
        """Sets all states to zero, and empties the caches."""
        with self._lock:
            self.changes += 1
            for name, ports in self._owners().items():
                self._machine.lay(name, {p.name: np.zeros(p.shape, p.dtype) for p in ports})
            self.length = self._written = 0

    def keep(self) -> Kept:
        """A copy of the states, for `restore`; it belongs to this program."""
        with self._lock:
            values: dict[str, Array] = {}
            for entry, ports in self._owners().items():
                values |= self._machine.read(entry, {p.name: self._part(p, 0, self.length) for p in ports})
            return Kept(self.length, values)

    def restore(self, kept: Kept) -> None:
        """Sets the states to what they were when `kept` was made."""
        with self._lock:
            self.changes += 1
            self._forget(kept.length)
            for entry, ports in self._owners().items():
                parts = {p.name: (self._part(p, 0, kept.length), kept.values[p.name]) for p in ports}
                self._machine.write(entry, parts)
            self.length = self._written = kept.length

    def rewind(self, length: int) -> None:
        """Forgets the positions from `length` on: the next call continues as if they had never been given.

        Raises InputError, with nothing changed, where there are fewer, or where calls change a state that is
        no cache, of which what it was before is not known.
        """
        with self._lock:
            if not 0 <= length <= self.length:
                raise InputError(f"cannot go back to {length:,} positions: the caches hold {self.length:,}")
            for ports in self.entries.values():
                for past, present in ports.states:
                    if past != present and past not in self._filled:
                        raise InputError(f"cannot go back: state {past!r} is no cache")
            self.changes += 1
            self._forget(length)
            self.length = length

    def _forget(self, length: int) -> None:
        """Makes the caches' positions from `length` on 0, as those are that no call has written."""
        if length >= self._written:
            return
        for entry, ports in self._owners().items():
            caches = [p for p in ports if p.name in self._filled]
            zero = {p.name: np.zeros((), p.dtype) for p in caches}
            parts = {p.name: (self._part(p, length, self._written), zero[p.name]) for p in caches}
            self._machine.write(entry, parts)
        self._written = length

    @cached_property
    def _filled(self) -> Mapping[str, int]:
        """The dimension of positions of each cache."""
        states = self.state_inputs
        lengths = [p.length for p in self.entries.values() if p.length is not None]
        return {name: dim for at in lengths for name, dim in at.dims if name in states}

    def _part(self, port: Port, start: int, end: int) -> Part:
        """The positions of a cache in a range; all of another state."""
        dim = self._filled.get(port.name)
        return tuple(slice(start, end) if d == dim else slice(None) for d in range(len(port.shape)))

    def _owners(self) -> Mapping[str, list[Port]]:
        """The states by the first entry that has them."""
        left = set(self.state_inputs)
        out: dict[str, list[Port]] = {}
        for name, ports in self.entries.items():
            if own := [p for p in ports.inputs if p.name in left]:
                out[name] = own
            left -= {p.name for p in own}
        return out

    def _named(self, entry: str | None) -> str:
        if entry is None:
            return next(iter(self.entries))
        if entry not in self.entries:
            raise InputError(f"no entry {entry!r}; entries are {', '.join(map(repr, self.entries))}")
        return entry


def _open(values: Mapping[str, Array], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs without those that are constants, which must have their value."""
    for name in values.keys() & inputs.keys():
        ours, given = values[name], np.asarray(inputs[name])
        if (ours.shape, ours.dtype) != (given.shape, given.dtype) or ours.tobytes() != given.tobytes():
            raise InputError(
                f"input {name!r} is {_text(ours)} in this program, not {_text(given)}; "
                "compile it again with another --value"
            )
    return {name: value for name, value in inputs.items() if name not in values}


def _text(array: Array) -> str:
    some = array.reshape(-1)[:4].tolist()
    return f"{array.dtype}{list(array.shape)} {' '.join(map(str, some))}{' ...' if array.size > 4 else ''}"


def _accepted(ports: Ports, inputs: Mapping[str, Any], others: Sequence[str] = ()) -> dict[str, Any]:
    """The inputs as dense arrays of the right shape and type. others: names besides those of the ports."""
    names = dict.fromkeys((*ports.by_name, *others))
    for name in inputs:
        if name not in names:
            raise InputError(f"no input {name!r}; inputs are {', '.join(map(repr, names))}")
    given: dict[str, Any] = {}
    for name in names:
        if name not in ports.by_name:
            if name not in inputs:
                raise InputError(f"input {name!r} is missing")
            given[name] = plain(inputs[name])
    for name, port in ports.by_name.items():
        if name not in inputs:
            if name in ports.kept:
                continue
            raise InputError(f"input {name!r} is missing: {port.dtype}{list(port.shape)}")
        array = np.asarray(inputs[name])
        if array.shape != port.shape:
            raise InputError(misshaped(name, array.shape, port))
        if array.dtype != port.dtype:
            raise InputError(mistyped(name, array.dtype, port))
        given[name] = np.require(array, None, ["C", "A"])
    return given


def misshaped(name: str, shape: Sequence[int], port: Port) -> str:
    """What is said of an input of another shape than its port's."""
    return f"input {name!r} has shape {list(shape)}, compiled for {list(port.shape)}"


def mistyped(name: str, dtype: np.dtype[Any], port: Port) -> str:
    """What is said of an input of another type than its port's."""
    return f"input {name!r} has type {dtype}, the program takes {port.dtype}"


def _limited(threads: int) -> int:
    """Threads that may meet at a barrier: each needs a processor."""
    return max(1, min(threads, usable(), MOST_THREADS))
