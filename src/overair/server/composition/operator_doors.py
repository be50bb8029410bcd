"""The operators' doors: the AWS operations and plain REST, behind one proof of who asks and one rule of what they may."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from overair.server import first_start
from overair.server.access.account_operations import AccountOperations
from overair.server.access.account_operator_api import AccountOperatorApi
from overair.server.access.authenticator import SignatureAuthenticator
from overair.server.access.authoriser import PolicyAuthoriser
from overair.server.access.bearer_tokens import SealedTokens
from overair.server.access.group_operator_api import UserGroupOperatorApi
from overair.server.access.link_tickets import SealedTickets
from overair.server.access.operator_api import IdentityOperatorApi
from overair.server.access.policy_operator_api import PolicyOperatorApi
from overair.server.access.resource_tags import TagsOfServices
from overair.server.access.simulation_operator_api import SimulationOperatorApi
from overair.server.access.websockets import OperatorProofs
from overair.server.audit.operator_api import AuditOperations
from overair.server.audit.service import AuditService
from overair.server.aws_protocol.dispatcher import AsgiApplication, AwsProtocol, Observe
from overair.server.broker.operator_api import BrokerOperations
from overair.server.certificates.acm_operator_api import AcmOperatorApi
from overair.server.certificates.operator_api import CertificatesOperatorApi, CertificateTransferOperations
from overair.server.composition.buckets import BucketRooms
from overair.server.composition.device_gateway import GatewayRooms
from overair.server.composition.entrance import EntranceRooms
from overair.server.composition.ground import Ground
from overair.server.composition.keys import KeyRooms
from overair.server.composition.operators import OperatorRooms
from overair.server.composition.registry import RegistryRooms
from overair.server.composition.repositories import RepositoryRooms
from overair.server.composition.rollouts import RolloutRooms
from overair.server.devices.decryption_operator_api import DecryptionOperatorApi
from overair.server.devices.operator_api import DevicesOperatorApi
from overair.server.devices.policies_operator_api import PoliciesOperatorApi
from overair.server.devices.tags_operator_api import TagsOperatorApi
from overair.server.devices.thing_groups_operator_api import ThingGroupsOperatorApi
from overair.server.devices.thing_types_operator_api import ThingTypesOperatorApi
from overair.server.devices.trials import TrialsService
from overair.server.devices.trials_operator_api import TrialsOperatorApi
from overair.server.director.rest_api import DirectorRestApi
from overair.server.director.rest_campaigns import CampaignsRestApi
from overair.server.director.rest_devices import DeviceRecordsRestApi
from overair.server.director.rest_groups import DeviceGroupsRestApi
from overair.server.director.rest_import import VehicleImportRestApi
from overair.server.director.rest_jobs import DirectorJobsRestApi
from overair.server.director.rest_support import Labels
from overair.server.director.rest_vehicles import VehiclesRestApi
from overair.server.explain.operator_api import ExplainOperations
from overair.server.explain.rollout_api import RolloutOperations
from overair.server.explain.server_status import Running, ServerStatusOperations
from overair.server.fleet_index.operator_api import FleetIndexOperatorApi
from overair.server.image_repository.rest_api import ImageRepositoryRestApi
from overair.server.image_repository.rest_delegations import DelegationsRestApi
from overair.server.image_repository.rest_images import ImagesRestApi
from overair.server.image_repository.rest_import import RepositoryImportRestApi
from overair.server.image_repository.rest_uploads import UploadsRestApi
from overair.server.jobs.document_sources import DocumentSources
from overair.server.jobs.event_operator_api import EventConfigurationOperations
from overair.server.jobs.jobs_data_api import JobsDataOperations
from overair.server.jobs.operator_api import JobOperations
from overair.server.jobs.resend_operator_api import ResendOperations
from overair.server.jobs.templates_operator_api import JobTemplateOperations
from overair.server.objects.operator_api import ObjectsApi
from overair.server.packages.operator_api import PackageOperations
from overair.server.provisioning.ca_operator_api import CaCertificateOperations
from overair.server.provisioning.came_in_operator_api import ProvisionedDeviceOperations
from overair.server.provisioning.fleet_operator_api import AnomalyOperations, FleetOperations
from overair.server.provisioning.operator_api import BlockOperations, CredentialOperations, LevelOperations
from overair.server.provisioning.registration_operator_api import RegistrationReports, RegistrationTaskOperations
from overair.server.provisioning.renewal_operator_api import RenewalOperations
from overair.server.provisioning.rest_api import DeviceCertificatesRestApi
from overair.server.provisioning.rest_fleet import FleetAuthoritiesRestApi
from overair.server.provisioning.server_authority_operator_api import ServerAuthorityOperations
from overair.server.provisioning.templates_operator_api import ProvisioningTemplateOperations, RegisterThingOperations
from overair.server.rest.door import SERVICE as REST_SERVICE
from overair.server.rest.door import RestDoor
from overair.server.roots.operator_rest_api import DirectorRootRestApi, ImageRootRestApi
from overair.server.signing.operator_api import SigningOperations
from overair.server.streams.operator_api import StreamOperations
from overair.server.updates.operator_api import UpdateOperations


class OperatorDoors:
    """``aws`` and ``rest``, with every operation bound that the server offers.

    Raises:
        RuntimeError: An operation has no row in the table of rights (``access.actions``), so nobody could ever call it.
    """

    def __init__(
        self,
        ground: Ground,
        *,
        first: first_start.Rooms,
        operators: OperatorRooms,
        buckets: BucketRooms,
        registry: RegistryRooms,
        entrance: EntranceRooms,
        repositories: RepositoryRooms,
        rollouts: RolloutRooms,
        gateway: GatewayRooms,
        keys: KeyRooms,
        plain_routes: Mapping[str, AsgiApplication],
        observe: Observe,
    ) -> None:
        self._ground = ground
        self._first = first
        self._operators = operators
        self._buckets = buckets
        self._registry = registry
        self._entrance = entrance
        self._repositories = repositories
        self._rollouts = rollouts
        self._gateway = gateway
        self._keys = keys
        self.authenticator = SignatureAuthenticator(
            ground.work,
            operators.credentials,
            clock=ground.clock,
            region=ground.place.region,
            schedule_clock=ground.schedule_clock,
            presigned_v2=ground.settings.presigned_v2,
            links=operators.link_keys,
        )
        self.websockets = OperatorProofs(
            work=ground.work,
            authenticator=self.authenticator,
            credentials=operators.credentials,
            grants=operators.grants,
            clock=ground.clock,
            ids=ground.ids,
            witness=ground.observed,
        )
        operators.credentials.watched_by(gateway.gateway.reconsider_operators)
        operators.grants.watched_by(gateway.gateway.reconsider_operators)
        self.authoriser = PolicyAuthoriser(
            ground.work,
            operators.grants,
            buckets.objects,
            operators.bucket_policies,
            TagsOfServices(
                {
                    "iot": registry.tags,
                    "acm": registry.acm,
                    "signer": rollouts.signing,
                    "iam": operators.policies,
                }
            ),
        )
        self.objects_api = ObjectsApi(
            work=ground.audited,
            objects=buckets.objects,
            uploads=buckets.uploads,
            lists=buckets.lists,
            contents=buckets.contents,
        )
        self.aws = AwsProtocol(
            authenticator=self.authenticator,
            authoriser=self.authoriser,
            ids=ground.ids,
            plain_routes=plain_routes,
            observe=observe,
            witness=ground.observed,
        )
        place, secret_box = ground.place, ground.secret_box
        self._tickets = SealedTickets(ground.work, operators.credentials, secret_box, clock=ground.clock, region=place.region)
        self._offer_who_may_ask_and_what_is_stored()
        self._offer_the_registry()
        self._offer_rollouts()
        self._offer_the_server()
        self.rest = RestDoor(
            authenticator=self.authenticator,
            tokens=SealedTokens(ground.work, operators.credentials, secret_box, clock=ground.clock, region=place.region),
            tickets=self._tickets,
            authoriser=self.authoriser,
            ids=ground.ids,
            observe=observe,
            witness=ground.observed,
        )
        self._route_repositories()
        self._route_vehicles()
        self._hold_against_the_rights()

    def _offer_who_may_ask_and_what_is_stored(self) -> None:
        work, operators, registry = self._ground.audited, self._operators, self._registry
        certificate_operations = CertificatesOperatorApi(
            work=work, certificates=registry.certificates, transfers=registry.transfers
        )
        certificate_operations.issuers_known_by(self._entrance.ca_certificates.issuer_of)
        self.aws.add(
            IdentityOperatorApi(
                work=work, identities=operators.identities, sessions=operators.sessions, uses=operators.credentials.uses
            ),
            PolicyOperatorApi(work=work, policies=operators.policies, identities=operators.identities, groups=operators.groups),
            UserGroupOperatorApi(work=work, groups=operators.groups),
            SimulationOperatorApi(
                work=work, policies=operators.policies, identities=operators.identities, groups=operators.groups
            ),
            AccountOperatorApi(
                work=work, policies=operators.policies, identities=operators.identities, groups=operators.groups
            ),
            certificate_operations,
            CertificateTransferOperations(work=work, transfers=registry.transfers),
            AcmOperatorApi(work=work, acm=registry.acm),
            self.objects_api,
        )

    def _offer_the_registry(self) -> None:
        ground, registry, entrance = self._ground, self._registry, self._entrance
        work = ground.audited
        self.aws.add(
            DevicesOperatorApi(
                work=work,
                devices=registry.devices,
                endpoint_host=ground.settings.host[0],
                jobs_address=ground.operator_address,
            ),
            ThingTypesOperatorApi(work=work, types=registry.types),
            ThingGroupsOperatorApi(work=work, groups=registry.groups),
            FleetIndexOperatorApi(work=work, fleet=self._rollouts.fleet_index, groups=registry.groups),
            PoliciesOperatorApi(work=work, policies=registry.policies),
            DecryptionOperatorApi(work=work, decryption=registry.decryption),
            TagsOperatorApi(work=work, tags=registry.tags),
            TrialsOperatorApi(
                work=work,
                trials=TrialsService(
                    admissions=registry.admissions,
                    certificates=registry.certificates,
                    policies=registry.policies,
                    clock=ground.clock,
                ),
            ),
            CredentialOperations(
                work=work,
                credentials=entrance.credentials,
                provisioning=entrance.provisioning,
                device_url=ground.download_url,
            ),
            LevelOperations(work=work, levels=entrance.levels, scrub=ground.scrub_keys),
            BlockOperations(work=work, provisioning=entrance.provisioning),
            FleetOperations(work=work, fleet=entrance.fleet, revocations=entrance.revocations, clock=ground.clock),
            ProvisionedDeviceOperations(work=work, devices=entrance.provisioned_devices, provisioning=entrance.provisioning),
            RenewalOperations(work=work, renewals=entrance.renewals, reenrolment=entrance.reenrolment),
            ServerAuthorityOperations(
                work=work,
                rotation=entrance.server_authority,
                home=ground.place.account,
                check=lambda: ground.server_certificate.check(),
                shows_files=self._registry.server_files is not None,
            ),
            AnomalyOperations(work=work, contacts=entrance.contacts, reuses=entrance.reuses),
            ProvisioningTemplateOperations(
                work=work,
                templates=entrance.templates,
                fleet=entrance.fleet_provisioning,
                rights=self._operators.access,
            ),
            CaCertificateOperations(
                work=work,
                authorities=entrance.ca_certificates,
                certificates=registry.certificates,
                rights=self._operators.access,
            ),
            RegisterThingOperations(work=work, registrations=entrance.registrations),
            RegistrationTaskOperations(
                work=work,
                tasks=entrance.registration_tasks,
                rights=self._operators.access,
                tickets=self._tickets,
                origin=lambda: f"https://{ground.operator_address()}",
            ),
        )

    def _offer_rollouts(self) -> None:
        ground, rollouts = self._ground, self._rollouts
        work, access, jobs, schedule_clock = ground.audited, self._operators.access, rollouts.jobs, ground.schedule_clock
        sources = DocumentSources(work=work, rights=access, objects=self._buckets.objects, contents=self._buckets.contents)
        self.aws.add(
            SigningOperations(work=work, signing=rollouts.signing, permissions=rollouts.profile_permissions, access=access),
            StreamOperations(work=work, streams=rollouts.streams, rights=access),
            JobOperations(work=work, jobs=jobs, rights=access, sources=sources),
            JobTemplateOperations(work=work, jobs=jobs, rights=access, sources=sources, clock=schedule_clock),
            EventConfigurationOperations(work=work, events=jobs.events),
            ResendOperations(work=work, jobs=jobs),
            PackageOperations(work=work, packages=rollouts.packages, installed=rollouts.installed, rights=access),
            JobsDataOperations(work=work, jobs=jobs.device, clock=schedule_clock, rates=rollouts.job_requests),
            UpdateOperations(
                work=work, updates=rollouts.updates, contents=self._buckets.contents, after_step=ground.after_step
            ),
            ExplainOperations(
                work=work,
                explain=rollouts.explain,
                presences=self._gateway.broker,
                authority=self._registry.authority,
                asked=self._gateway.stream_topics.asked,
                clock=schedule_clock,
            ),
            RolloutOperations(
                work=work,
                jobs=jobs,
                tallies=rollouts.tallies,
                connections=self._gateway.broker,
                signatures=rollouts.explain,
                clock=self._ground.clock,
            ),
        )

    def _offer_the_server(self) -> None:
        ground, rollouts, gateway = self._ground, self._rollouts, self._gateway
        work = ground.audited
        self.aws.add(
            ServerStatusOperations(
                work=work,
                devices=self._registry.devices,
                jobs=rollouts.jobs,
                signing=rollouts.signing,
                updates=rollouts.updates,
                provisioning=self._entrance.provisioning,
                repositories=self._repositories.statuses,
                running=Running(
                    version=version("overair"),
                    started_at=ground.cluster.life_began,
                    has_passphrase=ground.secret_box.has_passphrase,
                    connected=lambda: gateway.gateway.connection_count + ground.cluster.connected_elsewhere(),
                    failing_workers=lambda: ground.workers.failing,
                    backed_up_at=ground.restores.backed_up_at,
                    restored_at=ground.restores.restored_at,
                ),
                clock=ground.clock,
            ),
            AccountOperations(
                work=work,
                accounts=self._operators.accounts,
                home=ground.place.account,
                furnish=lambda tx, place: first_start.furnish(tx, self._first, place),
            ),
            BrokerOperations(work=work, broker=gateway.broker, store=ground.cluster.broker_store),
            self._keys.operations,
            AuditOperations(work=work, audit=AuditService(ground.audit_store), heads=ground.audit_heads),
        )

    def _route_repositories(self) -> None:
        work, repositories, contents = self._ground.audited, self._repositories, self._buckets.contents
        roots, images, erasure = repositories.roots, repositories.images, repositories.erasure
        self.rest.add(
            ImageRootRestApi(work=work, roots=roots, erasure=erasure),
            DirectorRootRestApi(work=work, roots=roots, erasure=erasure),
            ImageRepositoryRestApi(
                work=work,
                roots=roots,
                images=images,
                pushes=repositories.pushes,
                probes=repositories.root_probes,
                statuses=repositories.statuses,
                erasure=erasure,
            ),
            ImagesRestApi(work=work, roots=roots, images=images, targets=repositories.targets, contents=contents),
            UploadsRestApi(
                work=work,
                roots=roots,
                images=images,
                uploads=repositories.uploads,
                contents=contents,
                tickets=self._tickets,
            ),
            DelegationsRestApi(
                work=work, roots=roots, images=images, pushes=repositories.pushes, documents=repositories.documents
            ),
            RepositoryImportRestApi(work=work, roots=roots, images=images, imports=repositories.imports),
        )

    def _route_vehicles(self) -> None:
        work, registry, director = self._ground.audited, self._registry, self._rollouts.director
        devices, groups, provisioning = registry.devices, registry.groups, self._entrance.provisioning
        access = self._operators.access
        self.rest.add(RegistrationReports(work=work, tasks=self._entrance.registration_tasks))
        labels = Labels(things=devices, groups=groups, rights=access)
        self.rest.add(
            DirectorRestApi(work=work, director=director, labels=labels),
            DirectorJobsRestApi(work=work, director=director),
            VehiclesRestApi(work=work, director=director, labels=labels),
            DeviceRecordsRestApi(
                work=work,
                director=director,
                things=devices,
                departures=provisioning,
                groups=groups,
                labels=labels,
                clock=self._ground.clock,
            ),
            DeviceCertificatesRestApi(
                work=work, provisioning=provisioning, devices=devices, records=director.records, rights=access
            ),
            FleetAuthoritiesRestApi(work=work, fleet=self._entrance.fleet),
            VehicleImportRestApi(work=work, imports=self._rollouts.vehicle_imports),
            DeviceGroupsRestApi(work=work, things=devices, groups=groups, labels=labels),
            CampaignsRestApi(work=work, director=director, groups=groups, labels=labels),
        )

    def _hold_against_the_rights(self) -> None:
        offered = [(service.name, operation) for service in self.aws.services.values() for operation in service.bound]
        for service_name, operation in (*offered, *[(REST_SERVICE, route.operation) for route, _ in self.rest.bound]):
            if not self.authoriser.knows(service_name, operation):
                raise RuntimeError(f"access.actions has no row for {service_name} {operation}: nobody could ever call it.")
