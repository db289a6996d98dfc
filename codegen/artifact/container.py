"""The zip file around an artifact's files, of the one form that `artifact.write` gives it.

Zip readers find files by a directory at the end and take it at its word: files may overlap, so that a small
archive holds more than the disk, and anything may stand before, between and behind them.
"""

from __future__ import annotations

import struct
import zipfile
from typing import IO

LOCAL = struct.Struct("<4s5H3I2H")  # a file's own header (APPNOTE.TXT 4.3.7)
DIRECTORY = 46  # bytes of a row of the directory, without names (4.3.12)
END = 22, 22 + 20 + 56  # bytes of what ends the directory, without and with its 64-bit form (4.3.14 to 16)
WIDE = b"\x01\x00"  # the one extra field: 64-bit sizes (4.5.3)


class NotAContainer(ValueError):
    """A zip file that waferc does not write."""


def judge_container(archive: zipfile.ZipFile, file: IO[bytes]) -> None:
    """Raises NotAContainer unless the stored files, each once, cover the file up to its directory, and that
    the rest. Nothing of the files is read.
    """
    infos, seen = archive.infolist(), set[str]()
    for info in infos:
        name = info.filename
        if name in seen:
            raise NotAContainer(f"two files are called {name!r}")
        seen.add(name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise NotAContainer(f"file {name!r} is compressed; waferc stores them")
        if info.comment or not (info.extra == b"" or (info.extra[:2] == WIDE and len(info.extra) <= 28)):
            raise NotAContainer(f"file {name!r} has more to it than its bytes")
    at = 0
    for info in sorted(infos, key=lambda i: i.header_offset):
        if info.header_offset != at:
            raise NotAContainer(f"file {info.filename!r} is at byte {info.header_offset:,}, not at {at:,}")
        at += _bytes_of(info, file)
    rows = sum(DIRECTORY + len(i.orig_filename.encode()) + len(i.extra) for i in infos)
    size = file.seek(0, 2)
    if archive.start_dir != at or archive.comment or size - at - rows not in END:
        raise NotAContainer(f"its files end at byte {at:,}, and other bytes than their directory follow")


def _bytes_of(info: zipfile.ZipInfo, file: IO[bytes]) -> int:
    """Bytes of a file with its header."""
    file.seek(info.header_offset)
    head = file.read(LOCAL.size)
    if len(head) < LOCAL.size:
        raise NotAContainer(f"file {info.filename!r} is outside the archive")
    signature, *_, name, extra = LOCAL.unpack(head)
    file.seek(name, 1)
    field = file.read(extra)
    if signature != b"PK\3\4" or not (extra == 0 or (extra == 20 and field[:2] == WIDE)):
        raise NotAContainer(f"file {info.filename!r} has a header that waferc does not write")
    return LOCAL.size + name + extra + info.file_size
