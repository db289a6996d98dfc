"""`waferc generate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ..errors import ArtifactError, InvalidInput, UsageError, quoted
from .command import Verb
from .console import Console
from .named_files import Reads
from .options import gathered, threads

if TYPE_CHECKING:
    from ..language.tokens import ChatTemplate, Tokenizer
    from .saved import Saved


@dataclass(frozen=True)
class Generating:
    """How a text goes on, from the command line."""

    chat: bool
    max_tokens: int
    temperature: float | None
    top_k: int | None
    top_p: float | None
    seed: int
    stops: tuple[str, ...]
    threads: int | None
    guard: bool


@click.command(cls=Verb)
@click.argument("program", type=Reads())
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
@threads
@click.option("--guard", is_flag=True, help="Check every load and store; nothing is shared between cores.")
@gathered(Generating)
@click.pass_obj
def generate(
    console: Console,
    program: str,
    prompt: str,
    how: Generating,
) -> None:
    """Continue a text, token by token.

    PROGRAM (.wafer) holds a language model and, by 'compile --tokenizer', its
    tokenizer. The text that follows PROMPT ('-': read it from stdin) is written as it
    is made, by the program alone.
    """
    from ..language.generate import Ending, LanguageModel, Sampling
    from ..language.generate import generate as made
    from ..language.tokens import UnusableText
    from .saved import Saved

    if "" in how.stops:
        raise UsageError("--stop is empty")
    text = _read(prompt)
    saved = Saved(program)
    tokenizer, template = _language(saved, how.chat)
    try:
        asked = text if template is None else template.prompt(text, tokenizer.marks)
    except UnusableText as e:
        raise ArtifactError(f"{quoted(program)}: {e}") from None
    ids = tokenizer.tokens(asked, whole=template is None)
    special = {stop: tokenizer.special(stop) for stop in how.stops}
    drawn = 1.0 if how.top_k or how.top_p else 0.0
    try:
        model = LanguageModel(saved.program(how.threads, how.guard), how.threads)
    except ArtifactError as e:
        raise ArtifactError(f"{quoted(program)}: {e}") from None
    ending = Ending(
        how.max_tokens,
        [token for token in special.values() if token is not None],
        [stop for stop, token in special.items() if token is None],
    )
    warmth = drawn if how.temperature is None else how.temperature
    sampling = Sampling(warmth, how.top_k or 0, how.top_p or 1.0, how.seed)
    with saved.running():
        found = made(model, tokenizer, ids, sampling, ending, console.write)
    console.write("\n")
    host, wafer = found.tokens_per_second, saved.figures_of(model.step).calls_per_second
    rate = "" if host is None else f", {host:,.1f} per second on this machine"
    predicted = "" if wafer is None else f"; {wafer:,.0f} per second on {saved.wafer.name}"
    console.note(f"{len(found.token_ids):,} tokens{rate}{predicted}")
    if found.end == "capacity":
        console.note("the caches are full; compile with a larger --capacity")
    console.result(
        {
            "program": program,
            "prompt_ids": ids,
            "token_ids": found.token_ids,
            "text": found.text,
            "end": found.end,
            "prompt_seconds": found.prompt_seconds,
            "host_tokens_per_second": host,
            "wafer_tokens_per_second": wafer,
            "guard": how.guard,
        }
    )


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


def _language(saved: Saved, chat: bool) -> tuple[Tokenizer, ChatTemplate | None]:
    """What the program holds beside its tasks."""
    from ..language.tokens import TEMPLATE, TOKENIZER, ChatTemplate, Tokenizer, UnusableText

    path, files = quoted(saved.path), saved.artifact.files
    if TOKENIZER not in files:
        raise ArtifactError(f"{path} has no tokenizer; compile the model with --tokenizer tokenizer.json")
    if chat and TEMPLATE not in files:
        raise ArtifactError(f"{path} has no chat template; compile the model with --chat-template FILE")
    try:
        return Tokenizer(files[TOKENIZER]), ChatTemplate(files[TEMPLATE]) if chat else None
    except UnusableText as e:
        raise ArtifactError(f"{path}: {e}") from None
