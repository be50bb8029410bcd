"""The operator's door to policies of users and roles (service ``iam``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from overair.basics.arn import parse_arn
from overair.basics.clock import as_datetime
from overair.basics.errors import InvalidRequest, Unsupported
from overair.basics.work import Tx, Work
from overair.server.access.aws_managed import AWS_MANAGED
from overair.server.access.grants import Grants, GrantsDirectory, PrincipalKey
from overair.server.access.identities import Identities
from overair.server.access.model import ManagedPolicy, Owner, OwnerKind, PolicyVersion
from overair.server.access.operator_api import marked, page_of, tags_of
from overair.server.access.policies import Policies
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import cut, read_page_token
from overair.server.policy_language.conditions import context_of
from overair.server.policy_language.document import Kind
from overair.server.policy_language.evaluation import CompiledPolicy, Question


def _owner(request: Request) -> Owner:
    if "UserName" in request:
        return Owner(kind=OwnerKind.USER, name=request["UserName"])
    return Owner(kind=OwnerKind.ROLE, name=request["RoleName"])


class PolicyOperatorApi:
    """Inline and managed policies, attachments, and the simulator."""

    def __init__(self, *, work: Work, policies: Policies, identities: Identities, grants: GrantsDirectory) -> None:
        self.work = work
        self.policies = policies
        self.identities = identities
        self.grants = grants

    # Inline -----------------------------------------------------------------------------------------------------------

    @operation("iam", "PutUserPolicy")
    @operation("iam", "PutRolePolicy")
    async def put_inline(self, caller: Caller, request: Request) -> None:
        name, document = request["PolicyName"], request["PolicyDocument"]
        await self.work.run(lambda tx: self.policies.put_inline(tx, caller.account, _owner(request), name, document))

    @operation("iam", "GetUserPolicy")
    @operation("iam", "GetRolePolicy")
    async def get_inline(self, caller: Caller, request: Request) -> Members:
        owner, name = _owner(request), request["PolicyName"]
        document = await self.work.read(lambda tx: self.policies.inline(tx, caller.account, owner, name))
        whose = "UserName" if owner.kind is OwnerKind.USER else "RoleName"
        return {whose: owner.name, "PolicyName": name, "PolicyDocument": quote(document, safe="")}

    @operation("iam", "ListUserPolicies")
    @operation("iam", "ListRolePolicies")
    async def list_inline(self, caller: Caller, request: Request) -> Members:
        after, limit = page_of(request)
        names = await self.work.read(lambda tx: list(self.policies.list_inline(tx, caller.account, _owner(request))))
        rest = [name for name in names if after is None or name > after]
        page, marker = cut(rest[: limit + 1], limit, lambda name: (name,))
        return {"PolicyNames": list(page), **marked(marker)}

    @operation("iam", "DeleteUserPolicy")
    @operation("iam", "DeleteRolePolicy")
    async def delete_inline(self, caller: Caller, request: Request) -> None:
        name = request["PolicyName"]
        await self.work.run(lambda tx: self.policies.delete_inline(tx, caller.account, _owner(request), name))

    # Attachments ------------------------------------------------------------------------------------------------------

    @operation("iam", "AttachUserPolicy")
    @operation("iam", "AttachRolePolicy")
    async def attach(self, caller: Caller, request: Request) -> None:
        arn = request["PolicyArn"]
        await self.work.run(lambda tx: self.policies.attach(tx, caller.account, _owner(request), arn))

    @operation("iam", "DetachUserPolicy")
    @operation("iam", "DetachRolePolicy")
    async def detach(self, caller: Caller, request: Request) -> None:
        arn = request["PolicyArn"]
        await self.work.run(lambda tx: self.policies.detach(tx, caller.account, _owner(request), arn))

    @operation("iam", "ListAttachedUserPolicies")
    @operation("iam", "ListAttachedRolePolicies")
    async def list_attached(self, caller: Caller, request: Request) -> Members:
        after, limit = page_of(request)
        arns = await self.work.read(lambda tx: self.policies.attached_to(tx, caller.account, _owner(request)))
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
        return {"Policy": _policy(policy, 0)}

    @operation("iam", "GetPolicy")
    async def get_policy(self, caller: Caller, request: Request) -> Members:
        arn = request["PolicyArn"]

        def find(tx: Tx) -> tuple[ManagedPolicy, int]:
            policy = self.policies.find(tx, caller.account, arn)
            return policy, self.policies.attachment_counts(tx, caller.account, [arn]).get(arn, 0)

        policy, attachments = await self.work.read(find)
        return {"Policy": {**_policy(policy, attachments), "Description": policy.description or None}}

    @operation("iam", "ListPolicies")
    async def list_policies(self, caller: Caller, request: Request) -> Members:
        if request.get("PolicyUsageFilter") == "PermissionsBoundary":
            raise Unsupported("ListPolicies can't list boundaries alone; leave PolicyUsageFilter out.", subject="member")
        position = read_page_token(request.get("Marker"), tuple[str, str], name="Marker")
        group, after = position or ("own", None)
        _, limit = page_of({name: value for name, value in request.items() if name != "Marker"})
        scope, prefix = request.get("Scope", "All"), request.get("PathPrefix", "/")

        def find(tx: Tx) -> tuple[list[ManagedPolicy], dict[str, int]]:
            found: list[ManagedPolicy] = []
            if scope in ("All", "Local") and group == "own":
                own = self.policies.list_own(tx, caller.account, path_prefix=prefix, after=after, limit=limit + 1)
                found.extend(own)
            if scope in ("All", "AWS") and len(found) <= limit:
                ready = sorted(AWS_MANAGED.values(), key=lambda policy: policy.name)
                beyond = after if group == "aws" and after is not None else ""
                found.extend(policy for policy in ready if policy.path.startswith(prefix) and policy.name > beyond)
            found = found[: limit + 1]
            counts = self.policies.attachment_counts(tx, caller.account, [policy.arn for policy in found])
            return found, dict(counts)

        found, counts = await self.work.read(find)
        page, marker = cut(found, limit, lambda policy: ("aws" if policy.is_ours else "own", policy.name))
        shown = [policy for policy in page if counts.get(policy.arn) or not request.get("OnlyAttached")]
        return {"Policies": [_policy(policy, counts.get(policy.arn, 0)) for policy in shown], **marked(marker)}

    @operation("iam", "DeletePolicy")
    async def delete_policy(self, caller: Caller, request: Request) -> None:
        await self.work.run(lambda tx: self.policies.delete(tx, caller.account, request["PolicyArn"]))

    @operation("iam", "CreatePolicyVersion")
    async def create_policy_version(self, caller: Caller, request: Request) -> Members:
        arn, document, as_default = request["PolicyArn"], request["PolicyDocument"], request.get("SetAsDefault", False)
        version = await self.work.run(
            lambda tx: self.policies.add_version(tx, caller.account, arn, document, as_default=as_default)
        )
        return {"PolicyVersion": _version(version, version.number if as_default else 0)}

    @operation("iam", "GetPolicyVersion")
    async def get_policy_version(self, caller: Caller, request: Request) -> Members:
        arn = request["PolicyArn"]

        def find(tx: Tx) -> tuple[PolicyVersion, int]:
            version = self.policies.version(tx, caller.account, arn, request["VersionId"])
            return version, self.policies.find(tx, caller.account, arn).default_version

        version, default = await self.work.read(find)
        return {"PolicyVersion": {**_version(version, default), "Document": quote(version.document, safe="")}}

    @operation("iam", "ListPolicyVersions")
    async def list_policy_versions(self, caller: Caller, request: Request) -> Members:
        arn = request["PolicyArn"]

        def find(tx: Tx) -> tuple[Sequence[PolicyVersion], int]:
            return self.policies.versions(tx, caller.account, arn), self.policies.find(tx, caller.account, arn).default_version

        versions, default = await self.work.read(find)
        return {"Versions": [_version(version, default) for version in versions], "IsTruncated": False}

    @operation("iam", "SetDefaultPolicyVersion")
    async def set_default_policy_version(self, caller: Caller, request: Request) -> None:
        arn, version = request["PolicyArn"], request["VersionId"]
        await self.work.run(lambda tx: self.policies.set_default_version(tx, caller.account, arn, version))

    @operation("iam", "DeletePolicyVersion")
    async def delete_policy_version(self, caller: Caller, request: Request) -> None:
        arn, version = request["PolicyArn"], request["VersionId"]
        await self.work.run(lambda tx: self.policies.delete_version(tx, caller.account, arn, version))

    # Simulation -------------------------------------------------------------------------------------------------------

    @operation("iam", "SimulatePrincipalPolicy")
    async def simulate_principal_policy(self, caller: Caller, request: Request) -> Members:
        for member in ("ResourcePolicy", "PermissionsBoundaryPolicyInputList", "PolicyExclusionList", "CallerArn"):
            if request.get(member):
                raise Unsupported(
                    f"SimulatePrincipalPolicy with {member} isn't available here; leave it out.", subject="member"
                )
        source = parse_arn(request["PolicySourceArn"])
        if source.service != "iam" or source.account != caller.account or source.kind not in ("user", "role"):
            raise InvalidRequest("PolicySourceArn must be the ARN of a user or role of this account.", subject="iam-input")
        owner = Owner(kind=OwnerKind(source.kind), name=source.resource.rpartition("/")[2])
        extra = tuple(CompiledPolicy.parse(text, Kind.MANAGED) for text in request.get("PolicyInputList", ()))

        def load(tx: Tx) -> Grants:
            if owner.kind is OwnerKind.USER:
                self.identities.user(tx, caller.account, owner.name)
            else:
                self.identities.role(tx, caller.account, owner.name)
            return self.grants.of(tx, PrincipalKey(caller.account, owner))

        grants = await self.work.read(load)
        if extra:
            grants = Grants(identity=(*grants.identity, *extra), narrowing=grants.narrowing)
        context = {
            "aws:PrincipalArn": (str(source),),
            "aws:PrincipalAccount": (source.account,),
            "aws:CurrentTime": (as_datetime(caller.now).isoformat(),),
            "aws:EpochTime": (str(caller.now // 1000),),
        }
        for entry in request.get("ContextEntries", ()):
            context[entry["ContextKeyName"]] = tuple(entry.get("ContextKeyValues", ()))
        results: list[dict[str, Any]] = []
        for action in request["ActionNames"]:
            for resource in request.get("ResourceArns") or ("*",):
                question = Question(action=action, resource=resource, context=context_of(context))
                decision = grants.decide(question)
                results.append(
                    {
                        "EvalActionName": action,
                        "EvalResourceName": resource,
                        "EvalDecision": decision.value,
                        "MatchedStatements": [],
                        "MissingContextValues": [],
                    }
                )
        return {"EvaluationResults": results, "IsTruncated": False}


def _path(policy_arn: str) -> str:
    return parse_arn(policy_arn).resource.removeprefix("policy").rpartition("/")[0] + "/"


def _policy(policy: ManagedPolicy, attachments: int) -> dict[str, Any]:
    return {
        "PolicyName": policy.name,
        "PolicyId": policy.policy_id,
        "Arn": policy.arn,
        "Path": policy.path,
        "DefaultVersionId": f"v{policy.default_version}",
        "AttachmentCount": attachments,
        "PermissionsBoundaryUsageCount": 0,
        "IsAttachable": True,
        "CreateDate": policy.created,
        "UpdateDate": policy.updated,
        "Tags": [{"Key": key, "Value": value} for key, value in policy.tags.items()] or None,
    }


def _version(version: PolicyVersion, default: int) -> dict[str, Any]:
    return {
        "VersionId": f"v{version.number}",
        "IsDefaultVersion": version.number == default,
        "CreateDate": version.created,
    }
