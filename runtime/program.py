"""A loaded program: calls by name of inputs and outputs, states kept between them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from ..ir.op import Array
from .ports import Port, Ports
from .workers import MOST_THREADS, usable

__all__ = ["InputError", "Port", "Program"]


class InputError(ValueError):
    """Inputs that a program cannot take; the message says which, and the two facts that disagree."""


class Machine(Protocol):
    """What a program runs on: homes, or with guard the cores' literal SRAM."""

    def lay(self, given: Mapping[str, Array]) -> None:
        """Takes inputs, dense and of the right shape and type; a state that is not given stays."""
        ...

    def call(self, threads: int) -> dict[str, Array]:
        """Runs on what was laid; the outputs by name."""
        ...


class Program:
    """A program in memory. `run` may be called any number of times; state stays between calls.

    threads: host threads, of a call that does not say; None: as many as there are processors.
    Results do not depend on it. Calls from several threads take turns.
    """

    def __init__(self, ports: Ports, machine: Machine, threads: int | None = None) -> None:
        self.ports, self._machine = ports, machine
        self.threads = _limited(threads or usable())
        self._lock = threading.Lock()
        self._by_name = {p.name: p for p in ports.inputs}
        self.length = 0  # positions that the caches hold
        self.state_inputs = frozenset(past for past, _ in ports.states)  # keep their value between calls
        self.reset()

    def run(
        self, inputs: Mapping[str, Any], threads: int | None = None, entry: str | None = None
    ) -> dict[str, Array]:
        """Outputs by name for `inputs` by name. A state may be left out: it keeps its value.

        Raises InputError for an unknown entry, a missing or unknown name, a wrong shape or type, or where
        the caches have no room for the positions that a call adds: nothing ran. With guard, raises
        GuardViolation if a rule was broken; states then hold what the run left.
        """
        if entry is not None and entry not in self.entries:
            raise InputError(f"no entry {entry!r}; entries are {', '.join(map(repr, self.entries))}")
        with self._lock:
            given = self._accepted(inputs)
            at = self.ports.length
            if at is not None:
                if self.length + at.added > at.capacity:
                    raise InputError(
                        f"the caches hold {self.length} of {at.capacity} positions, a call adds {at.added}; "
                        "reset them, or compile with a larger --capacity"
                    )
                given[at.input] = np.asarray(self.length, np.int64)
            self._machine.lay(given)
            outputs = self._machine.call(_limited(threads) if threads else self.threads)
            self.length += at.added if at is not None else 0
            return outputs

    @property
    def entries(self) -> Mapping[str, Ports]:
        """What may be called, by name."""
        return {"main": self.ports}

    @property
    def capacity(self) -> int | None:
        """Positions that each cache has room for; None without caches."""
        return None if self.ports.length is None else self.ports.length.capacity

    def reset(self) -> None:
        """Sets all states to zero, and empties the caches."""
        with self._lock:
            ports = (self._by_name[name] for name in sorted(self.state_inputs))
            self._machine.lay({p.name: np.zeros(p.shape, p.dtype) for p in ports})
            self.length = 0

    def _accepted(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """The inputs as dense arrays of the right shape and type."""
        for name in inputs:
            if name not in self._by_name:
                raise InputError(f"no input {name!r}; inputs are {', '.join(map(repr, self._by_name))}")
        given: dict[str, Array] = {}
        for name, port in self._by_name.items():
            if name not in inputs:
                if name in self.state_inputs:
                    continue
                raise InputError(f"input {name!r} is missing: {port.dtype}{list(port.shape)}")
            array = np.asarray(inputs[name])
            if array.shape != port.shape:
                raise InputError(
                    f"input {name!r} has shape {list(array.shape)}, compiled for {list(port.shape)}"
                )
            if array.dtype != port.dtype:
                raise InputError(f"input {name!r} has type {array.dtype}, the program takes {port.dtype}")
            given[name] = np.require(array, None, ["C", "A"])
        return given


def _limited(threads: int) -> int:
    """Threads that may meet at a barrier: each needs a processor."""
    return max(1, min(threads, usable(), MOST_THREADS))
