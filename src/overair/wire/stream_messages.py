"""What devices and streams say to each other: DescribeStream, GetStream, blocks, refusals (wire reference §4.2-4.7).

Three dialects carry the same meaning: today's JSON and CBOR, and the words of the 2018 guide on the unsuffixed topics. Here
stand the values and the server's side, requests in and answers out; the device's side is ``stream_client``. No IO.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Final

import cbor2
import msgspec

from overair.wire import strict_cbor, strict_json
from overair.wire.blocks import (
    BITMAP_SIZE_BYTES_MAX,
    BLOCK_COUNT_MAX,
    BLOCK_OFFSET_MAX,
    BLOCK_SIZE_BYTES_MAX,
    BLOCK_SIZE_BYTES_MIN,
    blocks_to_send,
)

CLIENT_TOKEN_SIZE_BYTES_MAX: Final = 64
FILE_ID_MAX: Final = 255
STREAM_VERSION_MAX: Final = 65_535
REQUEST_SIZE_BYTES_MAX: Final = 32 * 1024
"""Room for the largest bitmap in hexadecimal and every other member."""


class Dialect(Enum):
    """How a message is written down; its value is the last level of today's topics."""

    JSON = "json"
    CBOR = "cbor"
    GUIDE_2018 = ""
    """JSON on topics without a last level: ``v`` message version and ``t`` token, refusals as ``code`` and ``message``."""


class RefusalCode(StrEnum):
    """Why a request is refused: today's codes (wire reference §4.6)."""

    INVALID_TOPIC = "InvalidTopic"
    INVALID_JSON = "InvalidJson"
    INVALID_CBOR = "InvalidCbor"
    INVALID_REQUEST = "InvalidRequest"
    UNAUTHORIZED = "Unauthorized"
    BLOCK_SIZE_OUT_OF_BOUNDS = "BlockSizeOutOfBounds"
    OFFSET_OUT_OF_BOUNDS = "OffsetOutOfBounds"
    BLOCK_COUNT_LIMIT_EXCEEDED = "BlockCountLimitExceeded"
    BLOCK_BITMAP_LIMIT_EXCEEDED = "BlockBitmapLimitExceeded"
    RESOURCE_NOT_FOUND = "ResourceNotFound"
    VERSION_MISMATCH = "VersionMismatch"
    ETAG_MISMATCH = "ETagMismatch"
    INTERNAL_ERROR = "InternalError"


CODES_2018: Final[Mapping[RefusalCode, str]] = {
    RefusalCode.RESOURCE_NOT_FOUND: "ResourceNotFound",
    RefusalCode.VERSION_MISMATCH: "VersionConflict",
    RefusalCode.UNAUTHORIZED: "Unauthorized",
    RefusalCode.ETAG_MISMATCH: "StreamingFileConflict",
    RefusalCode.INTERNAL_ERROR: "InternalFailure",
}
"""The 2018 guide's code for each of today's; what isn't listed is its ``InvalidRequest``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Echo:
    """What an answer repeats from its request, absent where the request had none or where it was invalid."""

    client_token: str | None = None
    message_version: int | None = None
    """``v`` of the 2018 words."""


NO_ECHO: Final = Echo()


class StreamRequestRefused(Exception):
    """The request can't be served; ``code`` and ``message`` go to the device with ``echo``."""

    def __init__(self, code: RefusalCode, message: str, echo: Echo = NO_ECHO) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.echo = echo


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeStreamRequest:
    """Asks what a stream holds."""

    stream_version: int | None = None
    """The 2018 words name an expected version here too; today's clients don't."""
    echo: Echo = NO_ECHO


