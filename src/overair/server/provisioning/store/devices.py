"""Rows of how things came in, and of what was odd about some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, delete, func, insert, or_, select, tuple_, update

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, CertificateId, ThingName
from overair.basics.work import Tx
from overair.server.provisioning.model import Anomaly, AnomalyKind, AuthorityId, ProvisionedDevice
from overair.server.provisioning.store.tables import device_anomalies, provisioned_devices
from overair.server.storage.work import sql


class SqlDeviceRows:
    """``ports.DeviceStore`` and ``ports.AnomalyStore``."""

    def find_device(self, tx: Tx, account: AccountId, thing: ThingName) -> ProvisionedDevice | None:
        table = provisioned_devices
        row = sql(tx).execute(select(*table.c).where(table.c.account == account, table.c.thing == thing)).one_or_none()
        return None if row is None else _device(row)

    def put_device(self, tx: Tx, device: ProvisionedDevice) -> None:
        self.delete_device(tx, device.account, device.thing)
        sql(tx).execute(
            insert(provisioned_devices).values(
                account=device.account,
                thing=device.thing,
                origin=device.origin,
                certificate_id=device.certificate_id,
                created_at=device.created_at,
                source_ip=device.source_ip,
                registered_at=device.registered_at,
                reissues=device.reissues,
                template=device.template,
                claim=device.claim,
            )
        )

    def set_registered(self, tx: Tx, account: AccountId, thing: ThingName, now: Instant) -> None:
        table = provisioned_devices
        sql(tx).execute(
            update(table)
            .where(table.c.account == account, table.c.thing == thing, table.c.registered_at.is_(None))
            .values(registered_at=now)
        )

    def delete_device(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        table = provisioned_devices
        sql(tx).execute(delete(table).where(table.c.account == account, table.c.thing == thing))

    def count_devices(self, tx: Tx, account: AccountId, origin: str) -> int:
        table = provisioned_devices
        return int(
            sql(tx)
            .execute(select(func.count()).select_from(table).where(table.c.account == account, table.c.origin == origin))
            .scalar_one()
        )

    def page_devices(
        self, tx: Tx, account: AccountId, origin: str, *, after: str | None, limit: int
    ) -> Sequence[ProvisionedDevice]:
        table = provisioned_devices
        wanted = select(*table.c).where(table.c.account == account, table.c.origin == origin)
        if after is not None:
            wanted = wanted.where(table.c.thing > after)
        return [_device(row) for row in sql(tx).execute(wanted.order_by(table.c.thing).limit(limit))]

    def page_came_in(
        self,
        tx: Tx,
        account: AccountId,
        *,
        origin: str | None,
        template: str | None,
        claim: str | None,
        after: str | None,
        limit: int,
    ) -> Sequence[ProvisionedDevice]:
        table = provisioned_devices
        wanted = select(*table.c).where(table.c.account == account)
        for column, value in ((table.c.origin, origin), (table.c.template, template), (table.c.claim, claim)):
            if value is not None:
                wanted = wanted.where(column == value)
        if after is not None:
            wanted = wanted.where(table.c.thing > after)
        return [_device(row) for row in sql(tx).execute(wanted.order_by(table.c.thing).limit(limit))]

    def find_anomaly(self, tx: Tx, account: AccountId, certificate: CertificateId) -> Anomaly | None:
        table = device_anomalies
        row = (
            sql(tx)
            .execute(select(*table.c).where(table.c.account == account, table.c.certificate_id == certificate))
            .one_or_none()
        )
        return None if row is None else _anomaly(row)

    def put_anomaly(self, tx: Tx, anomaly: Anomaly, *, keep_max: int) -> None:
        table = device_anomalies
        self.delete_anomaly(tx, anomaly.account, anomaly.certificate_id)
        sql(tx).execute(
            insert(table).values(
                account=anomaly.account,
                certificate_id=anomaly.certificate_id,
                thing=anomaly.thing,
                kind=anomaly.kind.value,
                authority=anomaly.authority,
                pem=anomaly.pem,
                first_seen_at=anomaly.first_seen_at,
                last_seen_at=anomaly.last_seen_at,
                times_seen=anomaly.times_seen,
                source_ip=anomaly.source_ip,
            )
        )
        oldest_kept = (
            sql(tx)
            .execute(
                select(table.c.last_seen_at, table.c.certificate_id)
                .where(table.c.account == anomaly.account)
                .order_by(table.c.last_seen_at.desc(), table.c.certificate_id.desc())
                .limit(1)
                .offset(keep_max - 1)
            )
            .one_or_none()
        )
        if oldest_kept is not None:
            sql(tx).execute(
                delete(table).where(
                    table.c.account == anomaly.account,
                    or_(
                        table.c.last_seen_at < oldest_kept.last_seen_at,
                        and_(
                            table.c.last_seen_at == oldest_kept.last_seen_at,
                            table.c.certificate_id < oldest_kept.certificate_id,
                        ),
                    ),
                )
            )

    def delete_anomaly(self, tx: Tx, account: AccountId, certificate: CertificateId) -> None:
        table = device_anomalies
        sql(tx).execute(delete(table).where(table.c.account == account, table.c.certificate_id == certificate))

    def anomalies_of(self, tx: Tx, account: AccountId, thing: ThingName, *, limit: int) -> Sequence[Anomaly]:
        table = device_anomalies
        wanted = select(*table.c).where(table.c.account == account, table.c.thing == thing)
        rows = sql(tx).execute(wanted.order_by(table.c.last_seen_at.desc(), table.c.certificate_id.desc()).limit(limit))
        return [_anomaly(row) for row in rows]

    def page_anomalies(self, tx: Tx, account: AccountId, *, after: tuple[int, str] | None, limit: int) -> Sequence[Anomaly]:
        table = device_anomalies
        wanted = select(*table.c).where(table.c.account == account)
        if after is not None:
            wanted = wanted.where(tuple_(table.c.last_seen_at, table.c.certificate_id) < after)
        rows = sql(tx).execute(wanted.order_by(table.c.last_seen_at.desc(), table.c.certificate_id.desc()).limit(limit))
        return [_anomaly(row) for row in rows]


def _device(row: Any) -> ProvisionedDevice:
    return ProvisionedDevice(
        account=AccountId(row.account),
        thing=ThingName(row.thing),
        origin=row.origin,
        certificate_id=CertificateId(row.certificate_id),
        created_at=Instant(row.created_at),
        source_ip=row.source_ip,
        registered_at=None if row.registered_at is None else Instant(row.registered_at),
        reissues=row.reissues,
        template=row.template,
        claim=row.claim,
    )


def _anomaly(row: Any) -> Anomaly:
    return Anomaly(
        account=AccountId(row.account),
        certificate_id=CertificateId(row.certificate_id),
        thing=ThingName(row.thing),
        kind=AnomalyKind(row.kind),
        authority=AuthorityId(row.authority),
        pem=row.pem,
        first_seen_at=Instant(row.first_seen_at),
        last_seen_at=Instant(row.last_seen_at),
        times_seen=row.times_seen,
        source_ip=row.source_ip,
    )
