"""The walk over a model's nodes: rules, function bodies, and branches that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import helper

from ...ir.absent import ValuesNeeded, lacking
from ...ir.dtypes import DType
from ...ir.graph import (
    REGISTRY,
    DependsOnData,
    Graph,
    GraphBuilder,
    InvalidModel,
    Node,
    Spec,
    Tensor,
    TooLarge,
    Unsupported,
)
from ...ir.op import Array, InvalidOp, identity
from ...ir.ops.rearrange import make_copy
from ..errors import DoesNotFit, InvalidInput, Refusal, UsageError, quoted, shown
from . import unroll
from .load import array_of, attribute_value, dense
from .standard import DEPTH_LIMIT, body_of, why_unknown

NUMPY_LIMITS = ("array is too big", "Maximum allowed")  # how its errors begin: ValueErrors, no MemoryErrors
# Of operators without a rule; as `Registered.limits`.
LIMITS = {
    ("", "If"): "condition known, else the host decides",
    ("", "Loop"): "64 iterations known, else the host decides",
    ("", "Scan"): "64 iterations, else the host decides",
}


class Unfinished(Unsupported):
    """A body holds refused nodes. `unbound`: the inputs with whose values they would not be."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        reasons = [f"{r.op_type}: {r.reason}" for r in refusals]
        super().__init__("its body needs " + "; ".join(dict.fromkeys(reasons)))
        self.unbound = tuple(dict.fromkeys(name for r in refusals for name in r.unbound))


