"""A client that isn't ours: paho-mqtt, threads and all."""

from __future__ import annotations

import asyncio
import queue
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.gateway_world import World

PATIENCE_S = 10


class Paho:
    """paho on its own thread; what it hears comes through queues."""

    def __init__(self, port: int, client_id: str, *, clean_session: bool = True, will: tuple[str, bytes] | None = None) -> None:
        self.connected: queue.Queue[tuple[str, bool]] = queue.Queue()
        self.subscribed: queue.Queue[list[str]] = queue.Queue()
        self.published: queue.Queue[int] = queue.Queue()
        self.messages: queue.Queue[tuple[str, bytes, int, bool]] = queue.Queue()
        self.disconnected: queue.Queue[str] = queue.Queue()
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id, clean_session=clean_session, reconnect_on_failure=False)
        client.on_connect = lambda _, __, flags, reason, ___: self.connected.put((str(reason), flags.session_present))
        client.on_subscribe = lambda _, __, ___, reasons, ____: self.subscribed.put([str(each) for each in reasons])
        client.on_publish = lambda _, __, number, ___, ____: self.published.put(number)
        client.on_message = lambda _, __, m: self.messages.put((m.topic, m.payload, m.qos, m.retain))
        client.on_disconnect = lambda _, __, ___, reason, ____: self.disconnected.put(str(reason))
        if will is not None:
            client.will_set(will[0], will[1], qos=1)
        client.username_pw_set("?SDK=Python&Version=1")
        client.connect("127.0.0.1", port, keepalive=60)
        client.loop_start()
        self.client = client

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


async def heard(from_queue: queue.Queue[Any]) -> Any:
    return await asyncio.to_thread(from_queue.get, True, PATIENCE_S)


async def test_paho_connects_subscribes_publishes_and_resumes(world: World) -> None:
    port = await world.port(b"c1")
    device = await asyncio.to_thread(Paho, port, "dev", clean_session=False)
    assert await heard(device.connected) == ("Success", False)
    device.client.subscribe([("a/+", 1), ("b", 2)])
    assert await heard(device.subscribed) == ["Granted QoS 1", "Granted QoS 1"]
    for qos in (0, 1):
        device.client.publish("a/x", b"hello", qos=qos)
        await heard(device.published)
        assert await heard(device.messages) == ("a/x", b"hello", qos, False)
    device.client.publish("a/kept", b"retained", qos=1, retain=True)
    assert await heard(device.messages) == ("a/kept", b"retained", 1, False)
    await asyncio.to_thread(device.close)
    await world.gone("dev")

    speaker = await asyncio.to_thread(Paho, port, "speaker", will=("a/will", b"gone"))
    await heard(speaker.connected)
    for number in range(300):
        speaker.client.publish("a/x", b"%d" % number, qos=1)
    for _ in range(300):
        await heard(speaker.published)

    device = await asyncio.to_thread(Paho, port, "dev", clean_session=False)
    assert await heard(device.connected) == ("Success", True)
    for number in range(300):
        assert await heard(device.messages) == ("a/x", b"%d" % number, 1, False)
    device.client.subscribe("a/kept", 1)
    assert await heard(device.messages) == ("a/kept", b"retained", 1, True)
    await asyncio.to_thread(device.close)
    await asyncio.to_thread(speaker.close)


async def test_paho_is_told_why_it_may_not_connect(world: World) -> None:
    world.authority.refused.add(b"c9")
    device = await asyncio.to_thread(Paho, await world.port(b"c9"), "dev")
    assert (await heard(device.connected))[0] == "Not authorized"
    await asyncio.to_thread(device.close)


async def test_paho_loses_its_connection_when_another_takes_its_id(world: World) -> None:
    port = await world.port(b"c1")
    first = await asyncio.to_thread(Paho, port, "dev")
    await heard(first.connected)
    second = await asyncio.to_thread(Paho, port, "dev")
    await heard(second.connected)
    await heard(first.disconnected)
    second.client.publish("a", b"", qos=1)
    await heard(second.published)
    for each in (first, second):
        await asyncio.to_thread(each.close)
