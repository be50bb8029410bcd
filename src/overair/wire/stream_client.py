"""Streams from the device's side: requests out; blocks, descriptions and refusals in (wire reference §4.2-4.7)."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from overair.wire import strict_cbor, strict_json
from overair.wire.blocks import StreamBlock
from overair.wire.stream_messages import (
    DescribeStreamRequest,
    Dialect,
    Echo,
    GetStreamRequest,
    StreamDescription,
    StreamFile,
    echoed,
    encode_members,
)

ANSWER_SIZE_BYTES_MAX: Final = 256 * 1024
"""Room for a 128 KiB block in Base64."""


class MalformedStreamMessage(ValueError):
    """An answer from a server that isn't one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refusal as a device reads it."""

    code: str
    message: str
    client_token: str | None


def encode_get_stream(request: GetStreamRequest, dialect: Dialect) -> bytes:
    """A GetStream request in the member order of the C agent: c, s, f, l, o, b, n; absent members left out."""
    members = echoed(request.echo, dialect)
    if request.stream_version is not None:
        members["s"] = request.stream_version
    members |= {"f": request.file_id, "l": request.block_size_bytes, "o": request.block_offset}
    if request.bitmap is not None:
        members["b"] = request.bitmap if dialect is Dialect.CBOR else "0x" + request.bitmap.hex()
    if request.block_count is not None:
        members["n"] = request.block_count
    return encode_members(members, dialect)


def encode_describe_stream(request: DescribeStreamRequest, dialect: Dialect) -> bytes:
    """A DescribeStream request."""
    members = echoed(request.echo, dialect)
    if request.stream_version is not None:
        members["s"] = request.stream_version
    return encode_members(members, dialect)


def decode_block(payload: bytes, dialect: Dialect) -> StreamBlock:
    """Read one data message, as strictly as the C agents do: ``l`` must be the length of ``p``.

    Raises:
        MalformedStreamMessage: anything else.
    """
    members = _decode_answer(payload, dialect)
    file_id, number, length = (_answer_integer(members, name) for name in ("f", "i", "l"))
    data = members.get("p")
    if dialect is not Dialect.CBOR and isinstance(data, str):
        try:
            data = b64decode(data, validate=True)
        except ValueError:
            raise MalformedStreamMessage("The block p is not Base64.") from None
    if not isinstance(data, bytes) or len(data) != length:
        raise MalformedStreamMessage("The block p must be bytes of exactly the length l.")
    return StreamBlock(file_id=file_id, number=number, data=data)


def decode_description(payload: bytes, dialect: Dialect) -> StreamDescription:
    """Read the answer to DescribeStream.

    Raises:
        MalformedStreamMessage: it isn't one.
    """
    members = _decode_answer(payload, dialect)
    text, files = members.get("d", ""), members.get("r")
    if not isinstance(text, str) or not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        raise MalformedStreamMessage("A description needs the text d and the list r.")
    lines = tuple(StreamFile(file_id=_answer_integer(file, "f"), size_bytes=_answer_integer(file, "z")) for file in files)
    token = members.get("t" if dialect is Dialect.GUIDE_2018 else "c")
    version = members.get("v") if dialect is Dialect.GUIDE_2018 else None
    echo = Echo(
        client_token=token if isinstance(token, str) else None, message_version=version if isinstance(version, int) else None
    )
    return StreamDescription(stream_version=_answer_integer(members, "s"), description=text, files=lines, echo=echo)


def decode_refusal(payload: bytes, dialect: Dialect) -> Refusal:
    """Read a refusal in today's spelling or the older one.

    Raises:
        MalformedStreamMessage: it names no code.
    """
    members = _decode_answer(payload, dialect)
    code = members.get("o", members.get("code"))
    message = members.get("m", members.get("message", ""))
    token = members.get("c", members.get("t", members.get("clientToken")))
    if not isinstance(code, str) or not isinstance(message, str):
        raise MalformedStreamMessage("A refusal needs a code.")
    return Refusal(code=code, message=message, client_token=token if isinstance(token, str) else None)


def _decode_answer(payload: bytes, dialect: Dialect) -> Mapping[Any, object]:
    try:
        if dialect is Dialect.CBOR:
            return strict_cbor.decode_map(payload, size_bytes_max=ANSWER_SIZE_BYTES_MAX)
        return strict_json.decode_object(payload, size_bytes_max=ANSWER_SIZE_BYTES_MAX)
    except (strict_cbor.MalformedCbor, strict_json.MalformedJson) as error:
        raise MalformedStreamMessage(str(error)) from None


def _answer_integer(members: Mapping[Any, object], name: str) -> int:
    value = members.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise MalformedStreamMessage(f"The member {name!r} must be a whole number of at most 31 bits.")
    return value
