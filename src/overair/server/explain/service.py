"""Gathers what is known of a thing from the rooms below."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import NotFound
from overair.basics.ids import AccountId, CertificateId, ClientId, GroupName, JobId, StreamId, ThingName
from overair.basics.work import Tx
from overair.server.broker.model import ClientPresence
from overair.server.certificates.service import CertificatesService
from overair.server.devices.decryption import DecryptionService
from overair.server.devices.service import DevicesService, ThingGroupsService
from overair.server.director.service import VehicleFacts
from overair.server.explain.certificates import standing
from overair.server.explain.model import Facts, HeldBack, HeldCertificate
from overair.server.jobs.model import Execution, Job, JobStatus
from overair.server.jobs.rollout import rate_per_minute
from overair.server.jobs.schedule import opens_at
from overair.server.jobs.service import JobsService
from overair.server.jobs.tallies import JobTallies
from overair.server.provisioning.model import Anomaly
from overair.server.provisioning.renewal_model import RenewalRequest
from overair.server.signing.model import Standing
from overair.server.signing.service import SigningService
from overair.server.updates.model import Update, UpdateStatus
from overair.server.updates.service import UpdateQuery, UpdatesService
from overair.wire.job_document import MalformedDocument, parse
from overair.wire.job_messages import ExecutionStatus

CERTIFICATES_MAX: Final = 50
EXECUTIONS_MAX: Final = 100
UPDATES_MAX: Final = 50
JOBS_PER_TARGET_MAX: Final = 10
TARGETS_MAX: Final = 20
HEARD: Final = frozenset(
    {ExecutionStatus.IN_PROGRESS, ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED, ExecutionStatus.REJECTED}
)
"""States that only a device's own report leads to."""


class Presences(Protocol):
    """Whoever knows which clients are connected. Asked on the event loop."""

    def presence_of(self, account: AccountId, client_id: ClientId, certificates: Collection[CertificateId]) -> ClientPresence:
        """Whether a client of that id, or one with one of these certificates, is connected."""
        ...


class Vehicles(Protocol):
    """Whoever knows Uptane devices (``director.views.VehicleViews``)."""

    def facts(self, tx: Tx, account: AccountId, thing: ThingName) -> VehicleFacts | None: ...


class Blocks(Protocol):
    """Whoever keeps devices out (``provisioning.service.ProvisioningService``)."""

    def is_blocked(self, tx: Tx, account: AccountId, thing: ThingName) -> bool: ...


class Identities(Protocol):
    """Whoever knows what was odd about a thing's certificates (``provisioning.service.ProvisioningService``)."""

    def anomalies_of(self, tx: Tx, account: AccountId, thing: ThingName) -> Sequence[Anomaly]: ...

    def renewal_request_of(self, tx: Tx, account: AccountId, thing: ThingName) -> RenewalRequest | None: ...


