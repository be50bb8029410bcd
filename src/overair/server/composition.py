"""Who is joined to whom: every room gets what it asked for by a protocol.

Read it from top to bottom and you have met every room: records, keys, access, certificates, objects, devices, signing, streams,
jobs, updates; then the two doors; then the workers. The only file that names concrete stores and services.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from importlib.metadata import version
from random import Random

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.ids import IdSource
from overair.server import first_start
from overair.server.access.authenticator import SignatureAuthenticator
from overair.server.access.authoriser import PolicyAuthoriser
from overair.server.access.bearer_tokens import SealedTokens
from overair.server.access.bucket_policies import BucketPolicyMemory
from overair.server.access.grants import GrantsDirectory
from overair.server.access.identities import Identities
from overair.server.access.keys import CredentialDirectory
from overair.server.access.link_keys import LinkKeys
from overair.server.access.link_tickets import SealedTickets
from overair.server.access.operator_api import IdentityOperatorApi
from overair.server.access.policies import Policies
from overair.server.access.policy_operator_api import PolicyOperatorApi
from overair.server.access.policy_store import SqlPolicyStore as SqlAccessPolicyStore
from overair.server.access.service import AccessService
from overair.server.access.sessions import Sessions
from overair.server.access.store import SqlIdentityStore
from overair.server.audit.operator_api import AuditOperations
from overair.server.audit.service import AuditedWork, AuditService
from overair.server.audit.store import SqlAuditStore
from overair.server.aws_protocol.dispatcher import AsgiApplication, AwsProtocol, Observe
from overair.server.broker.operator_api import BrokerOperations
from overair.server.broker.service import Broker
from overair.server.broker.worker import SessionExpiry
from overair.server.certificates.acm import AcmService
from overair.server.certificates.acm_operator_api import AcmOperatorApi
from overair.server.certificates.authorities import AuthoritiesService, ServerIdentity
from overair.server.certificates.operator_api import CertificatesOperatorApi
from overair.server.certificates.renewal import ServerCertificateRenewal
from overair.server.certificates.service import CertificatesService
from overair.server.certificates.store import SqlCertificateStore
from overair.server.cluster import Cluster
from overair.server.config import Settings
from overair.server.devices.admission import Admissions
from overair.server.devices.authority import RegistryAuthority
from overair.server.devices.blocks import BlocksService
from overair.server.devices.operator_api import DevicesOperatorApi
from overair.server.devices.policies import CertificateLinks, PoliciesService
from overair.server.devices.policies_operator_api import PoliciesOperatorApi
from overair.server.devices.service import DevicesService
from overair.server.devices.store.admissions import SqlAdmissionStore
from overair.server.devices.store.blocks import SqlBlockStore
from overair.server.devices.store.groups import SqlGroupStore
from overair.server.devices.store.policies import SqlPolicyStore as SqlDevicePolicyStore
from overair.server.devices.store.tags import SqlTagStore
from overair.server.devices.store.things import SqlThingStore
from overair.server.devices.store.types import SqlTypeStore
from overair.server.devices.tags import TagsService
from overair.server.devices.tags_operator_api import TagsOperatorApi
from overair.server.devices.thing_groups import ThingGroupsService
from overair.server.devices.thing_groups_operator_api import ThingGroupsOperatorApi
from overair.server.devices.thing_types import ThingTypesService
from overair.server.devices.thing_types_operator_api import ThingTypesOperatorApi
from overair.server.devices.trials import TrialsService
from overair.server.devices.trials_operator_api import TrialsOperatorApi
from overair.server.director.auto_updates import AutoUpdateWorker
from overair.server.director.device_api import DirectorDeviceApi
from overair.server.director.importing import VehicleImports
from overair.server.director.rest_api import DirectorRestApi
from overair.server.director.rest_campaigns import CampaignsRestApi
from overair.server.director.rest_devices import DeviceRecordsRestApi
from overair.server.director.rest_groups import DeviceGroupsRestApi
from overair.server.director.rest_import import VehicleImportRestApi
from overair.server.director.rest_jobs import DirectorJobsRestApi
from overair.server.director.rest_support import Labels
from overair.server.director.rest_vehicles import VehiclesRestApi
from overair.server.director.served_roots import ServedRoots
from overair.server.director.service import DirectorService
from overair.server.director.store import SqlCampaignStore, SqlOddityStore, SqlRecordStore, SqlUpdateStore, SqlVehicleStore
from overair.server.explain.operator_api import ExplainOperations
from overair.server.explain.rollout_api import RolloutOperations
from overair.server.explain.server_status import Running, ServerStatusOperations
from overair.server.explain.service import ExplainService
from overair.server.fleet_index.configurations import SPREAD_MS
from overair.server.fleet_index.connectivity import NODE_ALPHABET
from overair.server.fleet_index.operator_api import FleetIndexOperatorApi
from overair.server.fleet_index.service import FleetIndexService
from overair.server.fleet_index.store import SqlDocumentStore as SqlFleetDocumentStore
from overair.server.fleet_index.store import SqlSettingsStore as SqlFleetSettingsStore
from overair.server.gateway.limits import PROFILES
from overair.server.gateway.reserved_topics import ReservedTopics
from overair.server.gateway.service import Gateway
from overair.server.image_repository.device_api import ImageRepositoryDeviceApi
from overair.server.image_repository.importing import RepositoryImports
from overair.server.image_repository.ports import NothingInUse
from overair.server.image_repository.publication import Publisher
from overair.server.image_repository.pushing import Pushes
from overair.server.image_repository.rest_api import ImageRepositoryRestApi
from overair.server.image_repository.rest_delegations import DelegationsRestApi
from overair.server.image_repository.rest_images import ImagesRestApi
from overair.server.image_repository.rest_import import RepositoryImportRestApi
from overair.server.image_repository.rest_uploads import UploadsRestApi
from overair.server.image_repository.service import ImageRepositoryService
from overair.server.image_repository.serving import Shelf
from overair.server.image_repository.status import RepositoryStatuses
from overair.server.image_repository.store import SqlDocumentStore, SqlImageUploadStore, SqlTargetStore
from overair.server.image_repository.uploads import ImageUploads
from overair.server.image_repository.worker import MetadataRenewal
from overair.server.jobs.device_api import JobTopics
from overair.server.jobs.device_https import DeviceJobsDoor
from overair.server.jobs.document_sources import DocumentSources
from overair.server.jobs.event_operator_api import EventConfigurationOperations
from overair.server.jobs.event_store import SqlEventConfigurations
from overair.server.jobs.execution_store import SqlExecutionStore
from overair.server.jobs.jobs_data_api import JobsDataOperations
from overair.server.jobs.operator_api import JobOperations
from overair.server.jobs.operator_executions import JobTimers
from overair.server.jobs.planning import JobPlanner
from overair.server.jobs.presigning import RolePresigner
from overair.server.jobs.service import JobsService
from overair.server.jobs.store import SqlJobStore
from overair.server.jobs.tallies import JobTallies
from overair.server.jobs.tally_store import SqlTallyStore
from overair.server.jobs.template_store import SqlTemplateStore
from overair.server.jobs.templates_operator_api import JobTemplateOperations
from overair.server.joined import Joined, open_records
from overair.server.keyring.service import Keyring
from overair.server.keyring.store import SqlKeyStore
from overair.server.keyring.store import keys as keyring_table
from overair.server.keyring.wrapping import open_secret_box, read_passphrase
from overair.server.metrics import Readings
from overair.server.nodes.model import Role
from overair.server.objects.collector import ContentCollector
from overair.server.objects.contents import ContentStore
from overair.server.objects.listing import ObjectLists
from overair.server.objects.operator_api import ObjectsApi
from overair.server.objects.presigned_downloads import PresignedDownloads
from overair.server.objects.segments import SegmentCache
from overair.server.objects.service import ObjectsService
from overair.server.objects.store import SqlObjectStore
from overair.server.objects.upload_store import SqlUploadStore
from overair.server.objects.uploads import UploadsService
from overair.server.provisioning.authenticator import ProvisioningAuthenticator
from overair.server.provisioning.device_api import ProvisioningDeviceApi
from overair.server.provisioning.fleet_operator_api import AnomalyOperations, FleetOperations
from overair.server.provisioning.importing import CertificateImports
from overair.server.provisioning.operator_api import BlockOperations, CredentialOperations, LevelOperations
from overair.server.provisioning.rest_api import DeviceCertificatesRestApi
from overair.server.provisioning.rest_fleet import FleetAuthoritiesRestApi
from overair.server.provisioning.service import (
    Credentials,
    Enrolment,
    FirstContacts,
    FleetAuthorities,
    Introductions,
    Levels,
    Minting,
    ProvisioningService,
)
from overair.server.provisioning.store import SqlProvisioningStore
from overair.server.rest.device_door import DeviceDoor
from overair.server.rest.door import SERVICE as REST_SERVICE
from overair.server.rest.door import RestDoor
from overair.server.roots.erasure import KeyErasure
from overair.server.roots.importing import ChainImports
from overair.server.roots.operator_rest_api import DirectorRootRestApi, ImageRootRestApi
from overair.server.roots.probes import RootProbes
from overair.server.roots.service import RootsService
from overair.server.roots.store import SqlRootStore
from overair.server.signing.operator_api import SigningOperations
from overair.server.signing.service import SigningService
from overair.server.signing.store import SqlSigningStore
from overair.server.signing.worker import SigningWorker
from overair.server.state_directory import StateDirectory
from overair.server.storage.migrations import upgrade
from overair.server.storage.outbox import OutboxRelay
from overair.server.streams.descriptors import Descriptors
from overair.server.streams.device_api import StreamTopics
from overair.server.streams.operator_api import StreamOperations
from overair.server.streams.service import StreamsService
from overair.server.streams.store import SqlStreamsStore
from overair.server.updates.operator_api import UpdateOperations
from overair.server.updates.retention import Retention
from overair.server.updates.saga import Saga
from overair.server.updates.service import UpdatesService
from overair.server.updates.store import SqlUpdatesStore
from overair.server.updates.worker import UpdatesWorker
from overair.server.workers.loop import Worker, WorkerLoop
from overair.wire.uptane.metadata import Repository


def compose(
    settings: Settings,
    place: Place,
    state: StateDirectory,
    closing: AsyncExitStack,
    *,
    clock: Clock,
    ids: IdSource,
    schedule_clock: Clock,
    after_step: Callable[[str], None],
    role: Role | None,
    observe: Observe,
    observe_device: Observe,
    plain_routes: Mapping[str, AsgiApplication],
    download_url: Callable[[], str],
    show_identity: Callable[[ServerIdentity], None],
) -> Joined:
    """Join the rooms of one server. Opens the records and brings them to their newest shape; ``closing`` closes them.

    Args:
        schedule_clock: Jobs, windows and the expiry of presigned links.
        role: What this process holds of a server with several (``cluster.py``); None: all of it.
        after_step: Told the name of each saga step right after its commit.
        plain_routes: Paths of the operator port that need no signature.
        download_url: The device port as devices see it, asked for each link. show_identity: Told of a new server certificate.
    """
    # Records, and the keys that are wrapped in them.
    work = open_records(settings, state, clock)
    closing.callback(work.close)
    upgrade(work.engine)
    cluster = Cluster(settings, place.account, work, closing, role=role, clock=clock, ids=ids)
    passphrase = read_passphrase(settings.key_passphrase_file) if settings.key_passphrase_file else None
    secret_box = open_secret_box(state.wrapping_key_file, passphrase=passphrase, ids=ids)
    keyring = Keyring(SqlKeyStore(), secret_box, clock=clock, ids=ids)
    root_store = SqlRootStore(changed=lambda account, _repository: director_roots.evict(account))
    roots = RootsService(store=root_store, keys=keyring, clock=clock, ids=ids)
    erasure = KeyErasure(lambda: work.scrub(keyring_table))
    roots.keys.when_forgotten = erasure.note
    root_probes = RootProbes(work=work, store=root_store, clock=clock)
    audit_store = SqlAuditStore()
    audited = AuditedWork(work, audit_store, clock=clock, ids=ids)

    # Who may ask: operators, roles, keys.
    identity_store, policy_store = SqlIdentityStore(), SqlAccessPolicyStore()
    grants = GrantsDirectory(identity_store, policy_store)
    credentials = CredentialDirectory(identity_store, secret_box)
    identities = Identities(identity_store, policy_store, grants, credentials, secret_box, clock=clock, ids=ids)
    access_policies = Policies(policy_store, identity_store, grants, clock=clock, ids=ids)
    sessions = Sessions(identity_store, grants, secret_box, clock=clock, ids=ids)
    access = AccessService(identity_store, grants, clock=clock)

    # Who devices are, and who we are to them.
    certificate_store = SqlCertificateStore()
    authorities = AuthoritiesService(store=certificate_store, keys=keyring, clock=clock, ids=ids)
    certificates = CertificatesService(store=certificate_store, clock=clock, ids=ids, authorities=authorities)
    acm = AcmService(store=certificate_store, keys=keyring, clock=clock, ids=ids)

    # Buckets. What streams hold ready must go with a version or a grant, before whoever took it away is answered.
    descriptors = Descriptors()
    grants.watched_by(descriptors.evict)
    contents = ContentStore(state.contents, clock=clock, ids=ids, is_shared=role is not None)
    closing.callback(contents.close)
    segments = SegmentCache(contents)
    object_store, upload_store = SqlObjectStore(), SqlUploadStore()
    bucket_policies = BucketPolicyMemory()
    objects = ObjectsService(object_store, upload_store, clock=clock, ids=ids, when_gone=(descriptors, bucket_policies))
    uploads = UploadsService(objects, upload_store, clock=clock, ids=ids)
    object_lists = ObjectLists(objects, object_store, upload_store)

    # The registry, and what its certificates may do.
    thing_store, group_store, device_policy_store = SqlThingStore(), SqlGroupStore(), SqlDevicePolicyStore()
    tags = TagsService(store=SqlTagStore())
    admissions = Admissions(store=SqlAdmissionStore(), certificates=certificates)
    authority = RegistryAuthority(work=work, admissions=admissions, clock=clock, region=place.region)
    types = ThingTypesService(store=SqlTypeStore(), tags=tags, clock=clock, ids=ids)
    groups = ThingGroupsService(
        store=group_store,
        things=thing_store,
        policies=device_policy_store,
        tags=tags,
        access_changed=authority,
        clock=clock,
        ids=ids,
    )
    devices = DevicesService(
        store=thing_store,
        types=types,
        groups=groups,
        certificates=certificates,
        access_changed=authority,
        clock=clock,
        ids=ids,
    )
    device_policies = PoliciesService(
        store=device_policy_store,
        groups=group_store,
        things=thing_store,
        certificates=certificates,
        tags=tags,
        access_changed=authority,
        clock=clock,
        ids=ids,
    )
    certificates.used_by(CertificateLinks(policies=device_policy_store, things=thing_store, access_changed=authority))

    # How devices come in, and are kept out.
    provisioning_store = SqlProvisioningStore()
    blocks = BlocksService(store=SqlBlockStore(), things=thing_store, access_changed=authority, clock=clock)
    enrolment = Enrolment(certificates=certificates, devices=devices, groups=groups, policies=device_policies)
    levels = Levels(store=provisioning_store, authorities=authorities, clock=clock)
    shared_credentials = Credentials(
        store=provisioning_store,
        provisioned=provisioning_store,
        authorities=authorities,
        levels=levels,
        enrolment=enrolment,
        blocks=blocks,
        server_account=place.account,
        clock=clock,
        ids=ids,
    )
    minting = Minting(
        store=provisioning_store,
        certificates=certificates,
        authorities=authorities,
        levels=levels,
        enrolment=enrolment,
        blocks=blocks,
        server_account=place.account,
        clock=clock,
        ids=ids,
    )
    fleet = FleetAuthorities(
        store=provisioning_store, provisioned=provisioning_store, enrolment=enrolment, types=types, blocks=blocks, clock=clock
    )
    contacts = FirstContacts(
        store=provisioning_store, fleet=fleet, enrolment=enrolment, blocks=blocks, clock=clock, region=place.region
    )
    authority.introduced_by(Introductions(work=work, store=provisioning_store, fleet=fleet, contacts=contacts, clock=clock))
    provisioning = ProvisioningService(store=provisioning_store, enrolment=enrolment, levels=levels, blocks=blocks, clock=clock)

    # The images that vehicles may install, in both flavours.
    image_documents, image_targets = SqlDocumentStore(), SqlTargetStore()
    publisher = Publisher(roots=roots, documents=image_documents, published=lambda account: shelf.evict(account))
    images = ImageRepositoryService(
        roots=roots,
        documents=image_documents,
        targets=image_targets,
        publisher=publisher,
        in_use=NothingInUse(),
        clock=clock,
    )
    roots.kept_by(Repository.IMAGE, images)
    shelf = Shelf(work=work, roots=roots, images=images)
    pushes = Pushes(roots=roots, images=images, publisher=publisher, targets=image_targets, clock=clock)
    repository_statuses = RepositoryStatuses(roots=roots, images=images, targets=image_targets, probes=root_probes)
    repository_imports = RepositoryImports(
        roots=roots,
        chains=ChainImports(roots=roots, probes=root_probes),
        images=images,
        pushes=pushes,
        documents=image_documents,
        targets=image_targets,
        clock=clock,
    )
    image_uploads = ImageUploads(store=SqlImageUploadStore(), targets=image_targets, clock=clock, ids=ids)

    # Searches over the fleet, and the groups that they fill.
    fleet_index = FleetIndexService(
        work=work,
        settings=SqlFleetSettingsStore(),
        documents=SqlFleetDocumentStore(),
        devices=devices,
        groups=groups,
        clock=clock,
        region=place.region,
        spread_ms=SPREAD_MS if settings.database is not None else 0,
    )

    # Signing, streams, jobs; and updates, which join them.
    signing = SigningService(
        store=SqlSigningStore(),
        clock=clock,
        ids=ids,
        certificates=acm,
        keyring=keyring,
        objects=objects,
        wake=lambda: workers.wake(),  # the update that waits for a signature goes on as soon as it is there
    )
    acm.used_by(signing)
    streams = StreamsService(
        store=SqlStreamsStore(), objects=objects, roles=access, tags=tags, clock=clock, descriptors=descriptors
    )
    link_keys = LinkKeys(secret_box, ids)
    presigner = RolePresigner(roles=access, links=link_keys, clock=schedule_clock, base_url=download_url)
    jobs = JobsService(
        jobs=SqlJobStore(),
        executions=SqlExecutionStore(),
        members=devices,
        groups=groups,
        roles=access,
        presigner=presigner,
        tags=tags,
        events=SqlEventConfigurations(),
        templates=SqlTemplateStore(),
        clock=schedule_clock,
        ids=ids,
    )
    devices.provisioning_watched_by(jobs)
    jobs.searched_by(fleet_index.indexer)
    fleet_index.hears_of_jobs_from(jobs)
    # Which ECU gets which image now. It hears of a deleted thing before jobs do.
    director = DirectorService(
        vehicles=SqlVehicleStore(),
        oddities=SqlOddityStore(),
        updates=SqlUpdateStore(),
        records=SqlRecordStore(),
        campaigns=SqlCampaignStore(),
        jobs=jobs,
        roots=roots,
        images=images,
        groups=groups,
        enrolment=provisioning,
        clock=clock,
        ids=ids,
        life_began=cluster.life_began,
    )
    vehicle_imports = VehicleImports(
        vehicles=SqlVehicleStore(),
        updates=SqlUpdateStore(),
        certificates=CertificateImports(
            store=provisioning_store,
            enrolment=enrolment,
            certificates=certificates,
            provisioning=provisioning,
            clock=clock,
        ),
        enrolment=provisioning,
        things=devices,
        clock=clock,
    )
    images.used_by(director)
    director_roots = ServedRoots(work=work, roots=roots)
    groups.watched_by(director)
    groups.watched_by(provisioning)
    groups.watched_by(jobs.planner)
    updates_store = SqlUpdatesStore()
    updates = UpdatesService(
        store=updates_store,
        clock=clock,
        ids=ids,
        access=access,
        objects=objects,
        streams=streams,
        jobs=jobs,
        targets=devices,
        tags=tags,
        wake=lambda: workers.wake(UpdatesWorker.name),
    )
    saga = Saga(
        store=updates_store,
        clock=clock,
        access=access,
        objects=objects,
        signing=signing,
        streams=streams,
        jobs=jobs,
    )

    tallies = JobTallies(SqlTallyStore())
    explain = ExplainService(
        devices=devices,
        groups=groups,
        certificates=certificates,
        jobs=jobs,
        tallies=tallies,
        updates=updates,
        vehicles=director.views,
        blocks=provisioning,
        clock=clock,
    )

    # The devices' doors.
    limits = PROFILES[settings.limits]
    broker = Broker(work=work, store=cluster.broker_store, clock=clock, ids=ids, limits_for=lambda _account: limits.broker)
    cluster.connects(broker, session_expiry_ms=limits.broker.session_expiry_ms)
    topics = ReservedTopics()
    topics.register(JobTopics(work=work, jobs=jobs.device, clock=schedule_clock))
    stream_topics = StreamTopics(work=work, streams=streams, descriptors=descriptors, contents=segments)
    topics.register(stream_topics)
    gateway = Gateway(authority=authority, broker=broker, topics=topics, limits_for=lambda _account: limits)
    authority.watched_by(gateway)
    connectivity = (
        fleet_index.connectivity(broker, node=cluster.name, living=cluster.living)
        if cluster.name
        else fleet_index.connectivity(broker, node=ids.token(16, NODE_ALPHABET))
    )
    broker.watched_by(connectivity)

    # The operators' door.
    authenticator = SignatureAuthenticator(
        work,
        credentials,
        clock=clock,
        region=place.region,
        schedule_clock=schedule_clock,
        presigned_v2=settings.presigned_v2,
        links=link_keys,
    )
    authoriser = PolicyAuthoriser(work, grants, identity_store, objects, bucket_policies)
    document_sources = DocumentSources(work=audited, rights=access, objects=objects, contents=contents)
    objects_api = ObjectsApi(work=audited, objects=objects, uploads=uploads, lists=object_lists, contents=contents)
    downloads = PresignedDownloads(
        authenticator=authenticator, authoriser=authoriser, downloads=objects_api, ids=ids, observe=observe_device
    )
    operator_door = AwsProtocol(
        authenticator=authenticator,
        authoriser=authoriser,
        ids=ids,
        plain_routes=plain_routes,
        observe=observe,
    )
    operator_door.add(
        IdentityOperatorApi(work=audited, identities=identities, sessions=sessions),
        PolicyOperatorApi(work=audited, policies=access_policies, identities=identities, grants=grants),
        CertificatesOperatorApi(work=audited, certificates=certificates),
        AcmOperatorApi(work=audited, acm=acm),
        objects_api,
        DevicesOperatorApi(work=audited, devices=devices, endpoint_host=settings.host[0]),
        ThingTypesOperatorApi(work=audited, types=types),
        ThingGroupsOperatorApi(work=audited, groups=groups),
        FleetIndexOperatorApi(work=audited, fleet=fleet_index, groups=groups),
        PoliciesOperatorApi(work=audited, policies=device_policies),
        TagsOperatorApi(work=audited, tags=tags),
        TrialsOperatorApi(
            work=audited,
            trials=TrialsService(admissions=admissions, certificates=certificates, policies=device_policies, clock=clock),
        ),
        SigningOperations(work=audited, signing=signing, access=access),
        StreamOperations(work=audited, streams=streams, rights=access),
        JobOperations(work=audited, jobs=jobs, rights=access, sources=document_sources),
        JobTemplateOperations(work=audited, jobs=jobs, rights=access, sources=document_sources, clock=schedule_clock),
        EventConfigurationOperations(work=audited, events=jobs.events),
        JobsDataOperations(work=audited, jobs=jobs.device, clock=schedule_clock),
        UpdateOperations(work=audited, updates=updates, contents=contents, after_step=after_step),
        ServerStatusOperations(
            work=audited,
            devices=devices,
            jobs=jobs,
            signing=signing,
            updates=updates,
            provisioning=provisioning,
            repositories=repository_statuses,
            running=Running(
                version=version("overair"),
                started_at=cluster.life_began,
                has_passphrase=secret_box.has_passphrase,
                connected=lambda: gateway.connection_count + cluster.connected_elsewhere(),
                failing_workers=lambda: workers.failing,
            ),
            clock=clock,
        ),
        ExplainOperations(
            work=audited,
            explain=explain,
            presences=broker,
            authority=authority,
            asked=stream_topics.asked,
            clock=schedule_clock,
        ),
        RolloutOperations(work=audited, jobs=jobs, tallies=tallies, connections=broker),
        CredentialOperations(work=audited, credentials=shared_credentials, provisioning=provisioning, device_url=download_url),
        LevelOperations(work=audited, levels=levels, scrub=lambda: work.scrub(keyring_table)),
        BlockOperations(work=audited, provisioning=provisioning),
        FleetOperations(work=audited, fleet=fleet, clock=clock),
        AnomalyOperations(work=audited, contacts=contacts),
        BrokerOperations(work=audited, broker=broker, store=cluster.broker_store),
        AuditOperations(work=audited, audit=AuditService(audit_store)),
    )
    # Plain REST: operators' routes beside the AWS operations, and the devices' paths.
    tickets = SealedTickets(work, credentials, secret_box, clock=clock, region=place.region)
    rest_door = RestDoor(
        authenticator=authenticator,
        tokens=SealedTokens(work, credentials, secret_box, clock=clock, region=place.region),
        tickets=tickets,
        authoriser=authoriser,
        ids=ids,
        observe=observe,
    )
    rest_door.add(
        ImageRootRestApi(work=audited, roots=roots, erasure=erasure),
        DirectorRootRestApi(work=audited, roots=roots, erasure=erasure),
        ImageRepositoryRestApi(
            work=audited,
            roots=roots,
            images=images,
            pushes=pushes,
            probes=root_probes,
            statuses=repository_statuses,
            erasure=erasure,
        ),
        ImagesRestApi(work=audited, roots=roots, images=images, targets=image_targets, contents=contents),
        UploadsRestApi(
            work=audited,
            roots=roots,
            images=images,
            uploads=image_uploads,
            contents=contents,
            tickets=tickets,
        ),
        DelegationsRestApi(work=audited, roots=roots, images=images, pushes=pushes, documents=image_documents),
        RepositoryImportRestApi(work=audited, roots=roots, images=images, imports=repository_imports),
    )
    labels = Labels(things=devices, groups=groups, rights=access)
    rest_door.add(
        DirectorRestApi(work=audited, director=director, labels=labels),
        DirectorJobsRestApi(work=audited, director=director),
        VehiclesRestApi(work=audited, director=director, labels=labels),
        DeviceRecordsRestApi(
            work=audited,
            director=director,
            things=devices,
            departures=provisioning,
            groups=groups,
            labels=labels,
            clock=clock,
        ),
        DeviceCertificatesRestApi(
            work=audited, provisioning=provisioning, devices=devices, records=director.records, rights=access
        ),
        FleetAuthoritiesRestApi(work=audited, fleet=fleet),
        VehicleImportRestApi(work=audited, imports=vehicle_imports),
        DeviceGroupsRestApi(work=audited, things=devices, groups=groups, labels=labels),
        CampaignsRestApi(work=audited, director=director, groups=groups, labels=labels),
    )
    devices_proved = ProvisioningAuthenticator(
        work=work, authority=authority, credentials=shared_credentials, clock=clock, region=place.region
    )
    device_door = DeviceDoor(devices_proved, ids=ids, observe=observe_device)
    device_door.add(
        ProvisioningDeviceApi(work=work, credentials=shared_credentials, minting=minting, clock=clock),
        ImageRepositoryDeviceApi(shelf=shelf, probes=root_probes, contents=contents),
        DirectorDeviceApi(work=work, director=director, roots=director_roots, probes=root_probes),
    )
    device_jobs_door = DeviceJobsDoor(
        authority=authority,
        operations=JobsDataOperations(work=work, jobs=jobs.device, clock=schedule_clock),
        clock=clock,
        ids=ids,
        observe=observe_device,
    )
    offered = [(service.name, operation) for service in operator_door.services.values() for operation in service.bound]
    for service_name, operation in (*offered, *[(REST_SERVICE, route.operation) for route, _ in rest_door.bound]):
        if not authoriser.knows(service_name, operation):
            raise RuntimeError(f"access.actions has no row for {service_name} {operation}: nobody could ever call it.")

    # What goes on by itself.
    renewal = ServerCertificateRenewal(
        work=work,
        authorities=authorities,
        account=place.account,
        hosts=settings.host,
        clock=clock,
        show=show_identity,
    )

    metadata_renewal = MetadataRenewal(
        work=work,
        roots=roots,
        images=images,
        uploads=image_uploads,
        erasure=erasure,
        region=place.region,
        clock=clock,
        life_began=cluster.life_began,
    )

    def signing_went_on(step: str) -> None:
        after_step(step)
        workers.wake(UpdatesWorker.name)

    every_worker: list[Worker] = [
        OutboxRelay(work, broker.deliver),
        SigningWorker(
            work=work,
            signing=signing,
            keyring=keyring,
            objects=objects,
            contents=contents,
            clock=clock,
            after_step=signing_went_on,
        ),
        UpdatesWorker(work=work, updates=updates, saga=saga, after_step=after_step),
        JobPlanner(work=work, planner=jobs.planner, clock=schedule_clock),
        ContentCollector(
            work=work,
            store=object_store,
            uploads=upload_store,
            contents=contents,
            segments=segments,
            others=[image_targets],
            clock=clock,
        ),
        SessionExpiry(broker=broker, clock=clock),
        renewal,
        metadata_renewal,
        JobTimers(work=work, executions=jobs.executions, clock=schedule_clock),
        Retention(work=work, jobs=jobs, updates=updates, keep_days=settings.retention_days, clock=schedule_clock),
        AutoUpdateWorker(work=work, auto_updates=director.auto_updates, region=place.region, clock=clock),
        fleet_index.builder,
        connectivity,
    ]
    workers = WorkerLoop(
        cluster.workers_here(every_worker, broker, lambda: gateway.connection_count),
        random=Random(),
        elsewhere=[worker.name for worker in every_worker],
    )
    jobs.wake_with(lambda: cluster.wakes(workers, JobPlanner.name))
    fleet_index.wake_with(lambda: cluster.wakes(workers, fleet_index.builder.name))

    # What other processes of the server change, and this one holds in memory: gone as soon as their commit is heard.
    cluster.hears("device-access", authority.heard)
    cluster.hears("grants", lambda _: grants.evict())
    cluster.hears("credentials", lambda _: credentials.evict())
    cluster.hears("bucket-policy", bucket_policies.heard)
    cluster.hears("descriptors", descriptors.heard)
    cluster.hears("content-gone", segments.heard_gone)
    cluster.hears("key-gone", keyring.heard_gone)
    cluster.hears("key-erasure", lambda _: erasure.note())
    cluster.hears("roots", director_roots.heard)
    cluster.hears("published", shelf.heard)
    cluster.hears("outbox", lambda _: workers.wake(OutboxRelay.name))
    cluster.hears("wake", lambda parts: workers.wake(parts[0] if parts else None))
    return Joined(
        work=work,
        cluster=cluster,
        workers=workers,
        broker=broker,
        gateway=gateway,
        operator_door=operator_door,
        rest_door=rest_door,
        device_door=device_door,
        device_jobs_door=device_jobs_door,
        downloads=downloads,
        renewal=renewal,
        readings=Readings(
            connections=lambda: gateway.connection_count,
            connections_ended=lambda: {reason.value: count for reason, count in gateway.ended.items()},
            sessions=lambda: broker.session_count,
            messages_dropped=lambda: broker.dropped_count,
            stream_blocks=lambda: stream_topics.blocks_answered,
            workers_failing=lambda: len(workers.failing),
            metadata_ends=lambda: metadata_renewal.ends,
        ),
        first=first_start.Rooms(
            identities=identities,
            policies=access_policies,
            authorities=authorities,
            acm=acm,
            objects=objects,
            signing=signing,
            roots=roots,
        ),
    )
