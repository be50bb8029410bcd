"""What operations of IAM and STS need. Users, roles and policies are named by ARNs that hold their path; where a request has
only the name, the authoriser looks the path up (``Named``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from overair.basics.arn import Place
from overair.server.access.actions import OPEN, Need, Resources, anything, by_resource, member_arn
from overair.server.access.model import OwnerKind
from overair.server.aws_protocol.operations import Request


class Named:
    """The user or role that a member names: its ARN has a path that the request doesn't say."""

    def __init__(self, kind: OwnerKind, member: str, *, new: bool = False) -> None:
        self.kind = kind
        self.member = member
        self.new = new
        """It is being made: its path is the request's own."""

    def __call__(self, place: Place, request: Request) -> Sequence[str]:
        """The ARN, were the path plain."""
        path = str(request.get("Path", "/")) if self.new else "/"
        return (place.iam(f"{self.kind.value}{path}{request.get(self.member, '*')}"),)


def _new_policy(place: Place, request: Request) -> Sequence[str]:
    return (place.iam(f"policy{request.get('Path', '/')}{request.get('PolicyName', '*')}"),)


_USER: Final = Named(OwnerKind.USER, "UserName")
_ROLE: Final = Named(OwnerKind.ROLE, "RoleName")
_POLICY: Final = member_arn("PolicyArn")


def _on(resources: Resources, *operations: str) -> dict[tuple[str, str], tuple[Need, ...]]:
    return by_resource("iam", resources, *operations)


TABLE: Final = {
    **_on(anything, "ListUsers", "ListRoles", "ListPolicies"),
    **_on(Named(OwnerKind.USER, "UserName", new=True), "CreateUser"),
    **_on(Named(OwnerKind.ROLE, "RoleName", new=True), "CreateRole"),
    **_on(_USER, "GetUser", "DeleteUser", "CreateAccessKey", "ListAccessKeys", "UpdateAccessKey", "DeleteAccessKey"),
    **_on(_USER, "PutUserPolicy", "GetUserPolicy", "ListUserPolicies", "DeleteUserPolicy"),
    **_on(_USER, "AttachUserPolicy", "DetachUserPolicy", "ListAttachedUserPolicies"),
    **_on(_ROLE, "GetRole", "DeleteRole", "UpdateAssumeRolePolicy"),
    **_on(_ROLE, "PutRolePolicy", "GetRolePolicy", "ListRolePolicies", "DeleteRolePolicy"),
    **_on(_ROLE, "AttachRolePolicy", "DetachRolePolicy", "ListAttachedRolePolicies"),
    **_on(_new_policy, "CreatePolicy"),
    **_on(_POLICY, "GetPolicy", "GetPolicyVersion", "DeletePolicy", "CreatePolicyVersion", "DeletePolicyVersion"),
    **_on(_POLICY, "SetDefaultPolicyVersion", "ListPolicyVersions"),
    **_on(member_arn("PolicySourceArn"), "SimulatePrincipalPolicy"),
    # Whoever is proved may ask who he is; a role's trust policy takes part in the other, so it is judged inside.
    ("sts", "GetCallerIdentity"): OPEN,
    ("sts", "AssumeRole"): OPEN,
}
