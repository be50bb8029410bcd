"""The operators' route by which vehicles of another server come over (docs/migration.md).

``POST /api/v1/director/import/devices``, with ``dryRun``::

    {"devices": [{"deviceId": "…", "deviceName"?: "…", "deviceType"?: "Vehicle", "notes"?: "…", "certificates"?: ["PEM", …],
                  "keptOut"?: true,
                  "ecus"?: {"primary_ecu_serial": "…", "ecus": [as in POST /director/ecus]},
                  "installed"?: {"SERIAL": {"filepath": "…", "fileinfo": {"length": 1, "hashes": {"sha256": "…"}}}}}, …]}

Each vehicle comes in whole or not at all, whatever becomes of the others; the answer says so of each.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from overair.basics.errors import InvalidRequest, OverairError
from overair.basics.ids import EcuSerial
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller
from overair.server.director.device_records import NOTES_LENGTH_MAX
from overair.server.director.importing import (
    VEHICLES_AT_ONCE_MAX,
    ImportedVehicle,
    VehicleImport,
    VehicleImports,
    VehicleOutcome,
)
from overair.server.director.model import IMAGE_NAME_LENGTH_MAX, Image
from overair.server.director.rest_devices import DEVICE_TYPES
from overair.server.director.rest_support import member
from overair.server.provisioning.importing import CERTIFICATES_MAX, read_certificates
from overair.server.rest.operations import RestAnswer, RestRequest, malformed_body, route
from overair.server.roots.service import Rehearsed
from overair.wire.uptane.ecus import read_registration
from overair.wire.uptane.fields import hashes_at, integer_at, object_at, text_at
from overair.wire.uptane.refusals import MetadataRefused

IMPORT_SIZE_BYTES_MAX: Final = 16 * 1024 * 1024
DEVICE_ID_LENGTH_MAX: Final = 256
NAME_LENGTH_MAX: Final = 200
LENGTH_MAX: Final = 2**53 - 1


class VehicleImportRestApi:
    """One route. ``work`` is the audited one."""

    def __init__(self, *, work: Work, imports: VehicleImports) -> None:
        self._work = work
        self._imports = imports

    @route(
        "POST",
        "/api/v1/director/import/devices",
        operation="ImportUptaneDevices",
        body_size_bytes_max=IMPORT_SIZE_BYTES_MAX,
    )
    async def import_devices(self, caller: Caller, request: RestRequest) -> RestAnswer:
        body = request.json_object()
        rows = body.get("devices")
        if not isinstance(rows, list) or not 1 <= len(rows) <= VEHICLES_AT_ONCE_MAX:
            raise malformed_body(f"devices is a list of 1 to {VEHICLES_AT_ONCE_MAX}.")
        dry_run = request.query.get("dryRun", "false").lower()
        if dry_run not in ("true", "false"):
            raise InvalidRequest("dryRun is true or false.", details={"field": "dryRun"})
        asked = await asyncio.to_thread(lambda: [_read(row, number) for number, row in enumerate(rows)])

        def unit(tx: Tx) -> list[ImportedVehicle]:
            told = [
                each
                if isinstance(each, ImportedVehicle)
                else self._imports.take(tx, caller.place, each, source_ip=caller.source_ip, by=caller.principal_arn)
                for each in asked
            ]
            if dry_run == "true":
                raise Rehearsed(told)
            return told

        try:
            told = await self._work.run(unit)
        except Rehearsed as rehearsed:
            told = rehearsed.outcome  # type: ignore[assignment]  # what the unit would have given
        return RestAnswer(json={"devices": [_told(each) for each in told]})


def _told(vehicle: ImportedVehicle) -> dict[str, Any]:
    return {
        "deviceId": vehicle.device_id,
        "thingName": vehicle.thing,
        "outcome": vehicle.outcome.value,
        "errors": list(vehicle.errors),
        "warnings": list(vehicle.warnings),
    }


def _read(row: object, number: int) -> VehicleImport | ImportedVehicle:
    """One vehicle; a refusal where what is said of it breaks a rule.

    Raises:
        InvalidRequest: it is no object with a device id, so that nobody could be told which it is.
    """
    if not isinstance(row, Mapping):
        raise malformed_body(f"devices[{number}] is an object.")
    device_id = member(row, "deviceId", str)
    if not 1 <= len(device_id) <= DEVICE_ID_LENGTH_MAX:
        raise malformed_body(f"devices[{number}].deviceId has 1 to {DEVICE_ID_LENGTH_MAX} characters.")
    try:
        return _understood(device_id, row)
    except (OverairError, MetadataRefused) as refused:
        return ImportedVehicle(device_id=device_id, thing=None, outcome=VehicleOutcome.REFUSED, errors=(refused.message,))


def _understood(device_id: str, row: Mapping[str, object]) -> VehicleImport:
    name, notes = member(row, "deviceName", str, default=""), member(row, "notes", str, default="")
    if len(name) > NAME_LENGTH_MAX or (name and not name.isprintable()):
        raise InvalidRequest(f"deviceName has at most {NAME_LENGTH_MAX} printable characters.")
    if len(notes) > NOTES_LENGTH_MAX or "\0" in notes:
        raise InvalidRequest(f"notes have at most {NOTES_LENGTH_MAX} characters.")
    device_type = member(row, "deviceType", str, default="Other")
    certificates = member(row, "certificates", list, default=[])
    if len(certificates) > CERTIFICATES_MAX or not all(isinstance(each, str) for each in certificates):
        raise InvalidRequest(f"certificates is a list of at most {CERTIFICATES_MAX} PEM texts.")
    ecus = row.get("ecus")
    installed = object_at(row.get("installed") or {}, "installed")
    return VehicleImport(
        device_id=device_id,
        name=name,
        device_type=device_type if device_type in DEVICE_TYPES else "Other",
        notes=notes,
        certificates=read_certificates(certificates),
        is_kept_out=member(row, "keptOut", bool, default=False),
        registration=None if ecus is None else read_registration(json.dumps(ecus).encode("ascii")),
        installed={EcuSerial(serial): _image(value, f"installed.{serial[:64]}") for serial, value in installed.items()},
    )


def _image(value: object, path: str) -> Image:
    members = object_at(value, path)
    info = object_at(members.get("fileinfo"), f"{path}.fileinfo")
    return Image(
        name=text_at(members.get("filepath"), f"{path}.filepath", length_min=1, length_max=IMAGE_NAME_LENGTH_MAX),
        length=integer_at(info.get("length"), f"{path}.fileinfo.length", minimum=0, maximum=LENGTH_MAX),
        hashes=hashes_at(info.get("hashes"), f"{path}.fileinfo.hashes", required=True),
    )
