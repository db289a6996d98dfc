"""docs/operators.md: the table of `waferc ops`, and how many of ONNX's own tests of each operator pass.

As a script, writes it anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import onnx
from conformance import GOLDEN
from onnx.backend.test.case.test_case import TestCase
from suite import all_cases, model_of
from waferc.compiler.catalogue import TERMS, Operator, operators, summary

PATH = Path(__file__).resolve().parent.parent / "docs" / "operators.md"
TEXT = f"""# Operators

What waferc does with every operator of the ONNX standard as onnx {onnx.__version__} has it. `waferc ops`
prints this table without the column of tests. It is derived from the code; `make operators` writes it anew.

"""
TESTS = """* tests: of ONNX's own backend tests that hold the operator, or its body in its place, how many
  pass by the list that `make conformance` keeps. Bernoulli's hold one draw of NumPy's generator: none counts.
"""


def counts(every: Sequence[Operator]) -> dict[tuple[str, str], tuple[int, int]]:
    """(domain, operator) -> (tests that pass, tests).

    A test whose model is an operator's body is of that operator alone: it has the name of the test with
    the operator, and more.
    """
    passing = set(GOLDEN.read_text(encoding="utf-8").split())
    held = {case.name: _operators(case) for case in all_cases()}
    passed: Counter[tuple[str, str]] = Counter()
    tests: Counter[tuple[str, str]] = Counter()
    for name in held:
        for key in held.get(name.split("_expanded")[0], held[name]):
            tests[key] += 1
            passed[key] += name in passing
    return {(o.domain, o.name): (passed[o.domain, o.name], tests[o.domain, o.name]) for o in every}


def _operators(case: TestCase) -> set[tuple[str, str]]:
    nodes = model_of(case).graph.node
    return {("" if n.domain == "ai.onnx" else n.domain, n.op_type) for n in nodes}


def table() -> str:
    """The document."""
    every = operators()
    tested = counts(every)
    rows = [["operator", "where", "opsets", "types", "limits", "tests"], ["---"] * 6]
    for o in (o for o in every if not o.domain):
        rows.append([o.name, o.where, o.opsets, o.typed, o.limits, _share(*tested[o.domain, o.name])])
    lines = [f"| {' | '.join(row)} |".replace("*", "\\*").replace("  ", " ") for row in rows]
    return "\n".join([TEXT + _legend(), *lines, "", *_other_domains(every, tested), ""])


def _share(passed: int, tests: int) -> str:
    return f"{passed} of {tests}" if tests else ""


def _legend() -> str:
    terms = [f"* {name}: {text}".replace("* *", "* \\*").replace("* -", "* \\-") for name, text in TERMS]
    return "\n".join([*terms, TESTS])


def _other_domains(every: Sequence[Operator], tested: dict[tuple[str, str], tuple[int, int]]) -> list[str]:
    lines = ["## Other domains", "", "| domain | where | operators | tests |", "| --- | --- | --- | --- |"]
    for domain in dict.fromkeys(o.domain for o in every if o.domain):
        own = [o for o in every if o.domain == domain]
        where = summary(own)[0].partition(": ")[2]
        sums = [sum(n) for n in zip(*(tested[o.domain, o.name] for o in own), strict=True)]
        lines.append(
            f"| {domain} | {where} | {', '.join(o.name for o in own)} | {_share(sums[0], sums[1])} |"
        )
    return lines


if __name__ == "__main__":
    PATH.write_text(table(), encoding="utf-8")
