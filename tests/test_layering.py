"""The house's rules: which package may import what, and what reaches site-packages."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from waferc.ir.op import Op

ROOT = Path(__file__).resolve().parent.parent
ORDER = ("ir", "placement", "codegen", "runtime", "compiler")
DOOR = "waferc"  # the folder of the names for users, which imports the packages when they are asked for
FILES = sorted(p for package in (*ORDER, DOOR) for p in (ROOT / package).rglob("*.py"))
PLOTTING = {"matplotlib", "PIL", "plotly"}
MAY_PLOT = {"compiler/show/drawing.py", "compiler/show/plot.py", "compiler/sweep/pictures.py"}
PURE = {"ml_dtypes", "numpy", *sys.stdlib_module_names}  # all that ir may import besides itself
LATE = {"networkx"}  # what it may import, too, in the functions that need it


def at_start(tree: ast.AST) -> Iterator[ast.AST]:
    """What is carried out when a file is imported: nothing in functions, nor what only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not typing and not isinstance(node, ast.FunctionDef | ast.Lambda):
            yield node
            yield from at_start(node)


def imports(source: str, path: str, late: bool = True) -> Iterator[str]:
    """Absolute names of the modules that a file imports; ours as waferc.PACKAGE....

    late: those that it imports in functions are among them.
    """
    parts = Path(path).with_suffix("").parts
    here = [*parts] if parts[0] == DOOR else ["waferc", *parts]
    tree = ast.parse(source)
    for node in ast.walk(tree) if late else at_start(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            # `from .. import ir` names a module too; a plain name does no harm in the rules below.
            yield from (f"{module}.{a.name}" for a in node.names)


def broken_rules(source: str, path: str) -> list[str]:
    """What a file at `path` (from the root, forward slashes) does that its package must not."""
    package = path.split("/")[0]
    out: list[str] = []
    if package == DOOR and path != "waferc/__main__.py":
        out += [
            f"{path} imports {name}" for name in imports(source, path, False) if name.startswith("waferc")
        ]
    for name in imports(source, path):
        parts = name.split(".")
        top = parts[0]
        if top == "waferc" and len(parts) > 1 and parts[1] in ORDER:
            if package != DOOR and ORDER.index(parts[1]) > ORDER.index(package):
                out.append(f"{package} imports {name}")
        elif top in ORDER:
            out.append(f"{name} is imported without waferc")
        if top == "onnx" and package != "compiler":
            out.append(f"{package} imports onnx")
        if name.startswith("llvmlite.ir") and package != "codegen":
            out.append(f"{package} imports {name}")
        if name.startswith("llvmlite.binding") and package not in ("codegen", "runtime"):
            out.append(f"{package} imports {name}")
        if top in PLOTTING and path not in MAY_PLOT:
            out.append(f"{path} plots")
        if package == "ir" and top != "waferc" and top not in PURE | LATE:
            out.append(f"ir imports {top}")
    if package == "ir":
        tops = {name.split(".")[0] for name in imports(source, path, late=False)}
        out += [f"ir imports {top}" for top in sorted(tops & LATE)]
    if "import waferc" in source or "from waferc" in source:
        out.append("our packages import one another relatively")
    return out


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_file_keeps_the_rules(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    assert broken_rules(path.read_text(encoding="utf-8"), name) == []


@pytest.mark.parametrize(
    "source, path, message",
    [
        ("from ..placement.plan import Plan", "ir/graph.py", "ir imports waferc.placement.plan"),
        ("from ...codegen import kernels", "ir/ops/window.py", "ir imports waferc.codegen"),
        ("import onnx", "runtime/executor.py", "runtime imports onnx"),
        ("from onnx import helper", "ir/graph.py", "ir imports onnx"),
        ("from llvmlite import ir", "runtime/executor.py", "runtime imports llvmlite.ir"),
        ("import llvmlite.binding", "placement/plan.py", "placement imports llvmlite.binding"),
        ("from PIL import Image", "compiler/cli.py", "compiler/cli.py plots"),
        ("import networkx", "ir/graph.py", "ir imports networkx"),
        ("class A:\n    import networkx", "ir/graph.py", "ir imports networkx"),
        ("def f():\n    import torch", "ir/graph.py", "ir imports torch"),
        ("from .ir import graph", "waferc/__init__.py", "waferc/__init__.py imports waferc.ir"),
        ("def f():\n    import onnx", "waferc/__init__.py", "waferc imports onnx"),
        ("import waferc.ir", "runtime/run.py", "our packages import one another relatively"),
        ("from ir.graph import Graph", "runtime/run.py", "ir.graph is imported without waferc"),
    ],
)
def test_a_broken_rule_is_found(source: str, path: str, message: str) -> None:
    assert message in broken_rules(source, path)


@pytest.mark.parametrize(
    "source, path",
    [
        ("from ..ir.graph import Graph", "placement/plan.py"),
        ("from .plan import Plan\nimport networkx", "placement/place.py"),
        ("from llvmlite import binding, ir", "codegen/lower.py"),
        ("import onnx", "compiler/importer.py"),
        ("def f():\n    import networkx", "ir/graph.py"),
        ("if TYPE_CHECKING:\n    import networkx", "ir/graph.py"),
        ("if TYPE_CHECKING:\n    from .ir.graph import Graph", "waferc/__init__.py"),
        ("from .compiler.cli.main import main", "waferc/__main__.py"),
    ],
)
def test_a_kept_rule_is_let_through(source: str, path: str) -> None:
    assert broken_rules(source, path) == []


def test_one_file_of_codegen_at_most_uses_the_binding() -> None:
    codegen = [p for p in FILES if p.relative_to(ROOT).parts[0] == "codegen"]
    users = [
        p.name
        for p in codegen
        if any(
            n.startswith("llvmlite.binding")
            for n in imports(p.read_text(encoding="utf-8"), p.relative_to(ROOT).as_posix())
        )
    ]
    assert len(users) <= 1, users


def test_only_waferc_reaches_site_packages() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert {name.split(".")[0] for name in setuptools["packages"]} == {"waferc"}
    # Every folder with code is listed, so that nothing is missing from the wheel.
    folders = {p.parent.relative_to(ROOT).as_posix() for p in FILES}
    assert folders == {name.removeprefix("waferc.").replace(".", "/") for name in setuptools["packages"]}
    mapped = {"waferc." + folder.replace("/", "."): folder for folder in folders - {DOOR}}
    assert setuptools["package-dir"] == {DOOR: DOOR, **mapped}


RUNTIME_ALONE = """
import importlib, pkgutil, sys
sys.modules["onnx"] = sys.modules["networkx"] = None  # importing them now raises ImportError
import waferc.runtime
for module in pkgutil.walk_packages(waferc.runtime.__path__, "waferc.runtime."):
    importlib.import_module(module.name)
loaded = [m for m in sys.modules if m.startswith("waferc.compiler")]
assert not loaded, loaded
print("ok")
"""


def test_runtime_needs_neither_onnx_nor_networkx_nor_the_compiler(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", RUNTIME_ALONE], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "ok\n", done.stderr


def test_code_generation_and_the_runtime_ask_no_ops_class() -> None:
    """What they want to know of an op, the op answers: see `ir.op.Op`. Only the encoding names classes."""
    found: list[str] = []
    for path in FILES:
        name = path.relative_to(ROOT).as_posix()
        if name.split("/")[0] in ("codegen", "runtime") and name != "codegen/artifact/encode.py":
            found += [f"{name}: {c}" for c in imports(path.read_text(encoding="utf-8"), name) if is_op(c)]
    assert found == []


@pytest.mark.parametrize("name", ["waferc.ir.ops.contract.Contract", "waferc.ir.ops.rearrange.Copy"])
def test_an_ops_class_is_found(name: str) -> None:
    assert is_op(name)


def is_op(name: str) -> bool:
    """Whether an imported name is a class of an op family."""
    module, _, last = name.rpartition(".")
    if not module.startswith("waferc.ir.ops."):
        return False
    named = getattr(importlib.import_module(module), last, None)
    return isinstance(named, type) and issubclass(named, Op)
