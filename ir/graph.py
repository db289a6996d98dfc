"""Tensors, nodes and graphs, and the builder that ops use to add nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from heapq import heappop, heappush
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from . import dtypes
from .absent import folded, lacking
from .affine import Access, show
from .dtypes import DType
from .op import Array, Op

if TYPE_CHECKING:
    import networkx as nx

FOLD_LIMIT = 1 << 26  # bytes; a constant result larger than this and its operands is not folded
MOST_BYTES = 1 << 42  # of one tensor: a hundred times what the largest wafer holds


class Unsupported(ValueError):
    """The model is valid ONNX but asks for something that waferc does not do."""


class DependsOnData(Unsupported):
    """A value is asked for when compiling that only a run has. `tensor`: whose."""

    def __init__(self, what: str, tensor: str) -> None:
        super().__init__(f"{what} depends on data ({tensor!r} is computed at run time)")
        self.what, self.tensor = what, tensor


class InvalidModel(ValueError):
    """The model contradicts itself or the standard."""


class TooLarge(ValueError):
    """A tensor of the model that no wafer holds."""


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    dtype: DType

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.bytes

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Node:
    """One op applied. `source` names the ONNX nodes that it stands for.

    Several nodes may write disjoint boxes of one tensor (Concat's parts).
    """

    op: Op
    inputs: tuple[str, ...]
    output: str
    source: tuple[str, ...] = ()


@dataclass(frozen=True)
class Length:
    """How far the caches of a model are filled, which the runtime keeps with them.

    input: the scalar int64 graph input that holds it. capacity: positions of every cache. added: how
    many a call appends. dims: the inputs that run over positions, caches and others, each with its dimension
    of `capacity` elements.
    """

    input: str
    capacity: int
    added: int
    dims: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, repr=False)
class Graph:
    """A model: nodes in an order in which every input comes before its use.

    constants: their values, or `Absent` where these are not at hand.
    states: pairs (past, present) of an input and the tensor that is its value in the next call; they stay
    on the wafer between calls. A present that is no output is never read by the host. length: of caches
    that are filled position by position.
    """

    name: str
    tensors: Mapping[str, Tensor]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    states: tuple[tuple[str, str], ...] = ()
    length: Length | None = None

    @cached_property
    def results(self) -> tuple[str, ...]:
        """The tensors that a call is for: the outputs, and what its states become."""
        return tuple(dict.fromkeys((*self.outputs, *(present for _, present in self.states))))

    @cached_property
    def resident(self) -> frozenset[str]:
        """Tensors that lie still on the cores that read them: constants, and caches changed in place."""
        return frozenset(self.constants) | self.in_place.keys()

    @cached_property
    def in_place(self) -> dict[str, str]:
        """Presents that are their past, changed where it lies: present -> past."""
        readers = self.readers
        pasts = {present: past for past, present in self.states}
        return {
            n.output: n.inputs[n.op.updates]
            for n in self.nodes
            if n.op.updates is not None
            and pasts.get(n.output) == n.inputs[n.op.updates]
            and len(readers[n.inputs[n.op.updates]]) == 1
        }

    @cached_property
    def writers(self) -> Mapping[str, Sequence[int]]:
        """For each tensor that a node writes the positions of the nodes that do."""
        out: dict[str, list[int]] = {}
        for i, n in enumerate(self.nodes):
            out.setdefault(n.output, []).append(i)
        return out

    @cached_property
    def readers(self) -> Mapping[str, Sequence[tuple[int, int]]]:
        """For each tensor that a node reads the (node position, operand number) pairs that do."""
        out: dict[str, list[tuple[int, int]]] = {}
        for i, n in enumerate(self.nodes):
            for j, t in enumerate(n.inputs):
                out.setdefault(t, []).append((i, j))
        return out

    def update_order(self) -> list[tuple[str, str]]:
        """The states to be overwritten, each before the one whose old value becomes its new one.

        Those changed in place are not among them.

        Raises InvalidModel where states swap values in a ring: there is no such order.
        """
        own = self.in_place
        left = [s for s in self.states if s[1] not in own]
        waiting: dict[str, list[int]] = {}  # for a past that others become, who is overwritten with it
        becoming = Counter(present for _, present in left)
        for i, (past, present) in enumerate(left):
            if past != present:
                waiting.setdefault(past, []).append(i)
        free = [i for i, (a, b) in enumerate(left) if not becoming[a] or a == b]
        out: list[tuple[str, str]] = []
        done = set[int]()
        while free:
            i = heappop(free)  # of those that may come next the first one, as the model lists them
            done.add(i)
            out.append(left[i])
            present = left[i][1]
            becoming[present] -= 1
            if not becoming[present]:
                for j in waiting.get(present, ()):
                    heappush(free, j)
        if len(out) < len(left):
            stuck = ", ".join(past for i, (past, _) in enumerate(left) if i not in done)
            raise InvalidModel(f"states {stuck} swap their values; copy one of them")
        return out

    def check(self) -> None:
        """Raises InvalidModel unless names, order, shapes and types agree."""
        _ = self._checked

    @cached_property
    def _checked(self) -> bool:
        """True, or what `check` raises; once, as a graph never changes and every pass asks."""
        ready = {*self.inputs, *self.constants}
        last = {t: i for i, n in enumerate(self.nodes) for t in (n.output,)}
        for i, n in enumerate(self.nodes):
            n.op.check()
            for t, access, dtype in zip(n.inputs, n.op.reads, n.op.in_types, strict=True):
                if t not in ready:
                    raise InvalidModel(f"node {i} ({n.op.name}) reads {t!r} before it is written")
                self._agree(t, access, dtype)
            self._agree(n.output, n.op.write, n.op.out_type)
            box = {a: (0, s) for a, s in n.op.axes}
            if all(s > 0 for _, s in n.op.axes):
                for (lo, hi), size in zip(n.op.hold(box), self.tensors[n.output].shape, strict=True):
                    if lo < 0 or hi > size:
                        raise InvalidModel(f"node {i} ({n.op.name}) writes past {n.output!r}")
            if last[n.output] == i:
                ready.add(n.output)
        for t in self.results:
            if t not in ready:
                raise InvalidModel(f"output {t!r} is never written")
        own = self.in_place
        for i, n in enumerate(self.nodes):
            if n.op.updates is not None and n.output not in own:
                raise InvalidModel(
                    f"node {i} ({n.op.name}) changes {n.inputs[n.op.updates]!r}, no state of its own"
                )
        for past, present in self.states:
            a, b = self.tensors[past], self.tensors[present]
            if (a.shape, a.dtype) != (b.shape, b.dtype):
                raise InvalidModel(f"state {a} differs from {b}")
        self.update_order()
        return True

    def _agree(self, name: str, access: Access, dtype: DType) -> None:
        t = self.tensors[name]
        if len(t.shape) != len(access) or t.dtype != dtype:
            raise InvalidModel(f"{t} is accessed as {dtype}{show(access)}")

    def to_networkx(self) -> nx.MultiDiGraph[str]:
        """The graph for networkx: a node for each op and each tensor, an edge for each read and write.

        Attributes are str, int or bool. Of an op ("op 0", ...): kind "op", op, onnx (the ONNX nodes that it
        stands for), axes ("m:4 k:64"), work (elements that pass through vector units). Of a tensor
        ("tensor 0", ...): kind "input", "constant" or "tensor", name, dtype, shape ("4x64"), bytes, output
        (whether a call returns it) and, where it is kept between calls, becomes (the name of its next value).
        Of an edge: operand, its number, -1 for a write. No values are in it.
        """
        import networkx as nx

        out: nx.MultiDiGraph[str] = nx.MultiDiGraph(name=self.name)
        states = dict(self.states)
        id_of = {t: f"tensor {i}" for i, t in enumerate(self.tensors)}
        for t, tensor in self.tensors.items():
            kind = "input" if t in self.inputs else "constant" if t in self.constants else "tensor"
            out.add_node(
                id_of[t],
                kind=kind,
                name=t,
                dtype=str(tensor.dtype),
                shape="x".join(map(str, tensor.shape)),
                bytes=tensor.bytes,
                output=t in self.outputs,
                **({"becomes": states[t]} if t in states else {}),
            )
        for i, n in enumerate(self.nodes):
            out.add_node(
                f"op {i}",
                kind="op",
                op=n.op.name,
                onnx=", ".join(n.source),
                axes=" ".join(f"{a}:{s}" for a, s in n.op.axes),
                work=int(sum(w.elements for w in n.op.work(n.op.size))),
            )
            for j, t in enumerate(n.inputs):
                out.add_edge(id_of[t], f"op {i}", operand=j)
            out.add_edge(f"op {i}", id_of[n.output], operand=-1)
        return out

    def __repr__(self) -> str:
        ends = f"inputs {_some(self.inputs)}, outputs {_some(self.outputs)}"
        return f"Graph({self.name!r}, {len(self.nodes)} nodes, {ends})"

    def __str__(self) -> str:
        lines = [f"graph {self.name!r}"]
        lines += [f"  input  {self.tensors[t]}" for t in self.inputs]
        lines += [f"  const  {self.tensors[t]}" for t in self.constants]
        for n in self.nodes:
            reads = ", ".join(f"{t}{show(a)}" for t, a in zip(n.inputs, n.op.reads, strict=True))
            axes = " ".join(f"{a}:{s}" for a, s in n.op.axes)
            lines.append(f"  {self.tensors[n.output]}{show(n.op.write)} = {n.op.name}({reads})  <{axes}>")
        lines += [f"  output {self.tensors[t]}" for t in self.outputs]
        lines += [f"  state  {a} = {b}" for a, b in self.states]
        if self.length:
            at = self.length
            lines.append(f"  length {at.input}: {at.added} more of {at.capacity} each call")
        return "\n".join(lines) + "\n"


def _some(names: Sequence[str], most: int = 4) -> str:
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return f"[{', '.join([*map(repr, names[:most]), *more])}]"


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
    """A graph under construction. Nodes whose operands are constants are evaluated at once."""

    tensors: dict[str, Tensor] = field(default_factory=lambda: {})
    constants: dict[str, Array] = field(default_factory=lambda: {})
    nodes: list[Node] = field(default_factory=lambda: [])
    source: tuple[str, ...] = ()  # provenance given to nodes added now
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
        value = np.ascontiguousarray(value) if value.ndim and not lacking([value]) else value
        name = self.tensor(hint, value.shape, dtypes.of_numpy(value.dtype))
        self.constants[name] = value
        return name

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

    def emit(self, op: Op, inputs: Sequence[str], shape: Sequence[int], hint: str = "t") -> str:
        """Adds `op` with a new result of `shape`; returns the result's name."""
        empty = 0 in op.size.values()  # no iteration: the same whatever the operands hold
        if empty or (op.folds and all(t in self.constants for t in inputs)):
            operands = [
                np.zeros(self.shape(t), self.dtype(t).numpy) if empty else self.constants[t] for t in inputs
            ]
            bytes_out = prod(shape) * op.out_type.bytes
            if bytes_out <= max(FOLD_LIMIT, sum(a.nbytes for a in operands)):
                if lack := lacking(operands):
                    name = self.fresh(hint)
                    return self.constant(folded(lack, name, shape, op.out_type.numpy), name)
                out = np.asarray(op.reference(*operands)).astype(op.out_type.numpy, copy=False)
                return self.constant(out.reshape(tuple(shape)), hint)
        out_name = self.tensor(hint, shape, op.out_type)
        self.nodes.append(Node(op, tuple(inputs), out_name, self.source))
        return out_name

    def emit_parts(
        self, parts: Sequence[tuple[Op, Sequence[str]]], shape: Sequence[int], dtype: DType, hint: str = "t"
    ) -> str:
        """One tensor written by several ops, each its own dense box (Concat, Pad)."""
        judge_size(shape, dtype)
        if all(t in self.constants for _, inputs in parts for t in inputs):
            if lack := lacking([self.constants[t] for _, inputs in parts for t in inputs]):
                name = self.fresh(hint)
                return self.constant(folded(lack, name, shape, dtype.numpy), name)
            whole = np.zeros(tuple(shape), dtype.numpy)
            for op, inputs in parts:
                box = op.hold({a: (0, s) for a, s in op.axes})
                at = tuple(slice(lo, hi) for lo, hi in box)
                whole[at] = op.reference(*(self.constants[t] for t in inputs))
            return self.constant(whole, hint)
        out_name = self.tensor(hint, shape, dtype)
        for op, inputs in parts:
            self.nodes.append(Node(op, tuple(inputs), out_name, self.source))
        return out_name


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
