"""Which ECUs a vehicle has, and with which keys they sign: ``POST /director/ecus`` (Uptane reference §3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import Conflict, NotFound, OverairError, PreconditionFailed
from overair.basics.ids import AccountId, EcuSerial, ThingName
from overair.basics.work import Tx
from overair.server.director.model import AnomalyKind, Device, DeviceStatus, Ecu, KeyChange
from overair.server.director.ports import Enrolment, OddityStore, UpdateStore, VehicleStore
from overair.server.jobs.model import STARTED
from overair.server.jobs.service import JobsService
from overair.wire.uptane import ecus as wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What came of one. A refusal is returned, not raised: what was noted of it must be kept."""

    is_new: bool = False
    """The vehicle had none before."""
    refusal: OverairError | None = None


class EcuRegistrations:
    """Registers ECUs, retires those that are gone, and takes no other key for a known one without an operator's word."""

    def __init__(
        self,
        *,
        vehicles: VehicleStore,
        oddities: OddityStore,
        updates: UpdateStore,
        jobs: JobsService,
        enrolment: Enrolment,
        clock: Clock,
    ) -> None:
        self._vehicles = vehicles
        self._oddities = oddities
        self._updates = updates
        self._jobs = jobs
        self._enrolment = enrolment
        self._clock = clock

    def register(self, tx: Tx, place: Place, thing: ThingName, asked: wire.EcuRegistration) -> Registration:
        """Take a vehicle's whole list. The same list again changes nothing.

        A refusal is a ``PreconditionFailed`` (subject ``ecu-assignment``: an assignment runs) or a ``Conflict`` (subjects
        ``ecu-reuse``: a serial that was replaced before; ``ecu-key``: another key for a known ECU).
        """
        account, now = place.account, self._clock.now()
        device = self._vehicles.find(tx, account, thing)
        known = {ecu.serial: ecu for ecu in self._vehicles.ecus(tx, account, thing)}
        wanted = {
            EcuSerial(ecu.serial): Ecu(
                serial=EcuSerial(ecu.serial),
                hardware_id=ecu.hardware_id,
                key=ecu.key,
                is_primary=ecu.serial == asked.primary,
                registered_at=now,
            )
            for ecu in asked.ecus
        }
        refusal = self._refusal(tx, account, thing, known, wanted, now=now)
        if refusal is not None:
            return Registration(refusal=refusal)
        changed = self._changes(known, wanted, now=now)
        if changed and device is not None and device.primary is not None and self._has_running(tx, account, thing):
            return Registration(
                refusal=PreconditionFailed(
                    "An assignment is being carried out on this vehicle: its ECUs can't change before that has ended, or was "
                    "cancelled.",
                    subject="ecu-assignment",
                )
            )
        is_new = device is None or device.primary is None
        if changed or is_new:
            self._write(tx, account, thing, device, EcuSerial(asked.primary), known, changed, now=now)
        if is_new:
            self._jobs.device.choose_anew(tx, account, thing)
        self._enrolment.completed(tx, account, thing)
        return Registration(is_new=is_new)

    def approve_key(self, tx: Tx, account: AccountId, thing: ThingName, serial: EcuSerial) -> KeyChange:
        """An operator's word that an ECU may have another key. It counts at the vehicle's next registration.

        Raises:
            NotFound: no such change was asked for. Subject ``ecu-key``.
        """
        change = self._oddities.key_changes(tx, account, thing).get(serial)
        if change is None:
            raise NotFound(
                f"ECU {serial[:64]!r} of {thing} hasn't come with another key.", subject="ecu-key", details={"field": "ecu"}
            )
        approved = replace(change, approved_at=self._clock.now())
        self._oddities.put_key_change(tx, account, thing, approved)
        return approved

    def decline_key(self, tx: Tx, account: AccountId, thing: ThingName, serial: EcuSerial) -> None:
        """Forget that an ECU came with another key; if it comes with it again, that is noted again."""
        self._oddities.drop_key_change(tx, account, thing, serial)

    def allow_counter_from(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """The vehicle lost its storage and counts its manifests from 1 again: take the next, whatever it says.

        Raises:
            NotFound: no such vehicle. Subject ``vehicle``.
        """
        device = self._vehicles.find(tx, account, thing)
        if device is None:
            raise NotFound(f"{thing} has registered no ECUs.", subject="vehicle")
        self._vehicles.save(tx, account, replace(device, report_counter=None))

    # ------------------------------------------------------------------------------------------------------------------

    def _refusal(
        self,
        tx: Tx,
        account: AccountId,
        thing: ThingName,
        known: Mapping[EcuSerial, Ecu],
        wanted: Mapping[EcuSerial, Ecu],
        *,
        now: Instant,
    ) -> OverairError | None:
        reused = sorted(serial for serial in wanted if serial in known and known[serial].retired_at is not None)
        if reused:
            return Conflict(
                f"{', '.join(reused)}: a serial that was replaced before can't come back. Give the ECU another serial.",
                subject="ecu-reuse",
                details={"field": "ecus"},
            )
        approved = {
            serial: change.key
            for serial, change in self._oddities.key_changes(tx, account, thing).items()
            if change.approved_at is not None
        }
        rekeyed = [
            serial
            for serial, ecu in wanted.items()
            if serial in known and ecu.key != known[serial].key and approved.get(serial) != ecu.key
        ]
        for serial in rekeyed:
            self._oddities.put_key_change(tx, account, thing, KeyChange(serial=serial, key=wanted[serial].key, asked_at=now))
            detail = f"Came with the key {wanted[serial].key.id}; registered is {known[serial].key.id}."
            self._oddities.record(tx, account, thing, AnomalyKind.KEY_CHANGE, serial, detail, now=now)
        if rekeyed:
            return Conflict(
                f"{', '.join(sorted(rekeyed))}: registered with another key. An operator must approve the change first "
                f"(PUT /api/v1/director/admin/devices/{thing}/ecus/SERIAL/public_key/approval).",
                subject="ecu-key",
                details={"field": "ecus"},
            )
        return None

    @staticmethod
    def _changes(known: Mapping[EcuSerial, Ecu], wanted: Mapping[EcuSerial, Ecu], *, now: Instant) -> list[Ecu]:
        """Rows to write: new and changed ECUs, and those that are gone, retired."""
        changed = []
        for serial, ecu in wanted.items():
            standing = known.get(serial)
            if standing is None:
                changed.append(ecu)
                continue
            after = replace(standing, hardware_id=ecu.hardware_id, key=ecu.key, is_primary=ecu.is_primary)
            if after != standing:
                changed.append(after)
        active = [ecu for ecu in known.values() if ecu.retired_at is None]
        return changed + [replace(ecu, retired_at=now) for ecu in active if ecu.serial not in wanted]

    def _write(
        self,
        tx: Tx,
        account: AccountId,
        thing: ThingName,
        device: Device | None,
        primary: EcuSerial,
        known: Mapping[EcuSerial, Ecu],
        changed: list[Ecu],
        *,
        now: Instant,
    ) -> None:
        for ecu in changed:
            standing = known.get(ecu.serial)
            if standing is not None and standing.hardware_id != ecu.hardware_id:
                detail = f"Registered as {standing.hardware_id} before, as {ecu.hardware_id} now."
                self._oddities.record(tx, account, thing, AnomalyKind.HARDWARE_CHANGE, ecu.serial, detail, now=now)
            if standing is not None and standing.key != ecu.key:
                self._oddities.drop_key_change(tx, account, thing, ecu.serial)
        standing = known.get(primary)
        speaks_anew = (
            device is None
            or device.primary != primary
            or standing is None
            or any(ecu.serial == primary and ecu.key != standing.key for ecu in changed)
        )
        if device is None:
            device = Device(thing=thing, primary=None, registration=0, status=DeviceStatus.NOT_SEEN, created_at=now)
            self._vehicles.add(tx, account, device)
        after = replace(
            device,
            primary=primary,
            registration=device.registration + 1,
            registered_at=device.registered_at or now,
            last_seen_at=now,
            # Whoever signs the manifests counts them.
            report_counter=None if speaks_anew else device.report_counter,
            status=DeviceStatus.UP_TO_DATE if device.status is DeviceStatus.NOT_SEEN else device.status,
        )
        self._vehicles.save(tx, account, after)
        self._vehicles.put_ecus(tx, account, thing, changed)
        self._updates.set_stale(tx, account, thing)

    def _has_running(self, tx: Tx, account: AccountId, thing: ThingName) -> bool:
        following = self._jobs.device.fulfilled_next(tx, account, thing)
        return following is not None and following.status in STARTED
