from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overair.wire.websocket import (
    BrokenFrame,
    Close,
    CloseCode,
    Data,
    Event,
    FrameDecoder,
    HandshakeRefused,
    Ping,
    answer_handshake,
    close_payload,
    encode_close,
    encode_data,
    encode_pong,
)

MASK = b"\x01\xfe\x00\x7f"


def masked(frame: bytes, mask: bytes = MASK) -> bytes:
    """A server's frame as a client sends it."""
    size = frame[1] & 0x7F
    start = 2 + {126: 2, 127: 8}.get(size, 0)
    payload = bytes(octet ^ mask[place % 4] for place, octet in enumerate(frame[start:]))
    return bytes((frame[0], frame[1] | 0x80)) + frame[2:start] + mask + payload


def ping(payload: bytes) -> bytes:
    pong = encode_pong(payload)
    return masked(bytes((0x89,)) + pong[1:])


def heard(chunks: list[bytes]) -> list[Event]:
    """Events, with neighbouring pieces of data as one."""
    decoder = FrameDecoder()
    found: list[Event] = []
    for chunk in chunks:
        for event in decoder.receive(chunk):
            if isinstance(event, Data) and found and isinstance(found[-1], Data):
                found[-1] = Data(found[-1].payload + event.payload)
            else:
                found.append(event)
    return found


SIZES = st.one_of(st.binary(max_size=200), st.sampled_from([125, 126, 127, 65_535, 65_536]).map(lambda size: os.urandom(size)))


@settings(max_examples=60, deadline=None)
@given(
    payloads=st.lists(SIZES, max_size=4),
    cuts=st.lists(st.integers(1, 70), max_size=30),
    mask=st.binary(min_size=4, max_size=4),
    fragment=st.booleans(),
)
def test_what_a_client_sends_comes_through_however_it_is_cut(
    payloads: list[bytes], cuts: list[int], mask: bytes, fragment: bool
) -> None:
    data = b""
    for payload in payloads:
        if fragment:
            first, rest = encode_data(payload[:3]), encode_data(payload[3:])
            data += masked(bytes((0x02,)) + first[1:], mask) + ping(b"!") + masked(bytes((0x80,)) + rest[1:], mask)
        else:
            data += masked(encode_data(payload), mask)
    chunks = []
    for size in cuts:
        chunks.append(data[:size])
        data = data[size:]
    events = heard([*chunks, data])
    assert b"".join(event.payload for event in events if isinstance(event, Data)) == b"".join(payloads)
    assert events.count(Ping(b"!")) == (len(payloads) if fragment else 0)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=100))
def test_arbitrary_bytes_raise_only_their_own_error_and_hold_little(data: bytes) -> None:
    decoder = FrameDecoder()
    with contextlib.suppress(BrokenFrame):
        for event in decoder.receive(data):
            assert isinstance(event, (Data, Ping, Close))
        assert decoder.buffered_bytes <= 14 + 125


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x82\x01a", CloseCode.PROTOCOL_ERROR),  # not masked
        (b"\xc2\x80" + MASK, CloseCode.PROTOCOL_ERROR),  # an extension's bit
        (b"\x81\x80" + MASK, CloseCode.UNSUPPORTED_DATA),  # text
        (b"\x83\x80" + MASK, CloseCode.PROTOCOL_ERROR),  # a kind that isn't
        (b"\x8b\x80" + MASK, CloseCode.PROTOCOL_ERROR),
        (b"\x80\x80" + MASK, CloseCode.PROTOCOL_ERROR),  # goes on with nothing
        (b"\x02\x80" + MASK + b"\x82\x80" + MASK, CloseCode.PROTOCOL_ERROR),  # begins in the middle
        (b"\x09\x80" + MASK, CloseCode.PROTOCOL_ERROR),  # a ping in pieces
        (b"\x89\xfe\x00\x7e" + MASK, CloseCode.PROTOCOL_ERROR),  # a ping of 126 octets
        (b"\x82\xfe\x00\x01" + MASK, CloseCode.PROTOCOL_ERROR),  # a size in more octets than it needs
        (b"\x82\xff" + bytes(7) + b"\x05" + MASK, CloseCode.PROTOCOL_ERROR),
        (b"\x82\xff\x80" + bytes(7) + MASK, CloseCode.PROTOCOL_ERROR),  # more than 2 to the 63
        (masked(b"\x88\x01\x03"), CloseCode.PROTOCOL_ERROR),
    ],
)
def test_a_broken_frame_is_told_its_code(frame: bytes, code: CloseCode) -> None:
    with pytest.raises(BrokenFrame) as broken:
        heard([frame])
    assert broken.value.code is code


def test_a_close_is_said_back_and_pongs_are_nothing() -> None:
    data = masked(encode_pong(b"x")) + masked(encode_close(close_payload(CloseCode.NORMAL) + b"bye"))
    assert heard([data]) == [Close(b"\x03\xe8")]
    assert heard([masked(encode_close(b""))]) == [Close(b"")]


REQUEST = (
    (b"upgrade", b"websocket"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    (b"sec-websocket-protocol", b"mqttv3.1, mqtt"),
)


def test_a_handshake_is_answered_as_the_standards_own_example() -> None:
    answer = dict(answer_handshake(REQUEST, protocol="mqtt"))
    assert answer[b"sec-websocket-accept"] == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert answer[b"sec-websocket-protocol"] == b"mqtt"


@pytest.mark.parametrize("leave_out", [1, 2, 3])
@pytest.mark.parametrize("instead", [None, b"nonsense"])
def test_a_handshake_that_lacks_what_it_needs_is_refused(leave_out: int, instead: bytes | None) -> None:
    headers = list(REQUEST)
    name, _ = headers.pop(leave_out)
    if instead is not None:
        headers.append((name, instead))
    with pytest.raises(HandshakeRefused):
        answer_handshake(headers, protocol="mqtt")
