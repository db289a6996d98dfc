"""Every operator of the ONNX standard, and those of other domains that there are rules for, and how each is
carried out: from onnx's schemas and our own rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast, get_args

import onnx
from onnx import TensorProto

from ..ir.dtypes import ALL, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, SMALL, SUB_BYTE, DType, by_onnx
from ..ir.rules import REGISTRY, Registered
from .frontend.opsets import OLDEST_DIRECT_OPSET
from .frontend.standard import OLDEST_OPSET
from .frontend.walk import LIMITS
from .host.where_it_runs import WhereItRuns, where_it_runs

# What the table calls types that come together.
GROUPS = {
    "floats": tuple(t for t in ALL if t.is_float),
    "integers": tuple(t for t in ALL if t.kind in "iu"),
    "8-bit floats": (F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ),
    "short integers": SUB_BYTE,
}
TERMS = (
    ("wafer", "on the cores: by a rule of waferc's, or as the operators of its body in the standard."),
    ("host", "on the machine that runs the program, beside the wafer."),
    ("-", "not supported."),
    ("opsets", "those that brought a version which is carried out, from opset 6 on."),
    ("*", "a model with this version goes through onnx's version converter first."),
    ("types", "what the standard allows, as far as a core can store it, by type parameter."),
    *((name, ", ".join(t.name for t in types)) for name, types in GROUPS.items()),
    ("limits", "of what runs on the wafer; what is beyond them the host does."),
    ("known", "a constant, what folds to one (such as shapes), or an input bound with --value."),
)


@dataclass(frozen=True)
class Operator:
    """One operator in its newest version.

    versions: of its schema that are carried out, by the opset that brought each. converted: those of them
    that onnx's version converter raises first. types: of each of its type parameters that a core can store,
    in the order of its inputs and outputs.
    """

    name: str
    domain: str
    place: WhereItRuns
    versions: tuple[int, ...]
    converted: tuple[int, ...]
    types: tuple[tuple[str, tuple[DType, ...]], ...]
    limits: str

    @property
    def full_name(self) -> str:
        return f"{self.domain}.{self.name}" if self.domain else self.name

    @property
    def where(self) -> str:
        return "-" if self.place == "unsupported" else self.place

    @property
    def opsets(self) -> str:
        """The versions in a row, "6* 7 13"."""
        return " ".join(f"{v}{'*' if v in self.converted else ''}" for v in self.versions)

    @property
    def typed(self) -> str:
        """The types in words; parameters that take the same ones together."""
        if self.place != "wafer":
            return "as the standard" if self.place == "host" else ""
        alike: dict[str, list[str]] = {}
        for parameter, types in self.types:
            alike.setdefault(_words(types), []).append(parameter)
        if len(alike) < 2:
            return "".join(alike)
        return "; ".join(f"{' '.join(names)}: {words}" for words, names in alike.items())


def operators() -> list[Operator]:
    """All that the installed onnx knows, but for those that its newest opset has no more, and those of other
    domains that have rules; ai.onnx's first."""
    histories: dict[tuple[str, str], list[Any]] = {}
    for schema in cast(Any, onnx.defs).get_all_schemas_with_history():
        histories.setdefault((schema.domain, schema.name), []).append(schema)
    ordered = [sorted(h, key=lambda s: s.since_version) for _, h in sorted(histories.items())]
    of_onnx = [_operator(history) for history in ordered if not _gone(history)]
    return [*of_onnx, *(_ruled(r) for key, r in sorted(REGISTRY.items()) if key not in histories)]


def _ruled(rule: Registered) -> Operator:
    """An operator that onnx has no schema of: what its rule says of itself."""
    return Operator(rule.op_type, rule.domain, "wafer", (rule.since,), (), rule.types, rule.limits)


def summary(found: Sequence[Operator]) -> list[str]:
    """How many operators of each domain run where."""
    domains = list(dict.fromkeys(o.domain for o in found))
    counts = Counter((o.domain, o.place) for o in found)
    return [
        f"{domain or 'ai.onnx'}: "
        + ", ".join(f"{counts[domain, p]} {p}" for p in get_args(WhereItRuns) if counts[domain, p])
        for domain in domains
    ]


def _gone(history: Sequence[Any]) -> bool:
    """Whether the operator was taken back and nothing carries out its older versions."""
    newest = history[-1]
    return newest.deprecated and (newest.domain, newest.name) not in REGISTRY


def _operator(history: Sequence[Any]) -> Operator:
    newest, key = history[-1], (history[-1].domain, history[-1].name)
    first = OLDEST_OPSET if not newest.domain else 1
    last = cast(int, cast(Any, onnx.defs).onnx_opset_version()) if not newest.domain else newest.since_version
    rule = REGISTRY.get(key)
    direct = max(OLDEST_DIRECT_OPSET, rule.since if rule else 0) if not newest.domain else 1
    ends = [s.since_version - 1 for s in history[1:]] + [last]
    carried: list[int] = []
    converted: list[int] = []
    where: WhereItRuns = "unsupported"
    for schema, end in zip(history, ends, strict=True):
        if end < first or schema.deprecated:
            continue
        runs = _place(schema, end)
        if runs != "unsupported":
            where = runs
            carried.append(schema.since_version)
            if end < direct:
                converted.append(schema.since_version)
    types = _types(history[-2] if newest.deprecated else newest)
    limits = rule.limits if rule else LIMITS.get(key, "")
    return Operator(newest.name, newest.domain, where, tuple(carried), tuple(converted), types, limits)


def _place(schema: Any, opset: int) -> WhereItRuns:
    """Where a version of an operator runs, in the last opset that has it.

    The standard's body for an operator of sequences or strings has values that only the host can hold.
    """
    found = where_it_runs(schema.name, schema.domain, opset)
    if found != "wafer":
        return found
    kinds = [t.type_str for t in (*schema.inputs, *schema.outputs)]
    return found if all(_storable(schema, kind) for kind in kinds) else "host"


def _storable(schema: Any, kind: str) -> bool:
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}.get(kind, [kind])
    return any(_stored(t) for t in allowed)


def _types(schema: Any) -> tuple[tuple[str, tuple[DType, ...]], ...]:
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    used = dict.fromkeys(t.type_str for t in (*schema.inputs, *schema.outputs))
    found = {name: {t for kind in allowed.get(name, [name]) if (t := _stored(kind))} for name in used}
    # types that the standard leaves no choice, such as a shape's, go without saying
    return tuple((n, tuple(t for t in (*ALL, *SMALL) if t in found[n])) for n in used if n in allowed)


@cache
def _stored(kind: str) -> DType | None:
    """The type of the elements of "tensor(float)"; None for what is no tensor or that no core stores."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    if f"tensor({name})" != kind:
        return None
    try:
        return by_onnx(TensorProto.DataType.Value(name.upper()))
    except ValueError:
        return None


def _words(types: Sequence[DType]) -> str:
    whole = {t: name for name, group in GROUPS.items() if set(group) <= set(types) for t in group}
    return ", ".join(dict.fromkeys(whole.get(t, t.name) for t in types))
