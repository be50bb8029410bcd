"""One device's MQTT connection, from the end of its handshake to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, cast

import structlog

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.ids import AccountId, ClientId
from overair.server.gateway import modern_requests
from overair.server.gateway.admission import admit, grounds_to_refuse, will_refusal
from overair.server.gateway.answering import AnsweringStream, no_replies
from overair.server.gateway.answers import Slot
from overair.server.gateway.authority import DeviceIdentity, Proof, Refusal
from overair.server.gateway.denials import MQTT, tell_not_admitted
from overair.server.gateway.handlers import Replies
from overair.server.gateway.limits import BEFORE_CONNECT_TIMEOUT_S, CONNECTION_LIFETIME_S_MAX, WRITE_BUFFER_SIZE_BYTES
from overair.server.gateway.model import REASON_CODES, DisconnectReason, Message
from overair.server.gateway.modern import Modern, connack_properties, last_word
from overair.server.gateway.rights import Refused, Route
from overair.wire.mqtt.decoder import DecoderLimits
from overair.wire.mqtt.dialects import DIALECT_311, Dialect
from overair.wire.mqtt.packets import (
    PINGRESP_BYTES,
    PROTOCOL_LEVEL_5,
    Auth,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Unsubscribe,
    Will,
    encode_puback,
    encode_text,
    publish_pieces,
)
from overair.wire.mqtt.reasons import Reason
from overair.wire.mqtt.session import KeepAlive, Mode, connect_refusal

if TYPE_CHECKING:
    from overair.server.gateway.service import Gateway

DECODER_LIMITS: Final = DecoderLimits()

logger = structlog.get_logger("overair.gateway")


class State(Enum):
    """A connection's stages, in order."""

    AWAITING_CONNECT = 1
    ADMITTING = 2
    CONNECTED = 3


