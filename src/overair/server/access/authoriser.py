"""May this proved caller do this operation? One decision for every request, before its handler runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from overair.basics.errors import AccessDenied
from overair.basics.work import Work
from overair.server.access.actions import Need, operation_table, tag_context
from overair.server.access.actions_iam import Named, holder_context, identity_context
from overair.server.access.actions_objects import copy_source, object_context
from overair.server.access.bucket_policies import BucketPolicyMemory
from overair.server.access.grants import Grants, GrantsDirectory, principal_of
from overair.server.access.link_keys import LINK_KEY_PREFIX
from overair.server.access.model import Owner, UserGroup
from overair.server.access.service import judge
from overair.server.access.sessions import TEMPORARY
from overair.server.access.stores import ResourcePolicies, ResourceTags
from overair.server.aws_protocol.operations import Caller, Request

LINK_OPERATIONS: Final = frozenset({("s3", "GetObject"), ("s3", "HeadObject")})
"""All that a key in a device's download link is good for, whatever its role may do."""

TEMPORARY_OPERATIONS: Final = frozenset({("sts", "AssumeRole"), ("sts", "GetCallerIdentity"), ("sts", "GetSessionToken")})
"""All of IAM and STS that a user's temporary keys are good for; what GetSessionToken refuses them it says itself."""

_TAGGED: Final = ("arn:aws:iot:", "arn:aws:acm:", "arn:aws:signer:", "arn:aws:iam:")
"""Resources whose tags are looked up, for principals whose policies depend on them."""

# Whoever has locked himself out of a bucket with its policy must be able to mend that: the root always may.
_BUCKET_POLICY_ACTIONS = frozenset({"s3:PutBucketPolicy", "s3:GetBucketPolicy", "s3:DeleteBucketPolicy"})


