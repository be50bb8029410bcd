"""The operator's door to policies of users and roles (service ``iam``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from overair.basics.arn import parse_arn
from overair.basics.work import Tx, Work
from overair.server.access.aws_managed import AWS_MANAGED
from overair.server.access.groups import UserGroups
from overair.server.access.identities import Identities
from overair.server.access.model import ManagedPolicy, Owner, OwnerKind, PolicyVersion
from overair.server.access.operator_api import marked, owner_of, page_of, tag_members, tags_of, tags_page
from overair.server.access.policies import Policies
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import cut, read_page_token


class PolicyOperatorApi:
    """Inline and managed policies, and what is attached to whom."""

    def __init__(self, *, work: Work, policies: Policies, identities: Identities, groups: UserGroups) -> None:
        self.work = work
        self.policies = policies
        self.identities = identities
        self.groups = groups

    # Inline -----------------------------------------------------------------------------------------------------------

    @operation("iam", "PutUserPolicy")
    @operation("iam", "PutGroupPolicy")
    @operation("iam", "PutRolePolicy")
    async def put_inline(self, caller: Caller, request: Request) -> None:
        name, document = request["PolicyName"], request["PolicyDocument"]
        await self.work.run(lambda tx: self.policies.put_inline(tx, caller.account, owner_of(request), name, document))

    @operation("iam", "GetUserPolicy")
    @operation("iam", "GetGroupPolicy")
    @operation("iam", "GetRolePolicy")
    async def get_inline(self, caller: Caller, request: Request) -> Members:
        owner, name = owner_of(request), request["PolicyName"]
        document = await self.work.read(lambda tx: self.policies.inline(tx, caller.account, owner, name))
        return {
            f"{owner.kind.value.capitalize()}Name": owner.name,
            "PolicyName": name,
            "PolicyDocument": quote(document, safe=""),
        }

    @operation("iam", "ListUserPolicies")
    @operation("iam", "ListGroupPolicies")
    @operation("iam", "ListRolePolicies")
    async def list_inline(self, caller: Caller, request: Request) -> Members:
        after, limit = page_of(request)
        names = await self.work.read(lambda tx: list(self.policies.list_inline(tx, caller.account, owner_of(request))))
        rest = [name for name in names if after is None or name > after]
        page, marker = cut(rest[: limit + 1], limit, lambda name: (name,))
        return {"PolicyNames": list(page), **marked(marker)}

    @operation("iam", "DeleteUserPolicy")
    @operation("iam", "DeleteGroupPolicy")
    @operation("iam", "DeleteRolePolicy")
    async def delete_inline(self, caller: Caller, request: Request) -> None:
        name = request["PolicyName"]
        await self.work.run(lambda tx: self.policies.delete_inline(tx, caller.account, owner_of(request), name))

    # Attachments ------------------------------------------------------------------------------------------------------

    @operation("iam", "AttachUserPolicy")
    @operation("iam", "AttachGroupPolicy")
    @operation("iam", "AttachRolePolicy")
    async def attach(self, caller: Caller, request: Request) -> None:
        arn = request["PolicyArn"]
        await self.work.run(lambda tx: self.policies.attach(tx, caller.account, owner_of(request), arn))

    @operation("iam", "DetachUserPolicy")
    @operation("iam", "DetachGroupPolicy")
    @operation("iam", "DetachRolePolicy")
    async def detach(self, caller: Caller, request: Request) -> None:
        arn = request["PolicyArn"]
        await self.work.run(lambda tx: self.policies.detach(tx, caller.account, owner_of(request), arn))

    @operation("iam", "ListAttachedUserPolicies")
    @operation("iam", "ListAttachedGroupPolicies")
    @operation("iam", "ListAttachedRolePolicies")
    async def list_attached(self, caller: Caller, request: Request) -> Members:
        after, limit = page_of(request)
        arns = await self.work.read(lambda tx: self.policies.attached_to(tx, caller.account, owner_of(request)))
        prefix = request.get("PathPrefix", "/")
        rest = [arn for arn in arns if (after is None or arn > after) and _path(arn).startswith(prefix)]
        page, marker = cut(rest[: limit + 1], limit, lambda arn: (arn,))
        attached = [{"PolicyName": arn.rpartition("/")[2], "PolicyArn": arn} for arn in page]
        return {"AttachedPolicies": attached, **marked(marker)}

    # Managed ----------------------------------------------------------------------------------------------------------

    @operation("iam", "CreatePolicy")
    async def create_policy(self, caller: Caller, request: Request) -> Members:
        policy = await self.work.run(
            lambda tx: self.policies.create(
                tx,
                caller.account,
                request["PolicyName"],
                request["PolicyDocument"],
                path=request.get("Path", "/"),
                description=request.get("Description", ""),
                tags=tags_of(request),
            )
        )
        return {"Policy": policy_members(policy, 0, 0)}

    @operation("iam", "GetPolicy")
    async def get_policy(self, caller: Caller, request: Request) -> Members:
        arn = request["PolicyArn"]

        def find(tx: Tx) -> tuple[ManagedPolicy, int, int]:
            policy = self.policies.find(tx, caller.account, arn)
            attachments = self.policies.attachment_counts(tx, caller.account, [arn]).get(arn, 0)
            return policy, attachments, self.policies.boundary_counts(tx, caller.account, [arn]).get(arn, 0)

        policy, attachments, boundaries = await self.work.read(find)
        members = policy_members(policy, attachments, boundaries)
        return {"Policy": {**members, "Description": policy.description or None}}

    @operation("iam", "ListPolicies")
    async def list_policies(self, caller: Caller, request: Request) -> Members:
        position = read_page_token(request.get("Marker"), tuple[str, str], name="Marker")
        group, after = position or ("own", None)
        _, limit = page_of({name: value for name, value in request.items() if name != "Marker"})
        scope, prefix = request.get("Scope", "All"), request.get("PathPrefix", "/")

        def find(tx: Tx) -> tuple[list[ManagedPolicy], Mapping[str, int], Mapping[str, int]]:
            found: list[ManagedPolicy] = []
            if scope in ("All", "Local") and group == "own":
                own = self.policies.list_own(tx, caller.account, path_prefix=prefix, after=after, limit=limit + 1)
                found.extend(own)
            if scope in ("All", "AWS") and len(found) <= limit:
                ready = sorted(AWS_MANAGED.values(), key=lambda policy: policy.name)
                beyond = after if group == "aws" and after is not None else ""
                found.extend(policy for policy in ready if policy.path.startswith(prefix) and policy.name > beyond)
            found = found[: limit + 1]
            arns = [policy.arn for policy in found]
            attachments = self.policies.attachment_counts(tx, caller.account, arns)
            return found, attachments, self.policies.boundary_counts(tx, caller.account, arns)

        found, attachments, boundaries = await self.work.read(find)
        page, marker = cut(found, limit, lambda policy: ("aws" if policy.is_ours else "own", policy.name))
        bounding = request.get("PolicyUsageFilter") == "PermissionsBoundary"
        counted = boundaries if bounding else attachments
        # As the cloud has it, a page may hold fewer than were asked for: what isn't wanted is left out of it.
        shown = [policy for policy in page if counted.get(policy.arn) or not (bounding or request.get("OnlyAttached"))]
        described = [policy_members(policy, attachments.get(policy.arn, 0), boundaries.get(policy.arn, 0)) for policy in shown]
        return {"Policies": described, **marked(marker)}

    @operation("iam", "DeletePolicy")
    async def delete_policy(self, caller: Caller, request: Request) -> None:
        await self.work.run(lambda tx: self.policies.delete(tx, caller.account, request["PolicyArn"]))

    @operation("iam", "CreatePolicyVersion")
    async def create_policy_version(self, caller: Caller, request: Request) -> Members:
        arn, document, as_default = request["PolicyArn"], request["PolicyDocument"], request.get("SetAsDefault", False)
        version = await self.work.run(
            lambda tx: self.policies.add_version(tx, caller.account, arn, document, as_default=as_default)
        )
        return {"PolicyVersion": version_members(version, version.number if as_default else 0)}

    @operation("iam", "GetPolicyVersion")
    async def get_policy_version(self, caller: Caller, request: Request) -> Members:
        arn = request["PolicyArn"]

        def find(tx: Tx) -> tuple[PolicyVersion, int]:
            version = self.policies.version(tx, caller.account, arn, request["VersionId"])
            return version, self.policies.find(tx, caller.account, arn).default_version

        version, default = await self.work.read(find)
        return {"PolicyVersion": {**version_members(version, default), "Document": quote(version.document, safe="")}}

    @operation("iam", "ListPolicyVersions")
    async def list_policy_versions(self, caller: Caller, request: Request) -> Members:
        arn = request["PolicyArn"]

        def find(tx: Tx) -> tuple[Sequence[PolicyVersion], int]:
            return self.policies.versions(tx, caller.account, arn), self.policies.find(tx, caller.account, arn).default_version

        versions, default = await self.work.read(find)
        return {"Versions": [version_members(version, default) for version in versions], "IsTruncated": False}

    @operation("iam", "SetDefaultPolicyVersion")
    async def set_default_policy_version(self, caller: Caller, request: Request) -> None:
        arn, version = request["PolicyArn"], request["VersionId"]
        await self.work.run(lambda tx: self.policies.set_default_version(tx, caller.account, arn, version))

    @operation("iam", "DeletePolicyVersion")
    async def delete_policy_version(self, caller: Caller, request: Request) -> None:
        arn, version = request["PolicyArn"], request["VersionId"]
        await self.work.run(lambda tx: self.policies.delete_version(tx, caller.account, arn, version))

    @operation("iam", "ListEntitiesForPolicy")
    async def list_entities_for_policy(self, caller: Caller, request: Request) -> Members:
        arn, prefix = request["PolicyArn"], request.get("PathPrefix", "/")
        wanted = {"LocalManagedPolicy": None, "AWSManagedPolicy": None, "User": "user", "Group": "group", "Role": "role"}.get(
            request.get("EntityFilter", "")
        )
        position = read_page_token(request.get("Marker"), tuple[str, str], name="Marker")
        _, limit = page_of({name: value for name, value in request.items() if name != "Marker"})

        def find(tx: Tx) -> list[tuple[Owner, str]]:
            bounding = request.get("PolicyUsageFilter") == "PermissionsBoundary"
            owners = (self.policies.bounded_by if bounding else self.policies.owners_of)(tx, caller.account, arn)
            places = sorted((owner.kind.value, owner.name) for owner in owners if wanted in (None, owner.kind.value))
            rest = [Owner(kind=OwnerKind(kind), name=name) for kind, name in places if (kind, name) > (position or ("", ""))]
            found = [(owner, self._entity(tx, caller, owner)) for owner in rest]
            return [(owner, entity.unique_id) for owner, entity in found if entity.path.startswith(prefix)][: limit + 1]

        found = await self.work.read(find)
        page, marker = cut(found, limit, lambda each: (each[0].kind.value, each[0].name))

        def shown(kind: OwnerKind, name: str, unique_id: str) -> list[dict[str, str]]:
            return [{name: owner.name, unique_id: known} for owner, known in page if owner.kind is kind]

        return {
            "PolicyGroups": shown(OwnerKind.GROUP, "GroupName", "GroupId"),
            "PolicyUsers": shown(OwnerKind.USER, "UserName", "UserId"),
            "PolicyRoles": shown(OwnerKind.ROLE, "RoleName", "RoleId"),
            **marked(marker),
        }

    def _entity(self, tx: Tx, caller: Caller, owner: Owner) -> _Entity:
        if owner.kind is OwnerKind.USER:
            user = self.identities.user(tx, caller.account, owner.name)
            return _Entity(user.path, user.user_id)
        if owner.kind is OwnerKind.GROUP:
            group = self.groups.find(tx, caller.account, owner.name)
            return _Entity(group.path, group.group_id)
        role = self.identities.role(tx, caller.account, owner.name)
        return _Entity(role.path, role.role_id)

    # Tags -------------------------------------------------------------------------------------------------------------

    @operation("iam", "TagPolicy")
    async def tag_policy(self, caller: Caller, request: Request) -> None:
        arn, tags = request["PolicyArn"], tags_of(request)
        await self.work.run(lambda tx: self.policies.tag(tx, caller.account, arn, tags))

    @operation("iam", "UntagPolicy")
    async def untag_policy(self, caller: Caller, request: Request) -> None:
        arn, keys = request["PolicyArn"], request["TagKeys"]
        await self.work.run(lambda tx: self.policies.untag(tx, caller.account, arn, keys))

    @operation("iam", "ListPolicyTags")
    async def list_policy_tags(self, caller: Caller, request: Request) -> Members:
        policy = await self.work.read(lambda tx: self.policies.find(tx, caller.account, request["PolicyArn"]))
        return tags_page(policy.tags, request)


@dataclass(frozen=True, slots=True)
class _Entity:
    path: str
    unique_id: str


def _path(policy_arn: str) -> str:
    return parse_arn(policy_arn).resource.removeprefix("policy").rpartition("/")[0] + "/"


def policy_members(policy: ManagedPolicy, attachments: int, boundaries: int) -> dict[str, Any]:
    """A managed policy as answers have it."""
    return {
        "PolicyName": policy.name,
        "PolicyId": policy.policy_id,
        "Arn": policy.arn,
        "Path": policy.path,
        "DefaultVersionId": f"v{policy.default_version}",
        "AttachmentCount": attachments,
        "PermissionsBoundaryUsageCount": boundaries,
        "IsAttachable": True,
        "CreateDate": policy.created,
        "UpdateDate": policy.updated,
        "Tags": tag_members(policy.tags) or None,
    }


def version_members(version: PolicyVersion, default: int) -> dict[str, Any]:
    """One of its versions, without the document."""
    return {
        "VersionId": f"v{version.number}",
        "IsDefaultVersion": version.number == default,
        "CreateDate": version.created,
    }
