"""Trains the bundled model, a small CNN on scikit-learn's handwritten digits, with plain NumPy.

    pip install -e ".[train]" && OPENBLAS_NUM_THREADS=1 python examples/digits/train.py

Writes `digits.onnx` and `digits_test.npz` (image: float32 [352, 1, 8, 8], 0 to 1; label: uint8 [352]) beside
this file; with one BLAS thread the same NumPy gives the same bytes. The data are 1797 images of 8x8 pixels
from the UCI "Optical Recognition of Handwritten Digits" set (E. Alpaydin and C. Kaynak, 1998, licence
CC BY 4.0). They come writer by writer, so the last 352, held out, are by hands of which the training saw
little or nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]
HELD_OUT = 352
HERE = Path(__file__).parent


def initial(rng: np.random.Generator) -> dict[str, Floats]:
    """Parameters, He-initialised, in the layouts that ONNX wants (Conv: MCkk, Gemm with transB: out x in)."""
    shapes = {"conv1": (16, 1, 3, 3), "conv2": (32, 16, 3, 3), "fc1": (64, 512), "fc2": (10, 64)}
    out: dict[str, Floats] = {}
    for name, shape in shapes.items():
        scale = np.sqrt(2 / np.prod(shape[1:]))
        out[f"{name}.weight"] = (rng.standard_normal(shape) * scale).astype(np.float32)
        out[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    return out


def patches(x: Floats) -> Floats:
    """[n, c, h, w] -> [n, h, w, c * 9]: the 3x3 neighbourhood of each pixel, zeros outside."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, (3, 3), axis=(2, 3))
    n, c, h, w = x.shape
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(n, h, w, c * 9)


def convolve(x: Floats, p: dict[str, Floats], name: str) -> tuple[Floats, Floats]:
    """3x3 convolution, padding 1, and Relu: (result [n, m, h, w], the patches of x)."""
    columns = patches(x)
    weight = p[f"{name}.weight"]
    y = columns @ weight.reshape(len(weight), -1).T + p[f"{name}.bias"]
    return np.maximum(y, 0).transpose(0, 3, 1, 2), columns


def convolve_gradient(
    dy: Floats, y: Floats, columns: Floats, p: dict[str, Floats], name: str, grads: dict[str, Floats]
) -> Floats:
    """Stores the gradients of weight and bias; returns that of the input."""
    d = np.where(y > 0, dy, 0).transpose(0, 2, 3, 1)
    weight = p[f"{name}.weight"]
    m, c = weight.shape[:2]
    grads[f"{name}.weight"] = np.einsum("nhwm,nhwk->mk", d, columns, optimize=True).reshape(weight.shape)
    grads[f"{name}.bias"] = d.sum((0, 1, 2))
    # The input's gradient is a convolution of d with the kernel turned by 180 degrees.
    turned = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3).reshape(c, m * 9)
    return (patches(d.transpose(0, 3, 1, 2)) @ turned.T).transpose(0, 3, 1, 2)


def forward(x: Floats, p: dict[str, Floats]) -> dict[str, Floats]:
    """Every intermediate value by name; x is [n, 1, 8, 8], "probabilities" [n, 10]."""
    v: dict[str, Floats] = {}
    v["y1"], v["columns1"] = convolve(x, p, "conv1")
    v["y2"], v["columns2"] = convolve(v["y1"], p, "conv2")
    blocks = v["y2"].reshape(len(x), 32, 4, 2, 4, 2)
    v["pooled"] = blocks.max((3, 5))
    v["flat"] = v["pooled"].reshape(len(x), -1)
    v["hidden"] = np.maximum(v["flat"] @ p["fc1.weight"].T + p["fc1.bias"], 0)
    logits = v["hidden"] @ p["fc2.weight"].T + p["fc2.bias"]
    e = np.exp(logits - logits.max(1, keepdims=True))
    v["probabilities"] = e / e.sum(1, keepdims=True)
    return v


