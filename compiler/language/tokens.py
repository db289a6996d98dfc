"""Text to tokens and back: the tokenizer and the chat template that a program may hold.

Both come from a model's files, so they are somebody else's text: a template runs in jinja2's sandbox.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from ...codegen.artifact.strict_json import dumps, parsed
from ...codegen.artifact.typed import decode, encode
from ..errors import InvalidInput, UsageError, shown

if TYPE_CHECKING:
    from jinja2 import Environment

TOKENIZER = "tokenizer.json"  # the entries of an artifact, as Hugging Face calls the files
TEMPLATE = "chat_template.jinja"
MANNER = "manner.json"
# What models of several families call the token that ends a text or a turn.
ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|return|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
)
LONGEST_CHAT = 1 << 20  # characters that a template may make
INCOMPLETE = 3  # bytes at most of a character that is not complete in UTF-8
REPLACEMENT = "\ufffd"  # what stands for bytes that are no UTF-8


class UnusableText(InvalidInput):
    """A tokenizer or template that cannot be read or fails."""


@dataclass(frozen=True)
class Manner:
    """How a model's texts begin and end, as its configurations say: an entry of an artifact.

    ends: tokens that end one. start: the token that a decoder behind an encoder begins with. pad: the token
    that fills a source up, by which some models count. marks: what templates call bos_token and eos_token.
    """

    ends: tuple[int, ...] = ()
    start: int | None = None
    pad: int = 0
    marks: Mapping[str, str] = field(default_factory=dict[str, str])

    def content(self) -> bytes:
        return dumps(encode(self))

    @staticmethod
    def read(content: bytes) -> Manner:
        """What `content` wrote. Raises UnusableText."""
        try:
            return decode(parsed(content), Manner)
        except ValueError as e:
            raise UnusableText(f"{MANNER}: {shown(str(e), 200)}") from None


class Tokenizer:
    """A `tokenizers` tokenizer. Raises UnusableText, UsageError where the package is missing."""

    def __init__(self, content: bytes) -> None:
        try:
            from tokenizers import Tokenizer as Library
        except ImportError:
            _missing("tokenizers")
        try:
            self._library = Library.from_str(content.decode())
        except Exception as e:  # the package raises Exception itself
            raise UnusableText(f"no tokenizer that 'tokenizers' can read: {shown(str(e), 200)}") from None
        self._library.no_truncation()
        self._library.no_padding()

    @property
    def size(self) -> int:
        """One more than the largest token."""
        return 1 + max(self.names.values(), default=-1)

    @cached_property
    def names(self) -> Mapping[str, int]:
        """Every token's number by what the tokenizer calls it."""
        return self._library.get_vocab(with_added_tokens=True)

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end a text or a turn."""
        found = (self._library.token_to_id(name) for name in ENDS)
        return tuple(token for token in found if token is not None)

    @cached_property
    def marks(self) -> Mapping[str, str]:
        """What templates call bos_token and eos_token, where there are such tokens."""
        around = self.tokens("")[:1]
        marks = {"bos_token": around, "eos_token": self.ends[:1]}
        return {role: self.name(found[0]) for role, found in marks.items() if found}

    def special(self, text: str) -> int | None:
        """The special token called `text`."""
        tokens = self._library.get_added_tokens_decoder()
        return next((n for n, token in tokens.items() if token.special and token.content == text), None)

    def tokens(self, text: str, whole: bool = True) -> list[int]:
        """The text's tokens. whole: with those that the tokenizer puts around any text."""
        try:
            return list(self._library.encode(text, add_special_tokens=whole).ids)
        except (TypeError, UnicodeEncodeError):
            raise UsageError("the prompt is not UTF-8") from None

    def text(self, tokens: Sequence[int]) -> str:
        """Without special tokens."""
        return self._library.decode(list(tokens), skip_special_tokens=True)

    def name(self, token: int) -> str:
        return self._library.id_to_token(token) or ""

    def has(self, name: str) -> bool:
        """Whether there is a token called so."""
        return self._library.token_to_id(name) is not None

    def added(self, token: int) -> bool:
        """Whether a token stands for a text as it is, outside the model's alphabet."""
        return token in self._added

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(self._library.get_added_tokens_decoder())


