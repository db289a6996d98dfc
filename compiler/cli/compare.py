"""`waferc compare`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import click

from ..errors import DoesNotFit, UsageError, shown
from ..show.text import facts, table
from .command import Verb
from .console import Console
from .named_files import PAGE, Reads, Writes
from .options import asking, gathered

if TYPE_CHECKING:
    from ..comparison.compare import Way
    from ..comparison.on_wafers import OnWafers
    from ..islands.island import Machines
    from ..islands.work import Part
    from ..request import Request, Weights
    from ..shapes.shape import Shape

ENGINE = "SGLang"
ASKED = ("wafer", "weights", "capacity", "dims", "values", "states", "optimize")


@dataclass(frozen=True)
class How:
    """What is compared. named: a shape. context: positions in its caches. machines: a file of more."""

    named: str | None
    context: int
    prompt: int
    users: int
    accepted: float
    engine: str
    machines: str | None
    html: str | None


@click.command("compare", cls=Verb)
@click.argument("model", type=Reads(model=True), required=False)
@click.option(
    "--shape", "named", metavar="NAME", help="A shape of 'waferc shapes', or a .toml file, for MODEL."
)
@click.option(
    "--context",
    type=click.IntRange(2, 1 << 20),
    default=2048,
    show_default=True,
    help="Positions in its caches.",
)
@click.option(
    "--prompt",
    type=click.IntRange(1, 1 << 20),
    default=1024,
    show_default=True,
    help="Tokens before the first.",
)
@click.option(
    "--users",
    type=click.IntRange(1, 4096),
    default=64,
    show_default=True,
    help="Requests at once on an island.",
)
@click.option(
    "--accepted",
    type=click.FloatRange(1, 64),
    default=1.0,
    show_default=True,
    help="Tokens a call yields by speculation; what makes the drafts is not counted.",
)
@click.option("--engine", default=ENGINE, show_default=True, help="What runs on islands.")
@click.option("--machines", type=Reads(), metavar="FILE.toml", help="More GPUs, engines and systems.")
@click.option("--html", type=Writes(PAGE), metavar="FILE.html", help="A page with the same figures and bars.")
@gathered(How)
@asking(*ASKED)
@click.pass_obj
def compare(console: Console, model: str | None, request: Request, how: How) -> None:
    """Compare wafers and islands of GPUs on a model.

    Tokens a second of one user and of many, time to the first token, energy and money
    per million tokens, what bounds each, how wrong it may be. MODEL is planned whole;
    a shape is estimated from plans of its distinct layers, on as many wafers as it
    needs.
    """
    from ..comparison.compare import Load, islands_for, no_wafers, on_island, on_wafers
    from ..comparison.page import notes_of, page
    from ..islands import island
    from ..islands.price import Asked

    if (model is None) == (how.named is None):
        raise UsageError("give MODEL or --shape NAME, and not both")
    machines = island.load(how.machines) if how.machines else island.builtin()
    engine = island.engine(how.engine, machines)
    load = Load(how.prompt, how.users, how.accepted)
    ways: list[Way] = []
    try:
        parts, wafers = _shape(how, request, machines) if how.named else _model(str(model), request, machines)
        ways += on_wafers(wafers, load)
    except DoesNotFit as e:
        wafers, parts = None, _parts(how, request)
        ways.append(no_wafers(request.machine().name, e))
    asked = _asked(how, request, Asked)
    for of in islands_for(parts, machines, engine, asked):
        ways.append(on_island(parts, of, engine, asked, load))
    title = how.named or str(model)
    notes = notes_of(ways, wafers, load, engine.name)
    _say(console, ways, notes)
    if how.html is not None:
        from ..files import write_text

        write_text(how.html, page(title, ways, notes))
        console.note(f"wrote {shown(how.html)}")
    console.result(
        {
            "model": title,
            "prompt": load.prompt,
            "accepted": load.accepted,
            "ways": [asdict(w) for w in ways],
            "layers": [asdict(p) for p in wafers.stretches] if wafers else [],
            "notes": [list(n) for n in notes],
        }
    )


def _asked(how: How, request: Request, made: Any) -> Any:
    """Bits of weights on islands: of a shape's experts as published, unless --weights says more."""
    from ..comparison.on_wafers import BITS_OF

    bits = BITS_OF[_weights(how, request)]
    return made(min(bits, 16.0), min(bits, 16.0))


def _weights(how: How, request: Request) -> Weights:
    """As asked for; of a shape those of its experts as published, where nothing is asked for."""
    from ..shapes.shape import shape

    if request.weights != "f32" or how.named is None:
        return request.weights
    bits = shape(how.named).bits
    return cast("Weights", "int4" if bits < 6 else "int8" if bits < 12 else "f16")


def _shape(how: How, request: Request, machines: Machines) -> tuple[list[Part], OnWafers]:
    from ..comparison.on_wafers import estimate
    from ..shapes.shape import shape

    of, wafer = shape(str(how.named)), request.machine()
    return _parts(how, request), estimate(
        of, wafer, machines.system(wafer), _weights(how, request), _context(how, of)
    )


def _context(how: How, of: Shape) -> int:
    return min(how.context, of.context)


def _parts(how: How, request: Request) -> list[Part]:
    from ..comparison.graphs import parts_of
    from ..shapes.shape import shape

    if how.named is None:
        raise UsageError("the model fits no wafer of this kind; try another --wafer, or --shape")
    of = shape(how.named)
    return parts_of(of, _context(how, of))


def _model(model: str, request: Request, machines: Machines) -> tuple[list[Part], OnWafers]:
    from ..comparison.on_wafers import whole
    from ..islands.work import work

    made, on = whole(replace(request, until="plan"), model, machines.system(request.machine()))
    return work(made), on


def _say(console: Console, ways: list[Way], notes: list[tuple[str, str]]) -> None:
    rows: list[list[Any]] = []
    for w in ways:
        if w.reason:
            rows.append([w.machine, w.machines, "-", "-", "-", "-", "-", "-", shown(w.reason, 120)])
            continue
        rows.append(
            [
                w.machine,
                w.machines,
                f"{w.one:,.0f}",
                f"{w.many:,.0f} of {w.users}",
                f"{w.first * 1e3:,.1f}",
                *(f"{a:,.3g}/{b:,.3g}" for a, b in ((w.joules[0] / 1e6, w.joules[1] / 1e6), w.dollars)),
                w.bound,
                w.error,
            ]
        )
    titles = ["machine", "n", "tokens/s", "of many", "first ms", "MJ/M", "$/M", "bound by", "error"]
    for line in table(titles, rows, wrap=["error"]):
        console.say(line)
    console.say()
    for line in facts(notes):
        console.say(line)
