"""``overair why``: an operation of our own service model."""

from __future__ import annotations

from overair.basics.clock import Clock
from overair.basics.ids import ClientId, ThingName
from overair.basics.work import Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.explain.model import Download, explain
from overair.server.explain.rights import obstacles
from overair.server.explain.service import ExplainService, Presences
from overair.server.gateway.authority import DeviceAuthority
from overair.server.streams.asked import AskedBlocks


class ExplainOperations:
    """Questions that AWS has no words for."""

    def __init__(
        self,
        *,
        work: Work,
        explain: ExplainService,
        presences: Presences,
        authority: DeviceAuthority,
        asked: AskedBlocks,
        clock: Clock,
    ) -> None:
        self._work = work
        self._explain = explain
        self._presences = presences
        self._authority = authority
        self._asked = asked
        self._clock = clock

    @operation("overair", "ExplainThing")
    async def explain_thing(self, caller: Caller, request: Request) -> Members:
        """The chain of reasons, each the reason for the one before it."""
        thing = ThingName(request["thingName"])
        facts = await self._work.read(lambda tx: self._explain.facts(tx, caller.place, thing))
        certificates = [certificate.id for certificate in facts.certificates]
        # An agent connects under its thing's name; a certificate of the thing under another id counts as well.
        presence = self._presences.presence_of(caller.account, ClientId(thing), certificates)
        in_the_way = {
            certificate.id: await obstacles(self._authority, certificate.pem, thing, facts.stream)
            for certificate in facts.certificates
            if certificate.may_connect and certificate.pem is not None
        }
        asked = () if facts.stream is None else self._asked.of(caller.account, thing, facts.stream)
        downloads = [Download(repeats=each.repeats, first_block=each.first, rounds=each.rounds) for each in asked]
        return {"reasons": list(explain(facts, presence, in_the_way, now=self._clock.now(), downloads=downloads))}
