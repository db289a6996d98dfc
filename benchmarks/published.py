"""Level a: published experiments priced by the cost model on the mapping that was published, or assumed.

Nothing here has a constant of its own: every figure is composed of `Wafer`'s functions, so that it follows
the model. How a mapping is composed (`ASSUMED`) is ours wherever its authors do not say it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from measurements import REDUCTIONS, Row
from published_layer import Layer, allreduced, product
from waferc.ir.dtypes import F16, F32
from waferc.ir.op import Work
from waferc.placement.machine.wafer import Wafer

ASSUMED: Mapping[str, str] = {
    "vector": "one operation outside of any loop",
    "vector_loop": "a loop handles 16 elements an iteration unless its form names a tile; one "
    "operation is no loop",
    "point_to_point": "what its row says",
    "relay": "one hop a stage, on the lanes of one hop; a stage sends on when all has come (our own relays "
    "send on each wavelet as it comes)",
    "multicast": "receivers in one line behind the sender; the last one's arrival counts",
    "collective": "the root at the line's end, sums passed on by the ramps' and the adder's cycles alone; "
    "two_phase in groups of sqrt(cores); an allreduce is "
    "its reduction and a broadcast, a ring 2 (cores - 1) steps of 1/cores of the "
    "elements",
    "gemv": "tiles of k/rows x n/columns, their sums along the columns to the middle and back to all",
    "gemm": "weights lie still (k over rows, n over columns), all rows of the other operand "
    "pass by; sums along the columns",
    "decode_layer": "WaferLLM's: ten sums over lines, one f32 a wavelet, each back to all of its "
    "line; the side of every sum alternates; sizes padded to multiples of the side",
    "prefill_layer": "WaferLLM's: every product shifts tiles in as many steps as the side has cores, "
    "two hops a step, while it computes; scores sum each step along a line, while the next one computes",
    "decode_phase": "as decode_layer, with key heads side by side along the rows and a normalisation "
    "of Q and K",
    "decode_block": "as decode_phase; attention ends with its residual",
    "decode_token": "as decode_block, layers shared out evenly over the blocks; a hand-over goes a "
    "block's height",
    "decode_batch": "as decode_token, every row of the batch with a cache of its own, all rows in "
    "each operation",
    "pipeline_interval": "a stage is busy with one token through its layers and the hand-over",
    "host": "bytes at the preset's rate; a transfer's floor",
}


def priced(row: Row) -> float:
    """What the model says of a row, in the row's unit."""
    return PRICES[row.group](row)


# -- primitives ------------------------------------------------------------------------------------------
def operation(wafer: Wafer, op: str, elements: float) -> float:
    """One vector operation outside of any loop, in cycles."""
    return loop(wafer, op, elements, 1)


def loop(wafer: Wafer, op: str, elements: float, operations: float) -> float:
    """`elements` in a loop of so many vector operations, in cycles."""
    kind, _, dtype = op.partition("_")
    work = Work(kind, operations, elements)
    return float(wafer.work(work, F32 if dtype == "f32" else F16, mixed=dtype == "mixed"))


def _vector(row: Row) -> float:
    return operation(row.wafer, row.texts["op"], row.numbers["n"])


TILE = 16  # elements an iteration of a loop whose form names none


def _vector_loop(row: Row) -> float:
    form, n = row.texts["form"], row.numbers["n"]
    if form.startswith("one operation"):
        return operation(row.wafer, row.texts["op"], n)
    tile = re.search(r"of (\d+)", form)
    return loop(row.wafer, row.texts["op"], n, math.ceil(n / int(tile[1] if tile else TILE)))


def _point_to_point(row: Row) -> float:
    w = row.wafer
    alone = {"per_hop": w.route(1, 0) - w.route(0, 0), "per_turn": w.route(0, 1) - w.route(0, 0)}
    alone["per_wavelet"] = w.serial(1)
    if "quantity" in row.texts:
        return float(alone[row.texts["quantity"]])
    hops, wavelets = row.numbers["hops"], row.numbers["wavelets"]
    return float(w.route(hops, row.numbers.get("turns", 0)) + w.serial(wavelets))


def _relay(row: Row) -> float:
    w, stages = row.wafer, row.whole("stages")
    return float(w.route(stages, 0) + w.relay * (stages - 1) + stages * w.serial(row.numbers["wavelets"]))


def _multicast(row: Row) -> float:
    w, hops = row.wafer, row.numbers["receivers"]
    carried = w.serial(w.wavelets(row.whole("bytes")))
    way = w.route(hops, 0) + w.multicast + carried
    return float(way - hops * row.numbers.get("subtracted_per_hop", 0))


# -- collectives -----------------------------------------------------------------------------------------
def _collective(row: Row) -> float:
    cores, wavelets = row.whole("cores"), row.numbers["wavelets"]
    kind = row.texts["kind"]
    if kind == "broadcast":
        return _broadcast(row.wafer, cores, wavelets)
    if kind == "allreduce_ring":
        # Each step sends to a neighbour, once round: a line's ends are as far apart as it is long.
        step = row.wafer.hop + added(row.wafer) + row.wafer.serial(math.ceil(wavelets / cores))
        return 2 * (cores - 1) * step + row.wafer.hop * 2 * (cores - 1)
    if kind.startswith("allreduce_"):
        reduced = reduction(row.wafer, kind.removeprefix("allreduce_"), cores, wavelets)
        return reduced + _broadcast(row.wafer, cores, wavelets)
    return reduction(row.wafer, kind, cores, wavelets)


