"""What operations of IoT, its data and jobs planes, and our own service need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from overair.basics.arn import Place
from overair.server.access.actions import (
    anything,
    both,
    by_resource,
    each_of,
    iot,
    member_arn,
    name_or_arn,
    named_in,
    need,
)
from overair.server.aws_protocol.operations import Request

_THING: Final = iot("thing/{thingName}")
_GROUP: Final = iot("thinggroup/{thingGroupName}")
_THING_OR_ARN: Final = name_or_arn("thingArn", _THING)
_GROUP_OR_ARN: Final = name_or_arn("thingGroupArn", _GROUP)
_TYPE: Final = iot("thingtype/{thingTypeName}")
_CERTIFICATE: Final = iot("cert/{certificateId}")
_POLICY: Final = iot("policy/{policyName}")
_STREAM: Final = iot("stream/{streamId}")
_UPDATE: Final = iot("otaupdate/{otaUpdateId}")
_JOB: Final = iot("job/{jobId}")
_PACKAGE: Final = iot("package/{packageName}")
_PACKAGE_VERSION: Final = iot("package/{packageName}/version/{versionName}")


def _index(place: Place, request: Request) -> Sequence[str]:
    """A request that names no index asks the one of things."""
    return (place.iot("index", str(request.get("indexName") or "AWS_Things")),)


_JOB_TEMPLATE: Final = iot("jobtemplate/{jobTemplateId}")

_TEMPLATE: Final = iot("provisioningtemplate/{templateName}")

TABLE: Final = {
    **by_resource(
        "iot",
        anything,
        "ListThings",
        "ListThingTypes",
        "ListThingGroups",
        "ListCertificates",
        "ListOutgoingCertificates",
        "ListPolicies",
        "ListStreams",
        "ListOTAUpdates",
        "ListJobs",
        "ListJobTemplates",
        "ListManagedJobTemplates",
        "DescribeManagedJobTemplate",
        "DescribeEventConfigurations",
        "UpdateEventConfigurations",
        "CreateKeysAndCertificate",
        "CreateCertificateFromCsr",
        "RegisterCertificate",
        "RegisterCertificateWithoutCA",
        "DescribeEndpoint",
        "ListProvisioningTemplates",
        "RegisterThing",
        "GetRegistrationCode",
        "DeleteRegistrationCode",
        "RegisterCACertificate",
        "ListCACertificates",
        "StartThingRegistrationTask",
        "StopThingRegistrationTask",
        "DescribeThingRegistrationTask",
        "ListThingRegistrationTasks",
        "ListThingRegistrationTaskReports",
    ),
    **by_resource("iot", iot("cacert/{certificateId}"), "DescribeCACertificate", "UpdateCACertificate", "DeleteCACertificate"),
    **by_resource("iot", iot("cacert/{caCertificateId}"), "ListCertificatesByCA"),
    **by_resource(
        "iot",
        _TEMPLATE,
        "CreateProvisioningTemplate",
        "DescribeProvisioningTemplate",
        "UpdateProvisioningTemplate",
        "DeleteProvisioningTemplate",
        "CreateProvisioningTemplateVersion",
        "DescribeProvisioningTemplateVersion",
        "ListProvisioningTemplateVersions",
        "DeleteProvisioningTemplateVersion",
        "CreateProvisioningClaim",
    ),
    **by_resource("iot", _THING, "CreateThing", "DescribeThing", "UpdateThing", "DeleteThing"),
    **by_resource("iot", _THING, "AttachThingPrincipal", "DetachThingPrincipal", "ListThingPrincipals"),
    **by_resource("iot", _THING, "ListThingGroupsForThing", "ListJobExecutionsForThing"),
    ("iot", "ListThingPrincipalsV2"): (need("iot:ListThingPrincipals", "iot:ListThingPrincipalsV2", on=_THING),),
    **by_resource("iot", member_arn("principal"), "ListPrincipalThings"),
    ("iot", "ListPrincipalThingsV2"): (
        need("iot:ListPrincipalThings", "iot:ListPrincipalThingsV2", on=member_arn("principal")),
    ),
    **by_resource("iot", _TYPE, "CreateThingType", "DescribeThingType", "UpdateThingType", "DeleteThingType"),
    **by_resource("iot", _TYPE, "DeprecateThingType"),
    ("iot", "CreateThingGroup"): (
        need("iot:CreateThingGroup", on=_GROUP),
        need(
            "iot:CreateThingGroup",
            on=iot("thinggroup/{parentGroupName}"),
            when=lambda request: bool(request.get("parentGroupName")),
        ),
    ),
    **by_resource("iot", _GROUP, "DescribeThingGroup", "UpdateThingGroup", "DeleteThingGroup", "ListThingsInThingGroup"),
    ("iot", "AddThingToThingGroup"): (need("iot:AddThingToThingGroup", on=both(_THING_OR_ARN, _GROUP_OR_ARN)),),
    ("iot", "RemoveThingFromThingGroup"): (need("iot:RemoveThingFromThingGroup", on=both(_THING_OR_ARN, _GROUP_OR_ARN)),),
    ("iot", "UpdateThingGroupsForThing"): (
        need(
            "iot:UpdateThingGroupsForThing",
            on=both(_THING, named_in("thingGroupsToAdd", "thinggroup"), named_in("thingGroupsToRemove", "thinggroup")),
        ),
    ),
    **by_resource("iot", anything, "UpdateIndexingConfiguration", "GetIndexingConfiguration", "ListIndices"),
    **by_resource("iot", _index, "DescribeIndex", "SearchIndex", "GetStatistics", "GetCardinality", "GetPercentiles"),
    **by_resource("iot", _index, "GetBucketsAggregation"),
    **by_resource("iot", both(_GROUP, _index), "CreateDynamicThingGroup", "UpdateDynamicThingGroup"),
    **by_resource("iot", _GROUP, "DeleteDynamicThingGroup"),
    **by_resource("iot", _CERTIFICATE, "DescribeCertificate", "UpdateCertificate", "DeleteCertificate"),
    **by_resource("iot", _CERTIFICATE, "TransferCertificate", "CancelCertificateTransfer"),
    **by_resource("iot", _CERTIFICATE, "AcceptCertificateTransfer", "RejectCertificateTransfer"),
    **by_resource(
        "iot",
        _POLICY,
        "CreatePolicy",
        "GetPolicy",
        "DeletePolicy",
        "CreatePolicyVersion",
        "GetPolicyVersion",
        "ListPolicyVersions",
        "DeletePolicyVersion",
        "SetDefaultPolicyVersion",
        "ListTargetsForPolicy",
        "ListPolicyPrincipals",
    ),
    **by_resource("iot", member_arn("target"), "AttachPolicy", "DetachPolicy", "ListAttachedPolicies"),
    **by_resource("iot", member_arn("principal"), "AttachPrincipalPolicy", "DetachPrincipalPolicy", "ListPrincipalPolicies"),
    **by_resource("iot", member_arn("principal"), "GetEffectivePolicies", "TestAuthorization"),
    **by_resource("iot", member_arn("resourceArn"), "TagResource", "UntagResource", "ListTagsForResource"),
    **by_resource("iot", _STREAM, "CreateStream", "DescribeStream", "UpdateStream", "DeleteStream"),
    # The 2018 guide's name of the permission still opens the operation.
    ("iot", "CreateOTAUpdate"): (need("iot:CreateOTAUpdate", "iot:CreateDeployment", on=_UPDATE),),
    **by_resource("iot", _UPDATE, "GetOTAUpdate", "DeleteOTAUpdate"),
    ("iot", "CreateJob"): (
        need("iot:CreateJob", on=both(_JOB, each_of("targets"), each_of("destinationPackageVersions"))),
        need("iot:CreateJob", on=member_arn("jobTemplateArn"), when=lambda request: bool(request.get("jobTemplateArn"))),
    ),
    ("iot", "CreateJobTemplate"): (
        need("iot:CreateJobTemplate", on=both(_JOB_TEMPLATE, each_of("destinationPackageVersions"))),
        need("iot:CreateJobTemplate", on=member_arn("jobArn"), when=lambda request: bool(request.get("jobArn"))),
    ),
    **by_resource("iot", _JOB_TEMPLATE, "DescribeJobTemplate", "DeleteJobTemplate"),
    ("iot", "AssociateTargetsWithJob"): (need("iot:AssociateTargetsWithJob", on=both(_JOB, each_of("targets"))),),
    **by_resource(
        "iot", _JOB, "DescribeJob", "UpdateJob", "CancelJob", "DeleteJob", "GetJobDocument", "ListJobExecutionsForJob"
    ),
    **by_resource("iot", both(_JOB, _THING), "DescribeJobExecution", "CancelJobExecution", "DeleteJobExecution"),
    # The jobs data plane has a prefix of its own; the device guides write iot:.
    **{
        ("iot-jobs-data", name): (need(f"iotjobsdata:{name}", f"iot:{name}", on=_THING),)
        for name in (
            "DescribeJobExecution",
            "GetPendingJobExecutions",
            "StartNextPendingJobExecution",
            "UpdateJobExecution",
        )
    },
    ("iot-jobs-data", "StartCommandExecution"): (
        need("iot:StartCommandExecution", on=both(member_arn("commandArn"), member_arn("targetArn"))),
    ),
    ("iot-data", "Publish"): (
        need("iot:Publish", on=iot("topic/{topic}")),
        need("iot:RetainPublish", on=iot("topic/{topic}"), when=lambda request: bool(request.get("retain"))),
    ),
    ("iot-data", "GetRetainedMessage"): (need("iot:GetRetainedMessage", on=iot("topic/{topic}")),),
    ("iot-data", "ListRetainedMessages"): (need("iot:ListRetainedMessages"),),
    **by_resource("iot", anything, "ListPackages", "GetPackageConfiguration", "UpdatePackageConfiguration"),
    **by_resource("iot", _PACKAGE, "CreatePackage", "GetPackage", "UpdatePackage", "DeletePackage", "ListPackageVersions"),
    **by_resource("iot", both(_PACKAGE, _PACKAGE_VERSION), "CreatePackageVersion", "UpdatePackageVersion"),
    **by_resource("iot", both(_PACKAGE, _PACKAGE_VERSION), "DeletePackageVersion"),
    **by_resource("iot", _PACKAGE_VERSION, "GetPackageVersion"),
    ("iot-data", "GetThingShadow"): (need("iot:GetThingShadow", on=iot("thing/{thingName}/{shadowName}")),),
    ("overair", "ExplainThing"): (need("overair:ExplainThing", on=_THING),),
    **by_resource("overair", anything, "ListDecryptionKeys"),
    **by_resource("overair", member_arn("principal"), "ExplainDeviceRights"),
    ("overair", "ResendContinuousJobs"): (need("overair:ResendContinuousJobs", on=_THING),),
    ("overair", "DescribeRollout"): (need("overair:DescribeRollout", on=_JOB),),
    ("overair", "DescribeServer"): (need("overair:DescribeServer"),),
    ("overair", "ListAuditRecords"): (need("overair:ListAuditRecords"),),
    ("overair", "ListAuditChain"): (need("overair:ListAuditRecords"),),
    ("overair", "SignAuditHead"): (need("overair:SignAuditHead"),),
    **by_resource("overair", anything, "ListExpiries", "ListKeys"),
    **by_resource("overair", iot("key/{keyName}"), "RotateKey"),
}
