"""How QoS 1 messages reach sessions: at once, or from the store in their order, and out of it once acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Final

import structlog

from overair.basics.clock import Clock
from overair.basics.errors import OverairError
from overair.basics.ids import AccountId, ClientId
from overair.basics.work import Tx, Work
from overair.server.broker.model import QueuedMessage
from overair.server.broker.ports import Records
from overair.server.broker.sessions import SessionRecord
from overair.server.gateway.model import Link, Message

LOAD_COUNT: Final = 200
"""Messages taken from the store at once for a session that catches up."""

logger = structlog.get_logger("overair.broker")


class Deliveries:
    """Hands messages to session objects and keeps the store in step with what they acknowledge."""

    def __init__(
        self, *, work: Work, store: Records, clock: Clock, spawn: Callable[[Coroutine[None, None, None]], None]
    ) -> None:
        self._work = work
        self._clock = clock
        self._store = store
        self._spawn = spawn
        self._settled: list[tuple[AccountId, ClientId, int]] = []
        self._flushing = False
        self.dropped_count = 0

    def send(self, record: SessionRecord, link: Link, message: Message, token: int | None, *, retain: bool = False) -> bool:
        session = record.session
        data = session.deliver(
            message.topic,
            message.payload,
            qos=1,
            retain=retain,
            token=token,
            hold=link.is_slow,
            properties=message.properties,
            expires=message.expires,
            now=self._clock.now(),
        )
        if data:
            link.write(data)
        if session.has_spoiled:
            self.settle_spoiled(record)
        if data is None and token is None:
            self.dropped_count += 1
        return data is not None

    def settle_spoiled(self, record: SessionRecord) -> None:
        """What expired while it waited, or is larger than the client takes, is owed no more."""
        for token in record.session.take_spoiled():
            self.dropped_count += 1
            self.settle(record, token)

    def hand_over(self, record: SessionRecord, position: int, message: Message) -> None:
        """A stored message may go out now, unless older ones must go first."""
        link = record.link
        if link is None or not record.ready or record.behind or record.loading:
            record.behind = True
            if link is not None and record.ready and record.session.undelivered_count < LOAD_COUNT // 2:
                self.start(record)
        elif not link.accepts(message.topic, None):
            self.settle(record, position)
        elif self.send(record, link, message, position):
            record.loaded_to = position
        else:
            record.behind = True

    # -- catching up --------------------------------------------------------------------------------------------------

    def start(self, record: SessionRecord) -> None:
        if record.link is not None and record.ready and not record.loading:
            record.loading = True
            self._spawn(self._load(record, record.link))

    async def _load(self, record: SessionRecord, link: Link) -> None:
        try:
            while record.link is link:
                record.behind = False
                rows = await self._next_queued(record)
                if record.link is not link:
                    return
                for row in rows:
                    message = Message(
                        topic=row.topic, payload=row.payload, qos=1, properties=row.properties, expires=row.expires
                    )
                    if not link.accepts(row.topic, None):
                        self.settle(record, row.position)
                    elif not self.send(record, link, message, row.position):
                        record.behind = True
                        return
                    record.loaded_to = row.position
                if len(rows) < LOAD_COUNT and not record.behind:
                    return
                if record.session.undelivered_count >= LOAD_COUNT:
                    record.behind = True
                    return
        except OverairError as error:
            record.behind = True
            logger.warning("a session can't be served its stored messages now", client=record.client_id, error=str(error))
        finally:
            record.loading = False
            if record.link is not None and record.link is not link and record.behind:
                self.start(record)

    async def _next_queued(self, record: SessionRecord) -> Sequence[QueuedMessage]:
        settled, self._settled = self._settled, []
        after = record.loaded_to

        def unit(tx: Tx) -> Sequence[QueuedMessage]:
            # What was acknowledged must be gone before the look, or it would be sent again.
            for each in settled:
                self._store.acknowledge(tx, *each)
            return self._store.queued(tx, record.account, record.client_id, after=after, limit=LOAD_COUNT)

        try:
            return await self._work.run(unit)
        except BaseException:
            self._settled = settled + self._settled
            raise

    def settle(self, record: SessionRecord, token: int | None) -> None:
        if token is None:
            return
        record.unqueue(token)
        self._settled.append((record.account, record.client_id, token))
        if not self._flushing:
            self._flushing = True
            self._spawn(self._flush())

    async def _flush(self) -> None:
        """Take acknowledged messages out of the store, all that came during the last commit at once."""
        try:
            while self._settled:
                settled, self._settled = self._settled, []

                def unit(tx: Tx, settled: list[tuple[AccountId, ClientId, int]] = settled) -> None:
                    for each in settled:
                        self._store.acknowledge(tx, *each)

                try:
                    await self._work.run(unit)
                except OverairError as error:
                    # They stay on the list: a repeated delivery after a crash is what QoS 1 allows.
                    self._settled = settled + self._settled
                    logger.warning("acknowledgements can't be stored now", count=len(settled), error=str(error))
                    return
        finally:
            self._flushing = False
