"""`waferc serve`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from ..errors import ArtifactError, UsageError, quoted
from .command import Verb
from .console import Console
from .named_files import Reads
from .options import gathered, threads

if TYPE_CHECKING:
    from ..serve.embeddings import ServedEncoder
    from ..serve.served import Served

LOOPBACK = ("127.0.0.1", "::1", "localhost")
ANYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Serving:
    """How programs are served, from the command line."""

    host: str
    port: int
    api_key: str | None
    slots: int
    queue: int
    grace: int
    max_body: int
    hosts: tuple[str, ...]
    origins: tuple[str, ...]
    threads: int | None


@click.command(cls=Verb)
@click.argument("models", nargs=-1, required=True, type=Reads(model=True))
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Listen there.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8000,
    show_default=True,
    help="And at this port; 0: any that is free.",
)
@click.option(
    "--api-key",
    metavar="KEY",
    envvar="WAFERC_API_KEY",
    help="What clients must give; by default what WAFERC_API_KEY holds, if it is set.",
)
@click.option(
    "--slots",
    type=click.IntRange(1, 256),
    metavar="N",
    default=4,
    show_default=True,
    help="Make N texts at once, which take turns.",
)
@click.option(
    "--queue",
    type=click.IntRange(0, 1 << 16),
    metavar="N",
    default=64,
    show_default=True,
    help="Let N texts wait for a slot before requests are refused.",
)
@click.option(
    "--grace",
    type=click.IntRange(0, 3600),
    metavar="SECONDS",
    default=30,
    show_default=True,
    help="When told to end, finish answers for so long.",
)
@click.option(
    "--max-body",
    type=click.IntRange(1, 1024),
    metavar="MIB",
    default=4,
    show_default=True,
    help="Read requests of at most so many MiB.",
)
@click.option(
    "--allow-host", "hosts", multiple=True, metavar="NAME", help="A name by which clients may call it, too."
)
@click.option(
    "--allow-origin", "origins", multiple=True, metavar="URL", help="An origin whose pages may call it."
)
@threads
@gathered(Serving)
@click.pass_obj
def serve(console: Console, models: tuple[str, ...], how: Serving) -> None:
    """Answer OpenAI's clients, and a page to chat with.

    MODELS are programs (.wafer): language models with their tokenizers, or encoders
    whose embeddings are asked for. A model is called as its file is, without the
    ending. SIGTERM ends it once the answers under way are finished.
    """
    try:
        from ..serve.app import Server, Settings
        from ..serve.run import listening
        from ..serve.run import serve as run
    except ImportError as e:
        raise UsageError(f"{e.name} is not installed: pip install 'waferc[serve]'") from None

    for name in how.hosts:
        if "*" in name.removeprefix("*."):
            raise UsageError(f"--allow-host {quoted(name)}: '*' stands for names alone before a '.'")
    if how.api_key == "":
        raise UsageError("--api-key is empty")
    at = listening(how.host, how.port)
    served: dict[str, Served | ServedEncoder] = {}
    for path in models:
        one = _served(path, how)
        if one.name in served:
            raise UsageError(f"two models are called {quoted(one.name)}; rename a file")
        served[one.name] = one
    anywhere = how.host in ANYWHERE and not how.hosts
    hosts = ["*"] if anywhere else [*LOOPBACK, "[::1]", how.host, *how.hosts]
    server = Server(served, Settings(how.api_key, hosts, how.origins, how.max_body << 20))
    if how.host not in LOOPBACK and how.api_key is None:
        console.note(f"anybody who reaches {how.host} may ask: --api-key is not given")
    name = f"[{how.host}]" if ":" in how.host else how.host
    where = f"http://{name}:{at.getsockname()[1]}"

    def ready() -> None:
        console.say(f"serving {', '.join(served)} at {where}")

    run(server, at, how.grace, ready)
    console.result({"models": list(served), "address": where})


def _served(path: str, how: Serving) -> Served | ServedEncoder:
    """A program of either kind. Raises ArtifactError for one of neither."""
    from pathlib import Path

    from ..language.embedding import encoder_entries
    from ..language_model import LanguageModel, held_file, is_program
    from ..serve.embeddings import ServedEncoder
    from ..serve.served import Predicted, Served
    from ..text_encoder import TextEncoder
    from .saved import Saved

    if not is_program(path):
        raise UsageError(f"{quoted(path)} is no program; compile it first: waferc compile {path} -o P.wafer")
    held = held_file(path, how.threads)
    saved = Saved(path, artifact=held.artifact)
    name, predicted = (
        Path(path).stem,
        Predicted(saved.wafer, saved.figures_of, lambda entry: saved.of(entry).plan),
    )
    with suppress(ArtifactError):
        encoder_entries(held.program.entries)
        return ServedEncoder(name, TextEncoder(held, how.threads), predicted, how.queue)
    model = LanguageModel(held, threads=how.threads)
    try:
        _ = model.step  # texts are made token by token
    except ArtifactError as e:
        raise ArtifactError(f"{held.name}: {e}") from None
    return Served(name, model, predicted, how.slots, how.queue)
