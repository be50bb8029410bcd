"""The operator's door to the simulator: may he do that, and which statement says so (service ``iam``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from overair.basics.arn import Arn, parse_arn
from overair.basics.clock import as_datetime
from overair.basics.errors import InvalidRequest, NotFound, Unsupported
from overair.basics.work import Tx, Work
from overair.server.access.aws_managed import AWS_MANAGED
from overair.server.access.grants import INLINE_KINDS, compiled
from overair.server.access.groups import UserGroups
from overair.server.access.identities import Identities
from overair.server.access.model import Owner, OwnerKind, Role, User, UserGroup
from overair.server.access.operator_api import MAX_ITEMS_DEFAULT, MAX_ITEMS_MAX
from overair.server.access.policies import Policies
from overair.server.access.simulation import Outcome, Simulation, Source, context_keys, sources_of
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import page_token, read_page_token
from overair.server.policy_language.conditions import Context, context_of
from overair.server.policy_language.document import Kind
from overair.server.policy_language.evaluation import Principal, Question
from overair.server.policy_language.positions import statement_positions

_ACTION: Final = re.compile(r"[A-Za-z0-9-]+:[A-Za-z0-9]+")
_NOT_HERE: Final = ("PolicyExclusionList", "OrderedOrganizationPolicyInputList", "ResourceHandlingOption")


class SimulationOperatorApi:
    """What a principal's policies, or policies that aren't put anywhere yet, would decide."""

    def __init__(self, *, work: Work, policies: Policies, identities: Identities, groups: UserGroups) -> None:
        self.work = work
        self.policies = policies
        self.identities = identities
        self.groups = groups

    @operation("iam", "SimulatePrincipalPolicy")
    async def simulate_principal_policy(self, caller: Caller, request: Request) -> Members:
        owner, arn = _source(caller, request)
        extra = sources_of(request.get("PolicyInputList", ()), name="PolicyInputList")

        def run(tx: Tx) -> Members:
            held = self._holder(tx, caller, owner, arn)
            boundary_arn = None if isinstance(held, UserGroup) else held.boundary_arn
            tags = {} if isinstance(held, UserGroup) else {f"aws:PrincipalTag/{key}": value for key, value in held.tags.items()}
            boundary = None if boundary_arn is None else [self._managed(tx, caller, boundary_arn)]
            named = {"aws:username": owner.name} if owner.kind is OwnerKind.USER else {}
            who = {} if owner.kind is OwnerKind.GROUP else {"aws:PrincipalArn": str(arn), "aws:PrincipalAccount": arn.account}
            simulation = self._simulation(caller, request, [*self._of(tx, caller, owner), *extra], boundary, arn)
            return _answer(simulation, request, context_of({**_moment(caller), **who, **named, **tags, **_entries(request)}))

        return await self.work.read(run)

    @operation("iam", "SimulateCustomPolicy")
    async def simulate_custom_policy(self, caller: Caller, request: Request) -> Members:
        given = sources_of(request["PolicyInputList"], name="PolicyInputList")
        simulation = self._simulation(caller, request, given, None, None)
        context = context_of({**_moment(caller), **_entries(request)})
        # On a reader's thread: many questions of long policies are work, and others wait on the loop.
        return await self.work.read(lambda _: _answer(simulation, request, context))

    @operation("iam", "GetContextKeysForPrincipalPolicy")
    async def get_context_keys_for_principal_policy(self, caller: Caller, request: Request) -> Members:
        owner, arn = _source(caller, request)
        extra = sources_of(request.get("PolicyInputList", ()), name="PolicyInputList")

        def own(tx: Tx) -> list[Source]:
            self._holder(tx, caller, owner, arn)
            return self._of(tx, caller, owner)

        return _keys([*await self.work.read(own), *extra])

    @operation("iam", "GetContextKeysForCustomPolicy")
    async def get_context_keys_for_custom_policy(self, caller: Caller, request: Request) -> Members:
        return _keys(sources_of(request["PolicyInputList"], name="PolicyInputList"))

    def _holder(self, tx: Tx, caller: Caller, owner: Owner, arn: Arn) -> User | UserGroup | Role:
        """Whom the ARN names, its path included: the caller's right is to that ARN. Raises NotFound."""
        held: User | UserGroup | Role
        if owner.kind is OwnerKind.USER:
            held = self.identities.user(tx, caller.account, owner.name)
        elif owner.kind is OwnerKind.GROUP:
            held = self.groups.find(tx, caller.account, owner.name)
        else:
            held = self.identities.role(tx, caller.account, owner.name)
        if held.arn != str(arn):
            raise NotFound(f"The {owner.kind.value} {str(arn)[:200]} cannot be found.", subject="iam")
        return held

    def _of(self, tx: Tx, caller: Caller, owner: Owner) -> list[Source]:
        """Everything that is put on an owner and attached to it, and to a user's groups. Raises NotFound."""
        owners = [owner]
        if owner.kind is OwnerKind.USER:
            groups = self.groups.groups_of(tx, caller.account, owner.name)
            owners += [Owner(kind=OwnerKind.GROUP, name=group.name) for group in groups]
        found: list[Source] = []
        for each in owners:
            kind = each.kind.value
            for name, text in self.policies.list_inline(tx, caller.account, each).items():
                found.append(Source(f"{kind}_{each.name}_{name}", kind, text, compiled(text, INLINE_KINDS[each.kind])))
            found += [self._managed(tx, caller, arn) for arn in self.policies.attached_to(tx, caller.account, each)]
        return found

    def _managed(self, tx: Tx, caller: Caller, arn: str) -> Source:
        policy = self.policies.find(tx, caller.account, arn)
        text = self.policies.version(tx, caller.account, arn, f"v{policy.default_version}").document
        kind = "aws-managed" if arn in AWS_MANAGED else "user-managed"
        return Source(policy.name, kind, text, compiled(text, Kind.MANAGED))

    def _simulation(
        self,
        caller: Caller,
        request: Request,
        identity: Sequence[Source],
        boundary: Sequence[Source] | None,
        source: Arn | None,
    ) -> Simulation:
        for member in _NOT_HERE:
            if request.get(member):
                raise Unsupported(f"The simulator doesn't have {member}; leave it out.", subject="member")
        if request.get("PermissionsBoundaryPolicyInputList"):
            given = request["PermissionsBoundaryPolicyInputList"]
            boundary = sources_of(given, name="PermissionsBoundaryPolicyInputList")
        resource: Sequence[Source] = ()
        principal = None
        if request.get("ResourcePolicy"):
            resource = sources_of([request["ResourcePolicy"]], name="ResourcePolicy", kind="resource")
            asking = parse_arn(request["CallerArn"]) if request.get("CallerArn") else source
            if asking is None or asking.service != "iam" or asking.account != caller.account or asking.kind == "group":
                raise InvalidRequest(
                    "With ResourcePolicy, CallerArn names who asks: the ARN of a user or role of this account.",
                    subject="iam-input",
                )
            principal = Principal(account=asking.account, arns=(str(asking),))
        return Simulation(identity=identity, boundary=boundary, resource=resource, principal=principal)


