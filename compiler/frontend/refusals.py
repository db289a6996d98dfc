"""Why a node is refused, and what a user is told of all that are."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.graph import DependsOnData, Unsupported
from ..errors import InputUnbound, Refusal, UnsupportedOperator, shown
from .node import ModelNode
from .scope import Scope


class Unfinished(Unsupported):
    """A body holds refused nodes. `unbound`: the inputs with whose values they would not be."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        reasons = [f"{r.op_type}: {r.reason}" for r in refusals]
        super().__init__("its body needs " + "; ".join(dict.fromkeys(reasons)))
        self.unbound = tuple(dict.fromkeys(name for r in refusals for name in r.unbound))


def refusal_of(node: ModelNode, e: Exception, scope: Scope, own: int | None) -> Refusal:
    """The refusal of a node whose rule raised `e`.

    own: of the graph's nodes the first that the outermost function around the node has added; None outside
    functions.
    """
    reason, unbound = str(e), tuple[str, ...]()
    if isinstance(e, Unfinished):
        unbound = e.unbound
    elif isinstance(e, DependsOnData) and (unbound := _inputs_behind(e.tensor, scope, own)):
        flags = " ".join(f"--value {shown(name)}=..." for name in unbound)
        reason = f"needs {flags}: {e.what} depends on it"
    return node.refusal(shown(reason, 200), unbound)


def _inputs_behind(tensor: str, scope: Scope, own: int | None) -> tuple[str, ...]:
    """The model's inputs that a node takes a tensor from, if that is all that it takes it from.

    Looks through what a function has made of them, not through other nodes: those compute it from data.
    """
    made: dict[str, list[str]] = {}
    for n in scope.graph.nodes[own:] if own is not None else []:
        made.setdefault(n.output, []).extend(n.inputs)
    found, left = dict[str, None](), [tensor]
    while left:
        t = left.pop()
        if t in scope.inputs:
            found[t] = None
        elif t in made:
            left += made.pop(t)
        elif t not in scope.graph.constants:
            return ()
    return tuple(found)


def merged(*lists: Sequence[Refusal]) -> list[Refusal]:
    """One refusal per operator and reason; an operator of an earlier list is left out of later ones."""
    merged: dict[tuple[str, str, str], Refusal] = {}
    known: set[tuple[str, str]] = set()
    for i, refusals in enumerate(lists):
        for r in refusals:
            if i and (r.op_type, r.domain) in known:
                continue
            key = (r.op_type, r.domain, r.reason)
            seen = merged.get(key)
            both = tuple(dict.fromkeys((*(seen.unbound if seen else ()), *r.unbound)))
            count = r.count + (seen.count if seen else 0)
            merged[key] = Refusal(*key[:2], count, r.reason, (seen or r).node, both)
        known |= {(r.op_type, r.domain) for r in refusals}
    return list(merged.values())


def judge_refusals(refusals: Sequence[Refusal], what: str) -> None:
    """Raises InputUnbound where only values of inputs are missing, else UnsupportedOperator (`what`)."""
    if refusals and all(r.unbound for r in refusals):
        raise InputUnbound(refusals)
    if refusals:
        raise UnsupportedOperator(refusals, what)
