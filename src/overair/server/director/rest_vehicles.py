"""Everything that the Director knows of one vehicle, in one answer: a route of our own."""

from __future__ import annotations

from overair.basics.ids import JobId
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller
from overair.server.director.model import Anomaly, Assignment, Cancelled, DirectorView, Ecu, Image, KeyChange, LeftOut
from overair.server.director.rest_support import Labels, moment
from overair.server.director.service import DirectorService, VehicleFacts
from overair.server.rest.operations import RestAnswer, RestRequest, route


class VehiclesRestApi:
    """One vehicle as a whole. ``work`` is the audited one."""

    def __init__(self, *, work: Work, director: DirectorService, labels: Labels) -> None:
        self._work = work
        self._director = director
        self._labels = labels

    @route("GET", "/api/v1/director/vehicles/{device}", operation="DescribeUptaneDevice")
    async def describe(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Its ECUs and keys, what it is told and how the last cancelled assignment is kept from it, and all that was odd."""

        def query(tx: Tx) -> VehicleFacts:
            thing = self._labels.thing(tx, caller, request.labels["device"], "overair:DescribeUptaneDevice")
            return self._director.views.require(tx, caller.account, thing)

        return RestAnswer(json=_vehicle(await self._work.read(query)))


def _vehicle(facts: VehicleFacts) -> dict[str, object]:
    device = facts.device
    return {
        "device": device.thing,
        "status": device.status.value,
        "primary": device.primary,
        "lastSeen": moment(device.last_seen_at),
        "lastManifest": moment(device.last_manifest_at),
        "reportCounter": device.report_counter,
        "ecus": [_ecu(ecu) for ecu in facts.ecus],
        "retiredEcus": [ecu.serial for ecu in facts.retired],
        "keysAwaitingApproval": [_key_change(change) for change in facts.key_changes],
        "told": None if facts.view is None else _told(facts.view),
        "cancelled": None if facts.view is None or facts.view.cancelled is None else _cancelled(facts.view.cancelled),
        "assignments": [_assignment(assignment) for assignment in facts.assignments],
        "leftOut": [_left_out(job, left_out) for job, left_out in facts.left_out],
        "anomalies": [_anomaly(anomaly) for anomaly in facts.anomalies],
    }


def _ecu(ecu: Ecu) -> dict[str, object]:
    return {
        "serial": ecu.serial,
        "hardwareId": ecu.hardware_id,
        "isPrimary": ecu.is_primary,
        "keyId": ecu.key.id,
        "registeredAt": moment(ecu.registered_at),
        "installed": None if ecu.installed is None else _image(ecu.installed.image),
        "installedSince": None if ecu.installed is None else moment(ecu.installed.since),
    }


def _image(image: Image) -> dict[str, object]:
    return {"target": image.name, "length": image.length, "hashes": dict(image.hashes)}


def _key_change(change: KeyChange) -> dict[str, object]:
    return {"serial": change.serial, "keyId": change.key.id, "askedAt": moment(change.asked_at)}


def _told(view: DirectorView) -> dict[str, object]:
    return {
        "version": view.version,
        "targets": view.view.value,
        "jobId": view.job,
        "correlationId": view.correlation_id or None,
        "rootVersion": view.root_version,
        "signedAt": moment(view.signed_at),
        "expiresAt": moment(view.expires_at),
    }


def _cancelled(cancelled: Cancelled) -> dict[str, object]:
    return {
        "jobId": cancelled.job,
        "executionNumber": cancelled.number,
        "way": cancelled.way.value,
        "at": moment(cancelled.at),
        "heldUntil": moment(cancelled.held_until),
    }


def _assignment(assignment: Assignment) -> dict[str, object]:
    return {
        "jobId": assignment.job,
        "executionNumber": assignment.number,
        "multiTargetUpdate": assignment.update,
        "correlationId": assignment.correlation_id,
        "ecus": {
            serial: {"target": image.name, "isInstalled": serial in assignment.installed}
            for serial, image in assignment.targets.items()
        },
        "createdAt": moment(assignment.created_at),
        "endedAt": moment(assignment.ended_at),
        "outcome": None if assignment.outcome is None else assignment.outcome.value,
        "resultCode": assignment.result_code or None,
    }


def _left_out(job: JobId, left_out: LeftOut) -> dict[str, object]:
    return {
        "jobId": job,
        "code": left_out.code,
        "description": left_out.message,
        "ecus": dict(left_out.ecus),
        "at": moment(left_out.at),
    }


def _anomaly(anomaly: Anomaly) -> dict[str, object]:
    return {
        "kind": anomaly.kind.value,
        "ecu": anomaly.serial or None,
        "description": anomaly.detail,
        "firstAt": moment(anomaly.first_at),
        "lastAt": moment(anomaly.last_at),
        "count": anomaly.count,
    }