def _source(caller: Caller, request: Request) -> tuple[Owner, Arn]:
    arn = parse_arn(request["PolicySourceArn"])
    kinds = {kind.value: kind for kind in OwnerKind}
    if arn.service != "iam" or arn.account != caller.account or arn.kind not in kinds:
        raise InvalidRequest("PolicySourceArn must be the ARN of a user, group or role of this account.", subject="iam-input")
    return Owner(kind=kinds[arn.kind], name=arn.resource.rpartition("/")[2]), arn


def _moment(caller: Caller) -> dict[str, str]:
    return {"aws:CurrentTime": as_datetime(caller.now).isoformat(), "aws:EpochTime": str(caller.now // 1000)}


def _entries(request: Request) -> dict[str, tuple[str, ...]]:
    entries = request.get("ContextEntries", ())
    return {entry["ContextKeyName"]: tuple(entry.get("ContextKeyValues", ())) for entry in entries if "ContextKeyName" in entry}


def _keys(sources: Sequence[Source]) -> Members:
    return {"ContextKeyNames": sorted({name for source in sources for name in context_keys(source.text)})}


def _answer(simulation: Simulation, request: Request, context: Context) -> Members:
    actions, resources = request["ActionNames"], request.get("ResourceArns") or ("*",)
    for action in actions:
        if not _ACTION.fullmatch(action):
            raise InvalidRequest(f"{action[:80]!r} is no action; an action reads service:Name.", subject="iam-input")
    position = read_page_token(request.get("Marker"), tuple[int], name="Marker")
    begin = position[0] if position else 0
    limit = min(request.get("MaxItems", MAX_ITEMS_DEFAULT), MAX_ITEMS_MAX, simulation.questions_max)
    total = len(actions) * len(resources)
    results = []
    for number in range(max(begin, 0), min(begin + limit, total)):
        action, resource = actions[number // len(resources)], resources[number % len(resources)]
        outcome = simulation.ask(Question(action=action, resource=resource, context=context))
        results.append({"EvalActionName": action, "EvalResourceName": resource, **_outcome(outcome)})
    truncated = begin + limit < total
    return {
        "EvaluationResults": results,
        "IsTruncated": truncated,
        "Marker": page_token((begin + limit,)) if truncated else None,
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    matched = []
    for source, number in outcome.matched:
        (line, column), (last_line, last_column) = statement_positions(source.text)[number]
        matched.append(
            {
                "SourcePolicyId": source.policy_id,
                "SourcePolicyType": source.kind,
                "StartPosition": {"Line": line, "Column": column},
                "EndPosition": {"Line": last_line, "Column": last_column},
            }
        )
    boundary = outcome.allowed_by_boundary
    return {
        "EvalDecision": outcome.decision.value,
        "MatchedStatements": matched,
        "MissingContextValues": list(outcome.missing),
        "PermissionsBoundaryDecisionDetail": None if boundary is None else {"AllowedByPermissionsBoundary": boundary},
    }
