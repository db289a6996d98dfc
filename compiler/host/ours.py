"""Operators of the host that onnx's reference implementation lacks, or carries out unlike other runtimes.

Each is its class by name and domain; what it computes is the standard's text, and onnxruntime where that is
silent (shapes of what a map becomes, the scores of a classifier of two classes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops.aionnxml._op_run_aionnxml import OpRunAiOnnxMl

from ...ir.op import Array
from . import classic, indexed
from .classic import TRANSFORMS

PAIR = 2  # classes of which one score tells both


class Optional(OpRun):
    """The reference's own wraps the content in a list, which other operators on optionals do not expect, and
    takes no result for none.
    """

    def _run(self, x: Any = None, type: Any = None) -> tuple[Any]:  # the attribute's name in the standard
        return (x,)

    def _check_and_fix_outputs(self, res: tuple[Any, ...]) -> tuple[Any, ...]:
        return res


# -- maps ---------------------------------------------------------------------------------


class ZipMap(OpRunAiOnnxMl):
    """Each row of a matrix as a map from the classes' labels; a vector is one row."""

    def _run(
        self,
        x: Array,
        classlabels_int64s: Sequence[int] | None = None,
        classlabels_strings: Sequence[str] | None = None,
    ) -> tuple[list[dict[Any, float]]]:
        labels = list(_one_of("classlabels_*", classlabels_int64s, classlabels_strings))
        if x.ndim not in (1, 2) or x.shape[-1] != len(labels):
            raise ValueError(f"{len(labels)} labels for values of shape {list(x.shape)}")
        rows = np.asarray(x, np.float32).reshape(-1, len(labels))
        return ([dict(zip(labels, row, strict=True)) for row in rows.tolist()],)


class CastMap(OpRunAiOnnxMl):
    """The values of a map, [1, n]: in the order of their keys, or each at its key."""

    def _run(
        self, x: Mapping[int, Any], cast_to: str = "TO_FLOAT", map_form: str = "DENSE", max_map: int = 1
    ) -> tuple[Array]:
        if cast_to not in ("TO_FLOAT", "TO_INT64", "TO_STRING"):
            raise ValueError(f"cast_to {cast_to!r}")
        if map_form not in ("DENSE", "SPARSE"):
            raise ValueError(f"map_form {map_form!r}")
        if map_form == "DENSE":
            return (_as_row([x[k] for k in sorted(x)], cast_to),)
        if bad := [k for k in x if not 0 <= k < max_map]:
            raise ValueError(f"key {bad[0]} of a map whose keys are 0 to {max_map - 1}")
        found = _as_row([x[k] for k in sorted(x)], cast_to)
        row: Any = np.full((1, max_map), "0.f" if cast_to == "TO_STRING" else 0, found.dtype)
        row[0, sorted(x)] = found[0]
        return (row,)


def _as_row(values: Sequence[Any], cast_to: str) -> Array:
    """Values of a map as a row of another type; of text the number that it says."""
    if cast_to == "TO_STRING":
        text = [v if isinstance(v, str) else f"{float(v):f}" for v in values]
        return np.array(text, object).reshape(1, -1)
    kind = np.float32 if cast_to == "TO_FLOAT" else np.int64
    return np.array([kind(float(v)) for v in values], kind).reshape(1, -1)


class CategoryMapper(OpRunAiOnnxMl):
    """Texts as numbers, or numbers as texts, by a table of pairs."""

    def _run(
        self,
        x: Array,
        cats_int64s: Sequence[int] | None = None,
        cats_strings: Sequence[str] | None = None,
        default_int64: int = -1,
        default_string: str = "_Unused",
    ) -> tuple[Array]:
        numbers, texts = list(cats_int64s or ()), list(cats_strings or ())
        if len(numbers) != len(texts):
            raise ValueError(f"{len(numbers)} cats_int64s for {len(texts)} cats_strings")
        if x.dtype.kind in "OUS":
            number_of = dict(zip(texts, numbers, strict=True))
            found: Any = [number_of.get(str(v), default_int64) for v in x.reshape(-1)]
            return (np.array(found, np.int64).reshape(x.shape),)
        text_of = dict(zip(numbers, texts, strict=True))
        found = [text_of.get(v, default_string) for v in x.reshape(-1).tolist()]
        return (np.array(found, object).reshape(x.shape),)


