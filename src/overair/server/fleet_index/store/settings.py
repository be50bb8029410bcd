"""What is indexed, and what is left to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import bindparam, delete, exists, insert, literal, or_, select, update

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, GroupName
from overair.basics.work import Tx
from overair.server.fleet_index.fields import Field, FieldType, Index
from overair.server.fleet_index.model import BuildPhase, Configuration, GroupBuild, IndexState, Phase
from overair.server.fleet_index.store.tables import fleet_group_builds, fleet_indices, fleet_settings
from overair.server.storage.work import HotStatement, sql

_CONFIGURATION: Final = HotStatement(
    select(
        fleet_settings.c.things,
        fleet_settings.c.connectivity,
        fleet_settings.c.groups,
        fleet_settings.c.packages,
        fleet_settings.c.fields,
        fleet_settings.c.group_fields,
    ).where(fleet_settings.c.account == bindparam("b_account"))
)
_BUILT: Final = (
    select(1)
    .where(
        fleet_indices.c.account == fleet_group_builds.c.account,
        fleet_indices.c.index_name == Index.THINGS.value,
        fleet_indices.c.phase == Phase.ACTIVE.value,
    )
    .correlate(fleet_group_builds)
)


class SqlSettingsStore:
    """``ports.SettingsStore`` in SQL."""

    def configuration(self, tx: Tx, account: AccountId) -> Configuration | None:
        row = _CONFIGURATION.first(tx, b_account=account)
        if row is None:
            return None
        things, connectivity, groups, packages, fields, group_fields = row
        return Configuration(
            things=bool(things),
            connectivity=bool(connectivity),
            groups=bool(groups),
            packages=bool(packages),
            fields=_fields(fields),
            group_fields=_fields(group_fields),
        )

    def save_configuration(self, tx: Tx, account: AccountId, configuration: Configuration) -> None:
        values = {
            "things": configuration.things,
            "connectivity": configuration.connectivity,
            "groups": configuration.groups,
            "packages": configuration.packages,
            "fields": _text(configuration.fields),
            "group_fields": _text(configuration.group_fields),
        }
        known = sql(tx).execute(update(fleet_settings).where(fleet_settings.c.account == account).values(**values))
        if not known.rowcount:
            sql(tx).execute(insert(fleet_settings).values(account=account, **values))

    def state(self, tx: Tx, account: AccountId, index: Index) -> IndexState | None:
        query = select(fleet_indices).where(*_is(account, index))
        row = sql(tx).execute(query).mappings().one_or_none()
        return None if row is None else _state(row)

    def save_state(self, tx: Tx, state: IndexState) -> None:
        values = {"phase": state.phase.value, "cursor": state.cursor, "built_at": state.built_at, "due_at": state.due_at}
        known = sql(tx).execute(update(fleet_indices).where(*_is(state.account, state.index)).values(**values))
        if not known.rowcount:
            sql(tx).execute(insert(fleet_indices).values(account=state.account, index_name=state.index.value, **values))

    def delete_state(self, tx: Tx, account: AccountId, index: Index) -> None:
        sql(tx).execute(delete(fleet_indices).where(*_is(account, index)))

    def has_step(self, tx: Tx, *, now: Instant) -> bool:
        index = select(fleet_indices.c.account).where(*_due(now))
        build = select(fleet_group_builds.c.account).where(exists(_BUILT))
        return sql(tx).execute(select(literal(1)).where(or_(exists(index), exists(build)))).first() is not None

    def unsettled(self, tx: Tx, *, now: Instant) -> IndexState | None:
        query = select(fleet_indices).where(*_due(now)).order_by(fleet_indices.c.account)
        row = sql(tx).execute(query.limit(1).with_for_update(skip_locked=True)).mappings().first()
        return None if row is None else _state(row)

    def with_connectivity(self, tx: Tx) -> Sequence[tuple[AccountId, int]]:
        query = (
            select(fleet_settings.c.account, fleet_indices.c.built_at)
            .join_from(fleet_settings, fleet_indices, fleet_indices.c.account == fleet_settings.c.account)
            .where(
                fleet_settings.c.connectivity,
                fleet_settings.c.things,
                fleet_indices.c.index_name == Index.THINGS.value,
                fleet_indices.c.phase.in_([Phase.ACTIVE.value, Phase.REBUILDING.value]),
            )
        )
        return [(AccountId(account), built_at or 0) for account, built_at in sql(tx).execute(query)]

    def build(self, tx: Tx) -> GroupBuild | None:
        query = select(fleet_group_builds).where(exists(_BUILT))
        query = query.order_by(fleet_group_builds.c.account, fleet_group_builds.c.group_name).limit(1)
        locked = query.with_for_update(skip_locked=True, of=fleet_group_builds)
        row = sql(tx).execute(locked).mappings().first()
        if row is None:
            return None
        return GroupBuild(
            account=AccountId(row["account"]),
            group=GroupName(row["group_name"]),
            phase=BuildPhase(row["phase"]),
            cursor=row["cursor"],
        )

    def save_build(self, tx: Tx, build: GroupBuild) -> None:
        table = fleet_group_builds
        values = {"phase": build.phase.value, "cursor": build.cursor}
        known = sql(tx).execute(
            update(table).where(table.c.account == build.account, table.c.group_name == build.group).values(**values)
        )
        if not known.rowcount:
            sql(tx).execute(insert(table).values(account=build.account, group_name=build.group, **values))

    def delete_build(self, tx: Tx, account: AccountId, group: GroupName) -> None:
        table = fleet_group_builds
        sql(tx).execute(delete(table).where(table.c.account == account, table.c.group_name == group))


def _is(account: AccountId, index: Index) -> tuple[Any, ...]:
    return fleet_indices.c.account == account, fleet_indices.c.index_name == index.value


def _due(now: Instant) -> tuple[Any, ...]:
    return fleet_indices.c.phase != Phase.ACTIVE.value, fleet_indices.c.due_at <= now


def _state(row: Any) -> IndexState:
    return IndexState(
        account=AccountId(row["account"]),
        index=Index(row["index_name"]),
        phase=Phase(row["phase"]),
        cursor=row["cursor"],
        built_at=None if row["built_at"] is None else Instant(row["built_at"]),
        due_at=Instant(row["due_at"]),
    )


def _text(fields: Sequence[Field]) -> str:
    return msgspec.json.encode([[field.name, field.type.value] for field in fields]).decode()


def _fields(text: str) -> tuple[Field, ...]:
    return tuple(Field(name, FieldType(type)) for name, type in msgspec.json.decode(text, type=list[tuple[str, str]]))
