"""``overair watch``: an operation of our own service model. AWS counts a job's things by state; how far they are inside it, and
why they failed, would take a call for each thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Final, Protocol

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.ids import AccountId, ClientId, JobId, ThingName
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.explain.rollout import RolloutView, view_of, why
from overair.server.jobs.model import Job
from overair.server.jobs.service import JobsService
from overair.server.jobs.tallies import JobTallies, Standing
from overair.server.signing.model import Standing as SignatureStanding

QUEUED_LOOKED_AT_MAX: Final = 2_000
"""Queued things beyond it count as not connected: looking one up costs the event loop, which devices share."""
_MEMBERS: Final = {
    "self_test": "selfTest",
    "timed_out": "timedOut",
    "blocks_received": "blocksReceived",
    "blocks_total": "blocksTotal",
    "rate_per_minute": "ratePerMinute",
}


class Connections(Protocol):
    """Whoever knows which clients are connected (``broker.service.Broker``). Asked on the event loop."""

    def is_connected(self, account: AccountId, client_id: ClientId) -> bool: ...


class Signatures(Protocol):
    """Whoever knows under which signatures a job goes out (``service.ExplainService``)."""

    def signatures(self, tx: Tx, place: Place, job: JobId) -> Sequence[SignatureStanding]: ...


class RolloutOperations:
    """How far a job is."""

    def __init__(
        self,
        *,
        work: Work,
        jobs: JobsService,
        tallies: JobTallies,
        connections: Connections,
        signatures: Signatures,
        clock: Clock,
    ) -> None:
        self._work = work
        self._jobs = jobs
        self._tallies = tallies
        self._connections = connections
        self._signatures = signatures
        self._clock = clock

    @operation("overair", "DescribeRollout")
    async def describe_rollout(self, caller: Caller, request: Request) -> Members:
        """Each thing of the job in one stage, and the causes of what failed."""
        job_id, account = JobId(request["jobId"]), caller.account

        def read(tx: Tx) -> tuple[Job, Sequence[Standing], int, Sequence[ThingName], Sequence[SignatureStanding]]:
            job = self._jobs.find(tx, account, job_id)
            standings = self._tallies.standings(tx, account, job_id)
            waiting = self._tallies.waiting(tx, account, job_id)
            queued = self._tallies.queued(tx, account, job_id, limit=QUEUED_LOOKED_AT_MAX)
            return job, standings, waiting, queued, self._signatures.signatures(tx, caller.place, job_id)

        job, standings, waiting, queued, signatures = await self._work.read(read)
        notified = sum(self._connections.is_connected(account, ClientId(thing)) for thing in queued)
        view = view_of(job, standings, waiting=waiting, notified=notified)
        named = {"jobId": job_id, "status": job.status.value, "targetSelection": job.target_selection.value}
        reasons = why(job, view, signatures, now=self._clock.now())
        return {**named, **_members(view), "reasons": reasons}


def _members(view: RolloutView) -> Members:
    plain = {_MEMBERS.get(name, name): value for name, value in asdict(view).items() if name != "causes"}
    causes = [{"status": each.status.value, "reason": each.reason, "count": each.count} for each in view.causes]
    return {**plain, "causes": causes}
