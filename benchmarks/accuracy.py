"""How far predicted cycles are from what was measured on wafers: `make accuracy`, docs/accuracy.md.

    python benchmarks/accuracy.py [--rows FILE.csv] [--level a|b] [--class NAME] [-o PAGE.md] [--json FILE]
                                  [--errors FILE.json]

Each row of the table is priced on two levels: (a) the cost model on the published mapping (`published.py`)
and (b) an ONNX model of the experiment, compiled (`experiments.py`). b / a is our mapping beside the
published one. --errors writes level a's errors by class, which `waferc inspect --step` and the report tell
(`compiler/show/expected_error.py`). Without -o the page goes to stdout; a line for each bad row to stderr,
and the exit code is then 3.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import experiments
import numpy as np
import published
from accuracy_page import written
from measurements import CLASSES, BadRow, Row, read, unused
from wavelets import Compared, by_route, compared

HERE = Path(__file__).resolve().parent
MEASURED = HERE / "data" / "measured.csv"
PAGE = HERE.parent / "docs" / "accuracy.md"
ROLES = ("calibration", "regression", "other")
BRIEF = 12  # rows of a class up to which each is shown
BAD_ROWS = 3  # exit code


@dataclass(frozen=True)
class Result:
    """A row with both predictions, in its unit. b: or why there is none; None where it was not asked for."""

    row: Row
    a: float
    b: float | str | None

    @property
    def mapping(self) -> float | None:
        """Level b divided by level a."""
        return self.b / self.a if isinstance(self.b, float) and self.a > 0 else None

    @property
    def role(self) -> str:
        return self.row.role if self.row.role in ROLES else "other"


@dataclass(frozen=True)
class Errors:
    """Relative errors of predictions: prediction / value - 1.

    rank: Spearman's correlation of predictions and values; None for fewer than three rows or where all
    of either are alike.
    """

    count: int
    median: float
    p90: float
    largest: float
    signed: float
    rank: float | None

    @staticmethod
    def of(predicted: Sequence[float], measured: Sequence[float]) -> Errors:
        p, v = np.asarray(predicted, float), np.asarray(measured, float)
        signed = p / v - 1
        size = np.abs(signed)
        return Errors(
            len(p),
            float(np.median(size)),
            float(np.quantile(size, 0.9)),
            float(size.max()),
            float(np.median(signed)),
            _rank_correlation(p, v),
        )

    def cells(self) -> str:
        rank = "" if self.rank is None else f"{self.rank:.2f}"
        shares = (_share(self.median), _share(self.p90), _share(self.largest), _share(self.signed, sign=True))
        return " | ".join((str(self.count), *shares, rank))


def _rank_correlation(p: Any, v: Any) -> float | None:
    if len(p) < 3:
        return None
    ranks = [_ranks(a) for a in (p, v)]
    if any(r.std() == 0 for r in ranks):
        return None
    return float(np.corrcoef(ranks)[0, 1])


def _ranks(a: Any) -> Any:
    """Ranks from 0; equal values share the mean of theirs."""
    _, of, count = np.unique(a, return_inverse=True, return_counts=True)
    first = np.cumsum(count) - count
    return (first + (count - 1) / 2)[of]


def _share(e: float, sign: bool = False) -> str:
    text = f"{100 * e:+.1f}" if sign else f"{100 * e:.1f}"
    return ("0.0" if float(text) == 0 else text) + " %"


def results(rows: Sequence[Row], level_b: bool) -> Iterator[Result]:
    """Each row with its predictions. level_b: compile as well, which takes minutes."""
    for row in rows:
        yield Result(row, published.priced(row), experiments.compiled(row) if level_b else None)


# -- the tables ------------------------------------------------------------------------------------------
def labels(found: Sequence[Result]) -> list[str]:
    """Classes in the order of `CLASSES`, in parts where they have some."""
    return sorted({r.row.label for r in found}, key=lambda n: (list(CLASSES).index(n.partition(",")[0]), n))


HEAD = "| class | rows | number | median | p90 | largest | signed median | rank |\n" + "|---" * 8 + "|"


def errors_table(found: Sequence[Result], level: Callable[[Result], Any]) -> str:
    """Errors by class, calibration rows and others apart."""
    lines = [HEAD]
    for label in labels(found):
        for role in ROLES:
            own = [r for r in found if (r.row.label, r.role) == (label, role) and isinstance(level(r), float)]
            if own:
                errors = Errors.of([level(r) for r in own], [r.row.value for r in own])
                lines.append(f"| {label} | {role} | {errors.cells()} |")
    return "\n".join(lines)


def errors_data(found: Sequence[Result]) -> dict[str, Any]:
    """Level a's errors by class, of all its rows together."""
    out: dict[str, Any] = {}
    for label in labels(found):
        own = [r for r in found if r.row.label == label]
        e = Errors.of([r.a for r in own], [r.row.value for r in own])
        fitted = all(r.role == "calibration" for r in own)
        rounded = {"median": round(e.median, 4), "signed": round(e.signed, 4)}
        out[label] = {"count": e.count, **rounded, "fitted": fitted}
    return {"schema": 1, "classes": out}


