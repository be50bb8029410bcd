"""The decisions: may this operator do that, may this role be taken on, may this role do that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from overair.basics.arn import Place, parse_arn
from overair.basics.clock import Clock, Instant, as_datetime
from overair.basics.errors import AccessDenied, InvalidRequest
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.access.grants import Grants, GrantsDirectory, PrincipalKey, compiled, principal_of
from overair.server.access.model import IOT_SERVICE, AssumedRole, Owner, OwnerKind, Role
from overair.server.access.stores import IdentityStore
from overair.server.aws_protocol.operations import Caller
from overair.server.policy_language.conditions import context_of
from overair.server.policy_language.document import Kind
from overair.server.policy_language.evaluation import (
    CompiledPolicy,
    Decision,
    Principal,
    Question,
    allows_by_name,
    evaluate_for,
    together,
)

__all__ = ["AccessService", "AssumedRole", "denied", "judge"]

Values = Mapping[str, str | tuple[str, ...]]
_NOTHING: Final[Values] = {}
SERVICE_SESSION_NAME: Final = "overair-iot"
_BY_IDENTITY: Final = "identity-based policy"
_BY_RESOURCE: Final = "resource-based policy"


class AccessService:
    """What other rooms ask about permissions. Denials are ``AccessDenied`` in the cloud's own words (wire reference §12.4)."""

    def __init__(self, store: IdentityStore, grants: GrantsDirectory, *, clock: Clock) -> None:
        self._store = store
        self._grants = grants
        self._clock = clock

    def require(self, tx: Tx, caller: Caller, action: str, resource: str, *, context: Values = _NOTHING) -> None:
        """Return if the caller's own policies allow ``action`` (``iot:CreateJob``) on ``resource`` (an ARN).

        Raises:
            AccessDenied: they don't. Subject ``action``; details ``action`` and ``resource``.
        """
        key = principal_of(caller)
        grants = None if key is None else self._grants.of(tx, key)
        judge(caller, grants, (action,), resource, context=context)

    def require_pass_role(self, tx: Tx, caller: Caller, role_arn: str) -> None:
        """Return if the caller may hand this role to our IoT service (``iam:PassRole``).

        Raises:
            InvalidRequest: it isn't the ARN of a role. Subject ``role``.
            AccessDenied: not allowed, or a role of another account.
        """
        account, _ = _role_of(role_arn)
        if account != caller.account:
            raise denied(caller.principal_arn, "iam:PassRole", role_arn, Decision.IMPLICIT_DENY)
        self.require(tx, caller, "iam:PassRole", role_arn, context={"iam:PassedToService": IOT_SERVICE})

    def assume_as_service(self, tx: Tx, place: Place, role_arn: str, *, source_arn: str) -> AssumedRole:
        """Take on a role for work that an operator asked for, as ``iot.amazonaws.com``.

        Its trust policy is judged with ``aws:SourceAccount`` and ``aws:SourceArn`` of that work (the update, job or stream).

        Raises:
            InvalidRequest: there is no such role in this account, or it doesn't trust the service. Subject ``role``.
        """
        account, name = _role_of(role_arn)
        role = self._store.find_role(tx, account, name) if account == place.account else None
        if role is None or role.arn != role_arn:
            raise InvalidRequest(
                f"The role {role_arn} cannot be assumed: there is no such role in account {place.account}.", subject="role"
            )
        context = context_of({"aws:SourceAccount": place.account, "aws:SourceArn": source_arn, **_moment(self._clock.now())})
        question = Question(action="sts:AssumeRole", resource=role.arn, context=context)
        trust = evaluate_for([compiled(role.trust_document, Kind.TRUST)], question, Principal(service=IOT_SERVICE))
        if trust is not Decision.ALLOW:
            raise InvalidRequest(
                f"The role {role_arn} cannot be assumed: its trust policy doesn't let {IOT_SERVICE} call sts:AssumeRole "
                f"for {source_arn}.",
                subject="role",
            )
        return _assumed(place, role, source_arn)

    def require_for_role(
        self,
        tx: Tx,
        role: AssumedRole,
        action: str,
        resource: str,
        *,
        resource_policy: str | None = None,
        context: Values = _NOTHING,
    ) -> None:
        """Return if the role's policies allow it, or the resource's own policy allows it to the role or to the service that
        took the role on (``iot.amazonaws.com``), and nothing denies it.

        Raises:
            AccessDenied: see ``require``.
        """
        owner = Owner(kind=OwnerKind.ROLE, name=role.role_name)
        grants = self._grants.of(tx, PrincipalKey(role.place.account, owner))
        values = {
            "aws:PrincipalArn": role.role_arn,
            "aws:PrincipalAccount": role.place.account,
            "aws:PrincipalType": "AssumedRole",
            "aws:userid": f"{role.role_id}:{SERVICE_SESSION_NAME}",
            "aws:SourceArn": role.source_arn,
            "aws:SourceAccount": role.place.account,
            "aws:RequestedRegion": role.place.region,
            "aws:SecureTransport": "true",
            **_moment(self._clock.now()),
            **context,
        }
        question = Question(action=action, resource=resource, context=context_of(values))
        decisions = [grants.decide(question)]
        if resource_policy is not None:
            policies = [compiled(resource_policy, Kind.RESOURCE)]
            session = Principal(account=role.place.account, arns=(role.session_arn, role.role_arn))
            decisions.append(granted_by_resource(policies, question, session, grants))
            decisions.append(evaluate_for(policies, question, Principal(service=IOT_SERVICE)))
        decision = together(decisions)
        if decision is not Decision.ALLOW:
            by_resource = decisions[0] is not Decision.EXPLICIT_DENY
            kind = _BY_RESOURCE if by_resource and decision is Decision.EXPLICIT_DENY else grants.refusal(question)
            raise denied(role.session_arn, action, resource, decision, kind=kind)


