"""The operator's door to the registry of device certificates (service ``iot``)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.ids import AccountId, CertificateId
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.certificates import x509
from overair.server.certificates.messages import listed
from overair.server.certificates.model import CertificateStatus, CertificateTransfer, DeviceCertificate
from overair.server.certificates.service import CertificatesService
from overair.server.certificates.transfers import CertificateTransfers

IssuerOf = Callable[[Tx, AccountId, str], CertificateId | None]
"""(unit, account, origin of a certificate) → the CA certificate that has issued it, where one is registered."""


class CertificatesOperatorApi:
    """CreateKeysAndCertificate, CreateCertificateFromCsr, RegisterCertificateWithoutCA, Describe, List, Update, Delete."""

    def __init__(self, *, work: Work, certificates: CertificatesService, transfers: CertificateTransfers) -> None:
        self.work = work
        self.certificates = certificates
        self.transfers = transfers
        self._issuer_of: IssuerOf = lambda tx, account, origin: None

    def issuers_known_by(self, issuer_of: IssuerOf) -> None:
        """Register, at composition, the room above that knows CA certificates."""
        self._issuer_of = issuer_of

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

        def describe(tx: Tx) -> tuple[DeviceCertificate, CertificateTransfer | None, CertificateId | None]:
            found, transfer = self.transfers.shown(tx, caller.place, identity)
            is_own = found.account == caller.account
            return found, transfer, self._issuer_of(tx, caller.account, found.origin) if is_own else None

        return {"certificateDescription": _description(caller, *await self.work.read(describe))}

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


class CertificateTransferOperations:
    """TransferCertificate and what may follow."""

    def __init__(self, *, work: Work, transfers: CertificateTransfers) -> None:
        self.work = work
        self.transfers = transfers

    @operation("iot", "TransferCertificate")
    async def transfer(self, caller: Caller, request: Request) -> Members:
        identity, target = CertificateId(request["certificateId"]), AccountId(request["targetAwsAccount"])
        message = request.get("transferMessage")
        await self.work.run(lambda tx: self.transfers.start(tx, caller.place, identity, target, message=message))
        return {"transferredCertificateArn": Place(caller.place.region, target).iot("cert", identity)}

    @operation("iot", "AcceptCertificateTransfer")
    async def accept(self, caller: Caller, request: Request) -> Members:
        identity, active = CertificateId(request["certificateId"]), request.get("setAsActive", False)
        await self.work.run(lambda tx: self.transfers.accept(tx, caller.place, identity, active=active))
        return {}

    @operation("iot", "RejectCertificateTransfer")
    async def reject(self, caller: Caller, request: Request) -> Members:
        identity, reason = CertificateId(request["certificateId"]), request.get("rejectReason")
        await self.work.run(lambda tx: self.transfers.reject(tx, caller.place, identity, reason=reason))
        return {}

    @operation("iot", "CancelCertificateTransfer")
    async def cancel(self, caller: Caller, request: Request) -> Members:
        identity = CertificateId(request["certificateId"])
        await self.work.run(lambda tx: self.transfers.cancel(tx, caller.place, identity))
        return {}

    @operation("iot", "ListOutgoingCertificates")
    async def list_outgoing(self, caller: Caller, request: Request) -> Members:
        after = read_page_token(request.get("marker"), tuple[int, str], name="marker")
        limit, ascending = request.get("pageSize", PAGE_SIZE_DEFAULT), request.get("ascendingOrder", False)
        rows = await self.work.read(
            lambda tx: self.transfers.outgoing(tx, caller.account, after=after, limit=limit + 1, ascending=ascending)
        )
        page, marker = cut(rows, limit, lambda row: (row[1], row[0].certificate_id))
        return {
            "outgoingCertificates": [
                {
                    "certificateArn": caller.place.iot("cert", transfer.certificate_id),
                    "certificateId": transfer.certificate_id,
                    "transferredTo": transfer.target,
                    "transferDate": transfer.transferred_at,
                    "transferMessage": transfer.message,
                    "creationDate": Instant(created_at),
                }
                for transfer, created_at in page
            ],
            "nextMarker": marker,
        }


def _description(
    caller: Caller,
    certificate: DeviceCertificate,
    transfer: CertificateTransfer | None,
    authority: CertificateId | None,
) -> Members:
    was_accepted = transfer is not None and transfer.accepted_at is not None
    return {
        "caCertificateId": authority,
        "previousOwnedBy": transfer.source if transfer is not None and was_accepted else None,
        "certificateArn": caller.place.iot("cert", certificate.id),
        "certificateId": certificate.id,
        "status": certificate.status.value,
        "certificatePem": certificate.pem,
        "ownedBy": certificate.account,
        "creationDate": certificate.created_at,
        "lastModifiedDate": certificate.modified_at,
        "customerVersion": certificate.version,
        "transferData": {} if transfer is None else _transfer_data(transfer),
        "generationId": certificate.generation_id,
        "validity": {"notBefore": certificate.not_before, "notAfter": certificate.not_after},
        "certificateMode": certificate.mode.value,
    }


def _transfer_data(transfer: CertificateTransfer) -> Members:
    return {
        "transferMessage": transfer.message,
        "rejectReason": transfer.reject_reason,
        "transferDate": transfer.transferred_at,
        "acceptDate": transfer.accepted_at,
        "rejectDate": transfer.rejected_at,
    }
