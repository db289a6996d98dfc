"""Tables and facts as text for terminals of any width."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from typing import Any

NARROW = 12  # characters below which a text that goes on in the next line is not narrowed


def plural(n: int, noun: str) -> str:
    """ "1 call", "2 calls", "3 results of a node"."""
    first, _, rest = noun.partition(" ")
    return f"{n:,} {first}{'' if n == 1 else 's'}{' ' + rest if rest else ''}"


def table(
    titles: Sequence[str], rows: Sequence[Sequence[Any]], width: int = 80, wrap: Collection[str] = ()
) -> list[str]:
    """Rows under titles, at most `width` wide: numbers to the right, the widest texts cut short.

    Those of the columns titled `wrap` go on in the next line instead, and are the first to be narrowed.
    """
    cells = [[f"{v:,}" if isinstance(v, int) else str(v) for v in row] for row in rows]
    number = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(titles))]
    widths = [max([len(t), *(len(row[i]) for row in cells)]) for i, t in enumerate(titles)]
    texts = [i for i in range(len(widths)) if not number[i]]
    while sum(widths) + 2 * (len(widths) - 1) > width and texts:
        folded = [i for i in texts if titles[i] in wrap and widths[i] > NARROW]
        widest = max(folded or texts, key=lambda i: widths[i])
        if widths[widest] <= 6:
            break
        widths[widest] -= 1

    def lines(row: Sequence[str]) -> list[str]:
        parts = [
            textwrap.wrap(text, size) or [""]
            if title in wrap
            else [text if len(text) <= size else text[: size - 2] + ".."]
            for title, text, size in zip(titles, row, widths, strict=True)
        ]
        out: list[str] = []
        for i in range(max(map(len, parts))):
            line = [
                (p[i] if i < len(p) else "").rjust(size)
                if right
                else (p[i] if i < len(p) else "").ljust(size)
                for p, size, right in zip(parts, widths, number, strict=True)
            ]
            out.append("  ".join(line).rstrip())
        return out

    return [line for row in (list(titles), *cells) for line in lines(row)]


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
