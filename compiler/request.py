"""What is asked of the compiler: every option of a compile, in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args

from .errors import UsageError, quoted

if TYPE_CHECKING:
    from ..placement.machine.wafer import Wafer

V = TypeVar("V")

Objective = Literal["latency", "throughput"]
Weights = Literal["f32", "f16", "bf16", "int8", "int4"]
Activations = Literal["f32", "bf16"]
Until = Literal["graph", "plan", "program"]

UNWRITTEN = frozenset({"constraints", "no_host", "until"})  # of them a program holds what came of it


@dataclass(frozen=True)
class Request:
    """How to compile a model. In the manifest's order.

    dims: values of symbolic dimensions. shapes: whole shapes of inputs, which win over them. values: of
    inputs that become constants, which a run may give only as they are: arrays of the input's type, or
    Python numbers and lists of them. states: (input, output) pairs that stay on the wafer between calls.
    capacity: positions of the caches among them, which grow in the model. entries: by name, what they bind
    besides `dims`; they share weights and states.

    wafer: a preset's name, WIDTHxHEIGHT, a TOML file's path, or a Wafer. optimize: what the plan is to be
    best at. simplify: False plans the graph as imported. weights: what the constants of products and look-up
    tables are stored as, int8 and int4 in blocks of 32 with a scale; sums are f32 all the same. no_weights:
    external data is not looked at, the plan can be shown but not run. activations: what is multiplied with
    bf16 weights, rounded to bf16 unless this is "f32".

    constraints: the path of a placement.json to follow. no_host: a model with operators that run on the host
    is refused. until: the phase to stop after.
    """

    dims: Mapping[str, int] = field(default_factory=dict[str, int])
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    states: Sequence[tuple[str, str]] = ()
    capacity: int | None = None
    entries: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])
    wafer: str | Wafer = "wse3"
    optimize: Objective = "latency"
    simplify: bool = True
    weights: Weights = "f32"
    no_weights: bool = False
    activations: Activations | None = None
    constraints: str | Path | None = None
    no_host: bool = False
    until: Until = "program"

    def check(self) -> None:
        """Raises UsageError for an option that is unknown, or contradicts another."""
        for name, known in (("optimize", Objective), ("weights", Weights), ("until", Until)):
            if getattr(self, name) not in get_args(known):
                wanted = ", ".join(get_args(known))
                raise UsageError(f"{name} is one of {wanted}, not {quoted(str(getattr(self, name)))}")
        if self.activations not in (None, *get_args(Activations)):
            raise UsageError(f"activations is one of f32, bf16, not {quoted(self.activations)}")
        if self.activations == "bf16" and self.weights != "bf16":
            raise UsageError(f"--activations bf16 needs --weights bf16, not {self.weights}")
        if self.no_weights and self.until == "program":
            raise UsageError("--no-weights makes a plan (--compile-to plan), no program")
        if self.constraints is not None and len(self.entries) > 1:
            raise UsageError("--constraints is for a program with one entry")

    @property
    def asked(self) -> tuple[str, ...]:
        """The fields that are not as they are by default."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) != getattr(Request(), f.name))

    def machine(self) -> Wafer:
        """The wafer. Raises UsageError for one that is unknown or not described well, and OSError."""
        from ..placement.machine.presets import load
        from ..placement.machine.wafer import WaferError

        try:
            return load(self.wafer) if isinstance(self.wafer, str) else self.wafer
        except WaferError as e:
            raise UsageError(str(e)) from None

    @property
    def factors(self) -> Activations:
        """What products read beside their weights as, as asked for or by default."""
        return self.activations or ("bf16" if self.weights == "bf16" else "f32")

    def manifest(self) -> dict[str, Any]:
        """What a program's manifest.json says of it; `entries` are "entry_dims" there."""
        ordered = replace(
            self,
            dims=_by_name(self.dims),
            shapes=_by_name(self.shapes),
            values=_by_name(self.values),
            entries={name: _by_name(own) for name, own in self.entries.items()},
            activations=self.factors,
        )
        return {
            "entry_dims" if f.name == "entries" else f.name: _plain(getattr(ordered, f.name))
            for f in fields(ordered)
            if f.name not in UNWRITTEN
        }


def _by_name(pairs: Mapping[str, V]) -> dict[str, V]:
    return dict(sorted(pairs.items()))


def _plain(value: Any) -> Any:
    """`value` as JSON holds it: a wafer by its name, arrays as lists, "inf" and "nan" as words."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in cast(Mapping[str, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in cast(Sequence[Any], value)]
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    return _plain(value.tolist()) if hasattr(value, "tolist") else value.name
