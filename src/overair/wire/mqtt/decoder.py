"""From bytes to MQTT packets, incrementally: feed what came, take packets until there is none.

Limits hold before anything is parsed: a packet longer than allowed is refused by its declared length alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from overair.wire.mqtt.body import Body, text_of
from overair.wire.mqtt.decoder5 import TO_CLIENT_5, TO_SERVER_5, publish_from_client, publish_from_server
from overair.wire.mqtt.encoder5 import encode_connack_5
from overair.wire.mqtt.packets import (
    PROTOCOL_LEVEL_3_1_1,
    PROTOCOL_LEVEL_5,
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
    UnsupportedLevel,
    Will,
)
from overair.wire.mqtt.properties import Place, Property, read_properties
from overair.wire.mqtt.reasons import Reason

CONNECT_SIZE_BYTES_MAX: Final = 160 * 1024
"""Of a CONNECT's remaining length: client id, will topic, user name at 64 KiB each never come together in practice."""


class Receiver(Enum):
    """Which end we are: each accepts only what the other may send."""

    SERVER = "server"
    CLIENT = "client"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderLimits:
    """Bounds on what one peer may make us hold."""

    packet_size_bytes_max: int = 1024 * 1024
    """Of a packet's remaining length after CONNECT."""
    connect_size_bytes_max: int = CONNECT_SIZE_BYTES_MAX


def _publish(flags: int, data: bytes, start: int, end: int) -> Publish:
    qos = flags >> 1 & 3
    if qos == 3:
        raise MalformedPacket("QoS 3 does not exist (section 3.3.1.2).")
    topic_start = start + 2
    topic_end = topic_start + int.from_bytes(data[start:topic_start], "big")
    if topic_end > end or topic_start > end:
        raise MalformedPacket("A PUBLISH ends inside its topic.")
    topic = text_of(data[topic_start:topic_end])
    if not topic or "+" in topic or "#" in topic:
        raise MalformedPacket("A PUBLISH's topic must not be empty or hold wildcards (section 3.3.2.1).")
    if qos == 0:
        if flags & 8:
            raise MalformedPacket("DUP must be 0 at QoS 0 (section 3.3.1.1).")
        return Publish(topic=topic, payload=data[topic_end:end], retain=flags & 1 == 1)
    payload_start = topic_end + 2
    packet_id = int.from_bytes(data[topic_end:payload_start], "big")
    if payload_start > end or packet_id == 0:
        raise MalformedPacket("A PUBLISH above QoS 0 needs a packet identifier that is not 0 (section 2.3.1).")
    return Publish(
        topic=topic,
        payload=data[payload_start:end],
        qos=qos,
        retain=flags & 1 == 1,
        duplicate=flags & 8 == 8,
        packet_id=packet_id,
    )


def _connect(body: Body) -> Connect:
    if body.binary() != b"MQTT":
        raise MalformedPacket("The protocol name is not MQTT (section 3.1.2.1).")
    level = body.byte()
    if level == PROTOCOL_LEVEL_3_1_1:
        return _connect_of(level, body)
    if level != PROTOCOL_LEVEL_5:
        raise UnsupportedLevel(level)
    try:
        return _connect_of(level, body)
    except MalformedPacket as malformed:
        malformed.answer = encode_connack_5(malformed.reason)
        raise


def _connect_of(level: int, body: Body) -> Connect:
    flags = body.byte()
    keep_alive_s = body.number()
    is_5 = level == PROTOCOL_LEVEL_5
    properties = read_properties(body, Place.CONNECT) if is_5 else ()
    if properties:
        _check_authentication(properties)
    if flags & 0x01:
        raise MalformedPacket("The reserved CONNECT flag must be 0 (section 3.1.2.3).")
    will_qos = flags >> 3 & 3
    if will_qos == 3 or (not flags & 0x04 and flags & 0x38):
        raise MalformedPacket("The will's flags contradict each other (sections 3.1.2.5 to 3.1.2.7).")
    if flags & 0x40 and not flags & 0x80 and not is_5:
        raise MalformedPacket("A password needs a user name (section 3.1.2.9).")
    client_id = body.text()
    will = None
    if flags & 0x04:
        will_properties = read_properties(body, Place.WILL) if is_5 else ()
        will_topic = body.text()
        if not will_topic or "+" in will_topic or "#" in will_topic:
            raise MalformedPacket("A will's topic must not be empty or hold wildcards.", reason=Reason.TOPIC_NAME_INVALID)
        will = Will(
            topic=will_topic,
            payload=body.binary(),
            qos=will_qos,
            retain=flags & 0x20 != 0,
            properties=will_properties,
        )
    username = body.text() if flags & 0x80 else None
    password = body.binary() if flags & 0x40 else None
    body.end()
    return Connect(
        client_id=client_id,
        clean_session=flags & 0x02 != 0,
        keep_alive_s=keep_alive_s,
        will=will,
        username=username,
        password=password,
        protocol_level=level,
        properties=properties,
    )


