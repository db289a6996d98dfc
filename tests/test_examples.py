"""The bundled model and its data are what the README says, and the examples run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
MODEL = EXAMPLES / "digits" / "digits.onnx"


def test_bundled_model_is_small_and_valid_with_one_symbolic_dimension() -> None:
    model = onnx.load(MODEL)
    onnx.checker.check_model(model, full_check=True)
    assert MODEL.stat().st_size < 300_000
    (image,) = model.graph.input
    shape = [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim]
    assert (image.name, shape) == ("image", ["batch", 1, 8, 8])
    assert all(node.name for node in model.graph.node)


def test_bundled_model_reads_held_out_digits() -> None:
    with np.load(MODEL.with_name("digits_test.npz")) as test:
        images, labels = test["image"], test["label"]
    assert len(labels) == 352 and len(np.unique(labels)) == 10
    session = onnxruntime.InferenceSession(MODEL)
    (probabilities,) = session.run(None, {"image": images})
    assert (np.asarray(probabilities).argmax(1) == labels).mean() >= 0.97


@pytest.mark.thorough
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("[0-9]*.py")), ids=lambda p: p.name)
def test_example_runs(path: Path) -> None:
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
