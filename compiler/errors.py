"""Errors that a user sees, one class per exit code, and how names from models are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..placement.plan.plan import Plan


MOST_OPEN = 8  # dimensions that a message names


class WafercError(Exception):
    """The base. The message is one line: what, where, the numbers, what to try."""

    exit_code = 70


class UsageError(WafercError):
    """A bad flag, an unknown --dim or --shape name."""

    exit_code = 2


class InvalidInput(WafercError):
    """Empty, truncated, no ONNX, refused by onnx's checker, or a dimension left unbound."""

    exit_code = 3


class OpenDimensions(InvalidInput):
    """Dimensions that nothing binds. `each`: (what is open, the flag that binds it), one of a flag."""

    def __init__(self, each: Sequence[tuple[str, str]]) -> None:
        first: dict[str, str] = {}
        for what, flag in each:
            first.setdefault(flag, what)
        self.each = tuple((what, flag) for flag, what in first.items())
        some, rest = self.each[:MOST_OPEN], len(self.each) - MOST_OPEN
        more = f" and {rest} more" if rest > 0 else ""
        opened = "; ".join(what for what, _ in some)
        super().__init__(f"{opened}{more}; add {' '.join(flag for _, flag in some)}")


class InputUnbound(InvalidInput):
    """Operators ask for values of inputs that are not bound. `inputs`: their names."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        self.inputs = tuple(dict.fromkeys(name for r in refusals for name in r.unbound))
        super().__init__("; ".join(map(str, refusals)))


class UnsupportedModel(WafercError):
    """Valid, but waferc does not do it."""

    exit_code = 4


class DoesNotFit(WafercError):
    """Over a limit of the wafer or of the host. `plan`: the nearest attempt, for reports; `attempts`: all of
    them, one a line.

    remedies: what the message ends with, as str; looked for when somebody reads it.
    """

    exit_code = 5
    plan: Plan | None = None
    attempts: str = ""
    remedies: object = None

    def __str__(self) -> str:
        return super().__str__() if self.remedies is None else f"{super().__str__()}; try {self._tried}"

    @cached_property
    def _tried(self) -> str:
        return str(self.remedies)


class InputOutput(WafercError):
    """A missing file, a full disk."""

    exit_code = 6


class ArtifactError(WafercError):
    """A program that is damaged or was made for something else."""

    exit_code = 7


class VerificationFailed(WafercError):
    """The numbers differ."""

    exit_code = 8


class ModelWarning(UserWarning):
    """Something in a model that is put right, and had better be put right where it was written."""


@dataclass(frozen=True)
class Refusal:
    """An operator that cannot be compiled: how often, why, and the first node.

    unbound: inputs of the model with whose values it could be.
    """

    op_type: str
    domain: str
    count: int
    reason: str
    node: str
    unbound: tuple[str, ...] = ()

    def __str__(self) -> str:
        kind = f"{self.domain}.{self.op_type}" if self.domain else self.op_type
        times = f" ({self.count} nodes)" if self.count > 1 else ""
        return f"{shown(kind)}{times}, first at node {quoted(self.node)}: {self.reason}"


class UnsupportedOperator(UnsupportedModel):
    """Every operator of a model that waferc does not do: `refusals`. besides: what else is wrong."""

    def __init__(self, refusals: Sequence[Refusal], what: str = "unsupported", besides: str = "") -> None:
        self.refusals = tuple(refusals)
        super().__init__("; ".join(filter(None, (f"{what}: " + "; ".join(map(str, self.refusals)), besides))))


def shown(name: str, limit: int = 80) -> str:
    """`name` on one line of printable characters, at most `limit` of them."""
    text = (
        name.encode("unicode_escape", "backslashreplace").decode("ascii") if not name.isprintable() else name
    )
    return text if len(text) <= limit else text[: limit // 2 - 2] + "..." + text[-(limit // 2 - 1) :]


def quoted(name: str, limit: int = 80) -> str:
    """`shown`, in quotes."""
    return f"'{shown(name, limit)}'"