def _check_authentication(properties: Properties) -> None:
    names = {name for name, _ in properties}
    if Property.AUTHENTICATION_DATA in names and Property.AUTHENTICATION_METHOD not in names:
        raise MalformedPacket("Authentication data needs a method (section 3.1.2.11.10).", reason=Reason.PROTOCOL_ERROR)


def _connack(body: Body) -> Connack:
    flags = body.byte()
    if flags > 1:
        raise MalformedPacket("Reserved CONNACK flags must be 0 (section 3.2.2.1).")
    packet = Connack(session_present=flags == 1, return_code=body.byte())
    body.end()
    return packet


def _subscribe(body: Body) -> Subscribe:
    packet_id = body.packet_id()
    filters: list[tuple[str, int]] = []
    while not body.is_empty:
        name = body.filter()
        qos = body.byte()
        if qos > 2:
            raise MalformedPacket("A SUBSCRIBE asks for a QoS above 2 (section 3.8.3).")
        filters.append((name, qos))
    if not filters:
        raise MalformedPacket("A SUBSCRIBE names no filter (section 3.8.3).")
    return Subscribe(packet_id=packet_id, filters=tuple(filters))


def _suback(body: Body) -> Suback:
    packet_id = body.packet_id()
    codes: list[int] = []
    while not body.is_empty:
        codes.append(body.byte())
    if not codes or any(code not in (0, 1, 2, 0x80) for code in codes):
        raise MalformedPacket("A SUBACK's return codes are 0, 1, 2 or 128 (section 3.9.3).")
    return Suback(packet_id=packet_id, return_codes=tuple(codes))


def _unsubscribe(body: Body) -> Unsubscribe:
    packet_id = body.packet_id()
    filters: list[str] = []
    while not body.is_empty:
        filters.append(body.filter())
    if not filters:
        raise MalformedPacket("An UNSUBSCRIBE names no filter (section 3.10.3).")
    return Unsubscribe(packet_id=packet_id, filters=tuple(filters))


def _acknowledgement(packet: type[Puback | Pubrec | Pubrel | Pubcomp | Unsuback]) -> Callable[[Body], Packet]:
    def parse(body: Body) -> Packet:
        packet_id = body.packet_id()
        body.end()
        return packet(packet_id=packet_id)

    return parse


def _empty(packet: Packet) -> Callable[[Body], Packet]:
    def parse(body: Body) -> Packet:
        body.end()
        return packet

    return parse


Parsers = dict[int, Callable[[Body], Packet]]
PublishParser = Callable[[int, bytes, int, int], Publish]

_TO_SERVER: Final[dict[int, Callable[[Body], Packet]]] = {
    0x10: _connect,
    0x40: _acknowledgement(Puback),
    0x50: _acknowledgement(Pubrec),
    0x62: _acknowledgement(Pubrel),
    0x70: _acknowledgement(Pubcomp),
    0x82: _subscribe,
    0xA2: _unsubscribe,
    0xC0: _empty(Pingreq()),
    0xE0: _empty(Disconnect()),
}
_TO_CLIENT: Final[dict[int, Callable[[Body], Packet]]] = {
    0x20: _connack,
    0x40: _acknowledgement(Puback),
    0x50: _acknowledgement(Pubrec),
    0x62: _acknowledgement(Pubrel),
    0x70: _acknowledgement(Pubcomp),
    0x90: _suback,
    0xB0: _acknowledgement(Unsuback),
    0xD0: _empty(Pingresp()),
}
"""By first byte, flags included: section 2.2.2 fixes them for all but PUBLISH."""
_OTHER_WAY: Final = frozenset({0x20, 0x90, 0xB0, 0xD0})
"""First bytes of what only a server says."""


