"""A server that runs for a year shows a fresh certificate, and nobody who is connected notices."""

from __future__ import annotations

import asyncio
import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import pytest
import uvloop
from cryptography import x509

from overair.basics.clock import Instant, SettableClock, WallClock
from overair.basics.errors import InvalidRequest
from overair.basics.ids import RandomIds
from overair.server.app import Server, build_server
from overair.server.certificates.authorities import SERVER_CERTIFICATE_LIFE_MS, SERVER_CERTIFICATE_RENEWED_BEFORE_MS
from overair.server.certificates.renewal import ServerCertificateRenewal
from overair.server.config import load_settings
from tests.support import pki

FILES: Final = {"certificate": "own.pem", "key": "own.key", "ca": "root.pem"}

RENEWED_AFTER_MS = SERVER_CERTIFICATE_LIFE_MS - SERVER_CERTIFICATE_RENEWED_BEFORE_MS


class Peer:
    """A TLS connection that looks at what it is shown and believes it whatever its dates: the test's clock isn't ours."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        shown: Any = writer.get_extra_info("ssl_object")
        self.certificate = x509.load_der_x509_certificate(shown.getpeercert(binary_form=True))

    @classmethod
    async def connect(cls, port: int) -> Peer:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context))

    async def is_healthy(self) -> bool:
        self.writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await self.reader.readuntil(b'{"status":"ok"}')
        return answer.startswith(b"HTTP/1.1 200")

    def close(self) -> None:
        self.writer.close()


async def serial_numbers(server: Server) -> list[int]:
    """What the ports that ask for no client certificate, and the one that takes none, show now."""
    found = []
    for port in (server.doors.operator.port, server.doors.device.port):
        peer = await Peer.connect(port)
        found.append(peer.certificate.serial_number)
        peer.close()
    return found


def own_certificate(folder: Path, root: pki.Held) -> pki.Held:
    """The user's own, written over what stands there: the key last, so that for a moment the pair doesn't fit."""
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    leaf = pki.device(pki.authority("Between", root), "localhost", purposes=pki.SERVER, more=[(names, False)])
    (folder / "own.pem").write_text(leaf.chain_pem)
    (folder / "own.key").write_text(leaf.key_pem)
    (folder / "root.pem").write_text(root.pem)
    return leaf


def test_a_user_s_own_certificate_is_shown_and_reloaded_and_a_broken_one_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def shown(server: Server) -> x509.Certificate:
        """What a client that trusts the user's root alone is shown."""
        context = ssl.create_default_context(cafile=str(tmp_path / "root.pem"))
        _, writer = await asyncio.open_connection("localhost", server.doors.operator.port, ssl=context)
        shown: Any = writer.get_extra_info("ssl_object")
        writer.close()
        return x509.load_der_x509_certificate(shown.getpeercert(binary_form=True))

    async def live() -> None:
        root = pki.authority("The user's root")
        first = own_certificate(tmp_path, root)
        flags = {"data": tmp_path / "data", "operator_port": 0, "mqtt_port": 0, "device_port": 0}
        files = {f"server_{name}_file": tmp_path / file for name, file in FILES.items()}
        server = build_server(load_settings(flags | files, environment={}), clock=WallClock(), ids=RandomIds())
        try:
            await server.start()
            assert (tmp_path / "data" / "ca.pem").read_text() == root.pem
            assert await shown(server) == first.certificate
            standing = await Peer.connect(server.doors.operator.port)
            context = server.doors.operator.context

            (tmp_path / "own.key").write_text("half a key")
            server.reload_server_certificate()
            async with asyncio.timeout(60):
                while "the one that is shown stays" not in (printed := capsys.readouterr()).err + printed.out:
                    await asyncio.sleep(0.01)
            assert server.doors.operator.context is context
            assert await shown(server) == first.certificate

            second = own_certificate(tmp_path, root)
            async with asyncio.timeout(60):  # nobody says that they changed
                while server.doors.operator.context is context:
                    await asyncio.sleep(0.01)
            assert await shown(server) == second.certificate
            assert await standing.is_healthy()
            standing.close()
        finally:
            await server.stop(drain_timeout_s=2)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live())


def test_a_user_s_own_certificate_that_is_no_good_keeps_the_server_from_starting(tmp_path: Path) -> None:
    async def live() -> None:
        own_certificate(tmp_path, pki.authority("The user's root"))
        (tmp_path / "root.pem").write_text(pki.authority("Another root").pem)
        flags = {"data": tmp_path / "data", "operator_port": 0, "mqtt_port": 0, "device_port": 0}
        files = {f"server_{name}_file": tmp_path / file for name, file in FILES.items()}
        server = build_server(load_settings(flags | files, environment={}), clock=WallClock(), ids=RandomIds())
        try:
            with pytest.raises(InvalidRequest, match="No authority in"):
                await server.start()
        finally:
            await server.stop(drain_timeout_s=2)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live())


def test_a_certificate_near_its_end_is_replaced_on_every_port_and_standing_connections_go_on(tmp_path: Path) -> None:
    async def live() -> None:
        clock = SettableClock(WallClock().now())
        flags = {"data": tmp_path / "data", "operator_port": 0, "mqtt_port": 0, "device_port": 0}
        server = build_server(load_settings(flags, environment={}), clock=clock, ids=RandomIds())
        try:
            await server.start()
            standing = await Peer.connect(server.doors.operator.port)
            assert await standing.is_healthy()
            first = standing.certificate.serial_number
            contexts = [port.context for port in (server.doors.operator, server.doors.mqtt, server.doors.device)]
            clock.set(Instant(clock.now() + RENEWED_AFTER_MS - 60_000))
            assert not await server.joined.renewal.run_once()
            assert await serial_numbers(server) == [first, first]

            clock.set(Instant(clock.now() + 120_000))
            server.joined.workers.wake(ServerCertificateRenewal.name)
            async with asyncio.timeout(60):
                while server.doors.operator.context is contexts[0]:
                    await asyncio.sleep(0.01)
            fresh = await serial_numbers(server)
            assert fresh[0] == fresh[1] != first
            for port, context in zip((server.doors.operator, server.doors.mqtt, server.doors.device), contexts, strict=True):
                assert port.context is not context
            peer = await Peer.connect(server.doors.operator.port)
            assert peer.certificate.not_valid_after_utc.timestamp() * 1000 > clock.now() + SERVER_CERTIFICATE_RENEWED_BEFORE_MS
            assert await standing.is_healthy()
            assert await peer.is_healthy()
            # The same authority stands behind it: nobody has to be given a new file.
            authority = x509.load_pem_x509_certificate((tmp_path / "data" / "ca.pem").read_bytes())
            peer.certificate.verify_directly_issued_by(authority)
            standing.close()
            peer.close()
        finally:
            await server.stop(drain_timeout_s=2)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(live())
