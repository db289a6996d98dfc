"""The executor's tables as data: words of each record, and relocatable tables of them.

Free of LLVM, so that a saved program is loaded without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from ..ir.op import Bound


class StepWords(IntEnum):
    """Words of a step record."""

    KERNEL = 0  # function, 0: none
    STRIDES = 1  # the kernel's op block
    COLUMNS = 2
    ROWS = 3
    STEPS = 4
    AXES = 5  # count
    OPERANDS = 6  # count, with the result
    BASES = 7  # i64 per core of the region: address of its SRAM
    START = 8  # number of the grid's first core
    COLUMN_PITCH = 9
    ROW_PITCH = 10
    AXIS_TABLE = 11
    OPERAND_TABLE = 12
    MOVES = 13  # count
    MOVE_TABLE = 14
    FIRST = 15  # i64 per time step
    FILLS = 16  # count
    FILL_TABLE = 17
    BOUNDS = 18  # [operands, 2] byte offsets in SRAM
    WATCH = 19  # address of the watch record
    NUMBER = 20  # the step's position, -1 for what the host lays and reads
    CLAIMS = 21  # count
    CLAIM_TABLE = 22
    OWNED = 23  # count
    OWNED_TABLE = 24
    REPORTS = 25  # address of the step's first report
    SIZE = 26


class Base(IntEnum):
    """What is added to a relocated word."""

    WORDS = 0  # the address of the table itself
    KERNEL = 1  # `value` is the kernel's number; the word becomes its address
    PULL = 2
    REGION = 3  # the address of a region's table of core addresses
    HOST = 4  # the address of the cell that holds a host buffer's address
    WATCH = 5  # the address of the watch record
    ARENA = 6  # the address of the arena that holds the homes
    REPORT = 7  # the address of report number `value`


Section = tuple[int, int]  # word offset of the first record, how many

REPORT = 2  # words of a report: the least and the largest element that was met outside its bound


@dataclass(frozen=True)
class Judged:
    """What a report is of: a bound that the elements of an operand of an ONNX node are held to."""

    node: str
    bound: Bound
