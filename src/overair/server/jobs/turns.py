"""Whose turn it is: whatever gives one thing an execution beside the planned rollout asks here, so that one rate holds for all.

It asks for a thing that joins a CONTINUOUS job, for one that such a job comes to again, and for another attempt after one that
failed. In a job without a rate and without a schedule it is always everybody's turn.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from overair.basics.clock import Instant
from overair.basics.ids import ThingName
from overair.basics.work import Tx
from overair.server.jobs.model import Job, JobPhase
from overair.server.jobs.ports import JobStore
from overair.server.jobs.rollout import release
from overair.server.jobs.schedule import opens_at
from overair.wire.job_messages import ExecutionStatus


class Turn(StrEnum):
    NOW = "NOW"
    LATER = "LATER"
    """It stands in the job's line."""
    NEVER = "NEVER"
    """The job's schedule has ended."""


class Turns:
    """Gives turns, and puts in line who has to wait for one."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs

    def ask(self, tx: Tx, job: Job, thing: ThingName, *, ended: ExecutionStatus | None = None, now: Instant) -> Turn:
        """Whether the thing is to be queued now. ``job`` as it stands at this moment, held; ``ended``: how its last attempt
        ended, if this is about the next one."""
        opening = now if job.schedule is None else opens_at(job.schedule, now=now)
        if opening is None:
            return Turn.NEVER
        if opening == now:
            rollout = job.settings.rollout
            if rollout is None:
                return Turn.NOW
            # Nobody stands in line, and no target is still being read.
            if job.phase is JobPhase.SETTLED:
                allowed = release(rollout, job.counts, recent=job.released, next_at=job.next_step_at, now=now, limit=1)
                if allowed.count:
                    self._jobs.save(tx, replace(job, released=allowed.recent, next_step_at=allowed.next_at))
                    return Turn.NOW
                opening = allowed.next_at
        self._jobs.add_waiting(tx, job.place.account, job.id, [thing], ended=ended)
        if job.phase is JobPhase.SETTLED:
            self._jobs.save(tx, replace(job, phase=JobPhase.ROLLING_OUT, next_step_at=opening))
        return Turn.LATER
