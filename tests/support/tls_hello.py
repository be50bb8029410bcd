"""ClientHellos byte by byte, for what no library speaks any more, and what a server says to them (RFC 5246, RFC 8446)."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

PATIENCE_S: Final = 30.0

SSL_3_0, TLS_1_0, TLS_1_1, TLS_1_2, TLS_1_3 = (3, 0), (3, 1), (3, 2), (3, 3), (3, 4)
Version = tuple[int, int]

GROUPS: Final = (29, 23, 24, 25)  # X25519, P-256, P-384, P-521
SIGNATURES: Final = (0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601)
SIGNALLING: Final = frozenset({0x00FF, 0x5600})
"""No suites: that renegotiation is safe, and that an attempt fell back."""


@dataclass(frozen=True, slots=True)
class ServerHello:
    """What a server chose."""

    version: Version
    suite: int
    compression: int
    random: bytes
    extensions: frozenset[int]


@dataclass(frozen=True, slots=True)
class Alert:
    """A server that says no: a fatal alert by its number (40 is handshake_failure, 70 protocol_version)."""

    level: int
    description: int


@dataclass(frozen=True, slots=True)
class Closed:
    """A server that hangs up without a word."""


Answer = ServerHello | Alert | Closed


def _sized(width: int, content: bytes) -> bytes:
    return len(content).to_bytes(width, "big") + content


def _numbers(numbers: Iterable[int]) -> bytes:
    return b"".join(number.to_bytes(2, "big") for number in numbers)


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + _sized(2, content)


def hello(
    suites: Sequence[int],
    *,
    version: Version = TLS_1_2,
    record_version: Version | None = None,
    compressions: bytes = b"\0",
    groups: Sequence[int] = GROUPS,
    signatures: Sequence[int] = SIGNATURES,
    more: bytes = b"",
) -> bytes:
    """One ClientHello in as many records as it takes."""
    extensions = extension(0x000A, _sized(2, _numbers(groups))) + extension(0x000B, b"\x01\x00")
    extensions += extension(0x000D, _sized(2, _numbers(signatures))) + extension(0xFF01, b"\0") + more
    body = bytes(version) + bytes(range(32)) + b"\0" + _sized(2, _numbers(suites)) + _sized(1, compressions)
    if version > SSL_3_0:
        body += _sized(2, extensions)
    message = b"\x01" + _sized(3, body)
    head = b"\x16" + bytes(record_version or version)
    return b"".join(head + _sized(2, message[at : at + 16000]) for at in range(0, len(message), 16000))


def hello_of_ssl_2() -> bytes:
    """Version 2's own form: no records, suites of three bytes."""
    suites = bytes.fromhex("010080 020080 030080 040080 050080 060040 0700c0".replace(" ", ""))
    body = b"\x01\x00\x02" + len(suites).to_bytes(2, "big") + b"\0\0" + b"\x00\x10" + suites + bytes(range(16))
    return (0x8000 | len(body)).to_bytes(2, "big") + body


def ask(port: int, sent: bytes) -> Answer:
    """Send it, and read the first message of the server's."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        try:
            connection.sendall(sent)
            kind, content = _record(connection)
            if kind == 0x15:
                return Alert(content[0], content[1])
            assert kind == 0x16, f"a record of type {kind}"
            while len(content) < 4 or len(content) < 4 + int.from_bytes(content[1:4], "big"):
                kind, more = _record(connection)
                content += more
        except (ConnectionError, EOFError):
            return Closed()
    assert content[0] == 2, f"a handshake message of type {content[0]}"
    return _server_hello(content[4 : 4 + int.from_bytes(content[1:4], "big")])


def _server_hello(body: bytes) -> ServerHello:
    at = 35 + body[34]
    suite, compression = int.from_bytes(body[at : at + 2], "big"), body[at + 2]
    extensions, rest = set(), body[at + 5 :]
    while rest:
        extensions.add(int.from_bytes(rest[:2], "big"))
        rest = rest[4 + int.from_bytes(rest[2:4], "big") :]
    return ServerHello((body[0], body[1]), suite, compression, body[2:34], frozenset(extensions))


def _record(connection: socket.socket) -> tuple[int, bytes]:
    head = _exactly(connection, 5)
    return head[0], _exactly(connection, int.from_bytes(head[3:5], "big"))


def _exactly(connection: socket.socket, size_bytes: int) -> bytes:
    data = b""
    while len(data) < size_bytes:
        piece = connection.recv(size_bytes - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
