"""The operator's door to shared credentials, levels and blocks (service ``overair``)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from overair.basics.ids import CertificateId, PolicyName, ThingName
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.certificates import x509
from overair.server.devices.blocks import Block
from overair.server.provisioning.bundles import pkcs12_of
from overair.server.provisioning.minting import new_key
from overair.server.provisioning.model import (
    DEVICE_POLICY,
    CredentialId,
    CredentialPlan,
    DeviceKeyType,
    ProvisionedDevice,
    ProvisioningStatus,
    SharedCredential,
)
from overair.server.provisioning.service import Credentials, Levels, ProvisioningService, Scrubber


class CredentialOperations:
    """Shared credentials: made, listed, revoked."""

    def __init__(
        self, *, work: Work, credentials: Credentials, provisioning: ProvisioningService, device_url: Callable[[], str]
    ) -> None:
        """``device_url`` is asked for each credential: the device port as devices see it."""
        self._work = work
        self._credentials = credentials
        self._provisioning = provisioning
        self._device_url = device_url

    @operation("overair", "CreateProvisioningCredential")
    async def create_credential(self, caller: Caller, request: Request) -> Members:
        plan = CredentialPlan()
        plan = CredentialPlan(
            name=request.get("name", plan.name),
            expires_days=request.get("expiresDays", plan.expires_days),
            uses_max=request.get("usesMax"),
            key_type=DeviceKeyType(request.get("deviceKeyType", plan.key_type.value)),
            certificate_days_max=request.get("certificateDaysMax", plan.certificate_days_max),
            devices_per_minute=request.get("devicesPerMinute", plan.devices_per_minute),
            policy=PolicyName(request.get("policyName", DEVICE_POLICY)),
        )
        key = await asyncio.to_thread(new_key, DeviceKeyType.EC_P256)
        issued = await self._work.run(
            lambda tx: self._credentials.create(tx, caller.place, plan, key.public_key(), by=caller.principal_arn)
        )
        server_authorities = x509.anchors_from_pem(issued.server_authority_pem)
        bundle = await asyncio.to_thread(pkcs12_of, issued.credential.id, key, issued.certificate, server_authorities)
        return {
            "credential": _credential(issued.credential, caller, is_blocked=False),
            "pkcs12": bundle.reveal(),
            "serverCaPem": issued.server_authority_pem,
            "deviceUrl": self._device_url(),
        }

    @operation("overair", "ListProvisioningCredentials")
    async def list_credentials(self, caller: Caller, request: Request) -> Members:
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        after = read_page_token(request.get("nextToken"), tuple[int, str])

        def read(tx: Tx) -> list[tuple[SharedCredential, bool]]:
            found = self._credentials.page(tx, caller.account, after=after, limit=limit + 1)
            return [(each, self._credentials.are_devices_blocked(tx, each)) for each in found]

        page, token = cut(await self._work.read(read), limit, lambda row: (row[0].created_at, row[0].id))
        return {
            "credentials": [_credential(each, caller, is_blocked=is_blocked) for each, is_blocked in page],
            "nextToken": token,
        }

    @operation("overair", "DescribeProvisioningCredential")
    async def describe_credential(self, caller: Caller, request: Request) -> Members:
        return {"credential": await self._work.read(lambda tx: self._described(tx, caller, request))}

    @operation("overair", "RevokeProvisioningCredential")
    async def revoke_credential(self, caller: Caller, request: Request) -> Members:
        identity = CredentialId(request["credentialId"])
        block_devices = request.get("blockDevices", False)

        def revoke(tx: Tx) -> Members:
            self._credentials.revoke(tx, caller.place, identity, block_devices=block_devices, by=caller.principal_arn)
            return self._described(tx, caller, request)

        return {"credential": await self._work.run(revoke)}

    @operation("overair", "UnblockDevicesOfCredential")
    async def unblock_devices(self, caller: Caller, request: Request) -> Members:
        identity = CredentialId(request["credentialId"])
        return {"wasBlocked": await self._work.run(lambda tx: self._credentials.unblock_devices(tx, caller.place, identity))}

    @operation("overair", "ListDevicesOfCredential")
    async def list_devices(self, caller: Caller, request: Request) -> Members:
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        position = read_page_token(request.get("nextToken"), tuple[str])
        after = None if position is None else position[0]
        identity = CredentialId(request["credentialId"])

        def read(tx: Tx) -> list[tuple[ProvisionedDevice, bool]]:
            found = self._credentials.devices(tx, caller.account, identity, after=after, limit=limit + 1)
            return [(each, self._provisioning.is_blocked(tx, caller.account, each.thing)) for each in found]

        page, token = cut(await self._work.read(read), limit, lambda row: (row[0].thing,))
        return {"devices": [provisioned_device(each, is_blocked=is_blocked) for each, is_blocked in page], "nextToken": token}

    def _described(self, tx: Tx, caller: Caller, request: Request) -> Members:
        found = self._credentials.find(tx, caller.account, CredentialId(request["credentialId"]))
        return _credential(found, caller, is_blocked=self._credentials.are_devices_blocked(tx, found))


class LevelOperations:
    """Who can make devices."""

    def __init__(self, *, work: Work, levels: Levels, scrub: Scrubber) -> None:
        self._work = work
        self._levels = levels
        self._scrub = scrub

    @operation("overair", "DescribeProvisioning")
    async def describe_provisioning(self, caller: Caller, request: Request) -> Members:
        return _status(await self._work.read(lambda tx: self._levels.status(tx, caller.account)))

    @operation("overair", "SetSharedProvisioning")
    async def set_shared_provisioning(self, caller: Caller, request: Request) -> Members:
        """Off is answered once the keys are in no file of the records. Where that can't be done now, the keys are destroyed all
        the same, the answer says so, and the same call again finishes it."""
        switch = self._levels.switch_on if request["enabled"] else self._levels.switch_off

        def change(tx: Tx) -> ProvisioningStatus:
            switch(tx, caller.place, by=caller.principal_arn)
            return self._levels.status(tx, caller.account)

        status = await self._work.run(change)
        if not status.shared.is_on:
            await self._scrub()
        return _status(status)


class BlockOperations:
    """Who is kept out."""

    def __init__(self, *, work: Work, provisioning: ProvisioningService) -> None:
        self._work = work
        self._provisioning = provisioning

    @operation("overair", "BlockDevice")
    async def block_device(self, caller: Caller, request: Request) -> Members:
        thing, reason = ThingName(request["thingName"]), request.get("reason", "")
        block = await self._work.run(
            lambda tx: self._provisioning.block(tx, caller.account, thing, reason=reason, by=caller.principal_arn)
        )
        return {"block": _block(block)}

    @operation("overair", "UnblockDevice")
    async def unblock_device(self, caller: Caller, request: Request) -> Members:
        thing = ThingName(request["thingName"])
        return {"wasBlocked": await self._work.run(lambda tx: self._provisioning.unblock(tx, caller.account, thing))}

    @operation("overair", "BlockCertificate")
    async def block_certificate(self, caller: Caller, request: Request) -> Members:
        identity, reason = CertificateId(request["certificateId"]), request.get("reason", "")
        block = await self._work.run(
            lambda tx: self._provisioning.block_certificate(
                tx, caller.account, identity, reason=reason, by=caller.principal_arn
            )
        )
        return {"block": _block(block)}

    @operation("overair", "UnblockCertificate")
    async def unblock_certificate(self, caller: Caller, request: Request) -> Members:
        identity = CertificateId(request["certificateId"])
        return {
            "wasBlocked": await self._work.run(lambda tx: self._provisioning.unblock_certificate(tx, caller.account, identity))
        }

    @operation("overair", "ListBlocks")
    async def list_blocks(self, caller: Caller, request: Request) -> Members:
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        after = read_page_token(request.get("nextToken"), tuple[str, str])
        found = await self._work.read(lambda tx: self._provisioning.blocks(tx, caller.account, after=after, limit=limit + 1))
        page, token = cut(found, limit, lambda block: (block.kind.value, block.name))
        return {"blocks": [_block(each) for each in page], "nextToken": token}


def _status(status: ProvisioningStatus) -> Members:
    return {
        "level": status.level.value,
        "sharedProvisioning": status.shared.is_on,
        "changedAt": status.shared.changed_at,
        "changedBy": status.shared.changed_by or None,
        "fleetKeySince": status.fleet_authority_since,
        "credentialsUsable": status.credentials_usable,
        "fleetAuthorities": status.fleet_authorities,
        "destroyedKeys": [
            {"purpose": key.purpose, "createdAt": key.created_at, "destroyedAt": key.destroyed_at}
            for key in status.destroyed_keys
        ],
        "warnings": list(status.warnings),
    }


def _credential(credential: SharedCredential, caller: Caller, *, is_blocked: bool) -> Members:
    return {
        "credentialId": credential.id,
        "certificateId": credential.certificate_id,
        "name": credential.name,
        "state": credential.state(caller.now).value,
        "createdAt": credential.created_at,
        "createdBy": credential.created_by,
        "expiresAt": credential.expires_at,
        "revokedAt": credential.revoked_at,
        "uses": credential.uses,
        "usesMax": credential.uses_max,
        "deviceKeyType": credential.key_type.value,
        "certificateDaysMax": credential.certificate_days_max,
        "devicesPerMinute": credential.devices_per_minute,
        "policyName": credential.policy,
        "devicesBlocked": is_blocked,
    }


def provisioned_device(device: ProvisionedDevice, *, is_blocked: bool) -> Members:
    return {
        "thingName": device.thing,
        "origin": device.origin,
        "certificateId": device.certificate_id,
        "createdAt": device.created_at,
        "registeredAt": device.registered_at,
        "reissues": device.reissues,
        "sourceIp": device.source_ip,
        "template": device.template,
        "claim": device.claim,
        "blocked": is_blocked,
    }


def _block(block: Block) -> Members:
    return {
        "kind": block.kind.value,
        "name": block.name,
        "reason": block.reason,
        "blockedAt": block.blocked_at,
        "blockedBy": block.blocked_by,
    }
