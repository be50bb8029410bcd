"""The smallest broker over wire's codec and sessions in standard mode: no socket, one process, nothing durable.

It exists so that others' packet sequences, written for a standard broker, can be played against our codec and session.
"""

from __future__ import annotations

from overair.wire.mqtt.decoder import Decoder, DecoderLimits, Receiver
from overair.wire.mqtt.decoder5 import NO_LOCAL, RETAIN_AS_PUBLISHED
from overair.wire.mqtt.dialects import DIALECT_311, Dialect, Dialect5
from overair.wire.mqtt.encoder5 import encode_acknowledgement_5
from overair.wire.mqtt.packets import (
    PINGRESP_BYTES,
    PROTOCOL_LEVEL_5,
    REMAINING_LENGTH_MAX,
    Auth,
    Connect,
    Disconnect,
    MalformedPacket,
    Packet,
    Pingreq,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Unsubscribe,
)
from overair.wire.mqtt.properties import Property, number_in, passed_on
from overair.wire.mqtt.reasons import Reason
from overair.wire.mqtt.session import Mode, ServerSession, SessionLimits, connect_refusal
from overair.wire.mqtt.topic_aliases import TopicAliases
from overair.wire.topics import SubscriptionTrie

TOPIC_ALIAS_MAXIMUM = 10
PACKET_SIZE_BYTES_MAX = 2_000_000
RECEIVE_MAXIMUM = 20
OFFER: Properties = (
    (Property.TOPIC_ALIAS_MAXIMUM, TOPIC_ALIAS_MAXIMUM),
    (Property.MAXIMUM_PACKET_SIZE, PACKET_SIZE_BYTES_MAX),
    (Property.RECEIVE_MAXIMUM, RECEIVE_MAXIMUM),
)
"""What the broker of the sequences says in its CONNACK, in its order."""


class StandardConnection:
    """One client at one broker: bytes in, bytes out, and whether the server has closed."""

    def __init__(self, mode: Mode = Mode.STANDARD) -> None:
        self._mode = mode
        self._decoder = Decoder(receiver=Receiver.SERVER, limits=DecoderLimits())
        self._session: ServerSession[None] = ServerSession(mode=mode, limits=SessionLimits())
        self._trie: SubscriptionTrie[str, int] = SubscriptionTrie(parent_level=mode is Mode.STANDARD)
        self._dialect: Dialect = DIALECT_311
        self._aliases = TopicAliases(TOPIC_ALIAS_MAXIMUM)
        self._identifiers: dict[str, int] = {}
        self.closed = False

    def receive(self, data: bytes) -> bytes:
        out: list[bytes] = []
        try:
            self._decoder.feed(data)
            while not self.closed and (packet := self._decoder.next_packet()) is not None:
                self._handle(packet, out)
        except MalformedPacket as refusal:
            out.append(refusal.answer or self._dialect.disconnect(refusal.reason))
            self.closed = True
        return b"".join(out)

    def publish(self, message: Publish) -> bytes:
        """Another client has published."""
        out: list[bytes] = []
        self._deliver(message, out)
        return b"".join(out)

    def _handle(self, packet: Packet, out: list[bytes]) -> None:
        session = self._session
        match packet:
            case Connect():
                self._connect(packet, out)
            case Publish():
                self._publish(packet, out)
            case Pubrel():
                answer, message = session.take_pubrel(packet.packet_id)
                out.append(answer)
                self._route(message, out)
            case Puback():
                out.append(session.take_puback(packet.packet_id)[1])
            case Pubrec():
                out.append(session.take_pubrec(packet.packet_id, packet.reason_code))
            case Pubcomp():
                out.append(session.take_pubcomp(packet.packet_id)[1])
            case Subscribe():
                codes = []
                options = packet.options or (0,) * len(packet.filters)
                for (name, qos), option in zip(packet.filters, options, strict=True):
                    codes.append(session.grant(name, qos))
                    self._trie.add(name, name, codes[-1] | option)
                    self._identifiers[name] = number_in(packet.properties, Property.SUBSCRIPTION_IDENTIFIER, 0)
                out.append(self._dialect.suback(packet.packet_id, tuple(codes)))
            case Unsubscribe():
                found = []
                for name in packet.filters:
                    was_there = session.subscriptions.pop(name, None) is not None
                    found.append(Reason.SUCCESS if was_there else Reason.NO_SUBSCRIPTION_EXISTED)
                    self._trie.remove(name, name)
                out.append(self._dialect.unsuback(packet.packet_id, tuple(found)))
            case Pingreq():
                out.append(PINGRESP_BYTES)
            case Disconnect():
                if number_in(packet.properties, Property.SESSION_EXPIRY_INTERVAL, 0):
                    raise MalformedPacket("The session has no expiry to change.", reason=Reason.PROTOCOL_ERROR)
                self.closed = True
            case Auth():
                raise MalformedPacket("Nobody is authenticating.", reason=Reason.PROTOCOL_ERROR)
            case _:
                raise AssertionError(packet)

    def _connect(self, packet: Connect, out: list[bytes]) -> None:
        is_5 = packet.protocol_level == PROTOCOL_LEVEL_5
        properties: Properties = ()
        largest = REMAINING_LENGTH_MAX
        if is_5:
            largest = number_in(packet.properties, Property.MAXIMUM_PACKET_SIZE, REMAINING_LENGTH_MAX)
            self._dialect = Dialect5(packet_size_bytes_max=largest)
            self._session.speak(self._dialect)
            properties = OFFER
        reason = connect_refusal(packet, self._mode)
        answer = self._dialect.connack(reason or Reason.SUCCESS, properties=() if reason else properties)
        self.closed = reason is not None or len(answer) > largest
        if len(answer) <= largest:
            out.append(answer)

    def _publish(self, packet: Publish, out: list[bytes]) -> None:
        topic = self._aliases.resolve(packet)
        if isinstance(self._dialect, Dialect5) and topic.startswith("$") and packet.qos:
            first = 0x40 if packet.qos == 1 else 0x50
            out.append(encode_acknowledgement_5(first, packet.packet_id, Reason.NOT_AUTHORIZED))
            return
        answer, message = self._session.take_publish(packet)
        out.append(answer)
        self._route(message, out)

    def _route(self, message: Publish | None, out: list[bytes]) -> None:
        if message is None:
            return
        heard = self._deliver(message, out)
        if message.qos == 1 and not heard and isinstance(self._dialect, Dialect5):
            out.append(self._dialect.puback(message.packet_id, Reason.NO_MATCHING_SUBSCRIBERS))
        else:
            out.append(self._session.acknowledge(message))

    def _deliver(self, message: Publish, out: list[bytes]) -> bool:
        found = [(value, name) for name, value in self._trie.match(message.topic) if not value & NO_LOCAL]
        if found:
            value, name = max(found)
            qos = min(value & 3, message.qos)
            retain = message.retain and bool(value & RETAIN_AS_PUBLISHED)
            properties = passed_on(message.properties)
            if self._identifiers[name]:
                properties = (*properties, (Property.SUBSCRIPTION_IDENTIFIER, self._identifiers[name]))
            if qos == 0:
                out.append(self._dialect.publish(message.topic, message.payload, retain=retain, properties=properties))
            else:
                data = self._session.deliver(
                    message.topic, message.payload, qos=qos, retain=retain, token=None, properties=properties
                )
                out.append(data or b"")
        return any(True for _ in self._trie.match(message.topic))
