"""Between a transport and what packets mean: bytes become packets, answers are gathered, reading stops while it must."""

from __future__ import annotations

import asyncio
from typing import Final, cast

from overair.server.gateway.limits import BEFORE_CONNECT_SIZE_BYTES_MAX
from overair.server.gateway.output import Output
from overair.server.gateway.rights import Refused
from overair.wire.mqtt.decoder import Decoder, DecoderLimits, Receiver
from overair.wire.mqtt.packets import MalformedPacket, Packet

DECODER_LIMITS: Final = DecoderLimits()


class PacketStream(asyncio.Protocol):
    """The base of a device's connection. A subclass says what packets mean and when none may be taken."""

    # Thousands of these are idle: slots, and what is seldom needed is made when first used.
    __slots__ = ("_decoder", "_heard_s", "_loop", "_out", "_reading_paused", "_transport", "is_closed", "is_slow")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._out: Output | None = None
        self._decoder: Decoder | None = None
        self._heard_s = 0.0
        """When the peer was heard last, on the loop's clock; until CONNECT is accepted, when it came."""
        self._reading_paused = False
        self.is_closed = False
        self.is_slow = False
        """The transport has as much to write as it should hold."""

    # -- for the subclass -------------------------------------------------------------------------------------------------

    def opened(self, transport: asyncio.Transport) -> None:
        """The transport is there; nothing was read yet."""
        raise NotImplementedError

    def received(self, packet: Packet) -> None:
        """A packet has come.

        Raises:
            Refused: the connection must be closed.
        """
        raise NotImplementedError

    def refuse(self, refusal: Refused) -> None:
        """Close the connection for this reason."""
        raise NotImplementedError

    def lost(self) -> None:
        """The transport is gone."""
        raise NotImplementedError

    def drained(self) -> None:
        """The peer reads again."""
        raise NotImplementedError

    @property
    def is_admitted(self) -> bool:
        """CONNECT was accepted."""
        raise NotImplementedError

    @property
    def is_blocked(self) -> bool:
        """No packet may be taken now. Whoever ends that calls ``go_on``."""
        raise NotImplementedError

    # -- transport --------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._out = Output(self._transport, self._loop)
        self._decoder = Decoder(receiver=Receiver.SERVER, limits=DECODER_LIMITS)
        self._heard_s = self._loop.time()
        self.opened(self._transport)

    def data_received(self, data: bytes) -> None:
        if self._decoder is None or self.is_closed:
            return
        if self.is_admitted:
            self._heard_s = self._loop.time()
        self._decoder.feed(data)
        self._take_packets()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost()
        # No cycles are left behind, so that memory is free at once and not when the collector comes.
        if self._out is not None:
            self._out.close()
        self._out = self._transport = self._decoder = None

    def pause_writing(self) -> None:
        self.is_slow = True

    def resume_writing(self) -> None:
        self.is_slow = False
        self.drained()
        self.go_on()

    def go_on(self) -> None:
        """Something that blocked may have passed."""
        if self.is_closed or self._decoder is None or self.is_blocked:
            return
        if self._decoder.buffered_bytes:
            self._take_packets()
        if self._reading_paused and self._transport is not None and not (self.is_blocked or self.is_closed):
            self._reading_paused = False
            self._transport.resume_reading()

    def hold_answers(self, size_bytes_max: int) -> None:
        """Let the transport hold so much before it calls the peer slow."""
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=size_bytes_max)

    def limit_packets(self, packet_size_bytes_max: int) -> None:
        """Bound the packets to come."""
        if self._decoder is not None:
            self._decoder.limit(packet_size_bytes_max)

    def _take_packets(self) -> None:
        decoder, out = self._decoder, self._out
        if decoder is None or out is None:
            return
        wanted = out.begin()
        try:
            while not self.is_blocked:
                packet = decoder.next_packet()
                if packet is None:
                    break
                self.received(packet)
                if self.is_closed:
                    break
        except Refused as refusal:
            self.refuse(refusal)
        except MalformedPacket as malformed:
            if malformed.answer:
                out.write(malformed.answer)
            self.refuse(Refused.malformed(malformed))
        finally:
            out.end(wanted)
        if self.is_blocked and not self.is_closed:
            allowed = -1 if self.is_admitted else BEFORE_CONNECT_SIZE_BYTES_MAX
            if decoder.buffered_bytes > allowed and not self._reading_paused and self._transport is not None:
                self._reading_paused = True
                self._transport.pause_reading()

    # -- out --------------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Say whole packets."""
        if self._out is not None:
            self._out.write(data)

    def hang_up(self) -> None:
        """Close the transport once everything said so far is written."""
        if self._transport is not None and self._out is not None:
            self._out.flush()
            # A peer that doesn't read would keep us waiting for ever.
            (self._transport.abort if self.is_slow else self._transport.close)()
