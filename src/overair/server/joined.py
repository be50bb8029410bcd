"""What the server's life and its doors need of the rooms, once they are joined."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from overair.basics.clock import Clock
from overair.server import first_start
from overair.server.access.websockets import OperatorProofs
from overair.server.aws_protocol.dispatcher import AwsProtocol
from overair.server.broker.service import Broker
from overair.server.certificates.renewal import ServerCertificateRenewal
from overair.server.cluster import Cluster
from overair.server.config import Settings
from overair.server.gateway.service import Gateway
from overair.server.jobs.device_https import DeviceJobsDoor
from overair.server.metrics import Readings
from overair.server.objects.presigned_downloads import PresignedDownloads
from overair.server.rest.device_door import DeviceDoor
from overair.server.rest.door import RestDoor
from overair.server.state_directory import StateDirectory
from overair.server.storage.work import SqlWork, open_postgresql, open_sqlite
from overair.server.workers.loop import WorkerLoop


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What the server's life needs of the rooms."""

    work: SqlWork
    cluster: Cluster
    workers: WorkerLoop
    broker: Broker
    gateway: Gateway
    operator_door: AwsProtocol
    rest_door: RestDoor
    websockets: OperatorProofs
    device_door: DeviceDoor
    device_jobs_door: DeviceJobsDoor
    downloads: PresignedDownloads
    renewal: ServerCertificateRenewal
    before_the_doors_open: Callable[[], Awaitable[None]]
    readings: Readings
    first: first_start.Rooms


def open_records(settings: Settings, state: StateDirectory, clock: Clock) -> SqlWork:
    """The records, in the state directory or in the PostgreSQL that was named."""
    if settings.database is not None:
        return open_postgresql(settings.database, clock=clock)
    return open_sqlite(state.records_file, clock=clock)