class Decoder:
    """One direction of one connection.

    ``feed`` takes bytes as they come; ``next_packet`` gives one packet at a time, None when more bytes are needed. After it
    has raised ``MalformedPacket`` the connection is over and the decoder must not be used again.
    """

    __slots__ = (
        "_chunks",
        "_data",
        "_first_byte",
        "_limit",
        "_limits",
        "_parsers",
        "_position",
        "_publish",
        "_size",
        "_wanted",
    )

    def __init__(self, *, receiver: Receiver, limits: DecoderLimits, protocol_level: int = PROTOCOL_LEVEL_3_1_1) -> None:
        """``protocol_level``: of a client's decoder. A server's learns it from CONNECT."""
        self._parsers: Parsers = _TO_SERVER if receiver is Receiver.SERVER else _TO_CLIENT
        self._publish: PublishParser = _publish
        if receiver is Receiver.CLIENT and protocol_level == PROTOCOL_LEVEL_5:
            self._parsers, self._publish = TO_CLIENT_5, publish_from_server
        self._limits = limits
        # The first packet must be CONNECT (MQTT-3.1.0-1), CONNACK at the other end (MQTT-3.2.0-1); None once it has come.
        self._first_byte: int | None = 0x10 if receiver is Receiver.SERVER else 0x20
        self._limit = limits.connect_size_bytes_max
        self._data = b""
        self._position = 0
        self._chunks: list[bytes] | None = None
        self._size = 0
        self._wanted = 0

    @property
    def buffered_bytes(self) -> int:
        """How much was fed and isn't taken yet."""
        return self._size - self._position if self._chunks is not None else len(self._data) - self._position

    def limit(self, packet_size_bytes_max: int) -> None:
        """Bound packets from now on: who the peer is, is known only after its CONNECT."""
        self._limit = packet_size_bytes_max

    def feed(self, data: bytes) -> None:
        """Add bytes. Costs no copy while packets come whole."""
        if self._chunks is not None:
            self._chunks.append(data)
            self._size += len(data)
        elif self._position >= len(self._data):
            self._data = data
            self._position = 0
        else:
            self._chunks = [self._data, data]
            self._size = len(self._data) + len(data)

    def next_packet(self) -> Packet | None:
        """The next whole packet, or None.

        Raises:
            MalformedPacket: the peer broke the protocol or a limit.
        """
        if self._chunks is not None:
            if self._size - self._position < self._wanted:
                return None
            self._data = b"".join(self._chunks)[self._position :] if self._position else b"".join(self._chunks)
            self._chunks = None
            self._position = 0
        data = self._data
        start = self._position
        available = len(data) - start
        if available < 2:
            if available and (self._first_byte or data[start]) != data[start]:
                raise MalformedPacket("The first packet of a connection must be CONNECT, and its answer CONNACK.")
            self._wanted = 2
            if not available:
                self._data = b""
                self._position = 0
            return None
        first = data[start]
        if self._first_byte is not None and first != self._first_byte:
            raise MalformedPacket("The first packet of a connection must be CONNECT, and its answer CONNACK.")
        length = data[start + 1]
        body = start + 2
        if length & 128:
            length &= 127
            shift = 7
            while True:
                if shift == 28:
                    raise MalformedPacket("A remaining length has more than four bytes (section 2.2.3).")
                if body >= len(data):
                    self._wanted = available + 1
                    return None
                digit = data[body]
                body += 1
                length |= (digit & 127) << shift
                if not digit & 128:
                    break
                shift += 7
        if length > self._limit:
            raise MalformedPacket(
                f"A packet declares {length} bytes; {self._limit} are allowed here.", reason=Reason.PACKET_TOO_LARGE
            )
        end = body + length
        if end > len(data):
            self._wanted = end - start
            return None
        self._position = end
        self._wanted = 2
        if first & 0xF0 == 0x30:
            return self._publish(first & 15, data, body, end)
        parse = self._parsers.get(first)
        if parse is None:
            if first == 0x10:
                raise MalformedPacket("A second CONNECT on one connection (section 3.1).", reason=Reason.PROTOCOL_ERROR)
            reason = Reason.PROTOCOL_ERROR if first in _OTHER_WAY else Reason.MALFORMED_PACKET
            raise MalformedPacket(f"A packet must not begin with 0x{first:02X} here (section 2.2.2).", reason=reason)
        packet = parse(Body(data, body, end))
        if self._first_byte is not None:
            self._first_byte = None
            self._limit = self._limits.packet_size_bytes_max
            if isinstance(packet, Connect) and packet.protocol_level == PROTOCOL_LEVEL_5:
                self._parsers, self._publish = TO_SERVER_5, publish_from_client
        elif isinstance(packet, Connect):
            raise MalformedPacket("A second CONNECT on one connection (section 3.1).")
        return packet
