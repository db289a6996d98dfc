"""What is tried: files and the commands that meet them; and how it is kept on disk."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent / "corpus"  # what is committed
BUILD = Path(__file__).resolve().parents[2] / "build" / "siege"  # what grows besides, and findings
Edit = tuple[str, str, Any]  # a file of an artifact, what is done to it, and with what: see `artifacts`


@dataclass(frozen=True)
class Item:
    """Commands, run one after the other until one fails, in a folder with these files.

    forged: by name, the artifact that a file is made of and the edits of its entries. It is kept like this
    and not as bytes, so that it stays of use when the format changes.
    """

    harness: str
    commands: tuple[tuple[str, ...], ...]
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    forged: Mapping[str, tuple[str, tuple[Edit, ...]]] = field(
        default_factory=dict[str, tuple[str, tuple[Edit, ...]]]
    )

    def dumps(self) -> str:
        data = {
            "harness": self.harness,
            "commands": self.commands,
            "files": {n: base64.b64encode(b).decode() for n, b in self.files.items()},
            "forged": self.forged,
        }
        return json.dumps(data, indent=1) + "\n"

    @property
    def name(self) -> str:
        return hashlib.sha256(self.dumps().encode()).hexdigest()[:12]


def loads(text: str) -> Item:
    data = json.loads(text)
    return Item(
        data["harness"],
        tuple(map(tuple, data["commands"])),
        {n: base64.b64decode(b) for n, b in data["files"].items()},
        {n: (base, tuple(map(tuple, edits))) for n, (base, edits) in data["forged"].items()},
    )


def stored(folder: Path, harness: str) -> list[Item]:
    """The items of a corpus, in the order of their names."""
    return [loads(p.read_text()) for p in sorted((folder / harness).glob("*.json"))]


def store(folder: Path, item: Item) -> Path:
    path = folder / item.harness / f"{item.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(item.dumps())
    return path
