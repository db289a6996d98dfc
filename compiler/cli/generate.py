"""`waferc generate`."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ..errors import InvalidInput, UsageError, quoted, shown
from .command import Verb
from .console import Console
from .diffusing import Diffusing, diffusing, passes
from .named_files import Reads
from .options import COMPILING, asking, gathered, threads
from .speculation import LOOKUP, Drafting, speculation

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..language_model import LanguageModel
    from ..request import Request
    from ..show.figures import Figures
    from .saved import Saved


@dataclass(frozen=True)
class Generating(Diffusing):
    """How a text goes on, from the command line."""

    chat: bool
    max_tokens: int
    temperature: float | None
    top_k: int | None
    top_p: float | None
    seed: int
    stops: tuple[str, ...]
    speculate: str | None
    draft: int | None
    threads: int | None
    guard: bool


@click.command(cls=Verb)
@click.argument("model", type=Reads(model=True))
@click.argument("prompt")
@click.option("--chat", is_flag=True, help="Ask as a user, in the model's chat template.")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    default=64,
    show_default=True,
    help="Make at most N.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    metavar="T",
    help="Draw tokens; 0 takes the likeliest, the default without --top-k and --top-p, else 1.",
)
@click.option("--top-k", type=click.IntRange(min=1), metavar="K", help="Draw among the K likeliest.")
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="P",
    help="Draw among the likeliest that make up this share.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is drawn.")
@click.option(
    "--stop", "stops", multiple=True, metavar="TEXT", help="End before this text or at this special token."
)
@click.option(
    "--speculate",
    type=Drafting(),
    metavar="lookup|MODEL.wafer",
    help="Draft tokens, by the text's own n-grams or a smaller model, and verify several in one pass.",
)
@click.option(
    "--draft",
    type=click.IntRange(min=1),
    metavar="N",
    help="Draft at most N tokens a pass; by default as many as the smallest entry verifies.",
)
@diffusing
@asking(*COMPILING)
@threads
@click.option("--guard", is_flag=True, help="Check every load and store; nothing is shared between cores.")
@gathered(Generating)
@click.pass_obj
def generate(
    console: Console,
    model: str,
    prompt: str,
    request: Request,
    how: Generating,
) -> None:
    """Continue a text, token by token or block by block.

    MODEL is a program (.wafer) that holds a language model and its tokenizer, or the
    folder of a model, which is compiled first. The text that follows PROMPT ('-':
    read it from stdin) is written as it is made, by the program alone.
    """
    from ..language_model import Drafts
    from .saved import Saved

    if "" in how.stops:
        raise UsageError("--stop is empty")
    if how.draft is not None and how.speculate is None:
        raise UsageError("--draft is for --speculate")
    diffusion = how.asked()
    if diffusion is not None and how.speculate is not None:
        raise UsageError("--speculate is for a text that is made token by token, not for --diffusion")
    text = _read(prompt)
    loaded = _loaded(console, model, request, how)
    drawn = 1.0 if how.top_k or how.top_p else 0.0
    ids = loaded.prompt_ids(text, how.chat)
    smaller = _smaller(how)
    saved = None if loaded.compiled is not None else Saved(model, artifact=loaded.artifact)
    with nullcontext() if saved is None else saved.running():
        found = loaded.generate(
            ids,
            max_tokens=how.max_tokens,
            stop=how.stops,
            show=console.write,
            diffusion=diffusion,
            drafts=None if how.speculate is None else Drafts(smaller or "lookup", how.draft),
            temperature=drawn if how.temperature is None else how.temperature,
            top_k=how.top_k or 0,
            top_p=how.top_p or 1.0,
            seed=how.seed,
        )
    console.write("\n")
    of, name = _predicted(loaded, saved)
    masks = None if found.denoised is None else passes(len(found.token_ids), found.denoised, of)
    host = found.tokens_per_second
    wafer = of(loaded.step).calls_per_second if masks is None else masks.tokens_per_second
    rate = "" if host is None else f", {host:,.1f} per second on this machine"
    predicted = "" if wafer is None or masks is not None else f"; {wafer:,.0f} per second on {shown(name)}"
    console.note(f"{len(found.token_ids):,} tokens{rate}{predicted}")
    if masks is not None:
        console.note(masks.line(name))
    drafts = None
    if found.speculated is not None:
        drafting = None if smaller is None else Saved(how.speculate or "", artifact=smaller.artifact)
        drafts = speculation(found.decoded, found.speculated, of, drafting)
        for line in drafts.lines(wafer, name):
            console.note(line)
    if found.end == "capacity":
        full = "the caches are full; compile with a larger --capacity"
        console.note(full if loaded.capacity is not None else "the model takes no more places")
    console.result(
        {
            "program": model,
            "prompt_ids": ids,
            "token_ids": found.token_ids,
            "text": found.text,
            "end": found.end,
            "prompt_seconds": found.prompt_seconds,
            "host_tokens_per_second": host,
            "wafer_tokens_per_second": wafer,
            "speculation": None if drafts is None else drafts.data(),
            "diffusion": None if masks is None else masks.data(),
            "guard": how.guard,
        }
    )


def _loaded(console: Console, model: str, request: Request, how: Generating) -> LanguageModel:
    """The model, compiled if it is no program yet and has a tokenizer."""
    from ..exports.folders import model_files
    from ..language.tokens import TOKENIZER, Tokenizer, UnusableText
    from ..language_model import LanguageModel, is_program

    if not is_program(model):
        words = model_files(model).words
        if TOKENIZER not in words:
            raise InvalidInput(
                f"{quoted(model)} has no {TOKENIZER}; "
                "give a folder with a model and its tokenizer, or a program"
            )
        try:
            Tokenizer(words[TOKENIZER])  # before the compile, which may take long
        except UnusableText as e:
            raise InvalidInput(f"the folder's {TOKENIZER}: {e}") from None
    loaded = LanguageModel(model, request, threads=how.threads, guard=how.guard, report=console.progress)
    if loaded.compiled is not None and loaded.compiled.chosen:
        console.note(loaded.compiled.chosen)
    return loaded


def _smaller(how: Generating) -> LanguageModel | None:
    """The model that drafts, if one does."""
    from ..language_model import LanguageModel, is_program

    if how.speculate is None or how.speculate == LOOKUP:
        return None
    if not is_program(how.speculate):
        raise UsageError(
            f"--speculate {shown(how.speculate)}: give {LOOKUP} or a program (.wafer) of the same tokens"
        )
    return LanguageModel(how.speculate, threads=how.threads, guard=how.guard)


def _predicted(loaded: LanguageModel, saved: Saved | None) -> tuple[Callable[[str], Figures], str]:
    """What a call of an entry takes on the wafer, and that's name. saved: what was not compiled now."""
    if saved is not None:
        return saved.figures_of, saved.wafer.name
    assert loaded.compiled is not None
    return loaded.compiled.figures_of, loaded.compiled.wafer.name


def _read(prompt: str) -> str:
    """The prompt's text; from stdin without the line end that a shell puts there."""
    import sys

    if prompt == "-":
        try:
            prompt = sys.stdin.buffer.read().decode().removesuffix("\n")
        except ValueError:
            raise InvalidInput("the prompt on stdin is not UTF-8") from None
    if not prompt:
        raise UsageError("the prompt is empty")
    return prompt
