"""What MQTT 5 packets look like, by direction; ``decoder`` finds where they begin and end.

CONNECT isn't here: it says itself which version it is, so one parser reads both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from overair.wire.mqtt.body import Body, text_of
from overair.wire.mqtt.packets import (
    Auth,
    Connack,
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
)
from overair.wire.mqtt.properties import Place, Property, number_in, read_properties
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

NO_LOCAL: Final = 0x04
RETAIN_AS_PUBLISHED: Final = 0x08
RETAIN_HANDLING: Final = 0x30
"""Bits of a subscription's options (section 3.8.3.1)."""
SHARED_PREFIX: Final = "$share/"


def _publish(flags: int, data: bytes, start: int, end: int, *, is_from_client: bool) -> Publish:
    qos = flags >> 1 & 3
    if qos == 3:
        raise MalformedPacket("QoS 3 does not exist (section 3.3.1.2).")
    if not qos and flags & 8:
        raise MalformedPacket("DUP must be 0 at QoS 0 (section 3.3.1.1).")
    body = Body(data, start, end)
    topic = text_of(body.binary())
    if "+" in topic or "#" in topic:
        raise MalformedPacket("A PUBLISH's topic must not hold wildcards (section 3.3.2.1).")
    packet_id = body.packet_id() if qos else 0
    properties = read_properties(body, Place.PUBLISH)
    if not topic and not number_in(properties, Property.TOPIC_ALIAS, 0):
        raise MalformedPacket("A PUBLISH needs a topic or a topic alias (section 3.3.2.1).", reason=Reason.PROTOCOL_ERROR)
    if is_from_client and number_in(properties, Property.SUBSCRIPTION_IDENTIFIER, 0):
        raise MalformedPacket(
            "A client's PUBLISH must not carry a subscription identifier (section 3.3.4).", reason=Reason.PROTOCOL_ERROR
        )
    return Publish(
        topic=topic,
        payload=body.rest(),
        qos=qos,
        retain=flags & 1 == 1,
        duplicate=flags & 8 == 8,
        packet_id=packet_id,
        properties=properties,
    )


def publish_from_client(flags: int, data: bytes, start: int, end: int) -> Publish:
    """A PUBLISH as a server reads it. Its topic is empty where an alias stands for it."""
    return _publish(flags, data, start, end, is_from_client=True)


def publish_from_server(flags: int, data: bytes, start: int, end: int) -> Publish:
    """A PUBLISH as a client reads it."""
    return _publish(flags, data, start, end, is_from_client=False)


def _code(code: int, allowed: frozenset[int], packet: str) -> int:
    if code not in allowed:
        raise MalformedPacket(f"A {packet} doesn't have the reason code 0x{code:02X}.", reason=Reason.PROTOCOL_ERROR)
    return code


def _connack(body: Body) -> Connack:
    flags = body.byte()
    if flags > 1:
        raise MalformedPacket("Reserved CONNACK flags must be 0 (section 3.2.2.1).")
    code = _code(body.byte(), CONNACK_CODES, "CONNACK")
    packet = Connack(session_present=flags == 1, return_code=code, properties=read_properties(body, Place.CONNACK))
    body.end()
    return packet


def _acknowledgement(packet: type[Puback | Pubrec | Pubrel | Pubcomp], codes: frozenset[int]) -> Callable[[Body], Packet]:
    name = packet.__name__.upper()

    def parse(body: Body) -> Packet:
        packet_id = body.packet_id()
        if body.is_empty:
            return packet(packet_id=packet_id)
        code = _code(body.byte(), codes, name)
        properties = () if body.is_empty else read_properties(body, Place.ACKNOWLEDGEMENT)
        body.end()
        return packet(packet_id=packet_id, reason_code=code, properties=properties)

    return parse


def _subscribe(body: Body) -> Subscribe:
    packet_id = body.packet_id()
    properties = read_properties(body, Place.SUBSCRIBE)
    filters: list[tuple[str, int]] = []
    options: list[int] = []
    while not body.is_empty:
        name = body.filter()
        octet = body.byte()
        if octet & 3 == 3 or octet & 0xC0 or octet & RETAIN_HANDLING == RETAIN_HANDLING:
            raise MalformedPacket("A subscription's options ask for what doesn't exist (section 3.8.3.1).")
        if octet & NO_LOCAL and name.startswith(SHARED_PREFIX):
            raise MalformedPacket(
                "A shared subscription can't leave out its own messages (section 3.8.3.1).", reason=Reason.PROTOCOL_ERROR
            )
        filters.append((name, octet & 3))
        options.append(octet & 0xFC)
    if not filters:
        raise MalformedPacket("A SUBSCRIBE names no filter (section 3.8.3).", reason=Reason.PROTOCOL_ERROR)
    return Subscribe(
        packet_id=packet_id, filters=tuple(filters), options=tuple(options) if any(options) else (), properties=properties
    )


