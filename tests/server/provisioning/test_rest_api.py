"""``PUT /api/v1/devices``: a device by its public certificate; and what becomes of a device that is deleted."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from overair.basics.errors import AccessDenied, AlreadyExists, Conflict, InvalidRequest, NotFound
from overair.basics.ids import AccountId, ThingName
from overair.basics.work import Tx
from overair.server.aws_protocol.operations import Caller
from overair.server.certificates.model import CertificateStatus
from overair.server.provisioning.rest_api import DeviceCertificatesRestApi
from overair.server.rest.operations import DeviceCaller, DeviceRefusal, RestRequest
from tests.support import pki
from tests.support.pki import Held
from tests.support.provisioning_room import OPERATOR, ProvisioningRoom


@dataclass
class Around:
    """Records that only note, and rights that are taken away by name."""

    denied: set[str] = field(default_factory=set)
    noted: list[tuple[str, str, str]] = field(default_factory=list)

    def expect(self, tx: Tx, account: AccountId, thing: ThingName, *, name: str, device_type: str) -> None:
        self.noted.append((thing, name, device_type))

    def require(self, tx: Tx, caller: Caller, action: str, resource: str) -> None:
        if action in self.denied:
            raise AccessDenied(f"{action} on {resource}", subject="action")


@pytest.fixture
def around() -> Around:
    return Around()


@pytest.fixture
def api(room: ProvisioningRoom, around: Around) -> DeviceCertificatesRestApi:
    room.registry.groups.watched_by(room.provisioning)
    return DeviceCertificatesRestApi(
        work=room.work,
        provisioning=room.provisioning,
        devices=room.registry.devices,
        records=around,
        rights=around,
    )


async def put(api: DeviceCertificatesRestApi, room: ProvisioningRoom, body: Any) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = RestRequest(method="PUT", path="/api/v1/devices", labels={}, query={}, headers={}, body=raw)
    return (await api.register(room.caller(), request)).json


async def shown(room: ProvisioningRoom, leaf: Held) -> str:
    answer = await room.authenticator.admit((leaf.der, *leaf.chain_der), "192.0.2.9", "r")
    return answer.code if isinstance(answer, DeviceRefusal) else answer.thing


async def read_back(api: DeviceCertificatesRestApi, room: ProvisioningRoom, device: str) -> Any:
    request = RestRequest(method="GET", path="", labels={"device": device}, query={}, headers={})
    return (await api.public_credentials(room.caller(), request)).json


async def test_a_device_is_registered_by_its_certificate_and_read_back_by_name_and_uuid(
    api: DeviceCertificatesRestApi, room: ProvisioningRoom, around: Around
) -> None:
    leaf = pki.device(pki.authority(), "vin-1")
    body = {"deviceId": "vin-1", "deviceName": "my car", "deviceType": "Vehicle", "credentials": leaf.pem}
    uuid = await put(api, room, body)
    assert await shown(room, leaf) == "vin-1"
    assert around.noted == [("vin-1", "my car", "Vehicle")]
    for said in ("vin-1", uuid):
        assert await read_back(api, room, said) == {
            "uuid": uuid,
            "deviceId": "vin-1",
            "credentialsType": "PEM",
            "credentials": leaf.pem,
            "usableCredentials": [leaf.pem],
        }
    with pytest.raises(AlreadyExists):
        await put(api, room, body)


async def test_the_community_editions_way_with_the_uuid_as_common_name_works_too(
    api: DeviceCertificatesRestApi, room: ProvisioningRoom
) -> None:
    name = "6a5c3a1e-8f5e-4d6a-9b8e-0123456789ab"
    leaf = pki.device(pki.authority(), name)
    await put(api, room, {"deviceUuid": name, "deviceId": "my-device", "credentials": leaf.pem})
    assert await shown(room, leaf) == name


NO_REGISTRATIONS: Any = [
    ({}, "credentials"),
    ({"credentials": 5}, "credentials"),
    ({"credentials": "junk"}, None),
    ({"credentials": "PEM", "deviceId": "vin-2"}, "deviceId"),
    ({"credentials": "PEM", "deviceId": "not/a/name"}, "deviceId"),
    ({"credentials": "PEM", "deviceType": "Spaceship"}, "deviceType"),
    ({"credentials": "PEM", "deviceName": "x" * 201}, "deviceName"),
    ({"credentials": "KEY"}, "credentials"),
    ({"credentials": "NO NAME"}, "credentials"),
    (b"[]", "body"),
]


async def test_what_is_no_registration_is_refused_with_its_field(
    api: DeviceCertificatesRestApi, room: ProvisioningRoom
) -> None:
    leaf = pki.device(pki.authority(), "vin-1")
    texts = {"PEM": leaf.pem, "KEY": leaf.pem + leaf.key_pem, "NO NAME": pki.device(pki.authority(), "a b").pem}
    for body, field_named in NO_REGISTRATIONS:
        if isinstance(body, dict) and body.get("credentials") in texts:
            body = {**body, "credentials": texts[body["credentials"]]}
        with pytest.raises(InvalidRequest) as caught:
            await put(api, room, body)
        assert caught.value.details.get("field") == field_named
    assert await room.work.read(lambda tx: room.registry.devices.count(tx, room.place.account)) == 0


async def test_the_right_to_the_very_thing_is_asked_for(
    api: DeviceCertificatesRestApi, room: ProvisioningRoom, around: Around
) -> None:
    leaf = pki.device(pki.authority(), "vin-1")
    around.denied = {"overair:RegisterUptaneDevice"}
    with pytest.raises(AccessDenied, match="thing/vin-1"):
        await put(api, room, {"credentials": leaf.pem})
    around.denied = {"overair:DescribeUptaneDeviceCertificate"}
    uuid = await put(api, room, {"credentials": leaf.pem})
    with pytest.raises(AccessDenied, match="thing/vin-1"):
        await read_back(api, room, uuid)


async def test_a_device_without_a_certificate_has_none_to_show(api: DeviceCertificatesRestApi, room: ProvisioningRoom) -> None:
    await room.work.run(lambda tx: room.registry.devices.create(tx, room.place, ThingName("vin-1")))
    with pytest.raises(NotFound, match="No certificate of vin-1"):
        await read_back(api, room, "vin-1")
    with pytest.raises(NotFound):
        await read_back(api, room, "vin-2")


async def test_a_deleted_device_loses_its_certificates_and_stays_out_until_it_is_unblocked(
    api: DeviceCertificatesRestApi, room: ProvisioningRoom
) -> None:
    root, vin_1 = pki.authority(), ThingName("vin-1")
    await room.trust(root)
    leaf = pki.device(root, "vin-1")
    assert await shown(room, leaf) == "vin-1"

    def delete(tx: Tx) -> None:
        room.provisioning.retire(tx, room.place, vin_1, by=OPERATOR)
        room.registry.devices.delete(tx, room.place.account, vin_1)

    await room.work.run(delete)
    assert await room.work.read(lambda tx: room.provisioning.origin_of(tx, room.place.account, vin_1)) is None
    assert await shown(room, leaf) == "device_blocked"
    with pytest.raises(Conflict, match="UnblockDevice"):
        await put(api, room, {"credentials": leaf.pem})
    await room.work.run(lambda tx: room.provisioning.unblock(tx, room.place.account, vin_1))
    assert await shown(room, leaf) == "vin-1"


async def test_retiring_a_device_spares_a_certificate_that_another_thing_has_too(room: ProvisioningRoom) -> None:
    def prepare(tx: Tx) -> Any:
        shared = room.registry.certificates.issue(tx, room.place, public_key=pki.new_key().public_key(), active=True)
        own = room.registry.certificates.issue(tx, room.place, public_key=pki.new_key().public_key(), active=True)
        for name, arns in (("vin-1", (shared.arn, own.arn)), ("vin-2", (shared.arn,))):
            room.registry.devices.create(tx, room.place, ThingName(name))
            for arn in arns:
                room.registry.devices.attach(tx, room.place, ThingName(name), arn)
        return shared.id, own.id

    shared, own = await room.work.run(prepare)
    await room.work.run(lambda tx: room.provisioning.retire(tx, room.place, ThingName("vin-1"), by=OPERATOR))
    statuses = await room.work.read(
        lambda tx: [room.registry.certificates.find(tx, room.place, each).status for each in (shared, own)]
    )
    assert statuses == [CertificateStatus.ACTIVE, CertificateStatus.INACTIVE]


async def test_a_thing_that_is_made_anew_inherits_no_unfinished_claim(
    api: DeviceCertificatesRestApi, room: ProvisioningRoom
) -> None:
    credential, vin_1 = await room.credential(), ThingName("vin-1")
    minted = await room.mint(credential, "vin-1")

    def delete_and_make(tx: Tx) -> None:
        room.enrolment.release(tx, room.place, vin_1)
        room.registry.devices.delete(tx, room.place.account, vin_1)
        room.registry.devices.create(tx, room.place, vin_1)

    await room.work.run(delete_and_make)
    with pytest.raises(AlreadyExists):
        await room.mint(credential, "vin-1")
    assert not minted.is_reissue
    assert isinstance(room.device_caller(credential), DeviceCaller)
