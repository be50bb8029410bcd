"""Provisioning over a test's registry, composed as the server composes it."""

from __future__ import annotations

from dataclasses import dataclass, field

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.ids import AccountId, CertificateId, SeededIds, ThingName
from overair.basics.work import Work
from overair.server.aws_protocol.operations import Caller
from overair.server.devices.blocks import BlocksService
from overair.server.devices.store import SqlBlockStore, SqlThingStore
from overair.server.provisioning.authenticator import ProvisioningAuthenticator
from overair.server.provisioning.certificate_paths import read_authorities
from overair.server.provisioning.device_api import ProvisioningDeviceApi
from overair.server.provisioning.est_api import EstDeviceApi
from overair.server.provisioning.fleet_operator_api import AnomalyOperations, FleetOperations
from overair.server.provisioning.minting import DeviceKey, MintedDevice, new_key
from overair.server.provisioning.model import CredentialPlan, DeviceKeyType, FleetAuthority, FleetRule, SharedCredential
from overair.server.provisioning.operator_api import BlockOperations, CredentialOperations, LevelOperations
from overair.server.provisioning.reuse import ReusedIds, Reuses
from overair.server.provisioning.service import (
    Credentials,
    Enrolment,
    FirstContacts,
    FleetAuthorities,
    Introductions,
    Levels,
    Minting,
    ProvisioningService,
    Reenrolment,
    Renewals,
    Revocations,
)
from overair.server.provisioning.store import SqlProvisioningStore
from overair.server.rest.operations import DeviceCaller, RestRequest
from tests.support.pki import Held
from tests.support.registry import Registry

OPERATOR = "arn:aws:iam::123456789012:user/ann"


@dataclass
class Scrubbed:
    """Counts how often the records were scrubbed."""

    times: int = 0
    work: Work | None = field(default=None)

    async def __call__(self) -> None:
        self.times += 1


