"""Runs ONNX's own backend tests and says of each: pass, refused, wrong, crashed; `make conformance`.

It fails on any wrong or crashed test, and where one of `golden/conformance.txt` no longer passes.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.runner import Runner
from suite import DRAWN, all_cases, data_of, groups_of, in_shard, model_of
from supervised import Died, each
from waferc import UnsupportedOperator
from waferc.compiler.errors import DoesNotFit, UnsupportedModel
from waferc.compiler.onnx_backend import WaferBackend
from waferc.ir.dtypes import is_float, of_numpy

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "conformance.txt"
STATUSES = ("pass", "refused", "wrong", "crashed", "not comparable")
QUOTED = re.compile(r"(?<!\w)'[^']*'")  # not the apostrophe of "Split's"
TIMEOUT = 120.0  # seconds of one test; most take less than one


@dataclass(frozen=True)
class Row:
    """One test. status: of STATUSES. where: "wafer", "host" or "mixed", "" where nothing ran.

    refusals: (operator, reason). max_abs, max_rel: the largest errors of any output; None where there is
    none to measure, as between types or shapes that differ.
    """

    name: str
    groups: tuple[str, ...]
    status: str
    where: str = ""
    refusals: tuple[tuple[str, str], ...] = ()
    detail: str = ""
    max_abs: float | None = None
    max_rel: float | None = None
    seconds: float = 0.0


# -- one test ---------------------------------------------------------------------------
def judge(case: TestCase, backend: type[Backend] = WaferBackend) -> Row:
    """Compiles and runs one test. Only what `compiler.errors` calls a refusal is one; onnx's ways to skip
    a test are exceptions like any other."""
    start = time.perf_counter()
    model = model_of(case)
    row = Row(case.name, tuple(groups_of(case, model)), "crashed")
    try:
        row = _judged(case, model, backend, row)
    except UnsupportedOperator as e:
        kinds = [(f"{r.domain}.{r.op_type}" if r.domain else r.op_type, r.reason) for r in e.refusals]
        row = replace(row, status="refused", refusals=tuple(kinds), detail=str(e))
    except (UnsupportedModel, DoesNotFit) as e:
        nodes = model.graph.node
        row = replace(row, status="refused", refusals=((_named(nodes), str(e)),), detail=str(e))
    except Exception as e:
        at = traceback.extract_tb(e.__traceback__)[-1]
        row = replace(row, detail=f"{type(e).__name__}: {e} ({Path(at.filename).name}:{at.lineno})")
    return replace(row, seconds=round(time.perf_counter() - start, 3))


def _named(nodes: Sequence[onnx.NodeProto]) -> str:
    """The operator that a test is of."""
    if len(nodes) != 1:
        return "(model)"
    return f"{nodes[0].domain}.{nodes[0].op_type}" if nodes[0].domain else nodes[0].op_type


def _judged(case: TestCase, model: onnx.ModelProto, backend: type[Backend], row: Row) -> Row:
    data = data_of(case, model)
    if not data:
        raise ValueError("the test has no data")
    program: Any = backend.prepare(model)
    drawn = bool(DRAWN.match(case.name))
    for inputs, expected in data:
        outputs = program.run(inputs)
        expected = _where_told(model, inputs, outputs, expected)
        row = replace(row, where=program.runs_on)
        wrong = _not_zeros_and_ones(outputs, expected) if drawn else _difference(case, outputs, expected)
        if not drawn:
            row = _measured(row, outputs, expected)
        if wrong:
            return replace(row, status="wrong", detail=wrong)
    return replace(row, status="not comparable" if drawn else "pass")


def _where_told(
    model: onnx.ModelProto, inputs: Sequence[Any], outputs: Sequence[Any], expected: Sequence[Any]
) -> Sequence[Any]:
    """What is expected, but ours where a Cast leaves the number open: of a float that the integer type does
    not hold. The suite has there what its NumPy or ml_dtypes happens to make of it."""
    casts = {"Cast", "CastLike"}
    if not all(n.op_type in casts for n in model.graph.node) or len(expected) != 1:
        return expected
    given, ours, theirs = np.asarray(inputs[0]), np.asarray(outputs[0]), np.asarray(expected[0])
    made = theirs.dtype
    if not is_float(given.dtype) or "int" not in made.name or ours.shape != theirs.shape:
        return expected
    low, high = of_numpy(made).limits
    whole = np.trunc(given.astype(np.float64))
    return [np.where((whole >= low) & (whole <= high), theirs, ours.astype(made))]


def _difference(case: TestCase, outputs: Sequence[Any], expected: Sequence[Any]) -> str:
    """Why the suite's own comparison fails, "" where it does not."""
    if wrong := _unlike(outputs, expected):
        return wrong
    try:
        # flat: the suite's own function takes no scalar inside a sequence
        wanted = [*_flat(expected)]
        atol = max(case.atol, *map(_rounding, wanted), 0.0)
        Runner.assert_similar_outputs(wanted, [*_flat(outputs)], case.rtol, atol)
    except AssertionError as e:
        return " ".join(str(e).split())[:300]
    return ""


