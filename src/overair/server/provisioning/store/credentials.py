"""Rows of shared credentials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import bindparam, func, insert, or_, select, tuple_, update

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, CertificateId, PolicyName
from overair.basics.work import Tx
from overair.server.provisioning.model import CredentialId, DeviceKeyType, SharedCredential
from overair.server.provisioning.store.tables import shared_credentials
from overair.server.storage.work import HotStatement, sql

_CREDENTIAL_BY_CERTIFICATE: Final = HotStatement(
    select(*shared_credentials.c).where(shared_credentials.c.certificate_id == bindparam("b_certificate"))
)


class SqlCredentialRows:
    """``ports.CredentialStore``."""

    def find_credential(self, tx: Tx, account: AccountId, credential: CredentialId) -> SharedCredential | None:
        table = shared_credentials
        row = sql(tx).execute(select(*table.c).where(table.c.account == account, table.c.id == credential)).one_or_none()
        return None if row is None else _credential(row)

    def find_credential_by_certificate(self, tx: Tx, certificate: CertificateId) -> SharedCredential | None:
        row = _CREDENTIAL_BY_CERTIFICATE.first(tx, b_certificate=certificate)
        return None if row is None else _credential(row)

    def insert_credential(self, tx: Tx, credential: SharedCredential) -> None:
        sql(tx).execute(
            insert(shared_credentials).values(
                account=credential.account,
                id=credential.id,
                certificate_id=credential.certificate_id,
                name=credential.name,
                created_at=credential.created_at,
                created_by=credential.created_by,
                expires_at=credential.expires_at,
                uses_max=credential.uses_max,
                uses=credential.uses,
                revoked_at=credential.revoked_at,
                key_type=credential.key_type.value,
                certificate_days_max=credential.certificate_days_max,
                devices_per_minute=credential.devices_per_minute,
                policy=credential.policy,
            )
        )

    def count_use(self, tx: Tx, account: AccountId, credential: CredentialId) -> bool:
        table = shared_credentials
        touched = sql(tx).execute(
            update(table)
            .where(
                table.c.account == account,
                table.c.id == credential,
                or_(table.c.uses_max.is_(None), table.c.uses < table.c.uses_max),
            )
            .values(uses=table.c.uses + 1)
        )
        return touched.rowcount > 0

    def revoke_credential(self, tx: Tx, account: AccountId, credential: CredentialId, now: Instant) -> None:
        table = shared_credentials
        sql(tx).execute(
            update(table)
            .where(table.c.account == account, table.c.id == credential, table.c.revoked_at.is_(None))
            .values(revoked_at=now)
        )

    def revoke_all_credentials(self, tx: Tx, account: AccountId, now: Instant) -> int:
        table = shared_credentials
        return (
            sql(tx)
            .execute(update(table).where(table.c.account == account, table.c.revoked_at.is_(None)).values(revoked_at=now))
            .rowcount
        )

    def count_usable(self, tx: Tx, account: AccountId, now: Instant) -> int:
        table = shared_credentials
        return int(
            sql(tx)
            .execute(
                select(func.count())
                .select_from(table)
                .where(
                    table.c.account == account,
                    table.c.revoked_at.is_(None),
                    table.c.expires_at >= now,
                    or_(table.c.uses_max.is_(None), table.c.uses < table.c.uses_max),
                )
            )
            .scalar_one()
        )

    def page_credentials(
        self, tx: Tx, account: AccountId, *, after: tuple[int, str] | None, limit: int
    ) -> Sequence[SharedCredential]:
        table = shared_credentials
        wanted = select(*table.c).where(table.c.account == account)
        if after is not None:
            wanted = wanted.where(tuple_(table.c.created_at, table.c.id) < after)
        rows = sql(tx).execute(wanted.order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit))
        return [_credential(row) for row in rows]


def _credential(row: Sequence[Any]) -> SharedCredential:
    (
        account,
        identity,
        certificate_id,
        name,
        created_at,
        created_by,
        expires_at,
        uses_max,
        uses,
        revoked_at,
        key_type,
        certificate_days_max,
        devices_per_minute,
        policy,
    ) = row
    return SharedCredential(
        account=AccountId(account),
        id=CredentialId(identity),
        certificate_id=CertificateId(certificate_id),
        name=name,
        created_at=Instant(created_at),
        created_by=created_by,
        expires_at=Instant(expires_at),
        uses_max=uses_max,
        uses=uses,
        revoked_at=None if revoked_at is None else Instant(revoked_at),
        key_type=DeviceKeyType(key_type),
        certificate_days_max=certificate_days_max,
        devices_per_minute=devices_per_minute,
        policy=PolicyName(policy),
    )
