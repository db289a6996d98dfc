"""Writing files whole or not at all, and the same bytes for the same arrays."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..ir.op import Array

EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip file can hold


@contextmanager
def replacing(path: str | Path) -> Generator[Path]:
    """A path to write to, with the same suffix; it becomes `path` when the block ends well.

    The file is synced and renamed, so `path` is never half written; after an exception it is as it
    was. What is no regular file (a pipe, a device) is written to instead of replaced. Raises OSError.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        if target.is_dir():
            raise IsADirectoryError(21, "Is a directory", str(path))
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / f"part{target.suffix}"
            yield part
            with part.open("rb") as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        return
    part = target.with_name(f".{target.stem[:100]}.{secrets.token_hex(4)}{target.suffix}")
    try:
        # Fails now, before the work, where the folder does not exist or cannot be written to.
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(part, target)
    except OSError as e:
        if e.filename == str(part):
            e.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def need_folder(path: str | Path) -> None:
    """Raises OSError where no file could be made at `path` for want of its folder."""
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise FileNotFoundError(2, "its folder does not exist", str(path))


def write_npz(path: str | Path, arrays: Mapping[str, Array]) -> None:
    """As numpy.savez, but atomic and without the time of day. Raises OSError.

    Types that NumPy lacks are written as bytes of their size.
    """
    with replacing(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w", force_zip64=True) as sink:
                np.lib.format.write_array(sink, _known(np.asanyarray(array)), allow_pickle=False)


def _known(array: Array) -> Array:
    """The array, or its bytes where NumPy could not read the type's name again."""
    foreign = array.dtype.isbuiltin == 2  # ml_dtypes'
    return array.view(f"V{array.dtype.itemsize}") if foreign else array
