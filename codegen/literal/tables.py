"""Plan -> tables for a literal run: the step records that the executor walks core by core, with guard.

Everything is one array of 64-bit words and a list of relocations: words to which the address of the
array, a kernel, a pull function or a region's table of cores is added when the program is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...placement.plan.plan import Plan
from ..pool import Pool, Record
from ..processor import Processor
from .claims import freed, renamed
from .draft import Draft
from .host_ends import constant, input_of, output
from .move_tables import MoveTables
from .records import Lowered, Tables
from .steps import StepRecords
from .tags import Tagged, tags_of


def make_tables(plans: Mapping[str, Plan], processor: Processor) -> dict[str, Lowered]:
    """The tables of each of a program's plans for a host with such processors, and what they call."""
    tagged = zip(plans.items(), tags_of(plans.values()), strict=True)
    return {name: _lowered(p, processor, tags) for (name, p), tags in tagged}


def _lowered(plan: Plan, processor: Processor, tagged: Tagged) -> Lowered:
    pool = Pool()
    draft = Draft(plan, pool, tagged.tags, MoveTables(plan, pool, tagged.tags))
    producers = {s.result: s.grid for s in plan.steps if s.kind != "update"}
    steps = StepRecords(draft, processor, producers)
    padded = {o.buffer: s.op.fill for s in plan.steps for o in s.operands if o.fill and not o.received}
    lays = [(t, m) for t, m in plan.lays if m.target not in tagged.laid_before]
    laying = [constant(draft, t, m, padded.get(m.target)) for t, m in lays]
    poisoning = freed(draft, [b for b in plan.buffers if not b.stays])
    first = [s for s in plan.steps if s.kind == "input"]
    inputs = [input_of(draft, s) for s in first]
    running = _running(draft, steps)
    owned = [s for s in first if s.tensor in dict(plan.graph.states)]
    kept = [output(draft, s.tensor, [s]) for s in owned]
    reading = [output(draft, name, [plan.steps[i] for i in owners]) for name, owners in plan.outputs.items()]
    # What a call made of a state in place is the past of the next one, of whichever entry.
    changed = [plan.buffers[b.over] for b in plan.buffers if b.role == "state" and b.over >= 0]
    reading += [renamed(draft, b) for b in changed]
    tables = Tables(
        laying=draft.section(laying),
        poisoning=draft.section(poisoning),
        inputs=draft.section(inputs),
        steps=draft.section(running),
        reading=draft.section(reading),
        kept=draft.section(kept),
        words=pool.words(),
        relocations=pool.relocations(),
        host=tuple(draft.moves.host),
        laid=tuple(s.tensor for s in first),
        states=tuple(s.tensor for s in owned),
        judged=tuple(steps.judged),
    )
    return Lowered(tables, tuple(steps.kernels), tuple(draft.moves.pulls))


def _running(draft: Draft, steps: StepRecords) -> list[Record]:
    """The plan's steps, each with what becomes of the buffers that it takes over and that die with it."""
    plan = draft.plan
    out: list[Record] = []
    for s in plan.steps:
        if s.kind == "input":
            continue
        out.append(steps.record(s))
        result = plan.buffers[s.result]
        if result.over >= 0:
            out.append(renamed(draft, result))
        dead = [b for b in plan.buffers if b.live[1] == s.position and not b.stays]
        out += freed(draft, [b for b in dead if b.number != result.over])
    return out
