"""What a compile asks for by itself: a decoder whose caches grow needs no options.

Whatever is not asked for is taken from the model: one text at a time, an entry for a chunk of a prompt and
one for a token, and caches of as many positions as the model was made for, or as fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from ..errors import shown
from ..frontend import cache_names
from ..request import Request

PREFILL, DECODE = "prefill", "decode"  # the entries of a decoder
CHUNKS = (32, 8)  # tokens of a prompt that are taken together, if they fit
UNTOLD = 2048  # positions of a model that nobody says anything of
LEAST = 16  # positions below which caches are of no use
TRIES = 4  # capacities that are tried, each half of the one before
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Choice:
    """A request, with what was left open decided. said: that in words, "" where all was asked for.

    guessed: whether the capacity is a guess, which the model may refuse.
    """

    request: Request
    said: str = ""
    guessed: bool = False


def choices(graph: onnx.GraphProto, asked: Request, context: int | None) -> Sequence[Choice]:
    """What may be asked for in place of `asked`, best first: the first that fits is to be taken.

    graph: of the model, for the names and shapes of its ends. context: positions that it was made for, None
    where nothing says. Only `asked` itself, unless the model is a decoder with caches that grow.
    """
    ids = next((v for v in graph.input if v.name == cache_names.IDS), None)
    given = {*asked.shapes, *asked.values}
    if ids is None or ids.name in given or len(ids.type.tensor_type.shape.dim) != 2:
        return (Choice(asked),)
    pairs = cache_names.caches(graph, asked.states)
    if any(past in given for past, _ in pairs) or not cache_names.growing(graph, pairs, asked.dims):
        return (Choice(asked),)
    batch, tokens = (d.dim_param for d in ids.type.tensor_type.shape.dim)
    bound = {*asked.dims, *(name for own in asked.entries.values() for name in own)}
    plain = asked
    if batch and batch not in bound:
        plain = replace(plain, dims={**plain.dims, batch: 1})
    if any(v.name == cache_names.BRANCH for v in graph.input) and cache_names.BRANCH not in asked.values:
        plain = replace(plain, values={**plain.values, cache_names.BRANCH: [True]})
    opened = tokens if tokens and not asked.entries and tokens not in bound else ""
    sizes = _sizes(asked, _position_bytes(graph, pairs), context)
    made = [_choice(asked, plain, n, opened, chunk, context) for n, chunk in _tried(sizes, bool(opened))]
    return tuple({choice.said: choice for choice in made}.values())


@dataclass(frozen=True)
class Ends:
    """The graphs of an encoder and its decoder, for what they read and give. source: as `Apart` has it."""

    encoder: onnx.GraphProto
    decoder: onnx.GraphProto
    source: tuple[int, ...] = ()


def pair_choices(ends: Ends, asked: Request, context: int | None) -> Sequence[Choice]:
    """As `choices`, for an encoder and its decoder: one text at a time, one token a call, and as many
    positions of the source as of what is made of it."""
    pairs = cache_names.caches(ends.decoder, ())
    cache = cache_names.growing(ends.decoder, pairs, asked.dims)
    made: list[Choice] = []
    for n in _sizes(asked, _position_bytes(ends.decoder, pairs), context):
        dims = dict(asked.dims)
        for shape, sizes in _open_shapes(ends, n):
            dims |= {d: k for d, k in zip(shape, sizes, strict=False) if d and d not in dims}
        dims.pop(cache, None)
        own = [f"--dim {shown(d)}={k}" for d, k in dims.items() if d not in asked.dims]
        if asked.capacity is None:
            own.append(f"--capacity {n} ({_reason(n, context)})")
        said = f"an encoder and its decoder, taken with {' '.join(own)}" if own else ""
        request = replace(asked, dims=dims, capacity=n)
        made.append(Choice(request, said, asked.capacity is None and context is None))
    return tuple({choice.said: choice for choice in made}.values())


def _open_shapes(ends: Ends, source: int) -> Iterator[tuple[list[str], tuple[int, ...]]]:
    """The symbols of the inputs of tokens or sounds, and what they are to be."""
    for v in ends.encoder.input:
        shape = [d.dim_param for d in v.type.tensor_type.shape.dim]
        if len(shape) == 2:
            yield shape, (1, source)
        elif len(shape) == 3:
            yield shape, (1, *ends.source)
    for v in ends.decoder.input:
        if v.name == cache_names.IDS:
            yield [d.dim_param for d in v.type.tensor_type.shape.dim], (1, 1)


def _tried(sizes: Sequence[int], chunked: bool) -> Iterator[tuple[int, int]]:
    """(capacity, tokens of a chunk) in the order in which they are tried."""
    if chunked:
        yield sizes[0], min(CHUNKS[0], sizes[0] // 2)
        for n in sizes:
            yield n, min(CHUNKS[-1], n // 2)
    for n in sizes:
        yield n, 1


def _sizes(asked: Request, position_bytes: int, context: int | None) -> Sequence[int]:
    """Capacities: the one that was asked for; else the context, or what all SRAM has room for, and less."""
    if asked.capacity is not None:
        return (asked.capacity,)
    wafer = asked.machine()
    room = wafer.cores * wafer.sram_bytes // max(1, position_bytes)
    n = min(context or UNTOLD, max(LEAST, room))
    return [k for k in (n >> i for i in range(TRIES)) if k >= min(LEAST, n)]


def _position_bytes(graph: onnx.GraphProto, pairs: Sequence[tuple[str, str]]) -> int:
    """Bytes that a position takes in all caches, as far as the model says."""
    pasts = {past for past, _ in pairs}
    shapes = [v.type.tensor_type.shape.dim for v in graph.input if v.name in pasts]
    return sum(FLOAT_BYTES * math.prod(max(1, d.dim_value) for d in shape) for shape in shapes)


def _choice(
    asked: Request, plain: Request, capacity: int, opened: str, chunk: int, context: int | None
) -> Choice:
    """One request. opened: the dimension of tokens where that is left to us, "" where not."""
    entries: Mapping[str, Mapping[str, int]] = asked.entries
    if opened:
        sizes = {PREFILL: chunk, DECODE: 1} if chunk > 1 else {DECODE: 1}
        entries = {name: {opened: n} for name, n in sizes.items()}
    request = replace(plain, entries=entries, capacity=capacity)
    words = [f"--dim {shown(name)}=1" for name in plain.dims if name not in asked.dims]
    words += [f"--value {name}=[true]" for name in plain.values if name not in asked.values]
    words += [f"--entry {e}:{shown(d)}={n}" for e, own in entries.items() if opened for d, n in own.items()]
    if asked.capacity is None:
        words.append(f"--capacity {capacity} ({_reason(capacity, context)})")
    said = f"a decoder with caches, taken with {' '.join(words)}" if words else ""
    return Choice(request, said, asked.capacity is None and context is None)


def _reason(capacity: int, context: int | None) -> str:
    """Why the caches have that capacity."""
    if context is None:
        return "as no configuration says the model's context"
    return (
        "the model's context" if capacity >= context else f"what fits of the model's context of {context:,}"
    )
