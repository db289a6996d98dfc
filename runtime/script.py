"""What a program does whose model does not run on the wafer alone: stages, one after the other.

A script works on values in the host's memory, which it knows by number: arrays, lists of them (sequences),
dicts (maps), None (an optional without content), and object arrays of str. A stage on the wafer is a call of
one of the program's entries; a stage on the host is one operator of the model, handed to the runtime as a
callable. Branches, loops and scans have scripts of their own as bodies: the host only decides which runs, how
often.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..ir.op import Array
from .ports import Ports

NONE = -1  # in place of a value: there is none


@dataclass(frozen=True)
class WaferStage:
    """A call of an entry. inputs, outputs: its port and the value."""

    entry: str
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class HostStage:
    """An operator on the host, by its number in the program. An output that nobody asks for is NONE."""

    operator: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Body:
    """A script inside another one. captured: outer values, which are its last inputs."""

    script: Script
    captured: tuple[int, ...]


@dataclass(frozen=True)
class Branch:
    """ONNX's If: one of two bodies without inputs, by a bool."""

    condition: int
    then: Body
    otherwise: Body
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Loop:
    """ONNX's Loop. count, condition: NONE for no limit, and for true.

    The body takes the iteration's number, the condition and the carried values; it gives the next condition,
    the next carried values, and what is stacked along a new first axis. stacked: type and shape of one such
    result, for a loop without iterations.
    """

    count: int
    condition: int
    carried: tuple[int, ...]
    body: Body
    outputs: tuple[int, ...]
    stacked: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Scan:
    """ONNX's Scan. scanned, stacked: (value, axis, whether backwards), of a result without the value.

    The body takes the carried values and a slice of each scanned one; it gives the next carried values and
    a slice of each stacked result.
    """

    carried: tuple[int, ...]
    scanned: tuple[tuple[int, int, bool], ...]
    body: Body
    outputs: tuple[int, ...]
    stacked: tuple[tuple[int, bool], ...]


Stage = WaferStage | HostStage | Branch | Loop | Scan


@dataclass(frozen=True)
class Script:
    """Stages in order. constants: values that are there from the start."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    stages: tuple[Stage, ...]
    constants: tuple[tuple[int, Array], ...] = ()


@dataclass(frozen=True)
class Play:
    """A program's script. ports: of its inputs, in the script's order those with a static shape.

    inputs, outputs: their names, in the script's order. operators: the name of each operator on the host.
    """

    script: Script
    ports: Ports
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: tuple[str, ...]


def bodies(stage: Stage) -> tuple[Body, ...]:
    match stage:
        case Branch():
            return stage.then, stage.otherwise
        case Loop() | Scan():
            return (stage.body,)
        case _:
            return ()


def entries_of(script: Script) -> Iterator[str]:
    """The entries that a script calls, in the order in which it first might."""
    for stage in script.stages:
        if isinstance(stage, WaferStage):
            yield stage.entry
        for body in bodies(stage):
            yield from entries_of(body.script)


def whole(count: Array) -> int:
    """A loop's number of iterations."""
    return int(np.asarray(count).reshape(-1)[0])
