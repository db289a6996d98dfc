"""The page to chat with: one file, which loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent


@cache
def page() -> tuple[bytes, str]:
    """The page, and its policy: the one script and the one style sheet that are in it, and this server."""
    script, style = ((HERE / f"page.{kind}").read_text("utf-8") for kind in ("js", "css"))
    html = (HERE / "page.html").read_text("utf-8")
    policy = (
        "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors 'none'; script-src 'sha256-{_digest(script)}'; style-src 'sha256-{_digest(style)}'"
    )
    return html.replace("{{script}}", script).replace("{{style}}", style).encode(), policy


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
