"""The first image, put into a slot at the machine itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from overair.agent.device_directory import DeviceDirectory, DeviceSettings, read_settings
from overair.agent.device_lock import sole_holder
from overair.agent.durable import Disk
from overair.agent.platform import PlatformImageState
from overair.agent.progress import read_progress
from overair.agent.slots import SlotRecord, SlotSignature, SlotStore, chunks_of, verify_against
from overair.wire.image import ImageManifest, InvalidImage, read_manifest
from overair.wire.image_signature import BadSignerCertificate, SignatureCheckFailed
from overair.wire.trust_document import TRUST_SIZE_BYTES_MAX, trusted_in


class FlashRefused(Exception):
    """The image may not be flashed here; the message says why."""


def flash(directory: DeviceDirectory, image: Path, *, signature: SlotSignature | None, disk: Disk | None = None) -> SlotRecord:
    """Make ``image`` the active, accepted image.

    With a signature it is verified now and before each boot. Without one it is *factory* trust: whoever can write to the
    device's disk vouches for it, its SHA-256 is recorded, and the record says so. The device must not be running.

    Raises:
        FlashRefused: not an image, for other hardware, or not signed by a trust anchor.
        BadDeviceDirectory: the directory isn't a device's, or the device is running.
    """
    settings = read_settings(directory)
    with sole_holder(directory):
        return _flash(directory, settings, image, signature, disk or Disk())


def _flash(
    directory: DeviceDirectory, settings: DeviceSettings, image: Path, signature: SlotSignature | None, disk: Disk
) -> SlotRecord:
    store = SlotStore(directory, disk)
    verified = None
    try:
        with image.open("rb") as source:
            manifest = read_manifest(source)
            if manifest.hardware_id != settings.hardware_id:
                raise FlashRefused(f"The image is for hardware {manifest.hardware_id}; this device is {settings.hardware_id}.")
            if signature is not None:
                verified = verify_against(directory, source, signature)
            content = b"".join(chunks_of(source))
    except OSError as error:
        raise FlashRefused(f"{image} can't be read: {error.strerror}.") from None
    except InvalidImage as error:
        raise FlashRefused(f"{image}: {error}") from None
    except (SignatureCheckFailed, BadSignerCertificate) as error:
        raise FlashRefused(f"{image} isn't signed by a trusted signer: {error}") from None
    record = _record(content, manifest, signature)
    if verified is not None and verified.sha256 != record.sha256:
        raise FlashRefused(f"{image} changed while it was read. Try again.")
    state = store.read()
    slot = state.inactive
    store.write(state.with_record(slot, None))
    disk.write_whole(directory.slot_file(slot), content)
    flashed = state.with_record(slot, record)
    store.write(replace(flashed, active=slot, image_state=PlatformImageState.VALID, boots=0))
    return record


def _record(content: bytes, manifest: ImageManifest, signature: SlotSignature | None) -> SlotRecord:
    return SlotRecord(
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        version=str(manifest.version),
        signature=signature,
        accepted=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedName:
    """Whom the device trusts under one name."""

    name: str
    serial: int
    """Of the trust document; 0 for a certificate that was put there by hand."""
    signers: tuple[str, ...]
    """Fingerprints; none where the file can't be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStatus:
    """What ``overair-device status`` shows."""

    slot: str | None
    version: str | None
    sha256: str | None
    state: str
    boots: int
    job: str | None
    trust: tuple[TrustedName, ...]


def read_status(directory: DeviceDirectory) -> DeviceStatus:
    """The device's own word on what it runs.

    Raises:
        BadDeviceDirectory: the directory isn't a device's.
    """
    read_settings(directory)
    state = SlotStore(directory, Disk()).read()
    record = None if state.active is None else state.record(state.active)
    progress = read_progress(directory.run / "progress.json")
    return DeviceStatus(
        slot=state.active,
        version=None if record is None else record.version,
        sha256=None if record is None else record.sha256,
        state="empty" if state.active is None else state.image_state.value,
        boots=state.boots,
        job=None if progress is None else progress.job,
        trust=tuple(_trusted(path) for path in sorted(directory.trust.glob("*.pem"))),
    )


def _trusted(path: Path) -> TrustedName:
    try:
        with path.open("rb") as file:
            serial, signers = trusted_in(file.read(TRUST_SIZE_BYTES_MAX + 1))
    except (OSError, BadSignerCertificate):
        return TrustedName(name=path.stem, serial=0, signers=())
    return TrustedName(name=path.stem, serial=serial, signers=tuple(signer.fingerprint for signer in signers))
