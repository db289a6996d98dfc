"""Weights of a few bits: they stay on the cores in words of several, and what reads them unpacks them."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from math import gcd

import numpy as np

from ...ir.absent import folded, lacking
from ...ir.affine import Access, access_axes
from ...ir.dtypes import F16, F32, U8
from ...ir.graph import Graph, Node
from ...ir.op import Array, assemble, gather
from ...ir.ops.packed import block_of
from ...ir.packing import PLACES, WORD, Kind, Words, count, packed
from ...ir.stored_bits import stored_bits
from ..errors import UsageError, quoted
from .quantised_weights import can_wait, is_weight
from .rewriter import Rewriter, sources

PACKED = {"int8": 8, "int4": 4}  # bits, by what weights are to be
OF_TABLES = 8  # bits of a table that is looked up and multiplied with: see docs/language-models.md
BLOCK = 32  # weights that share a scale where nobody else said how many

Reader = tuple[Node, int]  # and the number of the operand


@dataclass(frozen=True)
class Stored:
    """A tensor of weights as numbers.

    blocks: by dimension how many successive weights share a scale; 1: each has its own, 0: all share it.
    numbers: uint8, or `StoredBits`, in the tensor's shape, made when they are wanted, as they take memory.
    scales, zeros: one dimension for each of the tensor's, where all share it of one element.
    """

    tensor: str
    shape: tuple[int, ...]
    kind: Kind
    blocks: tuple[int, ...]
    numbers: Callable[[], Array]
    scales: Array
    zeros: Array | None = None
    made_by: tuple[Node, ...] = ()


def keep_packed(graph: Graph) -> Graph:
    """What the graph dequantises of constants of 8 bits or fewer, and only products and look-ups read: they
    read the words. What `keep_quantised` keeps in 8 bits is left to it."""
    found: dict[str, tuple[Stored, Words]] = {}
    taken: set[int] = set()
    for node in graph.nodes:
        if not is_weight(graph, node):
            continue
        readers = _readers(graph, node.output, taken)
        stored = _stored(graph, node)
        if stored is None or (stored.kind.bits == 8 and all(can_wait(graph, node, r, j) for r, j in readers)):
            continue
        how = _how(stored, readers)
        if how is not None:
            found[node.output] = stored, how
            taken |= {id(reader) for reader, _ in readers}
    return _in_words(graph, found)


def pack_floats(graph: Graph, bits: int) -> Graph:
    """The f32 weights in blocks of BLOCK numbers of so many bits about 0, with scales in f16.

    A weight is a constant with two dimensions or more that only products and look-ups read, and a product
    among them: rows that are only looked up may be angles or places, which a few bits do not tell apart. One
    that is looked up, too, has OF_TABLES bits at least: as a decoder's first layer and its last it counts
    twice. What cannot be cut in words stays as it is. Raises UsageError where a weight is too large.
    """
    found: dict[str, tuple[Stored, Words]] = {}
    results, taken = set(graph.results), set[int]()
    for name in graph.constants:
        t = graph.tensors[name]
        if t.dtype != F32 or sum(n > 1 for n in t.shape) < 2 or name in results:
            continue
        readers = _readers(graph, name, taken)
        if not any(node.op.linear_in(operand) for node, operand in readers):
            continue
        own = max(bits, OF_TABLES) if any(node.op.looked_up for node, _ in readers) else bits
        for dim in reversed(range(len(t.shape))):
            blocks = tuple(BLOCK if d == dim else 1 for d in range(len(t.shape)))
            kind = Kind(own, 1 << (own - 1), F16, F32)
            plan = Stored(name, t.shape, kind, blocks, lambda: np.zeros(0), np.zeros(0))
            how = _how(plan, readers)
            if how is not None:
                scales, numbers = _rounded(name, graph.constants[name], how)
                found[name] = replace(plan, scales=scales, numbers=numbers), how
                taken |= {id(node) for node, _ in readers}
                break
    return _in_words(graph, found)


def _readers(graph: Graph, tensor: str, taken: Set[int]) -> list[Reader]:
    """What reads a tensor; [] where one of these reads other weights in words."""
    readers = [(graph.nodes[i], operand) for i, operand in graph.readers.get(tensor, ())]
    return [] if any(id(node) in taken for node, _ in readers) else readers


# -- how ---------------------------------------------------------------------------------------
def _how(stored: Stored, readers: Sequence[Reader]) -> Words | None:
    """How all readers can read the words; None: they cannot."""
    if not readers or any(node.inputs.count(stored.tensor) > 1 for node, _ in readers):
        return None
    each = count(stored.kind.bits)
    in_blocks = [d for d, n in enumerate(stored.blocks) if n > 1]
    shared = [d for d, n in enumerate(stored.blocks) if n == 0 and stored.shape[d] > 1]
    if len(in_blocks) > 1:
        return None
    for dim in in_blocks or reversed(shared):
        allowed = [block_of(node.op, operand, dim, stored.blocks[dim]) for node, operand in readers]
        block = gcd(*allowed)
        if all(allowed) and block % each == 0:
            scaled = tuple(n > 0 for n in stored.blocks)
            zero_type = None if stored.zeros is None else U8
            return Words(stored.kind, dim, block if stored.blocks[dim] else 0, scaled, zero_type)
    return None


def _in_words(graph: Graph, found: dict[str, tuple[Stored, Words]]) -> Graph:
    """The graph with these weights in words; what made them is gone."""
    if not found:
        return graph
    r = Rewriter(graph)
    names = {tensor: _constants(r, *one) for tensor, one in found.items()}
    for node in graph.nodes:
        if node.output in found:
            continue
        for operand, tensor in enumerate(node.inputs):
            if tensor in found:
                stored, how = found[tensor]
                op, inputs = node.op.in_words(operand, how, names[tensor], node.inputs)
                node = Node(op, inputs, node.output, sources(*stored.made_by, node))
                break
        r.nodes.append(node)
    for tensor in found.keys() & graph.constants.keys():
        del r.constants[tensor]
    return r.finish()


def _constants(r: Rewriter, stored: Stored, how: Words) -> tuple[str, ...]:
    """The words, scales and zero points."""
    name, dim, bits = stored.tensor, how.dim, stored.kind.bits
    numbers = stored.numbers()
    if (lack := lacking([numbers])) is not None:
        shape = tuple(n // count(bits) if d == dim else n for d, n in enumerate(stored.shape))
        words = folded(lack, f"{name}_words", shape, WORD.numpy)
    else:
        stored_as = stored_bits(numbers)
        words = packed(numbers, dim, bits) if stored_as is None else stored_as.words(dim)
    out = [r.constant(words, f"{name}_words")]
    for what, values in (("scales", stored.scales), ("zeros", stored.zeros)):
        if values is not None:
            out.append(r.constant(_finer(f"{name}_{what}", values, stored, how), f"{name}_{what}"))
    return tuple(out)


def _finer(name: str, values: Array, stored: Stored, how: Words) -> Array:
    """One value for each block of `how`, of values of the longer blocks that are stored."""
    blocks = stored.shape[how.dim] // how.block if how.block else 1
    if values.shape[how.dim] == blocks:
        return values
    shape = tuple(blocks if d == how.dim else n for d, n in enumerate(values.shape))
    if (lack := lacking([values])) is not None:
        return folded(lack, name, shape, values.dtype)
    longer = np.repeat(values, stored.blocks[how.dim] // how.block, axis=how.dim)
    return np.ascontiguousarray(longer.take(range(blocks), axis=how.dim))


# -- what a graph dequantises --------------------------------------------------------------------
def _stored(graph: Graph, node: Node) -> Stored | None:
    """What a node dequantises; None where it is of no kind that can be packed."""
    op = node.op
    number, scale, *zero = (graph.constants[t] for t in node.inputs)
    dtype, scale_type = op.in_types[:2]
    blocks = _blocks(node)
    if dtype.bits not in PLACES or dtype.is_float or not scale_type.is_float or blocks is None:
        return None
    shape = graph.tensors[node.output].shape
    at_hand = lacking([scale]) is None
    if at_hand and not np.isfinite(scale.astype(np.float32)).all():
        return None
    half = 1 << (dtype.bits - 1) if dtype.kind == "i" else 0
    kept = tuple(n > 0 for n in blocks)
    scales = _by_dimension(node, 1, scale, kept)
    point, zeros = half, None
    if zero and zero[0].size == 1 and lacking(zero) is None:
        point = half + int(zero[0].astype(np.int32).reshape(()))
    elif zero:
        zeros = _by_dimension(node, 2, _unsigned(zero[0], half), kept)
        if lacking([zeros]) is None:
            zeros = np.ascontiguousarray(np.broadcast_to(zeros, scales.shape))

    def numbers() -> Array:
        if (lack := lacking([number])) is not None:
            return folded(lack, node.output, graph.tensors[node.output].shape, np.dtype(np.uint8))
        if stored_bits(number) is not None and not half and op.reads[0] == op.write and number.shape == shape:
            return number
        seen = gather(_unsigned(number, half), op.reads[0], op.axes, 0)
        return assemble(np.broadcast_to(seen, [n for _, n in op.axes]), op.write, op.axes)

    kind = Kind(dtype.bits, point, scale_type, op.out_type)
    return Stored(node.output, shape, kind, blocks, numbers, scales, zeros, (node,))


def _unsigned(numbers: Array, half: int) -> Array:
    """uint8: numbers of a signed type, `half` more, or of an unsigned one."""
    if (lack := lacking([numbers])) is not None:
        return folded(lack, "unsigned", numbers.shape, np.dtype(np.uint8))
    return numbers.astype(np.int8 if half else np.uint8).view(np.uint8) + np.uint8(half)


def _blocks(node: Node) -> tuple[int, ...] | None:
    """`Stored.blocks` of what a node dequantises; None where its accesses are of no such form."""
    op = node.op
    sizes = op.size
    if any(e.const or len(e.terms) > 1 or any(c != 1 for _, c in e.terms) for r in op.reads[1:] for e in r):
        return None
    scaled = {a for a in access_axes(op.reads[1]) if sizes[a] > 1}
    if any(set(access_axes(r)) - set(access_axes(op.reads[1])) for r in op.reads[2:]):
        return None
    out: list[int] = []
    for e in op.write:
        live = sorted(((a, c) for a, c in e.terms if sizes[a] > 1), key=lambda t: t[1])
        if e.const or (live and live[0][1] != 1) or len(live) > 2:
            return None
        if len(live) == 2 and live[1][1] != sizes[live[0][0]]:
            return None
        own = [a in scaled for a, _ in live]
        out.append(live[1][1] if own == [False, True] else int(any(own)))
    return tuple(out)


def _by_dimension(node: Node, operand: int, values: Array, kept: Sequence[bool]) -> Array:
    """Scales or zero points with one dimension for each of the result's."""
    op = node.op
    read = op.reads[operand]
    if (lack := lacking([values])) is not None:
        shape = [_extent(node, read, d) if wide else 1 for d, wide in enumerate(kept)]
        return folded(lack, f"{node.output}_{operand}", shape, values.dtype)
    seen = gather(values, read, op.axes, 0)
    sizes = dict(zip((a for a, _ in op.axes), seen.shape, strict=True))
    order = [a for e in op.write for a in e.axes]
    order += [a for a, _ in op.axes if a not in order]
    number = {a: i for i, (a, _) in enumerate(op.axes)}
    shape = [int(np.prod([sizes[a] for a in e.axes], dtype=np.int64)) for e in op.write]
    return np.ascontiguousarray(seen.transpose([number[a] for a in order]).reshape(shape))


