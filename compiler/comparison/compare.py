"""A model on wafers and on islands of GPUs: rates, first token, energy, money, how sure each figure is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import DoesNotFit
from ..islands.island import NODE, Engine, Island, Machines, made
from ..islands.price import Asked, price
from ..islands.work import Part
from .on_wafers import OnWafers

MILLION = 1e6
HOUR = 3600.0
# Expected errors, from docs/accuracy.md and docs/islands.md: medians of rows that nothing was fitted to.
WAFER_ERROR = "12 % (a layer), {}"
ISLAND_ERROR = "16 % across engines"
ONE_BY_ONE, BY_THE_PLAN = "estimate: unmeasured for a whole model", "one plan"


@dataclass(frozen=True)
class Load:
    """prompt: tokens before the first answer. users: requests at once, of an island; a wafer has as many as
    regions in flight at most. accepted: tokens that a call yields by speculation, assumed by who asks."""

    prompt: int = 1024
    users: int = 64
    accepted: float = 1.0


@dataclass(frozen=True)
class Way:
    """A machine and what it gives. one, many: tokens a second of one user, and of `users` together.

    first: seconds to the first token. joules, dollars: per million tokens, of one user alone and of many.
    machines: wafers or GPUs. low, high: of `one`, where an assumed constant has a range, else the same.
    reason: why there are no figures, "" where there are.
    """

    machine: str
    kind: str
    machines: int
    one: float = 0.0
    many: float = 0.0
    users: int = 1
    first: float = 0.0
    joules: tuple[float, float] = (0.0, 0.0)
    dollars: tuple[float, float] = (0.0, 0.0)
    bound: str = ""
    error: str = ""
    low: float = 0.0
    high: float = 0.0
    assumed: tuple[str, ...] = ()
    reason: str = ""


def _per_million(each: float, one: float, many: float) -> tuple[float, float]:
    """Of what is spent a second, per million tokens."""
    return each / one * MILLION, each / many * MILLION


def on_wafers(of: OnWafers, load: Load) -> Iterator[Way]:
    """At the preset's clock, which is the highest published, and at the lowest."""
    for hz in dict.fromkeys((of.wafer.clock_hz, of.system.slow)):
        at = of.at(hz)
        one, many = load.accepted / at.seconds(), load.accepted * at.throughput
        stages = (load.prompt - 1) * (at.interval / hz if at.estimate else at.seconds())
        ends = sorted(
            load.accepted / at.seconds(s) for s in (of.system.crossing_least, of.system.crossing_most)
        )
        watts, dollars = of.wafers * of.system.watts, of.wafers * of.system.dollars / HOUR
        assumed = ["dollars", *of.assumed]
        assumed += ["crossing"] if of.wafers > 1 else []
        yield Way(
            f"{of.wafer.name}, {hz / 1e9:g} GHz",
            "estimate" if of.estimate else "plan",
            of.wafers,
            one,
            max(one, many),
            at.in_flight,
            at.seconds() + stages,
            _per_million(watts, one, max(one, many)),
            _per_million(dollars, one, max(one, many)),
            at.bound,
            WAFER_ERROR.format(ONE_BY_ONE if of.estimate else BY_THE_PLAN),
            low=ends[0] if of.wafers > 1 else one,
            high=ends[1] if of.wafers > 1 else one,
            assumed=tuple(assumed),
        )


def no_wafers(name: str, error: DoesNotFit) -> Way:
    return Way(name, "plan", 0, reason=str(error))


def islands_for(parts: Sequence[Part], machines: Machines, engine: Engine, asked: Asked) -> Iterator[Island]:
    """Of each GPU the fewest of its presets that hold the model, and its largest server."""
    for gpu in machines.gpus.values():
        needed = price(parts, Island(gpu, 1), engine, asked).held / (gpu.memory * 0.9)
        counts = [n for n in gpu.servers if n >= needed] or [NODE * -(-int(needed + 1) // NODE)]
        for count in dict.fromkeys((counts[0], NODE if NODE in counts else counts[0])):
            yield made(gpu, count)


def on_island(parts: Sequence[Part], island: Island, engine: Engine, asked: Asked, load: Load) -> Way:
    """One user's call, a batch of `load.users`, and a prompt at once."""
    one = price(parts, island, engine, asked)
    many = price(parts, island, engine, _with(asked, users=load.users))
    first = price(parts, island, engine, _with(asked, tokens=load.prompt))
    users = load.users
    while users > 1 and not many.fits:
        users //= 2
        many = price(parts, island, engine, _with(asked, users=users))
    rate, of_all = load.accepted * one.rate, load.accepted * many.throughput
    gpu = island.gpu
    origins = {**gpu.origins, **engine.origins}
    return Way(
        f"{island.name}, {engine.name}",
        "island",
        island.gpus,
        rate,
        of_all,
        users,
        first.seconds,
        _per_million(island.gpus * gpu.watts, rate, of_all),
        _per_million(island.gpus * gpu.dollars / HOUR, rate, of_all),
        one.bound,
        ISLAND_ERROR,
        rate,
        rate,
        tuple(k for k, o in origins.items() if o.how == "assumed"),
    )


def _with(asked: Asked, users: int = 1, tokens: int = 1) -> Asked:
    return Asked(asked.bits, asked.expert_bits, users, tokens, asked.cache_bits, asked.parallel)
