"""When these records came out of a backup. What has happened between the backup and the loss of the server isn't in them, so
whoever gives out numbers leaves a gap for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import BigInteger, Column, Table, insert, select

from overair.basics.clock import Instant
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import sql

restores: Final = Table(
    "restores",
    metadata,
    account_column(),
    Column("restored_at", BigInteger, primary_key=True, autoincrement=False),
    instant_column("backed_up_at"),
)
"""One row for each restore, of the server's first account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restores:
    """What these records went through; nothing for most."""

    count: int = 0
    backed_up_at: Instant | None = None
    """When the backup was made that the last one is of."""
    restored_at: Instant | None = None
    """Whatever was written before came out of a backup."""


def restores_of(tx: Tx, account: AccountId) -> Restores:
    """The restores that these records went through."""
    query = select(restores).where(restores.c.account == account).order_by(restores.c.restored_at)
    rows = sql(tx).execute(query).all()
    if not rows:
        return Restores()
    last = rows[-1]
    return Restores(count=len(rows), backed_up_at=Instant(last.backed_up_at), restored_at=Instant(last.restored_at))


def note_restore(tx: Tx, account: AccountId, *, backed_up_at: Instant, now: Instant) -> Restores:
    """These records come out of a backup, just now."""
    known = restores_of(tx, account)
    # Clocks may go back; the order of restores may not.
    restored_at = Instant(max(now, backed_up_at + 1, 0 if known.restored_at is None else known.restored_at + 1))
    sql(tx).execute(insert(restores).values(account=account, restored_at=restored_at, backed_up_at=backed_up_at))
    return Restores(count=known.count + 1, backed_up_at=backed_up_at, restored_at=restored_at)
