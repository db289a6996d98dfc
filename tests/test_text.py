"""Tables of text: they fit, and what differs still differs."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waferc.compiler.show.text import USUAL, facts, table, terminal_width

NAMES = [f"/model/layer.{i}/attention/{part}/MatMul" for i in range(6) for part in ("query", "key", "value")]


def test_names_are_cut_where_they_do_not_differ() -> None:
    rows = [[i, f"/model/model.0/auto_model/encoder/layer.{i}/attention/MatMul"] for i in range(10)]
    lines = table(["step", "node"], rows, 36)
    assert lines[4] == "   3  ../layer.3/attention/MatMul"
    assert len(set(lines)) == len(lines) == 11
    # Where the end is the same, the middle goes; where both are, nothing is cut.
    ends = table(["name"], [[f"{c}{'x' * 40}" for c in "a"], ["b" + "x" * 40]], 20)
    assert ends == ["name", "axxxxxxxx..xxxxxxxxx", "bxxxxxxxx..xxxxxxxxx"]
    within = [["a" * 30 + c + "a" * 30] for c in "bc"]
    assert "".join(table(["name"], within, 20)[1:]) == within[0][0] + within[1][0]


def test_a_row_goes_on_below_where_there_is_no_room() -> None:
    lines = table(["address", "bytes", "name"], [[1000, 2000, "a" * 16]], 24)
    assert lines == ["address  bytes", "    name", "  1,000  2,000", f"    {'a' * 16}"]


def test_no_column_gives_all_while_another_has_room() -> None:
    """Of a long name and a long text both stay legible, and rows take few lines."""
    split = "x: m/4 n/3 k/12, y: n/128, partial sums over k"
    rows = [[i, f"/model/model.0/auto_model/encoder/layer.{i % 3}/MatMul", 3000, split] for i in range(12)]
    lines = table(["step", "node", "start", "split"], rows, 90, wrap=["split"])
    assert len(lines) == 1 + 2 * len(rows) and max(map(len, lines)) <= 90
    assert "layer.1/MatMul" in lines[3] and lines[3].endswith("x: m/4 n/3 k/12, y: n/128,")
    narrow = table(["step", "node", "start", "split"], rows, 48, wrap=["split"])
    assert all("MatMul" in line for line in narrow[2::3]) and max(map(len, narrow)) <= 48


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 10**7), st.sampled_from(NAMES), st.text("ab/", max_size=60)), max_size=12
    ),
    st.integers(36, 200),
)
def test_tables_fit_and_different_rows_stay_different(rows: list[tuple[int, str, str]], width: int) -> None:
    titles = ["cycles", "node", "tensor"]
    lines = table(titles, rows, width)
    assert max(map(len, lines)) <= width
    if len(lines) == len(rows) + 1:
        assert len(set(lines[1:])) == len(set(rows))


def test_the_width_is_the_terminals_or_the_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert terminal_width() == USUAL
    monkeypatch.setenv("COLUMNS", "133")
    assert terminal_width() == 133
    assert max(map(len, facts([("name", "word " * 100)]))) <= 133
    monkeypatch.setenv("COLUMNS", "1")
    assert max(map(len, table(["name"], [["x" * 50]]))) <= 20
