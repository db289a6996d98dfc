"""The text of docs/accuracy.md around its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments import NONE
from measurements import Row
from published import ASSUMED
from waferc.placement.machine.wafer import Wafer

TEXT = """\
# How wrong the cycles are

(Written by `make accuracy`; do not edit.) Cycles come from a model. This page holds what it predicts against
what was published of wafers, row by row, on two levels:

* **a**: the cost model on the published mapping. What is wrong here is the model, or what we assume of a
  mapping that its authors do not give in full.
* **b**: an ONNX model of the experiment, compiled for as many cores. What is wrong here is the model and our
  mapping together; b / a is our mapping beside the published one, at equal constants.

An error is prediction / measurement - 1. "rank" is Spearman's correlation of predictions and measurements.
The rows are `benchmarks/data/measured.csv`; `python benchmarks/accuracy.py --rows FILE.csv` runs any other
table of the same columns.

## The cost model on the published mapping (a)

{level_a}

Read with care: wse3's vector rates, hops, wavelets and turns were taken from the very notes whose rows stand
here, so that those classes say that the model has the right form, not that it predicts.

{joins}

## Compiled (b)

{level_b}

Our mapping beside the published one, b / a (below 1 ours is the quicker):

{mapping}

## The closed form beside the wavelet simulator

`waferc run --wavelets` carries a small plan's wavelets one by one over links, ramps and adders, with the same
constants: what is left is the form. By plan, of random ones on wafers of up to 16x16
(`benchmarks/wavelets.py`); and by step, cycles from the end of what it hears to its own end:

{fabric}

## Rows

Of classes with many rows the worst of each kind.

{rows}

## What is published, assumed and fitted

{sources}

No constant has been fitted to any row of this table beyond those that its sources fitted themselves. Assumed,
not published:
{assumed}.

Of the mappings on level a this is assumed:

{mappings}

## What cannot be expressed

Of a model's experiment, level b:

{reasons}

A reduction's level b begins with its operand where waferc lays an input, 512 bytes a core, not with a part on
each core; so does a phase's, whose operands the phase before would have left in place.

On level a: noise (a median of many runs is predicted as their minimum), the alignment of operands to banks of
memory, thermal no-ops, and whatever a mapping's authors did not write down.
"""


def written(tables: Mapping[str, str], rows: Sequence[Row]) -> str:
    """The page, of its tables by name."""
    groups = dict.fromkeys(r.group for r in rows)
    assumed = "; ".join(_assumed(w) for w in {r.wafer.name: r.wafer for r in rows}.values()) or "nothing"
    reasons = tables["reasons"] or "\n".join(f"* {g}: {NONE[g]}." for g in groups if g in NONE)
    mappings = "\n".join(f"* {g}: {ASSUMED[g]}." for g in groups if g in ASSUMED)
    return TEXT.format(
        **{**tables, "reasons": reasons or "(nothing)"}, assumed=assumed, mappings=mappings or "(nothing)"
    )


def _assumed(wafer: Wafer) -> str:
    names = ", ".join(f"`{name}`" for name in wafer.assumed)
    return f"of {wafer.name} {names or 'nothing'}"
