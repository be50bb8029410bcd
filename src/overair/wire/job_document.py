"""The ``afr_ota`` job document: what tells a FreeRTOS device which image to fetch, how, and how it is signed.

The C agents don't parse JSON, they search it: values are copied as raw text, numbers are read digit by digit. So a document
is compact, its strings need no escape, its numbers are bare integers (wire reference §5.1, checklist 19 to 25).
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, cast

import msgspec

from overair.wire.strict_json import MalformedJson, decode

JOB_DOCUMENT_SIZE_BYTES_MAX: Final = 32 * 1024
"""Of a job document (wire reference §3.2). An agent refuses to look at a longer one."""
JOB_DOCUMENT_DEPTH_MAX: Final = 32
FILES_MAX: Final = 50
FILE_SIZE_BYTES_MAX: Final = 2**32 - 4096
"""The agent counts bytes in 32 bits and adds one block."""
FILE_ID_MAX: Final = 255
FILE_TYPE_MAX: Final = 255
ENVELOPE_FORMAT_MAX: Final = 255
RECIPIENTS_MAX: Final = 256
"""Keys that one file is encrypted to."""
SHORT_KEY_ID_LENGTH: Final = 16
SIGNATURE_SIZE_BYTES_MAX: Final = 384
"""Decoded: RSA-3072 just fits."""
PROTOCOLS_TEXT_LENGTH_MAX: Final = 19
STREAM_NAME_LENGTH_MAX: Final = 44
STREAM_ID_LENGTH_MAX: Final = 128
"""What the service allows; agents stop at ``STREAM_NAME_LENGTH_MAX``."""
JOB_ID_LENGTH_MAX: Final = 64
FILE_PATH_LENGTH_MAX: Final = 260
URL_LENGTH_MAX: Final = 1500
URL_HOST_LENGTH_MAX: Final = 256
AUTH_SCHEME_LENGTH_MAX: Final = 48
TOKENS_MAX: Final = 64
"""JSON tokens in a whole Jobs reply that agents of 2018 and 2019 can read (wire reference §7.10)."""
REPLY_TOKENS_AROUND_DOCUMENT: Final = 30
"""Tokens of the fullest reply that the document stands in: token, time, execution with two status details and a timer."""
PRESIGNED_AUTH_SCHEME: Final = "aws.s3.presigned"

_SIGNATURE_KEY: Final = re.compile(r"sig-(sha1|sha256)-(ecdsa|rsa)")
_SHORT_KEY_ID: Final = re.compile(r"[0-9a-f]{16}")
_URL_HOST: Final = re.compile(r"[a-z]+://([^/?#]*)")


class MalformedDocument(ValueError):
    """What came isn't an ``afr_ota`` document that an agent can act on."""


class TransferProtocol(StrEnum):
    """How the bytes of an image travel."""

    MQTT = "MQTT"
    HTTP = "HTTP"


class HashAlgorithm(StrEnum):
    SHA1 = "sha1"
    SHA256 = "sha256"


class SignatureAlgorithm(StrEnum):
    ECDSA = "ecdsa"
    RSA = "rsa"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSignature:
    """A signature over the raw bytes of the file. ``value`` is the signature itself: DER for ECDSA, PKCS #1 v1.5 for RSA."""

    hash_algorithm: HashAlgorithm
    signature_algorithm: SignatureAlgorithm
    value: bytes

    @property
    def key(self) -> str:
        """The document's member: ``sig-sha256-ecdsa`` and the like."""
        return f"sig-{self.hash_algorithm}-{self.signature_algorithm}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEncryption:
    """That a file is encrypted, and to whom."""

    format: int
    """Of the envelope."""
    key_ids: tuple[str, ...]
    """The beginnings of the names of its recipients' keys, each ``SHORT_KEY_ID_LENGTH`` hexadecimal digits: enough to tell for
    whom it is, short enough for a document. What counts on the device stands in the envelope."""

    def to_members(self) -> dict[str, object]:
        return {"format": self.format, "keyIds": list(self.key_ids)}


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentFile:
    """One file of an update.

    Attributes:
        path: Where the device puts it. The OTA agent can do without, the Jobs library can't.
        size_bytes: 1 to 2^32 - 4096, of the bytes that are streamed.
        file_id: 0 to 255; 0 names the device's own firmware.
        certificate_path: ``certfile``: the trust anchor on the device that the signature is checked against.
        file_type: 0 to 255, absent if the operator gave none; 0 is firmware.
        signature: Absent in an unsigned update.
        url: ``update_data_url``: a presigned URL, or its placeholder while the document is stored.
        encryption: ``encrypted``, a member of ours: what is streamed is an envelope (``wire.image_envelope``), and the
            signature is over the image inside it. None: it is the image itself.
    """

    path: str
    size_bytes: int
    file_id: int
    certificate_path: str
    file_type: int | None = None
    signature: FileSignature | None = None
    url: str | None = None
    auth_scheme: str | None = None
    encryption: FileEncryption | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OtaDocument:
    """The whole ``afr_ota`` object. The OTA agent reads only ``files[0]``, the Jobs library only ``protocols[0]``."""

    protocols: tuple[TransferProtocol, ...]
    files: tuple[DocumentFile, ...]
    stream_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One way in which a document doesn't suit the agents in the field. ``fatal``: every agent would fail or ignore it."""

    fatal: bool
    message: str