def _broadcast(wafer: Wafer, cores: int, wavelets: float) -> float:
    return float(wafer.route(cores - 1, 0) + wafer.serial(wavelets))


def added(wafer: Wafer) -> float:
    """Cycles from a wavelet's arrival at a core to its sum's leaving: down the ramp, added, and up again."""
    return wafer.send + wafer.add + wafer.done


def reduction(wafer: Wafer, kind: str, cores: int, wavelets: float) -> float:
    """A reduction of the published pattern into a line's end, in cycles, as its authors take it to be
    carried out (Near-Optimal Wafer-Scale Reduce, section 5): wavelet by wavelet, by cores that do nothing
    else.

    Depth times what a core takes to pass a sum on, and the greater of what the busiest ramp takes and of
    the links' mean load and the way. What a plan pays is `Wafer.join`: `beside_the_cheapest`.
    """
    each = max(wafer.wavelet, wafer.add) * wavelets
    stage, way = added(wafer), wafer.hop * (cores - 1)
    if kind == "star":
        return stage + max(each * (cores - 1), wafer.serial(wavelets) * cores / 2 + way)
    if kind == "tree":
        levels = math.ceil(math.log2(cores))
        mean = wafer.serial(wavelets) * cores * levels / (2 * max(1, cores - 1))
        return levels * stage + max(each * levels, mean + way)
    if kind == "chain":
        return (cores - 1) * stage + way + each
    group = math.ceil(math.sqrt(cores))
    return (group - 1 + math.ceil(cores / group) - 1) * stage + way + 2 * each


def beside_the_cheapest(rows: list[Row]) -> list[tuple[Row, float]]:
    """For each line and length the cheapest published reduction, and what a plan's join of it would take."""
    best: dict[tuple[str, int, float], Row] = {}
    for row in rows:
        if row.group == "collective" and row.texts["kind"] in REDUCTIONS:
            key = row.wafer.name, row.whole("cores"), row.numbers["wavelets"]
            best[key] = min(best.get(key, row), row, key=lambda r: r.value)
    return [(r, float(r.wafer.join(cores, wavelets))) for (_, cores, wavelets), r in best.items()]


# -- products --------------------------------------------------------------------------------------------
def _gemv(row: Row) -> float:
    w, at = row.wafer, row.square
    k, n = math.ceil(row.whole("k") / at.height), math.ceil(row.whole("n") / at.width)
    m = row.whole("m")
    return product(w, m, k, n, row.texts.get("weights", "f16")) + allreduced(w, at.height, m * n)


def _gemm(row: Row) -> float:
    w, at = row.wafer, row.square
    m, k, n = row.whole("m"), math.ceil(row.whole("k") / at.height), math.ceil(row.whole("n") / at.width)
    own = product(w, m, k, n, row.texts.get("weights", "f32"))
    return own + float(w.join(at.height, m * n))


# -- decoders --------------------------------------------------------------------------------------------
def layer_of(row: Row, batch: int = 1) -> Layer:
    """The layer that a row is about, on its blocks' cores."""
    heads = row.whole("heads")
    return Layer(
        wafer=row.wafer,
        columns=row.square.width,
        rows=row.square.height,
        dim=row.whole("dim"),
        ffn=row.whole("ffn", 0),
        heads=heads,
        kv_heads=row.whole("kv_heads"),
        head_dim=row.whole("head_dim", math.ceil(row.whole("dim") / heads)),
        context=row.whole("context", row.whole("tokens")),
        batch=batch,
        weights=row.texts.get("weights", "f16"),
        normed_keys=row.group not in ("decode_layer", "prefill_layer"),
    )


def _decode_layer(row: Row) -> float:
    return sum(layer_of(row).decode().values())


def _prefill_layer(row: Row) -> float:
    return layer_of(row).prefill(row.whole("tokens"))


def _decode_phase(row: Row) -> float:
    return layer_of(row).decode()[row.texts["phase"]]


def _decode_block(row: Row) -> float:
    return layer_of(row).block(row.texts["block"])


def _decode_token(row: Row) -> float:
    layer, layers = layer_of(row, row.whole("batch")), row.whole("layers")
    return sum(layer.decode().values()) * layers + layer.handed_over() * (min(row.square.count, layers) - 1)


def _pipeline_interval(row: Row) -> float:
    layer = layer_of(row, row.whole("batch"))
    return sum(layer.decode().values()) * row.whole("layers_per_stage") + layer.handed_over()


def _host(row: Row) -> float:
    """GB/s of large transfers, or microseconds of one."""
    w = row.wafer
    if row.unit == "GB/s":
        return w.host_bytes_per_cycle * w.clock_hz / 1e9
    ways = 2 if row.texts["direction"] == "round trip" else 1
    return float(w.from_host(ways * row.whole("bytes", 0)) / w.clock_hz * 1e6)


PRICES: Mapping[str, Callable[[Row], float]] = {
    "vector": _vector,
    "vector_loop": _vector_loop,
    "point_to_point": _point_to_point,
    "relay": _relay,
    "multicast": _multicast,
    "collective": _collective,
    "gemv": _gemv,
    "gemm": _gemm,
    "decode_layer": _decode_layer,
    "prefill_layer": _prefill_layer,
    "decode_phase": _decode_phase,
    "decode_block": _decode_block,
    "decode_token": _decode_token,
    "decode_batch": _decode_token,
    "pipeline_interval": _pipeline_interval,
    "host": _host,
}
