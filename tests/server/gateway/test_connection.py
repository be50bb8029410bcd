from __future__ import annotations

import asyncio

import pytest

from overair.basics.ids import AccountId, CertificateId
from overair.wire.mqtt.packets import Connack, Connect, Puback, Publish, Suback, Will, encode
from tests.support.gateway_world import ACCOUNT, Patterns, World, certificate_of


async def test_a_message_reaches_who_subscribed_and_nobody_else(world: World) -> None:
    listener = await world.client("listener")
    bystander = await world.client("bystander")
    assert await listener.subscribe(("sensors/+/heat", 0)) == (0,)
    assert await bystander.subscribe(("sensors/+/cold", 0)) == (0,)
    speaker = await world.client("speaker")
    speaker.publish("sensors/1/heat", b"21")
    assert await listener.next() == Publish(topic="sensors/1/heat", payload=b"21")
    assert await bystander.before_ping_answer() == []


async def test_qos_1_is_acknowledged_both_ways(world: World) -> None:
    listener = await world.client("listener")
    assert await listener.subscribe(("a", 1)) == (1,)
    speaker = await world.client("speaker")
    speaker.publish("a", b"1", qos=1)
    assert await speaker.next() == Puback(packet_id=1)
    message = await listener.next()
    assert message == Publish(topic="a", payload=b"1", qos=1, packet_id=1)


async def test_a_subscriber_by_two_filters_gets_one_copy_at_the_better_qos(world: World) -> None:
    listener = await world.client("listener")
    await listener.subscribe(("a/+", 0), ("a/b", 1))
    listener.publish("a/b", b"1", qos=1)
    assert await listener.before_ping_answer() == [
        Publish(topic="a/b", payload=b"1", qos=1, packet_id=1),
        Puback(packet_id=2),
    ]


async def test_qos_2_is_granted_as_1_and_a_qos_2_publish_closes(world: World) -> None:
    client = await world.client("c")
    assert await client.subscribe(("a", 2)) == (1,)
    client.send(client.wire.publish("a", b"", qos=2))
    assert await client.is_closed_by_server()


async def test_no_certificate_no_connection(world: World) -> None:
    client = await world.open(None)
    assert await client.is_closed_by_server()


async def test_a_certificate_that_is_refused_hears_not_authorised(world: World) -> None:
    world.authority.refused.add(b"c9")
    client = await world.open(b"c9")
    assert await client.connect("c") == Connack(return_code=5)
    assert await client.is_closed_by_server()


async def test_a_client_id_that_no_policy_allows_hears_not_authorised(world: World) -> None:
    world.authority.policies[b"c1"] = Patterns(connect=["dev-1"])
    client = await world.open()
    assert (await client.connect("dev-2")).return_code == 5
    assert (await (await world.open()).connect("dev-1")).return_code == 0


@pytest.mark.parametrize("client_id", ["", "$me", "x" * 129, "é" * 65])
async def test_a_client_id_that_breaks_the_rule_is_rejected(world: World, client_id: str) -> None:
    client = await world.open()
    assert await client.connect(client_id) == Connack(return_code=2)
    assert await client.is_closed_by_server()


async def test_a_will_that_policy_forbids_refuses_the_connection(world: World) -> None:
    world.authority.policies[b"c1"] = Patterns(publish=["mine/*"], retain=[])
    for will, code in [
        (Will(topic="mine/gone", payload=b""), 0),
        (Will(topic="mine/gone", payload=b"", retain=True), 5),
        (Will(topic="yours/gone", payload=b""), 5),
        (Will(topic="$aws/things/x/jobs/get", payload=b""), 5),
    ]:
        client = await world.open()
        client.send(encode(Connect(client_id="c", will=will)))
        assert await client.next() == Connack(return_code=code)


async def test_a_username_without_password_is_normal(world: World) -> None:
    client = await world.open()
    assert (await client.connect("c", username="?SDK=C&Version=4")).return_code == 0
    assert world.authority.asked[-1][1:] == ("c", "?SDK=C&Version=4", "127.0.0.1")


async def test_a_second_connection_takes_the_client_id_over(world: World) -> None:
    first = await world.client("c")
    second = await world.client("c")
    assert await first.is_closed_by_server()
    assert await second.before_ping_answer() == []


