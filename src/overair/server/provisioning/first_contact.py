"""Devices of operators' own authorities: let in at their first contact where a rule says so, and held to their key afterwards.

Reading decides, and only what changes something writes: a device that is refused every ten seconds costs no commit.
Uptane reference §3.3, §12.2.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final, Protocol

import structlog
from cryptography import x509 as pyca

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import Conflict, NotFound, OverairError
from overair.basics.ids import AccountId, CertificateId, ThingName
from overair.basics.work import Tx, Work
from overair.server.audit.service import AuditTrail
from overair.server.certificates import x509
from overair.server.certificates.model import CertificateStatus, DeviceCertificate
from overair.server.devices.blocks import BlockKind, BlocksService
from overair.server.gateway.authority import Refusal, RefusalCode
from overair.server.provisioning.certificate_paths import (
    Anchor,
    Link,
    PathRefused,
    PresentedChain,
    TrustedPath,
    device_name,
    verify_path,
)
from overair.server.provisioning.enrolment import Enrolment, key_of
from overair.server.provisioning.fleet_authorities import FleetAuthorities, belongings_of
from overair.server.provisioning.model import (
    ALARMS,
    ANOMALIES_MAX,
    DAY_MS,
    Anomaly,
    AnomalyKind,
    AuthorityId,
    FirstContact,
    FleetAuthority,
    ProvisionedDevice,
)
from overair.server.provisioning.ports import Store
from overair.server.provisioning.renewal_model import AnotherKey, judge_another_key
from overair.server.provisioning.renewals import Renewals, is_older
from overair.server.provisioning.revocation_lists import SUBJECT
from overair.server.provisioning.revocations import Revocations

ANOMALIES_OF_THING_MAX: Final = 10
PATHS_REMEMBERED_MAX: Final = 10_000
ANOMALY_NOTED_AGAIN_MS: Final = 60_000
"""An anomaly that goes on is written down at most this often."""

logger = structlog.get_logger("overair.provisioning")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """A certificate with a good chain that isn't registered."""

    authority: FleetAuthority
    leaf: pyca.Certificate
    thing: ThingName
    source_ip: str
    links: tuple[Link, ...]
    """Of its path: what revocation lists are asked for."""

    @property
    def certificate_id(self) -> CertificateId:
        return x509.fingerprint(self.leaf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the rule says: let in if ``refusal`` is None."""

    refusal: Refusal | None = None
    anomaly: AnomalyKind | None = None


class FirstContacts:
    """Decides about certificates that have a good chain, in a transaction."""

    def __init__(
        self,
        *,
        store: Store,
        fleet: FleetAuthorities,
        enrolment: Enrolment,
        blocks: BlocksService,
        revocations: Revocations,
        renewals: Renewals,
        clock: Clock,
        region: str,
    ) -> None:
        self._renewals = renewals
        self._trail: AuditTrail | None = None
        self._store = store
        self._fleet = fleet
        self._enrolment = enrolment
        self._blocks = blocks
        self._revocations = revocations
        self._clock = clock
        self._region = region

    def watched_by(self, trail: AuditTrail) -> None:
        """Register, before the start, who writes down which keys came out of turn."""
        self._trail = trail

    def place_of(self, account: AccountId) -> Place:
        """Where an account's devices are."""
        return Place(self._region, account)

    def decide(self, tx: Tx, contact: Contact) -> Verdict:
        """What the records and the authority's rule say. Changes nothing."""
        account, rule = contact.authority.account, contact.authority.rule
        if self._blocks.find(tx, account, BlockKind.THING, contact.thing) is not None:
            return _refused(contact, RefusalCode.BLOCKED, "its thing is blocked")
        # A certificate can be written in another way, with another id, by whoever has it: what was taken away from one of a key
        # is taken away from all.
        for each in self._enrolment.certificates_with_key_of(tx, account, contact.leaf):
            if each.status is not CertificateStatus.ACTIVE and not is_older(each, than=x509.not_before(contact.leaf)):
                is_revoked = each.status is CertificateStatus.REVOKED
                code = RefusalCode.REVOKED if is_revoked else RefusalCode.INACTIVE
                return _refused(contact, code, f"certificate {each.id} of the same key is {each.status.value}")
            if self._blocks.find(tx, account, BlockKind.CERTIFICATE, each.id) is not None:
                return _refused(contact, RefusalCode.BLOCKED, f"certificate {each.id} of the same key is blocked")
        against = self._revocations.refusal(tx, account, contact.links)
        if against is not None:
            return _refused(contact, *against)
        attached = self._enrolment.certificates_of(tx, account, contact.thing)
        if not attached:
            if rule.first_contact is FirstContact.DENY:
                why = "the rule of its authority lets no unknown device in"
            elif not fnmatchcase(contact.thing, rule.device_id_pattern):
                why = f"its name doesn't fit the rule's pattern {rule.device_id_pattern}"
            else:
                return Verdict()
            return _refused(contact, RefusalCode.NOT_REGISTERED, why, AnomalyKind.UNREGISTERED)
        # The name is bound to the key: a certificate issued anew for it is the same device.
        if any(key_of(each) == x509.public_key_der(contact.leaf) for each in attached):
            return Verdict()
        return self._another_key(contact, attached)

    def let_in(self, tx: Tx, contact: Contact) -> Refusal | None:
        """Register a certificate as its thing's own, after deciding again; None once it is registered."""
        authority = self._store.find_authority_anywhere(tx, contact.authority.id)
        if authority is None:
            return _refused(contact, RefusalCode.FOREIGN_AUTHORITY, "its authority was withdrawn just now").refusal
        contact = replace(contact, authority=authority)
        attached = self._enrolment.certificates_of(tx, authority.account, contact.thing)
        if any(each.id == contact.certificate_id for each in attached):
            return None  # another connection of the same device came first
        verdict = self.decide(tx, contact)
        if verdict.anomaly is not None:
            self.note(tx, contact, verdict.anomaly)
        if verdict.refusal is None:
            self._enrol(tx, contact.authority, contact.leaf, contact.thing, contact.source_ip)
        return verdict.refusal

    def is_noted(self, tx: Tx, contact: Contact, kind: AnomalyKind) -> bool:
        """Whether this anomaly was written down within the last minute."""
        standing = self._store.find_anomaly(tx, contact.authority.account, contact.certificate_id)
        return (
            standing is not None
            and standing.kind is kind
            and self._clock.now() - standing.last_seen_at < ANOMALY_NOTED_AGAIN_MS
        )

    def note(self, tx: Tx, contact: Contact, kind: AnomalyKind) -> None:
        """Write an anomaly down, or that it goes on."""
        self.note_certificate(
            tx,
            contact.authority.account,
            kind,
            certificate_id=contact.certificate_id,
            pem=x509.pem_of(contact.leaf),
            thing=contact.thing,
            authority=contact.authority.id,
            source_ip=contact.source_ip,
        )

    def note_superseded(
        self, tx: Tx, place: Place, thing: ThingName, certificate: DeviceCertificate, *, source_ip: str
    ) -> None:
        """A certificate that another one has followed was used to ask for a third."""
        self.note_certificate(
            tx,
            place.account,
            AnomalyKind.SUPERSEDED,
            certificate_id=certificate.id,
            pem=certificate.pem,
            thing=thing,
            authority=AuthorityId(""),
            source_ip=source_ip,
        )

    def note_certificate(
        self,
        tx: Tx,
        account: AccountId,
        kind: AnomalyKind,
        *,
        certificate_id: CertificateId,
        pem: str,
        thing: ThingName,
        authority: AuthorityId,
        source_ip: str,
    ) -> None:
        """Write down what was odd about a certificate, or that it goes on; the first time of an alarm in the audit, too."""
        now = self._clock.now()
        standing = self._store.find_anomaly(tx, account, certificate_id)
        if standing is None and kind in ALARMS and self._trail is not None:
            place = Place(self._region, account)
            self._trail.another_key(
                tx,
                account,
                thing_arn=place.iot("thing", thing),
                certificate_arn=place.iot("cert", certificate_id),
                source_ip=source_ip,
            )
        self._store.put_anomaly(
            tx,
            Anomaly(
                account=account,
                certificate_id=certificate_id,
                thing=thing,
                kind=kind,
                authority=authority,
                pem=pem,
                first_seen_at=now if standing is None else standing.first_seen_at,
                last_seen_at=now,
                times_seen=1 if standing is None else standing.times_seen + 1,
                source_ip=source_ip,
            ),
            keep_max=ANOMALIES_MAX,
        )

    # What operators say to it -----------------------------------------------------------------------------------------------

    def page(self, tx: Tx, account: AccountId, *, after: tuple[int, str] | None, limit: int) -> Sequence[Anomaly]:
        """Anomalies, the ones seen last first."""
        return self._store.page_anomalies(tx, account, after=after, limit=limit)

    def approve(self, tx: Tx, place: Place, certificate: CertificateId, *, deactivate_others: bool) -> Anomaly:
        """Let a noted certificate in as its thing's own.

        Raises:
            NotFound: it isn't noted, or its authority was withdrawn. Subjects ``anomaly``, ``fleet-authority``.
            Conflict: a revocation list names it. Subject ``revocation-list``.
        """
        anomaly = self._find(tx, place.account, certificate)
        authority = self._fleet.find(tx, place.account, anomaly.authority)
        others = self._enrolment.certificates_of(tx, place.account, anomaly.thing)
        leaf = x509.certificate_from_pem(anomaly.pem.encode("ascii"))
        against = self._revocations.refusal(tx, place.account, self._revocations.links_of(tx, place.account, leaf))
        if against is not None:
            raise Conflict(f"The certificate {certificate} can't come in: {against[1]}.", subject=SUBJECT)
        self._enrol(tx, authority, leaf, anomaly.thing, anomaly.source_ip)
        if deactivate_others:
            for other in others:
                self._enrolment.deactivate(tx, place, other.id)
        self._store.delete_anomaly(tx, place.account, certificate)
        return anomaly

    def dismiss(self, tx: Tx, place: Place, certificate: CertificateId) -> None:
        """Forget an anomaly; if it goes on it is noted again.

        Raises:
            NotFound: it isn't noted. Subject ``anomaly``.
        """
        self._find(tx, place.account, certificate)
        self._store.delete_anomaly(tx, place.account, certificate)

    def _find(self, tx: Tx, account: AccountId, certificate: CertificateId) -> Anomaly:
        found = self._store.find_anomaly(tx, account, certificate)
        if found is None:
            raise NotFound(f"No anomaly is noted of a certificate {certificate:.80}.", subject="anomaly")
        return found

    def _another_key(self, contact: Contact, attached: Sequence[DeviceCertificate]) -> Verdict:
        """A known device with a key that nobody has seen."""
        rule, now = contact.authority.rule, self._clock.now()
        overlap_ms = rule.renewal_overlap_days * DAY_MS
        is_in_time = any(
            each.origin == contact.authority.origin
            and each.status is CertificateStatus.ACTIVE
            and each.not_after - now <= overlap_ms
            for each in attached
        )
        judged = judge_another_key(is_proved=False, is_in_time=is_in_time, renewal=rule.renewal)
        if judged is AnotherKey.RENEWAL:
            return Verdict()
        if judged is AnotherKey.APPROVAL:
            why = "it shows a new key near the end of its certificate, which the rule has an operator approve"
            return _refused(contact, RefusalCode.AWAITS_APPROVAL, why, AnomalyKind.RENEWAL)
        why = "another key is bound to its name, and no renewal is due"
        return _refused(contact, RefusalCode.KEY_MISMATCH, why, AnomalyKind.KEY_MISMATCH)

    def _present(self, tx: Tx, account: AccountId, thing: ThingName, leaf: pyca.Certificate) -> Sequence[DeviceCertificate]:
        """What a new certificate of a known device replaces: whatever of it is ACTIVE and was issued before."""
        return [
            each
            for each in self._enrolment.certificates_of(tx, account, thing)
            if each.status is CertificateStatus.ACTIVE and each.not_before < x509.not_before(leaf)
        ]

    def _enrol(self, tx: Tx, authority: FleetAuthority, leaf: pyca.Certificate, thing: ThingName, source_ip: str) -> None:
        place = Place(self._region, authority.account)
        present = self._present(tx, authority.account, thing, leaf)
        identity = self._enrolment.enrol(
            tx,
            place,
            thing,
            leaf,
            origin=authority.origin,
            belongings=belongings_of(authority.rule),
            source_ip=source_ip,
        )
        for each in present:
            self._enrolment.copy_policies(tx, place, of=each.id, to=identity)
            self._renewals.note(tx, place, old=each.id, new=identity, overlap_days=authority.rule.renewal_overlap_days)
        standing = self._store.find_device(tx, authority.account, thing)
        self._store.put_device(
            tx,
            ProvisionedDevice(
                account=authority.account,
                thing=thing,
                origin=authority.origin,
                certificate_id=identity,
                created_at=self._clock.now(),
                source_ip=source_ip,
                registered_at=None if standing is None else standing.registered_at,
            ),
        )


class JustInTime(Protocol):
    """Who registers the certificates of CA certificates that take newcomers. Implemented by ``just_in_time``."""

    async def introduce(self, leaf: pyca.Certificate, authorities: Sequence[FleetAuthority], source_ip: str) -> Refusal | None:
        """As ``Newcomers.introduce``. Raises PathRefused where none of them has issued it."""
        ...


class Introductions:
    """``devices.authority.Newcomers``: from the bytes of a handshake to a registered certificate, or a refusal by name."""

    def __init__(
        self,
        *,
        work: Work,
        store: Store,
        fleet: FleetAuthorities,
        contacts: FirstContacts,
        clock: Clock,
        newcomers: JustInTime | None = None,
    ) -> None:
        """``newcomers``: who registers certificates of AWS's CA certificates; None: nobody."""
        self._newcomers = newcomers
        self._work = work
        self._store = store
        self._fleet = fleet
        self._contacts = contacts
        self._clock = clock
        self._paths: OrderedDict[bytes, TrustedPath] = OrderedDict()

    async def introduce(self, peer_der: bytes, chain_der: Sequence[bytes], source_ip: str) -> Refusal | None:
        """Register the certificate if an operator's rule allows it; None once it is registered, else why it isn't."""
        identity = x509.fingerprint_of_der(peer_der)
        try:
            chain = PresentedChain.read(peer_der, chain_der)
            credential, authorities = await self._work.read(
                lambda tx: (
                    self._store.find_credential_by_certificate(tx, identity),
                    self._fleet.named(tx, chain.issuer_hashes),
                )
            )
            if credential is not None:
                why = f"it is the shared provisioning credential {credential.id}, which may do nothing but POST /devices"
                return Refusal(
                    reason=why,
                    certificate_id=identity,
                    place=self._contacts.place_of(credential.account),
                    code=RefusalCode.CREDENTIAL_NOT_ALLOWED_HERE,
                )
            known = [each for each in authorities if each.registration is None or each.registration.is_active]
            taking = [each for each in known if each.registration is not None and each.registration.takes_newcomers]
            if self._newcomers is not None and taking:
                return await self._newcomers.introduce(chain.leaf, taking, source_ip)
            contact = await self._proved(chain, chain_der, known, source_ip)
        except PathRefused as refused:
            return Refusal(reason=f"certificate {identity}: {refused.message}", certificate_id=identity, code=refused.code)
        refusal = await self._decided(contact)
        return None if refusal is None else replace(refusal, place=self._contacts.place_of(contact.authority.account))

    async def _proved(
        self, chain: PresentedChain, chain_der: Sequence[bytes], authorities: Sequence[FleetAuthority], source_ip: str
    ) -> Contact:
        """The contact, once its path is found good: searched for, or remembered.

        Raises:
            PathRefused
        """
        now = self._clock.now()
        by_id = {authority.id: authority for authority in authorities}
        # What was found depends on everything that was sent, and on the authorities that were trusted then.
        key = hashlib.sha256(b"".join(hashlib.sha256(der).digest() for der in (x509.der_of(chain.leaf), *chain_der))).digest()
        path = self._paths.get(key)
        if path is None or path.authority not in by_id or now > path.not_after:
            anchors = [
                Anchor(authority.id, x509.certificate_from_pem(authority.pem.encode("ascii"))) for authority in authorities
            ]
            path = await asyncio.to_thread(verify_path, chain, anchors, now=now)
            self._remember(key, path)
        return Contact(
            authority=by_id[path.authority],
            leaf=chain.leaf,
            thing=device_name(chain.leaf),
            source_ip=source_ip,
            links=path.links,
        )

    async def _decided(self, contact: Contact) -> Refusal | None:
        def look(tx: Tx) -> tuple[Verdict, bool]:
            verdict = self._contacts.decide(tx, contact)
            return verdict, verdict.anomaly is not None and not self._contacts.is_noted(tx, contact, verdict.anomaly)

        verdict, is_news = await self._work.read(look)
        if verdict.refusal is not None and not is_news:
            return verdict.refusal
        try:
            refusal = await self._work.run(lambda tx: self._contacts.let_in(tx, contact))
        except OverairError as error:
            # The rule names a group, type or policy that is gone, or the disk is full: nobody is let in half.
            logger.warning("a device could not be let in", thing=contact.thing, why=error.message)
            return _refused(contact, RefusalCode.UNAVAILABLE, f"it can't be registered now: {error.message}").refusal
        if refusal is None:
            logger.info(
                "device let in", thing=contact.thing, certificate=contact.certificate_id, authority=contact.authority.id
            )
        elif is_news:
            logger.warning("device refused", thing=contact.thing, code=refusal.code.value, why=refusal.reason)
        return refusal

    def _remember(self, key: bytes, path: TrustedPath) -> None:
        self._paths[key] = path
        if len(self._paths) > PATHS_REMEMBERED_MAX:
            self._paths.popitem(last=False)


def _refused(contact: Contact, code: RefusalCode, why: str, anomaly: AnomalyKind | None = None) -> Verdict:
    reason = f"certificate {contact.certificate_id} of {contact.thing}: {why}"
    return Verdict(refusal=Refusal(reason=reason, certificate_id=contact.certificate_id, code=code), anomaly=anomaly)
