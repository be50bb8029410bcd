"""Operators' routes of device records: what OTA Connect's device registry shows (Uptane reference §11)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol, cast

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import AlreadyExists, InvalidRequest
from overair.basics.ids import AccountId, EcuSerial, GroupName, ThingName
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller
from overair.server.devices.model import Thing, ThingGroup
from overair.server.director.model import Device, DeviceEvent, DeviceStatus, InstallationRecord, InstallationReport
from overair.server.director.rest_support import Labels, Page, flag, member, moment, number, page_of
from overair.server.director.service import DataKind, DeviceQuery, DirectorService
from overair.server.jobs.model import THING_NAME
from overair.server.rest.operations import RestAnswer, RestRequest, route

READ: Final = "overair:DescribeUptaneDevice"
CHANGE: Final = "overair:UpdateUptaneDevice"
DEVICE_TYPES: Final = ("Other", "Vehicle")
MEMBERS_MAX: Final = 10_000
HOUR_MS: Final = 3_600_000
REPORTS_AT_ONCE: Final = 1_000
_DEVICE: Final = "/api/v1/devices/{device}"
_SORT: Final = {"name": "name", "deviceid": "name", "createdat": "createdat", "lastseen": "lastseen"}
_WORD: Final = re.compile(r"[\x20-\x7e]*")


class Things(Protocol):
    """Things of the registry (``devices.service.DevicesService``)."""

    def find(self, tx: Tx, account: AccountId, name: ThingName) -> Thing: ...
    def create(self, tx: Tx, place: Place, name: ThingName) -> Thing: ...
    def delete(self, tx: Tx, account: AccountId, name: ThingName) -> None: ...


class Departures(Protocol):
    """Who takes the certificates of a device that goes (``provisioning.service.ProvisioningService``)."""

    def retire(self, tx: Tx, place: Place, thing: ThingName, *, by: str) -> None:
        """Take them away, and keep the name out until somebody unblocks it."""
        ...


class ThingGroups(Protocol):
    """Groups of the registry (``devices.service.ThingGroupsService``)."""

    def find(self, tx: Tx, account: AccountId, name: GroupName) -> ThingGroup: ...
    def groups_of(self, tx: Tx, account: AccountId, thing: ThingName, *, limit: int) -> Sequence[GroupName]: ...
    def members(
        self, tx: Tx, account: AccountId, name: GroupName, *, nested: bool, after: str | None, limit: int
    ) -> Sequence[ThingName]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A device with its thing."""

    thing: Thing
    device: Device | None
    """None: the thing has registered no ECUs."""


