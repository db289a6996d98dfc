"""What the docs name is there: files by path or by name, links between pages, make's targets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md")), *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [
    p
    for folder in (
        "ir",
        "placement",
        "codegen",
        "runtime",
        "compiler",
        "tests",
        "benchmarks",
        "examples",
        "typings",
    )
    for p in (ROOT / folder).rglob("*")
    if p.is_file() and "__pycache__" not in p.parts
]
PATHS = {p.relative_to(ROOT).as_posix() for p in SOURCES}
ENDS = {"/".join(parts[i:]) for p in PATHS for parts in (p.split("/"),) for i in range(len(parts))}
FILE = re.compile(r"(?<![\w./-])((?:[\w.-]+/)*[\w-]+\.(?:py|js|toml|html))\b")
MADE = {"wafer.toml", "report.html", "mine.toml"}  # files of a user's own, in examples


def missing(text: str) -> list[str]:
    """The files that a text names and that are not there: whole paths, or a path's end within a folder."""
    named = dict.fromkeys(m.removeprefix("../") for m in FILE.findall(text) if not m.startswith("build/"))
    return [m for m in named if m not in ENDS and m not in MADE and not (ROOT / m).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text("utf-8")
    assert missing(text) == []
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    gone = [at for at in links if "://" not in at and not (page.parent / at).exists()]
    assert gone == []


def test_a_file_that_is_gone_is_found() -> None:
    assert missing("`placement/gone.py`, planner.py, `ir/graph.py` and gone/planner.py") == [
        "placement/gone.py",
        "gone/planner.py",
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_targets_that_a_page_calls_are_makes(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    called = re.findall(r"(?:`|^\s{4})make ([a-z0-9-]+)", page.read_text("utf-8"), re.MULTILINE)
    assert [t for t in called if t not in targets] == []
