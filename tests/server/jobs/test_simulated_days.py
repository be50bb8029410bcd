"""A day of a fleet in seconds: the scheduler that runs, with only the clock replaced."""

from __future__ import annotations

import random
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from overair.basics.arn import Place
from overair.basics.clock import Instant, SettableClock
from overair.basics.ids import JobId, ThingName
from overair.basics.work import Tx
from overair.server.jobs.model import (
    MINUTE_MS,
    AbortCriterion,
    ExponentialRate,
    FailureType,
    JobPhase,
    JobSettings,
    JobStatus,
    Report,
    RetryCriterion,
    RolloutConfig,
)
from overair.server.jobs.operator_executions import JobTimers
from overair.server.jobs.planning import JobPlanner
from overair.server.jobs.rollout import rate_per_minute
from overair.server.jobs.tables import job_executions
from overair.server.storage.work import SqlWork, open_sqlite, sql
from overair.wire.job_messages import ExecutionStatus
from tests.support.jobs_room import JobsRoom

S = ExecutionStatus
DAY_MS = 24 * 60 * MINUTE_MS


@pytest.fixture
def work(clock: SettableClock, tmp_path: Path, sqlite_template: Callable[[], Path]) -> Iterator[SqlWork]:
    """On SQLite alone: this is about time, and the statements are under test on both elsewhere."""
    path = tmp_path / "records.sqlite3"
    shutil.copyfile(sqlite_template(), path)
    work = open_sqlite(path, clock=clock)
    yield work
    work.close()


class Fleet:
    """Devices that take what ``$next`` gives them after a while, and end it some time later, well or badly."""

    def __init__(self, room: JobsRoom, *, seed: int, failing: float, silent: float) -> None:
        self._room = room
        self._random = random.Random(seed)
        self._failing, self._silent = failing, silent
        self._due: dict[ThingName, Instant] = {}

    @property
    def due(self) -> list[Instant]:
        return list(self._due.values())

    def notice(self, tx: Tx) -> None:
        """Take up what was queued since the last time."""
        for thing, queued_at in self.look(tx):
            self._due[thing] = Instant(queued_at + self._random.randrange(1_000, 20 * MINUTE_MS))

    def look(self, tx: Tx) -> list[tuple[ThingName, Instant]]:
        """Who was queued since the last look."""
        rows = sql(tx).execute(
            job_executions.select().where(job_executions.c.status == "QUEUED").order_by(job_executions.c.queued_at)
        )
        return [(ThingName(row.thing), Instant(row.queued_at)) for row in rows if row.thing not in self._due]

    def act(self, tx: Tx, now: Instant) -> None:
        """Everybody whose time has come does the next thing."""
        self.notice(tx)
        for thing in [thing for thing, due in self._due.items() if due <= now]:
            del self._due[thing]
            self._step(tx, thing, now)

    def _step(self, tx: Tx, thing: ThingName, now: Instant) -> None:
        jobs, place = self._room.jobs.device, self._room.place
        described = jobs.next(tx, place, thing, include_document=False)
        if described is None:
            return
        execution = described.execution
        if execution.status is S.QUEUED:
            jobs.start_next(tx, place, thing)
            if self._random.random() >= self._silent:
                self._due[thing] = Instant(now + self._random.randrange(1_000, 25 * MINUTE_MS))
            return
        status = S.FAILED if self._random.random() < self._failing else S.SUCCEEDED
        jobs.report(tx, place, thing, execution.job, Report(status=status))


def queueings(room: JobsRoom) -> list[int]:
    """When things were queued, in order, each attempt of theirs."""
    rows = room.work.read_blocking(lambda tx: sql(tx).execute(job_executions.select()).all())
    return sorted(row.queued_at for row in rows)


