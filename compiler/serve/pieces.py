"""The bytes that a token stands for."""

from __future__ import annotations

from functools import cached_property

from ..language.tokens import REPLACEMENT, Tokenizer

SPACE = "\u2581"  # how SentencePiece writes a space


def _alphabet() -> dict[str, int]:
    """The byte of each character by which tokenizers on bytes write it: printable ones as themselves, the
    others as U+0100 and on (GPT-2's encoder.py).
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(rest)}


class TokenBytes:
    """What a tokenizer's tokens stand for, one by one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @cached_property
    def _bytes(self) -> dict[str, int] | None:
        """Of characters; None where tokens are not written in bytes."""
        return _alphabet() if self._tokenizer.has("\u0120") else None  # a space, in that alphabet

    def of(self, token: int) -> bytes | None:
        """None of a token that the tokenizer does not have."""
        name = self._tokenizer.name(token)
        if not name:
            return None
        if self._tokenizer.added(token):
            return name.encode()
        if self._bytes is not None:
            return bytes(self._bytes[c] for c in name if c in self._bytes)
        if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
            return bytes([int(name[3:5], 16)])
        return name.replace(SPACE, " ").encode()

    def text(self, token: int) -> str:
        """The same, with marks for what is no whole character."""
        return (self.of(token) or b"").decode("utf-8", "replace") or REPLACEMENT
