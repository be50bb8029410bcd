"""Job operations through boto3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from overair.basics.errors import AccessDenied
from overair.basics.work import Tx
from overair.server.aws_protocol.operations import Caller
from overair.server.jobs.document_sources import DocumentSources
from overair.server.jobs.event_operator_api import EventConfigurationOperations
from overair.server.jobs.jobs_data_api import JobsDataOperations
from overair.server.jobs.operator_api import JobOperations
from overair.server.jobs.templates_operator_api import JobTemplateOperations
from tests.support.jobs_room import JobsRoom
from tests.support.operator_door import OperatorDoor, operator_door
from tests.support.streams_room import Buckets

ROLE = "arn:aws:iam::123456789012:role/presign"
NOW_S = 1767225600


class Rights:
    """Allows what isn't in ``denied``."""

    def __init__(self) -> None:
        self.denied: set[str] = set()

    def require(self, tx: Tx, caller: Caller, action: str, resource: str) -> None:
        if action in self.denied:
            raise AccessDenied(f"not authorized to perform: {action} on resource: {resource}", subject="action")

    def require_pass_role(self, tx: Tx, caller: Caller, role_arn: str) -> None:
        self.require(tx, caller, "iam:PassRole", role_arn)


class Door:
    def __init__(self, door: OperatorDoor, room: JobsRoom, rights: Rights, buckets: Buckets) -> None:
        self.room, self.rights, self.buckets = room, rights, buckets
        self.iot = door.client("iot")
        self.careless = door.client("iot", careless=True)
        self.data = door.client("iot-jobs-data")


@pytest.fixture
def door(room: JobsRoom) -> Iterator[Door]:
    rights, buckets = Rights(), Buckets(room.place)
    room.roles.assumable.add(ROLE)
    room.add_things("a", "b", group="g")
    sources = DocumentSources(work=room.work, rights=rights, objects=buckets, contents=buckets)
    operations = JobOperations(work=room.work, jobs=room.jobs, rights=rights, sources=sources)
    templates = JobTemplateOperations(work=room.work, jobs=room.jobs, rights=rights, sources=sources, clock=room.clock)
    events = EventConfigurationOperations(work=room.work, events=room.jobs.events)
    data = JobsDataOperations(work=room.work, jobs=room.jobs.device, clock=room.clock)
    with operator_door(room.place, room.clock, operations, templates, events, data) as served:
        yield Door(served, room, rights, buckets)


def code_of(call: Any, **request: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**request)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] < 500, caught.value
    return str(caught.value.response["Error"]["Code"])


FULL = {
    "targetSelection": "CONTINUOUS",
    "description": "d",
    "presignedUrlConfig": {"roleArn": ROLE, "expiresInSec": 300},
    "jobExecutionsRolloutConfig": {
        "maximumPerMinute": 500,
        "exponentialRate": {
            "baseRatePerMinute": 50,
            "incrementFactor": 1.5,
            "rateIncreaseCriteria": {"numberOfNotifiedThings": 10},
        },
    },
    "abortConfig": {
        "criteriaList": [
            {"failureType": "ALL", "action": "CANCEL", "thresholdPercentage": 12.25, "minNumberOfExecutedThings": 3}
        ]
    },
    "timeoutConfig": {"inProgressTimeoutInMinutes": 20},
    "jobExecutionsRetryConfig": {"criteriaList": [{"failureType": "TIMED_OUT", "numberOfRetries": 2}]},
}


def test_a_job_is_described_as_it_was_made(door: Door) -> None:
    target = door.room.group_arn("g")
    made = door.iot.create_job(jobId="J", targets=[target], document='{"a": 1}', tags=[{"Key": "team", "Value": "x"}], **FULL)
    arn = "arn:aws:iot:us-east-1:123456789012:job/J"
    assert {name: made[name] for name in ("jobArn", "jobId", "description")} == {
        "jobArn": arn,
        "jobId": "J",
        "description": "d",
    }
    assert door.room.tags.tags[arn] == {"team": "x"}
    job = door.iot.describe_job(jobId="J")["job"]
    assert {name: job[name] for name in FULL} == FULL
    assert job["targets"] == [target]
    assert (job["status"], job["isConcurrent"]) == ("IN_PROGRESS", True)
    assert job["createdAt"].timestamp() == NOW_S
    assert job["jobProcessDetails"]["numberOfQueuedThings"] == 1
    assert job["jobProcessDetails"]["processingTargets"] == [target]
    door.iot.create_job(jobId="K", targets=[target], document="{}")
    assert "processingTargets" not in door.iot.describe_job(jobId="K")["job"]["jobProcessDetails"]
    assert door.iot.get_job_document(jobId="J")["document"] == '{"a": 1}'


