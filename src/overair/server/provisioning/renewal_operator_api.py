"""What operators ask about renewals: which certificates follow which, by which rule, and what waits for their authority."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Final

from overair.basics.ids import ThingName
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.certificates.model import CertificateStatus, DeviceCertificate
from overair.server.provisioning.certificate_paths import refuse_private_keys
from overair.server.provisioning.reenrolment import read_answer
from overair.server.provisioning.renewal_model import RenewalRequest, RenewalRequestState, RenewalRule
from overair.server.provisioning.renewals import Succession
from overair.server.provisioning.service import Reenrolment, Renewals

_RULE: Final = (("overlapDays", "overlap_days"), ("relay", "relay"), ("retryAfterSeconds", "retry_after_s"))


class RenewalOperations:
    """The operations of renewals."""

    def __init__(self, *, work: Work, renewals: Renewals, reenrolment: Reenrolment) -> None:
        self._work = work
        self._renewals = renewals
        self._reenrolment = reenrolment

    @operation("overair", "DescribeRenewalRule")
    async def describe_rule(self, caller: Caller, request: Request) -> Members:
        return _rule(await self._work.read(lambda tx: self._renewals.rule(tx, caller.account)))

    @operation("overair", "UpdateRenewalRule")
    async def update_rule(self, caller: Caller, request: Request) -> Members:
        changes: dict[str, Any] = {name: request[member] for member, name in _RULE if member in request}

        def update(tx: Tx) -> RenewalRule:
            rule = replace(self._renewals.rule(tx, caller.account), **changes)
            self._renewals.set_rule(tx, caller.account, rule)
            return rule

        return _rule(await self._work.run(update))

    @operation("overair", "ListRenewals")
    async def list_renewals(self, caller: Caller, request: Request) -> Members:
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        after = read_page_token(request.get("nextToken"), tuple[str])
        found = await self._work.read(
            lambda tx: self._renewals.page(tx, caller.place, after=after[0] if after else None, limit=limit + 1)
        )
        page, token = cut(found, limit, lambda each: (each.new.id,))
        return {"renewals": [_succession(each) for each in page], "nextToken": token}

    @operation("overair", "ListRenewalRequests")
    async def list_requests(self, caller: Caller, request: Request) -> Members:
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        after = read_page_token(request.get("nextToken"), tuple[str])
        state = RenewalRequestState(request["state"]) if "state" in request else None
        found = await self._work.read(
            lambda tx: self._reenrolment.page(
                tx, caller.account, state=state, after=after[0] if after else None, limit=limit + 1
            )
        )
        page, token = cut(found, limit, lambda each: (each.thing,))
        return {"requests": [_request(each) for each in page], "nextToken": token}

    @operation("overair", "AnswerRenewalRequest")
    async def answer(self, caller: Caller, request: Request) -> Members:
        thing = ThingName(request["thingName"])
        refuse_private_keys(request["certificatePem"].encode("utf-8", "replace"), field="certificatePem")
        chain = await asyncio.to_thread(read_answer, request["certificatePem"])
        identity = await self._work.run(
            lambda tx: self._reenrolment.answer(tx, caller.place, thing, chain, by=caller.principal_arn)
        )
        return {"thingName": thing, "certificateId": identity}

    @operation("overair", "RefuseRenewalRequest")
    async def refuse(self, caller: Caller, request: Request) -> Members:
        thing, reason = ThingName(request["thingName"]), request.get("reason", "")
        await self._work.run(
            lambda tx: self._reenrolment.refuse(tx, caller.place, thing, reason=reason, by=caller.principal_arn)
        )
        return {}


def _rule(rule: RenewalRule) -> Members:
    return {member: getattr(rule, name) for member, name in _RULE}


def _succession(each: Succession) -> Members:
    return {
        "thingNames": list(each.things),
        "certificateId": each.new.id,
        "replaces": each.new.replaces,
        "renewedAt": each.new.created_at,
        "firstUsedAt": each.new.first_used_at,
        "retiresAt": None if each.old is None else each.old.retires_at,
        "retiredAt": None if each.old is None else each.old.retired_at,
        "state": state_of(each.old, each.new),
    }


def state_of(old: DeviceCertificate | None, new: DeviceCertificate) -> str:
    """``done``, ``overlapping`` while both are good, or ``waits-for-first-use`` of the new one."""
    if old is None or old.status is not CertificateStatus.ACTIVE:
        return "done"
    return "waits-for-first-use" if new.awaits_first_use else "overlapping"


def _request(request: RenewalRequest) -> Members:
    return {
        "thingName": request.thing,
        "certificateId": request.certificate_id,
        "certificateSigningRequest": request.request_pem,
        "state": request.state.value,
        "requestedAt": request.requested_at,
        "answeredAt": request.answered_at,
        "answeredBy": request.answered_by,
        "reason": request.reason,
    }
