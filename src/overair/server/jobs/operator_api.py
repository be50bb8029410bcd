"""Job operations of the ``iot`` service (wire reference §3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from overair.basics.errors import InvalidRequest
from overair.basics.ids import JobId, ThingName
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.jobs.document_sources import CallerRights, DocumentSources
from overair.server.jobs.managed_templates import before_substitution, managed_by_arn
from overair.server.jobs.model import Job, JobPlan, JobSettings, JobStatus, JobTarget, TargetSelection
from overair.server.jobs.operator_members import (
    changed_settings,
    described_execution,
    described_job,
    execution_summary,
    job_summary,
    schedule,
    status_details,
)
from overair.server.jobs.service import JobsService
from overair.wire.job_messages import ExecutionStatus


class JobOperations:
    """The operator's door to jobs."""

    def __init__(self, *, work: Work, jobs: JobsService, rights: CallerRights, sources: DocumentSources) -> None:
        self.work = work
        self._jobs = jobs
        self._rights = rights
        self._sources = sources

    @operation("iot", "CreateJob")
    async def create_job(self, caller: Caller, request: Request) -> Members:
        plan = await self._plan(caller, request)

        def create(tx: Tx) -> Job:
            if plan.settings.presign is not None:
                self._rights.require_pass_role(tx, caller, plan.settings.presign.role_arn)
            return self._jobs.create(tx, caller.place, plan)

        return _named(await self.work.run(create))

    @operation("iot", "DescribeJob")
    async def describe_job(self, caller: Caller, request: Request) -> Members:
        def find(tx: Tx) -> tuple[Job, Sequence[JobTarget]]:
            job = self._jobs.find(tx, caller.account, JobId(request["jobId"]))
            if request.get("beforeSubstitution"):
                job = replace(job, destination_package_versions=self._jobs.given(tx, job).package_versions)
            return job, self._jobs.targets(tx, caller.account, job.id)

        job, targets = await self.work.read(find)
        return {"documentSource": job.document_source, "job": described_job(job, targets, now=caller.now)}

    @operation("iot", "GetJobDocument")
    async def get_job_document(self, caller: Caller, request: Request) -> Members:
        def read(tx: Tx) -> str:
            job = self._jobs.find(tx, caller.account, JobId(request["jobId"]))
            if request.get("beforeSubstitution"):
                given = self._jobs.given(tx, job).document
                return before_substitution(job.template_arn, job.document_parameters, given)
            return self._jobs.document(tx, caller.account, job.id)

        return {"document": await self.work.read(read)}

    @operation("iot", "ListJobs")
    async def list_jobs(self, caller: Caller, request: Request) -> Members:
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        position = read_page_token(request.get("nextToken"), tuple[int])
        name, group_id = request.get("thingGroupName"), request.get("thingGroupId")

        def read(tx: Tx) -> Sequence[Job]:
            target = None if name is None else caller.place.iot("thinggroup", name)
            if group_id is not None:
                of_id = self._jobs.group_arn(tx, caller.place, group_id)
                if target is not None and target != of_id:
                    raise InvalidRequest("thingGroupName and thingGroupId name two groups.", subject="target")
                target = of_id
            return self._jobs.page(
                tx,
                caller.account,
                status=JobStatus(request["status"]) if "status" in request else None,
                target_selection=TargetSelection(request["targetSelection"]) if "targetSelection" in request else None,
                target=target,
                namespace=request.get("namespaceId"),
                before=None if position is None else position[0],
                limit=limit + 1,
            )

        page, token = cut(await self.work.read(read), limit, lambda job: (job.sequence,))
        return {"jobs": [job_summary(job, group_id=group_id) for job in page], "nextToken": token}

    @operation("iot", "UpdateJob")
    async def update_job(self, caller: Caller, request: Request) -> Members:
        job, namespace = JobId(request["jobId"]), request.get("namespaceId")

        def update(tx: Tx) -> Job:
            self._jobs.find(tx, caller.account, job, namespace=namespace)
            presign = request.get("presignedUrlConfig")
            if presign and presign.get("roleArn"):
                self._rights.require_pass_role(tx, caller, presign["roleArn"])
            return self._jobs.change(tx, caller.account, job, lambda settings: changed_settings(settings, request))

        await self.work.run(update)
        return {}

    @operation("iot", "AssociateTargetsWithJob")
    async def associate_targets(self, caller: Caller, request: Request) -> Members:
        job, namespace = JobId(request["jobId"]), request.get("namespaceId")

        def associate(tx: Tx) -> Job:
            self._jobs.find(tx, caller.account, job, namespace=namespace)
            return self._jobs.associate(tx, caller.place, job, request["targets"], comment=request.get("comment"))

        return _named(await self.work.run(associate))

    @operation("iot", "CancelJob")
    async def cancel_job(self, caller: Caller, request: Request) -> Members:
        return _named(
            await self.work.run(
                lambda tx: self._jobs.cancel(
                    tx,
                    caller.account,
                    JobId(request["jobId"]),
                    comment=request.get("comment"),
                    reason_code=request.get("reasonCode"),
                    force=request.get("force", False),
                )
            )
        )

    @operation("iot", "DeleteJob")
    async def delete_job(self, caller: Caller, request: Request) -> Members:
        job, force, namespace = JobId(request["jobId"]), request.get("force", False), request.get("namespaceId")

        def delete(tx: Tx) -> None:
            self._jobs.find(tx, caller.account, job, namespace=namespace)
            self._jobs.delete(tx, caller.account, job, force=force)

        await self.work.run(delete)
        return {}

    # Executions -----------------------------------------------------------------------------------------------------------

    @operation("iot", "DescribeJobExecution")
    async def describe_job_execution(self, caller: Caller, request: Request) -> Members:
        thing = ThingName(request["thingName"])
        execution = await self.work.read(
            lambda tx: self._jobs.executions.find(
                tx, caller.account, thing, JobId(request["jobId"]), request.get("executionNumber")
            )
        )
        return {"execution": described_execution(execution, caller.place.iot("thing", thing), now=caller.now)}

    @operation("iot", "ListJobExecutionsForJob")
    async def list_job_executions_for_job(self, caller: Caller, request: Request) -> Members:
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        after = read_page_token(request.get("nextToken"), tuple[str, int])
        found = await self.work.read(
            lambda tx: self._jobs.executions.of_job(
                tx,
                caller.account,
                JobId(request["jobId"]),
                status=ExecutionStatus(request["status"]) if "status" in request else None,
                after=after,
                limit=limit + 1,
            )
        )
        page, token = cut(found, limit, lambda execution: (execution.thing, execution.number))
        return {
            "executionSummaries": [
                {
                    "thingArn": caller.place.iot("thing", execution.thing),
                    "jobExecutionSummary": execution_summary(execution),
                }
                for execution in page
            ],
            "nextToken": token,
        }

    @operation("iot", "ListJobExecutionsForThing")
    async def list_job_executions_for_thing(self, caller: Caller, request: Request) -> Members:
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        before = read_page_token(request.get("nextToken"), tuple[int, str, int])
        found = await self.work.read(
            lambda tx: self._jobs.executions.of_thing(
                tx,
                caller.account,
                ThingName(request["thingName"]),
                status=ExecutionStatus(request["status"]) if "status" in request else None,
                job=JobId(request["jobId"]) if "jobId" in request else None,
                namespace=request.get("namespaceId"),
                before=before,
                limit=limit + 1,
            )
        )
        page, token = cut(found, limit, lambda execution: (execution.queued_at, execution.job, execution.number))
        return {
            "executionSummaries": [
                {"jobId": execution.job, "jobExecutionSummary": execution_summary(execution)} for execution in page
            ],
            "nextToken": token,
        }

    @operation("iot", "CancelJobExecution")
    async def cancel_job_execution(self, caller: Caller, request: Request) -> Members:
        details = status_details(request)
        await self.work.run(
            lambda tx: self._jobs.executions.cancel(
                tx,
                caller.account,
                ThingName(request["thingName"]),
                JobId(request["jobId"]),
                force=request.get("force", False),
                expected_version=request.get("expectedVersion"),
                status_details=details,
            )
        )
        return {}

    @operation("iot", "DeleteJobExecution")
    async def delete_job_execution(self, caller: Caller, request: Request) -> Members:
        thing, job = ThingName(request["thingName"]), JobId(request["jobId"])
        number, force, namespace = request["executionNumber"], request.get("force", False), request.get("namespaceId")

        def delete(tx: Tx) -> None:
            if namespace is not None:
                self._jobs.find(tx, caller.account, job, namespace=namespace)
            self._jobs.executions.delete(tx, caller.account, thing, job, number, force=force)

        await self.work.run(delete)
        return {}

    async def _plan(self, caller: Caller, request: Request) -> JobPlan:
        """What is asked for, upon the template that it names: the request's members go before the template's."""
        arn = request.get("jobTemplateArn")
        managed = None if arn is None else managed_by_arn(arn)
        template = None
        if arn is not None and managed is None:
            template = await self.work.read(lambda tx: self._jobs.templates.by_arn(tx, caller.place, arn))
        parameters: dict[str, str] = dict(request.get("documentParameters") or {})
        if parameters and managed is None:
            raise InvalidRequest("documentParameters are for jobs from managed templates.", subject="document-parameters")
        given, source = request.get("document"), request.get("documentSource")
        if (given is not None and source is not None) or (given is None and source is None and arn is None):
            raise InvalidRequest(
                "A job has one of document, documentSource and jobTemplateArn; a template's document may be replaced.",
                subject="job-document",
            )
        if source is not None:
            document = await self._sources.read(caller, source)
        elif given is not None:
            document = given
        elif managed is not None:
            document = managed.filled(parameters)
        else:
            assert template is not None
            document, source = template.document, template.document_source
        standing = JobSettings() if template is None else replace(template.settings, description=template.description)
        if managed is not None:
            standing = JobSettings(description=managed.description)
        packages = template.destination_package_versions if template is not None else ()
        return JobPlan(
            id=JobId(request["jobId"]),
            targets=tuple(request["targets"]),
            document=document,
            document_source=source,
            target_selection=TargetSelection(request.get("targetSelection", TargetSelection.SNAPSHOT)),
            settings=changed_settings(standing, request),
            destination_package_versions=tuple(request.get("destinationPackageVersions") or packages),
            tags={tag["Key"]: tag.get("Value", "") for tag in request.get("tags", ())},
            schedule=schedule(request.get("schedulingConfig"), windows=() if template is None else template.windows),
            template_arn=arn,
            document_parameters=parameters,
            namespace=request.get("namespaceId"),
        )


def _named(job: Job) -> Members:
    return {"jobArn": job.arn, "jobId": job.id, "description": job.settings.description or None}
