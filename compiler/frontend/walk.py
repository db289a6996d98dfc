"""The walk over a model's nodes: rules, function bodies, and branches that are known.

Each node of a graph is entered once, in order. One that the wafer refuses goes elsewhere, where the walk may
put it: what stands in its place makes its values. Else it is refused, and what reads its values is lost. The
bodies of functions and of loops written out go nowhere: one refused node in them, and the whole is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import onnx

from ...ir.absent import ValuesNeeded, lacking
from ...ir.graph import InvalidModel, TooLarge, Unsupported
from ...ir.op import Array
from ...ir.ops.conversion import cast
from ...ir.rules import PREPARED, REGISTRY, GraphBuilder, Spec
from ..errors import DoesNotFit, InvalidInput, Refusal, quoted, shown
from ..stopwatch import tell
from . import unroll
from .inputs import Binding, add_inputs
from .judge_nodes import contradicts, leaves_open, shape_text
from .judge_shapes import judge_shapes
from .load import attribute_value
from .node import ModelNode, nodes_of
from .open_rows import OpenRows
from .opsets import KnownModel, Vocabulary
from .order import not_made
from .parameters import judge_given, judge_parameters
from .refusals import Unfinished, refusal_of
from .scope import Key, Scope
from .signatures import signature_of
from .standard import DEPTH_LIMIT, body_of, result_types, states_types, why_unknown, with_attributes
from .types import why_held

TOLD = 16  # nodes after which it is told how many are done
FIRST = 0.4  # share of an import before nodes are entered
NUMPY_LIMITS = ("array is too big", "Maximum allowed")  # how its errors begin: ValueErrors, no MemoryErrors
# Of operators without a rule; as `Registered.limits`.
LIMITS = {
    ("", "If"): "condition known, else the host decides",
    ("", "Loop"): "64 iterations known, else the host decides",
    ("", "Scan"): "64 iterations, else the host decides",
}


class Elsewhere(Protocol):
    """Where nodes go that the wafer refuses: the host."""

    @property
    def refusals(self) -> list[Refusal]:
        """Of nodes that nothing runs there either."""
        ...

    def take(self, walk: Walk, scope: Scope, node: ModelNode, reason: str) -> bool:
        """Puts a node there, which makes its values known; False where nothing runs it there either.

        reason: of the wafer's refusal.
        """
        ...

    def key(self, scope: Scope, name: str) -> Key:
        """A value that is not lost, whatever it is; a constant that no core holds is put there."""
        ...

    def runs(self, op_type: str, domain: str, opset: int) -> bool:
        """Whether an operator might run, here or there."""
        ...


@dataclass(frozen=True)
class Walk:
    """How nodes are entered, and what became of them.

    elsewhere: None where all must run on the wafer. folded: how many nodes of an operator left nothing to
    compute. depth: of functions around the nodes. first: of the graph's nodes, the first that the outermost
    of these has added. standard: the nodes are those of a body that the standard gives. rows: what becomes of
    rows of which only a run knows how many it has.
    """

    vocabulary: Vocabulary
    elsewhere: Elsewhere | None = None
    refusals: list[Refusal] = field(default_factory=list[Refusal])
    folded: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    depth: int = 0
    first: int = 0
    standard: bool = False
    rows: OpenRows = field(default_factory=OpenRows)

    def nodes(self, scope: Scope, protos: Sequence[onnx.NodeProto], told: bool = False) -> None:
        """Enters a graph's nodes. told: those of the whole model, of which it is told how many are done."""
        for i, node in enumerate(nodes_of(protos)):
            if told and i % TOLD == 0:
                tell("entering nodes", FIRST + (1 - FIRST) * i / len(protos))
            scope.graph.source = (node.name,)
            self._enter(scope, node, protos)

    def body(self) -> Walk:
        """The walk of a body that becomes a graph of its own."""
        return replace(self, folded={})

    def _alone(self) -> Walk:
        """The walk of what runs on the wafer entirely or not at all."""
        return replace(self, elsewhere=None, refusals=[])

    def _enter(self, scope: Scope, node: ModelNode, among: Sequence[onnx.NodeProto]) -> None:
        """One node, whose values are known or lost then. among: the nodes of its graph."""
        if not self._ready(scope, node, among):
            scope.lost |= {*node.proto.output}
            return
        before = len(scope.graph.nodes), len(scope.steps), len(self.refusals)
        refusal = None
        if (branch := _known_branch(scope, node)) is not None:
            self.rows.judge_number(node, [scope.names.get(node.proto.input[0], "")])
            self._inline(scope, node, branch)
        else:
            refusal = self._added(scope, node)
        if refusal is None:
            if before == (len(scope.graph.nodes), len(scope.steps), len(self.refusals)):
                kind = node.op_type, node.domain
                self.folded[kind] = self.folded.get(kind, 0) + 1
        elif (
            self.elsewhere is None
            or refusal.unbound
            or not self._taken(self.elsewhere, scope, node, refusal.reason)
        ):
            self.refusals.append(refusal)
            scope.lost |= {*node.proto.output}

    def _taken(self, elsewhere: Elsewhere, scope: Scope, node: ModelNode, reason: str) -> bool:
        """Whether the node has a place elsewhere, where its results have no more room than here."""
        try:
            return elsewhere.take(self, scope, node, reason)
        except (TooLarge, MemoryError) as e:
            raise _no_room(node, e) from None

    def _ready(self, scope: Scope, node: ModelNode, among: Sequence[onnx.NodeProto]) -> bool:
        """Whether all that the node reads is known; False behind a refused one."""
        if any(t in scope.lost for t in node.reads):
            kind = node.op_type, node.domain, self.vocabulary.opset(node.domain)
            own = node.key in self.vocabulary.functions
            if self.elsewhere and not own and not self.elsewhere.runs(*kind):
                self.refusals.append(
                    node.refusal(why_unknown(*kind))
                )  # all that nothing runs is named at once
            return False
        missing = next((t for t in node.reads if not scope.knows(t)), None)
        # with refusals, and nowhere to go, the model is refused whatever else is wrong with it
        if missing is not None and (self.elsewhere or not self.refusals):
            raise not_made(node, missing, among)
        return missing is None

    def _added(self, scope: Scope, node: ModelNode) -> Refusal | None:
        """Adds a node to the graph, all of it or nothing; its refusal then."""
        held = next((t for t in node.reads if t not in scope.names), None)
        if held is not None:
            return node.refusal(f"its input {quoted(held)} {why_held(scope.kind(held))}")
        before = len(scope.graph.nodes)
        try:
            results = self._judged(scope, node)
        except (Unsupported, ValuesNeeded) as e:
            del scope.graph.nodes[before:]
            return refusal_of(node, e, scope, self.first if self.depth else None)
        except InvalidModel as e:
            raise InvalidInput(f"{node.where}: {shown(str(e), 300)}") from None
        except (TooLarge, MemoryError, OverflowError, ValueError) as e:
            if type(e) is ValueError and not str(e).startswith(NUMPY_LIMITS):
                raise
            raise _no_room(node, e) from None
        made = zip(node.proto.output, results, strict=False)
        scope.names |= {name: tensor for name, tensor in made if name and tensor}
        return None

    def _judged(self, scope: Scope, node: ModelNode) -> Sequence[str]:
        """The tensors that the node's outputs are. Raises InvalidModel for one that the standard refuses.

        The standard's inference has a say about all but nodes of its own bodies. A rule says more clearly
        what is wrong, and may trip over what it takes to be right.
        """
        try:
            results = self._results(scope, node)
        except (InvalidModel, InvalidInput, TooLarge, MemoryError, OverflowError):
            raise
        except Exception:
            if not self.standard:
                judge_shapes(scope, node, self.vocabulary.opset(node.domain))
            raise
        if not self.standard:
            judge_shapes(scope, node, self.vocabulary.opset(node.domain))
        return results

    def _results(self, scope: Scope, node: ModelNode) -> Sequence[str]:
        """The tensors that the node's outputs are."""
        if node.key == ("", "If"):
            unroll.only(
                scope.graph.fixed(scope.names[node.proto.input[0]], "the condition"), "condition"
            )  # one of them raises
        inputs = [scope.names[t] for t in node.proto.input]
        if node.key in (("", "Loop"), ("", "Scan")):
            self.rows.judge_number(node, inputs)
        if node.key == ("", "Loop"):
            return unroll.loop(scope.graph, node.proto, inputs, partial(self._written_out, scope))
        if node.key == ("", "Scan"):
            run = partial(self._written_out, scope)
            return unroll.scan(scope.graph, node.proto, inputs, run, self.vocabulary.opset(node.domain))
        if node.key in self.vocabulary.functions:
            return self._called(scope, self.vocabulary.functions[node.key], node, inputs)
        registered = REGISTRY.get(node.key)
        opset = self.vocabulary.opset(node.domain)
        if (signature := signature_of(node.op_type, node.domain, opset)) is not None:
            judge_given(inputs, signature)
            judge_parameters(scope.graph, node.op_type, inputs, signature)
        if registered is None or registered.since > opset:
            return replace(self, standard=True)._standard(scope, node, inputs, opset)
        results = registered.rule(scope.graph, _spec(node, inputs, opset))
        self.rows.follow(scope.graph, node, inputs, results)
        return results

    # -- bodies -------------------------------------------------------------------------
    def _inline(self, scope: Scope, node: ModelNode, body: onnx.GraphProto) -> None:
        """The nodes of a body that runs once, as if they stood here; its names stay its own."""
        inner = scope.nested()
        inner.add_initializers(body)
        self.nodes(inner, body.node)
        for name, result in zip(node.proto.output, (o.name for o in body.output), strict=False):
            if result in inner.lost:
                scope.lost.add(name)
            elif name and inner.knows(result):
                self._hand_out(inner, result, scope, name)

    def _hand_out(self, inner: Scope, result: str, scope: Scope, name: str) -> None:
        """Makes a value of a scope inside known in the one around it."""
        if self.elsewhere and result not in inner.names:
            scope.held[name] = self.elsewhere.key(inner, result), inner.kind(result)
        elif result in inner.names:
            scope.names[name] = inner.names[result]
        elif result in inner.texts:
            scope.texts[name] = inner.texts[result]

    def _written_out(self, scope: Scope, body: onnx.GraphProto, arguments: Sequence[str]) -> Sequence[str]:
        """Adds a body's nodes; the tensors of its outputs. Raises Unfinished where one is refused."""
        inner, walk = scope.nested(), self._alone()
        inner.names |= {v.name: t for v, t in zip(body.input, arguments, strict=True)}
        inner.add_initializers(body)
        walk.nodes(inner, body.node)
        if walk.refusals:
            raise Unfinished(walk.refusals)
        return [inner.names.get(o.name, "") for o in body.output]

    def _standard(self, scope: Scope, node: ModelNode, given: Sequence[str], opset: int) -> Sequence[str]:
        """Runs the standard's body for an operator in types whose range holds what is between its nodes, and
        rounds its results once: those that have an operand's type. Where the standard says what
        types are between, they are these."""
        g = scope.graph
        if not node.domain and node.op_type in PREPARED:
            given = PREPARED[node.op_type](g, _spec(node, given, opset))
        states = states_types(node.op_type, node.domain, opset)
        wide = given if states else [cast(g, t, g.dtype(t).wide) if t else t for t in given]
        types = [scope.kind_of(t).SerializeToString() for t in wide]
        results = [*self._called(scope, _standard_function(node, opset, types), node, wide)]
        if wide != given:
            like = result_types(node.op_type, node.domain, opset)
            narrowed = [o for o, t in enumerate(given) if t != wide[o]]
            for i, (t, of) in enumerate(zip(results, like, strict=False)):
                # a state that starts from nothing has the type of what it is made of
                same = next((o for o in (*of, *narrowed) if o < len(given) and given[o]), narrowed[0])
                if t and same in narrowed and g.dtype(t) == g.dtype(wide[same]):
                    results[i] = cast(g, t, g.dtype(given[same]), t)
        return results

    def _called(
        self, scope: Scope, function: onnx.FunctionProto, node: ModelNode, given: Sequence[str]
    ) -> Sequence[str]:
        """Runs the body of a function on the given tensors, in a scope of its own."""
        if self.depth >= DEPTH_LIMIT:
            raise Unsupported(f"functions nested deeper than {DEPTH_LIMIT}")
        arguments = [*given, *[""] * (len(function.input) - len(given))]
        inner = scope.of_function(dict(zip(function.input, arguments, strict=True)))
        walk = replace(
            self._alone().body(),
            vocabulary=self.vocabulary.inside(function),
            depth=self.depth + 1,
            first=self.first if self.depth else len(scope.graph.nodes),
        )
        attributes = {a.name: a for a in (*function.attribute_proto, *node.proto.attribute)}
        source = scope.graph.source
        for i, proto in enumerate(function.node):
            own = ModelNode(with_attributes(proto, attributes), i, scope.graph.source[0])
            walk._enter(inner, own, function.node)
        scope.graph.source = source
        if walk.refusals:
            raise Unfinished(walk.refusals)
        return [inner.names.get(o, "") for o in function.output]


