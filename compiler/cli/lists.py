"""waferc wafers, waferc ops: what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..errors import UsageError, quoted
from ..show.text import facts, table
from .command import Verb
from .console import Console

if TYPE_CHECKING:
    from ...placement.machine.wafer import Wafer


@click.command(cls=Verb)
@click.pass_obj
def wafers(console: Console) -> None:
    """List the wafer presets and their constants.

    Besides these, --wafer takes WIDTHxHEIGHT (with wse3's constants) and TOML files.
    """
    from dataclasses import asdict

    from ...placement.machine.presets import described, preset, presets

    machines = [preset(name) for name in presets()]
    rows = [
        [m.name, f"{m.width}x{m.height}", m.cores, m.sram_bytes, f"{m.clock_hz / 1e9:g}", m.colours]
        for m in machines
    ]
    for line in table(["wafer", "grid", "cores", "bytes", "GHz", "colours"], rows):
        console.say(line)
    console.say()
    own = [preset(name) for name in described()]
    names = (
        "hop", "turn", "send", "done", "wavelet_bytes", "wavelet", "loop", "add", "stage", "multicast",
        "relay", "express", "temporary", "code_bytes_base", "code_bytes_per_kernel",
        "host_bytes_per_cycle", "host_call", "error",
    )  # fmt: skip
    lines: list[list[str]] = [[n, *(f"{getattr(m, n):g}{_mark(m, n)}" for m in own)] for n in names]
    lines += [[f"vector.{kind}", *(_vector(m, kind) for m in own)] for kind in own[0].vector]
    for line in table(["constant", *(m.name for m in own)], lines):
        console.say(line)
    console.say("Cycles, unless named bytes; vectors: cycles for n elements. host_call: seconds.")
    console.say("?: assumed, not published. *: fitted on classes of rows of docs/accuracy.md:")
    fitted = [(m.name, "; ".join(f"{n} on {rows}" for n, rows in m.fitted.items())) for m in own]
    for line in facts([(name, of or "nothing") for name, of in fitted]):
        console.say(line)
    console.result({"wafers": [asdict(m) for m in machines]})


def _vector(wafer: Wafer, kind: str) -> str:
    setup, rate = wafer.vector[kind]
    return f"{setup:g} + n/{rate:g}{_mark(wafer, f'vector.{kind}')}"


def _mark(wafer: Wafer, name: str) -> str:
    return " ?" if name in wafer.assumed else " *" if name in wafer.fitted else ""


@click.command("ops", cls=Verb)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.pass_obj
def operators(console: Console, names: tuple[str, ...]) -> None:
    """List the ONNX operators and how each is carried out.

    All of the installed onnx, or those with NAME in their name: where they run, the
    opsets that brought the versions known, the element types of their tensors, and
    what is left out.
    """
    from ..catalogue import TERMS, summary
    from ..catalogue import operators as standard

    every = standard()
    found = [o for o in every if not names or any(n.lower() in o.name.lower() for n in names)]
    if not found:
        raise UsageError(f"no operator of ONNX has {' or '.join(map(quoted, names))} in its name")
    titles = ["operator", "where", "opsets", "types", "limits"]
    shown = [o for o in found if names or not o.domain or o.place == "wafer"]
    rows = [[o.full_name, o.where, o.opsets, o.typed, o.limits] for o in shown]
    for line in table(titles, rows, wrap=["opsets", "types", "limits"]):
        console.say(line)
    console.say()
    for line in summary(found):
        console.say(line)
    console.say()
    for line in facts(TERMS):
        console.say(line)
    entries = [
        {
            "operator": o.name,
            "domain": o.domain or "ai.onnx",
            "where": o.place,
            "opsets": o.versions,
            "converted": o.converted,
            "types": {parameter: [t.name for t in types] for parameter, types in o.types},
            "limits": o.limits,
        }
        for o in found
    ]
    console.result({"operators": entries})
