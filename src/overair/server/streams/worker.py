"""Tells the server's other processes of downloads that go round or ask in vain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from overair.basics.clock import Clock, Instant
from overair.basics.work import News
from overair.server.streams.asked import AskedBlocks

TOLD_EVERY_MS: Final = 5_000
TOLD_AT_ONCE_MAX: Final = 100


class OddDownloads:
    """A worker (``workers.loop.Worker``) of every process that serves blocks. What it tells may be lost: whoever goes on like
    that is told of again, and no more than ``TOLD_AT_ONCE_MAX`` in ``TOLD_EVERY_MS``, whatever a fleet does."""

    name: Final = "odd-downloads"

    def __init__(self, *, asked: AskedBlocks, tell: Callable[[News], None], clock: Clock) -> None:
        self._asked = asked
        self._tell = tell
        self._clock = clock
        self._due = Instant(0)

    async def run_once(self) -> bool:
        now = self._clock.now()
        if now >= self._due:
            self._due = Instant(now + TOLD_EVERY_MS)
            for news in self._asked.take_odd(TOLD_AT_ONCE_MAX):
                self._tell(news)
        return False
