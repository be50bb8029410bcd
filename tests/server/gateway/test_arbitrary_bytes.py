"""Whatever a peer sends, before or after CONNECT, the gateway answers or closes and nothing escapes."""

from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overair.basics.clock import Instant, SettableClock
from overair.basics.ids import SeededIds
from overair.wire.mqtt.client import ClientConnection
from overair.wire.mqtt.encoder5 import encode_5
from overair.wire.mqtt.packets import Auth, Disconnect, Properties, Puback, Publish, Pubrel, Subscribe, Unsubscribe
from overair.wire.mqtt.properties import Property as P
from tests.support.gateway_world import Transport, World

HEAD = st.sampled_from([0x10, 0x30, 0x31, 0x32, 0x33, 0x3B, 0x40, 0x50, 0x62, 0x70, 0x82, 0xA2, 0xC0, 0xE0])
LIKELY = st.builds(
    lambda head, body: bytes([head, len(body)]) + body,
    HEAD,
    st.one_of(
        st.binary(max_size=60),
        st.builds(
            lambda number, names: number.to_bytes(2, "big") + b"".join(len(n).to_bytes(2, "big") + n + b"\x01" for n in names),
            st.integers(0, 3),
            st.lists(st.sampled_from([b"a", b"+/#", b"$aws/things/x", b"a/b", b"\xff"]), max_size=4),
        ),
    ),
)
SAID: Properties = ((P.USER_PROPERTY, ("k", "v")),)
GOOD = st.sampled_from(
    [
        encode_5(packet)
        for packet in (
            Publish(topic="a", payload=b"x", properties=((P.TOPIC_ALIAS, 1), (P.MESSAGE_EXPIRY_INTERVAL, 0), *SAID)),
            Publish(topic="", payload=b"x", qos=1, packet_id=1, properties=((P.TOPIC_ALIAS, 1),)),
            Publish(topic="a", payload=b"", retain=True, qos=1, packet_id=2, properties=((P.RESPONSE_TOPIC, "b"),)),
            Publish(topic="$aws/rules/r/a", payload=b"", qos=1, packet_id=3),
            Subscribe(packet_id=4, filters=(("a", 1), ("$share/g/a", 1), ("#", 0)), options=(0x2C, 0x08, 0)),
            Subscribe(packet_id=5, filters=(("a", 2),), properties=((P.SUBSCRIPTION_IDENTIFIER, 1),)),
            Unsubscribe(packet_id=6, filters=("a", "$share/g/a"), properties=SAID),
            Puback(packet_id=1, reason_code=0x87),
            Pubrel(packet_id=1),
            Auth(reason_code=0x18),
            Disconnect(reason_code=4, properties=((P.SESSION_EXPIRY_INTERVAL, 5),)),
        )
    ]
)
DAMAGED = st.builds(
    lambda packet, place, octet: packet[: place % len(packet)] + bytes([octet]) + packet[place % len(packet) + 1 :],
    GOOD,
    st.integers(0, 60),
    st.integers(0, 255),
)
TALK = st.lists(st.one_of(LIKELY, st.binary(max_size=30), GOOD, DAMAGED), max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(talk=TALK, greeted=st.sampled_from([0, 4, 5]))
def test_nothing_escapes(talk: list[bytes], greeted: int) -> None:
    asyncio.run(say(talk, greeted))


class NoWork:
    """Records that hold nothing."""

    async def run(self, unit: object) -> None:
        return None

    async def read(self, query: object) -> tuple[list[object], list[object]]:
        return [], []


async def say(talk: list[bytes], greeted: int) -> None:
    """``greeted``: the version that a CONNECT has agreed on, if any."""
    problems: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    world = World(NoWork(), SettableClock(Instant(0)), SeededIds(1))  # type: ignore[arg-type]
    await world.start()
    connection, transport = world.gateway.protocol(), Transport()
    connection.connection_made(transport)
    if greeted:
        client = ClientConnection(greeted)
        connection.data_received(client.connect("c") + client.publish("a", b""))
        await world.settled()
    for data in talk:
        connection.data_received(data)
        await asyncio.sleep(0)
    await world.settled()
    assert transport.closed == connection.is_closed
    connection.connection_lost(None)
    await world.gateway.stop()
    await world.broker.idle()
    assert problems == []
