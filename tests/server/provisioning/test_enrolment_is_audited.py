"""A device that lets itself in leaves an audit row in the transaction that lets it in."""

from __future__ import annotations

from overair.basics.clock import SettableClock
from overair.basics.ids import SeededIds
from overair.server.audit.model import AuditKind
from overair.server.audit.service import AuditTrail
from overair.server.audit.store import SqlAuditStore
from overair.server.certificates.x509 import fingerprint
from overair.server.gateway.authority import DeviceIdentity, Refusal
from tests.support import pki
from tests.support.provisioning_room import ProvisioningRoom, post


async def test_a_key_that_comes_out_of_turn_leaves_one_row_however_often_it_comes(
    room: ProvisioningRoom, clock: SettableClock
) -> None:
    store = SqlAuditStore()
    room.contacts.watched_by(AuditTrail(store, clock=clock, ids=SeededIds(5)))
    root = pki.authority()
    await room.trust(root)
    authority = room.registry.authority
    assert isinstance(await authority.admit(pki.device(root, "vin-1").der, None, None, "192.0.2.7"), DeviceIdentity)
    stranger = pki.device(root, "vin-1")
    for _ in range(2):
        assert isinstance(await authority.admit(stranger.der, None, None, "192.0.2.66"), Refusal)
        clock.advance(milliseconds=120_000)
    (row,) = await room.work.read(lambda tx: store.in_chain_order(tx, room.place.account, after=None, limit=9))
    assert (row.kind, row.operation, row.source_ip) == (AuditKind.DENIAL, "AnotherKey", "192.0.2.66")
    assert row.resource == room.place.iot("thing", "vin-1")
    assert row.principal_arn == room.place.iot("cert", fingerprint(stranger.certificate))


async def test_a_device_that_is_minted_leaves_a_row_each_time(room: ProvisioningRoom, clock: SettableClock) -> None:
    store = SqlAuditStore()
    room.enrolment.watched_by(AuditTrail(store, clock=clock, ids=SeededIds(5)))
    credential = await room.credential()
    for _ in range(2):
        answer = await room.device_api.create_device(room.device_caller(credential), post(b'{"deviceId": "vin-1"}'))
        assert answer.status == 200
    rows = await room.work.read(lambda tx: store.in_chain_order(tx, room.place.account, after=None, limit=9))
    thing = room.place.iot("thing", "vin-1")
    assert [(row.kind, row.operation, row.resource) for row in rows] == [
        (AuditKind.ENROLMENT, "Enrol", f"{thing} from {credential.origin}")
    ] * 2
    assert {row.source_ip for row in rows} == {room.device_caller(credential).source_ip}
    assert len({row.principal_arn for row in rows}) == 2
    assert all(row.principal_arn.startswith(room.place.iot("cert", "")) for row in rows)
