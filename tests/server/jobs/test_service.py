"""Jobs as operators know them: created, followed, cancelled, deleted, timed out, retried, aborted."""

from __future__ import annotations

import pytest

from overair.basics.arn import Place
from overair.basics.errors import (
    AlreadyExists,
    InvalidRequest,
    InvalidStateTransition,
    LimitExceeded,
    NotFound,
    OverairError,
    VersionConflict,
)
from overair.basics.ids import AccountId, JobId, ThingName
from overair.server.jobs.model import (
    AbortCriterion,
    FailureType,
    JobPhase,
    JobSettings,
    JobStatus,
    PresignConfig,
    RetryCriterion,
    TargetSelection,
)
from overair.wire.job_messages import ExecutionStatus
from tests.support.jobs_room import JobsRoom

S = ExecutionStatus


def counts(room: JobsRoom, job: str) -> dict[str, int]:
    return {status.value: count for status, count in room.job(job).counts.items() if count}


async def report(room: JobsRoom, thing: str, job: str, status: str) -> None:
    await room.told(f"$aws/things/{thing}/jobs/{job}/update", {"status": status})


def test_a_job_id_is_taken_once(room: JobsRoom) -> None:
    room.add_things("dev-1")
    room.create("A", room.thing_arn("dev-1"))
    with pytest.raises(AlreadyExists) as caught:
        room.create("A", room.thing_arn("dev-1"))
    assert caught.value.details == {
        "resourceId": "A",
        "resourceArn": "arn:aws:iot:us-east-1:123456789012:job/A",
    }


@pytest.mark.parametrize(
    ("document", "settings", "kind"),
    [
        ("{", JobSettings(), InvalidRequest),
        ("[]", JobSettings(), InvalidRequest),
        ('{"a":1,"a":2}', JobSettings(), InvalidRequest),
        ('{"a":"' + "x" * 32768 + '"}', JobSettings(), InvalidRequest),
        ('{"u":"${aws:iot:s3-presigned-url:https://s3.amazonaws.com/b/k}"}', JobSettings(), InvalidRequest),
        (
            '{"u":"${aws:iot:s3-presigned-url:https://evil.example/b/k}"}',
            JobSettings(presign=PresignConfig(role_arn="role")),
            InvalidRequest,
        ),
        ("{}", JobSettings(presign=PresignConfig(role_arn="other")), InvalidRequest),
        (
            "{" + ",".join(f'"{n}":"${{aws:iot:s3-presigned-url:https://s3.amazonaws.com/b/k}}"' for n in range(11)) + "}",
            JobSettings(presign=PresignConfig(role_arn="role")),
            InvalidRequest,
        ),
    ],
)
def test_a_document_that_no_device_could_use_is_refused(
    room: JobsRoom, document: str, settings: JobSettings, kind: type[OverairError]
) -> None:
    room.add_things("dev-1")
    room.roles.assumable.add("role")
    with pytest.raises(kind):
        room.create("A", room.thing_arn("dev-1"), document=document, settings=settings)
    with pytest.raises(NotFound):
        room.job("A")
    assert room.heard() == []


def test_targets_must_exist(room: JobsRoom) -> None:
    room.add_things("dev-1")
    with pytest.raises(NotFound):
        room.create("A", room.thing_arn("dev-1"), room.thing_arn("nobody"))
    with pytest.raises(InvalidRequest):
        room.create("A", "arn:aws:iot:us-east-1:999999999999:thing/dev-1")
    with pytest.raises(InvalidRequest):
        room.create("A")


def test_a_thing_named_by_several_targets_gets_one_execution(room: JobsRoom) -> None:
    room.add_things("a", "b", group="g")
    room.add_things("b", "c", group="h")
    room.create("A", room.thing_arn("b"), room.group_arn("g"), room.group_arn("h"), room.thing_arn("b"))
    assert counts(room, "A") == {"QUEUED": 3}
    assert room.job("A").phase is JobPhase.SETTLED


