"""Jobs topics with exact payloads (wire reference §2, checklist 1 to 18, 63)."""

from __future__ import annotations

import json

import pytest

from overair.server.jobs.model import FailureType, JobSettings, RetryCriterion
from tests.support.jobs_room import JobsRoom

# The clock of these tests stands at 2026-01-01T00:00:00Z.
T = 1767225600


def next_topic(thing: str = "dev-1") -> str:
    return f"$aws/things/{thing}/jobs/$next/get"


def update_topic(job: str, thing: str = "dev-1") -> str:
    return f"$aws/things/{thing}/jobs/{job}/update"


@pytest.fixture
def one_job(room: JobsRoom) -> JobsRoom:
    room.add_things("dev-1")
    room.create("A", room.thing_arn("dev-1"), document='{ "afr_ota" : { } }')
    return room


async def test_next_is_answered_under_its_own_topic_without_a_subscription_and_with_the_document_as_an_object(
    one_job: JobsRoom,
) -> None:
    reply = await one_job.say(next_topic(), b'{"clientToken":":dev-1"}')
    assert reply.topic == "$aws/things/dev-1/jobs/$next/get/accepted"
    assert reply.implicit
    assert reply.payload == (
        b'{"clientToken":":dev-1","timestamp":1767225600,"execution":{"jobId":"A","status":"QUEUED",'
        b'"queuedAt":1767225600,"lastUpdatedAt":1767225600,"versionNumber":1,"executionNumber":1,'
        b'"jobDocument":{"afr_ota":{}}}}'
    )


async def test_describing_changes_nothing(one_job: JobsRoom) -> None:
    assert await one_job.told(next_topic()) == await one_job.told(next_topic())
    assert one_job.execution("dev-1", "A").version == 1


async def test_an_empty_queue_answers_token_and_timestamp_only(room: JobsRoom) -> None:
    room.add_things("dev-1")
    reply = await room.say(next_topic(), b'{"clientToken":"0:dev-1"}')
    assert reply.payload == b'{"clientToken":"0:dev-1","timestamp":1767225600}'
    reply = await room.say("$aws/things/dev-1/jobs/start-next", b'{"clientToken":"t"}')
    assert reply.payload == b'{"clientToken":"t","timestamp":1767225600}'


async def test_an_absent_token_stays_absent_and_no_bytes_are_an_empty_request(room: JobsRoom) -> None:
    room.add_things("dev-1")
    assert (await room.say(next_topic(), b"")).payload == b'{"timestamp":1767225600}'


async def test_an_explicit_description_names_the_thing_and_may_leave_the_document_out(one_job: JobsRoom) -> None:
    told = await one_job.told("$aws/things/dev-1/jobs/A/get", {"includeJobDocument": False, "executionNumber": 1})
    assert told["execution"]["thingName"] == "dev-1"
    assert "jobDocument" not in told["execution"]


async def test_pending_lists_both_arrays_always(one_job: JobsRoom) -> None:
    reply = await one_job.say("$aws/things/dev-1/jobs/get", b'{"clientToken":"c-1"}')
    assert reply.payload == (
        b'{"clientToken":"c-1","timestamp":1767225600,"inProgressJobs":[],"queuedJobs":[{"jobId":"A",'
        b'"queuedAt":1767225600,"lastUpdatedAt":1767225600,"executionNumber":1,"versionNumber":1}]}'
    )


async def test_at_most_ten_are_listed_in_progress_first(room: JobsRoom) -> None:
    room.add_things("dev-1")
    for number in range(12):
        room.create(f"J{number:02}", room.thing_arn("dev-1"))
        room.clock.advance(milliseconds=1000)
    await room.told(update_topic("J11"), {"status": "IN_PROGRESS"})
    told = await room.told("$aws/things/dev-1/jobs/get")
    assert [entry["jobId"] for entry in told["inProgressJobs"]] == ["J11"]
    assert [entry["jobId"] for entry in told["queuedJobs"]] == [f"J{number:02}" for number in range(9)]