class Stream:
    """The text of tokens as they come, in whole characters, up to the first of the `stops`.

    context: the tokens before, whose end decides how a tokenizer writes the first one.
    """

    def __init__(
        self, tokenizer: Tokenizer, context: Sequence[int] = (), stops: Collection[str] = ()
    ) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        # Those that decide how the next ones are written; then those since a character was complete.
        self._known, self._new = list(context[-1:]), list[int]()
        self._given = len(tokenizer.text(self._known))  # characters of their text
        self._held: str = ""  # what may be the beginning of a stop
        self.stopped = False

    def push(self, token: int) -> str:
        """What can be shown now."""
        self._new.append(token)
        text = self._tokenizer.text([*self._known, *self._new])
        broken = len(text) - len(text.rstrip(REPLACEMENT))
        end = max(self._given, len(text) - min(broken, INCOMPLETE))
        out, self._given = text[self._given : end], end
        if not broken:
            self._known, self._new = self._new, []
            self._given = len(self._tokenizer.text(self._known))
        return self._until_stop(out)

    def rest(self) -> str:
        """What was held back, when no more tokens come."""
        out = self._until_stop(self._tokenizer.text([*self._known, *self._new])[self._given :])
        return out if self.stopped else out + self._held

    def _until_stop(self, text: str) -> str:
        """The text up to a stop, without an end that may turn into one."""
        text = self._held + text
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        ends = (n for stop in self._stops for n in range(1, len(stop)) if text.endswith(stop[:n]))
        keep = max(ends, default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


class ChatTemplate:
    """A jinja2 template that turns messages into a prompt. Raises UnusableText."""

    def __init__(self, content: bytes) -> None:
        sandbox = _sandbox()
        try:
            self._template = sandbox.from_string(content.decode())
            self.prompt("Hello", {})
        except UnusableText:
            raise
        except Exception as e:  # a template can fail in every way in which Python can
            raise UnusableText(f"no chat template: {shown(str(e), 200)}") from None

    def prompt(self, question: str, tokens: Mapping[str, str]) -> str:
        """What a model is given to answer the question of a user. tokens: bos_token, eos_token."""
        return self.conversation([{"role": "user", "content": question}], tokens)

    def conversation(
        self,
        messages: Sequence[Mapping[str, Any]],
        tokens: Mapping[str, str],
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """What a model is given to say the next message. messages, tools: as Hugging Face's templates have
        them, each message with its role and content."""
        given = {
            "messages": messages,
            "tools": tools or None,
            "add_generation_prompt": True,
            "raise_exception": _refuse,
            **tokens,
        }
        asked = sum(len(text) for m in messages for text in m.values() if isinstance(text, str))
        out: list[str] = []
        length = 0
        try:
            for piece in self._template.generate(given):
                out.append(piece)
                length += len(piece)
                if length > LONGEST_CHAT + asked:
                    raise UnusableText(f"the chat template makes more than {LONGEST_CHAT:,} characters")
        except UnusableText:
            raise
        except Exception as e:
            raise UnusableText(f"the chat template fails: {shown(str(e), 200)}") from None
        return "".join(out)


def _sandbox() -> Environment:
    """Set as templates of chat models expect it."""
    try:
        from jinja2.exceptions import SecurityError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        _missing("jinja2")

    class Sandbox(ImmutableSandboxedEnvironment):
        # The library bounds `range`; without this a short template could ask for any amount of memory.
        intercepted_binops = frozenset({"*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            numbers = isinstance(left, int | float) and isinstance(right, int | float)
            if not numbers or operator == "**":
                raise SecurityError(f"{operator!r} of {type(left).__name__} and {type(right).__name__}")
            return super().call_binop(context, operator, left, right)

    return Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])


def _refuse(message: str) -> NoReturn:
    """`raise_exception` of templates."""
    raise ValueError(message)


def _missing(package: str) -> NoReturn:
    raise UsageError(f"{package} is not installed: pip install 'waferc[generate]'") from None