class DictVectorizer(OpRunAiOnnxMl):
    """The values of a map, [1, n], or of a sequence of them, [rows, n], by the vocabulary's order."""

    def _run(
        self,
        x: Mapping[Any, Any] | Sequence[Mapping[Any, Any]],
        int64_vocabulary: Sequence[int] | None = None,
        string_vocabulary: Sequence[str] | None = None,
    ) -> tuple[Array]:
        words = list(_one_of("*_vocabulary", int64_vocabulary, string_vocabulary))
        maps = [x] if isinstance(x, Mapping) else list(x)
        kinds = [np.asarray(v) for m in maps for v in m.values()]
        text = bool(kinds) and kinds[0].dtype.kind in "OUS"
        kind: Any = object if text else (kinds[0].dtype if kinds else np.float32)
        rows = [[m.get(w, "" if text else 0) for w in words] for m in maps]
        return (np.array(rows, kind).reshape(len(maps), len(words)),)


def _one_of(what: str, numbers: Sequence[int] | None, texts: Sequence[str] | None) -> Sequence[Any]:
    """The attribute that is given. Raises ValueError unless that is one."""
    if bool(numbers) == bool(texts):
        raise ValueError(f"one attribute {what} must be given")
    return numbers or texts or ()


# -- support vector machines --------------------------------------------------------------


class SVMClassifier(OpRunAiOnnxMl):
    """Classes by votes of pairs (libsvm), or by one score each (liblinear).

    Scores and probabilities are libsvm's: Wu, Lin and Weng, Probability Estimates for Multi-class
    Classification by Pairwise Coupling, 2004.
    """

    def _run(self, x: Array, **given: Any) -> tuple[Array, Array]:
        labels = list(
            _one_of("classlabels_*", given.get("classlabels_ints"), given.get("classlabels_strings"))
        )
        coefficients, rho = _floats(given, "coefficients"), _floats(given, "rho")
        a, b = _floats(given, "prob_a"), _floats(given, "prob_b")
        per_class = list(given.get("vectors_per_class") or ())
        if a.size != b.size:
            raise ValueError(f"{a.size} values prob_a for {b.size} prob_b")
        if not (coefficients.size and rho.size):
            raise ValueError("coefficients and rho must be given")
        rows = np.asarray(x, np.float32).reshape(-1, x.shape[-1] if x.ndim > 1 else x.size)
        transform = str(given.get("post_transform") or "NONE")
        if sum(per_class):
            votes, scores = _votes(rows, per_class, coefficients, rho, given)
            chosen = votes.argmax(1)
            if a.size:
                scores = _coupled(scores, a, b, len(per_class))
        else:
            scores = rows @ coefficients.reshape(len(labels), -1).T + rho[0]
            chosen = scores.argmax(1)
            if len(labels) == PAIR:
                positive = bool((coefficients >= 0).all())
                chosen[scores.max(1) >= (0.5 if positive else np.nextafter(np.float32(0), 1))] = 1
        kind: Any = object if isinstance(labels[0], str) else np.int64
        return np.array(labels, kind)[chosen], _transformed(scores, transform)


def _floats(given: Mapping[str, Any], name: str) -> Array:
    return np.asarray(given.get(name) or (), np.float32)


