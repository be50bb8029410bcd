"""Nouns of the broker."""

from __future__ import annotations

from dataclasses import dataclass

from overair.basics.clock import Instant
from overair.basics.ids import ClientId
from overair.wire.mqtt.packets import Properties


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPresence:
    """Whether a client is connected, and since when it is not as far as this process remembers."""

    connected: bool
    gone_since: Instant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetainedMessage:
    """The last message published to a topic with the retain flag."""

    topic: str
    payload: bytes
    qos: int
    last_modified: Instant
    properties: Properties = ()
    expires: Instant | None = None


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
    """Each filter with its QoS in the two low bits, and the other options of MQTT 5 above them."""
    queued_count: int
    queued_size_bytes: int
    last_position: int
    heard_to: int = 0
    """Where a server has several gateways: the last notice of the outbox in its queue."""
    expiry_ms: int | None = None
    """How long it outlives its connection; None where that is the account's to say (MQTT 3.1.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedMessage:
    """A QoS 1 message that a persistent session hasn't acknowledged. ``position`` orders a session's messages from 1."""

    position: int
    topic: str
    payload: bytes
    properties: Properties = ()
    expires: Instant | None = None
