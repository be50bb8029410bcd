"""From the outbox to whoever listens: in order, at least once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from sqlalchemy import bindparam, delete, select

from overair.basics.work import Notice, Tx, Work
from overair.server.storage.outbox_rows import notice_of
from overair.server.storage.schema import outbox
from overair.server.storage.work import HotStatement, sql

BATCH_NOTICES_MAX: Final = 500

_oldest = HotStatement(
    select(
        outbox.c.id,
        outbox.c.account,
        outbox.c.topic,
        outbox.c.payload,
        outbox.c.qos,
        outbox.c.properties,
        outbox.c.expires,
    )
    .order_by(outbox.c.id)
    .limit(BATCH_NOTICES_MAX)
)
_delete_run = HotStatement(delete(outbox).where(outbox.c.id >= bindparam("b_first"), outbox.c.id <= bindparam("b_last")))

Deliver = Callable[[Notice], Awaitable[None]]
"""Hands one notice on. It may hear the same one again after a crash. It raises only when nothing can be delivered at all: the
notice and all after it then wait for the next attempt, so that their order holds."""


class OutboxRelay:
    """Hands on what committed units announced, then forgets it. A ``workers.Worker``; wake it when a commit left notices
    (``SqlWork.on_commit_with_outbox``) and at start, for those of an earlier life."""

    name: Final = "outbox"

    def __init__(self, work: Work, deliver: Deliver) -> None:
        self._work = work
        self._deliver = deliver

    async def run_once(self) -> bool:
        """Deliver one batch, oldest first. True when there was something."""
        rows = await self._work.read(_oldest.all)
        delivered: list[int] = []
        try:
            for notice_id, *row in rows:
                await self._deliver(notice_of(*row))
                delivered.append(notice_id)
        finally:
            if delivered:
                await self._work.run(lambda tx: _forget(tx, delivered))
        return bool(rows)


def _forget(tx: Tx, ids: Sequence[int]) -> None:
    if ids[-1] - ids[0] + 1 == len(ids):
        _delete_run.run(tx, b_first=ids[0], b_last=ids[-1])
    else:
        # A gap may be filled by a node that is still committing: only what was heard goes.
        sql(tx).execute(delete(outbox).where(outbox.c.id.in_(ids)))
