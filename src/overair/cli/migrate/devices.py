"""Devices of the old server: OTA Connect's device registry and Director, asked device by device (Uptane reference §11)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from overair.cli.migrate.layout import DEVICES_MAX
from overair.cli.migrate.source import Source
from overair.cli.rest import RestRefused

PAGE: Final = 100
ECUS_MAX: Final = 1000
CERTIFICATES_MAX: Final = 10
CERTIFICATE_SIZE_BYTES_MAX: Final = 64 * 1024
_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_DETAILS: Final = ("deviceName", "deviceType", "notes")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """One line of the old server's list."""

    key: str
    """Its UUID over there."""
    device_id: str
    details: Mapping[str, str]


class DeviceReader:
    """What the old server knows of its devices. ``director``: where its Director's paths begin."""

    def __init__(self, source: Source, director: str) -> None:
        self._source, self._director = source, director

    def rows(self) -> Iterator[DeviceRow]:
        """All of them, page by page; one that moves between pages meanwhile comes once.

        Raises:
            RestRefused: the list can't be had or read. RestUnreachable
        """
        seen: set[str] = set()
        offset = 0
        while offset < DEVICES_MAX:
            answer = self._source.gateway("/api/v1/devices", offset=str(offset), limit=str(PAGE), sortBy="CreatedAt")
            page = answer.expect("The devices can't be listed").json()
            values, total = page.get("values"), page.get("total")
            if not isinstance(values, list) or not isinstance(total, int):
                raise RestRefused("The list of devices can't be understood: it has no values or no total.")
            for value in values:
                row = _row(value)
                if row.key not in seen:
                    seen.add(row.key)
                    yield row
            offset += len(values)
            if not values or offset >= total:
                return

    def read(self, row: DeviceRow) -> dict[str, Any]:
        """One device whole, as the directory keeps it; what can't be had of it stands in ``problems``."""
        problems: list[str] = []
        ecus, installed = self._ecus(row, problems)
        certificates, is_kept_out = self._certificates(row, problems)
        return {
            "uuid": row.key,
            "deviceId": row.device_id,
            **row.details,
            "certificates": certificates,
            "keptOut": is_kept_out,
            "ecus": ecus,
            "installed": installed,
            "problems": problems,
        }

    def _certificates(self, row: DeviceRow, problems: list[str]) -> tuple[list[str], bool]:
        """PEM; and whether the device is kept out over there: only a server of ours says so."""
        answer = self._source.gateway(f"/api/v1/devices/{row.key}/public_credentials")
        if answer.status == 404:
            return [], False
        told = answer.json() if answer.is_good else {}
        usable = told.get("usableCredentials")
        found = usable if isinstance(usable, list) else [told.get("credentials")]
        if len(found) > CERTIFICATES_MAX or not all(_is_certificate(pem) for pem in found):
            problems.append(f"Its certificate can't be read (status {answer.status}).")
            return [], False
        return [str(pem) for pem in found], usable == []

    def _ecus(self, row: DeviceRow, problems: list[str]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        path = f"{self._director}/admin/devices/{row.key}"
        answer = self._source.gateway(path)
        if answer.status == 404:
            return None, {}
        listed = answer.value() if answer.is_good else None
        if not isinstance(listed, list) or len(listed) > ECUS_MAX:
            problems.append(f"Its ECUs can't be read (status {answer.status}).")
            return None, {}
        ecus: list[dict[str, Any]] = []
        installed: dict[str, Any] = {}
        primaries: list[str] = []
        for each in listed:
            serial = each.get("id") if isinstance(each, dict) else None
            if not isinstance(serial, str):
                problems.append("One of its ECUs has no id.")
                return None, {}
            key = self._source.gateway(f"{path}/ecus/{quote(serial, safe='')}/public_key")
            if not key.is_good or not key.json():
                problems.append(f"The key of ECU {serial[:64]} can't be read (status {key.status}).")
                return None, {}
            ecus.append({"ecu_serial": serial, "hardware_identifier": str(each.get("hardwareId", "")), "clientKey": key.json()})
            if each.get("primary") is True:
                primaries.append(serial)
            image = _image(each.get("image"))
            if image is not None:
                installed[serial] = image
        if not ecus:
            return None, {}
        if len(primaries) != 1:
            problems.append(f"It has {len(primaries)} Primaries.")
            return None, {}
        return {"primary_ecu_serial": primaries[0], "ecus": ecus}, installed


def _row(value: Any) -> DeviceRow:
    key, device_id = (value.get("uuid"), value.get("deviceId")) if isinstance(value, dict) else (None, None)
    if not isinstance(key, str) or not _KEY.fullmatch(key) or not isinstance(device_id, str) or not device_id:
        raise RestRefused("The list of devices can't be understood: a device has no uuid or no deviceId.")
    details = {name: value[name] for name in _DETAILS if isinstance(value.get(name), str) and value[name]}
    if details.get("deviceName") == device_id:
        del details["deviceName"]
    return DeviceRow(key=key, device_id=device_id, details=details)


def _image(value: Any) -> dict[str, Any] | None:
    """As manifests name an image; of OTA Connect's ``{"filepath", "size", "hash"}``."""
    if not isinstance(value, dict):
        return None
    name, length, hashes = value.get("filepath"), value.get("size"), value.get("hash")
    info = value.get("fileinfo")
    if isinstance(info, dict):
        length, hashes = info.get("length"), info.get("hashes")
    if not isinstance(name, str) or not isinstance(length, int) or not isinstance(hashes, dict) or not hashes:
        return None
    return {"filepath": name, "fileinfo": {"length": length, "hashes": hashes}}


def _is_certificate(pem: Any) -> bool:
    return isinstance(pem, str) and len(pem) <= CERTIFICATE_SIZE_BYTES_MAX and "PRIVATE" not in pem
