"""Things, their attributes as an index, and the certificates attached to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import BigInteger, Column, Index, String, Table, Text, bindparam, delete, func, insert, select, update

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, CertificateId, ThingName, ThingTypeName
from overair.basics.work import Tx
from overair.server.devices.model import Thing, ThingPrincipal, ThingPrincipalType, ThingQuery
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.statements import listed
from overair.server.storage.work import HotStatement, sql

things: Final = Table(
    "things",
    metadata,
    account_column(),
    Column("name", String(128), primary_key=True),
    Column("id", String(36), nullable=False),
    Column("type_name", String(128), nullable=True),
    Column("attributes", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    instant_column("created_at"),
    Index("ix_things_account_type_name_name", "account", "type_name", "name"),
    Index("ix_things_account_id", "account", "id"),
)

thing_attributes: Final = Table(
    "thing_attributes",
    metadata,
    account_column(),
    # In this order, so that a list by attribute is one walk along the key.
    Column("attribute", String(128), primary_key=True),
    Column("value", String(800), primary_key=True),
    Column("thing", String(128), primary_key=True),
    Index("ix_thing_attributes_account_thing", "account", "thing"),
)

thing_principals: Final = Table(
    "thing_principals",
    metadata,
    account_column(),
    Column("thing", String(128), primary_key=True),
    Column("certificate", String(64), primary_key=True),
    Column("type", String(24), nullable=False),
    Index("ix_thing_principals_account_certificate_thing", "account", "certificate", "thing"),
)

_FIND: Final = HotStatement(
    select(things.c.id, things.c.type_name, things.c.attributes, things.c.version, things.c.created_at).where(
        things.c.account == bindparam("b_account"), things.c.name == bindparam("b_name")
    )
)
_AMONG: Final = {
    dialect: HotStatement(
        select(things.c.name).where(things.c.account == bindparam("b_account"), things.c.name.in_(select(named.c.value)))
    )
    for dialect, named in listed("b_names").items()
}
_INSERT: Final = HotStatement(insert(things), columns=[column.name for column in things.columns])
_INSERT_ATTRIBUTE: Final = HotStatement(insert(thing_attributes), columns=[column.name for column in thing_attributes.columns])
_DECODE: Final = msgspec.json.Decoder(dict[str, str])
_ENCODE: Final = msgspec.json.Encoder(order="sorted")
_NO_ATTRIBUTES: Final = "{}"
_BEYOND: Final = "\x7f"
"""Sorts after every character that a name or an attribute's value may have."""


