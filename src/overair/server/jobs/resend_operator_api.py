"""Giving a thing its updates once more: an operation of our own service model, since AWS has no word for it."""

from __future__ import annotations

from overair.basics.ids import ThingName
from overair.basics.work import Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.jobs.service import JobsService


class ResendOperations:
    """The operator's door to ``JobsService.resend``."""

    def __init__(self, *, work: Work, jobs: JobsService) -> None:
        self._work = work
        self._jobs = jobs

    @operation("overair", "ResendContinuousJobs")
    async def resend_continuous_jobs(self, caller: Caller, request: Request) -> Members:
        """Which jobs come to the thing once more."""
        thing = ThingName(request["thingName"])
        given = await self._work.run(lambda tx: self._jobs.resend(tx, caller.account, thing))
        return {"jobIds": list(given)}
