"""The gateway's authority on devices: a certificate's registration, its thing and its policies, judged at each connection.

One read of the records for a connection that isn't remembered, none for one that is. What changes is forgotten after the
commit that changed it, and the gateway is told to judge the live connections again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant, as_datetime
from overair.basics.errors import InvalidRequest, OverairError
from overair.basics.ids import AccountId, CertificateId, ClientId
from overair.basics.work import News, Tx, Work
from overair.server.certificates.model import FLEET_ORIGIN, CertificateStatus
from overair.server.certificates.x509 import UNREADABLE, certificate_from_der, fingerprint_of_der
from overair.server.devices.admission import Admission, Admissions, SpokenFor
from overair.server.devices.blocks import Block, BlockKind
from overair.server.gateway.authority import DeviceIdentity, LiveSessions, Refusal, RefusalCode
from overair.server.policy_language.device_variables import Values, certificate_values, connection_values
from overair.server.policy_language.iot import (
    CONNECT,
    PUBLISH,
    RECEIVE,
    RETAIN_PUBLISH,
    SUBSCRIBE,
    BoundPolicySet,
    PolicySet,
)

ADMISSIONS_REMEMBERED_MAX: Final = 10_000
POLICY_SETS_REMEMBERED_MAX: Final = 1_000

_CLIENT_PURPOSES: Final = frozenset({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE})


logger = structlog.get_logger("overair.devices")


class BoundDevicePolicy:
    """A policy set bound to one connection, with the resource's ARN put before each name."""

    __slots__ = ("_allows", "_client", "_filter", "_topic")

    def __init__(self, bound: BoundPolicySet, place: Place) -> None:
        self._allows = bound.allows  # kept bound: it is asked for every message
        stem = f"arn:aws:iot:{place.region}:{place.account}:"
        self._client = f"{stem}client/"
        self._topic = f"{stem}topic/"
        self._filter = f"{stem}topicfilter/"

    def allows_connect(self, client_id: str) -> bool:
        """``iot:Connect`` on ``client/{client_id}``."""
        return self._allows(CONNECT, self._client + client_id)

    def allows_publish(self, topic: str) -> bool:
        """``iot:Publish`` on ``topic/{topic}``."""
        return self._allows(PUBLISH, self._topic + topic)

    def allows_retain(self, topic: str) -> bool:
        """``iot:RetainPublish`` on ``topic/{topic}``."""
        return self._allows(RETAIN_PUBLISH, self._topic + topic)

    def allows_subscribe(self, topic_filter: str) -> bool:
        """``iot:Subscribe`` on ``topicfilter/{topic_filter}``."""
        return self._allows(SUBSCRIBE, self._filter + topic_filter)

    def allows_receive(self, topic: str) -> bool:
        """``iot:Receive`` on ``topic/{topic}``."""
        return self._allows(RECEIVE, self._topic + topic)

    def allows(self, action: str, resource: str) -> bool:
        """Any other action, on a resource's whole ARN."""
        return self._allows(action, resource)


class FirstUse(Protocol):
    """``certificates.service.CertificatesService``."""

    def mark_used(self, tx: Tx, certificate: CertificateId) -> None: ...


