"""A program's script as files of an artifact: JSON, and constants as arrays."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..codegen.artifact.artifact import SCRIPT, Artifact, InvalidArtifact
from ..codegen.artifact.strict_json import dumps
from ..ir.op import Array
from .judge import TYPES
from .ports import Port, Ports
from .script import NONE, Body, Branch, HostStage, Loop, Play, Scan, Script, Stage, WaferStage

DEEPEST = 64  # bodies within bodies


def encode_play(play: Play) -> dict[str, bytes | Array]:
    """The files of a script; those of the host's operators are the caller's."""
    arrays: list[Array] = []
    facts = {
        "ports": [[p.name, list(p.shape), p.dtype.name] for p in play.ports.inputs],
        "inputs": list(play.inputs),
        "outputs": list(play.outputs),
        "operators": list(play.operators),
        "script": _script(play.script, arrays),
    }
    return {SCRIPT: dumps(facts), **{f"script/{i}.npy": a for i, a in enumerate(arrays)}}


def _script(script: Script, arrays: list[Array]) -> dict[str, Any]:
    constants: list[list[int]] = []
    for number, value in script.constants:
        constants.append([number, len(arrays)])
        arrays.append(value)
    stages = [_stage(stage, arrays) for stage in script.stages]
    return {
        "inputs": list(script.inputs),
        "outputs": list(script.outputs),
        "constants": constants,
        "stages": stages,
    }


def _stage(stage: Stage, arrays: list[Array]) -> list[Any]:
    match stage:
        case WaferStage():
            return ["wafer", stage.entry, stage.inputs, stage.outputs]
        case HostStage():
            return ["host", stage.operator, stage.inputs, stage.outputs]
        case Branch():
            held = [_body(b, arrays) for b in (stage.then, stage.otherwise)]
            return ["branch", stage.condition, *held, stage.outputs]
        case Loop():
            held = [_body(stage.body, arrays)]
            return ["loop", stage.count, stage.condition, stage.carried, *held, stage.outputs, stage.stacked]
        case Scan():
            held = [_body(stage.body, arrays)]
            return ["scan", stage.carried, stage.scanned, *held, stage.outputs, stage.stacked]


def _body(body: Body, arrays: list[Array]) -> list[Any]:
    return [_script(body.script, arrays), body.captured]


def decode_play(artifact: Artifact) -> Play:
    """The script in an artifact, every value made before it is read. Raises InvalidArtifact."""
    facts: Any = artifact.json(SCRIPT)
    try:
        ports = tuple(Port(str(n), tuple(int(d) for d in shape), _type(t)) for n, shape, t in facts["ports"])
        operators = tuple(map(str, facts["operators"]))
        inputs, outputs = tuple(map(str, facts["inputs"])), tuple(map(str, facts["outputs"]))
        script = _Reader(artifact, set(artifact.entries), len(operators)).script(facts["script"])
        if (len(inputs), len(outputs)) != (len(script.inputs), len(script.outputs)):
            raise ValueError("names for another number of inputs or outputs")
        if not {p.name for p in ports} <= {*inputs}:
            raise ValueError("a port that is no input")
        return Play(script, Ports(ports, (), ()), inputs, outputs, operators)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as e:
        if isinstance(e, InvalidArtifact):
            raise
        raise InvalidArtifact(f"{SCRIPT} is not complete: {e!r}") from None


@dataclass
class _Reader:
    """Reads scripts; refuses what names an entry, an operator or a value that there is not."""

    artifact: Artifact
    entries: Collection[str]
    operators: int
    depth: int = field(default=0)

    def script(self, data: Mapping[str, Any]) -> Script:
        if self.depth > DEEPEST:
            raise ValueError(f"bodies nested deeper than {DEEPEST}")
        constants = tuple((int(n), self.artifact.array(f"script/{int(i)}.npy")) for n, i in data["constants"])
        inputs = _numbers(data["inputs"])
        known = {*inputs, *(n for n, _ in constants)}
        stages: list[Stage] = []
        for row in data["stages"]:
            stages.append(self._stage(row, known))
        return Script(inputs, self._known(data["outputs"], known), tuple(stages), constants)

    def _stage(self, row: Sequence[Any], known: set[int]) -> Stage:
        kind, *rest = row
        stage: Stage
        match kind:
            case "wafer":
                entry, inputs, outputs = rest
                if entry not in self.entries:
                    raise ValueError(f"entry {entry!r}")
                given = tuple((str(p), n) for p, n in inputs)
                self._known([n for _, n in given], known)
                stage = WaferStage(str(entry), given, tuple((str(p), int(n)) for p, n in outputs))
                known.update(n for _, n in stage.outputs)
                return stage
            case "host":
                number, inputs, outputs = rest
                if not 0 <= number < self.operators:
                    raise ValueError(f"operator {number!r}")
                stage = HostStage(int(number), self._known(inputs, known), _numbers(outputs))
            case "branch":
                condition, then, otherwise, outputs = rest
                (condition,) = self._known([condition], known)
                bodies = self._body(then, known), self._body(otherwise, known)
                stage = Branch(condition, *bodies, _numbers(outputs))
            case "loop":
                count, condition, carried, body, outputs, stacked = rest
                count, condition = self._known([count, condition], known | {NONE})
                empty = tuple((_type(t).name, _numbers(shape)) for t, shape in stacked)
                held = self._body(body, known)
                stage = Loop(count, condition, self._known(carried, known), held, _numbers(outputs), empty)
            case "scan":
                carried, scanned, body, outputs, stacked = rest
                sources = tuple((int(n), int(a), bool(b)) for n, a, b in scanned)
                self._known([n for n, _, _ in sources], known)
                held = self._body(body, known)
                rows = tuple((int(a), bool(b)) for a, b in stacked)
                stage = Scan(self._known(carried, known), sources, held, _numbers(outputs), rows)
            case _:
                raise ValueError(f"stage {kind!r}")
        known.update(n for n in stage.outputs if n != NONE)
        return stage

    def _body(self, data: Any, known: set[int]) -> Body:
        script, captured = data
        self.depth += 1
        body = Body(self.script(script), self._known(captured, known))
        self.depth -= 1
        return body

    def _known(self, numbers: Any, known: Collection[int]) -> tuple[int, ...]:
        found = _numbers(numbers)
        for n in found:
            if n not in known:
                raise ValueError(f"value {n} is read before it is made")
        return found


def _numbers(data: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in data)


def _type(name: Any) -> np.dtype[Any]:
    if name not in TYPES:
        raise InvalidArtifact(f"{SCRIPT}: type {name!r}")
    return np.dtype(str(name))
