"""How fast each credential may ask."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from overair.basics.clock import Clock
from overair.basics.ids import AccountId

BUCKETS_REMEMBERED_MAX: Final = 10_000
MINUTE_MS: Final = 60_000


class TokenBuckets:
    """One bucket for each credential: it holds what a minute allows, and fills steadily. In memory, on the event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: OrderedDict[tuple[AccountId, str], tuple[float, int]] = OrderedDict()

    def take(self, account: AccountId, name: str, *, per_minute: int) -> bool:
        """Take one token; whether there was one."""
        now = self._clock.now()
        key = (account, name)
        tokens, filled_at = self._buckets.pop(key, (float(per_minute), now))
        # A clock that was set back fills nothing.
        tokens = min(float(per_minute), tokens + max(0, now - filled_at) * per_minute / MINUTE_MS)
        is_allowed = tokens >= 1
        self._buckets[key] = (tokens - 1 if is_allowed else tokens, now)
        if len(self._buckets) > BUCKETS_REMEMBERED_MAX:
            self._buckets.popitem(last=False)
        return is_allowed