async def test_two_connections_of_one_id_at_the_same_moment_leave_one(world: World) -> None:
    world.authority.gate = asyncio.Event()
    clients = [await world.open() for _ in range(5)]
    for client in clients:
        client.send(client.wire.connect("c", clean_session=False))
    world.authority.gate.set()
    answers = [await client.next() for client in clients]
    endings = []
    for client, answer in zip(clients, answers, strict=True):
        if answer is not None:
            client.send(b"\xc0\x00")
            endings.append(await client.next())
    assert len([each for each in endings if each is not None]) == 1


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_publish_that_policy_forbids_closes(world: World, qos: int) -> None:
    world.authority.policies[b"c1"] = Patterns(publish=["mine"])
    client = await world.client("c")
    client.publish("yours", qos=qos)
    assert await client.is_closed_by_server()


async def test_a_subscribe_with_one_forbidden_filter_closes_and_grants_nothing(world: World) -> None:
    world.authority.policies[b"c1"] = Patterns(subscribe=["mine/#"])
    client = await world.client("c", clean_session=False)
    client.send(client.wire.subscribe(("mine/#", 0), ("+/x", 0)))
    assert await client.is_closed_by_server()
    assert not world.broker.is_heard(ACCOUNT, "mine/x")


async def test_a_retained_publish_needs_its_own_permission(world: World) -> None:
    world.authority.policies[b"c1"] = Patterns(retain=["kept"])
    client = await world.client("c")
    client.publish("kept", b"1", qos=1, retain=True)
    assert await client.next() == Puback(packet_id=1)
    client.publish("other", b"1", qos=1, retain=True)
    assert await client.is_closed_by_server()


async def test_a_filter_with_a_hash_does_not_match_its_parent_level(world: World) -> None:
    client = await world.client("c")
    await client.subscribe(("a/#", 0))
    client.publish("a", b"parent")
    client.publish("a/b", b"child")
    assert await client.before_ping_answer() == [Publish(topic="a/b", payload=b"child")]


async def test_reserved_and_dollar_topics_that_no_handler_has_close(world: World) -> None:
    for topic in ("$aws/things/c/nonsense", "$SYS/x", "$"):
        client = await world.client("c")
        client.publish(topic)
        assert await client.is_closed_by_server()


