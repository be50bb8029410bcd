"""What operations of the plain REST engine need: ``("overair", operation)`` → needs, as everywhere (``actions.py``).

Members are the route's labels and its query parameters; nothing of the body. Add a row for each ``@route(operation=…)``:

    ("overair", "PutTarget"): (need("overair:PutTarget", on=iot("uptanetarget/{name}")),),
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from overair.server.access.actions import Need, anything, by_resource, iot

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
    ),
    **by_resource("overair", anything, "DescribeProvisioning", "SetSharedProvisioning", "ListBlocks", "ListDeviceAnomalies"),
    **by_resource("overair", iot("thing/{thingName}"), "BlockDevice", "UnblockDevice"),
    **by_resource(
        "overair",
        iot("cert/{certificateId}"),
        "BlockCertificate",
        "UnblockCertificate",
        "ApproveDeviceCertificate",
        "DismissDeviceAnomaly",
    ),
    # Root chains and the Image repository.
    **by_resource(
        "overair",
        iot("uptanerepository/image"),
        "CreateImageRepository",
        "GetImageRoot",
        "PushImageRoot",
        "RotateImageRoot",
        "ExportImageRoleKey",
        "DeleteImageRoleKey",
        "GetImageMetadata",
        "PushImageMetadata",
        "PutImageExpiry",
        "PutTrustedDelegations",
        "PushDelegation",
        "ListTargets",
    ),
    **by_resource(
        "overair",
        iot("uptanerepository/director"),
        "CreateDirectorRepository",
        "GetDirectorRoot",
        "PushDirectorRoot",
        "RotateDirectorRoot",
        "ExportDirectorRoleKey",
        "DeleteDirectorRoleKey",
    ),
    **by_resource(
        "overair", iot("uptanetarget/{name}"), "PutTarget", "GetTarget", "EditTarget", "DeleteTarget", "UploadTarget"
    ),
}
