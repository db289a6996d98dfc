"""The numbers that decide plans: how much is looked at, and how memory is shared out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    """What a search tries and what it allows; shares are of one core's SRAM unless something else is said.

    Below each number: what it is, and where it is from if that is known (most are from the history's notes,
    not measured again). "Bound": of the work that a search does. tests/golden/policy.txt says which small
    program's plan moves when a number is turned, and tests/test_policy.py which numbers move none there.
    """

    # -- an op's cuts -----------------------------------------------------------------------------
    most_axes: int = 4
    """Axes of an op that are cut, the longest. Bound: all combinations of their cuts are weighed."""
    most_ways: int = 10
    """Cuts of an axis along each side. Bound."""
    most_ways_paired: int = 5
    """As `most_ways`, of an op with more than two axes, for an axis that is cut along both sides. Bound."""
    fine_ways: int = 24
    """As `most_ways`, where memory is tight. Found on a decoder of 135 million parameters in f32, which
    fits 128x128 so: shares must be even."""
    fine_cuts: tuple[int, ...] = (5, 7, 10, 11, 13, 14, 15)
    """Cuts tried there besides divisors: few cores of 2^n are left without a share. Found on the same."""
    time_ways: tuple[int, ...] = (2, 4, 8, 16)
    """Cuts of one axis along time where no cut in space keeps to the limits. Bound."""
    tight_time_ways: tuple[int, ...] = (2, 4, 8, 16, 64, 256)
    """The same where memory is tight, of one axis or of two together. Found on a GEMM of 2048 on 64x64."""

    # -- which of them are weighed -------------------------------------------------------------------
    shortlist: int = 10
    """Enumerated splits of an op that are looked at more closely. Bound."""
    costed: int = 12
    """Choices, with those that follow an operand, whose moves are derived. Bound."""
    tree_colours: int = 2
    """A move that needs no more colours is taken to get trees. Of eight colours in all: a guess."""
    line_colours: int = 2
    """The same where splits follow one another along lines: a few trees serve all, as they are alike."""
    line_sides: tuple[int, ...] = (8, 16, 32, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768)
    """Sides of regions there."""
    few_elements: int = 16
    """Elements that a long line joins at one root. Found on decode layers of 8B: who hears them hears one
    core then, not one for each. A placement is read back with this and `long_line` as they stand here."""
    long_line: int = 192
    """Cores of a line that is long. Found on the same: on shorter ones many roots are quicker."""
    most_links: int = 6
    """Ops that a result is followed through to the next product. Bound: more than stand between products."""
    most_prospects: int = 384
    """Splits of the next product that are weighed for what a choice leaves to it. Bound."""
    ways_kept: int = 16
    """Ways to have run a layer so far that are gone on with. Found on decode layers."""
    wide_share: float = 0.2
    """Of a region's cores: an op on more of them keeps the region busy for those after it. Not measured."""
    layers_weighed: int = 2
    """Layers whose splits are weighed together: the second one has another before it. Found on 8B."""
    layers_in_row: int = 3
    """Layers split alike, of which the last shows what one takes that comes after others. Found on 8B."""

    # -- shares of memory ---------------------------------------------------------------------------
    resident_share: float = 0.62
    """What all constants and caches of a region may take together, in proportion to their bytes."""
    working_share: float = 0.30
    """What one op may use while it runs. The rest is for code and for what else is alive."""
    beside_share: float = 0.8
    """Of that working set, where another entry's op is split alike: two of its results may be alive.
    Found on prompts of SmolLM2 on wse3 in f32, which fit so."""
    small_bytes: int = 256
    """Bytes that are no reason for anything: any op may keep them, constants of no more may lie twice."""
    crowded: float = 0.5
    """Of all SRAM: where constants take more, plans are made within budgets and nothing may pile up.
    Found on a decoder of 538 MB on 128x128."""
    pile_share: float = 0.4
    """Constants of small ops and inputs may pile up to this before they are moved to emptier cores."""
    kept_share: float = 0.8
    """Where what lasts must end if other entries want room for what comes and goes. Found on SmolLM2 with
    prompts of 64 tokens."""
    shares_of_rest: tuple[float, ...] = (0.8, 0.5, 0.2)
    """Of the room beside what lasts: what an op of another entry may receive while it runs where the first
    one keeps its operands, in the order tried until all fits. Each cut of tokens along time is paid in
    dispatches: 64 tokens of SmolLM2 take 3.98 million cycles on wse3 at 0.8 and 5.32 at 0.2; 128x128 has
    room for 0.5."""
    moved_share: float = 0.5
    """The same of an op that lies where it wants. 128x128: 2.46 million cycles, 2.64 at 0.15."""
    loose_bytes: int = 16384
    """Constants below it need not bind another entry's op to where the first one reads them: the gains of
    norms held 64 tokens on the cores of one (3.98 to 3.62 million cycles, SmolLM2 on wse3)."""
    copied_share: float = 0.85
    """Of that room: second copies of all constants. SmolLM2 on wse3: 1.15 million cycles, 1.50 at 0.6."""
    copied_working: float = 0.15
    """Beside second copies: what an op of another entry may use while it runs. 1.15 million cycles, 1.29 at
    0.1, 1.36 at 0.3."""

    # -- budgets, where memory is tight -----------------------------------------------------------------
    working_shares: tuple[float, ...] = (0.015, 0.03, 0.06, 0.1, 0.15, 0.22, 0.3, 0.4, 0.5, 0.6)
    """Of the bytes shared out: working sets tried."""
    prices: tuple[float, float, int] = (1e-4, 1e4, 49)
    """Cycles that a byte costs: from, to, how many. Bound: from nearly free to never worth it, 6 a decade."""
    slack: float = 1.001
    """A choice may take this much more than the limits: they come from sums of fractions."""
    offered_time_ways: tuple[int, ...] = (4, 16, 64, 256)
    """Cuts of one axis along time that a budget weighs. Bound."""
    sparing: float = 1.25
    """Times the fewest bytes: what a constant with several readers may take. Found on a decoder of 135
    million parameters whose table is read twice, on 128x128."""
    shared_weighed: int = 512
    """Splits of such a constant's main reader that the others are tried to follow. Bound."""

    # -- regions --------------------------------------------------------------------------------------
    sides: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256, 384)
    """Sides of regions. The last: regions stop paying at some 100,000 cores (8B decoder on wse3)."""
    gain: float = 0.98
    """A plan replaces one on fewer cores if it takes at most this share of the cycles."""
    few_nodes: int = 40
    """Nodes of a graph that is soon planned: all sizes are tried, and each op by itself besides."""
    sure: float = 1.5
    """Of larger graphs only sizes are tried that are as near as this to the likely side. Found on nine
    models on wse3: cycles within 1 % of trying all, in a fifth of the time."""
    room: float = 0.25
    """Regions that constants fill more are tried only if there is no larger one. Bound."""
    one_layer: int = 80
    """Nodes of a decoder whose splits are all weighed together. Bound: a layer has 36 to 60."""
    attempts: int = 4
    """Plans made within budgets until one fits. Bound."""
    more: float = 1.25
    """Of what a plan is over budget, taken from the next one's: choices come in steps."""
    area_price: float = 1e-4
    """Cycles per core of a region apart: among equals, the smaller one."""
    least_cores: int = 16
    """A region apart of no more cores is not halved. Bound."""
    stacks: int = 2
    """Sizes of stacks' regions that are tried until one fits. Bound: each is a plan of a large model."""
    idle: float = 1.1
    """Of a power of two: rows that layers rather leave to the strip after them. Found on 8B on wse3."""
    most_across: int = 4
    """Stacks along x. Bound."""
    most_down: int = 8
    """Stacks along y. Bound."""
    edge_shares: tuple[float, float] = (0.75, 0.5)
    """Of the strips before and after the layers', what their constants may take: a table is looked up in, a
    last product gains by more cores. Found on 8B on wse3."""


POLICY = Policy()
"""What a search goes by where nothing else is said."""
