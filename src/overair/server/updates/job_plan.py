"""From an update to the job that delivers it: settings and document. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from overair.basics.errors import InvalidRequest
from overair.server.jobs.model import (
    AbortCriterion,
    ExponentialRate,
    FailureType,
    JobPlan,
    PresignConfig,
    RolloutConfig,
    TargetSelection,
)
from overair.server.jobs.model import JobSettings as SettingsOfJob
from overair.server.updates.model import (
    FULFILMENT_PARAMETER,
    FileProgress,
    JobSettings,
    StoredFile,
    StreamedFile,
    Update,
    UpdateFile,
)
from overair.wire.job_document import (
    FILE_SIZE_BYTES_MAX,
    PRESIGNED_AUTH_SCHEME,
    DocumentFile,
    FileSignature,
    HashAlgorithm,
    MalformedDocument,
    OtaDocument,
    SignatureAlgorithm,
    TransferProtocol,
    build,
)

RATE_PER_MINUTE_MAX: Final = 1000
FACTOR_MIN: Final = 1.1
FACTOR_MAX: Final = 5.0
TIMEOUT_MINUTES_MAX: Final = 10_080


def settings_of_job(settings: JobSettings, *, description: str | None, role_arn: str, presigned: bool) -> SettingsOfJob:
    """CreateJob's settings out of CreateOTAUpdate's (wire reference §3.4, §3.5, §5.2).

    Raises:
        InvalidRequest: a number out of its bounds, or both or none of two criteria.
    """
    return SettingsOfJob(
        description=description or "",
        presign=PresignConfig(role_arn=role_arn, expires_s=settings.presign_expiry_s) if presigned else None,
        rollout=_rollout(settings.rollout),
        abort=_abort(settings.abort),
        in_progress_timeout_minutes=_timeout(settings.timeout),
    )


def _rollout(members: Mapping[str, Any] | None) -> RolloutConfig | None:
    if not members:
        return None
    growth = members.get("exponentialRate")
    maximum = members.get("maximumPerMinute")
    if maximum is not None and not 1 <= maximum <= RATE_PER_MINUTE_MAX:
        raise _refused(f"maximumPerMinute is 1 to {RATE_PER_MINUTE_MAX}.")
    if growth is None:
        return RolloutConfig(maximum_per_minute=maximum)
    criteria = growth["rateIncreaseCriteria"]
    notified, succeeded = criteria.get("numberOfNotifiedThings"), criteria.get("numberOfSucceededThings")
    if (notified is None) == (succeeded is None):
        raise _refused("rateIncreaseCriteria names exactly one of numberOfNotifiedThings and numberOfSucceededThings.")
    factor = growth["incrementFactor"]
    if not FACTOR_MIN <= factor <= FACTOR_MAX:
        raise _refused(f"incrementFactor is {FACTOR_MIN} to {FACTOR_MAX:g}.")
    if not 1 <= growth["baseRatePerMinute"] <= RATE_PER_MINUTE_MAX or min(notified or 1, succeeded or 1) < 1:
        raise _refused(f"baseRatePerMinute is 1 to {RATE_PER_MINUTE_MAX}; a criterion is at least 1.")
    exponential = ExponentialRate(
        base_per_minute=growth["baseRatePerMinute"],
        factor=factor,
        notified_criterion=notified,
        succeeded_criterion=succeeded,
    )
    return RolloutConfig(maximum_per_minute=maximum, exponential=exponential)


def _abort(members: Mapping[str, Any] | None) -> tuple[AbortCriterion, ...]:
    criteria: Sequence[Mapping[str, Any]] = members["criteriaList"] if members else ()
    for criterion in criteria:
        if not 0 < criterion["thresholdPercentage"] <= 100:
            raise _refused("thresholdPercentage is above 0 and at most 100.")
    return tuple(
        AbortCriterion(
            failure_type=FailureType(criterion["failureType"]),
            threshold_percentage=criterion["thresholdPercentage"],
            things_executed_min=criterion["minNumberOfExecutedThings"],
        )
        for criterion in criteria
    )


def _timeout(members: Mapping[str, Any] | None) -> int | None:
    minutes: int | None = members.get("inProgressTimeoutInMinutes") if members else None
    if minutes is not None and not 1 <= minutes <= TIMEOUT_MINUTES_MAX:
        raise _refused(f"inProgressTimeoutInMinutes is 1 to {TIMEOUT_MINUTES_MAX}.")
    return minutes


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(message, subject="job settings")


def job_plan(update: Update, *, offline_signed: bool = False) -> JobPlan:
    """The job of an update whose files all stand where devices get them.

    Raises:
        InvalidRequest: a file is empty or larger than agents count, or the document can't be built.
    """
    plan = update.plan
    settings = settings_of_job(
        plan.settings,
        description=plan.description,
        role_arn=plan.role_arn,
        presigned=TransferProtocol.HTTP in plan.protocols,
    )
    return JobPlan(
        id=update.job,
        targets=plan.targets,
        document=document_text(update),
        target_selection=TargetSelection(plan.selection.value),
        settings=settings,
        fulfilment=plan.additional_parameters.get(FULFILMENT_PARAMETER),
        offline_signed=offline_signed,
    )


def document_text(update: Update) -> str:
    """The ``afr_ota`` document (wire reference §5.1).

    Raises:
        InvalidRequest: see ``job_plan``.
    """
    plan = update.plan
    presigned = TransferProtocol.HTTP in plan.protocols
    document = OtaDocument(
        protocols=plan.protocols,
        files=tuple(
            _document_file(update, number, file, progress, presigned=presigned)
            for number, (file, progress) in enumerate(zip(plan.files, update.progress, strict=True))
        ),
        stream_name=update.stream if TransferProtocol.MQTT in plan.protocols else None,
    )
    try:
        return build(document)
    except MalformedDocument as error:
        raise InvalidRequest(str(error), subject="files") from error


def _document_file(update: Update, number: int, file: UpdateFile, progress: FileProgress, *, presigned: bool) -> DocumentFile:
    assert progress.delivered is not None, "files are delivered before the job is made"
    assert progress.size_bytes is not None
    if not 1 <= progress.size_bytes <= FILE_SIZE_BYTES_MAX:
        raise InvalidRequest(
            f"File {file.name!r} has {progress.size_bytes} bytes; agents take 1 to {FILE_SIZE_BYTES_MAX}, and say nothing "
            "about one that is empty.",
            subject="files",
        )
    signature = None
    if progress.signature is not None and progress.algorithm is not None:
        _, hash_name, encryption = progress.algorithm.value.split("-")
        signature = FileSignature(
            hash_algorithm=HashAlgorithm(hash_name),
            signature_algorithm=SignatureAlgorithm(encryption),
            value=progress.signature,
        )
    return DocumentFile(
        path=file.name,
        size_bytes=progress.size_bytes,
        file_id=file.location.file_id if isinstance(file.location, StreamedFile) else number,
        certificate_path=progress.certificate_path,
        file_type=file.file_type,
        signature=signature,
        url=url_placeholder(update.region, progress.delivered) if presigned else None,
        auth_scheme=PRESIGNED_AUTH_SCHEME if presigned else None,
        encryption=file.encryption,
    )


def url_placeholder(region: str, at: StoredFile) -> str:
    """What is replaced by a presigned URL whenever the document leaves for a device (wire reference §3.9). The version is
    named, so that a newer one under the same key never meets an older signature."""
    url = f"https://s3.{region}.amazonaws.com/{at.bucket}/{quote(at.key, safe='/-_.~')}"
    version = f"?versionId={quote(at.version, safe='')}" if at.version is not None else ""
    return f"${{aws:iot:s3-presigned-url:{url}{version}}}"
