"""What keeps large fleets quick: bounded pieces, few statements, and an index below every question."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overair.basics.arn import Place
from overair.basics.clock import Instant, SettableClock
from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import JobId, ThingName
from overair.basics.work import Tx
from overair.server.jobs.execution_store import SqlExecutionStore
from overair.server.jobs.model import JobSettings, JobStatus, RolloutConfig, TargetSelection
from overair.server.jobs.planning import THINGS_PER_STEP_MAX
from overair.server.jobs.store import SqlJobStore
from overair.server.storage.statements import sql_tx
from overair.server.storage.work import SqlWork, open_sqlite
from overair.wire.job_messages import ExecutionStatus
from tests.server.jobs.test_planning import counts
from tests.support.jobs_room import JobsRoom

S = ExecutionStatus
THING, JOB = ThingName("a"), JobId("A")
JOBS, EXECUTIONS = SqlJobStore(), SqlExecutionStore()


@pytest.fixture
def sqlite_work(clock: SettableClock, tmp_path: Path, sqlite_template: Callable[[], Path]) -> Iterator[SqlWork]:
    path = tmp_path / "records.sqlite3"
    shutil.copyfile(sqlite_template(), path)
    work = open_sqlite(path, clock=clock)
    yield work
    work.close()


def statements_of(work: SqlWork, action: Callable[[Tx], object]) -> list[str]:
    """What an action asks of the database, with its values."""
    seen: list[str] = []

    def traced(tx: Tx) -> None:
        driver = sql_tx(tx).driver
        driver.set_trace_callback(seen.append)
        try:
            action(tx)
        finally:
            driver.set_trace_callback(None)

    work.run_blocking(traced)
    return [text for text in seen if text.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE", "INSERT"))]


def plans_of(work: SqlWork, action: Callable[[Tx], object]) -> list[str]:
    """How SQLite goes about it, step by step."""
    texts = statements_of(work, action)
    assert texts
    rows: list[Any] = []
    work.run_blocking(
        lambda tx: rows.extend(
            row for text in texts for row in sql_tx(tx).driver.execute(f"EXPLAIN QUERY PLAN {text}").fetchall()
        )
    )
    return [str(row[-1]) for row in rows]


@pytest.mark.parametrize(
    ("question", "action"),
    [
        ("describe a job", lambda tx, account: JOBS.find(tx, account, JOB)),
        ("what a job's targets are", lambda tx, account: JOBS.targets(tx, account, JOB)),
        ("which targets have members left", lambda tx, account: JOBS.unplanned(tx, account, JOB, limit=1000)),
        (
            "list jobs",
            lambda tx, account: JOBS.page(
                tx, account, status=None, target_selection=None, target=None, namespace=None, before=10**6, limit=251
            ),
        ),
        (
            "list jobs in a state",
            lambda tx, account: JOBS.page(
                tx,
                account,
                status=JobStatus.CANCELED,
                target_selection=None,
                target=None,
                namespace=None,
                before=10**6,
                limit=251,
            ),
        ),
        (
            "list continuous jobs",
            lambda tx, account: JOBS.page(
                tx,
                account,
                status=None,
                target_selection=TargetSelection.CONTINUOUS,
                target=None,
                namespace=None,
                before=None,
                limit=251,
            ),
        ),
        (
            "list jobs of a group",
            lambda tx, account: JOBS.page(
                tx, account, status=None, target_selection=None, target="arn:x", namespace=None, before=None, limit=251
            ),
        ),
        (
            "list jobs of a namespace",
            lambda tx, account: JOBS.page(
                tx, account, status=None, target_selection=None, target=None, namespace="ns", before=None, limit=251
            ),
        ),
        ("who waits", lambda tx, account: JOBS.waiting(tx, account, JOB, limit=1000)),
        ("who waits to try again", lambda tx, account: JOBS.waiting_to_retry(tx, account, JOB)),
        ("who tries no more", lambda tx, account: JOBS.drop_retry(tx, account, JOB, THING)),
        ("who comes to wait", lambda tx, account: JOBS.add_waiting(tx, account, JOB, [THING])),
        ("who waits no more", lambda tx, account: JOBS.drop_waiting(tx, account, job=JOB, things=[THING])),
        ("a thing that waits no more", lambda tx, account: JOBS.drop_waiting(tx, account, things=[THING])),
        ("which jobs follow a group", lambda tx, account: JOBS.continuous_for(tx, account, "g")),
        ("how many are being deleted", lambda tx, account: JOBS.count_with_status(tx, account, JobStatus.DELETION_IN_PROGRESS)),
        ("describe an execution", lambda tx, account: EXECUTIONS.find(tx, account, THING, JOB)),
        ("describe an attempt", lambda tx, account: EXECUTIONS.find(tx, account, THING, JOB, 3)),
        ("a thing's queue", lambda tx, account: EXECUTIONS.pending(tx, account, THING, limit=10)),
        (
            "a thing's queue in a namespace",
            lambda tx, account: EXECUTIONS.pending(tx, account, THING, namespace="ns", limit=10),
        ),
        ("all that a thing has before it", lambda tx, account: EXECUTIONS.pending_anywhere(tx, account, THING, limit=10)),
        ("several things' queues", lambda tx, account: EXECUTIONS.pending_of(tx, account, [THING, ThingName("b")])),
        ("which queues read alike", lambda tx, account: EXECUTIONS.queues_of(tx, account, [THING, ThingName("b")])),
        ("who has an execution", lambda tx, account: EXECUTIONS.latest_of(tx, account, JOB, [THING, ThingName("b")])),
        (
            "list a job's executions",
            lambda tx, account: EXECUTIONS.of_job(tx, account, JOB, status=None, after=("m", 3), limit=251),
        ),
        (
            "list a job's failures",
            lambda tx, account: EXECUTIONS.of_job(tx, account, JOB, status=S.FAILED, after=("m", 3), limit=251),
        ),
        (
            "list a thing's executions",
            lambda tx, account: EXECUTIONS.of_thing(tx, account, THING, status=None, job=None, before=(5, "x", 1), limit=251),
        ),
        ("whose time is up", lambda tx, account: EXECUTIONS.overdue(tx, now=Instant(5), limit=100)),
        ("a thing that isn't what it was", lambda tx, account: EXECUTIONS.outlive(tx, account, THING)),
        (
            "progress",
            lambda tx, account: EXECUTIONS.progress(
                tx, account, THING, JOB, status_details={}, expected_version=3, now=Instant(5)
            ),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_question_reads_a_whole_table(
    sqlite_work: SqlWork, place: Place, question: str, action: Callable[[Tx, Any], object]
) -> None:
    for step in plans_of(sqlite_work, lambda tx: action(tx, place.account)):
        # The list that the statement itself holds is read whole.
        assert not step.startswith("SCAN") or "VIRTUAL TABLE" in step, (question, step)
        # A sort of one thing's few executions is fine; a job's many are read in order.
        allowed = question in (
            "a thing's queue",
            "a thing's queue in a namespace",
            "all that a thing has before it",
            "several things' queues",
            "which queues read alike",
            "list a thing's executions",
            "which jobs follow a group",
        )
        assert allowed or step != "USE TEMP B-TREE FOR ORDER BY", (question, step)


def test_whose_turn_it_is_is_found_without_looking_at_settled_jobs(sqlite_work: SqlWork) -> None:
    plans = plans_of(sqlite_work, lambda tx: JOBS.unsettled(tx, now=Instant(5)))
    assert any("ix_jobs_ending" in step for step in plans)
    assert any("ix_jobs_unsettled (phase=? AND next_step_at<?)" in step for step in plans)
    assert not any(step.startswith("SCAN") for step in plans)


def test_a_piece_of_a_rollout_takes_as_many_statements_for_a_thousand_things_as_for_ten(
    sqlite_work: SqlWork, place: Place, clock: SettableClock
) -> None:
    room = JobsRoom(sqlite_work, place, clock)
    taken = {}
    for size in (10, THINGS_PER_STEP_MAX):
        group = f"g{size}"
        room.add_things(*(f"{group}-{number:05}" for number in range(size + 101)), group=group)
        room.create(group, room.group_arn(group))
        texts = statements_of(sqlite_work, lambda tx: room.jobs.planner.step(tx, now=clock.now()))
        taken[size] = len([text for text in texts if "outbox" not in text])
    assert taken[THINGS_PER_STEP_MAX] <= taken[10] + 2
    assert sum(counts(room, f"g{THINGS_PER_STEP_MAX}").values()) == THINGS_PER_STEP_MAX + 100


def test_a_queue_is_found_without_looking_at_what_has_ended(sqlite_work: SqlWork, place: Place) -> None:
    two = [THING, ThingName("b")]
    questions: list[Callable[[Tx], object]] = [
        lambda tx: EXECUTIONS.pending(tx, place.account, THING, limit=10),
        lambda tx: EXECUTIONS.pending_of(tx, place.account, two),
        lambda tx: EXECUTIONS.queues_of(tx, place.account, two),
    ]
    for question in questions:
        assert any("ix_job_executions_pending" in step for step in plans_of(sqlite_work, question))
    overdue = plans_of(sqlite_work, lambda tx: EXECUTIONS.overdue(tx, now=Instant(5), limit=100))
    assert any("ix_job_executions_timed" in step for step in overdue)


async def test_a_large_metered_job_is_read_in_bounded_pieces(room: JobsRoom) -> None:
    room.add_things(*(f"t{number:05}" for number in range(2_500)), group="g")
    asked: list[int] = []
    members = room.registry.members

    def noted(*arguments: Any, limit: int, **named: Any) -> Any:
        asked.append(limit)
        return members(*arguments, limit=limit, **named)

    room.registry.members = noted  # type: ignore[method-assign]
    room.create("A", room.group_arn("g"), settings=JobSettings(rollout=RolloutConfig(maximum_per_minute=1)))
    while await room.planner.run_once():
        pass
    assert len(asked) == 4
    assert max(asked) <= THINGS_PER_STEP_MAX
    assert counts(room, "A") == {"QUEUED": 1}


async def test_a_slow_machine_takes_smaller_pieces_and_larger_ones_when_it_is_quick_again(room: JobsRoom) -> None:
    room.add_things(*(f"t{number:05}" for number in range(3_000)), group="g")
    asked: list[int] = []
    members = room.registry.members
    slow = True

    def noted(*arguments: Any, limit: int, **named: Any) -> Any:
        asked.append(limit)
        room.clock.advance(milliseconds=limit if slow else 1)
        return members(*arguments, limit=limit, **named)

    room.registry.members = noted  # type: ignore[method-assign]
    room.create("A", room.group_arn("g"))
    for _ in range(6):
        await room.planner.run_once()
    slow = False
    while await room.planner.run_once():
        pass
    # A piece of 50 things takes 50 ms.
    assert asked[:7] == [100, 1_000, 500, 250, 125, 62, 50]
    assert asked[7:11] == [50, 100, 200, 400]
    assert counts(room, "A") == {"QUEUED": 3_000}


async def test_ten_thousand_things_can_be_named_one_by_one(sqlite_work: SqlWork, place: Place, clock: SettableClock) -> None:
    room = JobsRoom(sqlite_work, place, clock)
    things = [f"t{number:05}" for number in range(10_000)]
    room.add_things(*things)
    job = room.create("A", *(room.thing_arn(thing) for thing in things))
    assert counts(room, "A") == {"QUEUED": 100}
    assert job.status is JobStatus.IN_PROGRESS
    room.registry.things.remove("t05000")
    steps = 0
    while await room.planner.run_once():
        steps += 1
    assert steps == 10
    assert counts(room, "A") == {"QUEUED": 9_999}
    with pytest.raises(InvalidRequest):
        room.create("B", *(room.thing_arn(thing) for thing in things), room.thing_arn("one-more"))
    with pytest.raises(NotFound):
        room.create("B", room.thing_arn("t00000"), room.thing_arn("t05000"), room.thing_arn("t00001"))
    with pytest.raises(InvalidRequest):
        room.create("B", *(room.group_arn(f"g{number}") for number in range(101)))


async def test_things_and_groups_in_any_order_are_each_planned_once(room: JobsRoom) -> None:
    room.add_things("a", "b", "c", group="g")
    room.add_things("c", "d", group="h")
    room.add_things("e")
    targets = [room.thing_arn("b"), room.group_arn("g"), room.thing_arn("e"), room.thing_arn("d"), room.group_arn("h")]
    room.create("A", *targets)
    assert counts(room, "A") == {"QUEUED": 5}
    assert [(thing, kind) for thing, kind in room.kinds() if kind == "notify"] == [
        (thing, "notify") for thing in ("b", "a", "c", "e", "d")
    ]