class Newcomers(Protocol):
    """Who may register a certificate that nobody knows yet. Implemented above, by provisioning."""

    async def introduce(self, peer_der: bytes, chain_der: Sequence[bytes], source_ip: str) -> Refusal | None:
        """Register the certificate if an operator's rule allows it; None once it is registered, else why it isn't."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Remembered:
    """What an admission comes to, with what is costly to make of it; without the texts: each connection keeps one."""

    account: AccountId
    status: CertificateStatus
    not_before: Instant
    not_after: Instant
    thing: SpokenFor | None
    policies: PolicySet
    certificate_values: Values
    block: Block | None
    awaits_first_use: bool
    """Another certificate is kept until this one has let its device in once."""


_Key = tuple[CertificateId, str | None]


@dataclass(slots=True)
class _Reading:
    """A read under way: whatever changes meanwhile may not be in it."""

    stale: bool = False


class RegistryAuthority:
    """``gateway.authority.DeviceAuthority`` over the registry, and ``devices.ports.AccessChanged`` for those who change it.

    Everything but the reads runs on the event loop.
    """

    def __init__(
        self, *, work: Work, admissions: Admissions, clock: Clock, region: str, domain_names: Collection[str] = ()
    ) -> None:
        """``domain_names``: what the server certificate is for; values of ``iot:DomainName``."""
        self._work = work
        self._admissions = admissions
        self._clock = clock
        self._region = region
        self._domain_names = frozenset(name.lower() for name in domain_names)
        self._sessions: list[LiveSessions] = []
        self._newcomers: Newcomers | None = None
        self._first_use: FirstUse | None = None
        self._remembered: OrderedDict[_Key, _Remembered] = OrderedDict()
        self._clients_of: dict[CertificateId, set[_Key]] = {}
        self._reading: dict[CertificateId, set[int]] = {}
        self._reads: dict[int, _Reading] = {}
        self._read_number = 0
        self._policy_sets: OrderedDict[tuple[str, ...], PolicySet] = OrderedDict()

    def watched_by(self, sessions: LiveSessions) -> None:
        """Register, at composition, a gateway whose live connections are judged again after a change."""
        self._sessions.append(sessions)

    def introduced_by(self, newcomers: Newcomers) -> None:
        """Register, at composition, who may let in certificates that aren't registered."""
        self._newcomers = newcomers

    def first_use_noted_by(self, first_use: FirstUse) -> None:
        """Register, at composition, who writes down that a certificate which replaces another one works."""
        self._first_use = first_use

    async def admit(
        self,
        peer_der: bytes,
        client_id: ClientId | None,
        username: str | None,
        source_ip: str,
        chain_der: Sequence[bytes] = (),
        domain_name: str = "",
    ) -> DeviceIdentity | Refusal:
        """Judge a certificate for one connection: registered, not blocked, ACTIVE, within its dates, fit for a client; then its
        policies.

        The user name is ignored: the SDKs put their own version there (wire reference §8.2).
        """
        identity = fingerprint_of_der(peer_der)
        found = await self._find(identity, client_id, peer_der)
        if found is None and self._newcomers is not None:
            refusal = await self._newcomers.introduce(peer_der, chain_der, source_ip)
            if refusal is not None:
                return refusal
            found = await self._find(identity, client_id, peer_der)
        if found is None:
            return Refusal(reason=f"certificate {identity} isn't registered")
        if isinstance(found, Refusal):
            return found
        if (obstacle := self._obstacle(identity, found)) is not None:
            return obstacle
        if found.awaits_first_use:
            await self._note_first_use(identity)
        place = Place(self._region, found.account)
        thing = found.thing
        values: Values = {
            **found.certificate_values,
            **connection_values(
                client_id=client_id or "",
                source_ip=source_ip,
                thing_name=None if thing is None else thing.thing,
                thing_type_name=None if thing is None else thing.type_name,
                thing_attributes=None if thing is None else thing.attributes,
                # A peer may ask for any name; only the server's own say where it came in.
                domain_name=domain_name if domain_name in self._domain_names else "",
            ),
        }
        if client_id is None:
            del values["iot:ClientId"]  # HTTPS has none
        bound = found.policies.bind(values, now=self._clock.now)
        return DeviceIdentity(
            place=place,
            certificate_id=identity,
            policy=BoundDevicePolicy(bound, place),
            thing=None if thing is None else thing.thing,
            until=found.not_after,
        )

    def _obstacle(self, identity: CertificateId, found: _Remembered) -> Refusal | None:
        """What keeps a registered certificate out now."""
        now = self._clock.now()

        def refused(code: RefusalCode, reason: str) -> Refusal:
            place = Place(self._region, found.account)
            return Refusal(reason=f"certificate {identity} {reason}", certificate_id=identity, place=place, code=code)

        if found.block is not None:
            what = f"{found.block.kind.value} {found.block.name}"
            is_withdrawn = found.block.kind is BlockKind.ORIGIN and found.block.name.startswith(FLEET_ORIGIN)
            return refused(
                RefusalCode.AUTHORITY_WITHDRAWN if is_withdrawn else RefusalCode.BLOCKED,
                f"is kept out: {what} is blocked ({found.block.reason or 'no reason given'})",
            )
        if found.status is not CertificateStatus.ACTIVE:
            is_revoked = found.status is CertificateStatus.REVOKED
            return refused(RefusalCode.REVOKED if is_revoked else RefusalCode.INACTIVE, f"is {found.status.value}")
        if not found.not_before <= now <= found.not_after:
            return refused(
                RefusalCode.NOT_YET_VALID if now < found.not_before else RefusalCode.EXPIRED,
                f"holds from {as_datetime(found.not_before).isoformat()} "
                f"to {as_datetime(found.not_after).isoformat()}, not now",
            )
        return None

    async def _note_first_use(self, identity: CertificateId) -> None:
        """Once in a certificate's life. Where it can't be written the device comes in all the same: its next time counts."""
        if (first_use := self._first_use) is None:
            return
        try:
            await self._work.run(lambda tx: first_use.mark_used(tx, identity))
        except OverairError as error:
            logger.warning("the first use of a new certificate isn't noted", certificate=identity, why=error.message)
            return
        for key in self._clients_of.pop(identity, ()):
            del self._remembered[key]

    # What changes ---------------------------------------------------------------------------------------------------------

    def certificates(self, tx: Tx, account: AccountId, certificates: Collection[CertificateId]) -> None:
        """Forget these certificates after the commit, and have their live connections judged again."""
        if certificates:
            named = tuple(certificates)
            tx.after_commit(lambda: self._changed(account, named))
            tx.tell_nodes(News("device-access", (account, *named)))

    def everything(self, tx: Tx, account: AccountId) -> None:
        """Forget the account after the commit, and have all its live connections judged again."""
        tx.after_commit(lambda: self._changed(account, None))
        tx.tell_nodes(News("device-access", (account,)))

    def heard(self, parts: Sequence[str]) -> None:
        """Another node has changed what devices may do (``nodes.switchboard``)."""
        if parts:
            self._changed(AccountId(parts[0]), tuple(CertificateId(part) for part in parts[1:]) or None)
            return
        self._remembered.clear()
        self._clients_of.clear()
        for reading in self._reads.values():
            reading.stale = True
        for sessions in self._sessions:
            sessions.reconsider_everything()

    def _changed(self, account: AccountId, certificates: tuple[CertificateId, ...] | None) -> None:
        if certificates is None:
            certificates_forgotten: Collection[CertificateId] = [
                identity
                for identity, keys in self._clients_of.items()
                if any(self._remembered[key].account == account for key in keys)
            ]
            for reading in self._reads.values():
                reading.stale = True
        else:
            certificates_forgotten = certificates
            for identity in certificates:
                for number in self._reading.get(identity, ()):
                    self._reads[number].stale = True
        for identity in certificates_forgotten:
            for key in self._clients_of.pop(identity, ()):
                del self._remembered[key]
        for sessions in self._sessions:
            sessions.reconsider(account, certificates)

    # What is remembered ---------------------------------------------------------------------------------------------------

    async def _find(self, identity: CertificateId, client_id: str | None, peer_der: bytes) -> _Remembered | Refusal | None:
        key = (identity, client_id)
        found = self._remembered.get(key)
        if found is not None:
            self._remembered.move_to_end(key)
            return found
        while True:
            self._read_number += 1
            number, reading = self._read_number, _Reading()
            self._reads[number] = reading
            self._reading.setdefault(identity, set()).add(number)
            try:
                admission = await self._work.read(lambda tx: self._admissions.find(tx, identity, client_id))
            finally:
                del self._reads[number]
                under_way = self._reading[identity]
                under_way.discard(number)
                if not under_way:
                    del self._reading[identity]
            # What was read before a change must neither be remembered nor admit anyone after it.
            if not reading.stale:
                break
        if admission is None:
            return None
        prepared = self._prepare(admission, peer_der)
        if isinstance(prepared, _Remembered):
            self._remember(key, prepared)
        return prepared

    def _prepare(self, admission: Admission, peer_der: bytes) -> _Remembered | Refusal:
        identity = admission.certificate.id
        place = Place(self._region, admission.certificate.account)
        try:
            certificate = certificate_from_der(peer_der)
            purposes = _purposes(certificate)
            policies = self._policy_set(tuple(policy.document for policy in admission.policies))
        except InvalidRequest as broken:
            return Refusal(
                reason=f"certificate {identity}: {broken.message}",
                certificate_id=identity,
                place=place,
                code=RefusalCode.CERTIFICATE_UNREADABLE,
            )
        if purposes and _CLIENT_PURPOSES.isdisjoint(purposes):
            return Refusal(
                reason=f"certificate {identity} isn't for client authentication (extended key usage)",
                certificate_id=identity,
                place=place,
                code=RefusalCode.WRONG_PURPOSE,
            )
        registered = admission.certificate
        return _Remembered(
            account=registered.account,
            status=registered.status,
            not_before=registered.not_before,
            not_after=registered.not_after,
            thing=admission.thing,
            policies=policies,
            certificate_values=certificate_values(certificate, identity),
            block=admission.block,
            awaits_first_use=registered.awaits_first_use,
        )

    def _policy_set(self, documents: tuple[str, ...]) -> PolicySet:
        found = self._policy_sets.get(documents)
        if found is None:
            found = self._policy_sets[documents] = PolicySet.parse(documents)
            if len(self._policy_sets) > POLICY_SETS_REMEMBERED_MAX:
                self._policy_sets.popitem(last=False)
        else:
            self._policy_sets.move_to_end(documents)
        return found

    def _remember(self, key: _Key, entry: _Remembered) -> None:
        self._remembered[key] = entry
        self._remembered.move_to_end(key)
        self._clients_of.setdefault(key[0], set()).add(key)
        if len(self._remembered) > ADMISSIONS_REMEMBERED_MAX:
            oldest, _ = self._remembered.popitem(last=False)
            clients = self._clients_of[oldest[0]]
            clients.discard(oldest)
            if not clients:
                del self._clients_of[oldest[0]]


def _purposes(certificate: x509.Certificate) -> frozenset[x509.ObjectIdentifier]:
    """The extended key usages; empty where the certificate doesn't limit them.

    Raises:
        InvalidRequest: the extensions can't be read.
    """
    try:
        return frozenset(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return frozenset()
    except UNREADABLE as broken:
        raise InvalidRequest(f"its extensions can't be read: {str(broken)[:200]}", subject="certificate") from None
