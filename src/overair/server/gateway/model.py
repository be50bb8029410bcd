"""Nouns of the gateway, and what it needs of the room that keeps sessions and messages (``broker``, which stands above it)."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

import msgspec

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, CertificateId, ClientId
from overair.server.gateway.limits import BrokerLimits
from overair.wire.mqtt.packets import Properties
from overair.wire.mqtt.reasons import Reason
from overair.wire.mqtt.session import ServerSession

__all__ = ["BrokerLimits", "DisconnectReason", "HeldSession", "LastWord", "Link", "Message", "SessionKeeper", "SessionWish"]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Something published: QoS 0 or 1. One is made for each publish, so it is made as packets are."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = ()
    """What MQTT 5 passes on to receivers, but for the expiry."""
    expires: Instant | None = None
    """Who hasn't got it by then doesn't get it any more."""
    publisher: ClientId | None = None
    """Who published it, where somebody may have asked not to hear himself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionWish:
    """What a CONNECT asks of its session."""

    clean_start: bool
    expiry_ms: int
    """How long it outlives the connection; 0: it ends with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWord:
    """A will that is due: published after a delay, unless its client comes back before."""

    message: Message
    delay_ms: int = 0


class DisconnectReason(Enum):
    """Why a connection ended: the words of presence events (wire reference §8.6)."""

    AUTH_ERROR = "AUTH_ERROR"
    CLIENT_INITIATED_DISCONNECT = "CLIENT_INITIATED_DISCONNECT"
    CLIENT_ERROR = "CLIENT_ERROR"
    CONNECTION_LOST = "CONNECTION_LOST"
    DUPLICATE_CLIENTID = "DUPLICATE_CLIENTID"
    FORBIDDEN_ACCESS = "FORBIDDEN_ACCESS"
    MQTT_KEEP_ALIVE_TIMEOUT = "MQTT_KEEP_ALIVE_TIMEOUT"
    SERVER_ERROR = "SERVER_ERROR"
    SERVER_INITIATED_DISCONNECT = "SERVER_INITIATED_DISCONNECT"
    API_INITIATED_DISCONNECT = "API_INITIATED_DISCONNECT"
    THROTTLED = "THROTTLED"
    WEBSOCKET_TTL_EXPIRATION = "WEBSOCKET_TTL_EXPIRATION"


REASON_CODES: Final[dict[DisconnectReason, Reason]] = {
    DisconnectReason.AUTH_ERROR: Reason.NOT_AUTHORIZED,
    DisconnectReason.FORBIDDEN_ACCESS: Reason.NOT_AUTHORIZED,
    DisconnectReason.CLIENT_ERROR: Reason.PROTOCOL_ERROR,
    DisconnectReason.DUPLICATE_CLIENTID: Reason.SESSION_TAKEN_OVER,
    DisconnectReason.MQTT_KEEP_ALIVE_TIMEOUT: Reason.KEEP_ALIVE_TIMEOUT,
    DisconnectReason.SERVER_ERROR: Reason.UNSPECIFIED_ERROR,
    DisconnectReason.SERVER_INITIATED_DISCONNECT: Reason.SERVER_SHUTTING_DOWN,
    DisconnectReason.API_INITIATED_DISCONNECT: Reason.ADMINISTRATIVE_ACTION,
    DisconnectReason.THROTTLED: Reason.QUOTA_EXCEEDED,
    DisconnectReason.WEBSOCKET_TTL_EXPIRATION: Reason.MAXIMUM_CONNECT_TIME,
}
"""What a client that speaks MQTT 5 is told before the close. Who left by himself is told nothing."""


class Link(Protocol):
    """A live connection, as the broker sees it."""

    client_id: ClientId
    certificate_id: CertificateId
    source_ip: str

    @property
    def account(self) -> AccountId: ...

    @property
    def is_slow(self) -> bool:
        """The peer doesn't read: QoS 0 is dropped and QoS 1 waits."""
        ...

    def accepts(self, topic: str, topic_filter: str | None) -> bool:
        """Whether policy lets this connection receive ``topic`` through this filter (None: through any that it holds)."""
        ...

    def send(self, message: Message, *, retain: bool) -> None:
        """Write a message at QoS 0."""
        ...

    def write(self, data: bytes) -> None:
        """Write whole packets."""
        ...

    def close(self, reason: DisconnectReason) -> None:
        """End the connection; the broker is told through ``detach`` before this returns."""
        ...


class HeldSession(Protocol):
    """One client id's session, as its connection sees it."""

    @property
    def session(self) -> ServerSession[int | None]: ...

    @property
    def behind(self) -> bool:
        """More may wait in the store than the session object holds."""
        ...


class SessionKeeper(Protocol):
    """Sessions, subscriptions and delivery. Implemented by ``broker.service.Broker``, whose docstrings say more.

    ``subscribe``, ``unsubscribe`` and ``publish`` return None when all is done, or an awaitable that ends with the commit.
    """

    async def attach(self, link: Link, wish: SessionWish) -> tuple[HeldSession, bool]: ...

    def begin(self, link: Link) -> None: ...

    def detach(self, link: Link, reason: DisconnectReason, will: LastWord | None) -> None: ...

    def outlive(self, link: Link, expiry_ms: int) -> None: ...

    def narrowed(self, link: Link) -> None: ...

    def subscribe(self, link: Link, filters: Sequence[tuple[str, int]]) -> Awaitable[None] | None: ...

    def unsubscribe(self, link: Link, filters: Sequence[str]) -> Awaitable[None] | None: ...

    def has_retained(self, account: AccountId, topic: str) -> bool: ...

    async def send_retained(self, link: Link, filters: Sequence[tuple[str, int]]) -> None: ...

    def publish(self, account: AccountId, message: Message) -> Awaitable[None] | None: ...

    def acknowledged(self, link: Link, token: int | None) -> None: ...