def _no_room(node: ModelNode, e: Exception) -> DoesNotFit:
    """The error of a node that makes a tensor which is too large."""
    what = str(e) if isinstance(e, TooLarge) else "a tensor has no room in this machine's memory"
    return DoesNotFit(f"{node.where}: {shown(what, 300)}; try smaller sizes")


def _known_branch(scope: Scope, node: ModelNode) -> onnx.GraphProto | None:
    """The branch of an If whose condition is known."""
    if node.key != ("", "If"):
        return None
    condition = scope.value(node.proto.input[0])
    if condition is None or lacking([condition]) is not None or condition.size != 1:
        return None
    wanted = "then_branch" if unroll.only(condition, "condition") else "else_branch"
    return next(a.g for a in node.proto.attribute if a.name == wanted)


def _spec(node: ModelNode, inputs: Sequence[str], opset: int) -> Spec:
    return Spec(
        node.op_type,
        node.name,
        tuple(inputs),
        tuple(node.proto.output),
        {a.name: attribute_value(a) for a in node.proto.attribute},
        opset,
    )


def _standard_function(node: ModelNode, opset: int, types: Sequence[bytes]) -> onnx.FunctionProto:
    """The body that the ONNX standard gives for the node's operator. types: of its operands, serialised."""
    body = body_of(node.proto, node.domain, opset, types)
    if body is None:
        raise Unsupported(why_unknown(node.op_type, node.domain, opset))
    return body


