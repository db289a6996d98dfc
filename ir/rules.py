"""What rules of operators build a graph with: the node as they see it, the builder, the register."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from . import dtypes
from .absent import folded, lacking
from .affine import Access, access_axes
from .dtypes import DType
from .folding import MOST_SEEN, Folding
from .graph import DependsOnData, InvalidModel, Node, Tensor, TooLarge, Unsupported
from .op import Array, Bound, Op, gather
from .stored_bits import stored_bits

MOST_BYTES = 1 << 42  # of one tensor: a hundred times what the largest wafer holds


@dataclass(frozen=True)
class Spec:
    """One ONNX node, freed of protobuf: what a `build` rule sees.

    inputs: tensor names, "" for an omitted optional. attributes: Python numbers,
    strings, lists and NumPy arrays. opset: version of the node's domain.
    """

    op_type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def has(self, i: int) -> bool:
        """Whether optional input number `i` is given."""
        return i < len(self.inputs) and self.inputs[i] != ""


@dataclass
class GraphBuilder:
    """A graph under construction. Nodes whose operands are constants are evaluated at once, see `folding`.

    measures: what was asked of tensors' shapes, in order. length_input: that which says how many positions
    the caches hold, no input of the model's own; "" where nothing reads it. opens_rows: whether NonZero may
    give all places of what is computed at run time; whoever asks for it finds out what becomes of them.
    remade: constants made of the model's, by what of and how, with what they are made of; the graphs of one
    model share it.
    judged: tensors of a run that a node holds to what the others take for granted.
    """

    tensors: dict[str, Tensor] = field(default_factory=lambda: {})
    constants: dict[str, Array] = field(default_factory=lambda: {})
    nodes: list[Node] = field(default_factory=lambda: [])
    source: tuple[str, ...] = ()  # provenance given to nodes added now
    folding: Folding = field(default_factory=Folding)
    measures: list[Array] = field(default_factory=list[Array])
    length_input: str = ""
    opens_rows: bool = False
    remade: dict[Hashable, tuple[Array, Array]] = field(default_factory=lambda: {})
    judged: set[str] = field(default_factory=set[str])
    _count: int = 0

    def fresh(self, hint: str) -> str:
        """A name not yet taken, made from `hint`."""
        name = hint
        while not name or name in self.tensors:
            self._count += 1
            name = f"{hint}.{self._count}"
        return name

    def tensor(self, hint: str, shape: Sequence[int], dtype: DType) -> str:
        """A new tensor; TooLarge for one of more than MOST_BYTES."""
        sizes = tuple(map(int, shape))
        judge_size(sizes, dtype)
        name = self.fresh(hint)
        self.tensors[name] = Tensor(name, sizes, dtype)
        return name

    def constant(self, value: Array, hint: str = "const") -> str:
        """A new constant tensor."""
        if value.ndim and lacking([value]) is None and stored_bits(value) is None:
            value = np.ascontiguousarray(value)
        name = self.tensor(hint, value.shape, dtypes.of_numpy(value.dtype))
        self.constants[name] = value
        return name

    def brought(self, value: Array, hint: str) -> str:
        """A constant that the model brings."""
        self.folding.own += value.nbytes
        return self.constant(value, hint)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def dtype(self, name: str) -> DType:
        return self.tensors[name].dtype

    def value(self, name: str) -> Array | None:
        """The constant's value, None for a tensor computed at run time."""
        return self.constants.get(name)

    def known(self, name: str, what: str) -> Array:
        """The constant's value; DependsOnData, naming `what`, for what is computed at run time.

        For parameters: of an input of the model, the compiler's user may be asked to bind it.
        """
        value = self.constants.get(name)
        if value is None:
            raise DependsOnData(what, name)
        return value

    def fixed(self, name: str, what: str) -> Array:
        """As `known`, of data: Unsupported where it is computed at run time, an input of the model or not."""
        value = self.constants.get(name)
        if value is None:
            raise Unsupported(f"{what} depends on data")
        return value

    # -- for the front end's `lengths`: constants that change with the length of the caches ----------
    def measure(self, value: Array) -> Array:
        """Notes what was asked of a tensor's shape; by how much each element grows with each position."""
        self.measures.append(value)
        return np.zeros(value.shape, np.int64)

    def measured(self, value: Array, hint: str) -> str:
        """A constant made of a tensor's shape."""
        return self.sloping(value, self.measure(value), hint)

    def slope(self, name: str) -> Array:
        """By how much each element of a tensor grows with each position that the caches hold."""
        return np.zeros(self.shape(name), np.int64)

    def follows_length(self, name: str) -> bool:
        """Whether a tensor is a constant with a slope."""
        return False

    def sloping(self, value: Array, slope: Array, hint: str) -> str:
        """A constant with a slope."""
        return self.constant(value, hint)

    def at_first(self, value: int, slope: int) -> int:
        """A value with a slope while the caches are empty."""
        return value

    def counted(self, count: int, slope: int, what: str) -> int:
        """A number of elements with a slope, as a tensor has them; Unsupported, naming `what`, where none
        has."""
        return count

    def at_run_time(self, name: str) -> str:
        """The tensor that nodes read for this one."""
        return name

    def judge_bound(self, name: str, read: Access, axes: Sequence[tuple[str, int]], bound: Bound) -> None:
        """Raises InvalidModel for a constant with an element, of those read along `axes`, outside a bound."""
        value = self.constants.get(name)
        if value is None or lacking([value]) is not None:
            return
        along = access_axes(read)
        seen = gather(value, read, [x for x in axes if x[0] in along], 0)
        if (found := bound.outside(seen)) is not None:
            raise InvalidModel(bound.problem(found))

    def emit(self, op: Op, inputs: Sequence[str], shape: Sequence[int], hint: str = "t") -> str:
        """Adds `op` with a new result of `shape`; returns the result's name."""
        for bound in op.bounds:
            self.judge_bound(inputs[bound.operand], op.reads[bound.operand], op.axes, bound)
        if made := self.fold(op, inputs, shape, hint):
            return made
        read = tuple(map(self.at_run_time, inputs))
        out_name = self.tensor(hint, shape, op.out_type)
        self.nodes.append(Node(op, read, out_name, self.source))
        return out_name

    def fold(self, op: Op, inputs: Sequence[str], shape: Sequence[int], hint: str) -> str:
        """The constant that `op` makes of constants; "" where it is left to the run."""
        empty = 0 in op.size.values()  # no iteration: the same whatever the operands hold
        if not (empty or (op.folds and all(t in self.constants for t in inputs))):
            return ""
        if not self.take(op, inputs, shape):
            return ""
        operands = [
            _nothing(self.tensors[t]) if empty and t not in self.constants else self.constants[t]
            for t in inputs
        ]
        if (lack := lacking(operands)) is not None:
            name = self.fresh(hint)
            return self.constant(folded(lack, name, shape, op.out_type.numpy), name)
        return self.constant(result_of(op, operands, shape), hint)

    def take(self, op: Op, inputs: Sequence[str], shape: Sequence[int]) -> bool:
        """Whether an op of constants is computed now."""
        work = sum(int(w.elements) for w in op.work(op.size)) if 0 not in op.size.values() else 0
        seen = max((prod(op.size[a] for a in access_axes(read)) for read in op.reads), default=0)
        if seen > MOST_SEEN and seen > 4 * max(prod(shape), self._elements(inputs)):
            return False
        return self.folding.take(prod(shape) * op.out_type.bytes, self._bytes(inputs), work)

    def take_parts(self, names: Iterable[str], shape: Sequence[int], dtype: DType) -> bool:
        """Whether what ops make together of these constants is computed now."""
        return self.folding.take(prod(shape) * dtype.bytes, self._bytes(names), prod(shape))

    def _bytes(self, names: Iterable[str]) -> int:
        return sum(self.tensors[t].bytes for t in set(names))

    def _elements(self, names: Iterable[str]) -> int:
        return max((prod(self.tensors[t].shape) for t in names), default=0)

    def emit_parts(
        self, parts: Sequence[tuple[Op, Sequence[str]]], shape: Sequence[int], dtype: DType, hint: str = "t"
    ) -> str:
        """One tensor written by several ops, each its own dense box (Concat, Pad)."""
        judge_size(shape, dtype)
        if made := self.fold_parts(parts, shape, dtype, hint):
            return made
        read = [tuple(map(self.at_run_time, inputs)) for _, inputs in parts]
        out_name = self.tensor(hint, shape, dtype)
        for (op, _), inputs in zip(parts, read, strict=True):
            self.nodes.append(Node(op, inputs, out_name, self.source))
        return out_name

    def fold_parts(
        self, parts: Sequence[tuple[Op, Sequence[str]]], shape: Sequence[int], dtype: DType, hint: str
    ) -> str:
        """The constant that the parts make; "" where they are left to the run."""
        names = {t for _, inputs in parts for t in inputs}
        if not all(t in self.constants for t in names):
            return ""
        if not self.take_parts(names, shape, dtype):
            return ""
        if (lack := lacking([self.constants[t] for _, inputs in parts for t in inputs])) is not None:
            name = self.fresh(hint)
            return self.constant(folded(lack, name, shape, dtype.numpy), name)
        return self.constant(result_of_parts(parts, shape, dtype, self.constants), hint)


