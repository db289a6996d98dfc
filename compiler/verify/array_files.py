"""NumPy's files, from other people: what an array is gets judged before any of its elements is read.

A header is matched, never evaluated. Nothing is unpickled.
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from ...ir.disk import open_regular
from ...ir.op import Array
from ..errors import InvalidInput, quoted, shown

MAGIC = b"\x93NUMPY"
ZIP = b"PK"
LONGEST = 1 << 16  # bytes of a header
MOST_AXES = 64  # of NumPy
MOST_DIGITS = 19  # of a dimension
BLOCK = 1 << 24  # bytes that are read together
METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
FOREIGN = {9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstd", 95: "xz"}
ENCRYPTED = 1  # a bit of a member's flags
FIELD = re.compile(
    r"""\s*(['"])(?P<key>\w{1,20})\1\s*:\s*(?:(['"])(?P<text>[^'"\\\n]{0,40})\3|(?P<truth>True|False)"""
    r"""|\((?P<sizes>[\d\sL,]*)\))\s*(?:,\s*|(?=\}))"""
)
TYPE = re.compile(r"[<>|=]?[?bBiufcSUVmM]\d{0,9}(?:\[\w{1,10}\])?")
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
)
"""What reading a damaged archive raises, besides OSError for places outside the file."""

# Of arrays that no input bounds (several calls' together, strings): what may come of a small file.
FREE = 1 << 26  # bytes that any may take
INFLATION = 32  # times its bytes in the file, beyond those


@dataclass(frozen=True)
class StoredArray:
    """An array in a file that is open, its header read. where: of it, in errors. stored: its bytes there."""

    where: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    stored: int
    _fortran: bool
    _source: IO[bytes]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def need_modest(self) -> None:
        """Raises InvalidInput for one that is large and next to nothing in the file."""
        if self.nbytes > max(FREE, INFLATION * self.stored):
            raise InvalidInput(
                f"{self.where} is {self.nbytes:,} bytes, packed in {self.stored:,}; "
                "store it with numpy.savez, or give fewer calls at a time"
            )

    def read(self) -> Array:
        """Its elements, in the machine's byte order. Raises InvalidInput, and MemoryError."""
        try:
            flat = np.empty(math.prod(self.shape), self.dtype)
            if flat.nbytes:
                bare: Any = flat.view(np.uint8)
                self._fill(memoryview(bare))
            array = flat.reshape(self.shape[::-1]).T if self._fortran else flat.reshape(self.shape)
        except DAMAGED as e:
            raise InvalidInput(f"{self.where} is damaged: {shown(str(e))}") from None
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def _fill(self, left: memoryview) -> None:
        while left:
            block = self._source.read(min(len(left), BLOCK))
            if not block:
                raise InvalidInput(
                    f"{self.where} is truncated: {len(left):,} bytes of {self.nbytes:,} are missing"
                )
            left[: len(block)] = block
            left = left[len(block) :]


@contextmanager
def array_file(path: str) -> Generator[StoredArray]:
    """The array in a .npy file, open while the block runs. Raises OSError, InvalidInput."""
    with open_regular(path) as f:
        size = f.seek(0, 2)
        f.seek(0)
        if f.read(len(ZIP)) == ZIP:
            raise InvalidInput(f"{quoted(path)} is an .npz; give it with --inputs")
        f.seek(0)
        yield _stored(f, size, f"{quoted(path)}", f"{quoted(path)} is no NumPy file")


@contextmanager
def array_archive(path: str, judge: Callable[[str], None]) -> Generator[dict[str, StoredArray]]:
    """The arrays in an .npz file by name, open while the block runs.

    judge: is told of each name, and raises for one that should not be there. Raises OSError, InvalidInput.
    """
    with ExitStack() as stack:
        f = stack.enter_context(open_regular(path))
        if f.read(len(MAGIC)) == MAGIC:
            raise InvalidInput(f"{quoted(path)} holds one array, not an .npz of named ones")
        size = f.seek(0, 2)
        try:
            archive = stack.enter_context(zipfile.ZipFile(f))
        except (*DAMAGED, OSError) as e:
            raise InvalidInput(f"{quoted(path)} is no NumPy file: {shown(str(e) or 'empty')}") from None
        out: dict[str, StoredArray] = {}
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            where = f"{quoted(path)}: array {quoted(name)}"
            judge(name)
            if name in out:
                raise InvalidInput(f"{where} is there twice")
            _need_plain(member, where)
            if max(member.compress_size, member.header_offset) > size:
                raise InvalidInput(
                    f"{where} is damaged: {member.compress_size:,} bytes in a file of {size:,}"
                )
            try:
                source = stack.enter_context(archive.open(member))
            except (*DAMAGED, OSError) as e:
                raise InvalidInput(f"{where} is damaged: {shown(str(e))}") from None
            out[name] = _stored(source, member.file_size, where, where, member.compress_size)
        yield out


