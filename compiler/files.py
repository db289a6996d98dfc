"""Writing files: the same bytes for the same arrays, and no work where what comes of it has no folder."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..ir.disk import replacing
from ..ir.op import Array

EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip file can hold


class _Kept(Exception):
    """Ends the writing of a file that stays as it is."""


def need_writable(path: str | Path) -> None:
    """Raises OSError where no file could be written at `path`; what is there stays."""
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise FileNotFoundError(2, "its folder does not exist", str(path))
    with suppress(_Kept), replacing(path):
        raise _Kept


def write_text(path: str | Path, text: str) -> None:
    """Writes a text whole or not at all. Raises OSError."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes bytes whole or not at all. Raises OSError."""
    with replacing(path) as part:
        part.write_bytes(data)


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
