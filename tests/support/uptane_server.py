"""A server of both repositories over real TLS, for tests of clients: one vehicle, everything in memory, every call noted.

It answers as OTA Connect's gateway does (Uptane reference §3) and misbehaves where a test says so: ``instead[path]`` takes a
function that answers in place of the server.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

from overair.agent.uptane.https import Answer, BadStatus, HttpClient, Unreachable
from overair.basics.clock import Clock, WallClock, as_datetime
from overair.wire.uptane.metadata import Repository
from tests.support.uptane_repository import UptaneRepository


@dataclass
class Issuer:
    """A CA that issues whatever a test asks for, fit or unfit."""

    name: str = "test CA"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self.name)])
        self.certificate = self.issue(self.name, key=self.key, authority=True)[0]

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        name: str,
        *,
        key: ec.EllipticCurvePrivateKey | None = None,
        public_key: Any = None,
        hosts: tuple[str, ...] = (),
        born: datetime = datetime(2020, 1, 1, tzinfo=UTC),
        until: datetime = datetime(2050, 1, 1, tzinfo=UTC),
        authority: bool = False,
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(self.subject)
            .public_key(public_key or key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(born)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(host) for host in hosts]), critical=False)
        return builder.sign(self.key, hashes.SHA256()), key

    def issue_pem(self, name: str, **changes: Any) -> tuple[bytes, bytes]:
        certificate, key = self.issue(name, **changes)
        return certificate.public_bytes(serialization.Encoding.PEM), key_pem(key)

    def container(self, name: str, **changes: Any) -> bytes:
        """A PKCS #12 without a password: key, certificate, and this CA."""
        certificate, key = self.issue(name, **changes)
        return pkcs12.serialize_key_and_certificates(
            name.encode(), key, certificate, [self.certificate], serialization.NoEncryption()
        )


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request as the server saw it."""

    method: str
    path: str
    peer: str | None
    """CN of the certificate that was shown."""
    headers: dict[str, str]
    body: bytes

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


Instead = Callable[["Handler", Call], None]


class UptaneServer:
    """Runs on a port of its own until closed."""

    def __init__(
        self,
        folder: Path,
        *,
        issuer: Issuer | None = None,
        clock: Clock | None = None,
        certificate: tuple[bytes, bytes] | None = None,
        asks_for_certificate: bool = True,
    ) -> None:
        self.issuer = issuer or Issuer()
        self.clock = clock or WallClock()
        self.director = UptaneRepository(Repository.DIRECTOR, now=self.clock.now)
        self.image = UptaneRepository(Repository.IMAGE, now=self.clock.now)
        self.images: dict[str, bytes] = {}
        self.calls: list[Call] = []
        self.instead: dict[str, Instead] = {}
        self.taken_ids: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)
        certificate_pem, private_key_pem = certificate or self.issuer.issue_pem("server", hosts=("127.0.0.1", "localhost"))
        pair = folder / "server.pem"
        pair.write_bytes(certificate_pem + private_key_pem)
        self.ca_file = folder / "server-ca.pem"
        self.ca_file.write_bytes(self.issuer.pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair)
        if asks_for_certificate:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(self.ca_file)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.world = self  # type: ignore[attr-defined]
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    # --- what was asked ---

    def asked(self, beginning: str = "") -> list[str]:
        return [str(call) for call in self.calls if str(call).startswith(beginning)]

    def bodies(self, call: str) -> list[Any]:
        return [json.loads(each.body) for each in self.calls if str(each) == call]

    @property
    def manifests(self) -> list[Any]:
        return self.bodies("PUT /director/manifest")

    @property
    def events(self) -> list[Any]:
        return [event for batch in self.bodies("POST /events") for event in batch]

    # --- what is answered ---

    def answer(self, handler: Handler, call: Call) -> None:
        if call.path in self.instead:
            self.instead[call.path](handler, call)
        elif call.method == "POST" and call.path == "/devices":
            self._new_device(handler, call)
        elif call.peer is None:
            handler.say(401, {"code": "no_certificate", "description": "A certificate is needed."})
        elif call.method == "POST" and call.path == "/.well-known/est/simplereenroll":
            handler.say(404, {"code": "not_found", "description": "Not here."})
        elif call.method == "POST" and call.path == "/director/ecus":
            handler.say(201, {})
        elif call.method in ("PUT", "POST"):
            handler.say(200, {})
        elif call.path.startswith("/repo/targets/"):
            self.send_image(handler, call, self.images.get(unquote(call.path.removeprefix("/repo/targets/"))))
        elif call.path.startswith("/director/"):
            handler.send_document(self.director.document(call.path.removeprefix("/director/")))
        elif call.path.startswith("/repo/"):
            handler.send_document(self.image.document(call.path.removeprefix("/repo/")))
        else:
            handler.say(404, {"code": "not_found", "description": "Not here."})

    def send_image(self, handler: Handler, call: Call, content: bytes | None) -> None:
        if content is None:
            handler.send_document(None)
            return
        told = call.headers.get("range", "")
        first = int(told.removeprefix("bytes=").rstrip("-")) if told else 0
        headers = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if told else {}
        handler.send(206 if told else 200, content[first:], headers)

    def _new_device(self, handler: Handler, call: Call) -> None:
        name = json.loads(call.body)["deviceId"]
        if name in self.taken_ids:
            handler.say(409, {"code": "device_already_registered", "description": f"{name} is taken."})
            return
        self.taken_ids.add(name)
        now = as_datetime(self.clock.now())
        container = self.issuer.container(name, born=now - timedelta(days=1), until=now + timedelta(days=364))
        handler.send(200, container, {"Content-Type": "application/x-pkcs12"})


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = 20
    disable_nagle_algorithm = True

    @property
    def world(self) -> UptaneServer:
        return self.server.world  # type: ignore[attr-defined,no-any-return]

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        shown = self.connection.getpeercert()  # type: ignore[attr-defined]
        names = [value for part in (shown or {}).get("subject", ()) for key, value in part if key == "commonName"]
        call = Call(
            method=self.command,
            path=self.path,
            peer=names[0] if names else None,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
        )
        self.world.calls.append(call)
        self.world.answer(self, call)

    do_GET = do_POST = do_PUT = do_HEAD = handle_any

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The ``Date`` header tells the server's own clock."""
        return super().date_time_string(timestamp or self.world.clock.now() / 1000)

    def send_document(self, data: bytes | None) -> None:
        if data is None:
            self.say(404, {"code": "missing_entity", "description": "There is no such document."})
        else:
            self.send(200, data)

    def say(self, status: int, members: Any) -> None:
        self.send(status, json.dumps(members).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self) -> None:
        """No answer: the line is cut."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ssl.SSLError):  # the client has had enough
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        return


class DirectClient(HttpClient):
    """Asks a server without a network, for tests that make thousands of calls: ``partial(DirectClient, server)`` in place of
    ``HttpClient``. The device's certificate is taken as shown."""

    def __init__(self, server: UptaneServer, **_: Any) -> None:
        self._server = server

    def close(self) -> None:
        return

    def request(self, method: str, url: str, *, body: bytes | None = None, **_: Any) -> Answer:
        said = self._asked(method, url, body or b"", {})
        return Answer(status=said.status, body=said.body, headers={"date": said.date})

    def download(self, url: str, *, first_byte: int, size_bytes: int, take: Callable[[int, bytes], None]) -> None:
        said = self._asked("GET", url, b"", {"range": f"bytes={first_byte}-"} if first_byte else {})
        if said.status not in (200, 206):
            raise BadStatus(said.status, f"{url} answers with status {said.status}.")
        for start in range(0, len(said.body), 16_384):
            take((first_byte if said.status == 206 else 0) + start, said.body[start : start + 16_384])

    def _asked(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> _Said:
        call = Call(method=method, path=url.removeprefix(self._server.url), peer="device", headers=headers, body=body)
        self._server.calls.append(call)
        said = _Said(self._server)
        self._server.answer(said, call)  # type: ignore[arg-type]
        return said


class _Said:
    """Stands in for a ``Handler`` and remembers."""

    send_document = Handler.send_document
    say = Handler.say

    def __init__(self, server: UptaneServer) -> None:
        self.date = formatdate(server.clock.now() / 1000, usegmt=True)
        self.status, self.body = 0, b""

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.status, self.body = status, body

    def hang_up(self) -> None:
        raise Unreachable("the line is cut")
