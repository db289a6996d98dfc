"""How far predicted tokens per second of GPU islands are from published ones: docs/islands.md.

    python benchmarks/islands.py [--rows FILE.csv] [-o PAGE.md] [--json FILE]

Columns: engine, model, weights, gpus, tokens_per_second_batch_1, role, and where the table has them accepted
(tokens a call yields by speculation), parallel, users and source. Each row is priced from the model's graph
by what it says, and by nothing else. Without -o the page goes to stdout; a line for each bad row to stderr,
and the exit code is then 3.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from waferc.compiler.comparison.graphs import parts_of
from waferc.compiler.errors import WafercError
from waferc.compiler.islands.island import builtin, engine, island
from waferc.compiler.islands.price import Asked, Priced, price
from waferc.compiler.islands.work import Part
from waferc.compiler.shapes.shape import Shape, shape

HERE = Path(__file__).resolve().parent
MEASURED = HERE / "data" / "islands.csv"
PAGE = HERE.parent / "docs" / "islands.md"
NEEDED = ("engine", "model", "weights", "gpus", "tokens_per_second_batch_1", "role")
CONTEXT = 256  # positions in the caches where a row does not say: prompts of a few tokens, 200 more
BAD_ROWS = 3  # exit code
# Bits of a weight in matrices, and in those of experts, by what a row calls them.
WEIGHTS = {
    "bf16": (16.0, 16.0),
    "f16": (16.0, 16.0),
    "fp16": (16.0, 16.0),
    "fp8": (8.0, 8.0),
    "int8": (8.0, 8.0),
    "int4": (5.0, 5.0),  # groups of 32 with a scale and a zero point of 16 bits
    "fp4": (16.0, 4.5),  # experts in blocks of 16 with a scale of 8 bits, the rest in 16 bits
    "nvfp4": (16.0, 4.5),
    "mxfp4": (16.0, 4.25),
}


class BadRow(ValueError):
    """What a row says is no measurement."""


@dataclass(frozen=True)
class Row:
    """A measurement: calls a second times the tokens that each yields."""

    engine: str
    model: str
    weights: str
    gpus: str
    rate: float
    role: str
    accepted: float = 1.0
    users: int = 1
    parallel: str = "tensor"
    source: str = ""

    @property
    def context(self) -> int:
        found = re.search(r"context\s+(\d+)", self.model)
        return min(int(found[1]), 1 << 20) if found else CONTEXT

    @property
    def name(self) -> str:
        return self.model.partition(",")[0].strip()


@dataclass(frozen=True)
class Result:
    row: Row
    priced: Priced

    @property
    def rate(self) -> float:
        return self.priced.rate * self.row.accepted

    @property
    def error(self) -> float:
        return self.rate / self.row.rate - 1


def read(path: Path) -> tuple[list[Row], list[str]]:
    """The rows, and a line for each that is none. Raises BadRow for what is no such table, and OSError."""
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        if missing := [c for c in NEEDED if c not in (table.fieldnames or ())]:
            raise BadRow(f"{path}: no column {missing[0]!r}; needed are {', '.join(NEEDED)}")
        rows: list[Row] = []
        bad: list[str] = []
        for number, given in enumerate(table, 2):
            try:
                rows.append(_row({k: v or "" for k, v in given.items() if k}))
            except ValueError as e:
                bad.append(f"line {number}: {e}")
    return rows, bad


def _row(given: dict[str, str]) -> Row:
    rate = float(given["tokens_per_second_batch_1"])
    accepted, users = float(given.get("accepted") or 1), int(given.get("users") or 1)
    if not 0 < rate < 1e9 or not 1 <= accepted <= 64 or not 1 <= users <= 4096:
        raise BadRow(f"{rate:g} tokens per second, {accepted:g} accepted, {users} users: out of range")
    if given["weights"].lower() not in WEIGHTS:
        raise BadRow(f"weights {given['weights']!r}; known are {', '.join(WEIGHTS)}")
    parallel = given.get("parallel") or "tensor"
    if parallel not in ("tensor", "expert", "pipeline"):
        raise BadRow(f"parallel {parallel!r}; known are tensor, expert, pipeline")
    return Row(
        *(given[c] for c in NEEDED[:4]),
        rate,
        given["role"],
        accepted,
        users,
        parallel,
        given.get("source", ""),
    )


@cache
def parts(of: Shape, context: int) -> list[Part]:
    return parts_of(of, context)


def priced(row: Row) -> Priced:
    """A row's call. Raises WafercError for a model, engine or island that nobody knows."""
    bits, experts = WEIGHTS[row.weights.lower()]
    asked = Asked(bits, experts, row.users, parallel=row.parallel)
    return price(parts(shape(row.name), row.context), island(row.gpus), engine(row.engine), asked)


def results(rows: Sequence[Row], bad: list[str]) -> Iterator[Result]:
    for row in rows:
        try:
            yield Result(row, priced(row))
        except WafercError as e:
            bad.append(f"{row.model}, {row.gpus}: {e}")


# -- the page ---------------------------------------------------------------------------------------------
def _share(e: float, sign: bool = False) -> str:
    return f"{100 * e:{'+' if sign else ''}.1f} %"