def result_of(op: Op, operands: Sequence[Array], shape: Sequence[int]) -> Array:
    """What `op` makes of whole operands."""
    out = np.asarray(op.reference(*operands)).astype(op.out_type.numpy, copy=False)
    return out.reshape(tuple(shape))


def result_of_parts(
    parts: Sequence[tuple[Op, Sequence[str]]],
    shape: Sequence[int],
    dtype: DType,
    values: Mapping[str, Array],
) -> Array:
    """What several ops make together, each its own dense box."""
    whole = np.zeros(tuple(shape), dtype.numpy)
    for op, inputs in parts:
        box = op.hold({a: (0, s) for a, s in op.axes})
        at = tuple(slice(lo, hi) for lo, hi in box)
        whole[at] = op.reference(*(values[t] for t in inputs))
    return whole


def _nothing(t: Tensor) -> Array:
    """Zeros in a tensor's shape, in the memory of one."""
    return np.broadcast_to(np.zeros((), t.dtype.numpy), t.shape)


def judge_size(shape: Sequence[int], dtype: DType) -> None:
    """Raises TooLarge for a tensor of more than MOST_BYTES."""
    if (nbytes := prod(map(int, shape)) * dtype.bytes) > MOST_BYTES:
        raise TooLarge(f"{dtype}{list(map(int, shape))} takes {nbytes:,} bytes, no wafer has {MOST_BYTES:,}")


