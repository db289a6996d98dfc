"""Feed-forward layers: one that every token takes, and experts of which each token takes some."""

from __future__ import annotations

from .model import Model
from .shape import Experts

STEEP, MOST = 1.702, 7.0  # of the clipped form


def gated(m: Model, n: str, width: int, hidden: int) -> str:
    """SiLU of one product times another, and a third one."""
    gate = m.MatMul(n, m.weight(width, hidden, scale=width**-0.5))
    up = m.MatMul(n, m.weight(width, hidden, scale=width**-0.5))
    return m.MatMul(m.Mul(m.Mul(gate, m.Sigmoid(gate)), up), m.weight(hidden, width, scale=hidden**-0.5))


def mixture(m: Model, e: Experts, n: str, tokens: int, width: int) -> str:
    """The chosen experts' results, weighed and added, and the shared ones': [1, tokens, width].

    Matrices are looked up by their number, and only products read them: indexed products.
    """
    rows = m.Reshape(n, [tokens, width])
    weights, at = _chosen(m, e, rows, width)
    x = m.Unsqueeze(rows, [1, 2])
    own = m.Unsqueeze(weights, [2, 3])
    x = m.Mul(x, own) if e.gate == "input" else x
    m.part = "experts"
    gate, up = (_indexed(m, x, at, e, (width, e.width)) for _ in range(2))
    hidden = _clipped(m, gate, up) if e.clipped else m.Mul(m.Mul(gate, m.Sigmoid(gate)), up)
    # Weighed before the last product, so that one sum goes over experts and hidden elements.
    hidden = hidden if e.gate == "input" else m.Mul(hidden, own)
    down = _indexed(m, hidden, at, e, (e.width, width), own if e.clipped else "")
    out = m.Reshape(m.ReduceSum(down, [1, 2], keepdims=0), [1, tokens, width])
    m.part = "layers"
    return m.Add(out, gated(m, n, width, e.shared * e.width)) if e.shared else out


def _chosen(m: Model, e: Experts, rows: str, width: int) -> tuple[str, str]:
    """What the experts chosen for each token weigh, and their numbers: [tokens, chosen] both."""
    scores = m.MatMul(rows, m.weight(width, e.count, scale=width**-0.5))
    if e.clipped:
        scores = m.Add(scores, m.weight(e.count, scale=0.1))
    if e.gate != "sigmoid":  # the softmax over all, over the sum of those chosen, is that over those chosen
        best, at = m.two("TopK", scores, [e.chosen])
        return (m.Sigmoid(best) if e.gate == "input" else m.Softmax(best, axis=-1)), at
    each = m.Sigmoid(scores)
    _, at = m.two("TopK", m.Add(each, m.weight(e.count, scale=0.1)), [e.chosen])
    best = m.GatherElements(each, at, axis=-1)
    best = m.Div(best, m.ReduceSum(best, [-1]))
    return (m.Mul(best, e.scale) if e.scale != 1 else best), at


def _indexed(m: Model, x: str, at: str, e: Experts, sizes: tuple[int, int], weighed: str = "") -> str:
    """x by the matrix of each expert chosen: [tokens, chosen, 1, width]. weighed: what biases weigh."""
    out = m.MatMul(x, m.Gather(m.weight(e.count, *sizes, scale=sizes[0] ** -0.5), at))
    if e.clipped:
        bias = m.Unsqueeze(m.Gather(m.weight(e.count, sizes[1], scale=0.1), at), [2])
        out = m.Add(out, m.Mul(bias, weighed) if weighed else bias)
    return out


def _clipped(m: Model, gate: str, up: str) -> str:
    gate = m.Min(gate, MOST)
    up = m.Max(m.Min(up, MOST), -MOST)
    return m.Mul(m.Add(up, 1.0), m.Mul(gate, m.Sigmoid(m.Mul(gate, STEEP))))
