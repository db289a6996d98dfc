"""A model that does not run on the wafer alone, cut into stages on the wafer and on the host.

The nodes of each graph (the model's, and the bodies of its loops and branches) are tried on the wafer in
their order. A node that is refused becomes a step of the host; what it makes is an input of the wafer again
where its shape is known. At the end nodes and steps are put into levels: a stage of the wafer, then the steps
that follow it, and so on, as few as dependences allow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..ir.absent import lacking
from ..ir.dtypes import by_onnx
from ..ir.graph import REGISTRY, Graph
from ..ir.op import Array
from ..runtime.ports import Port, Ports
from ..runtime.script import NONE, Body, Branch, HostStage, Loop, Play, Scan, Script
from . import host
from .errors import InvalidInput, Refusal, UnsupportedModel, quoted
from .expand import Builder
from .functions import has_body, why_unknown
from .inputs import Binding, add_inputs
from .kinds import either, empty_of, scalar, slice_of, stacked_of, static, types_of, why_held
from .levels import Key, Step, leveled
from .load import attribute_value

MOST_STAGES = 256  # on the wafer: each is planned
CONTROL = {"If", "Loop", "Scan"}


Place = Literal["wafer", "host", "unsupported"]


def place(op_type: str, domain: str, opset: int) -> Place:
    """Where an operator of the standard can run at best.

    On the wafer by a rule of its own or by the standard's body for it, else on the host by onnx's reference.
    """
    ruled = (domain, op_type) in REGISTRY or (not domain and op_type in CONTROL)
    if ruled or has_body(op_type, domain, opset):
        return "wafer"
    return "host" if host.known(op_type, domain, opset) else "unsupported"


@dataclass
class Found:
    """What all scopes of a model add to. hosts: the nodes that run on the host; refusals: those that nothing
    runs.
    """

    proto: onnx.ModelProto
    graphs: dict[str, Graph] = field(default_factory=dict[str, Graph])
    operators: list[bytes] = field(default_factory=list[bytes])
    hosts: list[Refusal] = field(default_factory=list[Refusal])
    refusals: list[Refusal] = field(default_factory=list[Refusal])

    def entry(self, graph: Graph) -> str:
        """Adds a stage's graph; its entry's name."""
        if len(self.graphs) >= MOST_STAGES:
            raise UnsupportedModel(
                f"more than {MOST_STAGES} stages on the wafer, with the host's between them"
            )
        name = f"stage{len(self.graphs) + 1}"
        self.graphs[name] = graph
        return name

    def mark(self) -> tuple[int, ...]:
        return tuple(map(len, (self.graphs, self.operators, self.hosts, self.refusals)))

    def back_to(self, mark: tuple[int, ...]) -> None:
        """Forgets what was added since `mark`."""
        for name in list(self.graphs)[mark[0] :]:
            del self.graphs[name]
        for grown, size in zip((self.operators, self.hosts, self.refusals), mark[1:], strict=True):
            del grown[size:]


@dataclass
class Scope:
    """One graph on its way to a script.

    held: values that only the host can hold: their keys, and their types as far as known. texts: constants
    of that kind. lost: values behind a node that no one runs.
    """

    found: Found
    builder: Builder
    held: dict[str, tuple[Key, onnx.TypeProto]] = field(default_factory=dict[str, tuple[Key, onnx.TypeProto]])
    texts: dict[str, TensorProto] = field(default_factory=dict[str, TensorProto])
    lost: set[str] = field(default_factory=set[str])
    steps: list[Step] = field(default_factory=list[Step])
    _count: int = 0

    # -- values -------------------------------------------------------------------------
    def add_constants(self, graph: onnx.GraphProto) -> None:
        self.builder.add_initializers(graph)
        self.texts |= {t.name: t for t in graph.initializer if t.name in self.builder.unusable}

    def enter(self, name: str, kind: onnx.TypeProto | None) -> Key:
        """Declares a value that comes from outside or from the host."""
        shape = static(kind)
        if kind is None or shape is None:
            self._count += 1
            self.held[name] = (key := ("held", str(self._count))), kind or onnx.TypeProto()
            return key
        dtype = by_onnx(kind.tensor_type.elem_type)
        assert dtype is not None
        self.builder.names[name] = tensor = self.builder.graph.tensor(name, shape, dtype)
        return "tensor", tensor

    def key(self, name: str) -> Key:
        if name in self.builder.names:
            return "tensor", self.builder.names[name]
        if name in self.texts:
            node = helper.make_node("Constant", [], [name], value=self.texts.pop(name))
            self._on_host(node, "", "a constant of str", name)
        return self.held[name][0]

    def kind(self, name: str) -> onnx.TypeProto:
        if name in self.builder.names:
            return self.builder.type_of(name)
        if name in self.texts:
            return helper.make_tensor_type_proto(TensorProto.STRING, self.texts[name].dims)
        return self.held[name][1] if name in self.held else onnx.TypeProto()

    def knows(self, name: str) -> bool:
        return any(name in of for of in (self.builder.names, self.held, self.texts, self.lost))

    # -- nodes --------------------------------------------------------------------------
    def walk(self, nodes: Sequence[onnx.NodeProto]) -> None:
        for i, node in enumerate(nodes):
            name = node.name or f"{node.op_type}_{i}"
            domain = "" if node.domain == "ai.onnx" else node.domain
            needs = [t for t in (*node.input, *_free_in_bodies(node)) if t]
            if any(t in self.lost for t in needs):
                self.lost |= {*node.output}
                self._judge_lost(node, domain, name)
                continue
            for t in needs:
                if not self.knows(t):
                    where = f"node {quoted(name)} ({node.op_type})"
                    raise InvalidInput(f"{where}: input {quoted(t)} is made by no earlier node")
            if (taken := self._taken(node, domain)) is not None:
                self._inline(node, taken)
                continue
            if all(t in self.builder.names for t in needs):
                refusal = self.builder.attempt(node, name)
                if refusal is None:
                    continue
                if refusal.unbound:
                    self.found.refusals.append(refusal)
                    self.lost |= {*node.output}
                    continue
                reason = refusal.reason
            else:
                first = next(t for t in needs if t not in self.builder.names)
                reason = f"its input {quoted(first)} {why_held(self.kind(first))}"
            if not domain and node.op_type in CONTROL and self._controlled(node, name, reason):
                continue
            self._on_host(node, domain, reason, name)

    def _judge_lost(self, node: onnx.NodeProto, domain: str, name: str) -> None:
        """Refuses a node behind a refused one if nothing would run it either: all are named at once."""
        opset = self.builder.opsets.get(domain, 1)
        own = (domain, node.op_type) in self.builder.functions
        if not own and place(node.op_type, domain, opset) == "unsupported":
            reason = why_unknown(node.op_type, domain, opset)
            self.found.refusals.append(Refusal(node.op_type, domain, 1, reason, name))

    def _taken(self, node: onnx.NodeProto, domain: str) -> onnx.GraphProto | None:
        """The branch of an If whose condition is known."""
        if (domain, node.op_type) != ("", "If") or node.input[0] not in self.builder.names:
            return None
        condition = self.builder.graph.value(self.builder.names[node.input[0]])
        if condition is None:
            return None
        wanted = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
        return next(a.g for a in node.attribute if a.name == wanted)

    def _inline(self, node: onnx.NodeProto, body: onnx.GraphProto) -> None:
        """The nodes of a body that runs once, as if they stood here; its names stay its own."""
        names, held, texts, lost = self.builder.names, self.held, self.texts, self.lost
        self.builder.names, self.held, self.texts, self.lost = dict(names), dict(held), dict(texts), set(lost)
        self.add_constants(body)
        self.walk(body.node)
        results = list(zip(node.output, (o.name for o in body.output), strict=False))
        gone = {out for out, made in results if made in self.lost}
        keys = {out: (self.key(made), self.kind(made)) for out, made in results if out and out not in gone}
        self.builder.names, self.held, self.texts, self.lost = names, held, texts, lost | gone
        for out, (key, kind) in keys.items():
            if key[0] == "tensor":
                self.builder.names[out] = key[1]
            else:
                self.held[out] = key, kind

    def _on_host(self, node: onnx.NodeProto, domain: str, reason: str, name: str) -> None:
        inputs: dict[str, onnx.TypeProto] = {}
        constants: dict[str, Array | TensorProto] = {}
        for t in dict.fromkeys(t for t in (*node.input, *_free_in_bodies(node)) if t):
            value = self.builder.graph.value(self.builder.names.get(t, ""))
            if t in self.texts:
                constants[t] = self.texts[t]
            elif value is not None and lacking([value]) is None:
                constants[t] = value
            else:
                inputs[t] = self.kind(t)
        model = host.alone(node, self.found.proto, inputs, constants)
        content = model.SerializeToString(deterministic=True)
        try:
            host.operator(content)
        except UnsupportedModel:
            self.found.refusals.append(Refusal(node.op_type, domain, 1, reason, name))
            self.lost |= {*node.output}
            return
        reads = tuple(self.key(t) for t in inputs)
        kinds = types_of(model)
        at = len(self.builder.graph.nodes)
        made = tuple(self.enter(o, kinds.get(o)) if o else None for o in node.output)
        number = len(self.found.operators)
        self.found.operators.append(content)
        self.found.hosts.append(Refusal(node.op_type, domain, 1, reason, name))

        def stage(number_of: Mapping[Key, int]) -> HostStage:
            return HostStage(number, _numbers(reads, number_of), _numbers(made, number_of))

        self.steps.append(Step(at, reads, made, stage))

    # -- control ------------------------------------------------------------------------
    def _controlled(self, node: onnx.NodeProto, name: str, reason: str) -> bool:
        """Makes the host decide what the node's bodies do; False where the node must run there as one."""
        at, mark = len(self.builder.graph.nodes), self.found.mark()
        because = f"{reason}: only the decision is the host's"
        self.found.hosts.append(Refusal(node.op_type, "", 1, because, name))
        given = {a.name: a for a in node.attribute}
        before = self.found.mark()[3]
        if node.op_type == "If":
            step = self._if(node, given, at)
        elif node.op_type == "Loop":
            step = self._loop(node, given["body"].g, at)
        elif self.builder.opsets.get("", 1) >= 9:
            step = self._scan(node, given, at)
        else:
            step = None
        if step is None:
            self.found.back_to(mark)
            return False
        if len(self.found.refusals) > before:
            self.lost |= {*node.output}
        self.steps.append(step)
        return True

    def _if(self, node: onnx.NodeProto, given: Mapping[str, onnx.AttributeProto], at: int) -> Step:
        condition = self.key(node.input[0])
        made: list[tuple[Inside, list[onnx.TypeProto]]] = []
        for which in ("then_branch", "else_branch"):
            inside = self._inside(given[which].g, [])
            made.append((inside, [inside.scope.kind(o.name) for o in given[which].g.output]))
        (then, mine), (otherwise, yours) = made
        kinds = [either(a, b) for a, b in zip(mine, yours, strict=True)]
        outputs = tuple(self.enter(o, k) if o else None for o, k in zip(node.output, kinds, strict=False))
        scripts = then.finished(), otherwise.finished()
        reads = (condition, *then.outer, *otherwise.outer)

        def stage(number_of: Mapping[Key, int]) -> Branch:
            inside = zip(scripts, (then, otherwise), strict=True)
            one, other = (Body(script, _numbers(of.outer, number_of)) for script, of in inside)
            return Branch(number_of[condition], one, other, _numbers(outputs, number_of))

        return Step(at, reads, outputs, stage)

    def _loop(self, node: onnx.NodeProto, body: onnx.GraphProto, at: int) -> Step:
        given = [*node.input, "", ""][: max(2, len(node.input))]
        count, condition = (self.key(t) if t else None for t in given[:2])
        carried = tuple(map(self.key, given[2:]))
        first = [scalar(TensorProto.INT64), scalar(TensorProto.BOOL)]
        inside, kinds = self._steady(body, first, [self.kind(t) for t in given[2:]], [])
        rows = [inside.scope.kind(o.name) for o in body.output[1 + len(carried) :]]
        stacked = [stacked_of(row, 0, self._iterations(given, inside, body)) for row in rows]
        results = zip(node.output, [*kinds, *stacked], strict=False)
        outputs = tuple(self.enter(o, kind) if o else None for o, kind in results)
        empty = tuple(empty_of(row) for row in rows)
        script = inside.finished()
        reads = (*(k for k in (count, condition) if k is not None), *carried, *inside.outer)

        def stage(number_of: Mapping[Key, int]) -> Loop:
            times, go = _numbers((count, condition), number_of)
            held = Body(script, _numbers(inside.outer, number_of))
            return Loop(times, go, _numbers(carried, number_of), held, _numbers(outputs, number_of), empty)

        return Step(at, reads, outputs, stage)

    def _iterations(self, given: Sequence[str], inside: Inside, body: onnx.GraphProto) -> int | None:
        """How often a loop runs, where that is known."""
        count, condition = (
            self.builder.graph.value(self.builder.names.get(t, "")) if t else None for t in given[:2]
        )
        inner = inside.scope.builder
        goes_on = inner.graph.value(inner.names.get(body.output[0].name, ""))
        if count is None or goes_on is None or not goes_on.all():
            return None
        return (
            int(count.reshape(-1)[0]) if not given[1] or (condition is not None and condition.all()) else None
        )

    def _scan(self, node: onnx.NodeProto, given: Mapping[str, onnx.AttributeProto], at: int) -> Step:
        values = {name: attribute_value(a) for name, a in given.items()}
        body, over = given["body"].g, int(values["num_scan_inputs"])
        first = len(node.input) - over
        names, made = [*node.input], len(body.output) - first
        axes = values.get("scan_input_axes") or [0] * over
        back = values.get("scan_input_directions") or [0] * over
        axes_out = values.get("scan_output_axes") or [0] * made
        back_out = values.get("scan_output_directions") or [0] * made
        carried = tuple(map(self.key, names[:first]))
        scanned = tuple(map(self.key, names[first:]))
        slices = [slice_of(self.kind(t), a) for t, a in zip(names[first:], axes, strict=True)]
        inside, kinds = self._steady(body, [], [self.kind(t) for t in names[:first]], slices)
        shape = static(self.kind(names[first]))
        length = None if shape is None else shape[axes[0]]
        rows = [inside.scope.kind(o.name) for o in body.output[first:]]
        stacked = [stacked_of(row, axis, length) for row, axis in zip(rows, axes_out, strict=True)]
        results = zip(node.output, [*kinds, *stacked], strict=False)
        outputs = tuple(self.enter(o, kind) if o else None for o, kind in results)
        script = inside.finished()
        reads = (*carried, *scanned, *inside.outer)

        def stage(number_of: Mapping[Key, int]) -> Scan:
            sources = zip(_numbers(scanned, number_of), axes, back, strict=True)
            return Scan(
                _numbers(carried, number_of),
                tuple((n, int(a), bool(b)) for n, a, b in sources),
                Body(script, _numbers(inside.outer, number_of)),
                _numbers(outputs, number_of),
                tuple((int(a), bool(b)) for a, b in zip(axes_out, back_out, strict=True)),
            )

        return Step(at, reads, outputs, stage)

    def _steady(
        self,
        body: onnx.GraphProto,
        before: Sequence[onnx.TypeProto],
        carried: Sequence[onnx.TypeProto],
        after: Sequence[onnx.TypeProto],
    ) -> tuple[Inside, list[onnx.TypeProto]]:
        """A body whose carried values have the same types in every iteration, and these types."""
        kinds, skipped = list(carried), int(bool(before))
        while True:
            mark = self.found.mark()
            inside = self._inside(body, [*before, *kinds, *after])
            given = [inside.scope.kind(o.name) for o in body.output[skipped : skipped + len(kinds)]]
            wider = [either(a, b) for a, b in zip(kinds, given, strict=True)]
            if wider == kinds:
                return inside, kinds
            self.found.back_to(mark)
            kinds = wider

    def _inside(self, body: onnx.GraphProto, kinds: Sequence[onnx.TypeProto]) -> Inside:
        """A body's nodes in a scope of its own, for inputs of these types."""
        scope = Scope(self.found, self.builder.beside())
        outer: list[Key] = []
        captured: list[Key] = []
        for name in free_names(body):
            value = self.builder.graph.value(self.builder.names.get(name, ""))
            if name in self.texts:
                scope.texts[name] = self.texts[name]
            elif value is not None:
                scope.builder.add_constant(name, value)
            else:
                outer.append(self.key(name))
                captured.append(scope.enter(name, self.kind(name)))
        inputs = [
            scope.enter(v.name, kind if kind.WhichOneof("value") else v.type)
            for v, kind in zip(body.input, kinds, strict=True)
        ]
        scope.add_constants(body)
        scope.walk(body.node)
        return Inside(scope, (*inputs, *captured), tuple(o.name for o in body.output), tuple(outer))

    def finish(self, inputs: Sequence[Key], outputs: Sequence[str]) -> Script:
        """The graph's script; its stages' graphs are added to what was found."""
        if any(o in self.lost for o in outputs):
            return Script((), (), ())  # of a model that is refused
        results = [self.key(o) for o in outputs]
        return leveled(self.builder.graph, self.steps, inputs, results, self.found.entry)


