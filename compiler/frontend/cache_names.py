"""Key and value caches by the names that exporters give them, and which of a model's dimensions grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from ..errors import UsageError, quoted

PASTS = ("past_key_values", "past")  # what names of caches begin with, and their presents with "present"


def named_pairs(graph: onnx.GraphProto) -> tuple[tuple[str, str], ...]:
    """Inputs and outputs that are caches by their names: past_key_values.0.key and present.0.key."""
    outputs = {o.name for o in graph.output}
    out: list[tuple[str, str]] = []
    for v in graph.input:
        for start in PASTS:
            present = "present" + v.name.removeprefix(start)
            if v.name.startswith(start) and present in outputs:
                out.append((v.name, present))
                break
    return tuple(out)


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
    for v in sorted(graph.input, key=lambda v: v.name != "input_ids"):
        t = v.type.tensor_type
        if t.elem_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32) and len(t.shape.dim) == 2:
            last = t.shape.dim[1]
            return last.dim_value or dims.get(last.dim_param, 1)
    return 1
