"""`waferc bench` on the four models that the tests verify: each against onnxruntime, here and now, in pairs.

`make bench`, or `python benchmarks/models.py digits magika`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = {
    "digits": ("examples/digits/digits.onnx", "--dim", "batch=16"),
    "silero": ("build/models/silero_vad_openvino_16k.onnx",),
    "magika": ("build/models/magika.onnx", "--dim", "unk__214=1"),
    "minilm": (
        "build/models/paraphrase-MiniLM-L3-v2.onnx",
        *("--dim", "batch_size=1", "--dim", "sequence_length=128"),
    ),
}


def main(names: list[str]) -> int:
    """Benches the named models, all without names; the exit code of the first that fails, else 0."""
    if unknown := set(names) - set(MODELS):
        raise SystemExit(f"unknown model {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    for name in names or MODELS:
        print(f"\n{name}", flush=True)
        command = [Path(sys.executable).with_name("waferc"), "bench", *MODELS[name]]
        if code := subprocess.run(command, cwd=ROOT).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
