"""Devices of operators' own authorities: let in by rule, held to their keys, refused by name."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import AlreadyExists, Conflict, InvalidRequest, LimitExceeded, NotFound
from overair.basics.ids import AccountId, CertificateId, ClientId, GroupName, PolicyName, ThingName, ThingTypeName
from overair.basics.work import Tx
from overair.server.certificates.model import CertificateStatus
from overair.server.certificates.x509 import fingerprint
from overair.server.devices.thing_types import TypeSettings
from overair.server.gateway.authority import DeviceIdentity, Refusal, RefusalCode
from overair.server.provisioning.certificate_paths import authority_id, read_authorities
from overair.server.provisioning.model import AnomalyKind, FirstContact, FleetRule, Renewal
from overair.server.rest.operations import DeviceCaller, DeviceRefusal
from tests.support import pki
from tests.support.pki import Held
from tests.support.provisioning_room import OPERATOR, ProvisioningRoom

DAY_MS = 86_400_000
SOON = datetime(2026, 1, 20, tzinfo=UTC)
"""Within 30 days of the tests' clock, which stands at the first of January 2026."""


async def shown(room: ProvisioningRoom, leaf: Held) -> DeviceCaller | str:
    """Who the device door takes this certificate for, or its refusal's code."""
    answer = await room.authenticator.admit((leaf.der, *leaf.chain_der), "192.0.2.9", "r")
    return answer.code if isinstance(answer, DeviceRefusal) else answer


async def let_in(room: ProvisioningRoom, leaf: Held) -> DeviceCaller:
    answer = await shown(room, leaf)
    assert isinstance(answer, DeviceCaller), answer
    return answer


async def anomalies(room: ProvisioningRoom) -> list[tuple[str, AnomalyKind, int]]:
    found = await room.work.read(lambda tx: room.contacts.page(tx, room.place.account, after=None, limit=100))
    return [(each.thing, each.kind, each.times_seen) for each in found]


# First contact --------------------------------------------------------------------------------------------------------------


async def test_a_device_that_nobody_has_seen_is_a_thing_after_its_first_request(room: ProvisioningRoom) -> None:
    root, lowest = pki.deep(3)
    authority = await room.trust(root)
    leaf = pki.device(lowest, "vin-1")
    caller = await let_in(room, leaf)
    assert (caller.thing, caller.certificate_id, caller.place) == ("vin-1", fingerprint(leaf.certificate), room.place)
    assert caller.policy.allows("overair:DirectorRegisterEcus", room.place.iot("thing", "vin-1"))
    origin = await room.work.read(lambda tx: room.provisioning.origin_of(tx, room.place.account, ThingName("vin-1")))
    assert origin is not None
    assert (origin.origin, origin.source_ip) == (f"fleet-authority/{authority.id}", "192.0.2.9")


async def test_mqtt_lets_it_in_by_the_same_rule(room: ProvisioningRoom) -> None:
    root, lowest = pki.deep(2)
    document = (
        '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "iot:Connect", '
        '"Resource": "arn:aws:iot:us-east-1:123456789012:client/${iot:Connection.Thing.ThingName}"}}'
    )
    await room.work.run(lambda tx: room.registry.policies.create(tx, room.place, PolicyName("own"), document))
    await room.trust(root, policy=PolicyName("own"))
    leaf = pki.device(lowest, "vin-1")
    answer = await room.registry.authority.admit(leaf.der, ClientId("vin-1"), None, "192.0.2.9", leaf.chain_der)
    assert isinstance(answer, DeviceIdentity)
    assert answer.thing == "vin-1"
    assert answer.policy.allows_connect("vin-1")
    assert not answer.policy.allows_connect("vin-2")


