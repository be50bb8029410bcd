"""Groups, who is in them, and which lies in which.

``thing_group_ancestors`` holds, for each group, itself and every group above it: so members with nested groups are one join,
not a recursion. A group's parent never changes, so the rows are written once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    Select,
    String,
    Table,
    Text,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, GroupName, ThingName
from overair.basics.work import Tx
from overair.server.devices.model import DynamicQuery, DynamicStatus, GroupQuery, ThingGroup
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import HotStatement, is_writable, sql

thing_groups: Final = Table(
    "thing_groups",
    metadata,
    account_column(),
    Column("name", String(128), primary_key=True),
    Column("id", String(36), nullable=False),
    Column("parent", String(128), nullable=True),
    Column("description", Text, nullable=False),
    Column("attributes", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    instant_column("created_at"),
    # Of a dynamic group alone.
    Column("index_name", String(32), nullable=True),
    Column("query", Text, nullable=True),
    Column("query_version", String(16), nullable=True),
    Column("query_status", String(16), nullable=True),
    # What the attributes say, where it can be found.
    Column("signing_rule", String(16), nullable=True),
    Index("ix_thing_groups_account_query_version", "account", "query_version"),
    Index("ix_thing_groups_account_parent_name", "account", "parent", "name"),
    Index("ix_thing_groups_account_id", "account", "id"),
    Index("ix_thing_groups_account_signing_rule", "account", "signing_rule"),
)

thing_group_ancestors: Final = Table(
    "thing_group_ancestors",
    metadata,
    account_column(),
    Column("ancestor", String(128), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("distance", Integer, nullable=False),
    Index("ix_thing_group_ancestors_account_name", "account", "name"),
)

thing_group_members: Final = Table(
    "thing_group_members",
    metadata,
    account_column(),
    Column("group_name", String(128), primary_key=True),
    Column("thing", String(128), primary_key=True),
    Index("ix_thing_group_members_account_thing_group_name", "account", "thing", "group_name"),
)

_BEYOND: Final = "\x7f"

# A large job asks for a thousand members a step.
_some_members: Final = (
    select(thing_group_members.c.thing)
    .where(thing_group_members.c.account == bindparam("b_account"), thing_group_members.c.thing > bindparam("b_after"))
    .order_by(thing_group_members.c.thing)
    .limit(bindparam("b_limit"))
)
_members: Final = HotStatement(_some_members.where(thing_group_members.c.group_name == bindparam("b_group")))
_members_of_all_below: Final = HotStatement(
    _some_members.where(
        thing_group_members.c.group_name.in_(
            select(thing_group_ancestors.c.name)
            .where(thing_group_ancestors.c.account == bindparam("b_account"))
            .where(thing_group_ancestors.c.ancestor == bindparam("b_group"))
        )
    ).distinct()
)


_any_rule: Final = HotStatement(
    select(thing_groups.c.name)
    .where(thing_groups.c.account == bindparam("b_account"), thing_groups.c.signing_rule > "")
    .limit(1)
)


class SqlGroupStore:
    """Groups in SQL."""

    def name_of(self, tx: Tx, account: AccountId, group_id: str) -> GroupName | None:
        query = select(thing_groups.c.name).where(thing_groups.c.account == account, thing_groups.c.id == group_id)
        found = sql(tx).execute(query).scalar()
        return None if found is None else GroupName(found)

    def find(self, tx: Tx, account: AccountId, group: GroupName) -> ThingGroup | None:
        table = thing_groups
        row = sql(tx).execute(select(table).where(table.c.account == account, table.c.name == group)).mappings().one_or_none()
        return None if row is None else _group(row)

    def insert(self, tx: Tx, group: ThingGroup) -> None:
        sql(tx).execute(
            insert(thing_groups).values(
                account=group.account,
                name=group.name,
                id=group.id,
                parent=group.parent,
                description=group.description,
                attributes=_json(dict(group.attributes)),
                version=group.version,
                created_at=group.created_at,
                signing_rule=group.signing_rule,
                **_dynamic_columns(group.dynamic),
            )
        )
        line = thing_group_ancestors
        sql(tx).execute(insert(line).values(account=group.account, name=group.name, ancestor=group.name, distance=0))
        if group.parent is not None:
            above = select(line.c.account, line.c.ancestor, literal(group.name, String(128)), line.c.distance + 1).where(
                line.c.account == group.account, line.c.name == group.parent
            )
            sql(tx).execute(insert(line).from_select(["account", "ancestor", "name", "distance"], above))

    def update(self, tx: Tx, group: ThingGroup) -> None:
        sql(tx).execute(
            update(thing_groups)
            .where(thing_groups.c.account == group.account, thing_groups.c.name == group.name)
            .values(
                description=group.description,
                attributes=_json(dict(group.attributes)),
                version=group.version,
                signing_rule=group.signing_rule,
                **_dynamic_columns(group.dynamic),
            )
        )

    def delete(self, tx: Tx, account: AccountId, group: GroupName) -> None:
        for table, column in (
            (thing_group_members, thing_group_members.c.group_name),
            (thing_group_ancestors, thing_group_ancestors.c.name),
            (thing_groups, thing_groups.c.name),
        ):
            sql(tx).execute(delete(table).where(table.c.account == account, column == group))

    def dynamic_groups(self, tx: Tx, account: AccountId) -> Sequence[ThingGroup]:
        table = thing_groups
        # A range, and put in order here: so SQLite walks the index of dynamic groups, not all groups.
        wanted = select(table).where(table.c.account == account, table.c.query_version > "")
        # Shared with others who judge a thing; whoever changes a query waits for them, and judges what they wrote.
        rows = sql(tx).execute(wanted.with_for_update(read=True) if is_writable(tx) else wanted).mappings()
        return sorted((_group(row) for row in rows), key=lambda group: group.name)

    def ancestors(self, tx: Tx, account: AccountId, group: GroupName) -> Sequence[GroupName]:
        line = thing_group_ancestors
        rows = sql(tx).execute(
            select(line.c.ancestor)
            .where(line.c.account == account, line.c.name == group, line.c.distance > 0)
            .order_by(line.c.distance.desc())
        )
        return [GroupName(name) for (name,) in rows]

    def count_children(self, tx: Tx, account: AccountId, group: GroupName) -> int:
        table = thing_groups
        return int(
            sql(tx)
            .execute(select(func.count()).select_from(table).where(table.c.account == account, table.c.parent == group))
            .scalar_one()
        )

    def page(self, tx: Tx, account: AccountId, query: GroupQuery, *, after: str | None, limit: int) -> Sequence[GroupName]:
        table, line = thing_groups, thing_group_ancestors
        wanted = select(table.c.name).where(table.c.account == account)
        if query.parent is not None and query.recursive:
            below = select(line.c.name).where(line.c.account == account, line.c.ancestor == query.parent, line.c.distance > 0)
            wanted = wanted.where(table.c.name.in_(below))
        elif query.parent is not None:
            wanted = wanted.where(table.c.parent == query.parent)
        elif query.recursive is False:
            wanted = wanted.where(table.c.parent.is_(None))
        if query.name_prefix:
            wanted = wanted.where(table.c.name >= query.name_prefix, table.c.name < query.name_prefix + _BEYOND)
        if after is not None:
            wanted = wanted.where(table.c.name > after)
        return [GroupName(name) for (name,) in sql(tx).execute(wanted.order_by(table.c.name).limit(limit))]

    def add(self, tx: Tx, account: AccountId, group: GroupName, thing: ThingName) -> None:
        sql(tx).execute(insert(thing_group_members).values(account=account, group_name=group, thing=thing))

    def remove(self, tx: Tx, account: AccountId, group: GroupName, thing: ThingName) -> bool:
        table = thing_group_members
        gone = sql(tx).execute(
            delete(table).where(table.c.account == account, table.c.group_name == group, table.c.thing == thing)
        )
        return gone.rowcount > 0

    def direct_groups(
        self, tx: Tx, account: AccountId, thing: ThingName, *, after: str | None = None, limit: int
    ) -> Sequence[GroupName]:
        table = thing_group_members
        wanted = select(table.c.group_name).where(table.c.account == account, table.c.thing == thing)
        if after is not None:
            wanted = wanted.where(table.c.group_name > after)
        return [GroupName(name) for (name,) in sql(tx).execute(wanted.order_by(table.c.group_name).limit(limit))]

    def all_groups(self, tx: Tx, account: AccountId, thing: ThingName) -> frozenset[GroupName]:
        member, line = thing_group_members, thing_group_ancestors
        # Not a join: SQLite would begin with all the groups that there are.
        direct = select(member.c.group_name).where(member.c.account == account, member.c.thing == thing)
        rows = sql(tx).execute(select(line.c.ancestor).where(line.c.account == account, line.c.name.in_(direct)))
        return frozenset(GroupName(name) for (name,) in rows)

    def ruled_kin(self, tx: Tx, account: AccountId, group: GroupName) -> GroupName | None:
        line = thing_group_ancestors
        above = select(line.c.ancestor).where(line.c.account == account, line.c.name == group)
        below = select(line.c.name).where(line.c.account == account, line.c.ancestor == group)
        for kin in (above, below):
            wanted = _ruled(account).where(thing_groups.c.name.in_(kin)).order_by(thing_groups.c.name).limit(1)
            found = sql(tx).execute(wanted).scalar()
            if found is not None:
                return GroupName(found)
        return None

    def ruled_member(self, tx: Tx, account: AccountId, group: GroupName) -> ThingName | None:
        if not self._has_rule(tx, account):
            return None
        table, line = thing_group_members, thing_group_ancestors
        below = select(line.c.name).where(line.c.account == account, line.c.ancestor == group)
        members = select(table.c.thing).where(table.c.account == account, table.c.group_name.in_(below))
        found = sql(tx).execute(_covered(account).where(table.c.thing.in_(members)).limit(1)).scalar()
        return None if found is None else ThingName(found)

    def ruled_groups_of(self, tx: Tx, account: AccountId, thing: ThingName) -> Sequence[GroupName]:
        wanted = _ruled(account).order_by(thing_groups.c.name)
        ruled = [GroupName(name) for (name,) in sql(tx).execute(wanted)]
        groups = self.all_groups(tx, account, thing) if ruled else frozenset()
        return [name for name in ruled if name in groups]

    def ruled_among(self, tx: Tx, account: AccountId, things: Sequence[ThingName]) -> frozenset[ThingName]:
        if not things or not self._has_rule(tx, account):
            return frozenset()
        rows = sql(tx).execute(_covered(account).where(thing_group_members.c.thing.in_(things)))
        return frozenset(ThingName(name) for (name,) in rows)

    def _has_rule(self, tx: Tx, account: AccountId) -> bool:
        """Asked for each piece of a job: one look into an index, as long as there is no rule."""
        return _any_rule.all(tx, b_account=account) != []

    def members(
        self, tx: Tx, account: AccountId, group: GroupName, *, nested: bool, after: str | None, limit: int
    ) -> Sequence[ThingName]:
        members = _members_of_all_below if nested else _members
        # No name is empty, so all are behind it.
        rows = members.all(tx, b_account=account, b_group=group, b_after=after or "", b_limit=limit)
        return [ThingName(name) for (name,) in rows]


def _ruled(account: AccountId) -> Select[str]:
    """Names of groups with a signing rule."""
    # A range, not "is there": so SQLite walks the index of rules, not all groups.
    return select(thing_groups.c.name).where(thing_groups.c.account == account, thing_groups.c.signing_rule > "")


def _covered(account: AccountId) -> Select[str]:
    """Things in groups with a signing rule and in the groups below those, each once."""
    table, line = thing_group_members, thing_group_ancestors
    groups = select(line.c.name).where(line.c.account == account, line.c.ancestor.in_(_ruled(account)))
    return select(table.c.thing).where(table.c.account == account, table.c.group_name.in_(groups)).distinct()


def _group(row: Any) -> ThingGroup:
    return ThingGroup(
        account=AccountId(row["account"]),
        name=GroupName(row["name"]),
        id=row["id"],
        parent=None if row["parent"] is None else GroupName(row["parent"]),
        description=row["description"],
        attributes=msgspec.json.decode(row["attributes"], type=dict[str, str]),
        version=row["version"],
        created_at=Instant(row["created_at"]),
        dynamic=_dynamic(row),
    )


def _dynamic(row: Any) -> DynamicQuery | None:
    if row["query_version"] is None:
        return None
    return DynamicQuery(
        index_name=row["index_name"],
        text=row["query"],
        version=row["query_version"],
        status=DynamicStatus(row["query_status"]),
    )


def _dynamic_columns(dynamic: DynamicQuery | None) -> dict[str, str | None]:
    if dynamic is None:
        return {}
    return {
        "index_name": dynamic.index_name,
        "query": dynamic.text,
        "query_version": dynamic.version,
        "query_status": dynamic.status.value,
    }


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
