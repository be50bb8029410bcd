"""The table of accounts: which there are on this server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Column, String, Table, func, insert, select
from sqlalchemy.engine import Row

from overair.basics.clock import Instant
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.access.accounts import KnownAccount
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import sql

accounts: Final = Table(
    "access_accounts",
    metadata,
    account_column(),
    Column("name", String(128), nullable=False),
    instant_column("created"),
)


class SqlAccountStore:
    """Accounts in the records."""

    def add(self, tx: Tx, known: KnownAccount) -> None:
        sql(tx).execute(insert(accounts).values(account=known.account, name=known.name, created=known.created))

    def find(self, tx: Tx, account: AccountId) -> KnownAccount | None:
        row = sql(tx).execute(select(accounts).where(accounts.c.account == account)).one_or_none()
        return None if row is None else _known(row)

    def count(self, tx: Tx) -> int:
        return int(sql(tx).execute(select(func.count()).select_from(accounts)).scalar_one())

    def page(self, tx: Tx, *, after: str, limit: int) -> Sequence[KnownAccount]:
        """By number."""
        query = select(accounts).where(accounts.c.account > after).order_by(accounts.c.account).limit(limit)
        return [_known(row) for row in sql(tx).execute(query)]


def _known(row: Row[Any]) -> KnownAccount:
    return KnownAccount(account=AccountId(row.account), name=row.name, created=Instant(row.created))