def test_a_repeated_create_names_the_job_that_is_there(door: Door) -> None:
    request = {"jobId": "J", "targets": [door.room.thing_arn("a")], "document": "{}"}
    door.iot.create_job(**request)
    with pytest.raises(door.iot.exceptions.ResourceAlreadyExistsException) as caught:
        door.iot.create_job(**request)
    assert caught.value.response["resourceId"] == "J"
    assert caught.value.response["resourceArn"] == "arn:aws:iot:us-east-1:123456789012:job/J"


def test_a_namespace_is_kept_shown_and_searched(door: Door) -> None:
    base = {"targets": [door.room.thing_arn("a")], "document": "{}"}
    door.iot.create_job(jobId="N", **base, namespaceId="abc")
    door.room.clock.advance(milliseconds=1000)
    door.iot.create_job(jobId="J", **base)
    assert door.iot.describe_job(jobId="N")["job"]["namespaceId"] == "abc"
    assert "namespaceId" not in door.iot.describe_job(jobId="J")["job"]
    assert [job["jobId"] for job in door.iot.list_jobs()["jobs"]] == ["J", "N"]
    assert [job["jobId"] for job in door.iot.list_jobs(namespaceId="abc")["jobs"]] == ["N"]
    of_thing = door.iot.list_job_executions_for_thing(thingName="a", namespaceId="abc")["executionSummaries"]
    assert [summary["jobId"] for summary in of_thing] == ["N"]
    assert code_of(door.iot.create_job, jobId="K", **base, namespaceId="x" * 65) == "InvalidRequestException"
    wrong = {"namespaceId": "other"}
    assert code_of(door.iot.update_job, jobId="N", description="d", **wrong) == "ResourceNotFoundException"
    assert code_of(door.iot.delete_job, jobId="N", force=True, **wrong) == "ResourceNotFoundException"
    execution = {"jobId": "N", "thingName": "a", "executionNumber": 1, "force": True}
    assert code_of(door.iot.delete_job_execution, **execution, **wrong) == "ResourceNotFoundException"
    door.iot.delete_job_execution(**execution, namespaceId="abc")
    door.iot.delete_job(jobId="N", force=True, namespaceId="abc")
    assert code_of(door.iot.describe_job, jobId="N") == "ResourceNotFoundException"


def test_jobs_are_listed_by_the_id_of_a_group(door: Door) -> None:
    door.iot.create_job(jobId="J", targets=[door.room.group_arn("g")], document="{}")
    door.iot.create_job(jobId="K", targets=[door.room.thing_arn("a")], document="{}")
    listed = door.iot.list_jobs(thingGroupId="id-of-g")["jobs"]
    assert [(job["jobId"], job["thingGroupId"]) for job in listed] == [("J", "id-of-g")]
    assert code_of(door.iot.list_jobs, thingGroupId="id-of-none") == "ResourceNotFoundException"
    assert code_of(door.iot.list_jobs, thingGroupId="id-of-g", thingGroupName="h") == "InvalidRequestException"


@pytest.mark.parametrize(
    "more",
    [
        {"document": None},
        {"documentSource": "https://s3.amazonaws.com/b/k"},
        {"document": "[1]"},
        {"targets": ["arn:aws:iot:us-east-1:123456789012:policy/p"]},
        {"presignedUrlConfig": {"expiresInSec": 60}},
        {"presignedUrlConfig": {"roleArn": "arn:aws:iam::123456789012:role/none"}},
        {"jobExecutionsRetryConfig": {"criteriaList": [{"failureType": "TIMED_OUT", "numberOfRetries": 1}]}},
        {
            "jobExecutionsRolloutConfig": {
                "exponentialRate": {
                    "baseRatePerMinute": 1,
                    "incrementFactor": 1.25,
                    "rateIncreaseCriteria": {"numberOfNotifiedThings": 1},
                }
            }
        },
        {
            "jobExecutionsRolloutConfig": {
                "exponentialRate": {"baseRatePerMinute": 1, "incrementFactor": 2.0, "rateIncreaseCriteria": {}}
            }
        },
    ],
)
def test_contradictions_are_invalid_requests(door: Door, more: dict[str, Any]) -> None:
    request = {"jobId": "J", "targets": [door.room.thing_arn("a")], "document": "{}", **more}
    request = {name: value for name, value in request.items() if value is not None}
    assert code_of(door.iot.create_job, **request) == "InvalidRequestException"


