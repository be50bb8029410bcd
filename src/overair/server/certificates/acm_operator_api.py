"""The operator's door to imported certificates (service ``acm``)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest, InvalidStateTransition
from overair.basics.redacted import Redacted
from overair.basics.work import Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.certificates.acm import AcmQuery, AcmService
from overair.server.certificates.model import AcmCertificate


class AcmOperatorApi:
    """Import, describe, get, list, delete and tags; and what AWS has for certificates of its own making, refused as AWS refuses
    it for imported ones."""

    def __init__(self, *, work: Work, acm: AcmService) -> None:
        self.work = work
        self.acm = acm

    @operation("acm", "ImportCertificate")
    async def import_certificate(self, caller: Caller, request: Request) -> Members:
        given = await asyncio.to_thread(
            self.acm.read,
            caller.place,
            certificate_pem=request["Certificate"],
            private_key=Redacted(request["PrivateKey"]),
            chain_pem=request.get("CertificateChain", b""),
            arn=request.get("CertificateArn"),
            tags={tag["Key"]: tag.get("Value", "") for tag in request.get("Tags", ())},
        )
        imported = await self.work.run(lambda tx: self.acm.import_certificate(tx, caller.place, given))
        return {"CertificateArn": imported.arn}

    @operation("acm", "DescribeCertificate")
    async def describe_certificate(self, caller: Caller, request: Request) -> Members:
        arn = request["CertificateArn"]
        found, users = await self.work.read(
            lambda tx: (self.acm.describe(tx, caller.place, arn), self.acm.users(tx, caller.place, arn))
        )
        return {"Certificate": _detail(found, users, caller.now)}

    @operation("acm", "GetCertificate")
    async def get_certificate(self, caller: Caller, request: Request) -> Members:
        arn = request["CertificateArn"]
        found = await self.work.read(lambda tx: self.acm.describe(tx, caller.place, arn))
        return {"Certificate": found.pem, "CertificateChain": found.chain_pem or None}

    @operation("acm", "ListCertificates")
    async def list_certificates(self, caller: Caller, request: Request) -> Members:
        includes: Mapping[str, Any] = request.get("Includes", {})
        if (
            "CUSTOMER_PROVIDED" not in (request.get("CertificateKeyPairOrigins") or ("CUSTOMER_PROVIDED",))
            or includes.get("managedBy")
            or includes.get("exportOption") == "ENABLED"
        ):
            return {"CertificateSummaryList": []}  # every certificate here was imported, with its owner's key
        query = AcmQuery(
            statuses=frozenset(request.get("CertificateStatuses", ())),
            key_algorithms=frozenset(includes.get("keyTypes", ())),
            key_usages=frozenset(includes.get("keyUsage", ())) - {"ANY"},
            extended_key_usages=frozenset(includes.get("extendedKeyUsage", ())) - {"ANY"},
            ascending=request.get("SortOrder") == "ASCENDING",
        )
        after = read_page_token(request.get("NextToken"), tuple[int, str], name="NextToken")
        limit = request.get("MaxItems", PAGE_SIZE_DEFAULT)

        rows, users = await self.work.read(lambda tx: self._page_with_users(tx, caller, query, after, limit + 1))
        page, token = cut(rows, limit, lambda row: (row.created_at, row.id))
        return {
            "CertificateSummaryList": [_summary(row, row.arn in users, caller.now) for row in page],
            "NextToken": token,
        }

    @operation("acm", "DeleteCertificate")
    async def delete_certificate(self, caller: Caller, request: Request) -> Members:
        await self.work.run(lambda tx: self.acm.delete(tx, caller.place, request["CertificateArn"]))
        return {}

    @operation("acm", "AddTagsToCertificate")
    async def add_tags_to_certificate(self, caller: Caller, request: Request) -> Members:
        tags = {tag["Key"]: tag.get("Value", "") for tag in request["Tags"]}
        await self.work.run(lambda tx: self.acm.add_tags(tx, caller.place, request["CertificateArn"], tags))
        return {}

    @operation("acm", "RemoveTagsFromCertificate")
    async def remove_tags_from_certificate(self, caller: Caller, request: Request) -> Members:
        tags = {tag["Key"]: tag.get("Value") for tag in request["Tags"]}
        await self.work.run(lambda tx: self.acm.remove_tags(tx, caller.place, request["CertificateArn"], tags))
        return {}

    @operation("acm", "ListTagsForCertificate")
    async def list_tags_for_certificate(self, caller: Caller, request: Request) -> Members:
        found = await self.work.read(lambda tx: self.acm.describe(tx, caller.place, request["CertificateArn"]))
        return {"Tags": [{"Key": key, "Value": value} for key, value in sorted(found.tags.items())]}

    @operation("acm", "TagResource")
    async def tag_resource(self, caller: Caller, request: Request) -> Members:
        tags = {tag["Key"]: tag.get("Value", "") for tag in request["Tags"]}
        await self.work.run(lambda tx: self.acm.add_tags(tx, caller.place, request["ResourceArn"], tags))
        return {}

    @operation("acm", "UntagResource")
    async def untag_resource(self, caller: Caller, request: Request) -> Members:
        tags: dict[str, str | None] = dict.fromkeys(request["TagKeys"])
        await self.work.run(lambda tx: self.acm.remove_tags(tx, caller.place, request["ResourceArn"], tags))
        return {}

    @operation("acm", "ListTagsForResource")
    async def list_tags_for_resource(self, caller: Caller, request: Request) -> Members:
        found = await self.work.read(lambda tx: self.acm.describe(tx, caller.place, request["ResourceArn"]))
        return {"Tags": [{"Key": key, "Value": value} for key, value in sorted(found.tags.items())]}

    @operation("acm", "ListCertificateDomainValidations")
    async def list_certificate_domain_validations(self, caller: Caller, request: Request) -> Members:
        """Nobody validates the names of an imported certificate."""
        read_page_token(request.get("NextToken"), tuple[str], name="NextToken")
        await self.work.read(lambda tx: self.acm.describe(tx, caller.place, request["CertificateArn"]))
        return {"DomainValidationSummaryList": []}

    # What isn't for imported certificates: each names the certificate first, as AWS does.

    @operation("acm", "ExportCertificate")
    async def export_certificate(self, caller: Caller, request: Request) -> Members:
        """A private key that was imported never comes out again."""
        arn = await self._imported(caller, request)
        raise InvalidRequest(f"Certificate ARN: {arn} is not a private certificate", subject="certificate")

    @operation("acm", "RenewCertificate")
    async def renew_certificate(self, caller: Caller, request: Request) -> Members:
        arn = await self._imported(caller, request)
        raise InvalidRequest(
            f"Certificate {arn} was imported and is renewed by whoever issued it. Import the new one with this CertificateArn.",
            subject="certificate",
        )

    @operation("acm", "RevokeCertificate")
    async def revoke_certificate(self, caller: Caller, request: Request) -> Members:
        arn = await self._imported(caller, request)
        raise InvalidRequest(
            f"Certificate {arn} was imported and is revoked by whoever issued it. "
            "To take back what it signed: RevokeSigningProfile.",
            subject="certificate",
        )

    @operation("acm", "UpdateCertificateOptions")
    async def update_certificate_options(self, caller: Caller, request: Request) -> Members:
        arn = await self._imported(caller, request)
        raise InvalidStateTransition(f"Certificate {arn} was imported; its options can't be changed.", subject="certificate")

    @operation("acm", "ResendValidationEmail")
    async def resend_validation_email(self, caller: Caller, request: Request) -> Members:
        arn = await self._imported(caller, request)
        raise InvalidStateTransition(f"Certificate {arn} was imported; nobody validates its names.", subject="certificate")

    async def _imported(self, caller: Caller, request: Request) -> str:
        found = await self.work.read(lambda tx: self.acm.describe(tx, caller.place, request["CertificateArn"]))
        return found.arn

    def _page_with_users(
        self, tx: Any, caller: Caller, query: AcmQuery, after: tuple[int, str] | None, limit: int
    ) -> tuple[Sequence[AcmCertificate], frozenset[str]]:
        rows = self.acm.page(tx, caller.account, query, after=after, limit=limit)
        return rows, frozenset(row.arn for row in rows if self.acm.users(tx, caller.place, row.arn))


def _detail(certificate: AcmCertificate, users: Sequence[str], now: Instant) -> Members:
    return {
        "CertificateArn": certificate.arn,
        "DomainName": certificate.domain_name or None,
        "SubjectAlternativeNames": list(certificate.alternative_names) or None,
        "Serial": certificate.serial,
        "Subject": certificate.subject,
        "Issuer": certificate.issuer,
        "CreatedAt": certificate.created_at,
        "ImportedAt": certificate.imported_at,
        "Status": certificate.status(now),
        "NotBefore": certificate.not_before,
        "NotAfter": certificate.not_after,
        "KeyAlgorithm": certificate.facts.key_algorithm,
        "SignatureAlgorithm": certificate.signature_algorithm,
        "InUseBy": list(users),
        "Type": "IMPORTED",
        "KeyUsages": [{"Name": name} for name in certificate.facts.key_usages],
        "ExtendedKeyUsages": [{"Name": name, "OID": oid} for name, oid in certificate.facts.extended_key_usages],
        "RenewalEligibility": "INELIGIBLE",
        "Options": {"CertificateTransparencyLoggingPreference": "DISABLED", "Export": "DISABLED"},
        "CertificateKeyPairOrigin": "CUSTOMER_PROVIDED",
    }


def _summary(certificate: AcmCertificate, in_use: bool, now: Instant) -> Members:
    names = certificate.alternative_names
    return {
        "CertificateArn": certificate.arn,
        "DomainName": certificate.domain_name or None,
        "SubjectAlternativeNameSummaries": list(names[:100]) or None,
        "HasAdditionalSubjectAlternativeNames": len(names) > 100,
        "Status": certificate.status(now),
        "Type": "IMPORTED",
        "KeyAlgorithm": certificate.facts.key_algorithm,
        "KeyUsages": list(certificate.facts.key_usages),
        "ExtendedKeyUsages": [name for name, _ in certificate.facts.extended_key_usages],
        "ExportOption": "DISABLED",
        "InUse": in_use,
        "RenewalEligibility": "INELIGIBLE",
        "NotBefore": certificate.not_before,
        "NotAfter": certificate.not_after,
        "CreatedAt": certificate.created_at,
        "ImportedAt": certificate.imported_at,
        "CertificateKeyPairOrigin": "CUSTOMER_PROVIDED",
    }
