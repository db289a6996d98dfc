"""Whether two runtimes give the same numbers, by a stated rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, cast

import numpy as np

from ...ir.dtypes import is_float
from ...ir.graph import Length
from ...ir.op import Array
from ...runtime.program import Port, Program
from ..errors import quoted
from ..stopwatch import Report, silent
from .call_inputs import Feed
from .golden import Golden, Keeping

MOST_BAD = 10  # values shown


@dataclass(frozen=True)
class Rule:
    """When a float agrees; other types must be equal."""

    rtol: float = 1e-4
    atol: float = 1e-6

    def __str__(self) -> str:
        return (
            f"abs(ours - golden) <= {self.rtol:g} * max(abs(golden)) + {self.atol:g} for floats, "
            "equal integers, NaN where NaN, same type and shape"
        )


@dataclass(frozen=True)
class Bad:
    """One value that differs too much, in call number `call`."""

    call: int
    index: tuple[int, ...]
    ours: float | int | bool
    golden: float | int | bool


@dataclass(frozen=True)
class Comparison:
    """One output over all calls.

    max_rel: difference over abs(golden), where that is not 0. ulp: the most representable values between
    ours and golden; None for integers. cosine: of the angle between both, the least of any call. wrong: how
    many values break the rule; `bad` are the first. problem: a type or shape that differs, "" for none.
    """

    output: str
    values: int
    max_abs: float
    max_rel: float
    ulp: float | None
    cosine: float
    wrong: int
    bad: tuple[Bad, ...] = ()
    problem: str = ""

    @property
    def passed(self) -> bool:
        return not self.problem and not self.wrong

    @property
    def verdict(self) -> str:
        """What is wrong, of one that has not passed."""
        differ = f"{self.wrong:,} of {self.values:,} values differ too much, by up to {self.max_abs:.3g}"
        return f"output {quoted(self.output)}: {self.problem or differ}"


def compare(output: str, ours: Any, golden: Any, rule: Rule, call: int = 0) -> Comparison:
    """One output of one call. Sequences agree if all of their elements do, maps with the same keys if their
    values do; str must be equal.
    """
    if isinstance(golden, dict):
        theirs = cast(dict[Any, Any], golden)
        mine = cast(dict[Any, Any], ours) if isinstance(ours, dict) else {}
        if not isinstance(ours, dict) or mine.keys() != theirs.keys():
            problem = f"a map of {len(mine)} keys instead of {len(theirs)}, or of others"
            return Comparison(output, 0, np.nan, np.nan, None, np.nan, 0, (), problem)
        return compare(output, _column([mine[k] for k in theirs]), _column([*theirs.values()]), rule, call)
    if isinstance(golden, list):
        theirs = cast(list[Any], golden)
        mine = cast(list[Any], ours) if isinstance(ours, list) else []
        if not isinstance(ours, list) or len(mine) != len(theirs):
            problem = f"{len(mine)} elements instead of {len(theirs)}"
            return Comparison(output, 0, np.nan, np.nan, None, np.nan, 0, (), problem)
        each = [compare(output, a, b, rule, call) for a, b in zip(mine, theirs, strict=True)]
        return reduce(merged, each) if each else Comparison(output, 0, 0.0, 0.0, None, 1.0, 0)
    if golden is None or golden.dtype.kind in "OUST":
        same = ours is None if golden is None else _text(ours) == _text(golden)
        count = 0 if golden is None else int(golden.size)
        return Comparison(output, count, 0.0, 0.0, None, 1.0, 0, (), "" if same else "another value")
    if ours.dtype != golden.dtype or ours.shape != golden.shape:
        problem = f"{ours.dtype}{list(ours.shape)} instead of {golden.dtype}{list(golden.shape)}"
        return Comparison(output, 0, np.nan, np.nan, None, np.nan, 0, (), problem)
    floating = is_float(golden.dtype)
    exact: Any = np.longdouble if golden.dtype.itemsize == 8 else np.float64
    a, b = ours.astype(exact), golden.astype(exact)
    finite = np.isfinite(a) & np.isfinite(b)
    # Equal covers infinities; what is not finite on one side alone is wrong.
    same = (ours == golden) | (np.isnan(a) & np.isnan(b))
    difference = np.where(finite, np.abs(np.where(finite, a, 0) - np.where(finite, b, 0)), 0)
    if floating:
        peak = np.abs(b[np.isfinite(b)]).max(initial=0)
        wrong = ~(same | (finite & (difference <= rule.rtol * peak + rule.atol)))
    else:
        wrong = ~same
    weight = np.abs(np.where(finite, b, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(weight > 0, difference / weight, 0)
    places = np.argwhere(wrong)[:MOST_BAD]
    bad = tuple(Bad(call, tuple(p), ours[tuple(p)].item(), golden[tuple(p)].item()) for p in places.tolist())
    return Comparison(
        output,
        golden.size,
        float(difference.max(initial=0)) if finite.all() or not wrong.any() else float("inf"),
        float(relative.max(initial=0)),
        _ulp(ours[finite], golden[finite]) if floating else None,
        _cosine(a[finite], b[finite]),
        int(wrong.sum()),
        bad,
    )


def _column(values: Sequence[Any]) -> Array:
    """A map's values as an array: Python's floats stand for ONNX's float where they are ones."""
    array = np.asarray(values)
    narrow = array.astype(np.float32) if array.dtype == np.float64 else array
    return narrow if np.array_equal(narrow, array, equal_nan=array.dtype.kind == "f") else array


