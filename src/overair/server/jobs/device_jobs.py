"""What a device may ask and say of its executions (wire reference §2.3 to §2.8), for both of its doors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import InvalidRequest, InvalidStateTransition, NotFound, TerminalState, VersionConflict
from overair.basics.ids import AccountId, JobId, ThingName
from overair.basics.work import Tx
from overair.server.jobs.documents import DeviceDocuments
from overair.server.jobs.lifecycle import Lifecycle, step_due_at
from overair.server.jobs.model import (
    DEVICE_MAY_REPORT,
    JOB_ID,
    PENDING_LISTED_MAX,
    STARTED,
    THING_NAME,
    Execution,
    Job,
    Report,
)
from overair.server.jobs.ports import ExecutionStore, JobMembers, JobStore
from overair.server.jobs.resets import UPDATED_BY
from overair.server.jobs.views import state
from overair.wire.job_messages import NEXT, ExecutionStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """An execution and, where it was asked for, its document as it leaves for a device."""

    execution: Execution
    document: str | None = None


class DeviceJobs:
    """The device's side of jobs. Which thing a connection may speak for is the policy's business, not ours."""

    def __init__(
        self,
        *,
        jobs: JobStore,
        executions: ExecutionStore,
        members: JobMembers,
        documents: DeviceDocuments,
        lifecycle: Lifecycle,
        clock: Clock,
    ) -> None:
        self._jobs = jobs
        self._executions = executions
        self._members = members
        self._documents = documents
        self._lifecycle = lifecycle
        self._clock = clock

    def pending(self, tx: Tx, place: Place, thing: ThingName) -> Sequence[Execution]:
        """The first ``PENDING_LISTED_MAX`` of a thing's queue outside of namespaces: in progress first, then queued, each by
        queue time.

        Raises:
            NotFound: no such thing. Subject ``thing``.
        """
        self._check_thing(thing)
        queue = self._executions.pending(tx, place.account, thing, limit=PENDING_LISTED_MAX)
        if not queue:
            self._require_thing(tx, place.account, thing)
        return queue

    def next(
        self, tx: Tx, place: Place, thing: ThingName, *, namespace: str | None = None, include_document: bool = True
    ) -> Described | None:
        """What ``$next`` names in a namespace, or outside of all; None for an empty queue. Changes nothing.

        Raises:
            NotFound: no such thing. Subject ``thing``.
        """
        self._check_thing(thing)
        queue = self._executions.pending(tx, place.account, thing, namespace=namespace, limit=1)
        if not queue:
            self._require_thing(tx, place.account, thing)
            return None
        return self._described(tx, place, queue[0], include_document=include_document)

    def require_namespace(self, tx: Tx, place: Place, thing: ThingName, job: JobId, namespace: str) -> None:
        """The thing's execution of a job is in this namespace. Raises NotFound, subject ``execution``."""
        if self._find(tx, place, thing, job, None).namespace != namespace:
            raise NotFound(
                f"Thing {thing[:128]!r} has no execution of job {job[:64]!r} in namespace {namespace[:64]!r}.",
                subject="execution",
            )

    def describe(
        self, tx: Tx, place: Place, thing: ThingName, job: JobId, *, number: int | None = None, include_document: bool = True
    ) -> Described:
        """One execution by name, whatever its namespace.

        Raises:
            NotFound: subject ``execution``.
            TerminalState: it has ended already. Subject ``execution``.
        """
        execution = self._find(tx, place, thing, job, number)
        if not execution.is_pending:
            raise TerminalState(f"Job {job} on {thing} has ended: {execution.status}.", subject="execution")
        return self._described(tx, place, execution, include_document=include_document)

    def start_next(
        self,
        tx: Tx,
        place: Place,
        thing: ThingName,
        *,
        status_details: Mapping[str, str] | None = None,
        step_timeout_minutes: int | None = None,
    ) -> Described | None:
        """Take what ``$next`` names and start it if it is queued; one in progress keeps its details. None: nothing is pending.

        Raises:
            NotFound: no such thing. Subject ``thing``.
            InvalidRequest: it isn't the device's to start. Subject ``fulfilled``.
        """
        now = self._clock.now()
        described = self.next(tx, place, thing)
        if described is None:
            return None
        execution = described.execution
        _refuse_fulfilled(execution)
        if execution.status in STARTED:
            if step_timeout_minutes is not None:
                timed = replace(execution, step_due_at=step_due_at(execution, step_timeout_minutes, now=now))
                self._executions.save(tx, place.account, timed)
                return replace(described, execution=timed)
            return described
        job = self._job(tx, place.account, execution.job)
        started = self._lifecycle.start(
            job, execution, status_details=status_details, step_timeout_minutes=step_timeout_minutes, now=now
        )
        self._lifecycle.move(tx, job, execution, started, now=now)
        return replace(described, execution=started)

    def report(self, tx: Tx, place: Place, thing: ThingName, job: JobId, report: Report) -> Execution | None:
        """Take a device's report (UpdateJobExecution). Durable once the unit is committed.

        Returns the execution as it now stands, or None where one statement settled it and nobody has looked: progress of an
        execution that was in progress already. ``stands`` reads it when the device asked.

        Raises:
            NotFound: subject ``execution``.
            VersionConflict, InvalidStateTransition: subject ``execution``; ``details["execution_state"]`` is where it stands.
            InvalidRequest: it isn't the device's to report on. Subject ``fulfilled``. Or ``$next`` for a job; ``job-id``.
        """
        if names_next(job):
            raise InvalidRequest(
                f"{NEXT} names no job in an update: say which one, as the answer to {NEXT}/get did.", subject="job-id"
            )
        now = self._clock.now()
        details = report.status_details
        progress = report.status in STARTED and report.execution_number is None and report.step_timeout_minutes is None
        if (
            progress
            and details is not None
            and THING_NAME.fullmatch(thing)
            and JOB_ID.fullmatch(job)
            and self._executions.progress(
                tx,
                place.account,
                thing,
                job,
                status_details=details,
                expected_version=report.expected_version,
                now=now,
            )
        ):
            self._look_for_a_reset(tx, place, thing, details)
            return None
        execution = self._find_to_change(tx, place, thing, job, report.execution_number)
        _refuse_fulfilled(execution)
        reported = self._reported(tx, place, execution, report, now=now)
        self._look_for_a_reset(tx, place, thing, details)
        return reported

    def fulfilled_next(self, tx: Tx, account: AccountId, thing: ThingName) -> Execution | None:
        """What ``$next`` names, where it is one that ``ports.Fulfilment`` brings. One indexed read."""
        queue = self._executions.pending(tx, account, thing, limit=1)
        return queue[0] if queue and queue[0].fulfilled else None

    def choose_anew(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """Who serves the thing has changed: its queued executions are chosen for again, each with its road."""
        before: tuple[int, str, int] | None = None
        while True:
            page = self._executions.of_thing(
                tx, account, thing, status=ExecutionStatus.QUEUED, job=None, before=before, limit=PENDING_LISTED_MAX
            )
            for execution in page:
                if not execution.fulfilled:
                    job = self._job(tx, account, execution.job)
                    self._lifecycle.choose_anew(tx, job, execution, now=self._clock.now())
            if len(page) < PENDING_LISTED_MAX:
                return
            before = (page[-1].queued_at, page[-1].job, page[-1].number)

    def start_fulfilled(
        self, tx: Tx, place: Place, execution: Execution, *, status_details: Mapping[str, str] | None = None
    ) -> Execution:
        """The thing was given what the execution is about: it is in progress. One that is already stays as it is."""
        assert execution.fulfilled
        if execution.status in STARTED:
            return execution
        now = self._clock.now()
        report = Report(status=ExecutionStatus.IN_PROGRESS, status_details=status_details)
        return self._reported(tx, place, execution, report, now=now)

    def fulfil(self, tx: Tx, place: Place, thing: ThingName, job: JobId, report: Report) -> Execution:
        """``report``, by whoever fulfils the execution.

        Raises:
            NotFound, VersionConflict, InvalidStateTransition: as ``report``.
        """
        execution = self._find_to_change(tx, place, thing, job, report.execution_number)
        assert execution.fulfilled
        return self._reported(tx, place, execution, report, now=self._clock.now())

    def _reported(self, tx: Tx, place: Place, execution: Execution, report: Report, *, now: Instant) -> Execution:
        thing, job, details = execution.thing, execution.job, report.status_details
        if report.expected_version is not None and report.expected_version != execution.version:
            raise VersionConflict(
                f"Version {report.expected_version} was expected; job {job} on {thing} is at version {execution.version}.",
                subject="execution",
                details={"execution_state": state(execution)},
            )
        if report.status not in DEVICE_MAY_REPORT.get(execution.status, ()):
            raise InvalidStateTransition(
                f"Job {job} on {thing} is {execution.status}; it can't become {report.status}.",
                subject="execution",
                details={"execution_state": state(execution)},
            )
        found = self._job(tx, place.account, job)
        if report.status in STARTED:
            after = self._lifecycle.start(
                found, execution, status_details=details, step_timeout_minutes=report.step_timeout_minutes, now=now
            )
        else:
            after = self._ended(execution, report, now=now)
        self._lifecycle.move(tx, found, execution, after, now=now)
        return after

    def stands(
        self, tx: Tx, place: Place, thing: ThingName, job: JobId, reported: Execution | None, *, include_document: bool
    ) -> Described:
        """The execution that was just reported on, for the parts of the reply that were asked for: ``reported`` as ``report``
        gave it. It is that attempt, never the retry that its failure may have queued."""
        execution = self._find(tx, place, thing, job, None) if reported is None else reported
        return self._described(tx, place, execution, include_document=include_document)

    # ----------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _ended(execution: Execution, report: Report, *, now: Instant) -> Execution:
        # One that ends without ever having been reported in progress started and ended now.
        return replace(
            execution,
            status=report.status,
            status_details=execution.status_details if report.status_details is None else report.status_details,
            version=execution.version + 1,
            started_at=execution.started_at or (now if report.status is not ExecutionStatus.REJECTED else None),
            last_updated_at=now,
        )

    def _described(self, tx: Tx, place: Place, execution: Execution, *, include_document: bool) -> Described:
        if not include_document:
            return Described(execution=execution)
        job = self._job(tx, place.account, execution.job)
        return Described(execution=execution, document=self._documents.for_device(tx, job))

    def _look_for_a_reset(self, tx: Tx, place: Place, thing: ThingName, details: Mapping[str, str] | None) -> None:
        if details is not None and UPDATED_BY in details:
            self._lifecycle.details_reported(tx, place.account, thing, details)

    def _find_to_change(self, tx: Tx, place: Place, thing: ThingName, job: JobId, number: int | None) -> Execution:
        """``_find``, with the job held first: whatever changes an execution takes hold in this order."""
        if JOB_ID.fullmatch(job):
            self._jobs.find(tx, place.account, job)
        return self._find(tx, place, thing, job, number)

    def _find(self, tx: Tx, place: Place, thing: ThingName, job: JobId, number: int | None) -> Execution:
        execution = None
        if THING_NAME.fullmatch(thing) and JOB_ID.fullmatch(job):
            execution = self._executions.find(tx, place.account, thing, job, number)
        if execution is None:
            raise NotFound(f"Thing {thing[:128]!r} has no execution of job {job[:64]!r}.", subject="execution")
        return execution

    def _job(self, tx: Tx, account: AccountId, job: JobId) -> Job:
        found = self._jobs.find(tx, account, job)
        assert found is not None, "an execution never outlives its job"
        return found

    def _require_thing(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        if not self._members.has_thing(tx, account, thing):
            raise NotFound(f"There is no thing {thing!r} in this account.", subject="thing")

    @staticmethod
    def _check_thing(thing: ThingName) -> None:
        if not THING_NAME.fullmatch(thing):
            raise InvalidRequest(
                f"{thing[:128]!r} is no thing name: 1 to 128 of a-z, A-Z, 0-9, ':', '_' and '-'.", subject="thing-name"
            )


def _refuse_fulfilled(execution: Execution) -> None:
    """What comes by the Director is ended by a manifest that the ECUs have signed, never by whoever holds the connection."""
    if execution.fulfilled:
        raise InvalidRequest(
            f"Job {execution.job} comes to {execution.thing} by the Uptane Director: it begins when the Director's targets are "
            "fetched and ends with the signed manifest (PUT /director/manifest).",
            subject="fulfilled",
        )


def names_next(job: str) -> bool:
    """Whether a describe request means the next execution, whichever it is."""
    return job == NEXT
