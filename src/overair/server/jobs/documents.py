"""Job documents: what is accepted, and how one leaves for a device (wire reference §3.9)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import structlog

from overair.basics.errors import InvalidRequest, OverairError
from overair.basics.ids import BucketName, ObjectKey, VersionId
from overair.basics.work import Tx
from overair.server.jobs.model import DOCUMENT_SIZE_BYTES_MAX, FULFILMENT_ID, Job, PresignConfig
from overair.server.jobs.ports import JobStore, Presigner
from overair.wire.strict_json import MalformedJson, decode

logger = structlog.get_logger("overair.jobs")

DOCUMENT_DEPTH_MAX: Final = 32
PLACEHOLDERS_MAX: Final = 10
S3_URL_LENGTH_MAX: Final = 1024
"""Of a placeholder's."""
_PLACEHOLDER: Final = re.compile(r"\$\{aws:iot:s3-presigned-url(?:-v2)?:(https://[^}\s\"\\]{1,1024})\}")
_PATH_STYLE: Final = re.compile(r"s3[.-]?[a-z0-9-]*\.amazonaws\.com")
_VIRTUAL_HOST: Final = re.compile(r"(.+)\.s3[.-]?[a-z0-9-]*\.amazonaws\.com")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectName:
    """The object that a placeholder names."""

    bucket: BucketName
    key: ObjectKey
    version: VersionId | None


def parse_s3_url(url: str) -> ObjectName:
    """Read ``https://s3.{region}.amazonaws.com/{bucket}/{key}``, the same without a region, or the bucket in the host; a
    ``versionId`` in the query pins a version.

    Raises:
        InvalidRequest: another host, or no bucket or key. Subject ``s3-url``.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        query = parse_qs(parts.query)
    except ValueError:
        host, query = "", {}
    path = unquote(parts.path[1:]) if host else ""
    virtual = _VIRTUAL_HOST.fullmatch(host)
    if virtual is not None:
        bucket, key = virtual[1], path
    elif _PATH_STYLE.fullmatch(host):
        bucket, _, key = path.partition("/")
    else:
        bucket, key = "", ""
    if not bucket or not key:
        raise InvalidRequest(
            f"{url[:200]!r} doesn't name an object. Write https://s3.REGION.amazonaws.com/BUCKET/KEY.", subject="s3-url"
        )
    version = query.get("versionId", [None])[0]
    return ObjectName(bucket=BucketName(bucket), key=ObjectKey(key), version=VersionId(version) if version else None)


def check_document(document: str, presign: PresignConfig | None) -> None:
    """Whether a document can be sent to devices at all.

    Raises:
        InvalidRequest: too long, not a JSON object, too many placeholders, one that names no object, or placeholders without a
            role to sign for. Subject ``job-document``.
    """
    try:
        value = decode(document.encode(), size_bytes_max=DOCUMENT_SIZE_BYTES_MAX, depth_max=DOCUMENT_DEPTH_MAX)
    except (MalformedJson, UnicodeEncodeError) as error:
        raise InvalidRequest(f"The job document is not valid JSON: {error}", subject="job-document") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The job document must be a JSON object.", subject="job-document")
    placeholders = _PLACEHOLDER.findall(document)
    if len(placeholders) > PLACEHOLDERS_MAX:
        raise InvalidRequest(
            f"The job document has {len(placeholders)} placeholders for presigned URLs; {PLACEHOLDERS_MAX} are allowed.",
            subject="job-document",
        )
    for url in placeholders:
        parse_s3_url(url)
    if placeholders and presign is None:
        raise InvalidRequest(
            "The job document has placeholders for presigned URLs, but the job has no presignedUrlConfig with a role.",
            subject="job-document",
        )


def fulfilment_named_in(document: str) -> str | None:
    """What a document (which ``check_document`` let through) wants fulfilled: ``{"uptane": {"multiTargetUpdate": id}}``.

    Raises:
        InvalidRequest: it names one that can be no id. Subject ``job-document``.
    """
    if '"uptane"' not in document:
        return None
    value = decode(document.encode(), size_bytes_max=DOCUMENT_SIZE_BYTES_MAX, depth_max=DOCUMENT_DEPTH_MAX)
    block = value.get("uptane") if isinstance(value, dict) else None
    if not isinstance(block, dict) or "multiTargetUpdate" not in block:
        return None
    named = block["multiTargetUpdate"]
    if not isinstance(named, str) or not FULFILMENT_ID.fullmatch(named):
        raise InvalidRequest("uptane.multiTargetUpdate is the id of a multi-target update, a string.", subject="job-document")
    return named


class DeviceDocuments:
    """Documents as devices get them: compact, placeholders filled."""

    def __init__(self, *, jobs: JobStore, presigner: Presigner) -> None:
        self._jobs = jobs
        self._presigner = presigner

    def for_device(self, tx: Tx, job: Job) -> str:
        """The document of a job, its URLs signed now. A URL that can't be signed stays a placeholder, which is logged: the
        device's other work mustn't stop for it, and the device asks again when its download fails."""
        document = self._jobs.document(tx, job.place.account, job.id) or "{}"
        compact = msgspec.json.format(document, indent=-1)
        presign = job.settings.presign
        if presign is None or "${aws:iot:" not in compact:
            return compact

        def sign(match: re.Match[str]) -> str:
            try:
                name = parse_s3_url(match[1])
                return self._presigner.presigned_url(
                    tx,
                    job.place,
                    presign.role_arn,
                    bucket=name.bucket,
                    key=name.key,
                    version=name.version,
                    expires_s=presign.expires_s,
                    source_arn=job.arn,
                )
            except OverairError as error:
                logger.warning("a presigned URL could not be made", job=job.id, role=presign.role_arn, why=error.message)
                return match[0]

        return _PLACEHOLDER.sub(sign, compact)
