"""The closed form of cycles beside the wavelet simulator, over random models on random small wafers.

    python benchmarks/wavelets.py [COUNT]

prints each plan's cycles by both. `accuracy.py` writes the median and the largest difference into its page.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import generate
import numpy as np
from generate import Model
from waferc import compile_model
from waferc.placement.plan.plan import Plan
from waferc.runtime.wavelets import Replay, replay

COUNT, SEED = 24, 1
SIDES = (4, 6, 8, 10, 12, 16)


@dataclass(frozen=True)
class Compared:
    """A plan, simulated and by the closed form. spans: of its steps that receive something, by route."""

    name: str
    plan: Plan
    replay: Replay

    def spans(self) -> Iterator[tuple[str, float, float]]:
        """(route, simulated, closed form) of each receiving step, in cycles from the end of what it hears."""
        for s in self.plan.steps:
            routes = {m.route for m in s.received} - {"local"}
            simulated = float(self.replay.spans[s.position])
            if len(routes) == 1 and simulated > 0:
                yield routes.pop(), simulated, float(self.replay.closed_spans[s.position])


def compared(count: int = COUNT, seed: int = SEED) -> Iterator[Compared]:
    """Random plans, always the same ones."""
    random = np.random.default_rng(seed)
    for i in range(count):
        kind = KINDS[i % len(KINDS)]
        width, height = random.choice(SIDES, 2)
        wafer = f"{width}x{height}"
        model = kind(random).SerializeToString()
        plan = compile_model(model, wafer=wafer, until="plan", no_weights=True).plan
        yield Compared(f"{kind.__name__.strip('_')} {i}, {wafer}", plan, replay(plan))


def _layers(random: np.random.Generator) -> generate.onnx.ModelProto:
    """Products one after the other, with a bias and Relu or not."""
    m, rows = Model("layers", shapes_only=True), int(random.integers(1, 24))
    sizes = [int(n) for n in random.integers(5, 200, int(random.integers(2, 5)))]
    x = m.input("x", [rows, sizes[0]])
    for depth, width in pairwise(sizes):
        x = m.MatMul(x, m.weight(depth, width, scale=1))
        x = m.Relu(m.Add(x, m.weight(width, scale=1))) if random.random() < 0.6 else x
    m.output("y", m.Softmax(x, axis=-1) if random.random() < 0.5 else x, [rows, sizes[-1]])
    return m.proto()


def _decoder(random: np.random.Generator) -> generate.onnx.ModelProto:
    """A decoder's layer on a few tokens."""
    head, heads = int(random.choice([8, 16])), int(random.choice([1, 2, 4]))
    kv = int(random.choice([1, heads]))
    width, hidden = int(random.integers(16, 96)), int(random.integers(16, 160))
    d = generate.Decoder("layer", 1, width, hidden, heads, kv, 0, head=head)
    return generate.decoder_block(int(random.integers(1, 12)), d)


def _elementwise(random: np.random.Generator) -> generate.onnx.ModelProto:
    """A product, its transpose, and a normalisation read twice."""
    rows, depth, width = (int(n) for n in random.integers(3, 80, 3))
    m = Model("elementwise", shapes_only=True)
    x = m.input("x", [rows, depth])
    y = m.MatMul(x, m.weight(depth, width, scale=1))
    mean = m.ReduceMean(y, axes=[-1])
    z = m.Mul(m.Sub(y, mean), m.Sigmoid(y))
    if random.random() < 0.5:
        m.output("z", m.MatMul(m.Transpose(z, perm=[1, 0]), x), [width, depth])
    else:
        m.output("z", z, [rows, width])
    return m.proto()


KINDS = (_layers, _decoder, _elementwise)


def by_route(all_: Sequence[Compared]) -> Mapping[str, list[tuple[float, float]]]:
    """(simulated, closed form) of the steps of all plans, by route."""
    out: dict[str, list[tuple[float, float]]] = {}
    for c in all_:
        for route, simulated, closed in c.spans():
            out.setdefault(route, []).append((simulated, closed))
    return out


if __name__ == "__main__":
    found: list[float] = []
    for one in compared(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT):
        r = one.replay
        found.append(abs(r.error))
        print(f"{one.name}: {r.cycles:,.0f} cycles, closed form {r.closed:,.0f} ({100 * r.error:+.1f} %)")
    print(f"median {100 * float(np.median(found)):.1f} %, largest {100 * max(found):.1f} %")
