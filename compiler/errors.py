"""Errors that a user sees, one class per exit code, and how names from models are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..placement.plan.plan import Plan


class WafercError(Exception):
    """The base. The message is one line: what, where, the numbers, what to try."""

    exit_code = 70


class UsageError(WafercError):
    """A bad flag, an unknown --dim or --shape name."""

    exit_code = 2


class InvalidInput(WafercError):
    """Empty, truncated, no ONNX, refused by onnx's checker, or a dimension left unbound."""

    exit_code = 3


class InputUnbound(InvalidInput):
    """Operators ask for values of inputs that are not bound. `inputs`: their names."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        self.inputs = tuple(dict.fromkeys(name for r in refusals for name in r.unbound))
        super().__init__("; ".join(map(str, refusals)))


class UnsupportedModel(WafercError):
    """Valid, but waferc does not do it."""

    exit_code = 4


class DoesNotFit(WafercError):
    """Over a limit of the wafer or of the host. `plan`: the nearest attempt, for reports."""

    exit_code = 5
    plan: Plan | None = None


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
    """Every operator of a model that waferc does not do; `refusals` lists them."""

    def __init__(self, refusals: Sequence[Refusal], what: str = "unsupported") -> None:
        self.refusals = tuple(refusals)
        super().__init__(f"{what}: " + "; ".join(map(str, self.refusals)))


def shown(name: str, limit: int = 80) -> str:
    """`name` on one line of printable characters, at most `limit` of them."""
    text = (
        name.encode("unicode_escape", "backslashreplace").decode("ascii") if not name.isprintable() else name
    )
    return text if len(text) <= limit else text[: limit // 2 - 2] + "..." + text[-(limit // 2 - 1) :]


def quoted(name: str, limit: int = 80) -> str:
    """`shown`, in quotes."""
    return f"'{shown(name, limit)}'"
