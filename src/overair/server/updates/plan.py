"""CreateOTAUpdate's members understood, and told again. Pure (wire reference §5.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from overair.basics.errors import InvalidRequest
from overair.basics.ids import BucketName, ObjectKey, OtaUpdateId, SigningJobId, SigningProfileName, StreamId, VersionId
from overair.server.signing.limits import check_name
from overair.server.updates.model import (
    JOB_ID_PREFIX,
    PRESIGN_EXPIRY_S_DEFAULT,
    SIGNED_PREFIX_DEFAULT,
    UPDATE_ID_LENGTH_MAX,
    CustomSigning,
    FinishedSigning,
    JobSettings,
    Location,
    ProfileWanted,
    Signing,
    SigningToStart,
    StoredFile,
    StreamedFile,
    TargetSelection,
    UpdateFile,
    UpdatePlan,
)
from overair.server.updates.signatures import check_inline_certificate, signature_algorithm, signature_bytes
from overair.wire.image_signature import MODERN_ALGORITHMS, SignatureAlgorithm
from overair.wire.job_document import (
    FILES_MAX,
    DocumentFile,
    MalformedDocument,
    OtaDocument,
    TransferProtocol,
    build,
)

Members = Mapping[str, Any]

PRESIGN_EXPIRY_S_MIN: Final = 60
PRESIGN_EXPIRY_S_MAX: Final = 3600
TARGETS_MAX: Final = 100
PRESIGNED_FILES_MAX: Final = 10
"""Substitutions in a job document (wire reference §3.9)."""
TAGS_MAX: Final = 50
ADDITIONAL_PARAMETERS_SIZE_BYTES_MAX: Final = 64 * 1024
ATTRIBUTES_SIZE_BYTES_MAX: Final = 16 * 1024
TEXT_LENGTH_MAX: Final = 1024
"""Of names and versions that the model leaves unbounded."""


def plan_of(members: Members) -> UpdatePlan:
    """Understand a whole request.

    Raises:
        InvalidRequest: what the model can't say: an id too long for its job, a pair of location and signing that doesn't
            exist, two streams in one update, text that agents can't read, a limit.
    """
    update = members["otaUpdateId"]
    if len(update) > UPDATE_ID_LENGTH_MAX:
        raise InvalidRequest(
            f"otaUpdateId has {len(update)} characters; {UPDATE_ID_LENGTH_MAX} are possible, since the job's id is "
            f"{JOB_ID_PREFIX} and this one, and a job's id has at most 64. Choose a shorter one.",
            subject="otaUpdateId",
        )
    targets = tuple(dict.fromkeys(members["targets"]))
    if not 1 <= len(targets) <= TARGETS_MAX:
        raise InvalidRequest(f"An update has 1 to {TARGETS_MAX} targets.", subject="targets")
    protocols = tuple(TransferProtocol(word) for word in members.get("protocols") or ["MQTT"])
    if len(set(protocols)) != len(protocols):
        raise InvalidRequest("protocols names each of MQTT and HTTP once.", subject="protocols")
    files: Sequence[Members] = members["files"]
    if not 1 <= len(files) <= FILES_MAX:
        raise InvalidRequest(f"An update has 1 to {FILES_MAX} files.", subject="files")
    plan = UpdatePlan(
        id=OtaUpdateId(update),
        description=members.get("description"),
        targets=targets,
        protocols=protocols,
        selection=TargetSelection(members.get("targetSelection") or "SNAPSHOT"),
        settings=_settings(members),
        files=tuple(file_of(file) for file in files),
        role_arn=members["roleArn"],
        additional_parameters=_bounded(
            "additionalParameters", members.get("additionalParameters") or {}, ADDITIONAL_PARAMETERS_SIZE_BYTES_MAX
        ),
        tags=_tags(members.get("tags") or []),
    )
    _check_streams(plan)
    _check_document(plan)
    return plan


def file_of(members: Members) -> UpdateFile:
    """Understand one OTAUpdateFile.

    Raises:
        InvalidRequest: see ``plan_of``.
    """
    name = members.get("fileName") or ""
    file_version = members.get("fileVersion")
    if len(name) > TEXT_LENGTH_MAX or len(file_version or "") > TEXT_LENGTH_MAX:
        raise InvalidRequest(f"fileName and fileVersion have at most {TEXT_LENGTH_MAX} characters.", subject="files")
    location = _location(members.get("fileLocation") or {})
    signing = _signing(members.get("codeSigning") or {}, location)
    if location is None and not isinstance(signing, FinishedSigning):
        raise InvalidRequest(
            f"File {name!r} names no place: give fileLocation.s3Location or fileLocation.stream, or a finished signing job in "
            "codeSigning.awsSignerJobId.",
            subject="files",
        )
    if isinstance(location, StreamedFile) and isinstance(signing, SigningToStart):
        raise InvalidRequest(
            f"File {name!r} can't be signed inside a stream: startSigningJobParameter needs fileLocation.s3Location.",
            subject="files",
        )
    return UpdateFile(
        name=name,
        file_type=members.get("fileType"),
        file_version=file_version,
        location=location,
        signing=signing,
        attributes=_bounded("attributes", members.get("attributes") or {}, ATTRIBUTES_SIZE_BYTES_MAX),
    )


def _location(members: Members) -> Location | None:
    stream, stored = members.get("stream"), members.get("s3Location")
    if stream and stored:
        raise InvalidRequest("fileLocation names either a stream or an s3Location, not both.", subject="files")
    if stream:
        if "streamId" not in stream:
            raise InvalidRequest("fileLocation.stream needs streamId and fileId.", subject="files")
        return StreamedFile(stream=StreamId(stream["streamId"]), file_id=stream.get("fileId") or 0)
    if stored:
        if not stored.get("bucket") or not stored.get("key"):
            raise InvalidRequest("fileLocation.s3Location needs bucket and key.", subject="files")
        version = stored.get("version")
        return StoredFile(
            bucket=BucketName(stored["bucket"]),
            key=ObjectKey(stored["key"]),
            version=VersionId(version) if version else None,
        )
    return None


def _signing(members: Members, location: Location | None) -> Signing | None:
    given = [name for name in ("awsSignerJobId", "startSigningJobParameter", "customCodeSigning") if members.get(name)]
    if len(given) > 1:
        raise InvalidRequest(f"codeSigning takes one way of signing, not {' and '.join(given)}.", subject="files")
    if not given:
        return None
    if given[0] == "awsSignerJobId":
        return FinishedSigning(job=SigningJobId(members["awsSignerJobId"]))
    if given[0] == "customCodeSigning":
        return _custom(members["customCodeSigning"])
    return _to_start(members["startSigningJobParameter"], location)


def _to_start(members: Members, location: Location | None) -> SigningToStart:
    parameter = members.get("signingProfileParameter")
    wanted = None
    if parameter:
        if not parameter.get("certificateArn") or not parameter.get("platform"):
            raise InvalidRequest("signingProfileParameter needs certificateArn and platform.", subject="files")
        wanted = ProfileWanted(
            certificate_arn=parameter["certificateArn"],
            platform_id=parameter["platform"],
            certificate_path=parameter.get("certificatePathOnDevice") or "",
        )
    name = members.get("signingProfileName") or (_profile_name(wanted) if wanted else None)
    if wanted is not None and name:
        check_name(name)
    if not name:
        raise InvalidRequest(
            "startSigningJobParameter needs signingProfileName, or signingProfileParameter to make a profile by.",
            subject="files",
        )
    destination = (members.get("destination") or {}).get("s3Destination") or {}
    bucket = destination.get("bucket") or (location.bucket if isinstance(location, StoredFile) else "")
    prefix = destination.get("prefix")
    return SigningToStart(
        profile=SigningProfileName(name),
        wanted=wanted,
        bucket=BucketName(bucket),
        prefix=SIGNED_PREFIX_DEFAULT if prefix is None else prefix,
    )


def _profile_name(wanted: ProfileWanted) -> str:
    """Of a profile that nobody named: the same wish finds the same profile."""
    wish = "\0".join((wanted.certificate_arn, wanted.platform_id, wanted.certificate_path))
    return f"AFR_OTA_{hashlib.sha256(wish.encode()).hexdigest()[:24]}"


def _custom(members: Members) -> CustomSigning:
    as_given = (members.get("signature") or {}).get("inlineDocument")
    if not as_given:
        raise InvalidRequest("customCodeSigning needs signature.inlineDocument.", subject="customCodeSigning")
    algorithm = signature_algorithm(members.get("hashAlgorithm"), members.get("signatureAlgorithm"))
    chain = members.get("certificateChain") or {}
    certificate_pem = chain.get("inlineDocument") or None
    if certificate_pem is not None:
        check_inline_certificate(certificate_pem)
    return CustomSigning(
        signature=signature_bytes(as_given, algorithm),
        as_given=as_given,
        algorithm=algorithm,
        certificate_name=chain.get("certificateName") or "",
        certificate_pem=certificate_pem,
    )


def _settings(members: Members) -> JobSettings:
    expiry = (members.get("awsJobPresignedUrlConfig") or {}).get("expiresInSec")
    expiry_s = PRESIGN_EXPIRY_S_DEFAULT if expiry is None else expiry
    if not PRESIGN_EXPIRY_S_MIN <= expiry_s <= PRESIGN_EXPIRY_S_MAX:
        raise InvalidRequest(
            f"expiresInSec is {PRESIGN_EXPIRY_S_MIN} to {PRESIGN_EXPIRY_S_MAX} seconds.", subject="awsJobPresignedUrlConfig"
        )
    abort = members.get("awsJobAbortConfig")
    return JobSettings(
        rollout=members.get("awsJobExecutionsRolloutConfig"),
        # The same criteria under the name that CreateJob gives them.
        abort={"criteriaList": abort["abortCriteriaList"]} if abort else None,
        timeout=members.get("awsJobTimeoutConfig"),
        presign_expiry_s=expiry_s,
    )


def _tags(tags: Sequence[Members]) -> Mapping[str, str]:
    if len(tags) > TAGS_MAX:
        raise InvalidRequest(f"A resource has at most {TAGS_MAX} tags.", subject="tags")
    return {tag["Key"]: tag.get("Value") or "" for tag in tags}


def _bounded(name: str, mapping: Mapping[str, str], size_bytes_max: int) -> Mapping[str, str]:
    if sum(len(key.encode()) + len(value.encode()) for key, value in mapping.items()) > size_bytes_max:
        raise InvalidRequest(f"{name} holds at most {size_bytes_max} bytes.", subject=name)
    return dict(mapping)


def _check_streams(plan: UpdatePlan) -> None:
    """A document has room for one stream's name."""
    streams = {file.location.stream for file in plan.files if isinstance(file.location, StreamedFile)}
    elsewhere = any(not isinstance(file.location, StreamedFile) for file in plan.files)
    if len(streams) > 1 or (streams and elsewhere):
        raise InvalidRequest(
            "An update is delivered by one stream: take all its files from one stream, or none from any.", subject="files"
        )
    ids = [file.location.file_id for file in plan.files if isinstance(file.location, StreamedFile)]
    if len(set(ids)) != len(ids):
        raise InvalidRequest("Two files of the update are the same file of the stream.", subject="files")


