"""`waferc run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import click

from ..errors import UnsupportedModel, UsageError, quoted, shown
from .command import Verb
from .console import Console
from .named_files import Format, Reads, Writes
from .options import entry, feeding, gathered, threads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...ir.op import Array
    from ...runtime.program import Program
    from ..verify.call_inputs import Feed, Feeding
    from .saved import Saved


@dataclass(frozen=True)
class Running:
    """How a program runs and what is kept of it, from the command line."""

    output: str | None
    threads: int | None
    guard: bool
    no_host: bool
    trace_path: str | None
    entry: str | None


@click.command(cls=Verb)
@click.argument("program", type=Reads())
@feeding
@click.option(
    "-o",
    "output",
    type=Writes(Format("the outputs are written as an .npz file", (".npz",))),
    metavar="OUT.npz",
    help="Write the outputs, by name.",
)
@threads
@click.option("--guard", is_flag=True, help="Check every load and store; nothing is shared between cores.")
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
    from ..files import write_npz
    from ..show.figures import clock, host_line, totals
    from .saved import Saved

    saved = Saved(program, how.entry)
    if how.no_host and saved.hosts:
        raise UnsupportedModel(f"--no-host refuses what runs on the host: {_counts(saved.hosts)}")
    loaded = saved.program(how.threads, how.guard)
    staged = loaded.staged if how.entry is None else None
    if staged is not None and how.trace_path is not None:
        raise UsageError("--trace is of one stage on the wafer; name it with --entry, see 'waferc inspect'")
    called = None if staged is not None else saved.entry
    others = loaded.others if staged is not None else ()
    feeds = feeding.calls(loaded.entry_ports(called).inputs, loaded.state_inputs, loaded.values, others)
    results, milliseconds = _timed(console, loaded, called, feeds, how.threads)
    if how.output is not None:
        write_npz(how.output, _stacked(results, feeding.steps is not None))
    for line in _values(results[-1]):
        console.say(line)
    f = saved.figures if staged is None else totals(saved.figures_of, staged.ran)
    wafer = saved.wafer
    console.say()
    median = sorted(milliseconds)[len(milliseconds) // 2]
    calls = f"median of {len(feeds)} calls" if len(feeds) > 1 else "one call, the first"
    used = how.threads or loaded.threads
    console.say(f"this machine  {median:,.3f} ms, {calls}, {used} threads{', guarded' if how.guard else ''}")
    console.say(f"wafer         {f.cycles:,.0f} cycles = {f.microseconds:,.2f} us at {clock(wafer)}")
    console.say(f"host link     {host_line(f, wafer)}")
    if staged is not None:
        console.say(f"host          {_counts(staged.hosted) or 'decisions only'}")
    if how.trace_path is not None:
        _write_trace(console, saved, how.trace_path)
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
            "stages": {} if staged is None else dict(staged.ran),
            "host": {} if staged is None else dict(staged.hosted),
            "outputs": [{"name": n, **_described(a)} for n, a in results[-1].items()],
        }
    )


def _counts(operators: Mapping[str, int]) -> str:
    return ", ".join(shown(name) + (f" x {n}" if n > 1 else "") for name, n in operators.items())


def _described(value: Any) -> dict[str, Any]:
    if value is None or isinstance(value, list):
        return {"type": "none" if value is None else "sequence"}
    return {"type": "str" if value.dtype.kind == "O" else value.dtype.name, "shape": value.shape}


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


def _stacked(results: list[dict[str, Any]], many: bool) -> dict[str, Array]:
    """What is written: UsageError for what no array is, or not the same one in every call."""
    import numpy as np

    out: dict[str, Array] = {}
    for n, first in results[0].items():
        values = [r[n] for r in results]
        if any(v is None or isinstance(v, list) for v in values):
            raise UsageError(f"-o: output {quoted(n)} is a sequence or an optional; it holds arrays only")
        if len({v.shape for v in values}) > 1:
            raise UsageError(f"-o: output {quoted(n)} has another shape in each call; run them one by one")
        whole = np.stack(values) if many else first
        out[n] = whole.astype(str) if whole.dtype.kind == "O" else whole
    return out


def _values(outputs: dict[str, Any]) -> list[str]:
    """One line per output: type, shape and the first values."""
    from ...ir.dtypes import is_float

    lines: list[str] = []
    for name, a in outputs.items():
        if a is None or isinstance(a, list):
            what = "none" if a is None else f"sequence of {len(cast(list[Any], a))}"
            lines.append(f"{shown(name, 32)}  {what}")
            continue
        some = " ".join(
            f"{v:.6g}" if is_float(a.dtype) else shown(str(v), 20) for v in a.ravel()[:6].tolist()
        )
        text = f"{shown(name, 32)}  {a.dtype}{list(a.shape)}  {some}{' ...' if a.size > 6 else ''}"
        lines.append(text if len(text) <= 80 else text[:76].rstrip() + " ...")
    return lines


def _write_trace(console: Console, saved: Saved, path: str) -> None:
    import json

    from ..files import write_text
    from ..show.chrome_trace import chrome_trace

    data = chrome_trace(saved.plan, saved.timing)
    write_text(path, json.dumps(data) + "\n")
    console.note(f"wrote {shown(path)}, one track per {data['otherData']['tracks'].replace('s', '', 1)}")
