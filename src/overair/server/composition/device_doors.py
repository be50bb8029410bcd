"""The devices' HTTPS: Uptane's paths, jobs, and presigned downloads."""

from __future__ import annotations

from overair.server.aws_protocol.dispatcher import Observe
from overair.server.composition.buckets import BucketRooms
from overair.server.composition.entrance import EntranceRooms
from overair.server.composition.ground import Ground
from overair.server.composition.operator_doors import OperatorDoors
from overair.server.composition.registry import RegistryRooms
from overair.server.composition.repositories import RepositoryRooms
from overair.server.composition.rollouts import RolloutRooms
from overair.server.director.device_api import DirectorDeviceApi
from overair.server.image_repository.device_api import ImageRepositoryDeviceApi
from overair.server.jobs.device_https import DeviceJobsDoor
from overair.server.jobs.jobs_data_api import JobsDataOperations
from overair.server.objects.presigned_downloads import PresignedDownloads
from overair.server.provisioning.authenticator import ProvisioningAuthenticator
from overair.server.provisioning.device_api import ProvisioningDeviceApi
from overair.server.provisioning.est_api import EstDeviceApi
from overair.server.rest.device_door import DeviceDoor


class DeviceDoors:
    """What the device port answers."""

    def __init__(
        self,
        ground: Ground,
        *,
        buckets: BucketRooms,
        registry: RegistryRooms,
        entrance: EntranceRooms,
        repositories: RepositoryRooms,
        rollouts: RolloutRooms,
        operator_doors: OperatorDoors,
        observe: Observe,
    ) -> None:
        work, clock, ids = ground.work, ground.clock, ground.ids
        proved = ProvisioningAuthenticator(
            work=work,
            authority=registry.authority,
            credentials=entrance.credentials,
            clock=clock,
            region=ground.place.region,
        )
        self.paths = DeviceDoor(proved, ids=ids, observe=observe, denials=ground.observed)
        self.paths.add(
            ProvisioningDeviceApi(work=work, credentials=entrance.credentials, minting=entrance.minting, clock=clock),
            EstDeviceApi(work=work, reenrolment=entrance.reenrolment, clock=clock),
            ImageRepositoryDeviceApi(shelf=repositories.shelf, probes=repositories.root_probes, contents=buckets.contents),
            DirectorDeviceApi(
                work=work,
                director=rollouts.director,
                roots=repositories.director_roots,
                probes=repositories.root_probes,
            ),
        )
        self.jobs = DeviceJobsDoor(
            authority=registry.authority,
            operations=JobsDataOperations(
                work=work, jobs=rollouts.jobs.device, clock=ground.schedule_clock, rates=rollouts.job_requests
            ),
            clock=clock,
            ids=ids,
            observe=observe,
            denials=ground.observed,
        )
        self.downloads = PresignedDownloads(
            authenticator=operator_doors.authenticator,
            authoriser=operator_doors.authoriser,
            downloads=operator_doors.objects_api,
            ids=ids,
            observe=observe,
            witness=ground.observed,
        )
