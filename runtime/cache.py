"""The user's cache on disk: entries by name, each whole or not at all and with a digest of its own."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

DIGEST = 32  # bytes of SHA-256 before what an entry holds


def cache_folder() -> Path:
    """Where entries are kept: $WAFERC_CACHE, or the user's cache folder."""
    if own := os.environ.get("WAFERC_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "waferc"


def read_entry(name: str) -> bytes | None:
    """What the entry holds; None where there is none or it is damaged."""
    try:
        data = (cache_folder() / name).read_bytes()
    except OSError:
        return None
    held = data[DIGEST:]
    return held if held and hashlib.sha256(held).digest() == data[:DIGEST] else None


def write_entry(name: str, held: bytes) -> None:
    """Puts an entry into the cache, whole or not at all; a cache that cannot be written is no error."""
    import tempfile  # not where the cache has it

    folder, temporary = cache_folder(), None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as f:
            temporary = f.name
            f.write(hashlib.sha256(held).digest() + held)
        os.replace(temporary, folder / name)
    except OSError:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


@cache
def sources_in(*folders: str) -> str:
    """A digest of all Python sources there: what they make is kept under it, anew when they change."""
    out = hashlib.sha256()
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.py")):
            name = path.relative_to(folder).as_posix()
            out.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return out.hexdigest()
