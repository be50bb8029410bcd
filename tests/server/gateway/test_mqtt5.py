"""MQTT 5 as AWS IoT has it, through the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from overair.basics.clock import SettableClock
from overair.basics.ids import SeededIds
from overair.server.gateway.handlers import Connection, Reply, topic
from overair.server.gateway.limits import AWS, REFUSALS_MAX
from overair.server.storage.work import SqlWork
from overair.wire.mqtt.packets import Auth, Connack, Disconnect, Properties, Puback, Publish, Unsuback, Will
from overair.wire.mqtt.properties import Property, number_in, text_in
from overair.wire.mqtt.reasons import Reason
from tests.support.gateway_world import ACCOUNT, Client, Patterns, World, certificate_of

P = Property
EXPIRY_60_S: Properties = ((P.SESSION_EXPIRY_INTERVAL, 60),)


@pytest.fixture
async def aws(work: SqlWork, clock: SettableClock, ids: SeededIds) -> AsyncIterator[World]:
    world = World(work, clock, ids, limits=AWS)
    await world.start()
    yield world
    await world.stop()


async def client5(world: World, name: str, **options: Any) -> Client:
    return await world.client(name, level=5, **options)


async def why_closed(client: Client) -> Reason:
    """The reason that the server gave before it closed."""
    packet = await client.next()
    assert isinstance(packet, Disconnect), packet
    assert await client.is_closed_by_server()
    return Reason(packet.reason_code)


async def test_a_connack_offers_what_aws_offers(aws: World) -> None:
    client = await aws.open(level=5)
    answer = await client.connect("c", keep_alive_s=5, properties=((P.SESSION_EXPIRY_INTERVAL, 100_000),))
    assert answer.return_code == Reason.SUCCESS
    assert answer.session_present is False
    assert dict(answer.properties) == {
        P.SESSION_EXPIRY_INTERVAL: 3600,
        P.SERVER_KEEP_ALIVE: 30,
        P.RECEIVE_MAXIMUM: 100,
        P.TOPIC_ALIAS_MAXIMUM: 8,
        P.MAXIMUM_QOS: 1,
        P.RETAIN_AVAILABLE: 1,
        P.MAXIMUM_PACKET_SIZE: AWS.packet_size_bytes_max_5 + 5,
        P.WILDCARD_SUBSCRIPTION_AVAILABLE: 1,
        P.SUBSCRIPTION_IDENTIFIER_AVAILABLE: 0,
        P.SHARED_SUBSCRIPTION_AVAILABLE: 1,
    }


async def test_who_names_no_client_id_is_given_one_that_his_policy_allows(world: World) -> None:
    client = await world.open(level=5)
    answer = await client.connect("")
    assigned = text_in(answer.properties, P.ASSIGNED_CLIENT_IDENTIFIER)
    assert assigned
    assert world.broker.is_connected(ACCOUNT, assigned)  # type: ignore[arg-type]
    world.authority.policies[b"c1"] = Patterns(connect=["dev-*"])
    refused = await world.open(level=5)
    assert (await refused.connect("")).return_code == Reason.NOT_AUTHORIZED


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"client_id": "$me"}, Reason.CLIENT_IDENTIFIER_NOT_VALID),
        ({"client_id": "x" * 129}, Reason.CLIENT_IDENTIFIER_NOT_VALID),
        ({"will": Will(topic="$aws/x", payload=b"")}, Reason.TOPIC_NAME_INVALID),
        ({"will": Will(topic="w", payload=b"", qos=2)}, Reason.QOS_NOT_SUPPORTED),
        ({"properties": ((P.AUTHENTICATION_METHOD, "SCRAM"),)}, Reason.BAD_AUTHENTICATION_METHOD),
        ({"properties": ((P.TOPIC_ALIAS, 1),)}, Reason.PROTOCOL_ERROR),
    ],
)
async def test_a_connect_that_breaks_a_rule_is_told_which(world: World, options: dict[str, Any], reason: Reason) -> None:
    client = await world.open(level=5)
    assert await client.connect(**{"client_id": "c", **options}) == Connack(return_code=reason)
    assert await client.is_closed_by_server()


async def test_a_certificate_that_is_refused_hears_not_authorised_and_nothing_more(world: World) -> None:
    world.authority.refused.add(b"c9")
    client = await world.open(b"c9", level=5)
    assert await client.connect("c") == Connack(return_code=Reason.NOT_AUTHORIZED)
    assert await client.is_closed_by_server()


async def test_a_message_carries_its_properties_to_receivers_of_5_in_order_and_to_those_of_3(world: World) -> None:
    said: Properties = (
        (P.USER_PROPERTY, ("b", "1")),
        (P.PAYLOAD_FORMAT_INDICATOR, 1),
        (P.CONTENT_TYPE, "text/plain"),
        (P.RESPONSE_TOPIC, "answers/1"),
        (P.CORRELATION_DATA, b"\x00\x01"),
        (P.USER_PROPERTY, ("a", "2")),
    )
    modern, old = await client5(world, "modern"), await world.client("old")
    for each in (modern, old):
        await each.subscribe(("a", 1))
    speaker = await client5(world, "speaker")
    for qos in (0, 1):
        speaker.publish("a", b"x", qos=qos, properties=said)
        packet_id = 1 if qos else 0
        assert await modern.next() == Publish(topic="a", payload=b"x", qos=qos, packet_id=packet_id, properties=said)
        assert await old.next() == Publish(topic="a", payload=b"x", qos=qos, packet_id=packet_id)
    assert await speaker.next() == Puback(packet_id=1)
    old.publish("a", b"y", qos=1)
    assert await modern.next() == Publish(topic="a", payload=b"y", qos=1, packet_id=2)


async def test_a_topic_alias_stands_for_a_topic_and_policy_is_asked_for_that_topic(aws: World) -> None:
    aws.authority.policies[b"c1"] = Patterns(publish=["a", "b"])
    client = await client5(aws, "c")
    await client.subscribe(("#", 0))
    for name, payload in (("a", b"1"), ("", b"2"), ("b", b"3"), ("", b"4")):
        client.publish(name, payload, properties=((P.TOPIC_ALIAS, 8),))
    heard = await client.before_ping_answer()
    assert [(each.topic, each.payload) for each in heard if isinstance(each, Publish)] == [
        ("a", b"1"),
        ("a", b"2"),
        ("b", b"3"),
        ("b", b"4"),
    ]
    client.publish("c", b"", qos=1, properties=((P.TOPIC_ALIAS, 8),))
    answer = await client.next()
    assert isinstance(answer, Puback)
    assert answer.reason_code == Reason.NOT_AUTHORIZED
    client.publish("a", b"", properties=((P.TOPIC_ALIAS, 9),))
    assert await why_closed(client) is Reason.TOPIC_ALIAS_INVALID


@pytest.mark.parametrize(("problem", "says_why"), [(1, True), (0, False)])
async def test_a_forbidden_qos_1_publish_and_a_forbidden_filter_are_told_and_the_rest_goes_on(
    world: World, problem: int, says_why: bool
) -> None:
    world.authority.policies[b"c1"] = Patterns(publish=["mine"], subscribe=["mine"], retain=[])
    client = await client5(world, "c", properties=((P.REQUEST_PROBLEM_INFORMATION, problem),))
    assert await client.subscribe(("mine", 1), ("yours", 1)) == (1, Reason.NOT_AUTHORIZED)
    for name, retain in (("yours", False), ("mine", True)):
        client.publish(name, b"x", qos=1, retain=retain)
        answer = await client.next()
        assert isinstance(answer, Puback)
        assert answer.reason_code == Reason.NOT_AUTHORIZED
        assert (text_in(answer.properties, P.REASON_STRING) is not None) is says_why
    client.publish("mine", b"heard", qos=1)
    assert [type(each) for each in await client.before_ping_answer()] == [Publish, Puback]
    client.publish("yours", b"x")
    assert await why_closed(client) is Reason.NOT_AUTHORIZED


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("$aws/things/c/shadow/update", Reason.TOPIC_NAME_INVALID),
        ("$aws/rules/my-rule/a", Reason.TOPIC_NAME_INVALID),
        ("$aws/things/c/nonsense", Reason.TOPIC_NAME_INVALID),
    ],
)
async def test_what_aws_has_and_this_server_has_not_is_refused_by_name(world: World, name: str, reason: Reason) -> None:
    client = await client5(world, "c")
    client.publish(name, b"{}", qos=1)
    answer = await client.next()
    assert isinstance(answer, Puback)
    assert answer.reason_code == reason
    why = text_in(answer.properties, P.REASON_STRING)
    assert why is not None
    assert name in why
    assert ("shadow" in name) == ("shadows aren't here" in why)
    assert ("rules" in name) == ("Basic Ingest" in why)
    filters = (("$aws/things/c/shadow/#", 1), ("$aws/rules/+/a", 0))
    assert await client.subscribe(*filters) == (Reason.TOPIC_FILTER_INVALID, Reason.TOPIC_FILTER_INVALID)
    assert await (await world.client("old")).subscribe(*filters) == (0x80, 0x80)


async def test_what_is_not_served_ends_the_connection_with_its_own_reason(world: World) -> None:
    for said, reason in (
        (lambda wire: wire.publish("a", b"", qos=2), Reason.QOS_NOT_SUPPORTED),
        (
            lambda wire: wire.subscribe(("a", 0), properties=((P.SUBSCRIPTION_IDENTIFIER, 7),)),
            Reason.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
        ),
        (lambda wire: wire.encode(Auth(reason_code=0x19)), Reason.PROTOCOL_ERROR),
        (lambda wire: wire.connect("c"), Reason.PROTOCOL_ERROR),
        (lambda wire: wire.publish("a", bytes(1024 * 1024 + 1)), Reason.PACKET_TOO_LARGE),
        (lambda wire: b"\x30\xff\xff\xff\x7f", Reason.PACKET_TOO_LARGE),
        (lambda wire: b"\xff\x00", Reason.MALFORMED_PACKET),
        (lambda wire: wire.publish("x" * 1025, b"", qos=1), Reason.TOPIC_NAME_INVALID),
    ):
        client = await client5(world, "c")
        client.send(said(client.wire))
        assert await why_closed(client) is reason


async def test_who_is_cut_hears_why(world: World) -> None:
    first = await client5(world, "c")
    second = await client5(world, "c")
    assert await why_closed(first) is Reason.SESSION_TAKEN_OVER
    world.authority.refused.add(b"c1")
    world.gateway.reconsider(ACCOUNT, [certificate_of(b"c1")])
    assert await why_closed(second) is Reason.NOT_AUTHORIZED
    last = await client5(world, "d", certificate=b"c2")
    await world.gateway.stop()
    assert await why_closed(last) is Reason.SERVER_SHUTTING_DOWN


async def test_a_session_lives_for_as_long_as_its_client_asked(world: World, clock: SettableClock) -> None:
    for said_at_the_end, lives_s in ((None, 60), (10, 10), (0, 0)):
        client = await client5(world, "c", clean_session=True, properties=EXPIRY_60_S)
        await client.subscribe(("a", 1))
        properties = () if said_at_the_end is None else ((P.SESSION_EXPIRY_INTERVAL, said_at_the_end),)
        client.send(client.wire.encode(Disconnect(properties=properties)))
        await world.gone("c")
        clock.advance(milliseconds=max(0, lives_s * 1000 - 1))
        for present in (True, False) if lives_s else (False,):
            again = await world.open(level=5)
            answer = await again.connect("c", clean_session=False)
            assert answer.session_present is present, said_at_the_end
            again.send(again.wire.encode(Disconnect()))  # taken up without an expiry, it ends here
            await world.gone("c")


async def test_a_session_that_ends_with_its_connection_is_not_revived_by_a_goodbye(world: World) -> None:
    client = await client5(world, "c")
    client.send(client.wire.encode(Disconnect(properties=EXPIRY_60_S)))
    assert await why_closed(client) is Reason.PROTOCOL_ERROR


async def test_a_session_goes_from_one_version_to_the_other_with_what_it_is_owed(world: World) -> None:
    client = await client5(world, "c", properties=EXPIRY_60_S)
    await client.subscribe(("a", 1))
    client.abort()
    await world.gone("c")
    speaker = await client5(world, "speaker")
    said: Properties = ((P.CONTENT_TYPE, "x"),)
    speaker.publish("a", b"1", qos=1, properties=said)
    assert await speaker.next() == Puback(packet_id=1)
    old = await world.open()
    assert (await old.connect("c", clean_session=False)).session_present
    assert await old.next() == Publish(topic="a", payload=b"1", qos=1, packet_id=1)
    old.abort()
    await world.gone("c")
    again = await world.open(level=5)
    assert (await again.connect("c", clean_session=False)).session_present
    assert await again.next() == Publish(topic="a", payload=b"1", qos=1, packet_id=1, duplicate=True, properties=said)


async def test_a_message_expires_live_queued_and_retained_and_is_counted_down(world: World, clock: SettableClock) -> None:
    away = await world.client("old", clean_session=False)
    await away.subscribe(("a", 1))
    away.abort()
    await world.gone("old")
    speaker = await client5(world, "speaker")
    for expiry_s, payload in ((5, b"short"), (60, b"long")):
        speaker.publish("a", payload, qos=1, retain=True, properties=((P.MESSAGE_EXPIRY_INTERVAL, expiry_s),))
        assert isinstance(await speaker.next(), Puback)
    speaker.publish("b", b"gone", qos=1, retain=True, properties=((P.MESSAGE_EXPIRY_INTERVAL, 5),))
    assert isinstance(await speaker.next(), Puback)
    clock.advance(milliseconds=20_500)
    # A subscriber of 3.1.1 doesn't get it either: the publisher's version decides.
    back = await world.open()
    assert (await back.connect("old", clean_session=False)).session_present
    message = await back.next()
    assert isinstance(message, Publish)
    assert message.payload == b"long"
    assert await back.before_ping_answer() == []
    late = await client5(world, "late")
    await late.subscribe(("a", 1), ("b", 1))
    left: Properties = ((P.MESSAGE_EXPIRY_INTERVAL, 39),)
    assert await late.next() == Publish(topic="a", payload=b"long", qos=1, retain=True, packet_id=1, properties=left)
    assert await late.before_ping_answer() == []


async def test_an_expiry_of_0_is_1_s_and_one_beyond_a_week_is_a_week(world: World) -> None:
    client = await client5(world, "c")
    await client.subscribe(("a", 0))
    for said, becomes in ((0, 1), (10_000_000, 604_800)):
        client.publish("a", b"", properties=((P.MESSAGE_EXPIRY_INTERVAL, said),))
        message = await client.next()
        assert isinstance(message, Publish)
        assert number_in(message.properties, P.MESSAGE_EXPIRY_INTERVAL, -1) == becomes


async def test_options_of_a_subscription_leave_out_its_own_and_keep_retain_and_choose_greetings(world: World) -> None:
    speaker = await client5(world, "speaker")
    speaker.publish("a", b"kept", qos=1, retain=True)
    await speaker.next()
    client = await client5(world, "c")
    assert await client.subscribe(("a", 0), options=(0x24,)) == (0,)  # no greeting, no messages of its own
    client.publish("a", b"mine")
    speaker.publish("a", b"theirs", qos=1, retain=True)
    await speaker.next()
    assert await client.before_ping_answer() == [Publish(topic="a", payload=b"theirs")]
    assert await client.subscribe(("a", 0), options=(0x18,)) == (0,)  # as published; a greeting only if it is new
    speaker.publish("a", b"as it was", qos=1, retain=True)
    await speaker.next()
    assert await client.before_ping_answer() == [Publish(topic="a", payload=b"as it was", retain=True)]
    client.send(client.wire.unsubscribe("a", "never held"))
    assert await client.next() == Unsuback(packet_id=3, reason_codes=(Reason.SUCCESS, Reason.NO_SUBSCRIPTION_EXISTED))
    assert await client.subscribe(("a", 0), options=(0x10,)) == (0,)
    greeting = await client.next()
    assert isinstance(greeting, Publish)
    assert (greeting.payload, greeting.retain) == (b"as it was", True)


async def test_a_client_gets_no_more_at_once_and_nothing_larger_than_it_said(world: World) -> None:
    client = await client5(world, "c", properties=((P.RECEIVE_MAXIMUM, 2), (P.MAXIMUM_PACKET_SIZE, 100)))
    await client.subscribe(("a", 1), ("b", 0))
    speaker = await world.client("speaker")
    speaker.publish("b", bytes(200))
    for number in range(4):
        speaker.publish("a", b"%d" % number, qos=1)
    speaker.publish("a", bytes(200), qos=1)
    for _ in range(5):
        await speaker.next()
    first = await client.before_ping_answer()
    assert [each.payload for each in first if isinstance(each, Publish)] == [b"0", b"1"]
    for each in first:
        assert isinstance(each, Publish)
        client.acknowledge(each)
    rest = await client.before_ping_answer()
    assert [each.payload for each in rest if isinstance(each, Publish)] == [b"2", b"3"]
    narrow = await world.open(level=5)
    narrow.send(narrow.wire.connect("n", properties=((P.MAXIMUM_PACKET_SIZE, 20),)))
    assert await narrow.is_closed_by_server()


async def test_a_will_has_properties_waits_for_its_delay_and_is_taken_back_by_who_comes_back(world: World) -> None:
    listener = await client5(world, "listener")
    await listener.subscribe(("gone/#", 1))

    def will(name: str, delay_s: int) -> Will:
        said: Properties = ((P.WILL_DELAY_INTERVAL, delay_s), (P.CONTENT_TYPE, "x"))
        return Will(topic=f"gone/{name}", payload=b"!", qos=1, properties=said)

    for name, delay_s, goodbye in (("polite", 0, 0x00), ("asks-for-it", 0, 0x04), ("lost", 1, None), ("waits", 600, None)):
        client = await client5(world, name, will=will(name, delay_s), properties=EXPIRY_60_S)
        if goodbye is None:
            client.abort()
        else:
            client.send(client.wire.encode(Disconnect(reason_code=goodbye)))
        await world.gone(name)
    assert (await (await world.open(level=5)).connect("waits", clean_session=False)).session_present
    for name in ("asks-for-it", "lost"):
        message = await listener.next()
        assert isinstance(message, Publish)
        assert (message.topic, message.properties) == (f"gone/{name}", ((P.CONTENT_TYPE, "x"),))
        listener.acknowledge(message)
    assert await listener.before_ping_answer() == []


class Echo:
    """Answers with what it was told, and something that is large."""

    @topic("$aws/things/{thing}/jobs/get")
    def get(self, connection: Connection, parameters: Any, payload: bytes) -> list[Reply]:
        answer = f"$aws/things/{parameters['thing']}/jobs/get/accepted"
        return [Reply(topic=answer, payload=payload, implicit=True), Reply(topic=answer, payload=bytes(500), implicit=True)]


async def test_reserved_topics_are_answered_within_what_the_client_takes(world: World) -> None:
    world.topics.register(Echo())
    client = await client5(world, "c", properties=((P.MAXIMUM_PACKET_SIZE, 400),))
    for qos in (0, 1):
        client.publish("$aws/things/c/jobs/get", b"{}", qos=qos)
        answer = "$aws/things/c/jobs/get/accepted"
        heard = [each for each in await client.before_ping_answer() if isinstance(each, Publish)]
        assert heard == [Publish(topic=answer, payload=b"{}", qos=qos, packet_id=1 if qos else 0)]
        for each in heard:
            if each.qos:
                client.acknowledge(each)


async def test_who_is_refused_a_hundred_times_is_cut_as_who_speaks_3_is_at_the_first(world: World) -> None:
    world.authority.policies[b"c1"] = Patterns(publish=[], subscribe=["a"])
    client = await client5(world, "c")
    for number in range(REFUSALS_MAX - 1):
        if number % 2:
            assert await client.subscribe(("a", 0), ("b", 0)) == (0, Reason.NOT_AUTHORIZED)
        else:
            client.publish("a", b"", qos=1)
            assert isinstance(await client.next(), Puback)
    client.publish("a", b"", qos=1)
    assert await why_closed(client) is Reason.NOT_AUTHORIZED
