"""The table of audit records."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import BigInteger, Column, String, Table, Text, and_, insert, or_, select
from sqlalchemy.engine import Row

from overair.basics.clock import Instant
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.audit.model import AuditRecord
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
)

_insert = HotStatement(insert(records), columns=tuple(column.name for column in records.columns))


class SqlAuditStore:
    """Audit records in the records."""

    def add(self, tx: Tx, record: AuditRecord) -> None:
        _insert.run(tx, **asdict(record))

    def newest(
        self,
        tx: Tx,
        account: AccountId,
        *,
        before: tuple[Instant, str] | None,
        since: Instant | None,
        limit: int,
    ) -> list[AuditRecord]:
        query = select(records).where(records.c.account == account)
        if since is not None:
            query = query.where(records.c.at >= since)
        if before is not None:
            at, record_id = before
            query = query.where(or_(records.c.at < at, and_(records.c.at == at, records.c.record_id < record_id)))
        query = query.order_by(records.c.at.desc(), records.c.record_id.desc()).limit(limit)
        return [_record(row) for row in sql(tx).execute(query)]


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
    )
