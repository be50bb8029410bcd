"""TLS ports on loopback, on a uvloop of their own in a thread; certificates made for tests; clients that speak by hand."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from overair.basics.redacted import Redacted
from overair.server.listeners.acceptor import Accept, TlsListener, open_socket
from overair.server.listeners.demultiplexer import HTTP_ALPN, MQTT_ALPN
from overair.server.listeners.tls_context import ClientCertificate, tls_context

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A self-signed certificate with its key; good as a server's and as a client's."""

    certificate_pem: str
    key_pem: bytes
    certificate_der: bytes

    def write(self, directory: Path) -> tuple[str, str]:
        """Files as the ssl module wants them."""
        certificate, key = directory / "certificate.pem", directory / "key.pem"
        certificate.write_text(self.certificate_pem)
        key.write_bytes(self.key_pem)
        return str(certificate), str(key)


def new_identity(name: str) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    born = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(born)
        .not_valid_after(born + timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    return Identity(
        certificate_pem=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key_pem=key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        certificate_der=certificate.public_bytes(serialization.Encoding.DER),
    )


def context_of(
    identity: Identity,
    client_certificate: ClientCertificate = ClientCertificate.ASKED,
    alpn: tuple[bytes, ...] = MQTT_ALPN + HTTP_ALPN,
) -> SSL.Context:
    return tls_context(identity.certificate_pem, Redacted(identity.key_pem), client_certificate=client_certificate, alpn=alpn)


@dataclass
class Echo(asyncio.Protocol):
    """Sends back what it gets, and remembers who it spoke to."""

    made: list[Any] = field(default_factory=list)
    lost: threading.Event = field(default_factory=threading.Event)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.made.append((transport.get_extra_info("peer_der"), transport.get_extra_info("alpn")))

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class EventLoopThread:
    """A uvloop that runs what is given to it."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def call(self, function: Callable[[], Result]) -> Result:
        async def called() -> Result:
            return function()

        return self.run(called())

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@contextmanager
def loop_thread() -> Iterator[EventLoopThread]:
    thread = EventLoopThread()
    try:
        yield thread
    finally:
        thread.stop()


@contextmanager
def tls_listener(thread: EventLoopThread, context: SSL.Context, accept: Accept) -> Iterator[TlsListener]:
    def start() -> TlsListener:
        listener = TlsListener(open_socket("127.0.0.1", 0), context, accept)
        listener.start()
        return listener

    listener = thread.call(start)
    try:
        yield listener
    finally:
        thread.run(listener.stop_accepting())
        thread.run(listener.close())


def client_context(
    *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, alpn: tuple[str, ...] = (), files: tuple[str, str] | None = None
) -> ssl.SSLContext:
    """A client that trusts whoever answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if files is not None:
        context.load_cert_chain(*files)
    return context
