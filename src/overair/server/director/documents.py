"""What the Director signs for one vehicle: bodies of its documents, and their one version. Pure.

Uptane reference §4.4, §5.4; design §7 for the version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from overair.basics.clock import Instant, from_datetime
from overair.basics.ids import EcuSerial, ThingName
from overair.server.director.model import Ecu, EcuMap, Image
from overair.server.director.multi_target_update import TargetUpdate
from overair.wire.uptane.metadata import Snapshot, TargetFile, Targets, Timestamp
from overair.wire.uptane.metadata_writing import MetadataSigner, meta_of, payload, sign_payload

VERSIONS_BEGIN: Final = from_datetime(datetime(2020, 1, 1, tzinfo=UTC))
"""Versions count seconds from here, so that they rise even if the records that held the last one are gone."""


def next_version(last: int, now: Instant) -> int:
    """The version of what follows version ``last`` (0: nothing does)."""
    return max(last + 1, (now - VERSIONS_BEGIN) // 1000)


def assigned_targets(updates: Mapping[EcuSerial, TargetUpdate], hardware: EcuMap) -> dict[str, TargetFile]:
    """One entry for each image, with all ECUs that get it."""
    targets: dict[str, TargetFile] = {}
    for serial in sorted(updates):
        update = updates[serial]
        standing = targets.get(update.to.name)
        ecus: dict[str, Any] = dict(standing.custom["ecuIdentifiers"]) if standing is not None else {}
        ecus[serial] = {"hardwareId": hardware[serial]}
        custom: dict[str, Any] = {"ecuIdentifiers": ecus}
        if update.uri is not None:
            custom["uri"] = update.uri
        if update.target_format is not None:
            custom["targetFormat"] = update.target_format
        if update.custom:
            custom["userDefinedCustom"] = dict(update.custom)
        targets[update.to.name] = TargetFile(
            name=update.to.name, length=update.to.length, hashes=dict(update.to.hashes), custom=custom
        )
    return targets


def stay_targets(
    ecus: Mapping[EcuSerial, Ecu], wanted: Collection[EcuSerial], is_catalogued: Callable[[Image], bool]
) -> dict[str, TargetFile]:
    """What is installed, named so that a client finds nothing to do: for the ECUs of the cancelled assignment (``wanted``)
    where their image is known and still in the Image repository, else for any other. Empty: there is no such ECU (§5.4).

    The ECU map is the one under which an image was assigned, since clients compare it; where it wasn't assigned by us, all ECUs
    that run it.
    """
    known = {
        serial: ecu
        for serial, ecu in ecus.items()
        if ecu.installed is not None and ecu.installed.image.is_known and is_catalogued(ecu.installed.image)
    }
    chosen = sorted(serial for serial in wanted if serial in known) or sorted(known)
    targets: dict[str, TargetFile] = {}
    taken: set[EcuSerial] = set()
    for serial in chosen:
        installed = known[serial].installed
        assert installed is not None
        image = installed.image
        if serial in taken or image.name in targets:
            continue
        named = _map_of(image, installed.named_for, known) - taken
        if serial not in named:
            continue
        identifiers = {each: {"hardwareId": ecus[each].hardware_id} for each in sorted(named)}
        targets[image.name] = TargetFile(
            name=image.name, length=image.length, hashes=dict(image.hashes), custom={"ecuIdentifiers": identifiers}
        )
        taken |= named
    return targets


def _map_of(image: Image, named_for: EcuMap | None, known: Mapping[EcuSerial, Ecu]) -> set[EcuSerial]:
    """Whom an installed image is named for: never an ECU that runs something else by now, which would be told to go back."""
    runs_it = {serial for serial, ecu in known.items() if ecu.installed is not None and ecu.installed.image.is_same(image)}
    return runs_it if named_for is None else {serial for serial in named_for if serial in runs_it}


def content_digest(targets: Mapping[str, TargetFile]) -> str:
    """Tells two sets of targets apart."""
    text = "\n".join(
        f"{target.name}\0{target.length}\0{target.sha256}\0{sorted(target.ecus.items())}" for target in targets.values()
    )
    return hashlib.sha256(text.encode()).hexdigest()


def targets_body(
    thing: ThingName, targets: Mapping[str, TargetFile], *, correlation_id: str, version: int, expires: Instant
) -> Targets:
    """``custom`` says whose they are (Standard 5.2.3.1), and with an assignment what reports must echo (§4.4)."""
    custom: dict[str, Any] = {"deviceId": thing}
    if targets:
        assert correlation_id, "without one, failures before the installation are not reported"
        custom["correlationId"] = correlation_id
    return Targets(version=version, expires=expires, targets=targets, custom=custom)


def signed_set(
    targets: Targets, *, by: tuple[Sequence[MetadataSigner], Sequence[MetadataSigner], Sequence[MetadataSigner]]
) -> tuple[bytes, bytes, bytes]:
    """Targets with the snapshot and timestamp above them, all of one version. ``by``: who signs each, in this order."""
    version, expires = targets.version, targets.expires
    targets_json = sign_payload(payload(targets), by[0])
    snapshot = Snapshot(version=version, expires=expires, meta={"targets.json": meta_of(targets_json, version)})
    snapshot_json = sign_payload(payload(snapshot), by[1])
    timestamp = Timestamp(version=version, expires=expires, snapshot=meta_of(snapshot_json, version))
    return targets_json, snapshot_json, sign_payload(payload(timestamp), by[2])
