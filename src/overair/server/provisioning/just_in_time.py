"""Just-in-time registration and provisioning (wire reference §9.3): a certificate that nobody knows, issued by a CA certificate
that takes newcomers, is registered at its first connection.

Without a template it waits for an operator, who hears of it on ``$aws/events/certificates/registered/{CA}``. With one, the
template is carried out in the same unit, and the device is let in at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import msgspec
import structlog
from cryptography import x509 as pyca
from cryptography.x509.oid import NameOID

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import Conflict, OverairError
from overair.basics.work import Notice, Tx, Work
from overair.server.certificates import x509
from overair.server.certificates.model import CertificateStatus
from overair.server.certificates.service import CertificatesService
from overair.server.gateway.authority import Refusal, RefusalCode
from overair.server.provisioning.certificate_paths import Anchor, Link, verify_issued
from overair.server.provisioning.enrolment import Enrolment
from overair.server.provisioning.model import FleetAuthority, ProvisionedDevice
from overair.server.provisioning.ports import AuthorityStore
from overair.server.provisioning.registration import TAKEN, Registrations
from overair.server.provisioning.reuse import Reuses
from overair.server.provisioning.revocations import Revocations
from overair.server.provisioning.template_language import CERTIFICATE_ID, Template
from overair.server.provisioning.template_model import TemplateName
from overair.server.provisioning.templates import ProvisioningTemplates
from overair.server.provisioning.token_buckets import TokenBuckets

NEWCOMERS_PER_MINUTE: Final = 600
"""Of one CA certificate."""
_SUBJECT: Final[Mapping[str, pyca.ObjectIdentifier]] = {
    "Country": NameOID.COUNTRY_NAME,
    "Organization": NameOID.ORGANIZATION_NAME,
    "OrganizationalUnit": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "DistinguishedNameQualifier": NameOID.DN_QUALIFIER,
    "StateName": NameOID.STATE_OR_PROVINCE_NAME,
    "CommonName": NameOID.COMMON_NAME,
    "SerialNumber": NameOID.SERIAL_NUMBER,
}

logger = structlog.get_logger("overair.provisioning")


def subject_parameters(leaf: pyca.Certificate) -> dict[str, str]:
    """What a template may use of a certificate's subject: what stands there once; what isn't there has no value."""
    found: dict[str, str] = {}
    for name, oid in _SUBJECT.items():
        values = leaf.subject.get_attributes_for_oid(oid)
        if len(values) == 1 and isinstance(values[0].value, str):
            found[f"AWS::IoT::Certificate::{name}"] = values[0].value
    return found


class JustInTimeRegistration:
    """``first_contact.JustInTime``."""

    def __init__(
        self,
        *,
        work: Work,
        store: AuthorityStore,
        certificates: CertificatesService,
        enrolment: Enrolment,
        registrations: Registrations,
        templates: ProvisioningTemplates,
        revocations: Revocations,
        reuses: Reuses,
        clock: Clock,
        region: str,
    ) -> None:
        self._work = work
        self._store = store
        self._certificates = certificates
        self._enrolment = enrolment
        self._registrations = registrations
        self._templates = templates
        self._revocations = revocations
        self._reuses = reuses
        self._clock = clock
        self._region = region
        self._buckets = TokenBuckets(clock)

    async def introduce(self, leaf: pyca.Certificate, authorities: Sequence[FleetAuthority], source_ip: str) -> Refusal | None:
        """Register the certificate; None once it may speak, else why it may not yet."""
        anchors = [Anchor(each.id, x509.certificate_from_pem(each.pem.encode("ascii"))) for each in authorities]
        issuer = await asyncio.to_thread(verify_issued, leaf, anchors, now=self._clock.now())
        authority = next(each for each in authorities if each.id == issuer)
        if not self._buckets.take(authority.account, authority.id, per_minute=NEWCOMERS_PER_MINUTE):
            return _refused(leaf, RefusalCode.UNAVAILABLE, "too many newcomers come by its authority at once")
        try:
            refusal = await self._work.run(lambda tx: self._register(tx, authority, leaf, source_ip))
        except Conflict as error:
            return await self._not_now(authority, leaf, error, source_ip)
        except OverairError as error:
            # The template asks for what isn't there, or the disk is full: nobody is let in half.
            logger.warning("a newcomer could not be registered", authority=authority.fingerprint, why=error.message)
            return _refused(leaf, RefusalCode.UNAVAILABLE, f"it can't be registered now: {error.message}")
        logger.info("newcomer registered", authority=authority.fingerprint, certificate=x509.fingerprint(leaf))
        return None if refusal is None else replace(refusal, place=Place(self._region, authority.account))

    def _register(self, tx: Tx, told: FleetAuthority, leaf: pyca.Certificate, source_ip: str) -> Refusal | None:
        authority = self._store.find_authority(tx, told.account, told.id)
        registration = None if authority is None else authority.registration
        if authority is None or registration is None or not registration.takes_newcomers:
            return _refused(leaf, RefusalCode.FOREIGN_AUTHORITY, "its authority takes no newcomers since just now")
        identity = x509.fingerprint(leaf)
        if self._certificates.find_anywhere(tx, identity) is not None:
            return None  # another connection of the same device came first; the registry says whether it may speak
        # A certificate can be written in another way, with another id: what was taken from one of a key is taken from all.
        for each in self._enrolment.certificates_with_key_of(tx, authority.account, leaf):
            if each.status is not CertificateStatus.ACTIVE:
                return _refused(leaf, RefusalCode.INACTIVE, f"certificate {each.id} of the same key is {each.status.value}")
        against = self._revocations.refusal(tx, authority.account, [Link(authority.id, leaf.serial_number)])
        if against is not None:
            return _refused(leaf, *against)
        place = Place(self._region, authority.account)
        self._certificates.register(tx, place, leaf, origin=authority.origin, status=CertificateStatus.PENDING_ACTIVATION)
        body = registration.template_body
        if registration.template_name is not None:
            template = self._templates.find(tx, place.account, TemplateName(registration.template_name))
            if not template.enabled:
                return self._waits(tx, place, authority, leaf)
            body = template.body
        if body is None:
            return self._waits(tx, place, authority, leaf)
        plan = Template.read(body).resolve({**subject_parameters(leaf), CERTIFICATE_ID: identity})
        is_approved = self._reuses.is_approved(tx, place.account, identity)
        registered = self._registrations.apply(tx, place, plan, takes_over=is_approved)
        self._reuses.came_in(tx, place.account, identity)
        if registered.thing is not None:
            self._registrations.note_origin(
                tx,
                place,
                ProvisionedDevice(
                    account=place.account,
                    thing=registered.thing,
                    origin=authority.origin,
                    certificate_id=identity,
                    created_at=self._clock.now(),
                    source_ip=source_ip,
                    template=registration.template_name,
                ),
            )
        return None

    async def _not_now(self, authority: FleetAuthority, leaf: pyca.Certificate, refused: Conflict, source_ip: str) -> Refusal:
        """The template asks for a name that another device has, which an operator hears of, or for what can't be."""
        identity, account = x509.fingerprint(leaf), authority.account
        logger.warning("a newcomer could not be registered", authority=authority.fingerprint, why=refused.message)
        if refused.subject != TAKEN:
            return _refused(leaf, RefusalCode.UNAVAILABLE, f"it can't be registered now: {refused.message}")
        if not await self._work.read(lambda tx: self._reuses.is_noted(tx, account, identity)):
            await self._work.run(
                lambda tx: self._reuses.note(
                    tx,
                    account,
                    identity,
                    x509.pem_of(leaf),
                    refused=refused,
                    authority=authority.id,
                    source_ip=source_ip,
                )
            )
        return _refused(leaf, RefusalCode.KEY_MISMATCH, f"another key is bound to its name: {refused.message}")

    def _waits(self, tx: Tx, place: Place, authority: FleetAuthority, leaf: pyca.Certificate) -> Refusal:
        now = self._clock.now()
        event = {
            "certificateId": x509.fingerprint(leaf),
            "caCertificateId": authority.fingerprint,
            "timestamp": now,
            "certificateStatus": CertificateStatus.PENDING_ACTIVATION.value,
            "awsAccountId": place.account,
            "certificateRegistrationTimestamp": now,
        }
        topic = f"$aws/events/certificates/registered/{authority.fingerprint}"
        tx.publish(Notice(account=place.account, topic=topic, payload=msgspec.json.encode(event)))
        return _refused(leaf, RefusalCode.AWAITS_APPROVAL, "it was registered just now and waits to be activated")


def _refused(leaf: pyca.Certificate, code: RefusalCode, why: str) -> Refusal:
    identity = x509.fingerprint(leaf)
    return Refusal(reason=f"certificate {identity}: {why}", certificate_id=identity, code=code)
