"""Nouns of the gateway, and what it needs of the room that keeps sessions and messages (``broker``, which stands above it)."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from overair.basics.ids import AccountId, CertificateId, ClientId
from overair.server.gateway.limits import BrokerLimits
from overair.wire.mqtt.session import ServerSession

__all__ = ["BrokerLimits", "DisconnectReason", "HeldSession", "Link", "Message", "SessionKeeper"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Something published: QoS 0 or 1."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


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

    def send(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Write a QoS 0 message."""
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

    async def attach(self, link: Link, *, clean_session: bool) -> tuple[HeldSession, bool]: ...

    def begin(self, link: Link) -> None: ...

    def detach(self, link: Link, reason: DisconnectReason, will: Message | None) -> None: ...

    def narrowed(self, link: Link) -> None: ...

    def subscribe(self, link: Link, filters: Sequence[tuple[str, int]]) -> Awaitable[None] | None: ...

    def unsubscribe(self, link: Link, filters: Sequence[str]) -> Awaitable[None] | None: ...

    def has_retained(self, account: AccountId, topic: str) -> bool: ...

    async def send_retained(self, link: Link, filters: Sequence[tuple[str, int]]) -> None: ...

    def publish(self, account: AccountId, message: Message) -> Awaitable[None] | None: ...

    def acknowledged(self, link: Link, token: int | None) -> None: ...
