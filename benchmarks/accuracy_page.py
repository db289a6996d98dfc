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
here, and constants that compose them were fitted on some of these rows (below), so that those classes say
that the model has the right form, not that it predicts. Two phases are all that there is of wse3's layers,
three sizes of one layer of wse2's: for other layers we reckon with 20 and 8 % (`error` of the wafer).

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

Fitted, beyond what the sources fitted themselves:
{fitted}.

* `stage`, what a core takes to pass a sum on in a plan's reductions: 18 cycles on wse2 and 46 on wse3 are
  several times what the ramps and the adder need (5 and 11), which is what the formulas of the class
  collective count. It holds whatever else a layer's sums take in proportion to their depth: tasks that
  start, buffers, waiting.
* `vector.slice_*`: a product of several rows by several columns takes an operation over two-dimensional
  descriptors for each slice of its reduced axis; 75 cycles with its loop, and 0.6 (f16) or 2.3 (f32) for each
  result. A product of one row is a loop of one-dimensional operations at `vector.fma_*`, which the GEMV row
  bears out.
* `temporary`: bytes that a product may keep to multiply a tile at once and add up afterwards: none, as such
  a tile would be several times quicker than prefill layers on the largest grid are.
* `multicast`: three minima have the same 19 cycles of ends, a message to one core 10.

Without a row that bears them out, assumed, not published:
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
    wafers = {r.wafer.name: r.wafer for r in rows}.values()
    assumed = "; ".join(_named(w, w.assumed) for w in wafers) or "nothing"
    fitted = "; ".join(_named(w, [f"{n} ({of})" for n, of in w.fitted.items()]) for w in wafers) or "nothing"
    reasons = tables["reasons"] or "\n".join(f"* {g}: {NONE[g]}." for g in groups if g in NONE)
    mappings = "\n".join(f"* {g}: {ASSUMED[g]}." for g in groups if g in ASSUMED)
    return TEXT.format(
        **{**tables, "reasons": reasons or "(nothing)"},
        assumed=assumed,
        fitted=fitted,
        mappings=mappings or "(nothing)",
    )


def _named(wafer: Wafer, names: Sequence[str]) -> str:
    return f"of {wafer.name} {', '.join(names) or 'nothing'}"
