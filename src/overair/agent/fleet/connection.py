"""A virtual device's MQTT connection under mutual TLS, on an event loop it shares with all the others."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from overair.agent.fleet.device import Stage, VirtualDevice
from overair.agent.fleet.tally import Tally
from overair.wire.mqtt.packets import Connack, MalformedPacket, Pingreq, Publish, encode, encode_puback

KEEP_ALIVE_S: Final = 1200
PING_EVERY_S: Final = 600.0
CONNECT_TIMEOUT_S: Final = 60.0
BACK_OFF_S_MAX: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the gateway listens, and as whom a device shows itself."""

    host: str
    port: int
    context: Callable[[], ssl.SSLContext]
    """Made when it is needed, and not kept: one for each device would be most of its memory."""


class _Wire(asyncio.Protocol):
    def __init__(self, device: VirtualDevice) -> None:
        self._device = device
        loop = asyncio.get_running_loop()
        self.connack: asyncio.Future[int] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Some loops' transports don't derive from asyncio.Transport.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        device, transport = self._device, self.transport
        assert transport is not None
        try:
            packets = device.wire.receive(data)
        except MalformedPacket:
            transport.abort()
            return
        for packet in packets:
            if type(packet) is Publish:
                if packet.qos == 1:
                    transport.write(encode_puback(packet.packet_id))
                device.received(packet)
            elif type(packet) is Connack and not self.connack.done():
                self.connack.set_result(packet.return_code)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.connack.done():
            self.connack.set_exception(error or ConnectionError("closed before it was accepted"))
        if not self.closed.done():
            self.closed.set_result(None)


async def keep_connected(
    device: VirtualDevice, endpoint: Endpoint, *, tally: Tally, gate: asyncio.Semaphore, chance: random.Random
) -> None:
    """Connect, and again whenever the connection is lost, until cancelled. ``gate``: how many may shake hands at once."""
    attempt = 0
    while True:
        wire: _Wire | None = None
        try:
            async with gate:
                wire = await _open(device, endpoint)
            tally.connects += 1
            attempt = 0
            device.connected(wire.transport.write)  # type: ignore[union-attr]
            while not (await asyncio.wait((wire.closed,), timeout=PING_EVERY_S))[0]:
                wire.transport.write(encode(Pingreq()))  # type: ignore[union-attr]
        except (OSError, TimeoutError) as error:
            tally.refusals[type(error).__name__ if not str(error) else str(error)[:100]] += 1
        finally:
            if wire is not None and wire.transport is not None:
                wire.transport.abort()
            if device.stage is not Stage.AWAY:
                device.lost()
        tally.reconnects += 1
        attempt += 1
        # Full jitter, so that a fleet that lost its server comes back apart.
        await asyncio.sleep(chance.uniform(0, min(BACK_OFF_S_MAX, 2.0**attempt)))


async def _open(device: VirtualDevice, endpoint: Endpoint) -> _Wire:
    """Raises OSError (refused connections included) or TimeoutError."""
    wire = _Wire(device)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await asyncio.get_running_loop().create_connection(
                lambda: wire, endpoint.host, endpoint.port, ssl=endpoint.context(), server_hostname=endpoint.host
            )
            assert wire.transport is not None
            wire.transport.write(
                device.wire.connect(device.thing, keep_alive_s=KEEP_ALIVE_S, username="?SDK=OverairFleet&Version=1")
            )
            code = await wire.connack
    except BaseException:
        if wire.transport is not None:
            wire.transport.abort()
        device.lost()
        raise
    if code != 0:
        wire.transport.abort()
        device.lost()
        raise ConnectionRefusedError(f"the gateway refused it with return code {code}")
    return wire