async def test_a_known_certificate_needs_its_chain_no_more_and_costs_no_search(
    room: ProvisioningRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, lowest = pki.deep(3)
    await room.trust(root)
    leaf = pki.device(lowest, "vin-1")
    await let_in(room, leaf)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a path was searched for")

    monkeypatch.setattr("overair.server.provisioning.first_contact.verify_path", never)
    answer = await room.authenticator.admit((leaf.der,), "192.0.2.9", "r")
    assert isinstance(answer, DeviceCaller)


async def test_a_good_path_is_remembered_for_a_device_that_isnt_let_in(
    room: ProvisioningRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    from overair.server.provisioning import first_contact

    searched = []
    verify = first_contact.verify_path
    monkeypatch.setattr(first_contact, "verify_path", lambda *a, **k: searched.append(1) or verify(*a, **k))
    root = pki.authority()
    authority = await room.trust(root, first_contact=FirstContact.DENY)
    leaf = pki.device(root, "vin-1")
    for _ in range(3):
        assert await shown(room, leaf) == "device_not_registered"
    assert searched == [1]
    # What is remembered is worth nothing once the authority is withdrawn.
    await room.work.run(lambda tx: room.fleet.withdraw(tx, room.place, authority.id, keep_devices=False, by=OPERATOR))
    assert await shown(room, leaf) == "foreign_certificate_authority"


async def test_many_first_requests_of_one_device_make_one_thing(room: ProvisioningRoom) -> None:
    root = pki.authority()
    await room.trust(root)
    leaf = pki.device(root, "vin-1")
    answers = await asyncio.gather(*(shown(room, leaf) for _ in range(8)))
    assert {answer.thing for answer in answers if isinstance(answer, DeviceCaller)} == {"vin-1"}
    assert len([answer for answer in answers if isinstance(answer, DeviceCaller)]) == 8
    assert await room.certificates_of("vin-1") == [fingerprint(leaf.certificate)]


async def test_the_rule_puts_the_thing_where_it_belongs(room: ProvisioningRoom) -> None:
    def prepare(tx: Tx) -> None:
        room.registry.types.create(tx, room.place, ThingTypeName("lorry"), TypeSettings())
        room.registry.groups.create(tx, room.place, GroupName("north"))

    await room.work.run(prepare)
    root = pki.authority()
    await room.trust(root, thing_type=ThingTypeName("lorry"), groups=(GroupName("north"),), device_id_pattern="lorry-??")
    await let_in(room, pki.device(root, "lorry-01"))
    assert await shown(room, pki.device(root, "lorry-001")) == "device_not_registered"
    assert await shown(room, pki.device(root, "car-01")) == "device_not_registered"
    thing = await room.work.read(lambda tx: room.registry.devices.find(tx, room.place.account, ThingName("lorry-01")))
    assert thing.type_name == "lorry"
    members = await room.work.read(
        lambda tx: room.registry.groups.members(tx, room.place.account, GroupName("north"), nested=False, after=None, limit=9)
    )
    assert members == ["lorry-01"]


async def test_where_the_rule_denies_nobody_comes_in_until_an_operator_approves(room: ProvisioningRoom) -> None:
    root = pki.authority()
    await room.trust(root, first_contact=FirstContact.DENY)
    leaf = pki.device(root, "vin-1")
    assert await shown(room, leaf) == "device_not_registered"
    assert await room.work.read(lambda tx: room.registry.devices.count(tx, room.place.account)) == 0
    (noted,) = (await room.anomaly_operations.list_anomalies(room.caller(), {}))["anomalies"]
    assert (noted["thingName"], noted["kind"], noted["certificatePem"]) == ("vin-1", "unregistered", leaf.pem)
    approved = await room.anomaly_operations.approve(room.caller(), {"certificateId": noted["certificateId"]})
    assert approved == {"thingName": "vin-1"}
    await let_in(room, leaf)
    assert await anomalies(room) == []


async def test_a_thing_that_was_made_beforehand_takes_its_first_certificate(room: ProvisioningRoom) -> None:
    await room.work.run(lambda tx: room.registry.devices.create(tx, room.place, ThingName("vin-1")))
    root = pki.authority()
    await room.trust(root)
    assert (await let_in(room, pki.device(root, "vin-1"))).thing == "vin-1"


async def test_a_rule_whose_group_is_gone_lets_nobody_in_half(room: ProvisioningRoom) -> None:
    await room.work.run(lambda tx: room.registry.groups.create(tx, room.place, GroupName("north")))
    root = pki.authority()
    await room.trust(root, groups=(GroupName("north"),))
    await room.work.run(lambda tx: room.registry.groups.delete(tx, room.place, GroupName("north")))
    assert await shown(room, pki.device(root, "vin-1")) == "temporarily_unavailable"
    assert await room.work.read(lambda tx: room.registry.devices.count(tx, room.place.account)) == 0


REFUSED: Any = [
    (lambda root: pki.device(pki.authority("Other"), "vin-1"), "foreign_certificate_authority"),
    (lambda root: pki.device(None, "vin-1"), "foreign_certificate_authority"),
    (lambda root: pki.device(root, dies=datetime(2025, 6, 1, tzinfo=UTC)), "certificate_expired"),
    (lambda root: pki.device(root, born=datetime(2027, 6, 1, tzinfo=UTC)), "certificate_not_yet_valid"),
    (lambda root: pki.device(root, purposes=pki.SERVER), "certificate_wrong_purpose"),
    (lambda root: pki.device(root, pki.names(organisation="Acme")), "certificate_without_common_name"),
    (lambda root: pki.device(root, pki.names("vin-1", "vin-2")), "certificate_with_several_common_names"),
    (lambda root: pki.device(root, "vin/1"), "certificate_common_name_invalid"),
    (lambda root: pki.device(pki.authority("Issuing", root, ca=False)), "certificate_chain_invalid"),
    (
        lambda root: pki.device(pki.authority("Issuing", root, dies=datetime(2025, 6, 1, tzinfo=UTC))),
        "certificate_authority_expired",
    ),
]
"""How a certificate is made that may not come in, and what the refusal is called."""


async def test_each_refusal_has_its_name_and_leaves_nothing_behind(room: ProvisioningRoom) -> None:
    root = pki.authority()
    await room.trust(root)
    for make, code in REFUSED:
        assert await shown(room, make(root)) == code
    assert await room.work.read(lambda tx: room.registry.devices.count(tx, room.place.account)) == 0
    assert await anomalies(room) == []


async def test_a_chain_of_six_is_too_deep_and_one_of_five_is_not(room: ProvisioningRoom) -> None:
    for depth in (5, 6):
        root, lowest = pki.deep(depth)
        await room.trust(root)
        answer = await shown(room, pki.device(lowest, f"vin-{depth}"))
        assert answer == "certificate_chain_too_deep" if depth == 6 else isinstance(answer, DeviceCaller)


async def test_bytes_that_are_no_certificate_are_refused(room: ProvisioningRoom) -> None:
    answer = await room.authenticator.admit((b"junk",), "192.0.2.9", "r")
    assert isinstance(answer, DeviceRefusal)
    assert answer.code == "certificate_unreadable"


# A name is bound to a key ---------------------------------------------------------------------------------------------------


async def test_another_key_for_a_known_name_is_refused_and_noted(room: ProvisioningRoom) -> None:
    root = pki.authority()
    await room.trust(root)
    await let_in(room, pki.device(root, "vin-1"))
    clone = pki.device(root, "vin-1")
    assert await shown(room, clone) == "device_key_mismatch"
    assert await anomalies(room) == [("vin-1", AnomalyKind.KEY_MISMATCH, 1)]
    assert len(await room.certificates_of("vin-1")) == 1


async def test_a_certificate_issued_anew_for_the_same_key_is_the_same_device(room: ProvisioningRoom) -> None:
    root, key = pki.authority(), pki.new_key()
    await room.trust(root)
    first, second = pki.device(root, "vin-1", key=key), pki.device(root, "vin-1", key=key)
    await let_in(room, first)
    await let_in(room, second)
    assert len(await room.certificates_of("vin-1")) == 2
    assert await anomalies(room) == []


@pytest.mark.parametrize(
    ("taken_away", "code"),
    [("revoked", "certificate_revoked"), ("inactive", "certificate_inactive"), ("blocked", "device_blocked")],
)
async def test_what_was_taken_away_from_a_certificate_comes_not_back_with_another_of_its_key(
    room: ProvisioningRoom, taken_away: str, code: str
) -> None:
    root, key = pki.authority(), pki.new_key()
    await room.trust(root)
    first = pki.device(root, "vin-1", key=key)
    identity = (await let_in(room, first)).certificate_id
    # Whoever has a certificate can write it in another way, with another fingerprint.
    other_spelling = pki.respelled(first)
    assert fingerprint(other_spelling.certificate) != identity
    assert other_spelling.certificate.tbs_certificate_bytes == first.certificate.tbs_certificate_bytes

    def take_away(tx: Tx) -> None:
        if taken_away == "blocked":
            room.provisioning.block_certificate(tx, room.place.account, identity, reason="", by=OPERATOR)
        else:
            status = CertificateStatus(taken_away.upper())
            room.registry.certificates.set_status(tx, room.place, identity, status)
        # And no thing remembers it any more.
        room.registry.devices.detach(tx, room.place, ThingName("vin-1"), room.place.iot("cert", identity))

    await room.work.run(take_away)
    assert await shown(room, first) == code
    assert await shown(room, other_spelling) == code
    assert await shown(room, pki.device(root, "vin-1", key=key)) == code
    # Nor does it under another name.
    assert await shown(room, pki.device(root, "vin-2", key=key)) == code


async def test_the_name_of_a_device_that_came_another_way_is_not_taken_over(room: ProvisioningRoom) -> None:
    await room.mint(await room.credential(), "vin-1")
    root = pki.authority()
    await room.trust(root)
    assert await shown(room, pki.device(root, "vin-1")) == "device_key_mismatch"


async def test_a_new_key_near_the_end_of_the_old_certificate_is_a_renewal(room: ProvisioningRoom, clock: SettableClock) -> None:
    root = pki.authority()
    await room.trust(root, renewal_overlap_days=30)
    old = pki.device(root, "vin-1", dies=datetime(2026, 3, 1, tzinfo=UTC))
    await let_in(room, old)
    new = pki.device(root, "vin-1")
    assert await shown(room, new) == "device_key_mismatch"
    clock.advance(milliseconds=30 * DAY_MS)
    await let_in(room, new)
    await let_in(room, old)
    clock.advance(milliseconds=30 * DAY_MS)
    assert await shown(room, old) == "certificate_expired"
    await let_in(room, new)


@pytest.mark.parametrize("days", [0, 30])
async def test_a_device_that_slept_past_the_end_of_its_certificate_comes_back_with_a_new_one(
    room: ProvisioningRoom, clock: SettableClock, days: int
) -> None:
    root = pki.authority()
    await room.trust(root, renewal_overlap_days=days)
    await let_in(room, pki.device(root, "vin-1", dies=SOON))
    clock.advance(milliseconds=40 * DAY_MS)
    await let_in(room, pki.device(root, "vin-1"))


async def test_a_renewal_may_need_an_operators_word(room: ProvisioningRoom, clock: SettableClock) -> None:
    root = pki.authority()
    await room.trust(root, renewal=Renewal.APPROVE)
    old = pki.device(root, "vin-1", dies=SOON)
    await let_in(room, old)
    new = pki.device(root, "vin-1")
    for _ in range(3):
        assert await shown(room, new) == "device_awaits_approval"
    assert await anomalies(room) == [("vin-1", AnomalyKind.RENEWAL, 1)]
    clock.advance(milliseconds=60_000)
    assert await shown(room, new) == "device_awaits_approval"
    assert await anomalies(room) == [("vin-1", AnomalyKind.RENEWAL, 2)]
    await let_in(room, old)
    identity = fingerprint(new.certificate)
    await room.anomaly_operations.approve(room.caller(), {"certificateId": identity, "deactivateOthers": True})
    await let_in(room, new)
    assert await shown(room, old) == "certificate_inactive"


async def test_a_renewal_may_be_denied(room: ProvisioningRoom) -> None:
    root = pki.authority()
    await room.trust(root, renewal=Renewal.DENY)
    await let_in(room, pki.device(root, "vin-1", dies=SOON))
    assert await shown(room, pki.device(root, "vin-1")) == "device_key_mismatch"


async def test_another_authority_renews_nobody(room: ProvisioningRoom) -> None:
    root, other = pki.authority(), pki.authority("Other")
    await room.trust(root)
    await room.trust(other)
    await let_in(room, pki.device(root, "vin-1", dies=SOON))
    assert await shown(room, pki.device(other, "vin-1")) == "device_key_mismatch"


async def test_an_anomaly_can_be_dismissed_and_is_noted_again(room: ProvisioningRoom) -> None:
    root = pki.authority()
    await room.trust(root, first_contact=FirstContact.DENY)
    leaf = pki.device(root, "vin-1")
    await shown(room, leaf)
    request = {"certificateId": fingerprint(leaf.certificate)}
    await room.anomaly_operations.dismiss(room.caller(), request)
    assert await anomalies(room) == []
    with pytest.raises(NotFound):
        await room.anomaly_operations.dismiss(room.caller(), request)
    with pytest.raises(NotFound):
        await room.anomaly_operations.approve(room.caller(), request)
    await shown(room, leaf)
    assert await anomalies(room) == [("vin-1", AnomalyKind.UNREGISTERED, 1)]


async def test_anomalies_are_bounded_and_the_oldest_make_room(
    room: ProvisioningRoom, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overair.server.provisioning.first_contact.ANOMALIES_MAX", 3)
    root = pki.authority()
    await room.trust(root, first_contact=FirstContact.DENY)
    for number in range(5):
        clock.advance(milliseconds=1)
        await shown(room, pki.device(root, f"vin-{number}"))
    assert [thing for thing, _, _ in await anomalies(room)] == ["vin-4", "vin-3", "vin-2"]


# Authorities ----------------------------------------------------------------------------------------------------------------


async def registered(room: ProvisioningRoom, text: str, **more: Any) -> Any:
    return await room.fleet_operations.register(room.caller(), {"certificatePem": text, **more})


async def test_several_authorities_are_registered_listed_changed_and_withdrawn(room: ProvisioningRoom) -> None:
    first, second = pki.authority("First"), pki.authority("Second")
    made = await registered(room, first.pem + second.pem, name="plant 1", rule={"deviceIdPattern": "a-*", "renewal": "approve"})
    assert [each["subject"] for each in made["authorities"]] == ["CN=First", "CN=Second"]
    identity = made["authorities"][0]["authorityId"]
    changed = await room.fleet_operations.update(
        room.caller(), {"authorityId": identity, "rule": {"firstContact": "deny"}, "name": "plant 2"}
    )
    assert changed["authority"]["rule"]["firstContact"] == "deny"
    assert changed["authority"]["rule"]["deviceIdPattern"] == "a-*"  # what isn't named stays
    assert changed["authority"]["name"] == "plant 2"
    assert await room.fleet_operations.describe(room.caller(), {"authorityId": identity}) == changed
    await room.fleet_operations.withdraw(room.caller(), {"authorityId": identity})
    left = await room.fleet_operations.list(room.caller(), {})
    assert [each["subject"] for each in left["authorities"]] == ["CN=Second"]
    with pytest.raises(NotFound):
        await room.fleet_operations.describe(room.caller(), {"authorityId": identity})


async def test_an_upload_is_taken_whole_or_not_at_all(room: ProvisioningRoom) -> None:
    good = pki.authority()
    with pytest.raises(InvalidRequest):
        await registered(room, good.pem + pki.device(good).pem)
    with pytest.raises(InvalidRequest) as caught:
        await registered(room, good.pem + good.key_pem)
    assert caught.value.subject == "private-key-sent"
    with pytest.raises(NotFound):
        await registered(room, good.pem, rule={"policyName": "missing"})
    with pytest.raises(NotFound):
        await registered(room, good.pem, rule={"thingGroupNames": ["missing"]})
    with pytest.raises(NotFound):
        await registered(room, good.pem, rule={"thingTypeName": "missing"})
    assert await room.fleet_operations.list(room.caller(), {}) == {"authorities": []}


async def test_an_authority_belongs_to_one_account_of_the_server(room: ProvisioningRoom) -> None:
    root = pki.authority()
    await room.trust(root)
    other = Place("us-east-1", AccountId("999988887777"))

    def register(tx: Tx) -> Any:
        certificates = read_authorities(root.pem.encode(), count_max=1, now=room.clock.now())
        return room.fleet.register(tx, other, certificates, FleetRule(), name="", by=OPERATOR)

    with pytest.raises(AlreadyExists):
        await room.work.run(register)
    identity = authority_id(root.certificate)
    with pytest.raises(NotFound):
        await room.work.read(lambda tx: room.fleet.find(tx, other.account, identity))
    with pytest.raises(NotFound):
        await room.work.run(lambda tx: room.fleet.withdraw(tx, other, identity, keep_devices=False, by=OPERATOR))
    # Once it is given up, another account may have it.
    await room.work.run(lambda tx: room.fleet.withdraw(tx, room.place, identity, keep_devices=True, by=OPERATOR))
    await room.work.run(register)
    answer = await shown(room, pki.device(root, "vin-1"))
    assert isinstance(answer, DeviceCaller)
    assert answer.place == other


async def test_a_root_issued_anew_for_the_same_key_replaces_the_old_one(room: ProvisioningRoom, clock: SettableClock) -> None:
    key = pki.new_key()
    old = pki.authority(key=key, dies=datetime(2026, 2, 1, tzinfo=UTC))
    await room.trust(old)
    clock.advance(milliseconds=60 * DAY_MS)
    assert await shown(room, pki.device(old, "vin-1")) == "certificate_authority_expired"
    await room.trust(pki.authority(key=key))
    await let_in(room, pki.device(old, "vin-1"))
    assert len((await room.fleet_operations.list(room.caller(), {}))["authorities"]) == 1


async def test_the_same_key_under_another_name_is_refused(room: ProvisioningRoom) -> None:
    key = pki.new_key()
    await room.trust(pki.authority(key=key))
    with pytest.raises(Conflict):
        await room.trust(pki.authority("Another name", key=key))


async def test_an_account_trusts_no_more_authorities_than_a_hundred(
    room: ProvisioningRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overair.server.provisioning.fleet_authorities.AUTHORITIES_MAX", 1)
    await room.trust(pki.authority())
    with pytest.raises(LimitExceeded):
        await room.trust(pki.authority("Second"))


async def test_withdrawing_an_authority_keeps_its_devices_out_and_registering_it_again_lets_them_in(
    room: ProvisioningRoom,
) -> None:
    root, other = pki.authority(), pki.authority("Other")
    authority = await room.trust(root)
    await room.trust(other)
    leaf, spared = pki.device(root, "vin-1"), pki.device(other, "vin-2")
    await let_in(room, leaf)
    await let_in(room, spared)
    room.registry.sessions.asked.clear()
    await room.fleet_operations.withdraw(room.caller(), {"authorityId": authority.id})
    assert room.registry.sessions.asked == [None]  # live sessions of the account are judged again
    assert await shown(room, leaf) == "certificate_authority_withdrawn"
    await let_in(room, spared)
    await room.trust(root)
    await let_in(room, leaf)


async def test_devices_may_stay_when_their_authority_goes(room: ProvisioningRoom) -> None:
    root = pki.authority()
    authority = await room.trust(root)
    leaf = pki.device(root, "vin-1")
    await let_in(room, leaf)
    await room.fleet_operations.withdraw(room.caller(), {"authorityId": authority.id, "keepDevices": True})
    await let_in(room, leaf)
    assert await shown(room, pki.device(root, "vin-2")) == "foreign_certificate_authority"


async def test_an_authority_that_is_withdrawn_at_the_same_moment_lets_nobody_in(room: ProvisioningRoom) -> None:
    root = pki.authority()
    authority = await room.trust(root)
    decide = room.contacts.decide

    def withdraw_in_between(tx: Tx, contact: Any) -> Any:
        verdict = decide(tx, contact)
        room.contacts.decide = decide  # type: ignore[method-assign]
        return verdict

    room.contacts.decide = withdraw_in_between  # type: ignore[method-assign]
    read = room.work.read

    async def read_then_withdraw(query: Any) -> Any:
        answer = await read(query)
        if room.contacts.decide is decide:
            room.introductions._work.read = read  # type: ignore[method-assign]
            await room.work.run(lambda tx: room.fleet.withdraw(tx, room.place, authority.id, keep_devices=True, by=OPERATOR))
        return answer

    room.introductions._work.read = read_then_withdraw  # type: ignore[method-assign]
    assert await shown(room, pki.device(root, "vin-1")) == "foreign_certificate_authority"
    assert await room.work.read(lambda tx: room.registry.devices.count(tx, room.place.account)) == 0


# Devices registered with their public certificate ---------------------------------------------------------------------------


async def test_an_operator_registers_a_device_by_its_certificate_and_needs_no_authority(room: ProvisioningRoom) -> None:
    leaf = pki.device(pki.authority(), "vin-1")
    assert await shown(room, leaf) == "foreign_certificate_authority"

    def register(tx: Tx, device: str | None = None) -> ThingName:
        return room.provisioning.register_device(
            tx, room.place, leaf.certificate, device=None if device is None else ThingName(device), source_ip="192.0.2.1"
        )

    with pytest.raises(InvalidRequest, match="common name is vin-1, not vin-2"):
        await room.work.run(lambda tx: register(tx, "vin-2"))
    assert await room.work.run(lambda tx: register(tx, "vin-1")) == "vin-1"
    await let_in(room, leaf)
    pem = await room.work.read(lambda tx: room.provisioning.public_certificate(tx, room.place.account, ThingName("vin-1")))
    assert pem == leaf.pem
    with pytest.raises(AlreadyExists):
        await room.work.run(register)


async def test_a_certificate_that_names_no_device_or_has_expired_is_not_registered(room: ProvisioningRoom) -> None:
    root = pki.authority()

    def register(tx: Tx, leaf: Held) -> Any:
        return room.provisioning.register_device(tx, room.place, leaf.certificate, device=None, source_ip="")

    with pytest.raises(InvalidRequest):
        await room.work.run(lambda tx: register(tx, pki.device(root, "a/b")))
    with pytest.raises(Conflict):
        await room.work.run(lambda tx: register(tx, pki.device(root, dies=datetime(2025, 6, 1, tzinfo=UTC))))


# Blocking -------------------------------------------------------------------------------------------------------------------


async def test_a_blocked_device_is_out_with_every_certificate_until_it_is_unblocked(room: ProvisioningRoom) -> None:
    root, key = pki.authority(), pki.new_key()
    await room.trust(root)
    first, second = pki.device(root, "vin-1", key=key), pki.device(root, "vin-1", key=key)
    await let_in(room, first)
    room.registry.sessions.asked.clear()
    told = await room.block_operations.block_device(room.caller(), {"thingName": "vin-1", "reason": "stolen"})
    assert (told["block"]["kind"], told["block"]["name"], told["block"]["reason"]) == ("thing", "vin-1", "stolen")
    assert room.registry.sessions.asked == [frozenset({fingerprint(first.certificate)})]
    assert await shown(room, first) == "device_blocked"
    assert await shown(room, second) == "device_blocked"  # not even registered
    listed = await room.block_operations.list_blocks(room.caller(), {})
    assert [each["name"] for each in listed["blocks"]] == ["vin-1"]
    assert await room.block_operations.unblock_device(room.caller(), {"thingName": "vin-1"}) == {"wasBlocked": True}
    await let_in(room, first)
    await let_in(room, second)
    assert await room.block_operations.unblock_device(room.caller(), {"thingName": "vin-1"}) == {"wasBlocked": False}


async def test_a_name_can_be_kept_out_before_it_ever_comes(room: ProvisioningRoom) -> None:
    root = pki.authority()
    await room.trust(root)
    await room.block_operations.block_device(room.caller(), {"thingName": "vin-1"})
    assert await shown(room, pki.device(root, "vin-1")) == "device_blocked"
    assert await room.work.read(lambda tx: room.registry.devices.count(tx, room.place.account)) == 0


async def test_one_certificate_can_be_blocked_while_the_devices_other_goes_on(room: ProvisioningRoom) -> None:
    root, key = pki.authority(), pki.new_key()
    await room.trust(root)
    first, second = pki.device(root, "vin-1", key=key), pki.device(root, "vin-1", key=key)
    await let_in(room, first)
    await let_in(room, second)
    request = {"certificateId": fingerprint(first.certificate)}
    await room.block_operations.block_certificate(room.caller(), request)
    assert await shown(room, first) == "device_blocked"
    await let_in(room, second)
    assert await room.block_operations.unblock_certificate(room.caller(), request) == {"wasBlocked": True}
    await let_in(room, first)


async def test_a_certificate_of_two_things_is_out_if_one_of_them_is_blocked(room: ProvisioningRoom) -> None:
    # Whoever could choose another client id would otherwise slip out from under the block.
    def attach(tx: Tx) -> Any:
        issued = room.registry.certificates.issue(tx, room.place, public_key=pki.new_key().public_key(), active=True)
        for name in ("vin-1", "vin-2"):
            room.registry.devices.create(tx, room.place, ThingName(name))
            room.registry.devices.attach(tx, room.place, ThingName(name), issued.arn)
        return issued

    issued = await room.work.run(attach)
    der = pki.x509.load_pem_x509_certificate(issued.pem.encode()).public_bytes(pki.serialization.Encoding.DER)
    await room.block_operations.block_device(room.caller(), {"thingName": "vin-1"})
    answer = await room.registry.authority.admit(der, ClientId("vin-2"), None, "192.0.2.9")
    assert isinstance(answer, Refusal)
    assert answer.code is RefusalCode.BLOCKED


async def test_a_retired_device_stays_out_under_its_name(room: ProvisioningRoom) -> None:
    root = pki.authority()
    await room.trust(root)
    leaf = pki.device(root, "vin-1")
    await let_in(room, leaf)
    await room.work.run(lambda tx: room.provisioning.retire(tx, room.place, ThingName("vin-1"), by=OPERATOR))
    assert await shown(room, leaf) == "device_blocked"


async def test_blocks_of_one_account_are_none_of_anothers(room: ProvisioningRoom) -> None:
    root = pki.authority()
    await room.trust(root)
    leaf = pki.device(root, "vin-1")
    await let_in(room, leaf)
    stranger = AccountId("999988887777")

    def block(tx: Tx) -> None:
        identity = CertificateId(fingerprint(leaf.certificate))
        room.provisioning.block(tx, stranger, ThingName("vin-1"), reason="", by="stranger")
        room.provisioning.block_certificate(tx, stranger, identity, reason="", by="stranger")

    await room.work.run(block)
    await let_in(room, leaf)
    with pytest.raises(InvalidRequest):
        await room.work.run(lambda tx: room.provisioning.block(tx, stranger, ThingName("vin-1"), reason="\n", by="stranger"))
