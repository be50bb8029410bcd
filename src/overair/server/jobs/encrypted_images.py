"""Encrypted images in job documents: to whom they are encrypted, and who is refused (docs/encryption.md).

What an update sends encrypted says so in the job's document, and a document that somebody writes by hand is held to the same:
so a retry and a template are too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId, ThingName
from overair.basics.work import Tx
from overair.server.jobs.documents import DOCUMENT_DEPTH_MAX
from overair.server.jobs.model import DOCUMENT_SIZE_BYTES_MAX, REFUSED_BY, SERVER
from overair.wire.job_document import FileEncryption, MalformedDocument, read_encryption
from overair.wire.strict_json import decode

REASON_LENGTH_MAX: Final = 1024


def encryptions_in(document: str) -> tuple[FileEncryption, ...]:
    """What a document (which ``check_document`` let through) says of its files' encryption, a member for each encrypted one.

    Raises:
        InvalidRequest: a file says that it is encrypted, and not to whom. Subject ``job-document``.
    """
    if "encrypted" not in document and "\\u" not in document:
        return ()
    value = decode(document.encode(), size_bytes_max=DOCUMENT_SIZE_BYTES_MAX, depth_max=DOCUMENT_DEPTH_MAX)
    body = value.get("afr_ota") if isinstance(value, dict) else None
    files = body.get("files") if isinstance(body, dict) else None
    if not isinstance(files, list):
        return ()
    try:
        return tuple(read_encryption(file["encrypted"]) for file in files if isinstance(file, Mapping) and "encrypted" in file)
    except MalformedDocument as error:
        raise InvalidRequest(f"The job document's afr_ota: {error}", subject="job-document") from error


def refusal_details(why: str) -> Mapping[str, str]:
    """Status details of an execution that the server refuses in a device's place."""
    return {REFUSED_BY: SERVER, "reason": f"not offered: {why}"[:REASON_LENGTH_MAX]}


class NobodyDecrypts:
    """``ports.Decryption`` where no device ever said anything."""

    def unable(
        self, tx: Tx, account: AccountId, things: Sequence[ThingName], encryptions: Sequence[FileEncryption]
    ) -> Mapping[ThingName, str]:
        return dict.fromkeys(things, "it has never declared that it can decrypt")
