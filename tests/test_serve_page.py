"""The page of `waferc serve` in a headless browser."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browser import browsing
from serving import PATIENCE, Running, program, serving
from waferc import LanguageModel

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(program(), env={"WAFERC_API_KEY": "secret"}) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing("chromium") as running:
        yield running


def until(holds: Callable[[], bool]) -> None:
    """Waits for it. Not in the page, whose policy evaluates nothing."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_chat(server: Running, browser: Any) -> None:
    tab = browser.new_page(viewport={"width": 1200, "height": 800})
    complaints: list[str] = []
    asked: list[str] = []
    tab.on("pageerror", lambda e: complaints.append(str(e)))
    tab.on("request", lambda r: asked.append(r.url))
    tab.goto(server.address)
    until(lambda: "key" in tab.text_content("#about"))
    tab.fill("#key", "secret")
    tab.press("#key", "Tab")
    until(lambda: "4x4" in tab.text_content("#about"))
    # What is drawn while the program runs: any cell in another colour than that of one at rest.
    tab.evaluate(
        """() => { window.lit = 0; const pen = CanvasRenderingContext2D.prototype, fill = pen.fillRect;
        pen.fillRect = function (...at) { lit += this.fillStyle !== '#26213a'; fill.apply(this, at); }; }"""
    )
    tab.fill("#text", "<b>Hi</b>")
    tab.press("#text", "Enter")
    until(lambda: tab.text_content("#cycles") != "-")
    made = LanguageModel(program()).generate("<b>Hi</b>", chat=True, max_tokens=1000)
    assert tab.text_content("#chat .assistant") == made.text.replace("\r", "\n")
    assert tab.text_content("#chat .user") == "<b>Hi</b>" and tab.locator("#chat b").count() == 0
    assert tab.evaluate("lit") > 0
    assert float(tab.text_content("#predicted").replace(",", "")) > 1000
    assert float(tab.text_content("#measured").replace(",", "")) > 0
    # One that is stopped half way, and another model's refusal.
    tab.click("#clear")
    tab.fill("#text", "x" * 600)
    tab.click("#send")
    tab.wait_for_selector("#chat .error")
    assert "do not fit in 512 positions" in tab.text_content("#chat .error")
    assert complaints == [] and all(url.startswith(server.address) for url in asked)
    tab.close()
