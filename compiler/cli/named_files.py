"""The files that a command names: what is read is not written, and what is written is called what it is."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..errors import UsageError, quoted

Identity = tuple[Any, ...]
"""Equal for two names of one regular file, there or to be made."""

HERE = "waferc.files"  # where click's context keeps them
DUMPED = re.compile(
    r"placement\.json|steps\.onnx|model-explorer(?:-cycles)?\.json|\d+-.*\.txt", re.DOTALL
)  # names of files that --dump-phases-to writes
# What says nothing of a format: "model.new", "resnet-1.5".
VAGUE = re.compile(r"\.(?:tmp|new|old|bak|orig|part|out|v?\d+(?:[-_].*)?)", re.IGNORECASE | re.DOTALL)
# Where the shell may have let our texts go, and from where it may have given us one.
STREAMS = (("stdin", 0), ("stdout", 1), ("stderr", 2))


@dataclass(frozen=True)
class Format:
    """What an option writes. told: of it, in an error. chosen: whether the suffix is needed."""

    told: str
    suffixes: tuple[str, ...]
    chosen: bool = False

    def judge(self, flag: str, path: str) -> None:
        """Raises UsageError for a suffix that promises something else."""
        suffix = Path(path).suffix
        vague = not self.chosen and (not suffix or VAGUE.fullmatch(suffix))
        if not vague and suffix.lower() not in self.suffixes:
            raise UsageError(f"{flag} {quoted(path)}: {self.told}")


JSON = Format("the result is written as a .json file", (".json",))
PAGE = Format("a report is an .html file", (".html", ".htm"))


@dataclass(frozen=True)
class Named:
    """A file as the user gave it: flag or argument, and path."""

    flag: str
    path: str

    def __str__(self) -> str:
        return f"{self.flag} {quoted(self.path)}" if self.path else self.flag


@dataclass
class NamedFiles:
    """The files that a command names, as its options tell. models: of what is read, those whose data may lie
    in other files. folders: where files with names of DUMPED are written. formats: what promises of a name
    are held to, asked once all options are known.
    """

    read: list[Named] = field(default_factory=list[Named])
    models: list[str] = field(default_factory=list[str])
    written: list[Named] = field(default_factory=list[Named])
    folders: list[Named] = field(default_factory=list[Named])
    formats: list[tuple[Named, Callable[[Mapping[str, Any]], Format]]] = field(
        default_factory=list[tuple[Named, Callable[[Mapping[str, Any]], Format]]]
    )

    def judge(self, options: Mapping[str, Any], quiet: bool) -> None:
        """Raises UsageError where a file would be lost that is read, or that is written, too, or whose name
        promises another format; nothing has been touched then. quiet: nothing goes to stdout.

        Raises NotADirectoryError for a file where a folder would be made.
        """
        inputs = self._inputs()
        taken: dict[Identity, Named] = {}
        for named, known in self._outputs(quiet):
            if (source := inputs.get(known)) is not None:
                if named.path == "":
                    _silence(named)
                raise UsageError(f"{named} is {source}, which is read; it would be lost")
            if (other := taken.setdefault(known, named)) != named and not (named.path == other.path == ""):
                raise UsageError(f"{named} is {other}, which is written, too; each needs a file of its own")
        for folder in self.folders:
            for named in self.read:
                if _dumped_there(folder.path, named.path) and _existing(named.path) is not None:
                    raise UsageError(f"{named} is in {folder}, where it may be written over")
            _need_room_for_folder(folder.path)
        for named, chosen in self.formats:
            chosen(options).judge(named.flag, named.path)

    def _inputs(self) -> dict[Identity, Named]:
        """What is read, by identity. Data of models only where a file is there that may be written over."""
        out: dict[Identity, Named] = {}
        for named in self.read:
            _add(out, _existing(named.path), named)
        _add(out, _of_stream(0), Named("stdin", ""))
        there = any(named.path and _existing(named.path) for named, _ in self._outputs(quiet=True))
        for model in self.models if there else ():
            from ..frontend.load import external_files

            folder = Path(model)
            beside = (*folder.glob("*"), *folder.glob("onnx/*")) if folder.is_dir() else external_files(model)
            for path in beside:
                _add(out, _existing(path), Named("data of the model, in", str(path)))
        return out

    def _outputs(self, quiet: bool) -> Iterator[tuple[Named, Identity]]:
        """What is written, and files in folders that may be."""
        for stream, number in STREAMS[1:]:
            if (known := _of_stream(number)) is not None and not (quiet and stream == "stdout"):
                yield Named(stream, ""), known
        for named in self.written:
            if (known := _identity(named.path)) is not None:
                yield named, known
                for folder in self.folders:
                    if _dumped_there(folder.path, named.path):
                        yield Named(f"a file of {folder.flag}", folder.path), known
        for folder in self.folders:
            if (known := _existing(folder.path)) is not None:
                yield folder, known
            for path in (*Path(folder.path).glob("*"), *Path(folder.path, "simplify").glob("*")):
                if DUMPED.fullmatch(path.name) and (known := _existing(path)) is not None:
                    yield Named(f"a file of {folder.flag},", str(path)), known


def named_files(context: click.Context) -> NamedFiles:
    """The command's, as far as they are known."""
    return context.meta.setdefault(HERE, NamedFiles())


