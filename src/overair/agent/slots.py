"""Two slots and the file that says which one counts.

``state.json`` is replaced whole, so that whatever happens there is always one answer to "what boots next?". Its states::

    valid            the active image has accepted itself (or was flashed); it boots, however often
    pending_commit   the active image is new: it boots once; without an acceptance the other slot boots next
    invalid          the active image was rejected or aborted: the other slot boots next
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final

from overair.agent.device_directory import BadDeviceDirectory, DeviceDirectory
from overair.agent.durable import Disk
from overair.agent.platform import PlatformImageState
from overair.wire import strict_json
from overair.wire.image_signature import (
    BadSignerCertificate,
    SignatureAlgorithm,
    SignatureCheckFailed,
    SignerCertificate,
    VerifiedImage,
    verify_image_signature_by_any,
)
from overair.wire.trust_document import TRUST_SIZE_BYTES_MAX, trusted_in

FORMAT: Final = 1
STATE_SIZE_BYTES_MAX: Final = 64 * 1024
SLOT_NAMES: Final = ("a", "b")
CHUNK_SIZE_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSignature:
    """The signature that an image was installed with; checked again before each run."""

    algorithm: SignatureAlgorithm
    value: bytes
    anchor: str
    """The job's ``certfile``; its last segment names the trust anchor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotTarget:
    """The Uptane target that an image was installed as. Both repositories vouched for its SHA-256, which the record holds and
    each boot checks; their documents expire, so they aren't asked again."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRecord:
    """What a slot holds, and who vouched for it: a signer, Uptane's repositories, or neither ("factory")."""

    sha256: str
    size_bytes: int
    version: str
    signature: SlotSignature | None
    """None, and no target either: flashed at this machine by hand, trusted by its digest alone."""
    accepted: bool
    """It has accepted itself once, or was flashed: fit to fall back to."""
    target: SlotTarget | None = None

    @property
    def trust(self) -> str:
        """``signed``, ``uptane`` or ``factory``."""
        return "signed" if self.signature is not None else "factory" if self.target is None else "uptane"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotState:
    """The whole of ``state.json``."""

    active: str | None = None
    image_state: PlatformImageState = PlatformImageState.VALID
    boots: int = 0
    """How often the active image was started since it became active."""
    a: SlotRecord | None = None
    b: SlotRecord | None = None

    def record(self, slot: str) -> SlotRecord | None:
        """What a slot holds."""
        return self.a if slot == "a" else self.b

    def with_record(self, slot: str, record: SlotRecord | None) -> SlotState:
        """The same but for one slot."""
        return replace(self, a=record) if slot == "a" else replace(self, b=record)

    @property
    def inactive(self) -> str:
        """The slot that a new image goes to."""
        return "b" if self.active == "a" else "a"


class SlotStore:
    """Reads and replaces ``state.json``."""

    def __init__(self, directory: DeviceDirectory, disk: Disk) -> None:
        self._path = directory.slots / "state.json"
        self._disk = disk

    def read(self) -> SlotState:
        """The present state; an empty one where nothing was ever flashed.

        Raises:
            BadDeviceDirectory: the file can't be read.
        """
        try:
            with self._path.open("rb") as file:
                data = file.read(STATE_SIZE_BYTES_MAX + 1)
        except FileNotFoundError:
            return SlotState()
        try:
            members = strict_json.decode_object(data, size_bytes_max=STATE_SIZE_BYTES_MAX, depth_max=4)
            return _state_from(members)
        except (ValueError, KeyError, TypeError) as error:
            raise BadDeviceDirectory(
                f"{self._path} can't be read ({error}). Flash the device again: overair-device flash"
            ) from None

    def write(self, state: SlotState) -> None:
        """Replace the state durably and at once."""
        members = {
            "format": FORMAT,
            "active": state.active,
            "image_state": state.image_state.value,
            "boots": state.boots,
            "slots": {slot: _record_members(state.record(slot)) for slot in SLOT_NAMES},
        }
        self._disk.write_whole(self._path, (json.dumps(members, indent=1) + "\n").encode())


