"""Options that several verbs share, and the types of their values."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args

import click
from click.shell_completion import CompletionItem

from ..errors import UsageError, WafercError, quoted, shown
from ..request import Activations, Objective, Request, Until, Weights
from .named_files import Reads, reads

if TYPE_CHECKING:
    from ..verify.call_inputs import Feeding

T = TypeVar("T")
Function = Callable[..., Any]
Pairs = tuple[tuple[str, Any], ...]


def _no_file(_: str) -> bool:
    return False


def _is_file(_: str) -> bool:
    return True


def _is_npy(text: str) -> bool:
    return text.endswith(".npy")


class Pair(click.ParamType, Generic[T]):  # pyright: ignore[reportMissingTypeArgument]  # generic from click 8.4 on
    """NAME=VALUE, split at the last '=' (names from models may hold one), or at the first.

    file: whether a value is the name of a file that is read.
    """

    def __init__(
        self,
        form: str,
        value: Callable[[str], T],
        first: bool = False,
        file: Callable[[str], bool] = _no_file,
    ) -> None:
        self.name = form
        self._value, self._first, self._file = value, first, file

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, T]:
        name, equals, text = value.partition("=") if self._first else value.rpartition("=")
        try:
            if not (name and equals and text):
                raise ValueError
            if ctx is not None and param is not None and self._file(text):
                reads(ctx, param, text)
            return name, self._value(text)
        except ValueError:
            self.fail(f"{quoted(str(value))} is not {self.name}", param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return self.name


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(","))


def _value(text: str) -> Any:
    """The array of a .npy file, or what JSON says."""
    if _is_npy(text):
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
    if not (pair[0] < pair[1] and math.isfinite(pair[1] - pair[0])):
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


LINK = re.compile(r"(\d{1,6}),(\d{1,6}),(east|west|south|north)", re.ASCII)


class Link(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]
    """X,Y,DIRECTION"""

    name = "X,Y,DIRECTION"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int, str]:
        found = LINK.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            self.fail(f"{quoted(str(value))} is no link such as 3,4,east", param, ctx)
        return int(found[1]), int(found[2]), found[3]


class WaferName(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]
    """A preset, or a TOML file, which is read."""

    name = "wafer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from ...placement.machine.presets import is_preset

        if ctx is not None and param is not None and not is_preset(value):
            reads(ctx, param, value)
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from ...placement.machine.presets import presets

        known = [CompletionItem(name) for name in presets() if name.startswith(incomplete)]
        return known or [CompletionItem(incomplete, type="file")]


class NameIn(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]
    """The name of something in the program that the command reads: "node", "tensor" or "entry"."""

    name = "name"

    def __init__(self, what: str) -> None:
        self._what = what

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Nothing where there is no program yet, or none that can be read."""
        from .saved import Saved

        # Behind an option that lacks its value click leaves the arguments aside.
        path = ctx.params.get("program") or next(iter(ctx.args), None)
        try:
            saved = Saved(path or "")
            if self._what == "entry":
                names = set(saved.entries)
            elif self._what == "node":
                names = {n for s in saved.plan.steps for n in (s.name, *s.source)}
            else:
                names = {b.name for b in saved.plan.buffers}
        except (OSError, WafercError):
            return []
        return [CompletionItem(n) for n in sorted(names) if n.startswith(incomplete) and n.isprintable()]


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