async def test_a_snapshot_job_completes_with_its_last_execution(room: JobsRoom) -> None:
    room.add_things("a", "b", group="g")
    room.create("A", room.group_arn("g"))
    await report(room, "a", "A", "SUCCEEDED")
    assert room.job("A").status is JobStatus.IN_PROGRESS
    await report(room, "b", "A", "REJECTED")
    job = room.job("A")
    assert (job.status, job.completed_at) == (JobStatus.COMPLETED, room.clock.now())
    assert counts(room, "A") == {"SUCCEEDED": 1, "REJECTED": 1}


def test_a_snapshot_job_for_nobody_is_complete_at_once(room: JobsRoom) -> None:
    room.registry.groups["empty"] = set()
    assert room.create("A", room.group_arn("empty")).status is JobStatus.COMPLETED


def test_a_continuous_job_never_completes_by_itself(room: JobsRoom) -> None:
    room.registry.groups["g"] = set()
    job = room.create("A", room.group_arn("g"), selection=TargetSelection.CONTINUOUS)
    assert (job.status, job.phase) == (JobStatus.IN_PROGRESS, JobPhase.SETTLED)


async def test_cancelling_spares_what_is_in_progress_unless_forced(room: JobsRoom) -> None:
    room.add_things("a", "b", group="g")
    room.create("A", room.group_arn("g"))
    await report(room, "a", "A", "IN_PROGRESS")
    account = room.place.account
    job = room.work.run_blocking(lambda tx: room.jobs.cancel(tx, account, JobId("A"), comment="why", reason_code="BECAUSE"))
    assert (job.status, job.comment, job.reason_code) == (JobStatus.CANCELED, "why", "BECAUSE")
    assert counts(room, "A") == {"IN_PROGRESS": 1, "CANCELED": 1}
    with pytest.raises(InvalidRequest):
        room.work.run_blocking(lambda tx: room.jobs.cancel(tx, account, JobId("A")))
    await room.told("$aws/things/a/jobs/A/update", {"status": "IN_PROGRESS", "statusDetails": {"receive": "1/2"}})
    room.work.run_blocking(lambda tx: room.jobs.cancel(tx, account, JobId("A"), force=True))
    assert counts(room, "A") == {"CANCELED": 2}
    assert room.execution("a", "A").force_canceled
    refused = await room.refused("$aws/things/a/jobs/A/update", {"status": "SUCCEEDED"})
    assert refused["code"] == "InvalidStateTransition"


async def test_a_running_job_is_deleted_only_by_force(room: JobsRoom) -> None:
    room.add_things("a", "b", group="g")
    room.create("A", room.group_arn("g"))
    account = room.place.account
    with pytest.raises(InvalidStateTransition):
        room.work.run_blocking(lambda tx: room.jobs.delete(tx, account, JobId("A")))
    room.work.run_blocking(lambda tx: room.jobs.delete(tx, account, JobId("A"), force=True))
    with pytest.raises(NotFound):
        room.job("A")
    with pytest.raises(NotFound):
        room.execution("a", "A")
    assert (await room.told("$aws/things/a/jobs/$next/get")).get("execution") is None
    room.create("A", room.group_arn("g"))


async def test_a_large_job_is_deleted_in_pieces_and_ten_at_most_at_once(room: JobsRoom) -> None:
    room.add_things(*(f"t{number:03}" for number in range(150)), group="g")
    account = room.place.account
    for number in range(11):
        room.create(f"J{number}", room.group_arn("g"))
    while await room.planner.run_once():
        pass
    for number in range(10):
        room.work.run_blocking(lambda tx, number=number: room.jobs.delete(tx, account, JobId(f"J{number}"), force=True))
    assert room.job("J0").status is JobStatus.DELETION_IN_PROGRESS
    with pytest.raises(LimitExceeded):
        room.work.run_blocking(lambda tx: room.jobs.delete(tx, account, JobId("J10"), force=True))
    with pytest.raises(InvalidStateTransition):
        room.work.run_blocking(lambda tx: room.jobs.delete(tx, account, JobId("J0"), force=True))
    with pytest.raises(AlreadyExists):
        room.create("J0", room.group_arn("g"))
    while await room.planner.run_once():
        pass
    with pytest.raises(NotFound):
        room.job("J0")
    room.work.run_blocking(lambda tx: room.jobs.delete(tx, account, JobId("J10"), force=True))


