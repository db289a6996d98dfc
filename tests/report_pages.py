"""Reports for the tests: made of small plans, and read back without a browser."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import numpy as np
from waferc.compiler.report.page import Entry, Page, html
from waferc.compiler.show.figures import figures
from waferc.placement.cost.timing import simulate
from waferc.placement.plan.plan import Plan

HOSTILE = (
    "</script><script>window.hacked=1</script>{{script}}&amp;<img src=x onerror=window.hacked=1>\n\u202e"
)


def entry_of(plan: Plan, name: str = "main") -> Entry:
    timing = simulate(plan)
    return Entry(name, plan, timing, figures(plan, timing.links))


def page_of(*plans: Plan, notes: tuple[tuple[str, str], ...] = ()) -> str:
    """The report of plans as entries "main", "main1", ..."""
    entries = [entry_of(p, f"main{i or ''}") for i, p in enumerate(plans)]
    return html(Page(plans[0].graph.name, plans[0].wafer, entries, notes, [("command", "waferc report")]))


class Markup(HTMLParser):
    """The scripts' contents by id ("" for the one that runs), and every address that the page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: dict[str, str] = {}
        self.loads: list[str] = []
        self.policy = ""
        self._inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {k: v or "" for k, v in attrs}
        self.loads += [v for k, v in given.items() if k in ("src", "href", "action", "data", "poster")]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        if tag == "script":
            self._inside = given.get("id", "")
            assert self._inside not in self.scripts
            self.scripts[self._inside] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside is not None:
            self.scripts[self._inside] += data


@dataclass(frozen=True)
class Read:
    """A page's JSON and its tables, expanded as report/tables.py says."""

    data: dict[str, Any]
    tables: list[Any]


def read(text: str) -> Read:
    scripts = Markup(text).scripts
    head, tail = (zlib.decompress(base64.b64decode(scripts[k])) for k in ("head", "tail"))
    length = int.from_bytes(head[:4], "little")
    data = json.loads(head[4 : 4 + length])
    at = [0, 4 + length + -length % 4]  # in the tail, in the head
    tables: list[Any] = []
    for rows, columns, width, early in data["tables"]:
        raw, words = (tail, head)[early], rows * columns
        planes: list[Any] = []
        for _ in range(2 if width == 8 else 1):
            size = min(width, 4)
            found = np.frombuffer(raw, f"<i{size}", words, at[early]).reshape(rows, columns).astype(np.int64)
            at[early] += words * size + (-words * size) % 4
            planes.append(found.cumsum(0).cumsum(1))
        low = planes[0] & 0xFFFFFFFF
        tables.append(np.where(low >> 31, low - (1 << 32), low) if width < 8 else (planes[1] << 32) + low)
    return Read(data, tables)
