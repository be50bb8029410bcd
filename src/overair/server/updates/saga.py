"""What each step of ``steps.Step`` does. A step is one unit of work: all of it is committed with its name, or nothing is.

Under the service role, each call that AWS would make is allowed or refused by that role's policies, and a refusal ends the
update as CREATE_FAILED with the action named (wire reference §12.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from overair.basics.clock import Clock
from overair.basics.errors import (
    AccessDenied,
    AlreadyExists,
    Conflict,
    InvalidRequest,
    InvalidStateTransition,
    LimitExceeded,
    NotFound,
    OverairError,
    PreconditionFailed,
    Unsupported,
    VersionConflict,
)
from overair.basics.ids import AccountId, OtaUpdateId
from overair.basics.work import Tx
from overair.server.access.model import IOT_SERVICE
from overair.server.access.service import AccessService, AssumedRole
from overair.server.jobs.service import JobsService
from overair.server.objects.model import ObjectVersion, StoredContent, object_arn
from overair.server.objects.service import ObjectsService
from overair.server.signing.model import (
    CERTIFICATE_NAME_PARAMETER,
    JobStatus,
    ObjectLocation,
    ProfilePlan,
    SigningJob,
    SigningPlan,
)
from overair.server.signing.service import SigningService
from overair.server.streams.model import FileSource, StreamPlan
from overair.server.streams.service import StreamsService
from overair.server.updates.job_plan import job_plan
from overair.server.updates.model import (
    UNFINISHED,
    UNVERSIONED,
    CustomSigning,
    Failure,
    FileProgress,
    FinishedSigning,
    SigningToStart,
    StoredFile,
    StreamedFile,
    Update,
    UpdateFile,
    UpdateStatus,
)
from overair.server.updates.offline_signed import why_not_offline_signed
from overair.server.updates.ports import HeldKeys, UpdatesStore
from overair.server.updates.signature_watch import SignatureWatch
from overair.server.updates.steps import NEXT, Step
from overair.wire.image_signature import SignatureAlgorithm
from overair.wire.job_document import TransferProtocol

FAILURE_CODES: Final[Mapping[type[OverairError], str]] = {
    InvalidRequest: "InvalidRequestException",
    NotFound: "ResourceNotFoundException",
    AccessDenied: "AccessDeniedException",
    AlreadyExists: "ResourceAlreadyExistsException",
    LimitExceeded: "LimitExceededException",
    Conflict: "ConflictException",
    VersionConflict: "VersionConflictException",
    InvalidStateTransition: "InvalidStateTransitionException",
    PreconditionFailed: "InvalidRequestException",
    Unsupported: "InvalidRequestException",
}
"""``errorInfo.code`` for what ends an update. A kind that isn't here (disk full, shutting down) ends nothing: the step is
tried again."""

PASSED_TO: Final = {"iam:PassedToService": IOT_SERVICE}
"""The role passes itself to the stream and the job."""


class Saga:
    """Does one step at a time of one update at a time."""

    def __init__(
        self,
        *,
        store: UpdatesStore,
        clock: Clock,
        access: AccessService,
        objects: ObjectsService,
        signing: SigningService,
        streams: StreamsService,
        jobs: JobsService,
        held_keys: HeldKeys,
        signatures: SignatureWatch,
    ) -> None:
        self._store = store
        self._clock = clock
        self._access = access
        self._objects = objects
        self._signing = signing
        self._streams = streams
        self._jobs = jobs
        self._held_keys = held_keys
        self._signatures = signatures
        self._steps: Final[Mapping[Step, Callable[[Tx, Update], Update | None]]] = {
            Step.ASSUME_ROLE: self._assume_role,
            Step.PUT_PROFILES: self._put_profiles,
            Step.START_SIGNING: self._start_signing,
            Step.AWAIT_SIGNING: self._await_signing,
            Step.DELIVER: self._deliver,
            Step.CREATE_STREAM: self._create_stream,
            Step.CREATE_JOB: self._create_job,
            Step.COMPLETE: self._complete,
        }

    def advance(self, tx: Tx, account: AccountId, update_id: OtaUpdateId) -> Step | None:
        """Do the next step and say which it was; None when there is nothing to do for now.

        Raises:
            OverairError: the step is refused; the unit leaves nothing behind, and ``fail`` records it.
        """
        update = self._store.find(tx, account, update_id)
        if update is None or update.status not in UNFINISHED or not self._store.take(tx, update):
            return None
        step = update.step
        done = self._steps[step](tx, update)
        if done is None:
            return None
        self._store.save(tx, done.at(NEXT.get(step, step), now=self._clock.now()))
        return step

    def fail(self, tx: Tx, account: AccountId, update_id: OtaUpdateId, error: OverairError) -> None:
        """End an update as CREATE_FAILED, and take back the stream that was made for it: no half an update is left."""
        update = self._store.find(tx, account, update_id)
        if update is None or update.status not in UNFINISHED:
            return
        if update.stream_made:
            with suppress(NotFound):  # its operator may have deleted it already
                self._streams.delete(tx, update.place, update.stream)
            update = replace(update, stream_made=False)
        failure = Failure(code=FAILURE_CODES[type(error)], message=error.message)
        self._store.save(tx, update.failed(failure, now=self._clock.now()))

    # The steps, in their order

    def _assume_role(self, tx: Tx, update: Update) -> Update:
        role = self._role(tx, update)
        files = tuple(self._readable(tx, update, role, file) for file in update.plan.files)
        started = update.become(UpdateStatus.CREATE_IN_PROGRESS, now=self._clock.now())
        return replace(started, plan=replace(update.plan, files=files))

    def _put_profiles(self, tx: Tx, update: Update) -> Update:
        role = self._role(tx, update)
        for file in update.plan.files:
            if not isinstance(file.signing, SigningToStart):
                continue
            name, wanted = file.signing.profile, file.signing.wanted
            arn = update.place.signer(f"/signing-profiles/{name}")
            if wanted is None:
                self._access.require_for_role(tx, role, "signer:GetSigningProfile", arn)
                self._signing.profile(tx, update.account, name)
                continue
            self._access.require_for_role(tx, role, "signer:PutSigningProfile", arn)
            path = wanted.certificate_path
            plan = ProfilePlan(
                platform_id=wanted.platform_id,
                certificate_arn=wanted.certificate_arn,
                parameters={CERTIFICATE_NAME_PARAMETER: path} if path else {},
            )
            self._signing.put_profile(tx, update.place, name, plan, tags={})
        return update

    def _start_signing(self, tx: Tx, update: Update) -> Update:
        role = self._role(tx, update)
        progress = list(update.progress)
        for number, file in enumerate(update.plan.files):
            if not isinstance(file.signing, SigningToStart):
                continue
            signing, source = file.signing, file.location
            assert isinstance(source, StoredFile)
            assert source.version is not None, "pinned by the first step"
            arn = update.place.signer(f"/signing-profiles/{signing.profile}")
            self._access.require_for_role(tx, role, "signer:StartSigningJob", arn)
            plan = SigningPlan(
                profile=signing.profile,
                source=ObjectLocation(bucket=source.bucket, key=source.key, version=source.version),
                destination_bucket=signing.bucket,
                destination_prefix=signing.prefix,
                # The stream's id is this update's own and was stored before anything was done with it.
                client_request_token=f"{update.stream}-{number}",
            )
            job = self._signing.start(tx, update.place, plan, requested_by=update.plan.role_arn)
            self._access.require_for_role(tx, role, "s3:PutObject", object_arn(signing.bucket, job.key))
            progress[number] = replace(progress[number], signing_job=job.id)
        return replace(update, progress=tuple(progress))

    def _await_signing(self, tx: Tx, update: Update) -> Update | None:
        role = self._role(tx, update)
        progress = list(update.progress)
        for number, file in enumerate(update.plan.files):
            now = progress[number]
            if isinstance(file.signing, CustomSigning):
                progress[number] = replace(
                    now,
                    signature=file.signing.signature,
                    algorithm=file.signing.algorithm,
                    certificate_path=file.signing.certificate_name,
                )
                continue
            job_id = file.signing.job if isinstance(file.signing, FinishedSigning) else now.signing_job
            if job_id is None:
                continue
            arn = update.place.signer(f"/signing-jobs/{job_id}")
            self._access.require_for_role(tx, role, "signer:DescribeSigningJob", arn)
            job = self._signing.job(tx, update.account, job_id)
            if job.status is JobStatus.IN_PROGRESS:
                return None
            self._signing.require_counted(tx, update.account, job_id)
            progress[number] = _signed(now, job)
        return replace(update, progress=tuple(progress))

    def _deliver(self, tx: Tx, update: Update) -> Update:
        role = self._role(tx, update)
        progress = []
        for file, now in zip(update.plan.files, update.progress, strict=True):
            found = self._raw(tx, update, role, file, now)
            delivered = StoredFile(bucket=found.bucket, key=found.key, version=found.version_id)
            progress.append(replace(now, delivered=delivered, size_bytes=found.size_bytes))
        return replace(update, progress=tuple(progress))

    def _create_stream(self, tx: Tx, update: Update) -> Update:
        plan = update.plan
        if TransferProtocol.MQTT not in plan.protocols or update.names_own_stream:
            return update
        role = self._role(tx, update)
        self._access.require_for_role(tx, role, "iot:CreateStream", update.place.iot("stream", update.stream))
        self._access.require_for_role(tx, role, "iam:PassRole", plan.role_arn, context=PASSED_TO)
        sources = []
        for number, progress in enumerate(update.progress):
            at = progress.delivered
            assert at is not None, "delivered by the step before"
            # Where a bucket keeps no versions, the stream pins the object by its ETag.
            version = None if at.version == UNVERSIONED else at.version
            sources.append(FileSource(file_id=number, bucket=at.bucket, key=at.key, version=version))
        self._streams.create(
            tx,
            update.place,
            StreamPlan(
                id=update.stream,
                files=tuple(sources),
                role_arn=plan.role_arn,
                description=f"Made for OTA update {plan.id}",
            ),
        )
        return replace(update, stream_made=True)

    def _create_job(self, tx: Tx, update: Update) -> Update:
        role = self._role(tx, update)
        self._access.require_for_role(tx, role, "iot:CreateJob", update.job_arn)
        if TransferProtocol.HTTP in update.plan.protocols:
            self._access.require_for_role(tx, role, "iam:PassRole", update.plan.role_arn, context=PASSED_TO)
        for progress in update.progress:
            if progress.signing_job is not None:
                self._signing.require_counted(tx, update.account, progress.signing_job)
        why_not = why_not_offline_signed(tx, update.account, update.plan, self._held_keys)
        self._jobs.create(tx, update.place, job_plan(update, offline_signed=why_not is None))
        return update

    def _complete(self, tx: Tx, update: Update) -> Update:
        self._signatures.note(tx, update)
        return update.become(UpdateStatus.CREATE_COMPLETE, now=self._clock.now())

    # What the steps share

    def _role(self, tx: Tx, update: Update) -> AssumedRole:
        return self._access.assume_as_service(tx, update.place, update.plan.role_arn, source_arn=update.arn)

    def _read(self, tx: Tx, update: Update, role: AssumedRole, at: StoredFile) -> ObjectVersion:
        """The object, if the role or its bucket's policy lets the service read it and nothing denies it."""
        policy = self._objects.bucket_policy(tx, update.place, at.bucket)
        action = "s3:GetObject" if at.version is None else "s3:GetObjectVersion"
        self._access.require_for_role(tx, role, action, object_arn(at.bucket, at.key), resource_policy=policy)
        return self._objects.find(tx, update.place, at.bucket, at.key, at.version)

    def _readable(self, tx: Tx, update: Update, role: AssumedRole, file: UpdateFile) -> UpdateFile:
        """The file with its source pinned, once the role has been found fit to read it."""
        signing = file.signing if isinstance(file.signing, CustomSigning) and file.encryption is None else None
        if signing is not None and signing.certificate_pem is not None and not signing.checked:
            raise InvalidRequest(
                f"The signature of {file.name!r} could not be checked with its certificate when the update was created, since "
                "the file wasn't there or the role couldn't read it. Create the update again.",
                subject="customCodeSigning",
            )
        if not isinstance(file.location, StoredFile):
            return file
        found = self._read(tx, update, role, file.location)
        if isinstance(file.signing, SigningToStart) and found.version_id == UNVERSIONED:
            raise InvalidRequest(
                f"Bucket {found.bucket} keeps no versions, and signing needs one. Enable versioning, upload the image again "
                "and create the update again.",
                subject="files",
            )
        return replace(file, location=replace(file.location, version=found.version_id))

    def _raw(self, tx: Tx, update: Update, role: AssumedRole, file: UpdateFile, progress: FileProgress) -> ObjectVersion:
        """The object version that devices get: the image's own bytes, never the signed JSON."""
        if isinstance(file.location, StreamedFile):
            return self._streamed(tx, update, file, file.location)
        if isinstance(file.signing, SigningToStart | FinishedSigning):
            job_id = file.signing.job if isinstance(file.signing, FinishedSigning) else progress.signing_job
            assert job_id is not None
            job = self._signing.job(tx, update.account, job_id)
            if isinstance(file.signing, FinishedSigning) and file.location is not None:
                found = self._read(tx, update, role, file.location)
                self._require_signed_bytes(tx, update, job, found, file)
                return found
            return self._overwritten(tx, update, role, job)
        assert file.location is not None
        return self._read(tx, update, role, file.location)

    def _overwritten(self, tx: Tx, update: Update, role: AssumedRole, job: SigningJob) -> ObjectVersion:
        """Put the raw image over the signed object as its newer version; an update before may have done it already."""
        assert job.plan is not None
        assert job.signed is not None
        at = job.plan.source
        source = self._read(tx, update, role, StoredFile(bucket=at.bucket, key=at.key, version=at.version))
        bucket, key = job.signed.location.bucket, job.signed.location.key
        newest = self._objects.find(tx, update.place, bucket, key, None)
        if newest.content_id == source.content_id:
            return newest
        self._access.require_for_role(tx, role, "s3:PutObject", object_arn(bucket, key))
        content = StoredContent(content_id=source.content_id, size_bytes=source.size_bytes, md5_hex=source.etag)
        written = self._objects.put(tx, update.place, bucket, key, content, etag=source.etag)
        if written.version_id == UNVERSIONED:
            raise InvalidRequest(
                f"Bucket {bucket} keeps no versions, so that the raw image would replace the signed one. Enable versioning "
                "there and create the update again.",
                subject="files",
            )
        return written

    def _streamed(self, tx: Tx, update: Update, file: UpdateFile, at: StreamedFile) -> ObjectVersion:
        stream = self._streams.find(tx, update.place, at.stream)
        streamed = stream.file(at.file_id)
        if streamed is None:
            raise NotFound(f"Stream {at.stream} has no file {at.file_id}.", subject="stream")
        source = streamed.source
        found = self._objects.find(tx, update.place, source.bucket, source.key, streamed.version)
        if found.etag != streamed.etag:
            raise InvalidRequest(
                f"File {at.file_id} of stream {at.stream} has changed since the stream was made. Update the stream.",
                subject="files",
            )
        if isinstance(file.signing, FinishedSigning):
            job = self._signing.job(tx, update.account, file.signing.job)
            self._require_signed_bytes(tx, update, job, found, file)
        return found

    def _require_signed_bytes(self, tx: Tx, update: Update, job: SigningJob, found: ObjectVersion, file: UpdateFile) -> None:
        """A device verifies the bytes that it gets: they must be those that the job signed, not the signed object."""
        assert job.plan is not None
        at = job.plan.source
        source = self._objects.find(tx, update.place, at.bucket, at.key, at.version)
        if (source.content_id, source.size_bytes) != (found.content_id, found.size_bytes):
            raise InvalidRequest(
                f"File {file.name!r} isn't what signing job {job.id} signed: devices would refuse it. Deliver "
                f"s3://{at.bucket}/{at.key} version {at.version}, or leave fileLocation out.",
                subject="files",
            )


def _signed(progress: FileProgress, job: SigningJob) -> FileProgress:
    """What a finished signing job says of a file.

    Raises:
        InvalidRequest: it failed, or signed no image.
    """
    if job.status is JobStatus.FAILED:
        raise InvalidRequest(f"Signing job {job.id} failed: {job.status_reason}", subject="files")
    if job.signed is None:
        raise InvalidRequest(f"Signing job {job.id} signed a payload, no image.", subject="files")
    return replace(
        progress,
        signing_job=job.id,
        signature=job.signed.signature_bytes,
        algorithm=SignatureAlgorithm(job.signed.algorithm.document_key),
        certificate_path=job.parameters.get(CERTIFICATE_NAME_PARAMETER, ""),
    )
