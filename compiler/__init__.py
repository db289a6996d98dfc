"""The way in and out: the ONNX importer, graph passes, the pipeline, reports and the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .compiled import Compiled
    from .errors import UnsupportedOperator, WafercError
    from .pipeline import compile_model

__all__ = ["Compiled", "UnsupportedOperator", "WafercError", "compile_model"]


def __getattr__(name: str) -> Any:
    """Imports on first use: `waferc --help` needs none of the compiler."""
    if name in ("Compiled", "compile_model"):
        from . import pipeline

        return getattr(pipeline, name)
    if name in ("UnsupportedOperator", "WafercError"):
        from . import errors

        return getattr(errors, name)
    raise AttributeError(name)
