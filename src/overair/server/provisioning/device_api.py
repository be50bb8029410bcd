"""What devices ask of provisioning: a certificate for a shared credential, and a further one for their own.

Uptane reference §3.2, §12.5; RFC 7030 §4.2.2 (simple re-enrolment).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Final

import structlog
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from overair.basics.clock import Clock
from overair.basics.errors import InvalidRequest, Throttled
from overair.basics.work import Work
from overair.server.certificates import x509
from overair.server.provisioning.bundles import pkcs12_of
from overair.server.provisioning.minting import new_key
from overair.server.provisioning.model import CredentialId, read_device_id, read_ttl_days
from overair.server.provisioning.service import Credentials, Minting
from overair.server.provisioning.token_buckets import TokenBuckets
from overair.server.rest.operations import DeviceCaller, RestAnswer, RestRequest, device_route

DEVICE_REQUEST_SIZE_BYTES_MAX: Final = 4 * 1024
RENEWAL_SIZE_BYTES_MAX: Final = 8 * 1024

logger = structlog.get_logger("overair.provisioning")


class ProvisioningDeviceApi:
    """``POST /devices`` and ``POST /.well-known/est/simplereenroll``."""

    def __init__(self, *, work: Work, credentials: Credentials, minting: Minting, clock: Clock) -> None:
        self._work = work
        self._credentials = credentials
        self._minting = minting
        self._buckets = TokenBuckets(clock)

    @device_route("POST", "/devices", for_shared_credential=True, body_size_bytes_max=DEVICE_REQUEST_SIZE_BYTES_MAX)
    async def create_device(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        """A key, a certificate and whom to trust, as PKCS #12. The key is made here, sent, and kept nowhere."""
        assert device.credential_id is not None
        identity, place = CredentialId(device.credential_id), device.place
        credential = await self._work.read(lambda tx: self._credentials.find(tx, place.account, identity))
        # Refused requests count too: nobody tries out ids at his leisure.
        if not self._buckets.take(place.account, identity, per_minute=credential.devices_per_minute):
            raise Throttled(
                f"This shared credential may ask {credential.devices_per_minute} times a minute. Ask again later.",
                subject="credential",
            )
        body = request.json_object()
        thing, ttl_days = read_device_id(body.get("deviceId")), read_ttl_days(body.get("ttl"))
        await self._work.read(lambda tx: self._minting.check(tx, place, identity, thing))
        key = await asyncio.to_thread(new_key, credential.key_type)
        minted = await self._work.run(
            lambda tx: self._minting.mint(
                tx, place, identity, thing, key.public_key(), ttl_days=ttl_days, source_ip=device.source_ip
            )
        )
        logger.info("device made", thing=thing, credential=identity, again=minted.is_reissue, source_ip=device.source_ip)
        bundle = await asyncio.to_thread(
            pkcs12_of, thing, key, minted.certificate, [*minted.server_authorities, minted.fleet_authority]
        )
        return RestAnswer(body=bundle.reveal(), content_type="application/x-pkcs12", headers={"cache-control": "no-store"})

    @device_route(
        "POST",
        "/.well-known/est/simplereenroll",
        action="overair:DeviceRenewCertificate",
        body_size_bytes_max=RENEWAL_SIZE_BYTES_MAX,
    )
    async def renew_certificate(self, device: DeviceCaller, request: RestRequest) -> RestAnswer:
        """PKCS #10 in, certs-only PKCS #7 out, both in Base64; for the device's own name, at the default level alone."""
        signing_request = await asyncio.to_thread(_signing_request, request.body)
        certificate = await self._work.run(
            lambda tx: self._minting.renew(tx, device.place, device.thing, device.certificate_id, signing_request)
        )
        logger.info("certificate renewed", thing=device.thing, certificate=x509.fingerprint(certificate))
        answer = base64.encodebytes(pkcs7.serialize_certificates([certificate], Encoding.DER))
        return RestAnswer(
            body=answer,
            content_type="application/pkcs7-mime; smime-type=certs-only",
            headers={"content-transfer-encoding": "base64"},
        )


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
