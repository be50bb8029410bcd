"""Revocation lists, handed in: what they do to devices that are in, and to those that nobody has seen."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock, from_datetime
from overair.basics.errors import Conflict, InvalidRequest, NotFound
from overair.basics.ids import AccountId, CertificateId
from overair.server.certificates.model import CertificateStatus
from overair.server.certificates.x509 import fingerprint
from overair.server.provisioning.model import FirstContact
from overair.server.provisioning.revocation_lists import read_revocation_list
from overair.server.rest.operations import DeviceRefusal
from tests.support import pki
from tests.support.pki import Held
from tests.support.provisioning_room import ProvisioningRoom

SOON = datetime(2026, 2, 1, tzinfo=UTC)


async def put(room: ProvisioningRoom, authority: str, pem: str, **more: Any) -> Any:
    request = {"authorityId": authority, "revocationListPem": pem, **more}
    return await room.fleet_operations.put_revocation_list(room.caller(), request)


async def shown(room: ProvisioningRoom, leaf: Held) -> str:
    """Under which name the device door takes a certificate, or its refusal's code."""
    answer = await room.authenticator.admit((leaf.der, *leaf.chain_der), "192.0.2.9", "r")
    return answer.code if isinstance(answer, DeviceRefusal) else answer.thing


async def status(room: ProvisioningRoom, leaf: Held) -> CertificateStatus:
    identity = fingerprint(leaf.certificate)
    found = await room.work.read(lambda tx: room.registry.certificates.find(tx, room.place, identity))
    return found.status


async def test_a_device_that_is_in_is_revoked_by_its_issuers_list_and_its_neighbour_stays(room: ProvisioningRoom) -> None:
    root = pki.authority()
    authority = await room.trust(root)
    listed, other = pki.device(root, "vin-1"), pki.device(root, "vin-2")
    assert [await shown(room, each) for each in (listed, other)] == ["vin-1", "vin-2"]
    told = await put(room, authority.id, pki.revocation_list(root, listed, number=0x1F))
    assert told["revokedCertificateIds"] == [fingerprint(listed.certificate)]
    assert (told["revocationList"]["number"], told["revocationList"]["entries"]) == ("1f", 1)
    assert (await status(room, listed), await status(room, other)) == (CertificateStatus.REVOKED, CertificateStatus.ACTIVE)
    assert [await shown(room, each) for each in (listed, other)] == ["certificate_revoked", "vin-2"]


async def test_a_listed_device_that_nobody_has_seen_doesnt_come_in_nor_one_below_a_listed_authority(
    room: ProvisioningRoom,
) -> None:
    root = pki.authority()
    authority = await room.trust(root)
    issuing = pki.authority("Issuing", root)
    listed, below = pki.device(root, "vin-1"), pki.device(issuing, "vin-2")
    assert (await put(room, authority.id, pki.revocation_list(root, listed, issuing)))["revokedCertificateIds"] == []
    assert await shown(room, listed) == "certificate_revoked"
    assert await shown(room, below) == "certificate_authority_withdrawn"
    assert await shown(room, pki.device(root, "vin-3")) == "vin-3"


async def test_a_path_that_was_remembered_before_the_list_came_lets_nobody_in(room: ProvisioningRoom) -> None:
    root = pki.authority()
    authority = await room.trust(root, first_contact=FirstContact.DENY)
    leaf = pki.device(root, "vin-1")
    assert await shown(room, leaf) == "device_not_registered"
    await put(room, authority.id, pki.revocation_list(root, leaf))
    assert await shown(room, leaf) == "certificate_revoked"
    # Nor does an operator let it in by approving what was noted before.
    identity = fingerprint(leaf.certificate)
    with pytest.raises(Conflict, match="revocation list 1"):
        await room.work.run(lambda tx: room.contacts.approve(tx, room.place, identity, deactivate_others=False))


async def test_an_authority_below_hands_its_list_in_with_its_own_certificate(room: ProvisioningRoom) -> None:
    root, lowest = pki.deep(3)
    authority = await room.trust(root)
    leaf = pki.device(lowest, "vin-1")
    assert await shown(room, leaf) == "vin-1"
    pem = pki.revocation_list(lowest, leaf)
    with pytest.raises(InvalidRequest, match="no certificate is here"):
        await put(room, authority.id, pem)
    chain = "".join(each.pem for each in leaf.intermediates)
    stranger = pki.authority("Stranger")
    with pytest.raises(InvalidRequest, match="no authority below"):
        await put(room, authority.id, pki.revocation_list(stranger, leaf) + stranger.pem)
    with pytest.raises(InvalidRequest, match="no authority below"):
        await put(room, authority.id, pki.revocation_list(leaf) + leaf.pem + chain)
    assert await status(room, leaf) is CertificateStatus.ACTIVE
    await put(room, authority.id, pem + chain)
    assert await status(room, leaf) is CertificateStatus.REVOKED


