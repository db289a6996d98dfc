"""The probe for a core that something else uses, too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waferc.compiler.verify import quiet
from waferc.compiler.verify.quiet import SHARED, Watch, nops_per_cycle


def test_a_core_takes_a_few_nops_in_a_cycle() -> None:
    """One at least, however busy the machine; no core has room for ten."""
    assert 0.5 < max(nops_per_cycle() for _ in range(5)) < 20


@given(st.lists(st.floats(0.5, 6), min_size=2, max_size=12))
def test_a_measurement_is_disturbed_if_a_probe_beside_it_is_slow(rates: list[float]) -> None:
    watch = Watch()
    with pytest.MonkeyPatch.context() as patch:
        following = iter(rates)
        patch.setattr(quiet, "nops_per_cycle", lambda: next(following))
        for _ in rates:
            watch.probe()
    slow = [rate < SHARED * max(rates) for rate in rates]
    assert watch.best == max(rates)
    assert watch.disturbed() == [slow[i] or slow[i + 1] for i in range(len(rates) - 1)]
