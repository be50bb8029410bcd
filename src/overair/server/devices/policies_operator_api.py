"""The operator's door to device policies (service ``iot``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from overair.basics.errors import InvalidRequest
from overair.basics.ids import PolicyName, ThingName
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.devices.model import PolicyTarget, TargetKind
from overair.server.devices.policies import KIND, PoliciesService

VERSION_DIGITS_MAX: Final = 9


class PoliciesOperatorApi:
    """Policies, versions and attachments, by today's operations and by the old ones on principals."""

    def __init__(self, *, work: Work, policies: PoliciesService) -> None:
        self.work = work
        self.policies = policies

    @operation("iot", "CreatePolicy")
    async def create_policy(self, caller: Caller, request: Request) -> Members:
        name, document = PolicyName(request["policyName"]), request["policyDocument"]
        tags = {tag["Key"]: tag.get("Value", "") for tag in request.get("tags", ())}
        made = await self.work.run(lambda tx: self.policies.create(tx, caller.place, name, document, tags))
        return {
            "policyName": made.name,
            "policyArn": caller.place.iot(KIND, made.name),
            "policyDocument": made.document,
            "policyVersionId": str(made.default_version),
        }

    @operation("iot", "GetPolicy")
    async def get_policy(self, caller: Caller, request: Request) -> Members:
        name = PolicyName(request["policyName"])
        found = await self.work.read(lambda tx: self.policies.find(tx, caller.account, name))
        return {
            "policyName": found.name,
            "policyArn": caller.place.iot(KIND, found.name),
            "policyDocument": found.document,
            "defaultVersionId": str(found.default_version),
            "creationDate": found.created_at,
            "lastModifiedDate": found.modified_at,
            "generationId": found.generation_id,
        }

    @operation("iot", "DeletePolicy")
    async def delete_policy(self, caller: Caller, request: Request) -> Members:
        name = PolicyName(request["policyName"])
        await self.work.run(lambda tx: self.policies.delete(tx, caller.place, name))
        return {}

    @operation("iot", "ListPolicies")
    async def list_policies(self, caller: Caller, request: Request) -> Members:
        after = read_page_token(request.get("marker"), tuple[int, str], name="marker")
        limit, ascending = request.get("pageSize", PAGE_SIZE_DEFAULT), request.get("ascendingOrder", False)
        rows = await self.work.read(
            lambda tx: self.policies.page(tx, caller.account, after=after, limit=limit + 1, ascending=ascending)
        )
        page, marker = cut(rows, limit, lambda row: row)
        return {"policies": [_name_and_arn(caller, name) for _, name in page], "nextMarker": marker}

    @operation("iot", "CreatePolicyVersion")
    async def create_policy_version(self, caller: Caller, request: Request) -> Members:
        name, document = PolicyName(request["policyName"]), request["policyDocument"]
        as_default = request.get("setAsDefault", False)
        made = await self.work.run(
            lambda tx: self.policies.create_version(tx, caller.account, name, document, as_default=as_default)
        )
        return {
            "policyArn": caller.place.iot(KIND, name),
            "policyDocument": made.document,
            "policyVersionId": str(made.version),
            "isDefaultVersion": made.is_default,
        }

    @operation("iot", "GetPolicyVersion")
    async def get_policy_version(self, caller: Caller, request: Request) -> Members:
        name, number = PolicyName(request["policyName"]), _version(request)
        policy, found = await self.work.read(
            lambda tx: (
                self.policies.find(tx, caller.account, name),
                self.policies.version(tx, caller.account, name, number),
            )
        )
        return {
            "policyArn": caller.place.iot(KIND, name),
            "policyName": name,
            "policyDocument": found.document,
            "policyVersionId": str(found.version),
            "isDefaultVersion": found.is_default,
            "creationDate": found.created_at,
            "lastModifiedDate": found.created_at,
            "generationId": policy.generation_id,
        }

    @operation("iot", "ListPolicyVersions")
    async def list_policy_versions(self, caller: Caller, request: Request) -> Members:
        name = PolicyName(request["policyName"])
        found = await self.work.read(lambda tx: self.policies.versions(tx, caller.account, name))
        return {
            "policyVersions": [
                {"versionId": str(row.version), "isDefaultVersion": row.is_default, "createDate": row.created_at}
                for row in found
            ]
        }

    @operation("iot", "DeletePolicyVersion")
    async def delete_policy_version(self, caller: Caller, request: Request) -> Members:
        name, number = PolicyName(request["policyName"]), _version(request)
        await self.work.run(lambda tx: self.policies.delete_version(tx, caller.account, name, number))
        return {}

    @operation("iot", "SetDefaultPolicyVersion")
    async def set_default_policy_version(self, caller: Caller, request: Request) -> Members:
        name, number = PolicyName(request["policyName"]), _version(request)
        await self.work.run(lambda tx: self.policies.set_default(tx, caller.account, name, number))
        return {}

    @operation("iot", "AttachPolicy")
    async def attach_policy(self, caller: Caller, request: Request) -> Members:
        await self._attach(caller, request["policyName"], request["target"])
        return {}

    @operation("iot", "AttachPrincipalPolicy")
    async def attach_principal_policy(self, caller: Caller, request: Request) -> Members:
        await self._attach(caller, request["policyName"], request["principal"])
        return {}

    @operation("iot", "DetachPolicy")
    async def detach_policy(self, caller: Caller, request: Request) -> Members:
        await self._detach(caller, request["policyName"], request["target"])
        return {}

    @operation("iot", "DetachPrincipalPolicy")
    async def detach_principal_policy(self, caller: Caller, request: Request) -> Members:
        await self._detach(caller, request["policyName"], request["principal"])
        return {}

    @operation("iot", "ListAttachedPolicies")
    async def list_attached_policies(self, caller: Caller, request: Request) -> Members:
        return await self._attached(caller, request, request["target"], recursive=request.get("recursive", False))

    @operation("iot", "ListPrincipalPolicies")
    async def list_principal_policies(self, caller: Caller, request: Request) -> Members:
        return await self._attached(caller, request, request["principal"], recursive=False)

    @operation("iot", "ListTargetsForPolicy")
    async def list_targets_for_policy(self, caller: Caller, request: Request) -> Members:
        page, marker = await self._targets(caller, request, lambda target: True)
        return {"targets": [target.arn(caller.place) for target in page], "nextMarker": marker}

    @operation("iot", "ListPolicyPrincipals")
    async def list_policy_principals(self, caller: Caller, request: Request) -> Members:
        # Kinds sort "cert" before "thinggroup": the certificates of a policy are its first targets.
        page, marker = await self._targets(caller, request, lambda target: target.kind is TargetKind.CERTIFICATE)
        return {"principals": [target.arn(caller.place) for target in page], "nextMarker": marker}

    @operation("iot", "GetEffectivePolicies")
    async def get_effective_policies(self, caller: Caller, request: Request) -> Members:
        if "cognitoIdentityPoolId" in request:
            raise InvalidRequest(
                "Overair has no Cognito identities. Give a certificate's ARN as principal.", subject="principal"
            )
        principal, thing = request.get("principal"), request.get("thingName")
        found = await self.work.read(
            lambda tx: self.policies.effective(tx, caller.place, principal, None if thing is None else ThingName(thing))
        )
        return {
            "effectivePolicies": [{**_name_and_arn(caller, policy.name), "policyDocument": policy.document} for policy in found]
        }

    async def _attach(self, caller: Caller, name: str, target: str) -> None:
        await self.work.run(lambda tx: self.policies.attach(tx, caller.place, PolicyName(name), target))

    async def _detach(self, caller: Caller, name: str, target: str) -> None:
        await self.work.run(lambda tx: self.policies.detach(tx, caller.place, PolicyName(name), target))

    async def _attached(self, caller: Caller, request: Request, target: str, *, recursive: bool) -> Members:
        position = read_page_token(request.get("marker"), tuple[str], name="marker")
        after = None if position is None else position[0]
        limit = request.get("pageSize", PAGE_SIZE_DEFAULT)
        rows = await self.work.read(
            lambda tx: self.policies.attached(tx, caller.place, target, recursive=recursive, after=after, limit=limit + 1)
        )
        page, marker = cut(rows, limit, lambda name: (name,))
        return {"policies": [_name_and_arn(caller, name) for name in page], "nextMarker": marker}

    async def _targets(self, caller: Caller, request: Request, wanted: Any) -> tuple[Sequence[PolicyTarget], str | None]:
        name = PolicyName(request["policyName"])
        after = read_page_token(request.get("marker"), tuple[str, str], name="marker")
        limit = request.get("pageSize", PAGE_SIZE_DEFAULT)

        def find(tx: Tx) -> Sequence[PolicyTarget]:
            rows = self.policies.targets(tx, caller.account, name, after=after, limit=limit + 1)
            return [target for target in rows if wanted(target)]

        return cut(await self.work.read(find), limit, lambda target: (target.kind.value, target.name))


def _name_and_arn(caller: Caller, name: PolicyName) -> dict[str, str]:
    return {"policyName": name, "policyArn": caller.place.iot(KIND, name)}


def _version(request: Request) -> int:
    digits: str = request["policyVersionId"]
    # The model lets any run of digits through; a number that no policy can have is simply not there.
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= VERSION_DIGITS_MAX else -1
