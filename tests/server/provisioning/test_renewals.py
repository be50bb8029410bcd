"""Two certificates of one device for a while; what an authority elsewhere answers; and a key that comes out of turn."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography import x509 as pyca
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import AccessDenied, Conflict, InvalidRequest, NotFound, Throttled
from overair.basics.ids import PolicyName, ThingName
from overair.server.certificates.model import CertificateStatus, DeviceCertificate
from overair.server.certificates.x509 import fingerprint
from overair.server.devices.model import ThingPrincipalType
from overair.server.gateway.authority import DeviceIdentity, Refusal, RefusalCode
from overair.server.provisioning.est_api import RENEWALS_PER_MINUTE
from overair.server.provisioning.model import DAY_MS, OVERLAP_DAYS_DEFAULT, AnomalyKind, Renewal
from overair.server.provisioning.renewal_model import AnotherKey, RenewalRule, judge_another_key
from overair.server.provisioning.renewal_operator_api import RenewalOperations
from overair.server.provisioning.renewals import Retirements
from overair.server.rest.operations import DeviceCaller, RestAnswer, RestRequest
from tests.support import pki
from tests.support.provisioning_room import OPERATOR, ProvisioningRoom

POLICY = PolicyName("everything")
EVERYTHING = '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}'


@pytest.fixture
def room(room: ProvisioningRoom) -> ProvisioningRoom:
    return room


def request_of(key: pki.Key, *names: str) -> pyca.CertificateSigningRequest:
    return pyca.CertificateSigningRequestBuilder().subject_name(pki.names(*names)).sign(key, hashes.SHA256())


def body_of(request: pyca.CertificateSigningRequest) -> bytes:
    return base64.encodebytes(request.public_bytes(Encoding.DER))


def rest(method: str, path: str, body: bytes = b"", **headers: str) -> RestRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return RestRequest(method=method, path=path, labels={}, query={}, headers=named, body=body)


async def admitted(room: ProvisioningRoom, der: bytes) -> DeviceIdentity | Refusal:
    return await room.registry.authority.admit(der, None, None, "192.0.2.7")


async def caller(room: ProvisioningRoom, der: bytes) -> DeviceCaller:
    found = await room.authenticator.admit((der,), "192.0.2.7", "r")
    assert isinstance(found, DeviceCaller), found
    return found


async def asked(room: ProvisioningRoom, der: bytes, request: pyca.CertificateSigningRequest) -> RestAnswer:
    device = await caller(room, der)
    return await room.est_api.renew_certificate(device, rest("POST", "/.well-known/est/simplereenroll", body_of(request)))


def in_answer(answer: RestAnswer) -> list[pyca.Certificate]:
    assert answer.body is not None
    return pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer.body))


def der_of(certificate: pyca.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


async def renewed(room: ProvisioningRoom, der: bytes, name: str, key: pki.Key | None = None) -> pyca.Certificate:
    (fresh,) = in_answer(await asked(room, der, request_of(key or pki.new_key(), name)))
    return fresh


async def registered(room: ProvisioningRoom, der: bytes) -> DeviceCertificate:
    found = await room.work.read(
        lambda tx: room.registry.certificates.find_anywhere(tx, fingerprint(pyca.load_der_x509_certificate(der)))
    )
    assert found is not None
    return found


async def retired(room: ProvisioningRoom) -> bool:
    return await Retirements(work=room.work, renewals=room.renewals).run_once()


def operations(room: ProvisioningRoom) -> RenewalOperations:
    return RenewalOperations(work=room.work, renewals=room.renewals, reenrolment=room.reenrolment)


async def relay(room: ProvisioningRoom) -> None:
    await operations(room).update_rule(room.caller(), {"relay": True, "retryAfterSeconds": 77})


async def ours(room: ProvisioningRoom, name: str = "vin-1") -> bytes:
    return der_of((await room.mint(await room.credential(), name)).certificate)


async def aws_style(room: ProvisioningRoom, name: str, key: pki.Key) -> bytes:
    """A certificate as CreateCertificateFromCsr makes it, attached by an operator, with a policy of his."""

    def make(tx: Any) -> bytes:
        room.registry.devices.create(tx, room.place, ThingName(name))
        issued = room.registry.certificates.issue_for_request(tx, room.place, request_of(key, "any name"), active=True)
        room.registry.devices.attach(tx, room.place, ThingName(name), issued.arn, ThingPrincipalType.EXCLUSIVE_THING)
        room.registry.policies.create(tx, room.place, POLICY, EVERYTHING)
        room.registry.policies.attach(tx, room.place, POLICY, issued.arn)
        return der_of(pyca.load_pem_x509_certificate(issued.pem.encode()))

    return await room.work.run(make)


# The overlap ----------------------------------------------------------------------------------------------------------------


async def test_both_are_good_until_the_overlap_is_over_and_then_the_older_one_goes(
    room: ProvisioningRoom, clock: SettableClock
) -> None:
    old = await ours(room)
    new = der_of(await renewed(room, old, "vin-1"))
    for der in (old, new):
        assert isinstance(await admitted(room, der), DeviceIdentity)
    clock.advance(milliseconds=OVERLAP_DAYS_DEFAULT * DAY_MS - 1)
    assert not await retired(room)
    clock.advance(milliseconds=1)
    assert await retired(room)
    assert not await retired(room)
    refusal = await admitted(room, old)
    assert isinstance(refusal, Refusal)
    assert refusal.code is RefusalCode.INACTIVE
    assert isinstance(await admitted(room, new), DeviceIdentity)
    (listed,) = (await operations(room).list_renewals(room.caller(), {}))["renewals"]
    assert (listed["state"], listed["thingNames"], listed["retiredAt"]) == ("done", ["vin-1"], clock.now())


async def test_the_older_one_stays_while_nobody_has_come_with_the_new_one(room: ProvisioningRoom, clock: SettableClock) -> None:
    old = await ours(room)
    new = der_of(await renewed(room, old, "vin-1"))
    clock.advance(milliseconds=2 * OVERLAP_DAYS_DEFAULT * DAY_MS)
    assert not await retired(room)
    (listed,) = (await operations(room).list_renewals(room.caller(), {}))["renewals"]
    assert listed["state"] == "waits-for-first-use"
    assert isinstance(await admitted(room, new), DeviceIdentity)
    (listed,) = (await operations(room).list_renewals(room.caller(), {}))["renewals"]
    assert (listed["state"], listed["firstUsedAt"]) == ("overlapping", clock.now())
    assert await retired(room)
    assert isinstance(await admitted(room, old), Refusal)


async def test_the_overlap_is_what_the_account_says(room: ProvisioningRoom, clock: SettableClock) -> None:
    answer = await operations(room).update_rule(room.caller(), {"overlapDays": 1})
    assert answer == {"overlapDays": 1, "relay": False, "retryAfterSeconds": 3_600}
    old = await ours(room)
    await admitted(room, der_of(await renewed(room, old, "vin-1")))
    clock.advance(milliseconds=DAY_MS)
    assert await retired(room)
    assert (await registered(room, old)).status is CertificateStatus.INACTIVE


async def test_an_operator_may_make_a_retired_one_active_again_and_it_stays(
    room: ProvisioningRoom, clock: SettableClock
) -> None:
    old = await ours(room)
    await admitted(room, der_of(await renewed(room, old, "vin-1")))
    clock.advance(milliseconds=OVERLAP_DAYS_DEFAULT * DAY_MS)
    assert await retired(room)
    identity = (await registered(room, old)).id
    await room.work.run(lambda tx: room.registry.certificates.set_status(tx, room.place, identity, CertificateStatus.ACTIVE))
    assert isinstance(await admitted(room, old), DeviceIdentity)
    assert not await retired(room)


@pytest.mark.parametrize("rule", [{"overlap_days": -1}, {"overlap_days": 4_000}, {"retry_after_s": 0}])
def test_a_rule_out_of_its_bounds_is_refused(rule: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest):
        RenewalRule(**rule)  # type: ignore[arg-type]


# Who issues -----------------------------------------------------------------------------------------------------------------


async def test_a_device_with_a_certificate_as_aws_makes_them_renews_it_and_keeps_thing_and_policies(
    room: ProvisioningRoom, clock: SettableClock
) -> None:
    key = pki.new_key()
    old = await aws_style(room, "thermostat", key)
    clock.advance(milliseconds=DAY_MS)
    new = der_of(await renewed(room, old, "any name", key))  # the same key is fine
    for der in (old, new):
        identity = await admitted(room, der)
        assert isinstance(identity, DeviceIdentity)
        assert identity.thing == "thermostat"
        assert identity.policy.allows_publish("anything")
    clock.advance(milliseconds=OVERLAP_DAYS_DEFAULT * DAY_MS)
    assert await retired(room)
    assert isinstance(await admitted(room, old), Refusal)
    assert isinstance(await admitted(room, new), DeviceIdentity)


async def test_authorities_are_told_with_the_one_that_issued_the_certificate_and_apart(room: ProvisioningRoom) -> None:
    old = await ours(room)
    device = await caller(room, old)
    answer = await room.est_api.server_authorities(device, rest("GET", "/.well-known/est/server/cacerts"))
    (server,) = in_answer(answer)
    named = in_answer(await room.est_api.ca_certificates(device, rest("GET", "/.well-known/est/cacerts")))
    (fleet,) = set(named) - {server}
    pyca.load_der_x509_certificate(old).verify_directly_issued_by(fleet)


async def test_a_device_that_names_what_it_has_stored_is_known_to_trust_it(room: ProvisioningRoom) -> None:
    old = await ours(room)
    device = await caller(room, old)
    answer = await room.est_api.server_authorities(device, rest("GET", "/.well-known/est/server/cacerts"))
    assert (await registered(room, old)).trusts is None
    (server,) = in_answer(answer)
    for _ in range(2):
        told = rest("GET", "/.well-known/est/server/cacerts", if_none_match=answer.headers["etag"])
        assert (await room.est_api.server_authorities(device, told)).status == 304
        assert (await registered(room, old)).trusts == fingerprint(server)
    new = der_of(await renewed(room, old, "vin-1"))
    assert (await registered(room, new)).trusts == fingerprint(server)


async def test_the_attributes_ask_for_an_elliptic_key(room: ProvisioningRoom) -> None:
    answer = await room.est_api.csr_attributes(await caller(room, await ours(room)), rest("GET", "/.well-known/est/csrattrs"))
    assert answer.content_type == "application/csrattrs"
    assert answer.body is not None
    der = base64.b64decode(answer.body)
    assert der[1] == len(der) - 2
    # id-ecPublicKey with prime256v1, and ecdsa-with-SHA256.
    for identifier in ("2a8648ce3d0201", "2a8648ce3d030107", "2a8648ce3d040302"):
        assert bytes.fromhex(identifier) in der


async def test_a_device_that_asks_too_often_is_told_to_wait(room: ProvisioningRoom) -> None:
    await relay(room)
    await room.work.run(lambda tx: room.levels.switch_off(tx, room.place, by=OPERATOR))
    root = pki.authority()
    await room.trust(root)
    der = pki.device(root, "vin-9").der
    request = request_of(pki.new_key(), "vin-9")
    for _ in range(RENEWALS_PER_MINUTE):
        assert (await asked(room, der, request)).status == 202
    with pytest.raises(Throttled):
        await asked(room, der, request)


# An authority elsewhere -----------------------------------------------------------------------------------------------------


async def waiting(room: ProvisioningRoom) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await operations(room).list_requests(room.caller(), {"state": "waiting"}))["requests"]
    return found


async def test_in_production_a_request_waits_for_the_user_s_authority_and_its_answer_follows(
    room: ProvisioningRoom, clock: SettableClock
) -> None:
    root = pki.authority()
    authority = await room.trust(root)
    await room.work.run(lambda tx: room.levels.switch_off(tx, room.place, by=OPERATOR))
    await relay(room)
    old, key = pki.device(root, "vin-9").der, pki.new_key()
    request = request_of(key, "vin-9")
    for _ in range(2):
        answer = await asked(room, old, request)
        assert (answer.status, answer.headers["retry-after"]) == (202, "77")
    (one,) = await waiting(room)
    assert one["thingName"] == "vin-9"
    given = pyca.load_pem_x509_csr(one["certificateSigningRequest"].encode())
    assert given.public_key() == key.public_key()
    between = pki.authority("Between", root)
    fresh = pki.device(between, "vin-9", key=key)
    told = await operations(room).answer(room.caller(), {"thingName": "vin-9", "certificatePem": fresh.chain_pem})
    assert told["certificateId"] == fingerprint(fresh.certificate)
    assert await waiting(room) == []
    # A set (RFC 5652 §10.2.3), which DER sorts by its members' octets: no order is promised, each stands there once.
    answered = in_answer(await asked(room, old, request))
    assert sorted(answered, key=der_of) == sorted([fresh.certificate, between.certificate], key=der_of)
    assert isinstance(await admitted(room, fresh.der), DeviceIdentity)
    row = await registered(room, fresh.der)
    assert (row.origin, row.replaces) == (authority.origin, (await registered(room, old)).id)
    with pytest.raises(Conflict):
        await operations(room).answer(room.caller(), {"thingName": "vin-9", "certificatePem": fresh.chain_pem})
    clock.advance(milliseconds=OVERLAP_DAYS_DEFAULT * DAY_MS)
    assert await retired(room)
    assert isinstance(await admitted(room, old), Refusal)


async def test_an_answer_that_is_no_answer_is_refused_by_name(room: ProvisioningRoom) -> None:
    root, key = pki.authority(), pki.new_key()
    await room.trust(root)
    await relay(room)
    await asked(room, pki.device(root, "vin-9").der, request_of(key, "vin-9"))
    for why, wrong in {
        "its key isn't": pki.device(root, "vin-9"),
        "its common name": pki.device(root, "vin-8", key=key),
        "clientAuth": pki.device(root, "vin-9", key=key, purposes=pki.SERVER),
        "hold now": pki.device(root, "vin-9", key=key, born=pki.DIES, dies=pki.DIES.replace(year=2046)),
    }.items():
        with pytest.raises(InvalidRequest, match=why):
            await operations(room).answer(room.caller(), {"thingName": "vin-9", "certificatePem": wrong.pem})
    with pytest.raises(NotFound):
        await operations(room).answer(room.caller(), {"thingName": "vin-7", "certificatePem": root.pem})
    assert len(await waiting(room)) == 1


async def test_a_refusal_is_told_to_the_device_and_another_key_is_another_request(room: ProvisioningRoom) -> None:
    root = pki.authority()
    await room.trust(root)
    await relay(room)
    old, request = pki.device(root, "vin-9").der, request_of(pki.new_key(), "vin-9")
    await asked(room, old, request)
    await operations(room).refuse(room.caller(), {"thingName": "vin-9", "reason": "scrapped"})
    with pytest.raises(AccessDenied, match="scrapped"):
        await asked(room, old, request)
    assert (await asked(room, old, request_of(pki.new_key(), "vin-9"))).status == 202


async def test_without_a_relay_a_device_of_another_authority_is_told_to_renew_elsewhere(room: ProvisioningRoom) -> None:
    root = pki.authority()
    await room.trust(root)
    with pytest.raises(NotFound):
        await asked(room, pki.device(root, "vin-9").der, request_of(pki.new_key(), "vin-9"))
    assert await waiting(room) == []


async def test_what_a_deleted_thing_had_asked_for_goes_with_it(room: ProvisioningRoom) -> None:
    root = pki.authority()
    await room.trust(root)
    await relay(room)
    await asked(room, pki.device(root, "vin-9").der, request_of(pki.new_key(), "vin-9"))
    await room.work.run(lambda tx: room.provisioning.thing_deleted(tx, room.place.account, ThingName("vin-9")))
    assert await waiting(room) == []


# Another key ----------------------------------------------------------------------------------------------------------------

RULE = [
    (True, False, Renewal.DENY, AnotherKey.RENEWAL),
    (True, True, Renewal.APPROVE, AnotherKey.RENEWAL),
    (False, True, Renewal.ALLOW, AnotherKey.RENEWAL),
    (False, True, Renewal.APPROVE, AnotherKey.APPROVAL),
    (False, True, Renewal.DENY, AnotherKey.ALARM),
    (False, False, Renewal.ALLOW, AnotherKey.ALARM),
    (False, False, Renewal.APPROVE, AnotherKey.ALARM),
]


@pytest.mark.parametrize(("is_proved", "is_in_time", "renewal", "judged"), RULE)
def test_another_key_is_a_renewal_or_an_alarm_by_one_rule(
    is_proved: bool, is_in_time: bool, renewal: Renewal, judged: AnotherKey
) -> None:
    assert judge_another_key(is_proved=is_proved, is_in_time=is_in_time, renewal=renewal) is judged


async def test_a_certificate_whose_successor_was_used_renews_nothing_and_that_is_an_alarm(room: ProvisioningRoom) -> None:
    old = await ours(room)
    await admitted(room, der_of(await renewed(room, old, "vin-1")))
    for _ in range(2):
        with pytest.raises(AccessDenied) as caught:
            await renewed(room, old, "vin-1")
        assert caught.value.subject == "renewal-superseded"
    (noted,) = await room.work.read(lambda tx: room.provisioning.anomalies_of(tx, room.place.account, ThingName("vin-1")))
    (warning,) = (await room.work.read(lambda tx: room.levels.status(tx, room.place.account))).warnings
    assert warning.startswith("ALARM: keys came out of turn under the names of 1 devices, and were refused: vin-1.")
    assert (noted.kind, noted.times_seen, noted.certificate_id) == (AnomalyKind.SUPERSEDED, 2, (await registered(room, old)).id)


async def test_a_renewal_by_its_authority_has_the_old_one_retire_too(
    room: ProvisioningRoom, clock: SettableClock, place: Place
) -> None:
    now = pki.BORN.replace(year=2026)
    clock.set(type(clock.now())(round(now.timestamp() * 1000)))
    root = pki.authority()
    await room.trust(root, renewal_overlap_days=10)
    old = pki.device(root, "vin-9", dies=now.replace(day=8))
    assert isinstance(await admitted(room, old.der), DeviceIdentity)
    new = pki.device(root, "vin-9", born=now.replace(day=1))
    assert isinstance(await admitted(room, new.der), DeviceIdentity)
    clock.advance(milliseconds=5 * DAY_MS)
    assert not await retired(room)
    assert (await registered(room, old.der)).replaced_by == fingerprint(new.certificate)


async def test_a_third_certificate_of_the_same_key_comes_in_after_the_first_was_retired_and_the_first_rewritten_does_not(
    room: ProvisioningRoom, clock: SettableClock
) -> None:
    root, key = pki.authority(), pki.new_key()
    await room.trust(root)
    first = pki.device(root, "vin-9", key=key)
    second = pki.device(root, "vin-9", key=key, born=pki.BORN.replace(month=2))
    for each in (first, second):
        assert isinstance(await admitted(room, each.der), DeviceIdentity)
    clock.advance(milliseconds=OVERLAP_DAYS_DEFAULT * DAY_MS)
    assert await retired(room)
    assert isinstance(await admitted(room, first.der), Refusal)
    assert isinstance(await admitted(room, pki.respelled(first).der), Refusal)
    third = pki.device(root, "vin-9", key=key, born=pki.BORN.replace(month=3))
    assert isinstance(await admitted(room, third.der), DeviceIdentity)
