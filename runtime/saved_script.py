"""A program's script as files of an artifact: JSON, and constants as arrays."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from ..codegen.artifact.artifact import SCRIPT, Artifact, InvalidArtifact
from ..codegen.artifact.strict_json import dumps
from ..codegen.artifact.typed import Misfit, decode, member
from ..ir.op import Array
from .image import ports_in
from .judge import TYPES, is_shape
from .ports import Ports
from .script import NONE, Body, Branch, HostStage, Loop, Play, Scan, Script, Stage, WaferStage, bodies

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


_NUMBERS = tuple[int, ...]
_NAMES = tuple[str, ...]
_NAMED = tuple[tuple[str, int], ...]
_SCANNED = tuple[tuple[int, int, bool], ...]


def decode_play(artifact: Artifact) -> Play:
    """The script in an artifact, every value made before it is read. Raises InvalidArtifact."""
    facts: Any = artifact.json(SCRIPT)
    try:
        ports = ports_in(facts, "ports")
        operators: tuple[str, ...] = member(facts, "operators", _NAMES)
        inputs, outputs = member(facts, "inputs", _NAMES), member(facts, "outputs", _NAMES)
        script = _Reader(artifact, set(artifact.entries), len(operators)).script(_field(facts, "script"))
        if (len(inputs), len(outputs)) != (len(script.inputs), len(script.outputs)):
            raise Misfit("names for another number of inputs or outputs")
        if len({*inputs}) < len(inputs) or len({*outputs}) < len(outputs):
            raise Misfit("two inputs or outputs of one name")
        if not {p.name for p in ports} <= {*inputs} or len({p.name for p in ports}) < len(ports):
            raise Misfit("a port that is no input", ".ports")
        return Play(script, Ports(ports, (), ()), inputs, outputs, operators)
    except Misfit as e:
        raise InvalidArtifact(f"{SCRIPT}: {e}") from None


def judge_play(play: Play, entries: Mapping[str, Ports]) -> None:
    """InvalidArtifact unless its stages give entries what these take, and ask for no more."""
    for stage in _wafer_stages(play.script):
        ports = entries[stage.entry]
        given = [port for port, _ in stage.inputs]
        if sorted(given) != sorted(ports.by_name) or ports.kept:
            raise InvalidArtifact(f"{SCRIPT}: a stage gives {given} to entry {stage.entry!r}")
        if strange := {port for port, _ in stage.outputs} - {p.name for p in ports.outputs}:
            raise InvalidArtifact(f"{SCRIPT}: entry {stage.entry!r} has no output {min(strange)!r}")


def _wafer_stages(script: Script) -> Iterator[WaferStage]:
    for stage in script.stages:
        if isinstance(stage, WaferStage):
            yield stage
        for body in bodies(stage):
            yield from _wafer_stages(body.script)


@dataclass
class _Reader:
    """Reads scripts; refuses what names an entry, an operator or a value that there is not."""

    artifact: Artifact
    entries: Collection[str]
    operators: int
    depth: int = field(default=0)

    def script(self, data: Any) -> Script:
        if self.depth > DEEPEST:
            raise Misfit(f"bodies nested deeper than {DEEPEST}")
        pairs = member(data, "constants", tuple[tuple[int, int], ...])
        constants = tuple((n, self.artifact.array(f"script/{i}.npy")) for n, i in pairs)
        inputs = member(data, "inputs", _NUMBERS)
        known = {*inputs, *(n for n, _ in constants)}
        rows: Any = _field(data, "stages")
        if not isinstance(rows, list):
            raise Misfit("is no list", ".stages")
        stages: list[Stage] = []
        for i, row in enumerate(cast(list[Any], rows)):
            try:
                stages.append(self._stage(row, known))
            except Misfit as e:
                raise e.inside(i).inside("stages") from None
        return Script(inputs, self._known(_field(data, "outputs"), known), tuple(stages), constants)

    def _stage(self, row: Any, known: set[int]) -> Stage:
        if not isinstance(row, list) or not row:
            raise Misfit("is no stage")
        kind, *rest = cast(list[Any], row)
        stage: Stage
        match kind:
            case "wafer":
                stage = WaferStage(*decode(rest, tuple[str, _NAMED, _NAMED]))
                if stage.entry not in self.entries:
                    raise Misfit(f"there is no entry {stage.entry!r}")
                self._known([n for _, n in stage.inputs], known)
                known.update(n for _, n in stage.outputs)
                return stage
            case "host":
                stage = HostStage(*decode(rest, tuple[int, _NUMBERS, _NUMBERS]))
                if not 0 <= stage.operator < self.operators:
                    raise Misfit(f"there is no operator {stage.operator}")
                self._known(list(stage.inputs), known)
            case "branch":
                condition, then, otherwise, outputs = decode(rest, tuple[int, Any, Any, _NUMBERS])
                self._known([condition], known)
                one, other = self._body(then, known, 0), self._body(otherwise, known, 0)
                stage = Branch(condition, one, other, outputs)
                self._gives(outputs, len(one.script.outputs), len(other.script.outputs))
            case "loop":
                count, go, carried, body, outputs, stacked = decode(
                    rest, tuple[int, int, _NUMBERS, Any, _NUMBERS, tuple[tuple[str, _NUMBERS], ...]]
                )
                self._known([count, go], known | {NONE})
                self._known(list(carried), known)
                held = self._body(body, known, 2 + len(carried))
                if any(t not in TYPES or not is_shape(shape) for t, shape in stacked):
                    raise Misfit(f"a loop stacks {stacked}")
                stage = Loop(count, go, carried, held, outputs, stacked)
                self._gives(outputs, len(carried) + len(stacked), len(held.script.outputs) - 1)
            case "scan":
                carried, scanned, body, outputs, stacked = decode(
                    rest, tuple[_NUMBERS, _SCANNED, Any, _NUMBERS, tuple[tuple[int, bool], ...]]
                )
                self._known([*carried, *(n for n, _, _ in scanned)], known)
                held = self._body(body, known, len(carried) + len(scanned))
                if not scanned:
                    raise Misfit("a scan over nothing")
                stage = Scan(carried, scanned, held, outputs, stacked)
                self._gives(outputs, len(carried) + len(stacked), len(held.script.outputs))
            case _:
                raise Misfit(f"there is no stage {str(kind)[:40]!r}")
        known.update(n for n in stage.outputs if n != NONE)
        return stage

    def _gives(self, outputs: Sequence[int], *counts: int) -> None:
        """A stage whose bodies give so many results has no more outputs."""
        if len({*counts}) > 1 or len(outputs) > counts[0]:
            raise Misfit(f"{len(outputs)} outputs of bodies that give {' and '.join(map(str, counts))}")

    def _body(self, data: Any, known: set[int], inputs: int) -> Body:
        """A body that takes so many values, and those that it captures."""
        script, captured = decode(data, tuple[Any, Any])
        self.depth += 1
        body = Body(self.script(script), self._known(captured, known))
        self.depth -= 1
        if len(body.script.inputs) != inputs + len(body.captured):
            raise Misfit(
                f"a body of {len(body.script.inputs)} inputs for {inputs + len(body.captured)} values"
            )
        return body

    def _known(self, numbers: Any, known: Collection[int]) -> tuple[int, ...]:
        found: tuple[int, ...] = decode(numbers, _NUMBERS)
        for n in found:
            if n not in known:
                raise Misfit(f"value {n} is read before it is made")
        return found


def _field(data: Any, name: str) -> Any:
    return member(data, name, Any)
