"""The Director over real records, real jobs and real roots; images by hand, and vehicles that keep what they are told as
aktualizr does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant, SettableClock
from overair.basics.ids import AccountId, GroupName, JobId, RandomIds, SeededIds, ThingName
from overair.basics.work import Tx
from overair.server.director.model import Device, DirectorView, Registered
from overair.server.director.multi_target_update import MultiTargetUpdate
from overair.server.director.service import DirectorService
from overair.server.director.store import (
    SqlCampaignStore,
    SqlOddityStore,
    SqlRecordStore,
    SqlUpdateStore,
    SqlVehicleStore,
)
from overair.server.director.views import VehicleFacts
from overair.server.jobs.model import Execution, Job, JobPlan, JobSettings, TargetSelection
from overair.server.keyring.service import Keyring
from overair.server.keyring.store import SqlKeyStore
from overair.server.keyring.wrapping import open_secret_box
from overair.server.roots.service import RootsService
from overair.server.roots.store import SqlRootStore
from overair.server.storage.work import SqlWork
from overair.wire.uptane import ecus as wire_ecus
from overair.wire.uptane.keys import Flavour, PublicKey, public_key_of
from overair.wire.uptane.manifest import UNKNOWN_IMAGE, VersionReport, build_manifest, read_manifest, sign_report
from overair.wire.uptane.metadata import Repository, TargetFile
from overair.wire.uptane.reports import InstallationReport, InstallationResult
from overair.wire.uptane.trust import TrustedSet
from overair.wire.uptane.verdicts import Accepted
from tests.support.jobs_room import JobsRoom

NEVER = Instant(0)


class EcuKey:
    """An ECU's private key."""

    def __init__(self) -> None:
        self._key = ed25519.Ed25519PrivateKey.generate()
        self.public_key: PublicKey = public_key_of(self._key.public_key())

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


@dataclass(frozen=True, kw_only=True)
class CataloguedImage:
    """A target of the Image repository."""

    name: str
    length: int
    hashes: Mapping[str, str]
    hardware_ids: tuple[str, ...]
    custom: Mapping[str, Any] = field(default_factory=dict)
    created_at: Instant = NEVER

    @property
    def file(self) -> TargetFile:
        return TargetFile(name=self.name, length=self.length, hashes=self.hashes)


class Images:
    """What may be installed."""

    def __init__(self) -> None:
        self.targets: dict[str, CataloguedImage] = {}

    def add(
        self, name: str, *hardware_ids: str, content: bytes = b"", target_name: str = "", created_at: int = 0
    ) -> CataloguedImage:
        data = content or name.encode()
        image = CataloguedImage(
            name=name,
            length=len(data),
            hashes={"sha256": hashlib.sha256(data).hexdigest()},
            hardware_ids=hardware_ids,
            custom={"name": target_name or name.partition("-")[0], "hardwareIds": list(hardware_ids)},
            created_at=Instant(created_at),
        )
        self.targets[name] = image
        return image

    def find_target(self, tx: Tx, account: AccountId, name: str) -> CataloguedImage | None:
        return self.targets.get(name)

    def targets_for(self, tx: Tx, account: AccountId, hardware_id: str) -> Sequence[CataloguedImage]:
        return [image for image in self.targets.values() if hardware_id in image.hardware_ids]

    def checksum(self, tx: Tx, account: AccountId) -> str:
        return hashlib.sha256("".join(sorted(self.targets)).encode()).hexdigest()