def mapping_table(found: Sequence[Result]) -> str:
    """Level b divided by level a, by class."""
    lines = ["| class | number | median | least | most |", "|---|---|---|---|---|"]
    for label in labels(found):
        own = [r.mapping for r in found if r.row.label == label and r.mapping is not None]
        if own:
            lines.append(f"| {label} | {len(own)} | {np.median(own):.2f} | {min(own):.2f} | {max(own):.2f} |")
    return "\n".join(lines)


def joins_line(rows: list[Row]) -> str:
    """A plan's own reduction beside the cheapest published one; "" without any."""
    pairs = published.beside_the_cheapest(rows)
    if not pairs:
        return ""
    e = Errors.of([p for _, p in pairs], [r.value for r, _ in pairs])
    return (
        "A plan does not choose a published pattern: it pays `Wafer.join`. Beside the cheapest published\n"
        f"reduction of the same line and length ({e.count} pairs) that errs by {_share(e.median)} in the "
        f"median\nand {_share(e.largest)} at most, signed median {_share(e.signed, sign=True)}."
    )


def rows_table(found: Sequence[Result]) -> str:
    """Every row of the classes with few, the worst of each kind of the others."""
    lines = ["| row | measured | a | error | b | error | b / a |", "|---|---|---|---|---|---|---|"]
    for group in CLASSES:
        own = [r for r in found if r.row.group == group]
        if len(own) > BRIEF:
            kinds: dict[str, Result] = {}
            for r in own:
                kind = r.row.texts.get("kind", r.row.texts.get("op", ""))
                worst = kinds.setdefault(kind, r)
                kinds[kind] = max(worst, r, key=lambda x: abs(x.a / x.row.value - 1))
            own = list(kinds.values())
        lines += [_row_line(r) for r in own]
    return "\n".join(lines)


def _row_line(r: Result) -> str:
    value = r.row.value
    cells = [_cell(r.row.id), _figure(value), _figure(r.a), _share(r.a / value - 1, sign=True)]
    if isinstance(r.b, float):
        cells += [_figure(r.b), _share(r.b / value - 1, sign=True), f"{r.mapping:.2f}" if r.mapping else ""]
    else:
        cells += ["", "", ""]
    return f"| {' | '.join(cells)} |"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.4g}"


def _cell(text: str) -> str:
    """A text of the table's inside a page."""
    return "".join(c if c.isprintable() and c not in "|<>&`[]\\" else "?" for c in text)[:60]


def reasons(found: Sequence[Result]) -> str:
    """What has no level b, and why."""
    why: dict[tuple[str, str], int] = {}
    for r in found:
        if isinstance(r.b, str):
            why[r.row.group, _cell_long(r.b)] = why.get((r.row.group, _cell_long(r.b)), 0) + 1
    return "\n".join(f"* {group} ({count} rows): {text}." for (group, text), count in why.items())


