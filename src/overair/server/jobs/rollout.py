"""How many things to release, whether to abort, whether to try again. Pure: (plan, counters, now) → decision.

Wire reference §3.4 to §3.6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import Final

from overair.basics.clock import Instant
from overair.server.jobs.model import (
    FAILURES,
    MINUTE_MS,
    PENDING,
    RETRIED,
    AbortCriterion,
    FailureType,
    RetryCriterion,
    RolloutConfig,
)
from overair.wire.job_messages import ExecutionStatus

MAXIMUM_PER_MINUTE_DEFAULT: Final = 1000
CATCH_UP_MS: Final = 5_000
"""After a pause of the server at most this much of the missed time is made up for: no burst after an outage."""
RETRIES_PER_THING_MAX: Final = 10
Released = tuple[Instant, int]
"""When, and how many."""


RECENT_MS: Final = 1_000
"""Releases that fall into one second are kept as one, by the time of its last: a minute has some sixty entries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """How many things may be queued now, when to look again, and what to remember of the last minute."""

    count: int
    next_at: Instant
    recent: tuple[Released, ...] = ()


def rate_per_minute(config: RolloutConfig, counts: Mapping[ExecutionStatus, int]) -> int:
    """Things a minute at this point of the rollout: 50 until 1000 were notified, then 100, … for base 50 and factor 2."""
    ceiling = config.maximum_per_minute or MAXIMUM_PER_MINUTE_DEFAULT
    growth = config.exponential
    if growth is None:
        return ceiling
    if growth.notified_criterion is not None:
        steps = sum(counts.values()) // growth.notified_criterion
    else:
        steps = counts.get(ExecutionStatus.SUCCEEDED, 0) // (growth.succeeded_criterion or 1)
    rate = float(growth.base_per_minute)
    for _ in range(steps):
        if rate >= ceiling:
            break
        rate *= growth.factor
    return max(1, min(ceiling, floor(rate)))


def release(
    config: RolloutConfig,
    counts: Mapping[ExecutionStatus, int],
    *,
    recent: Sequence[Released] = (),
    next_at: Instant,
    now: Instant,
    limit: int,
) -> Release:
    """Release one thing for each interval that has passed since ``next_at``, at most ``limit``, and never so many that a minute
    that ends now would see more than the rate. ``recent`` is what the release before this one gave."""
    # What a clock that was set back has left in the future counts as if it were now.
    remembered = tuple(
        released if released[0] <= now else (now, released[1]) for released in recent if released[0] > now - MINUTE_MS
    )
    if now < next_at <= now + MINUTE_MS:
        return Release(count=0, next_at=next_at, recent=remembered)
    rate = rate_per_minute(config, counts)
    since = now if next_at > now else max(next_at, now - CATCH_UP_MS)
    room = max(0, rate - sum(count for _, count in remembered))
    count = min(limit, room, _until_next_increase(config, counts), (now - since) * rate // MINUTE_MS + 1)
    if count == 0:
        # The minute is full: there is room again when its oldest second leaves it.
        again = remembered[0][0] + MINUTE_MS if remembered else now + RECENT_MS
        return Release(count=0, next_at=Instant(max(now + 1, again)), recent=remembered)
    # Rounded up, so that the pace alone keeps the rate; the memory keeps it where the pace had to catch up.
    return Release(
        count=count, next_at=Instant(since + -(-count * MINUTE_MS // rate)), recent=_remember(remembered, count, now=now)
    )


def _remember(recent: tuple[Released, ...], count: int, *, now: Instant) -> tuple[Released, ...]:
    if recent and recent[-1][0] // RECENT_MS == now // RECENT_MS:
        return (*recent[:-1], (now, recent[-1][1] + count))
    return (*recent, (now, count))


def _until_next_increase(config: RolloutConfig, counts: Mapping[ExecutionStatus, int]) -> int:
    """How many things may still be notified at the present rate; one more would be at the next."""
    growth = config.exponential
    if growth is None or growth.notified_criterion is None:
        return MAXIMUM_PER_MINUTE_DEFAULT
    return growth.notified_criterion - sum(counts.values()) % growth.notified_criterion


def must_abort(criteria: Sequence[AbortCriterion], counts: Mapping[ExecutionStatus, int]) -> AbortCriterion | None:
    """The criterion that the ended executions meet, if any. ``counts`` names each thing once, by its latest attempt."""
    executed = sum(count for status, count in counts.items() if status not in PENDING)
    for criterion in criteria:
        failed = sum(counts.get(status, 0) for status in FAILURES[criterion.failure_type])
        if executed >= criterion.things_executed_min and failed * 100 >= criterion.threshold_percentage * executed and failed:
            return criterion
    return None


def may_retry(criteria: Sequence[RetryCriterion], ended: ExecutionStatus, earlier: Mapping[ExecutionStatus, int]) -> bool:
    """Whether a thing tries again after this end. ``earlier`` counts its attempts by how they ended, this one included."""
    kind = RETRIED.get(ended)
    attempts = sum(count for status, count in earlier.items() if status in RETRIED)
    if kind is None or attempts > RETRIES_PER_THING_MAX:
        return False
    for criterion in criteria:
        if criterion.failure_type is FailureType.ALL and attempts <= criterion.retries:
            return True
        if criterion.failure_type is kind and earlier.get(ended, 0) <= criterion.retries:
            return True
    return False
