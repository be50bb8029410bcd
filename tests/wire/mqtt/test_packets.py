from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from overair.wire.mqtt.decoder import Decoder, DecoderLimits, Receiver
from overair.wire.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    MalformedPacket,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    UnsupportedLevel,
    Will,
    encode,
)
from overair.wire.topics import is_valid_filter, is_valid_text, is_valid_topic

PACKET_ID = st.integers(1, 65535)
TEXT = st.text(max_size=30).filter(is_valid_text)
TOPIC = TEXT.filter(is_valid_topic)
FILTER = st.one_of(TOPIC, st.sampled_from(["#", "+", "a/+/b", "a/#", "+/+/#"])).filter(is_valid_filter)
QOS = st.integers(0, 2)
BINARY = st.binary(max_size=300)
WILL = st.builds(Will, topic=TOPIC, payload=BINARY, qos=QOS, retain=st.booleans())


@st.composite
def connects(draw: st.DrawFn) -> Connect:
    username = draw(st.none() | TEXT)
    return Connect(
        client_id=draw(TEXT),
        clean_session=draw(st.booleans()),
        keep_alive_s=draw(st.integers(0, 65535)),
        will=draw(st.none() | WILL),
        username=username,
        password=None if username is None else draw(st.none() | BINARY),
    )


@st.composite
def publishes(draw: st.DrawFn) -> Publish:
    qos = draw(QOS)
    return Publish(
        topic=draw(TOPIC),
        payload=draw(BINARY | st.integers(16_000, 17_000).map(bytes)),
        qos=qos,
        retain=draw(st.booleans()),
        duplicate=qos > 0 and draw(st.booleans()),
        packet_id=draw(PACKET_ID) if qos else 0,
    )


EITHER_WAY = st.one_of(publishes(), *(st.builds(kind, packet_id=PACKET_ID) for kind in (Puback, Pubrec, Pubrel, Pubcomp)))
TO_SERVER = st.one_of(
    EITHER_WAY,
    st.builds(Subscribe, packet_id=PACKET_ID, filters=st.lists(st.tuples(FILTER, QOS), min_size=1, max_size=5).map(tuple)),
    st.builds(Unsubscribe, packet_id=PACKET_ID, filters=st.lists(FILTER, min_size=1, max_size=5).map(tuple)),
    st.just(Pingreq()),
    st.just(Disconnect()),
)
TO_CLIENT = st.one_of(
    EITHER_WAY,
    st.builds(
        Suback, packet_id=PACKET_ID, return_codes=st.lists(st.sampled_from([0, 1, 2, 0x80]), min_size=1, max_size=5).map(tuple)
    ),
    st.builds(Unsuback, packet_id=PACKET_ID),
    st.just(Pingresp()),
)


def decode_all(decoder: Decoder, chunks: list[bytes]) -> list[Packet]:
    packets = []
    for chunk in chunks:
        decoder.feed(chunk)
        while (packet := decoder.next_packet()) is not None:
            packets.append(packet)
    return packets


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks = []
    for size in sizes:
        chunks.append(data[:size])
        data = data[size:]
    return [*chunks, data]


@given(first=connects(), packets=st.lists(TO_SERVER, max_size=6), sizes=st.lists(st.integers(0, 40), max_size=20))
def test_what_a_client_says_round_trips_however_it_is_cut(first: Connect, packets: list[Packet], sizes: list[int]) -> None:
    data = b"".join(map(encode, [first, *packets]))
    decoder = Decoder(receiver=Receiver.SERVER, limits=DecoderLimits())
    assert decode_all(decoder, cut(data, sizes)) == [first, *packets]
    assert decoder.buffered_bytes == 0


@given(
    first=st.builds(Connack, return_code=st.integers(0, 5), session_present=st.booleans()),
    packets=st.lists(TO_CLIENT, max_size=6),
    sizes=st.lists(st.integers(0, 40), max_size=20),
)
def test_what_a_server_says_round_trips_however_it_is_cut(first: Connack, packets: list[Packet], sizes: list[int]) -> None:
    data = b"".join(map(encode, [first, *packets]))
    assert decode_all(Decoder(receiver=Receiver.CLIENT, limits=DecoderLimits()), cut(data, sizes)) == [first, *packets]