class DeviceConnection(AnsweringStream):
    """Implements ``handlers.Connection`` for rooms and ``broker.model.Link`` for the broker."""

    __slots__ = (
        "_ends_s",
        "_handlers",
        "_keep_alive",
        "_state",
        "_will",
        "bucket",
        "dialect",
        "modern",
        "peer_der",
        "place",
        "proof",
        "source_ip",
        "username",
    )

    place: Place

    def __init__(self, gateway: Gateway, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(gateway, loop)
        self._state = State.AWAITING_CONNECT
        self._will: Will | None = None
        self._keep_alive = KeepAlive(0)
        # MQTT 3.1.1, until a CONNECT says 5.
        self.dialect: Dialect = DIALECT_311
        self._handlers = _PACKETS
        self.modern: Modern | None = None
        self._ends_s = float("inf")
        self.bucket = -1
        """Where the gateway's wheel holds this connection."""
        self.peer_der = b""
        self.proof: Proof | None = None
        """What the peer has shown in place of a certificate."""
        self.username: str | None = None
        self.source_ip = ""

    @property
    def account(self) -> AccountId:
        return self.place.account

    # -- transport --------------------------------------------------------------------------------------------------------

    def opened(self, transport: asyncio.Transport) -> None:
        peer_der = transport.get_extra_info("peer_der")
        peername = transport.get_extra_info("peername")
        self.source_ip = peername[0] if peername else ""
        self.proof = transport.get_extra_info("proof")
        self._gateway.opened(self)
        if self.proof is not None:
            self._ends_s = self._loop.time() + CONNECTION_LIFETIME_S_MAX
        elif not peer_der:
            self._gateway.denials.device_denied(
                None, None, service=MQTT, operation="Connect", resource="*", source_ip=self.source_ip
            )
            self.refuse(Refused("a client certificate is needed", DisconnectReason.AUTH_ERROR))
            return
        else:
            self.peer_der = bytes(peer_der)
        self._gateway.watch(self, self.deadline_s())

    def chain_der(self) -> Sequence[bytes]:
        """What the peer sent in its handshake beside its certificate; the transport keeps it, not each connection."""
        sent = self._transport.get_extra_info("peer_chain_der") if self._transport is not None else None
        return sent[1:] if sent else ()

    @property
    def domain_name(self) -> str:
        """Which name the peer asked for in its handshake; the transport knows it, not each connection."""
        name = self._transport.get_extra_info("server_name") if self._transport is not None else None
        return name or ""

    def received(self, packet: Packet) -> None:
        self._handlers[type(packet)](self, packet)

    def lost(self) -> None:
        self.close(DisconnectReason.CONNECTION_LOST)
        self._answers.clear()

    def drained(self) -> None:
        if self.live is not None:
            waiting = self.live.record.session.send_pending(self._gateway.clock.now())
            if waiting:
                self.write(waiting)

    @property
    def is_admitted(self) -> bool:
        return self._state is State.CONNECTED

    @property
    def is_blocked(self) -> bool:
        return (
            self.is_slow
            or self._throttled
            or self._state is State.ADMITTING
            or (self.live is not None and len(self._answers) >= self.live.limits.requests_in_flight_max)
        )

    def deadline_s(self) -> float:
        """When the peer has been silent for too long, on the loop's clock."""
        if self._state is State.CONNECTED:
            return min(self._keep_alive.deadline_s(self._heard_s), self._ends_s)
        return self._heard_s + BEFORE_CONNECT_TIMEOUT_S

    def overdue(self) -> None:
        """The gateway's wheel has found the deadline passed."""
        if self._state is State.CONNECTED and self._ends_s <= self._loop.time():
            by_certificate = self.proof is None
            self.close(DisconnectReason.AUTH_ERROR if by_certificate else DisconnectReason.WEBSOCKET_TTL_EXPIRATION)
        elif self._state is State.CONNECTED:
            self.close(DisconnectReason.MQTT_KEEP_ALIVE_TIMEOUT)
        else:
            self.refuse(Refused(f"no CONNECT was accepted within {BEFORE_CONNECT_TIMEOUT_S} s", DisconnectReason.CLIENT_ERROR))

    def ends_at(self, moment: Instant | None) -> None:
        """The peer's identity ends then, and the connection with it."""
        if moment is not None:
            self._ends_s = min(self._ends_s, self._loop.time() + (moment - self._gateway.clock.now()) / 1000)

    @property
    def receive_maximum(self) -> int | None:
        """How many unacknowledged messages the client takes at once, where it said so."""
        return None if self.modern is None else self.modern.receive_maximum

    # -- CONNECT ----------------------------------------------------------------------------------------------------------

    def _connect(self, packet: Connect) -> None:
        self.client_id = ClientId(packet.client_id)
        self.username = packet.username
        self._will = packet.will
        if packet.protocol_level == PROTOCOL_LEVEL_5:
            self.modern = Modern(packet)
            self.dialect, self._handlers = self.modern.dialect, _PACKETS_5
            self._reply_size_bytes_max = self.modern.reply_size_bytes_max
        code = connect_refusal(packet, Mode.AWS)
        if code is not None:
            self.write(self.dialect.connack(code))
            raise Refused("the client id or the will of a CONNECT breaks a rule", DisconnectReason.CLIENT_ERROR)
        if not packet.client_id:
            self.client_id = ClientId(self._gateway.ids.uuid())
        self._state = State.ADMITTING
        self._gateway.spawn(self._admit(packet))

    async def _admit(self, packet: Connect) -> None:
        admitted = await admit(self._gateway, self, packet)
        if admitted is None:
            return
        live, present = admitted
        self.live, limits = live, live.limits
        self._is_metered = limits.is_metered
        self._keep_alive = KeepAlive.honoured(packet.keep_alive_s, Mode.AWS)
        packet_size_bytes_max = limits.packet_size_bytes_max
        answer = self.dialect.connack(Reason.SUCCESS, session_present=present)
        if self.modern is not None:
            packet_size_bytes_max = limits.packet_size_bytes_max_5
            self.modern.agreed(limits, live.wish)
            assigned = None if packet.client_id else self.client_id
            interval_s = self._keep_alive.interval_s
            offered = connack_properties(limits, live.wish, keep_alive_s=interval_s, assigned=assigned)
            answer = self.dialect.connack(Reason.SUCCESS, session_present=present, properties=offered)
            if not self.modern.takes(answer):
                self.refuse(Refused("the client takes no packet as large as its CONNACK", DisconnectReason.CLIENT_ERROR))
                return
        self._state = State.CONNECTED
        self._heard_s = self._loop.time()
        self._gateway.watch(self, self.deadline_s())
        self.limit_packets(packet_size_bytes_max)
        self.hold_answers(WRITE_BUFFER_SIZE_BYTES)
        self.write(answer)
        self._gateway.broker.begin(self)
        self.go_on()

    # -- publishes --------------------------------------------------------------------------------------------------------

    def _publish(self, packet: Publish) -> None:
        live = self.live
        assert live is not None
        self.serve(packet, live.rights.judge_publish(packet))

    def serve(self, packet: Publish, route: Route) -> None:
        """Do what a PUBLISH means, which it may."""
        live, modern = self.live, self.modern
        assert live is not None
        if self._is_metered:
            self._meter(len(packet.payload), 1)
        answer: Awaitable[Replies] | Replies
        try:
            if route.handler is not None:
                answer = route.handler(self, route.parameters, packet.payload)
            else:
                if modern is None:
                    message = Message(topic=packet.topic, payload=packet.payload, qos=packet.qos, retain=packet.retain)
                else:
                    message = modern.message(packet, self._gateway.clock, self.client_id)
                pending = self._gateway.broker.publish(self.account, message)
                answer = () if pending is None else no_replies(pending)
        except Exception as error:
            self._failed(packet.topic, error)
            return
        if not isinstance(answer, (list, tuple)):
            slot = self._answers.reserve(encode_puback(packet.packet_id) if packet.qos else b"", packet.qos)
            self._gateway.spawn(self._answer(slot, cast(Awaitable[Replies], answer), packet.topic))
            return
        if packet.qos:
            if len(self._answers):
                self._fill(self._answers.reserve(encode_puback(packet.packet_id), packet.qos), ())
            else:
                self.write(encode_puback(packet.packet_id))
        if answer:
            self._reply(answer, packet.qos)

    # -- subscriptions and the rest ---------------------------------------------------------------------------------------

    def _subscribe(self, packet: Subscribe) -> None:
        live = self.live
        assert live is not None
        codes = live.rights.judge_filters(packet.filters)
        granted = [(name, code) for (name, _), code in zip(packet.filters, codes, strict=True) if code < 0x80]
        self.take_subscriptions(packet, codes, granted, {name for name, _ in granted})

    def take_subscriptions(
        self, packet: Subscribe, codes: tuple[int, ...], granted: Sequence[tuple[str, int]], greeted: Collection[str]
    ) -> None:
        """Hold what was granted, each with its QoS and options; ``greeted`` get what is retained."""
        broker = self._gateway.broker
        pending = broker.subscribe(self, granted) if granted else None
        retained = [(name, octet & 3) for name, octet in granted if name in greeted and broker.has_retained(self.account, name)]
        slot = self._answers.reserve(self.dialect.suback(packet.packet_id, codes), 0)
        if pending is None and not retained:
            self._fill(slot, ())
        else:
            self._gateway.spawn(self._subscribed(slot, pending, retained))

    async def _subscribed(self, slot: Slot, pending: Awaitable[None] | None, retained: Sequence[tuple[str, int]]) -> None:
        await self._answer(slot, no_replies(pending), "SUBSCRIBE")
        if not self.is_closed:
            await self._gateway.broker.send_retained(self, retained)

    def _unsubscribe(self, packet: Unsubscribe) -> None:
        live = self.live
        assert live is not None
        held = live.record.session.subscriptions
        codes = tuple(Reason.SUCCESS if name in held else Reason.NO_SUBSCRIPTION_EXISTED for name in packet.filters)
        pending = self._gateway.broker.unsubscribe(self, packet.filters)
        live.rights.subscriptions_changed(packet.filters)
        slot = self._answers.reserve(self.dialect.unsuback(packet.packet_id, codes), 0)
        if pending is None:
            self._fill(slot, ())
        else:
            self._gateway.spawn(self._answer(slot, no_replies(pending), "UNSUBSCRIBE"))

    def _puback(self, packet: Puback) -> None:
        assert self.live is not None
        record = self.live.record
        token, more = record.session.take_puback(packet.packet_id, self._gateway.clock.now())
        if more:
            self.write(more)
        if token is not None or record.behind or record.session.has_spoiled:
            self._gateway.broker.acknowledged(self, token)

    def _ping(self, _: Pingreq) -> None:
        self.write(PINGRESP_BYTES)

    def _disconnect(self, _: Disconnect) -> None:
        self.close(DisconnectReason.CLIENT_INITIATED_DISCONNECT)

    def outlive(self, expiry_ms: int) -> None:
        """The session is to outlive this connection for so long."""
        self._gateway.broker.outlive(self, expiry_ms)

    def judged(self, verdict: DeviceIdentity | Refusal) -> None:
        """The authority's new verdict about a live connection: it goes on with what it may still do, or ends."""
        if self.is_closed or self.live is None:
            return
        why = grounds_to_refuse(verdict, self.client_id, None)
        if why is not None or isinstance(verdict, Refusal):
            self._will = None  # whoever may not connect has nothing more to say
            self.not_admitted(verdict)
            self.refuse(Refused(why or "", DisconnectReason.FORBIDDEN_ACCESS))
            return
        self.live.rights.renew(verdict.policy)
        if self._will is not None and will_refusal(self._will, verdict.policy) is not None:
            self._will = None
        self._gateway.broker.narrowed(self)

    # -- what the broker asks (broker.model.Link) -------------------------------------------------------------------------

    def send(self, message: Message, *, retain: bool) -> None:
        """See ``broker.model.Link``."""
        if self._out is None:
            return
        if self.modern is None:
            header, _, payload = publish_pieces(encode_text(message.topic), message.payload, flags=1 if retain else 0)
            self._out.write(header, payload)
            return
        left = None if message.expires is None else max(0, message.expires - self._gateway.clock.now()) // 1000
        self._out.write(
            self.dialect.publish(message.topic, message.payload, retain=retain, properties=message.properties, expiry_s=left)
        )

    def accepts(self, topic: str, topic_filter: str | None) -> bool:
        return self.live is not None and self.live.rights.accepts(topic, topic_filter)

    # -- the end ----------------------------------------------------------------------------------------------------------

    def refuse(self, refusal: Refused) -> None:
        if not self.is_closed:
            self.log_refusal(refusal)
        self.close(refusal.reason, code=refusal.code, text=refusal.text)

    def log_refusal(self, refusal: Refused) -> None:
        """For the operator."""
        logger.info(
            "connection refused" if self.modern is None else "refused",
            client=self.client_id,
            certificate=self.certificate_id,
            source_ip=self.source_ip,
            reason=refusal.reason.value,
            why=str(refusal),
        )

    def not_admitted(self, verdict: DeviceIdentity | Refusal) -> None:
        """It may not connect, or not be connected any longer: for the auditor."""
        tell_not_admitted(
            self._gateway.denials,
            verdict,
            service=MQTT,
            operation="Connect",
            kind="client",
            name=self.client_id,
            source_ip=self.source_ip,
            proof=self.proof,
        )

    def denied(self, action: str, kind: str, name: str) -> None:
        """Policy has forbidden something: for the auditor."""
        self._gateway.denials.device_denied(
            self.account,
            self.place.iot("cert", self.certificate_id) if self.proof is None else self.proof.principal_arn,
            service=MQTT,
            operation=action,
            resource=self.place.iot(kind, name),
            source_ip=self.source_ip,
        )

    def close(
        self, reason: DisconnectReason, *, code: Reason | None = None, text: str = "", leaves_will: bool | None = None
    ) -> None:
        """End the connection: what was written goes out, the broker takes the session back, the will is published unless the
        client has said goodbye (``leaves_will`` says otherwise)."""
        if self.is_closed:
            return
        if self._state is State.CONNECTED and reason in REASON_CODES:
            goodbye = self.dialect.disconnect(code or REASON_CODES[reason], text)
            if goodbye:
                self.write(goodbye)
        self.is_closed = True
        self._gateway.closed(self, reason)
        live, will, self.live, self._will = self.live, self._will, None, None
        if live is not None:
            if leaves_will is None:
                leaves_will = reason is not DisconnectReason.CLIENT_INITIATED_DISCONNECT
            word = last_word(will, self._gateway.clock) if will is not None and leaves_will else None
            self._gateway.broker.detach(self, reason, word)
        self.hang_up()


def _ignore(_: DeviceConnection, __: Packet) -> None:
    """Nobody is in a QoS 2 exchange here, and an unknown identifier has no effect."""


_PACKETS: Final[dict[type, Callable[[DeviceConnection, Any], None]]] = {
    Connect: DeviceConnection._connect,
    Publish: DeviceConnection._publish,
    Puback: DeviceConnection._puback,
    Pubrec: _ignore,
    Pubrel: _ignore,
    Pubcomp: _ignore,
    Subscribe: DeviceConnection._subscribe,
    Unsubscribe: DeviceConnection._unsubscribe,
    Pingreq: DeviceConnection._ping,
    Disconnect: DeviceConnection._disconnect,
}
_PACKETS_5: Final[dict[type, Callable[[DeviceConnection, Any], None]]] = {
    **_PACKETS,
    Publish: modern_requests.publish,
    Subscribe: modern_requests.subscribe,
    Disconnect: modern_requests.disconnect,
    Auth: modern_requests.authenticate,
}
"""By version, so that 3.1.1 pays for nothing of 5."""
