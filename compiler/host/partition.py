"""A model that does not run on the wafer alone, cut into stages on the wafer and on the host.

The nodes of each graph (the model's, and the bodies of its loops and branches) are tried on the wafer in
their order. A node that is refused becomes a step of the host; what it makes is an input of the wafer again
where its shape is known. At the end nodes and steps are put into levels: a stage of the wafer, then the steps
that follow it, and so on, as few as dependences allow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import TensorProto, helper

from ...ir.absent import lacking
from ...ir.dtypes import by_onnx
from ...ir.graph import Graph
from ...ir.op import Array
from ...runtime.ports import Port, Ports
from ...runtime.script import HostStage, Play, Script
from ..errors import InvalidInput, Refusal, UnsupportedModel, quoted
from ..frontend.free_names import CONTROL, free_in_bodies
from ..frontend.inputs import Binding, add_inputs
from ..frontend.standard import why_unknown
from ..frontend.types import static, types_of, why_held
from ..frontend.walk import Builder
from . import operators as host
from .control import step_of
from .operators import place
from .stages import Key, Step, leveled, numbers

MOST_STAGES = 256  # on the wafer: each is planned


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
        self.graphs[name] = replace(graph, name=f"{self.proto.graph.name or 'model'}, {name}")
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

    def beside(self) -> Scope:
        """A scope of a body."""
        return Scope(self.found, self.builder.beside())

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
            needs = [t for t in (*node.input, *free_in_bodies(node)) if t]
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
        for t in dict.fromkeys(t for t in (*node.input, *free_in_bodies(node)) if t):
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
            return HostStage(number, numbers(reads, number_of), numbers(made, number_of))

        self.steps.append(Step(at, reads, made, stage))

    def _controlled(self, node: onnx.NodeProto, name: str, reason: str) -> bool:
        """Makes the host decide what the node's bodies do; False where the node must run there as one."""
        mark = self.found.mark()
        because = f"{reason}: only the decision is the host's"
        self.found.hosts.append(Refusal(node.op_type, "", 1, because, name))
        refused = len(self.found.refusals)
        step = step_of(self, node)
        if step is None:
            self.found.back_to(mark)
            return False
        if len(self.found.refusals) > refused:
            self.lost |= {*node.output}
        self.steps.append(step)
        return True

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
