"""Properties of MQTT 5 (section 2.2.2): which there are, what each holds, and which packet may carry it.

A packet's properties are kept as (identifier, value) in the order in which they came: whoever passes a message on passes them
on in that order, as user properties must be.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final

from overair.wire.mqtt.body import Body
from overair.wire.mqtt.packets import (
    MalformedPacket,
    Properties,
    PropertyValue,
    encode_binary,
    encode_remaining_length,
    encode_text,
)
from overair.wire.mqtt.reasons import Reason
from overair.wire.topics import is_valid_topic


class Property(IntEnum):
    """By the standard's name."""

    PAYLOAD_FORMAT_INDICATOR = 0x01
    MESSAGE_EXPIRY_INTERVAL = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_IDENTIFIER = 0x0B
    SESSION_EXPIRY_INTERVAL = 0x11
    ASSIGNED_CLIENT_IDENTIFIER = 0x12
    SERVER_KEEP_ALIVE = 0x13
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM_INFORMATION = 0x17
    WILL_DELAY_INTERVAL = 0x18
    REQUEST_RESPONSE_INFORMATION = 0x19
    RESPONSE_INFORMATION = 0x1A
    SERVER_REFERENCE = 0x1C
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    RETAIN_AVAILABLE = 0x25
    USER_PROPERTY = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    WILDCARD_SUBSCRIPTION_AVAILABLE = 0x28
    SUBSCRIPTION_IDENTIFIER_AVAILABLE = 0x29
    SHARED_SUBSCRIPTION_AVAILABLE = 0x2A


class Place(IntEnum):
    """What carries properties. A will's stand in CONNECT's payload, apart from CONNECT's own."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    ACKNOWLEDGEMENT = 4
    """PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK."""
    SUBSCRIBE = 5
    UNSUBSCRIBE = 6
    DISCONNECT = 7
    AUTH = 8
    WILL = 9


_P = Property
_MESSAGE: Final = frozenset(
    {_P.PAYLOAD_FORMAT_INDICATOR, _P.MESSAGE_EXPIRY_INTERVAL, _P.CONTENT_TYPE, _P.RESPONSE_TOPIC, _P.CORRELATION_DATA}
)
"""What belongs to a message wherever it goes, beside its user properties."""
_ALLOWED: Final[dict[Place, frozenset[int]]] = {
    Place.CONNECT: frozenset(
        {
            _P.SESSION_EXPIRY_INTERVAL,
            _P.AUTHENTICATION_METHOD,
            _P.AUTHENTICATION_DATA,
            _P.REQUEST_PROBLEM_INFORMATION,
            _P.REQUEST_RESPONSE_INFORMATION,
            _P.RECEIVE_MAXIMUM,
            _P.TOPIC_ALIAS_MAXIMUM,
            _P.USER_PROPERTY,
            _P.MAXIMUM_PACKET_SIZE,
        }
    ),
    Place.CONNACK: frozenset(
        {
            _P.SESSION_EXPIRY_INTERVAL,
            _P.ASSIGNED_CLIENT_IDENTIFIER,
            _P.SERVER_KEEP_ALIVE,
            _P.AUTHENTICATION_METHOD,
            _P.AUTHENTICATION_DATA,
            _P.RESPONSE_INFORMATION,
            _P.SERVER_REFERENCE,
            _P.REASON_STRING,
            _P.RECEIVE_MAXIMUM,
            _P.TOPIC_ALIAS_MAXIMUM,
            _P.MAXIMUM_QOS,
            _P.RETAIN_AVAILABLE,
            _P.USER_PROPERTY,
            _P.MAXIMUM_PACKET_SIZE,
            _P.WILDCARD_SUBSCRIPTION_AVAILABLE,
            _P.SUBSCRIPTION_IDENTIFIER_AVAILABLE,
            _P.SHARED_SUBSCRIPTION_AVAILABLE,
        }
    ),
    Place.PUBLISH: _MESSAGE | {_P.SUBSCRIPTION_IDENTIFIER, _P.TOPIC_ALIAS, _P.USER_PROPERTY},
    Place.WILL: _MESSAGE | {_P.WILL_DELAY_INTERVAL, _P.USER_PROPERTY},
    Place.ACKNOWLEDGEMENT: frozenset({_P.REASON_STRING, _P.USER_PROPERTY}),
    Place.SUBSCRIBE: frozenset({_P.SUBSCRIPTION_IDENTIFIER, _P.USER_PROPERTY}),
    Place.UNSUBSCRIBE: frozenset({_P.USER_PROPERTY}),
    Place.DISCONNECT: frozenset({_P.SESSION_EXPIRY_INTERVAL, _P.SERVER_REFERENCE, _P.REASON_STRING, _P.USER_PROPERTY}),
    Place.AUTH: frozenset({_P.AUTHENTICATION_METHOD, _P.AUTHENTICATION_DATA, _P.REASON_STRING, _P.USER_PROPERTY}),
}
"""Table 2-4."""

PASSED_ON: Final = _MESSAGE | {_P.USER_PROPERTY}
"""What a message's receivers get of what its publisher said."""


def _pair(body: Body) -> tuple[str, str]:
    return body.text(), body.text()


