"""Multi-target updates: for each hardware id the image to install; and whom one affects. Pure.

Uptane reference §11; the reasons' codes are those of OTA Connect's Director where it has one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol, cast

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest, Unsupported
from overair.basics.ids import EcuSerial, MultiTargetUpdateId
from overair.server.director.model import Image, Registered
from overair.wire.uptane.canonical import INTEGER_MAX
from overair.wire.uptane.metadata import TARGET_NAME_LENGTH_MAX

HARDWARE_IDS_MAX: Final = 64
HARDWARE_ID_LENGTH_MAX: Final = 200
URI_LENGTH_MAX: Final = 2048
TARGET_FORMATS: Final = frozenset({"BINARY", "OSTREE"})
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
_URI: Final = re.compile(r"https?://[\x21-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetUpdate:
    """What ECUs of one hardware id install."""

    to: Image
    uri: str | None = None
    """Where else the image lies; wins over the Image repository's (§4.4)."""
    only_from: Image | None = None
    """Only ECUs on which this runs now."""
    target_format: str | None = None
    custom: Mapping[str, Any] = field(default_factory=dict)
    """``userDefinedCustom``: the operator's own words, handed to the vehicle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiTargetUpdate:
    id: MultiTargetUpdateId
    targets: Mapping[str, TargetUpdate]
    """By hardware id."""
    created_at: Instant
    only_ecus: frozenset[EcuSerial] | None = None
    """None: every ECU of these kinds."""


class NotAffected(StrEnum):
    """Why a vehicle or an ECU isn't affected by an update."""

    NO_ECUS = "no_ecus"
    NO_UPDATE = "no_multi_target_update"
    NO_COMPATIBLE_HARDWARE = "device_no_compatible_hardware"
    NOT_IN_UPDATE = "not_affected_by_mtu"
    ALREADY_INSTALLED = "installed_target_is_update"
    RUNNING = "not_affected_running_assignment"
    TARGET_MISSING = "target_not_in_image_repository"
    TARGET_DIFFERS = "target_differs_from_image_repository"
    HARDWARE_NOT_IN_TARGET = "hardware_not_in_target"


