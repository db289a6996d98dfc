"""One execution: the commands of an item, in this process, and what is wrong with how they end."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import re
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import traceback
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
from waferc.compiler.cli import command
from waferc.compiler.cli.main import main
from waferc.compiler.errors import WafercError

from siege import artifacts, folders
from siege.changes import M
from siege.contributed import ATOL, RTOL, is_contributed
from siege.items import Item
from siege.reached import OURS, Line, Reached
from siege.undefined import is_undefined

SECONDS = 10.0  # of the processor for an item's commands; more is a hang
WAITING = 60.0  # seconds on the clock of a machine with nothing else to do: commands that wait for nothing
MEMORY = 1 << 30  # bytes that a worker may take on top of what it starts with
GROWN = 300  # executions, after which a worker is replaced: it keeps the machine code of all programs
BYTES = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
CODES = {0, 2, 3, 4, 5, 6, 7, 8}  # documented ends of a command


def patience() -> float:
    """WAITING, on a machine that is as busy as this one."""
    return WAITING * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@dataclass(frozen=True)
class Finding:
    """kind: what is wrong. site: the place in our packages, or what stands for it. text: one line more."""

    kind: str
    site: str
    text: str
    command: str


@dataclass(frozen=True)
class Outcome:
    codes: tuple[int, ...]
    new: frozenset[Line]
    finding: Finding | None = None


class Worker:
    """What a worker process does with each item. `stacks`: where it says where it hangs or dies."""

    def __init__(self, folder: Path, known: set[Line], memory: int = MEMORY) -> None:
        self.folder, self.memory = folder, memory
        self.reached = Reached(known)
        self._ready = False

    @property
    def stacks(self) -> Path:
        return self.folder / "stacks"

    def __call__(self, item: Item) -> Outcome:
        if not self._ready:
            self._limit()
        self._stack_file.truncate(0)
        faulthandler.dump_traceback_later(0.9 * patience(), file=self._stack_file)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        here = self.folder / "here"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        os.chdir(here)
        try:
            write_files(item, here)
            self.reached.new()
            codes, finding = _all(item, here)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.cancel_dump_traceback_later()
        return Outcome(codes, self.reached.new(), finding)

    def _limit(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stack_file = self.stacks.open("w+b")
        faulthandler.enable(self._stack_file)
        faulthandler.register(
            signal.SIGPROF, self._stack_file, all_threads=False, chain=True
        )  # and then ends
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + self.memory, size + self.memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.memory, self.memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.environ["WAFERC_CACHE"] = str(self.folder / "cache")
        _watch(self.folder)
        self._ready = True


def write_files(item: Item, here: Path) -> None:
    for name, content in item.files.items():
        (here / name).write_bytes(content)
    for name, (base, edits) in item.forged.items():
        (folders if base in folders.BASES else artifacts).forge(here / name, base, edits)


# -- the commands -----------------------------------------------------------------------


def _all(item: Item, here: Path) -> tuple[tuple[int, ...], Finding | None]:
    codes: list[int] = []
    for words in item.commands:
        code, finding = _one(words, here)
        if code == 8:
            finding = _wrong(item, words, here, finding)
        codes.append(code)
        if code or finding is not None:
            return tuple(codes), finding
    return tuple(codes), None


def _wrong(item: Item, words: Sequence[str], here: Path, finding: Finding | None) -> Finding | None:
    """Numbers are wrong where both goldens say so, or the one that knows the operators says so by far."""
    if finding is not None or any(is_undefined(content) for n, content in item.files.items() if n == M):
        return finding
    if _one((*words, "--golden", "reference"), here)[0] not in (4, 8) or _is_near(words, here):
        return None
    kinds = sorted(set(re.findall(rb"[A-Z][A-Za-z]{2,}", b" ".join(item.files.values()))))
    return Finding("wrong numbers", b" ".join(kinds[:6]).decode(), "", shown_command(words))


def _is_near(words: Sequence[str], here: Path) -> bool:
    """Whether a model of onnxruntime's operators differs by no more than these do from one another: bytes by
    one step. False for a model without one."""
    model = onnx.ModelProto.FromString((here / M).read_bytes())
    if not any(map(is_contributed, model.graph.node)):
        return False
    told = here / "told.json"
    code, _ = _one((*words, "--rtol", str(RTOL), "--atol", str(ATOL), "--json", str(told)), here)
    if code != 8 or not told.exists():
        return True
    outputs = json.loads(told.read_text())["outputs"]
    small = {v.name for v in model.graph.output if v.type.tensor_type.elem_type in BYTES}
    return all(o["passed"] or (o["output"] in small and o["max_abs"] <= 1) for o in outputs)


def shown_command(words: Sequence[str]) -> str:
    return shlex.join(("waferc", *words))


def _one(words: Sequence[str], here: Path) -> tuple[int, Finding | None]:
    """The exit code of one command, and what is wrong with it."""
    caught: list[BaseException] = []
    out, err = io.StringIO(), io.StringIO()
    outside.clear()
    with _judged(caught), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(words))
            code = 0
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else 70

    def found(kind: str, text: str, site: str = "") -> tuple[int, Finding]:
        return code, Finding(kind, site or site_of(caught), text[:300], shown_command(words))

    last = err.getvalue().strip().rpartition("\n")[2]
    raised = caught[-1] if caught else None
    if outside:
        return found("outside", outside[0], outside[0].partition(" ")[0])
    if isinstance(raised, MemoryError):
        return found("memory", f"more than {MEMORY:,} bytes: {last}")
    if code not in CODES:
        return found(f"exit {code}", repr(raised) if raised is not None else last)
    for text in (out.getvalue(), err.getvalue()):
        if bad := next((c for c in text if _controls(c)), None):
            return found("control character", f"{bad!r} in {text[:100]!r}")
    if code:
        if err.getvalue().count("waferc: error:") != 1 or not last.startswith("waferc: error: "):
            return found("message", f"not one line: {err.getvalue()[-200:]!r}")
        if isinstance(raised, WafercError) and len(str(raised).splitlines()) > 1:
            return found("message", f"several lines: {str(raised)!r}")
        left = [w for option, w in pairwise(words) if option == "-o" and (here / w).exists()]
        if left and code != 8:
            return found("left behind", left[0])
    hidden = [p.name for p in here.iterdir() if p.name.startswith(".")]
    if hidden:
        return found("left behind", hidden[0])
    return code, None


@contextlib.contextmanager
def _judged(caught: list[BaseException]) -> Iterator[None]:
    """Keeps the exceptions that the command line puts into words."""
    verdict = command.verdict

    def kept(e: BaseException) -> tuple[int, str]:
        caught.append(e)
        return verdict(e)

    command.verdict = kept
    try:
        yield
    finally:
        command.verdict = verdict


def _controls(character: str) -> bool:
    return character != "\n" and unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs")


# -- where ------------------------------------------------------------------------------


def site_of(caught: Sequence[BaseException]) -> str:
    """The innermost line of our packages that an exception went through."""
    if not caught:
        return ""
    e: BaseException = caught[-1]
    frames = [f for f in traceback.extract_tb(e.__traceback__) if f.filename.startswith(OURS)]
    inner = frames[-1] if frames else None
    place = _place(inner.filename, inner.name) if inner is not None else "?"
    return f"{place} {type(e).__name__}"


def site_in(stacks: str) -> str:
    """The same of what faulthandler wrote about a process that hung or died."""
    for file, name in re.findall(r'File "(.+?)", line \d+ in (\S+)', stacks):
        if file.startswith(OURS):
            return _place(file, name)
    return "?"


def _place(file: str, name: str) -> str:
    root = next(root for root in OURS if file.startswith(root))
    return f"{Path(root).name}/{file.removeprefix(root)}:{name}"


# -- what is opened and started ---------------------------------------------------------

outside: list[str] = []
_allowed: list[str] = []
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.spawn")
_CHANGES = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
)


def _watch(folder: Path) -> None:
    """From now on, `outside` tells what this process starts, connects to or writes outside the folder."""
    if not _allowed:
        sys.addaudithook(_audited)
    _allowed[:] = [str(folder.resolve()), str(Path(tempfile.gettempdir()).resolve() / "tmp"), os.devnull]


def _audited(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & _WRITES and isinstance(path, str | bytes):
            _judge_path(event, path)
    elif event in _CHANGES:
        for path in arguments[:2]:
            if isinstance(path, str | bytes):
                _judge_path(event, path)
    elif event in _STARTS or event.startswith("socket.connect"):
        outside.append(f"{event} {arguments!r:.200}")


def _judge_path(event: str, path: str | bytes) -> None:
    whole = os.path.abspath(os.fsdecode(path))
    if not whole.startswith(tuple(_allowed)) and "__pycache__" not in whole:
        outside.append(f"{event} {whole}")
