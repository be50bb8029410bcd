"""What operations of buckets, certificates and code signing need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote

from overair.basics.arn import Place
from overair.server.access.actions import Need, Resources, anything, by_resource, member_arn, need, template
from overair.server.aws_protocol.operations import Request

_BUCKET: Final = template("arn:aws:s3:::{Bucket}")
_OBJECT: Final = template("arn:aws:s3:::{Bucket}/{Key}")
_EVERY_BUCKET: Final = template("arn:aws:s3:::*")


def copy_source(request: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """Bucket, key and version of ``CopySource``: the text ``bucket/key?versionId=…`` (percent-encoded), or a structure."""
    source = request.get("CopySource", "")
    if isinstance(source, Mapping):
        return str(source.get("Bucket", "")), str(source.get("Key", "")), source.get("VersionId")
    path, _, version = str(source).partition("?versionId=")
    bucket, _, key = unquote(path).lstrip("/").partition("/")
    return bucket, key, version or None


def _source(_: Place, request: Request) -> Sequence[str]:
    bucket, key, _version = copy_source(request)
    return (f"arn:aws:s3:::{bucket}/{key}",)


def _names_version(request: Request) -> bool:
    return bool(request.get("VersionId"))


def _source_names_version(request: Request) -> bool:
    return copy_source(request)[2] is not None


def _each_deleted(versioned: bool) -> Any:
    def resources(_: Place, request: Request) -> Sequence[str]:
        objects = (request.get("Delete") or {}).get("Objects") or ()
        return [
            f"arn:aws:s3:::{request.get('Bucket', '*')}/{item.get('Key', '*')}"
            for item in objects
            if bool(item.get("VersionId")) is versioned
        ]

    return resources


def _versioned(name: str) -> str:
    return "s3:GetObjectVersionAttributes" if name == "GetObjectAttributes" else f"s3:{name}Version"


def _by_version(name: str) -> tuple[Need, ...]:
    return (
        need(f"s3:{name}", on=_OBJECT, when=lambda request: not _names_version(request)),
        need(_versioned(name), on=_OBJECT, when=_names_version),
    )


def _of_list(verb: str) -> tuple[Need, ...]:
    return (
        need(f"s3:{verb}ObjectAcl", on=_OBJECT, when=lambda request: not _names_version(request)),
        need(f"s3:{verb}ObjectVersionAcl", on=_OBJECT, when=_names_version),
    )


_READ_SOURCE: Final = (
    need("s3:GetObject", on=_source, when=lambda request: not _source_names_version(request)),
    need("s3:GetObjectVersion", on=_source, when=_source_names_version),
)


def _signer(kind: str, member: str, owner: str) -> Resources:
    """A profile or job of Signer, of the account that a member names where it is another one."""

    def resources(place: Place, request: Request) -> Sequence[str]:
        account = request.get(owner, place.account)
        return (f"arn:aws:signer:{place.region}:{account}:/{kind}/{request.get(member, '*')}",)

    return resources


_PROFILE: Final = template("arn:aws:signer:{@region}:{@account}:/signing-profiles/{profileName}")
_PROFILE_OF: Final = _signer("signing-profiles", "profileName", "profileOwner")
_SIGNING_JOB: Final = template("arn:aws:signer:{@region}:{@account}:/signing-jobs/{jobId}")
_SIGNING_JOB_OF: Final = _signer("signing-jobs", "jobId", "jobOwner")
_CERTIFICATE: Final = member_arn("CertificateArn")


def _imported(place: Place, request: Request) -> Sequence[str]:
    return (str(request["CertificateArn"]),) if request.get("CertificateArn") else (place.acm("*"),)


TABLE: Final = {
    ("s3", "ListBuckets"): (need("s3:ListAllMyBuckets", on=_EVERY_BUCKET),),
    ("s3", "CreateBucket"): (need("s3:CreateBucket", on=_BUCKET),),
    ("s3", "DeleteBucket"): (need("s3:DeleteBucket", on=_BUCKET),),
    ("s3", "HeadBucket"): (need("s3:ListBucket", on=_BUCKET),),
    ("s3", "ListObjects"): (need("s3:ListBucket", on=_BUCKET),),
    ("s3", "ListObjectsV2"): (need("s3:ListBucket", on=_BUCKET),),
    ("s3", "ListObjectVersions"): (need("s3:ListBucketVersions", on=_BUCKET),),
    ("s3", "ListMultipartUploads"): (need("s3:ListBucketMultipartUploads", on=_BUCKET),),
    **by_resource("s3", _BUCKET, "GetBucketLocation", "PutBucketVersioning", "GetBucketVersioning"),
    **by_resource("s3", _BUCKET, "PutBucketPolicy", "GetBucketPolicy", "DeleteBucketPolicy", "GetBucketPolicyStatus"),
    **by_resource("s3", _BUCKET, "GetBucketAcl", "PutBucketAcl", "GetBucketOwnershipControls", "PutBucketOwnershipControls"),
    ("s3", "GetPublicAccessBlock"): (need("s3:GetBucketPublicAccessBlock", on=_BUCKET),),
    ("s3", "PutPublicAccessBlock"): (need("s3:PutBucketPublicAccessBlock", on=_BUCKET),),
    ("s3", "DeletePublicAccessBlock"): (need("s3:PutBucketPublicAccessBlock", on=_BUCKET),),
    ("s3", "GetObjectAcl"): _of_list("Get"),
    ("s3", "PutObjectAcl"): _of_list("Put"),
    ("s3", "PutObject"): (need("s3:PutObject", on=_OBJECT),),
    ("s3", "CreateMultipartUpload"): (need("s3:PutObject", on=_OBJECT),),
    ("s3", "UploadPart"): (need("s3:PutObject", on=_OBJECT),),
    ("s3", "CompleteMultipartUpload"): (need("s3:PutObject", on=_OBJECT),),
    ("s3", "AbortMultipartUpload"): (need("s3:AbortMultipartUpload", on=_OBJECT),),
    ("s3", "ListParts"): (need("s3:ListMultipartUploadParts", on=_OBJECT),),
    ("s3", "GetObject"): _by_version("GetObject"),
    ("s3", "HeadObject"): _by_version("GetObject"),
    ("s3", "GetObjectAttributes"): (*_by_version("GetObject"), *_by_version("GetObjectAttributes")),
    ("s3", "DeleteObject"): _by_version("DeleteObject"),
    ("s3", "DeleteObjects"): (
        need("s3:DeleteObject", on=_each_deleted(False)),
        need("s3:DeleteObjectVersion", on=_each_deleted(True)),
    ),
    ("s3", "CopyObject"): (*_READ_SOURCE, need("s3:PutObject", on=_OBJECT)),
    ("s3", "UploadPartCopy"): (*_READ_SOURCE, need("s3:PutObject", on=_OBJECT)),
    ("acm", "ImportCertificate"): (need("acm:ImportCertificate", on=_imported),),
    **by_resource("acm", anything, "ListCertificates"),
    **by_resource("acm", _CERTIFICATE, "DescribeCertificate", "GetCertificate", "DeleteCertificate"),
    **by_resource("acm", _CERTIFICATE, "ExportCertificate", "RenewCertificate", "RevokeCertificate", "ResendValidationEmail"),
    **by_resource("acm", _CERTIFICATE, "UpdateCertificateOptions", "ListCertificateDomainValidations"),
    **by_resource("acm", member_arn("ResourceArn"), "TagResource", "UntagResource", "ListTagsForResource"),
    **by_resource("acm", _CERTIFICATE, "AddTagsToCertificate", "RemoveTagsFromCertificate", "ListTagsForCertificate"),
    **by_resource("signer", anything, "ListSigningProfiles", "ListSigningJobs", "ListSigningPlatforms", "GetSigningPlatform"),
    **by_resource("signer", _PROFILE, "PutSigningProfile", "CancelSigningProfile", "RevokeSigningProfile"),
    **by_resource("signer", _PROFILE_OF, "GetSigningProfile", "StartSigningJob", "SignPayload"),
    **by_resource("signer", _PROFILE, "AddProfilePermission", "RemoveProfilePermission", "ListProfilePermissions"),
    **by_resource("signer", member_arn("profileVersionArn"), "GetRevocationStatus"),
    **by_resource("signer", _SIGNING_JOB, "DescribeSigningJob"),
    **by_resource("signer", _SIGNING_JOB_OF, "RevokeSignature"),
    **by_resource("signer", member_arn("resourceArn"), "TagResource", "UntagResource", "ListTagsForResource"),
}


def object_context(operation: str, request: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Condition keys of the object store for one request."""
    context: dict[str, tuple[str, ...]] = {}
    if operation.startswith("List"):
        for member, key in (("Prefix", "s3:prefix"), ("Delimiter", "s3:delimiter"), ("MaxKeys", "s3:max-keys")):
            if member in request:
                context[key] = (str(request[member]),)
    if request.get("VersionId"):
        context["s3:VersionId"] = (str(request["VersionId"]),)
    return context
