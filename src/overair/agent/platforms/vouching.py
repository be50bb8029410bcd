"""Who vouches for a file that the posix platform receives: a signer, or Uptane's repositories."""

from __future__ import annotations

import hashlib
import json

from overair.agent.platform import FileContext, PlatformError, PlatformErrorCode
from overair.agent.slots import SlotRecord, SlotSignature, SlotTarget
from overair.wire.image_signature import SignatureAlgorithm


def signature_of(context: FileContext) -> SlotSignature:
    """The signature that a job gave.

    Raises:
        PlatformError: it gave none.
    """
    signature = context.file.signature
    if signature is None:
        raise PlatformError(PlatformErrorCode.SIGNATURE_CHECK_FAILED, "The update is unsigned.")
    return SlotSignature(
        algorithm=SignatureAlgorithm(signature.key), value=signature.value, anchor=context.file.certificate_path
    )


def target_of(context: FileContext) -> SlotTarget | None:
    """The Uptane target that a file is, if it is one."""
    return None if context.target is None else SlotTarget(name=context.target.name)


def vouched_alike(record: SlotRecord, context: FileContext) -> bool:
    """Whether what lies in a slot was vouched for as this file is; its bytes are verified again in any case."""
    if context.target is not None:
        return record.target == target_of(context)
    return record.signature == signature_of(context)


def describe(context: FileContext) -> bytes:
    """What must be the same for a download to go on: then the bytes are the same, or fail the check."""
    described: dict[str, object] = {
        "path": context.file.path,
        "file_type": context.file.file_type or 0,
        "size_bytes": context.file.size_bytes,
        "block_size_bytes": context.block_size_bytes,
    }
    if context.target is not None:
        return json.dumps(described | {"hashes": dict(context.target.target.hashes)}).encode()
    signature = signature_of(context)
    described |= {
        "signature_sha256": hashlib.sha256(signature.value).hexdigest(),
        "algorithm": signature.algorithm.value,
        "anchor": signature.anchor,
    }
    if context.file.encryption is not None:
        described["envelope_format"] = context.file.encryption.format
    return json.dumps(described).encode()
