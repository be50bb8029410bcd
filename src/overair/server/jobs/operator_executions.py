"""What an operator may do with executions, and how their time runs out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from overair.basics.clock import Clock, Instant
from overair.basics.errors import InvalidStateTransition, NotFound, VersionConflict
from overair.basics.ids import AccountId, JobId, ThingName
from overair.basics.work import Tx, Work
from overair.server.jobs.lifecycle import Lifecycle
from overair.server.jobs.model import (
    CANCELABLE_WITHOUT_FORCE,
    JOB_ID,
    PENDING_LISTED_MAX,
    SERVER_MAY_SET,
    THING_NAME,
    Execution,
    Job,
)
from overair.server.jobs.ports import ExecutionStore, JobMembers, JobStore
from overair.wire.job_messages import ExecutionStatus

OVERDUE_PER_STEP_MAX: Final = 100


class OperatorExecutions:
    """Executions by thing and job, for operators and for the clock."""

    def __init__(
        self, *, jobs: JobStore, executions: ExecutionStore, members: JobMembers, lifecycle: Lifecycle, clock: Clock
    ) -> None:
        self._jobs = jobs
        self._executions = executions
        self._members = members
        self._lifecycle = lifecycle
        self._clock = clock

    def find(self, tx: Tx, account: AccountId, thing: ThingName, job: JobId, number: int | None = None) -> Execution:
        """One attempt, or the latest. Raises NotFound, subject ``execution``."""
        execution = None
        if THING_NAME.fullmatch(thing) and JOB_ID.fullmatch(job):
            execution = self._executions.find(tx, account, thing, job, number)
        if execution is None:
            raise NotFound(f"Thing {thing[:128]!r} has no execution of job {job[:64]!r}.", subject="execution")
        return execution

    def of_job(
        self,
        tx: Tx,
        account: AccountId,
        job: JobId,
        *,
        status: ExecutionStatus | None = None,
        after: tuple[str, int] | None = None,
        limit: int,
    ) -> Sequence[Execution]:
        """Attempts by (thing, number). Raises NotFound, subject ``job``."""
        self._job(tx, account, job)
        return self._executions.of_job(tx, account, job, status=status, after=after, limit=limit)

    def of_thing(
        self,
        tx: Tx,
        account: AccountId,
        thing: ThingName,
        *,
        status: ExecutionStatus | None = None,
        job: JobId | None = None,
        namespace: str | None = None,
        before: tuple[int, str, int] | None = None,
        limit: int,
    ) -> Sequence[Execution]:
        """Attempts, newest first. Raises NotFound, subject ``thing``."""
        if not self._members.has_thing(tx, account, thing):
            raise NotFound(f"There is no thing {thing!r} in this account.", subject="thing")
        return self._executions.of_thing(
            tx, account, thing, status=status, job=job, namespace=namespace, before=before, limit=limit
        )

    def pending(self, tx: Tx, account: AccountId, thing: ThingName) -> Sequence[Execution]:
        """What a thing has before it in all namespaces together, in the order of ``$next``."""
        return self._executions.pending_anywhere(tx, account, thing, limit=PENDING_LISTED_MAX)

    def pending_of(self, tx: Tx, account: AccountId, things: Sequence[ThingName]) -> Mapping[ThingName, Sequence[Execution]]:
        """The queues of several things, each in the order of ``$next``; a thing with nothing to do is absent."""
        return self._executions.pending_of(tx, account, things) if things else {}

    def cancel(
        self,
        tx: Tx,
        account: AccountId,
        thing: ThingName,
        job: JobId,
        *,
        force: bool = False,
        expected_version: int | None = None,
        status_details: Mapping[str, str] | None = None,
    ) -> None:
        """Cancel one thing's execution; one in progress only with ``force``.

        Raises:
            NotFound, VersionConflict, InvalidStateTransition: subject ``execution``.
        """
        found = self._held(tx, account, job)
        execution = self.find(tx, account, thing, job)
        if expected_version is not None and expected_version != execution.version:
            raise VersionConflict(
                f"Version {expected_version} was expected; the execution is at version {execution.version}.",
                subject="execution",
            )
        known = ExecutionStatus.CANCELED in SERVER_MAY_SET.get(execution.status, ())
        if not known or not (force or execution.status in CANCELABLE_WITHOUT_FORCE):
            why = "" if not known else " Cancel it with force if the device may be interrupted."
            raise InvalidStateTransition(
                f"Job {job} on {thing} is {execution.status}; it can't be cancelled.{why}", subject="execution"
            )
        if status_details is not None:
            execution = replace(execution, status_details=status_details)
        assert found is not None
        self._lifecycle.end(tx, found, execution, ExecutionStatus.CANCELED, now=self._clock.now(), force=force)

    def delete(self, tx: Tx, account: AccountId, thing: ThingName, job: JobId, number: int, *, force: bool = False) -> None:
        """Delete one attempt; one that hasn't ended only with ``force``.

        Raises:
            NotFound, InvalidStateTransition: subject ``execution``.
        """
        self._held(tx, account, job)
        execution = self.find(tx, account, thing, job, number)
        if execution.is_pending and not force:
            raise InvalidStateTransition(
                f"Job {job} on {thing} is {execution.status}. Cancel it first, or delete it with force.", subject="execution"
            )
        now = self._clock.now()
        self._lifecycle.remove(tx, self._job(tx, account, job), execution, now=now)
        self._lifecycle.conclude(tx, account, job, now=now)

    def has_overdue(self, tx: Tx, *, now: Instant) -> bool:
        """Whether some execution of any account has run out of time."""
        return bool(self._executions.overdue(tx, now=now, limit=1))

    def time_out_overdue(self, tx: Tx, *, now: Instant) -> bool:
        """End executions whose time is up, at most ``OVERDUE_PER_STEP_MAX``. False: there were none."""
        overdue = self._executions.overdue(tx, now=now, limit=OVERDUE_PER_STEP_MAX)
        for account, execution in overdue:
            job = self._job(tx, account, execution.job)
            # Now that the job is held: a report that another node took in between may have ended it, or given it more time.
            found = self._executions.find(tx, account, execution.thing, execution.job, execution.number)
            if found is not None and found.is_pending and found.due_at is not None and found.due_at <= now:
                self._lifecycle.end(tx, job, found, ExecutionStatus.TIMED_OUT, now=now)
        return bool(overdue)

    def _held(self, tx: Tx, account: AccountId, job: JobId) -> Job | None:
        """The job, held before its execution: whatever changes an execution takes hold in this order."""
        return self._jobs.find(tx, account, job) if JOB_ID.fullmatch(job) else None

    def _job(self, tx: Tx, account: AccountId, job: JobId) -> Job:
        found = self._jobs.find(tx, account, job) if JOB_ID.fullmatch(job) else None
        if found is None:
            raise NotFound(f"There is no job {job[:64]!r} in this account.", subject="job")
        return found


class JobTimers:
    """The worker (``workers.loop.Worker``) that ends what has run out of time."""

    name = "job-timers"

    def __init__(self, *, work: Work, executions: OperatorExecutions, clock: Clock) -> None:
        self._work = work
        self._executions = executions
        self._clock = clock

    async def run_once(self) -> bool:
        now = self._clock.now()
        if not await self._work.read(lambda tx: self._executions.has_overdue(tx, now=now)):
            return False
        return await self._work.run(lambda tx: self._executions.time_out_overdue(tx, now=now))
