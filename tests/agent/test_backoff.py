from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from overair.agent.backoff import Backoff


@given(failures=st.integers(-1, 10_000), seed=st.integers(), base=st.floats(0.1, 10), cap=st.floats(1, 1000))
def test_a_wait_lies_between_nothing_and_a_limit_that_never_passes_the_cap(
    failures: int, seed: int, base: float, cap: float
) -> None:
    backoff = Backoff(base_s=base, cap_s=cap, chance=Random(seed))
    assert 0 <= backoff.wait_s(failures) <= backoff.limit_s(failures) <= cap


def test_the_limit_doubles_from_the_base_up_to_the_cap() -> None:
    backoff = Backoff(base_s=1, cap_s=20, chance=Random(0))
    assert [backoff.limit_s(failures) for failures in range(8)] == [0, 1, 2, 4, 8, 16, 20, 20]


def test_the_jitter_is_full_devices_that_failed_together_come_back_spread_over_the_whole_wait() -> None:
    waits = [Backoff(base_s=1, cap_s=64, chance=Random(seed)).wait_s(7) for seed in range(2000)]
    tenths = [sum(tenth * 6.4 <= wait < (tenth + 1) * 6.4 for wait in waits) for tenth in range(10)]
    assert min(tenths) > 130
    assert max(tenths) < 280
