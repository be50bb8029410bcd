"""What a connection answers, and when: in the order of the requests, within what it may move in a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING

import structlog

from overair.basics.errors import OverairError
from overair.basics.ids import CertificateId, ClientId
from overair.server.gateway.answers import AnswerQueue, Slot
from overair.server.gateway.handlers import Replies, Reply
from overair.server.gateway.model import DisconnectReason
from overair.server.gateway.packet_stream import PacketStream
from overair.server.gateway.rights import Refused
from overair.wire.mqtt.packets import publish_pieces

if TYPE_CHECKING:
    from overair.server.gateway.admission import Live
    from overair.server.gateway.service import Gateway

logger = structlog.get_logger("overair.gateway")


class AnsweringStream(PacketStream):
    """Between packets and what they mean. A subclass ends the connection where something fails."""

    __slots__ = (
        "_answers",
        "_gateway",
        "_is_metered",
        "_moved",
        "_reply_size_bytes_max",
        "_throttled",
        "certificate_id",
        "client_id",
        "live",
    )

    def __init__(self, gateway: Gateway, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._gateway = gateway
        self._answers = AnswerQueue()
        self._is_metered = False
        self._throttled = False
        self._moved = (0, 0, 0)  # second of the loop's clock; publishes and bytes in it
        self._reply_size_bytes_max: int | None = None
        """Of topic, properties and payload; None where the client takes anything."""
        self.live: Live | None = None
        self.client_id, self.certificate_id = ClientId(""), CertificateId("")

    def close(self, reason: DisconnectReason) -> None:
        """End the connection."""
        raise NotImplementedError

    # -- how much -----------------------------------------------------------------------------------------------------------

    def _meter(self, size_bytes: int, publishes: int) -> None:
        """Count what was moved in this second; once it is as much as may be, reading pauses for the rest of it."""
        assert self.live is not None
        limits = self.live.limits
        second = int(self._loop.time())
        if self._moved[0] == second:
            publishes, size_bytes = self._moved[1] + publishes, self._moved[2] + size_bytes
        self._moved = (second, publishes, size_bytes)
        too_many = limits.publishes_per_s_max is not None and publishes >= limits.publishes_per_s_max
        too_much = limits.throughput_bytes_per_s_max is not None and size_bytes >= limits.throughput_bytes_per_s_max
        if (too_many or too_much) and not self._throttled:
            self._throttled = True
            self._loop.call_at(second + 1, self._unthrottle)

    def _unthrottle(self) -> None:
        self._throttled = False
        self.go_on()

    # -- in which order -----------------------------------------------------------------------------------------------------

    def answer_in_turn(self, data: bytes) -> None:
        """Say this after the answers to what came before."""
        self._fill(self._answers.reserve(data, 0), ())

    async def _answer(self, slot: Slot, answer: Awaitable[Replies], about: str) -> None:
        try:
            replies = await answer
        except Exception as error:
            self._failed(about, error)
            return
        if self.is_closed or self._out is None:
            return
        wanted = self._out.begin()
        self._fill(slot, replies)
        self._out.end(wanted)
        if self._reading_paused:
            self.go_on()

    def _failed(self, about: str, error: Exception) -> None:
        """Something was not done, so it must not be acknowledged: the client will repeat it on its next connection."""
        if isinstance(error, OverairError):
            self.refuse(Refused(f"{about} could not be served: {error}", DisconnectReason.SERVER_ERROR))
        else:
            logger.error("a topic handler failed", topic=about, client=self.client_id, exc_info=error)
            self.close(DisconnectReason.SERVER_ERROR)

    def _fill(self, slot: Slot, replies: Replies) -> None:
        for ready in self._answers.fill(slot, replies):
            if ready.acknowledgement:
                self.write(ready.acknowledgement)
            if ready.replies:
                self._reply(ready.replies, ready.qos)

    def _reply(self, replies: Sequence[Reply], request_qos: int) -> None:
        live, out = self.live, self._out
        if live is None or out is None:
            return
        if self._is_metered:
            self._meter(sum(len(reply.payload) for reply in replies), 0)
        largest = self._reply_size_bytes_max
        for reply in replies:
            topic, granted = live.rights.reply_route(reply.topic)
            qos = granted
            if reply.implicit:
                # QoS of the request, capped at a subscription's that matches (wire reference §2.1).
                qos = request_qos if granted < 0 else min(request_qos, granted)
            if qos < 0 or not topic:
                continue
            if qos == 0:
                if largest is not None and len(topic) + len(reply.payload) > largest:
                    continue
                header, _, payload = publish_pieces(topic, reply.payload)
                out.write(header, payload)
            else:
                session = live.record.session
                now = self._gateway.clock.now()
                data = session.deliver(reply.topic, reply.payload, qos=1, token=None, hold=self.is_slow, now=now)
                if data:
                    out.write(data)


async def no_replies(pending: Awaitable[None] | None) -> Replies:
    """Nothing to say, once this has ended."""
    if pending is not None:
        await pending
    return ()
