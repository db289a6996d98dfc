"""Key and value caches by the names that exporters give them, and which of a model's dimensions grow."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx

from ..errors import UsageError, quoted

IDS = "input_ids"
BRANCH = "use_cache_branch"  # of merged decoders: whether there are caches
PASTS = ("past_key_values", "past")  # what names of caches begin with, and their presents with "present"


def named_pairs(graph: onnx.GraphProto) -> tuple[tuple[str, str], ...]:
    """Inputs and outputs that are caches by their names: past_key_values.0.key and present.0.key."""
    outputs = {o.name for o in graph.output}
    named = ((v.name, present_of(v.name, outputs)) for v in graph.input)
    return tuple((past, present) for past, present in named if present)


def present_of(past: str, outputs: Collection[str] | None = None) -> str:
    """What a past's present is called; "" for what is no past by its name. outputs: of the model, if it must
    be one of them."""
    for start in PASTS:
        present = "present" + past.removeprefix(start)
        if past.startswith(start) and (outputs is None or present in outputs):
            return present
    return ""


def caches(graph: onnx.GraphProto, states: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The states that were asked for, and those with the usual names.

    Of a decoder behind an encoder without the keys and values of the encoder's states, which are as long as
    that's text: what has a dimension that the caches which grow do not have.
    """
    found = [*states, *(p for p in named_pairs(graph) if p not in states)]
    shapes = {v.name: v.type.tensor_type.shape.dim for v in (*graph.input, *graph.output)}

    def symbols(name: str) -> set[str]:
        return {d.dim_param for d in shapes.get(name, ()) if d.dim_param}

    ends = [{*symbols(past)} for past, present in found if symbols(past) != symbols(present)]
    known = set[str]().union(*ends)
    return [p for p in found if not ends or p in states or symbols(p[0]) <= known]


def growing(graph: onnx.GraphProto, pairs: Sequence[tuple[str, str]], dims: Mapping[str, int]) -> str:
    """The symbol of the caches' length, one for all of them; "" where the model has fixed lengths.

    A dimension of a past that is not bound and that its present does not share.
    """
    shapes = {v.name: v.type.tensor_type.shape.dim for v in (*graph.input, *graph.output)}
    found: dict[str, str] = {}
    for past, present in pairs:
        if past not in shapes or present not in shapes:
            continue  # `graph_of` says so
        kept = [d.dim_param for d in shapes[present]]
        for i, d in enumerate(shapes[past]):
            if d.dim_param and d.dim_param not in dims and (i >= len(kept) or kept[i] != d.dim_param):
                found[d.dim_param] = past
    if len(found) > 1:
        (a, x), (b, y) = list(found.items())[:2]
        raise UsageError(
            f"--capacity: caches {quoted(x)} and {quoted(y)} grow by dimensions of their own, "
            f"{quoted(a)} and {quoted(b)}; bind one with --dim"
        )
    return next(iter(found), "")


def totals(
    graph: onnx.GraphProto, symbol: str, dims: Mapping[str, int]
) -> tuple[list[str], list[tuple[str, int]]]:
    """Unbound symbols that stand for the past and the new positions together, by their names, and the
    inputs (with the dimension) that have them: an attention mask."""
    shapes = [(v.name, v.type.tensor_type.shape.dim) for v in graph.input]
    places = [(n, d, p.dim_param) for n, shape in shapes for d, p in enumerate(shape)]
    found = {p for _, _, p in places if p not in {"", symbol, *dims} and (symbol in p or "total" in p)}
    return sorted(found), [(n, d) for n, d, p in places if p in found]


def new_rows(graph: onnx.GraphProto, dims: Mapping[str, int]) -> int:
    """How many tokens a call takes: the last dimension of `input_ids`, else of the first input of integers;
    1 where it is open."""
    for v in sorted(graph.input, key=lambda v: v.name != IDS):
        t = v.type.tensor_type
        if t.elem_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32) and len(t.shape.dim) == 2:
            last = t.shape.dim[1]
            return last.dim_value or dims.get(last.dim_param, 1)
    return 1
