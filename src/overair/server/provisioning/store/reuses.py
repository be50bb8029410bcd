"""Rows of certificates that may take a name over."""

from __future__ import annotations

from sqlalchemy import delete, insert, select

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, CertificateId
from overair.basics.work import Tx
from overair.server.provisioning.store.tables import approved_certificates
from overair.server.storage.work import sql


class SqlApprovalRows:
    """``reuse.ApprovalStore``."""

    def approved_at(self, tx: Tx, account: AccountId, certificate: CertificateId) -> Instant | None:
        table = approved_certificates
        wanted = select(table.c.approved_at).where(table.c.account == account, table.c.certificate_id == certificate)
        found = sql(tx).execute(wanted).scalar_one_or_none()
        return None if found is None else Instant(found)

    def put_approval(self, tx: Tx, account: AccountId, certificate: CertificateId, now: Instant) -> None:
        self.delete_approval(tx, account, certificate)
        sql(tx).execute(insert(approved_certificates).values(account=account, certificate_id=certificate, approved_at=now))

    def delete_approval(self, tx: Tx, account: AccountId, certificate: CertificateId) -> None:
        table = approved_certificates
        sql(tx).execute(delete(table).where(table.c.account == account, table.c.certificate_id == certificate))
