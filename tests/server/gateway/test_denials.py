"""What MQTT denies is told to the auditor: who, what, from where."""

from __future__ import annotations

from typing import Any

import pytest

from overair.basics.errors import Unavailable
from overair.server.gateway.denials import MQTT
from overair.wire.mqtt.packets import Publish, Will
from tests.support.gateway_world import ACCOUNT, PLACE, Patterns, World, certificate_of


async def test_who_may_not_connect_is_told_and_so_is_a_stranger(world: World) -> None:
    world.authority.policies[b"c1"] = Patterns(connect=["own"], publish=["own"])
    world.authority.refused.add(b"c9")
    assert (await (await world.open(b"c1")).connect("other")).return_code == 5
    assert (await (await world.open(b"c9")).connect("own")).return_code == 5
    assert await (await world.open(None)).is_closed_by_server()
    me = PLACE.iot("cert", certificate_of(b"c1"))
    assert world.denials.heard == [
        (ACCOUNT, me, MQTT, "Connect", PLACE.iot("client", "other"), "127.0.0.1"),
        (None, None, MQTT, "Connect", "client/own", "127.0.0.1"),
        (None, None, MQTT, "Connect", "*", "127.0.0.1"),
    ]


async def test_a_will_that_may_not_be_published_keeps_its_device_out(world: World) -> None:
    world.authority.policies[b"c1"] = Patterns(publish=["own"])
    client = await world.open(b"c1")
    assert (await client.connect("own", will=Will(topic="others", payload=b""))).return_code == 5
    assert world.denials.told() == [("Connect", "client/own")]


async def test_publishes_and_subscriptions_that_are_denied_are_told(world: World) -> None:
    world.authority.policies[b"c1"] = Patterns(publish=["own"], retain=[], subscribe=["own"])
    for act in (
        lambda client: client.publish("others", b"x"),
        lambda client: client.publish("own", b"x", retain=True),
        lambda client: client.send(client.wire.subscribe(("others/#", 0))),
    ):
        client = await world.client("own")
        act(client)
        assert await client.is_closed_by_server()
    told = [("Publish", "topic/others"), ("RetainPublish", "topic/own"), ("Subscribe", "topicfilter/others/#")]
    assert world.denials.told() == told


async def test_with_mqtt_5_each_filter_that_is_denied_is_told(world: World) -> None:
    world.authority.policies[b"c1"] = Patterns(subscribe=["own"], publish=["own"])
    client = await world.client("own", level=5)
    await client.subscribe(("a", 0), ("own", 0), ("b", 0))
    client.publish("others", b"x", qos=1)
    await client.before_ping_answer()
    assert world.denials.told() == [("Subscribe", "topicfilter/a"), ("Subscribe", "topicfilter/b"), ("Publish", "topic/others")]


async def test_a_message_that_may_not_be_received_is_told_once_for_its_topic(world: World) -> None:
    world.authority.policies[b"c1"] = Patterns(subscribe=["#"], receive=["own/*"])
    client = await world.client("own")
    await client.subscribe(("#", 0))
    speaker = await world.client("speaker", certificate=b"c2")
    for _ in range(50):
        speaker.publish("others/x", b"secret")
    speaker.publish("own/x", b"hello")
    assert await client.next() == Publish(topic="own/x", payload=b"hello")
    assert world.denials.told() == [("Receive", "topic/others/x")]


async def test_whoever_loses_his_right_to_be_connected_is_told(world: World) -> None:
    client = await world.client("own")
    world.authority.policies[b"c1"] = Patterns(connect=[])
    world.gateway.reconsider(ACCOUNT, None)
    assert await client.is_closed_by_server()
    assert world.denials.told() == [("Connect", "client/own")]


async def test_a_verdict_that_cant_be_reached_is_no_denial(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> Any:
        raise Unavailable("The disk is full.", subject="storage")

    monkeypatch.setattr(world.authority, "admit", fail)
    assert (await (await world.open(b"c1")).connect("own")).return_code == 5
    assert world.denials.heard == []
