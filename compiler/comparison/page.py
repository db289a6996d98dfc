"""A comparison as notes and as one self-contained page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from ..show.drawing import printable
from .compare import Load, Way
from .on_wafers import OnWafers

BAR = 320  # pixels of the longest bar
STYLE = """
:root { color-scheme: light dark; --line: #8884; --one: #0b66c3; --many: #b54700; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1200px; padding: 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.1rem; margin-top: 1.6rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .15rem .8rem .15rem 0; border-bottom: 1px solid var(--line); }
th, td { vertical-align: top; }
td:first-child { white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
svg rect.one { fill: var(--one); } svg rect.many { fill: var(--many); }
svg text { fill: currentColor; font-size: 12px; }
""".strip()


def notes_of(ways: Sequence[Way], wafers: OnWafers | None, load: Load, engine: str) -> list[tuple[str, str]]:
    """What the figures mean and stand on."""
    out = [
        ("tokens/s", "of one user, with nothing else in flight"),
        (
            "of many",
            "tokens a second of so many requests at once: a batch, or one behind the other on wafers",
        ),
        ("first", f"the first token behind a prompt of {load.prompt:,}"),
        ("MJ/M, $/M", "megajoules and dollars per million tokens, of one user alone / of many"),
    ]
    if load.accepted > 1:
        out.append(
            ("speculation", f"{load.accepted:g} tokens accepted a call, assumed; drafts cost nothing here")
        )
    if wafers is not None:
        if wafers.estimate:
            words = ", ".join(f"{p.times} x {p.name} {p.cycles:,.0f}" for p in wafers.stretches)
            out.append(("estimate", f"from plans of distinct layers, in cycles: {words}"))
            out.append(
                (
                    "wafers",
                    f"{wafers.wafers} at {100 * wafers.system.fill:.0f} % fill, {wafers.dense} at 90 %",
                )
            )
        if wafers.wafers > 1:
            wafer = next(w for w in ways if w.kind == "estimate")
            least, most = wafers.system.crossing_least * 1e6, wafers.system.crossing_most * 1e6
            out.append(
                (
                    "crossing",
                    f"{wafers.system.crossing * 1e6:g} us from wafer to wafer, assumed: {most:g} to {least:g}"
                    f" would give {wafer.low:,.0f} to {wafer.high:,.0f} tokens/s at "
                    f"{wafers.wafer.clock_hz / 1e9:g} GHz",
                )
            )
        slow = wafers.cycles / wafers.slow
        out.append(
            ("f32 rate", f"were products of 16-bit weights as slow as f32 ones: {slow:.2f} of the tokens/s")
        )
    out.append(("islands", f"as {engine} runs them; errors in docs/islands.md"))
    names = sorted({a for w in ways for a in w.assumed})
    out.append(
        ("assumed", ", ".join(names) + "; docs/islands.md and 'waferc wafers' say from where the rest is")
    )
    return out


def page(title: str, ways: Sequence[Way], notes: Sequence[tuple[str, str]]) -> str:
    """The whole page; it loads nothing and sends nothing."""
    name = escape(printable(title))
    body = "\n".join((*_bars(ways), *_table(ways), *_notes(notes)))
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{name}: wafers and islands</title>\n<style>\n{STYLE}\n</style>\n<main>\n"
        f"<h1>{name}: wafers and islands of GPUs</h1>\n{body}\n</main>\n</html>\n"
    )


def _bars(ways: Sequence[Way]) -> Iterator[str]:
    known = [w for w in ways if not w.reason]
    for kind, heading in (("one", "Tokens a second, one user"), ("many", "Tokens a second, many users")):
        most = max((getattr(w, kind) for w in known), default=1.0)
        height = 22 * len(known)
        yield f"<h2>{heading}</h2>"
        size = f'width="720" height="{height}" viewBox="0 0 720 {height}"'
        yield f'<div class="scroll" tabindex="0"><svg role="img" aria-label="{heading}" {size}>'
        for i, w in enumerate(known):
            value, y = getattr(w, kind), 22 * i
            yield f'<text x="0" y="{y + 15}">{escape(printable(w.machine))}</text>'
            yield f'<rect class="{kind}" x="240" y="{y + 3}" width="{BAR * value / most:.1f}" height="16"/>'
            yield f'<text x="{246 + BAR * value / most:.1f}" y="{y + 15}">{value:,.0f}</text>'
        yield "</svg></div>"


def _table(ways: Sequence[Way]) -> Iterator[str]:
    titles = ("machine", "wafers or GPUs", "tokens/s", "of many", "users", "first, ms", "MJ/M", "MJ/M, many")
    titles = (*titles, "$/M", "$/M, many", "bound by", "error")
    heads = "".join(f'<th{_aligned(i)} scope="col">{escape(t)}</th>' for i, t in enumerate(titles))
    yield f'<h2>Figures</h2>\n<div class="scroll" tabindex="0"><table><thead><tr>{heads}</tr></thead><tbody>'
    for w in ways:
        if w.reason:
            why = f'<td colspan="11">{escape(printable(w.reason))}</td>'
            yield f"<tr><td>{escape(printable(w.machine))}</td>{why}</tr>"
            continue
        numbers = (
            f"{w.machines:,}",
            f"{w.one:,.0f}",
            f"{w.many:,.0f}",
            f"{w.users:,}",
            f"{w.first * 1e3:,.1f}",
        )
        money = [f"{v:,.3g}" for v in (*(j / 1e6 for j in w.joules), *w.dollars)]
        cells = (w.machine, *numbers, *money, w.bound, w.error)
        row = (f"<td{_aligned(i)}>{escape(printable(c))}</td>" for i, c in enumerate(cells))
        yield f"<tr>{''.join(row)}</tr>"
    yield "</tbody></table></div>"


def _aligned(column: int) -> str:
    return ' class="n"' if 0 < column < 10 else ""


def _notes(notes: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield "<h2>What the figures stand on</h2>\n<table><tbody>"
    for name, text in notes:
        yield f'<tr><th scope="row">{escape(name)}</th><td>{escape(printable(text))}</td></tr>'
    yield "</tbody></table>"
