"""What vehicles tell of themselves beside their manifests: packages, system, network, configuration, events (§3.5, §6.2)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final

import msgspec

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import AccountId, CampaignId, ThingName
from overair.basics.work import Tx
from overair.server.director.approvals import Approvals
from overair.server.director.campaign_model import ApprovalState
from overair.server.director.model import CORRELATION_ID_LENGTH_MAX, Device, DeviceEvent, DeviceStatus
from overair.server.director.ports import RecordStore, UpdateStore, VehicleStore
from overair.server.director.settlement import printable
from overair.server.jobs.model import STARTED, Report
from overair.server.jobs.service import JobsService
from overair.wire.uptane.events import Event, EventKind

PACKAGES_MAX: Final = 20_000
TEXT_LENGTH_MAX: Final = 256
NOTES_LENGTH_MAX: Final = 4_096
CONFIG_DEPTH_MAX: Final = 8
REDACTED: Final = "(redacted)"
_SECRET: Final = re.compile(r"pass|secret|token|(^|_)pin($|_)|private", re.IGNORECASE)
"""Names of settings whose values are never kept."""

_SAID: Final[Mapping[str, ApprovalState]] = {
    EventKind.CAMPAIGN_ACCEPTED: ApprovalState.ACCEPTED,
    EventKind.CAMPAIGN_DECLINED: ApprovalState.DECLINED,
    EventKind.CAMPAIGN_POSTPONED: ApprovalState.POSTPONED,
}
_PROGRESS: Final[Mapping[str, str]] = {
    EventKind.DOWNLOAD_STARTED: "downloading",
    EventKind.DOWNLOAD_COMPLETED: "downloaded",
    EventKind.INSTALLATION_STARTED: "installing",
    EventKind.INSTALLATION_APPLIED: "installed, waits for a reboot",
    EventKind.INSTALLATION_COMPLETED: "installed",
    EventKind.PAUSED: "paused",
    EventKind.RESUMED: "resumed",
}
"""What an execution's details say meanwhile."""


class DataKind(StrEnum):
    """What is kept of a vehicle, the last of each."""

    PACKAGES = "packages"
    SYSTEM = "system"
    NETWORK = "network"
    CONFIG = "config"


