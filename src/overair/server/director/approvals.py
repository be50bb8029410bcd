"""Campaigns that wait for the driver's word: shown to the vehicle, and moved by the events that it sends back (§3.6, §6.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.ids import AccountId, CampaignId, JobId, MultiTargetUpdateId, ThingName
from overair.basics.work import Tx
from overair.server.director.campaign_model import ApprovalState, Campaign
from overair.server.director.multi_target_update import evaluate
from overair.server.director.ports import CampaignStore, ImageTargets, UpdateStore, VehicleStore
from overair.server.director.settlement import status_details
from overair.server.jobs.model import PENDING_LISTED_MAX, STARTED, Execution, Report
from overair.server.jobs.service import JobsService
from overair.wire.job_messages import ExecutionStatus

DECLINED: Final = "DECLINED"
"""Result code of an execution that the driver wouldn't have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitingApproval:
    """A campaign as the vehicle shows it to its driver."""

    campaign: Campaign
    size_bytes: int
    """What would be downloaded."""


class Approvals:
    """Who has said what of which campaign."""

    def __init__(
        self,
        *,
        campaigns: CampaignStore,
        updates: UpdateStore,
        vehicles: VehicleStore,
        jobs: JobsService,
        images: ImageTargets,
        clock: Clock,
    ) -> None:
        self._campaigns = campaigns
        self._updates = updates
        self._vehicles = vehicles
        self._jobs = jobs
        self._images = images
        self._clock = clock

    def has_approved(self, tx: Tx, account: AccountId, thing: ThingName, job: JobId) -> bool:
        """Whether a vehicle may be given a job: nobody has to be asked, or the driver has accepted."""
        known = self._updates.find_job(tx, account, job)
        if known is None or not known.approval_needed or known.campaign is None:
            return True
        return self._campaigns.approval(tx, account, CampaignId(known.campaign), thing) is ApprovalState.ACCEPTED

    def awaiting(self, tx: Tx, account: AccountId, thing: ThingName) -> Sequence[AwaitingApproval]:
        """Campaigns that this vehicle's driver hasn't decided on, in the order of their executions."""
        waiting: list[AwaitingApproval] = []
        vehicle = None
        for execution in self._queued(tx, account, thing):
            known = self._updates.find_job(tx, account, execution.job)
            if known is None or not known.approval_needed or known.campaign is None:
                continue
            campaign = self._campaigns.find(tx, account, CampaignId(known.campaign))
            if campaign is None or self.has_approved(tx, account, thing, execution.job):
                continue
            vehicle = vehicle or self._vehicles.registered(tx, account, thing)
            update = self._updates.find_update(tx, account, MultiTargetUpdateId(campaign.update))
            size_bytes = 0
            if vehicle is not None and update is not None:
                evaluation = evaluate(update, vehicle, lambda name: self._images.find_target(tx, account, name))
                size_bytes = sum(target.to.length for target in evaluation.updates.values())
            waiting.append(AwaitingApproval(campaign=campaign, size_bytes=size_bytes))
        return waiting

    def decide(self, tx: Tx, place: Place, thing: ThingName, campaign: CampaignId, state: ApprovalState) -> None:
        """The driver's word. Of a campaign that isn't there, or isn't waiting for this vehicle, it changes nothing: events
        come late and more than once."""
        account = place.account
        found = self._campaigns.find(tx, account, campaign)
        if found is None or found.job is None or not found.approval_needed:
            return
        execution = next((each for each in self._queued(tx, account, thing) if each.job == found.job), None)
        if execution is None:
            return
        self._campaigns.put_approval(tx, account, campaign, thing, state, now=self._clock.now())
        if state is ApprovalState.DECLINED:
            report = Report(
                status=ExecutionStatus.REJECTED,
                status_details=status_details(DECLINED, f"The driver declined campaign {found.name}.", ""),
                execution_number=execution.number,
            )
            self._jobs.device.fulfil(tx, place, thing, execution.job, report)
        self._updates.set_stale(tx, account, thing)

    def _queued(self, tx: Tx, account: AccountId, thing: ThingName) -> Sequence[Execution]:
        queue = self._jobs.executions.pending_of(tx, account, [thing]).get(thing, ())
        return [each for each in queue[:PENDING_LISTED_MAX] if each.fulfilled and each.status not in STARTED]
