"""`waferc check` and `waferc compile`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ..errors import ArtifactError, DoesNotFit, InvalidInput, UnsupportedModel, UsageError, quoted, shown
from ..show.text import facts, table
from .command import Verb
from .console import Console
from .named_files import PAGE, Folder, Format, Reads, Writes
from .options import ASKED, PLANNING, asking, gathered

if TYPE_CHECKING:
    from pathlib import Path

    from ...ir.graph import Graph
    from ..compiled import Compiled
    from ..request import Request, Until
    from ..survey import Row


WRITTEN: dict[Until, Format] = {
    "program": Format("compile writes a program, a .wafer file", (".wafer",)),
    "plan": Format("--compile-to plan writes a .plan file", (".plan",)),
    "graph": Format("--compile-to graph writes a text, a .txt file", (".txt",)),
}
MOST_WORDS = 1 << 28  # bytes of a tokenizer or a template


@click.command(cls=Verb)
@click.argument("model", type=Reads(model=True))
@asking(*PLANNING)
@click.pass_obj
def check(
    console: Console,
    model: str,
    request: Request,
) -> None:
    """List a model's operators, and whether it fits.

    Says for every operator of MODEL, an ONNX file or its folder, whether it runs on
    the wafer, and if not, why. Then plans the model and names the fullest core's
    largest consumers. No code is made.
    """
    from dataclasses import replace

    from ..exports.folders import model_files
    from ..exports.pairs import AcceptedPair
    from ..frontend.inputs import Binding
    from ..pipeline import accepted_of, compile_model, offered
    from ..remedies import Remedies
    from ..survey import survey

    asked = replace(request, until="plan")
    asked.check()
    files = model_files(model)
    ready = accepted_of(files, asked)
    first = offered(ready, asked, files)[0].request
    of_entries = [*first.entries.values()]
    sizes = {**first.dims, **of_entries[0]} if of_entries else first.dims
    given = Binding(sizes, first.shapes, first.values)
    pair = isinstance(ready, AcceptedPair)  # of which a compile tells what is refused
    rows = [] if pair else survey(ready, given, tuple(first.states), first.capacity)
    operators = [
        {"operator": _kind(r), "count": r.count, "where": r.status, "reason": r.reason} for r in rows
    ]
    shown_rows = [[shown(_kind(r)), r.count, r.status, shown(r.reason, 200)] for r in rows]
    for line in table(["operator", "count", "where", "reason"], shown_rows, wrap=["reason"]) if rows else ():
        console.say(line)
    refused = sorted({_kind(r) for r in rows if r.status == "unsupported"})
    supported = not refused and all(r.status != "unbound" for r in rows)
    data: dict[str, Any] = {"model": model, "operators": operators, "supported": supported}
    if refused:
        console.result(data)
        some = ", ".join(shown(kind) for kind in refused[:8]) + (", ..." if len(refused) > 8 else "")
        raise UnsupportedModel(f"unsupported operators: {some}; the table says why")
    try:
        compiled = compile_model(model, asked, report=console.progress)
    except DoesNotFit as e:
        data |= {"fits": False, "reason": str(e)}
        if isinstance(e.remedies, Remedies):
            data["wafers"] = {f"{fill:g}": count for fill, count in e.remedies.wafers.items()}
        if e.plan is not None:
            from ..show.rows import consumers

            data["largest"] = consumers(e.plan)
            _say_largest(console, data["largest"])
        console.result(data)
        raise
    if compiled.chosen:
        console.note(compiled.chosen)
    if compiled.plans:
        fits = {name: _say_fit(console, compiled, name) for name in compiled.plans}
        data |= {"fits": True, **next(iter(fits.values())), "entries": fits}
    else:
        console.say()
        console.say("nothing of the model runs on the wafer")
        data |= {"fits": True}
    console.result(data)


def _kind(row: Row) -> str:
    return f"{row.domain}.{row.op_type}" if row.domain else row.op_type


def _say_fit(console: Console, compiled: Compiled, entry: str) -> dict[str, Any]:
    from ..show.rows import consumers, share

    plan, f = compiled.plans[entry], compiled.figures_of(entry)
    x, y = f.fullest_core
    console.say()
    if len(compiled.plans) > 1:
        console.say(f"entry {entry}")
    console.say(
        f"fits {shown(plan.wafer.name)}: {f.cores_used:,} of {plan.wafer.cores:,} cores, "
        f"{f.cycles:,.0f} cycles per call, {f.tasks:,} tasks"
    )
    console.say(f"fullest core ({x}, {y}): {share(f.fullest_core_bytes, plan.wafer.sram_bytes)} bytes")
    largest = consumers(plan)
    _say_largest(console, largest)
    return {
        "wafer": plan.wafer.name,
        "cores_used": f.cores_used,
        "cycles": f.cycles,
        "tasks": f.tasks,
        "fullest_core": [x, y],
        "fullest_core_bytes": f.fullest_core_bytes,
        "sram_bytes": plan.wafer.sram_bytes,
        "largest": largest,
    }


def _say_largest(console: Console, largest: list[dict[str, Any]]) -> None:
    console.say()
    rows = [[r["bytes"], r["role"], r["node"]] for r in largest]
    for line in table(["bytes", "role", "node"], rows):
        console.say(line)


@dataclass(frozen=True)
class Keeping:
    """What a compile writes besides, from the command line."""

    report_path: str | None
    tokenizer: str | None
    template: str | None
    folder: str | None
    time_phases: bool


@click.command("compile", cls=Verb)
@click.argument("model", type=Reads(model=True))
@click.option(
    "-o",
    "output",
    type=Writes(lambda options: WRITTEN[options["until"]]),
    required=True,
    metavar="FILE",
    help="Where to write the program (.wafer) or plan (.plan).",
)
@asking(*ASKED)
@click.option(
    "--report",
    "report_path",
    type=Writes(PAGE),
    metavar="FILE.html",
    help="A report, also when nothing fits.",
)
@click.option(
    "--tokenizer",
    type=Reads(),
    metavar="FILE.json",
    help="Keep a language model's tokenizer.json in the program.",
)
@click.option(
    "--chat-template",
    "template",
    type=Reads(),
    metavar="FILE",
    help="Keep its chat template (jinja2), too.",
)
@click.option(
    "--dump-phases-to",
    "folder",
    type=Folder(),
    metavar="DIR",
    help="Write each phase's result there as text.",
)
@click.option("--time-phases", is_flag=True, help="Say on stderr how long each phase took.")
@gathered(Keeping)
@click.pass_obj
def compile_verb(
    console: Console,
    model: str,
    output: str,
    request: Request,
    how: Keeping,
) -> None:
    """Compile a model to a program.

    Places MODEL, an ONNX file or a folder that an exporter wrote, on the wafer and
    writes a program that 'waferc run' executes. A program contains native code: run
    one only if you trust its source.
    """
    from ...ir.disk import replacing
    from ..files import need_writable, write_text
    from ..pipeline import compile_model

    for path in (output, how.report_path):
        if path is not None:
            need_writable(path)  # before the work, not after it
    if how.tokenizer is None and how.template is not None:
        raise UsageError("--chat-template needs --tokenizer")
    if how.tokenizer is not None and request.until != "program":
        raise UsageError("--tokenizer is kept in a program; leave --compile-to out")
    words = _language(how.tokenizer, how.template)
    try:
        compiled = compile_model(model, request, report=console.progress)
    except DoesNotFit as e:
        if how.report_path is not None:
            _report_failure(how.report_path, request, model, e)
            console.note(f"wrote {shown(how.report_path)}")
        raise
    if compiled.chosen:
        console.note(compiled.chosen)
    if how.folder is not None:
        _dump(how.folder, compiled)
    data: dict[str, Any] = {"model": model, "output": output}
    if request.until == "graph":
        write_text(output, str(compiled.graph))
    else:
        from ..show.rows import summary

        words = _judged_words(console, compiled, words) if request.until == "program" else {}
        compiled.save(output, request.until, words, console.progress)
        for name, plan in compiled.plans.items():
            if len(compiled.plans) > 1:
                console.say(f"entry {name}")
            for line in facts(summary(plan, compiled.figures_of(name))):
                console.say(line)
        for r in compiled.hosts:
            console.say(f"on the host   {shown(str(r), 200)}")
        if how.report_path is not None:
            from ..report.page import write_page
            from ..stopwatch import Stopwatch
            from .pages import page_of_compiled

            watch = Stopwatch(console.progress)
            page = watch.timed("report", lambda: page_of_compiled(compiled, model))
            with replacing(how.report_path) as part:
                watch.timed("writing", lambda: write_page(page, part))
        totals = {name: vars(compiled.figures_of(name)) for name in compiled.plans}
        data |= {
            "figures": vars(compiled.figures) if compiled.plans else None,
            "host": [vars(r) for r in compiled.hosts],
            "entries": totals,
            "manifest": dict(compiled.manifest),
        }
    if how.time_phases:
        longest = max(10, *map(len, compiled.seconds))
        for name, seconds in compiled.seconds.items():
            console.note(f"{name:{longest}} {seconds:8.3f} s")
    console.note(f"wrote {shown(output)}")
    console.result({**data, "seconds": compiled.seconds})


def _language(tokenizer: str | None, template: str | None) -> dict[str, bytes]:
    """The files that 'generate' needs, as entries of an artifact. Raises InvalidInput, OSError."""
    from ...ir.disk import read_regular
    from ..language.tokens import TEMPLATE, TOKENIZER, ChatTemplate, Tokenizer, UnusableText

    out: dict[str, bytes] = {}
    for name, path, judge in ((TOKENIZER, tokenizer, Tokenizer), (TEMPLATE, template, ChatTemplate)):
        if path is not None:
            out[name] = read_regular(path, MOST_WORDS)
            try:
                judge(out[name])
            except UnusableText as e:
                raise InvalidInput(f"{quoted(path)}: {e}") from None
    return out


def _judged_words(console: Console, compiled: Compiled, given: dict[str, bytes]) -> dict[str, bytes]:
    """What the program keeps besides: what was given, else what lay in the model's folder.

    What lay there is left out with a note where the model is no language model, and a template that cannot
    be used. Raises InvalidInput for a tokenizer that cannot.
    """
    from ..language.tokens import TEMPLATE, TOKENIZER, ChatTemplate, UnusableText

    if given:
        try:
            _judge_vocabulary(console, compiled, given)
        except ArtifactError as e:
            raise InvalidInput(f"--tokenizer: {e}") from None
        return {**compiled.words, **given}
    words = dict(compiled.words)
    if TOKENIZER in words:
        try:
            _judge_vocabulary(console, compiled, words)
        except UnusableText as e:
            raise InvalidInput(f"the folder's {TOKENIZER}: {e}") from None
    elif TOKENIZER in compiled.files.words:
        console.note("the folder's tokenizer is left out: the model is no language model")
    if TEMPLATE in words:
        try:
            ChatTemplate(words[TEMPLATE])
        except UnusableText as e:
            console.note(f"the folder's chat template is left out: {e}")
            del words[TEMPLATE]
    return words


def _judge_vocabulary(console: Console, compiled: Compiled, words: dict[str, bytes]) -> None:
    """ArtifactError where the model is no language model, nor an encoder of texts; a note where the tokenizer
    has more tokens."""
    from ...runtime.ports import ports_of
    from ..language.embedding import encoder_entries
    from ..language.entries import language_entries
    from ..language.tokens import TOKENIZER, Tokenizer

    ports = {name: ports_of(plan.graph) for name, plan in compiled.plans.items()}
    try:
        entries = language_entries(ports)
    except ArtifactError:
        with suppress(ArtifactError):
            encoder_entries(ports)
            Tokenizer(words[TOKENIZER])
            return
        raise
    size, known = Tokenizer(words[TOKENIZER]).size, entries[0].vocabulary
    if size > known:
        console.note(f"the tokenizer has {size:,} tokens, of which the model knows the first {known:,}")


def _dump(folder: str, compiled: Compiled) -> None:
    """The phases' texts, what each pass left, and the placement; of several entries each in a folder."""
    import json
    from pathlib import Path

    from ..files import write_text

    for entry, texts in compiled.phases.items():
        own = Path(folder) / entry if len(compiled.phases) > 1 else Path(folder)
        own.mkdir(parents=True, exist_ok=True)
        digits = len(str(len(texts)))  # names in the phases' order, however many there are
        for i, (name, text) in enumerate(texts.items(), 1):
            write_text(own / f"{i:0{digits}}-{name.replace(' ', '-')}.txt", text)
        if "simplify" in texts:
            _dump_passes(own / "simplify", compiled.imported.graphs[entry])
        if entry in compiled.plans:
            write_text(own / "placement.json", json.dumps(compiled.placement(entry), indent=1) + "\n")
            _dump_for_viewers(own, compiled, entry)


