"""Nouns of the Director: vehicles, their ECUs, what is installed, what is assigned. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from overair.basics.clock import Instant
from overair.basics.ids import EcuSerial, JobId, MultiTargetUpdateId, ThingName
from overair.server.jobs.model import Execution
from overair.wire.job_messages import ExecutionStatus
from overair.wire.uptane.keys import PublicKey
from overair.wire.uptane.metadata import TargetFile

REPORTS_KEPT_MAX: Final = 50
"""Of one vehicle; older ones go."""
EVENTS_KEPT_MAX: Final = 1_000
"""Of one vehicle; older ones go."""
INSTALLATIONS_KEPT_MAX: Final = 200
"""Of one ECU; older ones go."""
RAW_REPORT_SIZE_BYTES_MAX: Final = 64 * 1024
CORRELATION_ID_LENGTH_MAX: Final = 256
IMAGE_NAME_LENGTH_MAX: Final = 1024
"""Of what a manifest says is installed; what we assign is shorter."""
UNKNOWN_IMAGE: Final = "unknown"
"""What a vehicle that was never updated says is installed (Uptane reference §6.1)."""
EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image by name and content, as manifests, multi-target updates and targets name it."""

    name: str
    length: int
    hashes: Mapping[str, str]
    """Algorithm → lower-case hexadecimal digits."""

    @property
    def sha256(self) -> str:
        return self.hashes.get("sha256", "")

    @property
    def is_known(self) -> bool:
        """Whether it says anything: a vehicle that was never updated has an empty image called ``unknown``."""
        return self.name not in ("", UNKNOWN_IMAGE) and self.sha256 not in ("", EMPTY_SHA256)

    def is_same(self, other: Image | TargetFile) -> bool:
        """Same name, same length, same SHA-256."""
        return (self.name, self.length, self.sha256) == (other.name, other.length, other.sha256) and bool(self.sha256)


EcuMap = Mapping[EcuSerial, str]
"""ECU serial → hardware id, as a target of the Director names whom it is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What runs on an ECU, as its last signed manifest says."""

    image: Image
    since: Instant
    """When a manifest first said so."""
    named_for: EcuMap | None = None
    """The ECU map under which we assigned it; None where it came by another way. Clients compare it too (§5.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ecu:
    """One ECU of a vehicle. A retired one is kept, since its serial may not come back (§3.4)."""

    serial: EcuSerial
    hardware_id: str
    key: PublicKey
    is_primary: bool
    registered_at: Instant
    installed: Installed | None = None
    retired_at: Instant | None = None


class DeviceStatus(StrEnum):
    """As OTA Connect's tools know it (§11)."""

    NOT_SEEN = "NotSeen"
    UP_TO_DATE = "UpToDate"
    UPDATE_PENDING = "UpdatePending"
    """An assignment was fetched and hasn't ended."""
    OUTDATED = "Outdated"
    """An assignment waits to be fetched."""
    UPDATE_SCHEDULED = "UpdateScheduled"
    """An assignment waits for the driver's approval."""
    ERROR = "Error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A vehicle: a thing with ECUs."""

    thing: ThingName
    primary: EcuSerial | None
    """None until it has registered its ECUs."""
    registration: int
    """Counts registrations, so that what was verified against an older one is noticed."""
    status: DeviceStatus
    created_at: Instant
    registered_at: Instant | None = None
    last_seen_at: Instant | None = None
    last_manifest_at: Instant | None = None
    report_counter: int | None = None
    """The last that was accepted; None: none ever, or an operator has let it begin again."""
    name: str = ""
    device_type: str = "Other"
    notes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A vehicle with its ECUs as they are now."""

    device: Device
    ecus: Mapping[EcuSerial, Ecu]

    @property
    def primary(self) -> Ecu:
        assert self.device.primary is not None
        return self.ecus[self.device.primary]

    def map_of(self, serials: Sequence[EcuSerial]) -> dict[EcuSerial, str]:
        return {serial: self.ecus[serial].hardware_id for serial in sorted(serials)}


class AnomalyKind(StrEnum):
    """What is recorded of a manifest or registration that isn't as it should be, and blocks nothing by itself."""

    MISSING_ECU = "missing-ecu"
    UNKNOWN_ECU = "unknown-ecu"
    BAD_SIGNATURE = "bad-signature"
    ATTACK_DETECTED = "attack-detected"
    REPLAY = "replay"
    NO_COUNTER = "no-counter"
    WRONG_PRIMARY = "wrong-primary"
    KEY_CHANGE = "key-change"
    HARDWARE_CHANGE = "hardware-change"


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """One kind of oddity of one ECU; said again it is counted, not listed twice."""

    kind: AnomalyKind
    serial: str
    detail: str
    first_at: Instant
    last_at: Instant
    count: int


class View(StrEnum):
    """What the Director's targets tell a vehicle."""

    EMPTY = "empty"
    ASSIGNMENT = "assignment"
    STAY = "stay"
    """A non-empty document that names what is installed: it takes the place of an assignment that was cancelled (§5.4)."""


