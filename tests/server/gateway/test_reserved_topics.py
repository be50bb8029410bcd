from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from overair.basics.errors import Unavailable
from overair.server.gateway.handlers import Connection, Replies, Reply, topic
from overair.server.gateway.reserved_topics import ReservedTopics
from overair.wire.mqtt.packets import Puback, Publish
from tests.support.gateway_world import ACCOUNT, PLACE, Patterns, World, certificate_of

JOBS = "$aws/things/dev/jobs"
STREAM = "$aws/things/dev/streams/s"


class Door:
    """Answers as rooms do: some at once, some after an await that the test holds."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.failure: Exception | None = None

    @topic("$aws/things/{thing}/jobs/{job}/update")
    async def update(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        self.asked.append((connection.client_id, dict(parameters), payload))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return [Reply(topic=f"{JOBS}/{parameters['job']}/update/accepted", payload=payload, implicit=True)]

    @topic("$aws/things/{thing}/jobs/get")
    def pending(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        assert (connection.place, connection.account) == (PLACE, ACCOUNT)
        assert connection.certificate_id == certificate_of(b"c1")
        return [Reply(topic=f"{JOBS}/get/accepted", payload=payload, implicit=True)]

    @topic("$aws/things/{thing}/streams/{stream}/get/{format}")
    def block(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        return [Reply(topic=f"{STREAM}/data/cbor", payload=payload * each) for each in (1, 2)]

    @topic("$aws/things/{thing}/jobs/$next/get")
    def next(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        raise ZeroDivisionError

    @topic("$aws/rules/{rule}/{rest+}")
    def rule(self, connection: Connection, parameters: Mapping[str, str], payload: bytes) -> Replies:
        return ()


@pytest.fixture
def door(world: World) -> Door:
    door = Door()
    world.topics.register(door)
    return door


@pytest.mark.parametrize(
    ("name", "method", "parameters"),
    [
        ("$aws/things/t/jobs/get", "pending", {"thing": "t"}),
        ("$aws/things/t/jobs/j/update", "update", {"thing": "t", "job": "j"}),
        ("$aws/things/t/jobs//update", "update", {"thing": "t", "job": ""}),
        ("$aws/things/t/jobs/$next/get", "next", {"thing": "t"}),
        ("$aws/rules/r/a/b/c", "rule", {"rule": "r", "rest": "a/b/c"}),
        ("$aws/rules/r", None, {}),
        ("$aws/things/t/jobs/j/get", None, {}),
        ("$aws/things/t/jobs/j/update/accepted", None, {}),
        ("aws/things/t/jobs/get", None, {}),
    ],
)
def test_a_topic_finds_its_handler(name: str, method: str | None, parameters: dict[str, str]) -> None:
    topics = ReservedTopics()
    topics.register(Door())
    found = topics.find(name)
    if method is None:
        assert found is None
    else:
        assert found is not None
        handler: Any = found[0]
        assert (handler.__name__, found[1]) == (method, parameters)


def test_two_handlers_of_one_pattern_are_our_own_mistake() -> None:
    topics = ReservedTopics()
    topics.register(Door())
    with pytest.raises(RuntimeError, match="Two handlers claim"):
        topics.register(Door())


async def test_an_implicit_reply_comes_without_a_subscription_and_once_with_one(world: World, door: Door) -> None:
    client = await world.client("dev")
    client.publish(f"{JOBS}/get", b"{}", qos=1)
    assert await client.before_ping_answer() == [
        Puback(packet_id=1),
        Publish(topic=f"{JOBS}/get/accepted", payload=b"{}", qos=1, packet_id=1),
    ]
    await client.subscribe((f"{JOBS}/get/+", 0), (f"{JOBS}/get/accepted", 0))
    client.publish(f"{JOBS}/get", b"{}", qos=1)
    assert await client.before_ping_answer() == [Puback(packet_id=3), Publish(topic=f"{JOBS}/get/accepted", payload=b"{}")]


async def test_other_replies_need_a_subscription_and_go_to_the_asker_alone(world: World, door: Door) -> None:
    other = await world.client("other", certificate=b"c2")
    await other.subscribe((f"{STREAM}/data/cbor", 0), (f"{JOBS}/get/accepted", 0))
    client = await world.client("dev")
    client.publish(f"{STREAM}/get/cbor", b"x")
    client.publish(f"{JOBS}/get", b"{}")
    assert await client.before_ping_answer() == [Publish(topic=f"{JOBS}/get/accepted", payload=b"{}")]
    await client.subscribe((f"{STREAM}/data/+", 0))
    client.publish(f"{STREAM}/get/cbor", b"x")
    blocks = [Publish(topic=f"{STREAM}/data/cbor", payload=payload) for payload in (b"x", b"xx")]
    assert await client.before_ping_answer() == blocks
    client.send(client.wire.unsubscribe(f"{STREAM}/data/+"))
    await client.next()
    client.publish(f"{STREAM}/get/cbor", b"x")
    assert await client.before_ping_answer() == []
    assert await other.before_ping_answer() == []


async def test_blocks_come_at_qos_1_where_the_subscription_says_so(world: World, door: Door) -> None:
    client = await world.client("dev")
    await client.subscribe((f"{STREAM}/data/cbor", 1))
    client.publish(f"{STREAM}/get/cbor", b"x")
    assert [each.qos for each in await client.before_ping_answer() if isinstance(each, Publish)] == [1, 1]


async def test_a_reply_that_may_not_be_received_is_kept_back_and_the_connection_stays(world: World, door: Door) -> None:
    world.authority.policies[b"c1"] = Patterns(receive=[f"{STREAM}/*"])
    client = await world.client("dev")
    client.publish(f"{JOBS}/get", b"{}", qos=1)
    assert await client.before_ping_answer() == [Puback(packet_id=1)]


async def test_answers_keep_the_order_of_the_requests_although_some_wait(world: World, door: Door) -> None:
    client = await world.client("dev")
    client.publish(f"{JOBS}/1/update", b"1", qos=1)
    client.publish("custom", b"", qos=1)
    client.publish(f"{JOBS}/2/update", b"2", qos=1)
    assert await client.before_ping_answer() == []
    assert [each[2] for each in door.asked] == [b"1", b"2"]
    door.gate.set()
    assert [await client.next() for _ in range(5)] == [
        Puback(packet_id=1),
        Publish(topic=f"{JOBS}/1/update/accepted", payload=b"1", qos=1, packet_id=1),
        Puback(packet_id=2),
        Puback(packet_id=3),
        Publish(topic=f"{JOBS}/2/update/accepted", payload=b"2", qos=1, packet_id=2),
    ]


async def test_more_requests_than_may_be_in_flight_wait_unread_and_all_are_answered(world: World, door: Door) -> None:
    client = await world.client("dev")
    for number in range(200):
        client.publish(f"{JOBS}/{number}/update", b"", qos=0)
    await client.writer.drain()
    while len(door.asked) < 32:
        await asyncio.sleep(0.001)
    # One more round trip of somebody else: nothing further was begun meanwhile.
    await (await world.client("other")).before_ping_answer()
    assert len(door.asked) == 32
    door.gate.set()
    answers = [await client.next() for _ in range(200)]
    assert [each.topic for each in answers if isinstance(each, Publish)] == [
        f"{JOBS}/{number}/update/accepted" for number in range(200)
    ]


async def test_what_could_not_be_stored_is_not_acknowledged(world: World, door: Door) -> None:
    door.failure = Unavailable("The disk is full.")
    door.gate.set()
    client = await world.client("dev")
    client.publish(f"{JOBS}/1/update", b"", qos=1)
    assert await client.is_closed_by_server()


async def test_a_handler_that_fails_closes_that_connection_alone(world: World, door: Door) -> None:
    door.failure = ZeroDivisionError()
    door.gate.set()
    other = await world.client("other")
    for name in (f"{JOBS}/1/update", f"{JOBS}/$next/get"):
        client = await world.client("dev")
        client.publish(name, b"", qos=1)
        assert await client.is_closed_by_server()
    assert await other.before_ping_answer() == []


async def test_a_retained_publish_to_a_reserved_topic_closes(world: World, door: Door) -> None:
    client = await world.client("dev")
    client.publish(f"{JOBS}/get", b"", retain=True)
    assert await client.is_closed_by_server()


async def test_a_peer_that_does_not_read_is_not_read_either_and_loses_nothing(world: World, door: Door) -> None:
    client = await world.client("dev")
    await client.subscribe((f"{STREAM}/data/cbor", 0))
    size = 30_000
    client.reader._limit = 1024  # type: ignore[attr-defined]
    for _ in range(400):
        client.publish(f"{STREAM}/get/cbor", bytes(size))
    received = 0
    while received < 800:
        packet = await client.next()
        assert isinstance(packet, Publish)
        assert len(packet.payload) in (size, 2 * size)
        received += 1
    assert await client.before_ping_answer() == []