_BYTES: Final = frozenset(
    {
        _P.PAYLOAD_FORMAT_INDICATOR,
        _P.REQUEST_PROBLEM_INFORMATION,
        _P.REQUEST_RESPONSE_INFORMATION,
        _P.MAXIMUM_QOS,
        _P.RETAIN_AVAILABLE,
        _P.WILDCARD_SUBSCRIPTION_AVAILABLE,
        _P.SUBSCRIPTION_IDENTIFIER_AVAILABLE,
        _P.SHARED_SUBSCRIPTION_AVAILABLE,
    }
)
_NUMBERS: Final = frozenset({_P.SERVER_KEEP_ALIVE, _P.RECEIVE_MAXIMUM, _P.TOPIC_ALIAS_MAXIMUM, _P.TOPIC_ALIAS})
_LONG_NUMBERS: Final = frozenset(
    {_P.MESSAGE_EXPIRY_INTERVAL, _P.SESSION_EXPIRY_INTERVAL, _P.WILL_DELAY_INTERVAL, _P.MAXIMUM_PACKET_SIZE}
)
_BINARIES: Final = frozenset({_P.CORRELATION_DATA, _P.AUTHENTICATION_DATA})

_READ: Final[dict[int, Callable[[Body], PropertyValue]]] = {
    **dict.fromkeys(Property, Body.text),
    **dict.fromkeys(_BYTES, Body.byte),
    **dict.fromkeys(_NUMBERS, Body.number),
    **dict.fromkeys(_LONG_NUMBERS, Body.long_number),
    **dict.fromkeys(_BINARIES, Body.binary),
    _P.SUBSCRIPTION_IDENTIFIER: Body.variable_number,
    _P.USER_PROPERTY: _pair,
}
_NEVER_ZERO: Final = frozenset({_P.RECEIVE_MAXIMUM, _P.MAXIMUM_PACKET_SIZE, _P.SUBSCRIPTION_IDENTIFIER})


def read_properties(body: Body, place: Place) -> Properties:
    """The properties that stand next in a packet.

    Raises:
        MalformedPacket: cut, unknown, in a packet that may not carry them, more than once, or with a value that isn't one.
    """
    size = body.variable_number()
    if not size:
        return ()
    part = body.part(size)
    found: list[tuple[int, PropertyValue]] = []
    seen: set[int] = set()
    allowed = _ALLOWED[place]
    while not part.is_empty:
        name = part.variable_number()
        read = _READ.get(name)
        if read is None:
            raise MalformedPacket(f"There is no property 0x{name:02X} (section 2.2.2.2).")
        value = read(part)
        if name not in allowed:
            raise _wrong(f"A {place.name} must not carry the property {Property(name).name} (section 2.2.2.2).")
        if name in seen:
            raise _wrong(f"The property {Property(name).name} stands twice in one packet.")
        if name != _P.USER_PROPERTY:
            seen.add(name)
            _check(name, value)
        found.append((name, value))
    return tuple(found)


def _check(name: int, value: PropertyValue) -> None:
    if name in _BYTES:
        if value not in (0, 1):
            raise _wrong(f"The property {Property(name).name} is 0 or 1.")
    elif name in _NEVER_ZERO:
        if not value:
            raise _wrong(f"The property {Property(name).name} must not be 0.")
    elif name == _P.TOPIC_ALIAS:
        if not value:
            raise MalformedPacket("A topic alias must not be 0 (section 3.3.2.3.4).", reason=Reason.TOPIC_ALIAS_INVALID)
    elif name == _P.RESPONSE_TOPIC and not (isinstance(value, str) and is_valid_topic(value)):
        raise _wrong("A response topic must not be empty or hold wildcards (section 3.3.2.3.5).")


def _wrong(message: str) -> MalformedPacket:
    return MalformedPacket(message, reason=Reason.PROTOCOL_ERROR)


def encode_properties(properties: Properties) -> bytes:
    """With their length in front; a zero where there are none."""
    if not properties:
        return b"\x00"
    data = b"".join([_encode(name, value) for name, value in properties])
    return encode_remaining_length(len(data)) + data


def _encode(name: int, value: PropertyValue) -> bytes:
    first = bytes((name,))
    if isinstance(value, str):
        return first + encode_text(value)
    if isinstance(value, bytes):
        return first + encode_binary(value)
    if isinstance(value, tuple):
        return first + encode_text(value[0]) + encode_text(value[1])
    if name in _BYTES:
        return first + value.to_bytes(1, "big")
    if name in _NUMBERS:
        return first + value.to_bytes(2, "big")
    if name in _LONG_NUMBERS:
        return first + value.to_bytes(4, "big")
    return first + encode_remaining_length(value)


def number_in(properties: Properties, name: Property, default: int) -> int:
    """A property's number, or ``default`` where it isn't there."""
    for each, value in properties:
        if each == name:
            assert isinstance(value, int)
            return value
    return default


def text_in(properties: Properties, name: Property) -> str | None:
    """A property's text, or None."""
    for each, value in properties:
        if each == name:
            assert isinstance(value, str)
            return value
    return None


def passed_on(properties: Properties) -> Properties:
    """What a message's receivers get, but for its expiry, which is counted down wherever the message waits."""
    if not properties:
        return ()
    return tuple(each for each in properties if each[0] in PASSED_ON and each[0] != _P.MESSAGE_EXPIRY_INTERVAL)
