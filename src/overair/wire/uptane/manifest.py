"""The vehicle version manifest, ``PUT /director/manifest``: what runs on each ECU, signed by each, and how an update ended.

Uptane reference §6.1, §8.4 (Standard 5.4.2.1). Whoever reads one checks its signatures with the keys that the ECUs registered,
by serial: the key id that a device sends is its own business. All of it is signed over the escaped canonical form.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, cast

from overair.wire.uptane.canonical import canonical, read
from overair.wire.uptane.fields import array_at, hashes_at, integer_at, malformed, object_at, text_at
from overair.wire.uptane.keys import METHODS, PublicKey
from overair.wire.uptane.metadata import Signature, TargetFile
from overair.wire.uptane.metadata_writing import MetadataSigner
from overair.wire.uptane.reports import (
    InstallationReport,
    InstallationResult,
    UnreadableReport,
    read_operation_result,
    read_report,
    report_to_json,
)

MANIFEST_SIZE_BYTES_MAX: Final = 512 * 1024
ECUS_MAX: Final = 256
SERIAL_LENGTH_MAX: Final = 64
SIGNATURES_MAX: Final = 8
REPORTS_REMEMBERED_MAX: Final = 8192
"""Reports of Secondaries whose signatures needn't be looked at again."""
REMEMBERED_SIZE_BYTES_MAX: Final = 4096
"""Of one such report with its signatures: a larger one is looked at each time, so that nobody fills the memory."""
LENGTH_MAX: Final = 2**53 - 1
FILE_NAME_LENGTH_MAX: Final = 1024
ATTACKS_LENGTH_MAX: Final = 4096
NO_TIME: Final = "1970-01-01T00:00:00Z"
"""Said by clients that ask no time server."""
UNKNOWN_IMAGE: Final = TargetFile(
    name="unknown",
    length=0,
    hashes={"sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
)
"""What an ECU says that was never updated: no name, and the hash of nothing."""


class ManifestProblem(StrEnum):
    """Why a manifest isn't believed; the values are OTA Connect's codes where it has one."""

    SIGNATURE_NOT_VALID = "signature_not_valid"
    ECU_NOT_PRIMARY = "ecu_not_primary"
    ECU_NOT_REGISTERED = "ecu_not_registered"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionReport:
    """What one ECU says of itself."""

    ecu: str
    """Its serial."""
    installed: TargetFile
    """``custom`` is empty: an ECU reports name, length and hashes."""
    attacks_detected: str = ""
    report_counter: int | None = None
    """Of the Primary alone: rises with each manifest that is built, sent or not."""
    timeserver_time: str = NO_TIME
    previous_timeserver_time: str = NO_TIME
    custom: Mapping[str, Any] = field(default_factory=dict)

    @property
    def operation_result(self) -> InstallationResult | None:
        """How the last installation ended, as clients of the second form say it."""
        return read_operation_result(self.custom)

    @property
    def image_is_known(self) -> bool:
        return self.installed.name != UNKNOWN_IMAGE.name


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedReport:
    """One ECU's report with whatever is needed to check it."""

    report: VersionReport
    signed_bytes: bytes
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VehicleManifest:
    """A manifest as it was read; nothing of it is believed before ``verify_manifest``."""

    primary: str
    """Serial of the ECU that speaks for the vehicle."""
    reports: Mapping[str, SignedReport]
    """By ECU serial."""
    installation_report: InstallationReport | UnreadableReport | None
    custom: Mapping[str, Any]
    signed_bytes: bytes
    signatures: tuple[Signature, ...]
    raw: bytes

    @property
    def report_counter(self) -> int | None:
        """The Primary's; a manifest whose counter isn't higher than the last one is a replay."""
        signed = self.reports.get(self.primary)
        return signed.report.report_counter if signed else None

    @property
    def installed(self) -> Mapping[str, TargetFile]:
        """What runs on each ECU that reports."""
        return {serial: signed.report.installed for serial, signed in self.reports.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedManifest:
    """Every ECU in it has signed its own report, and the Primary all of it."""

    manifest: VehicleManifest
    missing: tuple[str, ...]
    """Registered ECUs that don't report: a Secondary that the Primary can't reach. Odd, and no reason to refuse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRefused:
    """Not from this vehicle's ECUs."""

    problem: ManifestProblem
    message: str
    field: str


# Reading ------------------------------------------------------------------------------------------------------------------


def read_manifest(data: bytes) -> VehicleManifest:
    """Read a manifest, in today's form or in the two before it (a list of reports; results inside an ECU's ``custom``).

    Raises:
        MetadataRefused: OVERSIZED, INVALID_METADATA.
    """
    envelope = read(data, size_bytes_max=MANIFEST_SIZE_BYTES_MAX)
    signed = object_at(envelope.get("signed"), "signed")
    report = signed.get("installation_report")
    custom = signed.get("custom")
    return VehicleManifest(
        primary=text_at(
            signed.get("primary_ecu_serial"), "signed.primary_ecu_serial", length_min=1, length_max=SERIAL_LENGTH_MAX
        ),
        reports=_read_reports(signed),
        installation_report=None if report is None else read_report(report),
        custom=cast("Mapping[str, Any]", custom) if isinstance(custom, Mapping) else {},
        signed_bytes=canonical(signed, checked=True),
        signatures=_read_signatures(envelope.get("signatures"), "signatures"),
        raw=data,
    )


def read_signed_report(value: object, path: str = "report") -> SignedReport:
    """One ECU's report, ``{"signatures", "signed"}``, of what ``canonical.read`` has let through.

    Raises:
        MetadataRefused: INVALID_METADATA.
    """
    envelope = object_at(value, path)
    signed = object_at(envelope.get("signed"), f"{path}.signed")
    serial = signed.get("ecu_serial")
    image = object_at(signed.get("installed_image"), f"{path}.signed.installed_image")
    place = f"{path}.signed.installed_image.fileinfo"
    info = object_at(image.get("fileinfo"), place)
    name = image.get("filepath")
    custom = signed.get("custom")
    report = VersionReport(
        ecu=text_at(serial, f"{path}.signed.ecu_serial", length_min=1, length_max=SERIAL_LENGTH_MAX),
        installed=TargetFile(
            name=text_at(name, f"{path}.signed.installed_image.filepath", length_min=1, length_max=FILE_NAME_LENGTH_MAX),
            length=integer_at(info.get("length"), f"{place}.length", minimum=0, maximum=LENGTH_MAX),
            hashes=hashes_at(info.get("hashes"), f"{place}.hashes", required=True),
        ),
        attacks_detected=_attacks(signed.get("attacks_detected")),
        report_counter=_counter(signed.get("report_counter"), f"{path}.signed.report_counter"),
        timeserver_time=_time(signed.get("timeserver_time")),
        previous_timeserver_time=_time(signed.get("previous_timeserver_time")),
        custom=cast("Mapping[str, Any]", custom) if isinstance(custom, Mapping) else {},
    )
    return SignedReport(
        report=report,
        signed_bytes=canonical(signed, checked=True),
        signatures=_read_signatures(envelope.get("signatures"), f"{path}.signatures"),
    )


# Verifying ----------------------------------------------------------------------------------------------------------------


def verify_manifest(
    manifest: VehicleManifest, keys: Mapping[str, PublicKey], *, primary: str
) -> VerifiedManifest | ManifestRefused:
    """Whether the vehicle whose ECUs registered ``keys`` (by serial), with this Primary, said this.

    Replays aren't looked for here, since they can't be told from one manifest: see ``VehicleManifest.report_counter``.
    """
    if manifest.primary != primary:
        return ManifestRefused(
            problem=ManifestProblem.ECU_NOT_PRIMARY,
            message=f"The ECU {manifest.primary!r} isn't this vehicle's Primary: {primary!r} is.",
            field="signed.primary_ecu_serial",
        )
    key = keys.get(primary)
    if key is None or not is_signed_by(key, manifest.signed_bytes, manifest.signatures):
        return ManifestRefused(
            problem=ManifestProblem.SIGNATURE_NOT_VALID,
            message="The manifest isn't signed by the key that the Primary registered.",
            field="signatures",
        )
    for serial, signed in manifest.reports.items():
        path = f"signed.ecu_version_manifests.{serial}"
        key = keys.get(serial)
        if key is None:
            return ManifestRefused(
                problem=ManifestProblem.ECU_NOT_REGISTERED,
                message=f"The ECU {serial!r} isn't registered for this vehicle.",
                field=path,
            )
        # What a Secondary says stays the same from one manifest to the next; a Primary counts each of its own.
        holds = is_signed_by if serial == primary else _is_known_to_be_signed_by
        if not holds(key, signed.signed_bytes, signed.signatures):
            return ManifestRefused(
                problem=ManifestProblem.SIGNATURE_NOT_VALID,
                message=f"The report of the ECU {serial!r} isn't signed by the key that it registered.",
                field=f"{path}.signatures",
            )
    return VerifiedManifest(manifest=manifest, missing=tuple(sorted(keys.keys() - manifest.reports.keys())))


def is_signed_by(key: PublicKey, data: bytes, signatures: tuple[Signature, ...]) -> bool:
    """Whether one of these is the key's over ``data``, with a method that is the key's."""
    return any(
        (signature.method or "").lower() in METHODS.get(key.type, ()) and key.verifies(signature.value, data)
        for signature in signatures
    )


_remembered = lru_cache(maxsize=REPORTS_REMEMBERED_MAX)(is_signed_by)


def _is_known_to_be_signed_by(key: PublicKey, data: bytes, signatures: tuple[Signature, ...]) -> bool:
    """The same, answered from memory where it was asked before."""
    size = len(data) + sum(len(each.value) + len(each.key_id) + len(each.method or "") for each in signatures)
    return (_remembered if size <= REMEMBERED_SIZE_BYTES_MAX else is_signed_by)(key, data, signatures)


# Writing ------------------------------------------------------------------------------------------------------------------


def sign_report(report: VersionReport, signer: MetadataSigner) -> dict[str, object]:
    """An ECU's own report, signed by its key; ``build_manifest`` takes it as it is, also from a Secondary."""
    signed: dict[str, object] = {
        "ecu_serial": report.ecu,
        "attacks_detected": report.attacks_detected,
        "installed_image": {
            "filepath": report.installed.name,
            "fileinfo": {"length": report.installed.length, "hashes": dict(report.installed.hashes)},
        },
        "timeserver_time": report.timeserver_time,
        "previous_timeserver_time": report.previous_timeserver_time,
    }
    if report.report_counter is not None:
        signed["report_counter"] = str(report.report_counter)
    if report.custom:
        signed["custom"] = dict(report.custom)
    return _signed(signed, signer)


def build_manifest(
    primary: str,
    reports: Mapping[str, Mapping[str, object]],
    signer: MetadataSigner,
    *,
    installation_report: InstallationReport | None = None,
    custom: Mapping[str, object] | None = None,
) -> bytes:
    """The body of ``PUT /director/manifest``, signed by the Primary. ``reports``: what ``sign_report`` made, by ECU serial."""
    signed: dict[str, object] = {
        "primary_ecu_serial": primary,
        "ecu_version_manifests": {serial: dict(report) for serial, report in reports.items()},
    }
    if installation_report is not None:
        signed["installation_report"] = report_to_json(installation_report)
    if custom:
        signed["custom"] = dict(custom)
    return canonical(_signed(signed, signer))


# ----------------------------------------------------------------------------------------------------------------------------


def _signed(signed: dict[str, object], signer: MetadataSigner) -> dict[str, object]:
    key = signer.public_key
    value = base64.b64encode(signer.sign(canonical(signed))).decode("ascii")
    return {"signatures": [{"keyid": key.id, "method": key.method, "sig": value}], "signed": signed}


def _read_reports(signed: Mapping[str, object]) -> Mapping[str, SignedReport]:
    path = "signed.ecu_version_manifests"
    if "ecu_version_manifests" in signed:
        named = object_at(signed["ecu_version_manifests"], path)
        rows = [(serial, value, f"{path}.{serial[:SERIAL_LENGTH_MAX]}") for serial, value in named.items()]
    else:
        path = "signed.ecu_version_manifest"
        listed = array_at(signed.get("ecu_version_manifest"), path)
        rows = [("", value, f"{path}[{number}]") for number, value in enumerate(listed)]
    if len(rows) > ECUS_MAX:
        raise malformed(f"A vehicle has at most {ECUS_MAX} ECUs.", path)
    found: dict[str, SignedReport] = {}
    for serial, value, place in rows:
        report = read_signed_report(value, place)
        named_inside = report.report.ecu
        if (serial and serial != named_inside) or named_inside in found:
            raise malformed("A report stands under its own ECU's serial, once.", f"{place}.signed.ecu_serial")
        found[named_inside] = report
    return found


def _read_signatures(value: object, path: str) -> tuple[Signature, ...]:
    rows = array_at(value, path)
    if not 1 <= len(rows) <= SIGNATURES_MAX:
        raise malformed(f"{path} holds 1 to {SIGNATURES_MAX} signatures.", path)
    found: list[Signature] = []
    for number, row in enumerate(rows):
        members = object_at(row, f"{path}[{number}]")
        key_id, text, method = members.get("keyid"), members.get("sig"), members.get("method")
        if not isinstance(key_id, str) or not isinstance(text, str) or not isinstance(method, str):
            raise malformed("A signature has keyid, method and sig, all strings.", f"{path}[{number}]")
        try:
            found.append(Signature(key_id=key_id, value=base64.b64decode(text, validate=True), method=method))
        except (ValueError, binascii.Error):
            raise malformed("A signature is Base64.", f"{path}[{number}].sig") from None
    return tuple(found)


def _counter(value: object, path: str) -> int | None:
    """A number in a string; some wrote the number itself."""
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 16:
        value = int(value)
    return integer_at(value, path, minimum=0, maximum=LENGTH_MAX)


def _attacks(value: object) -> str:
    return value[:ATTACKS_LENGTH_MAX] if isinstance(value, str) else ""


def _time(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= 64 else NO_TIME
