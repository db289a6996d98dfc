"""The same from Python: compile for a small wafer, run one batch, look at the answers."""

from pathlib import Path

import numpy as np
from waferc import compile_model

DIGITS = Path(__file__).parent / "digits"

program = compile_model(DIGITS / "digits.onnx", wafer="16x16", dims={"batch": 16})
test = np.load(DIGITS / "digits_test.npz")
outputs = program.run({"image": test["image"][:16]})
print("read   ", *outputs["probabilities"].argmax(1))
print("written", *test["label"][:16])
