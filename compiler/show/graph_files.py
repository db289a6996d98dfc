"""Graphs of networkx as files for other tools. Characters of names that nothing prints are escaped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...placement.cost.timing import Timing
from ...placement.plan.plan import Plan
from .rows import span

if TYPE_CHECKING:
    import networkx as nx

SUFFIXES = (".dot", ".graphml")


def timed_graph(plan: Plan, timing: Timing) -> nx.MultiDiGraph[str]:
    """`Plan.to_networkx`; each step has start and end, in cycles of a call."""
    graph = plan.to_networkx()
    for s in plan.steps:
        start, end = span(timing, s)
        graph.add_node(f"step {s.position}", start=round(start), end=round(end))
    return graph


def write_graph(graph: nx.MultiDiGraph[str], path: Path, suffix: str) -> None:
    """Writes a graph with the attributes of `Plan.to_networkx` as Graphviz's DOT or as GraphML.

    suffix: one of `SUFFIXES`. Raises OSError.
    """
    if suffix == ".dot":
        path.write_text(_dot(graph), encoding="utf-8")
        return
    import networkx as nx

    plain: nx.MultiDiGraph[str] = nx.MultiDiGraph()
    plain.graph.update(_printable(graph.graph))
    plain.add_nodes_from((n, _printable(held)) for n, held in graph.nodes(data=True))
    plain.add_edges_from((a, b, _printable(held)) for a, b, held in graph.edges(data=True))
    nx.write_graphml_xml(plain, path)  # pyright: ignore[reportUnknownMemberType]  # networkx's stubs


def _dot(graph: nx.MultiDiGraph[str]) -> str:
    """Steps in a cluster for each region, with all that is known of them in their labels."""
    lines = [f"digraph {_quoted(graph.graph['name'])} {{", "  node [shape=box];"]
    members: dict[Any, list[str]] = {}
    for node, held in graph.nodes(data=True):
        lines.append(f"  {_quoted(node)} [label={_label(held)}];")
        members.setdefault(held.get("region"), []).append(_quoted(node))
    for region, nodes in members.items():
        name = f"region {region}"
        lines.append(f"  subgraph {_quoted(f'cluster {region}')} {{")
        lines.append(f"    label={_quoted(f'{name}: {graph.graph[name]}')}; {'; '.join(nodes)};")
        lines.append("  }")
    for a, b, held in graph.edges(data=True):
        lines.append(f"  {_quoted(a)} -> {_quoted(b)} [label={_label(held)}];")
    return "\n".join([*lines, "}", ""])


def _label(held: Mapping[str, Any]) -> str:
    """Facts on lines of their own; those that say nothing are left out."""
    facts = [f"{name}: {value}" for name, value in _printable(held).items() if not _nothing(value)]
    return '"' + "".join(_escaped(fact) + "\\l" for fact in facts) + '"'


def _nothing(value: Any) -> bool:
    return value in ("", -1) or value is False


def _quoted(text: str) -> str:
    return f'"{_escaped("".join(map(_shown, text)))}"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _printable(held: Mapping[str, Any]) -> dict[str, Any]:
    return {k: "".join(map(_shown, v)) if isinstance(v, str) else v for k, v in held.items()}


def _shown(character: str) -> str:
    """The character, or an escape in its place if nothing is seen of it, or XML has it not."""
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
