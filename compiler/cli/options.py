"""Options that several verbs share, and the types of their values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import click

from ..errors import UsageError, quoted, shown

if TYPE_CHECKING:
    from ..compiled import Compiled
    from ..request import Until
    from ..verify.call_inputs import Feeding
    from .console import Console

T = TypeVar("T")
Function = Callable[..., Any]


class Pair(click.ParamType, Generic[T]):  # pyright: ignore[reportMissingTypeArgument]  # generic from click 8.4 on
    """NAME=VALUE, split at the last '=' (names from models may hold one), or at the first."""

    def __init__(self, form: str, value: Callable[[str], T], first: bool = False) -> None:
        self.name = form
        self._value, self._first = value, first

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, T]:
        name, equals, text = value.partition("=") if self._first else value.rpartition("=")
        try:
            if not (name and equals and text):
                raise ValueError
            return name, self._value(text)
        except ValueError:
            self.fail(f"{quoted(str(value))} is not {self.name}", param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self.name


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(","))


def _value(text: str) -> Any:
    """The array of a .npy file, or what JSON says."""
    if text.endswith(".npy"):
        from ..verify.call_inputs import load_array

        return load_array(text)
    import json

    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(text) from None


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    pair = float(low), float(high)
    if not pair[0] < pair[1]:
        raise ValueError(text)
    return pair


def _sizes(text: str) -> dict[str, int]:
    pairs = [pair.rpartition("=") for pair in text.split(",")]
    if not all(name and equals for name, equals, _ in pairs):
        raise ValueError(text)
    return {name: int(size) for name, _, size in pairs}


class Entry(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]
    """NAME:DIM=N,..."""

    name = "NAME:DIM=N,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, dict[str, int]]:
        from ...codegen.artifact.artifact import is_name

        name, _, sizes = value.partition(":")
        try:
            if not is_name(name):
                raise ValueError
            return name, _sizes(sizes)
        except ValueError:
            self.fail(f"{quoted(str(value))} is not {self.name}", param, ctx)


class Core(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]
    """X,Y"""

    name = "X,Y"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        try:
            x, y = value.split(",")
            return int(x), int(y)
        except ValueError:
            self.fail(f"{quoted(str(value))} is not {self.name}", param, ctx)


@dataclass(frozen=True)
class Compiling:
    """How to compile, from the command line."""

    wafer: str
    dims: tuple[tuple[str, int], ...]
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    values: tuple[tuple[str, Any], ...]
    level: str
    weights: Literal["f32", "f16", "bf16"]
    activations: Literal["f32", "bf16"] | None
    optimize: str
    states: tuple[tuple[str, str], ...]
    capacity: int | None
    entries: tuple[tuple[str, dict[str, int]], ...]
    constraints: str | None
    no_host: bool

    def compile(
        self, model: str | bytes, console: Console, until: Until = "program", no_weights: bool = False
    ) -> Compiled:
        """See `pipeline.compile_model`."""
        from ..pipeline import compile_model

        return compile_model(
            model,
            wafer=self.wafer,
            dims=unique("--dim", self.dims),
            shapes=unique("--shape", self.shapes),
            values=unique("--value", self.values),
            optimize=self.optimize,
            states=self.states,
            capacity=self.capacity,
            entries=unique("--entry", self.entries),
            constraints=self.constraints,
            level=int(self.level),
            weights=self.weights,
            no_weights=no_weights,
            no_host=self.no_host,
            activations=self.activations,
            until=until,
            report=console.progress,
        )


def unique(flag: str, pairs: tuple[tuple[str, T], ...]) -> dict[str, T]:
    """The pairs as a mapping; UsageError for a name given twice."""
    out: dict[str, T] = {}
    for name, value in pairs:
        if name in out:
            raise UsageError(f"{flag} {shown(name)} is given twice")
        out[name] = value
    return out


def _stack(function: Function, options: list[Callable[[Function], Function]]) -> Function:
    for option in reversed(options):
        function = option(function)
    return function


def binding(function: Function) -> Function:
    """--wafer, --dim, --shape, --value, --state, --capacity."""
    return _stack(
        function,
        [
            click.option(
                "--wafer",
                default="wse3",
                show_default=True,
                metavar="NAME|FILE",
                help="A preset (see 'waferc wafers'), WIDTHxHEIGHT, or a TOML file.",
            ),
            click.option(
                "--dim",
                "dims",
                multiple=True,
                type=Pair("NAME=N", int),
                help="Bind a symbolic dimension; may be repeated.",
            ),
            click.option(
                "--shape",
                "shapes",
                multiple=True,
                type=Pair("INPUT=1,3,...", _shape),
                help="Give an input's whole shape; may be repeated.",
            ),
            click.option(
                "--value",
                "values",
                multiple=True,
                type=Pair("INPUT=JSON|FILE.npy", _value, first=True),
                help="Make an input a constant, such as axes=[0,1]; may be repeated.",
            ),
            click.option(
                "--state",
                "states",
                multiple=True,
                type=Pair("PAST=PRESENT", str),
                help="Keep output PRESENT on the wafer as input PAST of the next call; may be repeated.",
            ),
            click.option(
                "--capacity",
                type=click.IntRange(min=2),
                metavar="N",
                help="Positions of key-value caches, which stay on the wafer: states that grow, and "
                "pairs named past_key_values.* and present.*.",
            ),
        ],
    )


no_host = click.option("--no-host", is_flag=True, help="Refuse a model with operators that run on the host.")


def compiling(function: Function) -> Function:
    """The options of `compile`, handed to the function as one `Compiling`, first of its options."""

    def collected(*args: Any, **values: Any) -> Any:
        own = {f.name: values.pop(f.name) for f in fields(Compiling)}
        return function(*args, options=Compiling(**own), **values)

    return binding(
        _stack(
            _as(function, collected),
            [
                click.option(
                    "-O",
                    "level",
                    type=click.Choice(["0", "1", "2"]),
                    default="2",
                    help="0: plan the graph as imported; 1 and 2 (the default): simplified first.",
                ),
                click.option(
                    "--optimize",
                    type=click.Choice(["latency", "throughput"]),
                    default="latency",
                    show_default=True,
                    help="What the plan is to be best at.",
                ),
                click.option(
                    "--weights",
                    type=click.Choice(["f32", "f16", "bf16"]),
                    default="f32",
                    show_default=True,
                    help="What constants of products and look-up tables are stored as; sums are f32.",
                ),
                click.option(
                    "--activations",
                    type=click.Choice(["f32", "bf16"]),
                    help="What is multiplied with bf16 weights: rounded to bf16 (their default), or f32.",
                ),
                no_host,
                click.option(
                    "--entry",
                    "entries",
                    multiple=True,
                    type=Entry(),
                    help="An entry of the program, with dimensions of its own; repeated: they share weights "
                    "and states.",
                ),
                click.option("--constraints", metavar="FILE", help="A placement.json to follow."),
            ],
        )
    )


def _as(function: Function, wrapper: Function) -> Function:
    return update_wrapper(wrapper, function)


ranges = click.option(
    "--range",
    "ranges",
    multiple=True,
    type=Pair("NAME=LO:HI", _range),
    help="Make this input uniform in [LO, HI) instead; may be repeated.",
)


def feeding(function: Function) -> Function:
    """Where inputs come from, handed to the function as one `Feeding`."""

    def collected(*args: Any, **values: Any) -> Any:
        from ..verify.call_inputs import Feeding

        names = ("files", "archive", "seed_of_inputs", "ranges", "steps")
        files, archive, seed, ranges, steps = (values.pop(n) for n in names)
        feeding: Feeding = Feeding(unique("--input", files), archive, seed, unique("--range", ranges), steps)
        return function(*args, feeding=feeding, **values)

    return _stack(
        _as(function, collected),
        [
            click.option(
                "--input",
                "files",
                multiple=True,
                type=Pair("NAME=FILE.npy", str, first=True),
                help="One input's value; may be repeated.",
            ),
            click.option("--inputs", "archive", metavar="FILE.npz", help="Values of inputs by name."),
            click.option(
                "--random",
                "seed_of_inputs",
                type=click.IntRange(min=0),
                metavar="SEED",
                help="Make the other inputs: floats normal, integers and booleans 0 or 1.",
            ),
            ranges,
            click.option(
                "--steps",
                metavar="FILE.npz",
                help="Several calls: each array's first axis counts them; state is kept.",
            ),
        ],
    )


entry = click.option(
    "--entry", metavar="NAME", help="Of a program with several entries; by default the first."
)

threads = click.option(
    "--threads", type=click.IntRange(1, 64), metavar="N", help="Host threads; by default all processors."
)