def test_passing_a_role_needs_the_callers_permission(door: Door) -> None:
    door.rights.denied.add("iam:PassRole")
    request = {"jobId": "J", "targets": [door.room.thing_arn("a")], "document": "{}"}
    presign = {"presignedUrlConfig": {"roleArn": ROLE}}
    assert code_of(door.iot.create_job, **request, **presign) == "AccessDeniedException"
    door.iot.create_job(**request)
    assert code_of(door.iot.update_job, jobId="J", **presign) == "AccessDeniedException"


def test_a_document_is_read_once_from_the_object_that_names_it(door: Door) -> None:
    door.buckets.put("b", "jobs/one.json", b'{"n": 1}')
    source = "https://s3.us-east-1.amazonaws.com/b/jobs/one.json"
    request = {"targets": [door.room.thing_arn("a")], "documentSource": source}
    door.iot.create_job(jobId="J", **request)
    door.buckets.put("b", "jobs/one.json", b'{"n": 2}')
    assert door.iot.get_job_document(jobId="J")["document"] == '{"n": 1}'
    assert door.iot.describe_job(jobId="J")["documentSource"] == source
    door.buckets.put("b", "jobs/one.json", b"\xff")
    assert code_of(door.iot.create_job, jobId="K", **request) == "InvalidRequestException"
    door.buckets.put("b", "jobs/one.json", b'{"a":"' + b"x" * 40_000 + b'"}')
    assert code_of(door.iot.create_job, jobId="K", **request) == "InvalidRequestException"
    door.rights.denied.add("s3:GetObject")
    assert code_of(door.iot.create_job, jobId="K", **request) == "AccessDeniedException"


def test_jobs_and_executions_are_listed_page_by_page(door: Door) -> None:
    for name in ("J0", "J1", "J2"):
        door.room.clock.advance(milliseconds=1500)
        door.iot.create_job(jobId=name, targets=[door.room.group_arn("g")], document="{}")
    pages = door.iot.get_paginator("list_jobs").paginate(PaginationConfig={"PageSize": 2})
    assert [[job["jobId"] for job in page["jobs"]] for page in pages] == [["J2", "J1"], ["J0"]]
    assert [job["jobId"] for job in door.iot.list_jobs(thingGroupName="g", status="IN_PROGRESS")["jobs"]] == ["J2", "J1", "J0"]
    assert door.iot.list_jobs(status="CANCELED")["jobs"] == []
    assert door.iot.list_jobs(thingGroupName="h")["jobs"] == []
    pages = door.iot.get_paginator("list_job_executions_for_job").paginate(jobId="J1", PaginationConfig={"PageSize": 1})
    listed = [page["executionSummaries"] for page in pages]
    assert [entry["thingArn"] for (entry,) in listed] == [door.room.thing_arn("a"), door.room.thing_arn("b")]
    assert listed[0][0]["jobExecutionSummary"]["queuedAt"].timestamp() == NOW_S + 3
    pages = door.iot.get_paginator("list_job_executions_for_thing").paginate(thingName="a", PaginationConfig={"PageSize": 2})
    assert [[entry["jobId"] for entry in page["executionSummaries"]] for page in pages] == [["J2", "J1"], ["J0"]]
    assert code_of(door.iot.list_jobs, nextToken="nonsense") == "InvalidRequestException"
    assert code_of(door.iot.list_job_executions_for_thing, thingName="nobody") == "ResourceNotFoundException"