def judge(
    caller: Caller,
    grants: Grants | None,
    actions: tuple[str, ...],
    resource: str,
    *,
    context: Values = _NOTHING,
    resource_policy: str | None = None,
) -> None:
    """Return if any of ``actions`` (different names of one permission) is allowed and none is denied.

    ``grants`` is None for the account's root, whom only a resource's own policy can deny.

    Raises:
        AccessDenied: see ``AccessService.require``.
    """
    if grants is None and resource_policy is None:
        return
    values = context_of({**caller.context, **context})
    decisions = []
    kind: str | None = None
    for action in actions:
        question = Question(action=action, resource=resource, context=values)
        own = Decision.ALLOW if grants is None else grants.decide(question)
        decisions.append(own)
        if resource_policy is not None:
            theirs = granted_by_resource([compiled(resource_policy, Kind.RESOURCE)], question, as_principal(caller), grants)
            if theirs is Decision.EXPLICIT_DENY and own is not Decision.EXPLICIT_DENY:
                kind = _BY_RESOURCE
            decisions.append(theirs)
    decision = together(decisions)
    if decision is not Decision.ALLOW:
        if kind is None and grants is not None:
            asked = (Question(action=action, resource=resource, context=values) for action in actions)
            kind = next((grants.refusal(question) for question in asked if grants.decide(question) is decision), None)
        raise denied(caller.principal_arn, actions[0], resource, decision, kind=kind or _BY_IDENTITY)


def granted_by_resource(
    policies: Sequence[CompiledPolicy], question: Question, principal: Principal, grants: Grants | None
) -> Decision:
    """What a resource's own policy decides for one principal of its account.

    What it allows to the principal's own ARN counts as it stands; what it allows to others that the principal answers to
    (everyone, the role of a session) counts within the principal's boundary and session policy.
    """
    theirs = evaluate_for(policies, question, principal)
    if theirs is not Decision.ALLOW or grants is None or grants.narrowed(question) is Decision.ALLOW:
        return theirs
    return theirs if allows_by_name(policies, question, principal.arns[0]) else Decision.IMPLICIT_DENY


def as_principal(caller: Caller) -> Principal:
    """A caller as resource and trust policies name it."""
    arns = [caller.principal_arn]
    role_arn = caller.context.get("aws:PrincipalArn")
    if role_arn and role_arn[0] not in arns:
        arns.append(role_arn[0])
    return Principal(account=caller.account, arns=tuple(arns), is_root=caller.is_root)


def denied(principal_arn: str, action: str, resource: str, decision: Decision, *, kind: str = _BY_IDENTITY) -> AccessDenied:
    """The refusal, in the words that clients know."""
    said = f"User: {principal_arn} is not authorized to perform: {action} on resource: {resource}"
    if decision is Decision.EXPLICIT_DENY:
        why = f"with an explicit deny in {'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    else:
        why = f"because no {kind} allows the {action} action"
    return AccessDenied(f"{said} {why}", subject="action", details={"action": action, "resource": resource})


def _moment(now: Instant) -> dict[str, str]:
    return {"aws:CurrentTime": as_datetime(now).isoformat(), "aws:EpochTime": str(now // 1000)}


def _role_of(role_arn: str) -> tuple[AccountId, str]:
    try:
        arn = parse_arn(role_arn)
    except InvalidRequest:
        arn = None
    if arn is None or arn.service != "iam" or arn.kind != "role" or not arn.name.rpartition("/")[2]:
        raise InvalidRequest(
            f"{role_arn[:200]!r} is not the ARN of a role. One reads arn:aws:iam::ACCOUNT:role/NAME.", subject="role"
        )
    return AccountId(arn.account), arn.name.rpartition("/")[2]


def _assumed(place: Place, role: Role, source_arn: str) -> AssumedRole:
    return AssumedRole(
        place=place,
        role_arn=role.arn,
        role_name=role.name,
        role_id=role.role_id,
        session_arn=f"arn:aws:sts::{role.account}:assumed-role/{role.name}/{SERVICE_SESSION_NAME}",
        source_arn=source_arn,
    )
