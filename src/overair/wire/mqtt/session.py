"""The server's side of one MQTT session: what one client id and we owe each other, across its connections.

No socket, no clock: packets go in, bytes to write come out, and whoever owns the session routes messages and keeps time.
*Standard* mode is MQTT 3.1.1 and 5 with QoS 0, 1 and 2. *AWS* mode grants QoS 2 as 1 and refuses what AWS IoT refuses
(wire reference §8.2, §8.3).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic

from overair.wire.mqtt.dialects import DIALECT_311, Dialect
from overair.wire.mqtt.outgoing import Outgoing, Token
from overair.wire.mqtt.packets import (
    PROTOCOL_LEVEL_5,
    Connect,
    MalformedPacket,
    Properties,
    Publish,
    Pubrel,
    encode,
    encode_puback,
)
from overair.wire.mqtt.properties import Property, text_in
from overair.wire.mqtt.reasons import Reason

CLIENT_ID_SIZE_BYTES_MAX_AWS: Final = 128
KEEP_ALIVE_S_MIN_AWS: Final = 30
KEEP_ALIVE_S_MAX_AWS: Final = 1200
INCOMING_QOS_2_COUNT_MAX: Final = 20
"""QoS 2 messages held for one client until it releases them."""


class Mode(Enum):
    """Whose rules a session follows."""

    STANDARD = "standard"
    AWS = "aws"


def connect_refusal(packet: Connect, mode: Mode) -> Reason | None:
    """What a CONNECT is refused for by its own contents, or None when it may go on.

    An empty client id: standard 3.1.1 needs a clean session for it (MQTT-3.1.3-8), AWS refuses it in 3.1.1; in MQTT 5 the
    server assigns one. AWS: an id of at most 128 bytes that doesn't begin with ``$`` (wire reference §8.2). A will below ``$``
    is refused everywhere: those topics are the server's own (section 4.7.2). Nobody offers extended authentication.
    """
    is_5 = packet.protocol_level == PROTOCOL_LEVEL_5
    if is_5 and text_in(packet.properties, Property.AUTHENTICATION_METHOD) is not None:
        return Reason.BAD_AUTHENTICATION_METHOD
    if packet.will is not None and packet.will.topic.startswith("$"):
        return Reason.TOPIC_NAME_INVALID
    if not packet.client_id:
        refused = not is_5 and (mode is Mode.AWS or not packet.clean_session)
        return Reason.CLIENT_IDENTIFIER_NOT_VALID if refused else None
    if mode is Mode.STANDARD:
        return None
    if packet.will is not None and packet.will.qos > 1:
        return Reason.QOS_NOT_SUPPORTED
    is_named_well = len(packet.client_id.encode()) <= CLIENT_ID_SIZE_BYTES_MAX_AWS and packet.client_id[0] != "$"
    return None if is_named_well else Reason.CLIENT_IDENTIFIER_NOT_VALID


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """How long a client may be silent. ``interval_s`` 0 means for ever (section 3.1.2.10)."""

    interval_s: int

    @classmethod
    def honoured(cls, asked_s: int, mode: Mode) -> KeepAlive:
        """What a CONNECT's keep-alive becomes: in AWS mode 0 and above 1200 are 1200, below 30 is 30."""
        if mode is Mode.STANDARD:
            return cls(asked_s)
        return cls(min(max(asked_s, KEEP_ALIVE_S_MIN_AWS), KEEP_ALIVE_S_MAX_AWS) if asked_s else KEEP_ALIVE_S_MAX_AWS)

    def deadline_s(self, heard_s: float) -> float:
        """When silence since ``heard_s`` becomes too long: one and a half intervals later (MQTT-3.1.2-24)."""
        return heard_s + 1.5 * self.interval_s if self.interval_s else float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """Bounds on one session."""

    in_flight_count_max: int = 100
    """Unacknowledged messages that we send at once."""
    in_flight_size_bytes_max: int = 8 * 1024 * 1024
    """Of those messages together; a single larger one goes alone."""
    pending_count_max: int = 1000
    pending_size_bytes_max: int = 8 * 1024 * 1024


