"""Which topics hold a retained message: names in memory, messages in the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from overair.basics.clock import Clock
from overair.basics.errors import LimitExceeded
from overair.basics.ids import AccountId
from overair.basics.work import Work
from overair.server.broker.model import RetainedMessage
from overair.server.broker.ports import Records
from overair.server.gateway.model import Message

EXPIRED_AT_ONCE_MAX: Final = 200


class RetainedTopics:
    """The names of every account on this server."""

    def __init__(self, *, work: Work, store: Records, clock: Clock) -> None:
        self._work = work
        self._store = store
        self._clock = clock
        self._names: dict[AccountId, set[str]] = {}

    def holds(self, account: AccountId, topic: str) -> bool:
        """Whether something is retained for exactly this topic."""
        return topic in self._names.get(account, ())

    async def message(self, account: AccountId, topic: str) -> RetainedMessage | None:
        """What is retained for exactly this topic."""
        if not self.holds(account, topic):
            return None
        found = await self._work.read(lambda tx: self._store.retained(tx, account, topic))
        is_over = found is not None and found.expires is not None and found.expires <= self._clock.now()
        return None if is_over else found

    def require_room(self, account: AccountId, message: Message, *, count_max: int) -> None:
        """A message that is to be retained finds room. Raises LimitExceeded, subject ``retained``."""
        if not message.payload or self.holds(account, message.topic):
            return
        if len(self._names.get(account, ())) >= count_max:
            raise LimitExceeded(
                f"This account already retains {count_max} messages. Delete one by publishing an empty retained message to it.",
                subject="retained",
            )

    def now(self, account: AccountId, topic: str, *, is_there: bool) -> None:
        """Something is retained for a topic, or nothing more."""
        topics = self._names.setdefault(account, set())
        (topics.add if is_there else topics.discard)(topic)

    def are(self, topics: Sequence[tuple[AccountId, str]]) -> None:
        """What is retained, all of it."""
        self._names = {}
        for account, topic in topics:
            self._names.setdefault(account, set()).add(topic)

    async def expire(self) -> int:
        """Forget retained messages whose time is over, ``EXPIRED_AT_ONCE_MAX`` at most; how many."""
        now = self._clock.now()
        over = await self._work.read(lambda tx: self._store.expired_retained(tx, now, limit=EXPIRED_AT_ONCE_MAX))
        if not over:
            return 0
        gone = await self._work.run(lambda tx: [key for key in over if self._store.forget_retained(tx, *key, now)])
        for account, topic in gone:
            self.now(account, topic, is_there=False)
        return len(gone)
