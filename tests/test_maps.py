"""Classifiers as scikit-learn's converter writes them: maps and labels of the host, in files too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from test_cli import good, waferc
from waferc import compile_model, load
from waferc.compiler.verify.compare import Rule, compare
from waferc.runtime.play import HostError

F, N, S, D = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING, TensorProto.DOUBLE
ML = "ai.onnx.ml"
LABELS: dict[str, dict[str, Any]] = {
    "int64": {"classlabels_int64s": [3, -1, 7]},
    "str": {"classlabels_strings": ["red", "", "größer"]},
}
X = np.array([[1, -2, 0.5, 3], [0, 0, 0, 0], [9, 8, -7, 6]], np.float32)


def tensor(kind: int, shape: Sequence[Any] = ("a", "b")) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(kind, shape)


def mapped(key: int, value: int) -> onnx.TypeProto:
    out = onnx.TypeProto()
    out.map_type.key_type = key
    out.map_type.value_type.tensor_type.elem_type = value
    return out


def sequence(of: onnx.TypeProto) -> onnx.TypeProto:
    out = onnx.TypeProto()
    out.sequence_type.elem_type.CopyFrom(of)
    return out


def optional(of: onnx.TypeProto) -> onnx.TypeProto:
    out = onnx.TypeProto()
    out.optional_type.elem_type.CopyFrom(of)
    return out


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, onnx.TypeProto],
    outputs: Mapping[str, onnx.TypeProto],
) -> bytes:
    ends = [[onnx.ValueInfoProto(name=n, type=t) for n, t in of.items()] for of in (inputs, outputs)]
    graph = helper.make_graph(nodes, "g", *ends)
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(ML, 3)]
    return helper.make_model(graph, ir_version=9, opset_imports=imports).SerializeToString()


def single(op_type: str, given: onnx.TypeProto, made: onnx.TypeProto, **attributes: Any) -> bytes:
    node = helper.make_node(op_type, ["x"], ["y"], "it", domain=ML, **attributes)
    return model([node], {"x": given}, {"y": made})


def of_onnxruntime(content: bytes, feed: Mapping[str, Any]) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, dict(feed)), strict=True))


def classifier(kind: str) -> bytes:
    """Scores on the wafer, their classes and a map for each row on the host."""
    key, labels = (N if kind == "int64" else S), LABELS[kind]
    given = {name.replace("int64s", "ints"): v for name, v in labels.items()}
    weights = np.linspace(-1, 1, 12).tolist()
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"], "square"),
        helper.make_node(
            "LinearClassifier", ["square"], ["label", "scores"], "linear", domain=ML, coefficients=weights,
            intercepts=[0.1, 0.2, 0.3], post_transform="SOFTMAX", **given,
        ),
        helper.make_node("Normalizer", ["scores"], ["shares"], "normal", domain=ML, norm="L1"),
        helper.make_node("ZipMap", ["shares"], ["chances"], "zip", domain=ML, **labels),
    ]  # fmt: skip
    chances = sequence(mapped(key, F))
    return model(nodes, {"x": tensor(F, [3, 4])}, {"label": tensor(key, ["n"]), "chances": chances})


# -- in Python --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LABELS)
def test_a_classifier_gives_a_list_of_maps(kind: str, tmp_path: Path) -> None:
    content = classifier(kind)
    made = compile_model(content, wafer="4x4")
    assert made.runs_on == "mixed" and "ZipMap" in [r.op_type for r in made.hosts]
    made.save(tmp_path / "p.wafer")
    theirs = of_onnxruntime(content, {"x": X})
    for program in (made.program, load(tmp_path / "p.wafer")):
        ours = program.run({"x": X})
        assert ours["label"].tolist() == list(theirs["label"])
        assert [*map(list, ours["chances"])] == [next(iter(LABELS[kind].values()))] * len(X)
        assert all(isinstance(v, float) for row in ours["chances"] for v in row.values())
        assert compare("chances", ours["chances"], theirs["chances"], Rule(1e-6, 1e-7)).passed


@pytest.mark.parametrize("shape", [(2, 3), (3,), (0, 3), (1, 3)])
@pytest.mark.parametrize("kind", LABELS)
def test_rows_of_any_number_become_maps(kind: str, shape: tuple[int, ...]) -> None:
    x = np.resize(np.array([0.1, np.nan, 1e-9, np.inf, -0.0, 7], np.float32), shape)
    made = sequence(mapped(N if kind == "int64" else S, F))
    content = single("ZipMap", tensor(F, shape), made, **LABELS[kind])
    ours, theirs = (run(content, {"x": x})["y"] for run in (run_here, of_onnxruntime))
    assert len(ours) == len(theirs) and compare("y", ours, theirs, Rule(0, 0)).passed


def run_here(content: bytes, feed: Mapping[str, Any]) -> dict[str, Any]:
    return compile_model(content, wafer="4x4").run(feed)


def test_labels_that_do_not_suit_the_columns_end_the_call_by_name() -> None:
    for labels in ({}, {"classlabels_strings": ["a", "b"]}, {**LABELS["str"], **LABELS["int64"]}):
        made = sequence(mapped(S if labels.keys() == {"classlabels_strings"} else N, F))
        with pytest.raises(HostError, match=r"'ai.onnx.ml.ZipMap' failed on the host: .*label"):
            run_here(single("ZipMap", tensor(F, [2, 3]), made, **labels), {"x": np.ones((2, 3), np.float32)})


def test_maps_are_compared_by_key() -> None:
    one, other = {"a": 1.0, "b": 2.0}, {"b": 2.0, "a": 1.0}
    assert compare("y", [one], [other], Rule()).passed
    for wrong in ({"a": 1.0}, {"a": 1.0, "c": 2.0}, {"a": 1.0, "b": 2.1}, None, np.ones(2)):
        assert not compare("y", [wrong], [one], Rule()).passed


NUMBERS = {3: 1.5, 0: -2.25, 1: 1e10}
MAPS: list[tuple[str, onnx.TypeProto, onnx.TypeProto, Any, dict[str, Any]]] = [
    *(
        ("CastMap", mapped(N, F), tensor(kind), NUMBERS, {"cast_to": to, **form})
        for to, kind in (("TO_FLOAT", F), ("TO_INT64", N), ("TO_STRING", S))
        for form in ({}, {"map_form": "SPARSE", "max_map": 5})
    ),
    ("CategoryMapper", tensor(S, [3]), tensor(N, [3]), np.array(["a", "b", "?"], object),
     {"cats_int64s": [5, 6], "cats_strings": ["a", "b"], "default_int64": -3}),
    ("CategoryMapper", tensor(N, [1, 3]), tensor(S, [1, 3]), np.array([[5, 6, 9]]),
     {"cats_int64s": [5, 6], "cats_strings": ["a", "b"], "default_string": "?"}),
    ("DictVectorizer", mapped(S, F), tensor(F), {"a": 1.5, "z": 2}, {"string_vocabulary": ["z", "b", "a"]}),
    ("DictVectorizer", mapped(N, F), tensor(F), {4: 1, 2: 3}, {"int64_vocabulary": [2, 3, 4]}),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(MAPS)))
def test_operators_on_maps_and_categories(case: int) -> None:
    op_type, given, made, x, attributes = MAPS[case]
    content = single(op_type, given, made, **attributes)
    ours, theirs = (run(content, {"x": x})["y"] for run in (run_here, of_onnxruntime))
    assert (ours.dtype, ours.shape, ours.tolist()) == (theirs.dtype, theirs.shape, theirs.tolist())


# -- support vector machines ------------------------------------------------------------


def machine(kernel: str, transform: str, coupled: bool, labels: list[Any], vectors: list[int]) -> bytes:
    """A machine of 4 features. vectors: of each class, none for a linear one. coupled: with probabilities."""
    rng = np.random.default_rng(len(labels) + len(kernel))
    pairs, count = len(labels) * (len(labels) - 1) // 2, sum(vectors)
    weights = rng.standard_normal((len(labels) - 1) * count or 4 * len(labels))
    more: dict[str, Any] = {
        "classlabels_ints" if isinstance(labels[0], int) else "classlabels_strings": labels
    }
    if vectors:
        more |= {"vectors_per_class": vectors, "support_vectors": rng.standard_normal(4 * count).tolist()}
    if coupled:
        more |= {"prob_a": (-rng.random(pairs)).tolist(), "prob_b": rng.standard_normal(pairs).tolist()}
    node = helper.make_node(
        "SVMClassifier", ["x"], ["y", "z"], "svm", domain=ML, coefficients=weights.tolist(),
        kernel_type=kernel, kernel_params=[0.3, 0.1, 2], post_transform=transform,
        rho=rng.standard_normal(pairs if vectors else 1).tolist(), **more,
    )  # fmt: skip
    made = {"y": tensor(N if isinstance(labels[0], int) else S, ["n"]), "z": tensor(F)}
    return model([node], {"x": tensor(F, [5, 4])}, made)


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"])
@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
def test_support_vector_machines(kernel: str, coupled: bool, transform: str) -> None:
    cases: list[tuple[list[Any], list[int]]] = [
        ([0, 1], [2, 3]),
        (["no", "yes"], [2, 3]),
        ([5, 3, 9], [2, 1, 2]),
        (["a", "b", "c", "d"], [1, 2, 1, 1]),
    ]
    if kernel == "LINEAR" and not coupled:
        cases += [([0, 1], []), (["no", "yes"], []), ([0, 1, 2], [])]
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    for labels, vectors in cases:
        if transform.startswith("SOFTMAX") and len(labels) == 2 and vectors and not coupled:
            continue  # of one score: onnxruntime gives 1 - s and s, which is no transform
        content = machine(kernel, transform, coupled, labels, vectors)
        ours, theirs = (run(content, {"x": x}) for run in (run_here, of_onnxruntime))
        assert ours["y"].tolist() == list(theirs["y"])
        assert ours["z"].dtype == np.float32 and ours["z"].shape == theirs["z"].shape
        np.testing.assert_allclose(ours["z"], theirs["z"], 1e-4, 1e-5)


# -- on the command line ----------------------------------------------------------------


@pytest.mark.parametrize("kind", LABELS)
def test_every_verb_takes_a_classifier(kind: str, here: Path) -> None:
    (here / "c.onnx").write_bytes(classifier(kind))
    np.save(here / "x.npy", X)
    labels = [str(k) for k in next(iter(LABELS[kind].values()))]
    theirs = of_onnxruntime(classifier(kind), {"x": X})
    shares = np.array([[row[k] for k in next(iter(LABELS[kind].values()))] for row in theirs["chances"]])
    assert "ai.onnx.ml.ZipMap" in good("check", "c.onnx", "--wafer", "4x4")
    assert waferc("check", "c.onnx", "--wafer", "4x4", "--no-host").exit_code == 4
    good("compile", "c.onnx", "--wafer", "4x4", "-o", "c.wafer")
    assert "ai.onnx.ml.ZipMap" in good("inspect", "c.wafer")
    good("report", "c.wafer", "-o", "c.html")
    assert "ZipMap" in (here / "c.html").read_text()
    assert "PASS: 2 outputs, 12 values" in good("verify", "c.onnx", "--wafer", "4x4")
    text = good("run", "c.wafer", "--input", "x=x.npy", "-o", "o.json", "--json", "run.json")
    assert "chances  sequence of 3  map of 3" in text
    outputs = json.loads((here / "run.json").read_text())["outputs"]
    assert outputs[1]["of"] == {"type": "map", "keys": labels}
    written = json.loads((here / "o.json").read_text())
    assert [*map(list, written["chances"])] == [labels] * 3
    np.testing.assert_allclose([[*row.values()] for row in written["chances"]], shares, 1e-5, 1e-6)
    done = waferc("run", "c.wafer", "--input", "x=x.npy", "-o", "o.npz")
    if kind == "str":  # NumPy's records have no field without a name
        assert done.exit_code == 2 and "an empty key, not for an .npz; write a .json file" in done.stderr
        return
    assert done.exit_code == 0
    table = np.load("o.npz")["chances"]
    assert table.dtype == [(k, np.float32) for k in labels] and table.shape == (3,)
    np.testing.assert_allclose(np.array(table.tolist()), shares, 1e-5, 1e-6)


def both_kinds(keys: Mapping[str, Any]) -> bytes:
    """One score matrix, made on the wafer, under labels of both kinds, and as it is."""
    nodes = [
        helper.make_node("Abs", ["x"], ["shares"], "abs"),
        helper.make_node(
            "ZipMap", ["shares"], ["named"], "strings", domain=ML, classlabels_strings=keys["str"]
        ),
        helper.make_node(
            "ZipMap", ["shares"], ["counted"], "ints", domain=ML, classlabels_int64s=keys["int64"]
        ),
    ]
    made = {"named": sequence(mapped(S, F)), "counted": sequence(mapped(N, F)), "shares": tensor(F, [3, 4])}
    return model(nodes, {"x": tensor(F, [3, 4])}, made)


HARD_KEYS = {
    "plain": {"str": ["a", "b", "c", "d"], "int64": [0, 1, 2, 3]},
    "far": {"str": ["1", "01", " 1", "1.0"], "int64": [-(2**63), 2**63 - 1, -1, 0]},
    "odd": {"str": ["f0", "a/b", "x" * 300, "titles"], "int64": [7, 5, 3, 1]},
}


@pytest.mark.parametrize("kind", HARD_KEYS)
def test_several_maps_of_one_matrix(kind: str, here: Path) -> None:
    keys = HARD_KEYS[kind]
    (here / "c.onnx").write_bytes(content := both_kinds(keys))
    np.save(here / "x.npy", X)
    theirs = of_onnxruntime(content, {"x": X})
    ours = run_here(content, {"x": X})
    assert all(compare(name, ours[name], theirs[name], Rule(0, 0)).passed for name in theirs)
    assert list(ours["named"][0]) == keys["str"] and list(ours["counted"][0]) == keys["int64"]
    good("compile", "c.onnx", "--wafer", "4x4", "-o", "c.wafer")
    good("run", "c.wafer", "--input", "x=x.npy", "-o", "o.json")
    written = json.loads((here / "o.json").read_text())
    assert [*map(list, written["named"])] == [keys["str"]] * 3
    assert [*map(list, written["counted"])] == [[*map(str, keys["int64"])]] * 3
    good("run", "c.wafer", "--input", "x=x.npy", "-o", "o.npz")
    tables = np.load(here / "o.npz")
    for name, of in (("named", keys["str"]), ("counted", keys["int64"])):
        assert tables[name].dtype.names == tuple(map(str, of))
        np.testing.assert_array_equal(np.array(tables[name].tolist(), np.float32), np.abs(X))


@pytest.mark.parametrize("keys", [["a", "a", "b", "c"], ["a", "b", "c", "a\0"]])
def test_keys_that_are_not_told_apart_go_into_json_or_are_refused(keys: list[str], here: Path) -> None:
    """A map has a key once; no table gives two fields one name."""
    content = single("ZipMap", tensor(F, [3, 4]), sequence(mapped(S, F)), classlabels_strings=keys)
    (here / "c.onnx").write_bytes(content)
    np.save(here / "x.npy", X)
    good("compile", "c.onnx", "--wafer", "4x4", "-o", "c.wafer")
    for name in ("o.json", "o.npz"):
        done = waferc("run", "c.wafer", "--input", "x=x.npy", "-o", name)
        assert done.exit_code in (0, 2, 3) and "Traceback" not in done.stderr
        assert (here / name).exists() == (done.exit_code == 0)


def test_several_calls_are_stacked(here: Path) -> None:
    (here / "c.onnx").write_bytes(classifier("int64"))
    np.savez(here / "two.npz", x=np.stack([X, X + 1]))
    good("compile", "c.onnx", "--wafer", "4x4", "-o", "c.wafer")
    for name in ("o.npz", "o.json"):
        good("run", "c.wafer", "--steps", "two.npz", "-o", name)
    assert np.load("o.npz")["chances"].shape == (2, 3)
    calls = json.loads((here / "o.json").read_text())["chances"]
    assert [len(rows) for rows in calls] == [3, 3]
    np.testing.assert_allclose(np.load("o.npz")["chances"]["7"], [[r["7"] for r in rows] for rows in calls])


def test_many_classes_need_json(here: Path) -> None:
    x = np.ones((2, 2000), np.float32)
    content = single("ZipMap", tensor(F, x.shape), sequence(mapped(N, F)), classlabels_int64s=[*range(2000)])
    (here / "c.onnx").write_bytes(content)
    np.save(here / "x.npy", x)
    good("compile", "c.onnx", "--wafer", "4x4", "-o", "c.wafer")
    done = waferc("run", "c.wafer", "--input", "x=x.npy", "-o", "o.npz")
    assert done.exit_code == 2 and "2,000 keys, too many for an .npz" in done.stderr
    assert not (here / "o.npz").exists()
    good("run", "c.wafer", "--input", "x=x.npy", "-o", "o.json")
    assert len(json.loads((here / "o.json").read_text())["y"][1]) == 2000


def test_sequences_optionals_and_words_in_files(here: Path) -> None:
    """What is no array, in both kinds of file."""
    nodes = [
        helper.make_node("SplitToSequence", ["x", "sizes"], ["parts"], "split"),
        helper.make_node("SequenceEmpty", [], ["none"], "none"),
        helper.make_node("Optional", [], ["nothing"], "nothing", type=tensor(F, [1])),
        helper.make_node("LabelEncoder", ["k"], ["words"], "name", domain=ML,
                         keys_int64s=[0, 1], values_strings=["zero", "one"]),
        helper.make_node("Log", ["x"], ["log"], "log"),
    ]  # fmt: skip
    inputs = {"x": tensor(F, [3, 2]), "sizes": tensor(N, [2]), "k": tensor(N, [2])}
    outputs = {
        "parts": sequence(tensor(F)),
        "none": sequence(tensor(F)),
        "nothing": optional(tensor(F, [1])),
        "words": tensor(S, [2]),
        "log": tensor(F, [3, 2]),
    }
    (here / "s.onnx").write_bytes(model(nodes, inputs, outputs))
    x = np.array([[0, 1], [2, 3], [-1, 5]], np.float32)
    np.savez(here / "in.npz", x=x, sizes=np.array([1, 2]), k=np.array([1, 0]))
    good("compile", "s.onnx", "--wafer", "4x4", "-o", "s.wafer")
    for name in ("o.npz", "o.json"):
        text = good("run", "s.wafer", "--inputs", "in.npz", "-o", name)
    assert (
        "nothing  none" in text and "none  sequence of 0" in text and "parts  sequence of 2  float32" in text
    )
    held = np.load("o.npz")
    assert set(held) == {"parts/0", "parts/1", "words", "log"}
    assert held["parts/1"].tolist() == x[1:].tolist() and held["words"].tolist() == ["one", "zero"]
    written = json.loads((here / "o.json").read_text())
    assert written["parts"] == [x[:1].tolist(), x[1:].tolist()] and written["none"] == []
    assert written["nothing"] is None and written["words"] == ["one", "zero"]
    assert written["log"][0][0] is None and written["log"][2][0] is None  # -inf and NaN


def test_a_map_is_given_in_json(here: Path) -> None:
    (here / "d.onnx").write_bytes(
        single("DictVectorizer", mapped(N, F), tensor(F), int64_vocabulary=[2, 3, 4])
    )
    (here / "x.json").write_text('{"4": 1.5, "2": 3}')
    good("compile", "d.onnx", "--wafer", "4x4", "-o", "d.wafer")
    assert "y  float32[1, 3]  3 0 1.5" in good("run", "d.wafer", "--input", "x=x.json", "-o", "o.npz")
    assert "PASS" in good("verify", "d.onnx", "--wafer", "4x4", "--input", "x=x.json")
    for text, says in (
        ("[1]", "neither an object"),
        ("{", "is not JSON"),
        ('{"a": 1}', "failed on the host"),
    ):
        (here / "x.json").write_text(text)
        done = waferc("run", "d.wafer", "--input", "x=x.json")
        assert done.exit_code == 3 and says in done.stderr and done.stderr.count("\n") == 1
