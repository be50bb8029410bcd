"""CA certificates as AWS's clients know them: fleet authorities with a registration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cryptography import x509 as pyca
from cryptography.x509.oid import NameOID

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import Conflict, InvalidRequest, NotFound
from overair.basics.ids import AccountId, CertificateId, IdSource
from overair.basics.work import Tx
from overair.server.certificates import x509
from overair.server.certificates.model import FLEET_ORIGIN, CertificateStatus
from overair.server.certificates.service import CertificatesService, IssuedCertificate
from overair.server.devices.service import TagsService
from overair.server.gateway.authority import RefusalCode
from overair.server.provisioning.certificate_paths import Link, ca_shortcomings
from overair.server.provisioning.fleet_authorities import FleetAuthorities
from overair.server.provisioning.model import AuthorityId, CaRegistration, FleetAuthority
from overair.server.provisioning.ports import AuthorityStore
from overair.server.provisioning.revocations import Revocations
from overair.server.provisioning.template_model import TemplateName, TemplateType
from overair.server.provisioning.templates import ProvisioningTemplates, check_body

CODE_SIZE_BYTES: Final = 32
KIND: Final = "cacert"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationConfig:
    """What newcomers are provisioned by."""

    template_name: str | None
    template_body: str | None
    role_arn: str | None


class CaCertificates:
    """CA certificates of one account at a time.

    Raises, everywhere: ``NotFound(subject="ca-certificate")``, ``AlreadyExists`` (subjects ``ca-certificate``,
    ``fleet-authority``), ``Conflict(subject="certificate-state")``, ``InvalidRequest`` (subjects
    ``certificate-validation``, ``registration-code``, ``registration-config``).
    """

    def __init__(
        self,
        *,
        store: AuthorityStore,
        fleet: FleetAuthorities,
        certificates: CertificatesService,
        templates: ProvisioningTemplates,
        revocations: Revocations,
        tags: TagsService,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._certificates = certificates
        self._templates = templates
        self._revocations = revocations
        self._tags = tags
        self._clock = clock
        self._ids = ids
        tags.accept(KIND, self._is_registered)

    # Registration codes -----------------------------------------------------------------------------------------------------

    def registration_code(self, tx: Tx, account: AccountId) -> str:
        """The account's code, made when it is first asked for."""
        found = self._store.find_registration_code(tx, account)
        if found is None:
            found = self._ids.secret_bytes(CODE_SIZE_BYTES).hex()
            self._store.insert_registration_code(tx, account, found)
        return found

    def delete_registration_code(self, tx: Tx, account: AccountId) -> None:
        """Forget the code; the next one is another."""
        if not self._store.delete_registration_code(tx, account):
            raise NotFound("There is no registration code to delete.", subject="registration-code")

    # CA certificates --------------------------------------------------------------------------------------------------------

    def register(
        self,
        tx: Tx,
        place: Place,
        certificate: pyca.Certificate,
        verification: pyca.Certificate | None,
        *,
        active: bool,
        registers_newcomers: bool,
        config: RegistrationConfig | None,
        tags: Mapping[str, str],
        by: str,
    ) -> FleetAuthority:
        """Take in a CA certificate. ``verification``: the proof that its key is the caller's; None of mode SNI_ONLY."""
        shortcomings = ca_shortcomings(certificate, now=self._clock.now())
        if shortcomings:
            raise InvalidRequest(
                f"The CA certificate {'; '.join(shortcomings)}. Nothing was stored.", subject="certificate-validation"
            )
        if verification is not None:
            self._check_verification(tx, place.account, certificate, verification)
        now = self._clock.now()
        registration = CaRegistration(
            is_active=active,
            registers_newcomers=registers_newcomers,
            is_verified=verification is not None,
            template_name=None,
            template_body=None,
            role_arn=None,
            version=1,
            generation_id=self._ids.uuid(),
            modified_at=now,
        )
        if config is not None:
            registration = self._configured(tx, place.account, registration, config)
        made = self._fleet.register_ca(tx, place, certificate, registration, by=by)
        arn = place.iot(KIND, made.fingerprint)
        self._tags.forget(tx, place, arn)  # of one that was withdrawn as a fleet authority
        self._tags.set_new(tx, place, arn, tags)
        return made

    def find(self, tx: Tx, account: AccountId, identity: CertificateId) -> tuple[FleetAuthority, CaRegistration]:
        """One of them by its certificate's id."""
        for authority in self._store.authorities(tx, account):
            if authority.fingerprint == identity and authority.registration is not None:
                return authority, authority.registration
        raise NotFound(f"No CA certificate {identity} is registered in account {account}.", subject="ca-certificate")

    def list(self, tx: Tx, account: AccountId) -> Sequence[tuple[FleetAuthority, CaRegistration]]:
        """All of an account, the oldest first."""
        return [(each, each.registration) for each in self._store.authorities(tx, account) if each.registration is not None]

    def update(
        self,
        tx: Tx,
        account: AccountId,
        identity: CertificateId,
        *,
        active: bool | None,
        registers_newcomers: bool | None,
        config: RegistrationConfig | None,
        remove_config: bool,
    ) -> None:
        """Change switches and configuration; devices that are in stay in."""
        authority, registration = self.find(tx, account, identity)
        changed = replace(
            registration,
            is_active=registration.is_active if active is None else active,
            registers_newcomers=registration.registers_newcomers if registers_newcomers is None else registers_newcomers,
            version=registration.version + 1,
            modified_at=self._clock.now(),
        )
        if remove_config:
            changed = replace(changed, registers_newcomers=False, template_name=None, template_body=None, role_arn=None)
        if config is not None:
            changed = self._configured(tx, account, changed, config)
        self._store.put_authority(tx, replace(authority, registration=changed))

    def delete(self, tx: Tx, place: Place, identity: CertificateId) -> None:
        """Forget a CA certificate that is INACTIVE; devices that are in stay in."""
        authority, registration = self.find(tx, place.account, identity)
        if registration.is_active:
            raise Conflict(f"The CA certificate {identity} is ACTIVE. Set it INACTIVE first.", subject="certificate-state")
        self._store.delete_authority(tx, place.account, authority.id)
        self._tags.forget(tx, place, place.iot(KIND, identity))

    def register_certificate(
        self,
        tx: Tx,
        place: Place,
        leaf: pyca.Certificate,
        given: pyca.Certificate | None,
        *,
        status: CertificateStatus,
    ) -> IssuedCertificate:
        """Register a certificate of a CA certificate (RegisterCertificate); ``given`` says which, where two have one name."""
        fitting = []
        for authority, registration in self.list(tx, place.account):
            issuer = x509.certificate_from_pem(authority.pem.encode("ascii"))
            if (given is None or x509.fingerprint(given) == authority.fingerprint) and x509.directly_issued(leaf, issuer):
                fitting.append((authority, registration))
        if not fitting:
            raise InvalidRequest(
                "No CA certificate that is registered here has issued this certificate. Register its CA first, or use "
                "RegisterCertificateWithoutCA.",
                subject="certificate-validation",
            )
        authority, registration = fitting[0]
        if not registration.is_active:
            raise Conflict(f"The CA certificate {authority.fingerprint} is INACTIVE.", subject="certificate-state")
        if self._clock.now() > x509.not_after(leaf):
            raise InvalidRequest("The certificate has expired: it could never connect.", subject="certificate-validation")
        against = self._revocations.refusal(tx, place.account, [Link(authority.id, leaf.serial_number)])
        if against is not None and against[0] is RefusalCode.REVOKED and status is not CertificateStatus.REVOKED:
            raise Conflict(f"The certificate is revoked: {against[1]}.", subject="certificate-state")
        return self._certificates.register(tx, place, leaf, origin=authority.origin, status=status)

    def issuer_of(self, tx: Tx, account: AccountId, origin: str) -> CertificateId | None:
        """The CA certificate that stands behind an origin (``certificates.operator_api.IssuerOf``)."""
        if not origin.startswith(FLEET_ORIGIN):
            return None
        found = self._store.find_authority(tx, account, AuthorityId(origin.removeprefix(FLEET_ORIGIN)))
        return None if found is None or found.registration is None else found.fingerprint

    def uses_template(self, tx: Tx, account: AccountId, name: TemplateName) -> bool:
        """``templates.TemplateUses``."""
        return any(registration.template_name == name for _, registration in self.list(tx, account))

    def _is_registered(self, tx: Tx, account: AccountId, identity: str) -> bool:
        return any(authority.fingerprint == identity for authority, _ in self.list(tx, account))

    def _check_verification(
        self, tx: Tx, account: AccountId, certificate: pyca.Certificate, verification: pyca.Certificate
    ) -> None:
        if not x509.directly_issued(verification, certificate):
            raise InvalidRequest("The verification certificate isn't issued by this CA.", subject="certificate-validation")
        if not x509.not_before(verification) <= self._clock.now() <= x509.not_after(verification):
            raise InvalidRequest("The verification certificate doesn't hold now.", subject="certificate-validation")
        names = [each.value for each in verification.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        code = self._store.find_registration_code(tx, account)
        if code is None or names != [code]:
            raise InvalidRequest(
                "The verification certificate's common name isn't this account's registration code (GetRegistrationCode).",
                subject="registration-code",
            )

    def _configured(
        self, tx: Tx, account: AccountId, registration: CaRegistration, config: RegistrationConfig
    ) -> CaRegistration:
        if config.template_name is not None and config.template_body is not None:
            raise InvalidRequest(
                "registrationConfig has templateName or templateBody, not both.", subject="registration-config"
            )
        if config.template_body is not None:
            check_body(config.template_body, TemplateType.JITP)
        if config.template_name is not None:
            template = self._templates.find(tx, account, TemplateName(config.template_name))
            if template.type is not TemplateType.JITP:
                raise InvalidRequest(
                    f"The template {template.name} is of type {template.type.value}; a CA certificate needs one of type JITP.",
                    subject="registration-config",
                )
        return replace(
            registration,
            template_name=config.template_name,
            template_body=config.template_body,
            role_arn=config.role_arn,
        )
