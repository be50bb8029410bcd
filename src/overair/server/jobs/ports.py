"""What jobs ask of their records and of the rooms below."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.ids import AccountId, BucketName, GroupName, JobId, ObjectKey, ThingName, VersionId
from overair.basics.work import Tx
from overair.server.jobs.model import (
    AlikeQueue,
    EventConfiguration,
    EventKind,
    Execution,
    Given,
    Job,
    JobStatus,
    JobTarget,
    JobTemplate,
    TargetSelection,
    Waiting,
)
from overair.server.packages.model import PackageVersion
from overair.wire.job_document import FileEncryption
from overair.wire.job_messages import ExecutionStatus


class JobStore(Protocol):
    """Rows of jobs, their targets, and the things that wait (``store.SqlJobStore``)."""

    def next_sequence(self, tx: Tx, account: AccountId) -> int: ...
    def insert(self, tx: Tx, job: Job, document: str, targets: Sequence[JobTarget], *, given: Given | None = None) -> None: ...
    def find(self, tx: Tx, account: AccountId, job: JobId) -> Job | None: ...
    def document(self, tx: Tx, account: AccountId, job: JobId) -> str | None: ...
    def given(self, tx: Tx, account: AccountId, job: JobId) -> Given | None: ...
    def save(self, tx: Tx, job: Job) -> None: ...
    def count(self, tx: Tx, account: AccountId, job: JobId, changes: Mapping[ExecutionStatus, int]) -> None: ...
    def delete(self, tx: Tx, account: AccountId, job: JobId) -> None: ...
    def page(
        self,
        tx: Tx,
        account: AccountId,
        *,
        status: JobStatus | None,
        target_selection: TargetSelection | None,
        target: str | None,
        namespace: str | None = None,
        before: int | None,
        limit: int,
    ) -> Sequence[Job]: ...
    def ended_before(self, tx: Tx, moment: Instant, *, limit: int) -> Sequence[Job]: ...
    def count_with_status(self, tx: Tx, account: AccountId, status: JobStatus) -> int: ...
    def unsettled(self, tx: Tx, *, now: Instant) -> Job | None: ...
    def continuous_for(self, tx: Tx, account: AccountId, group_name: str) -> Sequence[Job]: ...
    def targets(self, tx: Tx, account: AccountId, job: JobId) -> Sequence[JobTarget]: ...
    def add_targets(self, tx: Tx, account: AccountId, job: JobId, targets: Sequence[JobTarget]) -> None: ...
    def unplanned(self, tx: Tx, account: AccountId, job: JobId, *, limit: int) -> Sequence[JobTarget]: ...
    def has_target(self, tx: Tx, account: AccountId, job: JobId, arns: Sequence[str]) -> bool: ...
    def set_planned(self, tx: Tx, account: AccountId, job: JobId, positions: Sequence[int] | None = None) -> None: ...
    def save_target(self, tx: Tx, account: AccountId, job: JobId, target: JobTarget) -> None: ...
    def add_waiting(
        self,
        tx: Tx,
        account: AccountId,
        job: JobId,
        things: Sequence[ThingName],
        *,
        ended: ExecutionStatus | None = None,
    ) -> None: ...
    def waiting(self, tx: Tx, account: AccountId, job: JobId, *, limit: int) -> Sequence[Waiting]: ...
    def waiting_to_retry(self, tx: Tx, account: AccountId, job: JobId) -> Mapping[ExecutionStatus, int]: ...
    def drop_retry(self, tx: Tx, account: AccountId, job: JobId, thing: ThingName) -> None: ...
    def drop_waiting(
        self, tx: Tx, account: AccountId, *, job: JobId | None = None, things: Sequence[ThingName] | None = None
    ) -> None: ...


class ExecutionStore(Protocol):
    """Rows of executions (``execution_store.SqlExecutionStore``)."""

    def progress(
        self,
        tx: Tx,
        account: AccountId,
        thing: ThingName,
        job: JobId,
        *,
        status_details: Mapping[str, str],
        expected_version: int | None,
        now: Instant,
    ) -> bool: ...
    def find(self, tx: Tx, account: AccountId, thing: ThingName, job: JobId, number: int | None = None) -> Execution | None: ...
    def pending(
        self, tx: Tx, account: AccountId, thing: ThingName, *, namespace: str | None = None, limit: int
    ) -> Sequence[Execution]: ...
    def pending_of(
        self, tx: Tx, account: AccountId, things: Sequence[ThingName], *, namespace: str | None = None
    ) -> Mapping[ThingName, Sequence[Execution]]: ...
    def pending_anywhere(self, tx: Tx, account: AccountId, thing: ThingName, *, limit: int) -> Sequence[Execution]: ...
    def queues_of(
        self, tx: Tx, account: AccountId, things: Sequence[ThingName], *, namespace: str | None = None
    ) -> Sequence[AlikeQueue]: ...
    def insert(self, tx: Tx, account: AccountId, executions: Sequence[Execution]) -> None: ...
    def insert_alike(self, tx: Tx, account: AccountId, alike: Execution, things: Sequence[ThingName]) -> None: ...
    def save(self, tx: Tx, account: AccountId, execution: Execution) -> None: ...
    def delete(self, tx: Tx, account: AccountId, execution: Execution) -> None: ...
    def attempts(
        self, tx: Tx, account: AccountId, thing: ThingName, job: JobId, *, since: int
    ) -> Mapping[ExecutionStatus, int]: ...
    def last_number(self, tx: Tx, account: AccountId, thing: ThingName, job: JobId) -> int: ...
    def latest_of(
        self, tx: Tx, account: AccountId, job: JobId, things: Sequence[ThingName]
    ) -> Mapping[ThingName, Execution]: ...
    def outlive(self, tx: Tx, account: AccountId, thing: ThingName) -> int: ...
    def of_job(
        self,
        tx: Tx,
        account: AccountId,
        job: JobId,
        *,
        status: ExecutionStatus | None,
        after: tuple[str, int] | None,
        limit: int,
    ) -> Sequence[Execution]: ...
    def of_thing(
        self,
        tx: Tx,
        account: AccountId,
        thing: ThingName,
        *,
        status: ExecutionStatus | None,
        job: JobId | None,
        namespace: str | None = None,
        before: tuple[int, str, int] | None,
        limit: int,
    ) -> Sequence[Execution]: ...
    def overdue(self, tx: Tx, *, now: Instant, limit: int) -> Sequence[tuple[AccountId, Execution]]: ...


class TemplateStore(Protocol):
    """Rows of job templates (``template_store.SqlTemplateStore``)."""

    def insert(self, tx: Tx, template: JobTemplate) -> None: ...
    def find(self, tx: Tx, account: AccountId, template: str) -> JobTemplate | None: ...
    def page(self, tx: Tx, account: AccountId, *, after: str | None, limit: int) -> Sequence[JobTemplate]: ...
    def delete(self, tx: Tx, account: AccountId, template: str) -> bool: ...


class StatusesChanged(Protocol):
    """Who must know, in the same transaction, in which state a job's latest executions on things are. Implemented below, by the
    fleet index. Not told of progress."""

    def statuses_changed(
        self, tx: Tx, account: AccountId, job: JobId, things: Sequence[ThingName], status: ExecutionStatus | None
    ) -> None:
        """``status`` is None where nothing is left of the job on these things."""
        ...


class EventConfigurations(Protocol):
    """Rows of event configurations (``event_store.SqlEventConfigurations``)."""

    def all(self, tx: Tx, account: AccountId) -> dict[EventKind, EventConfiguration]: ...
    def set(self, tx: Tx, account: AccountId, kind: EventKind, *, enabled: bool, now: Instant) -> None: ...


class JobMembers(Protocol):
    """What jobs ask of the registry (``devices.service.DevicesService``)."""

    def require_target(self, tx: Tx, place: Place, target_arn: str) -> None:
        """Raises InvalidRequest (subject ``target``) or NotFound."""
        ...

    def members(
        self, tx: Tx, account: AccountId, target_arn: str, *, after: ThingName | None, limit: int
    ) -> Sequence[ThingName]:
        """Things that a target ARN names, by name: the thing itself, or a group's things and those of the groups in it.

        Raises NotFound for a target that is gone."""
        ...

    def has_thing(self, tx: Tx, account: AccountId, thing: ThingName) -> bool: ...

    def signing_rule_over(self, tx: Tx, account: AccountId, target_arn: str) -> GroupName | None:
        """A group with a rule that some thing of this target is, or would be, under."""
        ...

    def under_signing_rule(self, tx: Tx, account: AccountId, things: Sequence[ThingName]) -> frozenset[ThingName]:
        """Those of some things, at most 1,000, that a group's rule covers."""
        ...

    def things_among(self, tx: Tx, account: AccountId, names: Sequence[ThingName]) -> frozenset[ThingName]:
        """Those of some names, at most 1,000, that are things."""
        ...