def build(document: OtaDocument) -> str:
    """Write a document as the C agents read it: compact, no escapes, bare integers.

    Raises:
        MalformedDocument: a text holds a quote, a backslash or a control character, which JSON could only carry escaped, or
            a number is out of bounds.
    """
    if not document.protocols or len(set(document.protocols)) != len(document.protocols):
        raise MalformedDocument("A document names one or both of MQTT and HTTP, each once.")
    if not 1 <= len(document.files) <= FILES_MAX:
        raise MalformedDocument(f"A document names 1 to {FILES_MAX} files, not {len(document.files)}.")
    body: dict[str, object] = {"protocols": [protocol.value for protocol in document.protocols]}
    if document.stream_name is not None:
        body["streamname"] = _plain("streamname", document.stream_name)
    body["files"] = [_file_members(file) for file in document.files]
    raw = msgspec.json.encode({"afr_ota": body})
    if len(raw) > JOB_DOCUMENT_SIZE_BYTES_MAX:
        raise MalformedDocument(f"The document has {len(raw)} bytes; a job's may have {JOB_DOCUMENT_SIZE_BYTES_MAX}.")
    return raw.decode()


def parse(text: str | bytes) -> OtaDocument:
    """Read a job document whose root holds ``afr_ota``. Unknown members are skipped, members may stand in any order.

    Raises:
        MalformedDocument: not JSON, no ``afr_ota``, or a member is absent, of another type or out of bounds.
    """
    raw = text.encode() if isinstance(text, str) else text
    try:
        root = decode(raw, size_bytes_max=JOB_DOCUMENT_SIZE_BYTES_MAX, depth_max=JOB_DOCUMENT_DEPTH_MAX)
    except MalformedJson as error:
        raise MalformedDocument(f"The job document is not JSON: {error}") from error
    body = _object("afr_ota", root.get("afr_ota")) if isinstance(root, dict) else None
    if body is None:
        raise MalformedDocument("The job document has no afr_ota member: it isn't an over-the-air update.")
    protocols = _list("protocols", body.get("protocols"))
    known = tuple(TransferProtocol(item) for item in protocols if item in ("MQTT", "HTTP"))
    if not known:
        raise MalformedDocument("protocols names neither MQTT nor HTTP.")
    files = _list("files", body.get("files"))
    if not 1 <= len(files) <= FILES_MAX:
        raise MalformedDocument(f"files must name 1 to {FILES_MAX} files, not {len(files)}.")
    stream_name = _optional_text(body, "streamname", STREAM_ID_LENGTH_MAX)
    return OtaDocument(protocols=known, files=tuple(_file(item) for item in files), stream_name=stream_name)


