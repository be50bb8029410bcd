"""What may be done with jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import (
    AccessDenied,
    AlreadyExists,
    InvalidRequest,
    InvalidStateTransition,
    LimitExceeded,
    NotFound,
)
from overair.basics.ids import AccountId, GroupName, IdSource, JobId, ThingName
from overair.basics.work import Tx
from overair.server.jobs.announcements import Announcer
from overair.server.jobs.device_jobs import DeviceJobs
from overair.server.jobs.documents import DeviceDocuments, check_document, fulfilment_named_in
from overair.server.jobs.encrypted_images import encryptions_in
from overair.server.jobs.event_publisher import JobEvents
from overair.server.jobs.events import JobEvent
from overair.server.jobs.lifecycle import Lifecycle
from overair.server.jobs.model import (
    DELETIONS_MAX,
    JOB_DELETABLE_WITHOUT_FORCE,
    JOB_ID,
    JOB_MAY_BECOME,
    TARGETS_IN_ALL_MAX,
    TARGETS_MAX,
    Given,
    Job,
    JobPhase,
    JobPlan,
    JobSettings,
    JobStatus,
    JobTarget,
    PresignConfig,
    TargetSelection,
)
from overair.server.jobs.namespaces import check_namespace
from overair.server.jobs.operator_executions import OperatorExecutions
from overair.server.jobs.planning import Planner
from overair.server.jobs.ports import (
    Chosen,
    Decryption,
    EventConfigurations,
    ExecutionStore,
    Fulfilment,
    InstalledPackages,
    JobMembers,
    JobStore,
    Presigner,
    ServiceRoles,
    SoftwareCatalogue,
    StatusesChanged,
    Tags,
    TemplateStore,
    ThingsGroups,
)
from overair.server.jobs.resets import ResetWatch
from overair.server.jobs.schedule import check_schedule, opens_at
from overair.server.jobs.signing_rule import SigningRule
from overair.server.jobs.templates import JobTemplates

__all__ = ["Chosen", "Fulfilment", "JobsService"]

THINGS_LOOKED_UP_AT_ONCE: Final = 1_000
THINGS_AT_ONCE_MAX: Final = 100
"""Things that a call itself takes along; the rest is the planner's. Small jobs are so whole when the call returns."""


STATUSES_OF_THING_MAX: Final = 1_000
"""Executions of one thing that an index takes in when it is built."""