def _suback(body: Body) -> Suback:
    packet_id = body.packet_id()
    properties = read_properties(body, Place.ACKNOWLEDGEMENT)
    codes = tuple(_code(code, SUBACK_CODES, "SUBACK") for code in body.rest())
    if not codes:
        raise MalformedPacket("A SUBACK has a reason code for each filter (section 3.9.3).", reason=Reason.PROTOCOL_ERROR)
    return Suback(packet_id=packet_id, return_codes=codes, properties=properties)


def _unsubscribe(body: Body) -> Unsubscribe:
    packet_id = body.packet_id()
    properties = read_properties(body, Place.UNSUBSCRIBE)
    filters: list[str] = []
    while not body.is_empty:
        filters.append(body.filter())
    if not filters:
        raise MalformedPacket("An UNSUBSCRIBE names no filter (section 3.10.3).", reason=Reason.PROTOCOL_ERROR)
    return Unsubscribe(packet_id=packet_id, filters=tuple(filters), properties=properties)


def _unsuback(body: Body) -> Unsuback:
    packet_id = body.packet_id()
    properties = read_properties(body, Place.ACKNOWLEDGEMENT)
    codes = tuple(_code(code, UNSUBACK_CODES, "UNSUBACK") for code in body.rest())
    if not codes:
        raise MalformedPacket("An UNSUBACK has a reason code for each filter (section 3.11.3).", reason=Reason.PROTOCOL_ERROR)
    return Unsuback(packet_id=packet_id, reason_codes=codes, properties=properties)


def _disconnect(codes: frozenset[int], *, is_from_client: bool) -> Callable[[Body], Packet]:
    def parse(body: Body) -> Packet:
        if body.is_empty:
            return Disconnect()
        code = _code(body.byte(), codes, "DISCONNECT")
        properties = () if body.is_empty else read_properties(body, Place.DISCONNECT)
        body.end()
        # Section 3.14.2.2: each of these two goes one way only.
        wrong = Property.SERVER_REFERENCE if is_from_client else Property.SESSION_EXPIRY_INTERVAL
        if any(name == wrong for name, _ in properties):
            raise MalformedPacket(f"A DISCONNECT carries {wrong.name} the other way only.", reason=Reason.PROTOCOL_ERROR)
        return Disconnect(reason_code=code, properties=properties)

    return parse


def _auth(body: Body) -> Auth:
    if body.is_empty:
        return Auth()
    code = _code(body.byte(), AUTH_CODES, "AUTH")
    packet = Auth(reason_code=code, properties=() if body.is_empty else read_properties(body, Place.AUTH))
    body.end()
    return packet


def _empty(packet: Packet) -> Callable[[Body], Packet]:
    def parse(body: Body) -> Packet:
        body.end()
        return packet

    return parse


_EITHER_WAY: Final[dict[int, Callable[[Body], Packet]]] = {
    0x40: _acknowledgement(Puback, PUBACK_CODES),
    0x50: _acknowledgement(Pubrec, PUBACK_CODES),
    0x62: _acknowledgement(Pubrel, PUBREL_CODES),
    0x70: _acknowledgement(Pubcomp, PUBREL_CODES),
    0xF0: _auth,
}
TO_SERVER_5: Final[dict[int, Callable[[Body], Packet]]] = {
    **_EITHER_WAY,
    0x82: _subscribe,
    0xA2: _unsubscribe,
    0xC0: _empty(Pingreq()),
    0xE0: _disconnect(CLIENT_DISCONNECT_CODES, is_from_client=True),
}
TO_CLIENT_5: Final[dict[int, Callable[[Body], Packet]]] = {
    **_EITHER_WAY,
    0x20: _connack,
    0x90: _suback,
    0xB0: _unsuback,
    0xD0: _empty(Pingresp()),
    0xE0: _disconnect(SERVER_DISCONNECT_CODES, is_from_client=False),
}
"""By first byte, flags included: section 2.1.3 fixes them for all but PUBLISH."""
