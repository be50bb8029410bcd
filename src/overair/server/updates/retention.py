"""What is kept for so long and no longer: ended jobs with their executions, and the updates and streams made for them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

import structlog

from overair.basics.clock import Clock, Instant
from overair.basics.errors import LimitExceeded, NotFound
from overair.basics.ids import AccountId, JobId, OtaUpdateId
from overair.basics.work import Tx, Work
from overair.server.jobs.model import Job
from overair.server.updates.model import JOB_ID_PREFIX, Update

DAY_MS: Final = 86_400_000
ROUND_MS: Final = 60 * 60 * 1000
"""Between two looks: what is kept for years needn't go to the second."""
JOBS_PER_STEP: Final = 5
"""Of one unit of work; their executions go in the planner's own bounded steps."""

logger = structlog.get_logger("overair.updates")


class EndedJobs(Protocol):
    """``jobs.service.JobsService``."""

    def ended_before(self, tx: Tx, moment: Instant, *, limit: int) -> Sequence[Job]: ...
    def delete(self, tx: Tx, account: AccountId, job: JobId) -> None: ...


class Updates(Protocol):
    """``service.UpdatesService``."""

    def find(self, tx: Tx, account: AccountId, update_id: OtaUpdateId) -> Update: ...
    def forget(self, tx: Tx, update: Update) -> None: ...


class Retention:
    """A worker (``workers.loop.Worker``).

    A job whose things may still report, or that gives updates to newcomers, has not ended and stays however old it is. So do
    the jobs of campaigns, which are the Director's record of what vehicles were given, and whatever an operator made himself:
    objects, and streams that no update made.
    """

    name = "retention"

    def __init__(self, *, work: Work, jobs: EndedJobs, updates: Updates, keep_days: int, clock: Clock) -> None:
        """``keep_days``: after their end; 0 keeps everything."""
        self._work = work
        self._jobs = jobs
        self._updates = updates
        self._keep_days = keep_days
        self._clock = clock
        self._due = Instant(0)

    async def run_once(self) -> bool:
        """Take away one step's worth. True while there may be more."""
        now = self._clock.now()
        if not self._keep_days or now < self._due:
            return False
        before = Instant(now - self._keep_days * DAY_MS)
        try:
            gone = await self._work.run(lambda tx: self._purge(tx, before))
        except LimitExceeded:
            # As many jobs as may be are being deleted: the next turn finds fewer.
            return False
        if gone:
            logger.info("old jobs are being deleted", count=len(gone), kept_days=self._keep_days)
            return True
        self._due = Instant(now + ROUND_MS)
        return False

    def _purge(self, tx: Tx, before: Instant) -> list[JobId]:
        gone = []
        for job in self._jobs.ended_before(tx, before, limit=JOBS_PER_STEP):
            self._jobs.delete(tx, job.place.account, job.id)
            if job.id.startswith(JOB_ID_PREFIX):
                with suppress(NotFound):
                    update_id = OtaUpdateId(job.id.removeprefix(JOB_ID_PREFIX))
                    self._updates.forget(tx, self._updates.find(tx, job.place.account, update_id))
            gone.append(job.id)
        return gone
