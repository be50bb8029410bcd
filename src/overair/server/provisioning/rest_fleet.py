"""Fleet authorities over plain REST, so that tools which move a fleet from one server to another need one way to speak alone
(docs/migration.md). What they mean stands in ``fleet_authorities``; AWS's way to them in ``fleet_operator_api``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from overair.basics.errors import InvalidRequest
from overair.basics.ids import GroupName, PolicyName, ThingTypeName
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller
from overair.server.provisioning.certificate_paths import PEM_SIZE_BYTES_MAX, read_authorities
from overair.server.provisioning.fleet_authorities import FleetAuthorities
from overair.server.provisioning.model import AUTHORITIES_AT_ONCE_MAX, FirstContact, FleetAuthority, FleetRule, Renewal
from overair.server.rest.operations import RestAnswer, RestRequest, malformed_body, route
from overair.server.roots.service import Rehearsed

PATH: Final = "/api/v1/fleet_authorities"


class FleetAuthoritiesRestApi:
    """``work`` is the audited one."""

    def __init__(self, *, work: Work, fleet: FleetAuthorities) -> None:
        self._work = work
        self._fleet = fleet

    @route("GET", PATH, operation="ListFleetCertificateAuthorities")
    async def list_authorities(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """All of the account, the oldest first, each with its certificate and rule."""
        found = await self._work.read(lambda tx: self._fleet.list(tx, caller.account))
        return RestAnswer(json={"values": [_told(authority) for authority in found]})

    @route("POST", PATH, operation="RegisterFleetCertificateAuthority", body_size_bytes_max=2 * PEM_SIZE_BYTES_MAX)
    async def register(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """``{"certificatePem", "name"?, "rule"?}``: trust these authorities, all or none; the same again changes nothing but
        the rule. ``dryRun=true`` says whether that would be done."""
        body = request.json_object()
        pem, name = _text(body, "certificatePem"), _text(body, "name", "")
        rule = _rule(body.get("rule", {}))
        dry_run = request.query.get("dryRun", "false").lower() == "true"
        certificates = await asyncio.to_thread(
            read_authorities, pem.encode("utf-8", "replace"), count_max=AUTHORITIES_AT_ONCE_MAX, now=caller.now
        )

        def unit(tx: Tx) -> list[FleetAuthority]:
            made = self._fleet.register(tx, caller.place, certificates, rule, name=name, by=caller.principal_arn)
            if dry_run:
                raise Rehearsed(made)
            return made

        try:
            made = await self._work.run(unit)
        except Rehearsed as rehearsed:
            made = rehearsed.outcome  # type: ignore[assignment]  # what the unit would have given
        return RestAnswer(json={"values": [_told(authority) for authority in made]})


def _told(authority: FleetAuthority) -> dict[str, Any]:
    rule = authority.rule
    return {
        "authorityId": authority.id,
        "name": authority.name,
        "subject": authority.subject,
        "certificatePem": authority.pem,
        "rule": {
            "firstContact": rule.first_contact.value,
            "deviceIdPattern": rule.device_id_pattern,
            "thingTypeName": rule.thing_type,
            "thingGroupNames": list(rule.groups),
            "policyName": rule.policy,
            "renewal": rule.renewal.value,
            "renewalOverlapDays": rule.renewal_overlap_days,
        },
    }


def _rule(given: object) -> FleetRule:
    """A rule; what isn't said is as it is by default.

    Raises:
        InvalidRequest: subject ``malformed-body``, or as ``FleetRule``.
    """
    if not isinstance(given, Mapping):
        raise malformed_body("rule is an object.")
    standing = FleetRule()
    groups, overlap = given.get("thingGroupNames", []), given.get("renewalOverlapDays", standing.renewal_overlap_days)
    if not isinstance(groups, list) or not all(isinstance(name, str) for name in groups):
        raise malformed_body("rule.thingGroupNames is a list of names.")
    if not isinstance(overlap, int) or isinstance(overlap, bool):
        raise malformed_body("rule.renewalOverlapDays is a number of days.")
    thing_type = given.get("thingTypeName")
    if thing_type is not None and not isinstance(thing_type, str):
        raise malformed_body("rule.thingTypeName is a name.")
    return FleetRule(
        first_contact=FirstContact(_one_of(given, "firstContact", FirstContact, standing.first_contact.value)),
        device_id_pattern=_text(given, "deviceIdPattern", standing.device_id_pattern),
        thing_type=None if thing_type is None else ThingTypeName(thing_type),
        groups=tuple(GroupName(name) for name in groups),
        policy=PolicyName(_text(given, "policyName", standing.policy)),
        renewal=Renewal(_one_of(given, "renewal", Renewal, standing.renewal.value)),
        renewal_overlap_days=overlap,
    )


def _one_of(given: Mapping[str, object], name: str, kind: type[FirstContact] | type[Renewal], default: str) -> str:
    text = _text(given, name, default)
    words = [each.value for each in kind]
    if text not in words:
        raise InvalidRequest(f"{name} is one of {', '.join(words)}.", subject="member", details={"field": name})
    return text


def _text(body: Mapping[str, object], name: str, default: str | None = None) -> str:
    value = body.get(name, default)
    if not isinstance(value, str):
        raise malformed_body(f"{name} is text.")
    return value
