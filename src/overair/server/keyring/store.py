"""Wrapped keys in the records."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sqlalchemy import Column, Integer, LargeBinary, String, Table, and_, bindparam, delete, insert, select, tuple_, update

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, KeyId
from overair.basics.work import Tx
from overair.server.keyring.endings import NAME_LENGTH_MAX, Told
from overair.server.keyring.model import FILE, HOLDER_LENGTH_MAX, KeyKind, WrappedKey
from overair.server.keyring.rewrapping import SealedRow
from overair.server.keyring.service import sealed_context
from overair.server.storage.erasure import erase
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import HotStatement, sql

keys = Table(
    "keyring_keys",
    metadata,
    account_column(),
    Column("key_id", String(36), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("purpose", String(128), nullable=False),
    instant_column("created"),
    Column("public_key_der", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("holder", String(HOLDER_LENGTH_MAX), nullable=False, server_default=FILE),
)

notices = Table(
    "keyring_expiry_notices",
    metadata,
    account_column(),
    Column("name", String(NAME_LENGTH_MAX), primary_key=True),
    instant_column("expires"),
    Column("step", Integer, nullable=False),
)


_find = HotStatement(select(*keys.c).where(keys.c.account == bindparam("b_account"), keys.c.key_id == bindparam("b_key_id")))
_COLUMNS = tuple(column.name for column in keys.columns)


class SqlKeyStore:
    """The keyring's table."""

    def add(self, tx: Tx, key: WrappedKey) -> None:
        sql(tx).execute(
            insert(keys).values(
                account=key.account,
                key_id=key.key_id,
                kind=key.kind.value,
                purpose=key.purpose,
                created=key.created,
                public_key_der=key.public_key_der,
                sealed=key.sealed,
                holder=key.holder,
            )
        )

    def find(self, tx: Tx, account: AccountId, key_id: KeyId) -> WrappedKey | None:
        row = _find.first(tx, b_account=account, b_key_id=key_id)
        return None if row is None else _key(SimpleNamespace(**dict(zip(_COLUMNS, row, strict=True))))

    def sealed(self, tx: Tx, *, after: tuple[str, str] | None, limit: int) -> list[SealedRow]:
        """See ``rewrapping.SealedRows``."""
        query = select(keys.c.account, keys.c.key_id, keys.c.sealed).where(keys.c.holder == FILE)
        if after is not None:
            query = query.where(tuple_(keys.c.account, keys.c.key_id) > after)
        rows = sql(tx).execute(query.order_by(keys.c.account, keys.c.key_id).limit(limit))
        return [
            SealedRow(
                place=(row.account, row.key_id),
                context=sealed_context(AccountId(row.account), KeyId(row.key_id)),
                sealed=bytes(row.sealed),
            )
            for row in rows
        ]

    def put_sealed(self, tx: Tx, place: tuple[str, str], sealed: bytes) -> None:
        """See ``rewrapping.SealedRows``."""
        here = (keys.c.account == place[0], keys.c.key_id == place[1])
        sql(tx).execute(update(keys).where(*here).values(sealed=sealed))

    def delete(self, tx: Tx, account: AccountId, key_id: KeyId) -> bool:
        # A key that was destroyed must not be found in a page of the database: it may be one that a thief could use for years.
        return erase(tx, keys, and_(keys.c.account == account, keys.c.key_id == key_id)) > 0

    def all(self, tx: Tx, account: AccountId) -> list[WrappedKey]:
        return [_key(row) for row in sql(tx).execute(select(keys).where(keys.c.account == account).order_by(keys.c.key_id))]


class SqlNoticeStore:
    """Which steps of which countdowns were told."""

    def told(self, tx: Tx, account: AccountId) -> list[Told]:
        rows = sql(tx).execute(select(notices.c.name, notices.c.expires, notices.c.step).where(notices.c.account == account))
        return [Told(name=row.name, expires=Instant(row.expires), step=row.step) for row in rows]

    def put_told(self, tx: Tx, account: AccountId, told: Told) -> None:
        self.forget_told(tx, account, told.name)
        sql(tx).execute(insert(notices).values(account=account, name=told.name, expires=told.expires, step=told.step))

    def forget_told(self, tx: Tx, account: AccountId, name: str) -> None:
        sql(tx).execute(delete(notices).where(notices.c.account == account, notices.c.name == name))


def _key(row: Any) -> WrappedKey:
    return WrappedKey(
        account=AccountId(row.account),
        key_id=KeyId(row.key_id),
        kind=KeyKind(row.kind),
        purpose=row.purpose,
        created=Instant(row.created),
        public_key_der=bytes(row.public_key_der),
        sealed=bytes(row.sealed),
        holder=row.holder,
    )