BLOCKING: Final = frozenset({NotAffected.TARGET_MISSING, NotAffected.TARGET_DIFFERS, NotAffected.HARDWARE_NOT_IN_TARGET})
"""One such ECU keeps the whole vehicle out: a bundle is installed whole or not at all (§8.7)."""
_TOLD_FIRST: Final = (
    NotAffected.TARGET_MISSING,
    NotAffected.TARGET_DIFFERS,
    NotAffected.HARDWARE_NOT_IN_TARGET,
    NotAffected.NOT_IN_UPDATE,
    NotAffected.ALREADY_INSTALLED,
    NotAffected.NO_COMPATIBLE_HARDWARE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why not, for one ECU."""

    code: NotAffected
    message: str


class CataloguedTarget(Protocol):
    """A target of the Image repository (``image_repository.model.StoredTarget``)."""

    @property
    def name(self) -> str: ...
    @property
    def length(self) -> int: ...
    @property
    def hashes(self) -> Mapping[str, str]: ...
    @property
    def hardware_ids(self) -> tuple[str, ...]: ...
    @property
    def custom(self) -> Mapping[str, Any]: ...
    @property
    def created_at(self) -> Instant: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What an update means for one vehicle."""

    updates: Mapping[EcuSerial, TargetUpdate]
    """Empty: it isn't affected."""
    reasons: Mapping[EcuSerial, Reason]
    """Of the ECUs that aren't."""

    @property
    def reason(self) -> Reason:
        """The one that explains the vehicle, where it isn't affected."""
        assert self.reasons
        return min(self.reasons.values(), key=lambda reason: _TOLD_FIRST.index(reason.code))


def evaluate(
    update: MultiTargetUpdate, vehicle: Registered, find_target: Callable[[str], CataloguedTarget | None]
) -> Evaluation:
    """Which ECUs of a vehicle get what. A target must be in the Image repository with the same content and for the ECU's
    hardware: what the vehicle would find out after its download is found out here (§13)."""
    updates: dict[EcuSerial, TargetUpdate] = {}
    reasons: dict[EcuSerial, Reason] = {}
    for serial, ecu in vehicle.ecus.items():
        target = update.targets.get(ecu.hardware_id)
        if target is None or (update.only_ecus is not None and serial not in update.only_ecus):
            continue
        reason = _why_not(target, ecu.hardware_id, ecu.installed.image if ecu.installed else None, find_target(target.to.name))
        if reason is None:
            updates[serial] = target
        else:
            reasons[serial] = reason
    if any(reason.code in BLOCKING for reason in reasons.values()):
        updates = {}
    if not updates and not reasons:
        kinds = ", ".join(sorted({ecu.hardware_id for ecu in vehicle.ecus.values()}))
        reasons[vehicle.primary.serial] = Reason(
            code=NotAffected.NO_COMPATIBLE_HARDWARE,
            message=f"None of its ECUs ({kinds}) is of a hardware id that update {update.id} is for: "
            f"{', '.join(sorted(update.targets))}.",
        )
    return Evaluation(updates=updates, reasons=reasons)


def _why_not(
    target: TargetUpdate, hardware_id: str, installed: Image | None, catalogued: CataloguedTarget | None
) -> Reason | None:
    name = target.to.name
    if installed is not None and installed.is_same(target.to):
        return Reason(code=NotAffected.ALREADY_INSTALLED, message=f"{name} is installed already.")
    if target.only_from is not None and (installed is None or not installed.is_same(target.only_from)):
        runs = installed.name if installed is not None else "nothing known"
        return Reason(
            code=NotAffected.NOT_IN_UPDATE,
            message=f"The update is for ECUs that run {target.only_from.name}; this one runs {runs}.",
        )
    if catalogued is None:
        return Reason(
            code=NotAffected.TARGET_MISSING,
            message=f"{name} is not in the Image repository (or waits for its signature): no vehicle would take it.",
        )
    listed = Image(name=catalogued.name, length=catalogued.length, hashes=catalogued.hashes)
    if not listed.is_same(target.to):
        return Reason(
            code=NotAffected.TARGET_DIFFERS,
            message=f"{name} in the Image repository has another length or SHA-256 than the update says.",
        )
    if hardware_id not in catalogued.hardware_ids:
        return Reason(
            code=NotAffected.HARDWARE_NOT_IN_TARGET,
            message=f"{name} is signed for hardware {', '.join(catalogued.hardware_ids)}, not for {hardware_id}.",
        )
    return None


# As operators write it ----------------------------------------------------------------------------------------------------


def read_targets(members: Mapping[str, object]) -> dict[str, TargetUpdate]:
    """``targets`` of ``POST /multi_target_updates``.

    Raises:
        InvalidRequest: subject ``multi-target-update``; ``details["field"]`` is the path of the member.
        Unsupported: static deltas, which only OSTree has. Subject ``generate-diff``.
    """
    named = members.get("targets")
    if not isinstance(named, Mapping) or not 1 <= len(named) <= HARDWARE_IDS_MAX:
        raise _refused(f"targets is an object of 1 to {HARDWARE_IDS_MAX} hardware ids.", "targets")
    targets: dict[str, TargetUpdate] = {}
    for hardware_id, value in named.items():
        path = f"targets.{hardware_id[:64]}"
        if not 1 <= len(hardware_id) <= HARDWARE_ID_LENGTH_MAX or not hardware_id.isprintable() or not hardware_id.isascii():
            raise _refused(f"A hardware id has 1 to {HARDWARE_ID_LENGTH_MAX} printable ASCII characters.", path)
        targets[hardware_id] = _target_update(_object(value, path), path)
    by_name: dict[str, Image] = {}
    for hardware_id, target in targets.items():
        other = by_name.setdefault(target.to.name, target.to)
        if not other.is_same(target.to):
            raise _refused(
                f"{target.to.name} stands twice with different content: a name means one image.",
                f"targets.{hardware_id[:64]}.to",
            )
    return targets


def targets_members(update: MultiTargetUpdate) -> dict[str, object]:
    """As they were given."""
    return {
        hardware_id: {
            "from": None if target.only_from is None else _image_members(target.only_from, None, {}),
            "to": _image_members(target.to, target.uri, target.custom),
            "targetFormat": target.target_format,
            "generateDiff": False,
        }
        for hardware_id, target in update.targets.items()
    }


def _target_update(members: Mapping[str, object], path: str) -> TargetUpdate:
    if members.get("generateDiff") not in (None, False):
        raise Unsupported(
            "Static deltas (generateDiff) are OSTree's, which Overair doesn't serve: leave generateDiff out or false.",
            subject="generate-diff",
            details={"field": f"{path}.generateDiff"},
        )
    target_format = members.get("targetFormat")
    if target_format is not None and target_format not in TARGET_FORMATS:
        raise _refused("targetFormat is BINARY or OSTREE.", f"{path}.targetFormat")
    origin = members.get("from")
    to = _object(members.get("to"), f"{path}.to")
    uri, custom = to.get("uri"), to.get("userDefinedCustom")
    if uri is not None and (not isinstance(uri, str) or len(uri) > URI_LENGTH_MAX or not _URI.fullmatch(uri)):
        raise _refused("uri is an http or https URL.", f"{path}.to.uri")
    return TargetUpdate(
        to=_image(to, f"{path}.to"),
        uri=uri,
        only_from=None if origin is None else _image(_object(origin, f"{path}.from"), f"{path}.from"),
        target_format=target_format,
        custom={} if custom is None else _object(custom, f"{path}.to.userDefinedCustom"),
    )


def _image(members: Mapping[str, object], path: str) -> Image:
    name, length = members.get("target"), members.get("targetLength")
    checksum = _object(members.get("checksum"), f"{path}.checksum")
    digits = checksum.get("hash")
    if (
        not isinstance(name, str)
        or not 1 <= len(name) <= TARGET_NAME_LENGTH_MAX
        or not name.isascii()
        or not name.isprintable()
    ):
        raise _refused(f"target is a name of 1 to {TARGET_NAME_LENGTH_MAX} printable ASCII characters.", f"{path}.target")
    if not isinstance(length, int) or isinstance(length, bool) or not 0 <= length <= INTEGER_MAX:
        raise _refused("targetLength is the image's size in bytes.", f"{path}.targetLength")
    if checksum.get("method") != "sha256" or not isinstance(digits, str) or not _SHA256.fullmatch(digits):
        raise _refused('checksum is {"method": "sha256", "hash": 64 hexadecimal digits}.', f"{path}.checksum")
    return Image(name=name, length=length, hashes={"sha256": digits.lower()})


def _image_members(image: Image, uri: str | None, custom: Mapping[str, Any]) -> dict[str, object]:
    return {
        "target": image.name,
        "checksum": {"method": "sha256", "hash": image.sha256},
        "targetLength": image.length,
        "uri": uri,
        "userDefinedCustom": dict(custom) or None,
    }


def _object(value: object, path: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise _refused(f"{path} must be an object.", path)
    return cast("Mapping[str, object]", value)


def _refused(message: str, path: str) -> InvalidRequest:
    return InvalidRequest(message, subject="multi-target-update", details={"field": path})