async def test_an_execution_is_cancelled_by_rule(room: JobsRoom) -> None:
    room.add_things("a", "b")
    room.create("A", room.thing_arn("a"), room.thing_arn("b"))
    account, job = room.place.account, JobId("A")
    executions = room.jobs.executions
    with pytest.raises(VersionConflict):
        room.work.run_blocking(lambda tx: executions.cancel(tx, account, ThingName("a"), job, expected_version=9))
    room.work.run_blocking(
        lambda tx: executions.cancel(tx, account, ThingName("a"), job, expected_version=1, status_details={"by": "operator"})
    )
    assert room.execution("a", "A").status_details == {"by": "operator"}
    with pytest.raises(InvalidStateTransition):
        room.work.run_blocking(lambda tx: executions.cancel(tx, account, ThingName("a"), job, force=True))
    await report(room, "b", "A", "IN_PROGRESS")
    with pytest.raises(InvalidStateTransition):
        room.work.run_blocking(lambda tx: executions.cancel(tx, account, ThingName("b"), job))
    room.work.run_blocking(lambda tx: executions.cancel(tx, account, ThingName("b"), job, force=True))
    assert counts(room, "A") == {"CANCELED": 2}
    assert room.job("A").status is JobStatus.COMPLETED


async def test_an_execution_is_deleted_by_rule_and_its_number_comes_back(room: JobsRoom) -> None:
    room.add_things("a")
    room.create("A", room.thing_arn("a"), selection=TargetSelection.CONTINUOUS)
    account, job, thing = room.place.account, JobId("A"), ThingName("a")
    with pytest.raises(InvalidStateTransition):
        room.work.run_blocking(lambda tx: room.jobs.executions.delete(tx, account, thing, job, 1))
    room.heard()
    room.work.run_blocking(lambda tx: room.jobs.executions.delete(tx, account, thing, job, 1, force=True))
    assert room.kinds() == [("a", "notify"), ("a", "notify-next")]
    assert counts(room, "A") == {}
    with pytest.raises(NotFound):
        room.execution("a", "A")


async def test_the_timer_of_the_whole_starts_with_the_first_progress_and_is_never_moved(room: JobsRoom) -> None:
    room.add_things("a")
    room.create("A", room.thing_arn("a"), settings=JobSettings(in_progress_timeout_minutes=20))
    minute = 60_000
    topic = "$aws/things/a/jobs/A/update"
    room.clock.advance(milliseconds=60 * minute)
    started = room.clock.now()
    await room.told(topic, {"status": "IN_PROGRESS"})
    # The example of wire reference §2.8, minute by minute.
    for at, step, due in ((5, 7, 12), (10, 5, 15), (13, 9, 20)):
        room.clock.set(started + at * minute)
        await room.told(topic, {"status": "IN_PROGRESS", "stepTimeoutInMinutes": step})
        assert room.execution("a", "A").due_at == started + due * minute
    await room.told(topic, {"status": "IN_PROGRESS", "statusDetails": {"x": "y"}})
    shown = await room.told("$aws/things/a/jobs/$next/get")
    assert shown["execution"]["approximateSecondsBeforeTimedOut"] == 7 * 60
    await room.told(topic, {"status": "IN_PROGRESS", "stepTimeoutInMinutes": -1})
    assert room.execution("a", "A").due_at == started + 20 * minute


