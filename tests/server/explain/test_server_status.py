"""``overair status`` names what weakens this server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.ids import SeededIds
from overair.server.explain.server_status import Running, ServerStatusOperations
from overair.server.storage.work import SqlWork
from overair.wire.uptane.metadata import Repository
from tests.support.code_signing import credential
from tests.support.image_room import DAY_MS, ImageRoom, OfflineKey, plan
from tests.support.provisioning_room import ProvisioningRoom
from tests.support.updates_road import UpdatesRoad


@pytest.fixture
def road(work: SqlWork, clock: SettableClock, ids: SeededIds, place: Place, tmp_path: Path) -> Iterator[UpdatesRoad]:
    road = UpdatesRoad(work, clock, ids, place, tmp_path)
    road.settle()
    yield road
    road.contents.close()


def image_room(road: UpdatesRoad) -> ImageRoom:
    room = ImageRoom.open(road.work, road.clock, SeededIds(9), road.place, road.folder)
    for repository in Repository:
        room.run(lambda tx: room.roots.create(tx, room.place, repository))  # noqa: B023
    return room


async def status(road: UpdatesRoad, *, passphrase: bool = True, failing: tuple[str, ...] = ()) -> dict[str, Any]:
    door = ServerStatusOperations(
        work=road.work,
        devices=road.registry.devices,
        jobs=road.jobs,
        signing=road.signing,
        updates=road.updates,
        provisioning=ProvisioningRoom(road.registry, road.clock, road.place).provisioning,
        repositories=image_room(road).statuses,
        running=Running(
            version="1",
            started_at=road.clock.now(),
            has_passphrase=passphrase,
            connected=lambda: 3,
            failing_workers=lambda: failing,
        ),
        clock=road.clock,
    )
    return dict(await door.describe_server(road.caller(), {}))


async def test_a_server_that_holds_no_signing_keys_has_nothing_to_warn_of(road: UpdatesRoad) -> None:
    told = await status(road)
    assert told["warnings"] == []
    assert (told["things"], told["connected"], told["openJobs"]) == (1, 3, 0)
    assert told["imageSigning"] == {"level": "own keys", "profiles": []}
    assert told["provisioning"]["level"] == "default"


async def test_a_self_signed_signer_shows_as_testing_only_and_an_issued_one_does_not(road: UpdatesRoad) -> None:
    await road.make_profile("bench", road.certificate_arn)
    issued = credential(issuer=credential(name="Root", authority=True))
    await road.make_profile("fleet", road.import_certificate(issued))
    told = await status(road)
    assert told["imageSigning"]["profiles"] == [
        {"name": "bench", "status": "Active", "testingOnly": True},
        {"name": "fleet", "status": "Active", "testingOnly": False},
    ]
    assert "Testing only, since their certificates are self-signed: profiles bench." in told["warnings"]


async def test_updates_that_nobody_signed_are_named(road: UpdatesRoad) -> None:
    await road.create({"fileName": "fw", "fileLocation": await road.stored("fw.bin", b"image")})
    assert "Updates with files that nobody signed: rel-7." in (await status(road))["warnings"]


async def test_bare_keys_and_failing_workers_are_named(road: UpdatesRoad) -> None:
    warnings = " ".join((await status(road, passphrase=False, failing=("signing",)))["warnings"])
    assert "--key-passphrase-file" in warnings
    assert "Workers that don't get through: signing." in warnings


async def test_a_thief_of_a_server_with_all_keys_could_ship_anything_and_of_one_without_could_not(road: UpdatesRoad) -> None:
    room = image_room(road)
    room.run(lambda tx: room.images.add_target(tx, room.place, plan("gateway-1.bin")))
    told = await status(road)
    assert told["metadataSigning"]["level"] == "default"
    assert any("could" not in warning and "take-offline" in warning for warning in told["warnings"])
    room.take_offline(OfflineKey(), OfflineKey())
    told = await status(road)
    assert told["metadataSigning"]["level"] == "production"
    assert told["warnings"] == []


async def test_a_document_that_only_people_can_sign_is_told_of_in_time_with_where_the_next_stands_ready(
    road: UpdatesRoad,
) -> None:
    room = image_room(road)
    room.take_offline(OfflineKey(), OfflineKey())
    road.clock.advance(milliseconds=28 * DAY_MS)
    told = await status(road)
    alarms = {each["role"]: each["alarmDays"] for each in told["metadataSigning"]["expiries"] if "alarmDays" in each}
    assert alarms["targets"] == 3
    assert any("unsigned/targets.json" in warning for warning in told["warnings"])
