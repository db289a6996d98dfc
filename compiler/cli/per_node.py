"""`waferc verify --per-node`: what it does with every node, says and writes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import UsageError, VerificationFailed, quoted, shown
from ..show.text import facts, plural, table
from .console import Console
from .options import words_of

if TYPE_CHECKING:
    from ...runtime.program import Program
    from ..compiled import Compiled
    from ..request import Request
    from ..verify.call_inputs import Feeding
    from ..verify.compare import Rule
    from ..verify.per_node import Departure, Found

FIRST_WRONG = "first-wrong.onnx"


def inputs_beside(output: str) -> str:
    """Where the inputs of the model that shows the wrong node are written."""
    return output.removesuffix(".onnx") + ".npz"


@dataclass(frozen=True)
class PerNode:
    """How nodes are checked, from the command line. output: the model that shows the wrong one."""

    model: str
    request: Request
    feeding: Feeding
    threads: int | None
    guard: bool
    golden: str
    rule: Rule
    output: str

    @property
    def inputs(self) -> str:
        return inputs_beside(self.output)

    def compiled(self, model: bytes, bytes_held: int) -> Compiled:
        """Some nodes with static shapes, for the smallest wafer that they fit on. Raises WafercError."""
        from ..pipeline import compile_model
        from ..verify.small_wafers import on_smallest

        return on_smallest(lambda wafer: compile_model(model, self.alone, wafer=wafer), bytes_held)

    @property
    def alone(self) -> Request:
        """How a node is compiled: as the model, but that nothing of it is left open."""
        return replace(self.request, dims={}, shapes={}, values={}, states=(), constraints=None)

    def command(self, wafer: str) -> str:
        """What shows the wrong node again."""
        from shlex import join

        standard = type(self.rule)()
        words = ["waferc", "verify", self.output, "--inputs", self.inputs]
        words += words_of(replace(self.alone, wafer=wafer))
        for flag, value, default in (
            ("--golden", self.golden, "onnxruntime"),
            ("--rtol", self.rule.rtol, standard.rtol),
            ("--atol", self.rule.atol, standard.atol),
        ):
            words += [] if value == default else [flag, f"{value}"]
        return join([*words, *(["--guard"] if self.guard else [])])


def check_per_node(console: Console, how: PerNode) -> Found:
    """Runs every node and says what came of it. Raises UsageError, and what the golden runtime raises."""
    from ..files import need_writable
    from ..frontend.inputs import Binding
    from ..verify.golden import exposed, golden
    from ..verify.per_node import check_nodes, inputs_of

    asked = how.request
    if asked.capacity is not None or asked.entries:
        raise UsageError("--per-node: leave --capacity and --entry out, and bind dimensions with --dim")
    need_writable(how.output)
    given = Binding(asked.dims, asked.shapes, asked.values)
    inputs = inputs_of(how.model, given)
    pasts = {past for past, _ in asked.states}
    feeds = how.feeding.calls(inputs.ports, pasts, given.values)
    console.progress("golden", 0)
    reference = golden(how.golden, exposed(how.model), how.threads)
    say_rule(console, reference.name, len(feeds), how.rule)

    def build(node: bytes, bytes_held: int) -> Program:
        # Of one thread, if nobody wants more: a single node is done before a second one is awake.
        return how.compiled(node, bytes_held).prepared(how.threads or 1, how.guard)

    found = check_nodes(
        how.model, reference, inputs, feeds, tuple(asked.states), how.rule, build, console.progress
    )
    _say(console, found)
    return found


def blame(console: Console, how: PerNode, found: Found, result: dict[str, Any]) -> NoReturn:
    """Writes the model that shows the wrong node, and the JSON. Raises VerificationFailed, which names it."""
    d = found.first
    assert d is not None
    command = _write(how, d)
    console.say()
    console.say(f"wrote {shown(how.output)} and {shown(how.inputs)}, which show it with")
    console.say(f"  {command}")
    wrote = {"shown_by": how.output, "inputs": how.inputs, "command": command}
    console.result({**result, "passed": False, "nodes": {**plain_nodes(found), **wrote}})
    verdict = f"node {quoted(d.step.name)}, {d.comparison.verdict}"
    raise VerificationFailed(verdict if found.alone else f"{verdict}, by the errors of the nodes before it")


def say_rule(console: Console, golden: str, calls: int, rule: Rule) -> None:
    """What is compared, and when it passes."""
    console.say(f"against {golden}, {plural(calls, 'call')}; passes when")
    for line in str(rule).split(", ", 1):
        console.say(f"  {line}")
    console.say()


def _say(console: Console, found: Found) -> None:
    ways = (("alone", found.alone), ("along the chain", found.chain))
    rows = [
        [
            way,
            shown(d.step.name),
            d.step.node.op_type,
            shown(d.comparison.output),
            f"{d.comparison.max_abs:.3g}",
        ]
        for way, d in ways
        if d is not None
    ]
    if rows:
        titles = ["first to depart", "node", "operator", "output", "max abs"]
        for line in table(titles, rows, wrap=["node", "output"]):
            console.say(line, "red" if found.alone else "yellow")
        console.say("alone: on the golden runtime's values. along the chain: on ours.")
    else:
        checked = found.nodes - len(found.unchecked)
        console.say(f"{checked:,} of {plural(found.nodes, 'node')} agree, alone and along the chain")
    if found.unchecked:
        console.say("not checked:")
        named = [(f"  {shown(s.name, 30)} ({shown(s.node.op_type)})", why) for s, why in found.unchecked]
        for line in facts(named):
            console.say(line)


def _write(how: PerNode, departure: Departure) -> str:
    """Writes the model that shows it, and its inputs; what to run them with."""
    from ...ir.disk import replacing
    from ..files import write_npz

    content, held = departure.model.SerializeToString(), sum(v.nbytes for v in departure.feed.values())
    command = how.command(how.compiled(content, len(content) + held).manifest["wafer"])
    with replacing(how.output) as part:
        part.write_bytes(content)
        write_npz(how.inputs, departure.feed)
    return command


def plain_nodes(found: Found) -> dict[str, Any]:
    """What the JSON says of them."""

    def plain(d: Departure | None) -> dict[str, Any] | None:
        if d is None:
            return None
        c = d.comparison
        bad = {"bad": [vars(b) for b in c.bad], "passed": c.passed}
        return {"node": d.step.name, "operator": d.step.node.op_type, **vars(c), **bad}

    return {
        "count": found.nodes,
        "unchecked": [
            {"node": s.name, "operator": s.node.op_type, "reason": why} for s, why in found.unchecked
        ],
        "first_alone": plain(found.alone),
        "first_along_the_chain": plain(found.chain),
    }
