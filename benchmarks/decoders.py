"""Predicted cycles of large decoders, a token at a time: weights as shapes only, in 16 bits, caches resident.

    python benchmarks/decoders.py [--json FILE] [NAME ...]

A layer's cycles are the median of the critical path's by layer. The published cycles are those of a
hand-written mapping on wse2, with one layer and without grouped queries: no constant is tuned to them.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import generate
import onnx
from waferc import compile_model
from waferc.compiler.errors import WafercError
from waferc.compiler.show.critical_parts import path_rows
from waferc.placement.machine.presets import preset
from waferc.placement.machine.wafer import Wafer

CONTEXT = 2048
PUBLISHED = {420: 12_732, 540: 13_742, 660: 15_323}  # side of the grid -> cycles of one layer, context 4,096
PUBLISHED_CONTEXT = 4096
UNGROUPED = replace(generate.LLAMA_3_1_8B, kv_heads=generate.LLAMA_3_1_8B.heads)


@dataclass(frozen=True)
class Case:
    """A model on a wafer. layers: of the whole model, where `model` is one of them."""

    model: Callable[[], onnx.ModelProto]
    wafer: Wafer
    capacity: int
    layers: int = 0
    published: int = 0


def cases() -> Mapping[str, Case]:
    wse3 = preset("wse3")
    out: dict[str, Case] = {}
    for d in (generate.LLAMA_3_1_8B, generate.LLAMA_2_13B):
        out[d.name] = Case(lambda d=d: generate.decode(d, 0, shapes_only=True), wse3, CONTEXT)
    big = generate.QWEN2_72B
    out[f"{big.name}, a layer"] = Case(lambda: generate.decode_layer(big), wse3, CONTEXT, big.layers)
    for side, cycles in PUBLISHED.items():
        wafer = replace(preset("wse2"), name=f"wse2 {side}x{side}", width=side, height=side)
        out[f"LLaMA-3-8B, a layer, {side}"] = Case(
            lambda: generate.decode_layer(UNGROUPED), wafer, PUBLISHED_CONTEXT, UNGROUPED.layers, cycles
        )
    return out


def measured(case: Case) -> dict[str, Any]:
    """Cycles of a token and of a layer, tokens per second, what the plan takes and what making it took."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "decoder.onnx"
        path.write_bytes(case.model().SerializeToString())
        start = time.perf_counter()
        made = compile_model(
            path, wafer=case.wafer, capacity=case.capacity, weights="f16", no_weights=True, until="plan"
        )
        seconds = time.perf_counter() - start
    f = made.figures
    path_of = path_rows(made.plan, made.timing)
    by_layer = [r["cycles"] for r in path_of if r["part"].startswith("layer ")]
    layer = f.cycles if case.layers else statistics.median(by_layer)
    times = case.layers or 1
    return {
        "wafer": case.wafer.name,
        "regions": [[r.columns, r.rows] for r in made.plan.regions],
        "cycles": round(f.cycles),
        "cycles_at_f32": round(f.cycles_at_f32),
        "layer_cycles": round(layer),
        "tokens_per_second": round(case.wafer.clock_hz / (f.cycles * times)),
        "tokens_per_second_at_f32": round(case.wafer.clock_hz / (f.cycles_at_f32 * times)),
        "critical_path": path_of[-1],
        "fullest_core_bytes": f.fullest_core_bytes,
        "tasks": f.tasks,
        "seconds": round(seconds, 1),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "assumed": list(f.assumed),
        **(
            {"published": case.published, "ratio": round(layer / case.published, 2)} if case.published else {}
        ),
    }


def main(arguments: list[str]) -> None:
    output = arguments[arguments.index("--json") + 1] if "--json" in arguments else None
    wanted = [a for a in arguments if a not in ("--json", output)]
    rows: dict[str, dict[str, Any]] = {}
    assumed: set[str] = set()
    print("| decoder | cycles a layer | a token | tokens/s | at the f32 rate | fabric, waiting, compute |")
    print("|---|---|---|---|---|---|")
    for name, case in cases().items():
        if wanted and not any(w in name for w in wanted):
            continue
        try:
            r = rows[name] = measured(case)
        except WafercError as e:
            print(f"| {name} | {e} | | | | |", flush=True)
            continue
        p, token = r["critical_path"], r["cycles"] * (case.layers or 1)
        note = f" ({r['ratio']} of the published {r['published']:,})" if case.published else ""
        assumed |= set(r["assumed"])
        print(
            f"| {name}, {r['wafer']} | {r['layer_cycles']:,}{note} | {token:,} | {r['tokens_per_second']:,} "
            f"| {r['tokens_per_second_at_f32']:,} | {p['fabric']:,} / {p['waiting']:,} / {p['compute']:,} |",
            flush=True,
        )
        print(f"{name}: {r['seconds']} s, {r['megabytes']} MB, regions {r['regions']}", file=sys.stderr)
    print(f"\nAssumed, not published: {', '.join(sorted(assumed))}.")
    if output:
        Path(output).write_text(json.dumps({"schema": 1, "decoders": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