def _record_members(record: SlotRecord | None) -> dict[str, object] | None:
    if record is None:
        return None
    signature = record.signature
    return {
        "sha256": record.sha256,
        "size_bytes": record.size_bytes,
        "version": record.version,
        "accepted": record.accepted,
        "trust": record.trust,
        "signature": None
        if signature is None
        else {
            "algorithm": signature.algorithm.value,
            "value": b64encode(signature.value).decode("ascii"),
            "anchor": signature.anchor,
        },
        "target": None if record.target is None else {"name": record.target.name},
    }


def _state_from(members: dict[str, object]) -> SlotState:
    if members["format"] != FORMAT:
        raise ValueError(f"format {members['format']!r}; this program reads {FORMAT}")
    active, boots, slots = members["active"], members["boots"], members["slots"]
    if active not in (*SLOT_NAMES, None) or type(boots) is not int or not isinstance(slots, dict):
        raise ValueError("a member has another shape")
    return SlotState(
        active=None if active is None else str(active),
        image_state=PlatformImageState(members["image_state"]),
        boots=boots,
        a=_record_from(slots["a"]),
        b=_record_from(slots["b"]),
    )


def _record_from(members: object) -> SlotRecord | None:
    if members is None:
        return None
    if not isinstance(members, dict):
        raise TypeError("a slot has another shape")
    signature, target = members["signature"], members.get("target")
    record = SlotRecord(
        sha256=str(members["sha256"]),
        size_bytes=int(members["size_bytes"]),
        version=str(members["version"]),
        accepted=members["accepted"] is True,
        signature=None
        if signature is None
        else SlotSignature(
            algorithm=SignatureAlgorithm(signature["algorithm"]),
            value=b64decode(signature["value"], validate=True),
            anchor=str(signature["anchor"]),
        ),
        target=None if target is None else SlotTarget(name=str(target["name"])),
    )
    if record.trust != members["trust"] or (signature is not None and target is not None):
        raise ValueError("a slot's trust and what vouches for it disagree")
    return record


def load_anchors(directory: DeviceDirectory, certificate_path: str) -> tuple[SignerCertificate, ...]:
    """The trust anchor that a ``certfile`` selects: all signers whom it names.

    Raises:
        BadSignerCertificate: there is none of that name, or it can't be used.
    """
    try:
        path = directory.anchor_file(certificate_path)
        with path.open("rb") as file:
            return trusted_in(file.read(TRUST_SIZE_BYTES_MAX + 1))[1]
    except (OSError, BadDeviceDirectory) as error:
        raise BadSignerCertificate(f"No trust anchor for {certificate_path[:200]!r}: {error}") from None


def chunks_of(file: IO[bytes]) -> Iterator[bytes]:
    """A file's bytes from its beginning, piece by piece."""
    file.seek(0)
    while chunk := file.read(CHUNK_SIZE_BYTES):
        yield chunk


class SlotNotBootable(Exception):
    """A slot's bytes aren't what its record says, or nobody trusted signed them."""


def verify_slot(directory: DeviceDirectory, slot: str, record: SlotRecord) -> Path:
    """Check a slot before it is run: signature under today's trust anchors, digest, size. Returns the file to run.

    Raises:
        SlotNotBootable: with the reason.
    """
    path = directory.slot_file(slot)
    try:
        with path.open("rb") as file:
            if record.signature is None:
                digest, size = _digest(file)
            else:
                verified = verify_against(directory, file, record.signature)
                digest, size = verified.sha256, verified.size_bytes
    except OSError as error:
        raise SlotNotBootable(f"Slot {slot} can't be read: {error}") from None
    except (SignatureCheckFailed, BadSignerCertificate) as error:
        raise SlotNotBootable(f"Slot {slot} isn't signed by a trusted signer: {error}") from None
    if (digest, size) != (record.sha256, record.size_bytes):
        raise SlotNotBootable(f"Slot {slot} was changed: its SHA-256 is {digest}, recorded was {record.sha256}.")
    return path


def verify_against(directory: DeviceDirectory, file: IO[bytes], signature: SlotSignature) -> VerifiedImage:
    """Verify an open file with the anchor that its signature names.

    Raises:
        SignatureCheckFailed, BadSignerCertificate
    """
    signers = load_anchors(directory, signature.anchor)
    return verify_image_signature_by_any(
        chunks_of(file), signature=signature.value, algorithm=signature.algorithm, signers=signers
    )


def _digest(file: IO[bytes]) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    for chunk in chunks_of(file):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size
