"""Activations, products and convolutions as onnxruntime's optimizers join them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..dtypes import F16, F32, F64, I32, I64, U32, U64
from ..graph import InvalidModel, Unsupported
from ..rules import REGISTRY, GraphBuilder, Spec
from .activation import Gelu
from .contract import Contract, product_of, scaled
from .contrib import FLOATS, OPSET, Maybe, Writer, contrib, need, operand, shaped
from .elementwise import Add, Mul, Sqrt, Sub
from .rearrange import reshape, slice_axis, transpose
from .reduce import reduce_over

T = {"T": FLOATS}
NUMBERS = {"T": (F16, F32, F64, I32, I64, U32, U64)}


# -- activations ----------------------------------------------------------------------------
def _with_bias(w: Writer, x: str, bias: str) -> str:
    x = w.wide(x)
    if not bias:
        return x
    shaped(w.g, bias, w.g.shape(x)[-1] if w.g.shape(x) else None, name="the bias")
    return w.apply(Add, x, w.wide(bias))


@contrib("Gelu", "X:T -> Y:T", T)
def _gelu(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    return [Writer(g, spec.outputs[0]).apply(Gelu, spec.inputs[0])]


@contrib("BiasGelu", "A:T B:T -> C:T", T)
def _bias_gelu(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w = Writer(g, spec.outputs[0])
    return [w.apply(Gelu, _with_bias(w, *spec.inputs))]


@contrib("FastGelu", "X:T bias:T? -> Y:T", T)
def _fast_gelu(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w = Writer(g, spec.outputs[0])
    return [w.apply(Gelu, _with_bias(w, spec.inputs[0], operand(spec, 1)), approximate="tanh")]


@contrib("BiasAdd", "X:T bias:T skip:T -> Y:T", T)
def _bias_add(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w = Writer(g, spec.outputs[0])
    x, bias, skip = spec.inputs
    need(g.shape(skip) == g.shape(x), f"BiasAdd of {g.tensors[x]} and {g.tensors[skip]}")
    return [w.apply(Add, _with_bias(w, x, bias), w.wide(skip))]


@contrib("BiasSplitGelu", "X:T bias:T -> Y:T", T)
def _bias_split_gelu(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """The first half of the last dimension times Gelu of the second."""
    w = Writer(g, spec.outputs[0])
    x = _with_bias(w, *spec.inputs)
    last = len(g.shape(x)) - 1
    half, odd = divmod(g.shape(x)[-1] if last >= 0 else 1, 2)
    need(not odd, f"BiasSplitGelu of {g.tensors[x]}: its last dimension is odd")
    left, right = (slice_axis(g, x, last, i * half, half, w.hint) for i in (0, 1))
    return [w.apply(Mul, left, w.apply(Gelu, right))]


# What an activation's parameters are called, in the order in which fused operators list them.
PARAMETERS: dict[str, tuple[str, ...]] = {
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "LeakyRelu": ("alpha",),
    "ThresholdedRelu": ("alpha",),
    "Elu": ("alpha",),
    "Celu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Selu": ("alpha", "gamma"),
    "Clip": ("min", "max"),
}


def activated(w: Writer, x: str, kind: str, given: Sequence[float | None]) -> str:
    """An activation that an attribute names; "" is none. given: its parameters."""
    if not kind:
        return x
    names = PARAMETERS.get(kind)
    if names is None:
        raise Unsupported(f"activation {kind!r}; known are {', '.join(PARAMETERS)}")
    values = [float(v) for v in given if v is not None]
    if len(values) != len(names):
        raise InvalidModel(f"activation {kind} takes {len(names)} parameters, not {len(values)}")
    if kind == "Clip":
        return w("Clip", x, *(w.number(v, x) for v in values))
    return w(kind, x, **dict(zip(names, values, strict=True)))


# -- products -------------------------------------------------------------------------------
def _fused_product(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """alpha times the product of both, each transposed as its attributes say.

    transBatch: the first dimension is the rows', those after it are the batch's.
    """
    w, own = Writer(g, spec.outputs[0]), spec.attributes
    factors: list[tuple[str, list[str]]] = []
    for t, side, inner, outer in ((spec.inputs[0], "A", "k", "m"), (spec.inputs[1], "B", "n", "k")):
        rank = len(g.shape(t))
        need(rank > 0, f"{spec.op_type} of the scalar {g.tensors[t]}")
        if own.get(f"transBatch{side}") and rank > 1:
            t = transpose(g, t, [*range(1, rank - 1), 0, rank - 1], w.hint)
        names = [outer, inner] if rank > 1 else ["k"]
        factors.append((t, names[::-1] if own[f"trans{side}"] and rank > 1 else names))
    out = product_of(g, factors[0], factors[1], w.hint, g.dtype(spec.inputs[0]).wide)
    return [scaled(g, out, own["alpha"])]


_TRANSPOSED = {"alpha": 1.0, "transA": 0, "transB": 0}
contrib("FusedMatMul", "A:T B:T -> Y:T", T, {**_TRANSPOSED, "transBatchA": 0, "transBatchB": 0})(
    _fused_product
)
contrib("TransposeMatMul", "A:T B:T -> Y:T", T, _TRANSPOSED)(_fused_product)


@contrib("FusedGemm", "A:T B:T C:T? -> Y:T", NUMBERS, {
    **_TRANSPOSED, "beta": 1.0, "activation": "", "activation_alpha": Maybe(float),
    "activation_beta": Maybe(float), "activation_gamma": Maybe(float),
})  # fmt: skip
def _fused_gemm(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    w, own = Writer(g, spec.outputs[0]), dict(spec.attributes)
    kind = own.pop("activation")
    given = {name: own.pop(f"activation_{name}") for name in ("alpha", "beta", "gamma")}
    out = REGISTRY["", "Gemm"].rule(g, replace(spec, op_type="Gemm", attributes=own, opset=OPSET))[0]
    return [activated(w, out, kind, [given.get(name) for name in PARAMETERS.get(kind, ())])]


_SIZES = Maybe(list, int)
WINDOW = {
    "auto_pad": "NOTSET", "dilations": _SIZES, "group": 1, "kernel_shape": _SIZES, "pads": _SIZES,
    "strides": _SIZES,
}  # fmt: skip


@contrib("FusedConv", "X:T W:T B:T? Z:T? -> Y:T", {"T": (F16, F32, F64)},
         {**WINDOW, "activation": "", "activation_params": Maybe(list, float)})  # fmt: skip
def _fused_conv(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """The convolution, Z added, and then the activation."""
    w, own = Writer(g, spec.outputs[0]), dict(spec.attributes)
    kind, given = own.pop("activation"), own.pop("activation_params")
    inputs = tuple(operand(spec, i) for i in range(3))
    out = REGISTRY["", "Conv"].rule(
        g, replace(spec, op_type="Conv", inputs=inputs, attributes=own, opset=OPSET)
    )[0]
    if z := operand(spec, 3):
        need(g.shape(z) == g.shape(out), f"FusedConv adds {g.tensors[z]} to {g.tensors[out]}")
        out = w.apply(Add, out, z)
    return [activated(w, out, kind, given or [])]


@contrib("CDist", "A:T B:T -> C:T", {"T": (F32, F64)}, {"metric": "sqeuclidean"})
def _distances(g: GraphBuilder, spec: Spec) -> Sequence[str]:
    """The distance of each row of A from each row of B, or its square."""
    w, (a, b) = Writer(g, spec.outputs[0]), spec.inputs
    rows, width = shaped(g, a, None, None, name="A")
    columns = shaped(g, b, None, width, name="B")[0]
    metric = spec.attributes["metric"]
    if metric not in ("sqeuclidean", "euclidean"):
        raise Unsupported(f"metric {metric!r}")
    apart = w.apply(Sub, reshape(g, a, (rows, 1, width), w.hint), reshape(g, b, (1, columns, width), w.hint))
    squares = reduce_over(g, Contract, apart, [2], w.hint, keep=False)
    return [w.apply(Sqrt, squares) if metric == "euclidean" else squares]
