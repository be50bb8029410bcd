"""How one connection is spoken to: MQTT 3.1.1, or MQTT 5 within what its client said it can take.

A session outlives its connections, and each of them may speak another version: so what waits is kept as values, and becomes
bytes in the dialect of the connection that carries it.
"""

from __future__ import annotations

from typing import Final, Protocol

from overair.wire.mqtt.encoder5 import (
    encode_acknowledgement_5,
    encode_codes_5,
    encode_connack_5,
    encode_disconnect_5,
    encode_publish_5,
)
from overair.wire.mqtt.packets import (
    REMAINING_LENGTH_MAX,
    Properties,
    Unsuback,
    encode,
    encode_connack,
    encode_puback,
    encode_publish,
    encode_suback,
)
from overair.wire.mqtt.properties import Property
from overair.wire.mqtt.reasons import Reason

CONNACK_CODES_311: Final[dict[Reason, int]] = {
    Reason.SUCCESS: 0,
    Reason.CLIENT_IDENTIFIER_NOT_VALID: 2,
    Reason.SERVER_UNAVAILABLE: 3,
    Reason.QUOTA_EXCEEDED: 3,
    Reason.SERVER_BUSY: 3,
    Reason.CONNECTION_RATE_EXCEEDED: 3,
    Reason.BAD_USER_NAME_OR_PASSWORD: 4,
}
"""Everything else is 5, not authorised."""


class Dialect(Protocol):
    """What a server says. ``why`` is for a person who looks at the client's log; 3.1.1 has no place for it."""

    after_topic: bytes
    """What stands between topic and payload of a QoS 0 message without properties."""

    def connack(self, reason: Reason, *, session_present: bool = False, properties: Properties = ()) -> bytes: ...
    def puback(self, packet_id: int, reason: Reason = Reason.SUCCESS, why: str = "") -> bytes: ...
    def suback(self, packet_id: int, codes: tuple[int, ...], why: str = "") -> bytes: ...
    def unsuback(self, packet_id: int, codes: tuple[int, ...]) -> bytes: ...

    def disconnect(self, reason: Reason, why: str = "") -> bytes:
        """What is said before the close; nothing in 3.1.1."""
        ...

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        duplicate: bool = False,
        packet_id: int = 0,
        properties: Properties = (),
        expiry_s: int | None = None,
    ) -> bytes:
        """A message; nothing where the client doesn't take packets that large (MQTT-3.1.2-24)."""
        ...


class Dialect311:
    """MQTT 3.1.1."""

    after_topic = b""

    def connack(self, reason: Reason, *, session_present: bool = False, properties: Properties = ()) -> bytes:
        return encode_connack(CONNACK_CODES_311.get(reason, 5), session_present=session_present)

    def puback(self, packet_id: int, reason: Reason = Reason.SUCCESS, why: str = "") -> bytes:
        return encode_puback(packet_id)

    def suback(self, packet_id: int, codes: tuple[int, ...], why: str = "") -> bytes:
        return encode_suback(packet_id, tuple(min(code, 0x80) for code in codes))

    def unsuback(self, packet_id: int, codes: tuple[int, ...]) -> bytes:
        return encode(Unsuback(packet_id=packet_id))

    def disconnect(self, reason: Reason, why: str = "") -> bytes:
        return b""

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        duplicate: bool = False,
        packet_id: int = 0,
        properties: Properties = (),
        expiry_s: int | None = None,
    ) -> bytes:
        return encode_publish(topic, payload, qos=qos, retain=retain, duplicate=duplicate, packet_id=packet_id)


DIALECT_311: Final[Dialect] = Dialect311()


class Dialect5:
    """MQTT 5 for one client.

    Args:
        packet_size_bytes_max: whole packets that the client takes (its Maximum Packet Size).
        says_why: whether it wants reason strings (its Request Problem Information).
    """

    __slots__ = ("packet_size_bytes_max", "says_why")

    after_topic = b"\x00"

    def __init__(self, *, packet_size_bytes_max: int = REMAINING_LENGTH_MAX, says_why: bool = True) -> None:
        self.packet_size_bytes_max = packet_size_bytes_max
        self.says_why = says_why

    def connack(self, reason: Reason, *, session_present: bool = False, properties: Properties = ()) -> bytes:
        return encode_connack_5(reason, session_present=session_present, properties=properties)

    def puback(self, packet_id: int, reason: Reason = Reason.SUCCESS, why: str = "") -> bytes:
        data = encode_acknowledgement_5(0x40, packet_id, reason, self._why(why))
        return data if len(data) <= self.packet_size_bytes_max else encode_acknowledgement_5(0x40, packet_id, reason)

    def suback(self, packet_id: int, codes: tuple[int, ...], why: str = "") -> bytes:
        data = encode_codes_5(0x90, packet_id, codes, self._why(why))
        return data if len(data) <= self.packet_size_bytes_max else encode_codes_5(0x90, packet_id, codes)

    def unsuback(self, packet_id: int, codes: tuple[int, ...]) -> bytes:
        return encode_codes_5(0xB0, packet_id, codes)

    def disconnect(self, reason: Reason, why: str = "") -> bytes:
        # Section 3.1.2.11.7: a DISCONNECT may say why whatever the client asked for.
        data = encode_disconnect_5(reason, ((Property.REASON_STRING, why),) if why else ())
        return data if len(data) <= self.packet_size_bytes_max else encode_disconnect_5(reason)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        duplicate: bool = False,
        packet_id: int = 0,
        properties: Properties = (),
        expiry_s: int | None = None,
    ) -> bytes:
        if expiry_s is not None:
            properties = (*properties, (Property.MESSAGE_EXPIRY_INTERVAL, expiry_s))
        data = encode_publish_5(
            topic, payload, qos=qos, retain=retain, duplicate=duplicate, packet_id=packet_id, properties=properties
        )
        return data if len(data) <= self.packet_size_bytes_max else b""

    def _why(self, why: str) -> Properties:
        return ((Property.REASON_STRING, why),) if why and self.says_why else ()
