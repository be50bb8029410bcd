"""Nouns of the broker."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from overair.basics.clock import Instant
from overair.basics.ids import CertificateId, ClientId


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Something published: QoS 0 or 1."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetainedMessage:
    """The last message published to a topic with the retain flag."""

    topic: str
    payload: bytes
    qos: int
    last_modified: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class RetainedSummary:
    """A retained message without its bytes, as lists show it."""

    topic: str
    payload_size_bytes: int
    qos: int
    last_modified: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """A persistent session as the store keeps it. ``expires`` is None while it is connected."""

    client_id: ClientId
    expires: Instant | None
    subscriptions: tuple[tuple[str, int], ...]
    queued_count: int
    queued_size_bytes: int
    last_position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedMessage:
    """A QoS 1 message that a persistent session hasn't acknowledged. ``position`` orders a session's messages from 1."""

    position: int
    topic: str
    payload: bytes


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerLimits:
    """Bounds on what the broker keeps. The gateway's profiles fill them."""

    session_expiry_ms: int = 3_600_000
    """How long a persistent session outlives its connection."""
    in_flight_count_max: int = 100
    pending_count_max: int = 1000
    pending_size_bytes_max: int = 8 * 1024 * 1024
    queued_count_max: int = 10_000
    """Of QoS 1 messages stored for one persistent session; later ones are dropped and counted."""
    queued_size_bytes_max: int = 64 * 1024 * 1024
    retained_count_max: int = 500_000
    """Of an account."""


class Link(Protocol):
    """A live connection, as the broker sees it."""

    certificate_id: CertificateId
    source_ip: str

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
