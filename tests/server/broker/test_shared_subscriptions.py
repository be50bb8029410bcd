"""Shared subscriptions, through the gateway: one of a group gets each message, in either version of MQTT."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest

from overair.basics.clock import SettableClock
from overair.basics.ids import SeededIds
from overair.server.storage.work import SqlWork
from overair.wire.mqtt.packets import Puback, Publish
from overair.wire.mqtt.reasons import Reason
from tests.support.gateway_world import ACCOUNT, Client, Patterns, World, certificate_of


@pytest.fixture
async def world(work: SqlWork, clock: SettableClock, ids: SeededIds) -> AsyncIterator[World]:
    world = World(work, clock, ids)
    await world.start()
    yield world
    await world.stop()


async def heard(client: Client) -> list[bytes]:
    found = []
    for packet in await client.before_ping_answer():
        if isinstance(packet, Publish):
            found.append(packet.payload)
            if packet.qos:
                client.acknowledge(packet)
    return found


async def say(client: Client, topic: str, *payloads: bytes, qos: int = 1) -> None:
    for payload in payloads:
        client.publish(topic, payload, qos=qos)
    for _ in payloads if qos else ():
        assert isinstance(await client.next(), Puback)
    assert await client.before_ping_answer() == []


@pytest.mark.parametrize("qos", [0, 1])
async def test_each_message_goes_to_one_of_a_group_in_turn_and_to_everybody_else(world: World, qos: int) -> None:
    members = [await world.client(f"m{number}", level=level) for number, level in enumerate((4, 5, 5))]
    for member in members:
        assert await member.subscribe(("$share/workers/jobs/+", qos)) == (qos,)
    other_group, alone = await world.client("other"), await world.client("alone")
    await other_group.subscribe(("$share/others/jobs/+", qos))
    await alone.subscribe(("jobs/#", qos))
    speaker = await world.client("speaker")
    said = [b"%d" % number for number in range(30)]
    await say(speaker, "jobs/1", *said, qos=qos)
    shares = [await heard(member) for member in members]
    assert Counter(payload for share in shares for payload in share) == Counter(said)
    assert [len(share) for share in shares] == [10, 10, 10]
    assert await heard(other_group) == await heard(alone) == said


async def test_who_is_cut_from_a_topic_has_no_turn_and_who_leaves_has_none_either(world: World) -> None:
    world.authority.policies[b"c2"] = Patterns(receive=["other"])
    allowed, deaf, leaving = await world.client("a"), await world.client("b", certificate=b"c2"), await world.client("c")
    for each in (allowed, deaf, leaving):
        await each.subscribe(("$share/g/a", 0))
    leaving.send(leaving.wire.unsubscribe("$share/g/a"))
    await leaving.next()
    speaker = await world.client("speaker")
    await say(speaker, "a", b"1", b"2", b"3", qos=0)
    assert await heard(allowed) == [b"1", b"2", b"3"]
    assert await heard(deaf) == await heard(leaving) == []
    # A subscription that policy takes away gives nothing while it lasts.
    world.authority.policies[b"c1"] = Patterns(subscribe=["x"])
    world.gateway.reconsider(ACCOUNT, [certificate_of(b"c1")])
    await world.settled()
    await say(speaker, "a", b"4", qos=0)
    assert await heard(allowed) == []


async def test_policy_is_asked_for_the_whole_text_of_the_filter(world: World) -> None:
    world.authority.policies[b"c1"] = Patterns(subscribe=["a", "$share/mine/a"])
    client = await world.client("c", level=5)
    codes = await client.subscribe(("$share/mine/a", 1), ("$share/yours/a", 1))
    assert codes == (1, Reason.NOT_AUTHORIZED)
    old = await world.client("d")
    old.send(old.wire.subscribe(("$share/yours/a", 1)))
    assert await old.is_closed_by_server()


async def test_while_a_group_is_away_one_who_will_come_back_keeps_what_it_is_owed(world: World) -> None:
    member = await world.client("m", clean_session=False)
    await member.subscribe(("$share/g/a", 1))
    member.abort()
    await world.gone("m")
    passer_by = await world.client("p")
    await passer_by.subscribe(("$share/g/a", 1))
    speaker = await world.client("speaker")
    await say(speaker, "a", b"1")
    assert await heard(passer_by) == [b"1"]
    passer_by.abort()
    await world.gone("p")
    await say(speaker, "a", b"2", b"3")
    await say(speaker, "a", b"nobody's", qos=0)
    back = await world.open()
    assert (await back.connect("m", clean_session=False)).session_present
    for payload in (b"2", b"3"):
        message = await back.next()
        assert isinstance(message, Publish)
        assert message.payload == payload
        back.acknowledge(message)
    await say(speaker, "a", b"4")
    assert await heard(back) == [b"4"]


async def test_a_group_is_found_again_after_a_restart_and_gets_nothing_that_was_retained(
    work: SqlWork, clock: SettableClock, ids: SeededIds
) -> None:
    first = World(work, clock, ids)
    await first.start()
    member = await first.client("m", level=5, properties=((0x11, 3600),))
    speaker = await first.client("speaker")
    speaker.publish("a", b"kept", qos=1, retain=True)
    await speaker.next()
    await member.subscribe(("$share/g/a", 1), ("b", 1), options=(0, 0x08))
    assert await heard(member) == []
    await first.stop()
    second = World(work, clock, ids)
    await second.start()
    speaker = await second.client("speaker")
    await say(speaker, "a", b"1")
    member = await second.open(level=5)
    assert (await member.connect("m", clean_session=False, properties=((0x11, 3600),))).session_present
    message = await member.next()
    assert isinstance(message, Publish)
    assert message.payload == b"1"
    speaker.publish("b", b"2", qos=1, retain=True)
    message = await member.next()
    assert isinstance(message, Publish)
    assert (message.payload, message.retain) == (b"2", False)  # kept for it, a message has lost that it was retained
    await second.stop()
