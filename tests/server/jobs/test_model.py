"""The state tables, walked."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from overair.basics.errors import OverairError
from overair.basics.ids import GroupName, JobId, ThingName
from overair.server.jobs.model import (
    DEVICE_MAY_REPORT,
    JOB_MAY_BECOME,
    PENDING,
    SERVER_MAY_SET,
    FailureType,
    JobSettings,
    JobStatus,
    Report,
    RetryCriterion,
    TargetSelection,
)
from overair.server.jobs.tables import job_executions, job_targets, jobs
from overair.server.storage.work import sql
from overair.wire.job_messages import DEVICE_STATUSES, ExecutionStatus
from tests.support.jobs_room import JobsRoom


def test_only_pending_states_have_a_way_out_and_every_way_of_the_reference_is_there() -> None:
    assert set(DEVICE_MAY_REPORT) == set(SERVER_MAY_SET) == set(PENDING)
    for allowed in DEVICE_MAY_REPORT.values():
        assert allowed == DEVICE_STATUSES
    assert SERVER_MAY_SET[ExecutionStatus.QUEUED] == {ExecutionStatus.CANCELED, ExecutionStatus.REMOVED}
    assert SERVER_MAY_SET[ExecutionStatus.IN_PROGRESS] == {
        ExecutionStatus.TIMED_OUT,
        ExecutionStatus.CANCELED,
        ExecutionStatus.REMOVED,
    }


def test_no_state_goes_back_to_queued_and_a_deleted_job_goes_nowhere() -> None:
    everywhere = [*DEVICE_MAY_REPORT.values(), *SERVER_MAY_SET.values()]
    assert not any(ExecutionStatus.QUEUED in allowed for allowed in everywhere)
    assert JobStatus.DELETION_IN_PROGRESS not in JOB_MAY_BECOME
    assert JOB_MAY_BECOME[JobStatus.COMPLETED] == JOB_MAY_BECOME[JobStatus.CANCELED] == {JobStatus.DELETION_IN_PROGRESS}


@pytest.mark.parametrize("before", ExecutionStatus)
@pytest.mark.parametrize("asked", sorted(DEVICE_STATUSES))
async def test_the_device_can_do_what_the_table_says_and_nothing_else(
    room: JobsRoom, before: ExecutionStatus, asked: ExecutionStatus
) -> None:
    room.add_things("dev-1")
    room.create("A", room.thing_arn("dev-1"), selection=TargetSelection.CONTINUOUS)
    room.work.run_blocking(lambda tx: sql(tx).execute(job_executions.update().values(status=before.value)) and None)
    room.heard()
    reply = await room.say("$aws/things/dev-1/jobs/A/update", {"status": asked.value, "statusDetails": {"a": "b"}})
    execution = room.execution("dev-1", "A")
    if asked in DEVICE_MAY_REPORT.get(before, ()):
        assert reply.topic.endswith("/accepted")
        assert (execution.status, execution.version, execution.status_details) == (asked, 2, {"a": "b"})
    else:
        assert reply.topic.endswith("/rejected")
        assert (execution.status, execution.version, execution.status_details) == (before, 1, {})
        assert room.heard() == []


THINGS = ["a", "b", "c"]
JOBS = ["J", "K"]
STEPS = st.one_of(
    st.tuples(
        st.just("report"),
        st.sampled_from(THINGS),
        st.sampled_from(JOBS),
        st.sampled_from(sorted(DEVICE_STATUSES)),
        st.none() | st.integers(1, 4),
    ),
    st.tuples(st.just("cancel execution"), st.sampled_from(THINGS), st.sampled_from(JOBS), st.booleans()),
    st.tuples(st.just("delete execution"), st.sampled_from(THINGS), st.sampled_from(JOBS), st.integers(1, 3), st.booleans()),
    st.tuples(st.just("start next"), st.sampled_from(THINGS)),
    st.tuples(st.just("join"), st.sampled_from(THINGS)),
    st.tuples(st.just("leave"), st.sampled_from(THINGS)),
    st.tuples(st.just("cancel"), st.sampled_from(JOBS), st.booleans()),
    st.tuples(st.just("delete"), st.sampled_from(JOBS), st.booleans()),
    st.tuples(st.just("create"), st.sampled_from(JOBS), st.sampled_from(TargetSelection), st.booleans()),
    st.tuples(st.just("time"), st.integers(0, 90)),
)


def do(room: JobsRoom, step: tuple[Any, ...]) -> None:
    account, place = room.place.account, room.place
    run = room.work.run_blocking
    match step:
        case ("report", thing, job, status, version):
            report = Report(status=status, expected_version=version, status_details={"s": "d"})
            run(lambda tx: room.jobs.device.report(tx, place, ThingName(thing), JobId(job), report))
        case ("cancel execution", thing, job, force):
            run(lambda tx: room.jobs.executions.cancel(tx, account, ThingName(thing), JobId(job), force=force))
        case ("delete execution", thing, job, number, force):
            run(lambda tx: room.jobs.executions.delete(tx, account, ThingName(thing), JobId(job), number, force=force))
        case ("start next", thing):
            run(lambda tx: room.jobs.device.start_next(tx, place, ThingName(thing)))
        case ("join", thing):
            if thing not in room.registry.groups["g"]:
                room.registry.groups["g"].add(thing)
                run(lambda tx: room.jobs.joined(tx, account, ThingName(thing), GroupName("g")))
        case ("leave", thing):
            if thing in room.registry.groups["g"]:
                room.registry.groups["g"].remove(thing)
                run(lambda tx: room.jobs.left(tx, account, ThingName(thing), GroupName("g")))
        case ("cancel", job, force):
            run(lambda tx: room.jobs.cancel(tx, account, JobId(job), force=force))
        case ("delete", job, force):
            run(lambda tx: room.jobs.delete(tx, account, JobId(job), force=force))
        case ("create", job, selection, retried):
            retry = (RetryCriterion(failure_type=FailureType.ALL, retries=1),) if retried else ()
            config = JobSettings(in_progress_timeout_minutes=1, retry=retry)
            room.create(job, room.group_arn("g"), selection=selection, settings=config)
        case ("time", seconds):
            room.clock.advance(milliseconds=seconds * 1000)
            now = room.clock.now()
            run(lambda tx: room.jobs.executions.time_out_overdue(tx, now=now))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(steps=[("create", "K", TargetSelection.SNAPSHOT, False), ("leave", "a"), ("join", "a")])
@given(steps=st.lists(STEPS, min_size=3, max_size=25))
def test_whatever_happens_counts_queues_and_notices_agree_with_the_executions(
    room: JobsRoom, steps: list[tuple[Any, ...]]
) -> None:
    def clear(tx: Any) -> None:
        for table in (jobs, job_executions, job_targets):
            sql(tx).execute(table.delete())
        sql(tx).exec_driver_sql("DELETE FROM job_documents")

    room.work.run_blocking(clear)
    room.registry.groups["g"] = {"a", "b"}
    room.add_things(*THINGS)
    room.heard()
    named: dict[str, tuple[str, int] | None] = dict.fromkeys(THINGS)
    for step in [("create", "J", TargetSelection.CONTINUOUS, True), *steps]:
        try:
            do(room, step)
        except OverairError:
            assert room.heard() == [], "what was refused is announced to nobody"
            continue
        announced = room.heard()
        for thing in THINGS:
            queue = room.work.read_blocking(lambda tx, thing=thing: room.jobs.device.pending(tx, room.place, ThingName(thing)))
            first = (queue[0].job, queue[0].number) if queue else None
            told = [item.body.get("execution") for item in announced if (item.thing, item.kind) == (thing, "notify-next")]
            if first == named[thing]:
                # Several steps inside one unit may lead away and back; a lone one never tells what didn't change.
                assert not told or len(told) > 1 or step[0] in ("delete", "cancel")
            else:
                last = told[-1]
                assert (None if not last else (last["jobId"], last["executionNumber"])) == first
            named[thing] = first  # type: ignore[assignment]
    for job in room.work.read_blocking(lambda tx: room.jobs.page(tx, room.place.account, limit=9)):
        rows = room.work.read_blocking(
            lambda tx, job=job: room.jobs.executions.of_job(tx, room.place.account, job.id, limit=99)
        )
        latest = Counter(row.status for row in rows if row.latest)
        assert {status: count for status, count in job.counts.items() if count} == dict(latest)
        assert max(Counter(row.thing for row in rows if row.latest).values(), default=1) == 1
        if job.status is JobStatus.COMPLETED:
            assert job.pending == 0
        elif job.status is JobStatus.IN_PROGRESS and job.target_selection is TargetSelection.SNAPSHOT:
            assert job.pending > 0
