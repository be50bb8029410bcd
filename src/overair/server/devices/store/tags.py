"""Tags of iot resources, by ARN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Column, String, Table, Text, delete, insert, select

from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.storage.schema import account_column, metadata
from overair.server.storage.work import sql

tags: Final = Table(
    "tags",
    metadata,
    account_column(),
    Column("arn", String(512), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("value", Text, nullable=False),
)


class SqlTagStore:
    """Tags in SQL."""

    def tags(self, tx: Tx, account: AccountId, arn: str) -> Mapping[str, str]:
        rows = sql(tx).execute(
            select(tags.c.key, tags.c.value).where(tags.c.account == account, tags.c.arn == arn).order_by(tags.c.key)
        )
        return {row.key: row.value for row in rows}

    def set(self, tx: Tx, account: AccountId, arn: str, given: Mapping[str, str]) -> None:
        sql(tx).execute(delete(tags).where(tags.c.account == account, tags.c.arn == arn))
        if given:
            sql(tx).execute(
                insert(tags), [{"account": account, "arn": arn, "key": key, "value": value} for key, value in given.items()]
            )
