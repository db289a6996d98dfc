"""Playing a script: one stage after the other, on the wafer's program and on the host's operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from ..ir.op import Array
from .ports import Port, Ports
from .reports import InvalidIndex
from .script import NONE, Body, Branch, HostStage, Loop, Scan, Script, WaferStage, whole

Operator = Callable[[Sequence[Any]], Sequence[Any]]
"""An operator on the host: the values of its inputs -> those of its outputs."""

Call = Callable[[str, Mapping[str, Array]], Mapping[str, Array]]
"""Runs an entry of the program on inputs that suit it."""


class HostError(RuntimeError):
    """An operator on the host failed, or gave something else than the program was compiled for."""


@dataclass
class Player:
    """Plays a program's scripts. ran: how often each entry and each operator ran, since it was made."""

    entries: Mapping[str, Ports]
    call: Call
    operators: Sequence[Operator]
    names: Sequence[str]
    ran: Counter[str] = field(default_factory=Counter[str])
    hosted: Counter[str] = field(default_factory=Counter[str])

    def play(self, script: Script, inputs: Sequence[Any]) -> list[Any]:
        """The script's outputs for its inputs, in order."""
        values: dict[int, Any] = dict(script.constants)
        values |= dict(zip(script.inputs, inputs, strict=True))
        for stage in script.stages:
            match stage:
                case WaferStage():
                    self._wafer(stage, values)
                case HostStage():
                    self._host(stage, values)
                case Branch():
                    taken = stage.then if _true(values[stage.condition]) else stage.otherwise
                    _keep(values, stage.outputs, self._body(taken, values, []))
                case Loop():
                    _keep(values, stage.outputs, self._loop(stage, values))
                case Scan():
                    _keep(values, stage.outputs, self._scan(stage, values))
        return [values[v] for v in script.outputs]

    def _wafer(self, stage: WaferStage, values: dict[int, Any]) -> None:
        ports = self.entries[stage.entry].by_name
        given = {port: suited(ports[port], values[v], "compiled for") for port, v in stage.inputs}
        out = self.call(stage.entry, given)
        self.ran[stage.entry] += 1
        values.update({v: out[port] for port, v in stage.outputs})

    def _host(self, stage: HostStage, values: dict[int, Any]) -> None:
        name = self.names[stage.operator]
        try:
            results = self.operators[stage.operator]([values[v] for v in stage.inputs])
        except (HostError, InvalidIndex):
            raise
        except Exception as e:  # whatever an operator throws
            lines = str(e).splitlines() or [type(e).__name__]
            raise HostError(f"operator {name!r} failed on the host: {lines[0][:300]}") from e
        self.hosted[name] += 1
        _keep(values, stage.outputs, results)

    def _body(self, body: Body, values: Mapping[int, Any], inputs: Sequence[Any]) -> list[Any]:
        return self.play(body.script, [*inputs, *(values[v] for v in body.captured)])

    def _loop(self, stage: Loop, values: Mapping[int, Any]) -> list[Any]:
        most = None if stage.count == NONE else whole(values[stage.count])
        go = np.asarray(True) if stage.condition == NONE else values[stage.condition]
        carried = [values[v] for v in stage.carried]
        stacked: list[list[Any]] = [[] for _ in stage.stacked]
        i = 0
        while _true(go) and (most is None or i < most):
            go, *results = self._body(stage.body, values, [np.asarray(i, np.int64), go, *carried])
            carried = results[: len(carried)]
            for rows, row in zip(stacked, results[len(carried) :], strict=True):
                rows.append(row)
            i += 1
        whole_rows = [
            np.stack(rows) if rows else np.empty((0, *shape), kind)
            for rows, (kind, shape) in zip(stacked, stage.stacked, strict=True)
        ]
        return [*carried, *whole_rows]

    def _scan(self, stage: Scan, values: Mapping[int, Any]) -> list[Any]:
        carried = [values[v] for v in stage.carried]
        scanned = [
            np.moveaxis(np.asarray(values[v]), axis, 0)[:: -1 if back else 1]
            for v, axis, back in stage.scanned
        ]
        if len(lengths := {len(v) for v in scanned}) > 1:
            raise HostError(f"scans inputs of {' and '.join(map(str, sorted(lengths)))} elements together")
        stacked: list[list[Any]] = [[] for _ in stage.stacked]
        for slices in zip(*scanned, strict=True):
            results = self._body(stage.body, values, [*carried, *map(np.ascontiguousarray, slices)])
            carried = results[: len(carried)]
            for rows, row in zip(stacked, results[len(carried) :], strict=True):
                rows.append(row)
        if stage.stacked and not all(stacked):
            raise HostError("a scan over nothing, whose results have no shape")
        out = [
            np.stack(rows[:: -1 if back else 1], axis)
            for rows, (axis, back) in zip(stacked, stage.stacked, strict=True)
        ]
        return [*carried, *out]


def plain(value: Any) -> Any:
    """A value from outside as scripts know them: arrays, those of str as objects; lists; dicts; None."""
    if value is None or isinstance(value, dict):
        return cast(Any, value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast(Sequence[Any], value)]
    array = np.asarray(value)
    return array.astype(object) if array.dtype.kind in "UST" else array


def suited(port: Port, value: Any, what: str) -> Array:
    """A value as the dense array that a port takes. Raises HostError."""
    array = np.asarray(value)
    if array.shape != port.shape or array.dtype != port.dtype:
        raise HostError(
            f"{port.name!r} is {array.dtype}{list(array.shape)} in this run, "
            f"{what} {port.dtype}{list(port.shape)}"
        )
    return np.require(array, None, ["C", "A"])


def _keep(values: dict[int, Any], numbers: Sequence[int], results: Sequence[Any]) -> None:
    values.update({n: value for n, value in zip(numbers, results, strict=False) if n != NONE})


def _true(condition: Any) -> bool:
    return bool(np.asarray(condition).reshape(-1)[0])
