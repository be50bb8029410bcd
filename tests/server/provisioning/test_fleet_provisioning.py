"""Certificates that wait, the tokens that provision them, and what becomes of those that nobody provisions."""

from __future__ import annotations

import json

import pytest

from overair.basics.clock import SettableClock
from overair.basics.errors import AccessDenied, InvalidRequest, NotFound
from overair.basics.ids import CertificateId, SeededIds, ThingName
from overair.server.audit.service import AuditTrail
from overair.server.audit.store import SqlAuditStore
from overair.server.certificates.model import CertificateStatus
from overair.server.provisioning.fleet_provisioning import Claimed, FleetProvisioning
from overair.server.provisioning.minting import new_key
from overair.server.provisioning.model import DeviceKeyType
from overair.server.provisioning.registration import Registrations
from overair.server.provisioning.template_model import CLAIM_LIFE_MS, OWNERSHIP_LIFE_MS, TemplateName, TemplateType
from overair.server.provisioning.templates import ProvisioningTemplates
from overair.server.provisioning.worker import UnprovisionedCertificates
from tests.support.provisioning_room import ProvisioningRoom

NAME = TemplateName("meters")
BODY = json.dumps(
    {
        "Parameters": {"S": {"Type": "String"}},
        "Resources": {
            "c": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}}},
            "t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "S"}}},
        },
    }
)


class Fleet:
    """Fleet provisioning over the room."""

    def __init__(self, room: ProvisioningRoom) -> None:
        self.room, registry = room, room.registry
        self.work, self.place = room.work, room.place
        self.templates = ProvisioningTemplates(store=room.store, tags=registry.tags, clock=room.clock, hooks=())
        self.registrations = Registrations(
            certificates=registry.certificates,
            devices=registry.devices,
            groups=registry.groups,
            policies=registry.policies,
            blocks=room.blocks,
            provisioned=room.store,
            clock=room.clock,
        )
        self.fleet = FleetProvisioning(
            store=room.store,
            templates=self.templates,
            registrations=self.registrations,
            certificates=registry.certificates,
            policies=registry.policies,
            reuses=room.reuses,
            clock=room.clock,
            ids=SeededIds(3),
            region=room.place.region,
        )
        self.worker = UnprovisionedCertificates(work=room.work, fleet=self.fleet)

    async def template(self, body: str = BODY) -> None:
        await self.work.run(
            lambda tx: self.templates.create(
                tx,
                self.place,
                NAME,
                body,
                type=TemplateType.FLEET_PROVISIONING,
                description="",
                enabled=True,
                role_arn="arn:aws:iam::123456789012:role/r",
                hook=None,
                tags={},
            )
        )

    async def certificate(self, claim: str = "claim") -> Claimed:
        key = new_key(DeviceKeyType.EC_P256).public_key()
        return await self.work.run(lambda tx: self.fleet.give_certificate(tx, self.place, claim, key))

    async def provision(self, claimed: Claimed, name: str, claim: str = "claim") -> None:
        await self.work.run(
            lambda tx: self.fleet.provision(
                tx, self.place, claim, claimed.token.reveal(), NAME, {"S": name}, allowed_by_hook=None, source_ip="192.0.2.7"
            )
        )

    async def status(self, certificate: CertificateId) -> CertificateStatus | None:
        found = await self.work.read(lambda tx: self.room.registry.certificates.find_anywhere(tx, certificate))
        return None if found is None else found.status


@pytest.fixture
async def fleet(room: ProvisioningRoom) -> Fleet:
    fleet = Fleet(room)
    await fleet.template()
    return fleet


async def test_a_certificate_that_nobody_provisions_is_gone_after_an_hour(fleet: Fleet, clock: SettableClock) -> None:
    kept, left = await fleet.certificate(), await fleet.certificate()
    await fleet.provision(kept, "dev-1")
    assert await fleet.status(left.certificate.id) is CertificateStatus.PENDING_ACTIVATION
    assert not await fleet.worker.run_once()
    clock.advance(milliseconds=OWNERSHIP_LIFE_MS + 1)
    with pytest.raises(InvalidRequest):
        await fleet.provision(left, "dev-2")
    assert await fleet.worker.run_once()
    assert await fleet.status(left.certificate.id) is None
    assert await fleet.status(kept.certificate.id) is CertificateStatus.ACTIVE
    assert not await fleet.worker.run_once()