async def test_only_a_newer_list_takes_the_place_of_one_and_a_revocation_stays(room: ProvisioningRoom) -> None:
    root = pki.authority()
    authority = await room.trust(root)
    first, second = pki.device(root, "vin-1"), pki.device(root, "vin-2")
    assert [await shown(room, each) for each in (first, second)] == ["vin-1", "vin-2"]
    five = pki.revocation_list(root, first, number=5)
    await put(room, authority.id, five)
    for number in (4, 5):
        with pytest.raises(Conflict, match="number 5 of this issuer is kept"):
            await put(room, authority.id, pki.revocation_list(root, second, number=number))
    assert await status(room, second) is CertificateStatus.ACTIVE
    assert (await put(room, authority.id, five))["revokedCertificateIds"] == []  # the same again
    await put(room, authority.id, pki.revocation_list(root, second, number=6))
    assert [await status(room, each) for each in (first, second)] == [CertificateStatus.REVOKED] * 2
    lists = await room.fleet_operations.list_revocation_lists(room.caller(), {"authorityId": authority.id})
    assert [(each["number"], each["entries"], each["isStale"]) for each in lists["revocationLists"]] == [("6", 1, False)]


async def test_once_the_next_list_is_overdue_new_devices_stay_out_only_where_that_was_asked_for(
    room: ProvisioningRoom, clock: SettableClock
) -> None:
    lenient, strict = pki.authority("Lenient"), pki.authority("Strict")
    known = pki.device(strict, "vin-0")
    for root, refuse in ((lenient, False), (strict, True)):
        authority = await room.trust(root)
        await put(room, authority.id, pki.revocation_list(root, next_update=SOON), refuseWhenStale=refuse)
    assert await shown(room, known) == "vin-0"
    clock.set(from_datetime(datetime(2026, 2, 2, tzinfo=UTC)))
    assert await shown(room, pki.device(lenient, "vin-1")) == "vin-1"
    assert await shown(room, pki.device(strict, "vin-2")) == "temporarily_unavailable"
    assert await shown(room, known) == "vin-0"


async def test_the_same_serial_number_of_another_issuer_is_another_certificate(room: ProvisioningRoom) -> None:
    root, twin = pki.authority(), pki.authority()  # of one name
    authority = await room.trust(root)
    await room.trust(twin)
    mine, its = pki.device(root, "vin-1", serial=7), pki.device(twin, "vin-2", serial=7)
    assert [await shown(room, each) for each in (mine, its)] == ["vin-1", "vin-2"]
    await put(room, authority.id, pki.revocation_list(root, mine))
    assert (await status(room, mine), await status(room, its)) == (CertificateStatus.REVOKED, CertificateStatus.ACTIVE)


async def test_what_was_registered_while_a_list_was_compared_is_compared_too(room: ProvisioningRoom) -> None:
    root = pki.authority()
    authority = await room.trust(root)
    leaf = pki.device(root, "vin-1")
    now = room.clock.now()
    listed = read_revocation_list(pki.revocation_list(root, leaf).encode(), [root.certificate], now=now)
    named: list[CertificateId] = await room.work.read(
        lambda tx: room.revocations.named(tx, room.place.account, listed, since=None)
    )
    assert named == []
    assert await shown(room, leaf) == "vin-1"
    taken = await room.work.run(
        lambda tx: room.revocations.put(
            tx, room.place, authority, listed, named=named, searched_at=now, refuse_when_stale=False, by="ann"
        )
    )
    assert taken.revoked == (fingerprint(leaf.certificate),)


async def test_a_list_for_an_authority_that_isnt_trusted_is_refused(room: ProvisioningRoom) -> None:
    with pytest.raises(NotFound):
        await put(room, "0" * 64, pki.revocation_list(pki.authority()))
    authority = await room.trust(root := pki.authority())
    with pytest.raises(InvalidRequest, match="PRIVATE KEY"):
        await put(room, authority.id, pki.revocation_list(root) + root.key_pem)


async def test_a_listed_certificate_that_is_on_its_way_into_another_account_is_revoked_and_goes_nowhere(
    room: ProvisioningRoom,
) -> None:
    elsewhere = Place(room.place.region, AccountId("999999999999"))
    room.registry.known_accounts = {room.place.account, elsewhere.account}
    transfers, certificates = room.registry.transfers, room.registry.certificates
    root = pki.authority()
    authority = await room.trust(root)
    listed = pki.device(root, "vin-1")
    identity = fingerprint(listed.certificate)
    await room.work.run(
        lambda tx: certificates.register(
            tx, room.place, listed.certificate, origin=authority.origin, status=CertificateStatus.INACTIVE
        )
    )
    await room.work.run(lambda tx: transfers.start(tx, room.place, identity, elsewhere.account, message=None))
    told = await put(room, authority.id, pki.revocation_list(root, listed))
    assert told["revokedCertificateIds"] == [identity]
    assert await status(room, listed) is CertificateStatus.REVOKED
    with pytest.raises(NotFound):
        await room.work.run(lambda tx: transfers.accept(tx, elsewhere, identity, active=True))
