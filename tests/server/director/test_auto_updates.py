"""ECUs that are updated by themselves."""

from __future__ import annotations

import pytest

from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import EcuSerial, ThingName
from overair.server.director.auto_updates import LOOKED_AT_AGAIN_AFTER_MS, AutoUpdateWorker
from tests.support.director_room import DirectorRoom, Vehicle


@pytest.fixture
def car(room: DirectorRoom) -> Vehicle:
    return room.vehicle("car-1", gw="imx8", twin="imx8")


@pytest.fixture
def worker(room: DirectorRoom) -> AutoUpdateWorker:
    return AutoUpdateWorker(work=room.work, auto_updates=room.director.auto_updates, region=room.place.region, clock=room.clock)


def follow(room: DirectorRoom, serial: str = "gw", target: str = "gateway") -> None:
    room.work.run_blocking(
        lambda tx: room.director.auto_updates.set(tx, room.account, ThingName("car-1"), EcuSerial(serial), target)
    )


async def test_a_new_file_is_assigned_to_the_ecu_with_the_rule_alone(
    room: DirectorRoom, car: Vehicle, worker: AutoUpdateWorker
) -> None:
    room.images.add("gateway-1", "imx8", created_at=1)
    follow(room)
    assert not await worker.run_once(), "what was there before is no news"
    room.images.add("gateway-2", "imx8", created_at=2)
    room.images.add("other-9", "imx8", created_at=3)
    assert await worker.run_once()
    assert not await worker.run_once()
    car.refresh()
    assert car.would_install() == {"gw": "gateway-2"}
    assert car.correlation_id.startswith("urn:here-ota:auto-update:")


async def test_a_busy_vehicle_is_looked_at_again(room: DirectorRoom, car: Vehicle, worker: AutoUpdateWorker) -> None:
    follow(room)
    room.ship("A", room.update(imx8=room.images.add("by-hand", "imx8")), room.thing_arn("car-1"))
    room.images.add("gateway-2", "imx8", created_at=2)
    assert not await worker.run_once()
    car.refresh()
    car.install()
    car.send(report=car.report())
    assert not await worker.run_once(), "not at once, but"
    room.clock.advance(milliseconds=LOOKED_AT_AGAIN_AFTER_MS)
    assert await worker.run_once()
    car.refresh()
    assert car.would_install() == {"gw": "gateway-2"}


async def test_a_file_that_failed_is_not_assigned_again_and_again(
    room: DirectorRoom, car: Vehicle, worker: AutoUpdateWorker
) -> None:
    follow(room)
    room.images.add("gateway-2", "imx8", created_at=2)
    assert await worker.run_once()
    car.refresh()
    car.fail()
    room.clock.advance(milliseconds=LOOKED_AT_AGAIN_AFTER_MS)
    assert not await worker.run_once()
    room.images.add("gateway-3", "imx8", created_at=3)
    assert await worker.run_once()


async def test_what_is_installed_already_is_followed_without_an_assignment(
    room: DirectorRoom, car: Vehicle, worker: AutoUpdateWorker
) -> None:
    follow(room)
    car.installed["gw"] = room.images.add("gateway-2", "imx8", created_at=2).file
    car.send()
    assert not await worker.run_once()
    car.refresh()
    assert car.would_install() == {}


async def test_a_rule_that_was_dropped_is_followed_no_more(room: DirectorRoom, car: Vehicle, worker: AutoUpdateWorker) -> None:
    follow(room)
    follow(room, target="other")
    auto = room.director.auto_updates

    def rules() -> list[str]:
        found = room.work.read_blocking(lambda tx: auto.of(tx, room.account, car.thing, EcuSerial("gw")))
        return [rule.target_name for rule in found]

    assert rules() == ["gateway", "other"]
    room.work.run_blocking(lambda tx: auto.drop(tx, room.account, car.thing, EcuSerial("gw"), "gateway"))
    assert rules() == ["other"]
    room.work.run_blocking(lambda tx: auto.drop(tx, room.account, car.thing, EcuSerial("gw"), None))
    assert rules() == []
    room.images.add("gateway-2", "imx8", created_at=2)
    assert not await worker.run_once()


def test_a_rule_needs_an_ecu_and_a_name(room: DirectorRoom, car: Vehicle) -> None:
    with pytest.raises(NotFound):
        follow(room, serial="ghost")
    with pytest.raises(InvalidRequest):
        follow(room, target="")


async def test_a_vehicle_that_is_gone_is_followed_no_more(room: DirectorRoom, car: Vehicle, worker: AutoUpdateWorker) -> None:
    follow(room)
    room.work.run_blocking(lambda tx: room.director.thing_deleted(tx, room.account, car.thing))
    room.images.add("gateway-2", "imx8", created_at=2)
    assert not await worker.run_once()
