"""What one connection of MQTT 5 has agreed on, and what its packets become for everybody else."""

from __future__ import annotations

from typing import Final

from overair.basics.clock import Clock, Instant
from overair.basics.ids import ClientId
from overair.server.gateway.limits import MESSAGE_EXPIRY_S_MAX, MESSAGE_EXPIRY_S_MIN, BrokerLimits, GatewayLimits
from overair.server.gateway.model import LastWord, Message, SessionWish
from overair.wire.mqtt.decoder5 import RETAIN_HANDLING
from overair.wire.mqtt.dialects import Dialect5
from overair.wire.mqtt.packets import PROTOCOL_LEVEL_5, REMAINING_LENGTH_MAX, Connect, Properties, Publish, Will
from overair.wire.mqtt.properties import Property, number_in, passed_on
from overair.wire.mqtt.topic_aliases import TopicAliases

RECEIVE_MAXIMUM_DEFAULT: Final = 65_535
_ONLY_IF_NEW: Final = 0x10
_FIXED_HEADER_SIZE_BYTES_MAX: Final = 5


class Modern:
    """One connection's. What it may give numbers to is known once it was admitted."""

    __slots__ = ("aliases", "dialect", "receive_maximum", "refusals", "reply_size_bytes_max", "session_expires")

    def __init__(self, packet: Connect) -> None:
        said = packet.properties
        largest = number_in(said, Property.MAXIMUM_PACKET_SIZE, REMAINING_LENGTH_MAX)
        says_why = number_in(said, Property.REQUEST_PROBLEM_INFORMATION, 1) == 1
        self.dialect = Dialect5(packet_size_bytes_max=largest, says_why=says_why)
        self.receive_maximum = number_in(said, Property.RECEIVE_MAXIMUM, RECEIVE_MAXIMUM_DEFAULT)
        self.reply_size_bytes_max = None if largest >= REMAINING_LENGTH_MAX else largest - _FIXED_HEADER_SIZE_BYTES_MAX
        """Of topic, properties and payload of a reply; None where the client takes anything."""
        self.session_expires = False
        self.aliases = TopicAliases(0)
        self.refusals = 0
        """Of publishes and subscriptions, so far."""

    def agreed(self, limits: GatewayLimits, wish: SessionWish) -> None:
        """The connection was admitted, with these."""
        self.aliases = TopicAliases(limits.topic_aliases_max)
        self.session_expires = wish.expiry_ms > 0

    def takes(self, packet: bytes) -> bool:
        """Whether the client takes a packet of that size."""
        return len(packet) <= self.dialect.packet_size_bytes_max

    def message(self, packet: Publish, clock: Clock, publisher: ClientId) -> Message:
        """What a PUBLISH says to others."""
        return Message(
            topic=packet.topic,
            payload=packet.payload,
            qos=packet.qos,
            retain=packet.retain,
            properties=passed_on(packet.properties),
            expires=expires(packet.properties, clock),
            publisher=publisher,
        )


def expires(properties: Properties, clock: Clock) -> Instant | None:
    """When a message that is published now is too old, if ever."""
    expiry_s = number_in(properties, Property.MESSAGE_EXPIRY_INTERVAL, -1)
    if expiry_s < 0:
        return None
    return Instant(clock.now() + honoured_expiry_s(expiry_s) * 1000)


def honoured_expiry_s(asked_s: int) -> int:
    """What a message's expiry becomes."""
    return min(max(asked_s, MESSAGE_EXPIRY_S_MIN), MESSAGE_EXPIRY_S_MAX)


def last_word(will: Will, clock: Clock) -> LastWord:
    """A will that is due now, whichever version said it."""
    delay_ms = number_in(will.properties, Property.WILL_DELAY_INTERVAL, 0) * 1000
    message = Message(
        topic=will.topic,
        payload=will.payload,
        qos=min(will.qos, 1),
        retain=will.retain,
        properties=passed_on(will.properties),
        expires=expires(will.properties, clock),
    )
    return LastWord(message=message, delay_ms=delay_ms)


def session_wish(packet: Connect, limits: BrokerLimits) -> SessionWish:
    """What a CONNECT asks of its session, within what its account may have."""
    if packet.protocol_level != PROTOCOL_LEVEL_5:
        return SessionWish(clean_start=packet.clean_session, expiry_ms=0 if packet.clean_session else limits.session_expiry_ms)
    asked_ms = number_in(packet.properties, Property.SESSION_EXPIRY_INTERVAL, 0) * 1000
    return SessionWish(clean_start=packet.clean_session, expiry_ms=min(asked_ms, limits.session_expiry_ms_max))


def connack_properties(limits: GatewayLimits, wish: SessionWish, *, keep_alive_s: int, assigned: ClientId | None) -> Properties:
    """What a CONNACK offers, as AWS does it; and what it changes of what was asked."""
    offered: list[tuple[int, int | str]] = [(Property.SESSION_EXPIRY_INTERVAL, wish.expiry_ms // 1000)]
    if assigned is not None:
        offered.append((Property.ASSIGNED_CLIENT_IDENTIFIER, assigned))
    offered += [
        (Property.SERVER_KEEP_ALIVE, keep_alive_s),
        (Property.RECEIVE_MAXIMUM, limits.receive_maximum),
        (Property.TOPIC_ALIAS_MAXIMUM, limits.topic_aliases_max),
        (Property.MAXIMUM_QOS, 1),
        (Property.RETAIN_AVAILABLE, 1),
        (Property.MAXIMUM_PACKET_SIZE, limits.packet_size_bytes_max_5 + _FIXED_HEADER_SIZE_BYTES_MAX),
        (Property.WILDCARD_SUBSCRIPTION_AVAILABLE, 1),
        (Property.SUBSCRIPTION_IDENTIFIER_AVAILABLE, 0),
        (Property.SHARED_SUBSCRIPTION_AVAILABLE, 1),
    ]
    return tuple(offered)


def wants_retained(option: int, *, is_new: bool) -> bool:
    """Whether a subscription with these options gets what is retained (section 3.8.3.1)."""
    handling = option & RETAIN_HANDLING
    return not handling or (handling == _ONLY_IF_NEW and is_new)