class Decryption(Protocol):
    """Whoever knows what devices can decrypt (``devices.decryption.DecryptionService``)."""

    def unable(
        self, tx: Tx, account: AccountId, things: Sequence[ThingName], encryptions: Sequence[FileEncryption]
    ) -> Mapping[ThingName, str]:
        """Those of some things, at most 1,000, that can't read one of these files, and why, as a clause."""
        ...


class ThingsGroups(Protocol):
    """Which groups a thing is in (``devices.service.ThingGroupsService``)."""

    def all_groups_of(self, tx: Tx, account: AccountId, thing: ThingName) -> frozenset[GroupName]:
        """Those that it was put into and all above them."""
        ...

    def name_of(self, tx: Tx, account: AccountId, name_or_id: str) -> GroupName:
        """Of the group with this UUID. Raises NotFound."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Who of some things gets an execution of a job, and by which road. Whoever is in neither is left out."""

    by_document: Sequence[ThingName]
    fulfilled: Sequence[ThingName] = ()


class Fulfilment(Protocol):
    """Whoever brings jobs to things that a document doesn't reach: Uptane's Director. Implemented above, in ``director``.

    What becomes of a fulfilled execution comes back through ``DeviceJobs.start_fulfilled`` and ``DeviceJobs.fulfil``, so that
    versions, timers, notices, rates, abort rules and retries are the same as everybody's.
    """

    def require(self, tx: Tx, account: AccountId, fulfilment: str) -> None:
        """What a job wants fulfilled is there. Raises NotFound."""
        ...

    def may_queue(self, tx: Tx, job: Job, things: Sequence[ThingName]) -> Chosen:
        """Asked once for each planned piece of a job. The reasons of those left out are the implementer's to keep."""
        ...

    def queued(self, tx: Tx, job: Job, things: Sequence[ThingName]) -> None:
        """These things have a fulfilled execution now."""
        ...

    def ended(self, tx: Tx, job: Job, execution: Execution) -> None:
        """A pending fulfilled execution has ended, or is gone, whoever ended it; ``started_at`` tells whether it had begun."""
        ...

    def forget(self, tx: Tx, account: AccountId, job: JobId) -> None:
        """The job is deleted."""
        ...


