"""Encrypted files of an update: what their heads say, and what goes with them. Pure (docs/encryption.md)."""

from __future__ import annotations

from overair.basics.errors import InvalidRequest
from overair.server.updates.model import CustomSigning, SigningToStart, UpdateFile
from overair.wire.image_envelope import MalformedEnvelope, head_size_bytes, read_head
from overair.wire.job_document import FileEncryption


def head_size_of(leader: bytes, *, name: str) -> int:
    """How much of the file must be read. Raises InvalidRequest, subject ``files``: it begins as no encrypted image does."""
    try:
        return head_size_bytes(leader)
    except MalformedEnvelope as error:
        raise _refused(name, error) from error


def encryption_of(head: bytes, file: UpdateFile, *, size_bytes: int) -> FileEncryption:
    """To whom the file is encrypted, once it is known that devices could use it.

    Raises:
        InvalidRequest: the head can't be read, the file is cut off, or it isn't signed by somebody who has seen what is in it.
            Subject ``files``.
    """
    try:
        envelope = read_head(head)
    except MalformedEnvelope as error:
        raise _refused(file.name, error) from error
    if envelope.size_bytes != size_bytes:
        raise InvalidRequest(
            f"File {file.name!r} is encrypted, and its head says {envelope.size_bytes} bytes; {size_bytes} are stored. Upload "
            "it again.",
            subject="files",
        )
    if not isinstance(file.signing, CustomSigning):
        how = "unsigned"
        if file.signing is not None:
            how = "to be signed here" if isinstance(file.signing, SigningToStart) else "signed by a signing job"
        raise InvalidRequest(
            f"File {file.name!r} is encrypted and {how}: this server can't see what it would sign, and devices take signed "
            "images alone. Sign the image before it is encrypted (`overair sign image`), and give customCodeSigning.",
            subject="files",
        )
    return envelope.encryption


def _refused(name: str, error: MalformedEnvelope) -> InvalidRequest:
    return InvalidRequest(f"File {name!r} begins as an encrypted image and can't be read as one: {error}", subject="files")
