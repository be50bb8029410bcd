"""Background work of jobs, in bounded pieces: rolling out, cancelling, deleting; and following the groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Final

from overair.basics.clock import Clock, Instant
from overair.basics.errors import NotFound
from overair.basics.ids import AccountId, GroupName, JobId, ThingName
from overair.basics.work import Tx, Work
from overair.server.jobs.event_publisher import JobEvents
from overair.server.jobs.events import JobEvent
from overair.server.jobs.lifecycle import Lifecycle
from overair.server.jobs.model import (
    CANCELABLE_WITHOUT_FORCE,
    PENDING,
    PENDING_LISTED_MAX,
    RETRIED,
    EndBehavior,
    Execution,
    Job,
    JobPhase,
    JobStatus,
    JobTarget,
    TargetSelection,
    Waiting,
)
from overair.server.jobs.ports import ExecutionStore, JobMembers, JobStore, Tags, ThingsGroups
from overair.server.jobs.rollout import Release, release
from overair.server.jobs.schedule import opens_at
from overair.server.jobs.turns import Turn
from overair.wire.job_messages import ExecutionStatus

THINGS_PER_STEP_MAX: Final = 1_000
"""Things planned in one transaction; each leaves up to two notices."""
THINGS_PER_STEP_MIN: Final = 50
STEP_MS: Final = 50
"""About as long as a step may take: what devices report meanwhile waits behind it."""
ENDINGS_PER_STEP_MAX: Final = 200
SCHEDULE_ENDED: Final = "SCHEDULE_ENDED"


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
        events: JobEvents,
        clock: Clock,
    ) -> None:
        self._jobs = jobs
        self._executions = executions
        self._members = members
        self._groups = groups
        self._tags = tags
        self._lifecycle = lifecycle
        self._events = events
        self._clock = clock

    def has_step(self, tx: Tx, *, now: Instant) -> bool:
        """Whether some job of any account has background work that is due."""
        return self._jobs.unsettled(tx, now=now) is not None

    def step(self, tx: Tx, *, now: Instant, limit: int = THINGS_PER_STEP_MAX) -> bool:
        """Do one piece of the background work that has waited longest, at most ``limit`` things. False: there was none."""
        job = self._jobs.unsettled(tx, now=now)
        if job is None:
            return False
        if job.ends_at is not None and job.ends_at <= now:
            self._end_schedule(tx, job, now=now)
        else:
            self.advance(tx, job, limit=limit, now=now)
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
        while targets := self._jobs.unplanned(tx, account, job.id, limit=max(budget, 1)):
            taken = self._plan_targets(tx, job, targets, limit=budget, now=now) if budget > 0 else None
            if taken is None:
                # Members are left. An unmetered job goes to the end of the line; a metered one is planned whole at first.
                if not job.metered:
                    self._jobs.save(tx, replace(job, next_step_at=now))
                return
            budget -= taken
        opening = now if job.schedule is None else opens_at(job.schedule, now=now)
        if opening is None:
            # Its windows don't open any more.
            self._stop_rollout(tx, job, now=now)
        elif opening > now:
            self._jobs.save(tx, replace(job, next_step_at=opening))
        else:
            if job.status is JobStatus.SCHEDULED:
                job = replace(job, status=JobStatus.IN_PROGRESS, last_updated_at=now)
            self._release_waiting(tx, job, limit=max(budget, 1), now=now)

    def _plan_targets(self, tx: Tx, job: Job, targets: Sequence[JobTarget], *, limit: int, now: Instant) -> int | None:
        """Plan the first of these targets, at most ``limit`` things: a group, or all things in a row. Returns how many, or
        None if the group may have more."""
        account, prefix = job.place.account, job.place.iot("thing", "")
        in_a_row = list(takewhile(lambda target: target.arn.startswith(prefix), targets))[:limit]
        if in_a_row:
            named = [ThingName(target.arn.removeprefix(prefix)) for target in in_a_row]
            there = self._members.things_among(tx, account, named)
            self._jobs.set_planned(tx, account, job.id, [target.position for target in in_a_row])
            self._plan_things(tx, job, [thing for thing in named if thing in there], now=now)
            return len(in_a_row)
        target = targets[0]
        try:
            things = self._members.members(tx, account, target.arn, after=target.cursor, limit=limit)
        except NotFound:
            # Deleted since the job was made: it names nobody any more.
            things = []
        done = len(things) < limit
        cursor = things[-1] if things else target.cursor
        self._jobs.save_target(tx, account, job.id, replace(target, planned=done, cursor=cursor))
        self._plan_things(tx, job, things, now=now)
        return len(things) if done else None

    def _plan_things(self, tx: Tx, job: Job, things: Sequence[ThingName], *, now: Instant) -> None:
        new, earlier = self._new_to(tx, job, things)
        if not job.metered:
            self._lifecycle.queue(tx, job, new, earlier=earlier, now=now)
        elif new:
            # Asked again when their turn comes; but whom nothing is meant for takes nobody's turn.
            chosen = self._lifecycle.fulfilment.may_queue(tx, job, new)
            self._jobs.add_waiting(tx, job.place.account, job.id, sorted([*chosen.by_document, *chosen.fulfilled]))

    def _release_waiting(self, tx: Tx, job: Job, *, limit: int, now: Instant) -> None:
        """Every target is planned: release those whose turn it is; when nobody waits any more, the rollout is done."""
        account = job.place.account
        allowed = self._allowed(job, limit=limit, now=now)
        things = self._jobs.waiting(tx, account, job.id, limit=allowed.count + 1)
        is_last = len(things) <= allowed.count
        if len(things) < allowed.count:
            # Only who is there takes turns: whoever joins within the minute finds what is left of it.
            allowed = self._allowed(job, limit=len(things), now=now)
        released = things[: allowed.count]
        if released:
            self._queue_waiting(tx, job, released, now=now)
            self._jobs.drop_waiting(tx, account, job=job.id, things=[waiting.thing for waiting in released])
            job = replace(job, released=allowed.recent, next_step_at=allowed.next_at)
        if is_last:
            self._settle(tx, job, now=now)
        else:
            self._jobs.save(tx, replace(job, released=allowed.recent, next_step_at=allowed.next_at))

    @staticmethod
    def _allowed(job: Job, *, limit: int, now: Instant) -> Release:
        if job.settings.rollout is None:
            return Release(count=limit, next_at=now)
        return release(job.settings.rollout, job.counts, recent=job.released, next_at=job.next_step_at, now=now, limit=limit)

    def _new_to(self, tx: Tx, job: Job, things: Sequence[ThingName]) -> tuple[list[ThingName], Mapping[ThingName, Execution]]:
        """Those of some things that the job has yet to come to, and the attempts that some of them have behind them: a
        CONTINUOUS job comes again to who left and came back, and to who isn't what it was."""
        latest = self._executions.latest_of(tx, job.place.account, job.id, things) if things else {}
        earlier = {}
        if job.target_selection is TargetSelection.CONTINUOUS:
            earlier = {thing: execution for thing, execution in latest.items() if execution.may_come_again}
        return [thing for thing in things if thing not in latest or thing in earlier], earlier

    def _queue_waiting(self, tx: Tx, job: Job, things: Sequence[Waiting], *, now: Instant) -> None:
        """Queue whose turn has come, each for the reason that it stood in line for, if that still holds."""
        new, earlier = self._new_to(tx, job, [waiting.thing for waiting in things if waiting.ended is None])
        again = [waiting.thing for waiting in things if waiting.ended is not None]
        latest = self._executions.latest_of(tx, job.place.account, job.id, again) if again else {}
        retrying = {thing: execution for thing, execution in latest.items() if execution.status in RETRIED}
        self._lifecycle.queue(tx, job, [*new, *retrying], earlier={**earlier, **retrying}, retrying=retrying, now=now)

    def _queue_new(self, tx: Tx, job: Job, things: Sequence[ThingName], *, now: Instant) -> None:
        new, earlier = self._new_to(tx, job, things)
        self._lifecycle.queue(tx, job, new, earlier=earlier, now=now)

    def _settle(self, tx: Tx, job: Job, *, now: Instant) -> None:
        self._jobs.save(tx, replace(job, phase=JobPhase.SETTLED))
        self._lifecycle.conclude(tx, job.place.account, job.id, now=now)

    # The end of a schedule ------------------------------------------------------------------------------------------------

    def _end_schedule(self, tx: Tx, job: Job, *, now: Instant) -> None:
        assert job.schedule is not None
        ended = replace(job, ends_at=None)
        if job.schedule.end_behavior is EndBehavior.STOP_ROLLOUT:
            self._stop_rollout(tx, ended, now=now)
            return
        comment = f"The job's endTime has come, and its endBehavior is {job.schedule.end_behavior}."
        force = job.schedule.end_behavior is EndBehavior.FORCE_CANCEL
        self._lifecycle.cancel(tx, ended, comment=comment, reason_code=SCHEDULE_ENDED, force=force, now=now)

    def _stop_rollout(self, tx: Tx, job: Job, *, now: Instant) -> None:
        """Nobody else gets it; what is under way goes on, and the job is done with the last of it."""
        account = job.place.account
        self._jobs.drop_waiting(tx, account, job=job.id)
        self._jobs.set_planned(tx, account, job.id)
        status = JobStatus.IN_PROGRESS if job.status is JobStatus.SCHEDULED else job.status
        self._settle(tx, replace(job, status=status, ends_at=None, last_updated_at=now), now=now)

    # Cancelling and deleting ----------------------------------------------------------------------------------------------

    def _cancel_some(self, tx: Tx, job: Job, *, limit: int, now: Instant) -> None:
        account = job.place.account
        executions: list[Execution] = []
        for status in sorted(PENDING if job.force_canceled else CANCELABLE_WITHOUT_FORCE):
            left = limit - len(executions)
            executions += self._executions.of_job(tx, account, job.id, status=status, after=None, limit=left)
        for execution in executions:
            self._lifecycle.end(tx, job, execution, ExecutionStatus.CANCELED, now=now, force=job.force_canceled)
        done = len(executions) < limit
        self._jobs.save(tx, replace(job, phase=JobPhase.SETTLED if done else job.phase, next_step_at=now))
        canceled = self._jobs.find(tx, account, job.id) if done else None
        if canceled is not None:
            self._events.job(tx, canceled, JobEvent.CANCELED, now=now)

    def _delete_some(self, tx: Tx, job: Job, *, limit: int, now: Instant) -> None:
        account = job.place.account
        executions = self._executions.of_job(tx, account, job.id, status=None, after=None, limit=limit)
        # From the last attempt down, so that none becomes the latest in between.
        for execution in reversed(executions):
            self._lifecycle.remove(tx, job, execution, now=now)
        if len(executions) < limit:
            self._events.job(tx, job, JobEvent.DELETED, now=now)
            self._jobs.delete(tx, account, job.id)
            self._lifecycle.fulfilment.forget(tx, account, job.id)
            self._tags.forget(tx, job.place, job.arn)
        else:
            self._jobs.save(tx, replace(job, next_step_at=now))

    # Following the registry (devices.ports.MembershipChanged) -------------------------------------------------------------

    def joined(self, tx: Tx, account: AccountId, thing: ThingName, group: GroupName) -> None:
        """A thing came into a group: running CONTINUOUS jobs give it an execution, at once if their rate and their schedule let
        them, else in its turn."""
        now = self._clock.now()
        for job in self._jobs.continuous_for(tx, account, group):
            self._give(tx, job, thing, now=now)

    def give_again(self, tx: Tx, account: AccountId, thing: ThingName) -> Sequence[JobId]:
        """A thing isn't what it was when it did its jobs (it was reset, or provisioned again): each running CONTINUOUS job of
        its groups comes to it once more. What is pending for it stays as it is. Returns which jobs come again."""
        if not self._executions.outlive(tx, account, thing):
            return ()
        now = self._clock.now()
        given: dict[JobId, bool] = {}
        for group in sorted(self._groups.all_groups_of(tx, account, thing)):
            for job in self._jobs.continuous_for(tx, account, group):
                if job.id not in given and self._executions.find(tx, account, thing, job.id) is not None:
                    given[job.id] = self._give(tx, job, thing, now=now)
        return [job for job, comes in given.items() if comes]

    def keys_declared(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """A thing has said something new of its decryption keys (``devices.ports.KeysDeclared``): running CONTINUOUS jobs of
        its groups that were kept from it come to it, if it can read them now."""
        now = self._clock.now()
        for group in sorted(self._groups.all_groups_of(tx, account, thing)):
            for job in self._jobs.continuous_for(tx, account, group):
                latest = self._executions.find(tx, account, thing, job.id) if job.encrypted else None
                if latest is not None and latest.refused_by_server and not self._lifecycle.unable(tx, job, [thing]):
                    self._give(tx, job, thing, now=now)

    def _give(self, tx: Tx, job: Job, thing: ThingName, *, now: Instant) -> bool:
        """Whether the job comes to the thing, now or at its time."""
        account = job.place.account
        new, _ = self._new_to(tx, job, [thing])
        if not new:
            return False
        turn = self._lifecycle.turns.ask(tx, job, thing, now=now)
        if turn is Turn.NOW:
            self._jobs.drop_waiting(tx, account, job=job.id, things=[thing])
            self._queue_new(tx, job, [thing], now=now)
        return turn is not Turn.NEVER

    def left(self, tx: Tx, account: AccountId, thing: ThingName, group: GroupName) -> None:
        """A thing left a group: what CONTINUOUS jobs had pending for it is REMOVED, unless another target still names it."""
        now = self._clock.now()
        groups = self._groups.all_groups_of(tx, account, thing)
        for job in self._jobs.continuous_for(tx, account, group):
            still = {job.place.iot("thinggroup", name) for name in groups} | {job.place.iot("thing", thing)}
            if self._jobs.has_target(tx, account, job.id, sorted(still)):
                continue
            self._jobs.drop_waiting(tx, account, job=job.id, things=[thing])
            latest = self._executions.find(tx, account, thing, job.id)
            if latest is not None and latest.is_pending:
                self._lifecycle.end(tx, job, latest, ExecutionStatus.REMOVED, now=now)

    def thing_deleted(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """A thing is gone from the registry: what was pending for it is REMOVED, whatever the job. One that is made again under
        its name is another device, which CONTINUOUS jobs come to anew."""
        now = self._clock.now()
        self._jobs.drop_waiting(tx, account, things=[thing])
        self._executions.outlive(tx, account, thing)
        while pending := self._executions.pending_anywhere(tx, account, thing, limit=PENDING_LISTED_MAX):
            for execution in pending:
                job = self._jobs.find(tx, account, execution.job)
                assert job is not None
                # Now that the job is held: another node may have taken the device's last word in between.
                found = self._executions.find(tx, account, thing, execution.job)
                if found is not None and found.is_pending:
                    self._lifecycle.end(tx, job, found, ExecutionStatus.REMOVED, now=now)


class JobPlanner:
    """The worker (``workers.loop.Worker``) that takes all jobs further, in steps of about ``STEP_MS``: as many things as that
    is enough for, on this machine and beside what else it does just now."""

    name = "jobs"

    def __init__(self, *, work: Work, planner: Planner, clock: Clock) -> None:
        self._work = work
        self._planner = planner
        self._clock = clock
        self._things = THINGS_PER_STEP_MAX

    async def run_once(self) -> bool:
        now = self._clock.now()
        if not await self._work.read(lambda tx: self._planner.has_step(tx, now=now)):
            return False

        def piece(tx: Tx) -> tuple[bool, int]:
            began = self._clock.now()
            did_something = self._planner.step(tx, now=now, limit=self._things)
            return did_something, self._clock.now() - began

        did_something, took_ms = await self._work.run(piece)
        # One slow step, and a clock that was set, says little: the number is halved or doubled at most.
        fitting = self._things * STEP_MS // max(took_ms, 1)
        fitting = max(self._things // 2, min(fitting, self._things * 2))
        self._things = max(THINGS_PER_STEP_MIN, min(fitting, THINGS_PER_STEP_MAX))
        return did_something
