"""A language model as a user has it: given tokens it gives logits, given a text it gives one that follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..codegen.artifact.artifact import Artifact, InvalidArtifact, read
from ..ir.disk import open_regular
from ..ir.op import Array
from ..runtime import load as loader
from ..runtime.program import Program
from .errors import ArtifactError, UsageError, quoted, shown
from .language.decoding import Decoding
from .language.diffusion import MASKS, Denoising, Diffusion
from .language.drafts import Drafter, Lookup, Smaller
from .language.generate import Ending, Generated, generate
from .language.model import TokenModel
from .language.sampling import Sampling
from .language.texts import Texts
from .language.tokens import MANNER, TEMPLATE, TOKENIZER, ChatTemplate, Manner, Tokenizer, UnusableText
from .loading import operator
from .request import Request
from .stopwatch import Report, silent

if TYPE_CHECKING:
    from .compiled import Compiled


def _unseen(text: str) -> None:
    """Shows nothing."""


ZIP = b"PK\x03\x04"  # what a program begins with


@dataclass(frozen=True)
class Held:
    """A program, and what is known besides.

    name: what errors call it. words: the tokenizer and so on, by their names in an artifact. compiled,
    artifact: what it comes from, if it was made now, or saved.
    """

    program: Program
    name: str = "the program"
    words: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    compiled: Compiled | None = None
    artifact: Artifact | None = None


@dataclass(frozen=True)
class Drafts:
    """Where drafted tokens come from, of which a pass verifies several.

    by: "lookup", the text's own n-grams, or a smaller model with the same tokenizer. most: tokens drafted for
    a pass; None: as many as the smallest entry that gives logits of several tokens verifies.
    """

    by: Literal["lookup"] | LanguageModel = "lookup"
    most: int | None = None


class LanguageModel(TokenModel):
    """A language model: tokens and text from a model's folder, its ONNX file, or a program.

    model: a path of any of them, or a `Program`, `Compiled` or `Held` in memory. A model is compiled now, as
    `request` and `options` ask for (see `compile_model`); what they leave open is taken from the model.
    threads, guard: see `waferc.load`. report: is told which phase of a compile is on. A program holds native
    code: load one only if you trust its source.

    Raises what `compile_model` and `load` do; ArtifactError for a program that is no language model.
    """

    def __init__(
        self,
        model: str | Path | Program | Compiled | Held,
        request: Request | None = None,
        /,
        *,
        threads: int | None = None,
        guard: bool = False,
        report: Report = silent,
        **options: Any,
    ) -> None:
        self._held = held = _held(model, replace(request or Request(), **options), threads, guard, report)
        try:
            super().__init__(held.program, threads)
        except ArtifactError as e:
            raise ArtifactError(f"{held.name}: {e}") from None

    @property
    def compiled(self) -> Compiled | None:
        """What was compiled for this model; None for a program that was there."""
        return self._held.compiled

    @property
    def artifact(self) -> Artifact | None:
        """What the program was read from; None for one in memory."""
        return self._held.artifact

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Raises ArtifactError where there is none, UnusableText for one that cannot be read, and UsageError
        without the package that reads it."""
        return Tokenizer(self.tokenizer_file)

    @property
    def tokenizer_file(self) -> bytes:
        """What the tokenizer was read from. Raises ArtifactError where there is none."""
        return self._word(TOKENIZER, "--tokenizer tokenizer.json")

    @cached_property
    def _template(self) -> ChatTemplate:
        return ChatTemplate(self._word(TEMPLATE, "--chat-template FILE"))

    @cached_property
    def _manner(self) -> Manner:
        held = self._held.words.get(MANNER)
        try:
            return Manner() if held is None else Manner.read(held)
        except UnusableText as e:
            raise ArtifactError(f"{self._held.name}: {e}") from None

    @property
    def padding(self) -> int:
        return self._manner.pad

    def _word(self, name: str, flag: str) -> bytes:
        what = {TOKENIZER: "tokenizer", TEMPLATE: "chat template"}[name]
        if name not in self._held.words:
            raise ArtifactError(f"{self._held.name} has no {what}; compile the model with {flag}")
        return self._held.words[name]

    def texts(self, slots: int) -> Texts:
        """Up to `slots` texts at once over this model, instead of its own one."""
        return Texts(self, slots)

    def prompt_ids(self, prompt: str, chat: bool = False) -> list[int]:
        """A prompt's tokens. chat: as the question of a user, in the model's template.

        Raises ArtifactError for a tokenizer or template that is missing or fails.
        """
        try:
            if not chat:
                return self.tokenizer.tokens(prompt)
            return self.conversation_ids([{"role": "user", "content": prompt}])
        except UnusableText as e:
            raise ArtifactError(f"{self._held.name}: {e}") from None

    def conversation_ids(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """The tokens before the next message of a conversation; see `ChatTemplate.conversation`.

        Raises UnusableText for one that the template refuses, ArtifactError where there is none.
        """
        marks = {**self.tokenizer.marks, **self._manner.marks}
        return self.tokenizer.tokens(self._template.conversation(messages, marks, tools), whole=False)

    @property
    def takes_tools(self) -> bool:
        """Whether the chat template knows of functions that an answer may call."""
        return b"tools" in self._held.words.get(TEMPLATE, b"")

    def ending(self, most: int, stop: Sequence[str] = ()) -> Ending:
        """Where a text ends: after `most` tokens, at those with which the model ends one, before one of the
        texts of `stop`, or at it if it is a special token.

        Raises ArtifactError for a tokenizer that is missing or fails, UsageError for an empty text.
        """
        if "" in stop:
            raise UsageError("a text at which to stop is empty")
        try:
            tokenizer, ends = self.tokenizer, self._manner.ends
        except UnusableText as e:
            raise ArtifactError(f"{self._held.name}: {e}") from None
        special = {text: tokenizer.special(text) for text in stop}
        return Ending(
            most,
            [*tokenizer.ends, *ends, *(token for token in special.values() if token is not None)],
            [text for text, token in special.items() if token is None],
        )

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        chat: bool = False,
        max_tokens: int = 64,
        stop: Sequence[str] = (),
        source: Sequence[int] | Array | None = None,
        show: Callable[[str], None] = _unseen,
        **how: Any,
    ) -> Generated:
        """A text that follows `prompt`, from a model that holds nothing else: it is `reset` first.

        prompt: a text, or its tokens. chat: ask it as a user. stop: texts before which, or special tokens at
        which, it ends; so it does at the tokens with which the model ends one. Of a model with an encoder the
        prompt is what that takes, unless `source` is, and the text begins with the token that the model's
        configuration says. show: is given the text piece by piece. how: temperature, top_k, top_p and seed,
        as `Sampling` has them, and drafts (`Drafts`), of which one pass verifies several; or diffusion
        (`Diffusion`), for a model of which tokens see those behind them, too: it finds masked tokens, several
        in a pass. Masks in the prompt are found as well: the text begins with the first of them.

        Raises InputError for a prompt that cannot be taken, what `prompt_ids` does, and UsageError.
        """
        ending = self.ending(max_tokens, stop)
        ids = self.prompt_ids(prompt, chat) if isinstance(prompt, str) else list(prompt)
        diffusion: Diffusion | None = how.pop("diffusion", None)
        if diffusion is not None:
            return self._denoised(ids, diffusion, ending, show, **how)
        if source is None and self.has_encoder:
            source, ids = ids, self._start()
        drafts: Drafts | None = how.pop("drafts", None)
        sampling = Sampling(**how)
        drafter, most = (None, None) if drafts is None else (self._drafter(drafts, sampling), drafts.most)
        decoding = Decoding(self, ids, sampling, drafter, most)
        self.reset()
        if source is not None:
            self.encode(source)
        return generate(decoding, self.tokenizer, ids, ending, show)

    def _denoised(
        self, ids: list[int], diffusion: Diffusion, ending: Ending, show: Callable[[str], None], **how: Any
    ) -> Generated:
        if how.pop("drafts", None) is not None:
            raise UsageError("drafts are for a text that is made token by token, not for diffusion")
        if self.has_encoder:
            raise UsageError("the model has an encoder; diffusion is for one that has none")
        mask = self.mask(diffusion.mask)
        denoising = Denoising(self, ids, ending.most, diffusion, mask, Sampling(**how))
        self.reset()
        first = len(ids) + ending.most - denoising.most
        return generate(denoising, self.tokenizer, ids[:first], replace(ending, most=denoising.most), show)

    def mask(self, name: int | str | None = None) -> int:
        """The token of a place that is to be found. name: that, or what the tokenizer calls it.

        Raises UsageError where the tokenizer has none, and what `tokenizer` does.
        """
        if isinstance(name, int):
            return name
        names = MASKS if name is None else (name,)
        found = (self.tokenizer.special(each) for each in names)
        mask = next((token for token in found if token is not None), None)
        if mask is None:
            what = "no mask among its special tokens" if name is None else f"no special token {quoted(name)}"
            raise UsageError(f"the tokenizer has {what}; say the mask's number by --mask-token")
        return mask

    def _drafter(self, drafts: Drafts, sampling: Sampling) -> Drafter:
        if drafts.by == "lookup":
            return Lookup()
        if drafts.by.has_encoder:
            raise UsageError("the model that drafts has an encoder; only a decoder alone can draft")
        if drafts.by.tokenizer.names != self.tokenizer.names:
            raise UsageError("the model that drafts has another tokenizer: its tokens are other texts")
        return Smaller(drafts.by, sampling, self.vocabulary)

    def _start(self) -> list[int]:
        """What the text of a decoder behind an encoder begins with."""
        if self._manner.start is None:
            raise ArtifactError(
                f"{self._held.name}: no configuration has a decoder_start_token_id; give source, and the "
                "tokens to begin with as the prompt"
            )
        return [self._manner.start]