class ProvisioningRoom:
    """Every service and door of the room."""

    def __init__(self, registry: Registry, clock: Clock, place: Place) -> None:
        self.registry = registry
        self.clock = clock
        self.place = place
        self.work = registry.work
        self.store = SqlProvisioningStore()
        ids = SeededIds(11)
        server_account = AccountId("000000000001")
        self.blocks = BlocksService(
            store=SqlBlockStore(), things=SqlThingStore(), access_changed=registry.authority, clock=clock
        )
        self.enrolment = Enrolment(
            certificates=registry.certificates,
            devices=registry.devices,
            groups=registry.groups,
            policies=registry.policies,
        )
        self.levels = Levels(store=self.store, authorities=registry.authorities, clock=clock)
        self.credentials = Credentials(
            store=self.store,
            provisioned=self.store,
            authorities=registry.authorities,
            levels=self.levels,
            enrolment=self.enrolment,
            blocks=self.blocks,
            server_account=server_account,
            clock=clock,
            ids=ids,
        )
        self.minting = Minting(
            store=self.store,
            certificates=registry.certificates,
            authorities=registry.authorities,
            levels=self.levels,
            enrolment=self.enrolment,
            blocks=self.blocks,
            server_account=server_account,
            clock=clock,
            ids=ids,
        )
        self.fleet = FleetAuthorities(
            store=self.store,
            provisioned=self.store,
            enrolment=self.enrolment,
            types=registry.types,
            blocks=self.blocks,
            clock=clock,
        )
        self.revocations = Revocations(store=self.store, certificates=registry.certificates, clock=clock)
        self.renewals = Renewals(
            store=self.store,
            certificates=registry.certificates,
            enrolment=self.enrolment,
            clock=clock,
            region=place.region,
        )
        self.contacts = FirstContacts(
            store=self.store,
            fleet=self.fleet,
            enrolment=self.enrolment,
            blocks=self.blocks,
            revocations=self.revocations,
            renewals=self.renewals,
            clock=clock,
            region=place.region,
        )
        self.reenrolment = Reenrolment(
            store=self.store,
            levels=self.levels,
            minting=self.minting,
            renewals=self.renewals,
            contacts=self.contacts,
            authorities=registry.authorities,
            certificates=registry.certificates,
            server_account=server_account,
            clock=clock,
            ids=ids,
        )
        registry.authority.first_use_noted_by(registry.certificates)
        self.reuses = self.reuses_with("queue")
        self.introductions = Introductions(
            work=self.work, store=self.store, fleet=self.fleet, contacts=self.contacts, clock=clock
        )
        registry.authority.introduced_by(self.introductions)
        self.provisioning = ProvisioningService(
            store=self.store, enrolment=self.enrolment, levels=self.levels, blocks=self.blocks, clock=clock
        )
        self.authenticator = ProvisioningAuthenticator(
            work=self.work,
            authority=registry.authority,
            credentials=self.credentials,
            clock=clock,
            region=place.region,
        )
        self.scrubbed = Scrubbed()
        self.credential_operations = CredentialOperations(
            work=self.work,
            credentials=self.credentials,
            provisioning=self.provisioning,
            device_url=lambda: "https://gateway.example:8443",
        )
        self.level_operations = LevelOperations(work=self.work, levels=self.levels, scrub=self.scrubbed)
        self.block_operations = BlockOperations(work=self.work, provisioning=self.provisioning)
        self.fleet_operations = FleetOperations(work=self.work, fleet=self.fleet, revocations=self.revocations, clock=clock)
        self.anomaly_operations = AnomalyOperations(work=self.work, contacts=self.contacts, reuses=self.reuses)
        self.device_api = ProvisioningDeviceApi(work=self.work, credentials=self.credentials, minting=self.minting, clock=clock)
        self.est_api = EstDeviceApi(work=self.work, reenrolment=self.reenrolment, clock=clock)

    def reuses_with(self, setting: ReusedIds) -> Reuses:
        """The rule for ids that are taken, under one setting or the other."""
        return Reuses(
            anomalies=self.store,
            approvals=self.store,
            contacts=self.contacts,
            enrolment=self.enrolment,
            clock=self.clock,
            setting=setting,
        )

    def caller(self) -> Caller:
        return Caller(
            place=self.place,
            principal_arn=OPERATOR,
            user_id="AIDA",
            access_key_id="AKIA",
            now=self.clock.now(),
        )

    def device_caller(self, credential: SharedCredential) -> DeviceCaller:
        """Whoever shows this credential at the device door."""
        return DeviceCaller(
            place=self.place,
            thing=ThingName(""),
            certificate_id=credential.certificate_id,
            source_ip="192.0.2.7",
            now=self.clock.now(),
            request_id="r",
            credential_id=credential.id,
        )

    async def credential(self, **plan: object) -> SharedCredential:
        """A new shared credential."""
        key = new_key(DeviceKeyType.EC_P256).public_key()
        wanted = CredentialPlan(**plan)  # type: ignore[arg-type]
        issued = await self.work.run(lambda tx: self.credentials.create(tx, self.place, wanted, key, by=OPERATOR))
        return issued.credential

    async def mint(
        self, credential: SharedCredential, device: str, *, key: DeviceKey | None = None, ttl_days: int | None = None
    ) -> MintedDevice:
        """Have a device made."""
        public_key = (key or new_key(DeviceKeyType.EC_P256)).public_key()
        return await self.work.run(
            lambda tx: self.minting.mint(
                tx,
                self.place,
                credential.id,
                ThingName(device),
                public_key,
                ttl_days=ttl_days,
                source_ip="192.0.2.7",
            )
        )

    async def trust(self, root: Held, **rule: object) -> FleetAuthority:
        """Register a fleet authority."""
        (authority,) = await self.work.run(
            lambda tx: self.fleet.register(
                tx,
                self.place,
                read_authorities(root.pem.encode(), count_max=1, now=self.clock.now()),
                FleetRule(**rule),  # type: ignore[arg-type]
                name="",
                by=OPERATOR,
            )
        )
        return authority

    async def certificates_of(self, device: str) -> list[CertificateId]:
        """What is attached to a thing."""
        found = await self.work.read(lambda tx: self.enrolment.certificates_of(tx, self.place.account, ThingName(device)))
        return [each.id for each in found]


def post(body: bytes, path: str = "/devices") -> RestRequest:
    """A request as the device door hands it on."""
    return RestRequest(method="POST", path=path, labels={}, query={}, headers={}, body=body)
