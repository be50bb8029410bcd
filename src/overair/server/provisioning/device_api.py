"""What devices ask of provisioning: a certificate for a shared credential (Uptane reference §3.2). A further one for their own:
``est_api.py``."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from overair.basics.clock import Clock
from overair.basics.errors import Throttled
from overair.basics.work import Work
from overair.server.provisioning.bundles import pkcs12_of
from overair.server.provisioning.minting import new_key
from overair.server.provisioning.model import CredentialId, read_device_id, read_ttl_days
from overair.server.provisioning.service import Credentials, Minting
from overair.server.provisioning.token_buckets import TokenBuckets
from overair.server.rest.operations import DeviceCaller, RestAnswer, RestRequest, device_route

DEVICE_REQUEST_SIZE_BYTES_MAX: Final = 4 * 1024

logger = structlog.get_logger("overair.provisioning")


class ProvisioningDeviceApi:
    """``POST /devices``."""

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
