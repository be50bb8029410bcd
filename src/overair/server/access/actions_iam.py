"""What operations of IAM and STS need. Users, groups, roles and policies are named by ARNs that hold their path; where a
request has only the name, the authoriser looks the path up (``Named``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from overair.basics.arn import Place
from overair.server.access.actions import OPEN, Need, Resources, anything, by_resource, member_arn, need
from overair.server.access.model import OwnerKind
from overair.server.aws_protocol.operations import Request


class Named:
    """The user, group or role that a member names: its ARN has a path that the request doesn't say."""

    def __init__(self, kind: OwnerKind, member: str, *, new: bool = False, new_name: str | None = None) -> None:
        self.kind = kind
        self.member = member
        self.new = new
        """It is being made: its path is the request's own."""
        self.new_name = new_name
        """The member with the name that it is to have: meant is what it becomes, not what it is."""

    def __call__(self, place: Place, request: Request) -> Sequence[str]:
        """The ARN, were the path plain."""
        path = str(request.get("Path", "/")) if self.new else "/"
        return (place.iam(f"{self.kind.value}{path}{request.get(self.member, '*')}"),)


def _new_policy(place: Place, request: Request) -> Sequence[str]:
    return (place.iam(f"policy{request.get('Path', '/')}{request.get('PolicyName', '*')}"),)


_USER: Final = Named(OwnerKind.USER, "UserName")
_ROLE: Final = Named(OwnerKind.ROLE, "RoleName")
_GROUP: Final = Named(OwnerKind.GROUP, "GroupName")
_POLICY: Final = member_arn("PolicyArn")


def _on(resources: Resources, *operations: str) -> dict[tuple[str, str], tuple[Need, ...]]:
    return by_resource("iam", resources, *operations)


def _moving(operation: str, named: Named) -> dict[tuple[str, str], tuple[Need, ...]]:
    """Renaming needs the permission on what it is and on what it becomes."""
    becomes = Named(named.kind, named.member, new_name=f"New{named.member}")

    def moves(request: Request) -> bool:
        return f"New{named.member}" in request or "NewPath" in request

    return {("iam", operation): (need(f"iam:{operation}", on=named), need(f"iam:{operation}", on=becomes, when=moves))}


TABLE: Final = {
    **_on(anything, "ListUsers", "ListGroups", "ListRoles", "ListPolicies"),
    **_on(anything, "GetAccountAuthorizationDetails", "GetAccountSummary", "SimulateCustomPolicy"),
    **_on(anything, "GetContextKeysForCustomPolicy"),
    **_on(Named(OwnerKind.USER, "UserName", new=True), "CreateUser"),
    **_on(Named(OwnerKind.ROLE, "RoleName", new=True), "CreateRole"),
    **_on(Named(OwnerKind.GROUP, "GroupName", new=True), "CreateGroup"),
    **_on(_USER, "GetUser", "DeleteUser", "CreateAccessKey", "ListAccessKeys", "UpdateAccessKey", "DeleteAccessKey"),
    **_on(_USER, "PutUserPolicy", "GetUserPolicy", "ListUserPolicies", "DeleteUserPolicy"),
    **_on(_USER, "AttachUserPolicy", "DetachUserPolicy", "ListAttachedUserPolicies"),
    **_on(_USER, "PutUserPermissionsBoundary", "DeleteUserPermissionsBoundary", "ListGroupsForUser"),
    **_on(_USER, "TagUser", "UntagUser", "ListUserTags"),
    **_moving("UpdateUser", _USER),
    # Whose the key is, a caller needn't know before: the answer tells.
    **_on(anything, "GetAccessKeyLastUsed"),
    **_on(_GROUP, "GetGroup", "DeleteGroup", "AddUserToGroup", "RemoveUserFromGroup"),
    **_on(_GROUP, "PutGroupPolicy", "GetGroupPolicy", "ListGroupPolicies", "DeleteGroupPolicy"),
    **_on(_GROUP, "AttachGroupPolicy", "DetachGroupPolicy", "ListAttachedGroupPolicies"),
    **_moving("UpdateGroup", _GROUP),
    **_on(_ROLE, "UpdateRole", "UpdateRoleDescription", "TagRole", "UntagRole", "ListRoleTags"),
    **_on(_ROLE, "PutRolePermissionsBoundary", "DeleteRolePermissionsBoundary"),
    **_on(_ROLE, "GetRole", "DeleteRole", "UpdateAssumeRolePolicy"),
    **_on(_ROLE, "PutRolePolicy", "GetRolePolicy", "ListRolePolicies", "DeleteRolePolicy"),
    **_on(_ROLE, "AttachRolePolicy", "DetachRolePolicy", "ListAttachedRolePolicies"),
    **_on(_new_policy, "CreatePolicy"),
    **_on(_POLICY, "GetPolicy", "GetPolicyVersion", "DeletePolicy", "CreatePolicyVersion", "DeletePolicyVersion"),
    **_on(_POLICY, "SetDefaultPolicyVersion", "ListPolicyVersions", "ListEntitiesForPolicy"),
    **_on(_POLICY, "TagPolicy", "UntagPolicy", "ListPolicyTags"),
    **_on(member_arn("PolicySourceArn"), "SimulatePrincipalPolicy", "GetContextKeysForPrincipalPolicy"),
    # The server's accounts; the handler lets the first account's principals alone.
    **by_resource("overair", anything, "CreateAccount", "ListAccounts"),
    # Whoever is proved may ask who he is, and for keys of his own for a time; a role's trust policy takes part in AssumeRole,
    # so it is judged inside.
    ("sts", "GetCallerIdentity"): OPEN,
    ("sts", "AssumeRole"): OPEN,
    ("sts", "GetSessionToken"): OPEN,
}


def identity_context(operation: str, request: Request) -> dict[str, tuple[str, ...]]:
    """Condition keys of IAM that stand in the request itself."""
    context: dict[str, tuple[str, ...]] = {}
    if operation.startswith(("Attach", "Detach")) and request.get("PolicyArn"):
        context["iam:PolicyARN"] = (str(request["PolicyArn"]),)
    if request.get("PermissionsBoundary"):
        context["iam:PermissionsBoundary"] = (str(request["PermissionsBoundary"]),)
    return context


def holder_context(
    operation: str, request: Request, boundary_arn: str | None, tags: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Condition keys that tell of the user or role that a request is about.

    The boundary is known where policies or boundaries are changed: who may only do so for those whom a given boundary narrows
    can't give himself, or others, more than it allows.
    """
    context: dict[str, tuple[str, ...]] = {
        f"{prefix}:ResourceTag/{key}": (value,) for key, value in tags.items() for prefix in ("aws", "iam")
    }
    changes_rights = "Polic" in operation or "Boundary" in operation
    if boundary_arn is not None and changes_rights and not request.get("PermissionsBoundary"):
        context["iam:PermissionsBoundary"] = (boundary_arn,)
    return context
