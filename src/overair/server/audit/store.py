"""The table of audit records."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    String,
    Table,
    Text,
    and_,
    bindparam,
    func,
    insert,
    or_,
    select,
    tuple_,
)
from sqlalchemy.engine import Row

from overair.basics.clock import Instant
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.audit.model import AuditKind, AuditRecord, Reached, beginning, link
from overair.server.storage.schema import account_column, metadata
from overair.server.storage.work import HotStatement, sql

records: Final = Table(
    "audit_records",
    metadata,
    account_column(),
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("record_id", String(36), primary_key=True),
    Column("principal_arn", String(2048), nullable=False),
    Column("access_key_id", String(32), nullable=False),
    Column("service", String(32), nullable=False),
    Column("operation", String(64), nullable=False),
    Column("resource", Text, nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("source_ip", String(64), nullable=False),
    Column("kind", String(16), nullable=False, server_default="change"),
    Column("times", Integer, nullable=False, server_default="1"),
    Column("sequence", BigInteger, nullable=False, server_default="0"),
    Column("chain_hash", String(64), nullable=False, server_default=""),
    Index("ix_audit_records_account_sequence", "account", "sequence"),
    Index("ix_audit_records_account_kind_at", "account", "kind", "at"),
)

_COLUMNS: Final = tuple(column.name for column in records.columns)
_insert = HotStatement(insert(records), columns=_COLUMNS)
_highest = select(func.max(records.c.sequence)).where(records.c.account == bindparam("b_account")).scalar_subquery()
_last = HotStatement(
    select(records.c.sequence, records.c.chain_hash).where(
        records.c.account == bindparam("b_account"), records.c.sequence == _highest
    )
)


class SqlAuditStore:
    """Audit records in the records: added and read, never changed. One writer at a time has the whole database (ADR 0004,
    0017), so no two rows can follow the same one."""

    def add(self, tx: Tx, record: AuditRecord) -> None:
        self.add_many(tx, record.account, [record])

    def add_many(self, tx: Tx, account: AccountId, new: Sequence[AuditRecord]) -> None:
        reached = self.reached(tx, account)
        sequence, chain_hash = reached.sequence, reached.chain_hash
        rows = []
        for record in new:
            sequence += 1
            chained = replace(record, sequence=sequence)
            chain_hash = link(chain_hash, chained)
            # Shallow: each column is one value, and ``asdict`` would copy it.
            rows.append({name: getattr(chained, name) for name in _COLUMNS} | {"chain_hash": chain_hash})
        _insert.run_many(tx, rows)

    def reached(self, tx: Tx, account: AccountId) -> Reached:
        found = _last.first(tx, b_account=account)
        if found is not None and found[0] > 0:
            return Reached(account=account, sequence=found[0], chain_hash=found[1])
        earlier = select(records).where(records.c.account == account).order_by(records.c.at, records.c.record_id)
        return Reached(
            account=account, sequence=0, chain_hash=beginning(account, (_record(row) for row in sql(tx).execute(earlier)))
        )

    def newest(
        self,
        tx: Tx,
        account: AccountId,
        *,
        before: tuple[Instant, str] | None,
        since: Instant | None,
        limit: int,
        kinds: Collection[AuditKind] = (AuditKind.CHANGE,),
    ) -> list[AuditRecord]:
        query = select(records).where(records.c.account == account, records.c.kind.in_([kind.value for kind in kinds]))
        if since is not None:
            query = query.where(records.c.at >= since)
        if before is not None:
            at, record_id = before
            query = query.where(or_(records.c.at < at, and_(records.c.at == at, records.c.record_id < record_id)))
        query = query.order_by(records.c.at.desc(), records.c.record_id.desc()).limit(limit)
        return [_record(row) for row in sql(tx).execute(query)]

    def in_chain_order(
        self, tx: Tx, account: AccountId, *, after: tuple[int, Instant, str] | None, limit: int
    ) -> list[AuditRecord]:
        order = (records.c.sequence, records.c.at, records.c.record_id)
        query = select(records).where(records.c.account == account)
        if after is not None:
            query = query.where(tuple_(*order) > tuple_(*after))
        return [_record(row) for row in sql(tx).execute(query.order_by(*order).limit(limit))]


def _record(row: Row[Any]) -> AuditRecord:
    return AuditRecord(
        account=AccountId(row.account),
        at=Instant(row.at),
        record_id=row.record_id,
        principal_arn=row.principal_arn,
        access_key_id=row.access_key_id,
        service=row.service,
        operation=row.operation,
        resource=row.resource,
        request_id=row.request_id,
        source_ip=row.source_ip,
        kind=row.kind,
        times=row.times,
        sequence=row.sequence,
        chain_hash=row.chain_hash,
    )
