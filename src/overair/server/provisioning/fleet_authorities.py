"""Operators' own fleet authorities: taken in as certificates, given a rule, withdrawn."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from cryptography import x509 as pyca

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import AlreadyExists, Conflict, InvalidRequest, LimitExceeded, NotFound
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.certificates import facts, x509
from overair.server.devices.blocks import BlockKind, BlocksService
from overair.server.devices.service import ThingTypesService
from overair.server.provisioning.certificate_paths import authority_id, name_hash
from overair.server.provisioning.enrolment import Belongings, Enrolment
from overair.server.provisioning.model import (
    AUTHORITIES_MAX,
    NAME_LENGTH_MAX,
    AuthorityId,
    CaRegistration,
    FirstContact,
    FleetAuthority,
    FleetRule,
)
from overair.server.provisioning.ports import AuthorityStore, DeviceStore


class FleetAuthorities:
    """Authorities of one account at a time.

    Raises, everywhere: ``NotFound`` (subjects ``fleet-authority``, ``policy``, ``thing-group``, ``thing-type``),
    ``AlreadyExists(subject="fleet-authority")``, ``Conflict(subject="fleet-authority")``, ``LimitExceeded``,
    ``InvalidRequest``.
    """

    def __init__(
        self,
        *,
        store: AuthorityStore,
        provisioned: DeviceStore,
        enrolment: Enrolment,
        types: ThingTypesService,
        blocks: BlocksService,
        clock: Clock,
    ) -> None:
        self._store = store
        self._provisioned = provisioned
        self._enrolment = enrolment
        self._types = types
        self._blocks = blocks
        self._clock = clock

    def register(
        self, tx: Tx, place: Place, certificates: Sequence[pyca.Certificate], rule: FleetRule, *, name: str, by: str
    ) -> list[FleetAuthority]:
        """Trust these authorities for an account (``certificate_paths.read_authorities`` has read them): all or none.

        One that is trusted already takes the new certificate and rule. One that was withdrawn comes back with its devices.
        """
        if len(name) > NAME_LENGTH_MAX or not name.isprintable():
            raise InvalidRequest(f"A name has at most {NAME_LENGTH_MAX} printable characters.", subject="name")
        self._check(tx, place, rule)
        return [self._register(tx, place, certificate, rule, name=name, by=by) for certificate in certificates]

    def register_ca(
        self, tx: Tx, place: Place, certificate: pyca.Certificate, registration: CaRegistration, *, by: str
    ) -> FleetAuthority:
        """The same for a CA certificate as AWS has it. Whoever comes by it comes by its registration: no rule lets anybody in,
        unless one is there already."""
        standing = self._store.find_authority_anywhere(tx, authority_id(certificate))
        if standing is not None and standing.account == place.account and standing.registration is not None:
            raise AlreadyExists(
                f"The CA certificate is already registered. ID: {standing.fingerprint}.",
                subject="ca-certificate",
                details={"resourceId": standing.fingerprint, "resourceArn": place.iot("cacert", standing.fingerprint)},
            )
        own = standing is not None and standing.account == place.account
        rule = standing.rule if standing is not None and own else FleetRule(first_contact=FirstContact.DENY)
        name = standing.name if standing is not None and own else ""
        return self._register(tx, place, certificate, rule, name=name, by=by, registration=registration)

    def find(self, tx: Tx, account: AccountId, authority: AuthorityId) -> FleetAuthority:
        """One authority by its id."""
        found = self._store.find_authority(tx, account, authority)
        if found is None:
            raise NotFound(f"No fleet authority {authority!r:.80} is trusted here.", subject="fleet-authority")
        return found

    def named(self, tx: Tx, subject_hashes: Collection[str]) -> Sequence[FleetAuthority]:
        """Whatever the account: those that issuers' names point to."""
        return self._store.authorities_named(tx, subject_hashes)

    def list(self, tx: Tx, account: AccountId) -> Sequence[FleetAuthority]:
        """All of an account, the oldest first."""
        return self._store.authorities(tx, account)

    def count_devices(self, tx: Tx, authority: FleetAuthority) -> int:
        """How many things came in with it."""
        return self._provisioned.count_devices(tx, authority.account, authority.origin)

    def change_rule(self, tx: Tx, place: Place, authority: AuthorityId, rule: FleetRule, *, name: str | None) -> FleetAuthority:
        """Give an authority another rule; devices that are in stay in."""
        found = self.find(tx, place.account, authority)
        self._check(tx, place, rule)
        changed = replace(found, rule=rule, name=found.name if name is None else name)
        self._store.put_authority(tx, changed)
        return changed

    def withdraw(self, tx: Tx, place: Place, authority: AuthorityId, *, keep_devices: bool, by: str) -> None:
        """Trust an authority no longer. Devices that came in with it are kept out from now on, unless ``keep_devices``: then
        they go on with the certificates that are registered, and only new ones are refused."""
        found = self.find(tx, place.account, authority)
        self._store.delete_authority(tx, place.account, authority)
        if not keep_devices:
            self._blocks.block(
                tx, place.account, BlockKind.ORIGIN, found.origin, reason="their fleet authority was withdrawn", by=by
            )

    def _check(self, tx: Tx, place: Place, rule: FleetRule) -> None:
        if rule.thing_type is not None:
            self._types.require_usable(tx, place.account, rule.thing_type)
        self._enrolment.check(tx, place, belongings_of(rule))

    def _register(
        self,
        tx: Tx,
        place: Place,
        certificate: pyca.Certificate,
        rule: FleetRule,
        *,
        name: str,
        by: str,
        registration: CaRegistration | None = None,
    ) -> FleetAuthority:
        identity = authority_id(certificate)
        standing = self._store.find_authority_anywhere(tx, identity)
        if standing is not None and standing.account != place.account:
            raise AlreadyExists(
                "This authority belongs to another account of this server; one authority belongs to one account.",
                subject="fleet-authority",
                details={"resourceId": identity},
            )
        subject_hash = name_hash(certificate.subject)
        if standing is not None and standing.subject_sha256 != subject_hash:
            raise Conflict(
                f"The same key is trusted under another name, {standing.subject!r:.200}. Withdraw that one first.",
                subject="fleet-authority",
            )
        if standing is None and len(self._store.authorities(tx, place.account)) >= AUTHORITIES_MAX:
            raise LimitExceeded(f"An account trusts at most {AUTHORITIES_MAX} fleet authorities.", subject="fleet-authority")
        authority = FleetAuthority(
            account=place.account,
            id=identity,
            pem=x509.pem_of(certificate),
            fingerprint=x509.fingerprint(certificate),
            subject=facts.printable(certificate.subject.rfc4514_string())[:512],
            subject_sha256=subject_hash,
            name=name,
            not_before=x509.not_before(certificate),
            not_after=x509.not_after(certificate),
            rule=rule,
            created_at=self._clock.now() if standing is None else standing.created_at,
            created_by=by if standing is None else standing.created_by,
            registration=registration or (None if standing is None else standing.registration),
        )
        self._store.put_authority(tx, authority)
        self._blocks.unblock(tx, place.account, BlockKind.ORIGIN, authority.origin)
        return authority


def belongings_of(rule: FleetRule) -> Belongings:
    """What a thing gets that comes in by this rule."""
    return Belongings(policy=rule.policy, thing_type=rule.thing_type, groups=rule.groups)
