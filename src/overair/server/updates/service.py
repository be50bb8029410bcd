"""OTA updates: what operators may do with them. What follows from it, step by step, is ``saga.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from overair.basics.arn import Place, parse_arn
from overair.basics.clock import Clock
from overair.basics.errors import AccessDenied, AlreadyExists, InvalidRequest, NotFound
from overair.basics.ids import AccountId, IdSource, JobId, OtaUpdateId, StreamId
from overair.basics.work import News, Tx
from overair.server.access.service import AccessService
from overair.server.aws_protocol.operations import Caller
from overair.server.jobs.model import JOB_DELETABLE_WITHOUT_FORCE, JOB_MAY_BECOME, Job, JobStatus
from overair.server.jobs.service import JobsService
from overair.server.objects.model import ContentId, object_arn
from overair.server.objects.service import ObjectsService
from overair.server.streams.service import StreamsService
from overair.server.updates.job_plan import settings_of_job
from overair.server.updates.model import (
    FULFILMENT_PARAMETER,
    JOB_ID_PREFIX,
    STREAM_ID_PREFIX,
    CustomSigning,
    FileProgress,
    FinishedSigning,
    SigningToStart,
    StoredFile,
    StreamedFile,
    Update,
    UpdateFile,
    UpdatePlan,
    UpdateStatus,
)
from overair.server.updates.offline_signed import why_not_offline_signed
from overair.server.updates.ports import HeldKeys, Tags, Targets, UpdateQuery, UpdatesStore
from overair.server.updates.steps import Step
from overair.wire.job_document import FileEncryption, TransferProtocol

__all__ = ["Found", "Prepared", "Tags", "Targets", "UpdateQuery", "UpdatesService", "UpdatesStore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The bytes of a file that can be looked at before the update is accepted."""

    file_number: int
    content_id: ContentId
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A plan whose sources are pinned as far as they are there, and what of them is to be looked at before it is created: are
    they encrypted, and if not, does a signature that came with its certificate fit?"""

    plan: UpdatePlan
    found: tuple[Found, ...]

    def to_check(self, found: Found) -> CustomSigning | None:
        """The signature that these bytes must fit, where they aren't encrypted."""
        signing = self.plan.files[found.file_number].signing
        return signing if isinstance(signing, CustomSigning) and signing.certificate_pem is not None else None

    def checked(self, encrypted: Mapping[int, FileEncryption]) -> UpdatePlan:
        """The plan, once every signature was found good but for those of encrypted files, by number."""
        files = list(self.plan.files)
        for found in self.found:
            number, signing = found.file_number, self.to_check(found)
            if number in encrypted:
                files[number] = replace(files[number], encryption=encrypted[number])
            elif signing is not None:
                files[number] = replace(files[number], signing=replace(signing, checked=True))
        return replace(self.plan, files=tuple(files))


