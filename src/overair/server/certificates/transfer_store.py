"""Rows of certificates that change hands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select, tuple_

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, CertificateId
from overair.basics.work import Tx
from overair.server.certificates.model import CertificateTransfer
from overair.server.certificates.tables import certificate_transfers, device_certificates
from overair.server.storage.work import sql


class SqlTransferStore:
    """``transfers.TransferStore``."""

    def find_transfer(self, tx: Tx, certificate: CertificateId) -> CertificateTransfer | None:
        table = certificate_transfers
        row = sql(tx).execute(select(*table.c).where(table.c.certificate_id == certificate)).one_or_none()
        return None if row is None else _transfer(row)

    def put_transfer(self, tx: Tx, transfer: CertificateTransfer) -> None:
        self.delete_transfer(tx, transfer.certificate_id)
        sql(tx).execute(
            insert(certificate_transfers).values(
                account=transfer.account,
                certificate_id=transfer.certificate_id,
                source=transfer.source,
                target=transfer.target,
                message=transfer.message,
                transferred_at=transfer.transferred_at,
                accepted_at=transfer.accepted_at,
                rejected_at=transfer.rejected_at,
                reject_reason=transfer.reject_reason,
            )
        )

    def delete_transfer(self, tx: Tx, certificate: CertificateId) -> None:
        table = certificate_transfers
        sql(tx).execute(delete(table).where(table.c.certificate_id == certificate))

    def count_outgoing(self, tx: Tx, account: AccountId) -> int:
        table = certificate_transfers
        wanted = select(func.count()).select_from(table).where(table.c.account == account, *_pending())
        return int(sql(tx).execute(wanted).scalar_one())

    def outgoing(
        self, tx: Tx, account: AccountId, *, after: tuple[int, str] | None, limit: int, ascending: bool
    ) -> Sequence[tuple[CertificateTransfer, int]]:
        table, certificates = certificate_transfers, device_certificates
        wanted = (
            select(*table.c, certificates.c.created_at)
            .join_from(
                table,
                certificates,
                (certificates.c.account == table.c.account) & (certificates.c.id == table.c.certificate_id),
            )
            .where(table.c.account == account, *_pending())
        )
        order = tuple_(certificates.c.created_at, certificates.c.id)
        if after is not None:
            wanted = wanted.where(order > after if ascending else order < after)
        columns = (certificates.c.created_at, certificates.c.id)
        rows = sql(tx).execute(wanted.order_by(*(each if ascending else each.desc() for each in columns)).limit(limit))
        return [(_transfer(row), row.created_at) for row in rows]


def _pending() -> tuple[Any, ...]:
    table = certificate_transfers
    return table.c.accepted_at.is_(None), table.c.rejected_at.is_(None)


def _transfer(row: Any) -> CertificateTransfer:
    return CertificateTransfer(
        account=AccountId(row.account),
        certificate_id=CertificateId(row.certificate_id),
        source=AccountId(row.source),
        target=AccountId(row.target),
        message=row.message,
        transferred_at=Instant(row.transferred_at),
        accepted_at=None if row.accepted_at is None else Instant(row.accepted_at),
        rejected_at=None if row.rejected_at is None else Instant(row.rejected_at),
        reject_reason=row.reject_reason,
    )