async def test_the_records_tell_which_template_a_thing_came_by(fleet: Fleet, clock: SettableClock) -> None:
    store = SqlAuditStore()
    fleet.registrations.watched_by(AuditTrail(store, clock=clock, ids=SeededIds(5)))
    claimed = await fleet.certificate()
    await fleet.provision(claimed, "dev-1")
    device = await fleet.work.read(lambda tx: fleet.room.provisioning.origin_of(tx, fleet.place.account, ThingName("dev-1")))
    assert device is not None
    assert (device.origin, device.certificate_id) == ("template/meters", claimed.certificate.id)
    rows = await fleet.work.read(lambda tx: store.in_chain_order(tx, fleet.place.account, after=None, limit=9))
    assert [row.resource for row in rows] == [f"{fleet.place.iot('thing', 'dev-1')} from template/meters"]


async def test_a_refusal_changes_nothing_and_the_token_stays_good(fleet: Fleet) -> None:
    claimed = await fleet.certificate()
    await fleet.work.run(
        lambda tx: fleet.room.provisioning.block(tx, fleet.place.account, ThingName("dev-1"), reason="", by="ann")
    )
    with pytest.raises(AccessDenied):
        await fleet.provision(claimed, "dev-1")
    with pytest.raises(InvalidRequest):
        await fleet.provision(claimed, "dev-2", claim="another")
    assert await fleet.status(claimed.certificate.id) is CertificateStatus.PENDING_ACTIVATION
    assert not await fleet.work.read(lambda tx: fleet.room.enrolment.has_thing(tx, fleet.place.account, ThingName("dev-1")))
    await fleet.provision(claimed, "dev-2")


async def test_what_a_device_calls_its_certificate_counts_for_nothing(fleet: Fleet) -> None:
    mine, other = await fleet.certificate(), await fleet.certificate()
    await fleet.work.run(
        lambda tx: fleet.fleet.provision(
            tx,
            fleet.place,
            "claim",
            mine.token.reveal(),
            NAME,
            {"S": "dev-1", "AWS::IoT::Certificate::Id": other.certificate.id},
            allowed_by_hook=None,
            source_ip="",
        )
    )
    assert await fleet.room.certificates_of("dev-1") == [mine.certificate.id]


async def test_a_temporary_claim_ends_with_its_certificate_and_is_good_for_its_template_alone(
    fleet: Fleet, clock: SettableClock
) -> None:
    key = new_key(DeviceKeyType.EC_P256).public_key()
    issued, until = await fleet.work.run(lambda tx: fleet.fleet.create_claim(tx, fleet.place, NAME, key))
    assert until == clock.now() + CLAIM_LIFE_MS
    registered = await fleet.work.read(lambda tx: fleet.room.registry.certificates.find(tx, fleet.place, issued.id))
    assert registered.not_after == until
    claimed = await fleet.certificate(issued.id)
    with pytest.raises(AccessDenied, match="meters alone"):
        await fleet.work.read(
            lambda tx: fleet.fleet.candidate(tx, fleet.place, issued.id, claimed.token.reveal(), TemplateName("other"), {})
        )
    clock.advance(milliseconds=CLAIM_LIFE_MS + 1)
    assert await fleet.worker.run_once()
    assert await fleet.status(issued.id) is None


async def test_a_template_that_could_name_another_certificate_is_refused(fleet: Fleet) -> None:
    with pytest.raises(InvalidRequest, match="AWS::IoT::Certificate::Id"):
        await fleet.template(BODY.replace('{"Ref": "AWS::IoT::Certificate::Id"}', '{"Ref": "S"}'))
    with pytest.raises(NotFound):
        await fleet.work.read(lambda tx: fleet.templates.find(tx, fleet.place.account, TemplateName("other")))