class UpdatesService:
    """OTA updates of one server.

    ``wake`` is called after the commit of anything that gives the saga something to do.
    """

    def __init__(
        self,
        *,
        store: UpdatesStore,
        clock: Clock,
        ids: IdSource,
        access: AccessService,
        objects: ObjectsService,
        streams: StreamsService,
        jobs: JobsService,
        targets: Targets,
        tags: Tags,
        held_keys: HeldKeys,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._access = access
        self._objects = objects
        self._streams = streams
        self._jobs = jobs
        self._targets = targets
        self._tags = tags
        self._held_keys = held_keys
        self._wake = wake
        tags.accept("otaupdate", self.exists)

    def prepare(self, tx: Tx, caller: Caller, plan: UpdatePlan) -> Prepared:
        """Pin what can be pinned now, and find the bytes that can be looked at.

        What isn't there or may not be read by the role is left alone here: the saga will say so (wire reference §5.2).

        Raises:
            AccessDenied: the caller may not pass the role.
        """
        self._access.require_pass_role(tx, caller, plan.role_arn)
        files, found = [], []
        for number, file in enumerate(plan.files):
            pinned, content = self._pin(tx, caller.place, plan, file)
            files.append(pinned)
            if content is not None:
                found.append(Found(file_number=number, content_id=content[0], size_bytes=content[1]))
        return Prepared(plan=replace(plan, files=tuple(files)), found=tuple(found))

    def create(self, tx: Tx, caller: Caller, plan: UpdatePlan) -> Update:
        """Accept an update, with every id that it will ever use. The saga does the rest.

        Raises:
            AlreadyExists: the update's id, or its job's, is taken.
            AccessDenied: the caller may not pass the role.
            NotFound: a target, a multi-target update, a stream or a file of one isn't there.
            InvalidRequest: a target isn't a thing or group of this place, or takes only images that were signed elsewhere; or a
                setting is out of bounds.
        """
        place = caller.place
        present = self._store.find(tx, place.account, plan.id)
        if present is not None:
            raise AlreadyExists(
                f"There is an OTA update {plan.id} already. Choose another id, or delete that one first.",
                subject="ota update",
                details={"resourceId": plan.id, "resourceArn": present.arn},
            )
        self._access.require_pass_role(tx, caller, plan.role_arn)
        settings_of_job(
            plan.settings,
            description=plan.description,
            role_arn=plan.role_arn,
            presigned=TransferProtocol.HTTP in plan.protocols,
        )
        for target in plan.targets:
            self._require_target(tx, place, target)
        why_not = why_not_offline_signed(tx, place.account, plan, self._held_keys)
        if why_not is not None:
            self._jobs.signing_rule.require(tx, place, plan.targets, why=why_not)
        fulfilment = plan.additional_parameters.get(FULFILMENT_PARAMETER)
        if fulfilment is not None:
            self._jobs.require_fulfilment(tx, place.account, fulfilment)
        own_stream = self._require_stream_files(tx, place, plan)
        now = self._clock.now()
        update = Update(
            account=place.account,
            region=place.region,
            plan=plan,
            status=UpdateStatus.CREATE_PENDING,
            step=Step.ASSUME_ROLE,
            stream=own_stream or StreamId(f"{STREAM_ID_PREFIX}{self._ids.uuid()}"),
            stream_made=False,
            progress=tuple(FileProgress() for _ in plan.files),
            failure=None,
            created_by=caller.principal_arn,
            created_at=now,
            modified_at=now,
        )
        if self._job(tx, update) is not None:
            raise AlreadyExists(
                f"There is a job {update.job} already, which is what this update's job would be called. Choose another "
                "otaUpdateId, or delete that job first.",
                subject="ota update",
                details={"resourceId": update.job, "resourceArn": update.job_arn},
            )
        self._store.add(tx, update)
        self._tags.set_new(tx, place, update.arn, plan.tags)
        tx.after_commit(self._wake)
        tx.tell_nodes(News("wake", ("updates",)))
        return update

    def find(self, tx: Tx, account: AccountId, update_id: OtaUpdateId) -> Update:
        """Raises:
        NotFound: there is none of that id.
        """
        update = self._store.find(tx, account, update_id)
        if update is None:
            raise NotFound(f"There is no OTA update {update_id}.", subject="ota update")
        return update

    def of_job(self, tx: Tx, account: AccountId, job: JobId) -> Update:
        """The update that a job was made for.

        Raises:
            NotFound: no update made it.
        """
        if not job.startswith(JOB_ID_PREFIX):
            raise NotFound(f"Job {job} was made by no OTA update.", subject="ota update")
        return self.find(tx, account, OtaUpdateId(job.removeprefix(JOB_ID_PREFIX)))

    def page(self, tx: Tx, account: AccountId, query: UpdateQuery) -> Sequence[Update]:
        """Newest first."""
        return self._store.page(tx, account, query)

    def unfinished(self, tx: Tx, *, limit: int) -> Sequence[tuple[AccountId, OtaUpdateId]]:
        """The oldest updates of all accounts whose saga isn't through."""
        return self._store.unfinished(tx, limit=limit)

    def failed(self, tx: Tx, account: AccountId, *, limit: int) -> Sequence[Update]:
        """The newest updates that came to nothing."""
        return self._store.failed(tx, account, limit=limit)

    def unsigned(self, tx: Tx, account: AccountId, *, limit: int) -> Sequence[Update]:
        """The newest updates that send at least one file unsigned, for status."""
        return self._store.unsigned(tx, account, limit=limit)

    def exists(self, tx: Tx, account: AccountId, update_id: str) -> bool:
        """For tags: whether ``otaupdate/{update_id}`` is there."""
        return self._store.find(tx, account, OtaUpdateId(update_id)) is not None

    def delete(self, tx: Tx, caller: Caller, update_id: OtaUpdateId, *, delete_stream: bool, force_delete_job: bool) -> None:
        """Delete an update with its job, in one unit. A saga that is still under way ends here.

        The stream that the service made goes with it if asked for; one that the operator made never does, nor do objects and
        signing jobs (wire reference §5.3).

        Raises:
            NotFound: there is no such update.
            InvalidRequest: its job hasn't ended and ``force_delete_job`` isn't set.
            AccessDenied: neither the caller nor the service role may delete the job or the stream.
        """
        update = self.find(tx, caller.account, update_id)
        place = update.place
        job = self._job(tx, update)
        if job is not None and JobStatus.DELETION_IN_PROGRESS in JOB_MAY_BECOME.get(job.status, ()):
            if not force_delete_job and job.status not in JOB_DELETABLE_WITHOUT_FORCE:
                raise InvalidRequest(
                    f"Job {update.job} hasn't ended ({job.status}): devices may still be at it. Cancel it first, or set "
                    "forceDeleteAWSJob.",
                    subject="ota update",
                )
            self._require_one_of_both(tx, caller, update, "iot:DeleteJob", update.job_arn)
            self._jobs.delete(tx, update.account, update.job, force=force_delete_job)
        with_stream = delete_stream and update.stream_made
        if with_stream:
            self._require_one_of_both(tx, caller, update, "iot:DeleteStream", place.iot("stream", update.stream))
        self._forget(tx, update, with_stream=with_stream)

    def forget(self, tx: Tx, update: Update) -> None:
        """Delete an update whose time is over, and the stream that was made for it. Its job is the caller's."""
        self._forget(tx, update, with_stream=update.stream_made)

    def _forget(self, tx: Tx, update: Update, *, with_stream: bool) -> None:
        if with_stream:
            with suppress(NotFound):  # its operator may have deleted it with DeleteStream
                self._streams.delete(tx, update.place, update.stream)
        self._tags.forget(tx, update.place, update.arn)
        self._store.delete(tx, update.account, update.id)

    # What the verbs share

    def _job(self, tx: Tx, update: Update) -> Job | None:
        try:
            return self._jobs.find(tx, update.account, update.job)
        except NotFound:
            return None

    def _require_one_of_both(self, tx: Tx, caller: Caller, update: Update, action: str, resource: str) -> None:
        """What the service made under its role may be taken back by that role, or by an operator who could do so directly."""
        try:
            self._access.require(tx, caller, action, resource)
        except AccessDenied as refused:
            try:
                role = self._access.assume_as_service(tx, update.place, update.plan.role_arn, source_arn=update.arn)
                self._access.require_for_role(tx, role, action, resource)
            except (AccessDenied, InvalidRequest):
                raise refused from None

    def _pin(self, tx: Tx, place: Place, plan: UpdatePlan, file: UpdateFile) -> tuple[UpdateFile, tuple[ContentId, int] | None]:
        """The file with its version named, and its content where it may be read now."""
        try:
            if isinstance(file.location, StreamedFile):
                streamed = self._streams.find(tx, place, file.location.stream).file(file.location.file_id)
                if streamed is None:
                    return file, None
                source = streamed.source
                found = self._objects.find(tx, place, source.bucket, source.key, streamed.version)
                return file, (found.content_id, found.size_bytes)
            if not isinstance(file.location, StoredFile):
                return file, None
            at = file.location
            arn = place.iot("otaupdate", plan.id)
            role = self._access.assume_as_service(tx, place, plan.role_arn, source_arn=arn)
            action = "s3:GetObject" if at.version is None else "s3:GetObjectVersion"
            policy = self._objects.bucket_policy(tx, place, at.bucket)
            self._access.require_for_role(tx, role, action, object_arn(at.bucket, at.key), resource_policy=policy)
            found = self._objects.find(tx, place, at.bucket, at.key, at.version)
        except (NotFound, AccessDenied, InvalidRequest):
            return file, None
        return replace(file, location=replace(at, version=found.version_id)), (found.content_id, found.size_bytes)

    def _require_target(self, tx: Tx, place: Place, target: str) -> None:
        arn = parse_arn(target)
        if arn.service == "iot" and (arn.account != place.account or arn.region != place.region):
            raise NotFound(
                f"There is no {target[:200]} here: this server's place is {place.region}, account {place.account}.",
                subject="target",
            )
        self._targets.require_target(tx, place, target)

    def _require_stream_files(self, tx: Tx, place: Place, plan: UpdatePlan) -> StreamId | None:
        own = None
        for file in plan.files:
            if not isinstance(file.location, StreamedFile):
                continue
            own = file.location.stream
            if self._streams.find(tx, place, own).file(file.location.file_id) is None:
                raise NotFound(f"Stream {own} has no file {file.location.file_id}.", subject="stream")
        return own


def signing_job_of(file: UpdateFile, progress: FileProgress) -> str | None:
    """Signer's job for a file, once known: GetOTAUpdate shows it inside codeSigning (checklist 55)."""
    if isinstance(file.signing, FinishedSigning):
        return file.signing.job
    return progress.signing_job if isinstance(file.signing, SigningToStart) else None