async def test_what_runs_out_of_time_is_timed_out_and_announced(room: JobsRoom) -> None:
    room.add_things("a", "b", group="g")
    room.create("A", room.group_arn("g"), settings=JobSettings(in_progress_timeout_minutes=1))
    await report(room, "a", "A", "IN_PROGRESS")
    room.heard()
    now = room.clock.now()
    assert not room.work.run_blocking(lambda tx: room.jobs.executions.time_out_overdue(tx, now=now))
    room.clock.advance(milliseconds=60_000)
    now = room.clock.now()
    assert room.work.run_blocking(lambda tx: room.jobs.executions.time_out_overdue(tx, now=now))
    assert not room.work.run_blocking(lambda tx: room.jobs.executions.time_out_overdue(tx, now=now))
    execution = room.execution("a", "A")
    assert (execution.status, execution.version) == (S.TIMED_OUT, 3)
    assert room.kinds() == [("a", "notify"), ("a", "notify-next")]
    assert counts(room, "A") == {"QUEUED": 1, "TIMED_OUT": 1}


async def test_retries_go_on_until_they_are_used_up(room: JobsRoom) -> None:
    room.add_things("a")
    retry = (RetryCriterion(failure_type=FailureType.FAILED, retries=2),)
    room.create("A", room.thing_arn("a"), settings=JobSettings(retry=retry))
    for number in (1, 2, 3):
        assert room.execution("a", "A").number == number
        assert room.execution("a", "A").retry_attempt == number - 1
        assert room.job("A").status is JobStatus.IN_PROGRESS
        await report(room, "a", "A", "FAILED")
    assert counts(room, "A") == {"FAILED": 1}
    assert room.job("A").status is JobStatus.COMPLETED
    assert [room.execution("a", "A", number).status for number in (1, 2, 3)] == [S.FAILED] * 3


async def test_a_rejection_is_never_retried(room: JobsRoom) -> None:
    room.add_things("a")
    retry = (RetryCriterion(failure_type=FailureType.ALL, retries=10),)
    room.create("A", room.thing_arn("a"), settings=JobSettings(retry=retry))
    await report(room, "a", "A", "REJECTED")
    assert counts(room, "A") == {"REJECTED": 1}


async def test_a_job_aborts_when_enough_things_fail_and_leaves_what_is_in_progress(room: JobsRoom) -> None:
    room.add_things(*"abcdef", group="g")
    abort = (AbortCriterion(failure_type=FailureType.FAILED, threshold_percentage=50.0, things_executed_min=3),)
    room.create("A", room.group_arn("g"), settings=JobSettings(abort=abort))
    await report(room, "f", "A", "IN_PROGRESS")
    await report(room, "a", "A", "FAILED")
    await report(room, "b", "A", "FAILED")
    assert room.job("A").status is JobStatus.IN_PROGRESS
    await report(room, "c", "A", "SUCCEEDED")
    job = room.job("A")
    assert job.status is JobStatus.CANCELED
    assert job.reason_code == "ABORT_CRITERIA_MET"
    assert "50 %" in (job.comment or "")
    while await room.planner.run_once():
        pass
    assert counts(room, "A") == {"FAILED": 2, "SUCCEEDED": 1, "CANCELED": 2, "IN_PROGRESS": 1}


async def test_accounts_know_nothing_of_each_others_jobs(room: JobsRoom) -> None:
    other = JobsRoom(room.work, Place("us-east-1", AccountId("999999999999")), room.clock)
    for each in (room, other):
        each.add_things("dev-1", group="g")
    room.create("A", room.thing_arn("dev-1"), selection=TargetSelection.CONTINUOUS)
    with pytest.raises(NotFound):
        other.job("A")
    assert "execution" not in await other.told("$aws/things/dev-1/jobs/$next/get")
    assert (await other.refused("$aws/things/dev-1/jobs/A/update", {"status": "FAILED"}))["code"] == "ResourceNotFound"
    other.create("A", other.thing_arn("dev-1"))
    await report(other, "dev-1", "A", "SUCCEEDED")
    assert (other.job("A").status, room.job("A").status) == (JobStatus.COMPLETED, JobStatus.IN_PROGRESS)
    assert room.execution("dev-1", "A").status is S.QUEUED
    other.work.run_blocking(lambda tx: other.jobs.delete(tx, other.place.account, JobId("A")))
    assert room.execution("dev-1", "A").version == 1
