"""A gateway over loopback TCP with an authority that tests command, and a client that says exactly what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.ids import AccountId, CertificateId, ClientId, IdSource
from overair.basics.work import Work
from overair.server.broker.service import Broker
from overair.server.broker.store import BrokerStore
from overair.server.gateway.authority import DeviceIdentity, Refusal
from overair.server.gateway.limits import GENEROUS, GatewayLimits
from overair.server.gateway.reserved_topics import ReservedTopics
from overair.server.gateway.service import Gateway
from overair.wire.mqtt.client import ClientConnection
from overair.wire.mqtt.packets import Connack, Packet, Pingresp, Publish, Suback, encode_puback
from tests.support.denials import Denials

ACCOUNT = AccountId("123456789012")
PLACE = Place("us-east-1", ACCOUNT)
EVERYTHING = ("*",)
PATIENCE_S = 10


@dataclass
class Patterns:
    """A policy made of shell patterns, ``*`` crossing slashes; actions can be taken away while a connection lives."""

    connect: Iterable[str] = EVERYTHING
    publish: Iterable[str] = EVERYTHING
    retain: Iterable[str] = EVERYTHING
    subscribe: Iterable[str] = EVERYTHING
    receive: Iterable[str] = EVERYTHING

    def allows_connect(self, client_id: str) -> bool:
        return _any(self.connect, client_id)

    def allows_publish(self, topic: str) -> bool:
        return _any(self.publish, topic)

    def allows_retain(self, topic: str) -> bool:
        return _any(self.retain, topic)

    def allows_subscribe(self, topic_filter: str) -> bool:
        return _any(self.subscribe, topic_filter)

    def allows_receive(self, topic: str) -> bool:
        return _any(self.receive, topic)


def _any(patterns: Iterable[str], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass
class CommandedAuthority:
    """Admits every certificate with the policy that a test has laid down, until it says otherwise."""

    policies: dict[bytes, Patterns] = field(default_factory=dict)
    refused: set[bytes] = field(default_factory=set)
    asked: list[tuple[bytes, ClientId | None, str | None, str]] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def admit(
        self,
        peer_der: bytes,
        client_id: ClientId | None,
        username: str | None,
        source_ip: str,
        chain_der: Sequence[bytes] = (),
        domain_name: str = "",
    ) -> DeviceIdentity | Refusal:
        self.asked.append((peer_der, client_id, username, source_ip))
        if self.gate is not None:
            await self.gate.wait()
        if peer_der in self.refused:
            return Refusal(reason="revoked", certificate_id=certificate_of(peer_der))
        policy = self.policies.get(peer_der, Patterns())
        return DeviceIdentity(place=PLACE, certificate_id=certificate_of(peer_der), policy=policy)


def certificate_of(peer_der: bytes) -> CertificateId:
    return CertificateId(peer_der.hex().ljust(64, "0"))


class Facade:
    """A plain transport that tells a client certificate, as the listener's TLS transport does."""

    def __init__(self, transport: Any, peer_der: bytes | None) -> None:
        self._transport = transport
        self._peer_der = peer_der

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._peer_der if name == "peer_der" else self._transport.get_extra_info(name, default)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Facing(asyncio.Protocol):
    """Passes everything on to the gateway's protocol."""

    def __init__(self, inner: asyncio.Protocol, peer_der: bytes | None) -> None:
        self.inner = inner
        self.peer_der = peer_der

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.inner.connection_made(Facade(transport, self.peer_der))  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        self.inner.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()


class Transport(asyncio.Transport):
    """Remembers what was written and whether it was closed."""

    def __init__(self) -> None:
        super().__init__({"peer_der": b"c1", "peername": ("127.0.0.1", 1)})
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Takes everything at once."""


class Client:
    """One raw MQTT client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, level: int = 4) -> None:
        self.reader = reader
        self.writer = writer
        self.wire = ClientConnection(level)
        self._packets: list[Packet] = []

    def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    async def next(self) -> Packet | None:
        """The next packet; None once the server has closed."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._packets:
                try:
                    data = await self.reader.read(65536)
                except ConnectionResetError:
                    return None
                if not data:
                    return None
                self._packets += self.wire.receive(data)
        return self._packets.pop(0)

    async def connect(self, client_id: str, **options: Any) -> Connack:
        self.send(self.wire.connect(client_id, **options))
        packet = await self.next()
        assert isinstance(packet, Connack), packet
        return packet

    async def subscribe(self, *filters: tuple[str, int], **options: Any) -> tuple[int, ...]:
        self.send(self.wire.subscribe(*filters, **options))
        packet = await self.next()
        assert isinstance(packet, Suback), packet
        return packet.return_codes

    def publish(self, topic: str, payload: bytes = b"", **options: Any) -> None:
        self.send(self.wire.publish(topic, payload, **options))

    def acknowledge(self, packet: Publish) -> None:
        self.send(encode_puback(packet.packet_id))

    async def before_ping_answer(self) -> list[Packet]:
        """Everything that the server had to say before it answered a PINGREQ sent now."""
        self.send(b"\xc0\x00")
        found = []
        while not isinstance(packet := await self.next(), Pingresp):
            assert packet is not None, "the server has closed the connection"
            found.append(packet)
        return found

    async def is_closed_by_server(self) -> bool:
        return await self.next() is None

    async def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        self.writer.transport.abort()


class World:
    """A broker and a gateway on records, with one listener for each certificate that tests name."""

    def __init__(self, work: Work, clock: Clock, ids: IdSource, *, limits: GatewayLimits = GENEROUS) -> None:
        self.authority = CommandedAuthority()
        self.broker = Broker(work=work, store=BrokerStore(), clock=clock, ids=ids, limits_for=lambda _: limits.broker)
        self.topics = ReservedTopics()
        self.denials = Denials()
        self.gateway = Gateway(
            authority=self.authority,
            broker=self.broker,
            topics=self.topics,
            limits_for=lambda _: limits,
            clock=clock,
            ids=ids,
            denials=self.denials,
        )
        self._servers: dict[bytes | None, asyncio.Server] = {}
        self._clients: list[Client] = []

    async def start(self) -> None:
        await self.broker.start()
        self.gateway.start()

    async def stop(self) -> None:
        for client in self._clients:
            client.abort()
        for server in self._servers.values():
            server.close()
        await self.gateway.stop()
        await self.broker.idle()

    async def port(self, certificate: bytes | None) -> int:
        server = self._servers.get(certificate)
        if server is None:
            loop = asyncio.get_running_loop()
            server = await loop.create_server(lambda: Facing(self.gateway.protocol(), certificate), "127.0.0.1", 0)
            self._servers[certificate] = server
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def open(self, certificate: bytes | None = b"c1", *, level: int = 4) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", await self.port(certificate)), level)
        self._clients.append(client)
        return client

    async def client(self, client_id: str, *, certificate: bytes = b"c1", level: int = 4, **options: Any) -> Client:
        client = await self.open(certificate, level=level)
        answer = await client.connect(client_id, **options)
        assert answer.return_code == 0
        return client

    async def settled(self) -> None:
        """Every verdict asked for so far stands."""
        async with asyncio.timeout(PATIENCE_S):
            await self.gateway.idle()

    async def gone(self, client_id: str) -> None:
        """The gateway has noticed that a client went away."""
        async with asyncio.timeout(PATIENCE_S):
            while any(each.client_id == client_id for each in self.gateway.connections()):
                await asyncio.sleep(0.001)
            await self.broker.idle()
