"""The house's rules inside its packages: which wing may import what; no circles, hidden imports or giants."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import networkx
import pytest
from test_layering import FILES, ROOT

# Rooms (folders, or files that stand alone) from the ground up, those of one floor in a row.
# A room imports rooms of lower floors, none of its own floor.
FLOORS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "placement": (
        ("machine",),
        ("plan",),
        ("cost", "judge"),
        ("splits",),
        ("build",),
        ("search",),
        ("planner",),
    ),
    "codegen": (
        ("processor", "words", "artifact"),
        ("kernels",),
        ("pool",),
        ("host", "fabric"),
        ("literal",),
    ),
    "compiler": (
        ("errors", "files", "stopwatch"),
        ("request", "frontend", "show", "passes", "shapes", "islands"),
        ("host", "language", "rows", "report"),
        ("importer",),
        ("exports",),
        ("survey", "catalogue", "verify", "loading"),
        ("planning", "compiled"),
        ("remedies",),
        ("pipeline",),
        ("language_model", "comparison"),
        ("text_encoder", "sweep"),
        ("serve",),
        ("cli", "onnx_backend"),
    ),
}
ONLY: Mapping[str, frozenset[str]] = {
    # All that a room imports of its package, where that is less than what is below it.
    "placement/judge": frozenset({"machine", "plan"}),  # it must not share the planner's mistakes
    "codegen/artifact": frozenset(),
}
APART = "artifact"  # and no room of its package imports this one

# Where one of our modules may be imported in a function, and why.
LATE: Mapping[str, str] = {
    "compiler/cli/": "a verb starts in a moment, with what it needs itself",
    "compiler/__init__.py": "names that users ask for are loaded when they do",
    "compiler/compiled.py": "drawing is for those who look at it, onnx's reference for operators on the host",
    "compiler/host/": "onnx's reference is for models with operators on the host",
    "compiler/language_model.py": "onnx is for models that are compiled",
    "compiler/loading.py": "onnx is for programs with operators on the host",
    "compiler/request.py": "the command line knows its options before any wafer",
    "runtime/load.py": "a run of a saved program makes no code, and none in guarded memory",
    "codegen/artifact/": "a run reads its tables, not the plan, the graph and the operators",
    "waferc/": "names that users ask for are loaded when they do",
}

LINES = 450  # of a file, at most
PARAMETERS = 6  # of a function, at most
WIDE = 10  # functions that take more all the same; it only goes down

MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in FILES}


def reached(source: str, path: str) -> Iterator[str]:
    """The files of ours that the file at `path` imports, but for type checkers, from the root on."""
    here = list(Path(path).parent.parts)
    tree = ast.parse(source)
    checked = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    unseen = {id(n) for t in checked for n in ast.walk(t)}
    for node in ast.walk(tree):
        if id(node) in unseen or not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = [*here[: len(here) - node.level + 1], *(node.module or "").split(".")]
        module = ".".join(filter(None, base))
        for name in {f"{module}.{a.name}" for a in node.names} | {module}:
            if name in MODULES:
                yield MODULES[name].relative_to(ROOT).as_posix()


def room(path: str) -> str:
    """The room of a file in its package: its folder, or itself."""
    return path.split("/")[1].removesuffix(".py")


def wrong_arrows(path: str, targets: Iterator[str]) -> list[str]:
    """What a file imports of its own package that its room must not."""
    package = path.split("/")[0]
    if package not in FLOORS or path == f"{package}/__init__.py":
        return []
    floor = {r: i for i, rooms in enumerate(FLOORS[package]) for r in rooms}
    own = room(path)
    only = ONLY.get(f"{package}/{own}")
    out: list[str] = []
    for target in targets:
        other = room(target)
        if target.split("/")[0] != package or other == own:
            continue
        below = floor[other] < floor[own] if other != "__init__" else False
        if not below or other == APART or (only is not None and other not in only):
            out.append(f"{path} imports {target}")
    return out


def late_imports(source: str, path: str) -> list[str]:
    """Functions that import modules of ours, in files that have no reason to."""
    if any(path.startswith(place) for place in LATE):
        return []
    return [
        f"{path}:{node.lineno} {f.name}"
        for f in ast.walk(ast.parse(source))
        if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(f)
        if isinstance(node, ast.ImportFrom) and node.level
    ]


def wide(source: str, path: str) -> list[str]:
    """Functions that take more than PARAMETERS values."""
    out: list[str] = []
    for f in ast.walk(ast.parse(source)):
        if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef):
            taken = [a.arg for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs)]
            if len([a for a in taken if a not in ("self", "cls")]) > PARAMETERS:
                out.append(f"{path}:{f.lineno} {f.name}")
    return out


SOURCES = {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in FILES}


@pytest.mark.parametrize("path", SOURCES)
def test_a_file_imports_what_is_below_it(path: str) -> None:
    assert wrong_arrows(path, reached(SOURCES[path], path)) == []
    assert late_imports(SOURCES[path], path) == []


@pytest.mark.parametrize("package", FLOORS)
def test_every_room_has_a_floor(package: str) -> None:
    rooms = {room(p) for p in SOURCES if p.startswith(f"{package}/")} - {"__init__"}
    assert rooms == {r for rooms in FLOORS[package] for r in rooms}


def test_operators_stand_on_the_rest_of_ir() -> None:
    below = [p for p in SOURCES if p.startswith("ir/") and not p.startswith("ir/ops/")]
    assert [p for p in below for q in reached(SOURCES[p], p) if q.startswith("ir/ops/")] == []


def test_no_files_import_one_another_in_a_circle() -> None:
    graph = networkx.DiGraph((p, q) for p, source in SOURCES.items() for q in reached(source, p))
    circles = [sorted(c) for c in networkx.strongly_connected_components(graph) if len(c) > 1]
    assert circles == [] and not list(networkx.nodes_with_selfloops(graph))


def test_no_file_is_long() -> None:
    lengths = {path: len(source.splitlines()) for path, source in SOURCES.items()}
    assert {path: n for path, n in lengths.items() if n > LINES} == {}


def test_few_functions_take_many_values() -> None:
    found = [f for path, source in SOURCES.items() for f in wide(source, path)]
    assert len(found) <= WIDE, found


def test_planning_is_told_in_the_order_of_its_wings() -> None:
    text = (ROOT / "docs" / "planning.md").read_text(encoding="utf-8")
    wings = [wing for floor in FLOORS["placement"] for wing in floor]
    told = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert told[: len(wings)] == wings
    parts = re.split(r"^## .*$", text, flags=re.MULTILINE)[1:]
    for wing, part in zip(wings, parts, strict=False):
        for name in re.findall(r"`([\w/]+\.py)`", part):
            assert any(
                (ROOT / f).is_file() for f in (name, f"placement/{wing}/{name}", f"placement/{name}")
            ), name


@pytest.mark.parametrize(
    "path, target",
    [
        ("placement/judge/memory.py", "placement/cost/timing.py"),
        ("placement/cost/timing.py", "placement/judge/judge.py"),
        ("placement/judge/memory.py", "placement/build/assembly.py"),
        ("placement/plan/plan.py", "placement/cost/timing.py"),
        ("placement/build/assemble.py", "placement/planner.py"),
        ("codegen/kernels/kernel.py", "codegen/host/calls.py"),
        ("codegen/host/calls.py", "codegen/artifact/artifact.py"),
        ("codegen/artifact/artifact.py", "codegen/words.py"),
        ("compiler/passes/fuse.py", "compiler/frontend/expand.py"),
        ("compiler/importer.py", "compiler/__init__.py"),
    ],
)
def test_a_wrong_arrow_is_found(path: str, target: str) -> None:
    assert wrong_arrows(path, iter([target])) == [f"{path} imports {target}"]


@pytest.mark.parametrize(
    "path, target",
    [
        ("placement/judge/memory.py", "placement/plan/plan.py"),
        ("placement/judge/memory.py", "placement/judge/verdict.py"),
        ("placement/planner.py", "placement/judge/judge.py"),
        ("codegen/literal/tables.py", "codegen/host/blocks.py"),
        ("compiler/cli/run.py", "runtime/load.py"),
    ],
)
def test_a_right_arrow_is_let_through(path: str, target: str) -> None:
    assert wrong_arrows(path, iter([target])) == []


def test_imports_are_found_where_they_hide() -> None:
    source = "from .cost import timing\ndef f():\n    from .plan.plan import Plan\n"
    assert set(reached(source, "placement/a.py")) == {"placement/cost/timing.py", "placement/plan/plan.py"}
    assert late_imports(source, "placement/a.py") == ["placement/a.py:3 f"]
    assert late_imports(source, "compiler/cli/a.py") == []
    assert wide("def f(self, a, b, c, d, e, f): ...\ndef g(a, b, c, d, e, f, *, h): ...", "a.py") == [
        "a.py:2 g"
    ]
