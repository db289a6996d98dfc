"""The user's cache on disk: entries by name, each whole or not at all and with a digest of its own."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from ..ir.disk import NoRegularFile, read_regular, replacing

DIGEST = 32  # bytes of SHA-256 before what an entry holds
MOST_BYTES = 1 << 32  # of an entry


def cache_folder() -> Path | None:
    """Where entries are kept: $WAFERC_CACHE, or the user's cache folder; None for a user without a home."""
    if own := os.environ.get("WAFERC_CACHE"):
        return Path(own)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "waferc"
    except RuntimeError:
        return None


def read_entry(name: str) -> bytes | None:
    """What the entry holds; None where there is none or it is damaged. Raises NoRegularFile."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        data = read_regular(folder / name, MOST_BYTES)
    except NoRegularFile:
        raise  # nobody makes these by accident, and no entry could take their place
    except OSError:
        return None
    held = data[DIGEST:]
    return held if held and hashlib.sha256(held).digest() == data[:DIGEST] else None


def write_entry(name: str, held: bytes) -> None:
    """Puts an entry into the cache, whole or not at all; a cache that cannot be written is no error."""
    folder = cache_folder()
    if folder is None:
        return
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        # A damaged entry is as good as none, so nobody waits for the disk.
        with replacing(folder / name, sync=False) as part, part.open("wb") as f:
            f.write(hashlib.sha256(held).digest())
            f.write(held)


@cache
def sources_in(*folders: str) -> str:
    """A digest of all Python sources there: what they make is kept under it, anew when they change."""
    out = hashlib.sha256()
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.py")):
            name = path.relative_to(folder).as_posix()
            out.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return out.hexdigest()