def _cell(text: str) -> str:
    return "".join(c if c.isprintable() and c not in "|<>&`[]\\" else "?" for c in text)[:60]


def errors_table(found: Sequence[Result]) -> str:
    lines = ["| engine | rows | number | median | largest | signed median |", "|---|---|---|---|---|---|"]
    groups = dict.fromkeys((r.row.engine.split(" ")[0], r.row.role) for r in found)
    for name, role in groups:
        own = [r.error for r in found if (r.row.engine.split(" ")[0], r.row.role) == (name, role)]
        size = [abs(e) for e in own]
        cells = (_share(statistics.median(size)), _share(max(size)), _share(statistics.median(own), True))
        lines.append(f"| {_cell(name)} | {_cell(role)} | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rows_table(found: Sequence[Result]) -> str:
    lines = [
        "| engine | model | weights | GPUs | published | predicted | error | bytes, launches, sums | role |",
        "|---" * 9 + "|",
    ]
    for r in found:
        shares = r.priced.shares
        of = " / ".join(f"{100 * shares[k]:.0f}" for k in ("bytes", "launches", "sums"))
        row = r.row
        model = f"{row.model}, {row.accepted:g} accepted" if row.accepted > 1 else row.model
        cells = [row.engine, model, row.weights, row.gpus, f"{row.rate:g}", f"{r.rate:.1f}"]
        cells += [_share(r.error, True), f"{of} %", row.role]
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines)


def constants_table() -> str:
    lines = ["| of | constant | value | how | from |", "|---|---|---|---|---|"]
    machines = builtin()
    for kind in (machines.gpus, machines.engines, machines.systems):
        for name, of in kind.items():
            lines += [
                f"| {name} | {key} | {getattr(of, key):g} | {o.how} | {_cell(o.of)} |"
                for key, o in of.origins.items()
            ]
    return "\n".join(lines)


ACCEPTED = (2.4, 2.8)  # tokens a call yields by speculation, as published of other models; assumed here
KIMI = 341.0


def consistency() -> str:
    """What the advertised rate of Kimi-K2.5 would be, were as many tokens accepted as of other models."""
    row = Row("TensorRT-LLM", "Kimi-K2.5", "nvfp4", "8xB200", KIMI, "consistency")
    p = priced(row)
    low, high = (p.rate * a for a in ACCEPTED)
    inside = "inside" if low <= KIMI <= high else "outside"
    return (
        f"{p.rate:.0f} calls a second on\n{p.island.name}, times {ACCEPTED[0]} to {ACCEPTED[1]} accepted "
        "tokens a call, which are assumed (published for DeepSeek-R1's\ndraft, not for this model's): "
        f"{low:.0f} to {high:.0f} tokens per second. The {KIMI:.0f} advertised are {inside}.\n"
        f"{100 * (1 - p.shares['bytes']):.0f} % of a call is not bandwidth."
    )


TEXT = """\
# Islands: GPUs beside the wafer

(Written by `make islands`; do not edit.) A call of a model's graph on servers of GPUs: by layer, bytes over
bandwidth or operations over the peak, whichever is longer, then launches of kernels and sums over the GPUs
(`compiler/islands`). A launch is a product, with all that reads the same tensor, or what comes between two:
a layer of latent attention and experts has twice those of a dense one. This page holds what that predicts
against published tokens per second. An error is prediction / measurement - 1.
`python benchmarks/islands.py --rows FILE.csv` runs any table of the columns of `benchmarks/data/islands.csv`.

{errors}

To "calibration" rows constants are fitted; "unseen" ones were left out of every fit.

## Kimi-K2.5's 341 tokens per second

A check of consistency, which validates nothing: {kimi}

## Rows

{rows}

## Constants

Bytes, operations and dollars an hour by GPU; shares, seconds and bytes a second by engine; watts, dollars an
hour, cycles and seconds of what a wafer stands in.

{constants}
"""


def page(found: Sequence[Result]) -> str:
    return TEXT.format(
        errors=errors_table(found), kimi=consistency(), rows=rows_table(found), constants=constants_table()
    )


def main(arguments: Sequence[str]) -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rows", type=Path, default=MEASURED, help="a table of the same columns")
    options.add_argument("--json", type=Path, help="write the predictions there, too")
    options.add_argument("-o", type=Path, help="write the page there")
    asked = options.parse_args(arguments)
    try:
        rows, bad = read(asked.rows)
    except (BadRow, OSError, UnicodeDecodeError) as e:
        print(f"error: {e}", file=sys.stderr)
        return BAD_ROWS
    found = list(results(rows, bad))
    for line in bad:
        print(f"row: {line}", file=sys.stderr)
    text = page(found) if found else "no rows\n"
    if asked.o:
        asked.o.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    if asked.json:
        each = [
            {"engine": r.row.engine, "model": r.row.model, "weights": r.row.weights, "gpus": r.row.gpus}
            | {"published": r.row.rate, "predicted": r.rate, "error": r.error, "role": r.row.role}
            for r in found
        ]
        asked.json.write_text(json.dumps({"schema": 1, "rows": each}, indent=1) + "\n")
    return BAD_ROWS if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
