"""What a command prints, and where: text and JSON on stdout, notes and progress on stderr."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import threading
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import click

from .ending import Unread, let_go

SCHEMA = 1  # of every verb's JSON
PATIENCE = 1.0  # seconds before a progress bar appears
BAR = 24  # characters


@dataclass
class Console:
    """The settings that every verb shares.

    verbosity: -1 (errors only), 0, 1 (how it went), 2 (tracebacks). colour: None decides by NO_COLOR and
    the terminal. json_path: "-" for stdout, which then carries nothing else. max_memory: bytes that the
    command may take.
    """

    verbosity: int = 0
    colour: bool | None = None
    json_path: str | None = None
    max_memory: int | None = None
    _started: float = field(default_factory=time.monotonic)
    _at: tuple[str, float] = "", 0.0
    _ticker: threading.Thread | None = None
    _done: threading.Event = field(default_factory=threading.Event)
    _drawing: threading.Lock = field(default_factory=threading.Lock)
    _drawn: bool = False

    def coloured(self, terminal: bool) -> bool:
        if self.colour is not None:
            return self.colour
        return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def say(self, text: str = "", colour: str | None = None, bold: bool = False) -> None:
        """A line of the result."""
        self.clear()
        if self.verbosity < 0 or self.json_path == "-":
            return
        on = self.coloured(sys.stdout.isatty())
        styled = click.style(text, fg=colour, bold=bold or None) if colour or bold else text
        _out(f"{styled if on else text}\n", on)

    def write(self, text: str) -> None:
        """A piece of a text that comes in pieces, at once. On a terminal control characters are shown."""
        self.clear()
        if self.verbosity < 0 or self.json_path == "-":
            return
        if sys.stdout.isatty():
            text = "".join(c if c in "\n\t" or not _controls(c) else ascii(c)[1:-1] for c in text)
        encoding = sys.stdout.encoding or "utf-8"
        _out(text.encode(encoding, "replace").decode(encoding))

    def note(self, text: str, level: int = 0) -> None:
        """A line about how it goes, on stderr."""
        if self.verbosity >= level:
            self.clear()
            _tell(f"{text}\n")

    def error(self, text: str) -> None:
        """The one line of an error."""
        self.clear()
        on = self.coloured(sys.stderr.isatty())
        head = click.style("waferc: error:", fg="red", bold=True) if on else "waferc: error:"
        _tell(f"{head} {text}\n", on)

    def result(self, data: Mapping[str, Any]) -> None:
        """Writes the JSON that --json asks for."""
        if self.json_path is None:
            return
        text = json.dumps(plain({"schema": SCHEMA, **data}), indent=1, allow_nan=False) + "\n"
        if self.json_path == "-":
            _out(text)
            return
        from ..files import write_text

        write_text(self.json_path, text)

    def progress(self, phase: str, share: float) -> None:
        """How far the work is: a bar on a terminal once it takes over a second; with -v, each phase,
        and twice, all that is done in it.

        phase: its name, and after ": " what is being done in it.
        """
        if phase != self._at[0]:
            same = phase.partition(": ")[0] == self._at[0].partition(": ")[0]
            self.note(f"{time.monotonic() - self._started:7.2f} s  {phase}", level=2 if same else 1)
        self._at = phase, share
        if self._ticker is None and self.verbosity >= 0 and sys.stderr.isatty():
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()

    def _tick(self) -> None:
        """Draws until `clear`: phases may take long without a word."""
        while not self._done.wait(max(0.2, PATIENCE - (time.monotonic() - self._started))):
            with self._drawing:
                if self._done.is_set():
                    return
                phase, share = self._at
                full = round(BAR * min(1.0, max(0.0, share)))
                seconds = time.monotonic() - self._started
                name, _, what = phase.partition(": ")
                bar = f"{name:10} [{'#' * full}{'-' * (BAR - full)}] {share:4.0%} {seconds:6.0f} s  {what}"
                bar = bar[: shutil.get_terminal_size((80, 24)).columns - 1].rstrip()
                _tell(f"\r\x1b[K{bar}")
                self._drawn = True

    def clear(self) -> None:
        """Takes the bar away, until `progress` is called again."""
        if self._ticker is None:
            return
        self._done.set()
        with self._drawing:
            if self._drawn:
                _tell("\r\x1b[K")
        self._ticker, self._drawn, self._done = None, False, threading.Event()

    def end(self) -> None:
        """Takes the bar away, and sees that all of the result is out. Raises as writing it does."""
        self.clear()
        _out("")


def _out(text: str, colour: bool | None = None) -> None:
    """To stdout, at once. Raises OSError that names it, Unread where nobody reads it any more."""
    try:
        click.echo(text, nl=False, color=colour)
    except BrokenPipeError:
        raise Unread from None
    except OSError as e:
        let_go(sys.stdout)
        raise OSError(e.errno, e.strerror, "stdout") from None


def _tell(text: str, colour: bool | None = None) -> None:
    """To stderr. That nobody can be told is no reason to fail."""
    try:
        click.echo(text, nl=False, err=True, color=colour)
    except OSError:
        let_go(sys.stderr)


def _controls(character: str) -> bool:
    """Whether a terminal obeys a character instead of showing it: C0, DEL, C1 and changes of direction."""
    return unicodedata.category(character) in ("Cc", "Cf") and character != "\u200d"  # joins emoji


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: NumPy numbers and arrays as Python's, what is not finite as null."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in cast(Mapping[Any, Any], value).items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Sequence):
        return [plain(v) for v in cast(Sequence[Any], value)]
    return plain(value.tolist())
