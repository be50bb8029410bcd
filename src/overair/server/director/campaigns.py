"""Campaigns: an update for groups, under a name, perhaps with the driver's approval. Launched, a campaign is a job (§11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import InvalidRequest, InvalidStateTransition, NotFound
from overair.basics.ids import AccountId, CampaignId, GroupName, IdSource, JobId, MultiTargetUpdateId, ThingName
from overair.basics.work import Tx
from overair.server.director.approvals import Approvals
from overair.server.director.assignments import Assignments, uptane_job
from overair.server.director.campaign_model import Campaign, CampaignStatus, MetadataType
from overair.server.director.model import Assignment, AssignmentOutcome, DirectorJob, Origin
from overair.server.director.ports import CampaignStore, UpdateStore
from overair.server.jobs.model import TARGETS_MAX, Job, JobStatus
from overair.server.jobs.service import JobsService
from overair.wire.job_messages import ExecutionStatus

NAME_LENGTH_MAX: Final = 200
METADATA_LENGTH_MAX: Final = 4_096
CORRELATION: Final = "urn:here-ota:campaign:"
FAILURES_AT_ONCE: Final = 500

_STATUS: Final[Mapping[JobStatus, CampaignStatus]] = {
    JobStatus.SCHEDULED: CampaignStatus.LAUNCHED,
    JobStatus.IN_PROGRESS: CampaignStatus.LAUNCHED,
    JobStatus.COMPLETED: CampaignStatus.FINISHED,
    JobStatus.CANCELED: CampaignStatus.CANCELLED,
    JobStatus.DELETION_IN_PROGRESS: CampaignStatus.CANCELLED,
}
"""What a launched campaign is, by its job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignPlan:
    """What an operator asks for."""

    name: str
    update: str
    groups: tuple[GroupName, ...]
    metadata: Mapping[MetadataType, str]
    approval_needed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """Vehicles that failed with one code."""

    code: str
    count: int
    retry: CampaignStatus | None
    """Of the campaign that took them up, if one did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """How far a campaign is."""

    status: CampaignStatus
    processed: int
    """Vehicles looked at."""
    affected: int
    cancelled: int
    finished: int
    failed: int
    successful: int
    failures: Sequence[Failures]


class Groups(Protocol):
    """Thing groups (``devices.service.ThingGroupsService``)."""

    def find(self, tx: Tx, account: AccountId, name: GroupName) -> object: ...
    def create(self, tx: Tx, place: Place, name: GroupName) -> object: ...
    def add(self, tx: Tx, account: AccountId, group: GroupName, thing: ThingName) -> None: ...


class Campaigns:
    """Made, launched, followed, cancelled, tried again."""

    def __init__(
        self,
        *,
        campaigns: CampaignStore,
        updates: UpdateStore,
        assignments: Assignments,
        approvals: Approvals,
        jobs: JobsService,
        groups: Groups,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._campaigns = campaigns
        self._updates = updates
        self._assignments = assignments
        self.approvals = approvals
        self._jobs = jobs
        self._groups = groups
        self._clock = clock
        self._ids = ids

    def create(self, tx: Tx, account: AccountId, plan: CampaignPlan) -> Campaign:
        """Prepare a campaign; nothing is sent before ``launch``.

        Raises:
            InvalidRequest: subject ``campaign``.
            NotFound: an update or a group that isn't there. Subjects ``multi-target-update``, ``thing-group``.
        """
        _check_name(plan.name)
        if not 1 <= len(plan.groups) <= TARGETS_MAX:
            raise _refused(f"A campaign has 1 to {TARGETS_MAX} groups.", "groups")
        _check_metadata(plan.metadata)
        update = self._assignments.find_update(tx, account, plan.update)
        for group in plan.groups:
            self._groups.find(tx, account, group)
        return self._add(tx, account, plan, update.id)

    def find(self, tx: Tx, account: AccountId, campaign: str) -> Campaign:
        """Raises NotFound, subject ``campaign``."""
        found = self._campaigns.find(tx, account, CampaignId(campaign)) if len(campaign) <= 36 else None
        if found is None:
            raise NotFound(f"There is no campaign {campaign[:36]!r} in this account.", subject="campaign")
        return found

    def status(self, tx: Tx, account: AccountId, campaign: Campaign) -> CampaignStatus:
        job = self._job(tx, account, campaign)
        if campaign.job is None:
            return CampaignStatus.PREPARED if campaign.cancelled_at is None else CampaignStatus.CANCELLED
        # A job that an operator deleted has ended, one way or the other.
        return CampaignStatus.FINISHED if job is None else _STATUS[job.status]

    def page(
        self,
        tx: Tx,
        account: AccountId,
        *,
        status: CampaignStatus | None,
        name_contains: str,
        by_name: bool,
        offset: int,
        limit: int,
    ) -> tuple[int, Sequence[Campaign]]:
        """(how many there are, those of the page)."""
        if status is None:
            return self._campaigns.page(tx, account, name_contains=name_contains, by_name=by_name, offset=offset, limit=limit)
        wanted = [
            campaign
            for campaign in self._campaigns.all(tx, account)
            if self.status(tx, account, campaign) is status and name_contains.lower() in campaign.name.lower()
        ]
        if by_name:
            wanted.sort(key=lambda campaign: (campaign.name, campaign.id))
        return len(wanted), wanted[offset : offset + limit]

    def count_by_status(self, tx: Tx, account: AccountId) -> Mapping[CampaignStatus, int]:
        counts = dict.fromkeys(CampaignStatus, 0)
        for campaign in self._campaigns.all(tx, account):
            counts[self.status(tx, account, campaign)] += 1
        return counts

    def change(
        self, tx: Tx, account: AccountId, campaign: str, *, name: str, metadata: Mapping[MetadataType, str] | None
    ) -> Campaign:
        """Rename a campaign, and with ``metadata`` say something else to drivers.

        Raises:
            NotFound, InvalidRequest: subject ``campaign``.
        """
        found = self.find(tx, account, campaign)
        _check_name(name)
        if metadata is not None:
            _check_metadata(metadata)
        changed = replace(
            found,
            name=name,
            metadata=found.metadata if metadata is None else metadata,
            updated_at=self._clock.now(),
        )
        self._campaigns.save(tx, account, changed)
        return changed

    def launch(self, tx: Tx, place: Place, campaign: str) -> Campaign:
        """Make it a job.

        Raises:
            NotFound: the campaign, or one of its groups. Subjects ``campaign``, ``thing-group``.
            InvalidStateTransition: it was launched or cancelled before. Subject ``campaign``.
        """
        account = place.account
        found = self.find(tx, account, campaign)
        status = self.status(tx, account, found)
        if status is not CampaignStatus.PREPARED:
            raise InvalidStateTransition(
                f"Campaign {found.name} is {status}; only a prepared one can be launched.", subject="campaign"
            )
        job = JobId(f"campaign-{found.id}")
        self._updates.add_job(
            tx,
            account,
            DirectorJob(
                job=job,
                origin=Origin.CAMPAIGN,
                correlation_id=f"{CORRELATION}{found.id}",
                approval_needed=found.approval_needed,
                campaign=found.id,
            ),
        )
        launched = replace(found, job=job, updated_at=self._clock.now())
        self._campaigns.save(tx, account, launched)
        groups = [place.iot("thinggroup", group) for group in found.groups]
        self._jobs.create(tx, place, uptane_job(place, job, found.update, groups))
        return launched

    def cancel(self, tx: Tx, account: AccountId, campaign: str) -> Campaign:
        """Cancel it, and what vehicles have fetched of it.

        Raises:
            NotFound, InvalidStateTransition: subject ``campaign``.
        """
        found = self.find(tx, account, campaign)
        status = self.status(tx, account, found)
        now = self._clock.now()
        if status is CampaignStatus.PREPARED:
            cancelled = replace(found, cancelled_at=now, updated_at=now)
            self._campaigns.save(tx, account, cancelled)
            return cancelled
        if status is not CampaignStatus.LAUNCHED or found.job is None:
            raise InvalidStateTransition(f"Campaign {found.name} is {status}; it can't be cancelled.", subject="campaign")
        self._jobs.cancel(tx, account, found.job, comment=f"Campaign {found.name} was cancelled.", force=True)
        return found

    def cancel_device(self, tx: Tx, account: AccountId, campaign: str, thing: ThingName) -> None:
        """Take one vehicle out of a launched campaign.

        Raises:
            NotFound: subjects ``campaign``, ``execution``.
            InvalidStateTransition: the vehicle is through with it. Subject ``execution``.
        """
        found = self.find(tx, account, campaign)
        if found.job is None:
            raise NotFound(f"Campaign {found.name} isn't launched: no device is in it yet.", subject="execution")
        self._jobs.executions.cancel(tx, account, thing, found.job, force=True)

    def retries_of(self, tx: Tx, account: AccountId, campaign: Campaign) -> Sequence[Campaign]:
        """Those that took up its failures, the oldest first."""
        return self._campaigns.retries_of(tx, account, campaign.id)

    def stats(self, tx: Tx, account: AccountId, campaign: str) -> Stats:
        """Counted by the job's executions; failures by result code.

        Raises:
            NotFound: subject ``campaign``.
        """
        found = self.find(tx, account, campaign)
        job = self._job(tx, account, found)
        counts = job.counts if job is not None else {}
        left_out = self._updates.count_left_out(tx, account, found.job) if found.job is not None else 0

        def count(*statuses: ExecutionStatus) -> int:
            return sum(counts.get(status, 0) for status in statuses)

        affected = sum(counts.values())
        successful = count(ExecutionStatus.SUCCEEDED)
        failed = count(ExecutionStatus.FAILED, ExecutionStatus.TIMED_OUT)
        cancelled = count(ExecutionStatus.CANCELED, ExecutionStatus.REMOVED, ExecutionStatus.REJECTED)
        return Stats(
            status=self.status(tx, account, found),
            processed=affected + left_out,
            affected=affected,
            cancelled=cancelled,
            finished=successful + failed + cancelled,
            failed=failed,
            successful=successful,
            failures=self._failures(tx, account, found),
        )

    def failed_devices(
        self, tx: Tx, account: AccountId, campaign: str, code: str | None, *, after: str | None, limit: int
    ) -> Sequence[Assignment]:
        """Vehicles that failed, by thing; of one result code or of any.

        Raises:
            NotFound: subject ``campaign``.
        """
        found = self.find(tx, account, campaign)
        if found.job is None:
            return []
        return self._updates.failed_with(tx, account, found.job, code, after=after, limit=limit)

    def retry_failed(self, tx: Tx, place: Place, campaign: str, code: str) -> Campaign:
        """Launch a campaign for the vehicles that failed with a code, in a group made for them.

        Raises:
            NotFound: the campaign, or nobody failed so. Subjects ``campaign``, ``failure-code``.
            InvalidStateTransition: it was never launched, or these are being tried again. Subject ``campaign``.
        """
        account = place.account
        found = self.find(tx, account, campaign)
        if found.job is None:
            raise InvalidStateTransition(f"Campaign {found.name} isn't launched.", subject="campaign")
        for retry in self._campaigns.retries_of(tx, account, found.id):
            if retry.failure_code == code and self.status(tx, account, retry) is CampaignStatus.LAUNCHED:
                raise InvalidStateTransition(f"Campaign {retry.name} tries these vehicles again already.", subject="campaign")
        things = self._failed_things(tx, account, found.id, code)
        if not things:
            raise NotFound(
                f"No vehicle of campaign {found.name} failed with {code[:64]!r}.",
                subject="failure-code",
                details={"field": "failureCode"},
            )
        group = GroupName(f"retry-{self._ids.uuid()}")
        self._groups.create(tx, place, group)
        for thing in things:
            self._groups.add(tx, account, group, thing)
        plan = CampaignPlan(
            name=f"Retry of {found.name}"[:NAME_LENGTH_MAX],
            update=found.update,
            groups=(group,),
            metadata=found.metadata,
            approval_needed=found.approval_needed,
        )
        made = self._add(tx, account, plan, found.update, main_campaign=found.id, failure_code=code)
        return self.launch(tx, place, made.id)

    # ------------------------------------------------------------------------------------------------------------------

    def _add(
        self,
        tx: Tx,
        account: AccountId,
        plan: CampaignPlan,
        update: MultiTargetUpdateId,
        *,
        main_campaign: CampaignId | None = None,
        failure_code: str | None = None,
    ) -> Campaign:
        now = self._clock.now()
        made = Campaign(
            id=CampaignId(self._ids.uuid()),
            name=plan.name,
            update=update,
            groups=plan.groups,
            metadata=plan.metadata,
            approval_needed=plan.approval_needed,
            created_at=now,
            updated_at=now,
            main_campaign=main_campaign,
            failure_code=failure_code,
        )
        self._campaigns.add(tx, account, made)
        return made

    def _job(self, tx: Tx, account: AccountId, campaign: Campaign) -> Job | None:
        if campaign.job is None:
            return None
        try:
            return self._jobs.find(tx, account, campaign.job)
        except NotFound:
            return None

    def _failures(self, tx: Tx, account: AccountId, campaign: Campaign) -> list[Failures]:
        if campaign.job is None:
            return []
        retried = {
            retry.failure_code: self.status(tx, account, retry)
            for retry in self._campaigns.retries_of(tx, account, campaign.id)
        }
        results = self._updates.results_of_job(tx, account, campaign.job)
        return [
            Failures(code=code, count=count, retry=retried.get(code))
            for (outcome, code), count in sorted(results.items())
            if outcome is AssignmentOutcome.FAILED
        ]

    def _failed_things(self, tx: Tx, account: AccountId, campaign: CampaignId, code: str) -> list[ThingName]:
        things: list[ThingName] = []
        after = None
        while failed := self.failed_devices(tx, account, campaign, code, after=after, limit=FAILURES_AT_ONCE):
            things += [assignment.thing for assignment in failed]
            after = failed[-1].thing
        return list(dict.fromkeys(things))


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= NAME_LENGTH_MAX or not name.isprintable():
        raise _refused(f"A campaign's name has 1 to {NAME_LENGTH_MAX} printable characters.", "name")


def _check_metadata(metadata: Mapping[MetadataType, str]) -> None:
    if any(not value or len(value) > METADATA_LENGTH_MAX for value in metadata.values()):
        raise _refused(f"A value of metadata has 1 to {METADATA_LENGTH_MAX} characters.", "metadata")


def _refused(message: str, field: str) -> InvalidRequest:
    return InvalidRequest(message, subject="campaign", details={"field": field})
