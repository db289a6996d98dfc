"""Steps of a random graph: families of operators. None where one does not suit the value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from growing import (
    BF16,
    BOOL,
    F16,
    F32,
    F64,
    FLOATS,
    I32,
    I64,
    SIGNED,
    Growing,
    Value,
)
from hypothesis import strategies as st
from onnx import helper

Step = Callable[[Growing, Value], Value | None]


def bounded(x: Value, most: float = 64.0) -> bool:
    """Whether a product of it stays far from what f16 can hold."""
    return x.bound <= most


# -- map --------------------------------------------------------------------------------
def alone(g: Growing, x: Value) -> Value | None:
    if x.kind == BOOL:
        return g.op("Not", x)
    if not x.floating:
        names = ["Abs", "Sign", *(["Neg"] if x.kind in SIGNED else []), "BitwiseNot"]
        return g.op(g.one_of(*names), x)
    exact = ["Neg", "Abs", "Relu"]
    jumping = ["Floor", "Ceil", "Round", "Sign"] if x.exact else []
    smooth = [
        "Sigmoid",
        "Tanh",
        "Erf",
        "Softplus",
        "Softsign",
        "HardSigmoid",
        "HardSwish",
        "Elu",
        "LeakyRelu",
    ]
    smooth += ["Sin", "Cos", "Atan", "Mish", "Gelu", "Selu", "Celu", "ThresholdedRelu" if x.exact else "Tanh"]
    kind = g.one_of(*exact, *jumping, *smooth)
    return g.op(kind, x, exact=kind in exact + jumping, bound=2 * x.bound)


def safe(g: Growing, x: Value) -> Value | None:
    """Functions that grow or have poles, where they do neither much."""
    if not x.floating:
        return None
    kind = g.one_of("Exp", "Log", "Sqrt", "Reciprocal", "Div", "Pow")
    if kind == "Exp":
        return g.op("Exp", g.op("Tanh", x))
    away = g.op("Add", g.op("Abs", x), g.constant(np.array(0.5).astype(g.numbers(x.kind, ()).dtype)))
    if kind == "Div":
        return g.op("Div", g.weight(x, x.shape[-1] if x.shape else 1), away)
    if kind == "Pow":
        return g.op(
            "Pow",
            away,
            g.constant(np.array(g.one_of(0.5, -1.0, 2.0)).astype(g.numbers(x.kind, ()).dtype)),
            bound=x.bound**2,
        )
    return g.op(kind, away, bound=x.bound)


def together(g: Growing, x: Value) -> Value | None:
    shape = [n if g.maybe() else 1 for n in x.shape][g.number(0, len(x.shape)) :]
    peers = [v for v in g.values if v.kind == x.kind and v.shape == x.shape]
    y = g.one_of(*peers) if peers and g.maybe() else g.weight(x, *shape)
    if x.kind == BOOL:
        return g.op(g.one_of("And", "Or", "Xor", "Equal"), x, y)
    if not bounded(x) or not bounded(y):
        return None
    names = ["Add", "Sub", "Mul", "Max", "Min"]
    names += [] if x.floating else ["BitwiseAnd", "BitwiseOr", "BitwiseXor"]
    kind = g.one_of(*names)
    return g.op(kind, x, y, exact=kind in ("Max", "Min"), bound=x.bound * max(y.bound, 2))


def compared(g: Growing, x: Value) -> Value | None:
    if not x.exact or x.kind == BOOL:
        return None
    mask = g.op(g.one_of("Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal"), x, g.weight(x))
    return g.op("Where", mask, x, g.weight(x), exact=True, bound=x.bound) if g.maybe() else mask


def divided(g: Growing, x: Value) -> Value | None:
    if x.floating or x.kind == BOOL:
        return None
    by = g.constant(np.array(g.number(1, 5)).astype(helper.tensor_dtype_to_np_dtype(x.kind)))
    return g.op("Mod", x, by) if g.maybe() else g.op("Div", x, by)


def cast(g: Growing, x: Value) -> Value | None:
    to = g.one_of(*FLOATS, I32, I64, BOOL) if x.exact else g.one_of(*FLOATS)
    if to not in FLOATS and not bounded(x, 1000):
        return None
    return g.op(
        "Cast", x, to=to, exact=to == F64 or (to == F32 and x.kind in (F16, BF16, BOOL)), bound=x.bound
    )


# -- reduce, normalise, order -------------------------------------------------------------
def reduced(g: Growing, x: Value) -> Value | None:
    if x.kind not in (F32, F16, F64, BF16, I32, I64) or not x.shape or 0 in x.shape or not bounded(x):
        return None
    axes = sorted(g.draw(st.sets(st.integers(0, len(x.shape) - 1), min_size=1)))
    kinds = ["ReduceSum", "ReduceMax", "ReduceMin"]
    kinds += (
        ["ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"] if x.floating else []
    )
    kind = g.one_of(*kinds)
    count = prod(x.shape[a] for a in axes)
    grown = x.bound if kind in ("ReduceMax", "ReduceMin", "ReduceMean") else count * x.bound**2
    return g.op(
        kind,
        x,
        g.whole(*axes),
        keepdims=g.number(0, 1),
        exact=kind in ("ReduceMax", "ReduceMin"),
        bound=grown,
    )


def best(g: Growing, x: Value) -> Value | None:
    if not x.exact or not x.shape or x.kind not in (F32, F64, I32) or 0 in x.shape:
        return None
    axis = g.number(-len(x.shape), len(x.shape) - 1)
    if g.maybe():
        return g.op(
            g.one_of("ArgMax", "ArgMin"),
            x,
            axis=axis,
            keepdims=g.number(0, 1),
            select_last_index=g.number(0, 1),
        )
    if x.kind == I32:
        return g.op("CumSum", x, g.constant(np.array(axis)), exclusive=g.number(0, 1), reverse=g.number(0, 1))
    k = g.number(1, x.shape[axis])
    return g.op("TopK", x, g.whole(k), outputs=2, axis=axis, largest=g.number(0, 1), exact=True)


def normalised(g: Growing, x: Value) -> Value | None:
    rank = len(x.shape)
    if not x.floating or not rank or 0 in x.shape or not bounded(x):
        return None
    kind = g.one_of("Softmax", "LogSoftmax", "LayerNormalization", "LpNormalization", "Image", "CumSum")
    axis = g.number(-rank, -1)
    if kind == "LayerNormalization":
        shape = x.shape[axis:]
        return g.op(kind, x, g.weight(x, *shape), g.weight(x, *shape), axis=axis, epsilon=0.1)
    if kind == "Image":
        if rank < 3:
            return None
        c = x.shape[1]
        if g.maybe():
            return g.op("InstanceNormalization", x, g.weight(x, c), g.weight(x, c), epsilon=0.1)
        more = [g.weight(x, c) for _ in range(3)]
        return g.op(
            "BatchNormalization", x, *more, g.constant(np.abs(g.numbers(x.kind, (c,)))), bound=8 * x.bound
        )
    if kind == "CumSum":
        return g.op(
            kind, x, g.constant(np.array(axis)), reverse=g.number(0, 1), bound=x.bound * x.shape[axis]
        )
    if kind == "LpNormalization":
        x = g.op("Add", g.op("Abs", x), g.weight(x)) if x.kind == F32 and g.maybe() else x
        return None if x.kind not in (F32, F64) or not x.exact else g.op(kind, x, axis=axis, p=g.number(1, 2))
    return g.op(kind, x, axis=axis, bound=16)


# -- contract, window, recur ----------------------------------------------------------------
def multiplied(g: Growing, x: Value) -> Value | None:
    if x.kind not in FLOATS or not x.shape or not bounded(x):
        return None
    n, k, m = g.number(1, 17), x.shape[-1], len(x.shape)
    grown = 4 * x.bound * max(k, 1)
    if m == 2 and g.maybe():
        a, b = g.number(0, 1), g.number(0, 1)
        inner = x.shape[0] if a else x.shape[1]
        if not inner:
            return None
        w = g.weight(x, n, inner) if b else g.weight(x, inner, n)
        return g.op(
            "Gemm", x, w, g.weight(x, n), transA=a, transB=b, alpha=0.5, beta=2.0, bound=4 * x.bound * inner
        )
    if m == 3 and g.maybe():
        return g.op("Einsum", x, g.weight(x, x.shape[0], k, n), equation="abk,akn->nab", bound=grown)
    return g.op("MatMul", x, g.weight(x, k, n), bound=grown)


def windowed(g: Growing, x: Value) -> Value | None:
    d = len(x.shape) - 2
    if not x.floating or d not in (1, 2) or 0 in x.shape or not bounded(x):
        return None
    kernel = [g.number(1, 3) for _ in range(d)]
    pads = [g.number(0, k - 1) for k in (*kernel, *kernel)]
    strides = [g.number(1, 3) for _ in range(d)]
    if any(n + a + b < k for n, k, a, b in zip(x.shape[2:], kernel, pads[:d], pads[d:], strict=True)):
        return None
    kind = g.one_of(
        "Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"
    )
    channels = x.shape[1]
    if kind.startswith("Global"):
        return g.op(kind, x, exact=kind == "GlobalMaxPool", bound=x.bound)
    space: dict[str, Any] = {"strides": strides, "pads": pads}
    grown = 4 * x.bound * channels * prod(kernel)
    if kind in ("Conv", "ConvTranspose"):
        group = g.one_of(*[i for i in range(1, channels + 1) if channels % i == 0])
        per = g.number(1, 4)
        if kind == "Conv":
            w = g.weight(x, group * per, channels // group, *kernel)
        else:
            w = g.weight(x, channels, per, *kernel)
            if any(
                (n - 1) * s + k - a - b < 1
                for n, s, k, a, b in zip(x.shape[2:], strides, kernel, pads[:d], pads[d:], strict=True)
            ):
                return None
        return g.op(
            kind, x, w, g.weight(x, group * per) if g.maybe() else None, group=group, **space, bound=grown
        )
    if kind == "AveragePool":
        space["count_include_pad"] = g.number(0, 1)
    if kind != "LpPool":
        space["ceil_mode"] = 0
    return g.op(kind, x, kernel_shape=kernel, exact=kind == "MaxPool", bound=x.bound * prod(kernel), **space)


def recurrent(g: Growing, x: Value) -> Value | None:
    if not x.floating or not 2 <= len(x.shape) <= 3 or 0 in x.shape or not bounded(x):
        return None
    if len(x.shape) == 2:
        x = g.op("Unsqueeze", x, g.whole(g.number(0, 1)), exact=True, bound=x.bound)
    kind, gates = g.one_of(("RNN", 1), ("GRU", 3), ("LSTM", 4))
    hidden, way = g.number(1, 5), g.one_of("forward", "reverse", "bidirectional")
    d = 2 if way == "bidirectional" else 1
    weights = [g.weight(x, d, gates * hidden, n) for n in (x.shape[2], hidden)]
    bias = g.weight(x, d, 2 * gates * hidden) if g.maybe() else None
    more = {"linear_before_reset": g.number(0, 1)} if kind == "GRU" else {}
    return g.op(kind, x, *weights, bias, hidden_size=hidden, direction=way, **more)


# -- control ----------------------------------------------------------------------------
def controlled(g: Growing, x: Value) -> Value | None:
    """A node with bodies: a branch by a value of x or of a constant, a loop, a scan along the first axis."""
    if x.kind not in (F32, F64, BF16, I32) or 0 in x.shape or not bounded(x):
        return None
    kind = g.one_of("If", "If", "Loop", *(["Scan"] if x.shape else []))
    whole = helper.make_tensor_type_proto(x.kind, x.shape)

    def body(name: str, nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> onnx.GraphProto:
        ends = [[helper.make_value_info(n, t) for n, t in some] for some in (inputs, outputs)]
        return helper.make_graph(nodes, name, *ends)

    if kind == "If":
        by = g.constant(np.array(g.maybe()))
        if x.exact and x.shape == () and g.maybe():
            by = g.op("Greater", x, g.weight(x))
        names = {"then_branch": g.one_of("Neg", "Abs"), "else_branch": g.one_of("Abs", "Identity")}
        bodies = {
            branch: body(branch, [helper.make_node(op, [x.name], ["out"])], [], [("out", whole)])
            for branch, op in names.items()
        }
        return g.node(kind, [by.name], [(x.kind, x.shape)], x.exact, x.bound, **bodies)
    if kind == "Loop":
        trips = g.number(0, 3)
        number, truth = (helper.make_tensor_type_proto(k, []) for k in (I64, BOOL))
        nodes = [
            helper.make_node("Identity", ["on"], ["still"]),
            helper.make_node(g.one_of("Max", "Min"), ["state", "other"], ["kept"]),
            helper.make_node("Neg", ["kept"], ["next"]),
            helper.make_node("Identity", ["next"], ["each"]),
        ]
        other = g.weight(x, *x.shape)
        nodes[1].input[1] = other.name
        inner = body(
            "body",
            nodes,
            [("i", number), ("on", truth), ("state", whole)],
            [("still", truth), ("next", whole), ("each", whole)],
        )
        ends = [(x.kind, x.shape), (x.kind, (trips, *x.shape))]
        return g.node(
            kind, [g.constant(np.array(trips)).name, "", x.name], ends, x.exact, x.bound, body=inner
        )
    row = helper.make_tensor_type_proto(x.kind, x.shape[1:])
    start = g.weight(x, *x.shape[1:])
    nodes = [
        helper.make_node(g.one_of("Max", "Min"), ["state", "row"], ["next"]),
        helper.make_node("Neg", ["next"], ["each"]),
    ]
    inner = body("body", nodes, [("state", row), ("row", row)], [("next", row), ("each", row)])
    ends = [(x.kind, x.shape[1:]), (x.kind, x.shape)]
    return g.node(kind, [start.name, x.name], ends, x.exact, x.bound, body=inner, num_scan_inputs=1)


# -- rearrange, index -------------------------------------------------------------------------
def rearranged(g: Growing, x: Value) -> Value | None:
    rank = len(x.shape)
    kind = g.one_of(
        "Transpose", "Reshape", "Unsqueeze", "Flatten", "Tile", "Expand", "Concat", "Split", "Trilu"
    )
    keep: dict[str, Any] = {"exact": True, "bound": x.bound}
    if kind == "Transpose" and rank:
        return g.op(kind, x, perm=list(g.draw(st.permutations(range(rank)))), **keep)
    if kind == "Unsqueeze":
        return g.op(kind, x, g.whole(g.number(0, rank)), **keep) if rank < 5 else None
    if kind == "Flatten":
        return g.op(kind, x, axis=g.number(0, rank), **keep)
    total = prod(x.shape)
    if kind == "Reshape":
        first = g.one_of(*[i for i in range(1, total + 1) if total % i == 0] or [1])
        return g.op(kind, x, g.whole(first, total // first), **keep)
    if not rank:
        return g.op("Expand", x, g.whole(g.number(1, 3), g.number(1, 4)), **keep)
    axis = g.number(0, rank - 1)
    if kind == "Tile":
        return g.op(kind, x, g.whole(*(g.number(1, 2) for _ in x.shape)), **keep)
    if kind == "Expand":
        return g.op(kind, x, g.whole(g.number(1, 2), *([1] * rank)), **keep) if rank < 5 else None
    if kind == "Concat":
        peers = [v for v in g.values if v.kind == x.kind and v.shape == x.shape]
        return g.op(kind, x, g.one_of(x, *peers), g.weight(x, *x.shape), axis=axis, **keep)
    if kind == "Split" and x.shape[axis] > 1:
        a = g.number(1, x.shape[axis] - 1)
        return g.op(kind, x, g.whole(a, x.shape[axis] - a), axis=axis, outputs=2, **keep)
    return g.op("Trilu", x, upper=g.number(0, 1), **keep) if rank > 1 and x.kind in (F32, F64, I64) else None


def cut(g: Growing, x: Value) -> Value | None:
    rank = len(x.shape)
    if not rank or 0 in x.shape:
        return None
    axis = g.number(0, rank - 1)
    n = x.shape[axis]
    keep: dict[str, Any] = {"exact": True, "bound": x.bound}
    kind = g.one_of(
        "Slice", "Pad", "Gather", "GatherElements", "ScatterElements", "Resize", "DepthToSpace", "OneHot"
    )
    if kind == "Slice":
        step = g.one_of(1, 2, -1, -3)
        ends = (g.number(0, n - 1), 999) if step > 0 else (g.number(0, n - 1), -999)
        return g.op(kind, x, *(g.whole(v) for v in (*ends, axis, step)), **keep)
    if kind == "Pad" and x.kind != BOOL:
        mode = g.one_of("constant", "edge", "reflect")
        most = [min(2, m - 1) if mode == "reflect" else 2 for m in x.shape]
        return g.op(kind, x, g.whole(*(g.number(0, m) for m in (*most, *most))), mode=mode, **keep)
    if kind == "Gather":
        index = places(g, n, [g.number(1, 3) for _ in range(g.number(0, 2))])
        return g.op(kind, x, index, axis=axis, **keep)
    if kind in ("GatherElements", "ScatterElements"):
        index = places(g, n, x.shape)
        if kind == "GatherElements":
            return g.op(kind, x, index, axis=axis, **keep)
        order = np.argsort(g.random.random(x.shape), axis=axis)  # each place at most once
        return g.op(kind, x, g.constant(order), g.weight(x, *x.shape), axis=axis, **keep)
    if kind == "Resize" and rank == 4 and x.kind == F32:
        scales = g.constant(np.array([1, 1, g.one_of(0.5, 1.5, 2), g.one_of(1, 2, 3)], np.float32))
        mode = g.one_of("nearest", "linear")
        return g.op(kind, x, None, scales, mode=mode, bound=x.bound) if min(x.shape[2:]) > 1 else None
    if kind == "DepthToSpace" and rank == 4 and x.floating and x.shape[1] % 4 == 0:
        return g.op(kind, x, blocksize=2, mode=g.one_of("DCR", "CRD"), **keep)
    if kind == "OneHot" and x.kind == I64 and rank < 4:
        return g.op(kind, x, g.whole(g.number(1, 5)), g.constant(np.array([-1, 2], np.float32)), axis=-1)
    return None


def places(g: Growing, n: int, shape: Sequence[int]) -> Value:
    return g.constant(np.asarray(g.random.integers(-n, n, shape)))


# -- quantise -----------------------------------------------------------------------------------
def quantised(g: Growing, x: Value) -> Value | None:
    if x.kind != F32 or not x.exact or 0 in x.shape:
        return None
    # Odd sixteenths over a quarter lie at quarters: never halfway between two integers.
    scale = g.constant(np.array(g.one_of(0.25, 1.0), np.float32))
    zero = g.constant(np.array(g.number(0, 9), g.one_of(np.int8, np.uint8)))
    q = g.op("QuantizeLinear", x, scale, zero)
    return g.op("DequantizeLinear", q, scale, zero, exact=True) if g.maybe() else q


STEPS: tuple[Step, ...] = (
    alone, safe, together, compared, divided, cast, reduced, best, normalised, multiplied, windowed,
    recurrent, recurrent, controlled, controlled, rearranged, cut, quantised,
)  # fmt: skip
