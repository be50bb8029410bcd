"""Job operations of the ``iot`` service (wire reference §3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from overair.basics.arn import Place
from overair.basics.errors import InvalidRequest, Unsupported
from overair.basics.ids import BucketName, JobId, ObjectKey, ThingName, VersionId
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.jobs.documents import parse_s3_url
from overair.server.jobs.model import DOCUMENT_SIZE_BYTES_MAX, Job, JobPlan, JobSettings, JobStatus, JobTarget, TargetSelection
from overair.server.jobs.operator_members import (
    changed_settings,
    described_execution,
    described_job,
    execution_summary,
    job_summary,
    refuse_unsupported,
    status_details,
)
from overair.server.jobs.service import JobsService
from overair.server.objects.model import ContentId
from overair.wire.job_messages import ExecutionStatus

DOCUMENT_READ_BYTES_MAX: Final = DOCUMENT_SIZE_BYTES_MAX + 1
"""One byte more than allowed tells that there is too much."""


class CallerRights(Protocol):
    """What this door asks of the callers' policies (``access.service.AccessService``)."""

    def require(self, tx: Tx, caller: Caller, action: str, resource: str) -> None: ...
    def require_pass_role(self, tx: Tx, caller: Caller, role_arn: str) -> None: ...


class ObjectContent(Protocol):
    @property
    def content_id(self) -> ContentId: ...


class DocumentObjects(Protocol):
    """Where a documentSource points to (``objects.service.ObjectsService``)."""

    def find(self, tx: Tx, place: Place, bucket: BucketName, key: ObjectKey, version: VersionId | None) -> ObjectContent: ...


class Contents(Protocol):
    """Where the bytes are (``objects.contents.ContentStore``)."""

    def read(self, content_id: ContentId, offset_bytes: int, size_bytes: int) -> bytes: ...


class JobOperations:
    """The operator's door to jobs."""

    def __init__(
        self, *, work: Work, jobs: JobsService, rights: CallerRights, objects: DocumentObjects, contents: Contents
    ) -> None:
        self.work = work
        self._jobs = jobs
        self._rights = rights
        self._objects = objects
        self._contents = contents

    @operation("iot", "CreateJob")
    async def create_job(self, caller: Caller, request: Request) -> Members:
        refuse_unsupported(request)
        settings = changed_settings(JobSettings(), request)
        plan = JobPlan(
            id=JobId(request["jobId"]),
            targets=tuple(request["targets"]),
            document=await self._document(caller, request),
            document_source=request.get("documentSource"),
            target_selection=TargetSelection(request.get("targetSelection", TargetSelection.SNAPSHOT)),
            settings=settings,
            destination_package_versions=tuple(request.get("destinationPackageVersions", ())),
            tags={tag["Key"]: tag.get("Value", "") for tag in request.get("tags", ())},
        )

        def create(tx: Tx) -> Job:
            if settings.presign is not None:
                self._rights.require_pass_role(tx, caller, settings.presign.role_arn)
            return self._jobs.create(tx, caller.place, plan)

        return _named(await self.work.run(create))

    @operation("iot", "DescribeJob")
    async def describe_job(self, caller: Caller, request: Request) -> Members:
        def find(tx: Tx) -> tuple[Job, Sequence[JobTarget]]:
            job = self._jobs.find(tx, caller.account, JobId(request["jobId"]))
            return job, self._jobs.targets(tx, caller.account, job.id)

        job, targets = await self.work.read(find)
        return {"documentSource": job.document_source, "job": described_job(job, targets)}

    @operation("iot", "GetJobDocument")
    async def get_job_document(self, caller: Caller, request: Request) -> Members:
        job = JobId(request["jobId"])
        return {"document": await self.work.read(lambda tx: self._jobs.document(tx, caller.account, job))}

    @operation("iot", "ListJobs")
    async def list_jobs(self, caller: Caller, request: Request) -> Members:
        for name in ("thingGroupId", "namespaceId"):
            if request.get(name):
                raise Unsupported(f"Listing jobs by {name} is not supported. Use thingGroupName.", subject="job-member")
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        position = read_page_token(request.get("nextToken"), tuple[int])
        group = request.get("thingGroupName")
        found = await self.work.read(
            lambda tx: self._jobs.page(
                tx,
                caller.account,
                status=JobStatus(request["status"]) if "status" in request else None,
                target_selection=TargetSelection(request["targetSelection"]) if "targetSelection" in request else None,
                target=None if group is None else caller.place.iot("thinggroup", group),
                before=None if position is None else position[0],
                limit=limit + 1,
            )
        )
        page, token = cut(found, limit, lambda job: (job.sequence,))
        return {"jobs": [job_summary(job) for job in page], "nextToken": token}

    @operation("iot", "UpdateJob")
    async def update_job(self, caller: Caller, request: Request) -> Members:
        refuse_unsupported(request)

        def update(tx: Tx) -> Job:
            presign = request.get("presignedUrlConfig")
            if presign and presign.get("roleArn"):
                self._rights.require_pass_role(tx, caller, presign["roleArn"])
            return self._jobs.change(
                tx, caller.account, JobId(request["jobId"]), lambda settings: changed_settings(settings, request)
            )

        await self.work.run(update)
        return {}

    @operation("iot", "AssociateTargetsWithJob")
    async def associate_targets(self, caller: Caller, request: Request) -> Members:
        refuse_unsupported(request)
        job = JobId(request["jobId"])
        return _named(
            await self.work.run(
                lambda tx: self._jobs.associate(tx, caller.place, job, request["targets"], comment=request.get("comment"))
            )
        )

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
        refuse_unsupported(request)
        job, force = JobId(request["jobId"]), request.get("force", False)
        await self.work.run(lambda tx: self._jobs.delete(tx, caller.account, job, force=force))
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
        if request.get("namespaceId"):
            raise Unsupported("Job namespaces (namespaceId) are not supported.", subject="job-member")
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        before = read_page_token(request.get("nextToken"), tuple[int, str, int])
        found = await self.work.read(
            lambda tx: self._jobs.executions.of_thing(
                tx,
                caller.account,
                ThingName(request["thingName"]),
                status=ExecutionStatus(request["status"]) if "status" in request else None,
                job=JobId(request["jobId"]) if "jobId" in request else None,
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
        refuse_unsupported(request)
        await self.work.run(
            lambda tx: self._jobs.executions.delete(
                tx,
                caller.account,
                ThingName(request["thingName"]),
                JobId(request["jobId"]),
                request["executionNumber"],
                force=request.get("force", False),
            )
        )
        return {}

    async def _document(self, caller: Caller, request: Request) -> str:
        """The document's text: given, or read once from the object that documentSource names."""
        given, source = request.get("document"), request.get("documentSource")
        if (given is None) == (source is None):
            raise InvalidRequest("A job has either a document or a documentSource.", subject="job-document")
        if source is None:
            return str(given)
        name = parse_s3_url(source)

        def find(tx: Tx) -> ContentId:
            action = "s3:GetObject" if name.version is None else "s3:GetObjectVersion"
            self._rights.require(tx, caller, action, f"arn:aws:s3:::{name.bucket}/{name.key}")
            return self._objects.find(tx, caller.place, name.bucket, name.key, name.version).content_id

        content = await self.work.read(find)
        raw = self._contents.read(content, 0, DOCUMENT_READ_BYTES_MAX)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"The job document at {source} is not UTF-8 text.", subject="job-document") from None


def _named(job: Job) -> Members:
    return {"jobArn": job.arn, "jobId": job.id, "description": job.settings.description or None}
