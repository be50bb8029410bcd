"""What operators ask of a job that only the Director knows: whom it left out, and why. A route of our own."""

from __future__ import annotations

from typing import Final

from overair.basics.ids import JobId
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller
from overair.server.director.model import LeftOut
from overair.server.director.rest_support import PAGE_SIZE_MAX, moment, page_of
from overair.server.director.service import DirectorService
from overair.server.rest.operations import RestAnswer, RestRequest, route

AFTER_LENGTH_MAX: Final = 128


class DirectorJobsRestApi:
    """The Director's side of jobs. ``work`` is the audited one."""

    def __init__(self, *, work: Work, director: DirectorService) -> None:
        self._work = work
        self._director = director

    @route("GET", "/api/v1/director/jobs/{job}/left_out", operation="ListThingsLeftOut")
    async def left_out(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Things that the job would have reached and doesn't, by name; ``after`` the last of the page before, ``limit``."""
        job, after = JobId(request.labels["job"]), request.query.get("after")
        limit = min(page_of(request).limit, PAGE_SIZE_MAX)

        def query(tx: Tx) -> list[LeftOut]:
            found = self._director.views.left_out_of(
                tx, caller.account, job, after=None if after is None else after[:AFTER_LENGTH_MAX], limit=limit + 1
            )
            return list(found)

        found = await self._work.read(query)
        shown = found[:limit]
        return RestAnswer(
            json={
                "values": [_left_out(each) for each in shown],
                "next": shown[-1].thing if len(found) > limit else None,
            }
        )


def _left_out(left_out: LeftOut) -> dict[str, object]:
    return {
        "thing": left_out.thing,
        "code": left_out.code,
        "description": left_out.message,
        "at": moment(left_out.at),
        "ecus": dict(left_out.ecus),
    }
