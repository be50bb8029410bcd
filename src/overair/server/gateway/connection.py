"""One device's MQTT connection, from the end of its handshake to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, cast

import structlog

from overair.basics.arn import Place
from overair.basics.errors import OverairError
from overair.basics.ids import AccountId, CertificateId, ClientId
from overair.server.broker.model import DisconnectReason, Message
from overair.server.broker.service import SessionRecord
from overair.server.gateway.answers import AnswerQueue, Slot
from overair.server.gateway.authority import DeviceIdentity, DevicePolicy, Refusal
from overair.server.gateway.handlers import Replies, Reply, TopicHandler
from overair.server.gateway.limits import (
    BEFORE_CONNECT_SIZE_BYTES_MAX,
    BEFORE_CONNECT_TIMEOUT_S,
    ROUTES_COUNT_MAX,
    GatewayLimits,
)
from overair.server.gateway.subscribing import Refused, judge_filters, send_retained_for
from overair.wire.mqtt.decoder import Decoder, DecoderLimits, Receiver
from overair.wire.mqtt.packets import (
    ACCEPTED,
    NOT_AUTHORIZED,
    PINGRESP_BYTES,
    SERVER_UNAVAILABLE,
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
    Will,
    encode,
    encode_connack,
    encode_puback,
    encode_suback,
    encode_text,
    publish_pieces,
)
from overair.wire.mqtt.session import KeepAlive, Mode, connect_refusal
from overair.wire.topics import matches

if TYPE_CHECKING:
    from overair.server.gateway.service import Gateway

OUT_SIZE_BYTES_MAX: Final = 256 * 1024
"""Gathered before it is handed to the transport, which may then say that the peer is slow."""

logger = structlog.get_logger("overair.gateway")


class State(Enum):
    """A connection's stages, in order."""

    AWAITING_CONNECT = 1
    ADMITTING = 2
    CONNECTED = 3
    CLOSED = 4


class _Route:
    """What a publish to one topic means for this connection; made only where policy allows the publish."""

    __slots__ = ("handler", "parameters", "retain_allowed")

    def __init__(self, handler: TopicHandler | None, parameters: Mapping[str, str], retain_allowed: bool) -> None:
        self.handler = handler
        self.parameters = parameters
        self.retain_allowed = retain_allowed


