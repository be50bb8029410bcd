"""The server's side of WebSockets (RFC 6455), for one stream of bytes: handshake and frames. Pure.

What a client sends in binary messages is handed on as it comes, message or not: MQTT has packets of its own, and "the server
MUST NOT assume that MQTT packets are aligned on frame boundaries" (MQTT 3.1.1 section 6).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha1
from typing import Final

CONTROL_SIZE_BYTES_MAX: Final = 125
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
"""Sixteen octets in Base64."""
_SALT: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
VERSION: Final = b"13"

Headers = Sequence[tuple[bytes, bytes]]


class CloseCode(IntEnum):
    """Section 7.4.1."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003


class BrokenFrame(Exception):
    """The peer broke the protocol; it is told ``code`` and the connection ends."""

    def __init__(self, message: str, code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


class HandshakeRefused(Exception):
    """A request that can't become a WebSocket; the message says what is missing."""


# Handshake -----------------------------------------------------------------------------------------------------------


def answer_handshake(headers: Headers, *, protocol: str) -> list[tuple[bytes, bytes]]:
    """The headers of the 101 that a request's headers (names in lower case) earn.

    Args:
        protocol: the subprotocol that is spoken here; the client must have offered it.

    Raises:
        HandshakeRefused: version, key or subprotocol aren't as they must be (section 4.2.1).
    """
    if _values(headers, b"sec-websocket-version") != [VERSION]:
        raise HandshakeRefused("A WebSocket request says Sec-WebSocket-Version: 13.")
    keys = _values(headers, b"sec-websocket-key")
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise HandshakeRefused("A WebSocket request says one Sec-WebSocket-Key, sixteen octets in Base64.")
    offered = [name.strip() for value in _values(headers, b"sec-websocket-protocol") for name in value.split(b",")]
    if protocol.encode("ascii") not in offered:
        raise HandshakeRefused(f"This WebSocket speaks the subprotocol {protocol}: ask for it in Sec-WebSocket-Protocol.")
    accept = b64encode(sha1(keys[0] + _SALT, usedforsecurity=False).digest())
    return [
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-accept", accept),
        (b"sec-websocket-protocol", protocol.encode("ascii")),
    ]


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value.strip() for each, value in headers if each == name]


# Frames --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of what the client says."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """To be answered with a pong of the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The client is done. ``payload`` is to be said back."""

    payload: bytes


Event = Data | Ping | Close

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class FrameDecoder:
    """Takes bytes as they come. Holds a frame's header and control frames, never a message: data goes on at once."""

    __slots__ = ("_buffer", "_in_message", "_left", "_mask")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # of a data frame's payload
        self._mask = b""
        self._in_message = False

    @property
    def buffered_bytes(self) -> int:
        """Held until more comes."""
        return len(self._buffer)

    def receive(self, data: bytes) -> Iterator[Event]:
        """What these bytes say.

        Raises:
            BrokenFrame: the peer broke the protocol; nothing more may be asked of this decoder.
        """
        data = self._buffer + data if self._buffer else data
        self._buffer = b""
        position = 0
        while position < len(data):
            if self._left:
                piece = data[position : position + self._left]
                position += len(piece)
                self._left -= len(piece)
                yield Data(self._unmasked(piece))
                continue
            header = _header(data, position)
            if header is None:
                break
            first, size, mask, start = header
            opcode, is_last = first & 0x0F, bool(first & 0x80)
            if opcode >= _CLOSE:
                if not is_last or size > CONTROL_SIZE_BYTES_MAX:
                    raise BrokenFrame("A control frame is whole and has at most 125 octets (section 5.5).")
                if len(data) - start < size:
                    break
                position = start + size
                self._mask = mask
                event = _control(opcode, self._unmasked(data[start:position]))
                if event is not None:
                    yield event
                continue
            self._begin(opcode, is_last)
            position, self._left, self._mask = start, size, mask
        self._buffer = data[position:]

    def _begin(self, opcode: int, is_last: bool) -> None:
        if opcode == _TEXT:
            raise BrokenFrame("MQTT goes in binary messages (MQTT 3.1.1 section 6).", CloseCode.UNSUPPORTED_DATA)
        if opcode not in (_BINARY, _CONTINUATION):
            raise BrokenFrame(f"There is no frame of the kind {opcode} (section 5.2).")
        if self._in_message is not (opcode == _CONTINUATION):
            raise BrokenFrame("A message's frames follow each other, the first with its kind (section 5.4).")
        self._in_message = not is_last

    def _unmasked(self, payload: bytes) -> bytes:
        size = len(payload)
        if not size:
            return b""
        mask = self._mask
        key = (mask * (size // 4 + 1))[:size]
        # The next piece of the same frame goes on where this one ends.
        turn = size % 4
        self._mask = mask[turn:] + mask[:turn]
        return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def _header(data: bytes, position: int) -> tuple[int, int, bytes, int] | None:
    """(first octet, payload's size, mask, where the payload begins), or None while it isn't whole."""
    if len(data) - position < 2:
        return None
    first, second = data[position], data[position + 1]
    if first & 0x70:
        raise BrokenFrame("No extension was agreed on (section 5.2).")
    if not second & 0x80:
        raise BrokenFrame("A client masks its frames (section 5.1).")
    size, start = second & 0x7F, position + 2
    if size >= 126:
        width = 2 if size == 126 else 8
        if len(data) - start < width:
            return None
        size = int.from_bytes(data[start : start + width], "big")
        start += width
        if size >> 63 or size < (126 if width == 2 else 1 << 16):
            raise BrokenFrame("A frame says its size in no more octets than it needs (section 5.2).")
    if len(data) - start < 4:
        return None
    return first, size, data[start : start + 4], start + 4


def _control(opcode: int, payload: bytes) -> Event | None:
    if opcode == _PING:
        return Ping(payload)
    if opcode == _PONG:
        return None
    if opcode != _CLOSE:
        raise BrokenFrame(f"There is no frame of the kind {opcode} (section 5.2).")
    if len(payload) == 1:
        raise BrokenFrame("A close says a code of two octets, or nothing (section 5.5.1).")
    return Close(payload[:2])


def encode_data(payload: bytes) -> bytes:
    """A binary message in one frame."""
    return _frame_header(0x80 | _BINARY, len(payload)) + payload


def encode_pong(payload: bytes) -> bytes:
    """The answer to a ping."""
    return _frame_header(0x80 | _PONG, len(payload)) + payload


def encode_close(payload: bytes) -> bytes:
    """The end; ``close_payload`` makes one of a code."""
    return _frame_header(0x80 | _CLOSE, len(payload)) + payload


def close_payload(code: CloseCode) -> bytes:
    """A code as a close says it."""
    return code.to_bytes(2, "big")


def _frame_header(first: int, size: int) -> bytes:
    if size < 126:
        return bytes((first, size))
    if size < 1 << 16:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")
