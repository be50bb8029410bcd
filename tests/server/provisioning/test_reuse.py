"""A device id that is taken: whichever way somebody else comes for it, he is refused and noted, and an operator decides."""

from __future__ import annotations

from typing import Any

import pytest

from overair.basics.clock import SettableClock
from overair.basics.errors import AlreadyExists, Conflict, NotFound
from overair.basics.ids import CertificateId, SeededIds, ThingName
from overair.server.audit.service import AuditTrail
from overair.server.audit.store import SqlAuditStore
from overair.server.certificates.model import CertificateStatus
from overair.server.certificates.x509 import fingerprint
from overair.server.gateway.authority import RefusalCode
from overair.server.provisioning.fleet_provisioning import Claimed
from overair.server.provisioning.model import AnomalyKind
from overair.server.provisioning.registration import TAKEN
from overair.server.provisioning.reuse import APPROVAL_LASTS_MS
from overair.server.provisioning.template_model import OWNERSHIP_LIFE_MS
from overair.server.rest.operations import DeviceRefusal
from tests.server.provisioning.test_fleet_provisioning import Fleet
from tests.server.provisioning.test_just_in_time import Gate
from tests.support import pki
from tests.support.provisioning_room import ProvisioningRoom

BY_NAME = """{"Resources": {
    "c": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}}},
    "t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"}}}}}"""


async def noted(room: ProvisioningRoom) -> list[tuple[str, str, str]]:
    """(thing, kind, certificate) of every anomaly."""
    page: Any = await room.anomaly_operations.list_anomalies(room.caller(), {})
    return [(each["thingName"], each["kind"], each["certificateId"]) for each in page["anomalies"]]


async def approve(room: ProvisioningRoom, certificate: str, **more: Any) -> None:
    await room.anomaly_operations.approve(room.caller(), {"certificateId": certificate, **more})


async def asked(fleet: Fleet, claimed: Claimed, name: str) -> None:
    """Provision as the topics do where the name is taken: that is noted in a unit of its own."""
    with pytest.raises(Conflict) as caught:
        await fleet.provision(claimed, name)
    refused, token = caught.value, claimed.token.reveal()
    assert refused.subject == TAKEN
    await fleet.work.run(lambda tx: fleet.fleet.note_taken(tx, fleet.place, "claim", token, refused, source_ip="192.0.2.7"))


async def test_by_a_claim_it_waits_for_an_operator_and_comes_in_with_that_certificate_alone(
    room: ProvisioningRoom, clock: SettableClock
) -> None:
    fleet = Fleet(room)
    await fleet.template()
    first, second = await fleet.certificate(), await fleet.certificate()
    await fleet.provision(first, "dev-1")
    for _ in range(2):
        await asked(fleet, second, "dev-1")
    assert await noted(room) == [("dev-1", AnomalyKind.REUSED_ID.value, second.certificate.id)]
    assert await fleet.status(second.certificate.id) is CertificateStatus.PENDING_ACTIVATION
    clock.advance(milliseconds=OWNERSHIP_LIFE_MS + 1)  # its token waits with it
    await fleet.worker.run_once()
    await approve(room, second.certificate.id, deactivateOthers=True)
    assert await noted(room) == []
    assert await fleet.status(first.certificate.id) is CertificateStatus.INACTIVE
    third = await fleet.certificate()  # another one has no part in the approval
    await asked(fleet, third, "dev-1")
    await fleet.provision(second, "dev-1")
    assert await fleet.status(second.certificate.id) is CertificateStatus.ACTIVE
    assert not await room.work.read(lambda tx: room.reuses.is_approved(tx, room.place.account, second.certificate.id))


async def test_just_in_time_it_waits_for_an_operator_too(room: ProvisioningRoom) -> None:
    gate, root, audit = Gate(room), pki.authority(), SqlAuditStore()
    room.contacts.watched_by(AuditTrail(audit, clock=room.clock, ids=SeededIds(5)))
    await gate.trust(root, body=BY_NAME)
    first, second = (pki.device(root, "vin-1") for _ in range(2))
    assert await gate.shown(first) is None
    for _ in range(2):
        assert await gate.shown(second) is RefusalCode.KEY_MISMATCH
    assert await gate.status(second) is None
    identity = str(fingerprint(second.certificate))
    assert await noted(room) == [("vin-1", AnomalyKind.REUSED_ID.value, identity)]
    rows = await room.work.read(lambda tx: audit.in_chain_order(tx, room.place.account, after=None, limit=9))
    assert [(row.operation, row.source_ip) for row in rows] == [("AnotherKey", "192.0.2.9")]  # once, as an alarm
    await approve(room, identity)
    assert await gate.shown(second) is None
    assert await room.certificates_of("vin-1") == sorted(
        [CertificateId(fingerprint(first.certificate)), CertificateId(identity)]
    )


async def test_an_approval_that_nobody_uses_ends(room: ProvisioningRoom, clock: SettableClock) -> None:
    gate, root = Gate(room), pki.authority(dies=pki.DIES)
    await gate.trust(root, body=BY_NAME)
    first, second = (pki.device(root, "vin-1") for _ in range(2))
    await gate.shown(first)
    await gate.shown(second)
    await approve(room, str(fingerprint(second.certificate)))
    clock.advance(milliseconds=APPROVAL_LASTS_MS + 1)
    assert await gate.shown(second) is RefusalCode.KEY_MISMATCH


async def test_by_first_contact_it_is_the_same_rule(room: ProvisioningRoom) -> None:
    root = pki.authority()
    await room.trust(root)
    for leaf, expected in ((pki.device(root, "vin-1"), None), (pki.device(root, "vin-1"), "device_key_mismatch")):
        answer = await room.authenticator.admit((leaf.der, *leaf.chain_der), "192.0.2.9", "r")
        assert (answer.code if isinstance(answer, DeviceRefusal) else None) == expected
    [(_, kind, identity)] = await noted(room)
    assert kind == AnomalyKind.KEY_MISMATCH.value
    await approve(room, identity)
    assert len(await room.certificates_of("vin-1")) == 2


async def test_by_a_shared_credential_it_is_refused(room: ProvisioningRoom) -> None:
    credential = await room.credential()
    await room.mint(credential, "vin-1")
    await room.work.run(lambda tx: room.provisioning.completed(tx, room.place.account, ThingName("vin-1")))
    with pytest.raises(AlreadyExists):
        await room.mint(credential, "vin-1")
    assert await noted(room) == []


async def test_where_the_setting_is_refuse_nobody_may_approve_it(room: ProvisioningRoom) -> None:
    gate, root = Gate(room), pki.authority()
    await gate.trust(root, body=BY_NAME)
    first, second = (pki.device(root, "vin-1") for _ in range(2))
    await gate.shown(first)
    await gate.shown(second)
    [(_, _, identity)] = await noted(room)
    strict = room.reuses_with("refuse")
    with pytest.raises(Conflict, match="reused_ids is refuse"):
        await room.work.run(lambda tx: strict.approve(tx, room.place, CertificateId(identity), deactivate_others=False))
    assert await gate.shown(second) is RefusalCode.KEY_MISMATCH
    with pytest.raises(NotFound):
        await approve(room, "0" * 64)
