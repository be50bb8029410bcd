"""What goes on by itself, and what this process forgets when another one changes it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random

from overair.basics.errors import OverairError
from overair.server.access.key_uses import KeyUseWriter
from overair.server.broker.worker import SessionExpiry
from overair.server.certificates.authorities import ServerIdentity
from overair.server.certificates.renewal import NEWS as SERVER_CERTIFICATE_NEWS
from overair.server.certificates.renewal import ServerCertificateRenewal
from overair.server.composition.buckets import BucketRooms
from overair.server.composition.device_gateway import GatewayRooms
from overair.server.composition.entrance import EntranceRooms
from overair.server.composition.ground import Ground
from overair.server.composition.keys import KeyRooms
from overair.server.composition.operators import OperatorRooms
from overair.server.composition.registry import RegistryRooms
from overair.server.composition.repositories import RepositoryRooms
from overair.server.composition.rollouts import RolloutRooms
from overair.server.director.auto_updates import AutoUpdateWorker
from overair.server.image_repository.worker import MetadataRenewal
from overair.server.jobs.operator_executions import JobTimers
from overair.server.jobs.planning import JobPlanner
from overair.server.nodes.model import Role
from overair.server.objects.collector import ContentCollector
from overair.server.provisioning.registration_worker import RegistrationWorker
from overair.server.provisioning.renewals import Retirements
from overair.server.provisioning.worker import UnprovisionedCertificates
from overair.server.signing.worker import SigningWorker
from overair.server.storage.outbox import OutboxRelay
from overair.server.streams.worker import OddDownloads
from overair.server.updates.retention import Retention
from overair.server.updates.signature_watch import SignatureEnds
from overair.server.updates.worker import UpdatesWorker
from overair.server.workers.loop import Worker, WorkerLoop


class StandingWork:
    """Engages the workers, of which each process of a server with several runs its part."""

    def __init__(
        self,
        ground: Ground,
        *,
        operators: OperatorRooms,
        buckets: BucketRooms,
        registry: RegistryRooms,
        entrance: EntranceRooms,
        repositories: RepositoryRooms,
        rollouts: RolloutRooms,
        gateway: GatewayRooms,
        keys: KeyRooms,
        show_identity: Callable[[ServerIdentity], None],
    ) -> None:
        work, place, clock, schedule_clock = ground.work, ground.place, ground.clock, ground.schedule_clock
        jobs, updates, fleet_index = rollouts.jobs, rollouts.updates, rollouts.fleet_index
        self.renewal = ground.server_certificate = ServerCertificateRenewal(
            work=work,
            authorities=registry.authorities,
            account=place.account,
            hosts=ground.settings.host,
            clock=clock,
            show=show_identity,
            files=registry.server_files,
        )
        keys.file_end = self.renewal.file_end
        self.metadata_renewal = MetadataRenewal(
            work=work,
            roots=repositories.roots,
            images=repositories.images,
            uploads=repositories.uploads,
            erasure=repositories.erasure,
            region=place.region,
            clock=clock,
            life_began=ground.cluster.life_began,
        )

        def signing_went_on(step: str) -> None:
            ground.after_step(step)
            ground.wake(UpdatesWorker.name)

        every_worker: list[Worker] = [
            OutboxRelay(work, gateway.broker.deliver),
            SigningWorker(
                work=work,
                signing=rollouts.signing,
                keyring=ground.keyring,
                objects=buckets.objects,
                contents=buckets.contents,
                clock=clock,
                after_step=signing_went_on,
                trail=ground.audit_trail,
            ),
            UpdatesWorker(work=work, updates=updates, saga=rollouts.saga, after_step=ground.after_step),
            SignatureEnds(work=work, store=rollouts.updates_store, watch=rollouts.signatures, clock=clock),
            JobPlanner(work=work, planner=jobs.planner, clock=schedule_clock),
            ContentCollector(
                work=work,
                store=buckets.object_store,
                uploads=buckets.upload_store,
                contents=buckets.contents,
                segments=buckets.segments,
                others=[repositories.targets],
                clock=clock,
            ),
            SessionExpiry(broker=gateway.broker, clock=clock),
            self.renewal,
            self.metadata_renewal,
            JobTimers(work=work, executions=jobs.executions, clock=schedule_clock),
            Retention(work=work, jobs=jobs, updates=updates, keep_days=ground.settings.retention_days, clock=schedule_clock),
            AutoUpdateWorker(work=work, auto_updates=rollouts.director.auto_updates, region=place.region, clock=clock),
            fleet_index.builder,
            gateway.connectivity,
            OddDownloads(asked=gateway.stream_topics.asked, tell=ground.cluster.tell, clock=clock),
            ground.audit_writer,
            Retirements(work=work, renewals=entrance.renewals),
            keys.warnings,
            UnprovisionedCertificates(work=work, fleet=entrance.fleet_provisioning),
            RegistrationWorker(
                work=work,
                tasks=entrance.registration_tasks,
                contents=buckets.contents,
                after_step=ground.after_step,
            ),
            KeyUseWriter(work=work, uses=operators.credentials.uses, store=operators.identity_store, clock=clock),
        ]
        cluster = ground.cluster
        workers = ground.workers = WorkerLoop(
            cluster.workers_here(every_worker, gateway.broker, lambda: gateway.gateway.connection_count),
            random=Random(),
            elsewhere=[worker.name for worker in every_worker],
        )
        ground.observed.watched_by(ground.write_audit_soon)
        jobs.wake_with(lambda: cluster.wakes(workers, JobPlanner.name))
        fleet_index.wake_with(lambda: cluster.wakes(workers, fleet_index.builder.name))

        self._signs = cluster.has(Role.WORKERS)

        # What other processes of the server change, and this one holds in memory: gone as soon as their commit is heard.
        cluster.hears(SERVER_CERTIFICATE_NEWS, lambda _: ground.look_at_server_certificate())
        cluster.hears("device-access", registry.authority.heard)
        cluster.hears("grants", lambda _: operators.grants.evict())
        cluster.hears("credentials", lambda _: operators.credentials.evict())
        cluster.hears("bucket-policy", operators.bucket_policies.heard)
        cluster.hears("descriptors", buckets.descriptors.heard)
        cluster.hears("content-gone", buckets.segments.heard_gone)
        cluster.hears("key-gone", ground.keyring.heard_gone)
        cluster.hears("key-erasure", lambda _: repositories.erasure.note())
        cluster.hears("roots", repositories.director_roots.heard)
        cluster.hears("published", repositories.shelf.heard)
        cluster.hears("asked-blocks", gateway.stream_topics.asked.heard)
        cluster.hears("outbox", lambda _: workers.wake(OutboxRelay.name))
        cluster.hears("wake", lambda parts: workers.wake(parts[0] if parts else None))

    async def before_the_doors_open(self) -> None:
        """Sign anew what may come out of a backup: no device is to meet a lower version than it holds."""
        if self._signs:
            with suppress(OverairError):  # told in the log; the worker goes on from there
                await self.metadata_renewal.run_once()