@dataclass(frozen=True)
class Split:
    """A model in stages. values: of inputs that are constants. builder: of the outermost graph."""

    found: Found
    play: Play
    values: Mapping[str, Array]
    builder: Builder


def split_model(proto: onnx.ModelProto, given: Binding) -> Split:
    """Cuts a model into stages; what nothing runs is in `found.refusals`, and then they are not complete."""
    opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in proto.opset_import}
    functions = {("" if f.domain == "ai.onnx" else f.domain, f.name): f for f in proto.functions}
    scope = Scope(Found(proto), Builder(opsets, functions))
    scope.add_constants(proto.graph)
    inputs = add_inputs(scope.builder, proto.graph, given, lambda v: scope.enter(v.name, v.type))
    keys = [scope.key(v.name) for v in inputs]
    scope.walk(proto.graph.node)
    outputs = tuple(o.name for o in proto.graph.output)
    for name in outputs:
        if not scope.knows(name):
            raise InvalidInput(f"output {quoted(name)} is made by no node")
    script = scope.finish(keys, outputs)
    tensors = scope.builder.graph.tensors
    ports = tuple(
        Port(v.name, tensors[t].shape, np.dtype(tensors[t].dtype.numpy))
        for v, (kind, t) in zip(inputs, keys, strict=True)
        if kind == "tensor"
    )
    names = [onnx.ModelProto.FromString(o).graph.node[0] for o in scope.found.operators]
    operators = tuple(f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in names)
    play = Play(script, Ports(ports, (), ()), tuple(v.name for v in inputs), outputs, operators)
    values = {name: scope.builder.graph.constants[name] for name in given.values}
    return Split(scope.found, play, values, scope.builder)