async def test_jobs_queued_in_the_same_millisecond_keep_the_order_of_their_creation(room: JobsRoom) -> None:
    room.add_things("dev-1")
    for job in ("zebra", "ape"):
        room.create(job, room.thing_arn("dev-1"))
    assert (await room.told(next_topic()))["execution"]["jobId"] == "zebra"


async def test_start_next_starts_a_queued_execution_once(one_job: JobsRoom) -> None:
    topic = "$aws/things/dev-1/jobs/start-next"
    told = await one_job.told(topic, {"clientToken": "t", "statusDetails": {"step": "1"}})
    assert told["clientToken"] == "t"
    assert told["execution"]["status"] == "IN_PROGRESS"
    assert told["execution"]["versionNumber"] == 2
    assert told["execution"]["startedAt"] == T
    assert told["execution"]["statusDetails"] == {"step": "1"}
    assert told["execution"]["jobDocument"] == {"afr_ota": {}}
    again = await one_job.told(topic, {"statusDetails": {"step": "2"}})
    assert again["execution"] == told["execution"]


async def test_an_update_answers_with_its_timestamp_alone(one_job: JobsRoom) -> None:
    reply = await one_job.say(update_topic("A"), b'{"status":"IN_PROGRESS","statusDetails":{"receive":"1/100"}}')
    assert reply.topic == "$aws/things/dev-1/jobs/A/update/accepted"
    assert reply.payload == b'{"timestamp":1767225600}'


async def test_the_version_is_one_when_queued_and_rises_with_each_accepted_update(one_job: JobsRoom) -> None:
    assert one_job.execution("dev-1", "A").version == 1
    for version in (2, 3, 4):
        told = await one_job.told(
            update_topic("A"),
            {"status": "IN_PROGRESS", "statusDetails": {"receive": f"{version}/9"}, "includeJobExecutionState": True},
        )
        assert told["executionState"] == {
            "status": "IN_PROGRESS",
            "statusDetails": {"receive": f"{version}/9"},
            "versionNumber": version,
        }


async def test_status_details_are_replaced_as_a_whole_and_otherwise_kept(one_job: JobsRoom) -> None:
    topic = update_topic("A")
    await one_job.told(topic, {"status": "IN_PROGRESS", "statusDetails": {"receive": "1/2", "x": "y"}})
    await one_job.told(topic, {"status": "IN_PROGRESS", "statusDetails": {"self_test": "ready", "updatedBy": "0x01000000"}})
    await one_job.told(topic, {"status": "IN_PROGRESS"})
    told = await one_job.told(next_topic())
    assert told["execution"]["statusDetails"] == {"self_test": "ready", "updatedBy": "0x01000000"}
    await one_job.told(topic, {"status": "IN_PROGRESS", "statusDetails": {}})
    assert "statusDetails" not in (await one_job.told(next_topic()))["execution"]


@pytest.mark.parametrize("version", [1, "1"])
async def test_an_expected_version_may_be_a_number_or_a_string(one_job: JobsRoom, version: object) -> None:
    await one_job.told(update_topic("A"), {"status": "IN_PROGRESS", "expectedVersion": version})


async def test_a_stale_version_changes_nothing_and_tells_where_the_execution_stands(one_job: JobsRoom) -> None:
    topic = update_topic("A")
    for receive in ("1/100", "64/100"):
        await one_job.told(topic, {"status": "IN_PROGRESS", "statusDetails": {"receive": receive}})
    refused = await one_job.refused(
        topic, {"clientToken": "c-9", "status": "IN_PROGRESS", "expectedVersion": "2", "statusDetails": {"receive": "0"}}
    )
    message = refused.pop("message")
    assert "2" in message
    assert refused == {
        "clientToken": "c-9",
        "timestamp": T,
        "code": "VersionMismatch",
        "executionState": {"status": "IN_PROGRESS", "statusDetails": {"receive": "64/100"}, "versionNumber": 3},
    }
    assert one_job.execution("dev-1", "A").version == 3


