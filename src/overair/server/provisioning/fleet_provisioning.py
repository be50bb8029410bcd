"""Fleet provisioning: a certificate for whoever shows a claim, then a thing for whoever shows that certificate's token.

A claim is an ordinary certificate (or an operator) whose policy allows the topics; nothing else is given with it. The token is
kept as a hash, is good once, for an hour, and for the principal that was given it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from cryptography import x509 as pyca

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import AccessDenied, Conflict, InvalidRequest, LimitExceeded, NotFound
from overair.basics.ids import AccountId, CertificateId, IdSource, PolicyName
from overair.basics.redacted import Redacted
from overair.basics.work import Tx
from overair.server.certificates import x509
from overair.server.certificates.model import CertificateStatus
from overair.server.certificates.service import CertificatesService, IssuedCertificate
from overair.server.devices.service import PoliciesService
from overair.server.provisioning.model import AuthorityId, ProvisionedDevice
from overair.server.provisioning.registration import Registered, Registrations
from overair.server.provisioning.reuse import APPROVAL_LASTS_MS, Reuses
from overair.server.provisioning.template_language import CERTIFICATE_ID, PSEUDO_PARAMETERS, Template
from overair.server.provisioning.template_model import (
    CLAIM_LIFE_MS,
    OWNERSHIP_LIFE_MS,
    UNPROVISIONED_MAX,
    CertificateOwnership,
    ProvisioningTemplate,
    TemplateName,
    TemplateType,
    TemporaryClaim,
)
from overair.server.provisioning.templates import ProvisioningTemplates
from overair.wire.fleet_provisioning import claim_policy

TOKEN_SIZE_BYTES: Final = 48
TOKEN_LENGTH_MAX: Final = 512
"""The buffer that the C agents have for it (wire reference §9.1)."""
CLAIM_SUBJECT: Final = "Overair provisioning claim"
EXPIRED_AT_ONCE_MAX: Final = 100


class OwnershipStore(Protocol):
    """Rows of certificates that wait, and of temporary claims."""

    def insert_ownership(self, tx: Tx, ownership: CertificateOwnership) -> None: ...

    def find_ownership(self, tx: Tx, account: AccountId, token_sha256: str) -> CertificateOwnership | None: ...

    def delete_ownership(self, tx: Tx, account: AccountId, token_sha256: str) -> None: ...

    def count_ownerships(self, tx: Tx, account: AccountId) -> int: ...

    def expired_ownerships(self, tx: Tx, now: Instant, *, limit: int) -> Sequence[CertificateOwnership]:
        """Of every account, the oldest first."""
        ...

    def insert_claim(self, tx: Tx, claim: TemporaryClaim) -> None: ...

    def find_claim(self, tx: Tx, account: AccountId, certificate: str) -> TemporaryClaim | None: ...

    def delete_claim(self, tx: Tx, account: AccountId, certificate: CertificateId) -> None: ...

    def expired_claims(self, tx: Tx, now: Instant, *, limit: int) -> Sequence[TemporaryClaim]:
        """Of every account, the oldest first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A certificate with the token that provisions it."""

    certificate: IssuedCertificate
    token: Redacted[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A device that may be provisioned, unless a hook says no."""

    template: ProvisioningTemplate
    certificate_id: CertificateId
    certificate_pem: str
    parameters: Mapping[str, str]


