"""``notify`` and ``notify-next``: published exactly when AWS does (wire reference §2.9).

A superfluous ``notify-next`` makes an agent drop its download and begin again, so it is sent only when another execution, or
none, has become the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from overair.basics.clock import Instant, epoch_seconds
from overair.basics.ids import AccountId, ThingName
from overair.basics.work import Notice, Tx
from overair.server.jobs.documents import DeviceDocuments
from overair.server.jobs.model import PENDING_LISTED_MAX, STARTED, Execution, Job
from overair.server.jobs.ports import ExecutionStore, JobStore
from overair.server.jobs.views import summaries, view
from overair.wire.job_messages import ExecutionReply, PendingChanged, notify_next_topic, notify_topic


class Announcer:
    """Tells things that their queue has changed."""

    def __init__(self, *, jobs: JobStore, executions: ExecutionStore, documents: DeviceDocuments) -> None:
        self._jobs = jobs
        self._executions = executions
        self._documents = documents

    def queue(self, tx: Tx, account: AccountId, thing: ThingName) -> Sequence[Execution]:
        """The queue as ``compare`` wants it from before a change."""
        return self._executions.pending(tx, account, thing, limit=PENDING_LISTED_MAX)

    def compare(
        self,
        tx: Tx,
        account: AccountId,
        thing: ThingName,
        before: Sequence[Execution],
        *,
        set_changed: bool,
        now: Instant,
    ) -> None:
        """Publish what follows from a change that has been written; ``before`` is the queue from before it."""
        after = self.queue(tx, account, thing)
        if set_changed:
            self.publish_pending(tx, account, thing, after, now=now)
        if identity(before) == identity(after):
            return
        if not after:
            self.publish_next(tx, account, thing, None, document=None, now=now)
            return
        job = self._jobs.find(tx, account, after[0].job)
        document = None if job is None else self._documents.for_device(tx, job)
        self.publish_next(tx, account, thing, after[0], document=document, now=now)

    def queued(
        self,
        tx: Tx,
        job: Job,
        alike: Execution,
        things: Sequence[ThingName],
        *,
        numbers: Mapping[ThingName, int],
        queues: Mapping[ThingName, Sequence[Execution]],
        now: Instant,
    ) -> None:
        """Publish for things that were just given ``alike`` each, under their own ``numbers`` where it isn't their first
        attempt; ``queues`` are those from before it.

        What a thing that had nothing to do hears names no thing, so it is written once for all of them. Nearly always an
        execution stands last; but what was queued at the same instant by an earlier job, or before the clock was set back, may
        stand first.
        """
        account = job.place.account
        document: str | None = None
        alone: dict[int, tuple[bytes, bytes]] = {}
        for thing in things:
            number, before = numbers.get(thing, 1), queues.get(thing, ())
            execution = replace(alike, thing=thing, number=number) if before or number not in alone else alike
            queue = sorted([*before, execution], key=_standing) if before else [execution]
            if document is None and queue[0] is execution:
                document = self._documents.for_device(tx, job)
            if before:
                self.publish_pending(tx, account, thing, queue, now=now)
                if queue[0] is execution:
                    self.publish_next(tx, account, thing, execution, document=document, now=now)
                continue
            if number not in alone:
                alone[number] = (_pending_payload(queue, now=now), _next_payload(execution, document=document, now=now))
            pending, following = alone[number]
            tx.publish(Notice(account=account, topic=notify_topic(thing), payload=pending))
            tx.publish(Notice(account=account, topic=notify_next_topic(thing), payload=following))

    def publish_pending(
        self, tx: Tx, account: AccountId, thing: ThingName, queue: Sequence[Execution], *, now: Instant
    ) -> None:
        tx.publish(Notice(account=account, topic=notify_topic(thing), payload=_pending_payload(queue, now=now)))

    def publish_next(
        self,
        tx: Tx,
        account: AccountId,
        thing: ThingName,
        execution: Execution | None,
        *,
        document: str | None,
        now: Instant,
    ) -> None:
        payload = _next_payload(execution, document=document, now=now)
        tx.publish(Notice(account=account, topic=notify_next_topic(thing), payload=payload))


def _pending_payload(queue: Sequence[Execution], *, now: Instant) -> bytes:
    in_progress, queued = summaries(queue)
    return PendingChanged(timestamp_s=epoch_seconds(now), in_progress=in_progress, queued=queued).to_json()


def _next_payload(execution: Execution | None, *, document: str | None, now: Instant) -> bytes:
    shown = None if execution is None else view(execution, now=now, document=document)
    return ExecutionReply(timestamp_s=epoch_seconds(now), execution=shown).to_json()


def _standing(execution: Execution) -> tuple[bool, Instant, int, str]:
    """The order of a queue, as the store has it."""
    return (execution.status not in STARTED, execution.queued_at, execution.job_sequence, execution.job)


def identity(queue: Sequence[Execution]) -> tuple[str, int] | None:
    """Which execution ``$next`` names."""
    return (queue[0].job, queue[0].number) if queue else None
