"""Whom a job left out, page by page."""

from __future__ import annotations

from typing import Any

from overair.server.aws_protocol.operations import Caller
from overair.server.director.rest_jobs import DirectorJobsRestApi
from overair.server.rest.operations import RestRequest
from tests.support.director_room import DirectorRoom


async def asked(room: DirectorRoom, job: str, **query: str) -> Any:
    api = DirectorJobsRestApi(work=room.work, director=room.director)
    caller = Caller(
        place=room.place,
        principal_arn=f"arn:aws:iam::{room.account}:root",
        user_id=room.account,
        access_key_id="AKIATEST",
        now=room.clock.now(),
        is_root=True,
    )
    request = RestRequest(method="GET", path="", labels={"job": job}, query=query, headers={})
    return (await api.left_out(caller, request)).json


async def test_things_that_a_job_left_out_are_told_with_their_reasons_each_once_over_pages(room: DirectorRoom) -> None:
    room.add_things("esp", group="fleet")
    for thing in ("car-1", "car-2", "car-3"):
        room.vehicle(thing, group="fleet", gw="other")
    room.vehicle("car-fit", group="fleet", gw="imx8")
    room.ship("A", room.update(imx8=room.images.add("gateway-2", "imx8")), room.group_arn("fleet"))

    first = await asked(room, "A", limit="3")
    assert [row["thing"] for row in first["values"]] == ["car-1", "car-2", "car-3"]
    assert first["next"] == "car-3"
    second = await asked(room, "A", limit="3", after=first["next"])
    assert [(row["thing"], row["code"]) for row in second["values"]] == [("esp", "no_ecus")]
    assert second["next"] is None
    assert "is of a hardware id that update" in first["values"][0]["description"]
    assert first["values"][0]["ecus"] == {"gw": "device_no_compatible_hardware"}


async def test_a_job_that_left_nobody_out_and_one_that_is_not_there_tell_of_nobody(room: DirectorRoom) -> None:
    assert await asked(room, "never") == {"values": [], "next": None}
