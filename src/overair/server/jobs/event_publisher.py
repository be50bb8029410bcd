"""Tells what becomes of jobs and executions to whoever subscribed to ``$aws/events/…``, where the account asked for it."""

from __future__ import annotations

from overair.basics.clock import Clock, Instant
from overair.basics.ids import AccountId, IdSource
from overair.basics.work import Notice, Tx
from overair.server.jobs.events import (
    JobEvent,
    execution_event,
    execution_event_topic,
    job_event,
    job_event_topic,
)
from overair.server.jobs.model import EventConfiguration, EventKind, Execution, Job
from overair.server.jobs.ports import EventConfigurations, JobStore


class JobEvents:
    """Events stand in the outbox of the unit that brings them about: told if it commits, and then told in order."""

    def __init__(self, *, jobs: JobStore, configurations: EventConfigurations, ids: IdSource, clock: Clock) -> None:
        self._jobs = jobs
        self._configurations = configurations
        self._ids = ids
        self._clock = clock

    def configured(self, tx: Tx, account: AccountId) -> dict[EventKind, EventConfiguration]:
        """What the account ever set; absent means that it is off."""
        return self._configurations.all(tx, account)

    def configure(self, tx: Tx, account: AccountId, wanted: dict[EventKind, bool]) -> None:
        """Turn kinds of events on or off; a kind that isn't named stays as it is."""
        now = self._clock.now()
        for kind, enabled in sorted(wanted.items()):
            self._configurations.set(tx, account, kind, enabled=enabled, now=now)

    def job(self, tx: Tx, job: Job, event: JobEvent, *, now: Instant) -> None:
        account = job.place.account
        if not self._wants(tx, account, EventKind.JOB):
            return
        targets = [target.arn for target in self._jobs.targets(tx, account, job.id)]
        payload = job_event(job, event, targets, event_id=self._ids.uuid(), now=now)
        tx.publish(Notice(account=account, topic=job_event_topic(job, event), payload=payload))

    def execution(self, tx: Tx, job: Job, execution: Execution, *, deleted: bool = False, now: Instant) -> None:
        """It has ended, or is deleted."""
        account = job.place.account
        if not self._wants(tx, account, EventKind.JOB_EXECUTION):
            return
        payload = execution_event(job, execution, deleted=deleted, event_id=self._ids.uuid(), now=now)
        tx.publish(Notice(account=account, topic=execution_event_topic(execution, deleted=deleted), payload=payload))

    def _wants(self, tx: Tx, account: AccountId, kind: EventKind) -> bool:
        configuration = self._configurations.all(tx, account).get(kind)
        return configuration is not None and configuration.enabled
