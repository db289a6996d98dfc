"""How cases of onnxruntime's mixtures of experts are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from contrib import Dice, Drawn, draws
from waferc.ir.op import Array

SWIGLU = {"activation_alpha": 1.7, "activation_beta": 1.0, "swiglu_limit": 0.8}


def _router(d: Dice, width: int) -> tuple[dict[str, Any], dict[str, Array], int]:
    """Attributes, operands, and how many experts there are."""
    experts = d.size(2, 6)
    tokens = d.size(1, 5)
    own: dict[str, Any] = {"k": d.size(1, min(3, experts)), **d.some({"normalize_routing_weights": 1})}
    x = d.normal(tokens, width) if d.random.random() < 0.5 else d.normal(1, tokens, width)
    return own, {"input": x, "router_probs": d.normal(tokens, experts)}, experts


@draws("MoE", kinds=("float32",))
def mixture(d: Dice) -> Drawn:
    width, inner = d.size(2, 8), 2 * d.size(1, 5)
    own, inputs, experts = _router(d, width)
    own["activation_type"] = kind = d.pick("relu", "gelu", "silu", "identity", "swiglu")
    rows = inner
    if kind == "swiglu":
        rows = 2 * inner
        own |= {"swiglu_fusion": 1, **d.some(SWIGLU)}
    inputs |= {
        "fc1_experts_weights": d.normal(experts, rows, width),
        "fc1_experts_bias": d.maybe(d.normal(experts, rows)),
        "fc2_experts_weights": d.normal(experts, width, inner),
        "fc2_experts_bias": d.maybe(d.normal(experts, width)),
    }
    fixed = [n for n in inputs if n.startswith("fc")]
    return Drawn(inputs, own, fixed, tolerance=3)


@draws("QMoE", kinds=("float32",))
def quantised(d: Dice) -> Drawn:
    # onnxruntime rounds activations to 8 bits before it multiplies 8-bit weights in blocks
    bits, size = d.pick((4, 0), (4, 32), (8, 0))
    width, inner = 32 * d.size(1, 2), 32 * d.size(1, 2)
    own, inputs, experts = _router(d, width)
    kind = d.pick("relu", "gelu", "silu", "identity", "swiglu")
    own |= {"expert_weight_bits": bits, "activation_type": kind, "weights_prepacked": 0}
    rows = inner
    if kind == "swiglu":
        rows = 2 * inner
        own |= {"swiglu_fusion": 1, **d.some(SWIGLU)}
    if size:
        own["block_size"] = size
    zeros = d.random.random() < 0.3
    for layer, out, into in ((1, rows, width), (2, width, inner)):
        scales = (experts, out, into // size) if size else (experts, out)
        packed = (experts, out, -(-(into // size) * bits // 8)) if size else (experts, -(-out * bits // 8))
        whole = (experts, out, into * bits // 8)
        inputs |= {
            f"fc{layer}_experts_weights": d.whole(*whole, low=0, high=256, kind="uint8"),
            f"fc{layer}_scales": (np.abs(d.single(*scales)) * 0.1 + 0.01) / np.float32(2 ** (bits - 4)),
            f"fc{layer}_experts_bias": d.maybe(d.normal(experts, out)),
        }
        if zeros:
            inputs[f"fc{layer}_zero_points"] = d.whole(*packed, low=0, high=256, kind="uint8")
    fixed = [n for n in inputs if n.startswith("fc")]
    if d.random.random() < 0.3:
        inputs["router_weights"] = np.abs(d.normal(*inputs["router_probs"].shape)) + np.float32(0.1)
    return Drawn(inputs, own, fixed, tolerance=3)


@draws("MoEGroupRouter")
def group_router(d: Dice) -> Drawn:
    groups, size = d.pick(1, 2, 4), d.size(1, 5)
    chosen = d.size(1, groups)
    own = {
        "n_group": groups, "topk_group": chosen, "top_k": d.size(1, chosen * size),
        **d.some({"group_topk": d.size(1, 3), "router_sentinel": -50.0}),
    }  # fmt: skip
    shape = (d.size(), groups * size) if d.random.random() < 0.6 else (d.size(1, 2), d.size(), groups * size)
    inputs = {"logits": d.normal(*shape), "expert_bias": d.single(groups * size, scale=0.1)}
    return Drawn(inputs, own)
