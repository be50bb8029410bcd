"""Enrolment over Secure Transport for devices that are known already (RFC 7030): whom to trust, what to ask for, and the next
certificate for the one that is shown.

There is no ``simpleenroll``: a device without a certificate comes in by a shared credential, a fleet authority, a claim or an
operator.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Final

import structlog
from cryptography import x509 as pyca
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from overair.basics.clock import Clock
from overair.basics.errors import AccessDenied, InvalidRequest, Throttled
from overair.basics.work import Work
from overair.server.certificates import x509
from overair.server.provisioning.reenrolment import Reenrolment, Waits
from overair.server.provisioning.token_buckets import TokenBuckets
from overair.server.rest.operations import DeviceCaller, RestAnswer, RestRequest, device_route

RENEWAL_SIZE_BYTES_MAX: Final = 8 * 1024
RENEWALS_PER_MINUTE: Final = 30
"""Of one device."""
_CERTS_ONLY: Final = "application/pkcs7-mime; smime-type=certs-only"
_BASE64: Final = {"content-transfer-encoding": "base64"}

_CSR_ATTRIBUTES: Final = bytes.fromhex(
    # SEQUENCE { SEQUENCE { ecPublicKey, SET { prime256v1 } }, ecdsa-with-SHA256 }: an ECDSA key on P-256, signed with SHA-256.
    "3021301506072a8648ce3d0201310a06082a8648ce3d03010706082a8648ce3d040302"
)

logger = structlog.get_logger("overair.provisioning")


class EstDeviceApi:
    """The paths below ``/.well-known/est``. The label ``server`` narrows ``cacerts`` to who vouches for this server."""

    def __init__(self, *, work: Work, reenrolment: Reenrolment, clock: Clock) -> None:
        self._work = work
        self._reenrolment = reenrolment
        self._buckets = TokenBuckets(clock)

    @device_route("GET", "/.well-known/est/cacerts", action="overair:DeviceGetCaCertificates")
    async def ca_certificates(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        """Who vouches for this server, and who issued the device's certificate."""
        found = await self._work.read(lambda tx: self._reenrolment.authorities_for(tx, device.place, device.certificate_id))
        return _certificates(found)

    @device_route("GET", "/.well-known/est/server/cacerts", action="overair:DeviceGetCaCertificates")
    async def server_authorities(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        """Who vouches for this server. A device that names in ``If-None-Match`` what it has stored is known to
        trust that: the server authority's rotation waits for it."""
        found = await self._work.read(self._reenrolment.server_authorities)
        tag = _entity_tag(found)
        if request.headers.get("if-none-match") != tag:
            return _certificates(found, {"etag": tag})
        newest = x509.fingerprint(found[0])
        if not await self._work.read(lambda tx: self._reenrolment.is_trusted_by(tx, device.certificate_id, newest)):
            await self._work.run(lambda tx: self._reenrolment.note_trust(tx, device.certificate_id, newest))
            logger.info("device trusts the server authority", thing=device.thing, authority=newest)
        return RestAnswer(status=304, body=b"", headers={"etag": tag})

    @device_route("GET", "/.well-known/est/csrattrs", action="overair:DeviceRenewCertificate")
    async def csr_attributes(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        """Which key is best: others that are accepted for certificates are accepted here."""
        return RestAnswer(body=base64.encodebytes(_CSR_ATTRIBUTES), content_type="application/csrattrs", headers=_BASE64)

    @device_route(
        "POST",
        "/.well-known/est/simplereenroll",
        action="overair:DeviceRenewCertificate",
        body_size_bytes_max=RENEWAL_SIZE_BYTES_MAX,
    )
    async def renew_certificate(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        """PKCS #10 in, certs-only PKCS #7 out, both in Base64; for the device's own name. 202 where an authority elsewhere has
        yet to answer."""
        if not self._buckets.take(device.account, device.thing, per_minute=RENEWALS_PER_MINUTE):
            raise Throttled(f"A device may ask {RENEWALS_PER_MINUTE} times a minute. Ask again later.", subject="renewal")
        asked = await asyncio.to_thread(_signing_request, request.body)
        place, thing, current = device.place, device.thing, device.certificate_id
        answer = await self._work.read(lambda tx: self._reenrolment.standing_answer(tx, place, thing, current, asked))
        if answer is None:
            try:
                answer = await self._work.run(
                    lambda tx: self._reenrolment.ask(tx, place, thing, current, asked, source_ip=device.source_ip)
                )
            except AccessDenied as denied:
                if denied.subject == "renewal-superseded":
                    logger.warning("a certificate that was replaced asks for another one", thing=thing, certificate=current)
                    await self._work.run(
                        lambda tx: self._reenrolment.alarm(tx, place, thing, current, source_ip=device.source_ip)
                    )
                raise
            logger.info("renewal asked for", thing=thing, waits=isinstance(answer, Waits))
        if isinstance(answer, Waits):
            return RestAnswer(status=202, body=b"", headers={"retry-after": str(answer.retry_after_s)})
        return _certificates(answer)


def _certificates(found: Sequence[pyca.Certificate], headers: dict[str, str] | None = None) -> RestAnswer:
    return RestAnswer(
        body=base64.encodebytes(pkcs7.serialize_certificates(list(found), Encoding.DER)),
        content_type=_CERTS_ONLY,
        headers={**_BASE64, **(headers or {})},
    )


def _entity_tag(found: Sequence[pyca.Certificate]) -> str:
    # In an order of its own: a certs-only message is a set, and keeps none.
    return f'"{hashlib.sha256(b"".join(sorted(x509.der_of(each) for each in found))).hexdigest()}"'


def _signing_request(body: bytes) -> x509.SigningRequest:
    """The PKCS #10 of a request's body: Base64 of DER as the standard has it, or PEM.

    Raises:
        InvalidRequest: subjects ``certificate-signing-request``, ``certificate-validation``.
    """
    if body.lstrip().startswith(b"-----BEGIN"):
        return x509.signing_request_from_pem(body.decode("ascii", "replace"))
    try:
        der = base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error:
        raise InvalidRequest(
            "The body must be a PKCS #10 request in Base64 (RFC 7030 §4.2.2).",
            subject="certificate-signing-request",
            details={"field": "body"},
        ) from None
    return x509.signing_request_from_der(der)
