"""Compile ONNX models for wafer-scale machines, run them, and look at where they lie.

docs/python.md shows these names at work. Each is imported when it is first asked for; the package by itself
loads neither onnx nor NumPy.
"""

# Installed, the packages are in this folder; in a checkout they are beside it, where pyright does not look.
# pyright: reportMissingImports=false, reportUnknownVariableType=false

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .compiler.compiled import Compiled
    from .compiler.errors import (
        ArtifactError,
        DoesNotFit,
        InputOutput,
        InputUnbound,
        InvalidInput,
        OpenDimensions,
        UnsupportedModel,
        UnsupportedOperator,
        UsageError,
        VerificationFailed,
        WafercError,
    )
    from .compiler.language.diffusion import Diffusion
    from .compiler.language_model import Drafts, LanguageModel
    from .compiler.loading import load
    from .compiler.pipeline import compile_model
    from .compiler.request import Request
    from .ir.graph import Graph
    from .placement.machine.wafer import Wafer
    from .placement.plan.plan import Plan
    from .runtime.program import InputError, Program
    from .runtime.reports import InvalidIndex

    __version__: str

__all__ = [
    "ArtifactError",
    "Compiled",
    "Diffusion",
    "DoesNotFit",
    "Drafts",
    "Graph",
    "InputError",
    "InputOutput",
    "InputUnbound",
    "InvalidIndex",
    "InvalidInput",
    "LanguageModel",
    "OpenDimensions",
    "Plan",
    "Program",
    "Request",
    "UnsupportedModel",
    "UnsupportedOperator",
    "UsageError",
    "VerificationFailed",
    "Wafer",
    "WafercError",
    "__version__",
    "compile_model",
    "load",
]

HOMES = {
    "Compiled": "compiler.compiled",
    "Diffusion": "compiler.language.diffusion",
    "Drafts": "compiler.language_model",
    "Graph": "ir.graph",
    "InputError": "runtime.program",
    "LanguageModel": "compiler.language_model",
    "InvalidIndex": "runtime.reports",
    "Plan": "placement.plan.plan",
    "Program": "runtime.program",
    "Request": "compiler.request",
    "Wafer": "placement.machine.wafer",
    "compile_model": "compiler.pipeline",
    "load": "compiler.loading",
}
"""Where a name is defined; those of errors are not listed."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("waferc")
    if name not in __all__:
        raise AttributeError(f"module 'waferc' has no attribute {name!r}")
    return getattr(import_module(f".{HOMES.get(name, 'compiler.errors')}", __name__), name)


def __dir__() -> list[str]:
    return __all__