def _need_plain(member: zipfile.ZipInfo, where: str) -> None:
    """Raises InvalidInput for what no numpy.savez writes."""
    if member.flag_bits & ENCRYPTED:
        raise InvalidInput(f"{where} is encrypted; waferc has no passwords")
    if member.compress_type not in METHODS:
        method = FOREIGN.get(member.compress_type, "unknown")
        known = " or ".join(METHODS.values())
        raise InvalidInput(
            f"{where} is packed by method {member.compress_type} ({method}); waferc reads what is {known}"
        )


def _stored(source: IO[bytes], size: int, where: str, refused: str, packed: int | None = None) -> StoredArray:
    """The array whose header is read from `source`, of `size` bytes. packed: its bytes in the file."""
    try:
        head = source.read(len(MAGIC) + 2)
        if not head.startswith(MAGIC):
            raise InvalidInput(f"{refused}: {_what(head)}")
        version = head[len(MAGIC) :]
        if len(version) < 2:
            raise InvalidInput(f"{refused}: it ends in its header")
        width = 2 if version[:1] == b"\x01" else 4
        if version not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
            raise InvalidInput(f"{refused}: format {'.'.join(map(str, version))} is none of 1.0, 2.0 and 3.0")
        length = int.from_bytes(source.read(width), "little")
        if length > LONGEST:
            raise InvalidInput(f"{refused}: a header of {length:,} bytes, more than {LONGEST:,}")
        text = source.read(length)
        if len(text) < length:
            raise InvalidInput(f"{refused}: it ends in its header")
        dtype, shape, fortran = _header(text.decode("utf-8" if version[0] == 3 else "latin-1"), refused)
    except (*DAMAGED, OSError) as e:
        raise InvalidInput(f"{where} is damaged: {shown(str(e))}") from None
    held = size - len(head) - width - length
    out = StoredArray(where, dtype, shape, held if packed is None else packed, fortran, source)
    if out.nbytes > held:
        raise InvalidInput(
            f"{where} is truncated: {_sized(dtype, shape)} is {_count(out.nbytes)} bytes, "
            f"{max(0, held):,} are there"
        )
    return out


def _header(text: str, refused: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Type, shape, and whether the first axis is the innermost."""
    text = text.strip()
    found: dict[str, str] = {}
    at = 1
    while text.startswith("{") and (field := FIELD.match(text, at)):
        found[field["key"]] = next(
            v for v in (field["text"], field["truth"], field["sizes"]) if v is not None
        )
        at = field.end()
    if re.match(r"\s*['\"]descr['\"]\s*:\s*[\[(]", text[at:]):
        raise InvalidInput(f"{refused}: elements with fields; waferc takes arrays of numbers")
    if text[at:] != "}" or set(found) != {"descr", "fortran_order", "shape"}:
        raise InvalidInput(f"{refused}: its header is not one of NumPy's")
    sizes = [n.strip().removesuffix("L") for n in found["shape"].split(",")]
    sizes = sizes[:-1] if not sizes[-1] else sizes
    longest = max(map(len, sizes), default=0)
    if len(sizes) > MOST_AXES or longest > MOST_DIGITS:
        what = f"{len(sizes):,} axes" if len(sizes) > MOST_AXES else f"a dimension of {longest:,} digits"
        raise InvalidInput(f"{refused}: {what}, which no memory holds")
    if not all(n.isdecimal() for n in sizes) or found["fortran_order"] not in ("True", "False"):
        raise InvalidInput(f"{refused}: its header is not one of NumPy's")
    if found["descr"].lstrip("<>|=").startswith("O"):
        raise InvalidInput(f"{refused}: it holds Python objects, as a pickle, which could run anything")
    try:
        if not TYPE.fullmatch(found["descr"]):
            raise TypeError
        dtype = np.dtype(found["descr"])
    except (TypeError, ValueError):
        raise InvalidInput(f"{refused}: no type is called {quoted(found['descr'])}") from None
    return dtype, tuple(map(int, sizes)), found["fortran_order"] == "True"


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**MOST_DIGITS else f"over 10^{MOST_DIGITS}"


def _sized(dtype: np.dtype[Any], shape: Sequence[int]) -> str:
    return shown(f"{dtype}{list(shape)}")


def _what(head: bytes) -> str:
    """What a file is that does not begin as an array does."""
    if not head:
        return "it is empty"
    pickled = head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"
    return (
        "it is a pickle, which could run anything"
        if pickled
        else "it does not begin with NumPy's magic string"
    )
