"""Operators of ai.onnx.ml as the standard has them, where onnx's reference implementation does otherwise.

It computes in the type of the data and answers in it, where the standard's results are f32 whatever the data
are: scores of integers are truncated. It wants attributes that are optional, and leaves post_transform out.
Here numbers are f64 until a result is rounded (`operators.operator`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops.aionnxml import op_linear_classifier, op_svm_regressor, op_tree_ensemble_regressor

from ...ir.op import Array

DOMAIN = "ai.onnx.ml"
Numbers = Sequence[float] | None


def computed_in(schema: Any, given: np.dtype[Any]) -> np.dtype[Any]:
    """What data of a type are computed in by an operator of the domain.

    f64 where it makes f32 of numbers of any type. Classifiers choose by the f32 scores that they give: two
    that are equal in f32 are equal. A tree's comparisons are exact.
    """
    if schema is None or given.kind not in "iuf":
        return given
    if all(o.type_str != "tensor(float)" for o in schema.outputs):
        return given
    if len(schema.outputs) > 1 and schema.name != "TreeEnsembleClassifier":
        return given if given.kind == "f" else np.dtype(np.float32)
    return np.dtype(np.float64)


# -- what becomes of scores ----------------------------------------------------------------------
def _softmax(x: Array) -> Array:
    out: Any = np.exp(x - x.max(1, keepdims=True))
    return out / out.sum(1, keepdims=True)


def _softmax_zero(x: Array) -> Array:
    """Softmax in which a score of 0 has no share."""
    most: Any = x.max(1, keepdims=True)
    small: Any = np.abs(x) <= ALMOST_NONE
    out = cast(Any, np.where(small, x * np.exp(-most), np.exp(x - most)))
    total = out.sum(1, keepdims=True)
    return np.where(total == 0, 0.5, out / np.where(total == 0, 1, total))


def _probit(x: Array) -> Array:
    """sqrt(2) erfinv(2 x - 1) by Winitzki's approximation, as runtimes have it."""
    y: Any = 2 * x - 1
    log = np.log((1 - y) * (1 + y))
    half = 2 / (np.pi * 0.147) + 0.5 * log
    return np.copysign(np.sqrt(2 * (np.sqrt(half * half - log / 0.147) - half)), y)


ALMOST_NONE = 1e-7
TRANSFORMS: Mapping[str, Callable[[Array], Array]] = {
    "NONE": lambda x: x,
    "LOGISTIC": lambda x: 1 / (1 + np.exp(-x)),
    "SOFTMAX": _softmax,
    "SOFTMAX_ZERO": _softmax_zero,
    "PROBIT": _probit,
}


# -- the operators -------------------------------------------------------------------------------
class Classic(OpRun):
    op_domain = DOMAIN


class Scaler(Classic):
    """(x - offset) * scale, each one number or one for each feature."""

    def _run(self, x: Array, offset: Numbers = None, scale: Numbers = None) -> tuple[Array]:
        return ((x - np.array(offset or [0.0])) * np.array(scale or [1.0]),)


class Normalizer(Classic):
    """Rows over their greatest element, the sum of their sizes, or the root of that of their squares; over
    nothing where that is 0."""

    def _run(self, x: Array, norm: str = "MAX") -> tuple[Array]:
        kinds: dict[str, Callable[[], Array]] = {
            "MAX": lambda: x.max(axis=-1, keepdims=True),
            "L1": lambda: np.abs(x).sum(axis=-1, keepdims=True),
            "L2": lambda: np.sqrt((x * x).sum(axis=-1, keepdims=True)),
        }
        by = kinds[norm]()
        return (x / np.where(by == 0, 1.0, by),)


class LinearRegressor(Classic):
    def _run(
        self,
        x: Array,
        coefficients: Numbers = None,
        intercepts: Numbers = None,
        targets: int = 1,
        post_transform: str = "NONE",
    ) -> tuple[Array]:
        rows = x.reshape(1, -1) if x.ndim == 1 else x
        scores = rows @ np.array(coefficients or [], np.float64).reshape(targets, -1).T
        return (TRANSFORMS[post_transform](scores + np.array(intercepts or [0.0])),)


class LinearClassifier(op_linear_classifier.LinearClassifier):
    def _run(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Array, intercepts: Numbers = None, **own: Any
    ) -> tuple[Array, ...]:
        rows = x.reshape(1, -1) if x.ndim == 1 else x
        return cast(Any, super())._run(rows, intercepts=intercepts or [0.0], **own)


