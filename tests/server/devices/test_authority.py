"""Who may connect, and that every change is in force at once."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from overair.basics.arn import Place
from overair.basics.clock import SettableClock, as_datetime
from overair.basics.ids import AccountId, CertificateId, ClientId, GroupName, PolicyName, SeededIds, ThingName
from overair.basics.work import Tx
from overair.server.certificates.model import CertificateStatus
from overair.server.certificates.x509 import certificate_from_pem, common_name, der_of, new_device_key
from overair.server.devices.model import ThingPrincipalType
from overair.server.devices.service import ThingUpdate
from overair.server.gateway.authority import DeviceIdentity, Refusal
from overair.server.storage.work import SqlWork
from tests.support.registry import Registry

KEY = new_device_key().public_key()
DEV_1, GROUP, POLICY = ThingName("dev-1"), GroupName("fleet"), PolicyName("own-topics")
OWN_TOPICS = """{"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": "iot:Connect", "Resource": "arn:aws:iot:us-east-1:123456789012:client/${iot:ClientId}"},
    {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"],
     "Resource": "arn:aws:iot:us-east-1:123456789012:topic/$aws/things/${iot:Connection.Thing.ThingName}/jobs/*"},
    {"Effect": "Allow", "Action": "iot:Publish",
     "Resource": "arn:aws:iot:us-east-1:123456789012:topic/site/${iot:Connection.Thing.Attributes[site]}"}]}"""


@dataclass
class Device:
    """A certificate with its ARN, attached as the test says."""

    der: bytes
    arn: str
    id: CertificateId = field(init=False)

    def __post_init__(self) -> None:
        self.id = CertificateId(self.arn.rpartition("/")[2])


@pytest.fixture
def device(registry: Registry, work: SqlWork, place: Place) -> Device:
    """dev-1 at the north site, in the group, its certificate ACTIVE and attached, with a policy for its own topics."""

    def enroll(tx: Tx) -> Device:
        issued = registry.certificates.issue(tx, place, public_key=KEY, active=True)
        registry.devices.create(tx, place, DEV_1, attributes={"site": "north"})
        registry.devices.attach(tx, place, DEV_1, issued.arn)
        registry.groups.create(tx, place, GROUP)
        registry.groups.add(tx, place.account, GROUP, DEV_1)
        registry.policies.create(tx, place, POLICY, OWN_TOPICS)
        registry.policies.attach(tx, place, POLICY, issued.arn)
        return Device(der_of(certificate_from_pem(issued.pem.encode())), issued.arn)

    device = work.run_blocking(enroll)
    registry.sessions.asked.clear()
    return device


async def admitted(registry: Registry, device: Device, client_id: str | None = "dev-1") -> DeviceIdentity:
    answer = await registry.authority.admit(
        device.der, None if client_id is None else ClientId(client_id), "?SDK=Python", "192.0.2.1"
    )
    assert isinstance(answer, DeviceIdentity), answer
    return answer


async def refusal(registry: Registry, der: bytes) -> str:
    answer = await registry.authority.admit(der, ClientId("dev-1"), None, "192.0.2.1")
    assert isinstance(answer, Refusal)
    return answer.reason


async def test_a_device_may_what_its_policy_says_with_its_own_name_put_in(
    registry: Registry, device: Device, place: Place
) -> None:
    identity = await admitted(registry, device)
    assert (identity.place, identity.certificate_id) == (place, device.id)
    policy = identity.policy
    assert policy.allows_connect("dev-1")
    assert not policy.allows_connect("dev-2")
    assert policy.allows_publish("$aws/things/dev-1/jobs/get")
    assert policy.allows_receive("$aws/things/dev-1/jobs/notify")
    assert policy.allows_publish("site/north")
    assert not policy.allows_publish("$aws/things/dev-2/jobs/get")
    assert not policy.allows_publish("site/south")
    assert not policy.allows_subscribe("$aws/things/dev-1/jobs/notify")
    assert not policy.allows_retain("$aws/things/dev-1/jobs/get")


async def test_a_policy_may_depend_on_the_servers_name_that_a_device_came_by(
    registry: Registry, device: Device, work: SqlWork, place: Place
) -> None:
    by_name = {
        "Effect": "Allow",
        "Action": "iot:Connect",
        "Resource": "*",
        "Condition": {"StringEquals": {"iot:DomainName": "fleet.example.com"}},
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [by_name]})

    def bind(tx: Tx) -> None:
        registry.policies.create(tx, place, PolicyName("by-name"), document)
        registry.policies.detach(tx, place, POLICY, device.arn)
        registry.policies.attach(tx, place, PolicyName("by-name"), device.arn)

    await work.run(bind)

    async def may(domain_name: str) -> bool:
        answer = await registry.authority.admit(device.der, ClientId("dev-1"), None, "", (), domain_name)
        assert isinstance(answer, DeviceIdentity)
        return answer.policy.allows_connect("dev-1")

    assert await may("fleet.example.com")
    # Whoever asks for a name that isn't the server's has asked for none.
    for other in ("", "other.example.com", "127.0.0.2"):
        assert not await may(other)


async def test_an_identity_ends_with_its_certificate(registry: Registry, device: Device, work: SqlWork, place: Place) -> None:
    registered = await work.read(lambda tx: registry.certificates.find(tx, place, device.id))
    assert (await admitted(registry, device)).until == registered.not_after


async def test_another_client_id_has_no_thing_variables(registry: Registry, device: Device) -> None:
    policy = (await admitted(registry, device, "someone-else")).policy
    assert policy.allows_connect("someone-else")
    assert not policy.allows_publish("$aws/things/dev-1/jobs/get")
    assert not policy.allows_publish("$aws/things/someone-else/jobs/get")


async def test_a_thing_that_the_certificate_is_not_attached_to_is_not_spoken_for(
    registry: Registry, work: SqlWork, place: Place, device: Device
) -> None:
    await work.run(lambda tx: registry.devices.create(tx, place, ThingName("dev-2")))
    policy = (await admitted(registry, device, "dev-2")).policy
    assert not policy.allows_publish("$aws/things/dev-2/jobs/get")


async def test_an_exclusive_thing_is_spoken_for_whatever_the_client_id(
    registry: Registry, work: SqlWork, place: Place, device: Device
) -> None:
    await work.run(lambda tx: registry.devices.attach(tx, place, DEV_1, device.arn, ThingPrincipalType.EXCLUSIVE_THING))
    for client_id in ("anything", None):
        policy = (await admitted(registry, device, client_id)).policy
        assert policy.allows_publish("$aws/things/dev-1/jobs/get")


@pytest.mark.parametrize("client_id", ["", "x" * 200, "a\0b", "dev-1 ", "\u202e"])
async def test_an_odd_client_id_is_admitted_without_a_thing(registry: Registry, device: Device, client_id: str) -> None:
    policy = (await admitted(registry, device, client_id)).policy
    assert not policy.allows_publish("$aws/things/dev-1/jobs/get")


async def test_a_policy_of_a_group_is_inherited_through_child_groups(
    registry: Registry, work: SqlWork, place: Place, device: Device
) -> None:
    extra = OWN_TOPICS.replace("topic/site/", "topic/region/")

    def prepare(tx: Tx) -> None:
        registry.groups.create(tx, place, GroupName("child"), parent=GROUP)
        registry.groups.remove(tx, place.account, GROUP, DEV_1)
        registry.policies.create(tx, place, PolicyName("extra"), extra)
        registry.policies.attach(tx, place, PolicyName("extra"), place.iot("thinggroup", GROUP))

    await work.run(prepare)
    assert not (await admitted(registry, device)).policy.allows_publish("region/north")
    await work.run(lambda tx: registry.groups.add(tx, place.account, GroupName("child"), DEV_1))
    assert (await admitted(registry, device)).policy.allows_publish("region/north")
    assert not (await admitted(registry, device, "other")).policy.allows_publish("region/north")


async def test_an_unknown_certificate_is_refused(registry: Registry, device: Device) -> None:
    assert "isn't registered" in await refusal(registry, device.der[:-1] + bytes([device.der[-1] ^ 1]))
    assert "isn't registered" in await refusal(registry, b"")


@pytest.mark.parametrize("status", [CertificateStatus.INACTIVE, CertificateStatus.REVOKED])
async def test_a_certificate_that_is_not_active_is_refused_at_once(
    registry: Registry, work: SqlWork, place: Place, device: Device, status: CertificateStatus
) -> None:
    await admitted(registry, device)
    await work.run(lambda tx: registry.certificates.set_status(tx, place, device.id, status))
    assert status.value in await refusal(registry, device.der)
    assert registry.sessions.asked == [frozenset({device.id})]


async def test_a_deleted_certificate_is_unknown_at_once(
    registry: Registry, work: SqlWork, place: Place, device: Device
) -> None:
    await admitted(registry, device)

    def delete(tx: Tx) -> None:
        registry.devices.detach(tx, place, DEV_1, device.arn)
        registry.certificates.set_status(tx, place, device.id, CertificateStatus.INACTIVE)
        registry.certificates.delete(tx, place, device.id, force=True)

    await work.run(delete)
    assert "isn't registered" in await refusal(registry, device.der)


async def test_a_certificate_outside_its_dates_is_refused(registry: Registry, device: Device, clock: SettableClock) -> None:
    await admitted(registry, device)
    clock.set(type(clock.now())(clock.now() - 86_400_000))
    assert "not now" in await refusal(registry, device.der)
    clock.set(type(clock.now())(2_600_000_000_000))
    assert "not now" in await refusal(registry, device.der)


@pytest.mark.parametrize(
    ("purposes", "fit"),
    [
        (None, True),
        ([ExtendedKeyUsageOID.CLIENT_AUTH], True),
        ([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE], True),
        ([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH], True),
        ([ExtendedKeyUsageOID.SERVER_AUTH], False),
        ([ExtendedKeyUsageOID.CODE_SIGNING], False),
    ],
)
async def test_a_certificate_for_another_purpose_is_refused(
    registry: Registry,
    work: SqlWork,
    place: Place,
    clock: SettableClock,
    purposes: list[x509.ObjectIdentifier] | None,
    fit: bool,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    now = as_datetime(clock.now())
    builder = (
        x509.CertificateBuilder()
        .subject_name(common_name("device"))
        .issuer_name(common_name("device"))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now.replace(year=2030))
    )
    if purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    leaf = builder.sign(key, hashes.SHA256())
    await work.run(
        lambda tx: registry.certificates.register_without_authority(tx, place, leaf, status=CertificateStatus.ACTIVE)
    )
    if fit:
        answer = await registry.authority.admit(der_of(leaf), ClientId("dev-1"), None, "")
        assert isinstance(answer, DeviceIdentity)
    else:
        assert "client authentication" in await refusal(registry, der_of(leaf))


async def test_the_certificate_names_the_account(registry: Registry, work: SqlWork, place: Place, device: Device) -> None:
    other = Place("us-east-1", AccountId("999999999999"))
    issued = await work.run(lambda tx: registry.certificates.issue(tx, other, public_key=KEY, active=True))
    stranger = Device(der_of(certificate_from_pem(issued.pem.encode())), issued.arn)
    identity = await admitted(registry, stranger)
    assert identity.place == other
    assert not identity.policy.allows_connect("dev-1")


def _changes() -> dict[str, Any]:
    return {
        "a policy is detached": lambda r, tx, p, d: r.policies.detach(tx, p, POLICY, d.arn),
        "its default version changes": lambda r, tx, p, d: r.policies.create_version(
            tx, p.account, POLICY, OWN_TOPICS.replace("/jobs/*", "/streams/*"), as_default=True
        ),
        "the thing is detached": lambda r, tx, p, d: r.devices.detach(tx, p, DEV_1, d.arn),
        "a group forbids it": lambda r, tx, p, d: (
            r.policies.create(tx, p, PolicyName("no"), OWN_TOPICS.replace("Allow", "Deny")),
            r.policies.attach(tx, p, PolicyName("no"), p.iot("thinggroup", GROUP)),
        ),
    }


@pytest.mark.parametrize("change", list(_changes()))
async def test_what_is_taken_away_is_gone_at_once_and_live_sessions_are_judged(
    registry: Registry, work: SqlWork, place: Place, device: Device, change: str
) -> None:
    topic = "$aws/things/dev-1/jobs/get"
    assert (await admitted(registry, device)).policy.allows_publish(topic)
    await work.run(lambda tx: _changes()[change](registry, tx, place, device))
    assert not (await admitted(registry, device)).policy.allows_publish(topic)
    assert any(asked is None or device.id in asked for asked in registry.sessions.asked)


async def test_a_changed_attribute_is_seen_by_the_next_judgement(
    registry: Registry, work: SqlWork, place: Place, device: Device
) -> None:
    assert (await admitted(registry, device)).policy.allows_publish("site/north")
    await work.run(lambda tx: registry.devices.update(tx, place.account, DEV_1, ThingUpdate(attributes={"site": "south"})))
    assert registry.sessions.asked == [frozenset({device.id})]
    policy = (await admitted(registry, device)).policy
    assert policy.allows_publish("site/south")
    assert not policy.allows_publish("site/north")


async def test_leaving_a_group_takes_its_policies_away(registry: Registry, work: SqlWork, place: Place, device: Device) -> None:
    arn = place.iot("thinggroup", GROUP)

    def move(tx: Tx) -> None:
        registry.policies.detach(tx, place, POLICY, device.arn)
        registry.policies.attach(tx, place, POLICY, arn)

    await work.run(move)
    assert (await admitted(registry, device)).policy.allows_publish("site/north")
    await work.run(lambda tx: registry.groups.remove(tx, place.account, GROUP, DEV_1))
    assert not (await admitted(registry, device)).policy.allows_publish("site/north")


async def test_what_changes_nothing_disturbs_nobody(registry: Registry, work: SqlWork, place: Place, device: Device) -> None:
    await admitted(registry, device)

    def repeat(tx: Tx) -> None:
        registry.policies.attach(tx, place, POLICY, device.arn)
        registry.policies.set_default(tx, place.account, POLICY, 1)
        registry.certificates.set_status(tx, place, device.id, CertificateStatus.ACTIVE)
        registry.policies.create_version(tx, place.account, POLICY, OWN_TOPICS, as_default=False)
        registry.groups.remove(tx, place.account, GROUP, DEV_1)  # a group without policies

    await work.run(repeat)
    assert registry.sessions.asked == []


async def test_a_second_connection_reads_no_records(
    registry: Registry, work: SqlWork, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []

    async def counted(query: Any) -> Any:
        reads.append(query)
        return await SqlWork.read(work, query)

    monkeypatch.setattr(registry.authority, "_work", type("Counting", (), {"read": staticmethod(counted)})())
    for _ in range(3):
        await admitted(registry, device)
    assert len(reads) == 1
    await admitted(registry, device, "another")
    assert len(reads) == 2


async def test_a_change_during_the_read_is_not_missed(
    registry: Registry, work: SqlWork, place: Place, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read began before the revocation and ends after it: what it saw must admit nobody."""
    seen, go_on = threading.Event(), threading.Event()
    find = registry.authority._admissions.find

    def slow(tx: Tx, certificate: CertificateId, client_id: str | None) -> Any:
        found = find(tx, certificate, client_id)
        seen.set()
        assert go_on.wait(10)
        return found

    monkeypatch.setattr(registry.authority._admissions, "find", slow)
    admission = asyncio.create_task(registry.authority.admit(device.der, ClientId("dev-1"), None, ""))
    await asyncio.to_thread(seen.wait, 10)
    await work.run(lambda tx: registry.certificates.set_status(tx, place, device.id, CertificateStatus.REVOKED))
    go_on.set()
    answer = await admission
    assert isinstance(answer, Refusal)
    assert "REVOKED" in answer.reason


async def test_only_so_many_admissions_are_remembered(
    registry: Registry, device: Device, monkeypatch: pytest.MonkeyPatch, ids: SeededIds
) -> None:
    monkeypatch.setattr("overair.server.devices.authority.ADMISSIONS_REMEMBERED_MAX", 3)
    for number in range(10):
        await admitted(registry, device, f"client-{number}")
    assert len(registry.authority._remembered) == 3
    assert set(registry.authority._clients_of) == {device.id}
    registry.authority._changed(AccountId("123456789012"), None)
    assert not registry.authority._remembered
    assert not registry.authority._clients_of
