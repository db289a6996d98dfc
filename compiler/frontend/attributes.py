"""What a node's attributes may be: those of its operator, of their types, with values that mean something.

What a value means beside others, or beside a shape (an axis, a permutation, pads for each dimension), the
operator's rule judges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from onnx import AttributeProto, TensorProto, helper

from ..errors import shown
from .signatures import Signature

Values = Callable[[Any], bool]

MOST_DIMENSIONS = 64  # of any array


@dataclass(frozen=True)
class Domain:
    """The values of an attribute, or of each of its elements. says: what they are, in an error."""

    says: str
    holds: Values


def _one_of(*names: str) -> Domain:
    return Domain(f"one of {', '.join(names)}", lambda v: v in names)


# Sizes: products and sums of several stay within the 64 bits of an axis of ours.
LARGEST = 2**31 - 1
POSITIVE = Domain(f"from 1 to {LARGEST}", lambda v: 1 <= v <= LARGEST)
NOT_NEGATIVE = Domain(f"from 0 to {LARGEST}", lambda v: 0 <= v <= LARGEST)
FLAG = Domain("0 or 1", lambda v: v in (0, 1))
TYPE = Domain(
    "the number of an element type",
    lambda v: v != TensorProto.UNDEFINED and v in TensorProto.DataType.values(),
)
FLOAT_TYPE = Domain(
    "the number of float, float16, bfloat16 or double",
    lambda v: v in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE),
)
TYPE_OR_NONE = Domain("the number of an element type, or 0", lambda v: v in TensorProto.DataType.values())
FINITE = Domain("a finite number", math.isfinite)
NOT_BELOW_0 = Domain("a finite number of at least 0", lambda v: math.isfinite(v) and v >= 0)
ABOVE_0 = Domain("a finite number above 0", lambda v: math.isfinite(v) and v > 0)
PAIR = Domain("0 or 1", lambda v: v in (0, 1))
AXIS = Domain("an axis", lambda v: -MOST_DIMENSIONS <= v < MOST_DIMENSIONS)  # inference cuts it to 32 bits
AUTO_PAD = Domain(
    "one of NOTSET, SAME_UPPER, SAME_LOWER, VALID",
    lambda v: v in ("", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"),  # "" is written for NOTSET
)

FLAGS = (
    *("align_corners", "allowzero", "antialias", "broadcast", "ceil_mode", "center_point_box"),
    *(
        "count_include_pad",
        "detect_negative",
        "detect_positive",
        "directions",
        "exclude_outside",
        "exclusive",
    ),
    *(
        "fmod",
        "input_forget",
        "interleaved",
        "inverse",
        "is_case_sensitive",
        "is_causal",
        "is_test",
        "keepdims",
    ),
    *("largest", "layout", "linear_before_reset", "new_axis", "noop_with_empty_axes", "onesided"),
    *(
        "output_sequence",
        "periodic",
        "reverse",
        "saturate",
        "scan_input_directions",
        "scan_output_directions",
    ),
    *(
        "select_last_index",
        "sorted",
        "spatial",
        "storage_order",
        "training_mode",
        "transA",
        "transB",
        "upper",
    ),
    "zeros",
)
GENERAL: Mapping[str, Domain] = {
    **dict.fromkeys(FLAGS, FLAG),
    **dict.fromkeys(("strides", "dilations", "kernel_shape", "output_shape", "pooled_shape"), POSITIVE),
    **dict.fromkeys(("group", "offset_group", "num_groups", "blocksize", "size", "chunk_size"), POSITIVE),
    **dict.fromkeys(
        ("hidden_size", "num_outputs", "num_scan_inputs", "q_num_heads", "kv_num_heads"), POSITIVE
    ),
    **dict.fromkeys(("output_height", "output_width", "sample_size", "p"), POSITIVE),
    **dict.fromkeys(("pads", "output_padding", "sampling_ratio", "batch_dims", "block_size"), NOT_NEGATIVE),
    **dict.fromkeys(("num_heads", "rotary_embedding_dim"), NOT_NEGATIVE),
    **dict.fromkeys(("to", "dtype", "output_datatype"), TYPE),
    "stash_type": FLOAT_TYPE,
    **dict.fromkeys(("output_dtype", "precision", "softmax_precision"), TYPE_OR_NONE),
    **dict.fromkeys(("momentum", "low", "high", "mean", "scale", "seed", "cubic_coeff_a"), FINITE),
    **dict.fromkeys(("epsilon", "softcap", "ratio"), NOT_BELOW_0),
    **dict.fromkeys(("spatial_scale", "height_scale", "width_scale", "scales", "clip"), ABOVE_0),
    **dict.fromkeys(("time_axis", "batch_axis"), PAIR),
    **dict.fromkeys(("axis", "axes", "perm", "scan_input_axes", "scan_output_axes"), AXIS),
    "auto_pad": AUTO_PAD,
    "approximate": _one_of("none", "tanh"),
    "direction": _one_of("forward", "reverse", "bidirectional"),
    "keep_aspect_ratio_policy": _one_of("stretch", "not_larger", "not_smaller"),
    "nearest_mode": _one_of("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    "padding_mode": _one_of("zeros", "border", "reflection"),
    "round_mode": _one_of("up", "down", "nearest"),
    "qk_matmul_output_mode": Domain("0, 1, 2 or 3", lambda v: v in (0, 1, 2, 3)),
}
_FOLDS, _SCATTERS = _one_of("none", "mean", "sum"), _one_of("none", "add", "mul", "max", "min")
_POST = _one_of("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
_KERNELS = _one_of("LINEAR", "POLY", "RBF", "SIGMOID")
OWN: Mapping[tuple[str, str], Domain | None] = {
    # Of operators for which the name means something else; None: any value.
    ("BitShift", "direction"): _one_of("LEFT", "RIGHT"),
    ("Pad", "pads"): None,  # a negative one cuts
    ("Scaler", "scale"): None,
    ("Dropout", "seed"): None,
    ("Bernoulli", "seed"): FINITE,
    ("LpNormalization", "p"): Domain("1 or 2", lambda v: v in (1, 2)),
    ("DepthToSpace", "mode"): _one_of("DCR", "CRD"),
    ("SpaceToDepth", "mode"): _one_of("DCR", "CRD"),
    ("GridSample", "mode"): _one_of("bilinear", "nearest", "bicubic", "linear", "cubic"),
    ("Pad", "mode"): _one_of("constant", "reflect", "edge", "wrap"),
    ("Resize", "mode"): _one_of("nearest", "linear", "cubic"),
    ("Upsample", "mode"): _one_of("nearest", "linear"),
    ("RoiAlign", "mode"): _one_of("avg", "max"),
    ("TensorScatter", "mode"): _one_of("linear", "circular"),
    ("TfIdfVectorizer", "mode"): _one_of("TF", "IDF", "TFIDF"),
    ("Resize", "coordinate_transformation_mode"): _one_of(
        *("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"),
        *("tf_half_pixel_for_nn", "tf_crop_and_resize"),
    ),
    ("RoiAlign", "coordinate_transformation_mode"): _one_of("half_pixel", "output_half_pixel"),
    ("ScatterElements", "reduction"): _SCATTERS,
    ("ScatterND", "reduction"): _SCATTERS,
    ("NegativeLogLikelihoodLoss", "reduction"): _FOLDS,
    ("SoftmaxCrossEntropyLoss", "reduction"): _FOLDS,
    ("LinearClassifier", "post_transform"): _POST,
    ("LinearRegressor", "post_transform"): _POST,
    ("SVMClassifier", "post_transform"): _POST,
    ("SVMRegressor", "post_transform"): _POST,
    ("TreeEnsembleClassifier", "post_transform"): _POST,
    ("TreeEnsembleRegressor", "post_transform"): _POST,
    ("SVMClassifier", "kernel_type"): _KERNELS,
    ("SVMRegressor", "kernel_type"): _KERNELS,
    ("TreeEnsembleRegressor", "aggregate_function"): _one_of("AVERAGE", "SUM", "MIN", "MAX"),
    ("Normalizer", "norm"): _one_of("MAX", "L1", "L2"),
    ("StringNormalizer", "case_change_action"): _one_of("LOWER", "UPPER", "NONE"),
}


def wrong_attribute(op_type: str, given: Mapping[str, AttributeProto], signature: Signature) -> str:
    """What is wrong with a node's attributes, "" for nothing."""
    known = signature.attributes
    if known is None:
        return ""
    for name, attribute in known.items():
        if attribute.required and name not in given:
            return f"lacks attribute {name}"
    for name, a in given.items():
        if name not in known:
            listed = ", ".join(known) or "none"
            return f"has no attribute '{shown(name)}'; the standard's are {listed}"
        if a.type != known[name].kind:
            found, wanted = (_kind(n) for n in (a.type, known[name].kind))
            return f"attribute {name} is {found}, the standard says {wanted}"
        if wrong := _wrong_value(op_type, name, a):
            return wrong
    return ""


def _kind(number: int) -> str:
    if number not in AttributeProto.AttributeType.values():
        return f"of type {number}"
    return AttributeProto.AttributeType.Name(number)


def _wrong_value(op_type: str, name: str, a: AttributeProto) -> str:
    own = (op_type, name)
    domain = OWN[own] if own in OWN else GENERAL.get(name)
    if a.type not in _PLAIN:
        return ""
    value: Any = helper.get_attribute_value(a)
    for v in value if a.type in _LISTS else (value,):
        if isinstance(v, bytes):
            try:
                v = v.decode("utf-8")
            except UnicodeDecodeError:
                return f"attribute {name} is no text"
        if domain is not None and not domain.holds(v):
            of = f" of {shown(str(list(value)), 60)}" if a.type in _LISTS else ""
            it = f"'{shown(v, 60)}'" if isinstance(v, str) else str(v)
            return f"{name} {it}{of} is not {domain.says}"
    return ""


_LISTS = frozenset((AttributeProto.INTS, AttributeProto.FLOATS, AttributeProto.STRINGS))
_PLAIN = _LISTS | {AttributeProto.INT, AttributeProto.FLOAT, AttributeProto.STRING}
