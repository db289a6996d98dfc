"""What all verbs have in common: their options, and one line and an exit code for every error."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from ...ir.disk import remove_temporaries
from ..errors import ModelWarning, WafercError, quoted, shown
from .bounded import Size, bounded
from .console import Console
from .ending import Ended, Unread, let_go, ready_streams, signals
from .named_files import JSON, Writes, named_files

INTERRUPTED = 130
BUG = 70
SETTINGS: dict[str, Any] = {"max_content_width": 80, "help_option_names": ["-h", "--help"]}
LONGEST = 1000  # characters of an error line


class Waferc(click.Group):
    """The group: every way to end goes through `main`, which never shows a traceback unasked."""

    def main(  # pyright: ignore[reportIncompatibleMethodOverride]  # click's overloads tell standalone modes apart
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        ready_streams()
        console = Console()
        extra.pop("standalone_mode", None)
        extra |= {"standalone_mode": False, "obj": console}
        try:
            with signals() as heard, warnings.catch_warnings():
                warnings.showwarning = _showing(console)
                code = super().main(args, prog_name or "waferc", **extra)
                console.end()
            if heard.number is not None:  # raised where Python lets nothing through
                raise Ended(heard.number)
        except (
            Unread,
            SystemExit,
        ) as e:  # the latter is click's answer to a broken pipe, or a completion's end
            code = 6
            if isinstance(e, SystemExit) and f"_{(prog_name or 'waferc').upper()}_COMPLETE" in os.environ:
                code = 0
            else:
                let_go(sys.stdout)
        except BaseException as e:
            code, text = verdict(e)
            if console.verbosity >= 2:
                console.note("".join(traceback.format_exception(e)).rstrip("\n"))
            console.error(text)
        try:
            sys.stdout.flush()
        except OSError:  # told already
            let_go(sys.stdout)
        remove_temporaries()
        sys.exit(code or 0)


def _showing(console: Console) -> Any:
    """How warnings are shown: those about the model as notes, each once."""
    others, seen = warnings.showwarning, set[str]()

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, ModelWarning):
            others(message, category, *where, **more)
        elif (text := str(message)) not in seen:
            seen.add(text)
            console.note(f"waferc: warning: {text}")

    return show


class Verb(click.Command):
    """A command with the options that every verb has."""

    def __init__(self, *args: Any, **extra: Any) -> None:
        super().__init__(*args, **extra)
        self.context_settings = {**SETTINGS, **self.context_settings}
        self.params += [
            click.Option(
                ["--json", "json_path"],
                metavar="FILE",
                expose_value=False,
                type=Writes(JSON),
                callback=_set("json_path"),
                help="Write the result as JSON, too; '-' writes it to stdout, and nothing else.",
            ),
            click.Option(
                ["--max-memory"],
                type=Size(),
                expose_value=False,
                callback=_set("max_memory"),
                help="End with 5 where the command would take more memory than, say, 2G.",
            ),
            click.Option(
                ["-v", "--verbose"],
                count=True,
                expose_value=False,
                callback=_verbose,
                help="Say how it goes; twice: errors with traceback.",
            ),
            click.Option(
                ["-q", "--quiet"], is_flag=True, expose_value=False, callback=_quiet, help="Say errors only."
            ),
            click.Option(
                ["--color/--no-color"],
                default=None,
                expose_value=False,
                callback=_set("colour"),
                help="Colours; by default on a terminal unless NO_COLOR is set.",
            ),
        ]

    def invoke(self, ctx: click.Context) -> Any:
        """As click's, once the files that the command names are judged; within a bound of memory if given."""
        console = ctx.find_object(Console)
        quiet = console is not None and console.verbosity < 0 and console.json_path != "-"
        named_files(ctx).judge(ctx.params, quiet)
        if console is None or console.max_memory is None:
            return super().invoke(ctx)
        return bounded(console.max_memory, lambda: super(Verb, self).invoke(ctx), console.error)


def _set(name: str) -> Any:
    def callback(context: click.Context, _: click.Parameter, value: Any) -> None:
        setattr(context.find_object(Console), name, value)

    return callback


def _verbose(context: click.Context, _: click.Parameter, value: int) -> None:
    if (console := context.find_object(Console)) is not None and value:
        console.verbosity = value


def _quiet(context: click.Context, _: click.Parameter, value: bool) -> None:
    if (console := context.find_object(Console)) is not None and value:
        console.verbosity = -1


def verdict(e: BaseException) -> tuple[int, str]:
    """(exit code, the one line) for an exception."""
    if isinstance(e, WafercError):
        return e.exit_code, _line(str(e))
    if isinstance(e, click.ClickException):
        return e.exit_code, _line(_of_click(e))
    if isinstance(e, Ended):
        return e.code, str(e)
    if isinstance(e, click.Abort | KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if isinstance(e, OSError):
        where = f"{quoted(os.fsdecode(e.filename))}: " if isinstance(e.filename, str | bytes) else ""
        return 6, _line(f"{where}{e.strerror or e}")
    if isinstance(e, MemoryError):
        return 5, _line(str(e) or "not enough memory on this machine; try a smaller --wafer")
    known = _of_ours(e)
    if known is not None:
        return known, _line(str(e))
    what = f"{type(e).__name__}: {e}" if str(e) else type(e).__name__
    return BUG, _line(f"a bug of ours, please report it: {what}; -v -v shows the traceback")


def _of_ours(e: BaseException) -> int | None:
    """The exit code of an exception of the packages below, which know no exit codes."""
    from ...codegen.artifact.artifact import InvalidArtifact
    from ...ir.graph import TooLarge
    from ...placement.build.detours import Unroutable
    from ...placement.machine.wafer import WaferError
    from ...placement.search.explain import DoesNotFit
    from ...runtime.play import HostError
    from ...runtime.program import InputError
    from ...runtime.reports import InvalidIndex

    table = {
        InputError: 2,
        WaferError: 2,
        HostError: 3,
        InvalidIndex: 3,
        DoesNotFit: 5,
        TooLarge: 5,
        Unroutable: 5,
        InvalidArtifact: 7,
    }
    return next((code for kind, code in table.items() if isinstance(e, kind)), None)


def _of_click(e: click.ClickException) -> str:
    text = e.format_message()
    if isinstance(e, click.UsageError) and e.ctx is not None:
        text = text if text.endswith("...") else text.removesuffix(".")
        text = f"{text} (see '{e.ctx.command_path} --help')"
    return text[:1].lower() + text[1:]


def _line(text: str) -> str:
    return shown(" ".join(text.split("\n")), LONGEST)
