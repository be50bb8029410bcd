"""Rates, aborts and retries as pure decisions (wire reference §3.4 to §3.6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.clock import Instant
from overair.server.jobs.model import AbortCriterion, ExponentialRate, FailureType, RetryCriterion, RolloutConfig
from overair.server.jobs.rollout import RETRIES_PER_THING_MAX, may_retry, must_abort, rate_per_minute, release
from overair.wire.job_messages import ExecutionStatus

S = ExecutionStatus


@pytest.mark.parametrize(
    ("notified", "rate"), [(0, 50), (999, 50), (1000, 100), (1999, 100), (2000, 200), (3000, 400), (9000, 1000)]
)
def test_the_guides_example_of_a_growing_rate(notified: int, rate: int) -> None:
    config = RolloutConfig(exponential=ExponentialRate(base_per_minute=50, factor=2.0, notified_criterion=1000))
    assert rate_per_minute(config, {S.QUEUED: notified}) == rate


def test_a_growing_rate_stops_at_the_maximum_and_may_count_successes() -> None:
    growth = ExponentialRate(base_per_minute=50, factor=2.0, succeeded_criterion=10)
    config = RolloutConfig(maximum_per_minute=120, exponential=growth)
    assert rate_per_minute(config, {S.QUEUED: 500}) == 50
    assert rate_per_minute(config, {S.SUCCEEDED: 10}) == 100
    assert rate_per_minute(config, {S.SUCCEEDED: 10**9}) == 120


@given(
    rate=st.integers(1, 1000),
    pauses=st.lists(st.integers(0, 30_000), min_size=1, max_size=400),
    limit=st.integers(1, 500),
)
def test_no_minute_sees_more_than_the_rate_whenever_the_server_looks(rate: int, pauses: list[int], limit: int) -> None:
    config = RolloutConfig(maximum_per_minute=rate)
    now, next_at = 0, Instant(0)
    recent: tuple[tuple[Instant, int], ...] = ()
    released: list[tuple[int, int]] = []
    for pause in pauses:
        allowed = release(config, {}, recent=recent, next_at=next_at, now=Instant(now), limit=limit)
        assert allowed.count <= limit
        assert allowed.next_at >= next_at
        assert len(allowed.recent) <= 62
        released.append((now, allowed.count))
        next_at, recent = allowed.next_at, allowed.recent
        now += pause
    for begin, _ in released:
        assert sum(count for at, count in released if begin <= at < begin + 60_000) <= rate


@given(
    base=st.integers(1, 100),
    tenths=st.integers(11, 50),
    criterion=st.integers(1, 60),
    maximum=st.integers(1, 1000),
    pauses=st.lists(st.integers(0, 20_000), min_size=1, max_size=200),
)
def test_a_growing_rate_is_never_ahead_of_what_was_notified(
    base: int, tenths: int, criterion: int, maximum: int, pauses: list[int]
) -> None:
    growth = ExponentialRate(base_per_minute=base, factor=tenths / 10, notified_criterion=criterion)
    config = RolloutConfig(maximum_per_minute=maximum, exponential=growth)
    now, next_at = 0, Instant(0)
    recent: tuple[tuple[Instant, int], ...] = ()
    released: list[tuple[int, int, int]] = []
    notified = 0
    for pause in pauses:
        rate = rate_per_minute(config, {S.QUEUED: notified})
        allowed = release(config, {S.QUEUED: notified}, recent=recent, next_at=next_at, now=Instant(now), limit=500)
        released.append((now, allowed.count, rate))
        notified += allowed.count
        next_at, recent = allowed.next_at, allowed.recent
        now += pause
    for end, _, rate in released:
        assert sum(count for at, count, _ in released if end - 60_000 < at <= end) <= rate


@given(rate=st.integers(1, 1000), tick=st.integers(200, 1_100))
def test_a_server_that_looks_each_second_gives_the_whole_rate(rate: int, tick: int) -> None:
    config = RolloutConfig(maximum_per_minute=rate)
    now, next_at, total = 0, Instant(0), 0
    recent: tuple[tuple[Instant, int], ...] = ()
    while now < 300_000:
        allowed = release(config, {}, recent=recent, next_at=next_at, now=Instant(now), limit=500)
        total += allowed.count
        next_at, recent = allowed.next_at, allowed.recent
        now += tick
    # Seconds are remembered whole and counted by their end, which costs one in sixty at most.
    assert total >= rate * 5 * 59 // 61 - rate * 5 // 60 - 5


def test_a_clock_that_is_set_back_neither_bursts_nor_stops_the_rollout() -> None:
    config = RolloutConfig(maximum_per_minute=60)
    before = release(config, {}, next_at=Instant(10_000_000), now=Instant(10_000_000), limit=100)
    back = release(config, {}, recent=before.recent, next_at=before.next_at, now=Instant(5_000_000), limit=100)
    assert back.count == 1
    assert sum(count for _, count in back.recent) == 2
    assert back.next_at <= 5_060_000


def test_an_outage_is_not_made_up_for_in_a_burst() -> None:
    config = RolloutConfig(maximum_per_minute=60)
    assert release(config, {}, next_at=Instant(0), now=Instant(3_600_000), limit=1000).count == 6


@pytest.mark.parametrize(
    ("counts", "aborts"),
    [
        ({S.FAILED: 1, S.SUCCEEDED: 8}, False),
        ({S.FAILED: 1, S.SUCCEEDED: 9}, True),
        ({S.FAILED: 1, S.SUCCEEDED: 10}, False),
        ({S.REJECTED: 5, S.SUCCEEDED: 5}, False),
        ({S.FAILED: 5, S.IN_PROGRESS: 50}, False),
        ({S.SUCCEEDED: 50}, False),
    ],
)
def test_an_abort_needs_enough_ended_things_and_enough_failures(counts: dict[S, int], aborts: bool) -> None:
    criterion = AbortCriterion(failure_type=FailureType.FAILED, threshold_percentage=10.0, things_executed_min=10)
    assert (must_abort([criterion], counts) is criterion) is aborts


def test_all_counts_every_failure_but_no_cancelled_thing() -> None:
    criterion = AbortCriterion(failure_type=FailureType.ALL, threshold_percentage=100.0, things_executed_min=1)
    assert must_abort([criterion], {S.FAILED: 1, S.REJECTED: 1, S.TIMED_OUT: 1}) is criterion
    assert must_abort([criterion], {S.CANCELED: 1, S.REMOVED: 1}) is None


def test_retries_are_counted_by_how_the_attempts_ended() -> None:
    criteria = [
        RetryCriterion(failure_type=FailureType.FAILED, retries=1),
        RetryCriterion(failure_type=FailureType.TIMED_OUT, retries=2),
    ]
    assert may_retry(criteria, S.FAILED, {S.FAILED: 1})
    assert not may_retry(criteria, S.FAILED, {S.FAILED: 2})
    assert may_retry(criteria, S.TIMED_OUT, {S.FAILED: 1, S.TIMED_OUT: 2})
    assert not may_retry(criteria, S.TIMED_OUT, {S.TIMED_OUT: 3})
    for never in (S.REJECTED, S.CANCELED, S.REMOVED, S.SUCCEEDED):
        assert not may_retry([RetryCriterion(failure_type=FailureType.ALL, retries=10)], never, {never: 1})


def test_no_thing_is_tried_more_than_ten_times_again() -> None:
    criteria = [RetryCriterion(failure_type=FailureType.FAILED, retries=100)]
    assert may_retry(criteria, S.FAILED, {S.FAILED: RETRIES_PER_THING_MAX})
    assert not may_retry(criteria, S.FAILED, {S.FAILED: RETRIES_PER_THING_MAX + 1})
