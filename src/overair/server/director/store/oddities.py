"""What is odd about vehicles: anomalies of their manifests, and ECUs that came with another key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import and_, delete, insert, select, update

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, EcuSerial, ThingName
from overair.basics.work import Tx
from overair.server.director.model import Anomaly, AnomalyKind, KeyChange
from overair.server.director.store.rows import instant, public_key
from overair.server.director.tables import anomalies, key_changes
from overair.server.storage.work import sql


class SqlOddityStore:
    """``ports.OddityStore`` over SQL."""

    # Key changes ----------------------------------------------------------------------------------------------------------

    def key_changes(self, tx: Tx, account: AccountId, thing: ThingName) -> Mapping[EcuSerial, KeyChange]:
        query = select(*key_changes.c).where(key_changes.c.account == account, key_changes.c.thing == thing)
        return {
            EcuSerial(row["serial"]): KeyChange(
                serial=EcuSerial(row["serial"]),
                key=public_key(row),
                asked_at=Instant(row["asked_at"]),
                approved_at=instant(row["approved_at"]),
            )
            for row in sql(tx).execute(query).mappings()
        }

    def put_key_change(self, tx: Tx, account: AccountId, thing: ThingName, change: KeyChange) -> None:
        self.drop_key_change(tx, account, thing, change.serial)
        sql(tx).execute(
            insert(key_changes).values(
                account=account,
                thing=thing,
                serial=change.serial,
                key_type=change.key.type.value,
                key_der=change.key.spki_der,
                asked_at=change.asked_at,
                approved_at=change.approved_at,
            )
        )

    def drop_key_change(self, tx: Tx, account: AccountId, thing: ThingName, serial: EcuSerial) -> None:
        mine = and_(key_changes.c.account == account, key_changes.c.thing == thing, key_changes.c.serial == serial)
        sql(tx).execute(delete(key_changes).where(mine))

    # Anomalies ------------------------------------------------------------------------------------------------------------

    def anomalies(self, tx: Tx, account: AccountId, thing: ThingName) -> Sequence[Anomaly]:
        """The latest first."""
        query = select(*anomalies.c).where(anomalies.c.account == account, anomalies.c.thing == thing)
        query = query.order_by(anomalies.c.last_at.desc(), anomalies.c.kind, anomalies.c.serial)
        return [_anomaly(row) for row in sql(tx).execute(query).mappings()]

    def record(
        self, tx: Tx, account: AccountId, thing: ThingName, kind: AnomalyKind, serial: str, detail: str, *, now: Instant
    ) -> None:
        """Note an oddity, or count it once more."""
        mine = and_(
            anomalies.c.account == account,
            anomalies.c.thing == thing,
            anomalies.c.kind == kind.value,
            anomalies.c.serial == serial,
        )
        again = update(anomalies).where(mine).values(detail=detail, last_at=now, count=anomalies.c.count + 1)
        if sql(tx).execute(again).rowcount:
            return
        sql(tx).execute(
            insert(anomalies).values(
                account=account,
                thing=thing,
                kind=kind.value,
                serial=serial,
                detail=detail,
                first_at=now,
                last_at=now,
                count=1,
            )
        )

    def clear_anomalies(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        sql(tx).execute(delete(anomalies).where(anomalies.c.account == account, anomalies.c.thing == thing))

    def forget(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """The thing is gone."""
        for table in (key_changes, anomalies):
            sql(tx).execute(delete(table).where(table.c.account == account, table.c.thing == thing))


def _anomaly(row: Mapping[Any, Any]) -> Anomaly:
    return Anomaly(
        kind=AnomalyKind(row["kind"]),
        serial=row["serial"],
        detail=row["detail"],
        first_at=Instant(row["first_at"]),
        last_at=Instant(row["last_at"]),
        count=row["count"],
    )
