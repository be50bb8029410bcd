"""Making a certificate a thing's own: registered, attached to it alone, with the policy for its own paths."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from overair.basics.arn import Place
from overair.basics.errors import NotFound
from overair.basics.ids import AccountId, CertificateId, GroupName, PolicyName, ThingName, ThingTypeName
from overair.basics.work import Tx
from overair.server.audit.service import AuditTrail
from overair.server.certificates import x509 as certificates_x509
from overair.server.certificates.model import CertificateStatus, DeviceCertificate
from overair.server.certificates.service import CertificatesService
from overair.server.devices.model import ThingPrincipalType
from overair.server.devices.service import DevicesService, PoliciesService, ThingGroupsService
from overair.server.provisioning.model import DEVICE_POLICY

THINGS_OF_CERTIFICATE_MAX: Final = 100
CERTIFICATES_OF_THING_MAX: Final = 100
"""Of one thing that are looked at."""


def own_paths_policy(place: Place) -> str:
    """A device's rights on its own thing: the Director, the Image repository, what it tells of itself; nothing else."""
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": ["overair:Director*", "overair:ImageRepository*", "overair:Device*"],
                    "Resource": place.iot("thing", "${iot:Connection.Thing.ThingName}"),
                }
            ],
        }
    )


def ensure_policy(tx: Tx, place: Place, policies: PoliciesService, name: PolicyName) -> None:
    """See that a device policy is there; the one that every device of our own ways gets is made when it is first needed.

    Raises:
        NotFound: another one isn't there. Subject ``policy``.
    """
    try:
        policies.find(tx, place.account, name)
    except NotFound:
        if name != DEVICE_POLICY:
            raise
        policies.create(tx, place, name, own_paths_policy(place))


@dataclass(frozen=True, slots=True, kw_only=True)
class Belongings:
    """What a thing gets with its certificate."""

    policy: PolicyName = DEVICE_POLICY
    thing_type: ThingTypeName | None = None
    groups: tuple[GroupName, ...] = ()


