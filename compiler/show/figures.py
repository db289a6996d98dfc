"""The totals of one predicted call, as `compile` finds them and the manifest keeps them.

Free of the planner: a program's figures are shown without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from ...codegen.artifact.typed import Misfit, member
from ...placement.cost.timing import cycles_of, held
from ...placement.machine.wafer import LINKS, Wafer, mixed_products
from ...placement.plan.plan import Plan

if TYPE_CHECKING:
    from ...placement.machine.wafer import Wafer

MOST = 1 << 62  # of any figure
LEAST_TIME = 1e-6  # microseconds that a call takes


@dataclass(frozen=True)
class Figures:
    """What one looks at first. Bytes, cycles; fullest: (x, y) of a core or of a link's router.

    cores_used: those that run a step.
    cycles_at_f32: if products of 16-bit weights took as long as those of f32.
    """

    cores_used: int
    regions: int
    wavefronts: int
    tasks: int
    cycles: float
    cycles_at_f32: float
    microseconds: float
    fullest_core: tuple[int, int]
    fullest_core_bytes: int
    fullest_link: tuple[int, int, str] | None
    fullest_link_bytes: int
    bytes_in: int
    bytes_out: int
    host_cycles: float
    assumed: tuple[str, ...]

    @staticmethod
    def read(data: Any) -> Figures:
        """Figures from their JSON. Raises Misfit, naming the field, where they are something else."""
        hints = get_type_hints(Figures)
        found = {f.name: member(data, f.name, hints[f.name]) for f in fields(Figures)}
        for name, value in found.items():
            if isinstance(value, int | float) and not 0 <= value <= MOST:
                raise Misfit(f"{value:g}", f".{name}")
        return Figures(**found)

    @property
    def calls_per_second(self) -> float | None:
        """None of a call that takes no time."""
        return 1e6 / self.microseconds if self.microseconds >= LEAST_TIME else None


def totals(of: Callable[[str], Figures], ran: Mapping[str, int]) -> Figures:
    """The figures of a call that ran some entries, each so often: its cycles and bytes are their sums."""
    each = {name: of(name) for name in ran}
    if not each:
        return Figures(0, 0, 0, 0, 0.0, 0.0, 0.0, (0, 0), 0, None, 0, 0, 0, 0.0, ())

    def summed(value: Callable[[Figures], Any]) -> Any:
        return sum(value(f) * ran[name] for name, f in each.items())

    fullest = max(each.values(), key=lambda f: f.fullest_core_bytes)
    link = max(each.values(), key=lambda f: f.fullest_link_bytes)
    return Figures(
        max(f.cores_used for f in each.values()),
        max(f.regions for f in each.values()),
        summed(lambda f: f.wavefronts),
        summed(lambda f: f.tasks),
        summed(lambda f: f.cycles),
        summed(lambda f: f.cycles_at_f32),
        summed(lambda f: f.microseconds),
        fullest.fullest_core,
        fullest.fullest_core_bytes,
        link.fullest_link,
        link.fullest_link_bytes,
        summed(lambda f: f.bytes_in),
        summed(lambda f: f.bytes_out),
        summed(lambda f: f.host_cycles),
        tuple(dict.fromkeys(a for f in each.values() for a in f.assumed)),
    )


def host_line(f: Figures, wafer: Wafer) -> str:
    """The transfer from and to the host, which is not part of the cycles."""
    return (
        f"{f.bytes_in:,} bytes in, {f.bytes_out:,} out: {f.host_cycles:,.0f} more cycles "
        f"({wafer.host_call * 1e6:g} us + n/{wafer.host_bytes_per_cycle:g})"
    )


def cycles_line(f: Figures, wafer: Wafer) -> str:
    """The cycles, what error is to be expected of them, and what they take at each clock that figures of the
    wafer have been published for."""
    error = f" +-{wafer.error:.0%}" if wafer.error else ""
    others = "".join(f", {f.cycles / hz * 1e6:,.2f} at {hz / 1e9:g}" for hz in wafer.clocks_hz)
    return f"{f.cycles:,.0f} cycles{error} = {f.microseconds:,.2f} us at {wafer.clock_hz / 1e9:g} GHz{others}"


def figures(plan: Plan, links: Any) -> Figures:
    """The totals of one call. Transfers from and to the host are not part of `cycles`.

    links: what `timing.link_bytes` gives.
    """
    wafer, graph = plan.wafer, plan.graph
    sram = plan.sram()
    core = int(sram.argmax())
    link, cycles = int(links.argmax()), cycles_of(plan)
    direction, y, x = np.unravel_index(link, links.shape)
    pasts, presents = {p for p, _ in graph.states}, {p for _, p in graph.states}
    bytes_in = sum(graph.tensors[t].bytes for t in graph.inputs if t not in pasts)
    bytes_out = sum(graph.tensors[t].bytes for t in graph.outputs if t not in presents)
    return Figures(
        int(running_cores(plan).sum()),
        len(plan.regions),
        plan.wavefronts,
        plan.tasks,
        cycles,
        _cycles_at_f32(plan) if _mixed(plan) else cycles,
        cycles / wafer.clock_hz * 1e6,
        (core % wafer.width, core // wafer.width),
        int(sram.max(initial=0)),
        (int(x), int(y), LINKS[int(direction)]) if links.any() else None,
        int(links.max(initial=0)),
        bytes_in,
        bytes_out,
        float(wafer.from_host(bytes_in + bytes_out)),
        assumed(plan),
    )


def running_cores(plan: Plan) -> NDArray[np.bool_]:
    """[cores]: which have work of a step; inputs are laid, not run."""
    out = np.zeros(plan.wafer.cores, np.bool_)
    for s in plan.steps:
        if s.kind != "input":
            cores = plan.regions[s.region].on(s.grid)
            out[cores[held(s)]] = True
    return out


def _mixed(plan: Plan) -> bool:
    return any(mixed_products(s.op) for s in plan.steps)


def _unpacks(plan: Plan, mixed: bool) -> bool:
    """Whether weights are unpacked, those of scales in 16 bits or others."""
    return any(
        w.kind == "unpack" and mixed_products(s.op) == mixed for s in plan.steps for w in s.op.work(s.op.size)
    )


def _cycles_at_f32(plan: Plan) -> float:
    """The cycles with products of 16-bit weights at the published rate of f32, not at an assumed one."""
    own = plan.wafer.vector
    vector = {**own, "fma_mixed": own["fma_f32"], "slice_f16": own["slice_f32"]}
    vector["unpack_f16"] = own["unpack_f32"]
    return cycles_of(replace(plan, wafer=replace(plan.wafer, vector=vector)))


def assumed(plan: Plan) -> tuple[str, ...]:
    """The constants without a published value that this plan's figures rest on."""
    names = _that_matter(plan, plan.wafer.assumed)
    return tuple(f"{name} = {_constant(plan.wafer, name)}" for name in names)


