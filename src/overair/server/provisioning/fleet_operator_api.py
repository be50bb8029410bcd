"""The operator's door to fleet authorities of his own, and to what was odd about some of their devices."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from overair.basics.clock import Clock
from overair.basics.ids import CertificateId, GroupName, PolicyName, ThingTypeName
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.certificates import x509
from overair.server.provisioning.certificate_paths import read_authorities, refuse_private_keys
from overair.server.provisioning.model import (
    AUTHORITIES_AT_ONCE_MAX,
    Anomaly,
    AuthorityId,
    FirstContact,
    FleetAuthority,
    FleetRule,
    Renewal,
    StandingList,
)
from overair.server.provisioning.reuse import Reuses
from overair.server.provisioning.revocation_lists import RevocationList, read_issuers, read_revocation_list
from overair.server.provisioning.revocations import Revocations
from overair.server.provisioning.service import FirstContacts, FleetAuthorities


class FleetOperations:
    """Fleet authorities: registered, listed, changed, withdrawn; and their revocation lists."""

    def __init__(self, *, work: Work, fleet: FleetAuthorities, revocations: Revocations, clock: Clock) -> None:
        self._work = work
        self._fleet = fleet
        self._revocations = revocations
        self._clock = clock

    @operation("overair", "RegisterFleetCertificateAuthority")
    async def register(self, caller: Caller, request: Request) -> Members:
        certificates = await asyncio.to_thread(
            read_authorities,
            request["certificatePem"].encode("utf-8", "replace"),
            count_max=AUTHORITIES_AT_ONCE_MAX,
            now=self._clock.now(),
        )
        rule = _rule(FleetRule(), request.get("rule", {}))
        name = request.get("name", "")

        def register(tx: Tx) -> list[Members]:
            made = self._fleet.register(tx, caller.place, certificates, rule, name=name, by=caller.principal_arn)
            return [self._told(tx, authority) for authority in made]

        return {"authorities": await self._work.run(register)}

    @operation("overair", "ListFleetCertificateAuthorities")
    async def list(self, caller: Caller, request: Request) -> Members:
        return {
            "authorities": await self._work.read(
                lambda tx: [self._told(tx, authority) for authority in self._fleet.list(tx, caller.account)]
            )
        }

    @operation("overair", "DescribeFleetCertificateAuthority")
    async def describe(self, caller: Caller, request: Request) -> Members:
        identity = AuthorityId(request["authorityId"])
        return {"authority": await self._work.read(lambda tx: self._told(tx, self._fleet.find(tx, caller.account, identity)))}

    @operation("overair", "UpdateFleetCertificateAuthority")
    async def update(self, caller: Caller, request: Request) -> Members:
        identity = AuthorityId(request["authorityId"])

        def update(tx: Tx) -> Members:
            standing = self._fleet.find(tx, caller.account, identity)
            rule = _rule(standing.rule, request.get("rule", {}))
            return self._told(tx, self._fleet.change_rule(tx, caller.place, identity, rule, name=request.get("name")))

        return {"authority": await self._work.run(update)}

    @operation("overair", "WithdrawFleetCertificateAuthority")
    async def withdraw(self, caller: Caller, request: Request) -> Members:
        identity = AuthorityId(request["authorityId"])
        keep_devices = request.get("keepDevices", False)
        await self._work.run(
            lambda tx: self._fleet.withdraw(tx, caller.place, identity, keep_devices=keep_devices, by=caller.principal_arn)
        )
        return {}

    @operation("overair", "PutFleetRevocationList")
    async def put_revocation_list(self, caller: Caller, request: Request) -> Members:
        identity = AuthorityId(request["authorityId"])
        text = request["revocationListPem"].encode("utf-8", "replace")
        refuse_private_keys(text, field="revocationListPem")
        now = self._clock.now()
        authority = await self._work.read(lambda tx: self._fleet.find(tx, caller.account, identity))

        def read() -> RevocationList:
            root = x509.certificate_from_pem(authority.pem.encode("ascii"))
            return read_revocation_list(text, read_issuers(text, root, now=now), now=now)

        listed = await asyncio.to_thread(read)
        named = await self._work.read(lambda tx: self._revocations.named(tx, caller.account, listed, since=None))

        def put(tx: Tx) -> Members:
            taken = self._revocations.put(
                tx,
                caller.place,
                self._fleet.find(tx, caller.account, identity),
                listed,
                named=named,
                searched_at=now,
                refuse_when_stale=request.get("refuseWhenStale", False),
                by=caller.principal_arn,
            )
            return {"revocationList": self._list_told(taken.standing), "revokedCertificateIds": list(taken.revoked)}

        return await self._work.run(put)

    @operation("overair", "ListFleetRevocationLists")
    async def list_revocation_lists(self, caller: Caller, request: Request) -> Members:
        identity = AuthorityId(request["authorityId"])

        def listed(tx: Tx) -> list[Members]:
            authority = self._fleet.find(tx, caller.account, identity)
            return [self._list_told(each) for each in self._revocations.lists(tx, caller.account, authority.id)]

        return {"revocationLists": await self._work.read(listed)}

    def _list_told(self, standing: StandingList) -> Members:
        return {
            "issuerId": standing.issuer,
            "number": f"{standing.number:x}",
            "thisUpdate": standing.this_update,
            "nextUpdate": standing.next_update,
            "entries": standing.entries,
            "isStale": standing.next_update < self._clock.now(),
            "refuseWhenStale": standing.refuse_when_stale,
            "putAt": standing.put_at,
            "putBy": standing.put_by,
        }

    def _told(self, tx: Tx, authority: FleetAuthority) -> Members:
        rule = authority.rule
        return {
            "authorityId": authority.id,
            "name": authority.name,
            "subject": authority.subject,
            "fingerprint": authority.fingerprint,
            "notBefore": authority.not_before,
            "notAfter": authority.not_after,
            "createdAt": authority.created_at,
            "createdBy": authority.created_by,
            "certificatePem": authority.pem,
            "devices": self._fleet.count_devices(tx, authority),
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


class AnomalyOperations:
    """Certificates that were refused although their chain is good."""

    def __init__(self, *, work: Work, contacts: FirstContacts, reuses: Reuses) -> None:
        self._work = work
        self._contacts = contacts
        self._reuses = reuses

    @operation("overair", "ListDeviceAnomalies")
    async def list_anomalies(self, caller: Caller, request: Request) -> Members:
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        after = read_page_token(request.get("nextToken"), tuple[int, str])
        found = await self._work.read(lambda tx: self._contacts.page(tx, caller.account, after=after, limit=limit + 1))
        page, token = cut(found, limit, lambda anomaly: (anomaly.last_seen_at, anomaly.certificate_id))
        return {"anomalies": [_anomaly(each) for each in page], "nextToken": token}

    @operation("overair", "ApproveDeviceCertificate")
    async def approve(self, caller: Caller, request: Request) -> Members:
        identity = CertificateId(request["certificateId"])
        deactivate = request.get("deactivateOthers", False)
        approved = await self._work.run(
            lambda tx: self._reuses.approve(tx, caller.place, identity, deactivate_others=deactivate)
        )
        return {"thingName": approved.thing}

    @operation("overair", "DismissDeviceAnomaly")
    async def dismiss(self, caller: Caller, request: Request) -> Members:
        identity = CertificateId(request["certificateId"])
        await self._work.run(lambda tx: self._contacts.dismiss(tx, caller.place, identity))
        return {}


def _rule(standing: FleetRule, given: Any) -> FleetRule:
    """The rule with what was given in place of what stands."""
    changes: dict[str, Any] = {}
    for member, name, read in (
        ("firstContact", "first_contact", FirstContact),
        ("deviceIdPattern", "device_id_pattern", str),
        ("thingTypeName", "thing_type", ThingTypeName),
        ("thingGroupNames", "groups", lambda names: tuple(GroupName(name) for name in names)),
        ("policyName", "policy", PolicyName),
        ("renewal", "renewal", Renewal),
        ("renewalOverlapDays", "renewal_overlap_days", int),
    ):
        if member in given:
            changes[name] = read(given[member])
    return replace(standing, **changes)


def _anomaly(anomaly: Anomaly) -> Members:
    return {
        "certificateId": anomaly.certificate_id,
        "thingName": anomaly.thing,
        "kind": anomaly.kind.value,
        "authorityId": anomaly.authority,
        "certificatePem": anomaly.pem,
        "firstSeenAt": anomaly.first_seen_at,
        "lastSeenAt": anomaly.last_seen_at,
        "timesSeen": anomaly.times_seen,
        "sourceIp": anomaly.source_ip,
    }
