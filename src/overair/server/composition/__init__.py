"""Who is joined to whom: every room gets what it asked for by a protocol.

``compose`` names the storeys of the house from the ground up; each file here joins one storey's rooms to each other and to
those below. These are the only files that name concrete stores and services.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.ids import IdSource
from overair.server import first_start
from overair.server.aws_protocol.dispatcher import AsgiApplication, Observe
from overair.server.certificates.authorities import ServerIdentity
from overair.server.composition.buckets import BucketRooms
from overair.server.composition.device_doors import DeviceDoors
from overair.server.composition.device_gateway import GatewayRooms
from overair.server.composition.entrance import EntranceRooms
from overair.server.composition.ground import Ground
from overair.server.composition.keys import KeyRooms
from overair.server.composition.operator_doors import OperatorDoors
from overair.server.composition.operators import OperatorRooms
from overair.server.composition.registry import RegistryRooms
from overair.server.composition.repositories import RepositoryRooms
from overair.server.composition.rollouts import RolloutRooms
from overair.server.composition.standing_work import StandingWork
from overair.server.config import Settings
from overair.server.joined import Joined
from overair.server.metrics import Readings
from overair.server.nodes.model import Role
from overair.server.state_directory import StateDirectory


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
    operator_address: Callable[[], str],
    show_identity: Callable[[ServerIdentity], None],
) -> Joined:
    """Join the rooms of one server. Opens the records and brings them to their newest shape; ``closing`` closes them.

    Args:
        schedule_clock: Jobs, windows and the expiry of presigned links.
        role: What this process holds of a server with several (``cluster.py``); None: all of it.
        after_step: Told the name of each saga step right after its commit.
        plain_routes: Paths of the operator port that need no signature.
        download_url: The device port as devices see it, asked for each link.
        operator_address: Host and port of the operator port. show_identity: Told of a new server certificate.
    """
    ground = Ground(
        settings,
        place,
        state,
        closing,
        clock=clock,
        ids=ids,
        schedule_clock=schedule_clock,
        after_step=after_step,
        role=role,
        download_url=download_url,
        operator_address=operator_address,
    )
    operators = OperatorRooms(ground)
    buckets = BucketRooms(ground, operators)
    registry = RegistryRooms(ground, operators)
    entrance = EntranceRooms(ground, operators=operators, buckets=buckets, registry=registry)
    repositories = RepositoryRooms(ground)
    keys = KeyRooms(ground, operators=operators, registry=registry, entrance=entrance, repositories=repositories)
    rollouts = RolloutRooms(
        ground,
        operators=operators,
        buckets=buckets,
        registry=registry,
        entrance=entrance,
        repositories=repositories,
    )
    gateway = GatewayRooms(ground, buckets=buckets, registry=registry, entrance=entrance, rollouts=rollouts)
    first = first_start.Rooms(
        accounts=operators.accounts,
        identities=operators.identities,
        policies=operators.policies,
        authorities=registry.authorities,
        acm=registry.acm,
        objects=buckets.objects,
        signing=rollouts.signing,
        roots=repositories.roots,
    )
    operator_doors = OperatorDoors(
        ground,
        first=first,
        operators=operators,
        buckets=buckets,
        registry=registry,
        entrance=entrance,
        repositories=repositories,
        rollouts=rollouts,
        gateway=gateway,
        keys=keys,
        plain_routes=plain_routes,
        observe=observe,
    )
    device_doors = DeviceDoors(
        ground,
        buckets=buckets,
        registry=registry,
        entrance=entrance,
        repositories=repositories,
        rollouts=rollouts,
        operator_doors=operator_doors,
        observe=observe_device,
    )
    standing = StandingWork(
        ground,
        operators=operators,
        buckets=buckets,
        registry=registry,
        entrance=entrance,
        repositories=repositories,
        rollouts=rollouts,
        gateway=gateway,
        keys=keys,
        show_identity=show_identity,
    )
    return Joined(
        work=ground.work,
        cluster=ground.cluster,
        workers=ground.workers,
        broker=gateway.broker,
        gateway=gateway.gateway,
        operator_door=operator_doors.aws,
        rest_door=operator_doors.rest,
        websockets=operator_doors.websockets,
        device_door=device_doors.paths,
        device_jobs_door=device_doors.jobs,
        downloads=device_doors.downloads,
        renewal=standing.renewal,
        before_the_doors_open=standing.before_the_doors_open,
        readings=Readings(
            connections=lambda: gateway.gateway.connection_count,
            connections_ended=lambda: {reason.value: count for reason, count in gateway.gateway.ended.items()},
            sessions=lambda: gateway.broker.session_count,
            messages_dropped=lambda: gateway.broker.dropped_count,
            stream_blocks=lambda: gateway.stream_topics.blocks_answered,
            workers_failing=lambda: len(ground.workers.failing),
            metadata_ends=lambda: standing.metadata_renewal.ends,
            first_ends=lambda: keys.warnings.ends,
            expiry_warnings=lambda: keys.warnings.warnings,
        ),
        first=first,
    )
