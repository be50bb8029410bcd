"""What may be done with job templates (wire reference §3.8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import AccessDenied, Conflict, InvalidRequest, NotFound
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.jobs.documents import check_document
from overair.server.jobs.model import JOB_ID, JobTemplate
from overair.server.jobs.packages import JobPackages
from overair.server.jobs.ports import ServiceRoles, Tags, TemplateStore
from overair.server.jobs.schedule import check_windows


class JobTemplates:
    """An account's own templates. The managed ones are no records: ``managed_templates``."""

    def __init__(self, *, store: TemplateStore, roles: ServiceRoles, tags: Tags, packages: JobPackages, clock: Clock) -> None:
        self._store = store
        self._roles = roles
        self._tags = tags
        self._packages = packages
        self._clock = clock
        tags.accept("jobtemplate", lambda tx, account, name: store.find(tx, account, name) is not None)

    def create(self, tx: Tx, template: JobTemplate, tags: Mapping[str, str]) -> JobTemplate:
        """Keep a template.

        Raises:
            Conflict: the id is taken. Subject ``job-template``.
            InvalidRequest: subjects ``job-template``, ``job-document``, ``package-version``, ``schedule``, ``role``.
        """
        if not JOB_ID.fullmatch(template.id):
            raise InvalidRequest("A template's id has 1 to 64 of a-z, A-Z, 0-9, '_' and '-'.", subject="job-template")
        account = template.place.account
        if self._store.find(tx, account, template.id) is not None:
            raise Conflict(f"Job template {template.id} already exists. Choose another id.", subject="job-template")
        check_document(template.document, template.settings.presign)
        self._packages.check(template.place, template.document, template.destination_package_versions)
        check_windows(template.windows, now=self._clock.now())
        if template.settings.presign is not None:
            try:
                self._roles.assume_as_service(tx, template.place, template.settings.presign.role_arn, source_arn=template.arn)
            except AccessDenied as error:
                raise InvalidRequest(error.message, subject="role") from None
        self._store.insert(tx, template)
        self._tags.set_new(tx, template.place, template.arn, tags)
        return template

    def find(self, tx: Tx, account: AccountId, template: str) -> JobTemplate:
        """Raises NotFound, subject ``job-template``."""
        found = self._store.find(tx, account, template) if JOB_ID.fullmatch(template) else None
        if found is None:
            raise NotFound(f"There is no job template {template[:64]!r} in this account.", subject="job-template")
        return found

    def by_arn(self, tx: Tx, place: Place, arn: str) -> JobTemplate:
        """Raises NotFound, subject ``job-template``."""
        prefix = place.iot("jobtemplate", "")
        if not arn.startswith(prefix):
            raise NotFound(f"{arn[:200]!r} names no job template of this account.", subject="job-template")
        return self.find(tx, place.account, arn[len(prefix) :])

    def page(self, tx: Tx, account: AccountId, *, after: str | None = None, limit: int) -> Sequence[JobTemplate]:
        """By id."""
        return self._store.page(tx, account, after=after, limit=limit)

    def delete(self, tx: Tx, place: Place, template: str) -> None:
        """Jobs that were made from it stay as they are. Raises NotFound, subject ``job-template``."""
        found = self.find(tx, place.account, template)
        self._store.delete(tx, place.account, found.id)
        self._tags.forget(tx, place, found.arn)
