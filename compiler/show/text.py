"""Tables and facts as text for terminals of any width."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

NARROW = 12  # characters below which a text that goes on in the next line is not narrowed
LEAST = 6  # characters below which no text is


def plural(n: int, noun: str) -> str:
    """ "1 call", "2 calls", "3 results of a node"."""
    first, _, rest = noun.partition(" ")
    return f"{n:,} {first}{'' if n == 1 else 's'}{' ' + rest if rest else ''}"


def brief_name(name: str, most: int = 28) -> str:
    """A name of at most so many characters. Of a path the last parts stay: they are what tells it apart."""
    if len(name) <= most:
        return name
    end = name[len(name) - most + 2 :]
    _, slash, parts = end.partition("/")
    return f"..{slash}{parts}" if parts else f"..{end}"


def table(
    titles: Sequence[str], rows: Sequence[Sequence[Any]], width: int = 80, wrap: Collection[str] = ()
) -> list[str]:
    """Rows under titles, at most `width` wide: numbers to the right, the widest texts cut short.

    Those of the columns titled `wrap` go on in the next line instead, and are the first to be narrowed.
    """
    cells = [[f"{v:,}" if isinstance(v, int) else str(v) for v in row] for row in rows]
    number = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(titles))]
    folds = [title in wrap for title in titles]
    widest = [max([len(t), *(len(row[i]) for row in cells)]) for i, t in enumerate(titles)]
    columns = [
        Column(size, right, fold)
        for size, right, fold in zip(_narrowed(widest, number, folds, width), number, folds, strict=True)
    ]
    return [line for row in (list(titles), *cells) for line in _lines(row, columns)]


@dataclass(frozen=True)
class Column:
    """Of a table. right: texts are moved there. folds: a long one goes on in the next line."""

    width: int
    right: bool
    folds: bool

    def parts(self, text: str) -> list[str]:
        """The text in lines that fit."""
        if self.folds:
            return textwrap.wrap(text, self.width) or [""]
        return [text if len(text) <= self.width else text[: self.width - 2] + ".."]

    def filled(self, text: str) -> str:
        return text.rjust(self.width) if self.right else text.ljust(self.width)


def _narrowed(widths: Sequence[int], number: Sequence[bool], folds: Sequence[bool], width: int) -> list[int]:
    """Widths of columns, the widest texts narrowed until all fit into `width`, if they can."""
    out = list(widths)
    texts = [i for i in range(len(out)) if not number[i]]
    while sum(out) + 2 * (len(out) - 1) > width and texts:
        folded = [i for i in texts if folds[i] and out[i] > NARROW]
        widest = max(folded or texts, key=lambda i: out[i])
        if out[widest] <= LEAST:
            break
        out[widest] -= 1
    return out


def _lines(row: Sequence[str], columns: Sequence[Column]) -> list[str]:
    """One row of a table."""
    parts = [column.parts(text) for column, text in zip(columns, row, strict=True)]
    return [
        "  ".join(c.filled(p) for c, p in zip(columns, line, strict=True)).rstrip()
        for line in zip_longest(*parts, fillvalue="")
    ]


def facts(pairs: Sequence[tuple[str, str]], width: int = 80) -> list[str]:
    """`name  value` lines, values wrapped under one another."""
    indent = max((len(name) for name, _ in pairs), default=0) + 2
    out: list[str] = []
    for name, value in pairs:
        head = name.ljust(indent)
        out += textwrap.wrap(
            value,
            width,
            initial_indent=head,
            subsequent_indent=" " * indent,
            break_long_words=True,
            break_on_hyphens=False,
        ) or [head.rstrip()]
    return out