Rule = Callable[[GraphBuilder, Spec], Sequence[str]]
"""Builds the nodes of one ONNX node and returns the names of its outputs ("" for one not made)."""


@dataclass(frozen=True)
class Registered:
    """The rule of one ONNX operator, from opset `since` of its domain on.

    limits: what of it the rule leaves out, in a few words for docs/operators.md; "known" there is what
    `GraphBuilder.known` gives. types: by type parameter, of an operator that onnx has no schema of.
    """

    op_type: str
    rule: Rule
    since: int
    domain: str = ""
    limits: str = ""
    types: tuple[tuple[str, tuple[DType, ...]], ...] = ()


REGISTRY: dict[tuple[str, str], Registered] = {}


def register(
    op_type: str,
    rule: Rule,
    since: int = 6,
    domain: str = "",
    limits: str = "",
    types: tuple[tuple[str, tuple[DType, ...]], ...] = (),
) -> None:
    """Makes the importer use `rule` for ONNX operator `op_type`. See `Registered`."""
    REGISTRY[domain, op_type] = Registered(op_type, rule, since, domain, limits, types)


Prepare = Callable[[GraphBuilder, Spec], Sequence[str]]
"""Gives the inputs with which the standard's own body for an operator is entered."""

PREPARED: dict[str, Prepare] = {}
"""By operator of the standard: what its body does not do to its inputs."""
