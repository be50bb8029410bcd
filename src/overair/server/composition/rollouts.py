"""What reaches which device: the index that fills groups, signing, streams, jobs, the Director; updates, which join them."""

from __future__ import annotations

from overair.server.composition.buckets import BucketRooms
from overair.server.composition.entrance import EntranceRooms
from overair.server.composition.ground import Ground
from overair.server.composition.operators import OperatorRooms
from overair.server.composition.registry import RegistryRooms
from overair.server.composition.repositories import RepositoryRooms
from overair.server.director.importing import VehicleImports
from overair.server.director.service import DirectorService
from overair.server.director.store import SqlCampaignStore, SqlOddityStore, SqlRecordStore, SqlUpdateStore, SqlVehicleStore
from overair.server.explain.service import ExplainService
from overair.server.fleet_index.configurations import SPREAD_MS
from overair.server.fleet_index.service import FleetIndexService
from overair.server.fleet_index.store import SqlDocumentStore, SqlSettingsStore
from overair.server.gateway.limits import PROFILES
from overair.server.jobs.event_store import SqlEventConfigurations
from overair.server.jobs.execution_store import SqlExecutionStore
from overair.server.jobs.presigning import RolePresigner
from overair.server.jobs.request_rates import RequestRates
from overair.server.jobs.service import JobsService
from overair.server.jobs.store import SqlJobStore
from overair.server.jobs.tallies import JobTallies
from overair.server.jobs.tally_store import SqlTallyStore
from overair.server.jobs.template_store import SqlTemplateStore
from overair.server.packages.installed import InstalledPackages
from overair.server.packages.service import PackagesService
from overair.server.packages.store import SqlPackageStore
from overair.server.signing.permissions import ProfilePermissions
from overair.server.signing.service import SigningService
from overair.server.signing.store import SqlSigningStore
from overair.server.streams.model import Versions
from overair.server.streams.service import StreamsService
from overair.server.streams.store import SqlStreamsStore
from overair.server.updates.saga import Saga
from overair.server.updates.service import UpdatesService
from overair.server.updates.signature_watch import SignatureWatch
from overair.server.updates.store import SqlUpdatesStore
from overair.server.updates.worker import UpdatesWorker


class RolloutRooms:
    """The rooms ``fleet_index``, ``signing``, ``streams``, ``packages``, ``jobs``, ``director``, ``updates``, ``explain``."""

    def __init__(
        self,
        ground: Ground,
        *,
        operators: OperatorRooms,
        buckets: BucketRooms,
        registry: RegistryRooms,
        entrance: EntranceRooms,
        repositories: RepositoryRooms,
    ) -> None:
        clock, schedule_clock, ids = ground.clock, ground.schedule_clock, ground.ids
        access, objects = operators.access, buckets.objects
        devices, groups, tags = registry.devices, registry.groups, registry.tags
        self.fleet_index = FleetIndexService(
            work=ground.work,
            settings=SqlSettingsStore(),
            documents=SqlDocumentStore(),
            devices=devices,
            groups=groups,
            clock=clock,
            region=ground.place.region,
            spread_ms=SPREAD_MS if ground.settings.database is not None else 0,
        )
        self.profile_permissions = ProfilePermissions(SqlSigningStore())
        self.signing = SigningService(
            store=SqlSigningStore(),
            clock=clock,
            ids=ids,
            certificates=registry.acm,
            keyring=ground.keyring,
            objects=objects,
            wake=ground.wake,  # the update that waits for a signature goes on as soon as it is there
        )
        registry.acm.used_by(self.signing)
        self.streams = StreamsService(
            store=SqlStreamsStore(),
            objects=objects,
            roles=access,
            tags=tags,
            clock=clock,
            descriptors=buckets.descriptors,
            versions=Versions(restores=ground.restores.count, restored_at=ground.restores.restored_at),
        )
        package_store = SqlPackageStore()
        self.packages = PackagesService(store=package_store, roles=access, objects=objects, tags=tags, clock=schedule_clock)
        self.installed = InstalledPackages(store=package_store, things=devices)
        self.jobs = JobsService(
            jobs=SqlJobStore(),
            executions=SqlExecutionStore(),
            members=devices,
            groups=groups,
            roles=access,
            presigner=RolePresigner(
                roles=access, links=operators.link_keys, clock=schedule_clock, base_url=ground.download_url
            ),
            tags=tags,
            events=SqlEventConfigurations(),
            templates=SqlTemplateStore(),
            clock=schedule_clock,
            ids=ids,
        )
        limits = PROFILES[ground.settings.limits]
        self.job_requests = RequestRates(
            clock=clock, reads_per_s_max=limits.jobs_reads_per_s_max, writes_per_s_max=limits.jobs_writes_per_s_max
        )
        self.jobs.deploys_from(self.packages, self.installed)
        self.installed.searched_by(self.fleet_index.indexer)
        self.fleet_index.hears_of_packages_from(self.installed)
        self.jobs.decrypted_by(registry.decryption)
        registry.decryption.watched_by(self.jobs.planner)
        devices.provisioning_watched_by(self.jobs)
        self.jobs.searched_by(self.fleet_index.indexer)
        self.fleet_index.hears_of_jobs_from(self.jobs)
        # Which ECU gets which image now. It hears of a deleted thing before jobs do.
        self.director = DirectorService(
            vehicles=SqlVehicleStore(),
            oddities=SqlOddityStore(),
            updates=SqlUpdateStore(),
            records=SqlRecordStore(),
            campaigns=SqlCampaignStore(),
            jobs=self.jobs,
            roots=repositories.roots,
            images=repositories.images,
            groups=groups,
            enrolment=entrance.provisioning,
            clock=clock,
            ids=ids,
            life_began=ground.cluster.life_began,
        )
        self.vehicle_imports = VehicleImports(
            vehicles=SqlVehicleStore(),
            updates=SqlUpdateStore(),
            certificates=entrance.certificate_imports,
            enrolment=entrance.provisioning,
            things=devices,
            clock=clock,
        )
        repositories.images.used_by(self.director)
        groups.watched_by(self.director)
        groups.watched_by(entrance.provisioning)
        groups.watched_by(self.installed)
        groups.watched_by(registry.decryption)
        groups.watched_by(self.jobs.planner)
        groups.guarded_by(self.jobs.signing_rule)
        updates_store = SqlUpdatesStore()
        self.updates = UpdatesService(
            store=updates_store,
            clock=clock,
            ids=ids,
            access=access,
            objects=objects,
            streams=self.streams,
            jobs=self.jobs,
            targets=devices,
            tags=tags,
            held_keys=registry.acm,
            wake=lambda: ground.wake(UpdatesWorker.name),
        )
        self.updates_store = updates_store
        self.signatures = SignatureWatch(store=updates_store, signing=self.signing, jobs=self.jobs)
        self.signing.signatures_used_by(self.signatures)
        self.saga = Saga(
            store=updates_store,
            clock=clock,
            access=access,
            objects=objects,
            signing=self.signing,
            streams=self.streams,
            jobs=self.jobs,
            held_keys=registry.acm,
            signatures=self.signatures,
        )
        self.tallies = JobTallies(SqlTallyStore())
        self.explain = ExplainService(
            devices=devices,
            groups=groups,
            certificates=registry.certificates,
            jobs=self.jobs,
            tallies=self.tallies,
            updates=self.updates,
            signing=self.signing,
            vehicles=self.director.views,
            blocks=entrance.provisioning,
            identities=entrance.provisioning,
            decryption=registry.decryption,
            clock=clock,
        )
