"""Newcomers of CA certificates: who is registered, who is provisioned, and who leaves nothing behind."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from overair.basics.errors import Conflict
from overair.basics.ids import CertificateId, SeededIds, ThingName
from overair.server.certificates.model import CertificateStatus
from overair.server.certificates.x509 import fingerprint
from overair.server.devices.model import ThingPrincipalType
from overair.server.gateway.authority import Refusal, RefusalCode
from overair.server.provisioning.ca_certificates import CaCertificates, RegistrationConfig
from overair.server.provisioning.certificate_paths import authority_id
from overair.server.provisioning.first_contact import Introductions
from overair.server.provisioning.just_in_time import JustInTimeRegistration
from overair.server.provisioning.registration import Registrations
from overair.server.provisioning.revocation_lists import read_revocation_list
from overair.server.provisioning.template_language import SUBJECT_PARAMETERS
from overair.server.provisioning.templates import ProvisioningTemplates
from tests.support import pki
from tests.support.pki import Held
from tests.support.provisioning_room import OPERATOR, ProvisioningRoom

PAST = datetime(2025, 6, 1, tzinfo=UTC)
BY_ORGANISATION = json.dumps(
    {
        "Resources": {
            "c": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}}},
            "t": {
                "Type": "AWS::IoT::Thing",
                "Properties": {"ThingName": {"Fn::Sub": "${AWS::IoT::Certificate::Organization}-x"}},
            },
        }
    }
)


class Gate:
    """A CA certificate that takes newcomers, over the room."""

    def __init__(self, room: ProvisioningRoom) -> None:
        self.room, registry = room, room.registry
        templates = ProvisioningTemplates(store=room.store, tags=registry.tags, clock=room.clock, hooks=())
        registrations = Registrations(
            certificates=registry.certificates,
            devices=registry.devices,
            groups=registry.groups,
            policies=registry.policies,
            blocks=room.blocks,
            provisioned=room.store,
            clock=room.clock,
        )
        self.authorities = CaCertificates(
            store=room.store,
            fleet=room.fleet,
            certificates=registry.certificates,
            templates=templates,
            revocations=room.revocations,
            tags=registry.tags,
            clock=room.clock,
            ids=SeededIds(5),
        )
        newcomers = JustInTimeRegistration(
            work=room.work,
            store=room.store,
            certificates=registry.certificates,
            enrolment=room.enrolment,
            registrations=registrations,
            templates=templates,
            revocations=room.revocations,
            reuses=room.reuses,
            clock=room.clock,
            region=room.place.region,
        )
        self.introductions = Introductions(
            work=room.work, store=room.store, fleet=room.fleet, contacts=room.contacts, clock=room.clock, newcomers=newcomers
        )

    async def trust(self, root: Held, *, body: str | None = None) -> None:
        config = None if body is None else RegistrationConfig(template_name=None, template_body=body, role_arn=None)
        await self.room.work.run(
            lambda tx: self.authorities.register(
                tx,
                self.room.place,
                root.certificate,
                None,
                active=True,
                registers_newcomers=True,
                config=config,
                tags={},
                by=OPERATOR,
            )
        )

    async def revoke(self, root: Held, *listed: Held, number: int = 1) -> None:
        now = self.room.clock.now()
        read = read_revocation_list(pki.revocation_list(root, *listed, number=number).encode(), [root.certificate], now=now)
        authority = await self.room.work.read(
            lambda tx: self.room.fleet.find(tx, self.room.place.account, authority_id(root.certificate))
        )
        await self.room.work.run(
            lambda tx: self.room.revocations.put(
                tx, self.room.place, authority, read, named=(), searched_at=now, refuse_when_stale=False, by=OPERATOR
            )
        )

    async def shown(self, leaf: Held) -> RefusalCode | None:
        answer = await self.introductions.introduce(leaf.der, leaf.chain_der, "192.0.2.9")
        return answer.code if isinstance(answer, Refusal) else None

    async def status(self, leaf: Held) -> CertificateStatus | None:
        identity = CertificateId(fingerprint(leaf.certificate))
        found = await self.room.work.read(lambda tx: self.room.registry.certificates.find_anywhere(tx, identity))
        return None if found is None else found.status


@pytest.fixture
def gate(room: ProvisioningRoom) -> Gate:
    return Gate(room)


@pytest.mark.parametrize("case", ["expired", "server", "authority", "intermediate", "foreign"])
async def test_a_certificate_that_is_not_fit_is_refused_and_not_registered(gate: Gate, case: str) -> None:
    root = pki.authority()
    await gate.trust(root)
    leaf, code = {
        "expired": (pki.device(root, dies=PAST), RefusalCode.EXPIRED),
        "server": (pki.device(root, purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)), RefusalCode.WRONG_PURPOSE),
        "authority": (pki.authority("Below", root), RefusalCode.WRONG_PURPOSE),
        "intermediate": (pki.device(pki.authority("Below", root)), RefusalCode.FOREIGN_AUTHORITY),
        "foreign": (pki.device(pki.authority()), RefusalCode.FOREIGN_AUTHORITY),
    }[case]
    assert await gate.shown(leaf) is code
    assert await gate.status(leaf) is None


async def test_a_key_that_was_taken_away_stays_out_in_another_certificate(gate: Gate) -> None:
    root = pki.authority()
    await gate.trust(root)
    first = pki.device(root, purposes=())
    assert await gate.shown(first) is RefusalCode.AWAITS_APPROVAL
    assert await gate.status(first) is CertificateStatus.PENDING_ACTIVATION
    identity = CertificateId(fingerprint(first.certificate))
    certificates, place = gate.room.registry.certificates, gate.room.place
    await gate.room.work.run(lambda tx: certificates.set_status(tx, place, identity, CertificateStatus.REVOKED))
    again = pki.device(root, key=first.key)
    assert await gate.shown(again) is RefusalCode.INACTIVE
    assert await gate.status(again) is None


async def test_a_newcomer_whose_subject_lacks_what_the_template_needs_leaves_nothing(gate: Gate) -> None:
    root = pki.authority()
    await gate.trust(root, body=BY_ORGANISATION)
    nobody = pki.device(root)
    assert await gate.shown(nobody) is RefusalCode.UNAVAILABLE
    assert await gate.status(nobody) is None
    member = pki.device(root, pki.names("vin-1", organisation="acme"))
    assert await gate.shown(member) is None
    assert await gate.status(member) is CertificateStatus.ACTIVE
    origin = await gate.room.work.read(
        lambda tx: gate.room.provisioning.origin_of(tx, gate.room.place.account, ThingName("acme-x"))
    )
    assert origin is not None
    assert origin.origin.startswith("fleet-authority/")
    assert "AWS::IoT::Certificate::Organization" in SUBJECT_PARAMETERS


async def test_what_a_cas_revocation_list_names_is_neither_registered_just_in_time_nor_by_an_operator(gate: Gate) -> None:
    root = pki.authority()
    await gate.trust(root)
    listed, other = pki.device(root, "vin-1"), pki.device(root, "vin-2")
    await gate.revoke(root, listed)
    assert await gate.shown(listed) is RefusalCode.REVOKED
    assert await gate.status(listed) is None
    assert await gate.shown(other) is RefusalCode.AWAITS_APPROVAL

    async def register(status: CertificateStatus) -> None:
        await gate.room.work.run(
            lambda tx: gate.authorities.register_certificate(tx, gate.room.place, listed.certificate, None, status=status)
        )

    with pytest.raises(Conflict, match="names it"):
        await register(CertificateStatus.ACTIVE)
    await register(CertificateStatus.REVOKED)
    assert await gate.status(listed) is CertificateStatus.REVOKED


async def test_a_template_may_ask_for_the_thing_exclusively(gate: Gate) -> None:
    root = pki.authority()
    body = json.loads(BY_ORGANISATION)
    body["Resources"]["t"]["Properties"]["ThingPrincipalType"] = "EXCLUSIVE_THING"
    await gate.trust(root, body=json.dumps(body))
    assert await gate.shown(pki.device(root, pki.names("vin-1", organisation="acme"))) is None
    [principal] = await gate.room.work.read(
        lambda tx: gate.room.registry.devices.principals(tx, gate.room.place.account, ThingName("acme-x"), limit=9)
    )
    assert principal.type is ThingPrincipalType.EXCLUSIVE_THING
