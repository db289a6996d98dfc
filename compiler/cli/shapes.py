"""`waferc shapes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError, shown
from ..show.text import facts, table
from .command import Verb
from .console import Console
from .named_files import Format, Writes

if TYPE_CHECKING:
    import onnx

    from ...placement.machine.wafer import Wafer
    from ..shapes.shape import Shape

CONTEXT = 8192
MODEL = Format("shapes writes a model, an .onnx file", (".onnx",))


@click.command("shapes", cls=Verb)
@click.argument("name", required=False)
@click.option(
    "-o", "--output", type=Writes(MODEL), metavar="FILE.onnx", help="Write NAME's graph, without weights."
)
@click.option("--tokens", type=click.IntRange(1, 4096), help="Tokens of a call; 1 with caches by default.")
@click.option("--cached", type=click.IntRange(1, 1 << 20), help="Positions in caches, else any number.")
@click.option("--no-caches", is_flag=True, help="The tokens are all that there is: no caches.")
@click.option("--layers", type=click.IntRange(1, 4096), help="Write the first layers only.")
@click.option(
    "--part", type=click.Choice(["decoder", "encoder"]), help="Of a model with an encoder; the decoder."
)
@click.option("--tiny", is_flag=True, help="Write a model of NAME's kind with few of anything, and weights.")
@click.option(
    "--context",
    type=click.IntRange(1, 1 << 24),
    default=CONTEXT,
    show_default=True,
    help="Positions in caches.",
)
@click.option("--wafer", default="wse3", show_default=True, metavar="WAFER", help="Whose memory counts.")
@click.pass_obj
def shapes(console: Console, name: str | None, **asked: Any) -> None:
    """List large models as shapes, or write one's graph.

    Parameters, bytes by bits a weight, caches per token, and wafers that hold it all,
    with one request's caches, at 62 % and 90 % of their memory. With -o the graph of
    NAME (one of the list, or a .toml file) without weights, to be planned with
    'waferc compile --no-weights --compile-to plan'.
    """
    from ..request import Request
    from ..shapes.shape import shape, shapes

    wafer = Request(wafer=asked["wafer"]).machine()
    if asked["output"] is None:
        found = [shape(name)] if name else [*shapes().values()]
        _list(console, found, wafer, asked["context"])
        return
    if name is None:
        raise UsageError("-o writes one shape's graph: give its NAME")
    proto = _graph(shape(name), asked)
    from ..files import write_bytes

    write_bytes(asked["output"], proto.SerializeToString())
    console.note(f"wrote {shown(asked['output'])}: {len(proto.graph.node):,} nodes")
    console.result({"shape": name, "output": asked["output"], "nodes": len(proto.graph.node)})


def _graph(shape: Shape, asked: dict[str, Any]) -> onnx.ModelProto:
    from ..shapes import decoder, whisper
    from ..shapes.decoder import Step

    shape = shape.small() if asked["tiny"] else shape
    tokens, cached = asked["tokens"] or 1, asked["cached"] or 0
    if cached and asked["no_caches"]:
        raise UsageError("--cached and --no-caches contradict one another")
    if tokens > 1 and not cached and not asked["no_caches"]:
        raise UsageError(f"--tokens {tokens} needs --cached N or --no-caches")
    if asked["part"] == "encoder":
        if not shape.encoder:
            raise UsageError(f"{shape.name} has no encoder")
        return whisper.encoder(shape, not asked["tiny"])
    step = Step(tokens, cached, not asked["no_caches"], asked["context"])
    count = min(asked["layers"] or shape.layers, shape.layers)
    if shape.encoder:
        return whisper.decoding(shape, step, not asked["tiny"], range(count)).proto()
    return decoder.decoder(shape, step, not asked["tiny"], count)


def _list(console: Console, found: list[Shape], wafer: Wafer, context: int) -> None:
    from ..shapes.sizes import BITS, FILLS, cached, held, published_error, sizes, wafers_needed

    rows: list[list[Any]] = []
    data: list[dict[str, Any]] = []
    for s in found:
        own, at = sizes(s), min(context, s.context)
        by_bits = {b: own.bytes(of) for b, of in BITS.items()}
        need = {b: [wafers_needed(held(s, of, None, at), wafer, f) for f in FILLS] for b, of in BITS.items()}
        per_token = s.layers * s.attention.cached
        rows.append(
            [
                s.name,
                f"{own.parameters / 1e9:.2f}",
                f"{own.active / 1e9:.2f}",
                *(f"{n / 1e9:.1f}" for n in by_bits.values()),
                f"{per_token * 2 / 1024:.0f}",
                *(f"{low}/{high}" for low, high in need.values()),
            ]
        )
        data.append(
            {
                "name": s.name,
                "layers": s.layers,
                "parameters": own.parameters,
                "active": own.active,
                "experts": own.experts,
                "published_billions": s.total or None,
                "error": published_error(s) if s.total else None,
                "source": s.source,
                "bytes": {str(b): round(n) for b, n in by_bits.items()},
                "cached_elements_per_token": per_token,
                "cached_elements": cached(s, at),
                "context": at,
                "wafers": {str(b): dict(zip(map(str, FILLS), n)) for b, n in need.items()},
            }
        )
    titles = ["shape", "B", "active", "GB", "8 bit", "4 bit", "KiB", "wafers", "8 bit ", "4 bit "]
    for line in table(titles, rows):
        console.say(line)
    console.say()
    terms = [
        ("8 bit, 4 bit", "every weight in blocks of 32 with a scale of 16 bits: 8.5 and 4.5 bits"),
        (
            "KiB",
            "that all caches grow by for a position, 16 bits an element; window layers stop growing",
        ),
        (
            "wafers",
            f"of {shown(wafer.name)}, with caches of {context:,} positions in f32, filled to 62 and to 90 %",
        ),
    ]
    for line in facts(terms):
        console.say(line)
    console.result({"wafer": wafer.name, "shapes": data})
