"""What the gateway must be told about devices: who a certificate is, and what it may do.

Declared here, implemented above (``devices``, over ``certificates``), joined in ``app.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.ids import AccountId, CertificateId, ClientId, ThingName


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

    def allows(self, action: str, resource: str) -> bool:
        """Any other action, on a resource's whole ARN: what the device's HTTPS paths need (``overair:…``)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceIdentity:
    """Who may speak now: a certificate that is registered, ACTIVE, within its dates and of the right purpose; an operator."""

    place: Place
    certificate_id: CertificateId
    """Of an operator it is the unique id of the user or of the role's session: what events call the principal."""
    policy: DevicePolicy
    thing: ThingName | None = None
    """The thing that the connection speaks for, if it speaks for one."""
    until: Instant | None = None
    """When this identity ends by itself, if it does (a session token's)."""


class RefusalCode(StrEnum):
    """What keeps a peer out, by name: the codes of the device door (Uptane reference §3.2, §12)."""

    CERTIFICATE_REQUIRED = "certificate_required"
    CERTIFICATE_UNREADABLE = "certificate_unreadable"
    CERTIFICATE_UNKNOWN = "certificate_unknown"
    FOREIGN_AUTHORITY = "foreign_certificate_authority"
    AUTHORITY_WITHDRAWN = "certificate_authority_withdrawn"
    AUTHORITY_EXPIRED = "certificate_authority_expired"
    CHAIN_TOO_DEEP = "certificate_chain_too_deep"
    CHAIN_INVALID = "certificate_chain_invalid"
    EXPIRED = "certificate_expired"
    NOT_YET_VALID = "certificate_not_yet_valid"
    WRONG_PURPOSE = "certificate_wrong_purpose"
    NO_COMMON_NAME = "certificate_without_common_name"
    SEVERAL_COMMON_NAMES = "certificate_with_several_common_names"
    COMMON_NAME_INVALID = "certificate_common_name_invalid"
    REVOKED = "certificate_revoked"
    INACTIVE = "certificate_inactive"
    WITHOUT_THING = "certificate_without_thing"
    NOT_REGISTERED = "device_not_registered"
    KEY_MISMATCH = "device_key_mismatch"
    AWAITS_APPROVAL = "device_awaits_approval"
    BLOCKED = "device_blocked"
    CREDENTIAL_NOT_ALLOWED_HERE = "credential_not_allowed_here"
    UNAVAILABLE = "temporarily_unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a peer may not speak. ``reason`` is for the operator's log, never for the peer."""

    reason: str
    certificate_id: CertificateId | None = None
    """Where the certificate itself is known (inactive, expired, …)."""
    place: Place | None = None
    """Where it is registered, if it is."""
    code: RefusalCode = RefusalCode.CERTIFICATE_UNKNOWN


class Proof(Protocol):
    """What a peer has shown in place of a certificate: an operator's signature over a WebSocket's request."""

    @property
    def principal_arn(self) -> str:
        """Whose signature it is."""
        ...

    async def admit(self, client_id: ClientId) -> DeviceIdentity | Refusal:
        """As ``DeviceAuthority.admit``; asked again whenever rights may have changed."""
        ...


class DeviceAuthority(Protocol):
    """Turns a peer's certificate into an identity with its policies."""

    async def admit(
        self,
        peer_der: bytes,
        client_id: ClientId | None,
        username: str | None,
        source_ip: str,
        chain_der: Sequence[bytes] = (),
        domain_name: str = "",
    ) -> DeviceIdentity | Refusal:
        """Judge a certificate for one connection.

        ``domain_name``: which of the server's names the peer asked for in its handshake; empty where it named none.
        ``chain_der``: what the peer sent in its handshake beside the certificate, for one that nobody knows yet.
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

    def reconsider_everything(self) -> None:
        """The same for all accounts: changes may have been missed."""
        ...