def test_the_control_plane_shows_details_in_a_map(door: Door) -> None:
    door.iot.create_job(
        jobId="J", targets=[door.room.thing_arn("a")], document="{}", timeoutConfig={"inProgressTimeoutInMinutes": 1}
    )
    door.data.update_job_execution(jobId="J", thingName="a", status="IN_PROGRESS", statusDetails={"x": "y"})
    execution = door.iot.describe_job_execution(jobId="J", thingName="a", executionNumber=1)["execution"]
    assert execution["statusDetails"] == {"detailsMap": {"x": "y"}}
    assert execution["approximateSecondsBeforeTimedOut"] == 60
    assert code_of(door.iot.describe_job_execution, jobId="J", thingName="a", executionNumber=2) == "ResourceNotFoundException"


def test_cancelling_and_deleting_follow_the_tables(door: Door) -> None:
    door.iot.create_job(jobId="J", targets=[door.room.group_arn("g")], document="{}")
    request = {"jobId": "J", "thingName": "a"}
    assert code_of(door.iot.cancel_job_execution, **request, expectedVersion=9) == "VersionConflictException"
    assert code_of(door.iot.delete_job_execution, **request, executionNumber=1) == "InvalidStateTransitionException"
    assert code_of(door.iot.cancel_job_execution, **request, statusDetails={"a b": "c"}) == "InvalidRequestException"
    door.iot.cancel_job_execution(**request, expectedVersion=1, statusDetails={"by": "me"})
    assert code_of(door.iot.cancel_job_execution, **request) == "InvalidStateTransitionException"
    door.iot.delete_job_execution(**request, executionNumber=1)
    assert code_of(door.iot.delete_job, jobId="J") == "InvalidStateTransitionException"
    canceled = door.iot.cancel_job(jobId="J", reasonCode="WHY", comment="c", force=True)
    assert canceled["jobId"] == "J"
    job = door.iot.describe_job(jobId="J")["job"]
    assert (job["status"], job["reasonCode"], job["comment"], job["forceCanceled"]) == ("CANCELED", "WHY", "c", True)
    door.iot.delete_job(jobId="J")
    assert code_of(door.iot.delete_job, jobId="J") == "ResourceNotFoundException"


def test_a_running_job_is_changed_and_given_more_groups(door: Door) -> None:
    door.room.add_things("c", group="h")
    door.iot.create_job(jobId="J", targets=[door.room.group_arn("g")], document="{}", targetSelection="CONTINUOUS")
    door.iot.update_job(jobId="J", description="new", timeoutConfig={"inProgressTimeoutInMinutes": 7})
    door.iot.update_job(jobId="J", presignedUrlConfig={"roleArn": ROLE})
    door.iot.update_job(jobId="J", presignedUrlConfig={"expiresInSec": 61})
    added = door.iot.associate_targets_with_job(jobId="J", targets=[door.room.group_arn("h")], comment="more")
    assert added["description"] == "new"
    job = door.iot.describe_job(jobId="J")["job"]
    assert job["timeoutConfig"] == {"inProgressTimeoutInMinutes": 7}
    assert job["presignedUrlConfig"] == {"roleArn": ROLE, "expiresInSec": 61}
    assert job["targets"] == [door.room.group_arn("g"), door.room.group_arn("h")]
    assert job["jobProcessDetails"]["numberOfQueuedThings"] == 3


@pytest.mark.parametrize("number", [2**62, 2**63, 2**64, -1, 0])
def test_a_number_beyond_every_row_is_never_a_server_error(door: Door, number: int) -> None:
    door.iot.create_job(jobId="J", targets=[door.room.thing_arn("a")], document="{}")
    request = {"jobId": "J", "thingName": "a"}
    for call, more in (
        (door.careless.describe_job_execution, {"executionNumber": number}),
        (door.careless.delete_job_execution, {"executionNumber": number}),
        (door.careless.cancel_job_execution, {"expectedVersion": number}),
        (door.data.describe_job_execution, {"executionNumber": number}),
        (door.data.update_job_execution, {"status": "IN_PROGRESS", "executionNumber": number}),
        (door.data.update_job_execution, {"status": "IN_PROGRESS", "expectedVersion": number}),
        (door.data.update_job_execution, {"status": "IN_PROGRESS", "stepTimeoutInMinutes": number}),
    ):
        if number == -1 and "stepTimeoutInMinutes" in more:
            continue
        assert code_of(call, **request, **more)
    assert json.loads(door.iot.get_job_document(jobId="J")["document"]) == {}