def fitted(plan: Plan) -> tuple[str, ...]:
    """Those of them that were fitted, and to what."""
    wafer = plan.wafer
    names = _that_matter(plan, tuple(wafer.fitted))
    return tuple(f"{name} = {_constant(wafer, name)} on {wafer.fitted[name]}" for name in names)


def _that_matter(plan: Plan, names: Sequence[str]) -> list[str]:
    """The constants among `names` that the plan's figures rest on."""
    routes = {m.route for s in plan.steps for m in (*s.moves, *(m for o in s.operands for m in o.moves))}
    products = [mixed_products(s.op) for s in plan.steps if s.op.product and s.op.reduced]
    narrow = any(t.bytes <= 2 for s in plan.steps for t in (*s.op.in_types, s.op.out_type))
    wide = any(t.bytes > 2 for s in plan.steps for t in (*s.op.in_types, s.op.out_type))
    matters = {
        "add": "join" in routes,
        "stage": "join" in routes,
        "multicast": "tree" in routes,
        "temporary": bool(products),
        "vector.slice_f16": True in products,
        "vector.slice_f32": False in products,
        "relay": "relay" in routes,
        "express": "relay" in routes,
        "vector.copy_f16": narrow,
        "vector.fma_f16": narrow,
        "vector.fma_mixed": _mixed(plan),
        "vector.unpack_f16": _unpacks(plan, True),
        "vector.unpack_f32": _unpacks(plan, False),
        "vector.copy_f32": wide,
        "vector.fma_f32": wide,
    }
    return [name for name in names if matters.get(name, True)]


def _constant(wafer: Wafer, name: str) -> str:
    group, _, kind = name.partition(".")
    value: Any = wafer.vector[kind] if group == "vector" and kind in wafer.vector else getattr(wafer, group)
    return f"{value[0]:g} + n/{value[1]:g}" if isinstance(value, tuple) else f"{value:g}"
