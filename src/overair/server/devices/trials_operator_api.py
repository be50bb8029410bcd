"""The operator's door to trials of policies (service ``iot``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from overair.basics.errors import InvalidRequest
from overair.basics.ids import PolicyName
from overair.basics.work import Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.devices.policies import KIND
from overair.server.devices.trials import ACTIONS, Trial, TrialsService, Verdict
from overair.server.policy_language.evaluation import Decision
from overair.server.policy_language.reasons import StatementReason

_DECISIONS: Final = {
    Decision.ALLOW: "ALLOWED",
    Decision.EXPLICIT_DENY: "EXPLICIT_DENY",
    Decision.IMPLICIT_DENY: "IMPLICIT_DENY",
}


class TrialsOperatorApi:
    """TestAuthorization, and our own ExplainDeviceRights, which names statements."""

    def __init__(self, *, work: Work, trials: TrialsService) -> None:
        self.work = work
        self.trials = trials

    @operation("iot", "TestAuthorization")
    async def test_authorization(self, caller: Caller, request: Request) -> Members:
        if "principal" not in request or "cognitoIdentityPoolId" in request:
            raise InvalidRequest("Give a certificate's ARN as principal; there are no other identities.", subject="principal")
        asked: Sequence[Any] = request["authInfos"]
        for auth_info in asked:
            if "actionType" not in auth_info:
                raise InvalidRequest(f"Each of authInfos needs an actionType: {', '.join(ACTIONS)}.", subject="trial")
        trials = [
            Trial(action=ACTIONS[auth_info["actionType"]], resources=tuple(auth_info["resources"])) for auth_info in asked
        ]
        verdicts = await self.work.read(
            lambda tx: self.trials.judge(
                tx,
                caller.place,
                request["principal"],
                trials,
                client_id=request.get("clientId"),
                add=[PolicyName(name) for name in request.get("policyNamesToAdd", ())],
                skip=[PolicyName(name) for name in request.get("policyNamesToSkip", ())],
            )
        )
        return {
            "authResults": [_result(caller, auth_info, verdict) for auth_info, verdict in zip(asked, verdicts, strict=True)]
        }

    @operation("overair", "ExplainDeviceRights")
    async def explain_device_rights(self, caller: Caller, request: Request) -> Members:
        """What a certificate's policies say to one question, statement by statement."""
        found = await self.work.read(
            lambda tx: self.trials.explain(
                tx,
                caller.place,
                request["principal"],
                request["action"],
                request["resource"],
                client_id=request.get("clientId"),
                source_ip=request.get("sourceIp", ""),
            )
        )
        said: dict[str, Any] = {
            "decision": _DECISIONS[found.reasons.decision],
            "resource": found.resource,
            "certificateStatus": found.status.value,
            "statements": [_statement(each) for each in found.reasons.statements],
            "missingContextValues": list(found.reasons.missing),
        }
        if found.thing is not None:
            said["thingName"] = found.thing
        if found.block is not None:
            said["blocked"] = f"{found.block.kind.value} {found.block.name}"
        return said


def _statement(reason: StatementReason) -> Members:
    return {
        "policyName": reason.policy,
        "number": reason.number,
        "line": reason.line,
        "effect": reason.effect.value,
        "applies": reason.applies,
        **({"sid": reason.sid} if reason.sid else {}),
        **({"why": reason.why} if reason.why else {}),
    }


def _result(caller: Caller, auth_info: Any, verdict: Verdict) -> Members:
    def listed(names: Sequence[PolicyName]) -> Members:
        return {"policies": [{"policyName": name, "policyArn": caller.place.iot(KIND, name)} for name in names]}

    return {
        "authInfo": auth_info,
        "allowed": listed(verdict.allowing),
        "denied": {"implicitDeny": {"policies": []}, "explicitDeny": listed(verdict.denying)},
        "authDecision": _DECISIONS[verdict.decision],
        "missingContextValues": list(verdict.missing),
    }
