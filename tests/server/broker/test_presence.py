from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from overair.basics.clock import SettableClock
from overair.basics.ids import SeededIds
from overair.server.storage.work import SqlWork
from overair.wire.mqtt.packets import Publish
from tests.support.gateway_world import World, certificate_of


@pytest.fixture
async def world(work: SqlWork, clock: SettableClock, ids: SeededIds) -> AsyncIterator[World]:
    world = World(work, clock, ids)
    await world.start()
    yield world
    await world.stop()


async def test_a_connection_is_told_as_a_pair_of_events(world: World, clock: SettableClock) -> None:
    listener = await world.client("listener")
    await listener.subscribe(("$aws/events/presence/+/dev", 1), ("$aws/events/subscriptions/+/dev", 0))
    events = []
    for goodbye in (False, True):
        device = await world.client("dev", certificate=b"c2")
        await device.subscribe(("a", 0))
        if goodbye:
            device.send(b"\xe0\x00")
            assert await device.is_closed_by_server()
        else:
            device.abort()
            await world.gone("dev")
        for _ in range(3):
            packet = await listener.next()
            assert isinstance(packet, Publish)
            events.append((packet.topic, json.loads(packet.payload)))
    first = events[0][1]["sessionIdentifier"]
    common = {"clientId": "dev", "timestamp": clock.now(), "principalIdentifier": certificate_of(b"c2")}
    assert events[:3] == [
        (
            "$aws/events/presence/connected/dev",
            common | {"sessionIdentifier": first, "eventType": "connected", "ipAddress": "127.0.0.1", "versionNumber": 0},
        ),
        (
            "$aws/events/subscriptions/subscribed/dev",
            common | {"sessionIdentifier": first, "eventType": "subscribed", "topics": ["a"]},
        ),
        (
            "$aws/events/presence/disconnected/dev",
            common
            | {
                "sessionIdentifier": first,
                "eventType": "disconnected",
                "clientInitiatedDisconnect": False,
                "disconnectReason": "CONNECTION_LOST",
                "versionNumber": 0,
            },
        ),
    ]
    assert events[3][1]["versionNumber"] == events[5][1]["versionNumber"] == 1
    assert events[3][1]["sessionIdentifier"] == events[5][1]["sessionIdentifier"] != first
    assert events[5][1]["clientInitiatedDisconnect"] is True
    assert events[5][1]["disconnectReason"] == "CLIENT_INITIATED_DISCONNECT"
