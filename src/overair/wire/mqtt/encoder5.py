"""How MQTT 5 writes packets."""

from __future__ import annotations

from overair.wire.mqtt.packets import (
    PINGREQ_BYTES,
    PINGRESP_BYTES,
    PROTOCOL_LEVEL_5,
    Auth,
    Connack,
    Connect,
    Disconnect,
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
    connect_body,
    encode_remaining_length,
    encode_text,
    whole_packet,
)
from overair.wire.mqtt.properties import encode_properties

_ACKNOWLEDGEMENT_FIRST_BYTES: dict[type, int] = {Puback: 0x40, Pubrec: 0x50, Pubrel: 0x62, Pubcomp: 0x70}


def encode_publish_5(
    topic: str,
    payload: bytes,
    *,
    qos: int = 0,
    retain: bool = False,
    duplicate: bool = False,
    packet_id: int = 0,
    properties: Properties = (),
) -> bytes:
    """Section 3.3."""
    header = encode_text(topic) + (packet_id.to_bytes(2, "big") if qos else b"") + encode_properties(properties)
    first = 0x30 | duplicate << 3 | qos << 1 | retain
    return b"".join((bytes((first,)), encode_remaining_length(len(header) + len(payload)), header, payload))


def encode_acknowledgement_5(first_byte: int, packet_id: int, reason_code: int, properties: Properties = ()) -> bytes:
    """PUBACK, PUBREC, PUBREL, PUBCOMP: as short as what they say."""
    body = packet_id.to_bytes(2, "big")
    if reason_code or properties:
        body += bytes((reason_code,))
    if properties:
        body += encode_properties(properties)
    return whole_packet(first_byte, body)


def encode_disconnect_5(reason_code: int, properties: Properties = ()) -> bytes:
    """Section 3.14."""
    if not reason_code and not properties:
        return b"\xe0\x00"
    return whole_packet(0xE0, bytes((reason_code,)) + (encode_properties(properties) if properties else b""))


def encode_connack_5(reason_code: int, *, session_present: bool = False, properties: Properties = ()) -> bytes:
    """Section 3.2."""
    return whole_packet(0x20, bytes((session_present, reason_code)) + encode_properties(properties))


def encode_codes_5(first_byte: int, packet_id: int, codes: tuple[int, ...], properties: Properties = ()) -> bytes:
    """SUBACK and UNSUBACK: one code for each filter."""
    return whole_packet(first_byte, packet_id.to_bytes(2, "big") + encode_properties(properties) + bytes(codes))


def _connect(packet: Connect) -> bytes:
    will = b"" if packet.will is None else encode_properties(packet.will.properties)
    body = connect_body(packet, PROTOCOL_LEVEL_5, properties=encode_properties(packet.properties), will_properties=will)
    return whole_packet(0x10, body)


def encode_5(packet: Packet) -> bytes:
    """The bytes of any packet of MQTT 5.

    Raises:
        ValueError: a field doesn't fit its place: a mistake of ours, not of a peer.
    """
    match packet:
        case Publish():
            return encode_publish_5(
                packet.topic,
                packet.payload,
                qos=packet.qos,
                retain=packet.retain,
                duplicate=packet.duplicate,
                packet_id=packet.packet_id,
                properties=packet.properties,
            )
        case Connect():
            return _connect(packet)
        case Connack():
            return encode_connack_5(packet.return_code, session_present=packet.session_present, properties=packet.properties)
        case Subscribe():
            options = packet.options or (0,) * len(packet.filters)
            filters = [
                encode_text(name) + bytes((qos | option,)) for (name, qos), option in zip(packet.filters, options, strict=True)
            ]
            head = packet.packet_id.to_bytes(2, "big") + encode_properties(packet.properties)
            return whole_packet(0x82, head + b"".join(filters))
        case Suback():
            return encode_codes_5(0x90, packet.packet_id, packet.return_codes, packet.properties)
        case Unsubscribe():
            head = packet.packet_id.to_bytes(2, "big") + encode_properties(packet.properties)
            return whole_packet(0xA2, head + b"".join(map(encode_text, packet.filters)))
        case Unsuback():
            return encode_codes_5(0xB0, packet.packet_id, packet.reason_codes, packet.properties)
        case Disconnect():
            return encode_disconnect_5(packet.reason_code, packet.properties)
        case Auth():
            if not packet.reason_code and not packet.properties:
                return b"\xf0\x00"
            return whole_packet(0xF0, bytes((packet.reason_code,)) + encode_properties(packet.properties))
        case Pingreq():
            return PINGREQ_BYTES
        case Pingresp():
            return PINGRESP_BYTES
        case _:
            first = _ACKNOWLEDGEMENT_FIRST_BYTES[type(packet)]
            return encode_acknowledgement_5(first, packet.packet_id, packet.reason_code, packet.properties)
