"""The operator's door to bulk registrations (service ``iot``), and where their reports are fetched."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.provisioning.registration_task_model import (
    LineOutcome,
    RegistrationTask,
    RegistrationTaskId,
    ReportType,
    TaskStatus,
)
from overair.server.provisioning.registration_tasks import RegistrationTasks
from overair.server.provisioning.templates_operator_api import PassedRoles
from overair.server.rest.operations import RestAnswer, RestRequest, route
from overair.server.rest.tickets import Tickets, ticketed_url

REPORTS_PATH: Final = "/api/v1/thing-registration-tasks"
LINK_LASTS_MS: Final = 60 * 60_000
LINES_AT_ONCE: Final = 500


class RegistrationTaskOperations:
    """StartThingRegistrationTask and its kin."""

    def __init__(
        self, *, work: Work, tasks: RegistrationTasks, rights: PassedRoles, tickets: Tickets, origin: Callable[[], str]
    ) -> None:
        """``origin``: scheme, host and port of the operators' door, as links name it."""
        self._work = work
        self._tasks = tasks
        self._rights = rights
        self._tickets = tickets
        self._origin = origin

    @operation("iot", "StartThingRegistrationTask")
    async def start(self, caller: Caller, request: Request) -> Members:
        role = request["roleArn"]

        def start(tx: Tx) -> RegistrationTask:
            self._rights.require_pass_role(tx, caller, role)
            return self._tasks.start(
                tx,
                caller.place,
                template_body=request["templateBody"],
                bucket=request["inputFileBucket"],
                key=request["inputFileKey"],
                role_arn=role,
                source_ip=caller.source_ip,
            )

        return {"taskId": (await self._work.run(start)).id}

    @operation("iot", "StopThingRegistrationTask")
    async def stop(self, caller: Caller, request: Request) -> Members:
        task = RegistrationTaskId(request["taskId"])
        await self._work.run(lambda tx: self._tasks.stop(tx, caller.account, task))
        return {}

    @operation("iot", "DescribeThingRegistrationTask")
    async def describe(self, caller: Caller, request: Request) -> Members:
        identity = RegistrationTaskId(request["taskId"])
        task = await self._work.read(lambda tx: self._tasks.find(tx, caller.account, identity))
        return {
            "taskId": task.id,
            "creationDate": task.created_at,
            "lastModifiedDate": task.modified_at,
            "templateBody": task.template_body,
            "inputFileBucket": task.bucket,
            "inputFileKey": task.key,
            "roleArn": task.role_arn,
            "status": task.status.value,
            "message": task.message or None,
            "successCount": task.successes,
            "failureCount": task.failures,
            "percentageProgress": task.percentage,
        }

    @operation("iot", "ListThingRegistrationTasks")
    async def list(self, caller: Caller, request: Request) -> Members:
        status = None if "status" not in request else TaskStatus(request["status"])
        after = read_page_token(request.get("nextToken"), tuple[int, str])
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        rows = await self._work.read(
            lambda tx: self._tasks.page(tx, caller.account, status=status, after=after, limit=limit + 1)
        )
        page, token = cut(rows, limit, lambda row: (row.created_at, row.id))
        return {"taskIds": [row.id for row in page], "nextToken": token}

    @operation("iot", "ListThingRegistrationTaskReports")
    async def list_reports(self, caller: Caller, request: Request) -> Members:
        """One report of each type has every line; what a task that goes on has not done yet is missing in it."""
        identity, report = RegistrationTaskId(request["taskId"]), ReportType(request["reportType"])
        if request.get("nextToken"):
            raise InvalidRequest("There is one page: a report of each type. Leave nextToken out.", subject="nextToken")
        task = await self._work.read(lambda tx: self._tasks.find(tx, caller.account, identity))
        link = ticketed_url(
            self._tickets,
            caller,
            "GET",
            self._origin(),
            f"{REPORTS_PATH}/{task.id}/reports/{report.value}",
            expires=Instant(caller.now + LINK_LASTS_MS),
        )
        return {"resourceLinks": [link], "reportType": report.value}


class RegistrationReports:
    """Where the links of ListThingRegistrationTaskReports lead."""

    def __init__(self, *, work: Work, tasks: RegistrationTasks) -> None:
        self._work = work
        self._tasks = tasks

    @route(
        "GET", REPORTS_PATH + "/{taskId}/reports/{reportType}", operation="GetThingRegistrationTaskReport", takes_ticket=True
    )
    async def report(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """One JSON object for each line, in their order."""
        task = RegistrationTaskId(request.labels["taskId"])
        name = request.labels["reportType"]
        if name not in {each.value for each in ReportType}:
            raise InvalidRequest(
                "A report is of type RESULTS or ERRORS.", subject="report-type", details={"field": "reportType"}
            )
        await self._work.read(lambda tx: self._tasks.find(tx, caller.account, task))
        return RestAnswer(stream=self._lines(caller, task, ReportType(name)), content_type="application/x-ndjson")

    async def _lines(self, caller: Caller, task: RegistrationTaskId, report: ReportType) -> AsyncIterator[bytes]:
        def page(after: int) -> Callable[[Tx], Sequence[LineOutcome]]:
            return lambda tx: self._tasks.lines(tx, caller.account, task, report, after=after, limit=LINES_AT_ONCE)

        lines = await self._work.read(page(0))
        while lines:
            yield "".join(each.text + "\n" for each in lines).encode()
            lines = await self._work.read(page(lines[-1].line))
