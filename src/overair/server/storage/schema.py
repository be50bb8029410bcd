"""What every room's tables are made of."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table, Text

ACCOUNT_LENGTH: Final = 12

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""All tables of the server. Every constraint has a name, so that a migration can find it on either dialect."""


def account_column() -> Column[str]:
    """The account that a row belongs to: the first column of each table and of its primary key."""
    return Column("account", String(ACCOUNT_LENGTH), primary_key=True)


def instant_column(name: str, *, nullable: bool = False) -> Column[int]:
    """A moment: milliseconds since the Unix epoch (``basics.clock.Instant``)."""
    return Column(name, BigInteger, nullable=nullable)


outbox: Final = Table(
    "outbox",
    metadata,
    # The one table whose key doesn't start with the account: the id is the order in which notices are heard, across accounts.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("account", String(ACCOUNT_LENGTH), nullable=False),
    Column("topic", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("qos", Integer, nullable=False),
    instant_column("created"),
    Column("properties", LargeBinary, nullable=True),
    instant_column("expires", nullable=True),
    sqlite_autoincrement=True,
)
"""Notices that units of work have left and nobody has heard yet. Ids are never given twice."""