async def test_a_steps_timer_is_replaced_stopped_and_never_outlives_the_timer_of_the_whole(room: JobsRoom) -> None:
    """The worked example of wire reference §2.8, minutes after 12:00."""
    room.add_things("dev-1")
    room.create("A", room.thing_arn("dev-1"), settings=JobSettings(in_progress_timeout_minutes=20))

    async def minutes_left() -> float:
        return (await room.told(next_topic()))["execution"]["approximateSecondsBeforeTimedOut"] / 60

    assert "approximateSecondsBeforeTimedOut" not in (await room.told(next_topic()))["execution"], "no timer runs yet"
    await room.told("$aws/things/dev-1/jobs/start-next")
    assert await minutes_left() == 20
    now = 0
    for at, step, due in ((5, 7, 12), (10, 5, 15), (13, 9, 20), (14, None, 20), (15, 1, 16), (15, None, 16), (15, -1, 20)):
        room.clock.advance(milliseconds=(at - now) * 60_000)
        now = at
        report = {"status": "IN_PROGRESS"} | ({} if step is None else {"stepTimeoutInMinutes": step})
        await room.told(update_topic("A"), report)
        assert await minutes_left() == due - at
    started = await room.told("$aws/things/dev-1/jobs/start-next", {"stepTimeoutInMinutes": 2})
    assert started["execution"]["approximateSecondsBeforeTimedOut"] == 120, "start-next sets a timer of one in progress too"
    version = started["execution"]["versionNumber"]
    room.heard()
    room.clock.advance(milliseconds=2 * 60_000)
    room.work.run_blocking(lambda tx: room.jobs.executions.time_out_overdue(tx, now=room.clock.now()))
    ended = room.execution("dev-1", "A")
    assert (ended.status, ended.version) == ("TIMED_OUT", version + 1)
    assert [kind for _, kind in room.kinds()] == ["notify", "notify-next"]


async def test_a_failure_that_is_retried_is_answered_with_how_that_attempt_ended(room: JobsRoom) -> None:
    room.add_things("dev-1")
    retry = (RetryCriterion(failure_type=FailureType.FAILED, retries=1),)
    room.create("A", room.thing_arn("dev-1"), settings=JobSettings(retry=retry))
    failed = {
        "status": "FAILED",
        "statusDetails": {"reason": "x"},
        "includeJobExecutionState": True,
        "includeJobDocument": True,
    }
    told = await room.told(update_topic("A"), failed)
    assert told["executionState"] == {"status": "FAILED", "statusDetails": {"reason": "x"}, "versionNumber": 2}
    assert told["jobDocument"] == {"operation": "x"}
    queued = (await room.told(next_topic()))["execution"]
    assert (queued["executionNumber"], queued["versionNumber"], queued["status"]) == (2, 1, "QUEUED")


async def test_what_has_ended_moves_no_more(one_job: JobsRoom) -> None:
    await one_job.told(update_topic("A"), {"status": "SUCCEEDED"})
    refused = await one_job.refused(update_topic("A"), {"status": "IN_PROGRESS"})
    assert refused["code"] == "InvalidStateTransition"
    assert refused["executionState"] == {"status": "SUCCEEDED", "versionNumber": 2}
    refused = await one_job.refused("$aws/things/dev-1/jobs/A/get", {"clientToken": "x"})
    assert (refused["code"], refused["clientToken"]) == ("TerminalStateReached", "x")
    assert "executionState" not in refused