class Reads(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]
    """A file that is read. model: whether its data may lie in other files."""

    name = "file"

    def __init__(self, model: bool = False) -> None:
        self._model = model

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if ctx is not None and param is not None:
            reads(ctx, param, value)
            if self._model:
                named_files(ctx).models.append(value)
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


class Writes(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]
    """A file that is written in a format, or in one that other options choose."""

    name = "file"

    def __init__(self, form: Format | Callable[[Mapping[str, Any]], Format]) -> None:
        self._form = form

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        form = self._form
        if ctx is not None and param is not None and value != "-":
            named, files = Named(_flag(param), value), named_files(ctx)
            files.written.append(named)
            files.formats.append((named, (lambda _: form) if isinstance(form, Format) else form))
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


class Folder(click.ParamType):  # pyright: ignore[reportMissingTypeArgument]
    """A folder of files with names of DUMPED."""

    name = "folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if ctx is not None and param is not None:
            named_files(ctx).folders.append(Named(_flag(param), value))
        return value


def reads(context: click.Context, param: click.Parameter, path: str) -> None:
    """Says that the command reads this file."""
    named_files(context).read.append(Named(_flag(param), path))


def _flag(param: click.Parameter) -> str:
    if isinstance(param, click.Argument):
        return str(param.name).upper()
    return max(param.opts, key=len)


def _add(known: dict[Identity, Named], identity: Identity | None, named: Named) -> None:
    if identity is not None:
        known.setdefault(identity, named)


def _existing(path: str | Path) -> Identity | None:
    """Of a regular file that is there, whatever link leads to it."""
    try:
        return _of_status(os.stat(path))
    except (OSError, ValueError):
        return None


def _identity(path: str) -> Identity | None:
    """Of a regular file, or of one that could be made at `path`; None for what is something else."""
    try:
        return _of_status(os.stat(path))
    except (OSError, ValueError):
        pass
    real = os.path.realpath(path)
    folder, name = os.path.split(real)
    try:
        status = os.stat(folder)
    except (OSError, ValueError):
        return None, None, real
    return status.st_dev, status.st_ino, name


def _of_stream(number: int) -> Identity | None:
    try:
        return _of_status(os.fstat(number))
    except OSError:
        return None


def _of_status(status: os.stat_result) -> Identity | None:
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _dumped_there(folder: str, path: str) -> bool:
    """Whether a file of a name of DUMPED would be in the folder, or in one of those in it."""
    real = Path(os.path.realpath(path))
    return DUMPED.fullmatch(real.name) is not None and Path(os.path.realpath(folder)) in real.parents


def _need_room_for_folder(path: str) -> None:
    """Raises NotADirectoryError where something else is in the way of the folder to be made."""
    at = Path(os.path.realpath(path))
    if not next(p for p in (at, *at.parents) if p.exists()).is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)


def _silence(named: Named) -> None:
    """Lets go of a stream that leads into what is read: not even the error is written there."""
    handle = os.open(os.devnull, os.O_WRONLY)
    os.dup2(handle, dict(STREAMS)[named.flag])
    os.close(handle)
