"""Policies that every account finds ready, under the names that guides tell operators to attach (wire reference §12)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from overair.basics.clock import Instant
from overair.server.access.model import ManagedPolicy

PREFIX: Final = "arn:aws:iam::aws:policy"


def _allow(actions: Sequence[str], *resources: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": list(resources)}


def _document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)}, indent=2)


_OTA_UPDATE: Final = _document(
    _allow(["s3:GetObjectVersion", "s3:GetObject", "s3:PutObject"], "arn:aws:s3:::afr-ota*"),
    _allow(
        ["signer:StartSigningJob", "signer:DescribeSigningJob", "signer:GetSigningProfile", "signer:PutSigningProfile"], "*"
    ),
    _allow(["s3:ListBucketVersions", "s3:ListBucket", "s3:ListAllMyBuckets", "s3:GetBucketLocation"], "*"),
    _allow(["iot:DeleteJob", "iot:DescribeJob"], "arn:aws:iot:*:*:job/AFR_OTA*"),
    _allow(["iot:DeleteStream"], "arn:aws:iot:*:*:stream/AFR_OTA*"),
    _allow(["iot:CreateStream", "iot:CreateJob"], "*"),
)

_THINGS_REGISTRATION: Final = _document(
    _allow(
        [
            "iot:AddThingToThingGroup",
            "iot:AttachPolicy",
            "iot:AttachPrincipalPolicy",
            "iot:AttachThingPrincipal",
            "iot:CreateCertificateFromCsr",
            "iot:CreatePolicy",
            "iot:CreateThing",
            "iot:DescribeCertificate",
            "iot:DescribeThing",
            "iot:DescribeThingGroup",
            "iot:DescribeThingType",
            "iot:DetachPolicy",
            "iot:DetachThingPrincipal",
            "iot:GetPolicy",
            "iot:ListAttachedPolicies",
            "iot:ListPolicyPrincipals",
            "iot:ListPrincipalPolicies",
            "iot:ListPrincipalThings",
            "iot:ListTargetsForPolicy",
            "iot:ListThingGroupsForThing",
            "iot:ListThingPrincipals",
            "iot:RegisterCertificate",
            "iot:RegisterCertificateWithoutCA",
            "iot:RegisterThing",
            "iot:RemoveThingFromThingGroup",
            "iot:UpdateCertificate",
            "iot:UpdateThing",
            "iot:UpdateThingGroupsForThing",
        ],
        "*",
    )
)

_SERVICES: Final = ("acm", "iam", "iot", "iotjobsdata", "overair", "s3", "signer")
_READING: Final = ("Get", "List", "Describe")
_BROKER: Final = ("iot:Connect", "iot:Publish", "iot:Subscribe", "iot:Receive", "iot:RetainPublish")
_CONFIGURING: Final = (
    "Accept Add Associate Attach Cancel Create Delete Deprecate Describe Detach Disable Enable Get List Register Reject Remove "
    "Replace SearchIndex Set Start Stop Tag TestAuthorization Transfer Untag Update Validate"
)
"""What operations of IoT begin with, but for the broker's."""
_IAM_READING: Final = ("iam:Get*", "iam:List*", "iam:Simulate*")

_POLICIES: Final[tuple[tuple[str, str, str, str], ...]] = (
    ("/", "AdministratorAccess", "Everything.", _document(_allow(["*"], "*"))),
    (
        "/",
        "ReadOnlyAccess",
        "Looking at everything, changing nothing.",
        _document(_allow([f"{service}:{verb}*" for service in _SERVICES for verb in _READING], "*")),
    ),
    ("/", "AWSIoTFullAccess", "All of IoT.", _document(_allow(["iot:*", "iotjobsdata:*"], "*"))),
    ("/", "AmazonS3FullAccess", "All buckets and objects.", _document(_allow(["s3:*"], "*"))),
    (
        "/",
        "AmazonS3ReadOnlyAccess",
        "Reading buckets and objects.",
        _document(_allow(["s3:Get*", "s3:List*"], "*")),
    ),
    ("/", "AWSCertificateManagerFullAccess", "All certificates.", _document(_allow(["acm:*"], "*"))),
    ("/", "AWSSignerFullAccess", "All of code signing.", _document(_allow(["signer:*"], "*"))),
    ("/", "IAMFullAccess", "All identities and their policies.", _document(_allow(["iam:*"], "*"))),
    ("/service-role/", "AmazonFreeRTOSOTAUpdate", "What the OTA service role needs.", _OTA_UPDATE),
    ("/service-role/", "AWSIoTThingsRegistration", "What registering things needs.", _THINGS_REGISTRATION),
    (
        "/service-role/",
        "AWSIoTOTAUpdate",
        "Making jobs and looking at signing.",
        _document(_allow(["iot:CreateJob", "signer:DescribeSigningJob"], "*")),
    ),
    (
        "/",
        "AWSIoTDataAccess",
        "The message broker and the jobs of devices.",
        _document(_allow([*_BROKER, "iotjobsdata:*"], "*")),
    ),
    (
        "/",
        "AWSIoTConfigAccess",
        "All of IoT's registry, policies and jobs.",
        _document(_allow([f"iot:{verb}*" for verb in _CONFIGURING.split()], "*")),
    ),
    (
        "/",
        "AWSIoTConfigReadOnlyAccess",
        "Looking at IoT's registry, policies and jobs.",
        _document(_allow(["iot:Describe*", "iot:Get*", "iot:List*", "iot:SearchIndex", "iot:TestAuthorization"], "*")),
    ),
    ("/", "IAMReadOnlyAccess", "Looking at identities and their policies.", _document(_allow(_IAM_READING, "*"))),
    (
        "/",
        "AWSCertificateManagerReadOnly",
        "Looking at certificates.",
        _document(
            _allow(["acm:DescribeCertificate", "acm:ListCertificates", "acm:GetCertificate", "acm:ListTagsForCertificate"], "*")
        ),
    ),
)

_SINCE: Final = Instant(1_514_764_800_000)
"""2018-01-01: a fixed date, since they are not made by anybody here."""

DOCUMENTS: Final[Mapping[str, str]] = {f"{PREFIX}{path}{name}": document for path, name, _, document in _POLICIES}
"""Document by ARN."""

AWS_MANAGED: Final[Mapping[str, ManagedPolicy]] = {
    f"{PREFIX}{path}{name}": ManagedPolicy(
        arn=f"{PREFIX}{path}{name}",
        name=name,
        path=path,
        policy_id=f"ANPA{number:017d}",
        default_version=1,
        newest_version=1,
        created=_SINCE,
        updated=_SINCE,
        description=description,
        is_ours=True,
    )
    for number, (path, name, description, _) in enumerate(_POLICIES)
}
