"""What a call takes on an island, layer by layer, and what bounds it.

A layer: the longer one of its bytes over bandwidth and its operations over the peak, then its launches and
its sums over the GPUs. Weights are cut over all GPUs in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, lgamma
from typing import Literal

import numpy as np

from ..errors import UsageError
from .island import Engine, Island
from .work import Matrix, Part

Parallel = Literal["tensor", "expert", "pipeline"]
KINDS = ("bytes", "operations", "launches", "sums")
FEW = 256  # choices up to which the busiest GPU's share is computed, past it all have as many


@dataclass(frozen=True)
class Asked:
    """bits: of a weight; expert_bits: of those in experts. users: tokens of as many requests at once.

    tokens: of each request at once, several where they are verified or are a prompt's. cache_bits: of an
    element of the caches. parallel: how several GPUs share the work; a pipeline's GPUs of one node have
    whole layers.
    """

    bits: float = 16.0
    expert_bits: float = 16.0
    users: int = 1
    tokens: int = 1
    cache_bits: float = 16.0
    parallel: Parallel = "tensor"

    @property
    def at_once(self) -> int:
        return self.users * self.tokens


@dataclass(frozen=True)
class Cost:
    """Seconds of one stretch of a call, by what they go to; times: how often it comes."""

    name: str
    times: int
    bytes: float
    operations: float
    launches: float
    sums: float

    @property
    def seconds(self) -> float:
        """Once. Bytes are read while operations are done."""
        return max(self.bytes, self.operations) + self.launches + self.sums

    @property
    def bound(self) -> str:
        parts = dict(zip(KINDS, (self.bytes, self.operations, self.launches, self.sums), strict=True))
        if self.bytes >= self.operations:
            parts.pop("operations")
        else:
            parts.pop("bytes")
        return max(parts, key=lambda k: parts[k])


@dataclass(frozen=True)
class Priced:
    """A call. rate: calls a second of one stream; throughput: tokens a second of all users.

    shares: of the call's time by what it goes to, on the critical path, which goes through every layer.
    """

    island: Island
    engine: Engine
    asked: Asked
    layers: tuple[Cost, ...]
    stages: int
    held: float

    @property
    def seconds(self) -> float:
        return sum(c.seconds * c.times for c in self.layers)

    @property
    def rate(self) -> float:
        return 1 / self.seconds

    @property
    def throughput(self) -> float:
        return self.asked.users * self.stages / self.seconds

    @property
    def shares(self) -> dict[str, float]:
        out = dict.fromkeys(KINDS, 0.0)
        for c in self.layers:
            first = "bytes" if c.bytes >= c.operations else "operations"
            out[first] += c.times * max(c.bytes, c.operations)
            out["launches"] += c.times * c.launches
            out["sums"] += c.times * c.sums
        return {k: v / self.seconds for k, v in out.items()}

    @property
    def bound(self) -> str:
        return max(self.shares, key=lambda k: self.shares[k])

    @property
    def fits(self) -> bool:
        return self.held <= self.island.memory


def price(parts: Sequence[Part], island: Island, engine: Engine, asked: Asked | None = None) -> Priced:
    """A call of `parts` on an island. Raises UsageError for what cannot be shared so."""
    asked = asked or Asked()
    if asked.users < 1 or asked.tokens < 1:
        raise UsageError(f"{asked.users} users with {asked.tokens} tokens: each is 1 at least")
    if asked.parallel == "expert" and not any(m.of > 1 for p in parts for m in p.weights):
        raise UsageError("expert parallel: the model has no experts")
    stages = island.nodes if asked.parallel == "pipeline" else 1
    costs = tuple(_cost(p, island, engine, asked) for p in parts)
    if stages > 1:
        crossing = _crossing(parts, engine, asked) * (stages - 1)
        costs = (*costs, Cost("between servers", 1, 0.0, 0.0, 0.0, crossing))
    held = sum(
        p.times
        * (
            sum(m.elements * _bits(m, asked) for m in p.weights)
            + asked.users * asked.cache_bits * sum(n for n, _ in p.cached)
        )
        for p in parts
    )
    return Priced(island, engine, asked, costs, stages, held / 8)


def _bits(m: Matrix, asked: Asked) -> float:
    return asked.expert_bits if m.of > 1 else asked.bits


def _cost(part: Part, island: Island, engine: Engine, asked: Asked) -> Cost:
    """Of one layer, on the GPUs that share it."""
    pipeline = asked.parallel == "pipeline"
    gpus = island.each if pipeline else island.gpus
    bandwidth, count = island.gpu.bandwidth, asked.at_once
    seconds = operations = 0.0
    for m in part.weights:
        bits = _bits(m, asked)
        share = touched(m, count) / gpus
        if asked.parallel == "expert" and m.of > 1:
            share = busiest(m, count, gpus)
        seconds += m.elements * share * bits / 8 / (bandwidth * engine.reached(bits))
    cached = sum(n / min(gpus, heads) for n, heads in part.cached)
    seconds += asked.users * cached * asked.cache_bits / 8 / (bandwidth * engine.share)
    low = max(asked.bits, asked.expert_bits) <= 8.5
    peak = island.gpu.operations_8 if low else island.gpu.operations
    operations = count * part.operations / (gpus * peak * engine.busy)
    sums = part.sums * _sum(part, island, engine, asked, gpus)
    return Cost(part.name, part.times, seconds, operations, part.launches * engine.launch, sums)


def touched(m: Matrix, count: int) -> float:
    """The share of a weight that `count` tokens read: of experts those that any of them takes, on average."""
    return 1 - (1 - m.chosen / m.of) ** count if m.of > 1 else 1.0


def busiest(m: Matrix, count: int, gpus: int) -> float:
    """The share of a weight that the busiest of the GPUs reads, which hold whole experts, on average."""
    balls = m.chosen * count
    if balls > FEW:
        return touched(m, count) / gpus
    return min(expected_most(balls, gpus), m.of / gpus) / m.of


def expected_most(balls: int, bins: int) -> float:
    """How many of `balls` thrown into `bins` lie in the fullest, on average.

    P(all at most m) = balls! / bins^balls times the coefficient of x^balls in (sum x^i / i! to i = m)^bins.
    """
    whole, out = lgamma(balls + 1) - balls * np.log(bins), 0.0
    for most in range(balls):
        terms = np.array([exp(-lgamma(i + 1)) for i in range(most + 1)])
        power = np.ones(1)
        for _ in range(bins):
            power = np.convolve(power, terms)[: balls + 1]
        within = power[balls] * exp(whole) if len(power) > balls else 0.0
        out += 1 - within
    return float(out)


def _sum(part: Part, island: Island, engine: Engine, asked: Asked, gpus: int) -> float:
    """Seconds of a sum over the GPUs: a ring's bytes, and what it takes whatever its bytes are."""
    if gpus == 1:
        return 0.0
    size = 2 * part.width * asked.at_once
    inside = min(gpus, island.each)
    out = engine.gather + 2 * (inside - 1) / inside * size / island.gpu.link if inside > 1 else 0.0
    if gpus > island.each:
        nodes = island.nodes
        out += engine.across + 2 * (nodes - 1) / nodes * size / engine.network
    return out


def _crossing(parts: Sequence[Part], engine: Engine, asked: Asked) -> float:
    """Seconds in which a state goes to the next server."""
    return engine.across + 2 * max(p.width for p in parts) * asked.at_once / engine.network
