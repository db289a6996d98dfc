"""`waferc bench` on the models that the tests verify: each against onnxruntime, here and now, in pairs.

`make bench`, or `python benchmarks/models.py digits-16 magika --threads 1`. Writes build/bench/results.json:
a list of {workload, threads, wafer, waferc_ms, peers, ratio, wafer_cycles}.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "bench" / "results.json"
MODELS = "build/models"
LARGE = "wse3"

# workload -> (a small wafer that it fits, model and flags)
WORKLOADS: dict[str, tuple[str, tuple[str, ...]]] = {
    "digits-1": ("16x16", ("examples/digits/digits.onnx", "--dim", "batch=1")),
    "digits-16": ("16x16", ("examples/digits/digits.onnx", "--dim", "batch=16")),
    "silero": ("16x16", (f"{MODELS}/silero_vad_openvino_16k.onnx", "--state", "state=stateN")),
    "magika": ("32x32", (f"{MODELS}/magika.onnx", "--dim", "unk__214=1", "--range", "bytes=0:257")),
    **{
        f"minilm-{length}": (
            "64x64",
            (
                f"{MODELS}/paraphrase-MiniLM-L3-v2.onnx",
                *("--dim", "batch_size=1", "--dim", f"sequence_length={length}"),
                *("--range", "input_ids=0:30522"),
            ),
        )
        for length in (16, 128)
    },
}


def bench(workload: str, wafer: str, flags: list[str]) -> dict[str, Any] | None:
    """The JSON of one `waferc bench`; None where it fails, which it has said itself."""
    _, words = WORKLOADS[workload]
    command = [Path(sys.executable).with_name("waferc"), "bench", *words, "--wafer", wafer, *flags]
    done = subprocess.run([*command, "--json", "-"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return None
    found = json.loads(done.stdout)
    kept = ("threads", "wafer", "waferc_ms", "peers", "ratio", "wafer_cycles")
    return {"workload": workload, **{k: found[k] for k in kept}}


def main() -> int:
    """1 when a bench failed, else 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("--threads", help="host threads of both; by default all processors")
    parser.add_argument("--pairs", help="pairs of measurements")
    parser.add_argument(
        "--wafer", action="append", help=f"by default a small one and {LARGE}; may be repeated"
    )
    options = parser.parse_args()
    if unknown := set(options.workloads) - set(WORKLOADS):
        parser.error(f"unknown workload {', '.join(sorted(unknown))}; there are {', '.join(WORKLOADS)}")
    flags = [w for f in ("threads", "pairs") if (v := getattr(options, f)) for w in (f"--{f}", v)]
    titles = f"{'threads':>8}{'waferc ms':>12}{'onnxruntime ms':>16}{'ratio':>8}{'cycles':>12}"
    print(f"{'workload':12}{'wafer':8}{titles}")
    results: list[dict[str, Any]] = []
    failed = 0
    for workload in options.workloads or WORKLOADS:
        small, (model, *_) = WORKLOADS[workload]
        if not (ROOT / model).exists():
            print(f"{workload:12}left out: {model} is missing; 'make models' fetches it")
            continue
        for wafer in options.wafer or (small, LARGE):
            r = bench(workload, wafer, flags)
            if r is None:
                failed += 1
                continue
            results.append(r)
            print(
                f"{workload:12}{wafer:8}{r['threads']:8}{r['waferc_ms']:12.4f}"
                f"{r['peers']['onnxruntime']:16.4f}{r['ratio']:8.2f}{r['wafer_cycles']:12,.0f}",
                flush=True,
            )
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"ratio: waferc's time over onnxruntime's, below 1 waferc is faster; {RESULTS.relative_to(ROOT)}")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
