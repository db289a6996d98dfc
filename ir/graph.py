"""Tensors, nodes and graphs, and what is wrong with a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import numpy as np

from .affine import Access, show
from .dtypes import F32, DType
from .op import Array, Op

if TYPE_CHECKING:
    import networkx as nx


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
    on the wafer between calls. A present that is no output is never read by the host; one that is its past
    stays as it is, for another entry to change. length: of caches that are filled position by position.
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

    @cached_property
    def narrowable(self) -> frozenset[str]:
        """The f32 constants that can be stored in 16 bits: of two dimensions or more, read by nothing but
        products and table look-ups."""
        readers, results = self.readers, set(self.results)
        return frozenset(
            name
            for name in self.constants
            if self.tensors[name].dtype == F32
            and sum(n > 1 for n in self.tensors[name].shape) >= 2
            and name not in results
            and readers.get(name)
            and all(
                self.nodes[i].op.out_type == F32 and self.nodes[i].op.takes_narrow(j)
                for i, j in readers[name]
            )
        )

    def update_order(self) -> list[tuple[str, str]]:
        """The states to be overwritten, each before the one whose old value becomes its new one.

        Those changed in place, or not at all, are not among them.

        Raises InvalidModel where states swap values in a ring: there is no such order.
        """
        own = self.in_place
        left = [(past, present) for past, present in self.states if present not in own and past != present]
        waiting: dict[str, list[int]] = {}  # for a past that others become, who is overwritten with it
        becoming = Counter(present for _, present in left)
        for i, (past, _) in enumerate(left):
            waiting.setdefault(past, []).append(i)
        free = [i for i, (past, _) in enumerate(left) if not becoming[past]]
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