class CancelWay(StrEnum):
    """How an assignment is taken back from a vehicle (§5.4)."""

    NEVER_FETCHED = "never-fetched"
    """Empty targets do."""
    STAY = "stay"
    """Targets that name what is installed."""
    ROOT_ROTATION = "root-rotation"
    """A new Director root makes the vehicle drop what it holds."""
    EXPIRY = "expiry"
    """What it holds ends by itself, a day after it was signed at the latest."""
    DROPPED = "dropped"
    """The vehicle has dropped it by itself, when it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """The last assignment that ended before the vehicle had installed it, and what keeps it from being installed."""

    job: JobId
    number: int
    way: CancelWay
    at: Instant
    held_until: Instant | None = None
    """When the document that the vehicle may still hold expires."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectorView:
    """What one vehicle is served: three documents of one version."""

    version: int
    view: View
    job: JobId | None
    """What ``$next`` named when it was made, an assignment that waits for approval included."""
    number: int | None
    correlation_id: str
    root_version: int
    signed_at: Instant
    expires_at: Instant
    targets: bytes
    snapshot: bytes
    timestamp: bytes
    is_stale: bool = False
    """Something that it tells of has changed: it is made anew at the next request."""
    must_stay: bool = False
    """Without an assignment, it tells the vehicle to stay with what is installed."""
    cancelled: Cancelled | None = None

    def is_for(self, execution: Execution | None) -> bool:
        """Whether ``$next`` still names what this was made for."""
        if execution is None:
            return self.job is None
        return (self.job, self.number) == (execution.job, execution.number)


class AssignmentOutcome(StrEnum):
    """How an assignment ended."""

    INSTALLED = "installed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One attempt of one vehicle at one job, from the first time that its targets were fetched."""

    thing: ThingName
    job: JobId
    number: int
    update: MultiTargetUpdateId
    correlation_id: str
    targets: Mapping[EcuSerial, Image]
    created_at: Instant
    installed: frozenset[EcuSerial] = frozenset()
    """ECUs whose manifests have shown the target."""
    ended_at: Instant | None = None
    outcome: AssignmentOutcome | None = None
    result_code: str = ""

    def map_of(self, image: Image, ecus: Mapping[EcuSerial, Ecu]) -> dict[EcuSerial, str]:
        """The ECU map of one target of this assignment."""
        serials = sorted(serial for serial, target in self.targets.items() if target.name == image.name)
        return {serial: ecus[serial].hardware_id for serial in serials if serial in ecus}


OUTCOMES: Final[Mapping[ExecutionStatus, AssignmentOutcome]] = {
    ExecutionStatus.SUCCEEDED: AssignmentOutcome.INSTALLED,
    ExecutionStatus.FAILED: AssignmentOutcome.FAILED,
    ExecutionStatus.TIMED_OUT: AssignmentOutcome.FAILED,
    ExecutionStatus.REJECTED: AssignmentOutcome.CANCELLED,
    ExecutionStatus.CANCELED: AssignmentOutcome.CANCELLED,
    ExecutionStatus.REMOVED: AssignmentOutcome.CANCELLED,
}
STATUS_AFTER: Final[Mapping[ExecutionStatus, DeviceStatus]] = {
    ExecutionStatus.SUCCEEDED: DeviceStatus.UP_TO_DATE,
    ExecutionStatus.FAILED: DeviceStatus.ERROR,
    ExecutionStatus.TIMED_OUT: DeviceStatus.ERROR,
    ExecutionStatus.REJECTED: DeviceStatus.UP_TO_DATE,
    ExecutionStatus.CANCELED: DeviceStatus.UP_TO_DATE,
    ExecutionStatus.REMOVED: DeviceStatus.UP_TO_DATE,
}
"""A vehicle with nothing else to do, by how its last execution ended."""


class Origin(StrEnum):
    """Who asked for a job that the Director fulfils."""

    JOB = "job"
    ASSIGNMENT = "assignment"
    CAMPAIGN = "campaign"
    AUTO_UPDATE = "auto-update"


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectorJob:
    """What the Director keeps of a job beyond what jobs do; absent for one that came by CreateJob or CreateOTAUpdate."""

    job: JobId
    origin: Origin
    correlation_id: str
    approval_needed: bool = False
    campaign: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A thing that a job would have reached and doesn't, and why."""

    thing: ThingName
    code: str
    message: str
    at: Instant
    ecus: Mapping[str, str] = field(default_factory=dict)
    """ECU serial → code, where ECUs have reasons of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallationReport:
    """What a vehicle said of an installation, as it said it."""

    sequence: int
    correlation_id: str
    success: bool
    code: str
    description: str
    received_at: Instant
    raw: str
    """The report as JSON text, cut to its bound where it was longer."""
    ecus: Mapping[str, str] = field(default_factory=dict)
    """ECU serial → result code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallationRecord:
    """One change of what runs on an ECU."""

    sequence: int
    serial: EcuSerial
    image: Image
    at: Instant
    correlation_id: str
    """Of the assignment that it fulfilled; empty where it fulfilled none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """A known ECU that came with another key: nothing is believed of the new one before an operator says so."""

    serial: EcuSerial
    key: PublicKey
    asked_at: Instant
    approved_at: Instant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEvent:
    """One entry of a vehicle's journal."""

    id: str
    type: str
    version: int
    device_time: Instant | None
    received_at: Instant
    correlation_id: str
    ecu: str
    payload: Mapping[str, Any]
