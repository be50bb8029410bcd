"""Where a whole job stands, in the stages that an operator thinks in. Pure: counts come in, stages and causes go out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from overair.basics.clock import Instant
from overair.server.explain.signatures import told as told_of_signatures
from overair.server.jobs.model import Job, JobStatus
from overair.server.jobs.rollout import rate_per_minute
from overair.server.jobs.tallies import Standing
from overair.server.signing.model import Standing as SignatureStanding
from overair.wire.agent_reasons import blocks_received, reason_in_words
from overair.wire.job_messages import ExecutionStatus

CAUSES_MAX: Final = 50
NO_REASON: Final = "it gave no reason"
TIMED_OUT: Final = "it ran out of time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why so many things didn't take it, in words."""

    status: ExecutionStatus
    reason: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutView:
    """Each thing counts in exactly one stage."""

    waiting: int = 0
    """Held back by the rate."""
    queued: int = 0
    """Its turn has come, and it isn't connected."""
    notified: int = 0
    """Told, since it is connected, and not begun."""
    begun: int = 0
    """At it, and no block reported."""
    downloading: int = 0
    self_test: int = 0
    """Restarting into the image, or testing itself."""
    succeeded: int = 0
    failed: int = 0
    rejected: int = 0
    timed_out: int = 0
    canceled: int = 0
    removed: int = 0
    blocks_received: int = 0
    """Of the things that are downloading, together."""
    blocks_total: int = 0
    rate_per_minute: int | None = None
    """How many a minute are let in now; None: no rate."""
    causes: tuple[Cause, ...] = ()


def view_of(job: Job, standings: Sequence[Standing], *, waiting: int, notified: int) -> RolloutView:
    """``notified``: how many of the queued things are connected."""
    counts = job.counts
    downloading = self_test = received = total = 0
    reasons: dict[tuple[ExecutionStatus, str], int] = {}
    for standing in standings:
        details = standing.details
        if standing.status is not ExecutionStatus.IN_PROGRESS:
            cause = (standing.status, _cause(standing))
            reasons[cause] = reasons.get(cause, 0) + standing.count
        elif "self_test" in details:
            self_test += standing.count
        elif (blocks := blocks_received(details)) is not None:
            downloading += standing.count
            received += blocks[0] * standing.count
            total += blocks[1] * standing.count
    queued = counts.get(ExecutionStatus.QUEUED, 0)
    in_progress = counts.get(ExecutionStatus.IN_PROGRESS, 0)
    notified = min(notified, queued)
    rollout = job.settings.rollout
    ordered = sorted(reasons.items(), key=lambda each: (-each[1], each[0]))
    return RolloutView(
        waiting=waiting,
        queued=queued - notified,
        notified=notified,
        begun=max(0, in_progress - downloading - self_test),
        downloading=downloading,
        self_test=self_test,
        succeeded=counts.get(ExecutionStatus.SUCCEEDED, 0),
        failed=counts.get(ExecutionStatus.FAILED, 0),
        rejected=counts.get(ExecutionStatus.REJECTED, 0),
        timed_out=counts.get(ExecutionStatus.TIMED_OUT, 0),
        canceled=counts.get(ExecutionStatus.CANCELED, 0),
        removed=counts.get(ExecutionStatus.REMOVED, 0),
        blocks_received=received,
        blocks_total=total,
        rate_per_minute=None if rollout is None else rate_per_minute(rollout, counts),
        causes=tuple(Cause(status=status, reason=reason, count=count) for (status, reason), count in ordered[:CAUSES_MAX]),
    )


def why(job: Job, view: RolloutView, signatures: Sequence[SignatureStanding], *, now: Instant) -> list[str]:
    """Why the job stands where it does, as sentences; the first is never missing."""
    going = view.waiting + view.queued + view.notified + view.begun + view.downloading + view.self_test
    done = view.succeeded + view.failed + view.rejected + view.timed_out + view.canceled + view.removed
    chain = [f"Job {job.id} is {job.status}: {done:,} things are through with it, {going:,} are not."]
    if job.status is JobStatus.CANCELED:
        told = " ".join(filter(None, (job.reason_code, job.comment)))
        chain.append(f"It was cancelled: {told.rstrip('.')}." if told else "It was cancelled; no reason was given.")
    return [*chain, *told_of_signatures(signatures, now=now, goes_out=job.status is not JobStatus.CANCELED)]


def _cause(standing: Standing) -> str:
    reason = standing.details.get("reason")
    if reason:
        return reason_in_words(reason)
    return TIMED_OUT if standing.status is ExecutionStatus.TIMED_OUT else NO_REASON