async def live_through(room: JobsRoom, fleet: Fleet, *, until_ms: int) -> list[tuple[int, int]]:
    """Look at everything again and again; returns what rate held when."""
    timers = JobTimers(work=room.work, executions=room.jobs.executions, clock=room.clock)
    planner = JobPlanner(work=room.work, planner=room.jobs.planner, clock=room.clock)
    begin = room.clock.now()
    rates: list[tuple[int, int]] = []
    while room.clock.now() < begin + until_ms:
        now = room.clock.now()
        while await timers.run_once():
            pass
        while await planner.run_once():
            pass
        await room.work.run(lambda tx, now=now: fleet.act(tx, now))
        job = room.job("A")
        if job.settings.rollout is not None:
            # A device's word may let the rate grow, and another's retry in at once.
            rates.append((now, rate_per_minute(job.settings.rollout, job.counts)))
        room.clock.set(
            await room.work.read(lambda tx, now=now: next_event(room, fleet, tx, now, end=Instant(begin + until_ms)))
        )
    return rates


def next_event(room: JobsRoom, fleet: Fleet, tx: Tx, now: Instant, *, end: Instant) -> Instant:
    """Nothing happens before: no turn comes, no device acts, no time runs out."""
    fleet.notice(tx)
    job = room.jobs.find(tx, room.place.account, JobId("A"))
    times = [end, *fleet.due]
    if job.phase is not JobPhase.SETTLED:
        times.append(job.next_step_at)
    overdue = sql(tx).execute(select(func.min(job_executions.c.due_at))).scalar()
    if overdue is not None:
        times.append(overdue)
    return Instant(max(now + 1, min(times)))


def most_in_a_minute(times: list[int]) -> int:
    return max(bisect_right(times, at + MINUTE_MS - 1) - index for index, at in enumerate(times))


@pytest.fixture
def day_room(work: SqlWork, place: Place, clock: SettableClock) -> JobsRoom:
    room = JobsRoom(work, place, clock)
    room.add_things(*(f"t{number:04}" for number in range(100)), group="g")
    return room


async def test_a_day_at_a_growing_rate_with_failures_retries_and_timeouts(day_room: JobsRoom) -> None:
    room = day_room
    growth = ExponentialRate(base_per_minute=1, factor=1.5, succeeded_criterion=10)
    settings = JobSettings(
        rollout=RolloutConfig(maximum_per_minute=6, exponential=growth),
        retry=(RetryCriterion(failure_type=FailureType.ALL, retries=2),),
        in_progress_timeout_minutes=30,
    )
    room.create("A", room.group_arn("g"), settings=settings)
    fleet = Fleet(room, seed=7, failing=0.1, silent=0.05)
    rates = await live_through(room, fleet, until_ms=DAY_MS)
    job = room.job("A")
    assert job.status is JobStatus.COMPLETED
    assert sum(job.counts.values()) == 100
    assert job.counts[S.SUCCEEDED] > 80
    assert job.counts[S.FAILED] + job.counts[S.TIMED_OUT] + job.counts[S.SUCCEEDED] == 100
    times = queueings(room)
    assert len(times) > 100, "some tried again"
    highest = 0
    for index, end in enumerate(times):
        inside = index + 1 - bisect_right(times, end - MINUTE_MS)
        held = max(rate for at, rate in rates if at <= end)
        highest = max(highest, inside)
        assert inside <= held
    assert 1 < highest <= 6


async def test_a_bad_image_stops_early_and_reaches_few(day_room: JobsRoom) -> None:
    room = day_room
    criterion = AbortCriterion(failure_type=FailureType.ALL, threshold_percentage=20.0, things_executed_min=20)
    settings = JobSettings(rollout=RolloutConfig(maximum_per_minute=3), abort=(criterion,), in_progress_timeout_minutes=15)
    room.create("A", room.group_arn("g"), settings=settings)
    fleet = Fleet(room, seed=3, failing=0.6, silent=0.2)
    await live_through(room, fleet, until_ms=6 * 60 * MINUTE_MS)
    job = room.job("A")
    assert (job.status, job.reason_code) == (JobStatus.CANCELED, "ABORT_CRITERIA_MET")
    assert 20 <= sum(job.counts.values()) < 90
    assert job.counts[S.QUEUED] == 0
    assert most_in_a_minute(queueings(room)) <= 3
