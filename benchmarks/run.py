"""`waferc bench` on every workload: each against onnxruntime (and what else is installed), here and now.

`make bench`, or `python benchmarks/run.py gemm-1024 magika --threads 1`. Each workload is planned for the
smallest preset that it fits, and for wse3. Writes build/bench/results.json, a list of
{workload, threads, wafer, waferc_ms, peers, ratio, disturbed, wafer_cycles} where `wafer` is "smallest" or
"wse3" and `disturbed` says of each pair whether something else used the core; and build/bench/results.png.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import compiling
import generate
from plot import plot
from waferc.placement.machine.presets import preset

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "bench"
PRESETS = ("8x8", "16x16", "32x32", "64x64", "128x128", "wse2", "wse3")
SMALLEST, LARGE = "smallest", "wse3"
DOES_NOT_FIT = 5  # exit code


@dataclass(frozen=True)
class Workload:
    """A model and the flags that it is compiled with. inputs: flags that say what it is given.

    required: the most that `ratio` may be on the smallest wafer.
    """

    name: str
    model: str
    required: float
    flags: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()

    def path(self) -> Path:
        """The model's file; a generated one is written first."""
        if self.model in generate.MODELS:
            return generate.written(self.model, RESULTS / "models")
        return ROOT / self.model

    def may_fit(self, wafer: str, path: Path) -> bool:
        """False where the weights alone are more than all cores' SRAM."""
        stored = path.stat().st_size // (1 if "--weights" not in self.flags else 2)
        w = preset(wafer)
        return stored <= w.width * w.height * w.sram_bytes


def _workloads() -> Iterator[Workload]:
    yield Workload("mlp-1", "mlp-1", 1.5)
    yield Workload("mlp-64", "mlp-64", 1.5)
    for batch in (1, 16):
        yield Workload(f"digits-{batch}", "examples/digits/digits.onnx", 1.5, ("--dim", f"batch={batch}"))
    silero = "build/models/silero_vad_openvino_16k.onnx"
    yield Workload("silero", silero, 1.5, ("--state", "state=stateN"))
    text = ("--range", "bytes=0:257")
    yield Workload("magika", "build/models/magika.onnx", 1.5, ("--dim", "unk__214=1"), text)
    minilm = "build/models/paraphrase-MiniLM-L3-v2.onnx"
    for length in (16, 128):
        dims = ("--dim", "batch_size=1", "--dim", f"sequence_length={length}")
        yield Workload(f"minilm-{length}", minilm, 1.5, dims, ("--range", "input_ids=0:30522"))
    yield Workload("gemm-1024", "gemm-1024", 1.2)
    yield Workload("gemm-2048", "gemm-2048", 1.4)
    yield Workload("decoder-block", "decoder-block", 1.3)
    yield Workload("squeezenet", "squeezenet", 1.6)
    yield Workload("resnet50", "resnet50", 1.6)
    halves = ("--weights", "f16")
    yield Workload("matvec-chain", "matvec-chain", 1.0)
    yield Workload("matvec-chain-f16", "matvec-chain", 0.6, halves)
    tokens = ("--range", f"input_ids=0:{generate.SMOLLM2_135M.vocabulary}")
    yield Workload("decode", "decode", 1.05, (), tokens)
    yield Workload("decode-f16", "decode", 0.65, halves, tokens)


WORKLOADS = {w.name: w for w in _workloads()}


class Failed(Exception):
    """A bench that gave no result, and why."""


def bench(
    workload: Workload, model: Path, wafer: str, flags: Sequence[str], seconds: float
) -> dict[str, Any] | None:
    """The JSON of one `waferc bench`; None where it does not fit. Raises Failed."""
    waferc = Path(sys.executable).with_name("waferc")
    command = [waferc, "bench", model, *workload.flags, *workload.inputs, "--wafer", wafer, *flags]
    command += ["--json", "-"]
    # A session of its own: the peers are stopped processes, which nothing but a signal to their group ends.
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            out, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"took more than {seconds:.0f} s") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode == DOES_NOT_FIT:
        return None
    if process.returncode:
        raise Failed(errors.strip().splitlines()[-1] if errors.strip() else f"exit {process.returncode}")
    return json.loads(out)


def smallest(workload: Workload, model: Path, flags: Sequence[str], seconds: float) -> dict[str, Any]:
    """The bench on the first preset that the workload fits, in order of size."""
    for wafer in PRESETS:
        if workload.may_fit(wafer, model) and (found := bench(workload, model, wafer, flags, seconds)):
            return found
    raise Failed("fits no preset")