# What each field of a `Request` is called on the command line: flags, and click's attributes of the option.
ASKED: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "wafer": (
        ("--wafer",),
        {
            "type": WaferName(),
            "show_default": True,
            "metavar": "NAME|FILE",
            "help": "A preset (see 'waferc wafers'), WIDTHxHEIGHT, or a TOML file.",
        },
    ),
    "dims": (
        ("--dim",),
        {"type": Pair("NAME=N", int), "help": "Bind a symbolic dimension; may be repeated."},
    ),
    "shapes": (
        ("--shape",),
        {"type": Pair("INPUT=1,3,...", _shape), "help": "Give an input's whole shape; may be repeated."},
    ),
    "values": (
        ("--value",),
        {
            "type": Pair("INPUT=JSON|FILE.npy", _value, first=True, file=_is_npy),
            "help": "Make an input a constant, such as axes=[0,1]; may be repeated.",
        },
    ),
    "states": (
        ("--state",),
        {
            "multiple": True,
            "type": Pair("PAST=PRESENT", str),
            "help": "Keep output PRESENT on the wafer as input PAST of the next call; may be repeated.",
        },
    ),
    "capacity": (
        ("--capacity",),
        {
            "type": click.IntRange(min=2),
            "metavar": "N",
            "help": "Positions of key-value caches, which stay on the wafer: states that grow, and "
            "pairs named past_key_values.* and present.*.",
        },
    ),
    "simplify": (("--no-simplify",), {"help": "Plan the graph as imported."}),
    "optimize": (
        ("--optimize",),
        {
            "type": click.Choice(get_args(Objective)),
            "show_default": True,
            "help": "What the plan is to be best at.",
        },
    ),
    "weights": (
        ("--weights",),
        {
            "type": click.Choice(get_args(Weights)),
            "show_default": True,
            "help": "What constants of products and look-up tables are stored as; sums are f32.",
        },
    ),
    "activations": (
        ("--activations",),
        {
            "type": click.Choice(get_args(Activations)),
            "help": "What is multiplied with bf16 weights: rounded to bf16 (their default), or f32.",
        },
    ),
    "no_host": (("--no-host",), {"help": "Refuse a model with operators that run on the host."}),
    "entries": (
        ("--entry",),
        {
            "type": Entry(),
            "help": "An entry of the program, with dimensions of its own; repeated: they share weights "
            "and states.",
        },
    ),
    "constraints": (
        ("--constraints",),
        {"type": Reads(), "metavar": "FILE", "help": "A placement.json to follow."},
    ),
    "until": (
        ("--compile-to",),
        {
            "type": click.Choice(get_args(Until)),
            "show_default": True,
            "help": "Stop after a phase: a graph is written as text, a plan without weights and kernels.",
        },
    ),
    "no_weights": (
        ("--no-weights",),
        {"help": "Leave external data alone, there or not: plan its tensors by their shapes."},
    ),
}
FOR_A_PLAN_ONLY = ("until", "no_weights")
COMPILING = tuple(name for name in ASKED if name not in FOR_A_PLAN_ONLY)
PLANNING = tuple(name for name in ASKED if name != "until")
DEFAULTS = Request()


def asking(*names: str) -> Callable[[Function], Function]:
    """Options for these fields of a `Request`, which the function gets as its argument `request`."""

    def decorated(function: Function) -> Function:
        def collected(*args: Any, **values: Any) -> Any:
            request = Request(**{name: values.pop(name) for name in names})
            return function(*args, request=request, **values)

        return _stack(_as(function, collected), [_option(name) for name in names])

    return decorated


def gathered(kind: Callable[..., Any]) -> Callable[[Function], Function]:
    """The options named as the fields of a dataclass, handed to the function as one of it, `how`."""

    def decorated(function: Function) -> Function:
        def collected(*args: Any, **values: Any) -> Any:
            own = {name: values.pop(name) for name in inspect.signature(kind).parameters}
            return function(*args, how=kind(**own), **values)

        return _as(function, collected)

    return decorated


def _option(name: str) -> Callable[[Function], Function]:
    """An option with the field's default. It is a flag if that is a truth, and repeated if it maps names."""
    flags, attributes = ASKED[name]
    default: Any = getattr(DEFAULTS, name)
    derived: dict[str, Any] = {}
    if isinstance(default, bool):

        def told(_: click.Context, _parameter: click.Parameter, given: bool) -> bool:
            """The flag says that it is not as by default."""
            return given != default

        derived = {"is_flag": True, "callback": told}
    elif isinstance(default, Mapping):

        def mapped(_: click.Context, _parameter: click.Parameter, pairs: Pairs) -> dict[str, Any]:
            return unique(flags[0], pairs)

        derived = {"multiple": True, "callback": mapped}
    elif default != ():
        derived = {"default": default}
    return click.option(*flags, name, **derived, **attributes)


def words_of(request: Request) -> list[str]:
    """The flags that ask for what of `request` is no default. Of fields with one value."""
    out: list[str] = []
    for name, (flags, _) in ASKED.items():
        value = getattr(request, name)
        if value != getattr(DEFAULTS, name):
            out += [flags[0]] if isinstance(value, bool) else [flags[0], f"{value}"]
    return out


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
                type=Pair("NAME=FILE.npy", str, first=True, file=_is_file),
                help="One input's value; may be repeated.",
            ),
            click.option(
                "--inputs", "archive", type=Reads(), metavar="FILE.npz", help="Values of inputs by name."
            ),
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
                type=Reads(),
                metavar="FILE.npz",
                help="Several calls: each array's first axis counts them; state is kept.",
            ),
        ],
    )


entry = click.option(
    "--entry",
    type=NameIn("entry"),
    metavar="NAME",
    help="Of a program with several entries; by default the first.",
)

threads = click.option(
    "--threads", type=click.IntRange(1, 64), metavar="N", help="Host threads; by default all processors."
)
