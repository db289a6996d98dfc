"""A study's rows as CSV, JSON and text: the Pareto front, and what each parameter makes of a figure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .point import FIGURES, Row
from .study import Study, Value

MORE = frozenset({"tokens_s", "many_tokens_s"})  # of which more is better; of all others less


def columns(study: Study) -> list[str]:
    return ["model", *study.values, *FIGURES]


def as_csv(study: Study, rows: Sequence[Row]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns(study), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_json(study: Study, rows: Sequence[Row]) -> str:
    front = [i for i, row in enumerate(rows) if row in pareto(study, rows)]
    data = {"schema": 1, "title": study.title, "wafer": study.base.name, "rows": list(rows), "pareto": front}
    return json.dumps(data, indent=1) + "\n"


def pareto(study: Study, rows: Sequence[Row]) -> list[Row]:
    """Rows that no other of the same model beats in one figure and equals in the other, best first."""
    out: list[Row] = []
    for model in study.models:
        found = [r for r in rows if r["model"] == model and not r["reason"]]
        keys = {id(r): tuple(-r[c] if c in MORE else r[c] for c in study.pareto) for r in found}
        best = float("inf")
        for r in sorted(found, key=lambda r: keys[id(r)]):
            if keys[id(r)][1] < best:
                best = keys[id(r)][1]
                out.append(r)
    return out


@dataclass(frozen=True)
class Bar:
    """A parameter moved from its first value, the others left: the ratio of tokens a second."""

    model: str
    parameter: str
    value: Value
    ratio: float


def sensitivity(study: Study, rows: Sequence[Row]) -> Iterator[Bar]:
    """Of each parameter and value; nothing of points that have no figures."""
    start = {n: v[0] for n, v in study.values.items()}
    for model in study.models:
        own = [r for r in rows if r["model"] == model and not r["reason"]]
        base = next((r for r in own if _at(r, start)), None)
        for name, values in study.values.items():
            for v in values[1:] if base is not None else ():
                row = next((r for r in own if _at(r, {**start, name: v})), None)
                if row is not None and base is not None:
                    yield Bar(model, name, v, row["tokens_s"] / base["tokens_s"])


def _at(row: Row, values: dict[str, Any]) -> bool:
    return all(row[k] == v for k, v in values.items())
