"""Trust documents that arrive as updates: whom this device trusts under one name, from now on.

A document is signed like any file, by somebody whom the device trusts already. It replaces the anchor of its name whole, and
only by a higher serial; nothing that boots now may stop booting because of it.
"""

from __future__ import annotations

from typing import IO

from overair.agent.device_directory import BadDeviceDirectory, DeviceDirectory
from overair.agent.durable import Disk
from overair.agent.platform import FileContext, PlatformError, PlatformErrorCode
from overair.agent.slots import SLOT_NAMES, SlotSignature, SlotState, chunks_of, load_anchors
from overair.wire.agent_reasons import TrustRefusal
from overair.wire.image_signature import (
    BadSignerCertificate,
    SignatureCheckFailed,
    SignerCertificate,
    verify_image_signature_by_any,
)
from overair.wire.trust_document import (
    TRUST_FILE_TYPE,
    TRUST_SIZE_BYTES_MAX,
    MalformedTrust,
    TrustDocument,
    parse_trust,
    trusted_in,
)


def is_trust(context: FileContext) -> bool:
    """Whether a file says who may sign. What Uptane's repositories vouch for never does."""
    return context.file.file_type == TRUST_FILE_TYPE and context.target is None


def check_place(directory: DeviceDirectory, context: FileContext) -> None:
    """Before a byte is fetched: its path names an anchor, and its size is one of a trust document.

    Raises:
        PlatformError
    """
    try:
        directory.anchor_file(context.file.path)
    except BadDeviceDirectory as error:
        raise PlatformError(PlatformErrorCode.FILE_CREATE_FAILED, str(error)) from None
    if context.file.size_bytes > TRUST_SIZE_BYTES_MAX:
        raise PlatformError(PlatformErrorCode.FILE_TOO_LARGE, f"A trust document has at most {TRUST_SIZE_BYTES_MAX} bytes.")


def take_over(directory: DeviceDirectory, disk: Disk, state: SlotState, context: FileContext, part: IO[bytes]) -> None:
    """Put a verified document in the place of the anchor that it names. Durable when this returns; again, it changes nothing.

    Raises:
        PlatformError: BAD_SIGNER_CERTIFICATE with a ``TrustRefusal``.
    """
    data = b"".join(chunks_of(part))
    try:
        document = parse_trust(data)
    except MalformedTrust as error:
        raise _refused(TrustRefusal.NO_DOCUMENT, str(error)) from None
    place = directory.anchor_file(context.file.path)
    if place.name != f"{document.name}.pem":
        raise _refused(TrustRefusal.OTHER_NAME, f"The document is for {document.name!r}, and came as {place.name!r}.")
    try:
        present = place.read_bytes()
        serial = trusted_in(present)[0]
    except FileNotFoundError:
        present, serial = b"", 0
    except BadSignerCertificate:
        serial = 0  # what is there verifies nothing
    if present == data:
        return
    if document.serial <= serial:
        raise _refused(TrustRefusal.NOT_NEWER, f"Serial {document.serial} isn't above {serial}, which is here.")
    _check_slots(directory, state, document)
    disk.write_whole(place, data, mode=0o644)


def _check_slots(directory: DeviceDirectory, state: SlotState, document: TrustDocument) -> None:
    """Each image that boots under the present anchor must boot under the new one."""
    for slot in SLOT_NAMES:
        record = state.record(slot)
        signature = None if record is None else record.signature
        if signature is None or directory.anchor_file(signature.anchor).name != f"{document.name}.pem":
            continue
        try:
            with directory.slot_file(slot).open("rb") as file:
                if not _verifies(file, signature, document.signers) and _verifies(
                    file, signature, _present(directory, signature)
                ):
                    raise _refused(
                        TrustRefusal.STILL_NEEDED, f"The image in slot {slot} was signed by a certificate that would go."
                    )
        except FileNotFoundError:
            continue  # nothing boots from there


def _present(directory: DeviceDirectory, signature: SlotSignature) -> tuple[SignerCertificate, ...]:
    try:
        return load_anchors(directory, signature.anchor)
    except BadSignerCertificate:
        return ()


def _verifies(file: IO[bytes], signature: SlotSignature, signers: tuple[SignerCertificate, ...]) -> bool:
    try:
        verify_image_signature_by_any(
            chunks_of(file), signature=signature.value, algorithm=signature.algorithm, signers=signers
        )
    except SignatureCheckFailed:
        return False
    return True


def _refused(why: TrustRefusal, message: str) -> PlatformError:
    return PlatformError(PlatformErrorCode.BAD_SIGNER_CERTIFICATE, message, sub_code=why.value)
