"""The exporter of language models: a GGUF file's weights, tokenizer and template come out right."""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np
import onnx
import onnxruntime
import pytest
from language import CHAT, MERGES, SPECIAL, vocabulary
from onnx import numpy_helper
from tokenizers import Tokenizer
from waferc.ir.op import Array

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples" / "smollm2"))

import export
from decoder import TINY, Shape, decoder, random_weights


class Decoder:
    """The model in onnxruntime. Caches: grown with every call, or with room for `capacity` positions."""

    def __init__(self, model: onnx.ModelProto, shape: Shape, capacity: int = 0) -> None:
        self._session = onnxruntime.InferenceSession(model.SerializeToString())
        self._outputs = [o.name for o in self._session.get_outputs()]
        self._shape, self._capacity, self._length = shape, capacity, 0
        names = [f"past_key_values.{i}.{kind}" for i in range(shape.layers) for kind in ("key", "value")]
        # What lies in free slots must not matter.
        empty = np.full((1, shape.kv_heads, capacity, shape.head), 1e3, np.float32)
        self._caches = {name: empty.copy() for name in names}

    def logits(self, ids: list[int]) -> Array:
        """[tokens, vocabulary]"""
        return self._called(ids)["logits"][0]

    def values(self, ids: list[int], outputs: list[str]) -> Array:
        """[outputs, tokens, ...] of those outputs"""
        found = self._called(ids)
        return np.stack([found[name][0] for name in outputs])

    def _called(self, ids: list[int]) -> dict[str, Array]:
        n, at = len(ids), self._length
        room = self._capacity - n if self._capacity else at
        feed = {"input_ids": np.array([ids]), "position_ids": np.arange(at, at + n)[None]}
        past = {name: cache[:, :, :room] for name, cache in self._caches.items()}
        found = dict(zip(self._outputs, self._session.run(None, {**feed, **past}), strict=True))
        for name, cache in self._caches.items():
            present = found[name.replace("past_key_values", "present")]
            if self._capacity:
                cache[:, :, at : at + n] = present[:, :, -n:]
            else:
                self._caches[name] = present
        self._length += n
        return found


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    made = decoder(TINY, random_weights())
    onnx.checker.check_model(made, full_check=True)
    return made


def test_chunks_of_any_size_give_the_same_logits(model: onnx.ModelProto) -> None:
    ids = np.random.default_rng(1).integers(0, TINY.vocabulary, 20).tolist()
    whole = Decoder(model, TINY).logits(ids)
    assert whole.shape == (20, TINY.vocabulary) and whole.std() > 0.1
    for cuts in ((), (7,), (8, 16, 17, 18, 19), tuple(range(1, 20))):
        chunked = Decoder(model, TINY)
        parts = [chunked.logits(ids[a:b]) for a, b in zip((0, *cuts), (*cuts, 20), strict=True)]
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)


def test_a_token_sees_those_before_it_only(model: onnx.ModelProto) -> None:
    ids = list(range(10))
    first = Decoder(model, TINY).logits(ids)
    other = Decoder(model, TINY).logits([*ids[:6], 99, *ids[7:]])
    assert np.array_equal(first[:6], other[:6])
    assert np.abs(first[6:] - other[6:]).max(1).min() > 1e-3


def test_the_keys_of_a_position_are_not_those_of_another(model: onnx.ModelProto) -> None:
    logits = Decoder(model, TINY).logits([5, 9, 5, 9, 5])
    assert np.abs(logits[4] - logits[2]).max() > 1e-3


# -- export ------------------------------------------------------------------------------------


def of_gguf(name: str) -> str:
    """llama.cpp's name of one of our weights."""
    if name in export.TENSORS:
        return export.TENSORS[name]
    _, layer, rest = name.split(".", 2)
    return f"blk.{layer}.{export.TENSORS[rest.removesuffix('.weight').removesuffix('.gain')]}"


def as_llama_cpp(name: str, value: Array, shape: Shape) -> Array:
    """A weight as llama.cpp keeps it: [out, in], rotary pairs of queries and keys side by side."""
    if not name.endswith(".weight"):
        return value
    value = value.T
    if name.endswith((".query.weight", ".key.weight")):
        heads = value.shape[0] // shape.head
        value = value.reshape(heads, 2, shape.head // 2, -1).swapaxes(1, 2).reshape(value.shape)
    return np.ascontiguousarray(value)


def write_gguf(path: Path, shape: Shape, weights: dict[str, Array], kind: str = "llama") -> None:
    names = vocabulary()
    writer = gguf.GGUFWriter(path, kind)
    writer.add_block_count(shape.layers)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_rope_freq_base(shape.theta)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(names)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(names) - len(SPECIAL)))
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_chat_template(CHAT)
    for name, value in weights.items():
        writer.add_tensor(of_gguf(name), as_llama_cpp(name, value, shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Array]]:
    """The model exported from a small GGUF file, and the weights that went into the file."""
    shape = Shape(2, 32, 64, 4, 2, 8, vocabulary=262, theta=5e4, epsilon=1e-6)
    weights: dict[str, Array] = {}
    weight = random_weights(3)

    def kept(name: str, dims: tuple[int, ...]) -> onnx.TensorProto:
        made = weight(name, dims)
        weights[name] = numpy_helper.to_array(made)
        return made

    decoder(shape, kept)
    folder = tmp_path_factory.mktemp("export")
    write_gguf(folder / "tiny.gguf", shape, weights)
    export.main(folder / "tiny.gguf", folder / "tiny.onnx")
    return folder / "tiny.onnx", weights


def test_the_weights_are_those_of_the_file(exported: tuple[Path, dict[str, Array]]) -> None:
    path, weights = exported
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert len(weights) == 2 + 2 * 9
    for name, value in weights.items():
        assert np.array_equal(found[name], value), name
    shape = Shape(2, 32, 64, 4, 2, 8, vocabulary=262, theta=5e4, epsilon=1e-6)
    theirs = decoder(shape, lambda name, _: numpy_helper.from_array(weights[name], name), "tiny")
    assert model.SerializeToString() == theirs.SerializeToString()


def test_the_tokenizer_and_the_template_are_those_of_the_file(exported: tuple[Path, object]) -> None:
    folder = exported[0].with_suffix("")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert (folder / "chat_template.jinja").read_text("utf-8") == CHAT
    assert tokenizer.get_vocab_size() == 262
    encoded = tokenizer.encode("in the 2024<|im_end|>")
    assert encoded.tokens == ["i", "n", "Ġthe", "Ġ", "2", "0", "2", "4", "<|im_end|>"]
    assert encoded.ids[-1] == 2
    text = "déjà vu 日本 🎉\n\n  x"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "other.gguf", TINY, {}, kind="gpt2")
    with pytest.raises(SystemExit, match="of the kind 'gpt2', not 'llama'"):
        export.main(tmp_path / "other.gguf", tmp_path / "other.onnx")
    assert not (tmp_path / "other.onnx").exists()
