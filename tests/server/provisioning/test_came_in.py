"""The list of devices that came from each credential, template, CA certificate or claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from overair.basics.clock import SettableClock
from overair.basics.errors import InvalidRequest
from overair.basics.ids import CertificateId, ThingName
from overair.server.provisioning.came_in import ProvisionedDevices
from overair.server.provisioning.came_in_operator_api import ProvisionedDeviceOperations
from overair.server.provisioning.model import FleetAuthority, ProvisionedDevice, SharedCredential
from tests.support import pki
from tests.support.provisioning_room import ProvisioningRoom

CLAIM = "c" * 64


@dataclass
class CameIn:
    """Devices of several ways in, and the list that is asked for two at a time."""

    room: ProvisioningRoom
    operations: ProvisionedDeviceOperations
    authority: FleetAuthority
    credential: SharedCredential

    async def names(self, **asked: str) -> list[str]:
        found: list[str] = []
        token: dict[str, str] = {}
        while True:
            page: Any = await self.operations.list_devices(self.room.caller(), {**asked, **token, "maxResults": 2})
            found += [each["thingName"] for each in page["devices"]]
            if page["nextToken"] is None:
                return found
            token = {"nextToken": page["nextToken"]}


@pytest.fixture
async def listed(room: ProvisioningRoom, clock: SettableClock) -> CameIn:
    operations = ProvisionedDeviceOperations(
        work=room.work,
        devices=ProvisionedDevices(devices=room.store, authorities=room.store),
        provisioning=room.provisioning,
    )
    root = pki.authority()
    authority = await room.trust(root)
    credential = await room.credential()
    for name in ("vin-1", "vin-2", "vin-3"):
        await room.mint(credential, name)
    leaf = pki.device(root, "own-1")
    await room.authenticator.admit((leaf.der, *leaf.chain_der), "192.0.2.9", "r")

    def note(name: str, origin: str, template: str, claim: str | None) -> ProvisionedDevice:
        return ProvisionedDevice(
            account=room.place.account,
            thing=ThingName(name),
            origin=origin,
            certificate_id=CertificateId("d" * 64),
            created_at=clock.now(),
            source_ip="192.0.2.7",
            template=template,
            claim=claim,
        )

    for device in (note("m-1", "template/meters", "meters", CLAIM), note("m-2", authority.origin, "meters", None)):
        await room.work.run(lambda tx, device=device: room.store.put_device(tx, device))
    return CameIn(room, operations, authority, credential)


async def test_devices_are_listed_by_whatever_let_them_in(listed: CameIn) -> None:
    assert await listed.names() == ["m-1", "m-2", "own-1", "vin-1", "vin-2", "vin-3"]
    assert await listed.names(credentialId=listed.credential.id) == ["vin-1", "vin-2", "vin-3"]
    assert await listed.names(credentialId=CLAIM) == ["m-1"]
    assert await listed.names(templateName="meters") == ["m-1", "m-2"]
    assert await listed.names(origin="template/meters") == ["m-1"]
    for name in (listed.authority.id, listed.authority.fingerprint):
        assert await listed.names(authorityId=name) == ["m-2", "own-1"]
    for nobody in ({"templateName": "others"}, {"authorityId": "0" * 64}, {"origin": "operator"}):
        assert await listed.names(**nobody) == []
    with pytest.raises(InvalidRequest):
        await listed.names(templateName="meters", credentialId=CLAIM)


async def test_a_withdrawn_authoritys_devices_are_still_found(listed: CameIn) -> None:
    room, authority = listed.room, listed.authority
    await room.work.run(lambda tx: room.fleet.withdraw(tx, room.place, authority.id, keep_devices=True, by="ann"))
    assert await listed.names(authorityId=authority.id) == ["m-2", "own-1"]
