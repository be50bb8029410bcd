"""The devices' MQTT: sessions, reserved topics, and who is connected."""

from __future__ import annotations

from overair.server.broker.service import Broker
from overair.server.composition.buckets import BucketRooms
from overair.server.composition.entrance import EntranceRooms
from overair.server.composition.ground import Ground
from overair.server.composition.registry import RegistryRooms
from overair.server.composition.rollouts import RolloutRooms
from overair.server.fleet_index.connectivity import NODE_ALPHABET
from overair.server.gateway.limits import PROFILES
from overair.server.gateway.reserved_topics import ReservedTopics
from overair.server.gateway.service import Gateway
from overair.server.jobs.device_api import JobTopics
from overair.server.provisioning.fleet_topics import FleetProvisioningTopics
from overair.server.streams.device_api import StreamTopics


class GatewayRooms:
    """The rooms ``broker`` and ``gateway``, and what rooms above answer to devices' messages."""

    def __init__(
        self, ground: Ground, *, buckets: BucketRooms, registry: RegistryRooms, entrance: EntranceRooms, rollouts: RolloutRooms
    ) -> None:
        cluster = ground.cluster
        limits = PROFILES[ground.settings.limits]
        self.broker = Broker(
            work=ground.work,
            store=cluster.broker_store,
            clock=ground.clock,
            ids=ground.ids,
            limits_for=lambda _account: limits.broker,
        )
        cluster.connects(self.broker, session_expiry_ms=limits.broker.session_expiry_ms)
        topics = ReservedTopics()
        topics.register(
            JobTopics(
                work=ground.work,
                jobs=rollouts.jobs.device,
                clock=ground.schedule_clock,
                decryption=registry.decryption,
                rates=rollouts.job_requests,
            )
        )
        self.stream_topics = StreamTopics(
            work=ground.work, streams=rollouts.streams, descriptors=buckets.descriptors, contents=buckets.segments
        )
        topics.register(self.stream_topics)
        topics.register(
            FleetProvisioningTopics(
                work=ground.work, fleet=entrance.fleet_provisioning, hooks=entrance.hooks, clock=ground.clock
            )
        )
        self.gateway = Gateway(
            authority=registry.authority,
            broker=self.broker,
            topics=topics,
            limits_for=lambda _account: limits,
            clock=ground.clock,
            ids=ground.ids,
            denials=ground.observed,
        )
        registry.authority.watched_by(self.gateway)
        self.connectivity = rollouts.fleet_index.connectivity(
            self.broker,
            node=cluster.name or ground.ids.token(16, NODE_ALPHABET),
            living=cluster.living if cluster.name else None,
        )
        self.broker.watched_by(self.connectivity)
