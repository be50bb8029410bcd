"""Vehicles of another server: their things, certificates, ECUs with the keys that sign their manifests, and what runs on them.

A vehicle that moves doesn't register its ECUs again, so they must be here before it comes (Uptane reference §3.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Protocol

from cryptography import x509 as pyca

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId, EcuSerial, ThingName
from overair.basics.work import Tx
from overair.server.director.model import Device, DeviceStatus, Ecu, Image, Installed
from overair.server.director.ports import Enrolment, UpdateStore, VehicleStore
from overair.server.provisioning.importing import CertificateImports
from overair.wire.uptane.ecus import EcuRegistration

VEHICLES_AT_ONCE_MAX: Final = 100


class Things(Protocol):
    """Things of the registry (``devices.service.DevicesService``)."""

    def has_thing(self, tx: Tx, account: AccountId, name: ThingName) -> bool: ...
    def create(self, tx: Tx, place: Place, name: ThingName) -> object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class VehicleImport:
    """One vehicle as the other server knows it."""

    device_id: str
    name: str = ""
    device_type: str = "Other"
    notes: str = ""
    certificates: Sequence[pyca.Certificate] = ()
    is_kept_out: bool = False
    """The other server lets it in no more: blocked, or its certificates were revoked."""
    registration: EcuRegistration | None = None
    """None: it has never registered any ECUs."""
    installed: Mapping[EcuSerial, Image] = field(default_factory=dict)


class VehicleOutcome(StrEnum):
    IMPORTED = "imported"
    UNCHANGED = "unchanged"
    """An earlier import has brought it."""
    KEPT = "kept"
    """It lives here already, with other ECUs than over there: those stay."""
    BLOCKED = "blocked"
    """It was kept out over there, and is kept out here."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedVehicle:
    """What became of it. A refused one has changed nothing."""

    device_id: str
    thing: ThingName | None
    outcome: VehicleOutcome
    errors: Sequence[str] = ()
    warnings: Sequence[str] = ()


class VehicleImports:
    """Of one account at a time."""

    def __init__(
        self,
        *,
        vehicles: VehicleStore,
        updates: UpdateStore,
        certificates: CertificateImports,
        enrolment: Enrolment,
        things: Things,
        clock: Clock,
    ) -> None:
        self._vehicles = vehicles
        self._updates = updates
        self._certificates = certificates
        self._enrolment = enrolment
        self._things = things
        self._clock = clock

    def take(self, tx: Tx, place: Place, asked: VehicleImport, *, source_ip: str, by: str) -> ImportedVehicle:
        """Bring one vehicle in, whole or not at all; the same again changes nothing."""
        account = place.account
        try:
            thing = self._certificates.name(asked.device_id, asked.certificates)
        except InvalidRequest as refused:
            return ImportedVehicle(
                device_id=asked.device_id, thing=None, outcome=VehicleOutcome.REFUSED, errors=(refused.message,)
            )
        if asked.is_kept_out:
            self._certificates.keep_out(tx, account, thing, by=by)
            return ImportedVehicle(device_id=asked.device_id, thing=thing, outcome=VehicleOutcome.BLOCKED)
        judged = self._certificates.judge(tx, account, thing, asked.certificates)
        told = ImportedVehicle(
            device_id=asked.device_id, thing=thing, outcome=VehicleOutcome.UNCHANGED, warnings=judged.warnings
        )
        if judged.errors:
            return replace(told, outcome=VehicleOutcome.REFUSED, errors=judged.errors)
        standing = self._vehicles.find(tx, account, thing)
        if self._lives_here(tx, account, standing, asked.registration):
            text = "It has registered other ECUs here since: those stay."
            told = replace(told, outcome=VehicleOutcome.KEPT, warnings=(*told.warnings, text))
        elif standing is None or (standing.primary is None and asked.registration is not None) or judged.new:
            told = replace(told, outcome=VehicleOutcome.IMPORTED)
        if told.outcome is not VehicleOutcome.UNCHANGED:
            self._certificates.register(tx, place, thing, judged.new, source_ip=source_ip)
            if not self._things.has_thing(tx, account, thing):
                self._things.create(tx, place, thing)
        if told.outcome is VehicleOutcome.IMPORTED:
            self._write(tx, account, thing, standing, asked)
        return told

    def _lives_here(self, tx: Tx, account: AccountId, standing: Device | None, registration: EcuRegistration | None) -> bool:
        if standing is None or standing.primary is None or registration is None:
            return False
        active = [ecu for ecu in self._vehicles.ecus(tx, account, standing.thing) if ecu.retired_at is None]
        here = {(ecu.serial, ecu.hardware_id, ecu.key, ecu.is_primary) for ecu in active}
        there = {(EcuSerial(e.serial), e.hardware_id, e.key, e.serial == registration.primary) for e in registration.ecus}
        return here != there

    def _write(self, tx: Tx, account: AccountId, thing: ThingName, standing: Device | None, asked: VehicleImport) -> None:
        now = self._clock.now()
        if standing is None:
            standing = Device(
                thing=thing,
                primary=None,
                registration=0,
                status=DeviceStatus.NOT_SEEN,
                created_at=now,
                name=asked.name,
                device_type=asked.device_type,
                notes=asked.notes,
            )
            self._vehicles.add(tx, account, standing)
        if standing.primary is None and asked.registration is not None:
            self._write_ecus(tx, account, standing, asked.registration, asked.installed, now=now)

    def _write_ecus(
        self,
        tx: Tx,
        account: AccountId,
        device: Device,
        registration: EcuRegistration,
        installed: Mapping[EcuSerial, Image],
        *,
        now: Instant,
    ) -> None:
        ecus = [
            Ecu(
                serial=EcuSerial(ecu.serial),
                hardware_id=ecu.hardware_id,
                key=ecu.key,
                is_primary=ecu.serial == registration.primary,
                registered_at=now,
            )
            for ecu in registration.ecus
        ]
        after = replace(
            device,
            primary=EcuSerial(registration.primary),
            registration=device.registration + 1,
            registered_at=now,
            status=DeviceStatus.UP_TO_DATE,
        )
        self._vehicles.save(tx, account, after)
        self._vehicles.put_ecus(tx, account, device.thing, ecus)
        for ecu in ecus:
            image = installed.get(ecu.serial)
            if image is not None and image.is_known:
                self._vehicles.set_installed(
                    tx, account, device.thing, ecu.serial, Installed(image=image, since=now), correlation_id=""
                )
        self._updates.set_stale(tx, account, device.thing)
        self._enrolment.completed(tx, account, device.thing)