def _rounding(expected: Any) -> float:
    """What one rounding of the largest number is: sums that cancel have no more than that, in any order. The
    suite's 1e-7 is less for numbers above 1 (test_dft_inverse has 1.9e-7 where the sum is 0)."""
    x = np.asarray(expected)
    if x.dtype not in (np.float32, np.float64) or not np.isfinite(x).any():
        return 0.0
    return float(np.finfo(x.dtype).eps * np.abs(x[np.isfinite(x)]).max())


def _unlike(outputs: Any, expected: Any) -> str:
    """What the suite's comparison does not see: a sequence that is too short, or none."""
    if isinstance(expected, list | tuple) != isinstance(outputs, list | tuple):
        return f"{type(outputs).__name__} instead of {type(expected).__name__}"
    if not isinstance(expected, list | tuple):
        return ""
    if len(outputs) != len(expected):
        return f"{len(outputs)} values instead of {len(expected)}"
    return next(filter(None, map(_unlike, outputs, expected)), "")


def _flat(values: Any) -> Iterator[Any]:
    """The arrays of values and of the sequences among them."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


def _not_zeros_and_ones(outputs: Sequence[Any], expected: Sequence[Any]) -> str:
    for ours, theirs in zip(outputs, expected, strict=True):
        if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            return f"{ours.dtype}{list(ours.shape)} instead of {theirs.dtype}{list(theirs.shape)}"
        if not np.isin(ours, [0, 1]).all():
            return "values other than 0 and 1"
    return ""


def _measured(row: Row, outputs: Any, expected: Any) -> Row:
    """The row with the largest errors so far."""
    if isinstance(expected, list | tuple):
        for pair in zip(outputs, expected, strict=False):
            row = _measured(row, *pair)
        return row
    a, b = np.asarray(outputs), np.asarray(expected)
    if a.shape != b.shape or a.dtype != b.dtype or a.dtype.kind not in "fiub":
        return row
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    error = np.abs(a[finite] - b[finite])
    size = np.abs(b[finite])
    relative = error[size > 0] / size[size > 0]
    return replace(
        row,
        max_abs=max(row.max_abs or 0.0, float(error.max(initial=0))),
        max_rel=max(row.max_rel or 0.0, float(relative.max(initial=0))),
    )


# -- all of them ------------------------------------------------------------------------
def run(
    cases: Sequence[TestCase],
    workers: int,
    timeout: float = TIMEOUT,
    work: Callable[[TestCase], Row] = judge,
    report: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Every case's row, by name. A process that dies or hangs is a crash of the test that it had."""
    rows: list[Row] = []
    for case, result in each(work, cases, workers, timeout):
        if isinstance(result, Died):
            groups = tuple(groups_of(case, model_of(case)))
            row = Row(case.name, groups, "crashed", detail=result.how, seconds=round(result.seconds, 3))
        else:
            row = result
        rows.append(row)
        if len(rows) % 100 == 0:
            report(f"{len(rows)} of {len(cases)}")
    return sorted(rows, key=lambda row: row.name)


