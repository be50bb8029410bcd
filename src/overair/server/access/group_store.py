"""The tables of user groups: groups, and who is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Column, Index, String, Table, delete, func, insert, select, update
from sqlalchemy.engine import Row

from overair.basics.clock import Instant
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.access.model import UserGroup
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import sql

user_groups: Final = Table(
    "access_groups",
    metadata,
    account_column(),
    Column("name", String(64), primary_key=True),
    Column("path", String(512), nullable=False),
    Column("group_id", String(32), nullable=False),
    instant_column("created"),
)

members: Final = Table(
    "access_group_members",
    metadata,
    account_column(),
    Column("group_name", String(64), primary_key=True),
    Column("user_name", String(64), primary_key=True),
    Index("ix_access_group_members_account_user_name", "account", "user_name"),
)


class SqlUserGroupStore:
    """Groups of users in the records."""

    def add_group(self, tx: Tx, group: UserGroup) -> None:
        sql(tx).execute(
            insert(user_groups).values(
                account=group.account, name=group.name, path=group.path, group_id=group.group_id, created=group.created
            )
        )

    def find_group(self, tx: Tx, account: AccountId, name: str) -> UserGroup | None:
        query = select(user_groups).where(user_groups.c.account == account, user_groups.c.name == name)
        row = sql(tx).execute(query).one_or_none()
        return None if row is None else _group(row)

    def list_groups(self, tx: Tx, account: AccountId, *, path_prefix: str, after: str | None, limit: int) -> list[UserGroup]:
        query = select(user_groups).where(
            user_groups.c.account == account, user_groups.c.path.startswith(path_prefix, autoescape=True)
        )
        if after is not None:
            query = query.where(user_groups.c.name > after)
        return [_group(row) for row in sql(tx).execute(query.order_by(user_groups.c.name).limit(limit))]

    def count_groups(self, tx: Tx, account: AccountId) -> int:
        query = select(func.count()).select_from(user_groups).where(user_groups.c.account == account)
        return int(sql(tx).execute(query).scalar_one())

    def change_group(self, tx: Tx, account: AccountId, name: str, *, new_name: str, new_path: str) -> None:
        change = update(user_groups).where(user_groups.c.account == account, user_groups.c.name == name)
        sql(tx).execute(change.values(name=new_name, path=new_path))
        moved = update(members).where(members.c.account == account, members.c.group_name == name)
        sql(tx).execute(moved.values(group_name=new_name))

    def delete_group(self, tx: Tx, account: AccountId, name: str) -> None:
        sql(tx).execute(delete(user_groups).where(user_groups.c.account == account, user_groups.c.name == name))

    # Members ----------------------------------------------------------------------------------------------------------

    def add_member(self, tx: Tx, account: AccountId, group: str, user: str) -> None:
        sql(tx).execute(insert(members).values(account=account, group_name=group, user_name=user))

    def remove_member(self, tx: Tx, account: AccountId, group: str, user: str) -> bool:
        chosen = (members.c.account == account, members.c.group_name == group, members.c.user_name == user)
        return sql(tx).execute(delete(members).where(*chosen)).rowcount > 0

    def members_of(self, tx: Tx, account: AccountId, group: str, *, after: str | None, limit: int) -> Sequence[str]:
        """Names of users, in order."""
        query = select(members.c.user_name).where(members.c.account == account, members.c.group_name == group)
        if after is not None:
            query = query.where(members.c.user_name > after)
        return [row.user_name for row in sql(tx).execute(query.order_by(members.c.user_name).limit(limit))]

    def groups_of(self, tx: Tx, account: AccountId, user: str) -> Sequence[str]:
        """Names of the groups that a user is in, in order."""
        query = select(members.c.group_name).where(members.c.account == account, members.c.user_name == user)
        return [row.group_name for row in sql(tx).execute(query.order_by(members.c.group_name))]

    def rename_member(self, tx: Tx, account: AccountId, user: str, new_name: str) -> None:
        change = update(members).where(members.c.account == account, members.c.user_name == user)
        sql(tx).execute(change.values(user_name=new_name))


def _group(row: Row[Any]) -> UserGroup:
    return UserGroup(
        account=AccountId(row.account), name=row.name, path=row.path, group_id=row.group_id, created=Instant(row.created)
    )
