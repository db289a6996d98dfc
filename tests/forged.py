"""Forged artifacts: `.wafer` files with something changed in a few places and every digest renewed.

A mutator of bytes cannot do that: a digest refuses what it made. `forgeries` yields as many as one asks for,
`outcome` says what becomes of one on the command line.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from waferc.codegen.artifact.artifact import HEADER, npy, read

MANIFEST = "manifest.json"
ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 3, 7, 64, 4097, 1.5, float("nan"), float("inf"), -float("inf")),
    *(1 << 20, 1 << 31, 1 << 40, 1 << 63, 10**30, 10**400),
    *("", "x", "f32", "i64", "float32", "main", "..", "\ud800", "\0", "a" * 10_000, [], {}, [[]], [None]),
    *({"float": "nan"}, {"float": "0x1p+1000"}, {"float": 1}, {"type": "f64"}, {"type": []}),
    *({"map": [[[], 1]]}, {"class": "Op", "fields": {}}, {"class": [], "fields": 3}),
    *({"affine": [[["d0", 1]], 1]}, {"affine": [[["d0", 1 << 50]], -5]}, {"affine": []}),
)
RAW = (
    *(
        b"NaN",
        b"Infinity",
        b"1e999",
        b"9" * 5000,
        b"-" + b"9" * 300,
        b'"\\ud800"',
        b'"\xff\xfe"',
        b'"\\u0000"',
    ),
    *(
        b"[" * 100_000,
        b"[" * 400 + b"]" * 400,
        b'{"a":' * 300 + b"1" + b"}" * 300,
        b"",
        b",",
        b"\xef\xbb\xbf{}",
    ),
)
NUMBERS = (-(1 << 63), -1, 0, 1, 3, 8, 64, 1 << 20, 1 << 40, (1 << 63) - 1)
Files = dict[str, bytes]
Change = tuple[str, str]  # where, and what it became


@dataclass(frozen=True)
class Forgery:
    """A forged file. what: each change, "entry field: new value"."""

    what: str
    content: bytes


def forgeries(artifact: Path, rng: random.Random) -> Iterator[Forgery]:
    """Forgeries of an artifact without end, of one to three changes each; the manifest agrees with them."""
    good = files_of(artifact)
    while True:
        files, changes = dict(good), list[str]()
        for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
            with contextlib.suppress(ValueError, RecursionError):  # of a file that an earlier change spoiled
                changes.append(rng.choice(CHANGES)(files, rng))
        if changes:
            yield Forgery(" and ".join(changes), sealed(files))


def files_of(artifact: Path) -> Files:
    """An artifact's files, the manifest without its digests among them."""
    made = read(artifact)
    facts = {k: v for k, v in made.manifest.items() if k != "sha256"}
    return {MANIFEST: json.dumps(facts).encode(), **made.files}


def sealed(files: Mapping[str, bytes]) -> bytes:
    """The artifact of these files: the digests of the others are put into the manifest's text."""
    others = {n: d for n, d in sorted(files.items()) if n != MANIFEST}
    digests = {n: hashlib.sha256(d).hexdigest() for n, d in others.items()}
    text = files.get(MANIFEST, b"{}").removeprefix(b"{")
    first = b'{"sha256": ' + json.dumps(digests).encode() + (b"" if text.strip() == b"}" else b", ")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as z:
        for name, data in ((MANIFEST, first + text), *others.items()):
            z.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return out.getvalue()


# -- changes: each spoils one file in place, and says how -------------------------------------------


def _value(files: Files, rng: random.Random) -> str:
    """One value of a JSON file becomes an odd one, another of its file's, or is left out or doubled."""
    name = rng.choice([n for n in files if n.endswith(".json")])
    whole = json.loads(files[name])
    path = _path(whole, rng)
    if not path:
        whole = rng.choice(ODD)
    else:
        _spoil(whole, path, rng)
    files[name] = json.dumps(whole).encode()
    new = whole
    with contextlib.suppress(KeyError, IndexError):
        for key in path:
            new = new[key]
        return f"{name} {_text(path)}: {str(new)[:60]!r}"
    return f"{name} {_text(path)}: left out"


def _text(path: Sequence[Any]) -> str:
    return "".join(f".{k}" if isinstance(k, str) else f"[{k}]" for k in path)


def _path(whole: Any, rng: random.Random) -> list[Any]:
    """The way to a value somewhere in a document, at any depth."""
    path: list[Any] = []
    while isinstance(whole, (dict, list)) and whole and rng.random() < 0.93:
        key = rng.choice(sorted(whole)) if isinstance(whole, dict) else rng.randrange(len(whole))
        path.append(key)
        whole = whole[key]
    return path


