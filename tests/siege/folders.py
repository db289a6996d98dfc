"""The folder harness: language models as exporters write them, with files damaged, missing or badly named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import exported
from test_cache_length import compared, decoder

from siege.artifacts import change, json_edit
from siege.items import Edit, Item
from siege.seeds import STRINGS

F, P = "model", "p.wafer"
ONNX = "model.onnx"
GENAI: dict[str, Any] = {
    "model": {
        "type": "llama",
        "context_length": 32,
        "bos_token_id": 1,
        "eos_token_id": [2, 5],
        "pad_token_id": 2,
        "vocab_size": 262,
        "decoder": {"filename": ONNX, "head_size": 8, "hidden_size": 16, "num_hidden_layers": 1},
    },
    "search": {"max_length": 32, "do_sample": False, "top_p": 1.0},
}
GENERATION: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": [2, 5], "max_length": 32}
RAW = (
    "",
    "null",
    "[]",
    "[" * 100_000,
    '{"a":' * 20_000,
    '{"max_position_embeddings": 1' + "0" * 5000 + "}",
    '{"max_position_embeddings": 1e999}',
    '{"max_position_embeddings": NaN}',
    '{"eos_token_id": ' + "9" * 30 + "}",
    '{"a": 1, "a": 2}',
    "\ufeff{}",
    '{"chat_template": "{{ \u0000"}',
    '"\\ud800"',
)


def _files(*configurations: tuple[str, dict[str, Any]]) -> dict[str, bytes]:
    words = {
        "tokenizer.json": exported.byte_tokenizer(),
        "tokenizer_config.json": json.dumps(exported.MARKS).encode(),
    }
    settings = {name: json.dumps(value).encode() for name, value in configurations}
    return {ONNX: decoder(compared), **words, **settings}


BASES: dict[str, Callable[[], dict[str, bytes]]] = {
    "optimum": lambda: _files(("config.json", exported.CONFIG), ("generation_config.json", GENERATION)),
    "genai": lambda: _files(("genai_config.json", GENAI)),
    "merged": lambda: {
        **_files(("config.json", exported.CONFIG)),
        ONNX: exported.merged(),
    },
}


@cache
def files(base: str) -> dict[str, bytes]:
    """What lies in a folder, by name."""
    return BASES[base]()


# What stands in place of a file: it is no file, or not one of the folder.
STANDS: dict[str, Callable[[Path], None]] = {
    "fifo": os.mkfifo,
    "folder": lambda path: path.mkdir(),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link": lambda path: path.symlink_to("../../secret"),
    "loop": lambda path: path.symlink_to(path.name),
}


def forge(folder: Path, base: str, edits: Sequence[Edit]) -> None:
    """Writes the base's folder with these edits: those of an artifact's entries, "name": another name,
    "raw": all of its text, "stand": what stands for it."""
    held, stands = dict(files(base)), dict[str, str]()
    for name, kind, what in edits:
        if name not in held:
            continue
        if kind == "name":
            held[what] = held.pop(name)
        elif kind == "raw":
            held[name] = str(what).encode("utf-8", "surrogatepass")
        elif kind == "stand":
            stands[name] = what
            del held[name]
        else:
            change(held, name, kind, what)
    folder.mkdir()
    for name, content in held.items():
        (folder / name).write_bytes(content)
    for name, how in stands.items():
        STANDS[how](folder / name)


OTHERS = (
    "decoder_model_merged.onnx",
    "encoder_model.onnx",
    "other.onnx",
    "vocab.json",
    "chat_template.jinja",
)


def edit(random: Random, base: str) -> Edit:
    held = files(base)
    name = random.choice([*held, *(n for n in held if n.endswith(".json"))])
    kind = random.choice(
        ("json",) * 10 + ("raw", "raw", "bytes", "bytes", "cut", "drop", "copy", "name", "stand")
    )
    if kind == "json" and name.endswith(".json"):
        return name, kind, json_edit(random, json.loads(held[name]))
    if kind in ("json", "bytes"):
        return name, "bytes", [random.randrange(1 << 16), random.randrange(256)]
    if kind == "raw":
        return name, kind, random.choice(RAW)
    if kind == "cut":
        return name, kind, random.randrange(1 << 14)
    if kind == "copy":
        return name, kind, random.choice(list(held))
    if kind == "stand":
        return name, kind, random.choice(list(STANDS))
    if kind == "name":
        names = [f"{s}.onnx" for s in STRINGS if s and "/" not in s and len(s.encode()) < 200]
        return name, kind, random.choice((*OTHERS, random.choice(names)))
    return name, "drop", 0


COMMANDS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("check", F, "--wafer", "8x8"),),
    (("compile", F, "-o", P, "--wafer", "8x8"), ("generate", P, "ab", "--max-tokens", "2")),
    (
        ("compile", F, "-o", P, "--wafer", "8x8", "--capacity", "16"),
        ("generate", P, "ab", "--max-tokens", "2", "--chat"),
    ),
    (("generate", F, "ab", "--max-tokens", "2", "--wafer", "8x8"),),
)


def drawn(random: Random) -> Item:
    base = random.choice(list(BASES))
    edits = tuple(edit(random, base) for _ in range(random.choice((1, 1, 1, 2, 3))))
    return Item("folder", random.choice(COMMANDS), {}, {F: (base, edits)})


def mutated(random: Random, item: Item, _other: Item) -> Item:
    base, edits = item.forged[F]
    if base not in BASES:
        return drawn(random)
    changed = [e for e in edits if random.random() > 0.3] + [edit(random, base)]
    return Item("folder", random.choice((item.commands, *COMMANDS)), {}, {F: (base, tuple(changed))})