@dataclass(frozen=True)
class Inside:
    """A body's scope, its inputs and outputs. outer: the values that it captures, its last inputs."""

    scope: Scope
    inputs: tuple[Key, ...]
    outputs: tuple[str, ...]
    outer: tuple[Key, ...]

    def finished(self) -> Script:
        return self.scope.finish(self.inputs, self.outputs)


def _numbers(keys: Sequence[Key | None], number_of: Mapping[Key, int]) -> tuple[int, ...]:
    """The values' numbers; NONE for one that is not there, or that nobody asks for."""
    return tuple(NONE if key is None else number_of.get(key, NONE) for key in keys)


def _free_in_bodies(node: onnx.NodeProto) -> list[str]:
    return [name for a in node.attribute if a.HasField("g") for name in free_names(a.g)]


def free_names(graph: onnx.GraphProto) -> list[str]:
    """The outer values that a body reads, in order."""
    own = {*(v.name for v in graph.input), *(t.name for t in graph.initializer)}
    own |= {t.values.name for t in graph.sparse_initializer}
    found: dict[str, None] = {}
    for node in graph.node:
        found |= dict.fromkeys(t for t in (*node.input, *_free_in_bodies(node)) if t and t not in own)
        own |= {*node.output}
    return [*found, *(o.name for o in graph.output if o.name not in own and o.name not in found)]
