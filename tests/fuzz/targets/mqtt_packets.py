"""MQTT packets of both versions, in both directions.

Input: an octet (bit 0: the server receives, else a client; bit 1: that client speaks version 5; the rest: where the bytes are
cut), then what arrives. Held: the packets don't depend on the cuts; each is, written again, the same packet; nothing is kept
beyond what was fed.
"""

from __future__ import annotations

from typing import Final

from overair.wire.mqtt.decoder import Decoder, DecoderLimits, Receiver
from overair.wire.mqtt.encoder5 import encode_5
from overair.wire.mqtt.packets import Connect, MalformedPacket, Packet, encode

LIMITS: Final = DecoderLimits(packet_size_bytes_max=4096)


def fuzz_one(data: bytes) -> None:
    if not data:
        return
    flags, stream = data[0], data[1:]
    receiver = Receiver.SERVER if flags & 1 else Receiver.CLIENT
    level = 5 if flags & 2 else 4
    whole, problem = read(receiver, level, [stream])
    size = 1 + (flags >> 2) % 7
    in_pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert read(receiver, level, in_pieces) == (whole, problem), "the packets depend on where the bytes were cut"
    if whole and isinstance(whole[0], Connect):
        level = whole[0].protocol_level
    again = b"".join(encode_5(packet) if level == 5 else encode(packet) for packet in whole)
    assert read(receiver, level, [again]) == (whole, None), "a packet isn't what was read once it is written again"


def read(receiver: Receiver, level: int, pieces: list[bytes]) -> tuple[list[Packet], str | None]:
    decoder, packets, fed = Decoder(receiver=receiver, limits=LIMITS, protocol_level=level), [], 0
    try:
        for piece in pieces:
            decoder.feed(piece)
            fed += len(piece)
            while (packet := decoder.next_packet()) is not None:
                packets.append(packet)
            assert decoder.buffered_bytes <= fed
    except MalformedPacket as error:
        return packets, str(error)
    return packets, None
