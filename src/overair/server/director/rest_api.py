"""Operators' routes of the Director: multi-target updates, assignments, vehicles and their ECUs (Uptane reference §11).

Names and bodies are OTA Connect's (``docs/ota-connect-rest.md``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from overair.basics.errors import NotFound
from overair.basics.ids import EcuSerial, ThingName
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller
from overair.server.director.assignments import DEVICES_MAX
from overair.server.director.model import Device, Ecu, Image
from overair.server.director.multi_target_update import Reason, targets_members
from overair.server.director.rest_support import Labels, member, moment, page_of, texts
from overair.server.director.service import Affected, DeviceQuery, DirectorService, QueuedAssignment
from overair.server.rest.operations import RestAnswer, RestRequest, malformed_body, route

ASSIGN: Final = "overair:AssignMultiTargetUpdate"
CANCEL: Final = "overair:CancelAssignments"
READ: Final = "overair:DescribeUptaneDevice"
CHANGE: Final = "overair:UpdateUptaneDevice"
FILES_MAX: Final = 500
_DEVICE: Final = "/api/v1/director/admin/devices/{device}"
_ECU: Final = _DEVICE + "/ecus/{ecu}"
_NO_CONTENT: Final = RestAnswer(status=204)


class DirectorRestApi:
    """The operators' door to the Director. ``work`` is the audited one."""

    def __init__(self, *, work: Work, director: DirectorService, labels: Labels) -> None:
        self._work = work
        self._director = director
        self._labels = labels

    # Multi-target updates -------------------------------------------------------------------------------------------------

    @route("POST", "/api/v1/director/multi_target_updates", operation="CreateMultiTargetUpdate")
    async def create_update(self, caller: Caller, request: RestRequest) -> RestAnswer:
        members = request.json_object()
        assignments = self._director.assignments
        made = await self._work.run(lambda tx: assignments.create_update(tx, caller.account, members))
        return RestAnswer(status=201, json=made.id)

    @route("GET", "/api/v1/director/multi_target_updates/{update}", operation="DescribeMultiTargetUpdate")
    async def describe_update(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """What ``targets`` was, without the word."""
        assignments = self._director.assignments
        found = await self._work.read(lambda tx: assignments.find_update(tx, caller.account, request.labels["update"]))
        return RestAnswer(json=targets_members(found))

    # Assignments ----------------------------------------------------------------------------------------------------------

    @route("POST", "/api/v1/director/assignments", operation="AssignMultiTargetUpdate")
    async def assign(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """201 where somebody is affected, 400 where nobody is, each with the reasons of the others; 200 for a dry run."""
        members = request.json_object()
        update_id = member(members, "mtuId", str)
        devices = texts(members.get("devices"), "devices", most=DEVICES_MAX)
        dry_run = member(members, "dryRun", bool, default=False)
        correlation_id = member(members, "correlationId", str, default=f"urn:here-ota:mtu:{update_id}")
        assignments = self._director.assignments

        def unit(tx: Tx) -> tuple[Affected, Mapping[ThingName, str]]:
            named = self._named(tx, caller, devices, ASSIGN)
            if dry_run:
                return assignments.affected(tx, caller.account, update_id, list(named)), named
            made = assignments.assign(tx, caller.place, update_id, list(named), correlation_id=correlation_id)
            return made, named

        affected, named = await (self._work.read(unit) if dry_run else self._work.run(unit))
        status = 200 if dry_run or not devices else 201 if affected.things else 400
        return RestAnswer(status=status, json=_affected(affected, named))

    @route("GET", "/api/v1/director/assignments/devices", operation="AssignMultiTargetUpdate")
    async def affected(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Those of some devices that an update would reach."""
        devices = texts([name for name in request.query.get("ids", "").split(",") if name], "ids", most=DEVICES_MAX)
        update_id = request.query.get("mtuId", "")

        def query(tx: Tx) -> list[str]:
            named = self._named(tx, caller, devices, ASSIGN)
            found = self._director.assignments.affected(tx, caller.account, update_id, list(named))
            return [named[thing] for thing in found.things]

        return RestAnswer(json=await self._work.read(query))

    @route("GET", "/api/v1/director/assignments", operation="ListAssignments")
    async def list_assignments(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """What hasn't ended, of each of ``ids``."""
        devices = texts([name for name in request.query.get("ids", "").split(",") if name], "ids", most=DEVICES_MAX)

        def query(tx: Tx) -> dict[str, object]:
            named = self._named(tx, caller, devices, "overair:ListAssignments")
            assignments = self._director.assignments
            return {
                said: [_queued(each) for each in assignments.of(tx, caller.account, thing)] for thing, said in named.items()
            }

        return RestAnswer(json=await self._work.read(query))

    @route("PATCH", "/api/v1/director/assignments", operation="CancelAssignments")
    async def cancel_several(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """The devices of which something was cancelled. Without ``x-trx-force`` one that has fetched its assignment refuses all
        of them."""
        devices = texts(request.json(), "body", most=DEVICES_MAX)
        force = _forced(request)

        def unit(tx: Tx) -> list[str]:
            named = self._named(tx, caller, devices, CANCEL)
            assignments = self._director.assignments
            return [said for thing, said in named.items() if assignments.cancel(tx, caller.account, thing, force=force)]

        return RestAnswer(json=await self._work.run(unit))

    @route("GET", "/api/v1/director/assignments/{device}", operation="DescribeAssignments")
    async def describe_assignments(self, caller: Caller, request: RestRequest) -> RestAnswer:
        def query(tx: Tx) -> list[object]:
            thing = self._labels.thing(tx, caller, request.labels["device"], "overair:DescribeAssignments")
            return [_queued(each) for each in self._director.assignments.of(tx, caller.account, thing)]

        return RestAnswer(json=await self._work.read(query))

    @route("PATCH", "/api/v1/director/assignments/{device}", operation="CancelAssignment")
    @route("DELETE", "/api/v1/director/assignments/{device}", operation="CancelAssignment")
    async def cancel_one(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """409 ``assignment_in_flight`` where the vehicle has fetched it, unless ``x-trx-force: true``."""

        def unit(tx: Tx) -> None:
            thing = self._labels.thing(tx, caller, request.labels["device"], "overair:CancelAssignment")
            if not self._director.assignments.cancel(tx, caller.account, thing, force=_forced(request)):
                raise NotFound(f"Nothing is assigned to {thing}.", subject="assignment")

        await self._work.run(unit)
        return _NO_CONTENT

    # Vehicles and ECUs ----------------------------------------------------------------------------------------------------

    @route("GET", "/api/v1/director/admin/devices", operation="ListUptaneDevices")
    async def list_devices(self, caller: Caller, request: RestRequest) -> RestAnswer:
        page = page_of(request)
        hardware = request.query.get("primaryHardwareId")
        query = DeviceQuery(offset=page.offset, limit=page.limit, hardware_ids=(hardware,) if hardware else ())
        total, found = await self._work.read(lambda tx: self._director.views.page(tx, caller.account, query))
        return RestAnswer(json=page.of(total, found, _device))

    @route("GET", "/api/v1/director/admin/devices/hardware_identifiers", operation="ListUptaneDevices")
    async def hardware_ids(self, caller: Caller, request: RestRequest) -> RestAnswer:
        page = page_of(request)
        total, found = await self._work.read(
            lambda tx: self._director.views.hardware_ids(tx, caller.account, offset=page.offset, limit=page.limit)
        )
        return RestAnswer(json=page.of(total, found, str))

    @route("GET", _DEVICE, operation="DescribeUptaneDevice")
    async def describe_device(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Its ECUs and what runs on them."""

        def query(tx: Tx) -> list[object]:
            thing = self._labels.thing(tx, caller, request.labels["device"], READ)
            return [_ecu(ecu) for ecu in self._director.views.require(tx, caller.account, thing).ecus]

        return RestAnswer(json=await self._work.read(query))

    @route("PUT", _DEVICE + "/targets.json", operation="UpdateUptaneDevice")
    async def refresh_targets(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """What the vehicle is told is signed anew at its next request."""

        def unit(tx: Tx) -> None:
            thing = self._labels.thing(tx, caller, request.labels["device"], CHANGE)
            self._director.views.require(tx, caller.account, thing)
            self._director.metadata.renew(tx, caller.account, thing)

        await self._work.run(unit)
        return RestAnswer(status=202)

    @route("GET", _ECU + "/public_key", operation="DescribeUptaneDevice")
    async def public_key(self, caller: Caller, request: RestRequest) -> RestAnswer:
        def query(tx: Tx) -> Ecu:
            thing = self._labels.thing(tx, caller, request.labels["device"], READ)
            facts = self._director.views.require(tx, caller.account, thing)
            found = next((ecu for ecu in facts.ecus if ecu.serial == request.labels["ecu"]), None)
            if found is None:
                raise NotFound(f"{thing} has no ECU {request.labels['ecu'][:64]!r}.", subject="ecu")
            return found

        return RestAnswer(json=(await self._work.read(query)).key.to_json())

    @route("PUT", _ECU + "/public_key/approval", operation="ApproveEcuKey")
    async def approve_key(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """The key that an ECU came with is taken at its next registration."""

        def unit(tx: Tx) -> dict[str, object]:
            thing = self._labels.thing(tx, caller, request.labels["device"], "overair:ApproveEcuKey")
            serial = EcuSerial(request.labels["ecu"])
            change = self._director.registrations.approve_key(tx, caller.account, thing, serial)
            return {"ecu": serial, "keyId": change.key.id, "publicKey": change.key.to_json()}

        return RestAnswer(json=await self._work.run(unit))

    @route("DELETE", _ECU + "/public_key/approval", operation="DeclineEcuKey")
    async def decline_key(self, caller: Caller, request: RestRequest) -> RestAnswer:
        def unit(tx: Tx) -> None:
            thing = self._labels.thing(tx, caller, request.labels["device"], "overair:DeclineEcuKey")
            self._director.registrations.decline_key(tx, caller.account, thing, EcuSerial(request.labels["ecu"]))

        await self._work.run(unit)
        return _NO_CONTENT

    @route("DELETE", _DEVICE + "/report_counter", operation="ResetReportCounter")
    async def reset_counter(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """For a vehicle that lost its storage: its next manifest is taken whatever it counts."""

        def unit(tx: Tx) -> None:
            thing = self._labels.thing(tx, caller, request.labels["device"], "overair:ResetReportCounter")
            self._director.registrations.allow_counter_from(tx, caller.account, thing)

        await self._work.run(unit)
        return _NO_CONTENT

    @route("DELETE", _DEVICE + "/anomalies", operation="UpdateUptaneDevice")
    async def forget_anomalies(self, caller: Caller, request: RestRequest) -> RestAnswer:
        def unit(tx: Tx) -> None:
            thing = self._labels.thing(tx, caller, request.labels["device"], CHANGE)
            self._director.views.forget_anomalies(tx, caller.account, thing)

        await self._work.run(unit)
        return _NO_CONTENT

    @route("POST", "/api/v1/director/admin/images/installed_count", operation="CountInstalledImages")
    async def installed_count(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """ECUs by what runs on them, of the files named."""
        files = texts(request.json_object().get("filepaths"), "filepaths", most=FILES_MAX)
        counted = await self._work.read(lambda tx: self._director.views.count_installed(tx, caller.account, files))
        return RestAnswer(json=counted)

    # Automatic updates ----------------------------------------------------------------------------------------------------

    @route("GET", _ECU + "/auto_update", operation="ListAutoUpdates")
    async def list_auto_updates(self, caller: Caller, request: RestRequest) -> RestAnswer:
        def query(tx: Tx) -> list[str]:
            thing = self._labels.thing(tx, caller, request.labels["device"], "overair:ListAutoUpdates")
            rules = self._director.auto_updates.of(tx, caller.account, thing, EcuSerial(request.labels["ecu"]))
            return [rule.target_name for rule in rules]

        return RestAnswer(json=await self._work.read(query))

    @route("PUT", _ECU + "/auto_update/{target}", operation="SetAutoUpdate")
    async def set_auto_update(self, caller: Caller, request: RestRequest) -> RestAnswer:
        def unit(tx: Tx) -> None:
            thing = self._labels.thing(tx, caller, request.labels["device"], "overair:SetAutoUpdate")
            serial, target = EcuSerial(request.labels["ecu"]), request.labels["target"]
            self._director.auto_updates.set(tx, caller.account, thing, serial, target)

        await self._work.run(unit)
        return _NO_CONTENT

    @route("DELETE", _ECU + "/auto_update", operation="DeleteAutoUpdate")
    @route("DELETE", _ECU + "/auto_update/{target}", operation="DeleteAutoUpdate")
    async def delete_auto_update(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """One rule, or all of the ECU."""

        def unit(tx: Tx) -> None:
            thing = self._labels.thing(tx, caller, request.labels["device"], "overair:DeleteAutoUpdate")
            serial, target = EcuSerial(request.labels["ecu"]), request.labels.get("target")
            self._director.auto_updates.drop(tx, caller.account, thing, serial, target)

        await self._work.run(unit)
        return _NO_CONTENT

    # ------------------------------------------------------------------------------------------------------------------

    def _named(self, tx: Tx, caller: Caller, devices: tuple[str, ...], action: str) -> dict[ThingName, str]:
        """Thing → as the operator called it. Raises NotFound, AccessDenied."""
        return {self._labels.thing(tx, caller, said, action, in_path=False): said for said in devices}


def _forced(request: RestRequest) -> bool:
    value = request.headers.get("x-trx-force", "false").lower()
    if value not in ("true", "false"):
        raise malformed_body("x-trx-force is true or false.")
    return value == "true"


def _affected(affected: Affected, named: Mapping[ThingName, str]) -> dict[str, object]:
    return {
        "affected": [named[thing] for thing in affected.things],
        "notAffected": {
            named[thing]: {serial: _reason(reason) for serial, reason in reasons.items()}
            for thing, reasons in affected.not_affected.items()
        },
    }


def _reason(reason: Reason) -> dict[str, str]:
    return {"code": reason.code.value, "description": reason.message}


def _queued(queued: QueuedAssignment) -> dict[str, object]:
    return {
        "correlationId": queued.correlation_id,
        "targets": {
            serial: {"image": _image(image), "uri": uri, "createdAt": moment(queued.created_at)}
            for serial, (image, uri) in queued.targets.items()
        },
        "inFlight": queued.in_flight,
        "jobId": queued.execution.job,
    }


def _image(image: Image) -> dict[str, object]:
    return {"filepath": image.name, "fileinfo": {"hashes": dict(image.hashes), "length": image.length}}


def _device(device: Device) -> dict[str, object]:
    return {"id": device.thing, "primaryEcu": device.primary, "createdAt": moment(device.created_at)}


def _ecu(ecu: Ecu) -> dict[str, object]:
    installed = ecu.installed
    image = None
    if installed is not None:
        image = {
            "filepath": installed.image.name,
            "size": installed.image.length,
            "hash": {"sha256": installed.image.sha256},
            "installedAt": moment(installed.since),
        }
    return {
        "id": ecu.serial,
        "hardwareId": ecu.hardware_id,
        "primary": ecu.is_primary,
        "image": image,
    }
