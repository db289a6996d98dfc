"""A saved program, ready to run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..codegen.artifact.artifact import InvalidArtifact
from ..runtime import load as loader
from .errors import ArtifactError, UnsupportedModel, quoted, shown

if TYPE_CHECKING:
    from ..runtime.play import Operator
    from ..runtime.program import Program


def load(path: str | Path, threads: int | None = None, guard: bool = False) -> Program:
    """The program of a .wafer file. It holds native code: load one only if you trust its source.

    threads: host threads of a call that does not say; None: as many as there are processors. guard: every
    load and store is checked, nothing is shared between cores.

    Raises OSError, ArtifactError; UnsupportedModel for operators on the host where onnx is not installed; and
    MemoryError where guard's memory has no room.
    """
    try:
        return loader.load(path, threads, guard, operator)
    except InvalidArtifact as e:
        reason = str(e).removeprefix(f"{path}: ")
        raise ArtifactError(f"{quoted(str(path))}: {shown(reason, 200)}") from None


def operator(content: bytes) -> Operator:
    """An operator of a program on the host, which onnx carries out."""
    try:
        from .host.operators import operator
    except ImportError:
        raise UnsupportedModel(
            "the program has operators on the host, which onnx carries out; pip install onnx"
        ) from None
    return operator(content)
