"""An HTTPS server for tests of clients: mutual TLS, one request a connection, answers that a test writes, all bytes kept."""

from __future__ import annotations

import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tests.support.authority import Authority

PATIENCE_S = 10.0
REASONS = {200: "OK", 201: "Created", 206: "Partial Content", 301: "Moved Permanently", 302: "Found", 404: "Not Found"}


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came."""

    raw: bytes
    """Head and body."""
    method: str
    path: str
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes
    alpn: str | None
    is_resumed_session: bool


@dataclass(frozen=True, slots=True)
class Answer:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after_bytes: int | None = None
    """The connection goes away after so much of the body."""


Handler = Callable[[Received], Answer]


class ScriptedHttps:
    """On 127.0.0.1, with the authority's certificate for that address, or with an ``identity`` (certificate and key); a client
    certificate of the same authority is demanded, unless none is asked for."""

    def __init__(
        self,
        authority: Authority | None,
        handler: Handler,
        *,
        identity: tuple[bytes, bytes] | None = None,
        asks_certificate: bool = True,
    ) -> None:
        self.received: list[Received] = []
        self._handler = handler
        assert authority is not None or identity is not None
        certificate, key = identity or authority.issue("127.0.0.1", host="127.0.0.1")  # type: ignore[union-attr]
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.verify_mode = ssl.CERT_REQUIRED if asks_certificate else ssl.CERT_NONE
        self._context.set_alpn_protocols(["http/1.1"])
        with tempfile.TemporaryDirectory() as folder:
            for name, data in (("server.pem", certificate), ("server.key", key)):
                (Path(folder) / name).write_bytes(data)
            self._context.load_cert_chain(Path(folder) / "server.pem", Path(folder) / "server.key")
        if authority is not None:
            self._context.load_verify_locations(cadata=authority.pem.decode())
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> ScriptedHttps:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE_S)

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return  # closed
            plain.settimeout(PATIENCE_S)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                with self._context.wrap_socket(plain, server_side=True) as connection:
                    self._answer(connection)
            except OSError:
                continue  # a client that went away, or that showed nothing we trust

    def _answer(self, connection: ssl.SSLSocket) -> None:
        raw = b""
        while b"\r\n\r\n" not in raw:
            raw += _some(connection)
        head, _, body = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        while len(body) < int(headers.get("content-length", "0")):
            body += _some(connection)
        method, path, _ = lines[0].split(" ")
        received = Received(
            head + b"\r\n\r\n" + body,
            method,
            path,
            headers,
            body,
            connection.selected_alpn_protocol(),
            bool(connection.session_reused),
        )
        self.received.append(received)
        answer = self._handler(received)
        told = {"Content-Length": str(len(answer.body)), "Connection": "close", **answer.headers}
        start = f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Told')}"
        connection.sendall(
            "\r\n".join([start, *(f"{name}: {value}" for name, value in told.items()), "", ""]).encode()
            + answer.body[: answer.cut_after_bytes]
        )
        if answer.cut_after_bytes is None:
            # The session's end is told, as servers do; a cut is one without.
            connection.unwrap()


def _some(connection: ssl.SSLSocket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the client has closed")
    return data
