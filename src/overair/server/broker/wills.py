"""Wills that wait: a client may come back before its will is due (MQTT 5 section 3.1.3.2.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from overair.basics.ids import AccountId, ClientId
from overair.server.gateway.model import LastWord, Message

WAITING_MAX: Final = 100_000
"""Then a will is published at once: better early than never."""

Key = tuple[AccountId, ClientId]


class DelayedWills:
    """On the event loop. What waits is in memory alone: a server that ends publishes it first."""

    def __init__(self, publish: Callable[[AccountId, Message], None]) -> None:
        self._publish = publish
        self._waiting: dict[Key, tuple[asyncio.TimerHandle, Message]] = {}

    def due(self, account: AccountId, client_id: ClientId, will: LastWord, *, session_ends_ms: int) -> None:
        """A connection has ended without a goodbye: publish its will after its delay, or when its session ends."""
        delay_ms = min(will.delay_ms, session_ends_ms)
        if delay_ms <= 0 or len(self._waiting) >= WAITING_MAX:
            self._publish(account, will.message)
            return
        key = (account, client_id)
        timer = asyncio.get_running_loop().call_later(delay_ms / 1000, self._say, key)
        self._waiting[key] = (timer, will.message)

    def came_back(self, account: AccountId, client_id: ClientId, *, to_its_session: bool) -> None:
        """A client connects: it lives, unless it begins a new session, which is the end of the old one."""
        waiting = self._waiting.pop((account, client_id), None)
        if waiting is not None:
            waiting[0].cancel()
            if not to_its_session:
                self._publish(account, waiting[1])

    def say_all(self) -> None:
        """Nobody will be here to say them later."""
        for key in list(self._waiting):
            self._waiting[key][0].cancel()
            self._say(key)

    def _say(self, key: Key) -> None:
        self._publish(key[0], self._waiting.pop(key)[1])