def _kernel(x: Array, y: Array, given: Mapping[str, Any]) -> Array:
    """[rows of x, rows of y]: how alike they are."""
    gamma, constant, degree = (*(given.get("kernel_params") or ()), 0.0, 0.0, 0.0)[:3]
    kind = str(given.get("kernel_type") or "LINEAR")
    if kind == "RBF":
        apart: Any = x[:, None, :] - y[None, :, :]
        return np.exp(-np.float32(gamma) * (apart * apart).sum(2))
    product: Any = x @ y.T
    if kind == "LINEAR":
        return product
    scaled = np.float32(gamma) * product + np.float32(constant)
    if kind == "POLY":
        return scaled ** np.float32(degree)
    if kind == "SIGMOID":
        return np.tanh(scaled)
    raise ValueError(f"kernel_type {kind!r}")


def _votes(
    x: Array, per_class: Sequence[int], coefficients: Array, rho: Array, given: Mapping[str, Any]
) -> tuple[Array, Array]:
    """[rows, classes]: how many pairs each class wins; [rows, pairs]: the score of each pair."""
    count, classes = sum(per_class), len(per_class)
    alike: Any = _kernel(x, _floats(given, "support_vectors").reshape(count, -1), given)
    weights = coefficients.reshape(-1, count)
    ends = np.cumsum([0, *per_class])
    of = [slice(a, b) for a, b in pairwise(ends)]
    votes: Any = np.zeros((len(x), classes), np.int64)
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    if rho.size < len(pairs):
        raise ValueError(f"{rho.size} values rho for {len(pairs)} pairs of classes")
    scores: Any = np.zeros((len(x), len(pairs)), np.float32)
    for p, (i, j) in enumerate(pairs):
        scores[:, p] = alike[:, of[i]] @ weights[j - 1, of[i]] + alike[:, of[j]] @ weights[i, of[j]] + rho[p]
        won = scores[:, p] > 0
        votes[:, i] += won
        votes[:, j] += ~won
    return votes, scores


def _coupled(scores: Array, a: Array, b: Array, classes: int) -> Array:
    """[rows, classes]: probabilities that explain the scores of pairs best (the paper's second way)."""
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    if a.size < len(pairs):
        raise ValueError(f"{a.size} values prob_a for {len(pairs)} pairs of classes")
    n = len(scores)
    r: Any = np.zeros((n, classes, classes), np.float64)
    for p, (i, j) in enumerate(pairs):
        f = scores[:, p].astype(np.float64) * a[p] + b[p]
        r[:, i, j] = np.clip(1 / (1 + np.exp(f)), 1e-7, 1 - 1e-7)
        r[:, j, i] = 1 - r[:, i, j]
    q: Any = -r.transpose(0, 2, 1) * r
    every = np.arange(classes)
    q[:, every, every] = (r * r).sum(1)
    return np.array([_estimate(one) for one in q], np.float32).reshape(n, classes)


def _estimate(q: Array) -> Array:
    """The p of least p q p whose sum is 1, as libsvm iterates towards it."""
    k = len(q)
    p: Any = np.full(k, 1 / k)
    for _ in range(max(100, k)):
        qp = q @ p
        pqp = float(p @ qp)
        if np.abs(qp - pqp).max() < 0.005 / k:
            break
        for t in range(k):
            step = (pqp - qp[t]) / q[t, t]
            p[t] += step
            pqp = (pqp + step * (step * q[t, t] + 2 * qp[t])) / (1 + step) ** 2
            qp = (qp + step * q[t]) / (1 + step)
            p /= 1 + step
    return p


def _transformed(scores: Array, kind: str) -> Array:
    """Scores as the attribute post_transform asks for them. [rows, classes]; one score tells of a pair."""
    if kind not in TRANSFORMS:
        raise ValueError(f"post_transform {kind!r}")
    both = np.concatenate([-scores, scores], 1) if scores.shape[1] == 1 else scores
    with np.errstate(all="ignore"):
        return np.asarray(TRANSFORMS[kind](both.astype(np.float64)), np.float32)


OURS = [
    CastMap,
    CategoryMapper,
    DictVectorizer,
    Optional,
    SVMClassifier,
    ZipMap,
    *classic.OPERATORS,
    *indexed.OPERATORS,
]
