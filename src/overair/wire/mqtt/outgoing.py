"""One message on its way to a client, above QoS 0."""

from __future__ import annotations

from typing import Generic, TypeVar

from overair.wire.mqtt.packets import Properties

Token = TypeVar("Token")


def properties_size_bytes(properties: Properties) -> int:
    """About what they take in memory and in a store: enough to bound queues by."""
    size = 0
    for _, value in properties:
        if isinstance(value, tuple):
            size += len(value[0]) + len(value[1])
        elif not isinstance(value, int):
            size += len(value)
        size += 5
    return size


class Outgoing(Generic[Token]):
    """A message until it is acknowledged. ``expires`` is a moment on the owner's clock, in ms."""

    __slots__ = ("expires", "payload", "properties", "qos", "received", "retain", "sent", "token", "topic")

    def __init__(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        token: Token,
        properties: Properties = (),
        expires: int | None = None,
    ) -> None:
        self.properties = properties
        self.expires = expires
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.token = token
        self.sent = False
        self.received = False  # QoS 2: PUBREC has come

    @property
    def size_bytes(self) -> int:
        size = len(self.topic) + len(self.payload)
        return size + properties_size_bytes(self.properties) if self.properties else size