class PolicyAuthoriser:
    """The operator door's ``Authoriser``: ``actions`` over the caller's policies, and over a bucket's own."""

    def __init__(
        self,
        work: Work,
        grants: GrantsDirectory,
        resource_policies: ResourcePolicies,
        bucket_policies: BucketPolicyMemory | None = None,
        tags: ResourceTags | None = None,
    ) -> None:
        """``bucket_policies`` remembers, if it listens to *objects*; without one the records are asked at each request.
        ``tags``: None where nothing carries any."""
        self._work = work
        self._grants = grants
        self._resource_policies = resource_policies
        self._bucket_policies = bucket_policies
        self._tags = tags
        self._table = operation_table()

    def knows(self, service: str, operation: str) -> bool:
        """Whether the table has a row; the composition root holds every registered operation against this."""
        return (service, operation) in self._table

    async def authorise(self, caller: Caller, service: str, operation: str, request: Request) -> str:
        """See ``aws_protocol.authentication.Authoriser``."""
        if caller.access_key_id.startswith(LINK_KEY_PREFIX) and (service, operation) not in LINK_OPERATIONS:
            raise AccessDenied(
                f"User: {caller.principal_arn} is not authorized to perform: {service}:{operation}: a link's key reads objects "
                "and does nothing else.",
                subject="action",
                details={"action": f"{service}:{operation}", "resource": "*"},
            )
        is_of_user = caller.access_key_id.startswith(TEMPORARY) and not caller.session_name
        if is_of_user and service in ("iam", "sts") and (service, operation) not in TEMPORARY_OPERATIONS:
            raise AccessDenied(
                f"User: {caller.principal_arn} is not authorized to perform: {service}:{operation}: temporary keys of a user "
                "change no identities. Use the user's own key, or take on a role.",
                subject="action",
                details={"action": f"{service}:{operation}", "resource": "*"},
            )
        needs = self._table.get((service, operation))
        if needs is None:
            raise AccessDenied(
                f"User: {caller.principal_arn} is not authorized to perform: {service}:{operation}: no rule is known for it.",
                subject="action",
                details={"action": f"{service}:{operation}", "resource": "*"},
            )
        if caller.is_root and service != "s3":
            return _first_resource(caller, needs, request)
        key = principal_of(caller)
        grants = None if key is None else await self._grants.fetch(self._work, key)
        if service == "s3":
            return await self._object(caller, grants, operation, needs, request)
        context = tag_context(request)
        if service == "iam":
            context |= identity_context(operation, request)
        first = "*"
        for wanted in needs:
            if not wanted.applies(request):
                continue
            told: Mapping[str, tuple[str, ...]] = context
            if isinstance(wanted.resources, Named) and not wanted.resources.new:
                resource, about = await self._holder(caller, wanted.resources, operation, request)
                resources: Sequence[str] = (resource,)
                told = {**context, **about}
            else:
                resources = wanted.resources(caller.place, request)
            first = first if first != "*" or not resources else resources[0]
            for resource in resources:
                tags: Mapping[str, tuple[str, ...]] = {}
                if grants is not None and grants.asks_for_tags and resource.startswith(_TAGGED):
                    tags = await self._tags_of(caller, resource)
                judge(caller, grants, wanted.actions, resource, context={**told, **tags} if tags else told)
        return first

    async def _object(
        self, caller: Caller, grants: Grants | None, operation: str, needs: Sequence[Need], request: Request
    ) -> str:
        bucket = str(request.get("Bucket", ""))
        buckets = {bucket, copy_source(request)[0]} if "CopySource" in request else {bucket}
        policies = await self._policies(caller, operation, buckets - {""})
        context = {**tag_context(request), **object_context(operation, request)}
        first = "*"
        for wanted in needs:
            if not wanted.applies(request):
                continue
            for resource in wanted.resources(caller.place, request):
                first = resource if first == "*" else first
                policy = policies.get(resource.removeprefix("arn:aws:s3:::").partition("/")[0])
                if caller.is_root and wanted.actions[0] in _BUCKET_POLICY_ACTIONS:
                    policy = None
                judge(caller, grants, wanted.actions, resource, context=context, resource_policy=policy)
        return first

    async def _policies(self, caller: Caller, operation: str, buckets: set[str]) -> Mapping[str, str]:
        memory = self._bucket_policies or BucketPolicyMemory()
        if operation == "CreateBucket":
            for bucket in buckets:
                memory.forget(caller.account, bucket)
        return await memory.fetch(self._work, self._resource_policies, caller.place, buckets)

    async def _tags_of(self, caller: Caller, resource: str) -> Mapping[str, tuple[str, ...]]:
        tags = self._tags
        if tags is None:
            return {}
        found = await self._work.read(lambda tx: tags.tags_of(tx, caller.account, resource))
        prefixes = ("aws", "iam") if resource.startswith("arn:aws:iam:") else ("aws",)
        return {f"{prefix}:ResourceTag/{key}": (value,) for key, value in found.items() for prefix in prefixes}

    async def _holder(
        self, caller: Caller, named: Named, operation: str, request: Request
    ) -> tuple[str, Mapping[str, tuple[str, ...]]]:
        """The ARN of the user, group or role that a request names, and the condition keys that tell of it."""
        name = request.get(named.member)
        if not isinstance(name, str):
            # GetUser and the key operations without a name are about the caller.
            return caller.principal_arn, {}

        owner = Owner(kind=named.kind, name=name)
        found = await self._work.read(lambda tx: self._grants.holder(tx, caller.account, owner))
        path = "/" if found is None else found.path
        if named.new_name is not None:
            path, name = str(request.get("NewPath", path)), str(request.get(named.new_name, name))
        arn = caller.place.iam(f"{named.kind.value}{path}{name}")
        if found is None or isinstance(found, UserGroup):
            return arn, {}
        return arn, holder_context(operation, request, found.boundary_arn, found.tags)


def _first_resource(caller: Caller, needs: Sequence[Need], request: Request) -> str:
    for wanted in needs:
        if wanted.applies(request):
            for resource in wanted.resources(caller.place, request):
                return resource
    return "*"
