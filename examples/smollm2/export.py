"""SmolLM2-135M-Instruct from its GGUF file: an ONNX model in f32, its tokenizer and its chat template.

    python examples/fetch_models.py smollm2
    python examples/smollm2/export.py build/models/SmolLM2-135M-Instruct.Q4_1.gguf build/smollm2.onnx

The file's weights have 4 bits (8 in the embedding table); they are written as the f32 values that they stand
for. tokenizer.json and chat_template.jinja are written into a folder named like the model.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from decoder import Shape, Weight, decoder
from numpy.typing import NDArray
from onnx import numpy_helper

try:
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
except ImportError as e:
    raise SystemExit(f"{e.name} is not installed: pip install -e '.[dev]'") from None

CONTROL = 3  # GGUF's token type of one that no text contains
TENSORS = {
    "embedding": "token_embd.weight",
    "norm.gain": "output_norm.weight",
    "norm": "attn_norm.weight",
    "query": "attn_q.weight",
    "key": "attn_k.weight",
    "value": "attn_v.weight",
    "output": "attn_output.weight",
    "feed.norm": "ffn_norm.weight",
    "feed.gate": "ffn_gate.weight",
    "feed.up": "ffn_up.weight",
    "feed.down": "ffn_down.weight",
}


class File:
    """A GGUF file of the kind `llama`. Raises SystemExit where it is another."""

    def __init__(self, path: Path) -> None:
        self._reader = GGUFReader(path)
        self._tensors = {t.name: t for t in self._reader.tensors}
        if (kind := self.value("general.architecture")) != "llama":
            raise SystemExit(f"{path}: a model of the kind {kind!r}, not 'llama'")
        if "output.weight" in self._tensors:
            raise SystemExit(f"{path}: has a head of its own; this exports models without one only")

    def value(self, key: str) -> Any:
        field = self._reader.get_field(key)
        if field is None:
            raise SystemExit(f"no value {key!r} in the GGUF file")
        return field.contents()

    def shape(self) -> Shape:
        width, heads = self.value("llama.embedding_length"), self.value("llama.attention.head_count")
        return Shape(
            layers=self.value("llama.block_count"),
            width=width,
            hidden=self.value("llama.feed_forward_length"),
            heads=heads,
            kv_heads=self.value("llama.attention.head_count_kv"),
            head=width // heads,
            vocabulary=self.value("llama.vocab_size"),
            theta=self.value("llama.rope.freq_base"),
            epsilon=round(self.value("llama.attention.layer_norm_rms_epsilon"), 9),  # stored as f32
        )

    def weight(self, shape: Shape) -> Weight:
        """Weights for `decoder`, dequantised one at a time."""

        def weight(name: str, dims: tuple[int, ...]) -> onnx.TensorProto:
            value = self._dequantised(name)
            if name.endswith((".query.weight", ".key.weight")):
                value = _halves(value, value.shape[0] // shape.head)
            if name.endswith(".weight"):
                value = np.ascontiguousarray(value.T)  # GGUF has [out, in]
            if value.shape != dims:
                raise SystemExit(f"{name} has shape {list(value.shape)} in the GGUF file, not {list(dims)}")
            return numpy_helper.from_array(value, name)

        return weight

    def _dequantised(self, name: str) -> NDArray[np.float32]:
        if name in TENSORS:
            stored = TENSORS[name]
        else:
            _, layer, rest = name.split(".", 2)
            stored = f"blk.{layer}.{TENSORS[rest.removesuffix('.weight').removesuffix('.gain')]}"
        if stored not in self._tensors:
            raise SystemExit(f"no tensor {stored!r} in the GGUF file")
        tensor = self._tensors[stored]
        return dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)


def _halves(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Query or key weights, [out, in], whose rotary pairs (2i, 2i + 1) of a head become (i, i + head / 2)."""
    out, depth = weight.shape
    return weight.reshape(heads, out // heads // 2, 2, depth).swapaxes(1, 2).reshape(out, depth)


def tokenizer(file: File) -> Tokenizer:
    """Byte-level BPE in which every digit is a token of its own."""
    kind = file.value("tokenizer.ggml.model"), file.value("tokenizer.ggml.pre")
    if kind != ("gpt2", "smollm"):
        raise SystemExit(f"a tokenizer of the kind {kind}, not ('gpt2', 'smollm')")
    names: list[str] = file.value("tokenizer.ggml.tokens")
    types: list[int] = file.value("tokenizer.ggml.token_type")
    merges = [tuple(pair.split(" ")) for pair in file.value("tokenizer.ggml.merges")]
    made = Tokenizer(models.BPE(vocab={n: i for i, n in enumerate(names)}, merges=merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    control = [n for n, kind in zip(names, types, strict=True) if kind == CONTROL]
    made.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in control])
    return made


def main(source: Path, target: Path) -> None:
    file = File(source)
    shape = file.shape()
    model = decoder(shape, file.weight(shape), target.stem)
    folder = target.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer(file).save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(file.value("tokenizer.chat_template"), encoding="utf-8")
    part = target.with_suffix(".part")
    part.write_bytes(model.SerializeToString())
    part.replace(target)
    print(f"{target}: {target.stat().st_size:,} bytes, {shape.layers} layers; {folder}/ has the tokenizer")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("export.py MODEL.gguf MODEL.onnx")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
