"""`waferc verify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ..errors import ArtifactError, UsageError, VerificationFailed, quoted, shown
from ..show.text import plural, table
from .command import Verb
from .console import Console
from .named_files import Format, Named, Reads, Writes, named_files
from .options import COMPILING, asking, feeding, gathered, threads
from .per_node import FIRST_WRONG, PerNode, blame, check_per_node, inputs_beside, plain_nodes, say_rule

if TYPE_CHECKING:
    from ...runtime.program import Program
    from ..request import Request
    from ..verify.call_inputs import Feeding
    from ..verify.compare import Comparison

TOLERANCE = click.FloatRange(min=0)


@dataclass(frozen=True)
class Verifying:
    """What is compared with what, from the command line."""

    program_path: str | None
    threads: int | None
    guard: bool
    rtol: float
    atol: float
    golden_name: str
    per_node: bool
    output: str | None


def _shown(context: click.Context, _: click.Parameter, output: str | None) -> str | None:
    """Says where a wrong node would be shown; click has seen --per-node by now, if it is given."""
    written = named_files(context).written
    if output is None and context.params.get("per_node"):
        written.append(Named("-o", FIRST_WRONG))
    if output is not None or context.params.get("per_node"):
        written.append(Named("inputs next to -o,", inputs_beside(output or FIRST_WRONG)))
    return output


@click.command(cls=Verb)
@click.argument("model", type=Reads(model=True))
@click.option(
    "--program", "program_path", type=Reads(), metavar="P.wafer", help="Verify this program of MODEL."
)
@asking(*COMPILING)
@feeding
@threads
@click.option("--guard", is_flag=True, help="Check every load and store, too.")
@click.option(
    "--rtol",
    type=TOLERANCE,
    metavar="X",
    default=1e-4,
    show_default=True,
    help="Times the largest golden value.",
)
@click.option("--atol", type=TOLERANCE, metavar="X", default=1e-6, show_default=True, help="Added to it.")
@click.option(
    "--golden",
    "golden_name",
    type=click.Choice(["onnxruntime", "reference"]),
    default="onnxruntime",
    show_default=True,
    help="What is taken to be right; reference is onnx's own evaluator.",
)
@click.option(
    "--per-node",
    is_flag=True,
    help="First run every node by itself, and name the first wrong one.",
)
@click.option(
    "-o",
    "output",
    type=Writes(Format("the model that shows the wrong node is an .onnx file", (".onnx",), chosen=True)),
    callback=_shown,
    metavar="FILE.onnx",
    help="With --per-node: the model that shows the wrong node; its inputs are written next to it, as "
    f"FILE.npz.  [default: {FIRST_WRONG}]",
)
@gathered(Verifying)
@click.pass_obj
def verify(
    console: Console,
    model: str,
    request: Request,
    feeding: Feeding,
    how: Verifying,
) -> None:
    """Compare a program's outputs with another runtime's.

    Runs the ONNX file MODEL on the wafer's program and on a golden runtime, with the
    same inputs (--random 0 if none are given), and exits with 8 if they differ.

    --per-node compiles each node for a small wafer before that, and runs it twice:
    alone, on the golden runtime's values, and along the chain, on what our nodes
    before it made. It names the first that departs in each way. Where that is why the
    model is wrong, it writes a model that shows it, of as few nodes as do.
    """
    from dataclasses import replace

    from ..exports.folders import model_file
    from ..verify.compare import Rule
    from ..verify.compare import verify as compare
    from ..verify.golden import golden

    if how.per_node and how.program_path:
        raise UsageError("--per-node compiles the model anew; leave --program out")
    if how.output is not None and not how.per_node:
        raise UsageError("-o is for the model that --per-node writes")
    model = model_file(model)
    rule = Rule(how.rtol, how.atol)
    if feeding.seed is None:
        feeding = replace(feeding, seed=0)
    result: dict[str, Any] = {"model": model, "golden": how.golden_name, "rule": str(rule)}
    result |= {"rtol": how.rtol, "atol": how.atol}
    single = PerNode(
        model, request, feeding, how.threads, how.guard, how.golden_name, rule, how.output or FIRST_WRONG
    )
    nodes = check_per_node(console, single) if how.per_node else None
    if nodes is not None and nodes.alone:
        blame(console, single, nodes, result)
    loaded = _program(console, model, how.program_path, request, how.threads, how.guard)
    reference = golden(how.golden_name, model, how.threads)
    feeds = feeding.calls(loaded.ports.inputs, loaded.state_inputs, loaded.values, loaded.others)
    found = compare(loaded, reference, feeds, rule, how.threads, console.progress)
    if how.per_node:
        console.say()
    else:
        say_rule(console, reference.name, len(feeds), rule)
    failed = [c for c in found if not c.passed]
    _say_comparisons(console, found)
    if failed and nodes is not None and nodes.chain:
        blame(console, single, nodes, result)
    result |= {
        "calls": len(feeds),
        "passed": not failed,
        "outputs": [{**vars(c), "bad": [vars(b) for b in c.bad], "passed": c.passed} for c in found],
    }
    console.result(result if nodes is None else {**result, "nodes": plain_nodes(nodes)})
    if not failed:
        count = plural(len(found), "output")
        console.say(f"PASS: {count}, {sum(c.values for c in found):,} values", "green", bold=True)
        return
    before = "every node agrees, the whole program does not: " if how.per_node else ""
    raise VerificationFailed(before + failed[0].verdict)


def _program(
    console: Console,
    model: str,
    program_path: str | None,
    request: Request,
    threads: int | None,
    guard: bool,
) -> Program:
    """The given program, which must be of this model, or one compiled now."""
    if program_path is None:
        from ..pipeline import compile_model

        return compile_model(model, request, report=console.progress).prepared(threads, guard)
    from ..frontend.load import digest
    from .saved import Saved

    saved = Saved(program_path)
    ours, theirs = str(saved.manifest.get("model", "")), digest(model)
    if ours != theirs:
        raise ArtifactError(
            f"{quoted(program_path)} was compiled from another model: SHA-256 {ours[:12]}..., "
            f"{quoted(model)} has {theirs[:12]}...; compile it again"
        )
    return saved.program(threads, guard)


def _say_comparisons(console: Console, found: list[Comparison]) -> None:
    rows = [
        [
            shown(c.output),
            "ok" if c.passed else "WRONG",
            f"{c.max_abs:.3g}",
            f"{c.max_rel:.3g}",
            "-" if c.ulp is None else f"{c.ulp:.6g}",
            f"{c.cosine:.9f}",
        ]
        for c in found
    ]
    for line in table(["output", "", "max abs", "max rel", "ULP", "cosine"], rows):
        console.say(line)
    for c in found:
        if c.problem:
            console.say(f"  {shown(c.output)}: {c.problem}", "red")
        if c.bad:
            console.say()
            bad = [[b.call, str(list(b.index)), f"{b.ours:.9g}", f"{b.golden:.9g}"] for b in c.bad]
            for line in table(["call", f"index in {shown(c.output, 30)}", "ours", "golden"], bad):
                console.say(line, "red")