def _cell_long(text: str) -> str:
    return "".join(c if c.isprintable() and c not in "|<>" else "?" for c in text)[:240]


def sources_table(rows: Sequence[Row]) -> str:
    lines = ["| class | rows | kind | role | source |", "|---|---|---|---|---|"]
    count: dict[tuple[str, str, str, str], int] = {}
    for row in rows:
        source = row.source.partition(":")[0].partition(";")[0]
        key = row.group, _cell(row.kind), _cell(row.role), _cell_long(source)
        count[key] = count.get(key, 0) + 1
    lines += [f"| {g} | {n} | {k} | {role} | {s} |" for (g, k, role, s), n in count.items()]
    return "\n".join(lines)


def fabric_table(found: Sequence[Compared]) -> str:
    """Whole calls, then steps by how they receive: the closed form over the simulation."""
    lines = ["| of | number | median | p90 | largest | signed median | rank |", "|---" * 7 + "|"]
    cases = {"a call": [(c.replay.cycles, c.replay.closed) for c in found]}
    cases |= {f"a step by {route}": pairs for route, pairs in sorted(by_route(found).items())}
    for name, pairs in cases.items():
        errors = Errors.of([closed for _, closed in pairs], [simulated for simulated, _ in pairs])
        lines.append(f"| {name} | {errors.cells()} |")
    return "\n".join(lines)


def notes(rows: Sequence[Row]) -> list[str]:
    """A line for each parameter that nothing here knows."""
    return [f"{r.id}: parameter {name!r} is not used" for r in rows for name in unused(r)]


def page(found: Sequence[Result], plans: Sequence[Compared] = ()) -> str:
    """All tables, as docs/accuracy.md has them. plans: carried out wavelet by wavelet."""
    rows = [r.row for r in found]
    compiled = any(r.b is not None for r in found)
    tables = {
        "level_a": errors_table(found, lambda r: r.a),
        "level_b": errors_table(found, lambda r: r.b) if compiled else "(not asked for)",
        "mapping": mapping_table(found) if compiled else "(not asked for)",
        "joins": joins_line(rows),
        "fabric": fabric_table(plans) if plans else "(not asked for)",
        "rows": rows_table(found),
        "reasons": reasons(found),
        "sources": sources_table(rows),
    }
    return written(tables, rows)


def main(arguments: Sequence[str]) -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rows", type=Path, default=MEASURED, help="a table of the same columns")
    options.add_argument("--level", choices=("a", "b"), default="b", help="a alone, or b as well")
    options.add_argument("--class", dest="group", choices=tuple(CLASSES), help="only rows of this class")
    options.add_argument("--json", type=Path, help="write the predictions there, too")
    options.add_argument("--errors", type=Path, help="write level a's errors by class there")
    options.add_argument("-o", type=Path, help="write the page there")
    asked = options.parse_args(arguments)
    try:
        rows, bad = read(asked.rows)
    except (BadRow, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return BAD_ROWS
    rows = [r for r in rows if asked.group in (None, r.group)]
    for line in (*bad, *notes(rows)):
        print(f"row: {line}", file=sys.stderr)
    found: list[Result] = []
    for r in results(rows, asked.level == "b"):
        found.append(r)
        print(f"{len(found)} of {len(rows)}: {r.row.id} {r.row.value:g} {r.a:.1f} {r.b}", file=sys.stderr)
    text = page(found, list(compared()) if asked.rows == MEASURED and asked.level == "b" else ())
    if asked.o:
        asked.o.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    if asked.errors:
        asked.errors.write_text(json.dumps(errors_data(found), indent=1) + "\n", encoding="utf-8")
    if asked.json:
        each = [
            {"id": r.row.id, "class": r.row.group, "value": r.row.value, "a": r.a, "b": r.b} for r in found
        ]
        asked.json.write_text(json.dumps({"schema": 1, "rows": each}, indent=1) + "\n")
    return BAD_ROWS if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