class SoftwareCatalogue(Protocol):
    """Which package versions there are (``packages.service.PackagesService``)."""

    def deployable(self, tx: Tx, account: AccountId, package: str, version: str) -> PackageVersion:
        """The version that a job may bring. Raises NotFound, InvalidRequest."""
        ...


class InstalledPackages(Protocol):
    """Who writes down what jobs have put on things (``packages.installed.InstalledPackages``)."""

    def succeeded(
        self, tx: Tx, account: AccountId, thing: ThingName, job: JobId, versions: Sequence[tuple[str, str]], *, now: Instant
    ) -> None: ...


class Tags(Protocol):
    """Where tags are kept (``devices.service.TagsService``)."""

    def accept(self, kind: str, exists: Callable[[Tx, AccountId, str], bool]) -> None: ...
    def set_new(self, tx: Tx, place: Place, arn: str, tags: Mapping[str, str] | None) -> None: ...
    def forget(self, tx: Tx, place: Place, arn: str) -> None: ...


class ServiceRoles(Protocol):
    """What jobs ask of roles (``access.service.AccessService``)."""

    def assume_as_service(self, tx: Tx, place: Place, role_arn: str, *, source_arn: str) -> Any: ...


class Presigner(Protocol):
    """Makes the URL that stands for a placeholder (wire reference §3.9)."""

    def presigned_url(
        self,
        tx: Tx,
        place: Place,
        role_arn: str,
        *,
        bucket: BucketName,
        key: ObjectKey,
        version: VersionId | None,
        expires_s: int,
        source_arn: str,
    ) -> str:
        """A GET URL signed with SigV4 in its query, as the role; good for ``expires_s`` from now. Raises an OverairError where
        the role can't be assumed by the service."""
        ...
