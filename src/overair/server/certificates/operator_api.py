"""The operator's door to the registry of device certificates (service ``iot``)."""

from __future__ import annotations

import asyncio

from overair.basics.ids import CertificateId
from overair.basics.work import Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.certificates import x509
from overair.server.certificates.messages import listed
from overair.server.certificates.model import CertificateStatus, DeviceCertificate
from overair.server.certificates.service import CertificatesService


class CertificatesOperatorApi:
    """CreateKeysAndCertificate, CreateCertificateFromCsr, RegisterCertificateWithoutCA, Describe, List, Update, Delete."""

    def __init__(self, *, work: Work, certificates: CertificatesService) -> None:
        self.work = work
        self.certificates = certificates

    @operation("iot", "CreateKeysAndCertificate")
    async def create_keys_and_certificate(self, caller: Caller, request: Request) -> Members:
        # A key takes tens of milliseconds to find: never on the loop, never on the writer's thread.
        key = await asyncio.to_thread(x509.new_device_key)
        active = request.get("setAsActive", False)
        issued = await self.work.run(
            lambda tx: self.certificates.issue(tx, caller.place, public_key=key.public_key(), active=active)
        )
        return {
            "certificateArn": issued.arn,
            "certificateId": issued.id,
            "certificatePem": issued.pem,
            "keyPair": {"PublicKey": x509.public_key_pem(key.public_key()), "PrivateKey": x509.private_key_pem(key)},
        }

    @operation("iot", "CreateCertificateFromCsr")
    async def create_certificate_from_csr(self, caller: Caller, request: Request) -> Members:
        signing_request = await asyncio.to_thread(x509.signing_request_from_pem, request["certificateSigningRequest"])
        active = request.get("setAsActive", False)
        issued = await self.work.run(
            lambda tx: self.certificates.issue_for_request(tx, caller.place, signing_request, active=active)
        )
        return {"certificateArn": issued.arn, "certificateId": issued.id, "certificatePem": issued.pem}

    @operation("iot", "RegisterCertificateWithoutCA")
    async def register_certificate_without_ca(self, caller: Caller, request: Request) -> Members:
        certificate = x509.certificate_from_pem(request["certificatePem"].encode("utf-8", "replace"))
        status = CertificateStatus(request.get("status", CertificateStatus.INACTIVE.value))
        issued = await self.work.run(
            lambda tx: self.certificates.register_without_authority(tx, caller.place, certificate, status=status)
        )
        return {"certificateArn": issued.arn, "certificateId": issued.id}

    @operation("iot", "DescribeCertificate")
    async def describe_certificate(self, caller: Caller, request: Request) -> Members:
        identity = CertificateId(request["certificateId"])
        found = await self.work.read(lambda tx: self.certificates.find(tx, caller.place, identity))
        return {"certificateDescription": _description(caller, found)}

    @operation("iot", "ListCertificates")
    async def list_certificates(self, caller: Caller, request: Request) -> Members:
        after = read_page_token(request.get("marker"), tuple[int, str], name="marker")
        limit = request.get("pageSize", PAGE_SIZE_DEFAULT)
        ascending = request.get("ascendingOrder", False)
        rows = await self.work.read(
            lambda tx: self.certificates.page(tx, caller.account, after=after, limit=limit + 1, ascending=ascending)
        )
        page, marker = cut(rows, limit, lambda row: (row.created_at, row.id))
        return {"certificates": [listed(caller.place, row) for row in page], "nextMarker": marker}

    @operation("iot", "UpdateCertificate")
    async def update_certificate(self, caller: Caller, request: Request) -> Members:
        identity = CertificateId(request["certificateId"])
        status = CertificateStatus(request["newStatus"])
        await self.work.run(lambda tx: self.certificates.set_status(tx, caller.place, identity, status))
        return {}

    @operation("iot", "DeleteCertificate")
    async def delete_certificate(self, caller: Caller, request: Request) -> Members:
        identity = CertificateId(request["certificateId"])
        force = request.get("forceDelete", False)
        await self.work.run(lambda tx: self.certificates.delete(tx, caller.place, identity, force=force))
        return {}


def _description(caller: Caller, certificate: DeviceCertificate) -> Members:
    return {
        "certificateArn": caller.place.iot("cert", certificate.id),
        "certificateId": certificate.id,
        "status": certificate.status.value,
        "certificatePem": certificate.pem,
        "ownedBy": certificate.account,
        "creationDate": certificate.created_at,
        "lastModifiedDate": certificate.modified_at,
        "customerVersion": certificate.version,
        "transferData": {},
        "generationId": certificate.generation_id,
        "validity": {"notBefore": certificate.not_before, "notAfter": certificate.not_after},
        "certificateMode": certificate.mode.value,
    }
