"""Two schedulers over one PostgreSQL, each as a node has it: its own connections, its own writer. Either may go at any time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.ids import JobId, ThingName
from overair.basics.work import Tx
from overair.server.jobs.model import (
    FailureType,
    JobSettings,
    JobStatus,
    Report,
    RetryCriterion,
    RolloutConfig,
    TargetSelection,
)
from overair.server.jobs.planning import JobPlanner
from overair.server.jobs.tables import job_executions
from overair.server.storage.work import SqlWork, open_postgresql, sql
from overair.wire.job_messages import ExecutionStatus
from tests.server.conftest import empty_postgresql
from tests.server.jobs.test_planning import counts, joins
from tests.server.jobs.test_simulated_days import most_in_a_minute
from tests.support.jobs_room import JobsRoom

S = ExecutionStatus


class Killed(Exception):
    """The node is gone before its commit."""


@pytest.fixture
def nodes(postgresql_url: str, place: Place, clock: SettableClock) -> Iterator[tuple[JobsRoom, JobsRoom]]:
    works = [open_postgresql(postgresql_url, clock=clock) for _ in range(2)]
    empty_postgresql(works[0])
    first, second = (JobsRoom(work, place, clock) for work in works)
    second.registry = first.registry
    second.jobs.planner._members = first.registry
    second.jobs.planner._groups = first.registry
    yield first, second
    for work in works:
        work.close()


def queued_at(work: SqlWork) -> list[int]:
    rows = work.read_blocking(lambda tx: sql(tx).execute(job_executions.select()).all())
    assert len({row.thing for row in rows}) == len(rows)
    return sorted(row.queued_at for row in rows)


async def test_the_rate_holds_with_two_and_with_either_alone(nodes: tuple[JobsRoom, JobsRoom]) -> None:
    first, _ = nodes
    first.add_things(*(f"t{number:03}" for number in range(100)), group="g")
    first.create("A", first.group_arn("g"), settings=JobSettings(rollout=RolloutConfig(maximum_per_minute=30)))
    planners = [JobPlanner(work=room.work, planner=room.jobs.planner, clock=room.clock) for room in nodes]
    for look in range(75):
        first.clock.advance(milliseconds=2_000)
        # Both look in the same moment; then the first is gone for fifty seconds, then the second.
        living = planners if look < 25 else planners[1:] if look < 50 else planners[:1]
        await asyncio.gather(*(planner.run_once() for planner in living))
    times = queued_at(first.work)
    assert most_in_a_minute(times) <= 30
    assert len(times) >= 70


async def test_the_rate_holds_where_devices_fail_on_both_nodes_and_things_join_on_both(
    nodes: tuple[JobsRoom, JobsRoom],
) -> None:
    first, second = nodes
    first.add_things(*(f"t{number:02}" for number in range(10)), group="g")
    retry = (RetryCriterion(failure_type=FailureType.FAILED, retries=3),)
    settings = JobSettings(rollout=RolloutConfig(maximum_per_minute=6), retry=retry)
    first.create("A", first.group_arn("g"), settings=settings, selection=TargetSelection.CONTINUOUS)
    planners = [JobPlanner(work=room.work, planner=room.jobs.planner, clock=room.clock) for room in nodes]

    failed = Report(status=S.FAILED)

    async def fail(room: JobsRoom, half: int) -> None:
        for number in range(half, 10, 2):
            thing = ThingName(f"t{number:02}")
            if await room.work.read(lambda tx, thing=thing: room.jobs.executions.pending(tx, room.place.account, thing)):
                await room.work.run(lambda tx, thing=thing: room.jobs.device.report(tx, room.place, thing, JobId("A"), failed))

    for look in range(60):
        first.clock.advance(milliseconds=5_000)
        if look % 20 == 10:
            for room in nodes:
                joins(room, f"late-{look}-{nodes.index(room)}", "g")
        await asyncio.gather(*(planner.run_once() for planner in planners), fail(first, 0), fail(second, 1))
    rows = first.work.read_blocking(lambda tx: sql(tx).execute(job_executions.select()).all())
    assert most_in_a_minute(sorted(row.queued_at for row in rows)) <= 6
    assert len(rows) > 16, "more than one attempt of most"
    assert len({(row.thing, row.number) for row in rows}) == len(rows)


def test_a_piece_of_a_node_that_dies_is_taken_by_the_other_and_nobody_is_planned_twice(
    nodes: tuple[JobsRoom, JobsRoom],
) -> None:
    first, second = nodes
    first.add_things(*(f"t{number:04}" for number in range(300)), group="g")
    first.create("A", first.group_arn("g"))
    now = first.clock.now()
    done, asked = threading.Event(), threading.Event()

    def dies(tx: Tx) -> None:
        assert first.jobs.planner.step(tx, now=now)
        done.set()
        assert asked.wait(30)
        raise Killed

    def in_the_meantime() -> None:
        assert done.wait(30)
        asked.set()
        taken.append(second.work.run_blocking(lambda tx: second.jobs.planner.step(tx, now=now)))

    taken: list[bool] = []
    other = threading.Thread(target=in_the_meantime)
    other.start()
    with pytest.raises(Killed):
        first.work.run_blocking(dies)
    other.join()
    assert taken == [True]
    for room in (first, second):
        assert not room.work.run_blocking(lambda tx, room=room: room.jobs.planner.step(tx, now=now))
    assert counts(first, "A") == {"QUEUED": 300}
    assert len(queued_at(first.work)) == 300


def test_a_device_on_one_node_and_an_operator_on_the_other_lose_nothing_to_each_other(
    nodes: tuple[JobsRoom, JobsRoom], place: Place
) -> None:
    first, second = nodes
    things = [f"t{number:02}" for number in range(40)]
    first.add_things(*things, group="g")
    first.create("A", first.group_arn("g"))
    start = threading.Barrier(2)

    def devices() -> None:
        start.wait(30)
        for thing in things:
            report = Report(status=S.SUCCEEDED)

            def told(tx: Tx, thing: str = thing, report: Report = report) -> None:
                first.jobs.device.report(tx, place, ThingName(thing), JobId("A"), report)

            try:
                first.work.run_blocking(told)
            except Exception as error:
                refusals.append(error)

    def operator() -> None:
        start.wait(30)
        for thing in things:

            def cancelled(tx: Tx, thing: str = thing) -> None:
                second.jobs.executions.cancel(tx, place.account, ThingName(thing), JobId("A"))

            try:
                second.work.run_blocking(cancelled)
            except Exception as error:
                refusals.append(error)

    refusals: list[Exception] = []
    both = [threading.Thread(target=devices), threading.Thread(target=operator)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    # Of each pair one came first, and the other was refused by the table.
    assert len(refusals) == 40
    assert {type(error).__name__ for error in refusals} == {"InvalidStateTransition"}
    told = counts(first, "A")
    rows = first.work.read_blocking(lambda tx: sql(tx).execute(job_executions.select()).all())
    assert sum(told.values()) == 40
    assert {status: sum(row.status == status for row in rows) for status in told} == told
    assert all(row.version == 2 for row in rows)
    assert first.job("A").status is JobStatus.COMPLETED