class FleetProvisioning:
    """Certificates for claims, and things for certificates.

    Raises, everywhere: ``AccessDenied`` (subjects ``claim``, ``template-disabled``, ``device-blocked``),
    ``NotFound(subject="provisioning-template")``, ``InvalidRequest`` (subjects ``ownership-token``, ``parameters``),
    ``Conflict(subject="registration")``, ``LimitExceeded(subject="unprovisioned")``.
    """

    def __init__(
        self,
        *,
        store: OwnershipStore,
        templates: ProvisioningTemplates,
        registrations: Registrations,
        certificates: CertificatesService,
        policies: PoliciesService,
        reuses: Reuses,
        clock: Clock,
        ids: IdSource,
        region: str,
    ) -> None:
        self._store = store
        self._templates = templates
        self._registrations = registrations
        self._certificates = certificates
        self._policies = policies
        self._reuses = reuses
        self._clock = clock
        self._ids = ids
        self._region = region

    def give_certificate(
        self, tx: Tx, place: Place, claim: str, key: x509.PublicKey, *, subject: pyca.Name | None = None
    ) -> Claimed:
        """Issue a certificate that is PENDING_ACTIVATION, with the token that provisions it."""
        if self._store.count_ownerships(tx, place.account) >= UNPROVISIONED_MAX:
            raise LimitExceeded(
                f"{UNPROVISIONED_MAX} certificates of this account wait to be provisioned. Try again later.",
                subject="unprovisioned",
            )
        issued = self._certificates.issue(
            tx, place, public_key=key, active=False, subject=subject, status=CertificateStatus.PENDING_ACTIVATION
        )
        token = self._ids.secret_bytes(TOKEN_SIZE_BYTES).hex()
        self._store.insert_ownership(
            tx,
            CertificateOwnership(
                account=place.account,
                token_sha256=_hash(token),
                certificate_id=issued.id,
                claim=claim,
                expires_at=Instant(self._clock.now() + OWNERSHIP_LIFE_MS),
            ),
        )
        return Claimed(certificate=issued, token=Redacted(token))

    def candidate(
        self, tx: Tx, place: Place, claim: str, token: str, name: TemplateName, parameters: Mapping[str, str]
    ) -> Candidate:
        """Check everything that can be known without asking anybody. Changes nothing."""
        ownership = self._ownership(tx, place.account, claim, token)
        template = self._template(tx, place.account, claim, name)
        certificate = self._certificates.find(tx, place, ownership.certificate_id)
        own = {key: value for key, value in parameters.items() if key not in PSEUDO_PARAMETERS}
        # A device isn't let as far as the hook with parameters that lead nowhere; the hook may still add some.
        if template.hook is None:
            Template.read(template.body).resolve({**own, CERTIFICATE_ID: certificate.id})
        return Candidate(template=template, certificate_id=certificate.id, certificate_pem=certificate.pem, parameters=own)

    def provision(
        self,
        tx: Tx,
        place: Place,
        claim: str,
        token: str,
        name: TemplateName,
        parameters: Mapping[str, str],
        *,
        allowed_by_hook: str | None,
        source_ip: str,
    ) -> Registered:
        """Carry the template out for the token's certificate, which takes the token with it.

        ``allowed_by_hook``: the ARN of the hook that has allowed this device; a template that has another one by now refuses.
        """
        ownership = self._ownership(tx, place.account, claim, token)
        template = self._template(tx, place.account, claim, name)
        if template.hook is not None and template.hook.target_arn != allowed_by_hook:
            raise AccessDenied("The template's pre-provisioning hook has not allowed this device.", subject="hook")
        own = {key: value for key, value in parameters.items() if key not in PSEUDO_PARAMETERS}
        plan = Template.read(template.body).resolve({**own, CERTIFICATE_ID: ownership.certificate_id})
        is_approved = self._reuses.is_approved(tx, place.account, ownership.certificate_id)
        registered = self._registrations.apply(tx, place, plan, takes_over=is_approved)
        self._reuses.came_in(tx, place.account, ownership.certificate_id)
        self._store.delete_ownership(tx, place.account, ownership.token_sha256)
        if registered.thing is not None:
            self._registrations.note_origin(
                tx,
                place,
                ProvisionedDevice(
                    account=place.account,
                    thing=registered.thing,
                    origin=template.origin,
                    certificate_id=ownership.certificate_id,
                    created_at=self._clock.now(),
                    source_ip=source_ip,
                    template=template.name,
                    claim=claim,
                ),
            )
        return registered

    def is_noted(self, tx: Tx, account: AccountId, certificate: CertificateId) -> bool:
        """Whether the certificate's attempt at a taken name was written down within the last minute."""
        return self._reuses.is_noted(tx, account, certificate)

    def note_taken(self, tx: Tx, place: Place, claim: str, token: str, refused: Conflict, *, source_ip: str) -> None:
        """The token's device asked for a name that another one has. Its certificate and its token wait for an operator."""
        ownership = self._ownership(tx, place.account, claim, token)
        certificate = self._certificates.find(tx, place, ownership.certificate_id)
        self._reuses.note(
            tx,
            place.account,
            certificate.id,
            certificate.pem,
            refused=refused,
            authority=AuthorityId(""),
            source_ip=source_ip,
        )
        until = Instant(self._clock.now() + APPROVAL_LASTS_MS)
        self._store.delete_ownership(tx, place.account, ownership.token_sha256)
        self._store.insert_ownership(tx, replace(ownership, expires_at=until))

    # Trusted users ----------------------------------------------------------------------------------------------------------

    def create_claim(self, tx: Tx, place: Place, name: TemplateName, key: x509.PublicKey) -> tuple[IssuedCertificate, Instant]:
        """A claim certificate for one template, for five minutes: its end stands in the certificate itself."""
        template = self._templates.find(tx, place.account, name)
        if template.type is not TemplateType.FLEET_PROVISIONING or not template.enabled:
            raise InvalidRequest(
                f"The template {name} is {'not enabled' if not template.enabled else 'of type JITP'}: nobody can be "
                "provisioned by a claim for it.",
                subject="template",
            )
        until = Instant(self._clock.now() + CLAIM_LIFE_MS)
        issued = self._certificates.issue(
            tx, place, public_key=key, active=True, subject=x509.common_name(CLAIM_SUBJECT), until=until
        )
        self._policies.attach(tx, place, self._claim_policy(tx, place, name), issued.arn)
        self._store.insert_claim(
            tx, TemporaryClaim(account=place.account, certificate_id=issued.id, template=name, expires_at=until)
        )
        return issued, until

    def _claim_policy(self, tx: Tx, place: Place, name: TemplateName) -> PolicyName:
        policy, document = PolicyName(f"overair-claim-{name}"), json.dumps(claim_policy(place.region, place.account, name))
        try:
            standing = self._policies.find(tx, place.account, policy)
        except NotFound:
            return self._policies.create(tx, place, policy, document).name
        if standing.document != document:
            raise InvalidRequest(
                f"There is a policy {policy} of somebody's own making. Claims for {name} need that name: delete it first.",
                subject="template",
            )
        return policy

    # What has ended ---------------------------------------------------------------------------------------------------------

    def has_expired(self, tx: Tx) -> bool:
        """Whether there is something to sweep."""
        now = self._clock.now()
        return bool(self._store.expired_ownerships(tx, now, limit=1) or self._store.expired_claims(tx, now, limit=1))

    def sweep(self, tx: Tx) -> int:
        """Delete certificates that nobody has provisioned within the hour, and claims whose end has passed; how many."""
        now = self._clock.now()
        waiting = self._store.expired_ownerships(tx, now, limit=EXPIRED_AT_ONCE_MAX)
        for ownership in waiting:
            self._store.delete_ownership(tx, ownership.account, ownership.token_sha256)
            self._forget(tx, ownership.account, ownership.certificate_id, only=CertificateStatus.PENDING_ACTIVATION)
        claims = self._store.expired_claims(tx, now, limit=EXPIRED_AT_ONCE_MAX)
        for claim in claims:
            self._store.delete_claim(tx, claim.account, claim.certificate_id)
            self._forget(tx, claim.account, claim.certificate_id, only=None)
        return len(waiting) + len(claims)

    def _forget(self, tx: Tx, account: AccountId, certificate: CertificateId, *, only: CertificateStatus | None) -> None:
        found = self._certificates.find_anywhere(tx, certificate)
        place = Place(self._region, account)
        if found is None or found.account != account or (only is not None and found.status is not only):
            return
        if self._certificates.has_things(tx, account, certificate):
            return  # an operator has made it a device's own
        if found.status is CertificateStatus.ACTIVE:
            self._certificates.set_status(tx, place, certificate, CertificateStatus.INACTIVE)
        self._certificates.delete(tx, place, certificate, force=True)

    def _ownership(self, tx: Tx, account: AccountId, claim: str, token: str) -> CertificateOwnership:
        found = self._store.find_ownership(tx, account, _hash(token)) if len(token) <= TOKEN_LENGTH_MAX else None
        if found is None or found.claim != claim or found.expires_at < self._clock.now():
            raise InvalidRequest(
                "The certificate ownership token isn't one that this claim was given, or it has expired, or it was used. "
                "Ask for a new certificate.",
                subject="ownership-token",
            )
        return found

    def _template(self, tx: Tx, account: AccountId, claim: str, name: TemplateName) -> ProvisioningTemplate:
        temporary = self._store.find_claim(tx, account, claim)
        if temporary is not None and temporary.template != name:
            raise AccessDenied(f"This claim is for the template {temporary.template} alone.", subject="claim")
        template = self._templates.find(tx, account, name)
        if not template.enabled or template.type is not TemplateType.FLEET_PROVISIONING:
            raise AccessDenied(
                f"The provisioning template {name} is not enabled for fleet provisioning.", subject="template-disabled"
            )
        return template


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
