from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from overair.basics.clock import SettableClock
from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import SeededIds
from overair.server.aws_protocol.operations import Caller
from overair.server.broker.operator_api import BrokerOperations
from overair.server.broker.store import BrokerStore
from overair.server.storage.work import SqlWork
from overair.wire.mqtt.packets import Publish
from tests.support.gateway_world import PLACE, World


@pytest.fixture
async def world(work: SqlWork, clock: SettableClock, ids: SeededIds) -> AsyncIterator[World]:
    world = World(work, clock, ids)
    await world.start()
    yield world
    await world.stop()


@pytest.fixture
def door(world: World, work: SqlWork) -> BrokerOperations:
    return BrokerOperations(work=work, broker=world.broker, store=BrokerStore())


@pytest.fixture
def caller(clock: SettableClock) -> Caller:
    return Caller(
        place=PLACE, principal_arn="arn:aws:iam::123456789012:root", user_id="root", access_key_id="A", now=clock.now()
    )


async def test_an_operator_publishes_to_devices(world: World, door: BrokerOperations, caller: Caller) -> None:
    device = await world.client("dev", clean_session=False)
    await device.subscribe(("a/+", 1))
    assert await door.publish(caller, {"topic": "a/1", "payload": b"hello", "qos": 1}) is None
    assert await device.next() == Publish(topic="a/1", payload=b"hello", qos=1, packet_id=1)
    await door.publish(caller, {"topic": "a/2"})
    assert await device.next() == Publish(topic="a/2", payload=b"")


async def test_what_an_operator_says_beside_the_payload_reaches_devices_that_speak_5(
    world: World, door: BrokerOperations, caller: Caller
) -> None:
    device = await world.client("dev", level=5)
    await device.subscribe(("a", 0))
    said = {
        "payloadFormatIndicator": "UTF8_DATA",
        "contentType": "text/plain",
        "responseTopic": "answers",
        "correlationData": "AAE=",
        "userProperties": '[{"b": "1"}, {"a": "2"}]',
        "messageExpiry": 60,
    }
    await door.publish(caller, {"topic": "a", "payload": b"x", "retain": True, **said})
    assert await device.next() == Publish(
        topic="a",
        payload=b"x",
        properties=(
            (0x01, 1),
            (0x03, "text/plain"),
            (0x08, "answers"),
            (0x09, b"\x00\x01"),
            (0x26, ("b", "1")),
            (0x26, ("a", "2")),
            (0x02, 60),
        ),
    )
    found = await door.get_retained_message(caller, {"topic": "a"})
    assert json.loads(found["userProperties"]) == [{"b": "1"}, {"a": "2"}]


@pytest.mark.parametrize(
    "said",
    [
        {"payloadFormatIndicator": "TEXT"},
        {"contentType": "\x00"},
        {"responseTopic": "a/+"},
        {"correlationData": "%"},
        {"userProperties": "{}"},
        {"userProperties": "nonsense"},
        {"userProperties": '[{"a": 1}]'},
        {"userProperties": '[{"a": "1", "b": "2"}]'},
        {"userProperties": '[{"a": "' + "x" * 17_000 + '"}]'},
        {"messageExpiry": -1},
    ],
)
async def test_what_is_said_beside_the_payload_has_a_form(door: BrokerOperations, caller: Caller, said: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await door.publish(caller, {"topic": "a", **said})
    assert refused.value.subject == "properties"


@pytest.mark.parametrize(
    ("request_", "subject"),
    [
        ({"topic": "a/+"}, "topic"),
        ({"topic": "$aws/things/dev/jobs/notify-next"}, "topic"),
        ({"topic": "x" * 1025}, "topic"),
        ({"topic": "a\0"}, "topic"),
        ({"topic": "a", "payload": bytes(128 * 1024 + 1)}, "too-large"),
    ],
)
async def test_what_may_not_be_published_is_refused(
    door: BrokerOperations, caller: Caller, request_: dict[str, object], subject: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await door.publish(caller, request_)
    assert refusal.value.subject == subject


async def test_retained_messages_are_read_and_listed_by_page(
    door: BrokerOperations, caller: Caller, clock: SettableClock
) -> None:
    for number in range(5):
        await door.publish(caller, {"topic": f"t/{number}", "payload": b"x" * number, "qos": 1, "retain": True})
    assert await door.get_retained_message(caller, {"topic": "t/3"}) == {
        "userProperties": None,
        "topic": "t/3",
        "payload": b"xxx",
        "qos": 1,
        "lastModifiedTime": clock.now(),
    }
    # t/0 was published empty: that deletes, and so nothing is retained there.
    with pytest.raises(NotFound):
        await door.get_retained_message(caller, {"topic": "t/0"})
    first = await door.list_retained_messages(caller, {"maxResults": 3})
    assert [each["topic"] for each in first["retainedTopics"]] == ["t/1", "t/2", "t/3"]
    second = await door.list_retained_messages(caller, {"maxResults": 3, "nextToken": first["nextToken"]})
    assert second["retainedTopics"] == [{"topic": "t/4", "payloadSize": 4, "qos": 1, "lastModifiedTime": clock.now()}]
    assert second["nextToken"] is None
