"""The Director: which ECU gets which image now. Its parts, joined."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from overair.basics.clock import Clock, Instant
from overair.basics.ids import AccountId, GroupName, IdSource, MultiTargetUpdateId, ThingName
from overair.basics.work import Tx
from overair.server.director.approvals import Approvals, AwaitingApproval
from overair.server.director.assignments import Affected, Assignments, QueuedAssignment
from overair.server.director.auto_updates import AutoUpdates
from overair.server.director.campaigns import CampaignPlan, Campaigns, Groups
from overair.server.director.device_records import DataKind, DeviceRecords
from overair.server.director.fulfilment import DirectorFulfilment
from overair.server.director.manifests import Manifests
from overair.server.director.metadata import DirectorMetadata
from overair.server.director.ports import (
    CampaignStore,
    DeviceQuery,
    Enrolment,
    ImageTargets,
    OddityStore,
    RecordStore,
    UpdateStore,
    VehicleStore,
)
from overair.server.director.registration import EcuRegistrations
from overair.server.director.views import VehicleFacts, VehicleViews
from overair.server.jobs.model import JobStatus
from overair.server.jobs.service import JobsService
from overair.server.roots.service import RootsService

__all__ = [
    "Affected",
    "AwaitingApproval",
    "CampaignPlan",
    "DataKind",
    "DeviceQuery",
    "DirectorService",
    "Enrolment",
    "QueuedAssignment",
    "VehicleFacts",
]

JOBS_PER_PAGE: Final = 200


class DirectorService:
    """Where the room's parts are joined; also the Image repository's ``InUse`` and the registry's ``MembershipChanged``.

    Attributes:
        registrations: Which ECUs a vehicle has.
        manifests: What runs on them.
        metadata: What a vehicle is told.
        fulfilment: What jobs ask of the Director.
        assignments: Multi-target updates, and vehicles named one by one.
        campaigns: Updates for groups; ``campaigns.approvals`` are the drivers' words.
        auto_updates: ECUs that are updated by themselves.
        records: What vehicles tell of themselves.
        views: What is known of a vehicle, for operators.
    """

    def __init__(
        self,
        *,
        vehicles: VehicleStore,
        oddities: OddityStore,
        updates: UpdateStore,
        records: RecordStore,
        campaigns: CampaignStore,
        jobs: JobsService,
        roots: RootsService,
        images: ImageTargets,
        groups: Groups,
        enrolment: Enrolment,
        clock: Clock,
        ids: IdSource,
        life_began: Instant | None = None,
    ) -> None:
        """``life_began``: of the server, where this process isn't all of it; otherwise now."""
        self._vehicles = vehicles
        self._oddities = oddities
        self._updates = updates
        self._records = records
        self._campaigns = campaigns
        self._jobs = jobs
        approvals = Approvals(campaigns=campaigns, updates=updates, vehicles=vehicles, jobs=jobs, images=images, clock=clock)
        self.registrations = EcuRegistrations(
            vehicles=vehicles, oddities=oddities, updates=updates, jobs=jobs, enrolment=enrolment, clock=clock
        )
        self.manifests = Manifests(
            vehicles=vehicles, oddities=oddities, updates=updates, records=records, jobs=jobs, clock=clock
        )
        self.metadata = DirectorMetadata(
            vehicles=vehicles,
            updates=updates,
            approvals=approvals,
            jobs=jobs,
            roots=roots,
            images=images,
            clock=clock,
            ids=ids,
            life_began=life_began,
        )
        self.fulfilment = DirectorFulfilment(
            vehicles=vehicles,
            updates=updates,
            metadata=self.metadata,
            jobs=jobs,
            roots=roots,
            images=images,
            clock=clock,
        )
        self.assignments = Assignments(vehicles=vehicles, updates=updates, jobs=jobs, images=images, clock=clock, ids=ids)
        self.campaigns = Campaigns(
            campaigns=campaigns,
            updates=updates,
            assignments=self.assignments,
            approvals=approvals,
            jobs=jobs,
            groups=groups,
            clock=clock,
            ids=ids,
        )
        self.auto_updates = AutoUpdates(
            campaigns=campaigns,
            vehicles=vehicles,
            updates=updates,
            assignments=self.assignments,
            images=images,
            clock=clock,
            ids=ids,
        )
        self.records = DeviceRecords(
            vehicles=vehicles, updates=updates, records=records, approvals=approvals, jobs=jobs, clock=clock
        )
        self.views = VehicleViews(vehicles=vehicles, oddities=oddities, updates=updates, records=records)
        jobs.fulfilled_by(self.fulfilment)

    # Whom the Image repository asks (image_repository.ports.InUse) --------------------------------------------------------

    def targets_in_use(self, tx: Tx, account: AccountId, names: Collection[str]) -> Mapping[str, str]:
        """Those among some targets' names that are assigned or installed anywhere, with words for it."""
        if not names or not self._vehicles.has_any(tx, account):
            return {}
        used = {
            name: f"installed on {count} ECU{'' if count == 1 else 's'}"
            for name, count in self._vehicles.count_installed(tx, account, names).items()
        }
        for name in self._assigned_names(tx, account) & frozenset(names):
            used[name] = f"assigned, {used[name]}" if name in used else "assigned"
        return used

    def _assigned_names(self, tx: Tx, account: AccountId) -> frozenset[str]:
        update_ids = set(self._updates.open_updates(tx, account))
        before = None
        while jobs := self._jobs.page(tx, account, status=JobStatus.IN_PROGRESS, before=before, limit=JOBS_PER_PAGE):
            update_ids |= {MultiTargetUpdateId(job.fulfilment) for job in jobs if job.fulfilment is not None}
            before = jobs[-1].sequence
        names: set[str] = set()
        for update_id in update_ids:
            update = self._updates.find_update(tx, account, update_id)
            if update is not None:
                names |= {target.to.name for target in update.targets.values()}
        return frozenset(names)

    # Whom the registry tells (devices.ports.MembershipChanged) ------------------------------------------------------------

    def joined(self, tx: Tx, account: AccountId, thing: ThingName, group: GroupName) -> None:
        """Jobs follow groups; nothing of it is the Director's."""

    def left(self, tx: Tx, account: AccountId, thing: ThingName, group: GroupName) -> None:
        """Jobs follow groups; nothing of it is the Director's."""

    def thing_deleted(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """All that was kept of a vehicle goes, but for the version of its targets. To be told before jobs are."""
        for store in (self._vehicles, self._oddities, self._updates, self._records, self._campaigns):
            store.forget(tx, account, thing)