CONNECT_BYTES = encode(Connect(client_id="p"))
FIRST_BYTES = st.sampled_from([0x30, 0x31, 0x32, 0x34, 0x3D, 0x40, 0x50, 0x62, 0x70, 0x82, 0xA2, 0xC0, 0xE0, 0x10, 0x90, 0xF0])
LIKELY = st.builds(
    lambda first, body, extra: bytes([first, max(0, min(127, len(body) + extra))]) + body,
    FIRST_BYTES,
    st.binary(max_size=40),
    st.integers(-2, 2),
)


@given(data=st.one_of(st.binary(max_size=200), st.lists(LIKELY, max_size=5).map(b"".join)), greeted=st.booleans())
@example(data=b"\x10\xff\xff\xff\xff\x01", greeted=False)
def test_arbitrary_bytes_raise_only_malformed_packet(data: bytes, greeted: bool) -> None:
    for receiver, greeting in ((Receiver.SERVER, CONNECT_BYTES), (Receiver.CLIENT, encode(Connack()))):
        decoder = Decoder(receiver=receiver, limits=DecoderLimits(packet_size_bytes_max=4096))
        try:
            decode_all(decoder, [greeting + data if greeted else data])
        except MalformedPacket:
            continue
        assert decoder.buffered_bytes <= len(data)


@given(first=connects(), flip=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_damaged_connect_is_read_or_refused_but_never_crashes(first: Connect, flip: int, value: int) -> None:
    data = bytearray(encode(first))
    data[flip % len(data)] = value
    decoder = Decoder(receiver=Receiver.SERVER, limits=DecoderLimits())
    with contextlib.suppress(MalformedPacket):
        decode_all(decoder, [bytes(data)])


def test_a_packet_over_the_limit_is_refused_by_its_declared_length_alone() -> None:
    decoder = Decoder(receiver=Receiver.SERVER, limits=DecoderLimits(packet_size_bytes_max=1000))
    decoder.feed(CONNECT_BYTES + b"\x30\xe9\x07")
    assert decoder.next_packet() == Connect(client_id="p")
    with pytest.raises(MalformedPacket, match="declares 1001 bytes; 1000 are allowed"):
        decoder.next_packet()


def test_a_connect_may_be_longer_than_later_packets_up_to_its_own_limit() -> None:
    will = Will(topic="t", payload=bytes(60_000))
    limits = DecoderLimits(packet_size_bytes_max=1000, connect_size_bytes_max=70_000)
    assert decode_all(Decoder(receiver=Receiver.SERVER, limits=limits), [encode(Connect(client_id="p", will=will))])
    limits = DecoderLimits(connect_size_bytes_max=50_000)
    with pytest.raises(MalformedPacket):
        decode_all(Decoder(receiver=Receiver.SERVER, limits=limits), [encode(Connect(client_id="p", will=will))[:5]])


def test_the_wrong_first_byte_is_refused_before_a_second_one_came() -> None:
    decoder = Decoder(receiver=Receiver.SERVER, limits=DecoderLimits())
    decoder.feed(b"\x16")  # a TLS ClientHello on the wrong port
    with pytest.raises(MalformedPacket):
        decoder.next_packet()


@pytest.mark.parametrize(("level", "answer"), [(3, "20020001"), (6, "2003008400")])
def test_another_protocol_level_is_answered_in_words_that_its_speaker_knows(level: int, answer: str) -> None:
    decoder = Decoder(receiver=Receiver.SERVER, limits=DecoderLimits())
    decoder.feed(encode(Connect(client_id="p", protocol_level=level)))
    with pytest.raises(UnsupportedLevel) as refusal:
        decoder.next_packet()
    assert refusal.value.answer.hex() == answer


def test_many_small_chunks_of_a_large_packet_cost_one_copy_each() -> None:
    message = Publish(topic="t", payload=bytes(900_000))
    decoder = Decoder(receiver=Receiver.SERVER, limits=DecoderLimits())
    data = CONNECT_BYTES + encode(message)
    assert decode_all(decoder, [data[i : i + 100] for i in range(0, len(data), 100)])[1] == message
