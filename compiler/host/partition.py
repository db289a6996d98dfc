"""A model that does not run on the wafer alone, cut into stages on the wafer and on the host.

The nodes of each graph (the model's, and the bodies of its loops and branches) are tried on the wafer in
their order. A node that is refused becomes a step of the host; what it makes is an input of the wafer again
where its shape is known. At the end nodes and steps are put into stages: one of the wafer, then the steps
that follow it, and so on, as few as dependences allow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from ...ir.graph import Graph
from ...runtime.ports import Port, Ports
from ...runtime.script import Play
from ..errors import Refusal
from ..frontend.free_names import CONTROL
from ..frontend.node import ModelNode
from ..frontend.scope import Key, Scope
from ..frontend.walk import Walk, WalkedModel
from .control import Surroundings, step_of
from .so_far import StagesSoFar
from .where_it_runs import where_it_runs


@dataclass(frozen=True)
class OnHost:
    """Where a walk puts nodes that the wafer refuses (`walk.Elsewhere`)."""

    stages: StagesSoFar

    @property
    def refusals(self) -> list[Refusal]:
        return self.stages.refusals

    def take(self, walk: Walk, scope: Scope, node: ModelNode, reason: str) -> bool:
        """Puts a node on the host; of If, Loop and Scan the decision alone where that is possible."""
        if not node.domain and node.op_type in CONTROL and self._decided(walk, scope, node, reason):
            return True
        return self.stages.run_on_host(scope, node, reason)

    def key(self, scope: Scope, name: str) -> Key:
        return self.stages.key(scope, name)

    def runs(self, op_type: str, domain: str, opset: int) -> bool:
        return where_it_runs(op_type, domain, opset) != "unsupported"

    def _decided(self, walk: Walk, scope: Scope, node: ModelNode, reason: str) -> bool:
        """Makes the host decide what the node's bodies do; False where the node must run there as one."""
        mark, refused = self.stages.mark(), len(self.stages.refusals)
        self.stages.hosts.append(node.refusal(f"{reason}: only the decision is the host's"))
        step = step_of(Surroundings(self.stages, scope, walk.body().nodes), node, walk.vocabulary.opset(""))
        if step is None:
            self.stages.back_to(mark)
            return False
        if len(self.stages.refusals) > refused:
            scope.lost |= {*node.proto.output}
        scope.steps.append(step)
        return True


@dataclass(frozen=True)
class StagedModel:
    """A model in stages: the wafer's graphs by entry, the host's operators, and what calls them in turn."""

    graphs: Mapping[str, Graph]
    operators: Sequence[bytes]
    hosts: Sequence[Refusal]
    play: Play


def staged_model(walked: WalkedModel, stages: StagesSoFar) -> StagedModel:
    """The stages of a model of which no node is refused."""
    scope = walked.scope
    keys = [stages.key(scope, v.name) for v in walked.inputs]
    script = stages.script(scope, keys, walked.outputs)
    tensors = scope.graph.tensors
    ports = tuple(
        Port(v.name, tensors[t].shape, np.dtype(tensors[t].dtype.numpy))
        for v, (kind, t) in zip(walked.inputs, keys, strict=True)
        if kind == "tensor"
    )
    nodes = [onnx.ModelProto.FromString(o).graph.node[0] for o in stages.operators]
    operators = tuple(f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in nodes)
    inputs = tuple(v.name for v in walked.inputs)
    play = Play(script, Ports(ports, (), ()), inputs, tuple(walked.outputs), operators)
    return StagedModel(stages.graphs, stages.operators, stages.hosts, play)