class DeviceRecordsRestApi:
    """Device records by UUID or name. ``work`` is the audited one."""

    def __init__(
        self,
        *,
        work: Work,
        director: DirectorService,
        things: Things,
        departures: Departures,
        groups: ThingGroups,
        labels: Labels,
        clock: Clock,
    ) -> None:
        self._work = work
        self._director = director
        self._things = things
        self._departures = departures
        self._groups = groups
        self._labels = labels
        self._clock = clock

    # Records --------------------------------------------------------------------------------------------------------------

    @route("GET", "/api/v1/devices", operation="ListUptaneDevices")
    async def search(self, caller: Caller, request: RestRequest) -> RestAnswer:
        page = page_of(request)
        query = self._query(request, page)
        group = request.query.get("groupId")

        def unit(tx: Tx) -> dict[str, object]:
            wanted = query
            if group is not None:
                name = self._labels.group(tx, caller, group, "iot:ListThingsInThingGroup", in_path=False)
                members = self._groups.members(tx, caller.account, name, nested=True, after=None, limit=MEMBERS_MAX)
                wanted = replace(query, things=tuple(members))
            total, found = self._director.views.page(tx, caller.account, wanted)
            shown = [_Shown(thing=self._things.find(tx, caller.account, each.thing), device=each) for each in found]
            return page.of(total, shown, _record)

        return RestAnswer(json=await self._work.read(unit))

    @route("POST", "/api/v1/devices", operation="CreateUptaneDevice")
    async def create(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """A device that is expected: a thing that hasn't come yet. Its id is the common name of its certificate."""
        members = request.json_object()
        said = member(members, "deviceId", str)
        name = member(members, "deviceName", str, default="")
        device_type = member(members, "deviceType", str, default="Other")
        if not THING_NAME.fullmatch(said):
            raise InvalidRequest(
                "deviceId is the common name of the device's certificate and the name of its thing: 1 to 128 of a-z, A-Z, 0-9, "
                "':', '_' and '-'.",
                subject="member",
                details={"field": "deviceId"},
            )
        if device_type not in DEVICE_TYPES or len(name) > 200 or not _WORD.fullmatch(name):
            raise InvalidRequest(
                f"deviceType is {' or '.join(DEVICE_TYPES)}; deviceName has at most 200 printable characters.",
                subject="member",
                details={"field": "deviceType" if device_type not in DEVICE_TYPES else "deviceName"},
            )

        def unit(tx: Tx) -> Thing:
            self._labels.require(tx, caller, "overair:CreateUptaneDevice", caller.place.iot("thing", said))
            if self._director.views.find(tx, caller.account, ThingName(said)) is not None:
                raise AlreadyExists(
                    f"{said} is expected or has come already: see GET /api/v1/devices/{said}.", subject="device"
                )
            thing = self._things.create(tx, caller.place, ThingName(said))
            self._director.records.expect(tx, caller.account, thing.name, name=name, device_type=device_type)
            return thing

        made = await self._work.run(unit)
        return RestAnswer(status=201, json=made.id, headers={"location": f"/api/v1/devices/{made.id}"})

    @route("GET", _DEVICE, operation="DescribeUptaneDevice")
    async def describe(self, caller: Caller, request: RestRequest) -> RestAnswer:
        def query(tx: Tx) -> dict[str, object]:
            thing = self._thing(tx, caller, request, READ)
            return _record(self._shown(tx, caller, thing))

        return RestAnswer(json=await self._work.read(query))

    @route("PUT", _DEVICE, operation="UpdateUptaneDevice")
    @route("PATCH", _DEVICE, operation="UpdateUptaneDevice")
    async def change(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """``deviceName`` and ``notes``; what is absent stays."""
        members = request.json_object()
        name = cast("str | None", member(members, "deviceName", str, default=None))
        notes = cast("str | None", member(members, "notes", str, default=None))

        def unit(tx: Tx) -> None:
            thing = self._thing(tx, caller, request, CHANGE)
            self._director.records.describe(tx, caller.account, thing, name=name, notes=notes)

        await self._work.run(unit)
        return RestAnswer(json={})

    @route("DELETE", _DEVICE, operation="DeleteUptaneDevice")
    async def delete(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """The thing with its certificates and all that is known of it; its name is kept out, lest it come back by itself."""

        def unit(tx: Tx) -> None:
            thing = self._thing(tx, caller, request, "overair:DeleteUptaneDevice")
            self._departures.retire(tx, caller.place, thing, by=caller.principal_arn)
            self._things.delete(tx, caller.account, thing)

        await self._work.run(unit)
        return RestAnswer(status=202)

    @route("GET", _DEVICE + "/groups", operation="DescribeUptaneDevice")
    async def groups(self, caller: Caller, request: RestRequest) -> RestAnswer:
        page = page_of(request)

        def query(tx: Tx) -> dict[str, object]:
            thing = self._thing(tx, caller, request, READ)
            names = self._groups.groups_of(tx, caller.account, thing, limit=MEMBERS_MAX)
            return page.cut([self._groups.find(tx, caller.account, name).id for name in names], str)

        return RestAnswer(json=await self._work.read(query))

    # What it told ---------------------------------------------------------------------------------------------------------

    @route("GET", _DEVICE + "/packages", operation="DescribeUptaneDevice")
    async def packages(self, caller: Caller, request: RestRequest) -> RestAnswer:
        page = page_of(request)
        wanted = request.query.get("nameContains", "").lower()
        found = await self._data(caller, request, DataKind.PACKAGES)
        listed = [package for package in (found[0] if found else []) if wanted in package["name"].lower()]
        updated = moment(found[1]) if found else None
        return RestAnswer(json=page.cut(listed, lambda package: {"packageId": package, "lastModified": updated}))

    @route("GET", _DEVICE + "/system_info", operation="DescribeUptaneDevice")
    async def system(self, caller: Caller, request: RestRequest) -> RestAnswer:
        found = await self._data(caller, request, DataKind.SYSTEM)
        return RestAnswer(json=found[0] if found else {})

    @route("GET", _DEVICE + "/system_info/network", operation="DescribeUptaneDevice")
    async def network(self, caller: Caller, request: RestRequest) -> RestAnswer:
        found = await self._data(caller, request, DataKind.NETWORK)
        return RestAnswer(json=found[0] if found else {"hostname": "", "local_ipv4": "", "mac": ""})

    @route("GET", _DEVICE + "/system_info/config", operation="DescribeUptaneDevice")
    async def config(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """The client's settings; the values of secret ones were never kept."""
        found = await self._data(caller, request, DataKind.CONFIG)
        return RestAnswer(json=found[0] if found else {})

    @route("GET", _DEVICE + "/events", operation="DescribeUptaneDevice")
    async def events(self, caller: Caller, request: RestRequest) -> RestAnswer:
        correlation_id = request.query.get("correlationId")

        def query(tx: Tx) -> Sequence[DeviceEvent]:
            thing = self._thing(tx, caller, request, READ)
            return self._director.views.events(tx, caller.account, thing, correlation_id=correlation_id)

        return RestAnswer(json=[_event(event) for event in await self._work.read(query)])

    # History --------------------------------------------------------------------------------------------------------------

    @route("GET", _DEVICE + "/installation_history", operation="DescribeUptaneDevice")
    async def installation_history(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """What ran on each ECU, newest first."""
        return await self._installations(caller, request, None)

    @route("GET", _DEVICE + "/ecus/{ecu}/installation_history", operation="DescribeUptaneDevice")
    async def ecu_installation_history(self, caller: Caller, request: RestRequest) -> RestAnswer:
        return await self._installations(caller, request, EcuSerial(request.labels["ecu"]))

    @route("GET", _DEVICE + "/installation_reports", operation="DescribeUptaneDevice")
    async def installation_reports(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """As the device sent them, newest first."""
        page = page_of(request)

        def query(tx: Tx) -> dict[str, object]:
            thing = self._thing(tx, caller, request, READ)
            total, found = self._director.views.reports(tx, caller.account, thing, offset=page.offset, limit=page.limit)
            return page.of(total, found, _report)

        return RestAnswer(json=await self._work.read(query))

    @route("GET", "/api/v1/devices/stats", operation="DescribeInstallationStats")
    async def stats(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Reports on one correlation id, counted by result code: of devices, or with ``reportLevel=ecu`` of ECUs."""
        correlation_id = request.query.get("correlationId", "")
        by_ecu = request.query.get("reportLevel", "device").lower() == "ecu"

        def query(tx: Tx) -> Counter[tuple[str, bool]]:
            counted: Counter[tuple[str, bool]] = Counter()
            after = None
            while found := self._director.views.reports_with(
                tx, caller.account, correlation_id, after=after, limit=REPORTS_AT_ONCE
            ):
                for _, report in found:
                    if by_ecu:
                        counted.update((code, report.success) for code in report.ecus.values())
                    else:
                        counted[report.code, report.success] += 1
                last_thing, last = found[-1]
                after = (last_thing, last.sequence)
            return counted

        counted = await self._work.read(query)
        return RestAnswer(
            json=[
                {"resultCode": code, "total": count, "success": success} for (code, success), count in sorted(counted.items())
            ]
        )

    # ------------------------------------------------------------------------------------------------------------------

    def _thing(self, tx: Tx, caller: Caller, request: RestRequest, action: str) -> ThingName:
        return self._labels.thing(tx, caller, request.labels["device"], action)

    def _shown(self, tx: Tx, caller: Caller, thing: ThingName) -> _Shown:
        found = self._things.find(tx, caller.account, thing)
        return _Shown(thing=found, device=self._director.views.find(tx, caller.account, thing))

    async def _data(self, caller: Caller, request: RestRequest, kind: DataKind) -> tuple[Any, Instant] | None:
        def query(tx: Tx) -> tuple[Any, Instant] | None:
            return self._director.records.data(tx, caller.account, self._thing(tx, caller, request, READ), kind)

        return await self._work.read(query)

    async def _installations(self, caller: Caller, request: RestRequest, serial: EcuSerial | None) -> RestAnswer:
        page = page_of(request)

        def query(tx: Tx) -> dict[str, object]:
            thing = self._thing(tx, caller, request, READ)
            total, found = self._director.views.installations(
                tx, caller.account, thing, serial, offset=page.offset, limit=page.limit
            )
            return page.of(total, found, _installation)

        return RestAnswer(json=await self._work.read(query))

    def _query(self, request: RestRequest, page: Page) -> DeviceQuery:
        status = request.query.get("status")
        if status is not None and status not in set(DeviceStatus):
            raise InvalidRequest(f"status is one of {', '.join(DeviceStatus)}.", subject="page", details={"field": "status"})
        sort_by = _SORT.get(request.query.get("sortBy", "name").lower())
        if sort_by is None:
            raise InvalidRequest("sortBy is name, createdAt or lastSeen.", subject="page", details={"field": "sortBy"})
        hours = number(request, "notSeenSinceHours", default=-1, minimum=0, maximum=100_000)
        device = request.query.get("deviceId")
        return DeviceQuery(
            offset=page.offset,
            limit=page.limit,
            name_contains=request.query.get("nameContains", ""),
            things=None if device is None else (ThingName(device),),
            status=None if status is None else DeviceStatus(status),
            hardware_ids=tuple(kind for kind in request.query.get("hardwareIds", "").split(",") if kind),
            with_anomalies=flag(request, "anomalies"),
            not_seen_since=None if hours < 0 else Instant(self._clock.now() - hours * HOUR_MS),
            sort_by=cast("Literal['name', 'createdat', 'lastseen']", sort_by),
            descending=request.query.get("sortDirection", "asc").lower() == "desc",
        )


def _record(shown: _Shown) -> dict[str, object]:
    thing, device = shown.thing, shown.device
    return {
        "uuid": thing.id,
        "deviceId": thing.name,
        "deviceName": (device.name if device is not None else "") or thing.name,
        "deviceType": device.device_type if device is not None else "Other",
        "deviceStatus": (device.status if device is not None else DeviceStatus.NOT_SEEN).value,
        "createdAt": moment(thing.created_at),
        "activatedAt": moment(device.registered_at) if device is not None else None,
        "lastSeen": moment(device.last_seen_at) if device is not None else None,
        "notes": device.notes if device is not None else "",
        "hibernated": False,
        "attributes": dict(thing.attributes),
    }


def _event(event: DeviceEvent) -> dict[str, object]:
    return {
        "id": event.id,
        "eventType": {"id": event.type, "version": event.version},
        "deviceTime": moment(event.device_time),
        "receivedAt": moment(event.received_at),
        "ecu": event.ecu or None,
        "payload": event.payload,
    }


def _installation(record: InstallationRecord) -> dict[str, object]:
    return {
        "ecu": record.serial,
        "filepath": record.image.name,
        "length": record.image.length,
        "hashes": dict(record.image.hashes),
        "installedAt": moment(record.at),
        "correlationId": record.correlation_id or None,
    }


def _report(report: InstallationReport) -> dict[str, object]:
    return {
        "correlationId": report.correlation_id,
        "result": {"success": report.success, "code": report.code, "description": report.description},
        "ecuReports": {serial: {"result": {"code": code}} for serial, code in report.ecus.items()},
        "receivedAt": moment(report.received_at),
        "report": report.raw,
    }
