"""``notify`` and ``notify-next``: published exactly when AWS does (wire reference §2.9).

A superfluous ``notify-next`` makes an agent drop its download and begin again, so it is sent only when another execution, or
none, has become the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from overair.basics.clock import Instant, epoch_seconds
from overair.basics.ids import AccountId, ThingName
from overair.basics.work import Notice, NoticeToMany, Tx
from overair.server.jobs.documents import DeviceDocuments
from overair.server.jobs.model import PENDING_LISTED_MAX, STARTED, AlikeQueue, Execution, Job
from overair.server.jobs.ports import ExecutionStore, JobStore
from overair.server.jobs.views import summaries, view
from overair.wire.job_messages import ExecutionReply, PendingChanged, notify_next_topic, notify_topic


class Announcer:
    """Tells things that one of their queues has changed: each namespace has its own, and its own topics."""

    def __init__(self, *, jobs: JobStore, executions: ExecutionStore, documents: DeviceDocuments) -> None:
        self._jobs = jobs
        self._executions = executions
        self._documents = documents

    def queue(self, tx: Tx, account: AccountId, thing: ThingName, namespace: str | None) -> Sequence[Execution]:
        """The queue as ``compare`` wants it from before a change."""
        return self._executions.pending(tx, account, thing, namespace=namespace, limit=PENDING_LISTED_MAX)

    def compare(
        self,
        tx: Tx,
        account: AccountId,
        thing: ThingName,
        before: Sequence[Execution],
        *,
        namespace: str | None,
        set_changed: bool,
        now: Instant,
    ) -> None:
        """Publish what follows from a change that has been written; ``before`` is the queue from before it."""
        after = self.queue(tx, account, thing, namespace)
        if set_changed:
            tx.publish(_pending_notice(account, thing, namespace, _pending_payload(after, now=now)))
        if identity(before) == identity(after):
            return
        document = None
        if after:
            job = self._jobs.find(tx, account, after[0].job)
            document = None if job is None else self._documents.for_device(tx, job)
        payload = _next_payload(after[0] if after else None, document=document, now=now)
        tx.publish(_next_notice(account, thing, namespace, payload))

    def queued(
        self,
        tx: Tx,
        job: Job,
        alike: Execution,
        things: Sequence[ThingName],
        *,
        numbers: Mapping[ThingName, int],
        queues: Sequence[AlikeQueue],
        now: Instant,
    ) -> None:
        """Publish for things that were just given ``alike`` each, under their own ``numbers`` where it isn't their first
        attempt; ``queues`` are those from before it, of things that had something to do.

        What a thing hears doesn't name it, so it is written once for all whose queues read alike. Nearly always an execution
        stands last; but what was queued at the same instant by an earlier job, or before the clock was set back, may stand
        first.
        """
        document: str | None = None
        queue_of = {thing: place for place, queue in enumerate(queues) for thing in queue.things}
        told: dict[tuple[int, int | None], list[ThingName]] = {}
        for thing in things:
            told.setdefault((numbers.get(thing, 1), queue_of.get(thing)), []).append(thing)
        for (number, place), hearing in told.items():
            execution = replace(alike, number=number)
            queue = sorted([execution, *([] if place is None else queues[place].executions)], key=_standing)
            topics = [notify_topic(thing, namespace=job.namespace) for thing in hearing]
            _tell_each(tx, job.place.account, topics, _pending_payload(queue, now=now))
            if queue[0] is execution:
                if document is None:
                    document = self._documents.for_device(tx, job)
                topics = [notify_next_topic(thing, namespace=job.namespace) for thing in hearing]
                _tell_each(tx, job.place.account, topics, _next_payload(execution, document=document, now=now))


def _pending_notice(account: AccountId, thing: ThingName, namespace: str | None, payload: bytes) -> Notice:
    return Notice(account=account, topic=notify_topic(thing, namespace=namespace), payload=payload)


def _next_notice(account: AccountId, thing: ThingName, namespace: str | None, payload: bytes) -> Notice:
    return Notice(account=account, topic=notify_next_topic(thing, namespace=namespace), payload=payload)


def _tell_each(tx: Tx, account: AccountId, topics: Sequence[str], payload: bytes) -> None:
    if len(topics) == 1:
        tx.publish(Notice(account=account, topic=topics[0], payload=payload))
    else:
        tx.publish(NoticeToMany(account=account, topics=topics, payload=payload))


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