class FeatureVectorizer(Classic):
    """Inputs beside each other, each cut or filled up with zeros to its length."""

    def _run(self, *parts: Array, inputdimensions: Sequence[int] | None = None) -> tuple[Array]:
        columns = [p.reshape(-1, 1) if p.ndim == 1 else p.reshape(p.shape[0], -1) for p in parts]
        lengths = inputdimensions or [c.shape[1] for c in columns]
        out = [
            np.pad(c[:, :n], ((0, 0), (0, max(0, n - c.shape[1]))))
            for c, n in zip(columns, lengths, strict=True)
        ]
        return (np.concatenate(out, axis=1),)


class Imputer(Classic):
    """What is missing, NaN or a number, replaced: in floats by the floats given, in integers by integers."""

    def _run(
        self,
        x: Array,
        imputed_value_floats: Numbers = None,
        imputed_value_int64s: Sequence[int] | None = None,
        replaced_value_float: float = 0.0,
        replaced_value_int64: int = 0,
    ) -> tuple[Array]:
        floats = x.dtype.kind == "f"
        values = np.array(imputed_value_floats if floats else imputed_value_int64s).astype(x.dtype)
        missing = x == (x.dtype.type(replaced_value_float) if floats else replaced_value_int64)
        if floats and np.isnan(replaced_value_float):
            missing = np.isnan(x)
        return (np.where(missing, values, x),)


class LabelEncoder(Classic):
    """Each element's value in a table, else the default. NaN is a key like any other."""

    def _run(self, x: Array, **own: Any) -> tuple[Array]:
        keys, values = (self._listed(own, kind) for kind in ("keys", "values"))
        default = self._default(own, values)
        table = {_key(k): v for k, v in zip(keys.tolist(), values.tolist(), strict=True)}
        found = [table.get(_key(v), default) for v in x.ravel().tolist()]
        return (np.array(found, values.dtype).reshape(x.shape),)

    @staticmethod
    def _listed(own: dict[str, Any], kind: str) -> Array:
        for name, dtype in (("int64s", np.int64), ("floats", np.float32), ("strings", object)):
            if own.get(f"{kind}_{name}"):
                return np.array(own[f"{kind}_{name}"], dtype)
        found = np.asarray(own[f"{kind}_tensor"])
        return found.astype(object) if found.dtype.kind in "SU" else found

    @staticmethod
    def _default(own: dict[str, Any], values: Array) -> Any:
        given = own.get("default_tensor")
        if given is not None and own.get("values_tensor") is not None:
            return np.asarray(given).reshape(-1)[0]
        if values.dtype == object:
            return own.get("default_string", "_Unused")
        return own.get("default_float", -0.0) if values.dtype.kind == "f" else own.get("default_int64", -1)


def _key(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return "NaN" if isinstance(value, float) and value != value else value


class SVMRegressor(op_svm_regressor.SVMRegressor):
    def _run(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, X: Array, post_transform: str = "NONE", **own: Any
    ) -> tuple[Array]:
        return (TRANSFORMS[post_transform](cast(Any, super())._run(X, post_transform="NONE", **own)[0]),)


def _doubles(own: dict[str, Any]) -> dict[str, Any]:
    """A tree's attributes, of which those that are tensors of f64 have no place in the reference."""
    tensors = {name for name in own if name.endswith("_as_tensor") and own[name] is not None}
    return {
        **{name: value for name, value in own.items() if not name.endswith("_as_tensor")},
        **{name.removesuffix("_as_tensor"): np.asarray(own[name]) for name in tensors},
    }


class TreeEnsembleRegressor(op_tree_ensemble_regressor.TreeEnsembleRegressor):
    def _run(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, X: Array, post_transform: str = "NONE", **own: Any
    ) -> tuple[Array]:
        return (
            TRANSFORMS[post_transform](cast(Any, super())._run(X, post_transform="NONE", **_doubles(own))[0]),
        )


OPERATORS: list[type[OpRun]] = [
    *(Scaler, Normalizer, LinearRegressor, LinearClassifier, FeatureVectorizer, Imputer, LabelEncoder),
    *(SVMRegressor, TreeEnsembleRegressor),
]