class Enrolment:
    def __init__(self) -> None:
        self.complete: list[str] = []

    def completed(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        self.complete.append(thing)


class Groups:
    """Thing groups, as the jobs room's registry has them."""

    def __init__(self, room: JobsRoom) -> None:
        self._room = room

    def find(self, tx: Tx, account: AccountId, name: GroupName) -> object:
        return self._room.registry.groups[name]

    def create(self, tx: Tx, place: Place, name: GroupName) -> object:
        return self._room.registry.groups.setdefault(name, set())

    def add(self, tx: Tx, account: AccountId, group: GroupName, thing: ThingName) -> None:
        self._room.registry.groups[group].add(thing)


class DirectorRoom(JobsRoom):
    """Jobs with a Director above them. ``restart`` is a new life of the server over the same records."""

    def __init__(self, work: SqlWork, place: Place, clock: SettableClock, folder: Path) -> None:
        super().__init__(work, place, clock)
        self.images = Images()
        self.enrolment = Enrolment()
        box = open_secret_box(folder / "wrapping.key", passphrase=None, ids=RandomIds())
        self.keyring = Keyring(SqlKeyStore(), box, clock=clock, ids=RandomIds())
        self.ids = SeededIds(11)
        self.roots_changed: Callable[[AccountId], None] = lambda _account: None
        self.restart()
        work.run_blocking(lambda tx: self.roots.create(tx, place, Repository.DIRECTOR))

    def restart(self) -> None:
        store = SqlRootStore(changed=lambda account, _repository: self.roots_changed(account))
        self.roots = RootsService(store=store, keys=self.keyring, clock=self.clock, ids=self.ids)
        self.director = DirectorService(
            vehicles=SqlVehicleStore(),
            oddities=SqlOddityStore(),
            updates=SqlUpdateStore(),
            records=SqlRecordStore(),
            campaigns=SqlCampaignStore(),
            jobs=self.jobs,
            roots=self.roots,
            images=self.images,
            groups=Groups(self),
            enrolment=self.enrolment,
            clock=self.clock,
            ids=self.ids,
        )

    @property
    def account(self) -> AccountId:
        return self.place.account

    def vehicle(self, thing: str, /, group: str | None = None, **ecus: str) -> Vehicle:
        """A registered vehicle: ``vehicle("car-1", gw="imx8", dash="s32")``. The first ECU is the Primary."""
        self.add_things(thing, group=group)
        made = Vehicle(self, thing, {serial.replace("_", "-"): hardware for serial, hardware in ecus.items()})
        made.register()
        return made

    def update(self, **targets: CataloguedImage | tuple[CataloguedImage, CataloguedImage]) -> MultiTargetUpdate:
        """``update(imx8=image)``, or with what it must come from: ``update(imx8=(old, new))``. An underscore is a dash."""
        members = {}
        for hardware, given in targets.items():
            origin, to = given if isinstance(given, tuple) else (None, given)
            members[hardware.replace("_", "-")] = {
                "to": target_members(to),
                "from": None if origin is None else target_members(origin),
            }
        return self.work.run_blocking(
            lambda tx: self.director.assignments.create_update(tx, self.account, {"targets": members})
        )

    def ship(
        self,
        job: str,
        update: MultiTargetUpdate | None,
        *targets: str,
        document: str | None = None,
        settings: JobSettings | None = None,
        selection: TargetSelection = TargetSelection.SNAPSHOT,
    ) -> Job:
        """Make a job that the Director fulfils."""
        members = {} if update is None else {"uptane": {"multiTargetUpdate": update.id}}
        plan = JobPlan(
            id=JobId(job),
            targets=targets,
            document=document or json.dumps(members),
            fulfilment=None if update is None else update.id,
            settings=settings or JobSettings(),
            target_selection=selection,
        )
        return self.work.run_blocking(lambda tx: self.jobs.create(tx, self.place, plan))

    def cancel(self, job: str, *, force: bool = True) -> None:
        self.work.run_blocking(lambda tx: self.jobs.cancel(tx, self.account, JobId(job), force=force))

    def facts(self, thing: str) -> VehicleFacts:
        return self.work.read_blocking(lambda tx: self.director.views.require(tx, self.account, ThingName(thing)))

    def device(self, thing: str) -> Device:
        return self.facts(thing).device

    def left_out(self, job: str) -> dict[str, str]:
        """Thing → code."""
        found = self.work.read_blocking(
            lambda tx: self.director.views.left_out_of(tx, self.account, JobId(job), after=None, limit=100)
        )
        return {reason.thing: reason.code for reason in found}


def target_members(image: CataloguedImage) -> dict[str, Any]:
    checksum = {"method": "sha256", "hash": image.hashes["sha256"]}
    return {"target": image.name, "checksum": checksum, "targetLength": image.length, "uri": None}


class Vehicle:
    """Keeps Director targets as aktualizr does: a newer empty document doesn't take the place of one with targets (§5.4), a
    new root drops what was kept."""

    def __init__(self, room: DirectorRoom, thing: str, ecus: Mapping[str, str]) -> None:
        self.room = room
        self.thing = ThingName(thing)
        self.ecus = dict(ecus)
        self.primary = next(iter(ecus))
        self.keys = {serial: EcuKey() for serial in ecus}
        self.installed: dict[str, TargetFile] = dict.fromkeys(ecus, UNKNOWN_IMAGE)
        self.counter = 0
        self.trusted: TrustedSet | None = None
        self.kept: Mapping[str, TargetFile] = {}
        """The targets that it would install from."""
        self.kept_until = Instant(0)
        self.correlation_id = ""
        self.versions: list[int] = []

    # What it says ---------------------------------------------------------------------------------------------------------

    def register(self, **changes: Any) -> Any:
        ecus = [
            wire_ecus.Ecu(serial=serial, hardware_id=hardware, key=self.keys[serial].public_key)
            for serial, hardware in self.ecus.items()
        ]
        body = wire_ecus.registration_body(self.primary, ecus)
        asked = wire_ecus.read_registration(body)
        return self.room.work.run_blocking(
            lambda tx: self.room.director.registrations.register(tx, self.room.place, self.thing, asked)
        )

    def manifest(
        self,
        report: InstallationReport | None = None,
        *,
        leave_out: Sequence[str] = (),
        counter: int | None = -1,
        keys: Mapping[str, EcuKey] | None = None,
        attacks: str = "",
    ) -> bytes:
        """The body; ``counter`` None leaves it out, another number than -1 sends that."""
        if counter == -1:
            self.counter += 1
            counter = self.counter
        signers = self.keys | dict(keys or {})
        reports = {
            serial: sign_report(
                VersionReport(
                    ecu=serial,
                    installed=installed,
                    attacks_detected=attacks if serial == self.primary else "",
                    report_counter=counter if serial == self.primary else None,
                ),
                signers[serial],
            )
            for serial, installed in self.installed.items()
            if serial not in leave_out
        }
        return build_manifest(self.primary, reports, signers[self.primary], installation_report=report)

    def send(self, body: bytes | None = None, *, report: InstallationReport | None = None, **changes: Any) -> Any:
        """Put a manifest; the refusal, if any."""
        read = read_manifest(body if body is not None else self.manifest(report, **changes))
        manifests = self.room.director.manifests
        judged = self.room.work.read_blocking(lambda tx: manifests.judge(tx, self.room.account, self.thing, read))
        return self.room.work.run_blocking(lambda tx: manifests.take(tx, self.room.place, self.thing, judged))

    def report(self, code: str = "OK", *, success: bool | None = None, correlation_id: str | None = None) -> InstallationReport:
        ok = code == "OK" if success is None else success
        result = InstallationResult(success=ok, code=code, description=f"{code}, it says")
        return InstallationReport(
            correlation_id=self.correlation_id if correlation_id is None else correlation_id,
            result=result,
            items=dict.fromkeys(self.ecus, result) if ok else {},
            raw_report="raw words",
        )

    # What it is told ------------------------------------------------------------------------------------------------------

    def served(self) -> DirectorView:
        """As the door does it: read first, write only if need be."""
        metadata = self.room.director.metadata
        current = self.room.work.read_blocking(lambda tx: metadata.current(tx, self.room.account, self.thing))
        if current is not None:
            return current
        return self.room.work.run_blocking(lambda tx: metadata.refresh(tx, self.room.place, self.thing))

    def refresh(self) -> DirectorView:
        """Poll, verify everything, and keep what aktualizr would keep."""
        now, roots = self.room.clock.now(), self.room.roots
        version = 1 if self.trusted is None else self.trusted.root.version + 1
        newest = self.room.work.read_blocking(
            lambda tx: roots.newest_version(tx, self.room.account, Repository.DIRECTOR, Flavour.UPTANE)
        )
        while version <= newest:
            root = self.root(version)
            if self.trusted is None:
                self.trusted = TrustedSet.begin(root, repository=Repository.DIRECTOR, vehicle=self.thing)
            else:
                accepted(self.trusted.update_root(root))
                self.kept, self.kept_until = {}, Instant(0)
            version += 1
        assert self.trusted is not None
        view = self.served()
        accepted(self.trusted.check_root_expiry(now))
        accepted(self.trusted.update_timestamp(view.timestamp, now=now))
        accepted(self.trusted.update_snapshot(view.snapshot, now=now))
        accepted(self.trusted.update_targets(view.targets, now=now))
        targets = self.trusted.targets
        assert targets is not None
        self.versions.append(targets.version)
        if targets.targets:
            self.kept, self.kept_until = targets.targets, targets.expires
            self.correlation_id = targets.correlation_id
        return view

    def root(self, version: int) -> bytes:
        return self.room.work.read_blocking(
            lambda tx: self.room.roots.document(tx, self.room.account, Repository.DIRECTOR, version, Flavour.UPTANE)
        )

    def would_install(self) -> dict[str, str]:
        """ECU → file, of what it keeps and hasn't installed. Once what it keeps has expired it drops it."""
        if self.kept_until <= self.room.clock.now():
            return {}
        return {
            serial: target.name
            for target in self.kept.values()
            for serial in target.ecus
            if serial in self.ecus and not same(self.installed[serial], target)
        }

    def install(self, *serials: str) -> None:
        """Install what it would, on all ECUs or on some."""
        for target in self.kept.values():
            for serial in target.ecus:
                if not serials or serial in serials:
                    self.installed[serial] = TargetFile(name=target.name, length=target.length, hashes=target.hashes)

    def fail(self, code: str = "INSTALL_FAILED") -> Any:
        """Report a failure; it drops what it was told to do by itself."""
        refusal = self.send(report=self.report(code))
        self.kept = {}
        return refusal

    def execution(self, job: str, number: int | None = None) -> Execution:
        return self.room.execution(self.thing, job, number)

    @property
    def known(self) -> Registered:
        facts = self.room.facts(self.thing)
        return Registered(device=facts.device, ecus={ecu.serial: ecu for ecu in facts.ecus})


def same(installed: TargetFile, target: TargetFile) -> bool:
    return (installed.name, installed.length, installed.sha256) == (target.name, target.length, target.sha256)


def accepted(verdict: object) -> None:
    assert isinstance(verdict, Accepted), verdict


def seconds(clock: Clock) -> int:
    return clock.now() // 1000
