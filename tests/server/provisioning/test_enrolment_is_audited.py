"""A device that lets itself in leaves an audit row in the transaction that lets it in."""

from __future__ import annotations

from overair.basics.clock import SettableClock
from overair.basics.ids import SeededIds
from overair.server.audit.model import AuditKind
from overair.server.audit.service import AuditTrail
from overair.server.audit.store import SqlAuditStore
from tests.support.provisioning_room import ProvisioningRoom, post


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
    assert len({row.principal_arn for row in rows}) == 2
    assert all(row.principal_arn.startswith(room.place.iot("cert", "")) for row in rows)
