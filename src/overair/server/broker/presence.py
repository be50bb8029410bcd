"""Presence and subscription events: ``$aws/events/presence/…`` and ``$aws/events/subscriptions/…`` (wire reference §8.6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from overair.basics.clock import Clock, Instant
from overair.basics.ids import AccountId, ClientId, IdSource
from overair.server.broker.sessions import SessionRecord
from overair.server.gateway.model import DisconnectReason, Link, Message

VERSION_KEPT_MS: Final = 3_600_000
"""A client that was away for longer begins again at version 0."""


class Presence:
    """Tells whoever subscribed that clients come and go. Costs nothing where nobody listens."""

    def __init__(
        self,
        *,
        clock: Clock,
        ids: IdSource,
        publish: Callable[[AccountId, Message], None],
        is_heard: Callable[[AccountId, str], bool],
    ) -> None:
        self._clock = clock
        self._ids = ids
        self._publish = publish
        self._is_heard = is_heard
        self._versions: dict[tuple[AccountId, ClientId], tuple[int, Instant | None]] = {}

    def connected(self, record: SessionRecord, link: Link) -> None:
        """A connection begins: it gets its identifier and its version, which the matching ``disconnected`` repeats."""
        key = (record.account, record.client_id)
        version, gone = self._versions.get(key, (-1, None))
        now = self._clock.now()
        record.version = 0 if gone is not None and now - gone > VERSION_KEPT_MS else version + 1
        record.identifier = self._ids.uuid()
        self._versions[key] = (record.version, None)
        self._tell(
            record,
            link,
            "presence/connected",
            {"eventType": "connected", "ipAddress": link.source_ip, "versionNumber": record.version},
        )

    def disconnected(self, record: SessionRecord, link: Link, reason: DisconnectReason) -> None:
        """A connection ended."""
        self._versions[record.account, record.client_id] = (record.version, self._clock.now())
        self._tell(
            record,
            link,
            "presence/disconnected",
            {
                "eventType": "disconnected",
                "clientInitiatedDisconnect": reason is DisconnectReason.CLIENT_INITIATED_DISCONNECT,
                "disconnectReason": reason.value,
                "versionNumber": record.version,
            },
        )

    def subscribed(self, record: SessionRecord, filters: Sequence[str]) -> None:
        """Subscriptions were granted."""
        self._tell(record, record.link, "subscriptions/subscribed", {"eventType": "subscribed", "topics": list(filters)})

    def unsubscribed(self, record: SessionRecord, filters: Sequence[str]) -> None:
        """Subscriptions were given up."""
        self._tell(record, record.link, "subscriptions/unsubscribed", {"eventType": "unsubscribed", "topics": list(filters)})

    def gone_since(self, account: AccountId, client_id: ClientId) -> Instant | None:
        """When the client left; None while it is here, and once that was forgotten."""
        return self._versions.get((account, client_id), (0, None))[1]

    def forget_long_gone(self) -> None:
        """Free what is kept of clients that were away for longer than their version is kept."""
        limit = self._clock.now() - VERSION_KEPT_MS
        for key in [key for key, (_, gone) in self._versions.items() if gone is not None and gone < limit]:
            del self._versions[key]

    def _tell(self, record: SessionRecord, link: Link | None, family: str, members: dict[str, object]) -> None:
        if link is None or "#" in record.client_id or "+" in record.client_id:
            return
        topic = f"$aws/events/{family}/{record.client_id}"
        if not self._is_heard(record.account, topic):
            return
        event = {
            "clientId": record.client_id,
            "timestamp": self._clock.now(),
            "sessionIdentifier": record.identifier,
            "principalIdentifier": link.certificate_id,
            **members,
        }
        self._publish(record.account, Message(topic=topic, payload=msgspec.json.encode(event), qos=1))
