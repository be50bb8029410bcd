"""Forgets persistent sessions and retained messages whose time is over."""

from __future__ import annotations

from overair.basics.clock import Clock, Instant
from overair.server.broker.service import Broker

ROUND_MS = 30_000
"""Between two looks at all sessions."""


class SessionExpiry:
    """A worker (``workers.loop.Worker``): the truth is in the sessions' own expiry, so a late round harms nobody."""

    name = "session-expiry"

    def __init__(self, *, broker: Broker, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock
        self._due = Instant(0)

    async def run_once(self) -> bool:
        """Forget one batch. True when there may be more."""
        now = self._clock.now()
        if now < self._due:
            return False
        if await self._broker.expire_sessions() + await self._broker.retained_topics.expire() > 0:
            return True
        self._due = Instant(now + ROUND_MS)
        return False