async def test_malformed_packets_close_that_client_alone(world: World) -> None:
    good = await world.client("good")
    for data in (b"\x30\x05\x00\x09abc", b"\xff\x00", b"\x82\x02\x00\x01", b"\x30\xff\xff\xff\xff\x01"):
        bad = await world.client("bad")
        bad.send(data)
        assert await bad.is_closed_by_server()
    for data in (b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", encode(Puback(packet_id=1))):
        bad = await world.open()
        bad.send(data)
        assert await bad.is_closed_by_server()
    assert await good.before_ping_answer() == []


@pytest.mark.parametrize(("level", "answer"), [(3, b"\x20\x02\x00\x01"), (6, b"\x20\x03\x00\x84\x00")])
async def test_another_protocol_level_is_told_so(world: World, level: int, answer: bytes) -> None:
    client = await world.open()
    client.send(encode(Connect(client_id="c", protocol_level=level)))
    assert await client.reader.read() == answer


async def test_a_long_connect_is_taken_and_packets_behind_it_wait_for_the_verdict(world: World) -> None:
    world.authority.gate = asyncio.Event()
    client = await world.open()
    will = Will(topic="w", payload=bytes(60_000))
    client.send(encode(Connect(client_id="c", will=will)), client.wire.subscribe(("a", 0)))
    client.publish("a", bytes(100_000))
    await client.writer.drain()
    world.authority.gate.set()
    assert await client.next() == Connack()
    assert await client.next() == Suback(packet_id=1, return_codes=(0,))
    assert await client.next() == Publish(topic="a", payload=bytes(100_000))


async def test_taking_receive_away_stops_qos_0_and_queued_and_retained_alike(world: World) -> None:
    world.authority.policies[b"c1"] = Patterns()
    speaker = await world.client("speaker", certificate=b"c2")
    listener = await world.client("listener", clean_session=False)
    await listener.subscribe(("a", 1), ("b", 1))
    speaker.publish("kept", b"retained", qos=1, retain=True)
    assert await speaker.next() == Puback(packet_id=1)

    world.authority.policies[b"c1"] = Patterns(receive=["b"])
    world.gateway.reconsider(ACCOUNT, [certificate_of(b"c1")])
    await world.settled()
    speaker.publish("a", b"0")
    speaker.publish("a", b"1", qos=1)
    speaker.publish("b", b"allowed", qos=1)
    assert await listener.next() == Publish(topic="b", payload=b"allowed", qos=1, packet_id=1)
    assert await listener.subscribe(("kept", 1)) == (1,)
    assert await listener.before_ping_answer() == []

    # The same for what was queued while the listener was away.
    listener.abort()
    await world.gone("listener")
    speaker.publish("a", b"2", qos=1)
    speaker.publish("b", b"allowed too", qos=1)
    assert [await speaker.next() for _ in range(4)] == [Puback(packet_id=each) for each in (2, 3, 4, 5)]
    listener = await world.client("listener", clean_session=False)
    seen = [await listener.next(), await listener.next()]
    assert [each.payload for each in seen if isinstance(each, Publish)] == [b"allowed", b"allowed too"]
    assert await listener.before_ping_answer() == []


async def test_a_subscription_that_policy_takes_away_gives_nothing_until_it_is_given_back(world: World) -> None:
    listener = await world.client("listener")
    await listener.subscribe(("a/+", 0), ("b", 0))
    for patterns, expected in [(["b"], [b"2"]), (["*"], [b"1", b"2"])]:
        world.authority.policies[b"c1"] = Patterns(subscribe=patterns)
        world.gateway.reconsider(ACCOUNT, None)
        await world.settled()
        listener.publish("a/x", b"1")
        listener.publish("b", b"2")
        assert [each.payload for each in await listener.before_ping_answer() if isinstance(each, Publish)] == expected


async def test_revoking_cuts_live_connections_of_that_certificate_alone(world: World) -> None:
    revoked = await world.client("a", certificate=b"c1")
    other = await world.client("b", certificate=b"c2")
    world.authority.refused.add(b"c1")
    world.gateway.reconsider(ACCOUNT, [certificate_of(b"c1")])
    async with asyncio.timeout(1):
        assert await revoked.is_closed_by_server()
    assert await other.before_ping_answer() == []


@pytest.mark.parametrize(
    ("account", "certificates", "asked"),
    [
        (ACCOUNT, [certificate_of(b"c1")], 2),
        (ACCOUNT, None, 2),
        (ACCOUNT, [certificate_of(b"c2")], 1),
        (AccountId("999999999999"), None, 1),
    ],
)
async def test_a_verdict_that_changes_during_admission_is_asked_for_again(
    world: World, account: AccountId, certificates: list[CertificateId] | None, asked: int
) -> None:
    world.authority.gate = asyncio.Event()
    client = await world.open()
    client.send(client.wire.connect("c"))
    while not world.authority.asked:
        await asyncio.sleep(0)
    # The authority has been asked, and has not answered, when something changes.
    world.gateway.reconsider(account, certificates)
    world.authority.gate.set()
    assert await client.next() == Connack()
    assert len(world.authority.asked) == asked


async def test_a_will_is_published_unless_the_client_says_goodbye(world: World) -> None:
    listener = await world.client("listener")
    await listener.subscribe(("gone/+", 1))
    for name, goodbye in (("polite", b"\xe0\x00"), ("lost", b"")):
        client = await world.open()
        client.send(encode(Connect(client_id=name, will=Will(topic=f"gone/{name}", payload=b"!", qos=1))))
        await client.next()
        client.send(goodbye)
        await client.writer.drain()
        await client.close()
        await world.gone(name)
    assert await listener.next() == Publish(topic="gone/lost", payload=b"!", qos=1, packet_id=1)
    assert await listener.before_ping_answer() == []


async def test_a_retained_message_goes_to_exact_filters_and_an_empty_one_deletes_it(world: World) -> None:
    speaker = await world.client("speaker")
    speaker.publish("a/b", b"last", qos=1, retain=True)
    await speaker.next()
    listener = await world.client("listener")
    await listener.subscribe(("a/+", 1))
    assert await listener.before_ping_answer() == []
    await listener.subscribe(("a/b", 1))
    assert await listener.next() == Publish(topic="a/b", payload=b"last", qos=1, retain=True, packet_id=1)
    speaker.publish("a/b", b"", qos=1, retain=True)
    await speaker.next()
    late = await world.client("late")
    await late.subscribe(("a/b", 0))
    assert await late.before_ping_answer() == []
