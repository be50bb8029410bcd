"""Device policies, their versions and attachments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Column, Index, Integer, String, Table, Text, and_, delete, insert, or_, select, tuple_, update

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, PolicyName
from overair.basics.work import Tx
from overair.server.devices.model import DevicePolicyRecord, PolicyTarget, PolicyVersion, TargetKind
from overair.server.storage.schema import account_column, instant_column, metadata
from overair.server.storage.work import sql

device_policies: Final = Table(
    "device_policies",
    metadata,
    account_column(),
    Column("name", String(128), primary_key=True),
    Column("default_version", Integer, nullable=False),
    Column("last_version", Integer, nullable=False),
    instant_column("created_at"),
    instant_column("modified_at"),
    Column("generation_id", String(36), nullable=False),
    Index("ix_device_policies_account_created_at_name", "account", "created_at", "name"),
)

device_policy_versions: Final = Table(
    "device_policy_versions",
    metadata,
    account_column(),
    Column("policy", String(128), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("document", Text, nullable=False),
    instant_column("created_at"),
)

device_policy_attachments: Final = Table(
    "device_policy_attachments",
    metadata,
    account_column(),
    Column("target_kind", String(16), primary_key=True),
    Column("target_name", String(128), primary_key=True),
    Column("policy", String(128), primary_key=True),
    Index("ix_device_policy_attachments_account_policy", "account", "policy", "target_kind", "target_name"),
)


class SqlPolicyStore:
    """Device policies in SQL."""

    def find(self, tx: Tx, account: AccountId, policy: PolicyName) -> DevicePolicyRecord | None:
        table, version = device_policies, device_policy_versions
        row = (
            sql(tx)
            .execute(
                select(table, version.c.document)
                .join_from(
                    table,
                    version,
                    (version.c.account == table.c.account)
                    & (version.c.policy == table.c.name)
                    & (version.c.version == table.c.default_version),
                )
                .where(table.c.account == account, table.c.name == policy)
            )
            .mappings()
            .one_or_none()
        )
        if row is None:
            return None
        return DevicePolicyRecord(
            account=account,
            name=policy,
            default_version=row["default_version"],
            last_version=row["last_version"],
            document=row["document"],
            created_at=Instant(row["created_at"]),
            modified_at=Instant(row["modified_at"]),
            generation_id=row["generation_id"],
        )

    def insert(self, tx: Tx, policy: DevicePolicyRecord) -> None:
        sql(tx).execute(
            insert(device_policies).values(
                account=policy.account,
                name=policy.name,
                default_version=policy.default_version,
                last_version=policy.last_version,
                created_at=policy.created_at,
                modified_at=policy.modified_at,
                generation_id=policy.generation_id,
            )
        )
        self.insert_version(
            tx,
            policy.account,
            PolicyVersion(
                policy=policy.name,
                version=policy.default_version,
                document=policy.document,
                created_at=policy.created_at,
                is_default=True,
            ),
        )

    def update(self, tx: Tx, policy: DevicePolicyRecord) -> None:
        table = device_policies
        sql(tx).execute(
            update(table)
            .where(table.c.account == policy.account, table.c.name == policy.name)
            .values(default_version=policy.default_version, last_version=policy.last_version, modified_at=policy.modified_at)
        )

    def delete(self, tx: Tx, account: AccountId, policy: PolicyName) -> None:
        version, table = device_policy_versions, device_policies
        sql(tx).execute(delete(version).where(version.c.account == account, version.c.policy == policy))
        sql(tx).execute(delete(table).where(table.c.account == account, table.c.name == policy))

    def page(
        self, tx: Tx, account: AccountId, *, after: tuple[int, str] | None, limit: int, ascending: bool
    ) -> Sequence[tuple[Instant, PolicyName]]:
        table = device_policies
        order = tuple_(table.c.created_at, table.c.name)
        wanted = select(table.c.created_at, table.c.name).where(table.c.account == account)
        if after is not None:
            wanted = wanted.where(order > after if ascending else order < after)
        columns = (table.c.created_at, table.c.name)
        wanted = wanted.order_by(*(column.asc() if ascending else column.desc() for column in columns)).limit(limit)
        return [(Instant(created_at), PolicyName(name)) for created_at, name in sql(tx).execute(wanted)]

    def insert_version(self, tx: Tx, account: AccountId, version: PolicyVersion) -> None:
        sql(tx).execute(
            insert(device_policy_versions).values(
                account=account,
                policy=version.policy,
                version=version.version,
                document=version.document,
                created_at=version.created_at,
            )
        )

    def find_version(self, tx: Tx, account: AccountId, policy: PolicyName, version: int) -> PolicyVersion | None:
        table = device_policy_versions
        found = self._versions(tx, account, policy, table.c.version == version)
        return found[0] if found else None

    def versions(self, tx: Tx, account: AccountId, policy: PolicyName) -> Sequence[PolicyVersion]:
        return self._versions(tx, account, policy)

    def delete_version(self, tx: Tx, account: AccountId, policy: PolicyName, version: int) -> None:
        table = device_policy_versions
        sql(tx).execute(delete(table).where(table.c.account == account, table.c.policy == policy, table.c.version == version))

    def attach(self, tx: Tx, account: AccountId, policy: PolicyName, target: PolicyTarget) -> None:
        self.detach(tx, account, policy, target)
        sql(tx).execute(
            insert(device_policy_attachments).values(
                account=account, target_kind=target.kind.value, target_name=target.name, policy=policy
            )
        )

    def detach(self, tx: Tx, account: AccountId, policy: PolicyName, target: PolicyTarget) -> bool:
        table = device_policy_attachments
        gone = sql(tx).execute(
            delete(table).where(
                table.c.account == account,
                table.c.target_kind == target.kind.value,
                table.c.target_name == target.name,
                table.c.policy == policy,
            )
        )
        return gone.rowcount > 0

    def detach_all(self, tx: Tx, account: AccountId, target: PolicyTarget) -> None:
        table = device_policy_attachments
        sql(tx).execute(
            delete(table).where(
                table.c.account == account, table.c.target_kind == target.kind.value, table.c.target_name == target.name
            )
        )

    def attached(
        self, tx: Tx, account: AccountId, targets: Sequence[PolicyTarget], *, after: str | None = None, limit: int
    ) -> Sequence[PolicyName]:
        if not targets:
            return []
        table = device_policy_attachments
        names: dict[TargetKind, list[str]] = {}
        for target in targets:
            names.setdefault(target.kind, []).append(target.name)
        wanted = select(table.c.policy).where(
            table.c.account == account,
            or_(*(and_(table.c.target_kind == kind.value, table.c.target_name.in_(of)) for kind, of in names.items())),
        )
        if after is not None:
            wanted = wanted.where(table.c.policy > after)
        rows = sql(tx).execute(wanted.distinct().order_by(table.c.policy).limit(limit))
        return [PolicyName(name) for (name,) in rows]

    def has_any(self, tx: Tx, account: AccountId, targets: Sequence[PolicyTarget]) -> bool:
        table = device_policy_attachments
        # Without an order: SQLite would walk all attachments in that order to find these.
        return any(
            sql(tx)
            .execute(
                select(table.c.policy)
                .where(table.c.account == account, table.c.target_kind == target.kind.value, table.c.target_name == target.name)
                .limit(1)
            )
            .first()
            is not None
            for target in targets
        )

    def targets(
        self, tx: Tx, account: AccountId, policy: PolicyName, *, after: tuple[str, str] | None = None, limit: int
    ) -> Sequence[PolicyTarget]:
        table = device_policy_attachments
        order = tuple_(table.c.target_kind, table.c.target_name)
        wanted = select(table.c.target_kind, table.c.target_name).where(table.c.account == account, table.c.policy == policy)
        if after is not None:
            wanted = wanted.where(order > after)
        rows = sql(tx).execute(wanted.order_by(table.c.target_kind, table.c.target_name).limit(limit))
        return [PolicyTarget(kind=TargetKind(kind), name=name) for kind, name in rows]

    def _versions(self, tx: Tx, account: AccountId, policy: PolicyName, *conditions: Any) -> list[PolicyVersion]:
        table, owner = device_policy_versions, device_policies
        rows = sql(tx).execute(
            select(table.c.version, table.c.document, table.c.created_at, owner.c.default_version)
            .join_from(table, owner, (owner.c.account == table.c.account) & (owner.c.name == table.c.policy))
            .where(table.c.account == account, table.c.policy == policy, *conditions)
            .order_by(table.c.version.desc())
        )
        return [
            PolicyVersion(
                policy=policy,
                version=version,
                document=document,
                created_at=Instant(created_at),
                is_default=version == default_version,
            )
            for version, document, created_at, default_version in rows
        ]
