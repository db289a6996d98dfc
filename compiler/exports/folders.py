"""A model on disk: an ONNX file alone, or the folder that an exporter wrote, with what lies in it besides.

Exporters: optimum (config.json), onnxruntime-genai's builder (genai_config.json), transformers.js (onnx/).
All of it is somebody else's: a name that leads out of the folder is none, and a number must be one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ...codegen.artifact.strict_json import MOST, parsed
from ...ir.disk import read_regular
from ..errors import InvalidInput, UnsupportedModel, UsageError, quoted, shown
from ..language.tokens import MANNER, TEMPLATE, TOKENIZER, Manner

MOST_WORDS = 1 << 28  # bytes of a tokenizer or a template
PLACES = ("", "onnx")  # where in a folder its models may lie
# The model of a folder that has several: the first of these. The last two are decoders that take caches.
FAVOURITES = ("model.onnx", "decoder_model_merged.onnx", "decoder_with_past_model.onnx")
ENCODER, FIRST = "encoder_model.onnx", "decoder_model.onnx"
CONFIG, GENERATION, GENAI = "config.json", "generation_config.json", "genai_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
# Tokenizers in forms that 'tokenizers' does not read, by their usual names.
OTHER_WORDS = (
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "vocab.json",
    "vocab.txt",
)
# What configurations call the positions that a model was made for, in the order in which they are asked.
CONTEXTS = (
    "context_length",
    "max_target_positions",
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
)
INNER = ("model", "text_config", "decoder")  # parts of a configuration that may say it instead
MOST_CONTEXT = 1 << 24
NAMED = 4  # files that a message names


NONE = Manner()


@dataclass(frozen=True)
class Apart:
    """The files of an encoder and its decoder. first: of the decoder without caches, which makes keys and
    values of the encoder's states; a merged one is both, and an encoder that makes them itself has None.

    source: what an input of the encoder that is no text measures, [bands, frames] of a sound; () for a text.
    """

    encoder: Path
    first: Path | None
    decoder: Path
    source: tuple[int, ...] = ()

    def digested(self, digest: Callable[[Path], str]) -> str:
        """One digest of all files, of each file's own."""
        files = (self.encoder, self.first, self.decoder)
        each = (digest(path) for path in files if path is not None)
        return hashlib.sha256("".join(each).encode()).hexdigest()


@dataclass(frozen=True)
class ModelFiles:
    """Of a model: its ONNX file, its bytes, or the files of an encoder and its decoder, and what is known.

    context: positions that it was made for; None where nothing says. words: the tokenizer and the chat
    template by the names that they have in an artifact. manner: how its texts begin and end.
    """

    model: str | Path | bytes | Apart
    context: int | None = None
    words: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    manner: Manner = NONE

    @property
    def entries(self) -> dict[str, bytes]:
        """What an artifact keeps of them."""
        return {**self.words, **({MANNER: self.manner.content()} if self.manner != NONE else {})}


def model_files(model: str | Path | bytes) -> ModelFiles:
    """What belongs to the model at a path: of a folder all of it, of a file the context that a configuration
    beside it says.

    Raises InvalidInput for a folder without a model, or with JSON that is none; UsageError for one with
    several, UnsupportedModel for one whose tokenizer must be converted; OSError.
    """
    if isinstance(model, bytes):
        return ModelFiles(model)
    path = Path(model)
    if not path.is_dir():
        context = None
        for folder in (path.parent, path.parent.parent) if path.parent.name == "onnx" else (path.parent,):
            context = context or _context(_configurations(folder))
        return ModelFiles(model, context)
    configurations = _configurations(path)
    chosen = _model_in(path, configurations)
    words = _words(path, chosen)
    return ModelFiles(chosen, _context(configurations), words, _manner(configurations))


def model_file(path: str) -> str:
    """The ONNX file at a path: of a folder the model in it. Raises as `model_files`, and UsageError for an
    encoder and a decoder."""
    model = model_files(path).model if Path(path).is_dir() else path
    if isinstance(model, Apart):
        raise UsageError(f"{quoted(path)} holds an encoder and a decoder; name one of their files")
    return str(model)


def _model_in(folder: Path, configurations: Mapping[str, Mapping[str, Any]]) -> Path | Apart:
    """The folder's model."""
    places = (sorted((folder / place).glob("*.onnx")) for place in PLACES)
    found = next(filter(None, places), list[Path]())
    if not found:
        raise InvalidInput(f"{quoted(str(folder))} is a folder without a model: no .onnx file is in it")
    by_name = {p.name: p for p in found}
    if ENCODER in by_name:
        return _apart(folder, by_name, configurations.get(CONFIG, {}))
    told = _part(configurations.get(GENAI, {}), "model")
    encoder, decoder = (_named(folder, by_name, told, part) for part in ("encoder", "decoder"))
    if decoder is not None:
        return decoder if encoder is None else Apart(encoder, None, decoder)
    wanted = next((by_name[name] for name in FAVOURITES if name in by_name), None)
    if wanted is None and len(found) > 1:
        some = ", ".join(shown(p.name) for p in found[:NAMED]) + (", ..." if len(found) > NAMED else "")
        raise UsageError(
            f"{quoted(str(folder))} holds {len(found)} models, none called model.onnx: {some}; name one"
        )
    return wanted or found[0]