def _extent(node: Node, read: Access, dim: int) -> int:
    used = set(access_axes(read))
    return int(np.prod([node.op.size[a] for a in node.op.write[dim].axes if a in used], dtype=np.int64))


# -- what is rounded here ------------------------------------------------------------------------
def _rounded(name: str, value: Array, how: Words) -> tuple[Array, Callable[[], Array]]:
    """The scales (f16) of f32 weights, and what makes the numbers."""
    dim, half = how.dim, 1 << (how.kind.bits - 1)
    blocks = value.shape[dim] // how.block
    if (lack := lacking([value])) is not None:
        shape = tuple(blocks if d == dim else n for d, n in enumerate(value.shape))
        scales = folded(lack, f"{name}_scales", shape, F16.numpy)
        return scales, lambda: folded(lack, f"{name}_numbers", value.shape, np.dtype(np.uint8))
    rows = np.moveaxis(value, dim, -1)
    rows = rows.reshape(*rows.shape[:-1], blocks, how.block)
    scale = _scales(rows, half)
    if not np.isfinite(scale).all():
        largest = float(np.abs(value).max())
        raise UsageError(
            f"--weights int{how.kind.bits}: {quoted(name)} holds {largest:g}, scales in f16 end at 65504; "
            "try --weights bf16"
        )

    def numbers() -> Array:
        flat = (_nearest(rows, scale, half) + half).astype(np.uint8).reshape(*rows.shape[:-2], -1)
        return np.ascontiguousarray(np.moveaxis(flat, -1, dim))

    return np.ascontiguousarray(np.moveaxis(scale, -1, dim)), numbers


def _nearest(rows: Array, scale: Array, half: int) -> Array:
    """f32: the numbers -half to half - 1 times the scale of each row that are nearest to its elements."""
    with np.errstate(divide="ignore"):
        inverse = np.where(scale == 0, np.float32(0), np.float32(1) / scale.astype(np.float32))
    return np.clip(np.rint(rows * inverse[..., None]), -half, half - 1)


def _scales(rows: Array, half: int) -> Array:
    """f16: for each row the scale, of two, with the lesser square error: the element farthest from 0 is -half
    or half - 1 times it."""
    farthest = np.abs(rows).argmax(-1)[..., None]
    extreme = np.take_along_axis(rows, farthest, -1)[..., 0]
    found: list[tuple[Array, Array]] = []
    for number in (-half, half - 1):
        with np.errstate(over="ignore", invalid="ignore"):
            scale = (extreme / np.float32(number)).astype(np.float16)
            off = rows - _nearest(rows, scale, half) * scale.astype(np.float32)[..., None]
        found.append((scale, np.einsum("...k,...k->...", off, off)))
    (low, worse), (high, better) = found
    return np.where(better < worse, high, low)
