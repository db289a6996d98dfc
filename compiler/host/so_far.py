"""What a model in stages is made of so far: graphs of stages, operators of the host, and why they are its."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx
from onnx import TensorProto, helper

from ...ir.absent import lacking
from ...ir.graph import Graph
from ...ir.op import Array
from ...runtime.script import HostStage, Script
from ..errors import InvalidInput, Refusal, UnsupportedModel, quoted
from ..frontend.node import ModelNode
from ..frontend.scope import HostStep, Key, Scope
from ..frontend.types import types_of
from .index_bounds import INDEXED, attributes_of, problem_of
from .one_node import alone
from .stages import numbers, script_in_stages

MOST_STAGES = 256  # on the wafer: each is planned


@dataclass(frozen=True)
class StagesSoFar:
    """What all graphs of a model, its own and those of its bodies, add to.

    graphs: of stages on the wafer, by entry. operators: of the host, as models of one node. hosts: the nodes
    that run there, and why. refusals: of nodes that nothing runs.
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

    # -- of one scope -------------------------------------------------------------------
    def run_on_host(self, scope: Scope, node: ModelNode, reason: str) -> bool:
        """Makes a node an operator of the host; False where that cannot run it."""
        inputs: dict[str, onnx.TypeProto] = {}
        constants: dict[str, Array | TensorProto] = {}
        for t in dict.fromkeys(node.reads):
            value = scope.value(t)
            if t in scope.texts:
                constants[t] = scope.texts[t]
            elif value is not None and lacking([value]) is None:
                constants[t] = value
            else:
                inputs[t] = scope.kind(t)
        _judge_indices(node, scope, constants)
        model = alone(node.named, self.proto, inputs, constants)
        content = model.SerializeToString(deterministic=True)
        from .operators import operator  # late: it imports onnx's reference, which few models need

        try:
            operator(content)
        except UnsupportedModel:
            return False
        at, number, kinds = len(scope.graph.nodes), len(self.operators), types_of(model)
        reads = tuple(self.key(scope, t) for t in inputs)
        makes = tuple(scope.enter(o, kinds.get(o)) if o else None for o in node.proto.output)
        self.operators.append(content)
        self.hosts.append(node.refusal(reason))

        def stage(number_of: Mapping[Key, int]) -> HostStage:
            return HostStage(number, numbers(reads, number_of), numbers(makes, number_of))

        scope.steps.append(HostStep(at, reads, makes, stage))
        return True

    def key(self, scope: Scope, name: str) -> Key:
        """A value that is not lost; a constant that no core holds becomes an operator of the host."""
        if name in scope.names:
            return "tensor", scope.names[name]
        if name in scope.texts:
            proto = helper.make_node("Constant", [], [name], value=scope.texts.pop(name))
            self.run_on_host(scope, ModelNode(proto, 0, name), "a constant of str")
        if name not in scope.held:
            raise InvalidInput(f"output {quoted(name)} of a body is made by no node")
        return scope.held[name][0]

    def script(self, scope: Scope, inputs: Sequence[Key], outputs: Sequence[str]) -> Script:
        """The script of a scope's graph; the graphs of its stages are added."""
        if any(o in scope.lost for o in outputs):
            return Script((), (), ())  # of a model that is refused
        results = [self.key(scope, o) for o in outputs]
        return script_in_stages(scope.graph, scope.steps, inputs, results, self.entry)


def _judge_indices(node: ModelNode, scope: Scope, constants: Mapping[str, Array | TensorProto]) -> None:
    """Raises InvalidInput for constant indices outside their axis, where it is known."""
    if node.op_type not in INDEXED or len(node.proto.input) < 2:
        return
    of, by = node.proto.input[:2]
    dims, indices = scope.kind(of).tensor_type.shape.dim, constants.get(by)
    if indices is None or isinstance(indices, TensorProto) or not all(d.HasField("dim_value") for d in dims):
        return
    shape = [d.dim_value for d in dims]
    if problem := problem_of(node.op_type, attributes_of(node.proto), shape, indices):
        raise InvalidInput(f"{node.where}: {problem}")
