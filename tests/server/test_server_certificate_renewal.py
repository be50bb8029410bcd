"""A server that runs for a year shows a fresh certificate, and nobody who is connected notices."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import uvloop
from cryptography import x509

from overair.basics.clock import Instant, SettableClock, WallClock
from overair.basics.ids import RandomIds
from overair.server.app import Server, build_server
from overair.server.certificates.authorities import SERVER_CERTIFICATE_LIFE_MS, SERVER_CERTIFICATE_RENEWED_BEFORE_MS
from overair.server.certificates.renewal import ServerCertificateRenewal
from overair.server.config import load_settings

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
