"""What the clients of a server were told, and what its records may therefore hold after it was killed. No socket, no clock."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

PENDING = ("QUEUED", "IN_PROGRESS")
DEVICE_SAYS = ("IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED")
COUNTED = (*DEVICE_SAYS, "QUEUED", "TIMED_OUT", "REMOVED", "CANCELED")


@dataclass(frozen=True, slots=True)
class Stand:
    """Where one execution stands."""

    status: str
    version: int
    details: Mapping[str, str]

    @property
    def is_pending(self) -> bool:
        return self.status in PENDING


@dataclass(frozen=True, slots=True)
class Update:
    """What a device says of an execution. ``details`` None leaves those that are there."""

    status: str
    details: Mapping[str, str] | None


@dataclass(slots=True)
class Asked:
    """Something that an operator has asked for, and whether he was told that it is so."""

    answered: bool = False
    details: Mapping[str, str] | None = None


@dataclass(slots=True)
class ExecutionLedger:
    """One thing doing one job, as its device knows it."""

    stand: Stand = Stand("QUEUED", 1, {})
    unanswered: Update | None = None
    """The last one that was sent: it was taken, once, or it wasn't."""
    cancellation: Asked | None = None
    job_cancellation: Asked | None = None

    def accepted(self) -> None:
        """The server has said that it took what was unanswered."""
        assert self.unanswered is not None
        self.stand = self._after(self.unanswered)
        self.unanswered = None

    def may_stand(self, *, at_rest: bool) -> Iterator[Stand]:
        """Everything that would be true to what was said. Unless the server is ``at_rest``, what a device is told may be older
        than what an operator was told meanwhile."""
        reached = [self.stand, *([self._after(self.unanswered)] if self.unanswered is not None else [])]
        for stand in reached:
            if not (at_rest and stand.is_pending and self.cancellation is not None and self.cancellation.answered):
                yield stand
            for asked in (self.cancellation, self.job_cancellation):
                if asked is not None and stand.is_pending:
                    yield Stand("CANCELED", stand.version + 1, stand.details if asked.details is None else asked.details)

    def found(self, stand: Stand, what: str, *, at_rest: bool = False) -> None:
        """The server says, or its records hold, that it stands there."""
        allowed = list(self.may_stand(at_rest=at_rest))
        assert stand in allowed, f"{what} is {stand}; what its device and the operators were told allows {allowed}"
        self.stand, self.unanswered = stand, None
        if at_rest and stand.is_pending:
            self.cancellation = None

    def _after(self, update: Update) -> Stand:
        details = self.stand.details if update.details is None else update.details
        return Stand(update.status, self.stand.version + 1, details)


@dataclass(slots=True)
class Ledgers:
    """Of all clients of one server."""

    things: dict[str, Asked] = field(default_factory=dict)
    jobs: dict[str, Asked] = field(default_factory=dict)
    job_cancellations: dict[str, Asked] = field(default_factory=dict)
    executions: dict[tuple[str, str], ExecutionLedger] = field(default_factory=dict)

    def execution(self, thing: str, job: str) -> ExecutionLedger:
        """The ledger of a thing's execution; made when it is first heard of."""
        ledger = self.executions.setdefault((thing, job), ExecutionLedger())
        ledger.job_cancellation = self.job_cancellations.get(job)
        return ledger

    def compare(self, records: Records, *, targets: int) -> None:
        """Hold the records of a server that doesn't run against everything that was said; what was unanswered is settled by
        what they hold.

        Args:
            targets: How many things each job names.
        """
        for kind, asked, held in (("thing", self.things, records.things), ("job", self.jobs, records.jobs)):
            lost = {name for name, each in asked.items() if each.answered} - set(held)
            assert not lost, f"each {kind} of {lost} was acknowledged and isn't there"
            assert set(held) <= set(asked), f"nobody asked for each {kind} of {set(held) - set(asked)}"
            for name in [name for name in asked if name not in held]:
                del asked[name]
        for job, status in records.jobs.items():
            by_status = Counter(stand.status for (_, of), stand in records.executions.items() if of == job)
            assert by_status == records.counts[job], f"{job} counts {records.counts[job]}, its executions are {by_status}"
            assert by_status.total() <= targets, f"{job} has {by_status} for {targets} things"
            is_pending = bool(by_status["QUEUED"] + by_status["IN_PROGRESS"]) or by_status.total() < targets
            cancellation = self.job_cancellations.get(job)
            if status == "CANCELED":
                assert cancellation is not None, f"nobody has cancelled {job}"
            else:
                assert cancellation is None or not cancellation.answered, f"{job} was cancelled, and is {status}"
                self.job_cancellations.pop(job, None)
                assert status == ("IN_PROGRESS" if is_pending else "COMPLETED"), f"{job} is {status} with {by_status}"
        for (thing, job), stand in records.executions.items():
            assert job in records.jobs, f"{thing} has an execution of {job}, which isn't there"
            self.execution(thing, job).found(stand, f"{job} on {thing}", at_rest=True)
        for thing, job in self.executions.keys() - records.executions.keys():
            raise AssertionError(f"{thing} was given {job}, and its execution isn't there")


@dataclass(frozen=True, slots=True)
class Records:
    """What a server that doesn't run has in its records."""

    things: frozenset[str]
    jobs: Mapping[str, str]
    counts: Mapping[str, Counter[str]]
    executions: Mapping[tuple[str, str], Stand]

    @classmethod
    def of(cls, data: Path, scratch: Path) -> Records:
        """Read a copy: whoever opens the records themselves would clean up what the next server should find."""
        scratch.mkdir(exist_ok=True)
        for suffix in ("", "-wal"):
            there = data / f"records.sqlite3{suffix}"
            copy = scratch / there.name
            copy.unlink(missing_ok=True)
            if there.exists():
                shutil.copyfile(there, copy)
        with closing(sqlite3.connect(scratch / "records.sqlite3")) as records:
            assert records.execute("PRAGMA quick_check").fetchone() == ("ok",)
            counts = ", ".join(f"count_{status.lower()}" for status in COUNTED)
            jobs = {row[0]: row[1:] for row in records.execute(f"SELECT id, status, {counts} FROM jobs")}
            executions: dict[tuple[str, str], Stand] = {}
            for thing, job, *stand in records.execute("SELECT thing, job, status, version, status_details FROM job_executions"):
                assert (thing, job) not in executions, f"{thing} has two executions of {job}"
                executions[thing, job] = Stand(stand[0], stand[1], json.loads(stand[2]))
            return cls(
                things=frozenset(name for (name,) in records.execute("SELECT name FROM things")),
                jobs={job: row[0] for job, row in jobs.items()},
                counts={job: +Counter(dict(zip(COUNTED, row[1:], strict=True))) for job, row in jobs.items()},
                executions=executions,
            )
