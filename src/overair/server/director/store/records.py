"""What vehicles tell of themselves: system, network and configuration; events; installation reports. All of it bounded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import bindparam, delete, func, insert, select

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, ThingName
from overair.basics.work import Tx
from overair.server.director.model import EVENTS_KEPT_MAX, REPORTS_KEPT_MAX, DeviceEvent, InstallationReport
from overair.server.director.store.rows import instant, strings, text
from overair.server.director.tables import device_data, events, reports
from overair.server.storage.work import HotStatement, sql

_EVENTS_OVER_MAX: Final = 100
"""So many more than are kept are let stand before the oldest go: not each event pays for a deletion."""


_of_this_thing: Final = (reports.c.account == bindparam("b_account"), reports.c.thing == bindparam("b_thing"))
_known_report: Final = HotStatement(
    select(reports.c.sequence).where(*_of_this_thing, reports.c.digest == bindparam("b_digest")).limit(1)
)
_last_report: Final = HotStatement(select(func.max(reports.c.sequence)).where(*_of_this_thing))
_insert_report: Final = HotStatement(insert(reports), columns=tuple(column.name for column in reports.columns))


class SqlRecordStore:
    """``ports.RecordStore`` over SQL."""

    # Data -----------------------------------------------------------------------------------------------------------------

    def put_data(self, tx: Tx, account: AccountId, thing: ThingName, kind: str, body: str, *, now: Instant) -> None:
        mine = (device_data.c.account == account, device_data.c.thing == thing, device_data.c.kind == kind)
        sql(tx).execute(delete(device_data).where(*mine))
        sql(tx).execute(insert(device_data).values(account=account, thing=thing, kind=kind, body=body, received_at=now))

    def data(self, tx: Tx, account: AccountId, thing: ThingName, kind: str) -> tuple[str, Instant] | None:
        query = select(device_data.c.body, device_data.c.received_at).where(
            device_data.c.account == account, device_data.c.thing == thing, device_data.c.kind == kind
        )
        row = sql(tx).execute(query).first()
        return None if row is None else (row.body, Instant(row.received_at))

    # Events ---------------------------------------------------------------------------------------------------------------

    def known_events(self, tx: Tx, account: AccountId, thing: ThingName, ids: Collection[str]) -> frozenset[str]:
        query = select(events.c.id).where(events.c.account == account, events.c.thing == thing, events.c.id.in_(ids))
        return frozenset(sql(tx).execute(query).scalars())

    def add_events(self, tx: Tx, account: AccountId, thing: ThingName, new: Sequence[DeviceEvent]) -> None:
        if not new:
            return
        rows = [
            {
                "account": account,
                "thing": thing,
                "id": event.id,
                "type": event.type,
                "version": event.version,
                "device_time": event.device_time,
                "received_at": event.received_at,
                "correlation_id": event.correlation_id,
                "ecu": event.ecu,
                "payload": text(event.payload),
            }
            for event in new
        ]
        sql(tx).execute(insert(events), rows)
        mine = (events.c.account == account, events.c.thing == thing)
        count = int(sql(tx).execute(select(func.count()).select_from(events).where(*mine)).scalar_one())
        if count > EVENTS_KEPT_MAX + _EVENTS_OVER_MAX:
            oldest = select(events.c.id).where(*mine).order_by(events.c.received_at, events.c.id).limit(count - EVENTS_KEPT_MAX)
            gone = list(sql(tx).execute(oldest).scalars())
            sql(tx).execute(delete(events).where(*mine, events.c.id.in_(gone)))

    def events(
        self, tx: Tx, account: AccountId, thing: ThingName, *, correlation_id: str | None, limit: int
    ) -> Sequence[DeviceEvent]:
        """Newest first."""
        query = select(*events.c).where(events.c.account == account, events.c.thing == thing)
        if correlation_id is not None:
            query = query.where(events.c.correlation_id == correlation_id)
        query = query.order_by(events.c.received_at.desc(), events.c.id).limit(limit)
        return [
            DeviceEvent(
                id=row["id"],
                type=row["type"],
                version=row["version"],
                device_time=instant(row["device_time"]),
                received_at=Instant(row["received_at"]),
                correlation_id=row["correlation_id"],
                ecu=row["ecu"],
                payload=msgspec.json.decode(row["payload"], type=dict[str, Any]),
            )
            for row in sql(tx).execute(query).mappings()
        ]

    # Installation reports -------------------------------------------------------------------------------------------------

    def add_report(self, tx: Tx, account: AccountId, thing: ThingName, report: InstallationReport, digest: str) -> bool:
        """Keep a report once. False: the same one was kept before."""
        if _known_report.first(tx, b_account=account, b_thing=thing, b_digest=digest) is not None:
            return False
        found = _last_report.first(tx, b_account=account, b_thing=thing)
        last = int(found[0]) if found is not None and found[0] is not None else 0
        _insert_report.run(
            tx,
            account=account,
            thing=thing,
            sequence=last + 1,
            digest=digest,
            correlation_id=report.correlation_id,
            success=report.success,
            code=report.code,
            description=report.description,
            received_at=report.received_at,
            raw=report.raw,
            ecus=text(report.ecus),
        )
        if last + 1 > REPORTS_KEPT_MAX:
            mine = (reports.c.account == account, reports.c.thing == thing)
            sql(tx).execute(delete(reports).where(*mine, reports.c.sequence <= last + 1 - REPORTS_KEPT_MAX))
        return True

    def reports(
        self, tx: Tx, account: AccountId, thing: ThingName, *, offset: int, limit: int
    ) -> tuple[int, Sequence[InstallationReport]]:
        """(how many are kept, those of the page), newest first."""
        mine = (reports.c.account == account, reports.c.thing == thing)
        total = int(sql(tx).execute(select(func.count()).select_from(reports).where(*mine)).scalar_one())
        query = select(*reports.c).where(*mine).order_by(reports.c.sequence.desc()).offset(offset).limit(limit)
        return total, [_report(row) for row in sql(tx).execute(query).mappings()]

    def reports_with(
        self, tx: Tx, account: AccountId, correlation_id: str, *, after: tuple[str, int] | None, limit: int
    ) -> Sequence[tuple[ThingName, InstallationReport]]:
        """Every vehicle's reports on one correlation id, by (thing, sequence)."""
        query = select(*reports.c).where(reports.c.account == account, reports.c.correlation_id == correlation_id)
        if after is not None:
            thing, sequence = after
            query = query.where((reports.c.thing > thing) | ((reports.c.thing == thing) & (reports.c.sequence > sequence)))
        query = query.order_by(reports.c.thing, reports.c.sequence).limit(limit)
        return [(ThingName(row["thing"]), _report(row)) for row in sql(tx).execute(query).mappings()]

    def forget(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """The thing is gone."""
        for table in (device_data, events, reports):
            sql(tx).execute(delete(table).where(table.c.account == account, table.c.thing == thing))


def _report(row: Mapping[Any, Any]) -> InstallationReport:
    return InstallationReport(
        sequence=row["sequence"],
        correlation_id=row["correlation_id"],
        success=row["success"],
        code=row["code"],
        description=row["description"],
        received_at=Instant(row["received_at"]),
        raw=row["raw"],
        ecus=strings(row["ecus"]),
    )
