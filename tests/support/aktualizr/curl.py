"""HTTP as aktualizr's libcurl speaks it: a new TLS session for each call, the same headers in the same order, three tries.

The server's certificate is checked against the anchors that the device holds, its name too. See ``docs/aktualizr-wire.md``.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urljoin, urlsplit

AGENT = "Aktualizr/2025.10"
TRIES = 3
REDIRECTS_MAX = 10
ANSWER_SIZE_BYTES_MAX = 64 * 1024
CONNECT_TIMEOUT_S = 60.0
READ_SIZE_BYTES = 16 * 1024


class TransportError(Exception):
    """libcurl's own failures: no connection, no TLS session, an answer that is cut or too long."""


class RangeRefused(TransportError):
    """CURLE_RANGE_ERROR: a resumed download was answered without ``Content-Range``."""


class WriteRefused(TransportError):
    """CURLE_WRITE_ERROR: whoever takes the bytes wants no more."""


@dataclass(frozen=True, slots=True)
class TlsCredentials:
    """What a call is made with: PEM texts."""

    anchors: str
    certificate_chain: str
    private_key: str


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, or the transport error after the last try."""

    status: int = 0
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    error: str = ""

    @property
    def is_ok(self) -> bool:
        return not self.error and 200 <= self.status < 400


@dataclass(frozen=True, slots=True)
class Call:
    """One request that went out, for tests to look at."""

    method: str
    path: str
    status: int
    request: bytes
    """Head and body as they were sent."""
    error: str = ""


Sink = Callable[[bytes], bool]
"""Takes bytes of a body; False for no more."""


class Http(Protocol):
    """What a device calls a server with: ``Curl``, or something in the same process."""

    def get(self, url: str, *, size_bytes_max: int) -> Response: ...
    def put(self, url: str, body: bytes, *, content_type: str = "application/json") -> Response: ...
    def post(self, url: str, body: bytes, *, content_type: str = "application/json") -> Response: ...
    def download(self, url: str, sink: Sink, *, from_byte: int = 0) -> Response: ...


class Curl:
    """One device's way to its servers."""

    def __init__(self, credentials: TlsCredentials, *, retry_pause_s: float = 0.01, calls: list[Call] | None = None) -> None:
        self.calls: list[Call] = [] if calls is None else calls
        self._retry_pause_s = retry_pause_s
        self._context = context_of(credentials)

    def get(self, url: str, *, size_bytes_max: int) -> Response:
        return self._perform("GET", url, (), b"", size_bytes_max)

    def put(self, url: str, body: bytes, *, content_type: str = "application/json") -> Response:
        return self._perform("PUT", url, (f"Content-Type: {content_type}",), body, ANSWER_SIZE_BYTES_MAX)

    def post(self, url: str, body: bytes, *, content_type: str = "application/json") -> Response:
        return self._perform("POST", url, (f"Content-Type: {content_type}",), body, ANSWER_SIZE_BYTES_MAX)

    def download(self, url: str, sink: Sink, *, from_byte: int = 0) -> Response:
        """One try, no limit of time or size; ``sink`` gets the body of whatever answer comes, as libcurl does.

        Raises:
            RangeRefused, WriteRefused
        """
        try:
            return self._follow("GET", url, (), b"", None, sink, from_byte)
        except (RangeRefused, WriteRefused):
            raise
        except TransportError as error:
            return Response(error=str(error))

    def _perform(self, method: str, url: str, headers: tuple[str, ...], body: bytes, size_bytes_max: int) -> Response:
        response = Response()
        for attempt in range(TRIES):
            if attempt:
                time.sleep(self._retry_pause_s)
            try:
                response = self._follow(method, url, headers, body, size_bytes_max, None, 0)
            except TransportError as error:
                response = Response(error=str(error))
            if not response.error and response.status < 500:
                break
        return response

    def _follow(
        self,
        method: str,
        url: str,
        headers: tuple[str, ...],
        body: bytes,
        size_bytes_max: int | None,
        sink: Sink | None,
        from_byte: int,
    ) -> Response:
        for _ in range(REDIRECTS_MAX + 1):
            response = self._once(method, url, headers, body, size_bytes_max, sink, from_byte)
            if response.status not in (301, 302, 303, 307, 308) or "location" not in response.headers:
                return response
            url = urljoin(url, response.headers["location"])
            if method == "POST" and response.status in (302, 303):
                # CURLOPT_POSTREDIR keeps POST for a 301 alone.
                method, body, headers = "GET", b"", ()
        raise TransportError("Maximum (10) redirects followed")

    def _once(
        self,
        method: str,
        url: str,
        headers: tuple[str, ...],
        body: bytes,
        size_bytes_max: int | None,
        sink: Sink | None,
        from_byte: int,
    ) -> Response:
        parts = urlsplit(url)
        request = head_of(method, parts, headers, body, from_byte) + body
        status, error = 0, ""
        try:
            with self._connected(parts) as connection:
                connection.sendall(request)
                answer = http.client.HTTPResponse(connection, method=method)
                answer.begin()
                status = answer.status
                told = {name.lower(): value for name, value in answer.getheaders()}
                is_redirect = "location" in told and 300 <= status < 400
                if size_bytes_max is not None and int(told.get("content-length", "0")) > size_bytes_max:
                    raise TransportError("Maximum file size exceeded")
                if from_byte and not is_redirect and status != 416 and "content-range" not in told:
                    raise RangeRefused("HTTP server doesn't seem to support byte ranges. Cannot resume.")
                taken = _take(answer, size_bytes_max, None if is_redirect or status == 416 else sink)
            return Response(status, taken, told)
        except TransportError as raised:
            error = str(raised)
            raise
        except (OSError, http.client.HTTPException, ValueError) as raised:
            error = f"{type(raised).__name__}: {raised}"
            raise TransportError(error) from raised
        finally:
            self.calls.append(Call(method, parts.path + (f"?{parts.query}" if parts.query else ""), status, request, error))

    def _connected(self, parts: SplitResult) -> socket.socket:
        assert parts.hostname is not None
        plain = socket.create_connection((parts.hostname, parts.port or 443), timeout=CONNECT_TIMEOUT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if parts.scheme == "http":
            return plain
        try:
            return self._context.wrap_socket(plain, server_hostname=parts.hostname)
        except BaseException:
            plain.close()
            raise


def head_of(method: str, parts: SplitResult, headers: tuple[str, ...], body: bytes, from_byte: int) -> bytes:
    """Request line and headers in libcurl's order: Host, Range, User-Agent, then what aktualizr adds, then the length."""
    lines = [f"{method} {parts.path or '/'}{'?' + parts.query if parts.query else ''} HTTP/1.1", f"Host: {parts.netloc}"]
    if from_byte:
        lines.append(f"Range: bytes={from_byte}-")
    lines += [f"User-Agent: {AGENT}", "Accept: */*", *headers]
    if method in ("PUT", "POST"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _take(answer: http.client.HTTPResponse, size_bytes_max: int | None, sink: Sink | None) -> bytes:
    kept = bytearray()
    while data := answer.read1(READ_SIZE_BYTES):
        if sink is not None:
            if not sink(data):
                raise WriteRefused("Failed writing received data to disk/application")
            continue
        kept += data
        if size_bytes_max is not None and len(kept) > size_bytes_max:
            raise TransportError("Failed writing received data to disk/application")
    if answer.length:
        raise TransportError(f"transfer closed with {answer.length} bytes remaining to read")
    return bytes(kept)


def context_of(credentials: TlsCredentials) -> ssl.SSLContext:
    """Peer and host name checked; the protocols that libcurl offers, in its order."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.load_verify_locations(cadata=credentials.anchors)
    with tempfile.TemporaryDirectory(prefix="aktualizr-") as folder:
        certificate, key = Path(folder) / "client.pem", Path(folder) / "pkey.pem"
        certificate.write_text(credentials.certificate_chain)
        key.write_text(credentials.private_key)
        context.load_cert_chain(certificate, key)
    return context
