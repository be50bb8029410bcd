"""Background work of jobs, in bounded pieces: rolling out, cancelling, deleting; and following the groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from overair.basics.clock import Clock, Instant
from overair.basics.errors import NotFound
from overair.basics.ids import AccountId, GroupName, ThingName
from overair.basics.work import Tx, Work
from overair.server.jobs.lifecycle import Lifecycle
from overair.server.jobs.model import (
    CANCELABLE_WITHOUT_FORCE,
    PENDING,
    PENDING_LISTED_MAX,
    Job,
    JobPhase,
    JobTarget,
)
from overair.server.jobs.ports import ExecutionStore, JobMembers, JobStore, Tags, ThingsGroups
from overair.server.jobs.rollout import Release, release
from overair.wire.job_messages import ExecutionStatus

THINGS_PER_STEP_MAX: Final = 500
"""Things planned in one transaction; each leaves up to two notices."""
ENDINGS_PER_STEP_MAX: Final = 200


class Planner:
    """Takes a job one step further. Also hears from the registry who joined and left (``devices.ports.MembershipChanged``)."""

    def __init__(
        self,
        *,
        jobs: JobStore,
        executions: ExecutionStore,
        members: JobMembers,
        groups: ThingsGroups,
        tags: Tags,
        lifecycle: Lifecycle,
        clock: Clock,
    ) -> None:
        self._jobs = jobs
        self._executions = executions
        self._members = members
        self._groups = groups
        self._tags = tags
        self._lifecycle = lifecycle
        self._clock = clock

    def has_step(self, tx: Tx, *, now: Instant) -> bool:
        """Whether some job of any account has background work that is due."""
        return self._jobs.unsettled(tx, now=now) is not None

    def step(self, tx: Tx, *, now: Instant) -> bool:
        """Do one piece of the background work that has waited longest. False: there was none."""
        job = self._jobs.unsettled(tx, now=now)
        if job is None:
            return False
        self.advance(tx, job, limit=THINGS_PER_STEP_MAX, now=now)
        return True

    def advance(self, tx: Tx, job: Job, *, limit: int, now: Instant) -> None:
        """Do one piece of one job's background work: at most ``limit`` things."""
        if job.phase is JobPhase.ROLLING_OUT:
            self._roll_out(tx, job, limit=limit, now=now)
        elif job.phase is JobPhase.CANCELING:
            self._cancel_some(tx, job, limit=min(limit, ENDINGS_PER_STEP_MAX), now=now)
        elif job.phase is JobPhase.DELETING:
            self._delete_some(tx, job, limit=min(limit, ENDINGS_PER_STEP_MAX), now=now)

    # Rolling out ----------------------------------------------------------------------------------------------------------

    def _roll_out(self, tx: Tx, job: Job, *, limit: int, now: Instant) -> None:
        account = job.place.account
        budget = limit
        for target in self._jobs.targets(tx, account, job.id):
            if target.planned:
                continue
            taken = self._plan_target(tx, job, target, limit=budget, now=now) if budget > 0 else None
            if taken is None:
                # Members are left. An unmetered job goes to the end of the line; a metered one is planned whole at first.
                if job.settings.rollout is None:
                    self._jobs.save(tx, replace(job, next_step_at=now))
                return
            budget -= taken
        self._release_waiting(tx, job, limit=max(budget, 1), now=now)

    def _plan_target(self, tx: Tx, job: Job, target: JobTarget, *, limit: int, now: Instant) -> int | None:
        """Plan the next members of a target, at most ``limit``; returns how many, or None if there may be more."""
        account = job.place.account
        try:
            things = self._members.members(tx, account, target.arn, after=target.cursor, limit=limit)
        except NotFound:
            # Deleted since the job was made: it names nobody any more.
            things = []
        done = len(things) < limit
        cursor = things[-1] if things else target.cursor
        self._jobs.save_target(tx, account, job.id, replace(target, planned=done, cursor=cursor))
        new = self._without_execution(tx, job, things)
        if job.settings.rollout is None:
            self._lifecycle.queue(tx, job, new, now=now)
        elif new:
            # Asked again when their turn comes; but whom nothing is meant for takes nobody's turn.
            chosen = self._lifecycle.fulfilment.may_queue(tx, job, new)
            self._jobs.add_waiting(tx, account, job.id, sorted([*chosen.by_document, *chosen.fulfilled]))
        return len(things) if done else None

    def _release_waiting(self, tx: Tx, job: Job, *, limit: int, now: Instant) -> None:
        """Every target is planned: release those whose turn it is; when nobody waits any more, the rollout is done."""
        account = job.place.account
        allowed = Release(count=limit, next_at=now)
        if job.settings.rollout is not None:
            allowed = release(job.settings.rollout, job.counts, next_at=job.next_step_at, now=now, limit=limit)
        things = self._jobs.waiting(tx, account, job.id, limit=allowed.count + 1)
        released = things[: allowed.count]
        if released:
            self._lifecycle.queue(tx, job, self._without_execution(tx, job, released), now=now)
            self._jobs.drop_waiting(tx, account, job=job.id, things=released)
        if len(things) <= allowed.count:
            self._settle(tx, job, now=now)
        else:
            self._jobs.save(tx, replace(job, next_step_at=allowed.next_at))

    def _without_execution(self, tx: Tx, job: Job, things: Sequence[ThingName]) -> list[ThingName]:
        known = self._executions.things_with(tx, job.place.account, job.id, things) if things else frozenset()
        return [thing for thing in things if thing not in known]

    def _settle(self, tx: Tx, job: Job, *, now: Instant) -> None:
        self._jobs.save(tx, replace(job, phase=JobPhase.SETTLED))
        self._lifecycle.conclude(tx, job.place.account, job.id, now=now)

    # Cancelling and deleting ----------------------------------------------------------------------------------------------

    def _cancel_some(self, tx: Tx, job: Job, *, limit: int, now: Instant) -> None:
        account = job.place.account
        statuses = sorted(PENDING if job.force_canceled else CANCELABLE_WITHOUT_FORCE)
        executions = self._executions.of_job(tx, account, job.id, statuses=statuses, after=None, limit=limit)
        for execution in executions:
            self._lifecycle.end(tx, job, execution, ExecutionStatus.CANCELED, now=now, force=job.force_canceled)
        done = len(executions) < limit
        self._jobs.save(tx, replace(job, phase=JobPhase.SETTLED if done else job.phase, next_step_at=now))

    def _delete_some(self, tx: Tx, job: Job, *, limit: int, now: Instant) -> None:
        account = job.place.account
        executions = self._executions.of_job(tx, account, job.id, statuses=None, after=None, limit=limit)
        # From the last attempt down, so that none becomes the latest in between.
        for execution in reversed(executions):
            self._lifecycle.remove(tx, job, execution, now=now)
        if len(executions) < limit:
            self._jobs.delete(tx, account, job.id)
            self._lifecycle.fulfilment.forget(tx, account, job.id)
            self._tags.forget(tx, job.place, job.arn)
        else:
            self._jobs.save(tx, replace(job, next_step_at=now))

    # Following the registry (devices.ports.MembershipChanged) -------------------------------------------------------------

    def joined(self, tx: Tx, account: AccountId, thing: ThingName, group: GroupName) -> None:
        """A thing came into a group: running CONTINUOUS jobs give it an execution at once, whatever the rollout's rate."""
        now = self._clock.now()
        for job in self._jobs.continuous_for(tx, account, group):
            latest = self._executions.find(tx, account, thing, job.id)
            if latest is None:
                self._jobs.drop_waiting(tx, account, job=job.id, things=[thing])
                self._lifecycle.queue(tx, job, [thing], now=now)
            elif latest.status is ExecutionStatus.REMOVED:
                # It left and came back: another attempt, counted in place of the removed one.
                self._executions.save(tx, account, replace(latest, latest=False))
                self._jobs.count(tx, account, job.id, {ExecutionStatus.REMOVED: -1})
                number = self._executions.last_number(tx, account, thing, job.id) + 1
                self._lifecycle.queue(tx, job, [thing], numbers={thing: number}, now=now)

    def left(self, tx: Tx, account: AccountId, thing: ThingName, group: GroupName) -> None:
        """A thing left a group: what CONTINUOUS jobs had pending for it is REMOVED, unless another target still names it."""
        now = self._clock.now()
        groups = self._groups.all_groups_of(tx, account, thing)
        for job in self._jobs.continuous_for(tx, account, group):
            still = {job.place.iot("thinggroup", name) for name in groups} | {job.place.iot("thing", thing)}
            if any(target.arn in still for target in self._jobs.targets(tx, account, job.id)):
                continue
            self._jobs.drop_waiting(tx, account, job=job.id, things=[thing])
            latest = self._executions.find(tx, account, thing, job.id)
            if latest is not None and latest.is_pending:
                self._lifecycle.end(tx, job, latest, ExecutionStatus.REMOVED, now=now)

    def thing_deleted(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """A thing is gone from the registry: what was pending for it is REMOVED, whatever the job."""
        now = self._clock.now()
        self._jobs.drop_waiting(tx, account, things=[thing])
        while pending := self._executions.pending(tx, account, thing, limit=PENDING_LISTED_MAX):
            for execution in pending:
                job = self._jobs.find(tx, account, execution.job)
                assert job is not None
                self._lifecycle.end(tx, job, execution, ExecutionStatus.REMOVED, now=now)


class JobPlanner:
    """The worker (``workers.loop.Worker``) that takes all jobs further."""

    name = "jobs"

    def __init__(self, *, work: Work, planner: Planner, clock: Clock) -> None:
        self._work = work
        self._planner = planner
        self._clock = clock

    async def run_once(self) -> bool:
        now = self._clock.now()
        if not await self._work.read(lambda tx: self._planner.has_step(tx, now=now)):
            return False
        return await self._work.run(lambda tx: self._planner.step(tx, now=now))
