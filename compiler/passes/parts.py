"""Ops that together stand for one op: the same axes, f32 between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ir.affine import Access
from ...ir.dtypes import F32
from ...ir.graph import Node
from ...ir.op import Op, identity
from .rewriter import Read, Rewriter


class Parts:
    """The ops that a node becomes, which go to the rewriter one by one."""

    def __init__(self, rewriter: Rewriter, node: Node) -> None:
        self.rewriter, self.node = rewriter, node
        self._named = Counter[str]()

    def number(self, value: float) -> Read:
        return self.rewriter.constant(np.asarray(value, F32.numpy), self._hint("number")), ()

    def op(self, kind: type[Op], operands: Sequence[Read], over: Sequence[str] = (), **fields: Any) -> Read:
        """`kind` on `operands`; the result has one dimension per axis not in `over`."""
        used = {a for _, access in operands for e in access for a in e.axes}
        axes = tuple((a, n) for a, n in self.node.op.axes if a in used)
        kept = [a for a, _ in axes if a not in over]
        size = dict(axes)
        name = self.rewriter.tensor(self._hint(kind.__name__), [size[a] for a in kept], F32)
        write = identity(kept)
        self._add(_op(kind, operands, axes, write, fields), operands, name)
        return name, write

    def last(self, kind: type[Op], operands: Sequence[Read]) -> None:
        """The op that writes the node's own result."""
        op = self.node.op
        # An axis of size 1 may be missing from the write alone.
        axes = tuple((a, n) for a, n in op.axes if n == 1 or a not in op.reduced)
        self._add(_op(kind, operands, axes, op.write, {}), operands, self.node.output)

    def _add(self, op: Op, operands: Sequence[Read], output: str) -> None:
        self.rewriter.add(op, [t for t, _ in operands], output, self.node.source)

    def _hint(self, what: str) -> str:
        """The node's result and what is new, numbered from the second one on."""
        self._named[what] += 1
        n = self._named[what]
        return f"{self.node.output}.{what}" + (f".{n}" if n > 1 else "")


def _op(
    kind: type[Op],
    operands: Sequence[Read],
    axes: tuple[tuple[str, int], ...],
    write: Access,
    fields: dict[str, Any],
) -> Op:
    return kind(
        axes=axes,
        reads=tuple(a for _, a in operands),
        write=write,
        in_types=(F32,) * len(operands),
        out_type=F32,
        **fields,
    )
