"""The tables of policies: inline ones, managed ones with versions, attachments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Column, Index, Integer, String, Table, Text, delete, func, insert, select, update
from sqlalchemy.engine import Row

from overair.basics.clock import Instant
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.access.model import ManagedPolicy, Owner, OwnerKind, PolicyVersion
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import sql

inline: Final = Table(
    "access_inline_policies",
    metadata,
    account_column(),
    Column("owner_kind", String(8), primary_key=True),
    Column("owner_name", String(64), primary_key=True),
    Column("policy_name", String(128), primary_key=True),
    Column("document", Text, nullable=False),
)

managed: Final = Table(
    "access_policies",
    metadata,
    account_column(),
    Column("name", String(128), primary_key=True),
    Column("path", String(512), nullable=False),
    Column("policy_id", String(32), nullable=False),
    Column("default_version", Integer, nullable=False),
    Column("newest_version", Integer, nullable=False),
    instant_column("created"),
    instant_column("updated"),
    Column("description", Text, nullable=False),
    Column("tags", Text, nullable=False),
)

versions: Final = Table(
    "access_policy_versions",
    metadata,
    account_column(),
    Column("policy_name", String(128), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("document", Text, nullable=False),
    instant_column("created"),
)

attachments: Final = Table(
    "access_policy_attachments",
    metadata,
    account_column(),
    Column("owner_kind", String(8), primary_key=True),
    Column("owner_name", String(64), primary_key=True),
    Column("policy_arn", String(2048), primary_key=True),
    Index("ix_access_policy_attachments_account_policy_arn", "account", "policy_arn"),
)


class SqlPolicyStore:
    """Policies of users, groups and roles in the records."""

    # Inline -----------------------------------------------------------------------------------------------------------

    def put_inline(self, tx: Tx, account: AccountId, owner: Owner, name: str, document: str) -> None:
        self.delete_inline(tx, account, owner, name)
        values = {"account": account, "owner_kind": owner.kind.value, "owner_name": owner.name}
        sql(tx).execute(insert(inline).values(**values, policy_name=name, document=document))

    def inline_of(self, tx: Tx, account: AccountId, owner: Owner) -> dict[str, str]:
        """Documents by name, in the order of names."""
        query = select(inline.c.policy_name, inline.c.document).where(*_owned(inline, account, owner))
        return {row.policy_name: row.document for row in sql(tx).execute(query.order_by(inline.c.policy_name))}

    def delete_inline(self, tx: Tx, account: AccountId, owner: Owner, name: str) -> bool:
        gone = delete(inline).where(*_owned(inline, account, owner), inline.c.policy_name == name)
        return sql(tx).execute(gone).rowcount > 0

    # Managed ----------------------------------------------------------------------------------------------------------

    def add_policy(self, tx: Tx, account: AccountId, policy: ManagedPolicy, document: str) -> None:
        sql(tx).execute(
            insert(managed).values(
                account=account,
                name=policy.name,
                path=policy.path,
                policy_id=policy.policy_id,
                default_version=policy.default_version,
                newest_version=policy.newest_version,
                created=policy.created,
                updated=policy.updated,
                description=policy.description,
                tags=json.dumps(dict(policy.tags)),
            )
        )
        self._add_version(tx, account, policy.name, policy.newest_version, document, policy.created)

    def find_policy(self, tx: Tx, account: AccountId, name: str) -> ManagedPolicy | None:
        row = sql(tx).execute(select(managed).where(managed.c.account == account, managed.c.name == name)).one_or_none()
        return None if row is None else _policy(row)

    def list_policies(
        self, tx: Tx, account: AccountId, *, path_prefix: str, after: str | None, limit: int
    ) -> list[ManagedPolicy]:
        query = select(managed).where(managed.c.account == account, managed.c.path.startswith(path_prefix, autoescape=True))
        if after is not None:
            query = query.where(managed.c.name > after)
        return [_policy(row) for row in sql(tx).execute(query.order_by(managed.c.name).limit(limit))]

    def count_policies(self, tx: Tx, account: AccountId) -> int:
        query = select(func.count()).select_from(managed).where(managed.c.account == account)
        return int(sql(tx).execute(query).scalar_one())

    def set_policy_tags(self, tx: Tx, account: AccountId, name: str, tags: Mapping[str, str]) -> None:
        change = update(managed).where(managed.c.account == account, managed.c.name == name)
        sql(tx).execute(change.values(tags=json.dumps(dict(tags))))

    def delete_policy(self, tx: Tx, account: AccountId, name: str) -> None:
        sql(tx).execute(delete(versions).where(versions.c.account == account, versions.c.policy_name == name))
        sql(tx).execute(delete(managed).where(managed.c.account == account, managed.c.name == name))

    def add_version(
        self, tx: Tx, account: AccountId, name: str, number: int, document: str, created: Instant, *, as_default: bool
    ) -> None:
        self._add_version(tx, account, name, number, document, created)
        change = update(managed).where(managed.c.account == account, managed.c.name == name)
        values: dict[str, Any] = {"newest_version": number, "updated": created}
        sql(tx).execute(change.values(**values, **({"default_version": number} if as_default else {})))

    def _add_version(self, tx: Tx, account: AccountId, name: str, number: int, document: str, created: Instant) -> None:
        values = {"account": account, "policy_name": name, "number": number, "document": document, "created": created}
        sql(tx).execute(insert(versions).values(**values))

    def versions_of(self, tx: Tx, account: AccountId, name: str) -> list[PolicyVersion]:
        """Newest first."""
        query = select(versions).where(versions.c.account == account, versions.c.policy_name == name)
        return [
            PolicyVersion(number=row.number, document=row.document, created=Instant(row.created))
            for row in sql(tx).execute(query.order_by(versions.c.number.desc()))
        ]

    def set_default_version(self, tx: Tx, account: AccountId, name: str, number: int, now: Instant) -> None:
        change = update(managed).where(managed.c.account == account, managed.c.name == name)
        sql(tx).execute(change.values(default_version=number, updated=now))

    def delete_version(self, tx: Tx, account: AccountId, name: str, number: int) -> None:
        chosen = (versions.c.account == account, versions.c.policy_name == name, versions.c.number == number)
        sql(tx).execute(delete(versions).where(*chosen))

    def default_documents(self, tx: Tx, account: AccountId, names: Sequence[str]) -> dict[str, str]:
        """The documents in force, by policy name."""
        query = (
            select(managed.c.name, versions.c.document)
            .join(
                versions,
                (versions.c.account == managed.c.account)
                & (versions.c.policy_name == managed.c.name)
                & (versions.c.number == managed.c.default_version),
            )
            .where(managed.c.account == account, managed.c.name.in_(list(names)))
        )
        return {row.name: row.document for row in sql(tx).execute(query)}

    # Attachments ------------------------------------------------------------------------------------------------------

    def attach(self, tx: Tx, account: AccountId, owner: Owner, arn: str) -> None:
        values = {"account": account, "owner_kind": owner.kind.value, "owner_name": owner.name, "policy_arn": arn}
        sql(tx).execute(insert(attachments).values(**values))

    def detach(self, tx: Tx, account: AccountId, owner: Owner, arn: str) -> bool:
        gone = delete(attachments).where(*_owned(attachments, account, owner), attachments.c.policy_arn == arn)
        return sql(tx).execute(gone).rowcount > 0

    def attached_to(self, tx: Tx, account: AccountId, owner: Owner) -> list[str]:
        """ARNs in order."""
        query = select(attachments.c.policy_arn).where(*_owned(attachments, account, owner))
        return [row.policy_arn for row in sql(tx).execute(query.order_by(attachments.c.policy_arn))]

    def attachment_counts(self, tx: Tx, account: AccountId, arns: Sequence[str]) -> dict[str, int]:
        query = (
            select(attachments.c.policy_arn, func.count().label("number"))
            .where(attachments.c.account == account, attachments.c.policy_arn.in_(list(arns)))
            .group_by(attachments.c.policy_arn)
        )
        return {row.policy_arn: row.number for row in sql(tx).execute(query)}

    def owners_of(self, tx: Tx, account: AccountId, arn: str) -> list[Owner]:
        """Whom a managed policy is attached to, by kind and name."""
        query = select(attachments.c.owner_kind, attachments.c.owner_name).where(
            attachments.c.account == account, attachments.c.policy_arn == arn
        )
        rows = sql(tx).execute(query.order_by(attachments.c.owner_kind, attachments.c.owner_name))
        return [Owner(kind=OwnerKind(row.owner_kind), name=row.owner_name) for row in rows]

    def attached_arns(self, tx: Tx, account: AccountId) -> list[str]:
        """Every managed policy that is attached to anybody."""
        query = select(attachments.c.policy_arn).where(attachments.c.account == account).distinct()
        return [row.policy_arn for row in sql(tx).execute(query.order_by(attachments.c.policy_arn))]

    def rename_owner(self, tx: Tx, account: AccountId, owner: Owner, new_name: str) -> None:
        for table in (inline, attachments):
            sql(tx).execute(update(table).where(*_owned(table, account, owner)).values(owner_name=new_name))


def _owned(table: Table, account: AccountId, owner: Owner) -> tuple[Any, ...]:
    return (table.c.account == account, table.c.owner_kind == owner.kind.value, table.c.owner_name == owner.name)


def _policy(row: Row[Any]) -> ManagedPolicy:
    return ManagedPolicy(
        arn=f"arn:aws:iam::{row.account}:policy{row.path}{row.name}",
        name=row.name,
        path=row.path,
        policy_id=row.policy_id,
        default_version=row.default_version,
        newest_version=row.newest_version,
        created=Instant(row.created),
        updated=Instant(row.updated),
        description=row.description,
        tags=json.loads(row.tags),
    )
