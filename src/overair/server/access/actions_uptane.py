"""What operations of the plain REST engine need: ``("overair", operation)`` → needs, as everywhere (``actions.py``).

Members are the route's labels and its query parameters; nothing of the body. Add a row for each ``@route(operation=…)``:

    ("overair", "PutTarget"): (need("overair:PutTarget", on=iot("uptanetarget/{name}")),),
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from overair.server.access.actions import OPEN, Need, anything, both, by_resource, iot, need
from overair.server.aws_protocol.operations import Request


def _cosigns(request: Request) -> bool:
    return str(request.get("coSign", "")).lower() == "true"


def _push(operation: str, repository: str, cosigning: str) -> dict[tuple[str, str], tuple[Need, ...]]:
    """Whoever has the server's root key sign a root of his own is master of the repository: that is a right of its own."""
    resource = iot(f"uptanerepository/{repository}")
    own = need(f"overair:{operation}", on=resource)
    return {("overair", operation): (own, need(f"overair:{cosigning}", on=resource, when=_cosigns))}


TABLE: Final[Mapping[tuple[str, str], tuple[Need, ...]]] = {
    # Provisioning.
    **by_resource(
        "overair",
        iot("provisioningcredential/*"),
        "CreateProvisioningCredential",
        "ListProvisioningCredentials",
    ),
    **by_resource(
        "overair",
        iot("provisioningcredential/{credentialId}"),
        "DescribeProvisioningCredential",
        "RevokeProvisioningCredential",
        "UnblockDevicesOfCredential",
        "ListDevicesOfCredential",
    ),
    **by_resource("overair", iot("cacert/*"), "RegisterFleetCertificateAuthority", "ListFleetCertificateAuthorities"),
    **by_resource(
        "overair",
        iot("cacert/{authorityId}"),
        "DescribeFleetCertificateAuthority",
        "UpdateFleetCertificateAuthority",
        "WithdrawFleetCertificateAuthority",
        "PutFleetRevocationList",
        "ListFleetRevocationLists",
    ),
    **by_resource("overair", anything, "DescribeProvisioning", "SetSharedProvisioning", "ListBlocks", "ListDeviceAnomalies"),
    **by_resource("overair", anything, "ListProvisionedDevices"),
    **by_resource("overair", iot("thing/{thingName}"), "BlockDevice", "UnblockDevice"),
    **by_resource("overair", iot("thing/{thingName}"), "AnswerRenewalRequest", "RefuseRenewalRequest"),
    **by_resource(
        "overair",
        anything,
        "DescribeRenewalRule",
        "UpdateRenewalRule",
        "ListRenewals",
        "ListRenewalRequests",
        "DescribeServerCertificate",
        "RotateServerAuthority",
        "RenewServerCertificate",
    ),
    **by_resource(
        "overair",
        iot("cert/{certificateId}"),
        "BlockCertificate",
        "UnblockCertificate",
        "ApproveDeviceCertificate",
        "DismissDeviceAnomaly",
    ),
    ("overair", "RegisterUptaneDevice"): OPEN,  # whom the body names is asked for inside
    **by_resource("overair", iot("thing/{device}"), "DescribeUptaneDeviceCertificate"),
    # Where the links of reports lead: whoever may ask for them.
    ("overair", "GetThingRegistrationTaskReport"): (need("iot:ListThingRegistrationTaskReports", on=anything),),
    # Root chains and the Image repository.
    **by_resource(
        "overair",
        iot("uptanerepository/image"),
        "CreateImageRepository",
        "GetImageRoot",
        "RotateImageRoot",
        "ExportImageRoleKey",
        "DeleteImageRoleKey",
        "GetImageMetadata",
        "PutImageExpiry",
        "PutTrustedDelegations",
        "PushDelegation",
        "ListTargets",
    ),
    **_push("PushImageRoot", "image", "SignWithImageRoleKey"),
    **_push("PushImageMetadata", "image", "SignWithImageRoleKey"),
    **by_resource(
        "overair",
        iot("uptanerepository/director"),
        "CreateDirectorRepository",
        "GetDirectorRoot",
        "RotateDirectorRoot",
        "ExportDirectorRoleKey",
        "DeleteDirectorRoleKey",
    ),
    **_push("PushDirectorRoot", "director", "SignWithDirectorRoleKey"),
    **by_resource("overair", both(iot("uptanerepository/image"), iot("uptanerepository/director")), "ImportRepositories"),
    **by_resource(
        "overair", iot("uptanetarget/{name}"), "PutTarget", "GetTarget", "EditTarget", "DeleteTarget", "UploadTarget"
    ),
    # The Director: vehicles are things; what a body names is asked for inside.
    **by_resource("overair", iot("multitargetupdate/*"), "CreateMultiTargetUpdate"),
    **by_resource("overair", iot("multitargetupdate/{update}"), "DescribeMultiTargetUpdate"),
    ("overair", "AssignMultiTargetUpdate"): OPEN,
    ("overair", "ListAssignments"): OPEN,
    ("overair", "CancelAssignments"): OPEN,
    ("overair", "CreateUptaneDevice"): OPEN,
    **by_resource("overair", iot("thing/*"), "ImportUptaneDevices"),
    **by_resource(
        "overair",
        iot("thing/{device}"),
        "DescribeAssignments",
        "CancelAssignment",
        "DescribeUptaneDevice",
        "UpdateUptaneDevice",
        "DeleteUptaneDevice",
        "ApproveEcuKey",
        "DeclineEcuKey",
        "ResetReportCounter",
        "ListAutoUpdates",
        "SetAutoUpdate",
        "DeleteAutoUpdate",
    ),
    **by_resource("overair", anything, "ListUptaneDevices", "CountInstalledImages", "DescribeInstallationStats"),
    # Whom a job left out is told to whoever may look at the job.
    ("overair", "ListThingsLeftOut"): (need("iot:DescribeJob", on=iot("job/{job}")),),
    # Device groups are thing groups, and so are their permissions.
    ("overair", "CreateDeviceGroup"): OPEN,
    ("overair", "ListDeviceGroups"): (need("iot:ListThingGroups"),),
    ("overair", "DescribeDeviceGroup"): (need("iot:DescribeThingGroup", on=iot("thinggroup/{group}")),),
    ("overair", "DeleteDeviceGroup"): (need("iot:DeleteThingGroup", on=iot("thinggroup/{group}")),),
    ("overair", "ListDevicesInGroup"): (need("iot:ListThingsInThingGroup", on=iot("thinggroup/{group}")),),
    ("overair", "AddDeviceToGroup"): (
        need("iot:AddThingToThingGroup", on=both(iot("thing/{device}"), iot("thinggroup/{group}"))),
    ),
    ("overair", "RemoveDeviceFromGroup"): (
        need("iot:RemoveThingFromThingGroup", on=both(iot("thing/{device}"), iot("thinggroup/{group}"))),
    ),
    # Campaigns.
    ("overair", "CreateCampaign"): OPEN,
    **by_resource("overair", anything, "ListCampaigns"),
    **by_resource(
        "overair",
        iot("campaign/{campaign}"),
        "DescribeCampaign",
        "UpdateCampaign",
        "LaunchCampaign",
        "CancelCampaign",
        "RetryCampaign",
    ),
    ("overair", "CancelCampaignDevice"): (
        need("overair:CancelCampaignDevice", on=both(iot("campaign/{campaign}"), iot("thing/{device}"))),
    ),
}
