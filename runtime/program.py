"""A loaded program: calls by name of inputs and outputs, states kept between them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..ir.op import Array
from .play import Operator, Player, plain
from .ports import Port, Ports
from .script import Play
from .workers import MOST_THREADS, usable

__all__ = ["InputError", "Port", "Program"]


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


class Idle:
    """The machine of a program whose every operator runs on the host."""

    def lay(self, entry: str, given: Mapping[str, Array]) -> None:
        raise AssertionError(entry)

    def call(self, entry: str, threads: int) -> dict[str, Array]:
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
            left = set(self.state_inputs)
            for name, ports in self.entries.items():
                own = [p for p in ports.inputs if p.name in left]
                left -= {p.name for p in own}
                if own:
                    self._machine.lay(name, {p.name: np.zeros(p.shape, p.dtype) for p in own})
            self.length = 0

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
