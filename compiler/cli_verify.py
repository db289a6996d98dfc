"""`waferc verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .command import Verb
from .console import Console, plural, table
from .errors import ArtifactError, UsageError, VerificationFailed, quoted, shown
from .options import Compiling, compiling, feeding, threads

if TYPE_CHECKING:
    from ..runtime.program import Program
    from .feeds import Feeding
    from .verify import Comparison

TOLERANCE = click.FloatRange(min=0)


@click.command(cls=Verb)
@click.argument("model")
@click.option("--program", "program_path", metavar="P.wafer", help="Verify this program of MODEL.")
@compiling
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
    help="Compile with every node's result as an output; name the first wrong one.",
)
@click.pass_obj
def verify(
    console: Console,
    model: str,
    program_path: str | None,
    options: Compiling,
    feeding: Feeding,
    threads: int | None,
    guard: bool,
    rtol: float,
    atol: float,
    golden_name: str,
    per_node: bool,
) -> None:
    """Compare a program's outputs with another runtime's.

    Runs the ONNX file MODEL on the wafer's program and on a golden runtime, with the
    same inputs (--random 0 if none are given), and exits with 8 if they differ.
    """
    from dataclasses import replace

    from .golden import exposed, golden
    from .verify import Rule
    from .verify import verify as compare

    if per_node and program_path:
        raise UsageError("--per-node compiles the model anew; leave --program out")
    source, makers = exposed(model) if per_node else (model, dict[str, str]())
    loaded = _program(console, source, model, program_path, options, threads, guard)
    reference = golden(golden_name, source, threads)
    if feeding.seed is None:
        feeding = replace(feeding, seed=0)
    feeds = feeding.calls(loaded.ports.inputs, loaded.state_inputs, loaded.values, loaded.others)
    rule = Rule(rtol, atol)
    found = compare(loaded, reference, feeds, rule, threads, console.progress)
    console.say(f"against {reference.name}, {plural(len(feeds), 'call')}; passes when")
    for line in str(rule).split(", ", 1):
        console.say(f"  {line}")
    console.say()
    failed = [c for c in found if not c.passed]
    _say_comparisons(console, found if not per_node else failed[:1] or found[-1:], makers)
    console.result(
        {
            "model": model,
            "golden": golden_name,
            "calls": len(feeds),
            "rule": str(rule),
            "rtol": rtol,
            "atol": atol,
            "passed": not failed,
            "outputs": [{**vars(c), "bad": [vars(b) for b in c.bad], "passed": c.passed} for c in found],
        }
    )
    if not failed:
        count = plural(len(found), "result of a node" if per_node else "output")
        console.say(f"PASS: {count}, {sum(c.values for c in found):,} values", "green", bold=True)
        return
    first = failed[0]
    what = first.problem or f"{first.wrong:,} of {first.values:,} values differ too much"
    where = f"node {quoted(makers[first.output])}, " if first.output in makers else ""
    raise VerificationFailed(f"{where}output {quoted(first.output)}: {what}, by up to {first.max_abs:.3g}")


def _program(
    console: Console,
    source: str | bytes,
    model: str,
    program_path: str | None,
    options: Compiling,
    threads: int | None,
    guard: bool,
) -> Program:
    """The given program, which must be of this model, or one compiled now."""
    if program_path is None:
        return options.compile(source, console).prepared(threads, guard)
    from .load import digest
    from .saved import Saved

    saved = Saved(program_path)
    ours, theirs = str(saved.manifest.get("model", "")), digest(model)
    if ours != theirs:
        raise ArtifactError(
            f"{quoted(program_path)} was compiled from another model: SHA-256 {ours[:12]}..., "
            f"{quoted(model)} has {theirs[:12]}...; compile it again"
        )
    return saved.program(threads, guard)


def _say_comparisons(console: Console, found: list[Comparison], makers: dict[str, str]) -> None:
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
