"""The port between the agent and its network."""

from __future__ import annotations

from typing import Protocol


class TransportListener(Protocol):
    """Who hears of the connection. Called from any thread; must not block."""

    def connected(self) -> None:
        """A session stands; nothing is subscribed in it yet."""
        ...

    def received(self, topic: str, payload: bytes) -> None:
        """A message came, subscribed or not (Jobs' replies are delivered without a subscription)."""
        ...


class Transport(Protocol):
    """A connection that is made again whenever it is lost."""

    def start(self, listener: TransportListener) -> None:
        """Begin to connect, and go on doing so until stopped. Returns at once."""
        ...

    def stop(self) -> None:
        """Say goodbye and end. May be called twice."""
        ...

    def subscribe(self, topic_filter: str, *, qos: int) -> None:
        """Ask for messages. Of no effect while disconnected: subscribe again on ``connected``."""
        ...

    def publish(self, topic: str, payload: bytes, *, qos: int, timeout_s: float = 0) -> bool:
        """Send a message. With QoS 1 and a timeout: wait for the acknowledgement, and say whether it came."""
        ...
