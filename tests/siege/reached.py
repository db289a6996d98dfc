"""Which statements of the packages were reached: what tells an input worth keeping from one more of its kind.

`instrument` puts a store of one byte before every statement of every function as modules are imported, whose
cost is lost beside a compile's. Python's tracing makes all six times slower; its monitoring came with 3.12.
atheris (it installs from the package index) was left out: libFuzzer ends with the first crash, mutates byte
strings, and has wheels for Linux on x86-64 only. An execution here compiles a model, in its own process, with
limits: what counts is what is drawn.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from pkgutil import walk_packages
from types import CodeType, ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ir", "placement", "codegen", "runtime", "compiler")
OURS = tuple(f"{ROOT / name}/" for name in PACKAGES)
HITS = "__reached__"

Line = tuple[str, int]

_hits = bytearray()  # by statement: whether it was reached in this process
_lines: list[Line] = []


def instrument() -> None:
    """Before waferc is imported: imports all of it, so that workers which are forked need not."""
    if "waferc" in sys.modules:
        raise AssertionError("waferc is imported already")
    sys.meta_path.insert(0, _Finder())
    import waferc

    for name in PACKAGES:
        package = import_module(f"waferc.{name}")
        for module in walk_packages(package.__path__, f"waferc.{name}."):
            if not module.name.endswith("__main__"):
                import_module(module.name)
    assert waferc.__all__


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("waferc."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        tree = ast.parse(Path(self.path).read_bytes(), self.path)
        _Marked(str(Path(self.path).resolve())).visit(tree)
        return compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, HITS, _hits)
        super().exec_module(module)


class _Marked(ast.NodeTransformer):
    """A store before each statement within a function."""

    def __init__(self, file: str) -> None:
        self.file, self.depth = file, 0

    def visit(self, node: ast.AST) -> Any:
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        self.depth += function
        self.generic_visit(node)
        if self.depth:
            for name in ("body", "orelse", "finalbody"):
                statements: Any = getattr(node, name, None)
                if isinstance(statements, list):
                    setattr(node, name, self._marked(statements))
        self.depth -= function
        return node

    def _marked(self, statements: Iterable[ast.stmt]) -> list[ast.stmt]:
        out: list[ast.stmt] = []
        for s in statements:
            is_text = isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant)
            if not is_text and not isinstance(s, ast.Global | ast.Nonlocal):
                mark = ast.parse(f"{HITS}[{len(_lines)}] = 1").body[0]
                for inner in ast.walk(mark):
                    ast.copy_location(inner, s)
                out.append(mark)
                _lines.append((self.file, s.lineno))
                _hits.append(0)
            out.append(s)
        return out


class Reached:
    """Collects what was reached and is not known."""

    def __init__(self, known: set[Line]) -> None:
        self.known = set(known)

    def new(self) -> frozenset[Line]:
        """The lines since the last time, and no line is reached from here on."""
        at, found = _hits.find(1), set[Line]()
        while at >= 0:
            found.add(_lines[at])
            at = _hits.find(1, at + 1)
        _hits[:] = bytes(len(_hits))
        out = frozenset(found - self.known)
        self.known |= out
        return out


def share(lines: Iterable[Line]) -> str:
    """How many of each package's lines these are."""
    reached, all_lines = (Counter(_package(file) for file, _ in some) for some in (lines, set(_lines)))
    return ", ".join(f"{name} {reached[name]:,} of {all_lines[name]:,}" for name in PACKAGES)


def _package(file: str) -> str:
    return next(name for name, root in zip(PACKAGES, OURS, strict=True) if file.startswith(root))
