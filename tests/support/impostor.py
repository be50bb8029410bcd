"""Whoever stands where a device's server should: it notes every byte that a device sends it, and what the device proved.

One thread serves one connection after the other, and alone touches its sockets.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from queue import Queue
from types import TracebackType
from typing import Self

from cryptography import x509

from tests.support import pki
from tests.support.pki import Held

PATIENCE_S = 60.0
HOST = "localhost"
MadeBy = Callable[[Held], Held]
"""Makes an impostor's certificate; the fleet's own authority is at hand, since some come from there."""


def names_of(*hosts: str) -> tuple[x509.ExtensionType, bool]:
    listed: list[x509.GeneralName] = []
    for host in hosts:
        with suppress(ValueError):
            listed.append(x509.IPAddress(ip_address(host)))
            continue
        listed.append(x509.DNSName(host))
    return x509.SubjectAlternativeName(listed), False


def server_certificate(issuer: Held | None, *hosts: str, name: str = "server", **changes: object) -> Held:
    """As our server's is, but for what a test changes."""
    made = {"purposes": pki.SERVER, "more": [names_of(*hosts)] if hosts else [], **changes}
    return pki.device(issuer, name, **made)  # type: ignore[arg-type]


IMPOSTORS: dict[str, MadeBy] = {
    "of another CA": lambda _: server_certificate(pki.authority("Another root"), HOST),
    "of another CA with our CA's name": lambda ca: server_certificate(
        pki.certificate(
            ca.certificate.subject, None, pki.new_key(), [(x509.BasicConstraints(ca=True, path_length=None), True)]
        ),
        HOST,
    ),
    "self-signed": lambda _: server_certificate(None, HOST),
    "for another name": lambda ca: server_certificate(ca, "other.example"),
    "for a name that ours begins with": lambda ca: server_certificate(ca, "local", "localhost.example", "*.localhost"),
    "with the name in its common name alone": lambda ca: server_certificate(ca, name=HOST),
    "expired": lambda ca: server_certificate(ca, HOST, dies=pki.BORN + timedelta(days=1)),
    "not valid yet": lambda ca: server_certificate(ca, HOST, born=pki.DIES.replace(year=2044)),
    "of a device of the fleet": lambda ca: server_certificate(ca, HOST, name="vin-7", purposes=pki.CLIENT),
    "below a device of the fleet": lambda ca: server_certificate(pki.device(ca, "vin-7"), HOST),
}


@dataclass
class Heard:
    """What one connection brought."""

    certificate_der: bytes | None = None
    """The client certificate that was shown and proved in the handshake."""
    data: bytes = b""
    """What came after the handshake, or in the clear."""
    ended: str = ""
    """How the handshake ended, where it failed."""


@dataclass
class Impostor:
    """Listens on a port of its own, until the end of the ``with`` statement."""

    folder: Path
    shows: Held | None
    """None: it speaks in the clear."""
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    trusts: Held | None = None
    """Whose client certificates it asks for; None: it asks for none."""
    says: bytes = b""
    """Its only words, once it heard something, or at once where it hears nothing."""
    speaks_first: bool = False
    heard: Queue[Heard] = field(default_factory=Queue)

    def __enter__(self) -> Self:
        self._context = self._tls() if self.shows is not None else None
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes whoever waits in accept; closing alone doesn't
        self._listening.close()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def next(self) -> Heard:
        return self.heard.get(timeout=PATIENCE_S)

    def _tls(self) -> ssl.SSLContext:
        assert self.shows is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.minimum_version = context.maximum_version = self.version
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "impostor.pem"
        file.write_text(self.shows.key_pem + self.shows.chain_pem)
        context.load_cert_chain(file)
        if self.trusts is not None:
            context.load_verify_locations(cadata=self.trusts.pem)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            heard = Heard()
            with connection, suppress(OSError):
                connection.settimeout(PATIENCE_S)
                self._listen_to(connection, heard)
            self.heard.put(heard)

    def _listen_to(self, connection: socket.socket, heard: Heard) -> None:
        speaking = connection
        if self._context is not None:
            try:
                shaken = self._context.wrap_socket(connection, server_side=True)
            except (ssl.SSLError, OSError) as error:
                heard.ended = str(error)
                return
            heard.certificate_der = shaken.getpeercert(binary_form=True)
            speaking = shaken
        if self.speaks_first:
            speaking.sendall(self.says)
        while piece := speaking.recv(65536):
            heard.data += piece
            if self.says:
                speaking.sendall(self.says)
                speaking.shutdown(socket.SHUT_WR)
                heard.data += b"".join(iter(lambda: speaking.recv(65536), b""))
                return