def _spoil(whole: Any, path: Sequence[Any], rng: random.Random) -> None:
    *way, last = path
    for key in way:
        whole = whole[key]
    at = whole[last]
    match rng.randrange(8):
        case 0:
            del whole[last]
        case 1 if isinstance(whole, list):
            whole.insert(last, copy.deepcopy(at))
        case 2 if isinstance(at, list) and at:
            whole[last] = at[:-1] if rng.random() < 0.5 else [*at, *at[:1]]
        case 3 if isinstance(at, int) and not isinstance(at, bool):
            whole[last] = rng.choice((at + 1, at - 1, -at, at * 2, at * 1000, at // 2))
        case 4:  # a value that stands elsewhere beside it
            beside = list(whole.values()) if isinstance(whole, dict) else whole
            whole[last] = copy.deepcopy(rng.choice(beside))
        case 5 if isinstance(at, str) and at:
            whole[last] = rng.choice((at[:-1], at + "x", at.upper(), at * 3))
        case _:
            whole[last] = copy.deepcopy(rng.choice(ODD))


def _swapped(files: Files, rng: random.Random) -> str:
    """A part of a JSON file in place of another one of the same type somewhere else in it."""
    name = rng.choice([n for n in files if n.endswith(".json")])
    whole = json.loads(files[name])
    one = _path(whole, rng)
    for _ in range(20):
        other = _path(whole, rng)
        value, new = (_at(whole, p) for p in (one, other))
        if one and type(value) is type(new) and value != new:
            _at(whole, one[:-1])[one[-1]] = copy.deepcopy(new)
            files[name] = json.dumps(whole).encode()
            return f"{name} {_text(one)}: as {_text(other)}, {str(new)[:60]!r}"
    raise ValueError


def _at(whole: Any, path: Sequence[Any]) -> Any:
    for key in path:
        whole = whole[key]
    return whole


def _raw(files: Files, rng: random.Random) -> str:
    """A JSON file's text is no JSON, or one that few writers write."""
    name = rng.choice([n for n in files if n.endswith(".json")])
    text, odd = files[name], rng.choice(RAW)
    starts = [i for i, c in enumerate(text[:20_000]) if c in b":,["]
    at = rng.choice(starts) + 1 if starts else 0
    if rng.random() < 0.2:  # a key twice
        key = text[1:].split(b":")[0]
        files[name] = text[:1] + key + b": 1, " + text[1:]
        return f"{name}: {key[:20]!r} twice"
    files[name] = text[:at] + odd + (b"," if rng.random() < 0.7 else b"") + text[at:]
    return f"{name} at byte {at}: {odd[:20]!r}"


def _array(files: Files, rng: random.Random) -> str:
    """An array's numbers, type or shape."""
    name = rng.choice([n for n in files if n.endswith(".npy")] or [""])
    found = HEADER.match(files.get(name, b""))
    if found is None:
        raise ValueError
    kind = np.dtype(found[3].decode())
    shape = [int(n) for n in found[4].split(b",") if n.strip()]
    array = np.frombuffer(files[name], kind, offset=found.end()).reshape(shape).copy()
    match rng.randrange(5):
        case 0 if array.size:
            array = array.reshape(-1)[: rng.randrange(array.size)]
        case 1:
            array = array.astype(rng.choice(("int8", "float64", "int64", "bool")))
        case 2:
            array = array[None] if rng.random() < 0.5 else array.reshape(-1)
        case _ if array.size and kind.kind in "iu":
            at = rng.randrange(array.size)
            array.reshape(-1)[at] = rng.choice(NUMBERS) if kind.itemsize == 8 else 1
        case _:
            array = np.repeat(array, 2, axis=0) if array.ndim else np.zeros((3,), kind)
    files[name] = npy(array)
    return f"{name}: {array.dtype}{list(array.shape)}"


def _file(files: Files, rng: random.Random) -> str:
    """A file is missing, empty, another one's, or one too many."""
    name = rng.choice([n for n in files if n != MANIFEST])
    match rng.randrange(4):
        case 0:
            del files[name]
            return f"{name}: left out"
        case 1:
            files[name] = b""
            return f"{name}: empty"
        case 2:
            other = rng.choice([n for n in files if n.split(".")[-1] == name.split(".")[-1]])
            files[name] = files[other]
            return f"{name}: that of {other}"
        case _:
            files[rng.choice(("more", "../up", "main/", "values.json", "script.json"))] = b"[]"
            return "one too many"


CHANGES: tuple[Callable[[Files, random.Random], str], ...] = (
    *(_value,) * 12,
    *(_swapped,) * 4,
    *(_raw,) * 2,
    *(_array,) * 3,
    _file,
)
