"""What persistent sessions are promised, through the gateway, on both databases."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping

import pytest

from overair.basics.clock import SettableClock
from overair.basics.ids import ClientId, SeededIds
from overair.basics.work import Notice
from overair.server.broker.store import BrokerStore
from overair.server.broker.worker import SessionExpiry
from overair.server.gateway.handlers import Connection, Replies, Reply, topic
from overair.server.gateway.limits import GENEROUS
from overair.server.gateway.model import BrokerLimits, HeldSession, Link, SessionWish
from overair.server.storage.work import SqlWork
from overair.wire.mqtt.packets import Connack, Puback, Publish
from tests.support.gateway_world import ACCOUNT, Client, World

HOUR_MS = 3_600_000


@pytest.fixture
async def world(work: SqlWork, clock: SettableClock, ids: SeededIds) -> AsyncIterator[World]:
    world = World(work, clock, ids)
    await world.start()
    yield world
    await world.stop()


async def leave(world: World, client: Client, client_id: str) -> None:
    client.abort()
    await world.gone(client_id)


async def payloads(client: Client, count: int) -> list[bytes]:
    found = []
    for _ in range(count):
        packet = await client.next()
        assert isinstance(packet, Publish), packet
        client.acknowledge(packet)
        found.append(packet.payload)
    return found


async def publish(client: Client, topic: str, *messages: bytes) -> None:
    for payload in messages:
        client.publish(topic, payload, qos=1)
    for _ in messages:
        assert isinstance(await client.next(), Puback)


async def test_what_was_published_while_a_client_was_away_awaits_it_in_order(world: World) -> None:
    device = await world.client("dev", clean_session=False)
    assert await device.subscribe(("news/#", 1), ("chatter", 0)) == (1, 0)
    await leave(world, device, "dev")
    speaker = await world.client("speaker")
    await publish(speaker, "news/1", *(b"%d" % number for number in range(500)))
    speaker.publish("chatter", b"lost, as QoS 0 is")
    assert await speaker.before_ping_answer() == []
    device = await world.open()
    assert await device.connect("dev", clean_session=False) == Connack(session_present=True)
    assert await payloads(device, 500) == [b"%d" % number for number in range(500)]
    assert await device.before_ping_answer() == []


async def test_nothing_acknowledged_is_lost_in_a_restart_and_nothing_is_heard_twice(
    work: SqlWork, clock: SettableClock, ids: SeededIds
) -> None:
    first = World(work, clock, ids)
    await first.start()
    device = await first.client("dev", clean_session=False)
    await device.subscribe(("a", 1))
    speaker = await first.client("speaker")
    await publish(speaker, "a", b"1", b"2")
    assert await payloads(device, 2) == [b"1", b"2"]
    assert await device.before_ping_answer() == []
    await leave(first, device, "dev")
    await publish(speaker, "a", b"3")
    await first.stop()

    second = World(work, clock, ids)
    await second.start()
    try:
        await publish(await second.client("speaker"), "a", b"4")
        device = await second.open()
        assert await device.connect("dev", clean_session=False) == Connack(session_present=True)
        assert await payloads(device, 2) == [b"3", b"4"]
        assert await device.before_ping_answer() == []
        await leave(second, device, "dev")
        device = await second.client("dev", clean_session=False)
        assert await device.before_ping_answer() == []
    finally:
        await second.stop()


async def test_what_was_sent_and_not_acknowledged_comes_again_with_its_identifier_and_dup(world: World) -> None:
    device = await world.client("dev", clean_session=False)
    await device.subscribe(("a", 1))
    await publish(await world.client("speaker"), "a", b"1")
    message = await device.next()
    assert message == Publish(topic="a", payload=b"1", qos=1, packet_id=1)
    await leave(world, device, "dev")
    device = await world.client("dev", clean_session=False)
    assert await device.next() == Publish(topic="a", payload=b"1", qos=1, packet_id=1, duplicate=True)


async def test_a_clean_session_forgets_subscriptions_and_queue(world: World) -> None:
    device = await world.client("dev", clean_session=False)
    await device.subscribe(("a", 1))
    await leave(world, device, "dev")
    speaker = await world.client("speaker")
    await publish(speaker, "a", b"1")
    device = await world.open()
    assert await device.connect("dev", clean_session=True) == Connack(session_present=False)
    await leave(world, device, "dev")
    await publish(speaker, "a", b"2")
    device = await world.open()
    assert await device.connect("dev", clean_session=False) == Connack(session_present=False)
    await publish(speaker, "a", b"3")
    assert await device.before_ping_answer() == []


async def test_an_unsubscribed_filter_is_forgotten_across_connections(world: World) -> None:
    device = await world.client("dev", clean_session=False)
    await device.subscribe(("a", 1), ("b", 1))
    device.send(device.wire.unsubscribe("a"))
    await device.next()
    await leave(world, device, "dev")
    await publish(await world.client("speaker"), "a", b"1")
    await publish(await world.client("speaker"), "b", b"2")
    device = await world.client("dev", clean_session=False)
    assert await payloads(device, 1) == [b"2"]
    assert await device.before_ping_answer() == []


async def test_a_session_expires_an_hour_after_its_connection(world: World, clock: SettableClock) -> None:
    device = await world.client("dev", clean_session=False)
    await device.subscribe(("a", 1))
    clock.advance(milliseconds=2 * HOUR_MS)
    assert await world.broker.expire_sessions() == 0
    await leave(world, device, "dev")
    clock.advance(milliseconds=HOUR_MS - 1)
    assert await world.broker.expire_sessions() == 0
    clock.advance(milliseconds=1)
    expiry = SessionExpiry(broker=world.broker, clock=clock)
    assert await expiry.run_once() is True
    assert await expiry.run_once() is False
    device = await world.open()
    assert await device.connect("dev", clean_session=False) == Connack(session_present=False)


async def test_an_expired_session_is_not_resumed_even_before_the_sweep(world: World, clock: SettableClock) -> None:
    await leave(world, await world.client("dev", clean_session=False), "dev")
    clock.advance(milliseconds=HOUR_MS)
    device = await world.open()
    assert await device.connect("dev", clean_session=False) == Connack(session_present=False)


async def test_a_queue_that_is_full_drops_what_comes_later(work: SqlWork, clock: SettableClock, ids: SeededIds) -> None:
    limits = dataclasses.replace(GENEROUS, broker=BrokerLimits(queued_count_max=3, queued_size_bytes_max=100))
    world = World(work, clock, ids, limits=limits)
    await world.start()
    try:
        device = await world.client("dev", clean_session=False)
        await device.subscribe(("a", 1))
        await leave(world, device, "dev")
        speaker = await world.client("speaker")
        await publish(speaker, "a", b"1", bytes(200), b"2", b"3", b"4")
        assert world.broker.dropped_count == 2
        device = await world.client("dev", clean_session=False)
        assert await payloads(device, 3) == [b"1", b"2", b"3"]
        assert await device.before_ping_answer() == []
        await publish(speaker, "a", b"5")
        assert await payloads(device, 1) == [b"5"]
    finally:
        await world.stop()


async def test_a_slow_acknowledger_gets_everything_in_its_window(work: SqlWork, clock: SettableClock, ids: SeededIds) -> None:
    limits = dataclasses.replace(GENEROUS, broker=BrokerLimits(in_flight_count_max=2, pending_count_max=3))
    world = World(work, clock, ids, limits=limits)
    await world.start()
    try:
        device = await world.client("dev", clean_session=False)
        await device.subscribe(("a", 1))
        speaker = await world.client("speaker")
        await publish(speaker, "a", *(b"%d" % number for number in range(50)))
        assert len(await device.before_ping_answer()) == 2
        device.send(b"\x40\x02\x00\x01", b"\x40\x02\x00\x02")
        assert await payloads(device, 48) == [b"%d" % number for number in range(2, 50)]
        assert await device.before_ping_answer() == []
    finally:
        await world.stop()


async def test_a_notice_from_the_outbox_is_heard_by_subscribers_and_kept_for_who_is_away(world: World) -> None:
    topic = "$aws/things/dev/jobs/notify-next"
    device = await world.client("dev", clean_session=False)
    await device.subscribe((topic, 1))
    here = await world.client("here")
    await here.subscribe(("$aws/things/+/jobs/notify-next", 0))
    await leave(world, device, "dev")
    await world.broker.deliver(Notice(account=ACCOUNT, topic=topic, payload=b"{}"))
    assert await here.next() == Publish(topic=topic, payload=b"{}")
    device = await world.client("dev", clean_session=False)
    assert await payloads(device, 1) == [b"{}"]


async def test_a_retained_message_survives_a_restart(work: SqlWork, clock: SettableClock, ids: SeededIds) -> None:
    first = World(work, clock, ids)
    await first.start()
    speaker = await first.client("speaker")
    speaker.publish("kept", b"1", qos=1, retain=True)
    assert await speaker.next() == Puback(packet_id=1)
    await first.stop()
    second = World(work, clock, ids)
    await second.start()
    try:
        listener = await second.client("listener")
        await listener.subscribe(("kept", 1))
        assert await listener.next() == Publish(topic="kept", payload=b"1", qos=1, retain=True, packet_id=1)
    finally:
        await second.stop()


async def test_an_unacknowledged_reply_hides_no_stored_message_after_a_reconnect(world: World) -> None:
    class Door:
        @topic("$aws/things/{thing}/jobs/get")
        def get(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
            return [Reply(topic="$aws/things/dev/jobs/get/accepted", payload=b"reply", implicit=True)]

    world.topics.register(Door())
    device = await world.client("dev", clean_session=False)
    await device.subscribe(("a", 1))
    device.publish("$aws/things/dev/jobs/get", b"", qos=1)
    assert isinstance(await device.next(), Puback)
    assert isinstance(await device.next(), Publish)
    await leave(world, device, "dev")
    await publish(await world.client("speaker"), "a", b"stored")
    device = await world.client("dev", clean_session=False)
    assert await payloads(device, 2) == [b"reply", b"stored"]


@pytest.mark.parametrize("expiry_ms", [None, 60_000])
async def test_after_a_crash_the_time_of_a_connected_session_runs_from_the_restart(
    work: SqlWork, clock: SettableClock, ids: SeededIds, expiry_ms: int | None
) -> None:
    """An hour, or what its client has asked for."""
    store = BrokerStore()
    await work.run(lambda tx: store.keep_session(tx, ACCOUNT, ClientId("dev"), None, expiry_ms))
    clock.advance(milliseconds=5 * HOUR_MS)
    for advance_ms, present in (((expiry_ms or HOUR_MS) - 1, True), (1, False)):
        world = World(work, clock, ids)
        await world.start()
        clock.advance(milliseconds=advance_ms)
        assert (await world.broker.expire_sessions() == 0) is present
        await world.stop()


async def test_a_retained_message_that_is_over_is_forgotten(world: World, clock: SettableClock) -> None:
    speaker = await world.client("speaker", level=5)
    for topic_, expiry_s in (("short", 5), ("long", 500)):
        speaker.publish(topic_, b"x", qos=1, retain=True, properties=((0x02, expiry_s),))
        await speaker.next()
    speaker.publish("for ever", b"x", qos=1, retain=True)
    await speaker.next()
    worker = SessionExpiry(broker=world.broker, clock=clock)
    clock.advance(milliseconds=5_000)
    assert await worker.run_once() is True
    assert await worker.run_once() is False
    kept = {name: world.broker.has_retained(ACCOUNT, name) for name in ("short", "long", "for ever")}
    assert kept == {"short": False, "long": True, "for ever": True}
    assert await world.broker.retained_topics.message(ACCOUNT, "short") is None


async def test_what_is_published_while_a_client_is_just_connecting_isnt_lost_to_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await world.client("dev", clean_session=False)
    await device.subscribe(("a", 1))
    await leave(world, device, "dev")
    attach = world.broker.attach

    async def attach_while_something_is_said(link: Link, wish: SessionWish) -> tuple[HeldSession, bool]:
        found = await attach(link, wish)
        # The session is the connection's, whose rights aren't there before CONNACK.
        await world.broker.deliver(Notice(account=ACCOUNT, topic="a", payload=b"meanwhile"))
        return found

    monkeypatch.setattr(world.broker, "attach", attach_while_something_is_said)
    device = await world.open()
    assert await device.connect("dev", clean_session=False) == Connack(session_present=True)
    assert await payloads(device, 1) == [b"meanwhile"]