def _named(folder: Path, found: Mapping[str, Path], told: Mapping[str, Any], part: str) -> Path | None:
    """The model that genai_config.json names for a part; None where it names none."""
    name = _part(told, part).get("filename")
    if not isinstance(name, str):
        return None
    if name not in found:
        raise InvalidInput(
            f"{quoted(str(folder / GENAI))} names the model {quoted(name)}, which is not in the folder"
        )
    return found[name]


def _apart(folder: Path, found: Mapping[str, Path], config: Mapping[str, Any]) -> Apart:
    """The files of the encoder and the decoder in a folder."""
    merged, past, first = (found.get(name) for name in (*FAVOURITES[1:], FIRST))
    decoder, start = (past, first) if past is not None and first is not None else (merged, merged)
    if decoder is None or start is None:
        raise UnsupportedModel(
            f"{quoted(str(folder))} has an encoder and no decoder with caches; export it again, with "
            "optimum's --task text2text-generation-with-past"
        )
    bands, frames = _whole(config.get("num_mel_bins")), _whole(config.get("max_source_positions"))
    source = (bands, 2 * frames) if bands is not None and frames is not None else ()
    return Apart(found[ENCODER], start, decoder, source if all(0 < n < MOST_CONTEXT for n in source) else ())


# -- configurations ------------------------------------------------------------------------------------


def _configurations(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The folder's configurations by the names of their files; those that are there."""
    out: dict[str, Mapping[str, Any]] = {}
    for name in (GENAI, GENERATION, CONFIG, TOKENIZER_CONFIG):
        path = folder / name
        if not path.is_file():
            continue
        try:
            value = parsed(read_regular(path, MOST))
        except ValueError as e:
            raise InvalidInput(f"{quoted(str(path))} is not JSON: {shown(str(e))}") from None
        if not isinstance(value, dict):
            raise InvalidInput(f"{quoted(str(path))} is no object, but a {type(value).__name__}")
        out[name] = cast(dict[str, Any], value)
    return out


def _context(configurations: Mapping[str, Mapping[str, Any]]) -> int | None:
    """The positions that a model was made for."""
    for name in (GENAI, CONFIG):
        own = configurations.get(name, {})
        for part in (own, *(_part(own, name) for name in INNER)):
            for key in CONTEXTS:
                if (number := _whole(part.get(key))) is not None and 2 <= number <= MOST_CONTEXT:
                    return number
    return None


def _manner(configurations: Mapping[str, Mapping[str, Any]]) -> Manner:
    """How the model's texts begin and end, as its configurations say."""
    parts = [
        configurations.get(GENERATION, {}),
        _part(configurations.get(GENAI, {}), "model"),
        configurations.get(CONFIG, {}),
    ]
    ends = next((found for part in parts if (found := _tokens(part.get("eos_token_id")))), ())
    starts, pads = (
        [n for part in parts for n in _tokens(part.get(key))]
        for key in ("decoder_start_token_id", "pad_token_id")
    )
    words = configurations.get(TOKENIZER_CONFIG, {})
    marks = {role: text for role in ("bos_token", "eos_token") if (text := _text(words.get(role)))}
    return Manner(ends, starts[0] if starts else None, pads[0] if pads else 0, marks)


def _part(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object in an object; an empty one where it is none."""
    found = of.get(name)
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _tokens(value: Any) -> tuple[int, ...]:
    """One token or several."""
    values = cast(list[Any], value) if isinstance(value, list) else [value]
    return tuple(n for v in values if (n := _whole(v)) is not None and 0 <= n < 1 << 31)


def _text(value: Any) -> str:
    """A token's text, by itself or as an added token."""
    found = cast(dict[str, Any], value).get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else ""


# -- the tokenizer and the template ----------------------------------------------------------------------


def _words(folder: Path, model: Path | Apart) -> dict[str, bytes]:
    """The tokenizer and the template of the folder, where it has them."""
    path = folder / TOKENIZER
    if not path.is_file():
        other = next((name for name in OTHER_WORDS if (folder / name).is_file()), None)
        if other is None:
            return {}
        raise UnsupportedModel(
            f"{quoted(str(folder))} has {other} and no {TOKENIZER}; write one with transformers' "
            f"AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
            + ("" if isinstance(model, Apart) else f", or give the model alone, {quoted(str(model))}")
        )
    out = {TOKENIZER: read_regular(path, MOST_WORDS)}
    if (template := _template(folder)) is not None:
        out[TEMPLATE] = template
    return out


def _template(folder: Path) -> bytes | None:
    """The chat template: a file of its own, or what the tokenizer's configuration holds."""
    path = folder / TEMPLATE
    if path.is_file():
        return read_regular(path, MOST_WORDS)
    held = _configurations(folder).get(TOKENIZER_CONFIG, {}).get("chat_template")
    if isinstance(held, list):  # several by name
        named = [cast(dict[str, Any], t) for t in cast(list[Any], held) if isinstance(t, dict)]
        held = next((t.get("template") for t in named if t.get("name") == "default"), None)
    return held.encode("utf-8", "replace") if isinstance(held, str) else None