def _dump_for_viewers(folder: Path, compiled: Compiled, entry: str) -> None:
    """The steps as ONNX for Netron, and as a graph with cycles for Model Explorer."""
    import json

    from ...ir.disk import replacing
    from ...placement.cost.timing import simulate
    from ..files import write_text
    from ..show.exports import annotated_onnx, model_explorer, node_data

    plan = compiled.plans[entry]
    timing = simulate(plan, links=False)
    with replacing(str(folder / "steps.onnx")) as part:
        part.write_bytes(annotated_onnx(plan, timing))
    write_text(folder / "model-explorer.json", json.dumps(model_explorer(plan, timing)) + "\n")
    write_text(folder / "model-explorer-cycles.json", json.dumps(node_data(plan, timing)) + "\n")


def _dump_passes(folder: Path, graph: Graph) -> None:
    """What each pass left that found something, in a file with its number and name."""
    from ..files import write_text
    from ..passes.simplify import simplify

    folder.mkdir(exist_ok=True)
    count = 0

    def write(name: str, left: Graph) -> None:
        nonlocal count
        count += 1
        file = f"{count:02}-{name.replace(', ', '-').replace(' ', '-')}.txt"
        write_text(folder / file, str(left))

    simplify(graph, record=write)


def _report_failure(path: str, request: Request, model: str, e: DoesNotFit) -> None:
    from ...ir.disk import replacing
    from ..report.page import write_page
    from .pages import page_of_failure

    with replacing(path) as part:
        write_page(page_of_failure(request, model, e), part)
