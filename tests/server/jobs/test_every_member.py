"""No member of a jobs operation is ignored in silence: with it, something else comes of the request than without it."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import OverairError
from overair.basics.ids import JobId, ThingName
from overair.server.aws_protocol.operations import operations_of
from overair.server.jobs.document_sources import DocumentSources
from overair.server.jobs.jobs_data_api import JobsDataOperations
from overair.server.jobs.model import Report
from overair.server.jobs.operator_api import JobOperations
from overair.server.jobs.tables import job_documents, job_executions, job_targets, job_templates, jobs
from overair.server.jobs.templates_operator_api import JobTemplateOperations
from overair.server.storage.work import open_sqlite, sql
from overair.wire.job_messages import ExecutionStatus
from tests.server.jobs.test_operator_api import ROLE, Rights
from tests.support.engine_door import CALLER
from tests.support.jobs_room import JobsRoom
from tests.support.streams_room import Buckets

MANAGED = "arn:aws:iot:us-east-1::jobtemplate/AWS-Run-Command:1.0"
SOURCE = "https://s3.us-east-1.amazonaws.com/b/j.json"
PRESIGN = {"roleArn": ROLE, "expiresInSec": 90}
ROLLOUT = {"maximumPerMinute": 7}
ABORT = [{"failureType": "ALL", "action": "CANCEL", "thresholdPercentage": 12.5, "minNumberOfExecutedThings": 3}]
RETRY = {"criteriaList": [{"failureType": "FAILED", "numberOfRetries": 2}]}
WINDOWS = [{"startTime": "cron(0 0 * * ? *)", "durationInMinutes": 60}]
PACKAGES = ["arn:aws:iot:us-east-1:123456789012:package/p/version/v"]
THINGS = "arn:aws:iot:us-east-1:123456789012:thing/"
GROUPS = "arn:aws:iot:us-east-1:123456789012:thinggroup/"
Values = Mapping[str, Any]
CHANGES: Values = {
    "description": "another",
    "presignedUrlConfig": PRESIGN,
    "jobExecutionsRolloutConfig": ROLLOUT,
    "abortConfig": {"criteriaList": ABORT},
    "jobExecutionsRetryConfig": RETRY,
    "timeoutConfig": {"inProgressTimeoutInMinutes": 9},
}
PAGES: Values = {"maxResults": 1, "nextToken": "not one of ours"}

# By operation: what stands before it (see ``World``), the request without the member, and a value for each member. None as a
# value leaves out a member of the request.
CASES: Mapping[tuple[str, str], tuple[str, Values, Values]] = {
    ("iot", "CreateJob"): (
        "new",
        {"jobId": "J", "targets": [THINGS + "a"], "document": "{}"},
        {
            **CHANGES,
            "jobId": "K",
            "targets": [THINGS + "b"],
            "document": '{"v":2}',
            "documentSource": SOURCE,
            "targetSelection": "CONTINUOUS",
            "tags": [{"Key": "k", "Value": "v"}],
            "namespaceId": "ns",
            "jobTemplateArn": MANAGED,
            "documentParameters": {"command": "x"},
            "schedulingConfig": {"startTime": "2026-02-01 10:00"},
            "destinationPackageVersions": PACKAGES,
        },
    ),
    ("iot", "UpdateJob"): ("queued", {"jobId": "J"}, {**CHANGES, "jobId": "none", "namespaceId": "ns"}),
    ("iot", "CancelJob"): (
        "started",
        {"jobId": "J"},
        {"jobId": "none", "reasonCode": "WHY", "comment": "because", "force": True},
    ),
    ("iot", "DeleteJob"): ("started", {"jobId": "J", "force": True}, {"jobId": "none", "force": None, "namespaceId": "ns"}),
    ("iot", "AssociateTargetsWithJob"): (
        "continuous",
        {"jobId": "J", "targets": [GROUPS + "h"]},
        {"jobId": "none", "targets": [GROUPS + "none"], "comment": "more", "namespaceId": "ns"},
    ),
    ("iot", "DescribeJob"): ("packages", {"jobId": "J"}, {"jobId": "none", "beforeSubstitution": True}),
    ("iot", "GetJobDocument"): ("managed", {"jobId": "J"}, {"jobId": "none", "beforeSubstitution": True}),
    ("iot", "ListJobs"): (
        "two",
        {},
        {
            **PAGES,
            "status": "CANCELED",
            "targetSelection": "CONTINUOUS",
            "thingGroupName": "g",
            "thingGroupId": "id-of-g",
            "namespaceId": "ns",
        },
    ),
    ("iot", "DescribeJobExecution"): (
        "queued",
        {"jobId": "J", "thingName": "a"},
        {"jobId": "none", "thingName": "none", "executionNumber": 7},
    ),
    ("iot", "CancelJobExecution"): (
        "started",
        {"jobId": "J", "thingName": "a", "force": True},
        {"jobId": "none", "thingName": "b", "force": None, "expectedVersion": 9, "statusDetails": {"k": "v"}},
    ),
    ("iot", "DeleteJobExecution"): (
        "started",
        {"jobId": "J", "thingName": "a", "executionNumber": 1, "force": True},
        {"jobId": "none", "thingName": "b", "executionNumber": 2, "force": None, "namespaceId": "ns"},
    ),
    ("iot", "ListJobExecutionsForJob"): ("started", {"jobId": "J"}, {**PAGES, "jobId": "none", "status": "IN_PROGRESS"}),
    ("iot", "ListJobExecutionsForThing"): (
        "two",
        {"thingName": "a"},
        {**PAGES, "thingName": "none", "status": "SUCCEEDED", "namespaceId": "ns", "jobId": "J"},
    ),
    ("iot", "CreateJobTemplate"): (
        "queued",
        {"jobTemplateId": "T", "description": "d", "document": '{"v":1}'},
        {
            **CHANGES,
            "jobTemplateId": "U",
            "jobArn": "arn:aws:iot:us-east-1:123456789012:job/J",
            "documentSource": SOURCE,
            "document": '{"v":2}',
            "tags": [{"Key": "k", "Value": "v"}],
            "maintenanceWindows": WINDOWS,
            "destinationPackageVersions": PACKAGES,
        },
    ),
    ("iot", "DescribeJobTemplate"): ("template", {"jobTemplateId": "T"}, {"jobTemplateId": "none"}),
    ("iot", "DeleteJobTemplate"): ("template", {"jobTemplateId": "T"}, {"jobTemplateId": "none"}),
    ("iot", "ListJobTemplates"): ("templates", {}, PAGES),
    ("iot", "DescribeManagedJobTemplate"): (
        "new",
        {"templateName": "AWS-Reboot"},
        {"templateName": "AWS-Run-Command", "templateVersion": "9.9"},
    ),
    ("iot", "ListManagedJobTemplates"): ("new", {}, {**PAGES, "templateName": "AWS-Reboot"}),
    ("iot-jobs-data", "GetPendingJobExecutions"): ("queued", {"thingName": "a"}, {"thingName": "none"}),
    ("iot-jobs-data", "StartNextPendingJobExecution"): (
        "queued",
        {"thingName": "a"},
        {"thingName": "b", "statusDetails": {"k": "v"}, "stepTimeoutInMinutes": 5},
    ),
    ("iot-jobs-data", "DescribeJobExecution"): (
        "queued",
        {"jobId": "J", "thingName": "a"},
        {"jobId": "none", "thingName": "b", "includeJobDocument": False, "executionNumber": 7},
    ),
    ("iot-jobs-data", "UpdateJobExecution"): (
        "queued",
        {"jobId": "J", "thingName": "a", "status": "IN_PROGRESS"},
        {
            "jobId": "none",
            "thingName": "b",
            "status": "FAILED",
            "statusDetails": {"k": "v"},
            "stepTimeoutInMinutes": 5,
            "expectedVersion": 9,
            "includeJobExecutionState": True,
            "includeJobDocument": True,
            "executionNumber": 7,
        },
    ),
    ("iot-jobs-data", "StartCommandExecution"): (
        "new",
        {"commandArn": "arn:aws:iot:us-east-1:123456789012:command/c", "targetArn": THINGS + "a"},
        {"commandArn": "arn:aws:iot:us-east-1:123456789012:command/d", "targetArn": THINGS + "none"},
    ),
}
WITHOUT_EFFECT: Mapping[tuple[str, str, str], str] = {
    **{
        ("iot-jobs-data", "StartCommandExecution", member): "no command can be named, so that nothing is ever started"
        for member in ("parameters", "executionTimeoutSeconds", "clientToken")
    },
}


class World:
    """The jobs room with its doors, without a port."""

    def __init__(self, room: JobsRoom) -> None:
        self.room = room
        rights, buckets = Rights(), Buckets(room.place)
        buckets.put("b", "j.json", b'{"from":"there"}')
        room.roles.assumable.add(ROLE)
        room.add_things("a", "b", group="g")
        room.add_things("b", group="h")
        sources = DocumentSources(work=room.work, rights=rights, objects=buckets, contents=buckets)
        doors = (
            JobOperations(work=room.work, jobs=room.jobs, rights=rights, sources=sources),
            JobTemplateOperations(work=room.work, jobs=room.jobs, rights=rights, sources=sources, clock=room.clock),
            JobsDataOperations(work=room.work, jobs=room.jobs.device, clock=room.clock),
        )
        self.handlers = {(service, name): handler for door in doors for service, name, handler in operations_of(door)}

    async def prepare(self, scene: str) -> None:
        room, iot = self.room, lambda name, **request: self.handlers["iot", name](CALLER, request)
        both = [THINGS + "a", THINGS + "b"]
        if scene in ("queued", "started"):
            await iot("CreateJob", jobId="J", targets=both, document="{}")
        if scene == "packages":
            default = ["arn:aws:iot:us-east-1:123456789012:package/p/version/$default"]
            await iot("CreateJob", jobId="J", targets=both, document="{}", destinationPackageVersions=default)
        if scene == "started":
            begun = Report(status=ExecutionStatus.IN_PROGRESS)
            room.work.run_blocking(lambda tx: room.jobs.device.report(tx, room.place, ThingName("a"), JobId("J"), begun))
        if scene == "continuous":
            await iot("CreateJob", jobId="J", targets=[GROUPS + "g"], document="{}", targetSelection="CONTINUOUS")
        if scene == "managed":
            parameters = {"command": "ls"}
            await iot("CreateJob", jobId="J", targets=both, jobTemplateArn=MANAGED, documentParameters=parameters)
        if scene == "two":
            await iot("CreateJob", jobId="J", targets=[GROUPS + "g"], document="{}", targetSelection="CONTINUOUS")
            await iot("CreateJob", jobId="N", targets=both, document="{}", namespaceId="ns")
        if scene in ("template", "templates"):
            for name in ("T",) if scene == "template" else ("T", "U"):
                await iot("CreateJobTemplate", jobTemplateId=name, description="d", document="{}")

    async def outcome(self, service: str, operation: str, request: Values) -> str:
        """What is answered and what stands in the records after it."""
        given = {name: value for name, value in request.items() if value is not None}
        try:
            answer: Any = await self.handlers[service, operation](CALLER, given)
        except OverairError as error:
            answer = (type(error).__name__, error.message)
        tables = (jobs, job_documents, job_targets, job_executions, job_templates)
        rows = self.room.work.read_blocking(
            lambda tx: [[list(row) for row in sql(tx).execute(table.select())] for table in tables]
        )
        return json.dumps([answer, rows, sorted(self.room.tags.tags.items())], default=str)


@pytest.fixture
def worlds(
    place: Place, clock: SettableClock, tmp_path: Path, sqlite_template: Callable[[], Path]
) -> Iterator[Callable[[], World]]:
    opened = []
    numbers = itertools.count()

    def world() -> World:
        path = tmp_path / f"{next(numbers)}.sqlite3"
        shutil.copyfile(sqlite_template(), path)
        opened.append(open_sqlite(path, clock=clock, readers=1))
        return World(JobsRoom(opened[-1], place, clock))

    yield world
    for work in opened:
        work.close()


def modelled() -> dict[tuple[str, str], frozenset[str]]:
    found = {}
    session = botocore.session.get_session()
    for service in ("iot", "iot-jobs-data"):
        model = session.get_service_model(service)
        for name in model.operation_names:
            if "Job" in name or service == "iot-jobs-data":
                shape = model.operation_model(name).input_shape
                found[service, name] = frozenset(shape.members if shape is not None else ())
    return found


def test_every_member_of_every_jobs_operation_is_walked() -> None:
    walked = {key: frozenset(members) for key, (_, _, members) in CASES.items()}
    for service, operation, member in WITHOUT_EFFECT:
        walked[service, operation] |= {member}
    assert walked == modelled()


@pytest.mark.parametrize(("service", "operation"), list(CASES))
async def test_no_member_is_ignored_in_silence(service: str, operation: str, worlds: Callable[[], World]) -> None:
    scene, base, members = CASES[service, operation]
    world = worlds()
    await world.prepare(scene)
    without = await world.outcome(service, operation, base)
    for member, value in members.items():
        world = worlds()
        await world.prepare(scene)
        request = {**base, member: value}
        if member in ("documentSource", "jobTemplateArn", "jobArn"):
            request["document"] = None
        assert await world.outcome(service, operation, request) != without, member