def _held(
    model: str | Path | Program | Compiled | Held,
    request: Request,
    threads: int | None,
    guard: bool,
    report: Report,
) -> Held:
    """The program of what was given."""
    if isinstance(model, str | Path):
        if not is_program(model):
            from .pipeline import compile_model

            made = compile_model(model, request, report=report)
            return _of_compiled(made, threads, guard, quoted(str(model)))
        _need_default(request)
        return held_file(model, threads, guard)
    _need_default(request)
    if isinstance(model, Held):
        return model
    if isinstance(model, Program):
        return Held(model)
    return _of_compiled(model, threads, guard, "the model")


def _of_compiled(compiled: Compiled, threads: int | None, guard: bool, name: str) -> Held:
    return Held(compiled.prepared(threads, guard), name, compiled.words, compiled)


def held_file(path: str | Path, threads: int | None = None, guard: bool = False) -> Held:
    """A program that was saved; see `load`."""
    try:
        artifact: Artifact = read(path)
        program = loader.load(artifact, threads, guard, operator)
    except InvalidArtifact as e:
        reason = str(e).removeprefix(f"{path}: ")
        raise ArtifactError(f"{quoted(str(path))}: {shown(reason, 200)}") from None
    return Held(program, quoted(str(path)), artifact.files, artifact=artifact)


def is_program(path: str | Path) -> bool:
    """Whether it is a program by its name or its first bytes, and no model. Raises OSError."""
    if Path(path).is_dir():
        return False
    with open_regular(path) as f:
        return Path(path).suffix == ".wafer" or f.read(len(ZIP)) == ZIP


def _need_default(request: Request) -> None:
    if asked := request.asked:
        raise UsageError(f"{asked[0]} is for a model that is compiled; this one is already")
