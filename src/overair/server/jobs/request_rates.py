"""How many requests a second the devices of one account may make of their jobs, whichever door they come by."""

from __future__ import annotations

from typing import Final

from overair.basics.clock import Clock
from overair.basics.errors import Throttled
from overair.basics.ids import AccountId

SECOND_MS: Final = 1_000


class RequestRates:
    """Counts in memory, on the event loop. None: no bound."""

    def __init__(self, *, clock: Clock, reads_per_s_max: int | None = None, writes_per_s_max: int | None = None) -> None:
        self._clock = clock
        self._reads = None if reads_per_s_max is None else _Buckets(reads_per_s_max)
        self._writes = None if writes_per_s_max is None else _Buckets(writes_per_s_max)

    def read(self, account: AccountId) -> None:
        """Count a request that changes nothing. Raises Throttled, subject ``jobs-requests``."""
        self._take(self._reads, account, "read")

    def write(self, account: AccountId) -> None:
        """Count a request that may change something. Raises Throttled, subject ``jobs-requests``."""
        self._take(self._writes, account, "change")

    def _take(self, buckets: _Buckets | None, account: AccountId, what: str) -> None:
        if buckets is not None and not buckets.take(account, self._clock.now()):
            raise Throttled(
                f"The devices of this account may {what} their jobs {buckets.per_s} times a second, and have. Wait a moment, "
                "with jitter, and ask again.",
                subject="jobs-requests",
            )


class _Buckets:
    """One for each account: it holds a second's worth, and fills steadily."""

    def __init__(self, per_s: int) -> None:
        self.per_s = per_s
        self._held: dict[AccountId, tuple[int, int]] = {}
        """Thousandths of requests, and when they were counted."""

    def take(self, account: AccountId, now: int) -> bool:
        full = self.per_s * SECOND_MS
        held, counted_at = self._held.get(account, (full, now))
        # A clock that was set back fills nothing.
        held = min(full, held + max(0, now - counted_at) * self.per_s)
        allowed = held >= SECOND_MS
        self._held[account] = (held - SECOND_MS if allowed else held, now)
        return allowed