class Enrolment:
    """Works on the registries of certificates and devices; keeps nothing itself."""

    def __init__(
        self,
        *,
        certificates: CertificatesService,
        devices: DevicesService,
        groups: ThingGroupsService,
        policies: PoliciesService,
    ) -> None:
        self._certificates = certificates
        self._devices = devices
        self._groups = groups
        self._policies = policies
        self._trail: AuditTrail | None = None

    def watched_by(self, trail: AuditTrail) -> None:
        """Register, before the start, who writes down which certificates come in."""
        self._trail = trail

    def has_thing(self, tx: Tx, account: AccountId, thing: ThingName) -> bool:
        """Whether there is such a thing."""
        return self._devices.has_thing(tx, account, thing)

    def certificates_of(self, tx: Tx, account: AccountId, thing: ThingName) -> Sequence[DeviceCertificate]:
        """The certificates that are attached to a thing; none where there is no such thing."""
        if not self._devices.has_thing(tx, account, thing):
            return ()
        attached = self._devices.principals(tx, account, thing, limit=CERTIFICATES_OF_THING_MAX)
        found = (self._certificates.find_anywhere(tx, each.certificate) for each in attached)
        return [certificate for certificate in found if certificate is not None]

    def certificates_with_key_of(
        self, tx: Tx, account: AccountId, certificate: x509.Certificate
    ) -> Sequence[DeviceCertificate]:
        """Every registration of the certificate's public key, whatever it is attached to."""
        key = certificates_x509.key_fingerprint(certificate)
        return self._certificates.of_key(tx, account, key, limit=CERTIFICATES_OF_THING_MAX)

    def check(self, tx: Tx, place: Place, belongings: Belongings) -> None:
        """See that what a thing is to get is there.

        Raises:
            NotFound: subjects ``policy``, ``thing-group``.
        """
        ensure_policy(tx, place, self._policies, belongings.policy)
        for group in belongings.groups:
            self._groups.find(tx, place.account, group)

    def enrol(
        self,
        tx: Tx,
        place: Place,
        thing: ThingName,
        certificate: x509.Certificate,
        *,
        origin: str,
        belongings: Belongings,
        source_ip: str,
    ) -> CertificateId:
        """Register a certificate as this thing's own; the thing is made if it isn't there. A certificate that is registered
        already only changes hands if nothing else is attached to it.

        Raises:
            AlreadyExists: the certificate is registered. Subject ``certificate``.
            NotFound: a group, type or policy of the belongings is gone.
        """
        if not self._devices.has_thing(tx, place.account, thing):
            self._devices.create(tx, place, thing, type_name=belongings.thing_type)
            for group in belongings.groups:
                self._groups.add(tx, place.account, group, thing)
        issued = self._certificates.register(tx, place, certificate, origin=origin, status=CertificateStatus.ACTIVE)
        self._devices.attach(tx, place, thing, issued.arn, ThingPrincipalType.EXCLUSIVE_THING)
        ensure_policy(tx, place, self._policies, belongings.policy)
        self._policies.attach(tx, place, belongings.policy, issued.arn)
        if self._trail is not None:
            thing_arn = place.iot("thing", thing)
            self._trail.enrolled(
                tx, place.account, thing_arn=thing_arn, certificate_arn=issued.arn, origin=origin, source_ip=source_ip
            )
        return issued.id

    def follow(
        self,
        tx: Tx,
        place: Place,
        thing: ThingName,
        certificate: x509.Certificate,
        *,
        of: CertificateId,
        origin: str,
        source_ip: str,
    ) -> CertificateId:
        """Register a certificate as what another one is: attached to the same things in the same way, with the same policies.

        Raises:
            AlreadyExists: the certificate is registered. Subject ``certificate``.
        """
        issued = self._certificates.register(tx, place, certificate, origin=origin, status=CertificateStatus.ACTIVE)
        for each in self._devices.things_of_principal(tx, place, place.iot("cert", of), limit=THINGS_OF_CERTIFICATE_MAX):
            self._devices.attach(tx, place, each.thing, issued.arn, each.type)
        self.copy_policies(tx, place, of=of, to=issued.id)
        if self._trail is not None:
            thing_arn = place.iot("thing", thing)
            self._trail.enrolled(
                tx, place.account, thing_arn=thing_arn, certificate_arn=issued.arn, origin=origin, source_ip=source_ip
            )
        return issued.id

    def things_of(self, tx: Tx, place: Place, certificate: CertificateId) -> tuple[ThingName, ...]:
        """What a registered certificate is attached to."""
        found = self._devices.things_of_principal(tx, place, place.iot("cert", certificate), limit=THINGS_OF_CERTIFICATE_MAX)
        return tuple(each.thing for each in found)

    def detach(self, tx: Tx, place: Place, thing: ThingName, certificate: CertificateId) -> None:
        """Take a certificate away from its thing; it stays known."""
        self._devices.detach(tx, place, thing, place.iot("cert", certificate))

    def copy_policies(self, tx: Tx, place: Place, *, of: CertificateId, to: CertificateId) -> None:
        """Whatever the one may, the other may too."""
        names = self._policies.attached(tx, place, place.iot("cert", of), recursive=False, limit=CERTIFICATES_OF_THING_MAX)
        for name in names:
            self._policies.attach(tx, place, name, place.iot("cert", to))

    def forget(self, tx: Tx, place: Place, thing: ThingName, certificate: CertificateId) -> None:
        """Take a certificate away from its thing and out of the registry: whoever has it is a stranger."""
        found = self._certificates.find_anywhere(tx, certificate)
        if found is None or found.account != place.account:
            return
        self._devices.detach(tx, place, thing, place.iot("cert", certificate))
        if found.status is CertificateStatus.ACTIVE:
            self._certificates.set_status(tx, place, certificate, CertificateStatus.INACTIVE)
        self._certificates.delete(tx, place, certificate, force=True)

    def release(self, tx: Tx, place: Place, thing: ThingName) -> None:
        """Detach every certificate of a thing. One that belongs to no other thing is forgotten if it came in here, and set
        INACTIVE if an operator registered it himself."""
        for certificate in self.certificates_of(tx, place.account, thing):
            arn = place.iot("cert", certificate.id)
            self._devices.detach(tx, place, thing, arn)
            if self._devices.things_of_principal(tx, place, arn, limit=1):
                continue
            if certificate.origin:
                self.forget(tx, place, thing, certificate.id)
            else:
                self.deactivate(tx, place, certificate.id)

    def deactivate(self, tx: Tx, place: Place, certificate: CertificateId) -> None:
        """Set an ACTIVE certificate INACTIVE."""
        found = self._certificates.find(tx, place, certificate)
        if found.status is CertificateStatus.ACTIVE:
            self._certificates.set_status(tx, place, certificate, CertificateStatus.INACTIVE)


def key_of(certificate: DeviceCertificate) -> bytes:
    """The public key of a registered certificate, as SubjectPublicKeyInfo."""
    return certificates_x509.public_key_der(certificates_x509.certificate_from_pem(certificate.pem.encode("ascii")))
