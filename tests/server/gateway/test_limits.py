"""The two profiles: what each refuses, and that nothing of a peer grows without bound."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable

import pytest

from overair.basics.clock import SettableClock
from overair.basics.ids import SeededIds
from overair.server.gateway.limits import AWS, GENEROUS, GatewayLimits
from overair.server.gateway.model import DisconnectReason
from overair.server.storage.work import SqlWork
from overair.wire.mqtt.packets import SERVER_UNAVAILABLE, Connack, Connect, Publish, Will, encode
from overair.wire.mqtt.reasons import Reason
from tests.support.gateway_world import ACCOUNT, World

Make = Callable[[GatewayLimits], AsyncIterator[World]]


@pytest.fixture
async def aws(work: SqlWork, clock: SettableClock, ids: SeededIds) -> AsyncIterator[World]:
    world = World(work, clock, ids, limits=dataclasses.replace(AWS, publishes_per_s_max=None))
    await world.start()
    yield world
    await world.stop()


async def test_aws_allows_8_filters_a_packet_and_50_subscriptions_a_connection(aws: World) -> None:
    client = await aws.client("c")
    for first in range(0, 48, 8):
        assert await client.subscribe(*((f"f/{first + number}", 0) for number in range(8))) == (0,) * 8
    assert await client.subscribe(("f/48", 0), ("f/49", 0), ("f/50", 0), ("f/0", 1)) == (0, 0, 0x80, 1)
    client.send(client.wire.subscribe(*((f"g/{number}", 0) for number in range(9))))
    assert await client.is_closed_by_server()


@pytest.mark.parametrize(
    ("topic", "size", "allowed"),
    [
        ("a/b/c/d/e/f/g/h", 10, True),
        ("a/b/c/d/e/f/g/h/i", 10, False),
        ("x" * 256, 10, True),
        ("é" * 129, 10, False),
        ("a", 128 * 1024, True),
        ("a", 128 * 1024 + 1, False),
    ],
)
async def test_aws_bounds_topics_and_payloads(aws: World, topic: str, size: int, allowed: bool) -> None:
    client = await aws.client("c")
    await client.subscribe(("#", 0))
    client.publish(topic, bytes(size))
    if allowed:
        assert await client.next() == Publish(topic=topic, payload=bytes(size))
    else:
        assert await client.is_closed_by_server()


async def test_aws_bounds_filters(aws: World) -> None:
    client = await aws.client("c")
    client.send(client.wire.subscribe(("a/b/c/d/e/f/g/h/+", 0)))
    assert await client.is_closed_by_server()


async def test_the_two_slashes_of_a_shared_subscription_are_not_counted(aws: World) -> None:
    client = await aws.client("c")
    assert await client.subscribe(("$share/group/a/a/a/a/a/a/a/a", 1), (f"$share/{'g' * 128}/{'x' * 256}", 1)) == (1, 1)
    wrong = ("$share/group/a/a/a/a/a/a/a/a/a", f"$share/g/{'x' * 257}", f"$share/{'g' * 129}/a", "$share/g", "$share//a")
    for number, name in enumerate(wrong):
        client = await aws.client(f"c{number}")
        client.send(client.wire.subscribe((name, 0)))
        assert await client.is_closed_by_server()


async def test_aws_lets_a_client_id_connect_once_a_second_and_another_at_once(
    aws: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await aws.client("c")
    again = await aws.open(level=5)
    assert (await again.connect("c")).return_code == Reason.QUOTA_EXCEEDED
    old = await aws.open()
    assert (await old.connect("c")).return_code == 3
    assert (await (await aws.open()).connect("d")).return_code == 0
    assert aws.gateway.ended[DisconnectReason.THROTTLED] == 2
    loop = asyncio.get_running_loop()
    later_s = loop.time() + 1
    monkeypatch.setattr(loop, "time", lambda: later_s)
    assert (await (await aws.open()).connect("c")).return_code == 0


async def test_aws_moves_no_more_than_its_throughput_in_a_second(work: SqlWork, clock: SettableClock, ids: SeededIds) -> None:
    world = World(work, clock, ids, limits=dataclasses.replace(AWS, throughput_bytes_per_s_max=30_000))
    await world.start()
    try:
        client = await world.client("c")
        await client.subscribe(("a", 0))
        started = asyncio.get_running_loop().time()
        for _ in range(7):
            client.publish("a", bytes(10_000))
        assert len(await client.before_ping_answer()) == 7
        # Three in each second: the seventh comes in the third.
        assert asyncio.get_running_loop().time() - started > 1
    finally:
        await world.stop()


async def test_aws_reads_100_publishes_a_second(work: SqlWork, clock: SettableClock, ids: SeededIds) -> None:
    world = World(work, clock, ids, limits=dataclasses.replace(AWS, publishes_per_s_max=5))
    await world.start()
    try:
        client = await world.client("c")
        await client.subscribe(("a", 0))
        started = asyncio.get_running_loop().time()
        for _ in range(16):
            client.publish("a")
        for _ in range(16):
            assert isinstance(await client.next(), Publish)
        # 16 at 5 a second need parts of at least three seconds; where in the first one we began isn't known.
        assert asyncio.get_running_loop().time() - started > 2
    finally:
        await world.stop()


async def test_generous_takes_a_megabyte_and_not_more(world: World) -> None:
    client = await world.client("c")
    await client.subscribe(("a", 0))
    client.publish("a", bytes(1024 * 1024))
    assert await client.next() == Publish(topic="a", payload=bytes(1024 * 1024))
    client.publish("a", bytes(1024 * 1024 + 1))
    assert await client.is_closed_by_server()


async def test_a_packet_over_the_limit_closes_before_its_body_came(world: World) -> None:
    client = await world.client("c")
    client.send(b"\x30\xff\xff\xff\x7f")
    assert await client.is_closed_by_server()


async def test_a_slow_reader_loses_qos_0_and_keeps_qos_1(world: World) -> None:
    slow = await world.client("slow")
    await slow.subscribe(("zero", 0), ("one", 1))
    speaker = await world.client("speaker")
    # Nobody reads: the kernel's buffers and then the transport's fill up, and the gateway must not hold the rest.
    slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
    count = 0
    while not world.broker.dropped_count:
        speaker.publish("zero", bytes(100_000))
        await speaker.before_ping_answer()
        count += 1
        assert count < 1000
    speaker.publish("one", b"kept", qos=1)
    speaker.publish("zero", b"lost")
    await speaker.next()
    await speaker.before_ping_answer()
    slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
    seen = []
    while True:
        packet = await slow.next()
        assert isinstance(packet, Publish)
        seen.append(packet.topic)
        if packet.topic == "one":
            break
    assert len(seen) <= count
    assert await slow.before_ping_answer() == []


async def test_a_connection_that_ended_during_admission_leaves_nothing_and_steals_nothing(world: World) -> None:
    steady = await world.client("c")
    world.authority.gate = asyncio.Event()
    hasty = await world.open()
    hasty.send(hasty.wire.connect("c"))
    while len(world.authority.asked) < 2:
        await asyncio.sleep(0)
    hasty.abort()
    while len(world.gateway.connections()) > 1:
        await asyncio.sleep(0.001)
    world.authority.gate.set()
    await world.settled()
    assert await steady.before_ping_answer() == []


async def test_a_will_that_can_not_be_retained_harms_nobody(work: SqlWork, clock: SettableClock, ids: SeededIds) -> None:
    broker = dataclasses.replace(GENEROUS.broker, retained_count_max=1)
    world = World(work, clock, ids, limits=dataclasses.replace(GENEROUS, broker=broker))
    await world.start()
    try:
        first = await world.client("first")
        first.publish("kept", b"1", qos=1, retain=True)
        await first.next()
        client = await world.open()
        client.send(encode(Connect(client_id="c", will=Will(topic="w", payload=b"1", retain=True))))
        await client.next()
        client.abort()
        await world.gone("c")
        assert not world.broker.has_retained(ACCOUNT, "w")
        first.publish("second", b"1", qos=1, retain=True)
        assert await first.is_closed_by_server()
    finally:
        await world.stop()


async def test_one_certificate_cannot_begin_sessions_without_end(work: SqlWork, clock: SettableClock, ids: SeededIds) -> None:
    broker = dataclasses.replace(GENEROUS.broker, sessions_of_certificate_count_max=2)
    world = World(work, clock, ids, limits=dataclasses.replace(GENEROUS, broker=broker))
    await world.start()
    try:
        waiting = await world.open()
        waiting.send(encode(Connect(client_id="waiting", clean_session=False)))
        await waiting.next()
        waiting.abort()
        await world.gone("waiting")
        live = await world.client("live")
        for client_id in ("third", "fourth"):
            refused = await world.open()
            refused.send(encode(Connect(client_id=client_id, clean_session=False)))
            answer = await refused.next()
            assert isinstance(answer, Connack)
            assert answer.return_code == SERVER_UNAVAILABLE
        assert world.broker.session_count == 2
        again = await world.open()
        again.send(encode(Connect(client_id="waiting", clean_session=False)))
        answer = await again.next()
        assert isinstance(answer, Connack)
        assert answer.session_present, "who has a session may come back to it"
        live.abort()
        await world.gone("live")
        await world.client("third")
    finally:
        await world.stop()
