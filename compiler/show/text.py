"""Tables and facts as text for terminals of any width."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

NARROW = 12  # characters below which a text that goes on in the next line is not narrowed
READABLE = 16  # characters below which no other text is narrowed
LEGIBLE = 28  # characters below which it is not while its row can go on in a next line instead
SHORT_LINE = 28  # characters to which texts that go on are narrowed at first,
SHORT_NAME = 44  # and then the others, before any is narrowed further
USUAL = 80  # characters of a line where nothing says how wide it is
INDENT = 4  # of the next lines of a row


def plural(n: int, noun: str) -> str:
    """ "1 call", "2 calls", "3 results of a node"."""
    first, _, rest = noun.partition(" ")
    return f"{n:,} {first}{'' if n == 1 else 's'}{' ' + rest if rest else ''}"


def terminal_width() -> int:
    """Characters of a line: what COLUMNS says, else the terminal that stdout is, else the usual."""
    known = os.environ.get("COLUMNS") or sys.stdout.isatty()
    return max(READABLE + INDENT, shutil.get_terminal_size((USUAL, 24)).columns) if known else USUAL


def brief_name(name: str, most: int = 28) -> str:
    """A name of at most so many characters. Of a path the last parts stay: they are what tells it apart."""
    if len(name) <= most:
        return name
    end = name[len(name) - most + 2 :]
    _, slash, parts = end.partition("/")
    return f"..{slash}{parts}" if parts else f"..{end}"


def table(
    titles: Sequence[str], rows: Sequence[Sequence[Any]], width: int = 0, wrap: Collection[str] = ()
) -> list[str]:
    """Rows under titles, at most `width` wide, 0 for the terminal's: numbers to the right, texts narrowed.

    A text that is too long is cut at its front or in its middle where it still differs from the others of
    its column then; else it goes on in the next line, as do those of the columns titled `wrap`, which are the
    first to be narrowed. Where not all columns have room, each row goes on in a next line, indented.
    """
    width = width or terminal_width()
    cells = [[f"{v:,}" if isinstance(v, int) else str(v) for v in row] for row in rows]
    number = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(titles))]
    columns: list[Column] = []
    for i, title in enumerate(titles):
        texts = (title, *(row[i] for row in cells))
        columns.append(Column(texts, max(map(len, texts)), number[i], title in wrap))
    groups = _narrowed_groups(columns, width)
    out: list[str] = []
    for i in range(len(cells) + 1):
        for indent, group in groups:
            parts = [parts[i] for _, parts in group]
            for line in zip_longest(*parts, fillvalue=""):
                filled = "  ".join(c.filled(p) for (c, _), p in zip(group, line, strict=True))
                out.append((" " * indent + filled).rstrip())
    return out


@dataclass(frozen=True)
class Column:
    """Of a table: its title, then its texts. right: texts are moved there. folds: long ones go on below."""

    texts: tuple[str, ...]
    width: int
    right: bool
    folds: bool

    @property
    def least(self) -> int:
        """The width below which it is not narrowed."""
        return self.narrowed_to(NARROW if self.folds else READABLE)

    @property
    def wanted(self) -> int:
        """The width for which its rows rather go on in a next line."""
        return self.narrowed_to(NARROW if self.folds else LEGIBLE)

    def narrowed_to(self, width: int) -> int:
        return self.width if self.right else min(self.width, max(len(self.texts[0]), width))

    def parts(self) -> list[list[str]]:
        """Each text in lines that fit."""
        short = {} if self.folds else _shortened(self.texts, self.width)
        return [
            [short[text]]
            if text in short
            else textwrap.wrap(text, self.width, break_on_hyphens=self.folds) or [""]
            for text in self.texts
        ]

    def filled(self, text: str) -> str:
        return text.rjust(self.width) if self.right else text.ljust(self.width)


def _shortened(texts: Sequence[str], width: int) -> dict[str, str]:
    """What to show of the texts that still differ from all others when they are cut."""
    different = dict.fromkeys(texts)
    out = {text: text for text in different if len(text) <= width}
    taken = set(out)
    for cut in (brief_name, _end, _middle):
        short = {text: cut(text, width) for text in different if text not in out}
        counts = Counter(short.values())
        unique = {text: s for text, s in short.items() if counts[s] == 1 and s not in taken}
        out |= unique
        taken |= set(unique.values())
    return out


def _end(text: str, most: int) -> str:
    return text if len(text) <= most else f"..{text[len(text) - most + 2 :]}"


def _middle(text: str, most: int) -> str:
    first = (most - 2) // 2
    return text if len(text) <= most else f"{text[:first]}..{text[len(text) - (most - 2 - first) :]}"


def _narrowed_groups(
    columns: Sequence[Column], width: int
) -> list[tuple[int, list[tuple[Column, list[list[str]]]]]]:
    """(indent, columns with their parts) of each line that a row takes."""
    lines: list[list[Column]] = [[]]
    for column in columns:
        room = width - (INDENT if len(lines) > 1 else 0)
        if lines[-1] and sum(c.wanted + 2 for c in lines[-1]) + column.wanted > room:
            lines.append([])
        lines[-1].append(column)
    out: list[tuple[int, list[tuple[Column, list[list[str]]]]]] = []
    for i, line in enumerate(lines):
        indent = INDENT if i else 0
        out.append((indent, [(c, c.parts()) for c in _narrowed(line, width - indent)]))
    return out


def _narrowed(columns: Sequence[Column], width: int) -> list[Column]:
    """Columns of which the widest texts are narrowed until all fit into `width`, if they can.

    Texts that go on in the next line come first, but no one column gives all while another has room to give.
    """
    widths = [c.width for c in columns]
    for folds, floor in ((True, SHORT_LINE), (False, SHORT_NAME), (True, 0), (False, 0)):
        while (excess := sum(widths) + 2 * (len(widths) - 1) - width) > 0:
            able = [i for i, c in enumerate(columns) if c.folds == folds and widths[i] > max(c.least, floor)]
            if not able:
                break
            widest = max(able, key=lambda i: widths[i])
            lower = max([widths[i] for i in able if widths[i] < widths[widest]], default=0)
            least = max(columns[widest].least, floor, lower - 1)
            widths[widest] -= min(excess, widths[widest] - least)
    return [replace(c, width=w) for c, w in zip(columns, widths, strict=True)]


def folded(line: str, width: int = 0) -> list[str]:
    """A line that goes on in next ones, indented. width: 0 for the terminal's."""
    return textwrap.wrap(
        line, width or terminal_width(), subsequent_indent=" " * INDENT, break_on_hyphens=False
    ) or [""]


def facts(pairs: Sequence[tuple[str, str]], width: int = 0) -> list[str]:
    """`name  value` lines, values wrapped under one another. width: 0 for the terminal's."""
    width = width or terminal_width()
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