def findings(document: OtaDocument, *, job_id: str | None = None) -> list[Finding]:
    """Say where a document doesn't suit the agents in the field. An empty list: fit for all of them.

    Not fatal: only agents of 2018 and 2019, or only the small C libraries, would stumble.
    """
    found: list[Finding] = []

    def note(fatal: bool, message: str) -> None:
        found.append(Finding(fatal=fatal, message=message))

    protocols_text = msgspec.json.encode(list(document.protocols)).decode()
    if len(protocols_text) > PROTOCOLS_TEXT_LENGTH_MAX:
        note(True, f"protocols is {protocols_text}: agents hold {PROTOCOLS_TEXT_LENGTH_MAX} characters.")
    if document.stream_name is None and TransferProtocol.MQTT in document.protocols:
        note(True, "MQTT is among the protocols, but no stream is named.")
    if document.stream_name is not None and len(document.stream_name) > STREAM_NAME_LENGTH_MAX:
        note(
            False,
            f"The stream's name has {len(document.stream_name)} characters; agents and the file streams library hold "
            f"{STREAM_NAME_LENGTH_MAX}. Use a shorter one.",
        )
    if job_id is not None and len(job_id) > JOB_ID_LENGTH_MAX:
        note(True, f"The job's id has {len(job_id)} characters; devices hold {JOB_ID_LENGTH_MAX}.")
    tokens = count_tokens(msgspec.json.decode(build(document))) + REPLY_TOKENS_AROUND_DOCUMENT
    if tokens > TOKENS_MAX:
        note(False, f"A Jobs reply with this document has up to {tokens} JSON tokens; old agents read {TOKENS_MAX}.")
    for file in document.files:
        _note_file(file, document, note)
    return found


def count_tokens(value: object) -> int:
    """Tokens as the old agents count them: each key, value, object and array is one."""
    if isinstance(value, Mapping):
        return 1 + sum(1 + count_tokens(item) for item in value.values())
    if isinstance(value, list | tuple):
        return 1 + sum(count_tokens(item) for item in value)
    return 1


def _note_file(file: DocumentFile, document: OtaDocument, note: Callable[[bool, str], None]) -> None:
    where = f"File {file.file_id}"
    if file.signature is not None and len(file.signature.value) > SIGNATURE_SIZE_BYTES_MAX:
        note(
            True,
            f"{where}: the signature has {len(file.signature.value)} bytes; agents hold {SIGNATURE_SIZE_BYTES_MAX}. Sign with "
            "ECDSA P-256 or an RSA key of at most 3072 bits.",
        )
    if file.signature is None:
        note(False, f"{where} is unsigned: a device that checks signatures refuses it.")
    if not file.path:
        note(False, f"{where} has no filepath: most devices and the Jobs library need one.")
    if len(file.path) > FILE_PATH_LENGTH_MAX:
        note(False, f"{where}: filepath has {len(file.path)} characters; devices hold {FILE_PATH_LENGTH_MAX}.")
    if TransferProtocol.HTTP not in document.protocols:
        return
    if file.url is None or file.auth_scheme is None:
        note(True, f"{where}: HTTP is among the protocols, but update_data_url or auth_scheme is absent.")
        return
    if file.file_type is None:
        note(False, f"{where}: the Jobs library needs fileType for HTTP.")
    if len(file.url) > URL_LENGTH_MAX and not file.url.startswith("${"):
        note(False, f"{where}: update_data_url has {len(file.url)} characters; agents hold {URL_LENGTH_MAX}.")
    host = _URL_HOST.match(file.url)
    if host is not None and len(host[1]) > URL_HOST_LENGTH_MAX:
        note(True, f"{where}: the URL's host has {len(host[1])} characters; agents hold {URL_HOST_LENGTH_MAX}.")


def _file_members(file: DocumentFile) -> dict[str, object]:
    members: dict[str, object] = {
        "filepath": _plain("filepath", file.path),
        "filesize": _bounded("filesize", file.size_bytes, 1, FILE_SIZE_BYTES_MAX),
        "fileid": _bounded("fileid", file.file_id, 0, FILE_ID_MAX),
        "certfile": _plain("certfile", file.certificate_path),
    }
    if file.file_type is not None:
        members["fileType"] = _bounded("fileType", file.file_type, 0, FILE_TYPE_MAX)
    if file.encryption is not None:
        members["encrypted"] = file.encryption.to_members()
    if file.url is not None:
        members["update_data_url"] = _plain("update_data_url", file.url)
    if file.auth_scheme is not None:
        members["auth_scheme"] = _plain("auth_scheme", file.auth_scheme)
    if file.signature is not None:
        members[file.signature.key] = base64.b64encode(file.signature.value).decode()
    return members


