"""The operator's door to CA certificates and to certificates that they have issued (service ``iot``)."""

from __future__ import annotations

from typing import Any

from overair.basics.errors import InvalidRequest
from overair.basics.ids import CertificateId
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.certificates import x509
from overair.server.certificates.messages import listed
from overair.server.certificates.model import CertificateMode, CertificateStatus
from overair.server.certificates.service import CertificatesService
from overair.server.provisioning.ca_certificates import CaCertificates, RegistrationConfig
from overair.server.provisioning.certificate_paths import refuse_private_keys
from overair.server.provisioning.model import CaRegistration, FleetAuthority
from overair.server.provisioning.templates_operator_api import PassedRoles

STATUSES_TO_REGISTER = frozenset({CertificateStatus.ACTIVE, CertificateStatus.INACTIVE, CertificateStatus.REVOKED})


class CaCertificateOperations:
    """Registration codes, CA certificates, RegisterCertificate."""

    def __init__(
        self, *, work: Work, authorities: CaCertificates, certificates: CertificatesService, rights: PassedRoles
    ) -> None:
        self._work = work
        self._authorities = authorities
        self._certificates = certificates
        self._rights = rights

    @operation("iot", "GetRegistrationCode")
    async def get_registration_code(self, caller: Caller, request: Request) -> Members:
        code = await self._work.run(lambda tx: self._authorities.registration_code(tx, caller.account))
        return {"registrationCode": code}

    @operation("iot", "DeleteRegistrationCode")
    async def delete_registration_code(self, caller: Caller, request: Request) -> Members:
        await self._work.run(lambda tx: self._authorities.delete_registration_code(tx, caller.account))
        return {}

    @operation("iot", "RegisterCACertificate")
    async def register(self, caller: Caller, request: Request) -> Members:
        certificate = _read(request["caCertificate"])
        mode = CertificateMode(request.get("certificateMode", CertificateMode.DEFAULT.value))
        verification = None if "verificationCertificate" not in request else _read(request["verificationCertificate"])
        if mode is CertificateMode.DEFAULT and verification is None:
            raise InvalidRequest(
                "A verificationCertificate is needed, unless certificateMode is SNI_ONLY.", subject="certificate-validation"
            )
        if mode is CertificateMode.SNI_ONLY and verification is not None:
            raise InvalidRequest(
                "With certificateMode SNI_ONLY there is no verificationCertificate.", subject="certificate-mode"
            )
        config = _config(request.get("registrationConfig"))

        def register(tx: Tx) -> FleetAuthority:
            self._check_role(tx, caller, config)
            return self._authorities.register(
                tx,
                caller.place,
                certificate,
                verification,
                active=request.get("setAsActive", False),
                registers_newcomers=request.get("allowAutoRegistration", False),
                config=config,
                tags={tag["Key"]: tag.get("Value", "") for tag in request.get("tags", ())},
                by=caller.principal_arn,
            )

        made = await self._work.run(register)
        return {"certificateArn": caller.place.iot("cacert", made.fingerprint), "certificateId": made.fingerprint}

    @operation("iot", "DescribeCACertificate")
    async def describe(self, caller: Caller, request: Request) -> Members:
        identity = CertificateId(request["certificateId"])
        found, registration = await self._work.read(lambda tx: self._authorities.find(tx, caller.account, identity))
        config = {
            "templateName": registration.template_name,
            "templateBody": registration.template_body,
            "roleArn": registration.role_arn,
        }
        return {
            "certificateDescription": {
                **_summary(caller, found, registration),
                "certificatePem": found.pem,
                "ownedBy": caller.account,
                "autoRegistrationStatus": "ENABLE" if registration.registers_newcomers else "DISABLE",
                "lastModifiedDate": registration.modified_at,
                "customerVersion": registration.version,
                "generationId": registration.generation_id,
                "validity": {"notBefore": found.not_before, "notAfter": found.not_after},
                "certificateMode": (CertificateMode.DEFAULT if registration.is_verified else CertificateMode.SNI_ONLY).value,
            },
            "registrationConfig": config if any(config.values()) else None,
        }

    @operation("iot", "ListCACertificates")
    async def list(self, caller: Caller, request: Request) -> Members:
        position = read_page_token(request.get("marker"), tuple[int, str], name="marker")
        limit, ascending = request.get("pageSize", PAGE_SIZE_DEFAULT), request.get("ascendingOrder", False)
        template = request.get("templateName")
        rows = await self._work.read(lambda tx: self._authorities.list(tx, caller.account))
        ordered = sorted(rows, key=lambda row: (row[0].created_at, row[0].fingerprint), reverse=not ascending)

        def is_next(found: FleetAuthority) -> bool:
            own = (int(found.created_at), str(found.fingerprint))
            return position is None or (own > position if ascending else own < position)

        wanted = [row for row in ordered if is_next(row[0]) and template in (None, row[1].template_name)]
        page, marker = cut(wanted[: limit + 1], limit, lambda row: (row[0].created_at, row[0].fingerprint))
        return {"certificates": [_summary(caller, *row) for row in page], "nextMarker": marker}

    @operation("iot", "UpdateCACertificate")
    async def update(self, caller: Caller, request: Request) -> Members:
        identity, config = CertificateId(request["certificateId"]), _config(request.get("registrationConfig"))
        status, newcomers = request.get("newStatus"), request.get("newAutoRegistrationStatus")

        def update(tx: Tx) -> None:
            self._check_role(tx, caller, config)
            self._authorities.update(
                tx,
                caller.account,
                identity,
                active=None if status is None else status == "ACTIVE",
                registers_newcomers=None if newcomers is None else newcomers == "ENABLE",
                config=config,
                remove_config=request.get("removeAutoRegistration", False),
            )

        await self._work.run(update)
        return {}

    @operation("iot", "DeleteCACertificate")
    async def delete(self, caller: Caller, request: Request) -> Members:
        identity = CertificateId(request["certificateId"])
        await self._work.run(lambda tx: self._authorities.delete(tx, caller.place, identity))
        return {}

    @operation("iot", "RegisterCertificate")
    async def register_certificate(self, caller: Caller, request: Request) -> Members:
        leaf = _read(request["certificatePem"])
        given = None if "caCertificatePem" not in request else _read(request["caCertificatePem"])
        if "status" in request and "setAsActive" in request:
            raise InvalidRequest("Give either status or setAsActive, not both.", subject="certificate-status")
        active = CertificateStatus.ACTIVE if request.get("setAsActive") else CertificateStatus.INACTIVE
        status = CertificateStatus(request["status"]) if "status" in request else active
        if status not in STATUSES_TO_REGISTER:
            raise InvalidRequest(
                f"A certificate can't be registered as {status.value}. Use ACTIVE, INACTIVE or REVOKED.",
                subject="certificate-status",
            )
        issued = await self._work.run(
            lambda tx: self._authorities.register_certificate(tx, caller.place, leaf, given, status=status)
        )
        return {"certificateArn": issued.arn, "certificateId": issued.id}

    @operation("iot", "ListCertificatesByCA")
    async def list_by_ca(self, caller: Caller, request: Request) -> Members:
        identity = CertificateId(request["caCertificateId"])
        after = read_page_token(request.get("marker"), tuple[int, str], name="marker")
        limit, ascending = request.get("pageSize", PAGE_SIZE_DEFAULT), request.get("ascendingOrder", False)

        def list(tx: Tx) -> Any:
            authority, _ = self._authorities.find(tx, caller.account, identity)
            return self._certificates.page(
                tx, caller.account, after=after, limit=limit + 1, ascending=ascending, origin=authority.origin
            )

        page, marker = cut(await self._work.read(list), limit, lambda row: (row.created_at, row.id))
        return {"certificates": [listed(caller.place, row) for row in page], "nextMarker": marker}

    def _check_role(self, tx: Tx, caller: Caller, config: RegistrationConfig | None) -> None:
        if config is not None and config.role_arn is not None:
            self._rights.require_pass_role(tx, caller, config.role_arn)


def _read(pem: str) -> Any:
    text = pem.encode("utf-8", "replace")
    refuse_private_keys(text, field="certificatePem")
    return x509.certificate_from_pem(text)


def _config(given: Any) -> RegistrationConfig | None:
    if given is None:
        return None
    return RegistrationConfig(
        template_name=given.get("templateName"), template_body=given.get("templateBody"), role_arn=given.get("roleArn")
    )


def _summary(caller: Caller, authority: FleetAuthority, registration: CaRegistration) -> dict[str, Any]:
    return {
        "certificateArn": caller.place.iot("cacert", authority.fingerprint),
        "certificateId": authority.fingerprint,
        "status": "ACTIVE" if registration.is_active else "INACTIVE",
        "creationDate": authority.created_at,
    }
