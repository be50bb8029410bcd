"""The smallest broker over wire's codec and sessions in standard mode: no socket, one process, nothing durable.

It exists so that others' packet sequences, written for a standard broker, can be played against our codec and session.
"""

from __future__ import annotations

from overair.wire.mqtt.decoder import Decoder, DecoderLimits, Receiver
from overair.wire.mqtt.packets import (
    PINGRESP_BYTES,
    Connect,
    Disconnect,
    MalformedPacket,
    Packet,
    Pingreq,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Unsuback,
    Unsubscribe,
    UnsupportedLevel,
    encode,
    encode_connack,
    encode_publish,
    encode_suback,
)
from overair.wire.mqtt.session import Mode, ServerSession, SessionLimits, connect_refusal
from overair.wire.topics import SubscriptionTrie


class StandardConnection:
    """One client at one broker: bytes in, bytes out, and whether the server has closed."""

    def __init__(self, mode: Mode = Mode.STANDARD) -> None:
        self._mode = mode
        self._decoder = Decoder(receiver=Receiver.SERVER, limits=DecoderLimits())
        self._session: ServerSession[None] = ServerSession(mode=mode, limits=SessionLimits())
        self._trie: SubscriptionTrie[str, int] = SubscriptionTrie(parent_level=mode is Mode.STANDARD)
        self.closed = False

    def receive(self, data: bytes) -> bytes:
        out: list[bytes] = []
        try:
            self._decoder.feed(data)
            while not self.closed and (packet := self._decoder.next_packet()) is not None:
                self._handle(packet, out)
        except UnsupportedLevel as refusal:
            out.append(refusal.answer)
            self.closed = True
        except MalformedPacket:
            self.closed = True
        return b"".join(out)

    def _handle(self, packet: Packet, out: list[bytes]) -> None:
        session = self._session
        match packet:
            case Connect():
                code = connect_refusal(packet, self._mode)
                out.append(encode_connack(code or 0))
                self.closed = code is not None
            case Publish():
                answer, message = session.take_publish(packet)
                out.append(answer)
                self._route(message, out)
            case Pubrel():
                answer, message = session.take_pubrel(packet.packet_id)
                out.append(answer)
                self._route(message, out)
            case Puback():
                out.append(session.take_puback(packet.packet_id)[1])
            case Pubrec():
                out.append(session.take_pubrec(packet.packet_id))
            case Pubcomp():
                out.append(session.take_pubcomp(packet.packet_id)[1])
            case Subscribe():
                codes = []
                for name, qos in packet.filters:
                    codes.append(session.grant(name, qos))
                    self._trie.add(name, "me", codes[-1])
                out.append(encode_suback(packet.packet_id, tuple(codes)))
            case Unsubscribe():
                for name in packet.filters:
                    session.subscriptions.pop(name, None)
                    self._trie.remove(name, "me")
                out.append(encode(Unsuback(packet_id=packet.packet_id)))
            case Pingreq():
                out.append(PINGRESP_BYTES)
            case Disconnect():
                self.closed = True
            case _:
                raise AssertionError(packet)

    def _route(self, message: Publish | None, out: list[bytes]) -> None:
        if message is None:
            return
        granted = max((qos for _, qos in self._trie.match(message.topic)), default=None)
        if granted is not None:
            qos = min(granted, message.qos)
            if qos == 0:
                out.append(encode_publish(message.topic, message.payload))
            else:
                out.append(self._session.deliver(message.topic, message.payload, qos=qos, token=None) or b"")
        out.append(self._session.acknowledge(message))
