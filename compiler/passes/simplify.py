"""The passes, in their order. Each is a function Graph -> Graph in a file of its name: the same outputs, with
less to do.

A new pass is a file and a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...ir.graph import Graph
from ..stopwatch import tell
from .absorb_copies import absorb_into_readers, absorb_into_writers
from .blocked_softmax import softmax_in_blocks
from .dead_nodes import eliminate_dead
from .embed_scalars import embed_scalars
from .free_cache_cuts import cut_caches_freely
from .fuse_elementwise import fuse_elementwise
from .indexed_products import index_products
from .late_scales import scale_results
from .merge_equal import merge_equal
from .packed_weights import keep_packed
from .quantised_weights import keep_quantised
from .queries_by_group import order_by_group
from .rotary_halves import merge_halves
from .spread_normalisations import spread_normalisations
from .transposed_weights import read_transposed
from .unit_axes import drop_unit_axes

Pass = Callable[[Graph], Graph]
Record = Callable[[str, Graph], None]  # told the name of a pass and what it left


@dataclass(frozen=True)
class Stage:
    """Passes that follow one another, with their names. again: until none of them finds anything."""

    passes: tuple[tuple[str, Pass], ...]
    again: bool = False


# Any machine is served by these: what is computed twice, for nothing, or only moved, is gone.
CLEAN = (
    Stage(
        (
            ("merge equal", merge_equal),
            ("dead nodes", eliminate_dead),
            ("absorb copies into readers", lambda g: absorb_into_readers(g, splits=False)),
            ("dead nodes", eliminate_dead),
            ("absorb copies into writers", lambda g: absorb_into_writers(g, splits=False)),
            ("absorb copies into writers, axes split", lambda g: absorb_into_writers(g, splits=True)),
            ("absorb copies into readers, axes split", lambda g: absorb_into_readers(g, splits=True)),
            ("dead nodes", eliminate_dead),
        ),
        again=True,
    ),
    Stage(
        (
            ("indexed products", index_products),
            ("packed weights", keep_packed),
            ("quantised weights", keep_quantised),
            ("dead nodes", eliminate_dead),
            ("unit axes", drop_unit_axes),
        )
    ),
)
# These give a wafer what its cores can share: small ops that any axis of can be cut, and nothing to wait for.
FIT = (
    Stage(
        (
            ("rotary halves", merge_halves),
            ("blocked softmax", softmax_in_blocks),
            ("spread normalisations", spread_normalisations),
            ("late scales", scale_results),
            ("free cache cuts", cut_caches_freely),
            ("queries by group", order_by_group),
        )
    ),
    Stage(
        (
            ("embed scalars", embed_scalars),
            ("merge equal", merge_equal),
            ("fuse elementwise", fuse_elementwise),
            ("dead nodes", eliminate_dead),
        ),
        again=True,
    ),
    Stage(
        (
            ("transposed weights", read_transposed),
            ("dead nodes", eliminate_dead),
        )
    ),
)
PASSES = (*CLEAN, *FIT)


def simplify(graph: Graph, stages: Sequence[Stage] = PASSES, record: Record | None = None) -> Graph:
    """The graph after all passes of `stages`. What a pass changes is checked, and recorded.

    Raises ValuesNeeded where a constant's values are not at hand.
    """
    for number, stage in enumerate(stages):
        done = False
        while not done:
            before = graph
            for i, (name, change) in enumerate(stage.passes):
                tell(name, (number + i / len(stage.passes)) / len(stages))
                made = change(graph)
                if made.nodes == graph.nodes and made.tensors.keys() == graph.tensors.keys():
                    continue  # with the graph that knows its readers already
                made.check()
                graph = made
                if record:
                    record(name, graph)
            done = not stage.again or graph.nodes == before.nodes
    return graph