class SqlThingStore:
    """Things in SQL."""

    def find(self, tx: Tx, account: AccountId, thing: ThingName) -> Thing | None:
        row = _FIND.first(tx, b_account=account, b_name=thing)
        return None if row is None else _thing(account, thing, row)

    def name_of(self, tx: Tx, account: AccountId, thing_id: str) -> ThingName | None:
        query = select(things.c.name).where(things.c.account == account, things.c.id == thing_id)
        found = sql(tx).execute(query).scalar()
        return None if found is None else ThingName(found)

    def insert(self, tx: Tx, thing: Thing) -> None:
        _INSERT.run(
            tx,
            account=thing.account,
            name=thing.name,
            id=thing.id,
            type_name=thing.type_name,
            attributes=_text(thing),
            version=thing.version,
            created_at=thing.created_at,
        )
        self._index(tx, thing)

    def update(self, tx: Tx, thing: Thing) -> None:
        sql(tx).execute(
            update(things)
            .where(things.c.account == thing.account, things.c.name == thing.name)
            .values(type_name=thing.type_name, attributes=_text(thing), version=thing.version)
        )
        self._unindex(tx, thing.account, thing.name)
        self._index(tx, thing)

    def delete(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        self._unindex(tx, account, thing)
        sql(tx).execute(delete(things).where(things.c.account == account, things.c.name == thing))

    def among(self, tx: Tx, account: AccountId, names: Sequence[ThingName]) -> frozenset[ThingName]:
        rows = _AMONG[sql(tx).dialect.name].all(tx, b_account=account, b_names=msgspec.json.encode(names).decode())
        return frozenset(ThingName(name) for (name,) in rows)

    def count(self, tx: Tx, account: AccountId) -> int:
        return int(sql(tx).execute(select(func.count()).select_from(things).where(things.c.account == account)).scalar_one())

    def page(self, tx: Tx, account: AccountId, query: ThingQuery, *, after: str | None, limit: int) -> Sequence[Thing]:
        columns = (things.c.name, things.c.id, things.c.type_name, things.c.attributes, things.c.version, things.c.created_at)
        wanted = select(*columns).where(things.c.account == account)
        if query.attribute_name is not None:
            having = select(thing_attributes.c.thing).where(
                thing_attributes.c.account == account, thing_attributes.c.attribute == query.attribute_name
            )
            if query.attribute_value is not None and query.value_is_prefix:
                having = having.where(
                    thing_attributes.c.value >= query.attribute_value,
                    thing_attributes.c.value < query.attribute_value + _BEYOND,
                )
            elif query.attribute_value is not None:
                having = having.where(thing_attributes.c.value == query.attribute_value)
            wanted = wanted.where(things.c.name.in_(having))
        if query.type_name is not None:
            wanted = wanted.where(things.c.type_name == query.type_name)
        if after is not None:
            wanted = wanted.where(things.c.name > after)
        rows = sql(tx).execute(wanted.order_by(things.c.name).limit(limit))
        return [_thing(account, ThingName(name), row) for name, *row in rows]

    def attach(self, tx: Tx, account: AccountId, attachment: ThingPrincipal) -> None:
        self.detach(tx, account, attachment.thing, attachment.certificate)
        sql(tx).execute(
            insert(thing_principals).values(
                account=account,
                thing=attachment.thing,
                certificate=attachment.certificate,
                type=attachment.type.value,
            )
        )

    def detach(self, tx: Tx, account: AccountId, thing: ThingName, certificate: CertificateId) -> bool:
        table = thing_principals
        gone = sql(tx).execute(
            delete(table).where(table.c.account == account, table.c.thing == thing, table.c.certificate == certificate)
        )
        return gone.rowcount > 0

    def principals(
        self,
        tx: Tx,
        account: AccountId,
        thing: ThingName,
        *,
        type: ThingPrincipalType | None = None,
        after: str | None = None,
        limit: int,
    ) -> Sequence[ThingPrincipal]:
        table = thing_principals
        wanted = select(table.c.thing, table.c.certificate, table.c.type).where(
            table.c.account == account, table.c.thing == thing
        )
        if type is not None:
            wanted = wanted.where(table.c.type == type.value)
        if after is not None:
            wanted = wanted.where(table.c.certificate > after)
        return [_principal(row) for row in sql(tx).execute(wanted.order_by(table.c.certificate).limit(limit))]

    def things_of(
        self,
        tx: Tx,
        account: AccountId,
        certificate: CertificateId,
        *,
        type: ThingPrincipalType | None = None,
        after: str | None = None,
        limit: int,
    ) -> Sequence[ThingPrincipal]:
        table = thing_principals
        wanted = select(table.c.thing, table.c.certificate, table.c.type).where(
            table.c.account == account, table.c.certificate == certificate
        )
        if type is not None:
            wanted = wanted.where(table.c.type == type.value)
        if after is not None:
            wanted = wanted.where(table.c.thing > after)
        return [_principal(row) for row in sql(tx).execute(wanted.order_by(table.c.thing).limit(limit))]

    def _index(self, tx: Tx, thing: Thing) -> None:
        for attribute, value in thing.attributes.items():
            _INSERT_ATTRIBUTE.run(tx, account=thing.account, attribute=attribute, value=value, thing=thing.name)

    def _unindex(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        table = thing_attributes
        sql(tx).execute(delete(table).where(table.c.account == account, table.c.thing == thing))


def _text(thing: Thing) -> str:
    return _ENCODE.encode(dict(thing.attributes)).decode() if thing.attributes else _NO_ATTRIBUTES


def _thing(account: AccountId, name: ThingName, row: Sequence[Any]) -> Thing:
    identity, type_name, attributes, version, created_at = row
    return Thing(
        account=account,
        name=name,
        id=identity,
        type_name=None if type_name is None else ThingTypeName(type_name),
        attributes=_DECODE.decode(attributes),
        version=version,
        created_at=Instant(created_at),
    )


def _principal(row: Any) -> ThingPrincipal:
    return ThingPrincipal(
        thing=ThingName(row.thing), certificate=CertificateId(row.certificate), type=ThingPrincipalType(row.type)
    )
