"""Job template operations of the ``iot`` service (wire reference §3.8)."""

from __future__ import annotations

from overair.basics.clock import Clock
from overair.basics.errors import InvalidRequest
from overair.basics.ids import JobId
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.jobs.document_sources import CallerRights, DocumentSources
from overair.server.jobs.managed_templates import MANAGED_TEMPLATES, VERSION, find_managed
from overair.server.jobs.model import JobSettings, JobTemplate
from overair.server.jobs.operator_members import (
    changed_settings,
    maintenance_windows,
    shown_settings,
    shown_windows,
)
from overair.server.jobs.service import JobsService


class JobTemplateOperations:
    """The operator's door to job templates. ``work`` is the audited one."""

    def __init__(self, *, work: Work, jobs: JobsService, rights: CallerRights, sources: DocumentSources, clock: Clock) -> None:
        self._work = work
        self._jobs = jobs
        self._templates = jobs.templates
        self._rights = rights
        self._sources = sources
        self._clock = clock

    @operation("iot", "CreateJobTemplate")
    async def create_job_template(self, caller: Caller, request: Request) -> Members:
        given, source, job_arn = request.get("document"), request.get("documentSource"), request.get("jobArn")
        if sum(each is not None for each in (given, source, job_arn)) != 1:
            raise InvalidRequest("A job template has one of document, documentSource and jobArn.", subject="job-document")
        document = await self._sources.read(caller, source) if source is not None else given
        tags = {tag["Key"]: tag.get("Value", "") for tag in request.get("tags", ())}

        def create(tx: Tx) -> JobTemplate:
            template = self._template(tx, caller, request, document)
            if template.settings.presign is not None:
                self._rights.require_pass_role(tx, caller, template.settings.presign.role_arn)
            return self._templates.create(tx, template, tags)

        return _named(await self._work.run(create))

    @operation("iot", "DescribeJobTemplate")
    async def describe_job_template(self, caller: Caller, request: Request) -> Members:
        template = await self._work.read(lambda tx: self._templates.find(tx, caller.account, request["jobTemplateId"]))
        return {
            **_named(template),
            "description": template.description,
            "documentSource": template.document_source,
            "document": template.document,
            "createdAt": template.created_at,
            **shown_settings(template.settings),
            "maintenanceWindows": shown_windows(template.windows),
            "destinationPackageVersions": list(template.destination_package_versions) or None,
        }

    @operation("iot", "ListJobTemplates")
    async def list_job_templates(self, caller: Caller, request: Request) -> Members:
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        position = read_page_token(request.get("nextToken"), tuple[str])
        after = None if position is None else position[0]
        found = await self._work.read(lambda tx: self._templates.page(tx, caller.account, after=after, limit=limit + 1))
        page, token = cut(found, limit, lambda template: (template.id,))
        shown = [
            {**_named(template), "description": template.description, "createdAt": template.created_at} for template in page
        ]
        return {"jobTemplates": shown, "nextToken": token}

    @operation("iot", "DeleteJobTemplate")
    async def delete_job_template(self, caller: Caller, request: Request) -> Members:
        await self._work.run(lambda tx: self._templates.delete(tx, caller.place, request["jobTemplateId"]))
        return {}

    @operation("iot", "ListManagedJobTemplates")
    async def list_managed_job_templates(self, caller: Caller, request: Request) -> Members:
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        position = read_page_token(request.get("nextToken"), tuple[str])
        wanted = request.get("templateName")
        found = [
            template
            for name, template in sorted(MANAGED_TEMPLATES.items())
            if (wanted is None or name == wanted) and (position is None or name > position[0])
        ]
        page, token = cut(found[: limit + 1], limit, lambda template: (template.name,))
        shown = [
            {
                "templateArn": template.arn(caller.place),
                "templateName": template.name,
                "description": template.description,
                "environments": list(template.environments),
                "templateVersion": VERSION,
            }
            for template in page
        ]
        return {"managedJobTemplates": shown, "nextToken": token}

    @operation("iot", "DescribeManagedJobTemplate")
    async def describe_managed_job_template(self, caller: Caller, request: Request) -> Members:
        template = find_managed(request["templateName"], request.get("templateVersion"))
        return {
            "templateName": template.name,
            "templateArn": template.arn(caller.place),
            "description": template.description,
            "templateVersion": VERSION,
            "environments": list(template.environments),
            "documentParameters": [
                {
                    "key": parameter.key,
                    "description": parameter.description,
                    "regex": parameter.regex,
                    "example": parameter.example,
                    "optional": parameter.optional,
                }
                for parameter in template.parameters
            ],
            "document": template.document,
        }

    def _template(self, tx: Tx, caller: Caller, request: Request, document: str | None) -> JobTemplate:
        settings = JobSettings()
        windows = maintenance_windows(request.get("maintenanceWindows"))
        source: str | None = request.get("documentSource")
        packages = tuple(request.get("destinationPackageVersions") or ())
        if document is None:
            prefix = caller.place.iot("job", "")
            arn = str(request["jobArn"])
            job = self._jobs.find(tx, caller.account, JobId(arn.removeprefix(prefix) if arn.startswith(prefix) else ""))
            given = self._jobs.given(tx, job)
            document = given.document
            settings, source = job.settings, job.document_source
            windows = windows or (() if job.schedule is None else job.schedule.windows)
            packages = packages or given.package_versions
        return JobTemplate(
            id=request["jobTemplateId"],
            place=caller.place,
            description=request["description"],
            document=document,
            document_source=source,
            settings=changed_settings(settings, {**request, "description": request["description"]}),
            windows=windows,
            destination_package_versions=packages,
            created_at=self._clock.now(),
        )


def _named(template: JobTemplate) -> Members:
    return {"jobTemplateArn": template.arn, "jobTemplateId": template.id}
