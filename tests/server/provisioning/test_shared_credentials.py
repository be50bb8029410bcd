"""Devices that this server makes for whoever shows a shared credential."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from cryptography import x509 as pyca
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, pkcs7, pkcs12
from cryptography.x509.oid import NameOID

from overair.basics.clock import SettableClock
from overair.basics.errors import AccessDenied, AlreadyExists, Conflict, InvalidRequest, NotFound, Throttled
from overair.basics.ids import CertificateId, PolicyName, ThingName
from overair.server.certificates.x509 import DEVICE_CERTIFICATE_NOT_AFTER, der_of, fingerprint, fingerprint_of_der
from overair.server.devices.model import ThingPrincipalType
from overair.server.gateway.authority import DeviceIdentity, Refusal, RefusalCode
from overair.server.provisioning.model import DeviceKeyType, SharedCredential
from overair.server.rest.operations import DeviceCaller, DeviceRefusal, RestAnswer
from tests.support import pki
from tests.support.provisioning_room import OPERATOR, ProvisioningRoom, post

DAY_MS = 86_400_000


async def asked(room: ProvisioningRoom, credential: SharedCredential, body: bytes) -> RestAnswer:
    return await room.device_api.create_device(room.device_caller(credential), post(body))


def opened(answer: RestAnswer) -> Any:
    assert answer.status == 200
    assert answer.body is not None
    return pkcs12.load_pkcs12(answer.body, b"")


async def admitted(room: ProvisioningRoom, certificate: pyca.Certificate) -> DeviceIdentity | Refusal:
    return await room.registry.authority.admit(der_of(certificate), None, None, "192.0.2.7")


async def test_the_answer_is_a_pkcs_12_without_a_password_with_the_devices_key_certificate_and_whom_to_trust(
    room: ProvisioningRoom, clock: SettableClock
) -> None:
    credential = await room.credential()
    bundle = opened(await asked(room, credential, b'{"deviceId": "vin-1", "ttl": "365"}'))
    leaf = bundle.cert.certificate
    assert bundle.key.public_key() == leaf.public_key()
    assert [attribute.value for attribute in leaf.subject] == ["vin-1"]
    server, fleet = (each.certificate for each in bundle.additional_certs)
    assert "server authority" in server.subject.rfc4514_string()
    leaf.verify_directly_issued_by(fleet)
    assert round(leaf.not_valid_after_utc.timestamp() * 1000) == clock.now() + 365 * DAY_MS
    # The fleet authority lies among a client's anchors: as a server's issuer it must not be believed.
    purposes = fleet.extensions.get_extension_for_class(pyca.ExtendedKeyUsage)
    assert purposes.critical
    assert list(purposes.value) == list(pki.CLIENT)


@pytest.mark.parametrize(
    ("key_type", "kind"),
    [(DeviceKeyType.EC_P256, ec.EllipticCurvePrivateKey), (DeviceKeyType.RSA_2048, rsa.RSAPrivateKey)],
)
async def test_the_credential_says_which_kind_of_key_devices_get(
    room: ProvisioningRoom, key_type: DeviceKeyType, kind: type
) -> None:
    credential = await room.credential(key_type=key_type)
    bundle = opened(await asked(room, credential, b'{"deviceId": "vin-1"}'))
    assert isinstance(bundle.key, kind)


async def test_the_device_is_a_thing_with_its_certificate_exclusively_and_may_use_its_own_paths_alone(
    room: ProvisioningRoom,
) -> None:
    minted = await room.mint(await room.credential(), "vin-1")
    identity = await admitted(room, minted.certificate)
    assert isinstance(identity, DeviceIdentity)
    assert identity.thing == "vin-1"
    own, other = room.place.iot("thing", "vin-1"), room.place.iot("thing", "vin-2")
    for action in ("DirectorPutManifest", "ImageRepositoryGetImage", "DeviceRenewCertificate"):
        assert identity.policy.allows(f"overair:{action}", own)
        assert not identity.policy.allows(f"overair:{action}", other)
    assert not identity.policy.allows("overair:SetSharedProvisioning", own)
    assert not identity.policy.allows_connect("vin-1")
    assert not identity.policy.allows_publish("$aws/things/vin-1/jobs/get")
    attached = await room.work.read(
        lambda tx: room.registry.devices.principals(tx, room.place.account, ThingName("vin-1"), limit=5)
    )
    assert [each.type for each in attached] == [ThingPrincipalType.EXCLUSIVE_THING]


async def test_another_policy_can_be_named_and_must_be_there(room: ProvisioningRoom) -> None:
    with pytest.raises(NotFound, match="Policy not found"):
        await room.credential(policy=PolicyName("fleet-a"))
    document = (
        '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "iot:Connect", '
        '"Resource": "arn:aws:iot:us-east-1:123456789012:client/${iot:Connection.Thing.ThingName}"}}'
    )
    await room.work.run(lambda tx: room.registry.policies.create(tx, room.place, PolicyName("fleet-a"), document))
    minted = await room.mint(await room.credential(policy=PolicyName("fleet-a")), "vin-1")
    identity = await admitted(room, minted.certificate)
    assert isinstance(identity, DeviceIdentity)
    assert identity.policy.allows_connect("vin-1")
    assert not identity.policy.allows("overair:DirectorPutManifest", room.place.iot("thing", "vin-1"))


@pytest.mark.parametrize(
    ("asked_days", "cap", "got"), [(36_000, 3_650, 3_650), (None, 10, 10), (5, 10, 5), (36_000, 36_500, 0)]
)
async def test_a_life_longer_than_the_credential_allows_is_cut(
    room: ProvisioningRoom, clock: SettableClock, asked_days: int | None, cap: int, got: int
) -> None:
    minted = await room.mint(await room.credential(certificate_days_max=cap), "vin-1", ttl_days=asked_days)
    ends = round(minted.certificate.not_valid_after_utc.timestamp() * 1000)
    # Never longer than its issuer.
    assert ends == (clock.now() + got * DAY_MS if got else DEVICE_CERTIFICATE_NOT_AFTER)


async def test_an_id_is_taken_once_its_ecus_are_registered(room: ProvisioningRoom) -> None:
    credential = await room.credential()
    await asked(room, credential, b'{"deviceId": "vin-1"}')
    await room.work.run(lambda tx: room.provisioning.completed(tx, room.place.account, ThingName("vin-1")))
    with pytest.raises(AlreadyExists) as caught:
        await asked(room, credential, b'{"deviceId": "vin-1"}')
    assert caught.value.subject == "device"
    assert (await room.certificates_of("vin-1")) != []


async def test_until_then_the_same_credential_may_ask_again_and_the_lost_certificate_opens_nothing(
    room: ProvisioningRoom,
) -> None:
    credential = await room.credential(uses_max=1)
    lost = opened(await asked(room, credential, b'{"deviceId": "vin-1"}')).cert.certificate
    assert isinstance(await admitted(room, lost), DeviceIdentity)
    found = opened(await asked(room, credential, b'{"deviceId": "vin-1"}')).cert.certificate
    assert isinstance(await admitted(room, lost), Refusal)
    assert isinstance(await admitted(room, found), DeviceIdentity)
    assert await room.certificates_of("vin-1") == [fingerprint(found)]
    # The same id again is no further use, although none was left.
    described = await room.work.read(lambda tx: room.credentials.find(tx, room.place.account, credential.id))
    assert described.uses == 1
    (device,) = await room.work.read(
        lambda tx: room.credentials.devices(tx, room.place.account, credential.id, after=None, limit=5)
    )
    assert (device.reissues, device.certificate_id) == (1, fingerprint(found))


async def test_another_credential_may_not_ask_for_an_unfinished_id(room: ProvisioningRoom) -> None:
    await room.mint(await room.credential(), "vin-1")
    with pytest.raises(AlreadyExists):
        await room.mint(await room.credential(), "vin-1")


async def test_an_id_of_a_thing_that_came_another_way_is_taken(room: ProvisioningRoom) -> None:
    await room.work.run(lambda tx: room.registry.devices.create(tx, room.place, ThingName("vin-1")))
    with pytest.raises(AlreadyExists):
        await room.mint(await room.credential(), "vin-1")


async def test_an_id_whose_thing_was_deleted_is_free(room: ProvisioningRoom) -> None:
    credential = await room.credential()
    minted = await room.mint(credential, "vin-1")
    await room.work.run(lambda tx: room.provisioning.completed(tx, room.place.account, ThingName("vin-1")))

    def delete(tx: Any) -> None:
        room.enrolment.forget(tx, room.place, ThingName("vin-1"), fingerprint(minted.certificate))
        room.registry.devices.delete(tx, room.place.account, ThingName("vin-1"))

    await room.work.run(delete)
    assert not (await room.mint(credential, "vin-1")).is_reissue


async def test_a_credential_makes_as_many_devices_as_it_may(room: ProvisioningRoom) -> None:
    credential = await room.credential(uses_max=2)
    await room.mint(credential, "vin-1")
    await room.mint(credential, "vin-2")
    with pytest.raises(AccessDenied) as caught:
        await asked(room, credential, b'{"deviceId": "vin-3"}')
    assert caught.value.subject == "credential-exhausted"


async def test_devices_that_ask_at_once_get_no_more_than_the_credential_may_give(room: ProvisioningRoom) -> None:
    credential = await room.credential(uses_max=3)
    answers = await asyncio.gather(
        *(asked(room, credential, b'{"deviceId": "vin-%d"}' % number) for number in range(10)), return_exceptions=True
    )
    assert sum(isinstance(answer, RestAnswer) for answer in answers) == 3
    assert {answer.subject for answer in answers if isinstance(answer, AccessDenied)} == {"credential-exhausted"}


async def test_two_that_ask_for_one_id_at_once_leave_one_certificate(room: ProvisioningRoom) -> None:
    credential = await room.credential()
    answers = await asyncio.gather(*(asked(room, credential, b'{"deviceId": "vin-1"}') for _ in range(4)))
    left = await room.certificates_of("vin-1")
    assert len(left) == 1
    assert left[0] in {fingerprint(opened(answer).cert.certificate) for answer in answers}


async def test_a_revoked_and_an_expired_credential_are_refused_by_name(room: ProvisioningRoom, clock: SettableClock) -> None:
    revoked, expiring = await room.credential(), await room.credential(expires_days=1)
    await room.work.run(lambda tx: room.credentials.revoke(tx, room.place, revoked.id, block_devices=False, by=OPERATOR))
    with pytest.raises(AccessDenied) as caught:
        await asked(room, revoked, b'{"deviceId": "vin-1"}')
    assert caught.value.subject == "credential-revoked"
    clock.advance(milliseconds=DAY_MS + 1_000)
    with pytest.raises(AccessDenied) as caught:
        await asked(room, expiring, b'{"deviceId": "vin-1"}')
    assert caught.value.subject == "credential-expired"


async def test_a_credential_asks_no_faster_than_it_may_and_refused_requests_count(
    room: ProvisioningRoom, clock: SettableClock
) -> None:
    credential = await room.credential(devices_per_minute=2)
    with pytest.raises(InvalidRequest):
        await asked(room, credential, b'{"deviceId": "not/a/name"}')
    await asked(room, credential, b'{"deviceId": "vin-1"}')
    with pytest.raises(Throttled):
        await asked(room, credential, b'{"deviceId": "vin-2"}')
    clock.advance(milliseconds=30_000)
    await asked(room, credential, b'{"deviceId": "vin-2"}')


NO_REQUESTS = (
    b"",
    b"[]",
    b"{",
    b"{}",
    b'{"deviceId": 5}',
    b'{"deviceId": "a", "deviceId": "b"}',
    b'{"deviceId": "a", "ttl": 0}',
)


async def test_a_body_that_asks_for_nothing_makes_nothing(room: ProvisioningRoom) -> None:
    credential = await room.credential()
    for body in NO_REQUESTS:
        with pytest.raises(InvalidRequest):
            await asked(room, credential, body)
    assert await room.work.read(lambda tx: room.registry.devices.count(tx, room.place.account)) == 0


async def test_a_blocked_id_is_given_to_nobody(room: ProvisioningRoom) -> None:
    await room.work.run(lambda tx: room.provisioning.block(tx, room.place.account, ThingName("vin-1"), reason="", by=OPERATOR))
    with pytest.raises(AccessDenied) as caught:
        await room.mint(await room.credential(), "vin-1")
    assert caught.value.subject == "device-blocked"


async def test_a_credential_is_of_its_account_alone(room: ProvisioningRoom) -> None:
    credential = await room.credential()
    stranger = type(room.place)("us-east-1", type(room.place.account)("999988887777"))
    with pytest.raises(NotFound):
        await room.work.read(lambda tx: room.credentials.find(tx, stranger.account, credential.id))
    with pytest.raises(AccessDenied):
        await room.work.read(lambda tx: room.minting.check(tx, stranger, credential.id, ThingName("vin-1")))


# Who shows one --------------------------------------------------------------------------------------------------------------


async def shown(room: ProvisioningRoom, **plan: Any) -> tuple[SharedCredential, bytes]:
    """A credential as an operator gets it, and the certificate in it."""
    made = await room.credential_operations.create_credential(room.caller(), plan)
    bundle = pkcs12.load_pkcs12(made["pkcs12"], b"")
    assert bundle.cert is not None
    credential = await room.work.read(
        lambda tx: room.credentials.recognise(tx, CertificateId(made["credential"]["certificateId"]))
    )
    assert credential is not None
    return credential, bundle.cert.certificate.public_bytes(Encoding.DER)


async def test_a_credential_is_recognised_by_its_fingerprint_at_the_device_door_and_nowhere_else(
    room: ProvisioningRoom,
) -> None:
    credential, der = await shown(room)
    assert credential.certificate_id == fingerprint_of_der(der)
    caller = await room.authenticator.admit((der,), "192.0.2.7", "r")
    assert isinstance(caller, DeviceCaller)
    assert (caller.credential_id, caller.thing, caller.place) == (credential.id, "", room.place)
    assert not caller.policy.allows("overair:DirectorPutManifest", "*")
    over_mqtt = await room.registry.authority.admit(der, None, None, "192.0.2.7")
    assert isinstance(over_mqtt, Refusal)
    assert over_mqtt.code is RefusalCode.CREDENTIAL_NOT_ALLOWED_HERE


async def test_a_forged_credential_of_the_same_name_is_a_stranger(room: ProvisioningRoom) -> None:
    _, der = await shown(room)
    real = pyca.load_der_x509_certificate(der)
    forged = pki.certificate(real.subject, pki.authority(real.issuer.rfc4514_string()), pki.new_key(), [])
    answer = await room.authenticator.admit((forged.der,), "192.0.2.7", "r")
    assert isinstance(answer, DeviceRefusal)
    assert answer.code == "foreign_certificate_authority"


async def test_the_door_refuses_a_credential_that_was_revoked_or_has_expired_but_not_one_that_is_used_up(
    room: ProvisioningRoom, clock: SettableClock
) -> None:
    used_up, used_up_der = await shown(room, usesMax=1)
    await room.mint(used_up, "vin-1")
    assert isinstance(await room.authenticator.admit((used_up_der,), "192.0.2.7", "r"), DeviceCaller)
    revoked, revoked_der = await shown(room)
    await room.work.run(lambda tx: room.credentials.revoke(tx, room.place, revoked.id, block_devices=False, by=OPERATOR))
    answer = await room.authenticator.admit((revoked_der,), "192.0.2.7", "r")
    assert isinstance(answer, DeviceRefusal)
    assert answer.code == "credential_revoked"
    clock.advance(milliseconds=91 * DAY_MS)
    answer = await room.authenticator.admit((used_up_der,), "192.0.2.7", "r")
    assert isinstance(answer, DeviceRefusal)
    assert answer.code == "credential_expired"


async def test_a_certificate_that_belongs_to_no_thing_exclusively_has_no_paths(room: ProvisioningRoom) -> None:
    def loose(tx: Any) -> Any:
        return room.registry.certificates.issue(tx, room.place, public_key=pki.new_key().public_key(), active=True)

    issued = await room.work.run(loose)
    der = pyca.load_pem_x509_certificate(issued.pem.encode()).public_bytes(Encoding.DER)
    answer = await room.authenticator.admit((der,), "192.0.2.7", "r")
    assert isinstance(answer, DeviceRefusal)
    assert answer.code == "certificate_without_thing"


# What operators see of them -------------------------------------------------------------------------------------------------


async def test_a_credentials_key_is_answered_once_and_kept_nowhere(room: ProvisioningRoom) -> None:
    made = await room.credential_operations.create_credential(room.caller(), {"name": "line 1", "usesMax": 5})
    bundle = pkcs12.load_pkcs12(made["pkcs12"], b"")
    assert isinstance(bundle.key, ec.EllipticCurvePrivateKey)
    assert bundle.cert is not None
    assert bundle.key.public_key() == bundle.cert.certificate.public_key()
    assert made["deviceUrl"] == "https://gateway.example:8443"
    assert made["serverCaPem"] == bundle.additional_certs[0].certificate.public_bytes(Encoding.PEM).decode()
    keys = await room.work.read(lambda tx: room.registry.keyring.list(tx, room.place.account))
    own = bundle.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert own not in {key.public_key_der for key in keys}
    assert (made["credential"]["name"], made["credential"]["usesMax"], made["credential"]["createdBy"]) == (
        "line 1",
        5,
        OPERATOR,
    )


async def test_credentials_and_their_devices_are_listed_in_pages(room: ProvisioningRoom, clock: SettableClock) -> None:
    made = []
    for number in range(3):
        clock.advance(milliseconds=1)
        made.append((await room.credential(name=f"line {number}")).id)
    for number in range(3):
        await room.mint(
            await room.work.read(lambda tx: room.credentials.find(tx, room.place.account, made[0])), f"vin-{number}"
        )
    first = await room.credential_operations.list_credentials(room.caller(), {"maxResults": 2})
    rest = await room.credential_operations.list_credentials(room.caller(), {"nextToken": first["nextToken"]})
    assert [each["name"] for each in [*first["credentials"], *rest["credentials"]]] == ["line 2", "line 1", "line 0"]
    asked_for = {"credentialId": made[0], "maxResults": 2}
    first = await room.credential_operations.list_devices(room.caller(), asked_for)
    rest = await room.credential_operations.list_devices(room.caller(), {**asked_for, "nextToken": first["nextToken"]})
    assert [each["thingName"] for each in [*first["devices"], *rest["devices"]]] == ["vin-0", "vin-1", "vin-2"]
    assert first["devices"][0]["origin"] == f"credential/{made[0]}"


async def test_revoking_may_block_what_came_from_the_credential_and_that_can_be_taken_back(room: ProvisioningRoom) -> None:
    credential, other = await room.credential(), await room.credential()
    minted, spared = await room.mint(credential, "vin-1"), await room.mint(other, "vin-2")
    revoked = await room.credential_operations.revoke_credential(
        room.caller(), {"credentialId": credential.id, "blockDevices": True}
    )
    assert (revoked["credential"]["state"], revoked["credential"]["devicesBlocked"]) == ("revoked", True)
    refusal = await admitted(room, minted.certificate)
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.BLOCKED
    assert isinstance(await admitted(room, spared.certificate), DeviceIdentity)
    assert await room.credential_operations.unblock_devices(room.caller(), {"credentialId": credential.id}) == {
        "wasBlocked": True
    }
    assert isinstance(await admitted(room, minted.certificate), DeviceIdentity)


async def test_devices_go_on_when_their_credential_is_only_revoked(room: ProvisioningRoom) -> None:
    credential = await room.credential()
    minted = await room.mint(credential, "vin-1")
    await room.credential_operations.revoke_credential(room.caller(), {"credentialId": credential.id})
    assert isinstance(await admitted(room, minted.certificate), DeviceIdentity)


# Renewal --------------------------------------------------------------------------------------------------------------------


def signing_request(name: pyca.Name, key: Any = None) -> bytes:
    request = pyca.CertificateSigningRequestBuilder().subject_name(name).sign(key or pki.new_key(), hashes.SHA256())
    return base64.encodebytes(request.public_bytes(Encoding.DER))


async def renewed(room: ProvisioningRoom, certificate: pyca.Certificate, body: bytes) -> pyca.Certificate:
    device = await room.authenticator.admit((der_of(certificate),), "192.0.2.7", "r")
    assert isinstance(device, DeviceCaller)
    answer = await room.est_api.renew_certificate(device, post(body))
    assert answer.content_type == "application/pkcs7-mime; smime-type=certs-only"
    assert answer.body is not None
    (fresh,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer.body))
    return fresh


async def test_a_device_renews_its_certificate_and_both_are_good_until_it_renews_again(
    room: ProvisioningRoom, clock: SettableClock
) -> None:
    first = (await room.mint(await room.credential(), "vin-1", ttl_days=90)).certificate
    clock.advance(milliseconds=60 * DAY_MS)
    second = await renewed(room, first, signing_request(pki.names("vin-1")))
    assert round(second.not_valid_after_utc.timestamp() * 1000) >= clock.now() + 90 * DAY_MS
    for each in (first, second):
        identity = await admitted(room, each)
        assert isinstance(identity, DeviceIdentity)
        assert identity.thing == "vin-1"
        assert identity.policy.allows("overair:DirectorPutManifest", room.place.iot("thing", "vin-1"))
    third = await renewed(room, second, signing_request(pki.names("vin-1")))
    assert isinstance(await admitted(room, first), Refusal)
    assert set(await room.certificates_of("vin-1")) == {fingerprint(second), fingerprint(third)}


async def test_a_renewal_that_was_lost_is_asked_for_again(room: ProvisioningRoom) -> None:
    first = (await room.mint(await room.credential(), "vin-1")).certificate
    lost = await renewed(room, first, signing_request(pki.names("vin-1")))
    found = await renewed(room, first, signing_request(pki.names("vin-1")))
    assert isinstance(await admitted(room, lost), Refusal)
    assert set(await room.certificates_of("vin-1")) == {fingerprint(first), fingerprint(found)}


async def test_what_an_operator_attached_to_the_old_certificate_holds_for_the_new_one(room: ProvisioningRoom) -> None:
    first = (await room.mint(await room.credential(), "vin-1")).certificate
    document = (
        '{"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": "overair:ImageRepository*", "Resource": "*"}}'
    )

    def restrict(tx: Any) -> None:
        room.registry.policies.create(tx, room.place, PolicyName("no-images"), document)
        room.registry.policies.attach(tx, room.place, PolicyName("no-images"), room.place.iot("cert", fingerprint(first)))

    await room.work.run(restrict)
    identity = await admitted(room, await renewed(room, first, signing_request(pki.names("vin-1"))))
    assert isinstance(identity, DeviceIdentity)
    assert not identity.policy.allows("overair:ImageRepositoryGetImage", room.place.iot("thing", "vin-1"))


NO_RENEWALS = (
    signing_request(pki.names("vin-2")),
    signing_request(pki.names("vin-1", "vin-2")),
    signing_request(pyca.Name([pyca.NameAttribute(NameOID.ORGANIZATION_NAME, "vin-1")])),
    b"",
    b"not base64!",
    b"AAAA",
    b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----",
    b"A" * 9_000,
)


async def test_a_request_for_another_name_or_for_nothing_renews_nothing(room: ProvisioningRoom) -> None:
    first = (await room.mint(await room.credential(), "vin-1")).certificate
    for body in NO_RENEWALS:
        with pytest.raises(InvalidRequest) as caught:
            await renewed(room, first, body)
        assert caught.value.subject in ("certificate-signing-request", "certificate-validation")
    assert await room.certificates_of("vin-1") == [fingerprint(first)]


async def test_a_weak_key_is_not_renewed(room: ProvisioningRoom) -> None:
    first = (await room.mint(await room.credential(), "vin-1")).certificate
    with pytest.raises(InvalidRequest):
        await renewed(room, first, signing_request(pki.names("vin-1"), pki.rsa_key(1024)))


async def test_only_this_servers_devices_renew_here_and_only_at_the_default_level(room: ProvisioningRoom) -> None:
    root = pki.authority()
    await room.trust(root)
    theirs = pki.device(root, "vin-9").certificate
    with pytest.raises(NotFound) as caught:
        await renewed(room, theirs, signing_request(pki.names("vin-9")))
    assert caught.value.subject == "renewal"
    ours = (await room.mint(await room.credential(), "vin-1")).certificate
    await room.work.run(lambda tx: room.levels.switch_off(tx, room.place, by=OPERATOR))
    with pytest.raises(NotFound) as caught:
        await renewed(room, ours, signing_request(pki.names("vin-1")))
    assert caught.value.subject == "renewal"


async def test_no_credential_is_made_while_shared_provisioning_is_off(room: ProvisioningRoom) -> None:
    await room.work.run(lambda tx: room.levels.switch_off(tx, room.place, by=OPERATOR))
    with pytest.raises(Conflict) as caught:
        await room.credential()
    assert caught.value.subject == "shared-provisioning-off"
