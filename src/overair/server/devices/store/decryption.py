"""What devices have said of their decryption keys: one row for each thing."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Column, String, Table, Text, delete, insert, select

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, ThingName
from overair.basics.work import Tx
from overair.server.devices.decryption import Declared, DecryptionKey
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import sql

device_decryption: Final = Table(
    "device_decryption",
    metadata,
    account_column(),
    Column("thing", String(128), primary_key=True),
    Column("formats", Text, nullable=False),
    Column("public_keys", Text, nullable=False),
    instant_column("declared_at"),
)


class SqlDecryptionStore:
    """``DecryptionStore`` over SQL."""

    def find(self, tx: Tx, account: AccountId, thing: ThingName) -> Declared | None:
        row = sql(tx).execute(_all().where(*_is(account, thing))).one_or_none()
        return None if row is None else _declared(row)

    def put(self, tx: Tx, account: AccountId, declared: Declared) -> None:
        self.delete(tx, account, declared.thing)
        keys = {key.id: base64.b64encode(key.der).decode("ascii") for key in declared.keys}
        sql(tx).execute(
            insert(device_decryption).values(
                account=account,
                thing=declared.thing,
                formats=msgspec.json.encode(declared.formats).decode(),
                public_keys=msgspec.json.encode(keys).decode(),
                declared_at=declared.declared_at,
            )
        )

    def delete(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        sql(tx).execute(delete(device_decryption).where(*_is(account, thing)))

    def among(self, tx: Tx, account: AccountId, things: Sequence[ThingName]) -> Mapping[ThingName, Declared]:
        table = device_decryption
        rows = sql(tx).execute(_all().where(table.c.account == account, table.c.thing.in_(things))) if things else ()
        found = [_declared(row) for row in rows]
        return {declared.thing: declared for declared in found}

    def page(self, tx: Tx, account: AccountId, *, after: str | None, limit: int) -> Sequence[Declared]:
        wanted = _all().where(device_decryption.c.account == account)
        if after is not None:
            wanted = wanted.where(device_decryption.c.thing > after)
        return [_declared(row) for row in sql(tx).execute(wanted.order_by(device_decryption.c.thing).limit(limit))]


def _all() -> Any:
    table = device_decryption
    return select(table.c.thing, table.c.formats, table.c.public_keys, table.c.declared_at)


def _is(account: AccountId, thing: ThingName) -> tuple[Any, ...]:
    return device_decryption.c.account == account, device_decryption.c.thing == thing


def _declared(row: Sequence[Any]) -> Declared:
    thing, formats, keys, declared_at = row
    held = msgspec.json.decode(keys, type=dict[str, str])
    return Declared(
        thing=ThingName(thing),
        formats=msgspec.json.decode(formats, type=tuple[int, ...]),
        keys=tuple(DecryptionKey(id=name, der=base64.b64decode(der)) for name, der in held.items()),
        declared_at=Instant(declared_at),
    )
