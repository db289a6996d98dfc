"""The judge: every input, node, state and output of the graph is carried out, by steps that mean it."""

from __future__ import annotations

from ...ir.affine import Affine, access_axes, axis
from ...ir.op import Op
from ..plan.plan import Plan, Step
from .verdict import IllegalPlan, Index, step_name


def judge_graph(plan: Plan, index: Index) -> None:
    """Each input, node and state of the graph is carried out once, by a step that means it."""
    tasks, joins = _by_node(plan)
    for i in range(len(plan.graph.nodes)):
        _judge_node(plan, i, tasks.get(i), joins.get(i))
    for name in plan.graph.inputs:
        found = [s for s in index.writers.get(name, ()) if s.kind == "input"]
        if len(found) != 1:
            raise IllegalPlan(f"input {name!r} is laid by {len(found)} steps, not 1")
    for past, present in plan.graph.states:
        _judge_state(plan, index, past, present)
    if extra := set(index.updates) - {p for p, _ in plan.graph.states}:
        raise IllegalPlan(f"{step_name(index.updates[min(extra)])}: is no state")
    for name in plan.graph.outputs:
        _judge_output(plan, index, name)


def _by_node(plan: Plan) -> tuple[dict[int, Step], dict[int, Step]]:
    """The tasks and the joins by the node that they carry out; raises where two do the same."""
    tasks: dict[int, Step] = {}
    joins: dict[int, Step] = {}
    for s in plan.steps:
        if s.kind in ("task", "join"):
            of = tasks if s.kind == "task" else joins
            if not 0 <= s.node < len(plan.graph.nodes) or s.node in of:
                raise IllegalPlan(f"{step_name(s)}: node {s.node} is no node of the graph or done twice")
            of[s.node] = s
        elif s.tensor not in plan.graph.inputs:
            raise IllegalPlan(f"{step_name(s)}: {s.tensor!r} is no input of the graph")
    return tasks, joins


def _judge_node(plan: Plan, i: int, s: Step | None, join: Step | None) -> None:
    """Task `s` is node `i`; where it leaves partial results, `join` combines them."""
    node = plan.graph.nodes[i]
    if s is None:
        raise IllegalPlan(f"node {i} ({node.op.name}, {node.source}) has no step")
    if not _same_accesses(s.op, node.op) or tuple(o.tensor for o in s.operands) != node.inputs:
        raise IllegalPlan(f"{step_name(s)}: {s.op.name} is not node {i} ({node.op.name})")
    if (join is not None) != bool(s.part):
        raise IllegalPlan(f"{step_name(s)}: part {s.part!r}, joined {int(join is not None)} times")
    last = join or s
    if last.tensor != node.output or (join is not None and s.tensor in plan.graph.tensors):
        raise IllegalPlan(f"{step_name(last)}: writes {last.tensor!r}, node {i} writes {node.output!r}")
    if not (s.write == node.op.write if join is None else _joins(plan, join, s, node.op)):
        raise IllegalPlan(f"{step_name(last)}: does not write what node {i} ({node.op.name}) writes")


def _same_accesses(a: Op, b: Op) -> bool:
    mine, yours = ((o.axes, o.reads, o.write, o.in_types, o.out_type) for o in (a, b))
    return mine == yours


def _joins(plan: Plan, join: Step, made: Step, op: Op) -> bool:
    """Whether `join` combines all partial results of step `made` into what `op` writes."""
    part, *axes = join.op.axes
    return (
        join.write == join.op.write == op.write
        and join.op.reads == ((axis(part[0]), *made.write),)
        and part[1] == plan.tensors[made.tensor].shape[0]
        and axes == [(a, op.size[a]) for a in access_axes(made.write)]
        and all(m.combine == op.combine for m in join.moves)
        and _shifted(made, op)
    )


def _shifted(step: Step, op: Op) -> bool:
    """Whether partial results are written as the op writes, its box moved to the origin."""
    if any(n == 0 for _, n in op.axes):
        return True
    box = op.hold({a: (0, n) for a, n in op.axes})
    return step.write == tuple(
        Affine(e.terms, e.const - lo) for e, (lo, _) in zip(op.write, box, strict=True)
    )


def _judge_state(plan: Plan, index: Index, past: str, present: str) -> None:
    """The new value of a state ends up where its old one lies: changed in place, by an update, or not at
    all."""
    s = index.updates.get(past)
    if past == present:
        if s is not None:
            raise IllegalPlan(f"{step_name(s)}: state {past!r} stays as it is")
        return
    if s is None and present in plan.graph.in_place:
        w = index.writers[present][0]
        if plan.buffers[w.result].over != index.writers[past][0].result:
            raise IllegalPlan(f"{step_name(w)}: does not change {past!r} where it lies")
        return
    if s is None or s.result != index.writers[past][0].result:
        raise IllegalPlan(f"state {past!r}: its new value {present!r} is not written into its buffer")
    if [o.tensor for o in s.operands] not in ([], [present]) or bool(s.operands) == bool(s.moves):
        raise IllegalPlan(f"{step_name(s)}: its new value is not {present!r}")


def _judge_output(plan: Plan, index: Index, name: str) -> None:
    """The host reads an output from all steps that write it, and from no other."""
    owners = tuple(s.number for s in index.writers.get(name, ()))
    if tuple(plan.outputs.get(name, ())) != owners or not (owners or name in plan.graph.constants):
        raise IllegalPlan(f"output {name!r}: read from steps {plan.outputs.get(name)}, written by {owners}")
