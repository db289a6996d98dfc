"""Resize, sampling, pooling with places, norms and transforms: every meaning and every kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nodes import Case, case, computed, floats, ints, normal, same_as_onnxruntime, whole
from sampled import sampled
from single import by_kernels, close
from waferc.compiler.errors import InvalidInput, UnsupportedOperator
from waferc.compiler.importer import import_model
from waferc.ir.evaluate import evaluate
from waferc.ir.op import Array
from waferc.ir.ops.contract import Contract

IMAGE = normal(1, 2, 9, 12)


def resize(scales: Any = None, sizes: Any = None, x: Array = IMAGE, roi: Any = None, **own: Any) -> Case:
    """From opset 11 on: x, region, scales, sizes; all but x constant."""
    inputs = [x, None if roi is None else floats(*roi)]
    inputs += [floats(*scales)] if scales else [None, ints(*sizes)]
    constants = [i for i, t in enumerate(inputs) if i and t is not None]
    return case("Resize", *inputs, constants=constants, **{"opset": 19, **own})


RESIZE = [
    resize([1, 1, 2, 2], mode="linear"),
    resize([1, 1, 2, 3], mode="nearest"),
    resize([1, 1, 0.5, 1.5], mode="linear"),
    resize([1, 1, 3, 2], mode="cubic"),
    resize([1, 1, 0.7, 0.31], mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1),
    resize(sizes=[1, 2, 13, 29], mode="linear", coordinate_transformation_mode="align_corners"),
    resize(sizes=[1, 2, 18, 1], mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
    resize([1, 1, 2, 0.4], mode="linear", coordinate_transformation_mode="half_pixel_symmetric"),
    resize([1, 1, 2, 2], mode="linear", coordinate_transformation_mode="asymmetric"),
    *(
        # no scale with which a place is whole: onnxruntime computes those in f32
        resize([1, 1, 0.61, 2.3], nearest_mode=kind, coordinate_transformation_mode=mode)
        for kind in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
        for mode in ("asymmetric", "half_pixel")
    ),
    case(
        "Resize",
        IMAGE,
        floats(),
        floats(),
        ints(1, 2, 18, 24),
        constants=[1, 2, 3],
        opset=11,
        coordinate_transformation_mode="tf_half_pixel_for_nn",
    ),
    resize(
        sizes=[1, 2, 5, 7],
        roi=[0, 0, 0.2, -0.1, 1, 1, 0.9, 1.3],
        mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=7.0,
    ),
    resize(sizes=[1, 2, 5, 7], mode="linear", antialias=1),
    resize(sizes=[1, 2, 5, 7], mode="cubic", antialias=1),
    resize(sizes=[9, 20], axes=[2, 3], mode="linear", keep_aspect_ratio_policy="not_larger"),
    resize(sizes=[11, 20], axes=[2, 3], keep_aspect_ratio_policy="not_smaller"),
    case("Resize", IMAGE, floats(1, 1, 2, 3), constants=[1], opset=10, mode="linear"),
    case("Upsample", IMAGE, floats(1, 1, 2, 3), constants=[1], opset=9, mode="linear"),
    case("Upsample", IMAGE, opset=7, scales=[1.0, 1.0, 2.0, 3.0]),
]

SPOTS = normal(2, 5, 4, 2) * np.float32(1.5)
SAMPLE = [
    *(
        case("GridSample", normal(2, 3, 6, 7), SPOTS, mode=m, padding_mode=p, align_corners=a, opset=20)
        for m in ("linear", "nearest", "cubic")
        for p in ("zeros", "border", "reflection")
        for a in (0, 1)
    ),
    case("GridSample", normal(1, 2, 4, 5, 6), normal(1, 2, 2, 3, 3), opset=20, padding_mode="reflection"),
    case("GridSample", normal(1, 2, 1, 5), normal(1, 3, 3, 2), align_corners=1, padding_mode="border"),
    *(
        case(
            "RoiAlign",
            normal(2, 3, 6, 7),
            floats(0, 0, 4, 3, -2, 1, 2.5, 9, 1, 1, 1.5, 1.2).reshape(3, 4),
            ints(0, 1, 1),
            opset=n,
            mode=mode,
            output_height=2,
            output_width=3,
            sampling_ratio=2,
            spatial_scale=0.7,
        )
        for mode, n in (("avg", 16), ("avg", 10), ("max", 16))
    ),
    *(
        case(
            "RoiAlign",
            normal(2, 3, 6, 7),
            floats(0, 0, 4, 3, -9, 1, 2.5, 9, 1, 1, 1.5, 1.2, -31, -41, 52, 63).reshape(4, 4),
            ints(0, 1, 1, 0),
            opset=n,
            output_height=2,
            output_width=3,
            spatial_scale=0.7,
        )
        for n in (10, 16)
    ),
    case(
        "DeformConv",
        normal(2, 4, 6, 7),
        normal(6, 2, 3, 2),
        normal(2, 24, 3, 6),
        normal(6),
        normal(2, 12, 3, 6),
        opset=19,
        group=2,
        offset_group=2,
        pads=[1, 0, 1, 0],
        strides=[2, 1],
    ),
]

TIES = whole(2, 2, 9, 8, low=0, high=3).astype(np.float32)
POOL = [
    case("MaxPool", TIES, outputs=2, kernel_shape=[3, 2], pads=[1, 0, 1, 1], dilations=[2, 1]),
    case("MaxPool", TIES, outputs=2, kernel_shape=[3, 2], strides=[2, 2], storage_order=1, ceil_mode=1),
    case("MaxPool", TIES.reshape(1, 2, 4, 9, 4), outputs=2, kernel_shape=[2, 2, 2], storage_order=1),
    case("MaxPool", np.full((1, 2, 9), -128, np.int8), outputs=2, kernel_shape=[3], pads=[1, 1]),
    *(
        case("LpPool", IMAGE, opset=18, kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 1], p=p)
        for p in (1, 2, 3)
    ),
    *(case("GlobalLpPool", IMAGE, p=p) for p in (1, 2, 3)),
    *(case("LpNormalization", IMAGE, axis=a, p=p) for a, p in ((1, 1), (-1, 2))),
    case("LRN", normal(2, 9, 3, 4), size=3, alpha=0.3, beta=0.6, bias=2.0),
    case("Shrink", IMAGE, bias=0.3, lambd=0.4),
    case(
        "MaxUnpool",
        normal(1, 1, 2, 2),
        ints(5, 7, 13, 15).reshape(1, 1, 2, 2),
        kernel_shape=[2, 2],
        strides=[2, 2],
    ),
    case("Col2Im", normal(2, 18, 36), ints(8, 7), ints(3, 2), constants=[1, 2]),
    case(
        "Col2Im",
        normal(2, 12, 12),
        ints(13, 9),
        ints(2, 2),
        constants=[1, 2],
        strides=[3, 3],
        dilations=[2, 1],
        pads=[0, 1, 1, 0],
    ),
    case("ConvTranspose", normal(1, 2, 4), normal(2, 3, 2), strides=[2], dilations=[2]),
    case("ConvTranspose", normal(1, 2, 4), normal(2, 3, 1), strides=[3]),
]


@pytest.mark.parametrize("one", sampled([*RESIZE, *SAMPLE, *POOL], 2), ids=str)
def test_against_onnxruntime(one: Case) -> None:
    same_as_onnxruntime(one, 1e-5)


# -- beyond onnxruntime -----------------------------------------------------------------


def test_a_scale_that_repeats_is_a_contraction_over_a_window() -> None:
    """No element is gathered; every dimension reads a few taps."""
    graph = import_model(resize([1, 1, 2, 1.5], mode="linear").proto())
    products = [n.op for n in graph.nodes if isinstance(n.op, Contract)]
    assert len(products) == 2
    assert max(op.size["t"] for op in products) <= 4
    assert "Gather" not in {n.op.name for n in graph.nodes}


def test_resize_of_bytes_and_halves() -> None:
    x = whole(1, 1, 5, 4, dtype="uint8", low=0, high=255)
    for dtype in (np.uint8, np.float16):
        (ours,) = computed(resize([1, 1, 2, 2], x=x.astype(dtype), mode="linear"))
        (right,) = computed(resize([1, 1, 2, 2], x=x.astype(np.float64), mode="linear"))
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours.astype(np.float64), right, atol=1 if dtype == np.uint8 else 0.1)


def test_places_that_are_no_numbers_read_nothing_outside() -> None:
    spots = normal(1, 3, 2, 2)
    spots[0, 0], spots[0, 1, 0], spots[0, 2, 1] = np.nan, 1e30, -np.inf
    for mode in ("nearest", "linear", "cubic"):
        for padding in ("zeros", "border", "reflection"):
            one = case("GridSample", normal(1, 2, 4, 5), spots, mode=mode, padding_mode=padding, opset=20)
            by_kernels(import_model(one.proto()), one.fed())


@pytest.mark.parametrize("n", [1, 2, 3, pytest.param(5, marks=pytest.mark.thorough)])
def test_determinants(n: int) -> None:
    x = normal(2, 3, n, n).astype(np.float64)
    (out,) = computed(case("Det", x))
    np.testing.assert_allclose(out, np.linalg.det(x), rtol=1e-9)
    turned = np.eye(n)[np.roll(np.arange(n), 1)]
    (sign,) = computed(case("Det", turned))
    assert float(sign) == (-1) ** (n - 1)
    if n > 1:
        (none,) = computed(case("Det", np.ones((n, n))))
        assert float(none) == 0


def test_batch_statistics() -> None:
    x, w = normal(4, 3, 5) * 2 + 1, [np.abs(normal(3)) + np.float32(0.5) for _ in range(4)]
    y, mean, variance = computed(
        case("BatchNormalization", x, *w, outputs=3, opset=15, training_mode=1, momentum=0.7, epsilon=1e-2)
    )
    own = x.mean((0, 2)), x.var((0, 2))
    close(mean, (w[2] * 0.7 + own[0] * 0.3).astype(np.float32))
    close(variance, (w[3] * 0.7 + own[1] * 0.3).astype(np.float32))
    right = (x - own[0][:, None]) / np.sqrt(own[1][:, None] + 1e-2) * w[0][:, None] + w[1][:, None]
    close(y, right.astype(np.float32))


def dft(x: Array, length: int | None, dim: int = 1, **own: int) -> Array:
    """By the kernels, as complex numbers; real where the result is."""
    at = None if length is None else ints(length)[0]
    constants = [2] if at is None else [1, 2]
    (out,) = computed(case("DFT", x, at, ints(dim)[0], constants=constants, opset=20, **own))
    return out[..., 0] + 1j * out[..., 1] if out.shape[-1] == 2 else out[..., 0]


def as_complex(x: Array) -> Array:
    return x[..., 0] + (1j * x[..., 1] if x.shape[-1] == 2 else 0)


@pytest.mark.parametrize(("size", "length"), [(12, None), (9, 9), (50, 64), (50, 36), (7, None)])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("inverse", [0, 1])
def test_fourier_transforms(size: int, length: int | None, parts: int, inverse: int) -> None:
    """Direct and in two stages, cut off or filled with zeros."""
    x = normal(2, size, 3, parts)
    right = (np.fft.ifft if inverse else np.fft.fft)(as_complex(x), n=length, axis=1)
    ours = dft(x, length, inverse=inverse)
    np.testing.assert_allclose(ours, right, atol=2e-6 * np.abs(right).max())


@pytest.mark.parametrize("length", [None, 20, 33])
def test_one_side_of_a_spectrum(length: int | None) -> None:
    x = normal(2, 17, 1)
    right = np.fft.rfft(x[..., 0], n=length, axis=1)
    np.testing.assert_allclose(dft(x, length, onesided=1), right, atol=1e-5)
    back = np.stack([right.real, right.imag], -1).astype(np.float32)
    again = np.fft.irfft(right, n=length, axis=1)
    np.testing.assert_allclose(dft(back, length, onesided=1, inverse=1), again, atol=1e-5)


@pytest.mark.parametrize("onesided", [0, 1])
def test_short_time_transforms(onesided: int) -> None:
    x, window = normal(2, 40, 1), normal(8)
    frames = np.stack([x[:, f : f + 8, 0] * window for f in range(0, 33, 3)], 1)
    right = (np.fft.rfft if onesided else np.fft.fft)(frames, axis=-1)
    for constants in ([1, 2, 3], [1, 3]):
        one = case(
            "STFT", x, ints(3)[0], window, ints(8)[0], constants=constants, onesided=onesided, opset=17
        )
        (out,) = computed(one)
        np.testing.assert_allclose(as_complex(out), right, atol=1e-5)


def test_mel_weights_are_triangles() -> None:
    values = [ints(8)[0], ints(64)[0], ints(8192)[0], floats(10)[0], floats(4000)[0]]
    graph = import_model(case("MelWeightMatrix", *values, constants=range(5), opset=17).proto())
    out = evaluate(graph, {})["y0"]
    assert out.shape == (33, 8)
    assert (out.max(0) == 1).all()
    assert ((out > 0).sum(0) >= 1).all()


@pytest.mark.parametrize(
    ("one", "error", "message"),
    [
        (resize([1, 1, 2, 2], mode="sharp"), InvalidInput, "mode 'sharp'"),
        (resize([1, 1, 2, 2], coordinate_transformation_mode="none"), InvalidInput, "mode 'none'"),
        (case("GridSample", normal(1, 2, 3, 3), normal(1, 2, 2, 3), opset=20), InvalidInput, "GridSample of"),
        (
            case("RoiAlign", normal(1, 2, 3, 3), normal(1, 4), ints(0), opset=16, mode="max"),
            UnsupportedOperator,
            "sampling_ratio 0",
        ),
        (case("Det", normal(2, 3)), InvalidInput, "Det of"),
        (case("DFT", normal(2, 3, 3), opset=17), InvalidInput, "DFT of"),
    ],
    ids=str,
)
def test_refuses(one: Case, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        import_model(one.proto())


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_of_nothing_is_nothing(mode: str) -> None:
    x = np.zeros((0, 1, 2, 2), np.float32)
    by_scale = case("Resize", x, None, floats(1, 1, 2, 2), constants=[2], opset=19, mode=mode)
    by_size = case("Resize", x, None, None, ints(0, 1, 4, 4), constants=[3], opset=19, mode=mode)
    for one in (by_scale, by_size):
        assert computed(one)[0].shape == (0, 1, 4, 4)
    with pytest.raises(InvalidInput, match="no elements"):
        import_model(case("Resize", x, None, None, ints(2, 1, 4, 4), constants=[3], opset=19).proto())
