"""Reports in headless browsers: what a reader sees, clicks and types."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

# Which browsers the tests use. Firefox's ESR understands Playwright up to 1.60.
ENGINES = os.environ.get("WAFERC_BROWSERS", "chromium").split(",")
NAMES = {
    "chromium": ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    "firefox": ("firefox-esr", "firefox"),
}
DESK, PHONE = (1440, 900), (390, 844)


def installed(engine: str) -> str:
    """A browser's path; the test is skipped, with what is missing, where there is none."""
    pytest.importorskip("playwright", reason="playwright is missing: pip install -e '.[dev]'")
    variable = f"WAFERC_{engine.upper()}"
    found = os.environ.get(variable) or next(filter(None, map(shutil.which, NAMES[engine])), None)
    if found is None:
        pytest.skip(f"no {engine} here: apt-get install {NAMES[engine][0]}, or {variable}=PATH")
    return found


@contextmanager
def browsing(engine: str) -> Iterator[Any]:
    """A running browser: any Chromium, or Firefox as distributions have it."""
    path = installed(engine)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        if engine == "chromium":
            browser = play.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        else:
            browser = play.firefox.launch(executable_path=path, channel="moz-firefox")
        yield browser
        browser.close()


def is_firefox(browser: Any) -> bool:
    return browser.browser_type.name == "firefox"


def number(text: str) -> int:
    """The first number in a text: "1,234 of 5" is 1234."""
    found = re.search(r"-?[\d,]+", text)
    assert found, text
    return int(found[0].replace(",", ""))


class Report:
    """A report in a tab of its own. What it asks of others, and what it complains of, is kept."""

    def __init__(
        self,
        browser: Any,
        path: Path,
        size: tuple[int, int] = DESK,
        scheme: str = "light",
        touch: bool = False,
    ) -> None:
        self.path = path
        viewport = {"width": size[0], "height": size[1]}
        # Firefox has the reader's settings from its profile: light, and a mouse.
        asked = {"color_scheme": scheme, "has_touch": touch}
        kept = dict.fromkeys(("color_scheme", "reduced_motion", "forced_colors", "contrast"), "null")
        settings = kept if is_firefox(browser) else asked
        self.context = browser.new_context(viewport=viewport, **settings)
        self.tab = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.tab.on("request", lambda r: self.requests.append(r.url))
        self.tab.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.tab.on("console", lambda m: m.type == "error" and self.complaints.append(m.text))

    def open(self, fragment: str = "") -> Report:
        self.tab.goto("about:blank")
        self.tab.goto(self.path.as_uri() + fragment)
        self.tab.wait_for_selector("body[data-ready]", state="attached")
        return self.settled()

    def settled(self) -> Report:
        """Once what was asked for is drawn, and the inspector tells of it."""
        self.until("soon === 0")
        self.tab.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return self

    def until(self, what: str) -> None:
        """Waits for an expression to hold. (Playwright's own wait evaluates text, which the page forbids.)"""
        for _ in range(1500):
            if self.tab.evaluate(what):
                return
            self.tab.wait_for_timeout(20)
        raise AssertionError(f"never: {what}")

    def close(self) -> None:
        assert self.complaints == []
        self.context.close()

    # -- what it shows -----------------------------------------------------------------------

    @property
    def title(self) -> str:
        return self.tab.inner_text("#inspector-title")

    @property
    def body(self) -> str:
        return self.tab.inner_text("#inspector-body")

    @property
    def legend(self) -> str:
        return self.tab.inner_text("#legend")

    def facts(self) -> dict[str, str]:
        """The inspector's terms and what it says of them."""
        pairs = self.tab.eval_on_selector_all(
            "#inspector-body dt", "all => all.map(t => [t.textContent, t.nextElementSibling.innerText])"
        )
        return dict(reversed(pairs))  # the first of equal ones

    def table(self, *titles: str) -> list[list[str]]:
        """The rows of the inspector's first table with these titles."""
        rows = self.tab.evaluate(
            """(titles) => {
              const table = [...document.querySelectorAll("#inspector-body table")].find((t) =>
                [...t.querySelectorAll("th")].map((h) => h.textContent).join() === titles.join());
              const rows = table && [...table.querySelectorAll("tbody tr")];
              return rows && rows.map((r) => [...r.cells].map((c) => c.innerText));
            }""",
            list(titles),
        )
        assert rows is not None, f"no table with {titles} in {self.body[:600]}"
        return rows

    def pixel(self, x: float, y: float) -> tuple[int, int, int]:
        """The colour at the middle of a core, or between cores."""
        return tuple(
            self.tab.evaluate(
                """([x, y]) => { const s = look.stage, r = devicePixelRatio, [px, py] = s.middle(x, y);
                  const image = s.canvas.getContext("2d").getImageData(px * r, py * r, 1, 1);
                  return [...image.data].slice(0, 3); }""",
                [float(x), float(y)],
            )
        )

    def drawn(self) -> str:
        """The whole grid as it is drawn."""
        return self.settled().tab.evaluate("look.stage.canvas.toDataURL()")

    # -- what is done to it --------------------------------------------------------------------

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a core is in the window."""
        box = self.tab.locator("#grid").bounding_box()
        px, py = self.tab.evaluate("([x, y]) => look.stage.middle(x, y)", [float(x), float(y)])
        return box["x"] + px, box["y"] + py

    def click_core(self, x: int, y: int) -> None:
        self.tab.mouse.click(*self.place(x, y))
        self.settled()

    def hover(self, x: float, y: float) -> str:
        self.tab.mouse.move(*self.place(x, y))
        return self.tab.inner_text("#tip")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.tab.keyboard.press(key)
        self.settled()

    def find(self, text: str) -> None:
        """Types into the search, and takes the first hit."""
        self.press("/")
        self.tab.keyboard.type(text)
        self.press("Enter")

    def layer(self, name: str) -> None:
        self.tab.select_option("#layer", name)
        self.settled()

    @property
    def fragment(self) -> str:
        """The address's fragment, once it is written."""
        self.tab.wait_for_timeout(260)
        return self.tab.evaluate("location.hash")


def named(kind: str, name: str) -> str:
    """A fragment that selects by name."""
    return f"#{kind}={quote(name, safe='')}"