def totals(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Counts by group and status; "pass on the wafer": without any step on the host."""
    out: dict[str, dict[str, int]] = {}
    for group in ("all", *sorted({g for r in rows for g in r.groups})):
        members = [r for r in rows if group == "all" or group in r.groups]
        counts = Counter(r.status for r in members)
        wafer = sum(r.status == "pass" and r.where == "wafer" for r in members)
        out[group] = {
            "tests": len(members),
            **{status: counts[status] for status in STATUSES},
            "pass on the wafer": wafer,
        }
    return out


def refusals(rows: Sequence[Row]) -> list[tuple[int, str, str]]:
    """(tests, operator, reason), the most frequent first; names of tensors left out."""
    counts: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row.status == "refused":
            counts.update(
                {(kind, re.sub(r"(?<!\w)'[^']*'", "'...'", reason)) for kind, reason in row.refusals}
            )
    return sorted(((n, *key) for key, n in counts.items()), key=lambda r: (-r[0], r[1:]))


def behind(rows: Sequence[Row]) -> list[str]:
    """Expanded forms that do not pass although their plain form does."""
    passed = {r.name for r in rows if r.status == "pass"}
    expanded = [r.name for r in rows if "expanded" in r.groups and r.name not in passed]
    return [name for name in expanded if name.split("_expanded")[0] in passed]


def lost(rows: Sequence[Row], accepted: Sequence[str]) -> list[str]:
    """Tests that ran and no longer pass."""
    known = set(accepted)
    return [r.name for r in rows if r.name in known and r.status != "pass"]


def accept(rows: Sequence[Row], accepted: Sequence[str]) -> list[str]:
    """The list of passes after these rows; what did not run stays as it was."""
    ran = {r.name for r in rows}
    return sorted({n for n in accepted if n not in ran} | {r.name for r in rows if r.status == "pass"})


# -- the script -------------------------------------------------------------------------
def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="REGEX", help="tests whose name it is found in")
    parser.add_argument("--shard", type=float, default=1.0, help="a fixed part of the suite, such as 0.1")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds of one test")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "conformance.json")
    parser.add_argument("--accept", action="store_true", help="write the passes to golden/conformance.txt")
    return parser.parse_args(words)


def _show(rows: Sequence[Row], missing: Sequence[str]) -> None:
    print("\nrefused, by operator and reason:")
    for n, kind, reason in refusals(rows):
        print(f"{n:5}  {kind:28}  {reason}")
    for status in ("wrong", "crashed"):
        for r in (r for r in rows if r.status == status):
            errors = "" if r.max_abs is None else f" (max abs {r.max_abs:.3g}, rel {r.max_rel:.3g})"
            print(f"{status}: {r.name}: {r.detail}{errors}")
    for name in missing:
        print(f"lost: {name}")
    counted = totals(rows)
    print(f"\n{'':18}" + "  ".join(counted["all"]))
    for group, counts in counted.items():
        print(f"{group:18}" + "  ".join(f"{n:{len(title)}}" for title, n in counts.items()))


def main(words: Sequence[str] | None = None) -> int:
    options = _options(words)
    start = time.perf_counter()
    say = partial(print, file=sys.stderr, flush=True)
    cases = [c for c in all_cases() if in_shard(c.name, options.shard)]
    cases = [c for c in cases if not options.only or re.search(options.only, c.name)]
    rows = run(cases, options.workers, options.timeout, report=say)
    accepted = GOLDEN.read_text(encoding="utf-8").split() if GOLDEN.exists() else []
    missing = lost(rows, accepted)
    _show(rows, missing)
    written = {
        "onnx": onnx.__version__,
        "totals": totals(rows),
        "refusals": [{"tests": n, "operator": kind, "reason": why} for n, kind, why in refusals(rows)],
        "expanded forms behind their plain form": behind(rows),
        "lost": missing,
        "tests": [asdict(row) for row in rows],
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    print(f"\n{len(rows)} tests in {time.perf_counter() - start:.0f} s; {options.output} has each")
    if options.accept:
        GOLDEN.write_text("".join(f"{name}\n" for name in accept(rows, accepted)), encoding="utf-8")
        missing = []
    new = [r.name for r in rows if r.status == "pass" and r.name not in set(accepted)]
    if (missing or new) and not options.accept:
        print(f"{len(new)} passes are new, {len(missing)} lost; --accept rewrites {GOLDEN.relative_to(ROOT)}")
    return int(bool(missing) or any(r.status in ("wrong", "crashed") for r in rows))


if __name__ == "__main__":
    sys.exit(main())
