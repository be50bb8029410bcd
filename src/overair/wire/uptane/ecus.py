"""Who a vehicle is made of: the body of ``POST /director/ecus`` (Uptane reference §3.4)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from overair.wire.uptane.canonical import read
from overair.wire.uptane.fields import array_at, object_at, text_at
from overair.wire.uptane.keys import PublicKey, read_public_key
from overair.wire.uptane.manifest import ECUS_MAX, SERIAL_LENGTH_MAX
from overair.wire.uptane.refusals import MetadataRefused, Reason

REGISTRATION_SIZE_BYTES_MAX: Final = 512 * 1024
HARDWARE_ID_LENGTH_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Ecu:
    """One ECU as it registers."""

    serial: str
    hardware_id: str
    key: PublicKey
    """What it signs its reports with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EcuRegistration:
    """All ECUs of one vehicle, the Primary among them."""

    primary: str
    """Its serial."""
    ecus: tuple[Ecu, ...]


def read_registration(data: bytes) -> EcuRegistration:
    """Read the list that a Primary posts.

    Raises:
        MetadataRefused: OVERSIZED; INVALID_METADATA; UNSUPPORTED_METHOD (a key of an ``unknown`` or unusable kind); BAD_ECU_ID
            (the Primary isn't listed: ``field`` is ``primary_ecu_serial``; or a serial comes twice).
    """
    body = read(data, size_bytes_max=REGISTRATION_SIZE_BYTES_MAX)
    primary = _serial(body.get("primary_ecu_serial"), "primary_ecu_serial")
    rows = array_at(body.get("ecus"), "ecus")
    if not 1 <= len(rows) <= ECUS_MAX:
        raise MetadataRefused(Reason.INVALID_METADATA, f"A vehicle has 1 to {ECUS_MAX} ECUs.", field="ecus")
    found: dict[str, Ecu] = {}
    for number, row in enumerate(rows):
        path = f"ecus[{number}]"
        members = object_at(row, path)
        serial = _serial(members.get("ecu_serial"), f"{path}.ecu_serial")
        if serial in found:
            raise MetadataRefused(Reason.BAD_ECU_ID, f"The ECU {serial!r} is listed twice.", field=f"{path}.ecu_serial")
        found[serial] = Ecu(
            serial=serial,
            hardware_id=text_at(
                members.get("hardware_identifier"), f"{path}.hardware_identifier", length_max=HARDWARE_ID_LENGTH_MAX
            ),
            key=read_public_key(members.get("clientKey"), field=f"{path}.clientKey"),
        )
    if primary not in found:
        raise MetadataRefused(
            Reason.BAD_ECU_ID, f"The Primary {primary!r} isn't one of the ECUs that are listed.", field="primary_ecu_serial"
        )
    return EcuRegistration(primary=primary, ecus=tuple(found.values()))


def registration_body(primary: str, ecus: Sequence[Ecu]) -> bytes:
    """What a Primary posts."""
    rows = [{"ecu_serial": ecu.serial, "hardware_identifier": ecu.hardware_id, "clientKey": ecu.key.to_json()} for ecu in ecus]
    return json.dumps({"primary_ecu_serial": primary, "ecus": rows}, separators=(",", ":")).encode("ascii")


def _serial(value: object, path: str) -> str:
    return text_at(value, path, length_min=1, length_max=SERIAL_LENGTH_MAX)
