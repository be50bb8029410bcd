"""How far a whole job is: its executions by state and by what the devices said, counted where they lie."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from overair.basics.ids import AccountId, JobId, ThingName
from overair.basics.work import Tx
from overair.wire.job_messages import ExecutionStatus

TOLD_APART: Final = (
    ExecutionStatus.IN_PROGRESS,
    ExecutionStatus.FAILED,
    ExecutionStatus.REJECTED,
    ExecutionStatus.TIMED_OUT,
)
"""States in which what the device said tells one thing from another; the others are counted with the job."""
STANDINGS_MAX: Final = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """So many things stand in one state and said the same."""

    status: ExecutionStatus
    details: Mapping[str, str]
    count: int


class TallyStore(Protocol):
    """Counting over rows of executions (``tally_store.SqlTallyStore``)."""

    def standings(
        self, tx: Tx, account: AccountId, job: JobId, *, statuses: Collection[ExecutionStatus], limit: int
    ) -> Sequence[Standing]:
        """Latest attempts by state and details, the most frequent first."""
        ...

    def waiting(self, tx: Tx, account: AccountId, job: JobId) -> int:
        """Things of a metered rollout whose turn hasn't come."""
        ...

    def queued(self, tx: Tx, account: AccountId, job: JobId, *, limit: int) -> Sequence[ThingName]: ...
    def lines_of(self, tx: Tx, account: AccountId, thing: ThingName, *, limit: int) -> frozenset[JobId]: ...


class JobTallies:
    """Reads, and changes nothing."""

    def __init__(self, store: TallyStore) -> None:
        self._store = store

    def standings(self, tx: Tx, account: AccountId, job: JobId) -> Sequence[Standing]:
        """By what the devices said, where that tells them apart. A vehicle's details are its own, so that as many as there are
        things may come: at most ``STANDINGS_MAX``."""
        return self._store.standings(tx, account, job, statuses=TOLD_APART, limit=STANDINGS_MAX)

    def waiting(self, tx: Tx, account: AccountId, job: JobId) -> int:
        """Things that a rate still holds back."""
        return self._store.waiting(tx, account, job)

    def lines_of(self, tx: Tx, account: AccountId, thing: ThingName, *, limit: int) -> frozenset[JobId]:
        """Jobs in whose line a thing stands, for the first time or again."""
        return self._store.lines_of(tx, account, thing, limit=limit)

    def queued(self, tx: Tx, account: AccountId, job: JobId, *, limit: int) -> Sequence[ThingName]:
        """Things that have it queued, at most ``limit``."""
        return self._store.queued(tx, account, job, limit=limit)