@dataclass
class Builder:
    """One model on its way to a Graph.

    names: ONNX value -> tensor of `graph`; missing for one that a refused node makes.
    folded: how many nodes of an operator left nothing to compute.
    """

    opsets: Mapping[str, int]
    functions: Mapping[tuple[str, str], onnx.FunctionProto]
    graph: GraphBuilder = field(default_factory=GraphBuilder)
    names: dict[str, str] = field(default_factory=lambda: {"": ""})
    refusals: list[Refusal] = field(default_factory=list[Refusal])
    folded: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    inputs: list[str] = field(default_factory=list[str])
    outputs: list[str] = field(default_factory=list[str])
    # value -> why no core can store it
    unusable: dict[str, str] = field(default_factory=dict[str, str])
    depth: int = 0
    first: int = 0  # of the graph's nodes, the first that the outermost function has added

    # -- inputs and constants -----------------------------------------------------------
    def add_initializers(self, graph: onnx.GraphProto, known: dict[str, Array] | None = None) -> None:
        """Declares a graph's constants. known: their values where they were read before; filled."""
        for t in graph.initializer:
            try:
                value = known.get(t.name) if known is not None else None
                if value is None:
                    value = array_of(t)
                if known is not None:
                    known[t.name] = value
                self.names[t.name] = self.graph.constant(value, t.name)
            except Unsupported as e:
                self.unusable[t.name] = str(e)
        for s in graph.sparse_initializer:
            self.names[s.values.name] = self.graph.constant(dense(s), s.values.name)

    def add_constant(self, name: str, value: Array) -> None:
        self.names[name] = self.graph.constant(value, name)

    def add_input(self, name: str, shape: Sequence[int], dtype: DType) -> None:
        self.names[name] = self.graph.tensor(name, shape, dtype)
        self.inputs.append(self.names[name])

    # -- nodes --------------------------------------------------------------------------
    def add_nodes(self, nodes: Sequence[onnx.NodeProto]) -> None:
        for i, node in enumerate(nodes):
            self.graph.source = (node.name or f"{node.op_type}_{i}",)
            self._add(node)

    def attempt(self, node: onnx.NodeProto, name: str) -> Refusal | None:
        """Adds one node, or says why it cannot be."""
        self.graph.source = (name,)
        refused = len(self.refusals)
        self._add(node)
        return self.refusals.pop() if len(self.refusals) > refused else None

    def beside(self) -> Builder:
        """A builder of another graph of the same model."""
        return Builder(self.opsets, self.functions)

    def _add(self, node: onnx.NodeProto) -> None:
        """One node; a refused one is recorded and its outputs stay unknown."""
        source = self.graph.source
        where = f"node {quoted(source[0])} ({shown(node.op_type)})"
        domain = "" if node.domain == "ai.onnx" else node.domain
        unusable = [t for t in node.input if t in self.unusable]
        if unusable:
            reason = f"its input {quoted(unusable[0])} has {self.unusable[unusable[0]]}"
            self.refusals.append(Refusal(node.op_type, domain, 1, reason, source[0]))
            return
        if any(t not in self.names for t in node.input):
            if not self.refusals:
                missing = next(t for t in node.input if t not in self.names)
                raise InvalidInput(f"{where}: input {quoted(missing)} is made by no earlier node")
            return  # behind a refused node
        before = len(self.graph.nodes)
        try:
            results = self._results(node, domain)
        except (Unsupported, ValuesNeeded) as e:
            del self.graph.nodes[before:]
            self.refusals.append(self._refusal(node.op_type, domain, e, source[0]))
            return
        except InvalidModel as e:
            raise InvalidInput(f"{where}: {shown(str(e), 300)}") from None
        except (TooLarge, MemoryError, OverflowError, ValueError) as e:
            if type(e) is ValueError and not str(e).startswith(NUMPY_LIMITS):
                raise
            what = str(e) if isinstance(e, TooLarge) else "a tensor has no room in this machine's memory"
            raise DoesNotFit(f"{where}: {shown(what, 300)}; try smaller sizes") from None
        for name, tensor in zip(node.output, results, strict=False):
            if name and tensor:
                self.names[name] = tensor
        if len(self.graph.nodes) == before:
            self.folded[node.op_type, domain] = self.folded.get((node.op_type, domain), 0) + 1

    def _refusal(self, op_type: str, domain: str, e: Exception, node: str) -> Refusal:
        reason, unbound = str(e), tuple[str, ...]()
        if isinstance(e, Unfinished):
            unbound = e.unbound
        elif isinstance(e, DependsOnData) and (unbound := self._inputs_behind(e.tensor)):
            flags = " ".join(f"--value {shown(name)}=..." for name in unbound)
            reason = f"needs {flags}: {e.what} depends on it"
        return Refusal(op_type, domain, 1, shown(reason, 200), node, unbound)

    def _inputs_behind(self, tensor: str) -> tuple[str, ...]:
        """The model's inputs that a node takes a tensor from, if that is all that it takes it from.

        Looks through what a function has made of them, not through other nodes: those compute it from data.
        """
        made: dict[str, list[str]] = {}
        for n in self.graph.nodes[self.first :] if self.depth else []:
            made.setdefault(n.output, []).extend(n.inputs)
        found, left = dict[str, None](), [tensor]
        while left:
            t = left.pop()
            if t in self.inputs:
                found[t] = None
            elif t in made:
                left += made.pop(t)
            elif t not in self.graph.constants:
                return ()
        return tuple(found)

    def _results(self, node: onnx.NodeProto, domain: str) -> Sequence[str]:
        """The tensors that the node's outputs are."""
        key = (domain, node.op_type)
        if key == ("", "If"):
            return self._branch(node)
        if key in (("", "Loop"), ("", "Scan")):
            inputs = [self.names[t] for t in node.input]
            if node.op_type == "Loop":
                return unroll.loop(self.graph, node, inputs, self._inside)
            return unroll.scan(self.graph, node, inputs, self._inside, self.opsets.get("", 1))
        if key in self.functions:
            return self._call(node, self.functions[key])
        registered = REGISTRY.get(key)
        opset = self.opsets.get(domain, 1)
        if registered is None or registered.since > opset:
            return self._call(node, self._standard_function(node, domain, opset))
        spec = Spec(
            node.op_type,
            self.graph.source[0],
            tuple(self.names[t] for t in node.input),
            tuple(node.output),
            {a.name: attribute_value(a) for a in node.attribute},
            opset,
        )
        return registered.rule(self.graph, spec)

    def _branch(self, node: onnx.NodeProto) -> Sequence[str]:
        condition = self.graph.value(self.names[node.input[0]])
        if condition is None:
            raise Unsupported("the condition depends on data")
        wanted = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
        body = next(a.g for a in node.attribute if a.name == wanted)
        outer = dict(self.names)
        self.add_initializers(body)
        self.add_nodes(body.node)
        results = [self.names.get(o.name, "") for o in body.output]
        self.names = outer
        return results

    def _inside(self, body: onnx.GraphProto, arguments: Sequence[str]) -> Sequence[str]:
        """Adds a body's nodes; the tensors of its outputs. Raises Unfinished where one is refused."""
        outer, refused = dict(self.names), len(self.refusals)
        self.names |= {v.name: t for v, t in zip(body.input, arguments, strict=True)}
        self.add_initializers(body)
        self.add_nodes(body.node)
        results = [self.names.get(o.name, "") for o in body.output]
        self.names = outer
        if len(self.refusals) > refused:
            inside = self.refusals[refused:]
            del self.refusals[refused:]
            raise Unfinished(inside)
        return results

    def _call(self, node: onnx.NodeProto, function: onnx.FunctionProto) -> Sequence[str]:
        """Runs the body of a function in a scope of its own."""
        if self.depth >= DEPTH_LIMIT:
            raise Unsupported(f"functions nested deeper than {DEPTH_LIMIT}")
        given = {a.name: a for a in node.attribute}
        defaults = {a.name: a for a in function.attribute_proto}
        arguments = [self.names[t] for t in node.input]
        arguments += [""] * (len(function.input) - len(arguments))
        # The standard's preview functions do not say which opset of its main domain they use.
        own = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in function.opset_import}
        inner = replace(
            self,
            opsets={**self.opsets, **own},
            names={"": "", **dict(zip(function.input, arguments, strict=True))},
            folded={},
            depth=self.depth + 1,
            first=self.first if self.depth else len(self.graph.nodes),
        )
        refused = len(self.refusals)
        source = self.graph.source
        for body_node in function.node:
            inner._add(_with_attributes(body_node, {**defaults, **given}))
        self.graph.source = source
        if len(self.refusals) > refused:
            inside = self.refusals[refused:]
            del self.refusals[refused:]
            raise Unfinished(inside)
        return [inner.names.get(o, "") for o in function.output]

    def _standard_function(self, node: onnx.NodeProto, domain: str, opset: int) -> onnx.FunctionProto:
        """The body that the ONNX standard gives for the node's operator."""
        types = [self.type_of(t).SerializeToString() for t in node.input]
        body = body_of(node, domain, opset, types)
        if body is None:
            raise Unsupported(why_unknown(node.op_type, domain, opset))
        return body

    def type_of(self, value: str) -> onnx.TypeProto:
        if not value:
            return onnx.TypeProto()
        t = self.graph.tensors[self.names[value]]
        return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(t.dtype.numpy), t.shape)

    # -- outputs ------------------------------------------------------------------------
    def set_outputs(self, outputs: Sequence[str]) -> None:
        """Gives each output's tensor the output's own name. Does nothing after a refusal."""
        if self.refusals:
            return
        for name in outputs:
            if name not in self.names:
                raise InvalidInput(f"output {quoted(name)} is made by no node")
        taken: dict[str, str] = {}  # tensor -> output that has it already
        for name in outputs:
            tensor = self.names[name]
            if tensor in self.inputs or tensor in taken or tensor in self.graph.constants:
                tensor = self._copied(tensor, name)
            taken[tensor] = name
        self._rename(taken)
        self.outputs = list(outputs)

    def _copied(self, tensor: str, hint: str) -> str:
        """A result of its own: an output that is an input, a constant or another output."""
        g = self.graph
        if (value := g.value(tensor)) is not None:
            return g.constant(value if lacking([value]) else np.array(value), hint)
        shape = g.shape(tensor)
        axes = tuple((f"d{i}", n) for i, n in enumerate(shape))
        access = identity([a for a, _ in axes])
        g.source = (hint,)
        return g.emit(make_copy(g, tensor, axes, access, access), [tensor], shape, hint)

    def _rename(self, wanted: Mapping[str, str]) -> None:
        """Renames tensors; one that has a wanted name by chance makes room."""
        g = self.graph
        table = dict(wanted)
        for name in wanted.values():
            if name in g.tensors and name not in wanted:
                table[name] = g.fresh(name)
        if all(a == b for a, b in table.items()):
            return

        def new(name: str) -> str:
            return table.get(name, name)

        g.tensors = {new(t.name): Tensor(new(t.name), t.shape, t.dtype) for t in g.tensors.values()}
        g.constants = {new(name): value for name, value in g.constants.items()}
        g.nodes = [Node(n.op, tuple(map(new, n.inputs)), new(n.output), n.source) for n in g.nodes]

    def finish(self, name: str, states: Sequence[tuple[str, str]], grow: bool = False) -> Graph:
        """The graph; UsageError for a state that is no pair of input and output of one type.

        grow: an output may be longer than its input; such states are checked by whom they concern.
        """
        g = self.graph
        for past, present in states:
            for end, ends, what in ((past, self.inputs, "input"), (present, self.outputs, "output")):
                if end not in ends:
                    known = ", ".join(map(quoted, ends))
                    raise UsageError(f"--state: no {what} {quoted(end)}; the {what}s are {known}")
            a, b = g.tensors[past], g.tensors[present]
            if not grow and (a.shape, a.dtype) != (b.shape, b.dtype):
                raise UsageError(f"--state: {shown(str(a))} and {shown(str(b))} differ")
        graph = Graph(
            name,
            g.tensors,
            tuple(g.nodes),
            g.constants,
            tuple(self.inputs),
            tuple(self.outputs),
            tuple(states),
        )
        try:
            replace(graph, states=()).check() if grow else graph.check()
        except InvalidOp as e:
            raise AssertionError(f"a rule made an op that contradicts itself: {e}") from e
        return graph


def _with_attributes(node: onnx.NodeProto, given: Mapping[str, onnx.AttributeProto]) -> onnx.NodeProto:
    """A function body's node with references to the function's attributes replaced."""
    if not any(a.ref_attr_name for a in node.attribute):
        return node
    out = onnx.NodeProto()
    out.CopyFrom(node)
    del out.attribute[:]
    for a in node.attribute:
        if not a.ref_attr_name:
            out.attribute.append(a)
        elif a.ref_attr_name in given:
            value = onnx.AttributeProto()
            value.CopyFrom(given[a.ref_attr_name])
            value.name = a.name
            out.attribute.append(value)
    return out
