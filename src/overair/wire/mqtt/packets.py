"""MQTT control packets as values, and how MQTT 3.1.1 writes them; ``encoder5`` writes the same values as MQTT 5.

What MQTT 3.1.1 doesn't have (properties, reason codes, options of subscriptions) stays empty in it.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from overair.wire.mqtt.reasons import Reason

PROTOCOL_LEVEL_3_1_1: Final = 4
PROTOCOL_LEVEL_5: Final = 5

REMAINING_LENGTH_MAX: Final = 268_435_455
"""Section 2.2.3: four bytes of seven bits."""

ACCEPTED: Final = 0
UNACCEPTABLE_PROTOCOL_LEVEL: Final = 1
IDENTIFIER_REJECTED: Final = 2
SERVER_UNAVAILABLE: Final = 3
BAD_USER_NAME_OR_PASSWORD: Final = 4
NOT_AUTHORIZED: Final = 5
"""CONNACK return codes, section 3.2.2.3."""

SUBSCRIPTION_REFUSED: Final = 0x80
"""SUBACK return code, section 3.9.3."""

UNSUPPORTED_LEVEL_ANSWER: Final = b"\x20\x03\x00\x84\x00"
"""CONNACK "unsupported protocol version" in the form of MQTT 5, for peers that speak 5 or later."""


class MalformedPacket(Exception):
    """The peer broke the protocol; the connection must be closed (section 4.8). The message says which rule, ``reason`` what a
    peer that speaks MQTT 5 is told."""

    def __init__(self, message: str, *, reason: Reason = Reason.MALFORMED_PACKET) -> None:
        super().__init__(message)
        self.reason = reason
        self.answer = b""
        """What the peer may be told before the close, where no answer of its connection's version is agreed on yet."""


class UnsupportedLevel(MalformedPacket):
    """A CONNECT of another protocol level. ``answer`` is what the peer may be told before the close."""

    def __init__(self, level: int) -> None:
        super().__init__(
            f"MQTT protocol level {level} is not spoken here; levels 4 (MQTT 3.1.1) and 5 (MQTT 5) are.",
            reason=Reason.UNSUPPORTED_PROTOCOL_VERSION,
        )
        self.level = level
        self.answer = UNSUPPORTED_LEVEL_ANSWER if level > PROTOCOL_LEVEL_5 else encode_connack(UNACCEPTABLE_PROTOCOL_LEVEL)


PropertyValue: TypeAlias = int | bytes | str | tuple[str, str]
Properties: TypeAlias = tuple[tuple[int, PropertyValue], ...]
"""MQTT 5 properties as (identifier, value) in order; empty in 3.1.1."""


class Will(msgspec.Struct, frozen=True, kw_only=True):
    """The message that the server publishes if the connection ends without DISCONNECT (section 3.1.2.5)."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = ()


class Connect(msgspec.Struct, frozen=True, kw_only=True):
    """Section 3.1. ``clean_session`` is MQTT 5's Clean Start, too."""

    client_id: str
    clean_session: bool = True
    keep_alive_s: int = 0
    will: Will | None = None
    username: str | None = None
    password: bytes | None = None
    protocol_level: int = PROTOCOL_LEVEL_3_1_1
    properties: Properties = ()


class Connack(msgspec.Struct, frozen=True, kw_only=True):
    """Section 3.2."""

    return_code: int = ACCEPTED
    session_present: bool = False
    properties: Properties = ()


class Publish(msgspec.Struct, frozen=True, kw_only=True):
    """Section 3.3. ``packet_id`` is 0 at QoS 0."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    duplicate: bool = False
    packet_id: int = 0
    properties: Properties = ()


class Puback(msgspec.Struct, frozen=True, kw_only=True):
    """Section 3.4."""

    packet_id: int
    reason_code: int = 0
    properties: Properties = ()


class Pubrec(msgspec.Struct, frozen=True, kw_only=True):
    """Section 3.5."""

    packet_id: int
    reason_code: int = 0
    properties: Properties = ()


class Pubrel(msgspec.Struct, frozen=True, kw_only=True):
    """Section 3.6."""

    packet_id: int
    reason_code: int = 0
    properties: Properties = ()


class Pubcomp(msgspec.Struct, frozen=True, kw_only=True):
    """Section 3.7."""

    packet_id: int
    reason_code: int = 0
    properties: Properties = ()


class Subscribe(msgspec.Struct, frozen=True, kw_only=True):
    """Section 3.8. ``filters`` are (filter, QoS asked for), at least one. ``options`` has what MQTT 5 says more about each: the
    octet of its subscription options above the QoS; empty where none says anything."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]
    options: tuple[int, ...] = ()
    properties: Properties = ()


