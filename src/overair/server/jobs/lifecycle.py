"""What follows when an execution changes its state: counts, retries, notices, the end of its job."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from overair.basics.clock import Instant
from overair.basics.errors import InvalidStateTransition, NotFound
from overair.basics.ids import AccountId, JobId, ThingName
from overair.basics.work import Tx
from overair.server.jobs.announcements import Announcer
from overair.server.jobs.encrypted_images import NobodyDecrypts, encryptions_in, refusal_details
from overair.server.jobs.event_publisher import JobEvents
from overair.server.jobs.events import JobEvent
from overair.server.jobs.model import (
    JOB_MAY_BECOME,
    MINUTE_MS,
    RETRIED,
    SERVER_MAY_SET,
    STARTED,
    Execution,
    Job,
    JobPhase,
    JobStatus,
    TargetSelection,
)
from overair.server.jobs.packages import JobPackages
from overair.server.jobs.ports import Chosen, Decryption, ExecutionStore, Fulfilment, JobStore, StatusesChanged
from overair.server.jobs.rollout import may_retry, must_abort
from overair.server.jobs.schedule import opens_at
from overair.server.jobs.signing_rule import SigningRule
from overair.server.jobs.turns import Turn, Turns
from overair.wire.job_messages import STEP_TIMEOUT_CANCEL, ExecutionStatus

ABORT_REASON_CODE: Final = "ABORT_CRITERIA_MET"


class Lifecycle:
    """Moves executions and jobs along their tables. The caller has checked that the step is allowed to whoever asks."""

    def __init__(
        self,
        *,
        jobs: JobStore,
        executions: ExecutionStore,
        announcer: Announcer,
        events: JobEvents,
        signing_rule: SigningRule,
    ) -> None:
        self._jobs = jobs
        self._signing_rule = signing_rule
        self.turns = Turns(jobs)
        self._executions = executions
        self._announcer = announcer
        self._events = events
        self.wake: Callable[[], None] = _nobody
        """Called after a commit that left background work; ``app.py`` points it at the worker."""
        self.fulfilment: Fulfilment = DocumentsAlone()
        """Who brings jobs to things that have ECUs; ``composition`` points it at the Director."""
        self.decryption: Decryption = NobodyDecrypts()
        """Who knows which things can read encrypted images; ``composition`` points it at the registry."""
        self.statuses: StatusesChanged = NobodySearches()
        """Hears of each change of a status; ``composition`` points it at the fleet index."""
        self.packages = JobPackages()
        """Hears of each success of a job that brings package versions."""
        self.details_reported: Callable[[Tx, AccountId, ThingName, Mapping[str, str]], None] = _unheard
        """Hears of each report of a device that names a version."""

    # Executions -----------------------------------------------------------------------------------------------------------

    def move(self, tx: Tx, job: Job, before: Execution, after: Execution, *, now: Instant) -> None:
        """Write ``after`` in place of ``before``, the latest attempt of its thing, with all that follows from it."""
        account = job.place.account
        if before.status is after.status:
            self._executions.save(tx, account, after)
            return
        queue = self._announcer.queue(tx, account, before.thing, job.namespace)
        changes = {before.status: -1}
        if self._retries(tx, job, after) and self._may_retry_now(tx, job, after, now=now):
            self._executions.save(tx, account, replace(after, latest=False))
            self._executions.insert(tx, account, [self._next_attempt(tx, job, after, now=now)])
            changes[ExecutionStatus.QUEUED] = changes.get(ExecutionStatus.QUEUED, 0) + 1
        else:
            self._executions.save(tx, account, after)
            changes[after.status] = 1
        self._jobs.count(tx, account, job.id, changes)
        if after.fulfilled and not after.is_pending:
            self.fulfilment.ended(tx, job, after)
        if not after.is_pending:
            self._events.execution(tx, job, after, now=now)
        self._announcer.compare(
            tx, account, before.thing, queue, namespace=job.namespace, set_changed=not after.is_pending, now=now
        )
        # A job that was cancelled or is being deleted has ended already, whatever its executions still do.
        if not after.is_pending and _is_running(job):
            self.conclude(tx, account, job.id, now=now)
        becomes = after.status if changes.get(after.status) else ExecutionStatus.QUEUED
        self.statuses.statuses_changed(tx, account, job.id, [before.thing], becomes)
        # Last: groups may follow the versions on a thing, and jobs those groups.
        if after.status is ExecutionStatus.SUCCEEDED:
            self.packages.succeeded(tx, job, after.thing, now=now)

    def end(
        self, tx: Tx, job: Job, execution: Execution, status: ExecutionStatus, *, now: Instant, force: bool = False
    ) -> None:
        """The server ends a pending execution: CANCELED, REMOVED or TIMED_OUT.

        Raises:
            InvalidStateTransition: the table doesn't allow it. Subject ``execution``.
        """
        if status not in SERVER_MAY_SET.get(execution.status, ()):
            raise InvalidStateTransition(
                f"The execution of job {execution.job} on {execution.thing} is {execution.status}; it can't become {status}.",
                subject="execution",
            )
        ended = replace(execution, status=status, version=execution.version + 1, last_updated_at=now, force_canceled=force)
        self.move(tx, job, execution, ended, now=now)

    def remove(self, tx: Tx, job: Job, execution: Execution, *, now: Instant) -> None:
        """Delete one attempt. Where it was the latest, the one before it takes its place."""
        account = job.place.account
        queue = self._announcer.queue(tx, account, execution.thing, job.namespace) if execution.is_pending else ()
        self._executions.delete(tx, account, execution)
        self._events.execution(tx, job, execution, deleted=True, now=now)
        if not execution.latest:
            return
        if execution.status in RETRIED and job.metered:
            self._jobs.drop_retry(tx, account, job.id, execution.thing)
        changes = {execution.status: -1}
        remaining: ExecutionStatus | None = None
        earlier = self._executions.last_number(tx, account, execution.thing, job.id)
        if earlier:
            previous = self._executions.find(tx, account, execution.thing, job.id, earlier)
            assert previous is not None
            self._executions.save(tx, account, replace(previous, latest=True))
            changes[previous.status] = changes.get(previous.status, 0) + 1
            remaining = previous.status
        self._jobs.count(tx, account, job.id, changes)
        if execution.is_pending:
            if execution.fulfilled:
                self.fulfilment.ended(tx, job, replace(execution, status=ExecutionStatus.REMOVED))
            self._announcer.compare(tx, account, execution.thing, queue, namespace=job.namespace, set_changed=True, now=now)
        self.statuses.statuses_changed(tx, account, job.id, [execution.thing], remaining)

    def queue(
        self,
        tx: Tx,
        job: Job,
        things: Sequence[ThingName],
        *,
        earlier: Mapping[ThingName, Execution] | None = None,
        retrying: Collection[ThingName] = (),
        now: Instant,
    ) -> None:
        """Give things one execution at the end of their queues, but for those that ``fulfilment`` or a group's signing rule
        leaves out, and those that can't decrypt what it brings: theirs is REJECTED as it is made. They have none of this job,
        or an ended one, which ``earlier`` names: the new attempt counts in its place. ``retrying``: those that try again what
        failed."""
        things = self._signing_rule.admitted(tx, job, things)
        if not things:
            return
        account = job.place.account
        chosen = self.fulfilment.may_queue(tx, job, things)
        things = [*chosen.by_document, *chosen.fulfilled]
        if not things:
            return
        unable = self.unable(tx, job, chosen.by_document)
        numbers = self._put_aside(tx, job, [earlier[thing] for thing in things if thing in earlier]) if earlier else {}
        alike = Execution(
            job=job.id,
            thing=ThingName(""),
            number=1,
            job_sequence=job.sequence,
            status=ExecutionStatus.QUEUED,
            queued_at=now,
            last_updated_at=now,
            namespace=job.namespace,
        )
        if unable:
            self._refuse(tx, job, alike, unable, numbers=numbers, now=now)
            chosen = replace(chosen, by_document=[thing for thing in chosen.by_document if thing not in unable])
            things = [*chosen.by_document, *chosen.fulfilled]
        queues = self._executions.queues_of(tx, account, things, namespace=job.namespace)
        for road, named in ((None, chosen.by_document), (job.fulfilment, chosen.fulfilled)):
            new = replace(alike, fulfilment=road)
            self._executions.insert_alike(tx, account, new, [thing for thing in named if thing not in numbers])
            again = [replace(new, thing=thing, number=numbers[thing]) for thing in named if thing in numbers]
            if earlier is not None and retrying:
                again = [
                    replace(each, retry_attempt=earlier[each.thing].retry_attempt + 1) if each.thing in retrying else each
                    for each in again
                ]
            self._executions.insert(tx, account, again)
        self._jobs.count(tx, account, job.id, {ExecutionStatus.QUEUED: len(things)})
        if chosen.fulfilled:
            self.fulfilment.queued(tx, job, chosen.fulfilled)
        self._announcer.queued(tx, job, alike, things, numbers=numbers, queues=queues, now=now)
        self.statuses.statuses_changed(tx, account, job.id, things, ExecutionStatus.QUEUED)

    def unable(self, tx: Tx, job: Job, things: Sequence[ThingName]) -> Mapping[ThingName, str]:
        """Those of some things that can't decrypt what a job brings, and why."""
        if not job.encrypted:
            return {}
        encryptions = encryptions_in(self._jobs.document(tx, job.place.account, job.id) or "")
        return self.decryption.unable(tx, job.place.account, things, encryptions)

    def _refuse(
        self,
        tx: Tx,
        job: Job,
        alike: Execution,
        unable: Mapping[ThingName, str],
        *,
        numbers: Mapping[ThingName, int],
        now: Instant,
    ) -> None:
        """Executions that their things never hear of: an operator finds them, and the reason, among the job's others."""
        account = job.place.account
        refused = [
            replace(
                alike,
                thing=thing,
                number=numbers.get(thing, 1),
                status=ExecutionStatus.REJECTED,
                status_details=refusal_details(why),
            )
            for thing, why in unable.items()
        ]
        self._executions.insert(tx, account, refused)
        self._jobs.count(tx, account, job.id, {ExecutionStatus.REJECTED: len(refused)})
        for execution in refused:
            self._events.execution(tx, job, execution, now=now)
        self.statuses.statuses_changed(tx, account, job.id, list(unable), ExecutionStatus.REJECTED)

    def _put_aside(self, tx: Tx, job: Job, ended: Sequence[Execution]) -> Mapping[ThingName, int]:
        """Ended attempts aren't the latest ones any more; returns the number of each thing's next."""
        account = job.place.account
        numbers: dict[ThingName, int] = {}
        changes: dict[ExecutionStatus, int] = {}
        for execution in ended:
            self._executions.save(tx, account, replace(execution, latest=False))
            changes[execution.status] = changes.get(execution.status, 0) - 1
            numbers[execution.thing] = self._executions.last_number(tx, account, execution.thing, job.id) + 1
        self._jobs.count(tx, account, job.id, changes)
        return numbers

    def choose_anew(self, tx: Tx, job: Job, execution: Execution, *, now: Instant) -> None:
        """Ask ``fulfilment`` again about a queued execution whose document waits: its thing has ECUs now. One that is left out
        is REMOVED."""
        assert execution.status is ExecutionStatus.QUEUED
        assert not execution.fulfilled
        thing = execution.thing
        chosen = self.fulfilment.may_queue(tx, job, [thing])
        if thing in chosen.fulfilled:
            fulfilled = replace(execution, fulfilment=job.fulfilment, version=execution.version + 1, last_updated_at=now)
            self._executions.save(tx, job.place.account, fulfilled)
            self.fulfilment.queued(tx, job, [thing])
        elif thing not in chosen.by_document:
            self.end(tx, job, execution, ExecutionStatus.REMOVED, now=now)

    def start(
        self,
        job: Job,
        execution: Execution,
        *,
        status_details: Mapping[str, str] | None,
        step_timeout_minutes: int | None,
        now: Instant,
    ) -> Execution:
        """The same execution, in progress: the timer of the whole starts with the first IN_PROGRESS and never changes."""
        minutes = job.settings.in_progress_timeout_minutes
        started = execution.started_at is not None
        return replace(
            execution,
            status=ExecutionStatus.IN_PROGRESS,
            status_details=execution.status_details if status_details is None else status_details,
            version=execution.version + 1,
            started_at=execution.started_at if started else now,
            last_updated_at=now,
            in_progress_due_at=(
                execution.in_progress_due_at if started or minutes is None else Instant(now + minutes * MINUTE_MS)
            ),
            step_due_at=step_due_at(execution, step_timeout_minutes, now=now),
        )

    # Jobs -----------------------------------------------------------------------------------------------------------------

    def conclude(self, tx: Tx, account: AccountId, job: JobId, *, now: Instant) -> None:
        """End a job whose last execution has ended, or one that meets an abort criterion."""
        found = self._jobs.find(tx, account, job)
        if found is None:
            return
        criterion = must_abort(found.settings.abort, self._settled_counts(tx, found))
        if criterion is not None and JobStatus.CANCELED in JOB_MAY_BECOME.get(found.status, ()):
            comment = (
                f"Aborted: at least {criterion.threshold_percentage:g} % of {criterion.things_executed_min} or more things "
                f"ended with {criterion.failure_type}."
            )
            self.cancel(tx, found, comment=comment, reason_code=ABORT_REASON_CODE, force=False, now=now)
            return
        ended = found.phase is JobPhase.SETTLED and found.pending == 0
        # A CONTINUOUS job waits for whoever may still join, until its schedule has ended.
        closed = found.target_selection is TargetSelection.SNAPSHOT or (
            found.schedule is not None and opens_at(found.schedule, now=now) is None
        )
        if ended and closed and _is_running(found):
            completed = replace(found, status=JobStatus.COMPLETED, completed_at=now, last_updated_at=now, ends_at=None)
            self._jobs.save(tx, completed)
            self._events.job(tx, completed, JobEvent.COMPLETED, now=now)

    def _settled_counts(self, tx: Tx, job: Job) -> Mapping[ExecutionStatus, int]:
        """The counts without the failures that wait for another attempt: those aren't the last word of their things."""
        if not (job.settings.abort and job.settings.retry and job.metered):
            return job.counts
        waiting = self._jobs.waiting_to_retry(tx, job.place.account, job.id)
        return {status: count - waiting.get(status, 0) for status, count in job.counts.items()}

    def cancel(self, tx: Tx, job: Job, *, comment: str | None, reason_code: str | None, force: bool, now: Instant) -> Job:
        """CANCELED at once; nothing more is rolled out, and the executions follow in the background."""
        canceled = replace(
            job,
            status=JobStatus.CANCELED,
            phase=JobPhase.CANCELING,
            comment=comment,
            reason_code=reason_code,
            force_canceled=force,
            next_step_at=now,
            ends_at=None,
            last_updated_at=now,
            completed_at=now,
        )
        self._jobs.save(tx, canceled)
        self._events.job(tx, canceled, JobEvent.CANCELLATION_IN_PROGRESS, now=now)
        self._jobs.drop_waiting(tx, job.place.account, job=job.id)
        tx.after_commit(lambda: self.wake())
        return canceled

    # ----------------------------------------------------------------------------------------------------------------------

    def _retries(self, tx: Tx, job: Job, ended: Execution) -> bool:
        if (
            not job.settings.retry
            or ended.status not in RETRIED
            or JobStatus.COMPLETED not in JOB_MAY_BECOME.get(job.status, ())
        ):
            return False
        # A thing that came to the job anew (it left and came back, or was reset) has all its retries before it.
        since = ended.number - ended.retry_attempt
        attempts = dict(self._executions.attempts(tx, job.place.account, ended.thing, job.id, since=since))
        attempts[ended.status] = attempts.get(ended.status, 0) + 1
        return may_retry(job.settings.retry, ended.status, attempts)

    def _may_retry_now(self, tx: Tx, job: Job, ended: Execution, *, now: Instant) -> bool:
        """Whether the next attempt is queued at once; if not, the thing waits for its turn, or the job's schedule has ended."""
        if not job.metered:
            return True
        held = self._jobs.find(tx, job.place.account, job.id)
        assert held is not None
        return self.turns.ask(tx, held, ended.thing, ended=ended.status, now=now) is Turn.NOW

    def _next_attempt(self, tx: Tx, job: Job, ended: Execution, *, now: Instant) -> Execution:
        """A fresh execution: a retry that kept ``self_test`` in its details would be rolled back by the agent."""
        return Execution(
            job=job.id,
            thing=ended.thing,
            number=self._executions.last_number(tx, job.place.account, ended.thing, job.id) + 1,
            job_sequence=job.sequence,
            status=ExecutionStatus.QUEUED,
            queued_at=now,
            last_updated_at=now,
            retry_attempt=ended.retry_attempt + 1,
            fulfilment=ended.fulfilment,
            namespace=job.namespace,
        )