class ExplainService:
    """Reads, and changes nothing."""

    def __init__(
        self,
        *,
        devices: DevicesService,
        groups: ThingGroupsService,
        certificates: CertificatesService,
        jobs: JobsService,
        tallies: JobTallies,
        updates: UpdatesService,
        signing: SigningService,
        vehicles: Vehicles,
        blocks: Blocks,
        identities: Identities,
        decryption: DecryptionService,
        clock: Clock,
    ) -> None:
        self._devices = devices
        self._groups = groups
        self._certificates = certificates
        self._jobs = jobs
        self._tallies = tallies
        self._updates = updates
        self._signing = signing
        self._vehicles = vehicles
        self._blocks = blocks
        self._identities = identities
        self._decryption = decryption
        self._clock = clock

    def facts(self, tx: Tx, place: Place, thing: ThingName) -> Facts:
        """What the records say.

        Raises:
            NotFound: there is no such thing.
        """
        self._devices.find(tx, place.account, thing)
        executions = self._jobs.executions.of_thing(tx, place.account, thing, limit=EXECUTIONS_MAX)
        pending = self._jobs.executions.pending(tx, place.account, thing)
        known = {execution.job for execution in executions}
        targets = self._targets(tx, place, thing)
        newest = self._updates.page(tx, place.account, UpdateQuery(limit=UPDATES_MAX))
        meant = [update for update in newest if targets.intersection(update.plan.targets)]
        last = None if pending else _latest(executions)
        at = pending[0] if pending else last
        return Facts(
            thing=thing,
            certificates=self._held(tx, place, thing),
            pending=pending,
            last=last,
            cancelled=self._why_cancelled(tx, place, last),
            signatures=[] if at is None else self.signatures(tx, place, at.job),
            rolling_out=self._held_back(tx, place, thing, targets, known, since=last),
            updates=[update for update in meant if update.status is not UpdateStatus.CREATE_COMPLETE],
            unsigned_jobs=_unsigned(meant),
            heard_at=max((execution.last_updated_at for execution in executions if _was_heard(execution)), default=None),
            stream=self._stream(tx, place, pending[0].job) if pending else None,
            vehicle=self._vehicles.facts(tx, place.account, thing),
            blocked=self._blocks.is_blocked(tx, place.account, thing),
            identity=self._identity(tx, place, thing),
            decryption=self._decryption.find(tx, place.account, thing),
        )

    def _identity(self, tx: Tx, place: Place, thing: ThingName) -> list[str]:
        attached = self._devices.principals(tx, place.account, thing, limit=CERTIFICATES_MAX)
        found = [self._certificates.find_anywhere(tx, each.certificate) for each in attached]
        return standing(
            [each for each in found if each is not None],
            self._identities.anomalies_of(tx, place.account, thing),
            self._identities.renewal_request_of(tx, place.account, thing),
        )

    def signatures(self, tx: Tx, place: Place, job: JobId) -> Sequence[Standing]:
        """How those signatures of Signer stand under which a job goes out; empty for jobs that no update made."""
        try:
            update = self._updates.of_job(tx, place.account, job)
        except NotFound:
            return []
        standings = []
        for progress in update.progress:
            if progress.signing_job is not None:
                with suppress(NotFound):
                    standings.append(self._signing.standing(tx, place.account, progress.signing_job))
        return standings

    def _stream(self, tx: Tx, place: Place, job: JobId) -> StreamId | None:
        try:
            name = parse(self._jobs.document(tx, place.account, job)).stream_name
        except MalformedDocument:
            return None  # a job of another kind
        return StreamId(name) if name is not None else None

    def _targets(self, tx: Tx, place: Place, thing: ThingName) -> frozenset[str]:
        groups = self._groups.all_groups_of(tx, place.account, thing)
        return frozenset({place.iot("thing", thing), *(place.iot("thinggroup", group) for group in groups)})

    def _held_back(
        self,
        tx: Tx,
        place: Place,
        thing: ThingName,
        targets: Collection[str],
        known: Collection[JobId],
        *,
        since: Execution | None,
    ) -> list[HeldBack]:
        """Jobs for one of the targets that have no execution on the thing, or come to it again: those under way, and those that
        were cancelled after its last work."""
        found: dict[JobId, HeldBack] = {}
        lines = self._tallies.lines_of(tx, place.account, thing, limit=EXECUTIONS_MAX)
        for target in sorted(targets)[:TARGETS_MAX]:
            for status in (JobStatus.IN_PROGRESS, JobStatus.SCHEDULED, JobStatus.CANCELED):
                for job in self._jobs.page(tx, place.account, status=status, target=target, limit=JOBS_PER_TARGET_MAX):
                    is_old = status is JobStatus.CANCELED and since is not None and job.created_at <= since.queued_at
                    comes = job.id not in known or job.id in lines
                    if comes and job.id not in found and not is_old:
                        held = self._held_back_by(tx, place, job)
                        found[job.id] = replace(
                            held, again=job.id in known, ruled_out_by=self._ruled_out(tx, place, job, thing)
                        )
        return list(found.values())

    def _ruled_out(self, tx: Tx, place: Place, job: Job, thing: ThingName) -> GroupName | None:
        """The group whose rule on signatures keeps a job under way from this thing."""
        if job.status is JobStatus.CANCELED or self._jobs.signing_rule.admitted(tx, job, [thing]):
            return None
        return self._devices.signing_rule_over(tx, place.account, place.iot("thing", thing))

    def _held_back_by(self, tx: Tx, place: Place, job: Job) -> HeldBack:
        if job.status is JobStatus.CANCELED:
            return HeldBack(job=job.id, cancelled=_reason_of(job))
        rollout = job.settings.rollout
        now = self._clock.now()
        opening = None if job.schedule is None else opens_at(job.schedule, now=now)
        return HeldBack(
            job=job.id,
            per_minute=None if rollout is None else rate_per_minute(rollout, job.counts),
            waiting=self._tallies.waiting(tx, place.account, job.id),
            opens_at=None if opening is None or opening <= now else opening,
        )

    def _why_cancelled(self, tx: Tx, place: Place, last: Execution | None) -> str | None:
        """What is known of why the job of a cancelled execution was cancelled, unless it was for this thing alone."""
        if last is None or last.status is not ExecutionStatus.CANCELED:
            return None
        try:
            job = self._jobs.find(tx, place.account, last.job)
        except NotFound:
            return None  # deleted since
        return _reason_of(job) if job.status is JobStatus.CANCELED else None

    def _held(self, tx: Tx, place: Place, thing: ThingName) -> list[HeldCertificate]:
        now = self._clock.now()
        held = []
        for principal in self._devices.principals(tx, place.account, thing, limit=CERTIFICATES_MAX):
            registered = self._certificates.find_anywhere(tx, principal.certificate)
            held.append(
                HeldCertificate(
                    id=principal.certificate,
                    status=registered.status if registered is not None else None,
                    expired=registered is not None and now > registered.not_after,
                    pem=registered.pem if registered is not None else None,
                )
            )
        return held


def _reason_of(job: Job) -> str:
    told = " ".join(filter(None, (job.reason_code, job.comment)))
    return f"{told.rstrip('.')}." if told else "no reason was given."


def _was_heard(execution: Execution) -> bool:
    """Whether the last word on an execution was the device's."""
    return execution.status in HEARD and not execution.refused_by_server


def _latest(executions: Collection[Execution]) -> Execution | None:
    return max(executions, key=lambda execution: (execution.last_updated_at, execution.queued_at), default=None)


def _unsigned(updates: Collection[Update]) -> frozenset[JobId]:
    return frozenset(update.job for update in updates if update.is_unsigned)
