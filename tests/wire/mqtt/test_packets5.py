"""MQTT 5's codec: whatever is written is read as it was, and whatever else comes is refused with a reason."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overair.wire.mqtt.client import ClientConnection
from overair.wire.mqtt.decoder import Decoder, DecoderLimits, Receiver
from overair.wire.mqtt.encoder5 import encode_5
from overair.wire.mqtt.packets import (
    PROTOCOL_LEVEL_5,
    Auth,
    Connack,
    Connect,
    Disconnect,
    MalformedPacket,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
)
from overair.wire.mqtt.properties import Property, encode_properties, number_in, passed_on, text_in
from overair.wire.mqtt.reasons import (
    AUTH_CODES,
    CLIENT_DISCONNECT_CODES,
    CONNACK_CODES,
    PUBACK_CODES,
    PUBREL_CODES,
    SERVER_DISCONNECT_CODES,
    SUBACK_CODES,
    UNSUBACK_CODES,
    Reason,
)
from overair.wire.mqtt.topic_aliases import TopicAliases
from tests.wire.mqtt.test_packets import BINARY, FILTER, LIKELY, PACKET_ID, QOS, TEXT, TOPIC, cut, decode_all

SHORT = st.binary(max_size=20)
BIT = st.integers(0, 1)
NUMBER = st.integers(1, 65_535)
LONG_NUMBER = st.integers(1, 2**32 - 1)
P = Property
VALUES: dict[Property, st.SearchStrategy[int | str | bytes]] = {
    P.PAYLOAD_FORMAT_INDICATOR: BIT,
    P.MESSAGE_EXPIRY_INTERVAL: LONG_NUMBER,
    P.CONTENT_TYPE: TEXT,
    P.RESPONSE_TOPIC: TOPIC,
    P.CORRELATION_DATA: SHORT,
    P.SUBSCRIPTION_IDENTIFIER: st.integers(1, 268_435_455),
    P.SESSION_EXPIRY_INTERVAL: LONG_NUMBER,
    P.ASSIGNED_CLIENT_IDENTIFIER: TEXT,
    P.SERVER_KEEP_ALIVE: NUMBER,
    P.AUTHENTICATION_METHOD: TEXT,
    P.AUTHENTICATION_DATA: SHORT,
    P.REQUEST_PROBLEM_INFORMATION: BIT,
    P.WILL_DELAY_INTERVAL: LONG_NUMBER,
    P.REQUEST_RESPONSE_INFORMATION: BIT,
    P.RESPONSE_INFORMATION: TEXT,
    P.SERVER_REFERENCE: TEXT,
    P.REASON_STRING: TEXT,
    P.RECEIVE_MAXIMUM: NUMBER,
    P.TOPIC_ALIAS_MAXIMUM: NUMBER,
    P.TOPIC_ALIAS: NUMBER,
    P.MAXIMUM_QOS: BIT,
    P.RETAIN_AVAILABLE: BIT,
    P.MAXIMUM_PACKET_SIZE: LONG_NUMBER,
    P.WILDCARD_SUBSCRIPTION_AVAILABLE: BIT,
    P.SUBSCRIPTION_IDENTIFIER_AVAILABLE: BIT,
    P.SHARED_SUBSCRIPTION_AVAILABLE: BIT,
}
MESSAGE = (P.PAYLOAD_FORMAT_INDICATOR, P.MESSAGE_EXPIRY_INTERVAL, P.CONTENT_TYPE, P.RESPONSE_TOPIC, P.CORRELATION_DATA)


@st.composite
def properties(draw: st.DrawFn, *allowed: Property) -> Properties:
    """Some of these, each once, and user properties between them."""
    names = draw(st.lists(st.sampled_from(allowed), unique=True, max_size=4)) if allowed else []
    pairs = draw(st.lists(st.tuples(TEXT, TEXT), max_size=2))
    found = [(int(name), draw(VALUES[name])) for name in names] + [(int(P.USER_PROPERTY), pair) for pair in pairs]
    return tuple(draw(st.permutations(found)))


WILL = st.builds(
    Will, topic=TOPIC, payload=BINARY, qos=QOS, retain=st.booleans(), properties=properties(*MESSAGE, P.WILL_DELAY_INTERVAL)
)
CONNECT = st.builds(
    Connect,
    client_id=TEXT,
    clean_session=st.booleans(),
    keep_alive_s=st.integers(0, 65_535),
    will=st.none() | WILL,
    username=st.none() | TEXT,
    password=st.none() | BINARY,
    protocol_level=st.just(PROTOCOL_LEVEL_5),
    properties=properties(P.SESSION_EXPIRY_INTERVAL, P.RECEIVE_MAXIMUM, P.MAXIMUM_PACKET_SIZE, P.REQUEST_PROBLEM_INFORMATION),
)


@st.composite
def publishes(draw: st.DrawFn) -> Publish:
    qos = draw(QOS)
    aliased = draw(properties(P.TOPIC_ALIAS, *MESSAGE))
    has_alias = any(name == P.TOPIC_ALIAS for name, _ in aliased)
    return Publish(
        topic=draw(st.just("") | TOPIC) if has_alias else draw(TOPIC),
        payload=draw(BINARY),
        qos=qos,
        retain=draw(st.booleans()),
        duplicate=qos > 0 and draw(st.booleans()),
        packet_id=draw(PACKET_ID) if qos else 0,
        properties=aliased,
    )


def codes(allowed: frozenset[int]) -> st.SearchStrategy[int]:
    return st.sampled_from(sorted(allowed))


def lists_of(values: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(values, min_size=1, max_size=4).map(tuple)


ACKNOWLEDGED = properties(P.REASON_STRING)
EITHER_WAY = st.one_of(
    publishes(),
    *(
        st.builds(kind, packet_id=PACKET_ID, reason_code=codes(allowed), properties=ACKNOWLEDGED)
        for kind, allowed in ((Puback, PUBACK_CODES), (Pubrec, PUBACK_CODES), (Pubrel, PUBREL_CODES), (Pubcomp, PUBREL_CODES))
    ),
    st.builds(Auth, reason_code=codes(AUTH_CODES), properties=properties(P.AUTHENTICATION_METHOD, P.AUTHENTICATION_DATA)),
)


@st.composite
def subscribes(draw: st.DrawFn) -> Subscribe:
    filters = draw(st.lists(st.tuples(FILTER.filter(lambda name: not name.startswith("$share/")), QOS), min_size=1, max_size=4))
    options = tuple(draw(st.sampled_from([0, 0x04, 0x08, 0x10, 0x2C])) for _ in filters)
    return Subscribe(
        packet_id=draw(PACKET_ID),
        filters=tuple(filters),
        options=options if any(options) else (),
        properties=draw(properties(P.SUBSCRIPTION_IDENTIFIER)),
    )


TO_SERVER = st.one_of(
    EITHER_WAY,
    subscribes(),
    st.builds(Unsubscribe, packet_id=PACKET_ID, filters=lists_of(FILTER), properties=properties()),
    st.just(Pingreq()),
    st.builds(
        Disconnect,
        reason_code=codes(CLIENT_DISCONNECT_CODES),
        properties=properties(P.SESSION_EXPIRY_INTERVAL, P.REASON_STRING),
    ),
)
TO_CLIENT = st.one_of(
    EITHER_WAY,
    st.builds(Suback, packet_id=PACKET_ID, return_codes=lists_of(codes(SUBACK_CODES)), properties=ACKNOWLEDGED),
    st.builds(Unsuback, packet_id=PACKET_ID, reason_codes=lists_of(codes(UNSUBACK_CODES)), properties=ACKNOWLEDGED),
    st.just(Pingresp()),
    st.builds(
        Disconnect, reason_code=codes(SERVER_DISCONNECT_CODES), properties=properties(P.SERVER_REFERENCE, P.REASON_STRING)
    ),
)
CONNACK = st.builds(
    Connack,
    return_code=codes(CONNACK_CODES),
    session_present=st.booleans(),
    properties=properties(P.ASSIGNED_CLIENT_IDENTIFIER, P.SERVER_KEEP_ALIVE, P.MAXIMUM_QOS, P.SHARED_SUBSCRIPTION_AVAILABLE),
)
CUTS = st.lists(st.integers(0, 40), max_size=20)


@settings(max_examples=60, deadline=None)
@given(first=CONNECT, packets=st.lists(TO_SERVER, max_size=5), sizes=CUTS)
def test_what_a_client_says_round_trips_however_it_is_cut(first: Connect, packets: list[Packet], sizes: list[int]) -> None:
    data = b"".join(map(encode_5, [first, *packets]))
    decoder = Decoder(receiver=Receiver.SERVER, limits=DecoderLimits())
    assert decode_all(decoder, cut(data, sizes)) == [first, *packets]
    assert decoder.buffered_bytes == 0


@settings(max_examples=60, deadline=None)
@given(first=CONNACK, packets=st.lists(TO_CLIENT, max_size=5), sizes=CUTS)
def test_what_a_server_says_round_trips_however_it_is_cut(first: Connack, packets: list[Packet], sizes: list[int]) -> None:
    data = b"".join(map(encode_5, [first, *packets]))
    decoder = Decoder(receiver=Receiver.CLIENT, limits=DecoderLimits(), protocol_level=PROTOCOL_LEVEL_5)
    assert decode_all(decoder, cut(data, sizes)) == [first, *packets]


@settings(max_examples=60, deadline=None)
@given(data=st.one_of(st.binary(max_size=200), st.lists(LIKELY, max_size=5).map(b"".join)))
def test_arbitrary_bytes_raise_only_malformed_packet(data: bytes) -> None:
    for receiver, greeting in (
        (Receiver.SERVER, Connect(client_id="p", protocol_level=PROTOCOL_LEVEL_5)),
        (Receiver.CLIENT, Connack()),
    ):
        decoder = Decoder(receiver=receiver, limits=DecoderLimits(packet_size_bytes_max=4096), protocol_level=PROTOCOL_LEVEL_5)
        try:
            decode_all(decoder, [encode_5(greeting) + data])
        except MalformedPacket:
            continue
        assert decoder.buffered_bytes <= len(data)


@settings(max_examples=60, deadline=None)
@given(packet=st.one_of(CONNECT, TO_SERVER), flip=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_damaged_packet_is_read_or_refused_but_never_crashes(packet: Packet, flip: int, value: int) -> None:
    greeting = b"" if isinstance(packet, Connect) else encode_5(Connect(client_id="p", protocol_level=PROTOCOL_LEVEL_5))
    data = bytearray(encode_5(packet))
    data[flip % len(data)] = value
    decoder = Decoder(receiver=Receiver.SERVER, limits=DecoderLimits())
    with contextlib.suppress(MalformedPacket):
        decode_all(decoder, [greeting + bytes(data)])


def test_a_refused_connect_is_answered_in_the_version_that_it_speaks() -> None:
    connect = encode_5(Connect(client_id="p", protocol_level=PROTOCOL_LEVEL_5, properties=((P.TOPIC_ALIAS, 1),)))
    with pytest.raises(MalformedPacket) as refusal:
        decode_all(Decoder(receiver=Receiver.SERVER, limits=DecoderLimits()), [connect])
    assert refusal.value.answer.hex() == "2003008200"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([(P.RESPONSE_TOPIC, "a/+")], Reason.PROTOCOL_ERROR),
        ([(P.RESPONSE_TOPIC, "")], Reason.PROTOCOL_ERROR),
        ([(P.TOPIC_ALIAS, 0)], Reason.TOPIC_ALIAS_INVALID),
        ([(P.CONTENT_TYPE, "a"), (P.CONTENT_TYPE, "a")], Reason.PROTOCOL_ERROR),
        ([(P.SUBSCRIPTION_IDENTIFIER, 1)], Reason.PROTOCOL_ERROR),
        ([(P.SESSION_EXPIRY_INTERVAL, 1)], Reason.PROTOCOL_ERROR),
    ],
)
def test_a_publish_whose_properties_break_a_rule_is_told_which_kind(
    said: Sequence[tuple[int, int | str]], reason: Reason
) -> None:
    data = encode_5(Publish(topic="t", payload=b"", properties=tuple(said)))
    with pytest.raises(MalformedPacket) as refusal:
        decode_all(
            Decoder(receiver=Receiver.SERVER, limits=DecoderLimits()),
            [encode_5(Connect(client_id="p", protocol_level=PROTOCOL_LEVEL_5)), data],
        )
    assert refusal.value.reason is reason


def test_properties_are_found_by_name_and_only_a_messages_own_are_passed_on() -> None:
    said: Properties = (
        (P.USER_PROPERTY, ("b", "1")),
        (P.TOPIC_ALIAS, 3),
        (P.CONTENT_TYPE, "text/plain"),
        (P.MESSAGE_EXPIRY_INTERVAL, 9),
        (P.USER_PROPERTY, ("a", "2")),
    )
    assert number_in(said, P.MESSAGE_EXPIRY_INTERVAL, 0) == 9
    assert number_in(said, P.RECEIVE_MAXIMUM, 65_535) == 65_535
    assert text_in(said, P.CONTENT_TYPE) == "text/plain"
    assert text_in(said, P.RESPONSE_TOPIC) is None
    kept = ((P.USER_PROPERTY, ("b", "1")), (P.CONTENT_TYPE, "text/plain"), (P.USER_PROPERTY, ("a", "2")))
    assert passed_on(said) == kept
    assert encode_properties(()) == b"\x00"


def aliased(topic: str, alias: int) -> Publish:
    return Publish(topic=topic, payload=b"", properties=((P.TOPIC_ALIAS, alias),))


def test_an_alias_stands_for_the_topic_that_it_was_given_last() -> None:
    aliases = TopicAliases(2)
    assert aliases.resolve(Publish(topic="plain", payload=b"")) == "plain"
    assert [aliases.resolve(aliased(topic, 1)) for topic in ("a", "", "b", "")] == ["a", "a", "b", "b"]
    with pytest.raises(MalformedPacket) as unknown:
        aliases.resolve(aliased("", 2))
    assert unknown.value.reason is Reason.PROTOCOL_ERROR
    with pytest.raises(MalformedPacket) as too_high:
        aliases.resolve(aliased("a", 3))
    assert too_high.value.reason is Reason.TOPIC_ALIAS_INVALID


def test_a_client_speaks_the_version_that_it_was_made_for() -> None:
    client = ClientConnection(PROTOCOL_LEVEL_5)
    decoder = Decoder(receiver=Receiver.SERVER, limits=DecoderLimits())
    said = [
        client.connect("c", properties=((P.RECEIVE_MAXIMUM, 5),)),
        client.subscribe(("a/#", 1), options=(0x20,)),
        client.publish("a", b"1", qos=1, properties=((P.CONTENT_TYPE, "x"),)),
        client.unsubscribe("a/#"),
    ]
    assert decode_all(decoder, said) == [
        Connect(client_id="c", keep_alive_s=60, protocol_level=PROTOCOL_LEVEL_5, properties=((P.RECEIVE_MAXIMUM, 5),)),
        Subscribe(packet_id=1, filters=(("a/#", 1),), options=(0x20,)),
        Publish(topic="a", payload=b"1", qos=1, packet_id=2, properties=((P.CONTENT_TYPE, "x"),)),
        Unsubscribe(packet_id=3, filters=("a/#",)),
    ]