def gradients(x: Floats, labels: NDArray[np.int64], p: dict[str, Floats]) -> dict[str, Floats]:
    """Gradients of the mean cross entropy of a batch."""
    v, grads = forward(x, p), {}
    d = (v["probabilities"] - np.eye(10, dtype=np.float32)[labels]) / len(x)
    grads["fc2.weight"], grads["fc2.bias"] = d.T @ v["hidden"], d.sum(0)
    d = np.where(v["hidden"] > 0, d @ p["fc2.weight"], 0)
    grads["fc1.weight"], grads["fc1.bias"] = d.T @ v["flat"], d.sum(0)
    d = (d @ p["fc1.weight"]).reshape(v["pooled"].shape)
    blocks = v["y2"].reshape(len(x), 32, 4, 2, 4, 2)
    chosen = blocks == v["pooled"][:, :, :, None, :, None]
    dy2 = (chosen * d[:, :, :, None, :, None] / chosen.sum((3, 5), keepdims=True)).reshape(v["y2"].shape)
    dy1 = convolve_gradient(dy2, v["y2"], v["columns2"], p, "conv2", grads)
    convolve_gradient(dy1, v["y1"], v["columns1"], p, "conv1", grads)
    return grads


def train(
    x: Floats, labels: NDArray[np.int64], epochs: int = 40, batch: int = 48, seed: int = 0
) -> dict[str, Floats]:
    """Adam with decoupled weight decay, cosine rate, and shifts of at most one pixel as augmentation."""
    rng = np.random.default_rng(seed)
    p = initial(rng)
    first = {k: np.zeros_like(w) for k, w in p.items()}
    second = {k: np.zeros_like(w) for k, w in p.items()}
    steps, step = epochs * (len(x) // batch), 0
    for epoch in range(epochs):
        for at in np.array_split(rng.permutation(len(x)), len(x) // batch):
            step += 1
            rate = np.float32(0.001 * (1 + np.cos(np.pi * step / steps)))
            dx, dy = rng.integers(-1, 2, 2)
            padded = np.pad(x[at], ((0, 0), (0, 0), (1, 1), (1, 1)))
            moved = padded[:, :, 1 + dy : 9 + dy, 1 + dx : 9 + dx]
            for k, g in gradients(moved, labels[at], p).items():
                first[k] = (0.9 * first[k] + 0.1 * g).astype(np.float32)
                second[k] = (0.999 * second[k] + 0.001 * g * g).astype(np.float32)
                m, s = first[k] / (1 - 0.9**step), second[k] / (1 - 0.999**step)
                decay = np.float32(0.01 if k.endswith("weight") else 0)
                p[k] = (p[k] - rate * (m / (np.sqrt(s) + 1e-8) + decay * p[k])).astype(np.float32)
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1:3}: training accuracy {accuracy(x, labels, p):.2%}")
    return p


def accuracy(x: Floats, labels: NDArray[np.int64], p: dict[str, Floats]) -> float:
    return float((forward(x, p)["probabilities"].argmax(1) == labels).mean())


def export(p: dict[str, Floats]) -> onnx.ModelProto:
    """The network as ONNX, opset 17: "image" [batch, 1, 8, 8], 0 to 1, -> "probabilities" [batch, 10]."""
    conv: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "conv1.weight", "conv1.bias"], ["c1"], "conv1", **conv),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "conv2.weight", "conv2.bias"], ["c2"], "conv2", **conv),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("MaxPool", ["r2"], ["m"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["m"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "fc1.weight", "fc1.bias"], ["h"], "fc1", transB=1),
        helper.make_node("Relu", ["h"], ["r3"], "relu3"),
        helper.make_node("Gemm", ["r3", "fc2.weight", "fc2.bias"], ["logits"], "fc2", transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(w, k) for k, w in p.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    # Imported here: the data set is all that scikit-learn is for.
    from sklearn.datasets import load_digits  # pyright: ignore[reportMissingImports]

    pixels, digits = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    labels = digits.astype(np.int64)
    p = train(images[:-HELD_OUT], labels[:-HELD_OUT])
    print(f"held-out accuracy {accuracy(images[-HELD_OUT:], labels[-HELD_OUT:], p):.2%}")
    (HERE / "digits.onnx").write_bytes(export(p).SerializeToString(deterministic=True))
    np.savez_compressed(
        HERE / "digits_test.npz", image=images[-HELD_OUT:], label=labels[-HELD_OUT:].astype(np.uint8)
    )


if __name__ == "__main__":
    main()
