"""An update, its files, and where each stands. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.errors import InvalidStateTransition
from overair.basics.ids import (
    AccountId,
    BucketName,
    JobId,
    ObjectKey,
    OtaUpdateId,
    SigningJobId,
    SigningProfileName,
    StreamId,
    VersionId,
)
from overair.server.updates.steps import Step
from overair.wire.image_signature import SignatureAlgorithm
from overair.wire.job_document import JOB_ID_LENGTH_MAX, FileEncryption, TransferProtocol

JOB_ID_PREFIX: Final = "AFR_OTA-"
STREAM_ID_PREFIX: Final = "AFR_OTA-"
"""With a UUID behind it the 44 characters that agents have room for (wire reference §4.8)."""
UPDATE_ID_LENGTH_MAX: Final = JOB_ID_LENGTH_MAX - len(JOB_ID_PREFIX)
"""56. The model allows 128, but the job's id would then pass the 64 that a job and the agents' buffers hold."""
PRESIGN_EXPIRY_S_DEFAULT: Final = 1800
"""Of CreateOTAUpdate; CreateJob's own default is 3600 (wire reference §5.2)."""
SIGNED_PREFIX_DEFAULT: Final = "SignedImages/"
UNVERSIONED: Final = VersionId("null")
FULFILMENT_PARAMETER: Final = "uptaneMultiTargetUpdate"
"""In ``additionalParameters``: the multi-target update that things with ECUs get in place of the files."""


class UpdateStatus(StrEnum):
    CREATE_PENDING = "CREATE_PENDING"
    CREATE_IN_PROGRESS = "CREATE_IN_PROGRESS"
    CREATE_COMPLETE = "CREATE_COMPLETE"
    CREATE_FAILED = "CREATE_FAILED"
    DELETE_IN_PROGRESS = "DELETE_IN_PROGRESS"
    DELETE_FAILED = "DELETE_FAILED"


MAY_BECOME: Final[Mapping[UpdateStatus, frozenset[UpdateStatus]]] = {
    UpdateStatus.CREATE_PENDING: frozenset({UpdateStatus.CREATE_IN_PROGRESS, UpdateStatus.CREATE_FAILED}),
    UpdateStatus.CREATE_IN_PROGRESS: frozenset({UpdateStatus.CREATE_COMPLETE, UpdateStatus.CREATE_FAILED}),
    UpdateStatus.CREATE_COMPLETE: frozenset(),
    UpdateStatus.CREATE_FAILED: frozenset(),
    # Deleting is one transaction here, so that these two are never seen; AWS has them.
    UpdateStatus.DELETE_IN_PROGRESS: frozenset(),
    UpdateStatus.DELETE_FAILED: frozenset(),
}

UNFINISHED: Final = frozenset({UpdateStatus.CREATE_PENDING, UpdateStatus.CREATE_IN_PROGRESS})
"""What the saga still has to do something for."""


class TargetSelection(StrEnum):
    SNAPSHOT = "SNAPSHOT"
    CONTINUOUS = "CONTINUOUS"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedFile:
    """A file of a stream that the operator made."""

    stream: StreamId
    file_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """An object in a bucket. ``version`` None means the newest; creation pins it where it can."""

    bucket: BucketName
    key: ObjectKey
    version: VersionId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedSigning:
    """Signed before, by a job of Signer."""

    job: SigningJobId


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileWanted:
    """``signingProfileParameter``: the profile to make, or to bring up to this."""

    certificate_arn: str
    platform_id: str
    certificate_path: str
    """On the device; the job document's ``certfile``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningToStart:
    """``startSigningJobParameter``."""

    profile: SigningProfileName
    wanted: ProfileWanted | None
    """None: the profile must be there."""
    bucket: BucketName
    prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomSigning:
    """``customCodeSigning``: signed elsewhere, by a key that this server never saw."""

    signature: bytes
    """The signature itself: DER for ECDSA, PKCS#1 v1.5 for RSA, freed of every Base64 that clients put around it."""
    as_given: bytes
    """What the wire carried, for GetOTAUpdate."""
    algorithm: SignatureAlgorithm
    certificate_name: str
    certificate_pem: str | None
    """Given inline, the signature is checked with it."""
    checked: bool = False
    """It was, against the very bytes that devices will get."""


