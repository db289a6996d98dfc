"""Files beside models: arrays, wafers, placements, tokenizers and templates, and options' values."""

from __future__ import annotations

import io
import json
import re
import tomllib
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from waferc.placement.machine import presets

from siege.artifacts import BASES, entries, json_edit, put
from siege.items import Item

M, P = "m.onnx", "p.wafer"
TYPES = (
    "<f4",
    "<f4",
    "<f2",
    "<f8",
    "<i8",
    "<i4",
    "|b1",
    "|u1",
    ">f4",
    "<c8",
    "<U3",
    "|S2",
    "<M8[s]",
    "|V2",
    "|O",
)
SHAPES = ((4, 8), (4, 8), (8, 4), (), (0,), (0, 8), (1, 4, 8), (2, 4, 8), (32,))
WORDS = ("sram_bytes", "width", "height", "name", "colours", "hop", "clock", "dead_cores", "x")


# -- arrays -----------------------------------------------------------------------------


def array(random: Random) -> bytes:
    kind, shape = random.choice(TYPES), random.choice(SHAPES)
    made = np.zeros(shape, kind)
    if made.dtype.kind in "fiu" and random.random() < 0.5:
        made = (np.arange(made.size).reshape(shape) / 7).astype(kind)
    sink = io.BytesIO()
    np.lib.format.write_array(
        sink,
        np.asfortranarray(made) if random.random() < 0.2 else made,
        version=random.choice((None, (1, 0), (2, 0), (3, 0))),
    )
    return sink.getvalue()


def header(random: Random, content: bytes) -> bytes:
    """An array's header with one of its parts changed; the length in front of it is right again."""
    start = content.find(b"{")
    end = content.find(b"\n", start)
    if start < 0 or end < 0:
        return content
    text = content[start:end]
    hostile_shape = random.choice(
        (
            b"(-1,)",
            b"(4, 8",
            b"(9999999999, 9999999999)",
            b"(" * 9000 + b")" * 9000,
            b"(1" + b"0" * 400 + b",)",
            b"(4.0, 8)",
            b"(True, 8)",
            b"(0, 99999999999999999999)",
            b"'x'",
            b"(4, -8)",
            b"(2**30,)",
            b"()",
            b"4",
            b"[4, 8]",
        )
    )
    hostile_type = random.choice(
        (
            b"'<f99'",
            b"'<V999999999'",
            b"[('a', '<f4')]",
            b"'O'",
            b"('<f4', (2,))",
            b"'<f4,<f4'",
            b"None",
            b"'\\x1b[2J'",
            b"[" * 500,
        )
    )
    roll = random.randrange(5)
    if roll == 0:
        text = re.sub(rb"'shape': \(.*?\)", lambda _: b"'shape': " + hostile_shape, text)
    elif roll == 1:
        text = re.sub(rb"'descr': '.*?'", lambda _: b"'descr': " + hostile_type, text)
    elif roll == 2:
        text = text.replace(b"False", random.choice((b"True", b"2", b"None", b"'no'")))
    elif roll == 3:
        text = text.replace(b"'shape'", b"'shapes'")
    else:
        text = text[: random.randrange(len(text))]
    wide = content[6:7] != b"\x01"
    size = (len(text) + 1) % (1 << (32 if wide else 16))
    return content[:8] + size.to_bytes(4 if wide else 2, "little") + text + b"\n" + content[end + 1 :]


def flipped(random: Random, content: bytes) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(random.choice((1, 1, 2, 5))):
        at = random.choice((random.randrange(len(changed)), random.randrange(min(len(changed), 128))))
        changed[at] = random.choice((0, 255, 10, random.randrange(256)))
    roll = random.random()
    return bytes(
        changed[: random.randrange(len(changed) + 1)]
        if roll < 0.2
        else changed * 2
        if roll < 0.25
        else changed
    )


def npy(random: Random) -> bytes:
    content = array(random)
    for _ in range(random.choice((0, 1, 1, 2))):
        content = random.choice((header, header, flipped))(random, content)
    return content


