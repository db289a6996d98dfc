"""Answers of a given form: which tokens a JSON schema lets follow. The package llguidance finds them."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...ir.op import Array
from ..errors import shown
from .refusals import Refused

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

ANY_OBJECT = {"type": "object"}
# Between the parts of an answer there is at most this: a model must not fill its answer with spaces.
OPTIONS = {"whitespace_pattern": r"[ \n]?"}


class Grammars:
    """Makes matchers for one model's tokens. tokenizer: a tokenizer.json. ends: tokens that end a text."""

    def __init__(self, tokenizer: bytes, vocabulary: int, ends: Sequence[int]) -> None:
        self._content, self._vocabulary, self._ends = tokenizer, vocabulary, list(ends)
        self._lock = threading.Lock()
        self._made: LLTokenizer | None = None

    def _tokens(self, param: str) -> LLTokenizer:
        """Made when first asked for: it takes a moment. Raises Refused without the package."""
        try:
            from llguidance import LLTokenizer
        except ImportError:
            raise Refused(
                f"{param}: the server has no package llguidance, which masks logits: pip install llguidance",
                param,
                code="unsupported_parameter",
            ) from None
        with self._lock:
            if self._made is None:
                self._made = LLTokenizer(
                    self._content.decode(), n_vocab=self._vocabulary, eos_token=self._ends or None
                )
            return self._made

    def of_schema(self, schema: Mapping[str, Any], param: str) -> Masks:
        """A new matcher of JSON that follows a schema. param: what errors name. Raises Refused."""
        from_schema = self._library(param).grammar_from_json_schema
        return self._matcher(from_schema(json.dumps(schema), overrides=OPTIONS), param)  # pyright: ignore[reportArgumentType]  # its stub names no optional members

    def of_lark(self, text: str, param: str) -> Masks:
        """A new matcher of a grammar in Lark's form."""
        return self._matcher(self._library(param).grammar_from_lark(text), param)

    def _library(self, param: str) -> type[LLMatcher]:
        self._tokens(param)
        from llguidance import LLMatcher

        return LLMatcher

    def _matcher(self, grammar: str, param: str) -> Masks:
        matcher = self._library(param)(self._tokens(param), grammar, log_level=0)
        if matcher.is_error():
            raise Refused(f"{param}: {shown(matcher.get_error().split(chr(10))[0], 300)}", param)
        return Masks(matcher, param)


class Masks:
    """A `choose.Matcher` of llguidance's. Raises Refused where a grammar leads nowhere."""

    def __init__(self, matcher: LLMatcher, param: str) -> None:
        self._matcher, self._param = matcher, param

    @property
    def ended(self) -> bool:
        return self._matcher.is_stopped()

    def allowed(self, vocabulary: int) -> Array | None:
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        found: Array = np.unpackbits(bits, bitorder="little")[:vocabulary].astype(bool)
        if self._matcher.is_error() or not found.any():
            raise self._stuck()
        return np.pad(found, (0, vocabulary - len(found)))

    def take(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            raise self._stuck()

    def _stuck(self) -> Refused:
        why = self._matcher.get_error() or "no token may follow"
        return Refused(f"{self._param}: {shown(why.split(chr(10))[0], 300)}", self._param)