class JobsService:
    """The operator's side of jobs, and the place where the room's parts are joined.

    Attributes:
        device: The device's side.
        executions: The operator's side of executions.
        planner: Background work, and the registry's ``MembershipChanged``.
        events: What is told of jobs on ``$aws/events/…``.
        templates: What jobs are made from.
        signing_rule: Which groups take which images; the registry's ``MembershipGuard``.
    """

    def __init__(
        self,
        *,
        jobs: JobStore,
        executions: ExecutionStore,
        members: JobMembers,
        groups: ThingsGroups,
        roles: ServiceRoles,
        presigner: Presigner,
        tags: Tags,
        events: EventConfigurations,
        templates: TemplateStore,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._jobs = jobs
        self._executions = executions
        self._members = members
        self._groups = groups
        self._roles = roles
        self._tags = tags
        self._clock = clock
        documents = DeviceDocuments(jobs=jobs, presigner=presigner)
        announcer = Announcer(jobs=jobs, executions=executions, documents=documents)
        self.events = JobEvents(jobs=jobs, configurations=events, ids=ids, clock=clock)
        self.signing_rule = SigningRule(jobs=jobs, members=members)
        self._lifecycle = Lifecycle(
            jobs=jobs, executions=executions, announcer=announcer, events=self.events, signing_rule=self.signing_rule
        )
        self.planner = Planner(
            jobs=jobs,
            executions=executions,
            members=members,
            groups=groups,
            tags=tags,
            lifecycle=self._lifecycle,
            events=self.events,
            clock=clock,
        )
        self._lifecycle.details_reported = ResetWatch(executions=executions, give_again=self.planner.give_again).reported
        self.device = DeviceJobs(
            jobs=jobs,
            executions=executions,
            members=members,
            documents=documents,
            lifecycle=self._lifecycle,
            clock=clock,
        )
        self.executions = OperatorExecutions(
            jobs=jobs, executions=executions, members=members, lifecycle=self._lifecycle, clock=clock
        )
        self.templates = JobTemplates(store=templates, roles=roles, tags=tags, packages=self._lifecycle.packages, clock=clock)
        tags.accept("job", lambda tx, account, name: jobs.find(tx, account, JobId(name)) is not None)

    def wake_with(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` on the event loop after each commit that left background work, so that nobody waits for a tick."""
        self._lifecycle.wake = wake

    def searched_by(self, statuses: StatusesChanged) -> None:
        """Register, at composition, the index that must know of executions' states."""
        self._lifecycle.statuses = statuses

    def statuses_of(self, tx: Tx, account: AccountId, thing: ThingName) -> Mapping[str, str]:
        """The state of a thing's latest execution of each job, newest jobs first, as many as an index keeps."""
        found = self._executions.of_thing(tx, account, thing, status=None, job=None, before=None, limit=STATUSES_OF_THING_MAX)
        return {execution.job: execution.status.value for execution in found if execution.latest}

    def deploys_from(self, catalogue: SoftwareCatalogue, installed: InstalledPackages) -> None:
        """Register, at composition, the catalogue of package versions, and who writes down which of them are on things."""
        self._lifecycle.packages.catalogue = catalogue
        self._lifecycle.packages.installed = installed

    def decrypted_by(self, decryption: Decryption) -> None:
        """Register, at composition, who knows which things can read encrypted images."""
        self._lifecycle.decryption = decryption

    def fulfilled_by(self, fulfilment: Fulfilment) -> None:
        """Register, at composition, the room above that brings jobs to things that have ECUs."""
        self._lifecycle.fulfilment = fulfilment

    def require_fulfilment(self, tx: Tx, account: AccountId, fulfilment: str) -> None:
        """What a job is to bring to things that have ECUs is there. Raises NotFound."""
        self._lifecycle.fulfilment.require(tx, account, fulfilment)

    def count_with_status(self, tx: Tx, account: AccountId, status: JobStatus) -> int:
        """How many of the account's jobs are in a state."""
        return self._jobs.count_with_status(tx, account, status)

    def ended_before(self, tx: Tx, moment: Instant, *, limit: int) -> Sequence[Job]:
        """Jobs of any account that ended before a moment, oldest first; not those that another room fulfils."""
        return self._jobs.ended_before(tx, moment, limit=limit)

    # Jobs -----------------------------------------------------------------------------------------------------------------

    def create(self, tx: Tx, place: Place, plan: JobPlan) -> Job:
        """Make a job and queue its first things.

        Raises:
            AlreadyExists: the id is taken, also by a job that is being deleted. Subject ``job``.
            InvalidRequest: subjects ``job``, ``job-document``, ``package-version``, ``target``, ``role``, ``schedule``.
            NotFound: a target, a package version, or what it wants fulfilled, isn't there.
        """
        if not JOB_ID.fullmatch(plan.id):
            raise InvalidRequest("A job's id has 1 to 64 of a-z, A-Z, 0-9, '_' and '-'.", subject="job")
        if self._jobs.find(tx, place.account, plan.id) is not None:
            raise AlreadyExists(
                f"Job {plan.id} already exists. Choose another id.",
                subject="job",
                details={"resourceId": plan.id, "resourceArn": place.iot("job", plan.id)},
            )
        targets = tuple(dict.fromkeys(plan.targets))
        if not 1 <= len(targets) <= TARGETS_IN_ALL_MAX:
            raise InvalidRequest(f"A job has 1 to {TARGETS_IN_ALL_MAX} targets, not {len(targets)}.", subject="target")
        check_document(plan.document, plan.settings.presign)
        filled = self._lifecycle.packages.fill(
            tx, place, plan.document, plan.destination_package_versions, signed=plan.settings.presign is not None
        )
        given = None
        if (filled.document, filled.package_versions) != (plan.document, plan.destination_package_versions):
            given = Given(document=plan.document, package_versions=plan.destination_package_versions)
            check_document(filled.document, plan.settings.presign)
        fulfilment = plan.fulfilment or fulfilment_named_in(filled.document)
        if fulfilment is not None:
            self._lifecycle.fulfilment.require(tx, place.account, fulfilment)
        if plan.namespace is not None:
            check_namespace(plan.namespace, fulfilment=fulfilment)
        self._require_targets(tx, place, targets)
        if not plan.offline_signed:
            self.signing_rule.require_for_document(tx, place, targets, filled.document)
        now = self._clock.now()
        waits = False
        if plan.schedule is not None:
            check_schedule(plan.schedule, plan.target_selection, now=now)
            waits = opens_at(plan.schedule, now=now) != now
        job = Job(
            id=plan.id,
            sequence=self._jobs.next_sequence(tx, place.account),
            place=place,
            status=JobStatus.SCHEDULED if waits else JobStatus.IN_PROGRESS,
            phase=JobPhase.ROLLING_OUT,
            target_selection=plan.target_selection,
            settings=plan.settings,
            created_at=now,
            last_updated_at=now,
            next_step_at=now,
            document_source=plan.document_source,
            destination_package_versions=filled.package_versions,
            fulfilment=fulfilment,
            schedule=plan.schedule,
            ends_at=None if plan.schedule is None else plan.schedule.ends_at,
            template_arn=plan.template_arn,
            document_parameters=plan.document_parameters,
            namespace=plan.namespace,
            offline_signed=plan.offline_signed,
            encrypted=bool(encryptions_in(filled.document)),
        )
        self._check_role(tx, job, plan.settings.presign)
        named = [JobTarget(position=position, arn=arn) for position, arn in enumerate(targets)]
        self._jobs.insert(tx, job, filled.document, named, given=given)
        self._tags.set_new(tx, place, job.arn, plan.tags)
        return self._advanced(tx, job, now=now)

    def find(self, tx: Tx, account: AccountId, job: JobId, *, namespace: str | None = None) -> Job:
        """A job by its name, and of this namespace if one is named. Raises NotFound, subject ``job``."""
        found = self._jobs.find(tx, account, job) if JOB_ID.fullmatch(job) else None
        if found is None:
            raise NotFound(f"There is no job {job[:64]!r} in this account.", subject="job")
        if namespace is not None and found.namespace != namespace:
            where = "in no namespace" if found.namespace is None else f"in namespace {found.namespace}"
            raise NotFound(f"There is no job {job} in namespace {namespace[:64]!r}: it is {where}.", subject="job")
        return found

    def group_arn(self, tx: Tx, place: Place, group_id: str) -> str:
        """The ARN of a thing group by its UUID. Raises NotFound."""
        return place.iot("thinggroup", self._groups.name_of(tx, place.account, group_id))

    def document(self, tx: Tx, account: AccountId, job: JobId) -> str:
        """The document with its package versions filled in; placeholders for presigned URLs stay. Raises NotFound, subject
        ``job``."""
        self.find(tx, account, job)
        return self._jobs.document(tx, account, job) or ""

    def given(self, tx: Tx, job: Job) -> Given:
        """The document and the package versions as they were given."""
        given = self._jobs.given(tx, job.place.account, job.id)
        if given is not None:
            return given
        document = self._jobs.document(tx, job.place.account, job.id) or ""
        return Given(document=document, package_versions=job.destination_package_versions)

    def targets(self, tx: Tx, account: AccountId, job: JobId) -> Sequence[JobTarget]:
        return self._jobs.targets(tx, account, job)

    def page(
        self,
        tx: Tx,
        account: AccountId,
        *,
        status: JobStatus | None = None,
        target_selection: TargetSelection | None = None,
        target: str | None = None,
        namespace: str | None = None,
        before: int | None = None,
        limit: int,
    ) -> Sequence[Job]:
        """Jobs, newest first; ``before`` is the sequence of the last one given, ``target`` an ARN among a job's targets. None
        stands for no filter."""
        return self._jobs.page(
            tx,
            account,
            status=status,
            target_selection=target_selection,
            target=target,
            namespace=namespace,
            before=before,
            limit=limit,
        )

    def change(self, tx: Tx, account: AccountId, job: JobId, settings: Callable[[JobSettings], JobSettings]) -> Job:
        """Change a job's settings. A timeout counts only for executions that haven't started.

        Raises:
            NotFound: subject ``job``.
            InvalidRequest: the job has ended (subject ``job``), or the role (subject ``role``).
        """
        found = self.find(tx, account, job)
        if JobStatus.CANCELED not in JOB_MAY_BECOME.get(found.status, ()):
            raise InvalidRequest(f"Job {job} is {found.status}: only a running job can be changed.", subject="job")
        changed = replace(found, settings=settings(found.settings), last_updated_at=self._clock.now())
        self._check_role(tx, changed, changed.settings.presign)
        self._jobs.save(tx, changed)
        return changed

    def associate(self, tx: Tx, place: Place, job: JobId, targets: Sequence[str], *, comment: str | None) -> Job:
        """Add groups to a running CONTINUOUS job.

        Raises:
            NotFound: subject ``job``, or a group that isn't there.
            InvalidRequest: another kind of job or target. Subjects ``job``, ``target``.
            LimitExceeded: more than 100 targets in all. Subject ``targets``.
        """
        found = self.find(tx, place.account, job)
        running = JobStatus.COMPLETED in JOB_MAY_BECOME.get(found.status, ())
        if not running or found.target_selection is not TargetSelection.CONTINUOUS:
            raise InvalidRequest(
                f"Job {job} is {found.target_selection} and {found.status}: targets can be added only to a CONTINUOUS job that "
                "is IN_PROGRESS.",
                subject="job",
            )
        standing = self._jobs.targets(tx, place.account, job)
        known = {target.arn for target in standing}
        new = [arn for arn in dict.fromkeys(targets) if arn not in known]
        for arn in new:
            self._members.require_target(tx, place, arn)
            if not arn.startswith(place.iot("thinggroup", "")):
                raise InvalidRequest(f"{arn} is no thing group: only groups can be added to a job.", subject="target")
        if new and not found.offline_signed:
            self.signing_rule.require_for_document(tx, place, new, self._jobs.document(tx, place.account, job) or "")
        if len(standing) + len(new) > TARGETS_MAX:
            raise LimitExceeded(f"A job has at most {TARGETS_MAX} targets.", subject="targets")
        now = self._clock.now()
        if not new:
            return found
        position = 1 + max(target.position for target in standing)
        added = [JobTarget(position=position + offset, arn=arn) for offset, arn in enumerate(new)]
        self._jobs.add_targets(tx, place.account, job, added)
        rolling = replace(
            found, phase=JobPhase.ROLLING_OUT, comment=comment or found.comment, next_step_at=now, last_updated_at=now
        )
        self._jobs.save(tx, rolling)
        return self._advanced(tx, rolling, now=now)

    def cancel(
        self,
        tx: Tx,
        account: AccountId,
        job: JobId,
        *,
        comment: str | None = None,
        reason_code: str | None = None,
        force: bool = False,
    ) -> Job:
        """Cancel a job: queued executions, and with ``force`` those in progress too.

        Raises:
            NotFound: subject ``job``.
            InvalidRequest: it has ended or is being deleted. Subject ``job``.
        """
        found = self.find(tx, account, job)
        forced_later = found.status is JobStatus.CANCELED and force and not found.force_canceled
        if JobStatus.CANCELED not in JOB_MAY_BECOME.get(found.status, ()) and not forced_later:
            raise InvalidRequest(f"Job {job} is {found.status}; it can't be cancelled any more.", subject="job")
        now = self._clock.now()
        canceled = self._lifecycle.cancel(tx, found, comment=comment, reason_code=reason_code, force=force, now=now)
        return self._advanced(tx, canceled, now=now)

    def delete(self, tx: Tx, account: AccountId, job: JobId, *, force: bool = False) -> None:
        """Delete a job with all its executions; a large one is gone a little later.

        Raises:
            NotFound: subject ``job``.
            InvalidStateTransition: not COMPLETED or CANCELED (and no ``force``), or being deleted already. Subject ``job``.
            LimitExceeded: ten others are being deleted. Subject ``job-deletions``.
        """
        found = self.find(tx, account, job)
        allowed = JobStatus.DELETION_IN_PROGRESS in JOB_MAY_BECOME.get(found.status, ())
        if not allowed or not (force or found.status in JOB_DELETABLE_WITHOUT_FORCE):
            raise InvalidStateTransition(
                f"Job {job} is {found.status}. Cancel it first, or delete it with force.", subject="job"
            )
        if self._jobs.count_with_status(tx, account, JobStatus.DELETION_IN_PROGRESS) >= DELETIONS_MAX:
            raise LimitExceeded(
                f"{DELETIONS_MAX} jobs are being deleted. Try again when they are gone.", subject="job-deletions"
            )
        now = self._clock.now()
        deleting = replace(
            found,
            status=JobStatus.DELETION_IN_PROGRESS,
            phase=JobPhase.DELETING,
            ends_at=None,
            next_step_at=now,
            last_updated_at=now,
        )
        self._jobs.save(tx, deleting)
        self._jobs.drop_waiting(tx, account, job=job)
        self.events.job(tx, deleting, JobEvent.DELETION_IN_PROGRESS, now=now)
        self._advanced(tx, deleting, now=now)

    # Whom the registry tells (devices.ports.MembershipChanged) ------------------------------------------------------------

    def joined(self, tx: Tx, account: AccountId, thing: ThingName, group: GroupName) -> None:
        self.planner.joined(tx, account, thing, group)

    def left(self, tx: Tx, account: AccountId, thing: ThingName, group: GroupName) -> None:
        self.planner.left(tx, account, thing, group)

    def thing_deleted(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        self.planner.thing_deleted(tx, account, thing)

    def provisioned_again(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """See ``devices.ports.ProvisionedAgain``."""
        self.planner.give_again(tx, account, thing)

    def resend(self, tx: Tx, account: AccountId, thing: ThingName) -> Sequence[JobId]:
        """An operator knows that a thing isn't what it was, though nothing has shown it: the running CONTINUOUS jobs of its
        groups that have ended for it come to it once more. Returns which; none where all of them are pending already.

        Raises:
            NotFound: subject ``thing``.
        """
        if not self._members.has_thing(tx, account, thing):
            raise NotFound(f"There is no thing {thing[:128]!r} in this account.", subject="thing")
        return self.planner.give_again(tx, account, thing)

    # ----------------------------------------------------------------------------------------------------------------------

    def _advanced(self, tx: Tx, job: Job, *, now: Instant) -> Job:
        """Take the first piece of background work along, and leave the rest to the planner."""
        self.planner.advance(tx, job, limit=THINGS_AT_ONCE_MAX, now=now)
        after = self._jobs.find(tx, job.place.account, job.id)
        if after is None:
            return job
        if after.phase is not JobPhase.SETTLED:
            tx.after_commit(lambda: self._lifecycle.wake())
        return after

    def _require_targets(self, tx: Tx, place: Place, targets: Sequence[str]) -> None:
        prefix = place.iot("thing", "")
        named = [ThingName(arn.removeprefix(prefix)) for arn in targets if arn.startswith(prefix)]
        others = [arn for arn in targets if not arn.startswith(prefix)]
        if len(others) > TARGETS_MAX:
            raise InvalidRequest(f"A job has at most {TARGETS_MAX} groups among its targets.", subject="target")
        for first in range(0, len(named), THINGS_LOOKED_UP_AT_ONCE):
            some = named[first : first + THINGS_LOOKED_UP_AT_ONCE]
            there = self._members.things_among(tx, place.account, some)
            others.extend(place.iot("thing", thing) for thing in some if thing not in there)
        for target in others:
            self._members.require_target(tx, place, target)

    def _check_role(self, tx: Tx, job: Job, presign: PresignConfig | None) -> None:
        if presign is None:
            return
        try:
            self._roles.assume_as_service(tx, job.place, presign.role_arn, source_arn=job.arn)
        except AccessDenied as error:
            raise InvalidRequest(error.message, subject="role") from None
