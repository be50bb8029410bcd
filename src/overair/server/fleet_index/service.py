"""The fleet index, joined: what is indexed, who writes it, who asks it, and the groups that it fills."""

from __future__ import annotations

from collections.abc import Callable, Collection

from overair.basics.clock import Clock
from overair.basics.work import Tx, Work
from overair.server.devices.service import DevicesService
from overair.server.devices.thing_groups import ThingGroupsService
from overair.server.fleet_index.configurations import Configurations
from overair.server.fleet_index.connectivity import Connectivity
from overair.server.fleet_index.dynamic_groups import DynamicGroups
from overair.server.fleet_index.indexing import Indexer
from overair.server.fleet_index.ports import Connections, DocumentStore, JobStatuses, PackagesOnThings, SettingsStore
from overair.server.fleet_index.search import Question, Searches
from overair.server.fleet_index.worker import IndexBuilder

__all__ = ["FleetIndexService", "JobStatuses", "Question"]


class FleetIndexService:
    """The place where the room's parts are joined.

    Attributes:
        configurations: What each account has indexed.
        indexer: Writes single things and groups; hears of changes.
        searches: Answers queries.
        dynamic: Groups whose members a query finds.
        builder: The worker that fills indices and groups.
    """

    def __init__(
        self,
        *,
        work: Work,
        settings: SettingsStore,
        documents: DocumentStore,
        devices: DevicesService,
        groups: ThingGroupsService,
        clock: Clock,
        region: str,
        spread_ms: int = 0,
    ) -> None:
        self._work = work
        self._settings = settings
        self._documents = documents
        self._clock = clock
        self.configurations = Configurations(store=settings, groups=groups, clock=clock, spread_ms=spread_ms)
        self.indexer = Indexer(configurations=self.configurations, documents=documents, devices=devices, groups=groups)
        self.searches = Searches(documents=documents, configurations=self.configurations)
        self.dynamic = DynamicGroups(store=settings, groups=groups, configurations=self.configurations)
        self.builder = IndexBuilder(
            work=work,
            configurations=self.configurations,
            settings=settings,
            documents=documents,
            indexer=self.indexer,
            devices=devices,
            groups=groups,
            clock=clock,
            region=region,
        )
        devices.indexed_by(self.indexer)
        groups.indexed_by(self.indexer)

    def wake_with(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` on the event loop after each commit that left work for the builder."""
        self.configurations.wake = wake

    def hears_of_jobs_from(self, statuses: JobStatuses) -> None:
        """Register, at composition, who knows of executions."""
        self.indexer.jobs = statuses

    def hears_of_packages_from(self, packages: PackagesOnThings) -> None:
        """Register, at composition, who knows what jobs have put on things."""
        self.indexer.packages = packages

    def connectivity(
        self, connections: Connections, *, node: str, living: Callable[[Tx], Collection[str]] | None = None
    ) -> Connectivity:
        """The notes of this process's gateway, and the worker that writes them."""
        connectivity = Connectivity(
            work=self._work,
            settings=self._settings,
            documents=self._documents,
            indexer=self.indexer,
            connections=connections,
            clock=self._clock,
            node=node,
            living=living,
        )
        self.indexer.look = connectivity.look
        return connectivity