class Suback(msgspec.Struct, frozen=True, kw_only=True):
    """Section 3.9. One return code for each filter: the QoS granted, or ``SUBSCRIPTION_REFUSED``."""

    packet_id: int
    return_codes: tuple[int, ...]
    properties: Properties = ()


class Unsubscribe(msgspec.Struct, frozen=True, kw_only=True):
    """Section 3.10."""

    packet_id: int
    filters: tuple[str, ...]
    properties: Properties = ()


class Unsuback(msgspec.Struct, frozen=True, kw_only=True):
    """Section 3.11. One reason code for each filter in MQTT 5, none in 3.1.1."""

    packet_id: int
    reason_codes: tuple[int, ...] = ()
    properties: Properties = ()


class Pingreq(msgspec.Struct, frozen=True, kw_only=True):
    """Section 3.12."""


class Pingresp(msgspec.Struct, frozen=True, kw_only=True):
    """Section 3.13."""


class Disconnect(msgspec.Struct, frozen=True, kw_only=True):
    """Section 3.14."""

    reason_code: int = 0
    properties: Properties = ()


class Auth(msgspec.Struct, frozen=True, kw_only=True):
    """MQTT 5 section 3.15."""

    reason_code: int = 0
    properties: Properties = ()


Packet: TypeAlias = (
    Connect
    | Connack
    | Publish
    | Puback
    | Pubrec
    | Pubrel
    | Pubcomp
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)

PINGRESP_BYTES: Final = b"\xd0\x00"
PINGREQ_BYTES: Final = b"\xc0\x00"
DISCONNECT_BYTES: Final = b"\xe0\x00"

_TWO_BYTES_MAX: Final = 128 * 128
_LENGTHS: Final = tuple(
    bytes((length,)) if length < 128 else bytes((length & 127 | 128, length >> 7)) for length in range(_TWO_BYTES_MAX)
)
"""Remaining lengths of one and two bytes, made once: every block of up to 16 KiB takes its own from here."""


def encode_remaining_length(length: int) -> bytes:
    """Section 2.2.3: seven bits a byte, least significant first."""
    if length < _TWO_BYTES_MAX:
        return _LENGTHS[length]
    if length > REMAINING_LENGTH_MAX:
        raise ValueError(f"A packet of {length} bytes is longer than MQTT can say.")
    digits = bytearray()
    while length >= 128:
        digits.append(length & 127 | 128)
        length >>= 7
    digits.append(length)
    return bytes(digits)


def encode_text(text: str) -> bytes:
    """A length of two bytes, then UTF-8 (section 1.5.3)."""
    return encode_binary(text.encode())


def encode_binary(data: bytes) -> bytes:
    """A length of two bytes, then the bytes."""
    return len(data).to_bytes(2, "big") + data


def publish_pieces(encoded_topic: bytes, payload: bytes, *, flags: int = 0, packet_id: int = 0) -> tuple[bytes, bytes, bytes]:
    """A PUBLISH as pieces to be joined: (fixed header and topic, packet id or nothing, payload).

    The fast path: ``encoded_topic`` is ``encode_text(topic)``, kept by whoever sends many messages to one topic.
    ``flags`` is the low half of the first byte; ``packet_id`` is 0 at QoS 0.
    """
    if packet_id:
        length = len(encoded_topic) + 2 + len(payload)
        return bytes((0x30 | flags,)) + encode_remaining_length(length) + encoded_topic, packet_id.to_bytes(2, "big"), payload
    length = len(encoded_topic) + len(payload)
    first = b"\x30" if not flags else bytes((0x30 | flags,))
    return (
        first + (_LENGTHS[length] if length < _TWO_BYTES_MAX else encode_remaining_length(length)) + encoded_topic,
        b"",
        payload,
    )