def _file(item: object) -> DocumentFile:
    members = _object("files[…]", item)
    signatures = [(match, value) for key, value in members.items() if (match := _SIGNATURE_KEY.fullmatch(key))]
    if len(signatures) > 1:
        raise MalformedDocument("A file carries more than one signature; which one counts would be a guess.")
    return DocumentFile(
        path=_optional_text(members, "filepath", 1024) or "",
        size_bytes=_bounded("filesize", members.get("filesize"), 1, FILE_SIZE_BYTES_MAX),
        file_id=_bounded("fileid", members.get("fileid"), 0, FILE_ID_MAX),
        certificate_path=_optional_text(members, "certfile", 1024) or "",
        file_type=None if "fileType" not in members else _bounded("fileType", members["fileType"], 0, FILE_TYPE_MAX),
        signature=_signature(*signatures[0]) if signatures else None,
        url=_optional_text(members, "update_data_url", 8192),
        auth_scheme=_optional_text(members, "auth_scheme", AUTH_SCHEME_LENGTH_MAX),
        encryption=None if "encrypted" not in members else read_encryption(members["encrypted"]),
    )


def _signature(match: re.Match[str], value: object) -> FileSignature:
    if not isinstance(value, str):
        raise MalformedDocument(f"{match[0]} must be a Base64 string.")
    try:
        signature = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedDocument(f"{match[0]} is not Base64 with the standard alphabet.") from error
    if not 1 <= len(signature) <= SIGNATURE_SIZE_BYTES_MAX:
        raise MalformedDocument(f"{match[0]} has {len(signature)} bytes; a device takes 1 to {SIGNATURE_SIZE_BYTES_MAX}.")
    return FileSignature(
        hash_algorithm=HashAlgorithm(match[1]), signature_algorithm=SignatureAlgorithm(match[2]), value=signature
    )


def read_encryption(value: object) -> FileEncryption:
    """Read the member ``encrypted`` of a file.

    Raises:
        MalformedDocument: it says no format, or not to whom.
    """
    members = _object("encrypted", value)
    key_ids = _list("encrypted.keyIds", members.get("keyIds"))
    if not 1 <= len(key_ids) <= RECIPIENTS_MAX:
        raise MalformedDocument(f"encrypted.keyIds names 1 to {RECIPIENTS_MAX} keys, not {len(key_ids)}.")
    names = tuple(key_id for key_id in key_ids if isinstance(key_id, str) and _SHORT_KEY_ID.fullmatch(key_id))
    if len(names) != len(key_ids):
        raise MalformedDocument(f"encrypted.keyIds holds names of {SHORT_KEY_ID_LENGTH} lower-case hexadecimal digits.")
    return FileEncryption(format=_bounded("encrypted.format", members.get("format"), 1, ENVELOPE_FORMAT_MAX), key_ids=names)


def _plain(name: str, text: str) -> str:
    """Text that JSON carries as it stands."""
    for character in text:
        if character in '"\\' or unicodedata.category(character) in ("Cc", "Cs"):
            raise MalformedDocument(
                f"{name} holds {character!r}. Agents copy the document's text without undoing escapes: leave out quotes, "
                "backslashes and control characters."
            )
    return text


def _bounded(name: str, value: object, low: int, high: int) -> int:
    # A bool is an int to Python, and 600.0 fails the C parser: neither is a bare integer.
    if type(value) is not int or not low <= value <= high:
        raise MalformedDocument(f"{name} must be a whole number from {low} to {high}.")
    return value


def _object(name: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise MalformedDocument(f"{name} must be an object.")
    return cast("Mapping[str, object]", value)


def _list(name: str, value: object) -> Sequence[object]:
    if not isinstance(value, list):
        raise MalformedDocument(f"{name} must be an array.")
    return value


def _optional_text(members: Mapping[str, object], name: str, length_max: int) -> str | None:
    value = members.get(name)
    if value is None and name not in members:
        return None
    if not isinstance(value, str) or len(value) > length_max:
        raise MalformedDocument(f"{name} must be a string of at most {length_max} characters.")
    return value
