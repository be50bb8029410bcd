"""What the gateway must be told about devices: who a certificate is, and what it may do.

Declared here, implemented above (``devices``, over ``certificates``), joined in ``app.py``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from overair.basics.arn import Place
from overair.basics.ids import AccountId, CertificateId, ClientId


class DevicePolicy(Protocol):
    """The IoT policies of one certificate, compiled and bound to one connection (wire reference §8.5).

    Every argument is the bare name that the resource's ARN ends with; the implementation adds ``arn:aws:iot:…:client/``,
    ``…:topic/`` or ``…:topicfilter/``. Called for every message both ways: it must cost a microsecond, not a query.
    """

    def allows_connect(self, client_id: str) -> bool:
        """``iot:Connect`` on ``client/{client_id}``."""
        ...

    def allows_publish(self, topic: str) -> bool:
        """``iot:Publish`` on ``topic/{topic}``."""
        ...

    def allows_retain(self, topic: str) -> bool:
        """``iot:RetainPublish`` on ``topic/{topic}``; asked beside ``allows_publish``, not in its place."""
        ...

    def allows_subscribe(self, topic_filter: str) -> bool:
        """``iot:Subscribe`` on ``topicfilter/{topic_filter}``; the filter's own wildcards are literal characters there."""
        ...

    def allows_receive(self, topic: str) -> bool:
        """``iot:Receive`` on ``topic/{topic}``; asked at each delivery."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceIdentity:
    """A certificate that may speak now: registered, ACTIVE, within its dates, of the right purpose."""

    place: Place
    certificate_id: CertificateId
    policy: DevicePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a peer may not speak. ``reason`` is for the operator's log, never for the peer."""

    reason: str
    certificate_id: CertificateId | None = None
    """Where the certificate itself is known (inactive, expired, …)."""


class DeviceAuthority(Protocol):
    """Turns a peer's certificate into an identity with its policies."""

    async def admit(
        self, peer_der: bytes, client_id: ClientId | None, username: str | None, source_ip: str
    ) -> DeviceIdentity | Refusal:
        """Judge a certificate for one connection.

        ``client_id`` selects the thing whose variables the policy sees; None for HTTPS, where there is no client id.
        The answer says who it is; whether it may connect is asked of ``policy.allows_connect`` by the gateway.
        A refusal is returned, not raised.
        """
        ...


class LiveSessions(Protocol):
    """The gateway, as the rooms that change certificates, policies and attachments see it."""

    def reconsider(self, account: AccountId, certificates: Collection[CertificateId] | None) -> None:
        """Judge live connections of these certificates again (None: of the whole account), narrowing or cutting them.

        Called on the event loop after the commit that changed something (``tx.after_commit``), once the authority's own caches
        are evicted. Returns at once; the effect stands within a second.
        """
        ...