def encode_publish(
    topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, duplicate: bool = False, packet_id: int = 0
) -> bytes:
    """Section 3.3."""
    return b"".join(publish_pieces(encode_text(topic), payload, flags=duplicate << 3 | qos << 1 | retain, packet_id=packet_id))


def encode_connack(return_code: int, *, session_present: bool = False) -> bytes:
    """Section 3.2."""
    return bytes((0x20, 2, session_present, return_code))


def encode_puback(packet_id: int) -> bytes:
    """Section 3.4: what a server says for every QoS 1 message it has taken."""
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def encode_suback(packet_id: int, return_codes: tuple[int, ...]) -> bytes:
    """Section 3.9."""
    return whole_packet(0x90, packet_id.to_bytes(2, "big") + bytes(return_codes))


def whole_packet(first: int, body: bytes) -> bytes:
    """A first byte, the length of what follows, and that."""
    return bytes((first,)) + encode_remaining_length(len(body)) + body


def connect_body(packet: Connect, level: int, *, properties: bytes = b"", will_properties: bytes = b"") -> bytes:
    """A CONNECT behind its fixed header (section 3.1); the properties are MQTT 5's, encoded."""
    flags = packet.clean_session << 1
    payload = [encode_text(packet.client_id)]
    if packet.will is not None:
        flags |= 0x04 | packet.will.qos << 3 | packet.will.retain << 5
        payload += [will_properties, encode_text(packet.will.topic), encode_binary(packet.will.payload)]
    if packet.username is not None:
        flags |= 0x80
        payload.append(encode_text(packet.username))
    if packet.password is not None:
        flags |= 0x40
        payload.append(encode_binary(packet.password))
    header = b"\x00\x04MQTT" + bytes((level, flags)) + packet.keep_alive_s.to_bytes(2, "big")
    return header + properties + b"".join(payload)


_ACKNOWLEDGEMENT_FIRST_BYTES: Final[dict[type, int]] = {Puback: 0x40, Pubrec: 0x50, Pubrel: 0x62, Pubcomp: 0x70, Unsuback: 0xB0}
_EMPTY_PACKETS: Final[dict[type, bytes]] = {Pingreq: PINGREQ_BYTES, Pingresp: PINGRESP_BYTES, Disconnect: DISCONNECT_BYTES}


def encode(packet: Packet) -> bytes:
    """The bytes of any packet of MQTT 3.1.1.

    Raises:
        ValueError: MQTT 3.1.1 has no such packet, or a field doesn't fit its place: a mistake of ours, not of a peer.
    """
    match packet:
        case Publish():
            return encode_publish(
                packet.topic,
                packet.payload,
                qos=packet.qos,
                retain=packet.retain,
                duplicate=packet.duplicate,
                packet_id=packet.packet_id,
            )
        case Connect():
            return whole_packet(0x10, connect_body(packet, packet.protocol_level))
        case Connack():
            return encode_connack(packet.return_code, session_present=packet.session_present)
        case Subscribe():
            filters = b"".join(encode_text(name) + bytes((qos,)) for name, qos in packet.filters)
            return whole_packet(0x82, packet.packet_id.to_bytes(2, "big") + filters)
        case Suback():
            return encode_suback(packet.packet_id, packet.return_codes)
        case Unsubscribe():
            return whole_packet(0xA2, packet.packet_id.to_bytes(2, "big") + b"".join(map(encode_text, packet.filters)))
        case Pingreq() | Pingresp() | Disconnect():
            return _EMPTY_PACKETS[type(packet)]
        case Auth():
            raise ValueError("MQTT 3.1.1 has no AUTH.")
        case _:
            return bytes((_ACKNOWLEDGEMENT_FIRST_BYTES[type(packet)], 2)) + packet.packet_id.to_bytes(2, "big")
