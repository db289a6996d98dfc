"""The form of inputs: how many dimensions data have at least, and of those that say what is done, the values
that mean something.

What onnx's inference asks of them, `judge_shapes` judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...ir.absent import lacking
from ...ir.graph import InvalidModel
from ...ir.op import Array
from ...ir.rules import GraphBuilder
from ..errors import shown
from .signatures import Signature


def judge_given(inputs: Sequence[str], signature: Signature) -> None:
    """Raises InvalidModel for an input that must be given and is "": a function's caller may leave it out."""
    for i, name in enumerate(inputs):
        if not name and signature.input(i).single:
            raise InvalidModel(f"input {i} ({signature.input(i).name}) is left out")


@dataclass(frozen=True)
class Form:
    """What an input is. elements: how many, None for any. rank: dimensions at most; least: at least.

    low: the least value. finite: no NaN and no infinity. below: values are less than this.
    """

    elements: int | None = None
    rank: int = 1
    least: int = 0
    low: float = -np.inf
    below: float = np.inf
    finite: bool = False

    @property
    def shape(self) -> str:
        """How many elements or dimensions it has, in words."""
        if self.elements:
            return f"{self.elements} element{'s' * (self.elements != 1)}"
        if self.rank == ANY:
            return f"{self.least} dimension{'s' * (self.least != 1)} or more"
        return f"{self.rank} dimension{'s' * (self.rank != 1)}"

    @property
    def says(self) -> str:
        """Its values in words."""
        if self.low == ABOVE_0:
            return "a finite number above 0"
        least = f" of at least {self.low:g}" if self.low > -np.inf else ""
        most = f" and less than {self.below:g}" if self.below < np.inf else ""
        return f"a finite number{least}{most}"

    def wrong(self, value: Array) -> Array:
        """The elements that mean nothing."""
        bounded = self.finite or self.low > -np.inf or self.below < np.inf
        if not bounded or value.dtype.kind not in "iufV" or value.dtype == np.bool_:
            return value.reshape(-1)[:0]
        wide = value.reshape(-1).astype(np.float64)
        bad = ~np.isfinite(wide) if self.finite else np.zeros(wide.shape, np.bool_)
        return value.reshape(-1)[bad | (wide < self.low) | (wide >= self.below)]


ABOVE_0 = float(np.nextafter(0, 1))
ONE = Form(elements=1)
COUNT = Form(elements=1, low=0, finite=True)
LIST = Form()
SIZES = Form(low=0)
POSITIVE = Form(low=1)
SCALES = Form(low=ABOVE_0, finite=True)
CHANNELS = Form(rank=1, least=1)
ANY = 64  # dimensions: as many as arrays may have
LINED = Form(rank=ANY, least=1)

FORMS: Mapping[tuple[str, str], Form] = {
    **{
        ("Clip", name): replace(ONE, rank=8) for name in ("min", "max")
    },  # lists of one number are written, too
    **{("Range", name): replace(ONE, finite=True) for name in ("start", "limit", "delta")},
    **{("Slice", name): LIST for name in ("starts", "ends", "axes", "steps")},
    **{("Col2Im", name): POSITIVE for name in ("image_shape", "block_shape")},
    **{("STFT", name): replace(COUNT, low=1) for name in ("frame_step", "frame_length")},
    **{(kind, "data"): LINED for kind in ("Gather", "GatherElements", "ScatterElements", "Scatter")},
    **{(kind, "indices"): LINED for kind in ("GatherND", "ScatterND")},
    **{(kind, "X"): Form(rank=ANY, least=3) for kind in ("ConvTranspose", "DeformConv")},
    **{(kind, "W"): Form(rank=ANY, least=3) for kind in ("ConvTranspose", "DeformConv")},
    ("AffineGrid", "size"): POSITIVE,
    ("CenterCropPad", "shape"): SIZES,
    ("ConstantOfShape", "input"): SIZES,
    ("CumProd", "axis"): ONE,
    ("CumSum", "axis"): ONE,
    ("DFT", "axis"): ONE,
    ("DFT", "dft_length"): replace(COUNT, low=1),
    ("Det", "X"): Form(rank=ANY, least=2),
    ("Dropout", "ratio"): Form(elements=1, low=0, below=1, finite=True),
    ("Dropout", "training_mode"): ONE,
    ("Expand", "shape"): SIZES,
    ("EyeLike", "input"): Form(rank=2, least=2),
    **{
        (f"{kind}Normalization", name): Form(rank=ANY, least=2)
        for kind, name in (("Group", "X"), ("Instance", "input"))
    },
    ("GroupNormalization", "bias"): CHANNELS,
    ("GroupNormalization", "scale"): CHANNELS,
    ("If", "cond"): replace(ONE, rank=8),
    ("InstanceNormalization", "B"): CHANNELS,
    ("InstanceNormalization", "scale"): CHANNELS,
    ("Loop", "M"): replace(ONE, rank=8),
    ("Loop", "cond"): replace(ONE, rank=8),
    ("OneHot", "depth"): COUNT,
    ("OneHot", "values"): Form(elements=2),
    ("Pad", "axes"): LIST,
    ("Pad", "constant_value"): ONE,
    ("Pad", "pads"): LIST,
    ("Reshape", "shape"): Form(low=-1),
    ("Resize", "scales"): SCALES,
    ("Resize", "sizes"): SIZES,
    ("ReverseSequence", "input"): Form(rank=ANY, least=2),
    ("RoiAlign", "batch_indices"): LIST,
    ("Split", "split"): SIZES,
    ("Squeeze", "axes"): LIST,
    ("Tile", "repeats"): SIZES,
    ("TopK", "K"): COUNT,
    ("Trilu", "k"): ONE,
    ("Unsqueeze", "axes"): LIST,
    ("Upsample", "scales"): SCALES,
    **{(f"Reduce{kind}", "axes"): LIST for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min")},
    **{(f"Reduce{kind}", "axes"): LIST for kind in ("Prod", "Sum", "SumSquare")},
    **{(f"{kind}Window", "size"): COUNT for kind in ("Blackman", "Hamming", "Hann")},
}


def judge_parameters(g: GraphBuilder, op_type: str, inputs: Sequence[str], signature: Signature) -> None:
    """Raises InvalidModel for a parameter of another form, or a constant one whose values mean nothing."""
    for i, name in enumerate(inputs):
        formal = signature.input(i)
        form = FORMS.get((op_type, formal.name))
        if form is None or not name:
            continue
        shape = g.shape(name)
        if not form.least <= len(shape) <= form.rank or (
            form.elements is not None and np.prod(shape) != form.elements
        ):
            raise InvalidModel(f"{formal.name} has shape {list(shape)}, the operator wants {form.shape}")
        value = g.value(name)
        if value is None or lacking([value]) is not None:
            continue
        if (bad := form.wrong(value)).size:
            raise InvalidModel(f"{formal.name}: {shown(str(bad[0]), 60)} is not {form.says}")
