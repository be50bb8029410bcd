"""The client's side, for load generators and tests: a decoder, a counter of identifiers and ready bytes. No socket."""

from __future__ import annotations

from overair.wire.mqtt.decoder import Decoder, DecoderLimits, Receiver
from overair.wire.mqtt.encoder5 import encode_5
from overair.wire.mqtt.packets import (
    PROTOCOL_LEVEL_3_1_1,
    PROTOCOL_LEVEL_5,
    Connect,
    Packet,
    Properties,
    Publish,
    Subscribe,
    Unsubscribe,
    Will,
    encode,
    encode_publish,
)

CLIENT_PACKET_SIZE_BYTES_MAX = 4 * 1024 * 1024


class ClientConnection:
    """Sans-IO client of one connection: methods give the bytes to send, ``receive`` the packets in what came."""

    __slots__ = ("_decoder", "_next_id", "protocol_level")

    def __init__(self, protocol_level: int = PROTOCOL_LEVEL_3_1_1) -> None:
        self._decoder = Decoder(
            receiver=Receiver.CLIENT,
            limits=DecoderLimits(packet_size_bytes_max=CLIENT_PACKET_SIZE_BYTES_MAX),
            protocol_level=protocol_level,
        )
        self.protocol_level = protocol_level
        self._next_id = 0

    def encode(self, packet: Packet) -> bytes:
        """Any packet in the version that is spoken."""
        return encode_5(packet) if self.protocol_level == PROTOCOL_LEVEL_5 else encode(packet)

    def connect(
        self,
        client_id: str,
        *,
        clean_session: bool = True,
        keep_alive_s: int = 60,
        username: str | None = None,
        will: Will | None = None,
        properties: Properties = (),
    ) -> bytes:
        """A CONNECT as the C agents send it (wire reference §1.2)."""
        packet = Connect(
            client_id=client_id,
            clean_session=clean_session,
            keep_alive_s=keep_alive_s,
            username=username,
            will=will,
            protocol_level=self.protocol_level,
            properties=properties,
        )
        return self.encode(packet)

    def subscribe(self, *filters: tuple[str, int], options: tuple[int, ...] = (), properties: Properties = ()) -> bytes:
        """Each filter with the QoS asked for."""
        packet_id = self.new_packet_id()
        return self.encode(Subscribe(packet_id=packet_id, filters=filters, options=options, properties=properties))

    def unsubscribe(self, *filters: str) -> bytes:
        return self.encode(Unsubscribe(packet_id=self.new_packet_id(), filters=filters))

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False, properties: Properties = ()) -> bytes:
        packet_id = self.new_packet_id() if qos else 0
        if self.protocol_level != PROTOCOL_LEVEL_5:
            return encode_publish(topic, payload, qos=qos, retain=retain, packet_id=packet_id)
        packet = Publish(topic=topic, payload=payload, qos=qos, retain=retain, packet_id=packet_id, properties=properties)
        return encode_5(packet)

    def new_packet_id(self) -> int:
        """1 to 65,535, round and round; the caller keeps fewer in flight."""
        self._next_id = self._next_id % 65_535 + 1
        return self._next_id

    def receive(self, data: bytes) -> list[Packet]:
        """Packets that are whole now.

        Raises:
            MalformedPacket: the server broke the protocol.
        """
        self._decoder.feed(data)
        packets: list[Packet] = []
        while (packet := self._decoder.next_packet()) is not None:
            packets.append(packet)
        return packets