def npz(random: Random) -> bytes:
    sink = io.BytesIO()
    how = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(sink, "w", how) as z:
        names = random.choice(
            (("x",), ("x",), ("x", "x"), ("x", "y"), (), ("\x1b[2J",), ("../x",), ("x" * 3000,))
        )
        for name in names:
            z.writestr(
                zipfile.ZipInfo(f"{name}{random.choice(('.npy', '.npy', '', '.txt'))}"), npy(random), how
            )
    content = sink.getvalue()
    roll = random.random()
    if roll < 0.15:  # says that it is encrypted, or packed in a way that nobody knows
        content = content.replace(
            b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"
        )
    elif roll < 0.25:
        at = content.find(b"PK\x01\x02")
        content = (
            content[: at + 10] + bytes([random.randrange(256)]) + content[at + 11 :] if at >= 0 else content
        )
    elif roll < 0.5:
        content = flipped(random, content)
    return content


# -- texts ------------------------------------------------------------------------------


PRESET = Path(presets.__file__).parent / "presets" / "wse3.toml"


@cache
def _wafer() -> str:
    """A wafer with every field that a file may say, as JSON."""
    described = tomllib.loads(PRESET.read_text())
    return json.dumps({**described, "dead_cores": [[1, 1], [2, 1]], "dead_links": [[3, 3, "east"]]})


def toml(random: Random) -> bytes:
    """A wafer of 8x8 cores, with some of what is said of it changed."""
    described = {**json.loads(_wafer()), "width": 8, "height": 8, "fabric_width": 8, "fabric_height": 8}
    for key in random.choice((("dead_cores", "dead_links"), ("dead_links",), ())):
        del described[key]
    for _ in range(random.choice((0, 1, 1, 2))):
        put(described, *json_edit(random, described))
    tables = {k: v for k, v in described.items() if isinstance(v, dict)}
    lines = [_line(k, v) for k, v in described.items() if k not in tables and v is not None]
    if random.random() < 0.2:
        values = ("1", "-1", "0", "1e400", "nan", "[[1,2]]", "[[99,99]]", "'8x8'", "10" * 50, "[" * 900)
        lines.append(f"{random.choice(WORDS)} = {random.choice(values)}")
    for name, table in tables.items():
        lines += [f"[{name}]", *(_line(k, v) for k, v in table.items() if v is not None)]
    content = "\n".join(lines).encode()
    return flipped(random, content) if random.random() < 0.1 else content


def _line(key: str, value: Any) -> str:
    return f"{key} = {json.dumps(value)}"


TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
        {
            "id": 2,
            "content": "</s>",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    ],
    "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "</s>": 2}, "unk_token": "a"},
}


def tokenizer(random: Random) -> bytes:
    return _changed_json(random, TOKENIZER)


def _changed_json(random: Random, data: Any) -> bytes:
    data = json.loads(json.dumps(data))
    for _ in range(random.choice((1, 1, 2, 3))):
        put(data, *json_edit(random, data))
    content = json.dumps(data).encode()
    return flipped(random, content) if random.random() < 0.1 else content


def template(random: Random) -> bytes:
    parts = (
        "{{ messages[0].content }}",
        "{% for m in messages %}",
        "{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{{ range(10**9)|list }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{{ ''.__class__.__mro__ }}",
        "{{ x.y.z }}",
        "{% include '/etc/passwd' %}",
        "{{",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "\x1b[2J",
        "{{ raise_exception('no') }}",
        "{{ 1/0 }}",
        "\xff",
    )
    content = "".join(random.choice(parts) for _ in range(random.choice((1, 2, 3)))).encode("latin-1")
    return content


def placement(random: Random) -> bytes:
    return _changed_json(random, json.loads(entries("classifier")["main/placement.json"]))


# -- items ------------------------------------------------------------------------------

GIVEN = {P: ("classifier", ())}
PLANNED = ("--compile-to", "plan")


def _files(
    name: str, make: Callable[[Random], bytes], *commands: tuple[str, ...]
) -> Callable[[Random], Item]:
    def made(random: Random) -> Item:
        needs_model = any(M in words for words in commands)
        files = {name: make(random)} | ({M: BASES["classifier"][0]()} if needs_model else {})
        return Item("input", commands, files, {} if needs_model else GIVEN)

    return made


