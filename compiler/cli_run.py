"""`waferc run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .command import Verb
from .console import Console
from .errors import shown
from .options import entry, feeding, threads

if TYPE_CHECKING:
    from ..ir.op import Array
    from ..runtime.program import Program
    from .feeds import Feed, Feeding
    from .saved import Saved


@click.command(cls=Verb)
@click.argument("program")
@feeding
@click.option("-o", "output", metavar="OUT.npz", help="Write the outputs, by name.")
@threads
@click.option("--guard", is_flag=True, help="Check every load and store; nothing is shared between cores.")
@click.option(
    "--no-host", is_flag=True, help="Refuse operators that would run on the host; none does so far."
)
@click.option("--trace", "trace_path", metavar="FILE.json", help="A Chrome trace of one predicted call.")
@entry
@click.pass_obj
def run(
    console: Console,
    program: str,
    feeding: Feeding,
    output: str | None,
    threads: int | None,
    guard: bool,
    no_host: bool,
    trace_path: str | None,
    entry: str | None,
) -> None:
    """Run a program on this machine.

    Executes PROGRAM (.wafer), to the bits that its tasks give on the wafer's cores;
    --guard goes core by core. With --steps, outputs gain a first axis that counts
    the calls.
    """
    from .figures import clock, host_line
    from .files import write_npz
    from .saved import Saved

    saved = Saved(program, entry)
    loaded = saved.program(threads, guard)
    feeds = feeding.calls(loaded.entries[saved.entry].inputs, loaded.state_inputs, loaded.values)
    results, milliseconds = _timed(console, loaded, saved.entry, feeds, threads)
    if output is not None:
        write_npz(output, _stacked(results, feeding.steps is not None))
    for line in _values(results[-1]):
        console.say(line)
    f, wafer = saved.figures, saved.wafer
    console.say()
    median = sorted(milliseconds)[len(milliseconds) // 2]
    calls = f"median of {len(feeds)} calls" if len(feeds) > 1 else "one call, the first"
    used = threads or loaded.threads
    console.say(f"this machine  {median:,.3f} ms, {calls}, {used} threads{', guarded' if guard else ''}")
    console.say(f"wafer         {f.cycles:,.0f} cycles = {f.microseconds:,.2f} us at {clock(wafer)}")
    console.say(f"host link     {host_line(f, wafer)}")
    if trace_path is not None:
        _write_trace(console, saved, trace_path)
    if output is not None:
        console.note(f"wrote {shown(output)}")
    console.result(
        {
            "program": program,
            "entry": saved.entry,
            "calls": len(feeds),
            "threads": used,
            "guard": guard,
            "milliseconds": milliseconds,
            "median_milliseconds": median,
            "cycles": f.cycles,
            "microseconds": f.microseconds,
            "bytes_in": f.bytes_in,
            "bytes_out": f.bytes_out,
            "host_cycles": f.host_cycles,
            "outputs": [{"name": n, "type": a.dtype.name, "shape": a.shape} for n, a in results[-1].items()],
        }
    )


def _timed(
    console: Console, program: Program, entry: str, feeds: list[Feed], threads: int | None
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


def _stacked(results: list[dict[str, Array]], many: bool) -> dict[str, Array]:
    import numpy as np

    return {n: np.stack([r[n] for r in results]) if many else results[0][n] for n in results[0]}


def _values(outputs: dict[str, Array]) -> list[str]:
    """One line per output: type, shape and the first values."""
    from ..ir.dtypes import is_float

    lines: list[str] = []
    for name, a in outputs.items():
        some = " ".join(f"{v:.6g}" if is_float(a.dtype) else str(v) for v in a.ravel()[:6].tolist())
        text = f"{shown(name, 32)}  {a.dtype}{list(a.shape)}  {some}{' ...' if a.size > 6 else ''}"
        lines.append(text if len(text) <= 80 else text[:76].rstrip() + " ...")
    return lines


def _write_trace(console: Console, saved: Saved, path: str) -> None:
    import json

    from .chrome import chrome_trace
    from .files import replacing

    data = chrome_trace(saved.plan, saved.timing)
    with replacing(path) as part:
        part.write_text(json.dumps(data) + "\n", encoding="utf-8")
    console.note(f"wrote {shown(path)}, one track per {data['otherData']['tracks'].replace('s', '', 1)}")