@dataclass(frozen=True, slots=True, kw_only=True)
class GetStreamRequest:
    """Asks for blocks of one file, in units of its own block size. Every number is within its bounds."""

    file_id: int
    block_size_bytes: int
    block_offset: int = 0
    block_count: int | None = None
    bitmap: bytes | None = None
    stream_version: int | None = None
    echo: Echo = NO_ECHO

    def blocks_to_send(self, file_size_bytes: int) -> Sequence[int]:
        """The blocks of a file of this size that answer the request, ascending.

        Raises:
            StreamRequestRefused: ResourceNotFound where the offset is at or beyond the end.
        """
        if self.block_offset * self.block_size_bytes >= file_size_bytes:
            raise StreamRequestRefused(
                RefusalCode.RESOURCE_NOT_FOUND,
                f"Block {self.block_offset} lies beyond the end of file {self.file_id}, which has {file_size_bytes} bytes.",
                self.echo,
            )
        return blocks_to_send(
            file_size_bytes=file_size_bytes,
            block_size_bytes=self.block_size_bytes,
            block_offset=self.block_offset,
            block_count_wanted=self.block_count,
            bitmap=self.bitmap,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFile:
    """One line of a description."""

    file_id: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamDescription:
    """What a stream holds."""

    stream_version: int
    description: str
    files: tuple[StreamFile, ...]
    echo: Echo = NO_ECHO


# --- requests, as the server reads them ---


def decode_get_stream(payload: bytes, dialect: Dialect) -> GetStreamRequest:
    """Read a GetStream request. Unknown members are ignored; ``n`` may be missing; a bitmap may be longer than the file.

    Raises:
        StreamRequestRefused: with the code of wire reference §4.6 that fits.
    """
    members = _decode_request(payload, dialect)
    echo = _read_echo(members, dialect)
    for name in ("f", "l"):
        if name not in members:
            raise StreamRequestRefused(
                RefusalCode.INVALID_REQUEST, f"The member {name!r} is missing; f and l are required.", echo
            )
    file_id = _integer(members, "f", echo, maximum=FILE_ID_MAX)
    assert file_id is not None
    block_size = _integer(
        members, "l", echo, BLOCK_SIZE_BYTES_MIN, BLOCK_SIZE_BYTES_MAX, code=RefusalCode.BLOCK_SIZE_OUT_OF_BOUNDS
    )
    assert block_size is not None
    offset = _integer(members, "o", echo, maximum=BLOCK_OFFSET_MAX, code=RefusalCode.OFFSET_OUT_OF_BOUNDS)
    count = _integer(members, "n", echo, maximum=BLOCK_COUNT_MAX, code=RefusalCode.BLOCK_COUNT_LIMIT_EXCEEDED)
    version = _integer(members, "s", echo, maximum=STREAM_VERSION_MAX)
    return GetStreamRequest(
        file_id=file_id,
        block_size_bytes=block_size,
        block_offset=offset or 0,
        block_count=count,
        bitmap=_bitmap(members.get("b"), dialect, echo),
        stream_version=version,
        echo=echo,
    )


def decode_describe_stream(payload: bytes, dialect: Dialect) -> DescribeStreamRequest:
    """Read a DescribeStream request; no bytes at all mean an empty one.

    Raises:
        StreamRequestRefused: InvalidJson, InvalidCbor or InvalidRequest.
    """
    members = _decode_request(payload, dialect) if payload else {}
    echo = _read_echo(members, dialect)
    return DescribeStreamRequest(stream_version=_integer(members, "s", echo, maximum=STREAM_VERSION_MAX), echo=echo)


def _decode_request(payload: bytes, dialect: Dialect) -> Mapping[Any, object]:
    try:
        if dialect is Dialect.CBOR:
            return strict_cbor.decode_map(payload, size_bytes_max=REQUEST_SIZE_BYTES_MAX, depth_max=8)
        return strict_json.decode_object(payload, size_bytes_max=REQUEST_SIZE_BYTES_MAX, depth_max=8)
    except strict_cbor.MalformedCbor as error:
        raise StreamRequestRefused(RefusalCode.INVALID_CBOR, str(error)) from None
    except strict_json.MalformedJson as error:
        raise StreamRequestRefused(RefusalCode.INVALID_JSON, str(error)) from None


def _read_echo(members: Mapping[Any, object], dialect: Dialect) -> Echo:
    token = members.get("t" if dialect is Dialect.GUIDE_2018 else "c")
    version = members.get("v") if dialect is Dialect.GUIDE_2018 else None
    valid_version = version if isinstance(version, int) and not isinstance(version, bool) and 0 <= version < 2**31 else None
    if version is not None and valid_version is None:
        raise StreamRequestRefused(RefusalCode.INVALID_REQUEST, "The message version v must be a small whole number.")
    if token is None:
        return Echo(message_version=valid_version) if valid_version is not None else NO_ECHO
    if not isinstance(token, str) or len(token.encode(errors="surrogatepass")) > CLIENT_TOKEN_SIZE_BYTES_MAX:
        raise StreamRequestRefused(
            RefusalCode.INVALID_REQUEST,
            f"The client token must be text of at most {CLIENT_TOKEN_SIZE_BYTES_MAX} bytes.",
            Echo(message_version=valid_version),
        )
    return Echo(client_token=token, message_version=valid_version)


def _integer(
    members: Mapping[Any, object],
    name: str,
    echo: Echo,
    minimum: int = 0,
    maximum: int = 0,
    *,
    code: RefusalCode = RefusalCode.INVALID_REQUEST,
) -> int | None:
    value = members.get(name)
    if value is None and (name not in members or name not in ("f", "l")):
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise StreamRequestRefused(RefusalCode.INVALID_REQUEST, f"The member {name!r} must be a whole number.", echo)
    if not minimum <= value <= maximum:
        raise StreamRequestRefused(code, f"The member {name!r} is {value}; it must be {minimum} to {maximum}.", echo)
    return value


def _bitmap(value: object, dialect: Dialect, echo: Echo) -> bytes | None:
    if value is None:
        return None
    bitmap: bytes | None = None
    if dialect is Dialect.CBOR:
        bitmap = value if isinstance(value, bytes) else None
    elif isinstance(value, str):
        bitmap = _bitmap_from_text(value)
    if bitmap is None:
        form = "a byte string" if dialect is Dialect.CBOR else "hexadecimal text"
        raise StreamRequestRefused(RefusalCode.INVALID_REQUEST, f"The bitmap b must be {form}.", echo)
    if len(bitmap) > BITMAP_SIZE_BYTES_MAX:
        raise StreamRequestRefused(
            RefusalCode.BLOCK_BITMAP_LIMIT_EXCEEDED,
            f"The bitmap has {len(bitmap)} bytes; at most {BITMAP_SIZE_BYTES_MAX} are allowed.",
            echo,
        )
    return bitmap


def _bitmap_from_text(text: str) -> bytes | None:
    """Hexadecimal with or without ``0x``, as the guide says; text that can't be that is tried as Base64 (``MQ==``)."""
    digits = text[2:] if text[:2] in ("0x", "0X") else text
    try:
        return binascii.unhexlify(digits)
    except ValueError:
        pass
    if digits is not text:
        return None
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return None


# --- answers, as the server writes them ---


def encode_description(description: StreamDescription, dialect: Dialect) -> bytes:
    """The answer to DescribeStream."""
    members = echoed(description.echo, dialect)
    members |= {
        "s": description.stream_version,
        "d": description.description,
        "r": [{"f": file.file_id, "z": file.size_bytes} for file in description.files],
    }
    return encode_members(members, dialect)


def encode_refusal(refused: StreamRequestRefused, dialect: Dialect) -> bytes:
    """The answer to a request that can't be served, in the codes and spelling of its dialect."""
    members = echoed(refused.echo, dialect)
    if dialect is Dialect.GUIDE_2018:
        members |= {"code": CODES_2018.get(refused.code, "InvalidRequest"), "message": refused.message}
    else:
        members |= {"o": refused.code.value, "m": refused.message}
    return encode_members(members, dialect)


def echoed(echo: Echo, dialect: Dialect) -> dict[str, object]:
    """The members that repeat ``echo`` in this dialect's words."""
    members: dict[str, object] = {}
    if dialect is Dialect.GUIDE_2018 and echo.message_version is not None:
        members["v"] = echo.message_version
    if echo.client_token is not None:
        members["t" if dialect is Dialect.GUIDE_2018 else "c"] = echo.client_token
    return members


def encode_members(members: Mapping[str, object], dialect: Dialect) -> bytes:
    """A message from its members."""
    return cbor2.dumps(members) if dialect is Dialect.CBOR else msgspec.json.encode(members)


_SMALL_INTEGERS: Final = tuple(cbor2.dumps(number) for number in range(256))


def _cbor_unsigned(number: int) -> bytes:
    if number < 256:
        return _SMALL_INTEGERS[number]
    if number < 65_536:
        return b"\x19" + number.to_bytes(2, "big")
    return b"\x1a" + number.to_bytes(4, "big")


class BlockEncoder:
    """Writes the data messages that answer one request; what they share is written once (the server's hottest path).

    CBOR is ``{"f", "i", "l", "p"}`` and ``"c"`` if the request had a token: definite lengths, shortest integers, and no further
    member, since agents size their buffers as block + a small header.
    """

    __slots__ = ("_block_size_bytes", "_echo", "_file_id", "_full_middle", "_head", "_tail", "write")

    def __init__(self, *, dialect: Dialect, file_id: int, block_size_bytes: int, echo: Echo = NO_ECHO) -> None:
        self._file_id = file_id
        self._echo = echo
        self._block_size_bytes = block_size_bytes
        token = echo.client_token
        self._head = (b"\xa5" if token is not None else b"\xa4") + b"\x61f" + _cbor_unsigned(file_id) + b"\x61i"
        self._full_middle = _length_and_payload_head(block_size_bytes)
        self._tail = b"" if token is None else b"\x61c" + cbor2.dumps(token)
        self.write = {Dialect.CBOR: self._cbor, Dialect.JSON: self._json, Dialect.GUIDE_2018: self._json_2018}[dialect]
        """(block number, its bytes) → payload."""

    def _cbor(self, number: int, data: bytes) -> bytes:
        size = len(data)
        middle = self._full_middle if size == self._block_size_bytes else _length_and_payload_head(size)
        if number < 256:
            return b"".join((self._head, _SMALL_INTEGERS[number], middle, data, self._tail))
        return b"".join((self._head, _cbor_unsigned(number), middle, data, self._tail))

    def _json(self, number: int, data: bytes) -> bytes:
        return msgspec.json.encode(self._members(number, data) | echoed(self._echo, Dialect.JSON))

    def _json_2018(self, number: int, data: bytes) -> bytes:
        return msgspec.json.encode(echoed(self._echo, Dialect.GUIDE_2018) | self._members(number, data))

    def _members(self, number: int, data: bytes) -> dict[str, object]:
        return {"f": self._file_id, "i": number, "l": len(data), "p": b64encode(data).decode("ascii")}


def _length_and_payload_head(size_bytes: int) -> bytes:
    length = _cbor_unsigned(size_bytes)
    # A byte string's head is an unsigned integer's with major type 2 in the top bits.
    return b"\x61l" + length + b"\x61p" + bytes((length[0] | 0x40,)) + length[1:]
