"""A request whose end two readers could see differently ends its connection with 400, on operators' and on devices' port."""

from __future__ import annotations

import contextlib
import socket
import ssl
from urllib.parse import urlsplit

import pytest

from tests.support.server_process import ServerProcess

BEHIND = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"
MALFORMED = {
    "length and chunks": b"PUT /b/k HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"PUT /b/k HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabc",
    "two lengths in one": b"PUT /b/k HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 3\r\n\r\nabc",
    "a length below nothing": b"PUT /b/k HTTP/1.1\r\nhost: a\r\ncontent-length: -3\r\n\r\nabc",
    "a space before a colon": b"PUT /b/k HTTP/1.1\r\nhost: a\r\ncontent-length : 3\r\n\r\nabc",
    "a bare line feed": b"PUT /b/k HTTP/1.1\r\nhost: a\r\nx: a\ncontent-length: 3\r\n\r\nabc",
    "a folded header": b"PUT /b/k HTTP/1.1\r\nhost: a\r\nx: a\r\n content-length: 3\r\n\r\nabc",
    "a coding that isn't known": b"PUT /b/k HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "no HTTP": b"\x00\x01\x02\x03\r\n\r\n",
}


def said_to(server: ServerProcess, port: str, request: bytes) -> bytes:
    """Everything until the server closes."""
    parts = urlsplit(server.endpoints[f"{port}_url"])
    context = ssl.create_default_context(cafile=server.endpoints["ca_file"])
    with (
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=60) as raw,
        context.wrap_socket(raw, server_hostname=parts.hostname) as peer,
    ):
        peer.sendall(request)
        said = b""
        with contextlib.suppress(ConnectionResetError, ssl.SSLError):
            while piece := peer.recv(65_536):
                said += piece
    return said


@pytest.mark.parametrize("port", ["operator", "device"])
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_framing_hears_400_and_the_connection_ends(server: ServerProcess, case: str, port: str) -> None:
    said = said_to(server, port, MALFORMED[case] + BEHIND)
    assert said.startswith(b"HTTP/1.1 400 "), said[:200]
    assert said.count(b"HTTP/1.1 ") == 1, "nothing that followed was read"


@pytest.mark.parametrize("port", ["operator", "device"])
@pytest.mark.parametrize("size", [b"zz", b"-1", b"", b"0x3", b"f" * 20])
def test_a_chunk_of_a_size_that_is_none_ends_the_connection(server: ServerProcess, size: bytes, port: str) -> None:
    head = b"PUT /b/k HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    said = said_to(server, port, head + size + b"\r\nabc\r\n0\r\n\r\n" + BEHIND)
    assert said.count(b"HTTP/1.1 ") == 1
    assert said.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize("port", ["operator", "device"])
def test_a_head_that_is_too_large_is_refused_and_the_connection_ends(server: ServerProcess, port: str) -> None:
    head = b"GET / HTTP/1.1\r\nhost: a\r\n" + b"".join(b"x%d: %s\r\n" % (n, b"y" * 1_000) for n in range(70)) + b"\r\n"
    said = said_to(server, port, head)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1 ") == 1
    assert b"<Code>RequestHeaderSectionTooLarge</Code>" in said