class DeviceConnection(asyncio.Protocol):
    """Implements ``handlers.Connection`` for rooms and ``broker.model.Link`` for the broker."""

    # Thousands of these are idle: no instance dictionary beside the slots, and caches are made when first used.
    __slots__ = (
        "_answers",
        "_decoder",
        "_flush_wanted",
        "_gateway",
        "_heard_s",
        "_keep_alive",
        "_limits",
        "_loop",
        "_out",
        "_out_size_bytes",
        "_policy",
        "_published_count",
        "_published_second",
        "_reading_paused",
        "_receivable",
        "_record",
        "_reply_routes",
        "_routes",
        "_state",
        "_suspended",
        "_throttled",
        "_transport",
        "_will",
        "bucket",
        "certificate_id",
        "client_id",
        "identity",
        "is_slow",
        "peer_der",
        "place",
        "source_ip",
        "username",
    )

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._state = State.AWAITING_CONNECT
        self._decoder: Decoder | None = None
        self._limits: GatewayLimits | None = None
        self._policy: DevicePolicy | None = None
        self._record: SessionRecord | None = None
        self._will: Will | None = None
        self._keep_alive = KeepAlive(0)
        self._heard_s = 0.0
        self._out: list[bytes] = []
        self._out_size_bytes = 0
        self._flush_wanted = False
        self._reading_paused = False
        self._throttled = False
        self._published_second = 0
        self._published_count = 0
        self._answers = AnswerQueue()
        self._routes: dict[str, _Route] | None = None
        self._reply_routes: dict[str, tuple[bytes, int]] | None = None
        self._receivable: dict[str, bool] | None = None
        self._suspended: frozenset[str] = frozenset()
        self.bucket = -1
        """Where the gateway's wheel holds this connection."""
        self.is_slow = False
        self.identity: DeviceIdentity | None = None
        self.peer_der = b""
        self.client_id = ClientId("")
        self.certificate_id = CertificateId("")
        self.username: str | None = None
        self.source_ip = ""

    # -- what rooms see (handlers.Connection) -----------------------------------------------------------------------------

    place: Place

    @property
    def account(self) -> AccountId:
        return self.place.account

    @property
    def is_closed(self) -> bool:
        return self._state is State.CLOSED

    # -- transport --------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer_der = transport.get_extra_info("peer_der")
        peername = transport.get_extra_info("peername")
        self.source_ip = peername[0] if peername else ""
        self._decoder = Decoder(receiver=Receiver.SERVER, limits=DecoderLimits())
        self._heard_s = self._loop.time()
        self._gateway.opened(self)
        if not peer_der:
            self._refuse("a client certificate is needed", DisconnectReason.AUTH_ERROR)
            return
        self.peer_der = bytes(peer_der)
        self._gateway.watch(self, self.deadline_s())

    def data_received(self, data: bytes) -> None:
        if self._decoder is None:
            return
        if self._state is State.CONNECTED:
            self._heard_s = self._loop.time()
        self._decoder.feed(data)
        self._process()

    def connection_lost(self, exc: Exception | None) -> None:
        self.close(DisconnectReason.CONNECTION_LOST)
        # No cycles are left behind, so that memory is free at once and not when the collector comes.
        self._transport = None
        self._decoder = None
        self._answers.clear()

    def pause_writing(self) -> None:
        self.is_slow = True

    def resume_writing(self) -> None:
        self.is_slow = False
        if self._record is not None and self._state is State.CONNECTED:
            waiting = self._record.session.send_pending()
            if waiting:
                self.write(waiting)
        self._go_on()

    def deadline_s(self) -> float:
        """When the peer has been silent for too long, on the loop's clock."""
        if self._state is State.CONNECTED:
            return self._keep_alive.deadline_s(self._heard_s)
        return self._heard_s + BEFORE_CONNECT_TIMEOUT_S

    def overdue(self) -> None:
        """The gateway's wheel has found the deadline passed."""
        if self._state is State.CONNECTED:
            self.close(DisconnectReason.MQTT_KEEP_ALIVE_TIMEOUT)
        else:
            self._refuse(f"no CONNECT was accepted within {BEFORE_CONNECT_TIMEOUT_S} s", DisconnectReason.CLIENT_ERROR)

    # -- packets in -------------------------------------------------------------------------------------------------------

    @property
    def _blocked(self) -> bool:
        return (
            self.is_slow
            or self._throttled
            or self._state is State.ADMITTING
            or (self._limits is not None and len(self._answers) >= self._limits.requests_in_flight_max)
        )

    def _process(self) -> None:
        decoder = self._decoder
        assert decoder is not None
        outer, self._flush_wanted = self._flush_wanted, True
        try:
            while not self._blocked:
                packet = decoder.next_packet()
                if packet is None:
                    break
                if type(packet) is Publish:
                    self._publish(packet)
                else:
                    _PACKETS[type(packet)](self, packet)
                if self._state is State.CLOSED:
                    return
        except UnsupportedLevel as refusal:
            self._write_now(refusal.answer)
            self._refuse(str(refusal), DisconnectReason.CLIENT_ERROR)
            return
        except MalformedPacket as refusal:
            self._refuse(str(refusal), DisconnectReason.CLIENT_ERROR)
            return
        finally:
            self._flush_wanted = outer
        if not outer:
            self._flush()
        if self._blocked:
            allowed = BEFORE_CONNECT_SIZE_BYTES_MAX if self._state is State.ADMITTING else 0
            if decoder.buffered_bytes > allowed or self._state is State.CONNECTED:
                self._pause_reading()

    def _pause_reading(self) -> None:
        if not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def _go_on(self) -> None:
        """Something that blocked has passed."""
        if self._state is State.CLOSED or self._blocked or self._decoder is None:
            return
        if self._decoder.buffered_bytes:
            self._process()
        if self._reading_paused and not self._blocked and not self.is_closed and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()

    def _connect(self, packet: Connect) -> None:
        self.client_id = ClientId(packet.client_id)
        self.username = packet.username
        self._will = packet.will
        code = connect_refusal(packet, Mode.AWS)
        if code is not None:
            self._write_now(encode_connack(code))
            self._refuse(f"CONNECT of client {packet.client_id!r} breaks a rule of this server", DisconnectReason.CLIENT_ERROR)
            return
        self._state = State.ADMITTING
        self._gateway.spawn(self._admit(packet))

    async def _admit(self, packet: Connect) -> None:
        verdict = await self._gateway.verdict(self)
        if verdict is None:
            return
        refusal = self._grounds_to_refuse(verdict)
        if refusal is not None:
            self._write_now(encode_connack(NOT_AUTHORIZED))
            self._refuse(refusal, DisconnectReason.AUTH_ERROR)
            return
        assert isinstance(verdict, DeviceIdentity)
        self.identity, self._policy, self.place = verdict, verdict.policy, verdict.place
        self.certificate_id = verdict.certificate_id
        self._limits = self._gateway.limits_for(self.account)
        self._gateway.admitted(self, self.account, verdict.certificate_id)
        try:
            record, present = await self._gateway.broker.attach(
                self.account, self.client_id, clean_session=packet.clean_session, link=self
            )
        except OverairError as error:
            self._write_now(encode_connack(SERVER_UNAVAILABLE))
            self._refuse(f"the session can't be taken up: {error}", DisconnectReason.SERVER_ERROR)
            return
        if self.is_closed:
            # Closed while the session was taken up; unless another connection has it by now, nobody has it.
            self._gateway.broker.detach(record, self, DisconnectReason.CONNECTION_LOST, None)
            return
        self._record = record
        self._connected(record, packet, present)

    def _connected(self, record: SessionRecord, packet: Connect, present: bool) -> None:
        assert self._limits is not None
        assert self._decoder is not None
        self._decoder.limit(self._limits.packet_size_bytes_max)
        self._state = State.CONNECTED
        self._keep_alive = KeepAlive.honoured(packet.keep_alive_s, Mode.AWS)
        self._heard_s = self._loop.time()
        self._gateway.watch(self, self.deadline_s())
        self._suspend_filters()
        self._write_now(encode_connack(ACCEPTED, session_present=present))
        self._gateway.broker.begin(record, self)
        self._go_on()

    def _grounds_to_refuse(self, verdict: DeviceIdentity | Refusal) -> str | None:
        if isinstance(verdict, Refusal):
            return verdict.reason
        if not verdict.policy.allows_connect(self.client_id):
            return f"no policy allows iot:Connect on client/{self.client_id}"
        will = self._will
        if will is not None and self._state is not State.CONNECTED:
            if not verdict.policy.allows_publish(will.topic):
                return f"no policy allows iot:Publish on the will's topic/{will.topic}"
            if will.retain and not verdict.policy.allows_retain(will.topic):
                return f"no policy allows iot:RetainPublish on the will's topic/{will.topic}"
        return None

    # -- publishes --------------------------------------------------------------------------------------------------------

    def _publish(self, packet: Publish) -> None:
        limits = self._limits
        assert limits is not None
        routes = self._routes
        route = routes.get(packet.topic) if routes is not None else None
        if route is None:
            route = self._find_route(packet.topic, limits)
            if route is None:
                return
        if len(packet.payload) > limits.payload_size_bytes_max:
            size = len(packet.payload)
            self._refuse(
                f"a payload of {size} bytes; {limits.payload_size_bytes_max} are allowed", DisconnectReason.CLIENT_ERROR
            )
            return
        if packet.qos == 2:
            self._refuse("QoS 2 is not served here; publish with QoS 0 or 1", DisconnectReason.CLIENT_ERROR)
            return
        if packet.retain and not route.retain_allowed:
            self._refuse(f"no policy allows iot:RetainPublish on topic/{packet.topic}", DisconnectReason.AUTH_ERROR)
            return
        if limits.publishes_per_s_max is not None:
            self._count_publish(limits.publishes_per_s_max)
        if route.handler is None:
            message = Message(topic=packet.topic, payload=packet.payload, qos=packet.qos, retain=packet.retain)
            try:
                pending = self._gateway.broker.publish(self.account, message)
            except OverairError as error:
                self._refuse(str(error), DisconnectReason.CLIENT_ERROR)
                return
            if pending is not None:
                self._wait(packet, _no_replies(pending))
            elif packet.qos:
                self._acknowledge(packet)
            return
        answer = route.handler(self, route.parameters, packet.payload)
        if isinstance(answer, (list, tuple)):
            if packet.qos:
                self._acknowledge(packet)
            if answer:
                self._reply(answer, packet.qos)
        else:
            self._wait(packet, cast(Awaitable[Replies], answer))

    def _find_route(self, topic: str, limits: GatewayLimits) -> _Route | None:
        """Judge a topic for the first time; None: refused, and the connection is closed."""
        policy = self._policy
        assert policy is not None
        slashes = topic.count("/") - (3 if topic.startswith("$aws/rules/") else 0)
        if len(topic.encode()) > limits.topic_size_bytes_max or slashes > limits.topic_slashes_max:
            bounds = f"{limits.topic_size_bytes_max} bytes and {limits.topic_slashes_max} slashes"
            self._refuse(f"a topic is over {bounds}", DisconnectReason.CLIENT_ERROR)
            return None
        if not policy.allows_publish(topic):
            self._refuse(f"no policy allows iot:Publish on topic/{topic}", DisconnectReason.AUTH_ERROR)
            return None
        if topic.startswith("$"):
            found = self._gateway.topics.find(topic)
            if found is None:
                self._refuse(f"{topic} is not a topic to publish to", DisconnectReason.FORBIDDEN_ACCESS)
                return None
            route = _Route(found[0], found[1], False)
        else:
            route = _Route(None, {}, policy.allows_retain(topic))
        if self._routes is None or len(self._routes) >= ROUTES_COUNT_MAX:
            self._routes = {}
        self._routes[topic] = route
        return route

    def _count_publish(self, publishes_per_s_max: int) -> None:
        now_s = self._loop.time()
        if int(now_s) != self._published_second:
            self._published_second, self._published_count = int(now_s), 0
        self._published_count += 1
        if self._published_count >= publishes_per_s_max and not self._throttled:
            self._throttled = True
            self._loop.call_at(self._published_second + 1, self._unthrottle)

    def _unthrottle(self) -> None:
        self._throttled = False
        self._go_on()

    def _wait(self, packet: Publish, answer: Awaitable[Replies]) -> None:
        acknowledgement = encode_puback(packet.packet_id) if packet.qos else b""
        slot = self._answers.reserve(acknowledgement, packet.qos)
        self._gateway.spawn(self._answer(slot, answer, packet.topic))

    async def _answer(self, slot: Slot, answer: Awaitable[Replies], about: str) -> None:
        try:
            replies = await answer
        except OverairError as error:
            # It was not done, so it must not be acknowledged: the client will repeat it on its next connection.
            self._refuse(f"{about} could not be served: {error}", DisconnectReason.SERVER_ERROR)
            return
        except Exception:
            logger.exception("a topic handler failed", topic=about, client=self.client_id)
            self.close(DisconnectReason.SERVER_ERROR)
            return
        if self._state is State.CLOSED:
            return
        outer, self._flush_wanted = self._flush_wanted, True
        self._fill(slot, replies)
        self._flush_wanted = outer
        if not outer:
            self._flush()
        if self._reading_paused or (self._decoder is not None and self._decoder.buffered_bytes):
            self._go_on()

    def _acknowledge(self, packet: Publish) -> None:
        if len(self._answers):
            slot = self._answers.reserve(encode_puback(packet.packet_id), packet.qos)
            self._fill(slot, ())
        else:
            self.write(encode_puback(packet.packet_id))

    def _fill(self, slot: Slot, replies: Replies) -> None:
        for ready in self._answers.fill(slot, replies):
            if ready.acknowledgement:
                self.write(ready.acknowledgement)
            if ready.replies:
                self._reply(ready.replies, ready.qos)

    # -- replies ----------------------------------------------------------------------------------------------------------

    def _reply(self, replies: Sequence[Reply], request_qos: int) -> None:
        if self._state is State.CLOSED:
            return
        routes = self._reply_routes
        if routes is None:
            routes = self._reply_routes = {}
        for reply in replies:
            route = routes.get(reply.topic)
            if route is None:
                route = self._find_reply_route(routes, reply.topic)
            topic, granted = route
            qos = granted
            if reply.implicit:
                # QoS of the request, capped at a subscription's that matches (wire reference §2.1).
                qos = request_qos if granted < 0 else min(request_qos, granted)
            if qos < 0 or not topic:
                continue
            if qos == 0:
                header, _, payload = publish_pieces(topic, reply.payload)
                self._out.append(header)
                self._out.append(payload)
                self._out_size_bytes += len(header) + len(payload)
            elif self._record is not None:
                data = self._record.session.deliver(reply.topic, reply.payload, qos=1, token=None, hold=self.is_slow)
                if data:
                    self._out.append(data)
                    self._out_size_bytes += len(data)
        if self._out_size_bytes > OUT_SIZE_BYTES_MAX or not self._flush_wanted:
            self._flush()

    def _find_reply_route(self, routes: dict[str, tuple[bytes, int]], topic: str) -> tuple[bytes, int]:
        """(encoded topic, QoS of the best subscription or -1); an empty topic where policy denies Receive."""
        if len(routes) >= ROUTES_COUNT_MAX:
            routes.clear()
        route = (b"", -1)
        if self._may_receive(topic) and self._record is not None:
            granted = -1
            for topic_filter, qos in self._record.session.subscriptions.items():
                if qos > granted and topic_filter not in self._suspended and matches(topic_filter, topic, parent_level=False):
                    granted = qos
            route = (encode_text(topic), granted)
        routes[topic] = route
        return route

    # -- subscriptions ----------------------------------------------------------------------------------------------------

    def _subscribe(self, packet: Subscribe) -> None:
        assert self._record is not None
        assert self._limits is not None
        assert self._policy is not None
        session = self._record.session
        try:
            codes = judge_filters(packet.filters, session, self._policy, self._limits)
        except Refused as refusal:
            self._refuse(str(refusal), refusal.reason)
            return
        self._reply_routes = None
        granted = [(name, code) for (name, _), code in zip(packet.filters, codes, strict=True) if code < 0x80]
        self._suspended = self._suspended.difference(name for name, _ in granted)
        pending = self._gateway.broker.subscribe(self._record, granted) if granted else None
        answer = encode_suback(packet.packet_id, codes)
        slot = self._answers.reserve(answer, 0)
        retained = [(name, qos) for name, qos in granted if self._gateway.broker.has_retained(self.account, name)]
        if pending is None and not retained:
            self._fill(slot, ())
        else:
            self._gateway.spawn(self._subscribed(slot, pending, retained))

    async def _subscribed(self, slot: Slot, pending: Awaitable[None] | None, retained: Sequence[tuple[str, int]]) -> None:
        await self._answer(slot, _no_replies(pending), "SUBSCRIBE")
        if not self.is_closed and self._record is not None:
            await send_retained_for(self._gateway.broker, self._record, retained)

    def _unsubscribe(self, packet: Unsubscribe) -> None:
        assert self._record is not None
        self._reply_routes = None
        pending = self._gateway.broker.unsubscribe(self._record, packet.filters)
        slot = self._answers.reserve(encode(Unsuback(packet_id=packet.packet_id)), 0)
        if pending is None:
            self._fill(slot, ())
        else:
            self._gateway.spawn(self._answer(slot, _no_replies(pending), "UNSUBSCRIBE"))

    # -- the rest ---------------------------------------------------------------------------------------------------------

    def _puback(self, packet: Puback) -> None:
        assert self._record is not None
        token, more = self._record.session.take_puback(packet.packet_id)
        if more:
            self.write(more)
        if token is not None or self._record.behind:
            self._gateway.broker.acknowledged(self._record, token)

    def _ping(self, _: Pingreq) -> None:
        self.write(PINGRESP_BYTES)

    def _disconnect(self, _: Disconnect) -> None:
        self.close(DisconnectReason.CLIENT_INITIATED_DISCONNECT)

    # -- verdicts ---------------------------------------------------------------------------------------------------------

    def judged(self, verdict: DeviceIdentity | Refusal) -> None:
        """The authority's new verdict about a live connection: it goes on with what it may still do, or ends."""
        if self._state is not State.CONNECTED:
            return
        refusal = self._grounds_to_refuse(verdict)
        if refusal is not None:
            self._policy = None
            self._refuse(refusal, DisconnectReason.FORBIDDEN_ACCESS)
            return
        assert isinstance(verdict, DeviceIdentity)
        assert self._record is not None
        self.identity, self._policy = verdict, verdict.policy
        self._routes = self._reply_routes = self._receivable = None
        self._suspend_filters()
        self._gateway.broker.narrowed(self._record, self)

    def _suspend_filters(self) -> None:
        """Subscriptions that policy no longer allows give nothing while that lasts; they aren't forgotten."""
        assert self._record is not None
        assert self._policy is not None
        allowed = self._policy.allows_subscribe
        self._suspended = frozenset(name for name in self._record.session.subscriptions if not allowed(name))

    def _may_receive(self, topic: str) -> bool:
        known = self._receivable
        if known is None or len(known) >= ROUTES_COUNT_MAX:
            known = self._receivable = {}
        allowed = known.get(topic)
        if allowed is None:
            allowed = known[topic] = self._policy is not None and self._policy.allows_receive(topic)
        return allowed

    # -- what the broker asks (broker.model.Link) ---------------------------------------------------------------------------

    def accepts(self, topic: str, topic_filter: str | None) -> bool:
        if self._suspended:
            if topic_filter is None:
                held = self._record.session.subscriptions if self._record is not None else ()
                found = [name for name in held if matches(name, topic, parent_level=False)]
                if found and self._suspended.issuperset(found):
                    return False
            elif topic_filter in self._suspended:
                return False
        return self._may_receive(topic)

    def send(self, topic: str, payload: bytes, *, retain: bool) -> None:
        header, _, payload = publish_pieces(encode_text(topic), payload, flags=1 if retain else 0)
        self._out.append(header)
        self.write(payload)

    def write(self, data: bytes) -> None:
        self._out.append(data)
        self._out_size_bytes += len(data)
        if not self._flush_wanted:
            self._flush_wanted = True
            self._loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._flush_wanted = False
        self._flush()

    def _flush(self) -> None:
        out = self._out
        if out and self._transport is not None:
            self._out = []
            self._out_size_bytes = 0
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _write_now(self, data: bytes) -> None:
        self._out.append(data)
        self._flush()

    # -- the end ----------------------------------------------------------------------------------------------------------

    def _refuse(self, why: str, reason: DisconnectReason) -> None:
        if self._state is not State.CLOSED:
            logger.info(
                "connection refused",
                client=self.client_id,
                certificate=self.certificate_id,
                source_ip=self.source_ip,
                reason=reason.value,
                why=why,
            )
        self.close(reason)

    def close(self, reason: DisconnectReason) -> None:
        """End the connection: what was written goes out, the broker takes the session back, the will is published."""
        if self._state is State.CLOSED:
            return
        connected, self._state = self._state is State.CONNECTED, State.CLOSED
        self._gateway.closed(self, reason)
        if self._record is not None and connected:
            self._gateway.broker.detach(self._record, self, reason, self._last_will(reason))
        transport = self._transport
        if transport is not None:
            self._flush()
            # A peer that doesn't read would keep us waiting for ever.
            (transport.abort if self.is_slow else transport.close)()
        self._record = None
        self._will = None
        self._routes = self._reply_routes = self._receivable = None

    def _last_will(self, reason: DisconnectReason) -> Message | None:
        will, policy = self._will, self._policy
        if will is None or policy is None or reason is DisconnectReason.CLIENT_INITIATED_DISCONNECT:
            return None
        if not policy.allows_publish(will.topic) or (will.retain and not policy.allows_retain(will.topic)):
            return None
        return Message(topic=will.topic, payload=will.payload, qos=min(will.qos, 1), retain=will.retain)


async def _no_replies(pending: Awaitable[None] | None) -> Replies:
    if pending is not None:
        await pending
    return ()


def _ignore(_: DeviceConnection, __: Packet) -> None:
    """PUBREC, PUBREL, PUBCOMP: nobody is in a QoS 2 exchange here, and an unknown identifier has no effect."""


_PACKETS: Final[dict[type, Callable[[DeviceConnection, Any], None]]] = {
    Connect: DeviceConnection._connect,
    Puback: DeviceConnection._puback,
    Subscribe: DeviceConnection._subscribe,
    Unsubscribe: DeviceConnection._unsubscribe,
    Pingreq: DeviceConnection._ping,
    Disconnect: DeviceConnection._disconnect,
    Pubrec: _ignore,
    Pubrel: _ignore,
    Pubcomp: _ignore,
}