@pytest.mark.parametrize(
    ("topic", "payload", "code"),
    [
        (update_topic("A"), b"{", "InvalidJson"),
        (update_topic("A"), b'{"status":"QUEUED"}', "InvalidRequest"),
        (update_topic("A"), b'{"status":"SUCCEEDED","clientToken":"' + b"x" * 65 + b'"}', "InvalidRequest"),
        (update_topic("B"), b'{"status":"SUCCEEDED"}', "ResourceNotFound"),
        (update_topic("B"), b'{"status":"IN_PROGRESS","statusDetails":{"a":"b"}}', "ResourceNotFound"),
        (update_topic("A", "dev-2"), b'{"status":"SUCCEEDED"}', "ResourceNotFound"),
        (update_topic("$next"), b'{"status":"SUCCEEDED"}', "InvalidRequest"),
        (update_topic(""), b'{"status":"FAILED"}', "ResourceNotFound"),
        ("$aws/things/dev-1/jobs/B/get", b"{}", "ResourceNotFound"),
        ("$aws/things/dev-1/jobs/A/get", b'{"executionNumber":2}', "ResourceNotFound"),
        ("$aws/things/nobody/jobs/get", b"{}", "ResourceNotFound"),
        ("$aws/things/nobody/jobs/$next/get", b"{}", "ResourceNotFound"),
        ("$aws/things/nobody/jobs/start-next", b"{}", "ResourceNotFound"),
        ("$aws/things/dev-1/jobs/start-next", b'{"stepTimeoutInMinutes":-1}', "InvalidRequest"),
        ("$aws/things/dev-1/jobs/start-next", b'{"stepTimeoutInMinutes":10081}', "InvalidRequest"),
        ("$aws/things/a b/jobs/get", b"{}", "InvalidRequest"),
        ("$aws/things/dev-1/jobs/get/get/get", b"{}", "InvalidTopic"),
        ("$aws/things/dev-1/jobs/A/delete", b"{}", "InvalidTopic"),
        ("$aws/things/dev-1/jobs/notify", b"{}", "InvalidTopic"),
    ],
)
async def test_refusals_have_the_code_of_the_topic_plane(one_job: JobsRoom, topic: str, payload: bytes, code: str) -> None:
    refused = await one_job.refused(topic, payload)
    assert refused["code"] == code
    assert refused["timestamp"] == T
    assert "clientToken" not in refused
    assert one_job.execution("dev-1", "A").version == 1


async def test_a_rejected_progress_report_leaves_the_download_going(one_job: JobsRoom) -> None:
    await one_job.told(update_topic("A"), {"status": "IN_PROGRESS"})
    await one_job.refused(update_topic("A"), {"status": "IN_PROGRESS", "statusDetails": {"bad key": "x"}})
    assert (await one_job.told(next_topic()))["execution"]["status"] == "IN_PROGRESS"


async def test_the_in_progress_execution_stays_first_across_reconnects_with_its_details(room: JobsRoom) -> None:
    room.add_things("dev-1")
    for job in ("first", "second"):
        room.create(job, room.thing_arn("dev-1"))
    ready = {"self_test": "ready", "updatedBy": "0x01000000"}
    await room.told(update_topic("second"), {"status": "IN_PROGRESS", "statusDetails": ready})
    execution = (await room.told(next_topic()))["execution"]
    assert (execution["jobId"], execution["statusDetails"]) == ("second", ready)


async def test_a_placeholder_is_signed_afresh_in_every_document_that_leaves(room: JobsRoom) -> None:
    from overair.server.jobs.model import PresignConfig

    room.add_things("dev-1")
    room.roles.assumable.add("role")
    document = '{"url":"${aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/bucket/a/k%20y.bin?versionId=7}"}'
    settings = JobSettings(presign=PresignConfig(role_arn="role", expires_s=300))
    room.create("A", room.thing_arn("dev-1"), document=document, settings=settings)
    announced = [item for item in room.heard() if item.kind == "notify-next"]
    urls = [announced[0].body["execution"]["jobDocument"]["url"]]
    urls.append((await room.told(next_topic()))["execution"]["jobDocument"]["url"])
    urls.append((await room.told("$aws/things/dev-1/jobs/start-next"))["execution"]["jobDocument"]["url"])
    told = await room.told(update_topic("A"), {"status": "IN_PROGRESS", "includeJobDocument": True})
    urls.append(told["jobDocument"]["url"])
    assert urls == [f"https://host/bucket/a/k y.bin?v=7&e=300&n={number}" for number in (1, 2, 3, 4)]
    room.roles.assumable.clear()
    kept = (await room.told(next_topic()))["execution"]["jobDocument"]["url"]
    assert kept.startswith("${aws:iot:s3-presigned-url:")


async def test_a_fault_of_the_server_is_an_internal_error_that_tells_nothing(
    one_job: JobsRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **named: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(one_job.jobs.device, "next", broken)
    refused = await one_job.refused(next_topic(), {"clientToken": "c"})
    assert (refused["code"], refused["clientToken"]) == ("InternalError", "c")
    assert "secret" not in json.dumps(refused)