class DeviceRecords:
    """Keeps what vehicles tell, within bounds, and shows it to operators."""

    def __init__(
        self,
        *,
        vehicles: VehicleStore,
        updates: UpdateStore,
        records: RecordStore,
        approvals: Approvals,
        jobs: JobsService,
        clock: Clock,
    ) -> None:
        self._vehicles = vehicles
        self._updates = updates
        self._records = records
        self._approvals = approvals
        self._jobs = jobs
        self._clock = clock

    # From vehicles --------------------------------------------------------------------------------------------------------

    def put_packages(self, tx: Tx, account: AccountId, thing: ThingName, value: object) -> None:
        """``[{"name", "version"}]``. Raises InvalidRequest, subject ``device-data``."""
        if not isinstance(value, list) or len(value) > PACKAGES_MAX:
            raise _refused(f"The body is a list of at most {PACKAGES_MAX} packages.")
        packages = []
        for number, item in enumerate(value):
            if not isinstance(item, Mapping) or not all(_is_text(item.get(member)) for member in ("name", "version")):
                raise _refused(f"Package {number} needs a name and a version of at most {TEXT_LENGTH_MAX} characters.")
            packages.append({"name": printable(item["name"]), "version": printable(item["version"])})
        self._put(tx, account, thing, DataKind.PACKAGES, packages)

    def put_system(self, tx: Tx, account: AccountId, thing: ThingName, value: object) -> None:
        """Hardware, as the vehicle describes it: an object of its own making. Raises InvalidRequest, ``device-data``."""
        if not isinstance(value, Mapping | list):
            raise _refused("The body is a JSON object.")
        self._put(tx, account, thing, DataKind.SYSTEM, value)

    def put_network(self, tx: Tx, account: AccountId, thing: ThingName, value: object) -> None:
        """``{"hostname", "local_ipv4", "mac"}``. Raises InvalidRequest, subject ``device-data``."""
        if not isinstance(value, Mapping):
            raise _refused("The body is an object of hostname, local_ipv4 and mac.")
        kept = {}
        for member in ("hostname", "local_ipv4", "mac"):
            if not _is_text(value.get(member, "")):
                raise _refused(f"{member} is text of at most {TEXT_LENGTH_MAX} characters.")
            kept[member] = printable(value.get(member, ""))
        self._put(tx, account, thing, DataKind.NETWORK, kept)

    def put_config(self, tx: Tx, account: AccountId, thing: ThingName, toml: bytes) -> None:
        """The client's settings, without the values of secret ones. Raises InvalidRequest, subject ``device-data``."""
        try:
            settings = tomllib.loads(toml.decode())
        except (ValueError, RecursionError):
            raise _refused("The body is no TOML document.") from None
        self._put(tx, account, thing, DataKind.CONFIG, without_secrets(settings, depth=0))

    def take_events(self, tx: Tx, place: Place, thing: ThingName, batch: Sequence[Event]) -> int:
        """Keep each event once, and do what it asks for. How many were new."""
        account, now = place.account, self._clock.now()
        by_id = {event.id: event for event in batch}
        known = self._records.known_events(tx, account, thing, list(by_id)) if by_id else frozenset()
        new = [event for event in by_id.values() if event.id not in known]
        self._records.add_events(tx, account, thing, [_kept(event, now=now) for event in new])
        for event in new:
            if event.kind in _SAID and event.campaign_id:
                self._approvals.decide(tx, place, thing, CampaignId(event.campaign_id[:36]), _SAID[event.kind])
        self._show_progress(tx, place, thing, new)
        return len(new)

    # For operators --------------------------------------------------------------------------------------------------------

    def data(self, tx: Tx, account: AccountId, thing: ThingName, kind: DataKind) -> tuple[Any, Instant] | None:
        """What a vehicle last told of one kind, and when."""
        found = self._records.data(tx, account, thing, kind.value)
        return None if found is None else (msgspec.json.decode(found[0]), found[1])

    def expect(self, tx: Tx, account: AccountId, thing: ThingName, *, name: str, device_type: str) -> Device:
        """A vehicle that an operator knows of and that hasn't come yet. One that is there already keeps its record."""
        standing = self._vehicles.find(tx, account, thing)
        if standing is not None:
            return standing
        now = self._clock.now()
        device = Device(
            thing=thing,
            primary=None,
            registration=0,
            status=DeviceStatus.NOT_SEEN,
            created_at=now,
            name=name,
            device_type=device_type,
        )
        self._vehicles.add(tx, account, device)
        return device

    def describe(
        self, tx: Tx, account: AccountId, thing: ThingName, *, name: str | None = None, notes: str | None = None
    ) -> Device:
        """An operator's own words about a vehicle; None leaves what is there.

        Raises:
            NotFound: no such vehicle. Subject ``vehicle``.
            InvalidRequest: subject ``device-data``.
        """
        device = self._vehicles.find(tx, account, thing)
        if device is None:
            raise NotFound(f"{thing} is no Uptane device: it has registered no ECUs.", subject="vehicle")
        if name is not None and (len(name) > 200 or (name and not name.isprintable())):
            raise _refused("deviceName has at most 200 printable characters.", "deviceName")
        if notes is not None and (len(notes) > NOTES_LENGTH_MAX or "\0" in notes):
            raise _refused(f"notes have at most {NOTES_LENGTH_MAX} characters.", "notes")
        after = replace(device, name=device.name if name is None else name, notes=device.notes if notes is None else notes)
        self._vehicles.save(tx, account, after)
        return after

    # ------------------------------------------------------------------------------------------------------------------

    def _put(self, tx: Tx, account: AccountId, thing: ThingName, kind: DataKind, value: object) -> None:
        body = msgspec.json.encode(value).decode()
        self._records.put_data(tx, account, thing, kind.value, body, now=self._clock.now())

    def _show_progress(self, tx: Tx, place: Place, thing: ThingName, events: Sequence[Event]) -> None:
        """Let whoever follows the job see how far the vehicle is."""
        told = [event for event in events if event.kind in _PROGRESS]
        if not told:
            return
        execution = self._jobs.device.fulfilled_next(tx, place.account, thing)
        if execution is None or execution.status not in STARTED:
            return
        correlation_id = execution.status_details.get("correlationId")
        mine = [event for event in told if event.correlation_id == correlation_id]
        if not mine:
            return
        last = mine[-1]
        words = f"{_PROGRESS[last.kind]} ({last.ecu})" if last.ecu else _PROGRESS[last.kind]
        details = {**execution.status_details, "reason": printable(words)}
        report = Report(status=execution.status, status_details=details, execution_number=execution.number)
        self._jobs.device.fulfil(tx, place, thing, execution.job, report)


def _kept(event: Event, *, now: Instant) -> DeviceEvent:
    return DeviceEvent(
        id=event.id,
        type=event.kind,
        version=max(-(2**31), min(event.version, 2**31 - 1)),
        device_time=event.device_time,
        received_at=now,
        correlation_id=printable(event.correlation_id, CORRELATION_ID_LENGTH_MAX),
        ecu=printable(event.ecu, 64),
        payload=event.members,
    )


def without_secrets(value: object, *, depth: int, name: str = "") -> object:
    """Settings with ``REDACTED`` in place of every value whose name tells of a secret. Raises InvalidRequest: too deep."""
    if _SECRET.search(name) and not isinstance(value, Mapping):
        return REDACTED
    if depth > CONFIG_DEPTH_MAX:
        raise _refused(f"The settings lie deeper than {CONFIG_DEPTH_MAX} levels.")
    match value:
        case Mapping():
            return {str(key): without_secrets(member, depth=depth + 1, name=str(key)) for key, member in value.items()}
        case list():
            return [without_secrets(item, depth=depth + 1) for item in value]
        case str() | int() | float() | bool():
            return value
        case _:
            return str(value)  # dates and times


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= TEXT_LENGTH_MAX


def _refused(message: str, field: str = "body") -> InvalidRequest:
    return InvalidRequest(message, subject="device-data", details={"field": field})
