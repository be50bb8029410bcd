"""The HTTPS twin of the jobs topics: service ``iot-jobs-data`` (wire reference §2.10).

Times are whole seconds here too, a job document is a string, and there is no token and no timestamp.
"""

from __future__ import annotations

from typing import Any

from overair.basics.arn import Arn, parse_arn
from overair.basics.clock import Clock
from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import JobId, ThingName
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.jobs.device_jobs import Described, DeviceJobs, names_next
from overair.server.jobs.model import Report
from overair.server.jobs.operator_members import status_details, step_timeout_minutes
from overair.server.jobs.request_rates import RequestRates
from overair.server.jobs.views import state, summaries, view
from overair.wire.job_messages import ExecutionStatus


class JobsDataOperations:
    """Jobs over HTTPS, for programs that stand in for devices."""

    def __init__(self, *, work: Work, jobs: DeviceJobs, clock: Clock, rates: RequestRates | None = None) -> None:
        self._work = work
        self._jobs = jobs
        self._clock = clock
        self._rates = rates or RequestRates(clock=clock)

    @operation("iot-jobs-data", "GetPendingJobExecutions")
    async def get_pending_job_executions(self, caller: Caller, request: Request) -> Members:
        self._rates.read(caller.account)
        thing = ThingName(request["thingName"])
        in_progress, queued = summaries(await self._work.read(lambda tx: self._jobs.pending(tx, caller.place, thing)))
        return {
            "inProgressJobs": [item.members() for item in in_progress],
            "queuedJobs": [item.members() for item in queued],
        }

    @operation("iot-jobs-data", "DescribeJobExecution")
    async def describe_job_execution(self, caller: Caller, request: Request) -> Members:
        self._rates.read(caller.account)
        thing, job = ThingName(request["thingName"]), request["jobId"]
        include_document = request.get("includeJobDocument", True)

        def find(tx: Tx) -> Described | None:
            if names_next(job):
                return self._jobs.next(tx, caller.place, thing, include_document=include_document)
            return self._jobs.describe(
                tx,
                caller.place,
                thing,
                JobId(job),
                number=request.get("executionNumber"),
                include_document=include_document,
            )

        return {"execution": self._shown(await self._work.read(find))}

    @operation("iot-jobs-data", "StartNextPendingJobExecution")
    async def start_next_pending_job_execution(self, caller: Caller, request: Request) -> Members:
        self._rates.write(caller.account)
        details = status_details(request)
        started = await self._work.run(
            lambda tx: self._jobs.start_next(
                tx,
                caller.place,
                ThingName(request["thingName"]),
                status_details=details,
                step_timeout_minutes=step_timeout_minutes(request, may_stop=False),
            )
        )
        return {"execution": self._shown(started)}

    @operation("iot-jobs-data", "UpdateJobExecution")
    async def update_job_execution(self, caller: Caller, request: Request) -> Members:
        self._rates.write(caller.account)
        thing, job = ThingName(request["thingName"]), JobId(request["jobId"])
        report = Report(
            status=ExecutionStatus(request["status"]),
            status_details=status_details(request),
            expected_version=request.get("expectedVersion"),
            execution_number=request.get("executionNumber"),
            step_timeout_minutes=step_timeout_minutes(request),
        )
        include_state = request.get("includeJobExecutionState", False)
        include_document = request.get("includeJobDocument", False)

        def take(tx: Tx) -> Described | None:
            reported = self._jobs.report(tx, caller.place, thing, job, report)
            if not include_state and not include_document:
                return None
            return self._jobs.stands(tx, caller.place, thing, job, reported, include_document=include_document)

        described = await self._work.run(take)
        if described is None:
            return {}
        return {
            "executionState": state(described.execution).members() if include_state else None,
            "jobDocument": described.document,
        }

    @operation("iot-jobs-data", "StartCommandExecution")
    async def start_command_execution(self, caller: Caller, request: Request) -> Members:
        """Remote commands come later: nothing makes one yet, so that whatever command is named isn't there. The target is
        looked at first, as it will be then.

        Raises:
            InvalidRequest: not ARNs of a command and of a thing or client of this account. Subject ``command``.
            NotFound: there is no such thing (subject ``thing``); there is no such command (``command``).
        """
        command = _own(caller, request["commandArn"], ("command",))
        target = _own(caller, request["targetArn"], ("thing", "client"))
        if target.kind == "thing":
            await self._work.read(lambda tx: self._jobs.pending(tx, caller.place, ThingName(target.name)))
        raise NotFound(
            f"There is no command {command.name[:128]}: this server keeps no remote commands. Send devices jobs (CreateJob).",
            subject="command",
        )

    def _shown(self, described: Described | None) -> dict[str, Any] | None:
        if described is None:
            return None
        shown = view(described.execution, now=self._clock.now(), with_thing_name=True).members()
        if described.document is not None:
            shown["jobDocument"] = described.document
        return shown


def _own(caller: Caller, text: str, kinds: tuple[str, ...]) -> Arn:
    try:
        arn = parse_arn(text)
    except InvalidRequest as error:
        raise InvalidRequest(error.message, subject="command") from None
    if (arn.service, arn.region, arn.account) != ("iot", caller.place.region, caller.account) or arn.kind not in kinds:
        raise InvalidRequest(
            f"{text[:200]} is not the ARN of a {' or '.join(kinds)} of this account and region: "
            f"{caller.place.iot(kinds[0], 'NAME')}.",
            subject="command",
        )
    return arn