def _check_document(plan: UpdatePlan) -> None:
    """Whether a document can be built at all: agents copy its text without undoing escapes."""
    if TransferProtocol.HTTP in plan.protocols and len(plan.files) > PRESIGNED_FILES_MAX:
        raise InvalidRequest(
            f"Over HTTP an update has at most {PRESIGNED_FILES_MAX} files: a job document has room for as many URLs.",
            subject="files",
        )
    files = tuple(
        DocumentFile(
            path=file.name, size_bytes=1, file_id=number, certificate_path=_certificate_path(file), file_type=file.file_type
        )
        for number, file in enumerate(plan.files)
    )
    try:
        build(OtaDocument(protocols=plan.protocols, files=files, stream_name=None))
    except MalformedDocument as error:
        raise InvalidRequest(str(error), subject="files") from error


def _certificate_path(file: UpdateFile) -> str:
    if isinstance(file.signing, CustomSigning):
        return file.signing.certificate_name
    if isinstance(file.signing, SigningToStart) and file.signing.wanted is not None:
        return file.signing.wanted.certificate_path
    return ""


# Told again ---------------------------------------------------------------------------------------------------------------


def file_members(file: UpdateFile) -> dict[str, Any]:
    """An OTAUpdateFile as it was asked for; ``file_of`` reads it back."""
    return {
        "fileName": file.name,
        "fileType": file.file_type,
        "fileVersion": file.file_version,
        "fileLocation": _location_members(file.location),
        "codeSigning": _signing_members(file.signing),
        "attributes": dict(file.attributes) or None,
    }