class ServerSession(Generic[Token]):
    """``Token`` is whatever the owner wants back when a message above QoS 0 was acknowledged: its place in a store.

    ``now`` is the owner's time in ms, by which messages that expire are held back.
    """

    __slots__ = (
        "_awaiting_release",
        "_in_flight",
        "_in_flight_size_bytes",
        "_limits",
        "_next_id",
        "_pending",
        "_pending_size_bytes",
        "_spoiled",
        "_window",
        "dialect",
        "mode",
        "subscriptions",
    )

    def __init__(self, *, mode: Mode, limits: SessionLimits) -> None:
        self.mode = mode
        self.subscriptions: dict[str, int] = {}
        """Filter → QoS granted."""
        self.dialect: Dialect = DIALECT_311
        self._window = limits.in_flight_count_max
        self._spoiled: list[Token] | None = None
        self._limits = limits
        self._next_id = 0
        # Made when first needed: most of many idle connections never send above QoS 0.
        self._in_flight: dict[int, Outgoing[Token]] | None = None
        self._pending: deque[Outgoing[Token]] | None = None
        self._in_flight_size_bytes = 0
        self._pending_size_bytes = 0
        self._awaiting_release: dict[int, Publish | None] | None = None

    # -- what the client sends ----------------------------------------------------------------------------------------

    def speak(self, dialect: Dialect, *, in_flight_count_max: int | None = None) -> None:
        """A connection takes the session up: how it is spoken to, and how much of it may be unacknowledged at once."""
        self.dialect = dialect
        limit = self._limits.in_flight_count_max
        self._window = limit if in_flight_count_max is None else min(limit, in_flight_count_max)

    def take_publish(self, packet: Publish) -> tuple[bytes, Publish | None]:
        """A PUBLISH came: (bytes to answer at once, the message to route now or None).

        QoS 0 and 1 are routed now, and ``acknowledge`` gives the answer once the message is safe. QoS 2 is held until
        released, so that a repeat has no second effect (section 4.3.3, method A).

        Raises:
            MalformedPacket: QoS 2 in AWS mode, or more unreleased QoS 2 messages than we hold.
        """
        if packet.qos < 2:
            return b"", packet
        if self.mode is Mode.AWS:
            raise MalformedPacket("QoS 2 is not served here; publish with QoS 0 or 1.")
        held = self._awaiting_release
        if held is None:
            held = self._awaiting_release = {}
        if packet.packet_id not in held:
            if len(held) >= INCOMING_QOS_2_COUNT_MAX:
                raise MalformedPacket(f"More than {INCOMING_QOS_2_COUNT_MAX} QoS 2 messages await their PUBREL.")
            held[packet.packet_id] = packet
        return b"\x50\x02" + packet.packet_id.to_bytes(2, "big"), None

    def acknowledge(self, packet: Publish) -> bytes:
        """The answer to a message that has been routed and is as safe as its QoS promises."""
        if packet.qos == 0:
            return b""
        if packet.qos == 1:
            return encode_puback(packet.packet_id)
        if self._awaiting_release is not None:
            self._awaiting_release.pop(packet.packet_id, None)
        return b"\x70\x02" + packet.packet_id.to_bytes(2, "big")

    def take_pubrel(self, packet_id: int) -> tuple[bytes, Publish | None]:
        """A QoS 2 message is released: (answer, message to route now). An unknown identifier is completed all the same
        (section 4.3.3); for a message to route, ``acknowledge`` gives the answer."""
        message = self._awaiting_release.get(packet_id) if self._awaiting_release is not None else None
        if message is None:
            return b"\x70\x02" + packet_id.to_bytes(2, "big"), None
        assert self._awaiting_release is not None
        self._awaiting_release[packet_id] = None  # routed once, whatever is repeated before it completes
        return b"", message

    def take_puback(self, packet_id: int, now: int = 0) -> tuple[Token | None, bytes]:
        """A QoS 1 delivery is done: (its token, bytes of what may go out next). An unknown identifier has no effect."""
        return self._finish(packet_id, 1, now)

    def take_pubrec(self, packet_id: int, reason_code: int = 0, now: int = 0) -> bytes:
        """A QoS 2 delivery was received: the PUBREL to send, also for an identifier that we have forgotten; or it was refused,
        and what may go out next."""
        if reason_code >= 0x80:
            return self._finish(packet_id, 2, now)[1]
        outgoing = self._in_flight.get(packet_id) if self._in_flight else None
        if outgoing is not None and outgoing.qos == 2:
            outgoing.received = True
        return encode(Pubrel(packet_id=packet_id))

    def take_pubcomp(self, packet_id: int, now: int = 0) -> tuple[Token | None, bytes]:
        """A QoS 2 delivery is done: as ``take_puback``."""
        return self._finish(packet_id, 2, now)

    def grant(self, topic_filter: str, asked_qos: int) -> int:
        """Hold a subscription, in place of one with the same filter; the QoS granted."""
        qos = min(asked_qos, 1) if self.mode is Mode.AWS else asked_qos
        self.subscriptions[topic_filter] = qos
        return qos

    # -- what the client gets -----------------------------------------------------------------------------------------

    def deliver(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int,
        retain: bool = False,
        token: Token,
        hold: bool = False,
        properties: Properties = (),
        expires: int | None = None,
        now: int = 0,
    ) -> bytes | None:
        """Send a message above QoS 0: its bytes, ``b""`` when it waits for its turn (or is spoiled, see ``take_spoiled``), None
        when the queue is full and the message is not taken. ``hold`` makes it wait although there is room: the connection can't
        take more just now."""
        outgoing = Outgoing(topic, payload, qos, retain, token, properties, expires)
        if not hold and not self._pending and self._has_room(outgoing):
            return self._send(outgoing, now)
        if self._pending is None:
            self._pending = deque()
        if (
            len(self._pending) >= self._limits.pending_count_max
            or self._pending_size_bytes + outgoing.size_bytes > self._limits.pending_size_bytes_max
        ):
            return None
        self._pending.append(outgoing)
        self._pending_size_bytes += outgoing.size_bytes
        return b""

    def resume(self, now: int = 0) -> bytes:
        """A new connection took the session up: everything unacknowledged again, with its identifiers, in order
        (MQTT-4.4.0-1). What doesn't fit into its window waits, and what it can't take or has expired is spoiled."""
        pieces = []
        in_flight = self._in_flight or {}
        for packet_id in reversed(list(in_flight)[self._window :]):
            self._wait_again(packet_id)
        for packet_id, outgoing in list(in_flight.items()):
            if outgoing.received:
                pieces.append(encode(Pubrel(packet_id=packet_id)))
                continue
            data = self._encode(outgoing, packet_id, now)
            if not data:
                self._spoil(outgoing)
                self.forget([packet_id])
            pieces.append(data)
        pieces.append(self.send_pending(now))
        return b"".join(pieces)

    @property
    def has_spoiled(self) -> bool:
        """``take_spoiled`` has something to tell."""
        return self._spoiled is not None

    def take_spoiled(self) -> list[Token]:
        """Tokens of messages that were not sent and never will be, since this was last asked: they expired, or the client
        doesn't take packets that large."""
        if self._spoiled is None:
            return []
        spoiled, self._spoiled = self._spoiled, None
        return spoiled

    def undelivered(self) -> Iterator[Token]:
        """Tokens of everything not yet acknowledged, oldest first."""
        for outgoing in (self._in_flight or {}).values():
            yield outgoing.token
        for outgoing in self._pending or ():
            yield outgoing.token

    @property
    def undelivered_count(self) -> int:
        return len(self._in_flight or ()) + len(self._pending or ())

    def forget(self, packet_ids: list[int]) -> None:
        """Drop deliveries that must not be sent again (the right to receive was taken away)."""
        for packet_id in packet_ids:
            outgoing = self._in_flight.pop(packet_id, None) if self._in_flight else None
            if outgoing is not None:
                self._in_flight_size_bytes -= outgoing.size_bytes

    def in_flight_topics(self) -> list[tuple[int, str, Token]]:
        """(packet identifier, topic, token) of everything sent and not acknowledged."""
        return [(packet_id, each.topic, each.token) for packet_id, each in (self._in_flight or {}).items()]

    def drop_pending(self) -> None:
        """Forget what was never sent: it lies in a store and will be delivered from there."""
        self._pending = None
        self._pending_size_bytes = 0

    def filter_pending(self, topics_refused: set[str]) -> list[Token]:
        """Drop what waits on these topics; the tokens of what was dropped."""
        dropped: list[Token] = []
        kept: deque[Outgoing[Token]] = deque()
        for outgoing in self._pending or ():
            if outgoing.topic in topics_refused:
                dropped.append(outgoing.token)
                self._pending_size_bytes -= outgoing.size_bytes
            else:
                kept.append(outgoing)
        self._pending = kept or None
        return dropped

    def pending_topics(self) -> set[str]:
        """Topics of what waits for its turn."""
        return {outgoing.topic for outgoing in self._pending or ()}

    def _finish(self, packet_id: int, qos: int, now: int) -> tuple[Token | None, bytes]:
        outgoing = self._in_flight.get(packet_id) if self._in_flight else None
        if outgoing is None or outgoing.qos != qos:
            return None, b""
        assert self._in_flight is not None
        del self._in_flight[packet_id]
        self._in_flight_size_bytes -= outgoing.size_bytes
        return outgoing.token, self.send_pending(now) if self._pending else b""

    def send_pending(self, now: int = 0) -> bytes:
        """What waits and fits into the window now."""
        pieces = []
        while self._pending and self._has_room(self._pending[0]):
            outgoing = self._pending.popleft()
            self._pending_size_bytes -= outgoing.size_bytes
            pieces.append(self._send(outgoing, now))
        return b"".join(pieces)

    def _has_room(self, outgoing: Outgoing[Token]) -> bool:
        if not self._in_flight:
            return True
        limits = self._limits
        return (
            len(self._in_flight) < self._window
            and self._in_flight_size_bytes + outgoing.size_bytes <= limits.in_flight_size_bytes_max
        )

    def _send(self, outgoing: Outgoing[Token], now: int) -> bytes:
        if self._in_flight is None:
            self._in_flight = {}
        # Fewer are in flight than there are identifiers, so a free one is found.
        while True:
            self._next_id = self._next_id % 65_535 + 1
            if self._next_id not in self._in_flight:
                break
        data = self._encode(outgoing, self._next_id, now)
        if not data:
            self._spoil(outgoing)
            return b""
        self._in_flight[self._next_id] = outgoing
        self._in_flight_size_bytes += outgoing.size_bytes
        return data

    def _encode(self, outgoing: Outgoing[Token], packet_id: int, now: int) -> bytes:
        expires = outgoing.expires
        if expires is not None and expires <= now:
            return b""
        duplicate, outgoing.sent = outgoing.sent, True
        return self.dialect.publish(
            outgoing.topic,
            outgoing.payload,
            qos=outgoing.qos,
            retain=outgoing.retain,
            duplicate=duplicate,
            packet_id=packet_id,
            properties=outgoing.properties,
            expiry_s=None if expires is None else (expires - now) // 1000,
        )

    def _spoil(self, outgoing: Outgoing[Token]) -> None:
        if self._spoiled is None:
            self._spoiled = []
        self._spoiled.append(outgoing.token)

    def _wait_again(self, packet_id: int) -> None:
        assert self._in_flight is not None
        outgoing = self._in_flight[packet_id]
        if outgoing.received:
            return
        del self._in_flight[packet_id]
        self._in_flight_size_bytes -= outgoing.size_bytes
        outgoing.sent = False
        if self._pending is None:
            self._pending = deque()
        self._pending.appendleft(outgoing)
        self._pending_size_bytes += outgoing.size_bytes
