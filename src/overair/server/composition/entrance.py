"""How devices come in, and are kept out."""

from __future__ import annotations

from overair.server.composition.buckets import BucketRooms
from overair.server.composition.ground import Ground
from overair.server.composition.operators import OperatorRooms
from overair.server.composition.registry import RegistryRooms
from overair.server.provisioning.ca_certificates import CaCertificates
from overair.server.provisioning.came_in import ProvisionedDevices
from overair.server.provisioning.fleet_provisioning import FleetProvisioning
from overair.server.provisioning.hooks import FILE_NAME, Hooks, read_hooks
from overair.server.provisioning.importing import CertificateImports
from overair.server.provisioning.just_in_time import JustInTimeRegistration
from overair.server.provisioning.registration import Registrations
from overair.server.provisioning.registration_tasks import RegistrationTasks
from overair.server.provisioning.reuse import Reuses
from overair.server.provisioning.server_authority import ServerAuthorityRotation
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
from overair.server.provisioning.templates import ProvisioningTemplates


class EntranceRooms:
    """The room ``provisioning``."""

    def __init__(self, ground: Ground, *, operators: OperatorRooms, buckets: BucketRooms, registry: RegistryRooms) -> None:
        clock, ids, account = ground.clock, ground.ids, ground.place.account
        store, blocks = SqlProvisioningStore(), registry.blocks
        self.store = store
        enrolment = Enrolment(
            certificates=registry.certificates, devices=registry.devices, groups=registry.groups, policies=registry.policies
        )
        enrolment.watched_by(ground.audit_trail)
        self.levels = Levels(store=store, authorities=registry.authorities, clock=clock)
        self.credentials = Credentials(
            store=store,
            provisioned=store,
            authorities=registry.authorities,
            levels=self.levels,
            enrolment=enrolment,
            blocks=blocks,
            server_account=account,
            clock=clock,
            ids=ids,
        )
        self.minting = Minting(
            store=store,
            certificates=registry.certificates,
            authorities=registry.authorities,
            levels=self.levels,
            enrolment=enrolment,
            blocks=blocks,
            server_account=account,
            clock=clock,
            ids=ids,
        )
        self.fleet = FleetAuthorities(
            store=store, provisioned=store, enrolment=enrolment, types=registry.types, blocks=blocks, clock=clock
        )
        self.revocations = Revocations(store=store, certificates=registry.certificates, clock=clock)
        self.renewals = Renewals(
            store=store,
            certificates=registry.certificates,
            enrolment=enrolment,
            clock=clock,
            region=ground.place.region,
        )
        self.contacts = FirstContacts(
            store=store,
            fleet=self.fleet,
            enrolment=enrolment,
            blocks=blocks,
            revocations=self.revocations,
            renewals=self.renewals,
            clock=clock,
            region=ground.place.region,
        )
        self.contacts.watched_by(ground.audit_trail)
        self.reenrolment = Reenrolment(
            store=store,
            levels=self.levels,
            minting=self.minting,
            renewals=self.renewals,
            contacts=self.contacts,
            authorities=registry.authorities,
            certificates=registry.certificates,
            server_account=account,
            clock=clock,
            ids=ids,
        )
        self.server_authority = ServerAuthorityRotation(
            authorities=registry.authorities,
            certificates=registry.certificates,
            enrolment=enrolment,
            home=ground.place,
            look_again=ground.look_at_server_certificate,
        )
        self.reuses = Reuses(
            anomalies=store,
            approvals=store,
            contacts=self.contacts,
            enrolment=enrolment,
            clock=clock,
            setting=ground.settings.reused_ids,
        )
        self.provisioning = ProvisioningService(
            store=store, enrolment=enrolment, levels=self.levels, blocks=blocks, clock=clock
        )
        self.provisioned_devices = ProvisionedDevices(devices=store, authorities=store)
        self.certificate_imports = CertificateImports(
            store=store,
            enrolment=enrolment,
            certificates=registry.certificates,
            provisioning=self.provisioning,
            clock=clock,
        )

        # What AWS's clients know: templates, claims, and things registered by them.
        self.hooks = Hooks(read_hooks(ground.state.path / FILE_NAME), clock=clock, ids=ids)
        self.templates = ProvisioningTemplates(store=store, tags=registry.tags, clock=clock, hooks=self.hooks.addresses)
        self.registrations = Registrations(
            certificates=registry.certificates,
            devices=registry.devices,
            groups=registry.groups,
            policies=registry.policies,
            blocks=blocks,
            provisioned=store,
            clock=clock,
        )
        self.registrations.watched_by(ground.audit_trail)
        self.registration_tasks = RegistrationTasks(
            store=store,
            registrations=self.registrations,
            objects=buckets.objects,
            roles=operators.access,
            clock=clock,
            ids=ids,
        )
        self.fleet_provisioning = FleetProvisioning(
            store=store,
            templates=self.templates,
            registrations=self.registrations,
            certificates=registry.certificates,
            policies=registry.policies,
            reuses=self.reuses,
            clock=clock,
            ids=ids,
            region=ground.place.region,
        )
        self.ca_certificates = CaCertificates(
            store=store,
            fleet=self.fleet,
            certificates=registry.certificates,
            templates=self.templates,
            revocations=self.revocations,
            tags=registry.tags,
            clock=clock,
            ids=ids,
        )
        self.templates.used_by(self.ca_certificates)
        registry.authority.introduced_by(
            Introductions(
                work=ground.work,
                store=store,
                fleet=self.fleet,
                contacts=self.contacts,
                clock=clock,
                newcomers=JustInTimeRegistration(
                    work=ground.work,
                    store=store,
                    certificates=registry.certificates,
                    enrolment=enrolment,
                    registrations=self.registrations,
                    templates=self.templates,
                    revocations=self.revocations,
                    reuses=self.reuses,
                    clock=clock,
                    region=ground.place.region,
                ),
            )
        )