Location = StreamedFile | StoredFile
Signing = FinishedSigning | SigningToStart | CustomSigning


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateFile:
    """One file as the operator asked for it. One of ``location`` and a ``FinishedSigning`` is always there."""

    name: str
    """Path on the device."""
    file_type: int | None
    file_version: str | None
    location: Location | None
    signing: Signing | None
    """None: unsigned."""
    attributes: Mapping[str, str]
    encryption: FileEncryption | None = None
    """It was found to be encrypted when the update was created, and to whom. What it holds nobody here knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileProgress:
    """What the saga has found and made for one file so far."""

    signing_job: SigningJobId | None = None
    delivered: StoredFile | None = None
    """The raw bytes that devices get: a pinned version."""
    size_bytes: int | None = None
    signature: bytes | None = None
    algorithm: SignatureAlgorithm | None = None
    certificate_path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """What an update hands on to its job, in CreateJob's own members and already checked by the model."""

    rollout: Mapping[str, object] | None = None
    abort: Mapping[str, object] | None = None
    timeout: Mapping[str, object] | None = None
    presign_expiry_s: int = PRESIGN_EXPIRY_S_DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatePlan:
    """CreateOTAUpdate's input, understood."""

    id: OtaUpdateId
    description: str | None
    targets: tuple[str, ...]
    protocols: tuple[TransferProtocol, ...]
    selection: TargetSelection
    settings: JobSettings
    files: tuple[UpdateFile, ...]
    role_arn: str
    additional_parameters: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """``errorInfo``."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """An update as it stands."""

    account: AccountId
    region: str
    plan: UpdatePlan
    status: UpdateStatus
    step: Step
    """The next one to do."""
    stream: StreamId
    """Of the stream that the service makes, chosen before it is made; of the operator's own stream where one is named."""
    stream_made: bool
    """By the service, and not deleted since."""
    progress: tuple[FileProgress, ...]
    """One for each file of the plan."""
    failure: Failure | None
    created_by: str
    created_at: Instant
    modified_at: Instant

    @property
    def id(self) -> OtaUpdateId:
        return self.plan.id

    @property
    def place(self) -> Place:
        return Place(self.region, self.account)

    @property
    def arn(self) -> str:
        return self.place.iot("otaupdate", self.plan.id)

    @property
    def job(self) -> JobId:
        """Known from the first moment (wire reference §5.2)."""
        return job_id_of(self.plan.id)

    @property
    def job_arn(self) -> str:
        return self.place.iot("job", self.job)

    @property
    def is_unsigned(self) -> bool:
        """At least one file goes out without a signature."""
        return any(file.signing is None for file in self.plan.files)

    @property
    def is_encrypted(self) -> bool:
        """At least one file goes out encrypted."""
        return any(file.encryption is not None for file in self.plan.files)

    @property
    def names_own_stream(self) -> bool:
        """The operator made the stream, and keeps it."""
        return any(isinstance(file.location, StreamedFile) for file in self.plan.files)

    def at(self, step: Step, *, now: Instant, progress: Sequence[FileProgress] | None = None) -> Update:
        """The same update with ``step`` as the next one to do."""
        return replace(self, step=step, modified_at=now, progress=tuple(progress) if progress is not None else self.progress)

    def become(self, status: UpdateStatus, *, now: Instant) -> Update:
        """Raises:
        InvalidStateTransition: the table above doesn't allow it.
        """
        if status not in MAY_BECOME[self.status]:
            raise InvalidStateTransition(f"OTA update {self.id} is {self.status} and can't become {status}.", subject="update")
        return replace(self, status=status, modified_at=now)

    def failed(self, failure: Failure, *, now: Instant) -> Update:
        """No job will come of it."""
        return replace(self.become(UpdateStatus.CREATE_FAILED, now=now), failure=failure, step=Step.COMPLETE)


def job_id_of(update: OtaUpdateId) -> JobId:
    """``AFR_OTA-{otaUpdateId}``."""
    return JobId(f"{JOB_ID_PREFIX}{update}")