def options(random: Random) -> Item:
    """Values of options, which shells hand over as they are."""
    text = random.choice(
        (
            "0",
            "-1",
            "99999999999999999999",
            "x",
            "",
            "=",
            "a=b=c",
            "x=1",
            "x=[1,[2]]",
            "x=" + "[" * 3000,
            "x=nan",
            "x=1e999",
            "\x1b[2J=3",
            "x=-1:-2",
            "x=nan:1",
            "x=0:inf",
            "x=4,8",
            "x=4,,8",
            "x=10000000000000",
            "x=0",
            "1x1",
            "0x0",
            "4x4",
            "9999999x9999999",
            "N=0",
            "main:N=3",
            "past=present",
            "x=y",
            "\u0663x\u0663",
            "1,1",
            "99,99",
            "-1,0",
            "1e9,1",
        )
    )
    command = random.choice(
        (
            ("compile", M, "-o", P, "--wafer", "8x8"),
            ("check", M),
            ("verify", M, "--wafer", "8x8"),
            ("run", P, "--random", "0"),
            ("inspect", P),
            ("heatmap", P, "-o", "h.svg"),
        )
    )
    flags = {
        "compile": (
            "--dim",
            "--shape",
            "--value",
            "--state",
            "--capacity",
            "--entry",
            "--wafer",
            "--weights",
            "--optimize",
        ),
        "check": ("--dim", "--shape", "--value", "--wafer"),
        "verify": ("--dim", "--shape", "--value", "--range", "--rtol", "--atol", "--threads", "--random"),
        "run": ("--range", "--threads", "--entry", "--random", "--input"),
        "inspect": ("--core", "--entry"),
        "heatmap": ("--metric", "--entry", "--node", "--tensor", "--at", "--crop", "--scale"),
    }
    words = (*command, random.choice(flags[command[0]]), text)
    if command[0] in ("compile", "check", "verify"):
        return Item("input", (words,), {M: BASES[random.choice(list(BASES))][0]()})
    return Item("input", (words,), {}, GIVEN)


SORTS: tuple[Callable[[Random], Item], ...] = (
    _files("a.npy", npy, ("run", P, "--input", "x=a.npy")),
    _files("a.npy", npy, ("run", P, "--input", "x=a.npy", "-o", "o.npz")),
    _files("a.npz", npz, ("run", P, "--inputs", "a.npz")),
    _files("a.npz", npz, ("run", P, "--steps", "a.npz", "--random", "0")),
    _files("a.npy", npy, ("compile", M, "-o", P, "--wafer", "8x8", "--value", "x=a.npy")),
    _files(
        "w.toml", toml, ("compile", M, "-o", "m.plan", "--wafer", "w.toml", *PLANNED), ("inspect", "m.plan")
    ),
    _files("t.json", tokenizer, ("compile", M, "-o", P, "--wafer", "8x8", "--tokenizer", "t.json")),
    _files(
        "placement.json",
        placement,
        ("compile", M, "-o", P, "--wafer", "8x8", "--constraints", "placement.json"),
        ("run", P, "--random", "0"),
    ),
    options,
)


def templated(random: Random) -> Item:
    words = ("compile", M, "-o", P, "--wafer", "8x8", "--tokenizer", "t.json", "--chat-template", "c.jinja")
    files = {
        M: BASES["classifier"][0](),
        "t.json": json.dumps(TOKENIZER).encode(),
        "c.jinja": template(random),
    }
    return Item("input", (words,), files)


def drawn(random: Random) -> Item:
    return random.choice((*SORTS, templated))(random)


def mutated(random: Random, item: Item, other: Item) -> Item:
    """Bytes of one of its files changed, but of its model."""
    names = [n for n in item.files if n != M]
    if not names or random.random() < 0.3:
        return drawn(random)
    name = random.choice(names)
    content = item.files[name]
    how = header if name.endswith(".npy") and random.random() < 0.5 else flipped
    return Item("input", item.commands, {**item.files, name: how(random, content)}, item.forged)
