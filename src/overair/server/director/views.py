"""What is known of a vehicle, put together for operators: reads, and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from overair.basics.errors import NotFound
from overair.basics.ids import AccountId, EcuSerial, JobId, ThingName
from overair.basics.work import Tx
from overair.server.director.model import (
    Anomaly,
    Assignment,
    Device,
    DeviceEvent,
    DirectorView,
    Ecu,
    InstallationRecord,
    InstallationReport,
    KeyChange,
    LeftOut,
)
from overair.server.director.ports import DeviceQuery, OddityStore, RecordStore, UpdateStore, VehicleStore

ASSIGNMENTS_SHOWN_MAX: Final = 20
LEFT_OUT_SHOWN_MAX: Final = 20
EVENTS_SHOWN_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class VehicleFacts:
    """One vehicle, as far as the Director knows it."""

    device: Device
    ecus: Sequence[Ecu]
    """Those of today, by serial."""
    retired: Sequence[Ecu]
    key_changes: Sequence[KeyChange]
    """ECUs that came with another key and wait for an operator's word."""
    assignments: Sequence[Assignment]
    """Newest first."""
    view: DirectorView | None
    left_out: Sequence[tuple[JobId, LeftOut]]
    """Jobs that would have reached it, newest first."""
    last_report: InstallationReport | None
    anomalies: Sequence[Anomaly]


class VehicleViews:
    """Vehicles by name, in lists, and with their history."""

    def __init__(self, *, vehicles: VehicleStore, oddities: OddityStore, updates: UpdateStore, records: RecordStore) -> None:
        self._vehicles = vehicles
        self._oddities = oddities
        self._updates = updates
        self._records = records

    def facts(self, tx: Tx, account: AccountId, thing: ThingName) -> VehicleFacts | None:
        """None: the thing is no vehicle."""
        device = self._vehicles.find(tx, account, thing)
        if device is None:
            return None
        ecus = self._vehicles.ecus(tx, account, thing)
        changes = self._oddities.key_changes(tx, account, thing).values()
        _, reports = self._records.reports(tx, account, thing, offset=0, limit=1)
        return VehicleFacts(
            device=device,
            ecus=[ecu for ecu in ecus if ecu.retired_at is None],
            retired=[ecu for ecu in ecus if ecu.retired_at is not None],
            key_changes=[change for change in changes if change.approved_at is None],
            assignments=self._updates.assignments_of(tx, account, thing, limit=ASSIGNMENTS_SHOWN_MAX),
            view=self._updates.find_view(tx, account, thing),
            left_out=self._updates.left_out_for(tx, account, thing, limit=LEFT_OUT_SHOWN_MAX),
            last_report=reports[0] if reports else None,
            anomalies=self._oddities.anomalies(tx, account, thing),
        )

    def require(self, tx: Tx, account: AccountId, thing: ThingName) -> VehicleFacts:
        """Raises NotFound, subject ``vehicle``."""
        found = self.facts(tx, account, thing)
        if found is None:
            raise NotFound(f"{thing} is no Uptane device: it has registered no ECUs.", subject="vehicle")
        return found

    def find(self, tx: Tx, account: AccountId, thing: ThingName) -> Device | None:
        return self._vehicles.find(tx, account, thing)

    def page(self, tx: Tx, account: AccountId, query: DeviceQuery) -> tuple[int, Sequence[Device]]:
        """(how many there are in all, those of the page)."""
        return self._vehicles.page(tx, account, query)

    def hardware_ids(self, tx: Tx, account: AccountId, *, offset: int, limit: int) -> tuple[int, Sequence[str]]:
        """(how many kinds of ECU there are, those of the page)."""
        return self._vehicles.hardware_ids(tx, account, offset=offset, limit=limit)

    def count_installed(self, tx: Tx, account: AccountId, names: Sequence[str]) -> dict[str, int]:
        """ECUs by the name of what runs on them."""
        counted = self._vehicles.count_installed(tx, account, names)
        return {name: counted.get(name, 0) for name in names}

    def installations(
        self, tx: Tx, account: AccountId, thing: ThingName, serial: EcuSerial | None, *, offset: int, limit: int
    ) -> tuple[int, Sequence[InstallationRecord]]:
        """What ran on a vehicle's ECUs, or on one of them, newest first."""
        return self._vehicles.installations(tx, account, thing, serial, offset=offset, limit=limit)

    def reports(
        self, tx: Tx, account: AccountId, thing: ThingName, *, offset: int, limit: int
    ) -> tuple[int, Sequence[InstallationReport]]:
        """What a vehicle said of its installations, newest first."""
        return self._records.reports(tx, account, thing, offset=offset, limit=limit)

    def reports_with(
        self, tx: Tx, account: AccountId, correlation_id: str, *, after: tuple[str, int] | None, limit: int
    ) -> Sequence[tuple[ThingName, InstallationReport]]:
        """Every vehicle's reports on one correlation id, by (thing, sequence)."""
        return self._records.reports_with(tx, account, correlation_id, after=after, limit=limit)

    def events(
        self, tx: Tx, account: AccountId, thing: ThingName, *, correlation_id: str | None = None
    ) -> Sequence[DeviceEvent]:
        """A vehicle's journal, newest first."""
        return self._records.events(tx, account, thing, correlation_id=correlation_id, limit=EVENTS_SHOWN_MAX)

    def left_out_of(self, tx: Tx, account: AccountId, job: JobId, *, after: str | None, limit: int) -> Sequence[LeftOut]:
        """Things that a job would have reached and doesn't, by thing."""
        return self._updates.left_out_of(tx, account, job, after=after, limit=limit)

    def forget_anomalies(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """An operator has seen them."""
        self._oddities.clear_anomalies(tx, account, thing)
