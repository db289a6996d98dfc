"""The report: one self-contained HTML file with a plan's data, to explore it with."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ...placement.cost.timing import Timing
from ...placement.machine.wafer import Wafer
from ...placement.plan.plan import Plan
from ..show.colours import VIRIDIS
from ..show.considered import attempts
from ..show.figures import Figures
from ..show.guidance import Guidance
from .data import advice_data, name, plan_data, wafer_data
from .tables import Tables

HERE = Path(__file__).parent
# The page's script: one after the other, what is used before what uses it.
SCRIPT = (
    *("dom", "unpack", "colours", "state", "plan", "moves", "memory", "links", "layers", "busy", "stage"),
    *("overlays", "pointer", "model_list", "inspect_core", "inspect_link", "inspect_step", "summary"),
    *("timeline", "main"),
)
Fact = tuple[str, str]


@dataclass(frozen=True)
class Entry:
    """An entry of a program: its plan, the predicted call, the totals, and what to try, where known.

    attempts: what the search for the plan attempted, one plan a line.
    """

    name: str
    plan: Plan
    timing: Timing
    figures: Figures
    advice: Guidance | None = None
    attempts: str = ""


@dataclass(frozen=True)
class Page:
    """What a report shows. entries: none where nothing is planned; the first one is shown first.

    notes: what stands above the totals. provenance: where the program, and the page, come from.
    """

    title: str
    wafer: Wafer
    entries: Sequence[Entry]
    notes: Sequence[Fact] = ()
    provenance: Sequence[Fact] = ()


def made_now(command: str) -> list[Fact]:
    """The command and the time; the latter is SOURCE_DATE_EPOCH where that is set."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH", "")
    at = time.gmtime(int(seconds) if seconds.isdigit() else time.time())
    return [("command", command), ("date", time.strftime("%Y-%m-%d %H:%M UTC", at))]


def write_page(page: Page, path: str | Path) -> None:
    """Raises OSError."""
    Path(path).write_text(html(page), encoding="utf-8")


def html(page: Page) -> str:
    """The whole file; it loads nothing and sends nothing.

    Its policy allows the one script and the one style sheet that are in it, by their digests, and no other.
    """
    head, tail = packed(page)
    script = "\n" + "".join((HERE / "script" / f"{part}.js").read_text("utf-8") for part in SCRIPT)
    style = "\n" + (HERE / "page.css").read_text("utf-8")
    facts = [*page.notes, *page.provenance]
    parts = {
        "title": escape(name(page.title)),
        "generator": "waferc",
        "facts": "".join(f"<dt>{escape(name(k))}</dt><dd>{escape(name(v))}</dd>" for k, v in facts),
        "script": '"use strict";' + script,
        "style": style,
        "script_hash": _digest('"use strict";' + script),
        "style_hash": _digest(style),
        "head": base64.b64encode(head).decode(),
        "tail": base64.b64encode(tail).decode(),
    }
    # Split first, then join: a name from the model that looks like a placeholder stays a name.
    pieces = (HERE / "page.html").read_text("utf-8").split("{{")
    out = [pieces[0]]
    for piece in pieces[1:]:
        key, rest = piece.split("}}", 1)
        out += [parts[key], rest]
    return "".join(out)


def packed(page: Page) -> tuple[bytes, bytes]:
    """The page's data: what its first picture needs, and the rest (see `Tables.packed`)."""
    tables = Tables()
    data: dict[str, Any] = {
        "schema": 1,
        "wafer": wafer_data(page.wafer, tables),
        "colours": VIRIDIS,
        "notes": [[name(k), name(v)] for k, v in page.notes],
        "provenance": [[name(k), name(v)] for k, v in page.provenance],
        "entries": [
            {
                "entry": name(e.name),
                **plan_data(e.plan, e.timing, e.figures, tables),
                "advice": advice_data(e.advice),
                "attempts": attempts(e.attempts),
            }
            for e in page.entries
        ],
    }
    return tables.packed(data)


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
