"""Compiles the bundled digit classifier for a whole wafer, runs it on real images, verifies and draws it.

Every step is a `waferc` command, printed before it runs, as one would type it from the project's root.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
OUT = Path("build/demo")
MODEL = "examples/digits/digits.onnx"
BATCH = 16
SHADES = " .:-=+*#%@"


def waferc(*words: str) -> None:
    """Runs one command; a failing one ends the demo with its exit code."""
    print(f"\n$ waferc {shlex.join(words)}", flush=True)
    command = Path(sys.executable).with_name("waferc")
    done = subprocess.run([command, *words], cwd=ROOT)
    if done.returncode:
        raise SystemExit(done.returncode)


def main() -> None:
    out = ROOT / OUT
    out.mkdir(parents=True, exist_ok=True)
    with np.load(ROOT / "examples/digits/digits_test.npz") as test:
        images, labels = test["image"], test["label"]
    # The program takes 16 images a call; the first axis of --steps counts the calls.
    np.savez(out / "images.npz", image=images.reshape(-1, BATCH, 1, 8, 8))

    program, images_file = str(OUT / "digits.wafer"), str(OUT / "images.npz")
    waferc("compile", MODEL, "--wafer", "wse3", "--dim", f"batch={BATCH}", "-o", program)
    waferc("run", program, "--steps", images_file, "-o", str(OUT / "probabilities.npz"))
    with np.load(out / "probabilities.npz") as result:
        probabilities = result["probabilities"].reshape(-1, 10)
    show(images[0, 0], int(probabilities[0].argmax()), float(probabilities[0].max()))
    right = int((probabilities.argmax(1) == labels).sum())
    print(f"accuracy on held-out handwritten digits: {right} of {len(labels)} = {right / len(labels):.2%}")

    waferc("verify", MODEL, "--program", program, "--steps", images_file)
    waferc("inspect", program)
    panels = ("--metric", "sram", "--metric", "cycles", "--layers", "4")
    waferc("heatmap", program, *panels, "-o", str(OUT / "heatmap.png"))
    waferc("report", program, "-o", str(OUT / "report.html"))
    print(f"\nsee {OUT / 'heatmap.png'} and {OUT / 'report.html'}")


def show(image: np.ndarray, digit: int, probability: float) -> None:
    """One image as text, two characters a pixel, and what the wafer read in it."""
    for row in image:
        print("".join(SHADES[int(p * (len(SHADES) - 1))] * 2 for p in row))
    print(f"read as {digit}, probability {probability:.3f}")


if __name__ == "__main__":
    main()