class NobodySearches:
    """``ports.StatusesChanged`` where there is no index."""

    def statuses_changed(
        self, tx: Tx, account: AccountId, job: JobId, things: Sequence[ThingName], status: ExecutionStatus | None
    ) -> None:
        """Nobody hears of it."""


class DocumentsAlone:
    """``ports.Fulfilment`` where nobody fulfils anything: every thing gets the document."""

    def require(self, tx: Tx, account: AccountId, fulfilment: str) -> None:
        raise NotFound(
            f"There is no multi-target update {fulfilment[:64]!r}: this server has no Director.", subject="fulfilment"
        )

    def may_queue(self, tx: Tx, job: Job, things: Sequence[ThingName]) -> Chosen:
        return Chosen(by_document=things)

    def queued(self, tx: Tx, job: Job, things: Sequence[ThingName]) -> None:
        """Nothing hangs on it."""

    def ended(self, tx: Tx, job: Job, execution: Execution) -> None:
        """Nothing hangs on it."""

    def forget(self, tx: Tx, account: AccountId, job: JobId) -> None:
        """Nothing was kept."""


def step_due_at(execution: Execution, step_timeout_minutes: int | None, *, now: Instant) -> Instant | None:
    """When the step's timer ends after an update that names ``step_timeout_minutes`` (None leaves it, -1 stops it)."""
    if step_timeout_minutes is None:
        return execution.step_due_at if execution.status in STARTED else None
    if step_timeout_minutes == STEP_TIMEOUT_CANCEL:
        return None
    return Instant(now + step_timeout_minutes * MINUTE_MS)


def _is_running(job: Job) -> bool:
    return JobStatus.COMPLETED in JOB_MAY_BECOME.get(job.status, ())


def _nobody() -> None:
    return None


def _unheard(tx: Tx, account: AccountId, thing: ThingName, details: Mapping[str, str]) -> None:
    return None