def _location_members(location: Location | None) -> dict[str, Any] | None:
    match location:
        case StreamedFile():
            return {"stream": {"streamId": location.stream, "fileId": location.file_id}}
        case StoredFile():
            return {"s3Location": {"bucket": location.bucket, "key": location.key, "version": location.version}}
        case None:
            return None


def _signing_members(signing: Signing | None) -> dict[str, Any] | None:
    match signing:
        case FinishedSigning():
            return {"awsSignerJobId": signing.job}
        case SigningToStart():
            wanted = signing.wanted
            parameter = wanted and {
                "certificateArn": wanted.certificate_arn,
                "platform": wanted.platform_id,
                "certificatePathOnDevice": wanted.certificate_path,
            }
            return {
                "startSigningJobParameter": {
                    "signingProfileParameter": parameter,
                    "signingProfileName": signing.profile,
                    "destination": {"s3Destination": {"bucket": signing.bucket, "prefix": signing.prefix}},
                }
            }
        case CustomSigning():
            rsa = signing.algorithm in (SignatureAlgorithm.RSA_SHA256, SignatureAlgorithm.RSA_SHA1)
            return {
                "customCodeSigning": {
                    "signature": {"inlineDocument": signing.as_given},
                    "certificateChain": {
                        "certificateName": signing.certificate_name,
                        "inlineDocument": signing.certificate_pem,
                    },
                    "hashAlgorithm": "SHA256" if signing.algorithm in MODERN_ALGORITHMS else "SHA1",
                    "signatureAlgorithm": "RSA" if rsa else "ECDSA",
                }
            }
        case None:
            return None
