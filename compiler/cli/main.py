"""`waferc`: the group of all verbs. Each verb imports what it needs when it runs."""

from __future__ import annotations

import click

from .bench import bench
from .command import SETTINGS, Waferc
from .compare import compare
from .compile import check, compile_verb
from .diff import diff
from .generate import generate
from .heatmap import heatmap
from .lists import operators, wafers
from .run import run
from .serve import serve
from .shapes import shapes
from .show import inspect, report
from .sweep import sweep
from .verify import verify

ORDER = (
    *(check, compile_verb, run, generate, serve, verify, heatmap, report, inspect, diff, bench),
    *(compare, sweep, wafers, shapes, operators),
)


class Ordered(Waferc):
    """Lists the verbs in the order in which one uses them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [verb.name or "" for verb in ORDER]


@click.group(cls=Ordered, invoke_without_command=True, context_settings=SETTINGS)
@click.version_option(package_name="waferc", message="waferc %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Compile ONNX models for wafer-scale machines, run and verify them, and look
    at where they lie.

    Exit codes: 0 ok, 2 usage, 3 invalid input, 4 unsupported, 5 does not fit,
    6 input/output, 7 invalid program, 8 verification failed, 70 a bug of ours,
    130 interrupted.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _verb in ORDER:
    main.add_command(_verb)

if __name__ == "__main__":
    main()
