"""Several layouts at once: splits of a layer's ops chosen by when their results are ready.

An op by itself takes the split that is best for it, and may leave to those after it what no later choice
makes good. Here the most promising few ways to have run everything so far are kept, each with the time at
which each of its tensors is ready and where it lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...ir.graph import Graph
from ..splits.choice import Choice, Limits, Question, Site, Source
from ..splits.choose import Option, option, options
from ..splits.join import join_split
from ..splits.next_product import Later, Outlook
from .layers import Layers


@dataclass(frozen=True)
class _Lying:
    """Where a tensor lies, when it is ready, and cycles that it leaves to the op ahead."""

    source: Source
    ready: float
    later: float


@dataclass(frozen=True)
class _Way:
    """A way to have run all ops so far. end: when all of them are done. busy: when the region's cores are
    done with the last wide one."""

    tensors: Mapping[str, _Lying]
    end: float
    busy: float
    score: tuple[float, float, float]  # excess, latest, sum
    last: tuple[int, Choice] | None
    before: _Way | None

    def at(self, node: int) -> _Way:
        """This way before it came to a node."""
        way = self
        while way.before is not None and way.last is not None and way.last[0] >= node:
            way = way.before
        return way

    def choices(self) -> dict[int, Choice]:
        out: dict[int, Choice] = {}
        way: _Way | None = self
        while way is not None:
            if way.last is not None:
                out[way.last[0]] = way.last[1]
            way = way.before
        return out


class Beam:
    """Chooses splits for nodes at a site, region 0."""

    def __init__(self, graph: Graph, site: Site, limits: Mapping[int, Limits], outlook: Outlook) -> None:
        self.graph, self.site, self.limits, self.outlook = graph, site, limits, outlook
        self._options: dict[tuple[Question, Later], list[Option]] = {}

    def run(self, nodes: Sequence[int], known: Mapping[int, Choice] | None = None) -> list[_Way]:
        """The best ways to run `nodes`, best first; what others make lies anywhere and is ready.

        known: choices that are made already. No way where a node of them cannot be placed.
        """
        known = known or {}
        last = {t: i for i in nodes for t in self.graph.nodes[i].inputs}
        own = self.graph.in_place
        ways = [_Way({}, 0.0, 0.0, (1.0, 0.0, 0.0), None, None)]
        for i in nodes:
            output = self.graph.nodes[i].output
            if output in own:
                continue  # a cache is filled where it is read
            found = [w for way in ways for w in self._after(way, i, known.get(i))]
            if not found:
                return []
            ways = self._pruned(found, i, last)
        return ways

    def _after(self, way: _Way, i: int, known: Choice | None) -> list[_Way]:
        node = self.graph.nodes[i]
        op = node.op
        site, policy = self.site, self.site.policy
        q = Question(op, tuple(self._source(way, t) for t in node.inputs), site, self.limits[i])
        out: list[_Way] = []
        found = self._found(i, q) if known is None else [option(q, known, 0.0)]
        for o in found:
            ready = max(
                [
                    way.tensors[t].ready + late
                    for j, late in o.arrivals
                    if (t := node.inputs[j]) in way.tensors
                ],
                default=0.0,
            )
            split, grid = o.choice.split, o.choice.grid
            wide = grid.cores >= policy.wide_share * site.cores
            begin = max(ready, way.busy) if wide else ready
            compute = float(site.wafer.task(op, split.extents(op.axes))[0]) * split.grid[2]
            end = begin + o.alone
            if o.choice.part:
                split, grid = join_split(op, split, o.choice.part, grid, policy, o.choice.roots)
            source = Source(grid, split, op.write, op.axes, 0, 0.0, self.graph.tensors[node.output].shape)
            if (other := way.tensors.get(node.output)) is not None:
                end = max(end, other.ready)  # of a tensor with several parts the last one stands for all
            tensors = {**way.tensors, node.output: _Lying(source, end, o.later)}
            excess = max(way.score[0], o.excess)
            busy = begin + compute if wide else way.busy
            last = i, replace(o.choice, fixed=True)
            out.append(_Way(tensors, max(way.end, end), busy, (excess, 0.0, 0.0), last, way))
        return out

    def _source(self, way: _Way, tensor: str) -> Source | None:
        if tensor in self.graph.resident:
            return None
        if tensor in way.tensors:
            return way.tensors[tensor].source
        shape = self.graph.tensors[tensor].shape
        return Source.anywhere(float(self.site.columns), shape)

    def _found(self, i: int, q: Question) -> list[Option]:
        key = q, self.outlook.later(i, self.site, self.limits)
        if key not in self._options:
            self._options[key] = options(*key)
        return self._options[key]

    def _pruned(self, found: Sequence[_Way], i: int, last: Mapping[str, int]) -> list[_Way]:
        """The best ways, one for each arrangement of what is still needed."""
        best: dict[Any, _Way] = {}
        for way in found:
            tensors = {
                t: v for t, v in way.tensors.items() if last.get(t, i) > i or t == self.graph.nodes[i].output
            }
            times = [v.ready + v.later for v in tensors.values()]
            score = way.score[0], max(times, default=0.0), sum(times)
            way = replace(way, tensors=tensors, score=score)
            key = tuple((t, v.source.grid, v.source.split) for t, v in tensors.items())
            if key not in best or way.score < best[key].score:
                best[key] = way
        return sorted(best.values(), key=lambda w: w.score)[: self.site.policy.ways_kept]


def along_layers(beam: Beam, layers: Layers) -> dict[int, Choice]:
    """The choices for the nodes of all layers, on regions of one size, and for those like them beside.

    The last layer of each way is a candidate: what counts is how long it takes after layers like it.
    """
    start, period, policy = layers.start, layers.period, beam.site.policy
    last = start + (min(layers.count, policy.layers_weighed) - 1) * period
    found: dict[tuple[Choice, ...], dict[int, Choice]] = {}
    for way in beam.run(range(start, last + period)):
        one = {i - last: c for i, c in way.choices().items() if i >= last}
        found.setdefault(tuple(one.values()), one)
    best, least = dict[int, Choice](), np.inf
    again = min(layers.count, policy.layers_in_row)
    for one in found.values():
        known = {start + n * period + i: c for n in range(again) for i, c in one.items()}
        (way, *_) = beam.run(range(start, start + again * period), known)
        took = way.end - way.at(start + (again - 1) * period).end
        if took < least:
            best, least = one, took
    nodes = beam.graph.nodes
    out: dict[int, Choice] = {}
    # A layer cut short before the first one or after the last takes part where its ops are the same.
    for i in range(max(0, start - period), min(len(nodes), layers.end + period)):
        like = (i - start) % period
        if like in best and nodes[i].op == nodes[start + like].op:
            out[i] = best[like]
    return out
