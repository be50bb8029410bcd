"""Keep-alive and the time before CONNECT, on a loop whose clock the test moves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from overair.server.gateway.connection import DeviceConnection
from overair.server.gateway.model import DisconnectReason
from overair.wire.mqtt.packets import Connect, encode
from tests.support.gateway_world import Transport, World


class Loop:
    """The part of an event loop that tells time, standing still until it is moved; the rest is the running one's."""

    def __init__(self) -> None:
        self.now_s = 1000.25

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay: float, callback: Any, *arguments: Any) -> asyncio.TimerHandle:
        # The test turns the wheel itself.
        return asyncio.get_running_loop().call_later(10_000, callback, *arguments)

    def call_soon(self, callback: Any, *arguments: Any) -> asyncio.Handle:
        return asyncio.get_running_loop().call_soon(callback, *arguments)


class Bench:
    """A gateway whose wheel is turned by hand."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.loop: Any = Loop()
        world.gateway.begin_at(self.loop)

    async def connect(self, keep_alive_s: int | None) -> tuple[DeviceConnection, Transport]:
        connection = DeviceConnection(self.world.gateway, self.loop)
        transport = Transport()
        connection.connection_made(transport)
        if keep_alive_s is not None:
            connection.data_received(encode(Connect(client_id="c", keep_alive_s=keep_alive_s)))
            await self.world.settled()
            await asyncio.sleep(0)
            assert transport.written == b"\x20\x02\x00\x00"
        return connection, transport

    def advance(self, seconds: float) -> None:
        self.loop.now_s += seconds
        self.world.gateway.tick(self.loop)


@pytest.mark.parametrize(
    ("asked_s", "allowed_s"), [(0, 1800), (1, 45), (29, 45), (30, 45), (60, 90), (1200, 1800), (1201, 1800), (65535, 1800)]
)
async def test_silence_for_one_and_a_half_keep_alives_ends_the_connection(world: World, asked_s: int, allowed_s: int) -> None:
    bench = Bench(world)
    _, transport = await bench.connect(asked_s)
    bench.advance(allowed_s - 0.5)
    assert not transport.closed
    bench.advance(1.5)
    assert transport.closed
    assert world.gateway.ended[DisconnectReason.MQTT_KEEP_ALIVE_TIMEOUT] == 1


async def test_anything_heard_keeps_a_connection_alive(world: World) -> None:
    bench = Bench(world)
    connection, transport = await bench.connect(30)
    for _ in range(20):
        bench.advance(40)
        connection.data_received(b"\xc0\x00")
    assert not transport.closed
    bench.advance(47)
    assert transport.closed


async def test_who_says_nothing_has_ten_seconds(world: World) -> None:
    bench = Bench(world)
    connection, transport = await bench.connect(None)
    bench.advance(9)
    # A CONNECT that comes byte by byte gains no time.
    connection.data_received(b"\x10")
    assert not transport.closed
    bench.advance(2.5)
    assert transport.closed


async def test_a_verdict_that_never_comes_ends_after_ten_seconds_too(world: World) -> None:
    world.authority.gate = asyncio.Event()
    bench = Bench(world)
    connection, transport = await bench.connect(None)
    connection.data_received(encode(Connect(client_id="c")))
    bench.advance(11.5)
    assert transport.closed
    world.authority.gate.set()
    await world.settled()
    assert world.broker.session_count == 0