def rows(workload: Workload, wafer: str, found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What results.json keeps of one bench."""
    for run in found["runs"]:
        kept = {key: run[key] for key in ("waferc_ms", "peers", "ratio", "disturbed")}
        first = {"workload": workload.name, "threads": run["threads"], "wafer": wafer}
        yield {**first, **kept, "wafer_cycles": found["wafer_cycles"]}


def main() -> int:
    """1 when a bench failed, else 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("--threads", type=int, action="append", help="by default 1 and 2")
    parser.add_argument("--pairs", type=int, default=7, help="pairs of measurements")
    parser.add_argument("--wafer", choices=(SMALLEST, LARGE), action="append", help="by default both")
    parser.add_argument(
        "--minutes", type=float, default=20, help="for everything; what is left then is left out"
    )
    parser.add_argument("--limit", type=float, default=150, help="seconds for one workload on one wafer")
    options = parser.parse_args()
    if unknown := set(options.workloads) - set(WORKLOADS):
        parser.error(f"unknown workload {', '.join(sorted(unknown))}; there are {', '.join(WORKLOADS)}")
    threads = options.threads or [1, 2]
    flags = ["--pairs", str(options.pairs), *(w for n in threads for w in ("--threads", str(n)))]
    end = time.monotonic() + options.minutes * 60
    results: list[dict[str, Any]] = []
    failed = False
    if not options.workloads:
        # Its own process: native code under test must not take the other results with it.
        failed |= subprocess.run([sys.executable, Path(__file__).with_name("kernels.py")]).returncode != 0
    for wafer in options.wafer or (SMALLEST, LARGE):
        print(f"\n{wafer:16}{'preset':>8}{'compile s':>11}{'threads':>8}{'waferc ms':>12}", end="")
        print(f"{'peer ms':>12}{'ratio':>8}{'required':>9}{'cycles':>14}")
        for name in options.workloads or WORKLOADS:
            workload = WORKLOADS[name]
            model = workload.path()
            if not model.exists():
                print(f"{name:16}left out: {model.relative_to(ROOT)} is missing; 'make models' fetches it")
                continue
            seconds = min(options.limit, end - time.monotonic())
            try:
                if seconds < 1:
                    raise Failed(f"out of time: {options.minutes:g} minutes")
                if wafer == SMALLEST:
                    found = smallest(workload, model, [*flags, "--peer-limit", "20"], seconds)
                elif (found := bench(workload, model, wafer, [*flags, "--no-peers"], seconds)) is None:
                    raise Failed("does not fit")
            except Failed as e:
                failed = True
                print(f"{name:16}{e}", flush=True)
                continue
            results += rows(workload, wafer, found)
            say(workload, found, workload.required if wafer == SMALLEST else None)
    if end > time.monotonic():
        failed |= say_compiling([WORKLOADS[n] for n in options.workloads or WORKLOADS])
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if results:
        plot(results, RESULTS / "results.png")
    print("\nratio: waferc's time over onnxruntime's, median of pairs; below 1 waferc is faster")
    print("disturbed: pairs before or after which something else used the core, by a loop of nop")
    print(f"wrote {(RESULTS / 'results.json').relative_to(ROOT)} and results.png beside it")
    return int(failed)


def say_compiling(workloads: Sequence[Workload]) -> bool:
    """A line for each workload whose compile time has a limit; whether one failed."""
    failed = False
    print(
        f"\n{'compile for wse3':16}{'cold s':>8}{'warm s':>8}{'required':>10}{'peak MB':>9}{'model MB':>10}"
    )
    for workload in workloads:
        model, required = workload.path(), compiling.REQUIRED.get(workload.name)
        if required is None or not model.exists():
            continue
        try:
            found = compiling.measure(model, workload.flags)
        except subprocess.CalledProcessError as e:
            failed = True
            print(f"{workload.name:16}exit {e.returncode}")
            continue
        print(
            f"{workload.name:16}{found.cold:8.2f}{found.warm:8.2f}{required:10.1f}"
            f"{found.peak / 1e6:9.0f}{model.stat().st_size / 1e6:10.0f}",
            flush=True,
        )
    return failed


def _disturbed(run: dict[str, Any]) -> str:
    """A mark for a row that was not measured alone."""
    pairs = sum(run["disturbed"])
    return f"  disturbed {pairs}/{len(run['disturbed'])}" if pairs else ""


def say(workload: Workload, found: dict[str, Any], required: float | None) -> None:
    """A line for each number of threads, and one for each further peer."""
    compiled = sum(found["seconds"].values())
    for run in found["runs"]:
        (first, *others) = run["peers"].items()
        print(
            f"{workload.name:16}{found['wafer']:>8}{compiled:11.1f}{run['threads']:8}{run['waferc_ms']:12.4f}"
            f"{first[1]:12.4f}{run['ratio']:8.2f}{required or '':>9}{found['wafer_cycles']:14,.0f}"
            f"{_disturbed(run)}"
        )
        for peer, ms in others:
            print(f"{'':55}{ms:12.4f}{run['waferc_ms'] / ms:8.2f}  {peer}")
        for peer, why in run["failed"].items():
            print(f"{'':55}  {peer} left out: {why}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
