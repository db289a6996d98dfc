"""`waferc run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ..errors import UnsupportedModel, UsageError, shown
from .command import Verb
from .console import Console
from .named_files import Format, Reads, Writes
from .options import entry, feeding, gathered, threads
from .outputs import described, lines_of, write_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ...ir.op import Array
    from ...runtime.program import Program
    from ...runtime.wavelets import Replay
    from ..verify.call_inputs import Feed, Feeding
    from .saved import Saved


@dataclass(frozen=True)
class Running:
    """How a program runs and what is kept of it, from the command line."""

    output: str | None
    threads: int | None
    guard: bool
    no_host: bool
    wavelets: bool
    trace_path: str | None
    entry: str | None


@click.command(cls=Verb)
@click.argument("program", type=Reads())
@feeding
@click.option(
    "-o",
    "output",
    type=Writes(Format("the outputs are written as an .npz or a .json file", (".npz", ".json"))),
    metavar="OUT.npz|OUT.json",
    help="Write the outputs, by name.",
)
@threads
@click.option("--guard", is_flag=True, help="Check every load and store; nothing is shared between cores.")
@click.option(
    "--wavelets",
    is_flag=True,
    help="Also carry each wavelet over the fabric, and say how far the predicted cycles are off.",
)
@click.option("--no-host", is_flag=True, help="Refuse a program with operators that run on the host.")
@click.option(
    "--trace",
    "trace_path",
    type=Writes(Format("a Chrome trace is a .json file", (".json",))),
    metavar="FILE.json",
    help="A Chrome trace of one predicted call.",
)
@entry
@gathered(Running)
@click.pass_obj
def run(
    console: Console,
    program: str,
    feeding: Feeding,
    how: Running,
) -> None:
    """Run a program on this machine.

    Executes PROGRAM (.wafer), to the bits that its tasks give on the wafer's cores;
    --guard goes core by core. With --steps, outputs gain a first axis that counts
    the calls.
    """
    import json

    from ..files import need_writable, write_text
    from ..show import replayed
    from ..show.chrome_trace import chrome_trace
    from ..show.figures import cycles_line, host_line, totals
    from ..show.text import facts
    from .saved import Saved

    for path in (how.output, how.trace_path):
        if path is not None:
            need_writable(path)  # before the work, not after it
    saved = Saved(program, how.entry)
    if how.no_host and saved.hosts:
        raise UnsupportedModel(f"--no-host refuses what runs on the host: {saved.host_line}")
    loaded = saved.program(how.threads, how.guard)
    staged = loaded.staged if how.entry is None else None
    if staged is not None and how.trace_path is not None:
        raise UsageError("--trace is of one stage on the wafer; name it with --entry, see 'waferc inspect'")
    if staged is not None and how.wavelets:
        raise UsageError(
            "--wavelets is of one stage on the wafer; name it with --entry, see 'waferc inspect'"
        )
    called = None if staged is not None else saved.entry
    others = loaded.others if staged is not None else ()
    feeds = feeding.calls(loaded.entry_ports(called).inputs, loaded.state_inputs, loaded.values, others)
    with saved.running():
        results, milliseconds = _timed(console, loaded, called, feeds, how.threads)
    # All that a damaged program may lack is looked at before anything is written.
    f = saved.figures if staged is None else totals(saved.figures_of, staged.ran)
    wafer = saved.wafer
    trace = None if how.trace_path is None else chrome_trace(saved.plan, saved.timing)
    replay = _replayed(saved) if how.wavelets else None
    if how.output is not None:
        write_outputs(how.output, results, feeding.steps is not None)
    for line in lines_of(results[-1]):
        console.say(line)
    console.say()
    median = sorted(milliseconds)[len(milliseconds) // 2]
    calls = f"median of {len(feeds)} calls" if len(feeds) > 1 else "one call, the first"
    used = how.threads or loaded.threads
    console.say(f"this machine  {median:,.3f} ms, {calls}, {used} threads{', guarded' if how.guard else ''}")
    for line in facts([(f"{'wafer':12}", cycles_line(f, wafer))]):
        console.say(line)
    for line in () if replay is None else replayed.lines(saved.plan, replay):
        console.say(line)
    console.say(f"host link     {host_line(f, wafer)}")
    if staged is not None:
        console.say(f"host          {_counts(staged.hosted) or 'decisions only'}")
    if how.trace_path is not None and trace is not None:
        write_text(how.trace_path, json.dumps(trace) + "\n")
        tracks = trace["otherData"]["tracks"].replace("s", "", 1)
        console.note(f"wrote {shown(how.trace_path)}, one track per {tracks}, more where bars overlap")
    if how.output is not None:
        console.note(f"wrote {shown(how.output)}")
    console.result(
        {
            "program": program,
            "entry": saved.entry,
            "calls": len(feeds),
            "threads": used,
            "guard": how.guard,
            "milliseconds": milliseconds,
            "median_milliseconds": median,
            "cycles": f.cycles,
            "microseconds": f.microseconds,
            "bytes_in": f.bytes_in,
            "bytes_out": f.bytes_out,
            "host_cycles": f.host_cycles,
            **({} if replay is None else _as_json(saved, replay)),
            "stages": {} if staged is None else dict(staged.ran),
            "host": {} if staged is None else dict(staged.hosted),
            "outputs": [{"name": n, **described(a)} for n, a in results[-1].items()],
        }
    )


def _replayed(saved: Saved) -> Replay:
    """The plan's call, wavelet by wavelet."""
    from ...codegen.fabric.tables import NotSimulated
    from ...runtime.wavelets import FabricError, replay
    from ..errors import ArtifactError, DoesNotFit

    try:
        return replay(saved.plan)
    except NotSimulated as e:
        raise DoesNotFit(str(e)) from None
    except FabricError as e:
        raise ArtifactError(str(e)) from None


def _as_json(saved: Saved, replay: Replay) -> dict[str, Any]:
    from ..show.replayed import rows

    return {
        "wavelets": {
            "cycles": replay.cycles,
            "closed": replay.closed,
            "hops": replay.hops,
            "steps": rows(saved.plan, replay),
        }
    }


def _counts(operators: Mapping[str, int]) -> str:
    return ", ".join(shown(name) + (f" x {n}" if n > 1 else "") for name, n in operators.items())


def _timed(
    console: Console, program: Program, entry: str | None, feeds: list[Feed], threads: int | None
) -> tuple[list[dict[str, Array]], list[float]]:
    """Outputs and milliseconds of each call."""
    import time

    results: list[dict[str, Array]] = []
    milliseconds: list[float] = []
    for i, feed in enumerate(feeds):
        console.progress("run", i / len(feeds))
        start = time.perf_counter()
        results.append(program.run(feed, threads, entry))
        milliseconds.append((time.perf_counter() - start) * 1e3)
    return results, milliseconds