def _text(value: Any) -> Any:
    return np.asarray(value).astype(str).tolist()


def _ulp(a: Array, b: Array) -> float:
    """The most representable values that lie between neighbours in `a` and `b`."""
    integer = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}[a.dtype.itemsize]
    least = np.iinfo(integer).min

    def rank(x: Array) -> Array:
        bits = np.ascontiguousarray(x).view(integer).astype(np.longdouble)
        return np.where(bits < 0, np.longdouble(least) - bits, bits)

    return float(np.abs(rank(a) - rank(b)).max(initial=0))


def _cosine(a: Array, b: Array) -> float:
    norms = float(np.linalg.norm(a.astype(np.float64)) * np.linalg.norm(b.astype(np.float64)))
    if norms == 0:
        return 1.0 if not a.any() and not b.any() else 0.0
    return min(1.0, float(np.dot(a.astype(np.float64).ravel(), b.astype(np.float64).ravel())) / norms)


def merged(a: Comparison, b: Comparison) -> Comparison:
    """Two calls of one output as one: the worst of both."""
    return replace(
        a,
        values=a.values + b.values,
        max_abs=max(a.max_abs, b.max_abs),
        max_rel=max(a.max_rel, b.max_rel),
        ulp=None if a.ulp is None or b.ulp is None else max(a.ulp, b.ulp),
        cosine=min(a.cosine, b.cosine),
        wrong=a.wrong + b.wrong,
        bad=(*a.bad, *b.bad)[:MOST_BAD],
        problem=a.problem or b.problem,
    )


@dataclass
class Streaming:
    """A golden runtime with the states that a program keeps: each output goes back in as the next input.

    length: of the program's caches, which grow in the golden runtime. values: of inputs that are constants
    of the program.
    """

    golden: Golden
    ports: Sequence[Port]
    states: Sequence[tuple[str, str]]
    length: Length | None = None
    values: Mapping[str, Array] = field(default_factory=dict[str, Array])
    _kept: Feed = field(default_factory=dict[str, Array])
    _held: int = 0

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """As `Program.reset`: states are 0, caches empty."""
        pasts = {past for past, _ in self.states}
        kept = {p.name: np.zeros(p.shape, p.dtype) for p in self.ports if p.name in pasts}
        self._kept, self._held = self._filled(kept, 0), 0
        if isinstance(self.golden, Keeping):
            self.golden.reset()

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        if self.length is not None:
            self._held += self.length.added
        whole = {**self.values, **self._kept, **self._filled(feed, self._held)}
        out = self.golden.run({name: whole[name] for name in self.golden.inputs if name in whole})
        if not isinstance(self.golden, Keeping):
            self._kept = {past: out[present] for past, present in self.states}
        return out

    def _filled(self, feed: Mapping[str, Array], positions: int) -> Feed:
        """The values with only the first `positions` of those that run over positions."""
        dims = dict(self.length.dims) if self.length is not None else {}
        first = slice(0, positions)
        return {n: v[(*(slice(None),) * dims[n], first)] if n in dims else v for n, v in feed.items()}


def verify(
    program: Program,
    golden: Golden,
    feeds: Sequence[Feed],
    rule: Rule,
    threads: int | None = None,
    progress: Report = silent,
) -> list[Comparison]:
    """Both on the same inputs, call after call; one comparison per output, in golden's order.

    Raises InputError for inputs that the program does not take, UnsupportedModel where golden cannot.
    """
    ports = program.ports
    streaming = Streaming(golden, ports.inputs, ports.states, ports.length, program.values)
    kept = {present for _, present in ports.states} - {p.name for p in ports.outputs}
    found: dict[str, Comparison] = {}
    for number, feed in enumerate(feeds):
        progress("verify", number / len(feeds))
        ours, right = program.run(feed, threads), streaming.run(feed)
        for name, value in right.items():
            if name in kept:
                continue  # stays on the wafer
            c = compare(name, ours[name], value, rule, number)
            found[name] = merged(found[name], c) if name in found else c
    return list(found.values())
