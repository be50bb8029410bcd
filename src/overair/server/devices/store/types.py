"""Thing types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Column, String, Table, Text, delete, exists, insert, select

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, ThingTypeName
from overair.basics.work import Tx
from overair.server.devices.model import ThingType
from overair.server.devices.store.things import things
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import sql

thing_types: Final = Table(
    "thing_types",
    metadata,
    account_column(),
    Column("name", String(128), primary_key=True),
    Column("id", String(36), nullable=False),
    Column("description", Text, nullable=False),
    Column("searchable_attributes", Text, nullable=False),
    Column("propagating_attributes", Text, nullable=False),
    instant_column("created_at"),
    instant_column("deprecated_at", nullable=True),
)


class SqlTypeStore:
    """Thing types in SQL."""

    def find(self, tx: Tx, account: AccountId, name: ThingTypeName) -> ThingType | None:
        found = self.page(tx, account, name=name, after=None, limit=1)
        return found[0] if found else None

    def put(self, tx: Tx, thing_type: ThingType) -> None:
        self.delete(tx, thing_type.account, thing_type.name)
        sql(tx).execute(
            insert(thing_types).values(
                account=thing_type.account,
                name=thing_type.name,
                id=thing_type.id,
                description=thing_type.description,
                searchable_attributes=_json(list(thing_type.searchable_attributes)),
                propagating_attributes=_json([dict(item) for item in thing_type.propagating_attributes]),
                created_at=thing_type.created_at,
                deprecated_at=thing_type.deprecated_at,
            )
        )

    def delete(self, tx: Tx, account: AccountId, name: ThingTypeName) -> None:
        sql(tx).execute(delete(thing_types).where(thing_types.c.account == account, thing_types.c.name == name))

    def is_used(self, tx: Tx, account: AccountId, name: ThingTypeName) -> bool:
        using = exists().where(things.c.account == account, things.c.type_name == name)
        return bool(sql(tx).execute(select(using)).scalar_one())

    def page(
        self, tx: Tx, account: AccountId, *, name: ThingTypeName | None, after: str | None, limit: int
    ) -> Sequence[ThingType]:
        wanted = select(thing_types).where(thing_types.c.account == account)
        if name is not None:
            wanted = wanted.where(thing_types.c.name == name)
        if after is not None:
            wanted = wanted.where(thing_types.c.name > after)
        return [_thing_type(row) for row in sql(tx).execute(wanted.order_by(thing_types.c.name).limit(limit)).mappings()]


def _thing_type(row: Any) -> ThingType:
    return ThingType(
        account=AccountId(row["account"]),
        name=ThingTypeName(row["name"]),
        id=row["id"],
        description=row["description"],
        searchable_attributes=tuple(msgspec.json.decode(row["searchable_attributes"], type=list[str])),
        propagating_attributes=tuple(msgspec.json.decode(row["propagating_attributes"], type=list[dict[str, str]])),
        created_at=Instant(row["created_at"]),
        deprecated_at=None if row["deprecated_at"] is None else Instant(row["deprecated_at"]),
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