# -- a whole model ----------------------------------------------------------------------


@dataclass(frozen=True)
class WalkedModel:
    """A model whose nodes have been entered.

    scope: of its graph. inputs: those that a call gives. values: of those that are constants. folded: see
    `Walk`.
    """

    scope: Scope
    inputs: Sequence[onnx.ValueInfoProto]
    outputs: Sequence[str]
    values: Mapping[str, Array]
    refusals: Sequence[Refusal]
    folded: Mapping[tuple[str, str], int]
    rows: OpenRows

    @property
    def on_wafer(self) -> bool:
        """Whether the wafer does it all, in one graph."""
        scope = self.scope
        return not scope.steps and not scope.held and all(o in scope.names for o in self.outputs)


def walk_model(
    known: KnownModel,
    given: Binding,
    elsewhere: Elsewhere | None = None,
    stored: dict[str, Array] | None = None,
    builder: GraphBuilder | None = None,
) -> WalkedModel:
    """Enters each of a model's nodes, those in bodies that are written out as often as they stand there.

    elsewhere: None where all must run on the wafer. stored: initializers that were read before; those read
    now are added. builder: an empty one to use. Raises InvalidInput, UsageError, DoesNotFit, and
    UnsupportedModel for an input that must be held elsewhere.
    """
    refusals = elsewhere.refusals if elsewhere else []
    walk = Walk(known.vocabulary, elsewhere, refusals)
    scope, graph = Scope(builder or GraphBuilder()), known.proto.graph
    scope.add_initializers(graph, stored)
    inputs = add_inputs(scope, graph, given, held=elsewhere is not None)
    values = {name: scope.graph.constants[scope.names[name]] for name in given.values}
    walk.nodes(scope, graph.node, told=True)
    outputs = tuple(o.name for o in graph.output)
    missing = next((o for o in outputs if not scope.knows(o)), None)
    if missing is not None and (elsewhere or not walk.refusals):
        raise InvalidInput(f"output {quoted(missing)} is made by no node")
    for o in outputs:
        walk.rows.judge_output(scope.graph, o, scope.names.get(o, ""))
    return WalkedModel(scope, inputs, outputs, values, walk.refusals, walk.folded, walk.rows)


def judge_declared(scope: Scope, graph: onnx.GraphProto) -> None:
    """Raises InvalidInput where a graph declares a value with another shape than it has.

    Where inputs leave sizes open, those that are declared elsewhere may be left over from before: then only
    the number of dimensions counts.
    """
    tensors, names = scope.graph.tensors, scope.names
    opened = any(leaves_open(v.type) for v in graph.input)
    for v in (*graph.value_info, *graph.output):
        tensor = names.get(v.name, "")
        if tensor and contradicts(v.type, shape := tensors[tensor].shape, sizes=not opened):
            maker = next((n for n in nodes_of(graph.node) if v.name in n.proto.output), None)
            where = f"{maker.where}: output" if maker else "value"
            said = shape_text(v.type)
            raise InvalidInput(
                f"{where} {quoted(v.name)} has shape {list(shape)}, the model declares it as {said}; "
                "correct the declaration, or leave it out"
            )
