"""Files of all packages: what is read is a regular file of a known size, what is written is whole or absent.

A temporary is locked while its writer lives. The next one there takes away what a killed one left.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

MARK = ".waferc-"  # what the names of our temporaries begin with, and those of nothing else
TEMPORARY = re.compile(rf"{re.escape(MARK)}[0-9a-f]{{16}}(?:\..*)?", re.DOTALL)
SUFFIX = 32  # bytes of a suffix that a temporary has, too: of every format that we write

_ours: set[str] = set()  # temporaries of this process


class NoRegularFile(OSError):
    """A folder, a device or a pipe where a file should be."""


KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def need_regular(status: os.stat_result, path: str | Path) -> None:
    """Raises NoRegularFile: a pipe would wait for its writer, a device might never end."""
    if not stat.S_ISREG(status.st_mode):
        kind = next((kind for known, kind in KINDS if known(status.st_mode)), "no regular file")
        raise NoRegularFile(errno.EINVAL, f"is {kind}, not a file", str(path))


def open_regular(path: str | Path) -> BinaryIO:
    """The file, open for reading; nothing else is opened at all. Raises OSError."""
    need_regular(os.stat(path), path)
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        need_regular(os.fstat(handle), path)  # it may be another one by now
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: str | Path, most: int) -> bytes:
    """What the file holds. Raises OSError, with EFBIG where that is more than `most` bytes."""
    with open_regular(path) as f:
        size = os.fstat(f.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"has {size:,} bytes, more than {most:,}", str(path))
        return f.read(size)


@contextmanager
def replacing(path: str | Path, sync: bool = True) -> Generator[Path]:
    """A path to write to, with the same suffix; it becomes `path` when the block ends well.

    The file is synced and renamed, so `path` is never half written; after an exception it is as it
    was. What is no regular file (a pipe, a device) is written to instead of replaced. sync: False for
    what may be lost when the machine stops. Raises OSError, naming `path`.
    """
    import tempfile  # not for a run, which only reads

    target, part, handle = Path(os.path.realpath(path)), None, None
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    special = target.exists() and not target.is_file()
    try:
        # Fails now, before the work, where the folder does not exist or cannot be written to.
        part = _name(Path(tempfile.gettempdir()) if special else target.parent, target.suffix)
        handle = _locked(part)
        yield part
        if special:
            with part.open("rb") as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            return
        if sync:
            os.fsync(handle)
        os.replace(part, target)
    except OSError as e:
        if e.filename is None or e.filename == str(part):
            e.filename, e.filename2 = str(path), None
        raise
    finally:
        if part is not None:
            _remove(str(part))
        if handle is not None:
            os.close(handle)


def remove_temporaries() -> None:
    """Takes away this process's temporaries, which must not be written to afterwards."""
    for name in list(_ours):
        _remove(name)


def _name(folder: Path, suffix: str) -> Path:
    """A new temporary's, after those that nobody writes any more are gone."""
    _clean(folder)
    short = len(os.fsencode(suffix)) <= SUFFIX
    part = folder / f"{MARK}{os.urandom(8).hex()}{suffix if short else ''}"
    _ours.add(str(part))
    return part


def _locked(part: Path) -> int:
    """Makes the temporary; the file descriptor that holds its lock, which dies with the process."""
    while True:
        handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        try:
            with suppress(OSError):  # a file system without locks: nobody cleans it, either
                fcntl.flock(handle, fcntl.LOCK_EX)
            if os.fstat(handle).st_nlink:
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # another writer was here before the lock, and took it for a dead one's


def _clean(folder: Path) -> None:
    """Takes away temporaries there whose lock nobody holds: their writers were killed."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    _remove_dead(entry.path)


def _remove_dead(name: str) -> None:
    handle = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name)
    finally:
        os.close(handle)


def _remove(name: str) -> None:
    """Takes a temporary of ours away, if it is still there. What cannot be is left to the next writer."""
    with suppress(OSError):
        os.unlink(name)
    _ours.discard(name)
