"""Whom of a job's things the Director serves, and why the others get nothing (design §6)."""

from __future__ import annotations

import pytest

from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import GroupName, JobId, ThingName
from overair.server.director.model import DeviceStatus, View
from overair.server.jobs.model import (
    AbortCriterion,
    FailureType,
    JobSettings,
    JobStatus,
    Report,
    RolloutConfig,
    TargetSelection,
)
from overair.wire.job_messages import ExecutionStatus
from tests.support.director_room import DirectorRoom

S = ExecutionStatus


def statuses(room: DirectorRoom, job: str) -> dict[str, int]:
    return {status.value: count for status, count in room.job(job).counts.items() if count}


def test_one_job_covers_a_mixed_group_and_each_left_out_thing_has_its_reason(room: DirectorRoom) -> None:
    image = room.images.add("gateway-2", "imx8")
    room.vehicle("car-fit", group="fleet", gw="imx8")
    current = room.vehicle("car-current", group="fleet", gw="imx8")
    current.installed["gw"] = image.file
    current.send()
    room.vehicle("car-foreign", group="fleet", gw="other")
    room.add_things("esp", group="fleet")

    room.ship("A", room.update(imx8=image), room.group_arn("fleet"), document='{"operation":"x"}')

    assert room.execution("car-fit", "A").fulfilled
    assert not room.execution("esp", "A").fulfilled
    assert statuses(room, "A") == {"QUEUED": 2}
    assert room.left_out("A") == {
        "car-current": "installed_target_is_update",
        "car-foreign": "device_no_compatible_hardware",
    }


def test_a_job_without_a_document_leaves_things_without_ecus_out(room: DirectorRoom) -> None:
    room.vehicle("car-1", group="fleet", gw="imx8")
    room.add_things("esp", group="fleet")
    room.ship("A", room.update(imx8=room.images.add("gateway-2", "imx8")), room.group_arn("fleet"))
    assert statuses(room, "A") == {"QUEUED": 1}
    assert room.left_out("A") == {"esp": "no_ecus"}


def test_the_weaker_road_never_brings_firmware_to_a_vehicle(room: DirectorRoom) -> None:
    """An OTA update that names no multi-target update isn't for things with ECUs."""
    room.vehicle("car-1", group="fleet", gw="imx8")
    room.add_things("esp", group="fleet")
    room.ship("A", None, room.group_arn("fleet"), document='{"afr_ota":{"protocols":["MQTT"]}}')
    assert not room.execution("esp", "A").fulfilled
    assert room.left_out("A") == {"car-1": "no_multi_target_update"}


def test_an_ordinary_job_reaches_vehicles_like_everybody(room: DirectorRoom) -> None:
    room.vehicle("car-1", group="fleet", gw="imx8")
    room.ship("A", None, room.group_arn("fleet"), document='{"operation":"reboot"}')
    assert not room.execution("car-1", "A").fulfilled
    assert room.left_out("A") == {}


def test_only_what_is_next_is_assigned(room: DirectorRoom) -> None:
    car = room.vehicle("car-1", gw="imx8")
    room.ship("A", None, room.thing_arn("car-1"), document='{"operation":"reboot"}')
    room.ship("B", room.update(imx8=room.images.add("gateway-2", "imx8")), room.thing_arn("car-1"))
    assert car.refresh().view is View.EMPTY
    room.cancel("A")
    assert car.refresh().view is View.ASSIGNMENT


def test_a_job_for_nobody_is_complete_at_once(room: DirectorRoom) -> None:
    room.vehicle("car-1", gw="other")
    job = room.ship("A", room.update(imx8=room.images.add("gateway-2", "imx8")), room.thing_arn("car-1"))
    assert job.status is JobStatus.COMPLETED


def test_an_update_that_is_not_there_makes_no_job(room: DirectorRoom) -> None:
    room.add_things("car-1")
    document = '{"uptane":{"multiTargetUpdate":"nowhere"}}'
    with pytest.raises(NotFound, match="multi_target_updates"):
        room.create("A", room.thing_arn("car-1"), document=document)


def test_who_is_left_out_takes_no_turn_and_who_becomes_fit_meanwhile_is_let_in(room: DirectorRoom) -> None:
    image = room.images.add("gateway-2", "imx8")
    room.vehicle("car-1", group="fleet", gw="imx8")
    late = room.vehicle("car-2", group="fleet", gw="imx8")
    settings = JobSettings(rollout=RolloutConfig(maximum_per_minute=1))
    room.ship("A", room.update(imx8=image), room.group_arn("fleet"), settings=settings)
    assert statuses(room, "A") == {"QUEUED": 1}
    late.installed["gw"] = image.file
    late.send()
    room.clock.advance(milliseconds=60_000)
    room.work.run_blocking(lambda tx: room.jobs.planner.step(tx, now=room.clock.now()))
    assert statuses(room, "A") == {"QUEUED": 1}
    assert room.left_out("A") == {"car-2": "installed_target_is_update"}


def test_a_vehicle_that_joins_the_group_is_chosen_like_the_others(room: DirectorRoom) -> None:
    room.registry.groups["fleet"] = set()
    room.ship(
        "A",
        room.update(imx8=room.images.add("gateway-2", "imx8")),
        room.group_arn("fleet"),
        selection=TargetSelection.CONTINUOUS,
    )
    fit, foreign = room.vehicle("car-1", group="fleet", gw="imx8"), room.vehicle("car-2", group="fleet", gw="other")
    for car in (fit, foreign):
        thing = car.thing
        room.work.run_blocking(lambda tx, thing=thing: room.jobs.joined(tx, room.account, thing, GroupName("fleet")))  # type: ignore[misc]
    assert fit.execution("A").fulfilled
    assert room.left_out("A") == {"car-2": "device_no_compatible_hardware"}


def test_what_waits_for_a_thing_is_chosen_for_again_when_it_registers_its_ecus(room: DirectorRoom) -> None:
    """It came in, was put into a job like a thing without ECUs, and only then started for the first time."""
    image = room.images.add("gateway-2", "imx8")
    for thing in ("car-1", "car-2", "esp"):
        room.add_things(thing, group="fleet")
    fleet = room.group_arn("fleet")
    room.ship("mixed", room.update(imx8=image), fleet, document='{"afr_ota":{"protocols":["MQTT"]}}')
    room.ship("weaker", None, fleet, document='{"afr_ota":{"protocols":["MQTT"]}}')
    room.ship("reboot", None, fleet, document='{"operation":"reboot"}')
    assert statuses(room, "mixed") == {"QUEUED": 3}
    fit = room.vehicle("car-1", gw="imx8")
    room.vehicle("car-2", gw="other")

    assert fit.execution("mixed").fulfilled
    assert room.execution("car-2", "mixed").status is S.REMOVED
    assert not room.execution("esp", "mixed").fulfilled
    assert statuses(room, "mixed") == {"QUEUED": 2, "REMOVED": 1}
    assert room.left_out("mixed") == {"car-2": "device_no_compatible_hardware"}
    assert statuses(room, "weaker") == {"QUEUED": 1, "REMOVED": 2}
    assert room.left_out("weaker") == {"car-1": "no_multi_target_update", "car-2": "no_multi_target_update"}
    assert statuses(room, "reboot") == {"QUEUED": 3}
    assert fit.refresh().view is View.ASSIGNMENT
    fit.register()
    assert fit.execution("mixed").status is S.IN_PROGRESS


def test_what_a_thing_has_begun_by_its_document_stays_with_it(room: DirectorRoom) -> None:
    room.add_things("car-1")
    room.ship("A", None, room.thing_arn("car-1"), document='{"afr_ota":{"protocols":["MQTT"]}}')
    begin, end = Report(status=S.IN_PROGRESS), Report(status=S.SUCCEEDED)
    device, car, job = room.jobs.device, ThingName("car-1"), JobId("A")
    room.work.run_blocking(lambda tx: device.report(tx, room.place, car, job, begin))
    room.vehicle("car-1", gw="imx8")
    assert room.execution("car-1", "A").status is S.IN_PROGRESS
    room.work.run_blocking(lambda tx: device.report(tx, room.place, car, job, end))
    assert room.execution("car-1", "A").status is S.SUCCEEDED


def test_the_reasons_of_a_deleted_job_are_forgotten(room: DirectorRoom) -> None:
    room.vehicle("car-1", gw="other")
    room.ship("A", room.update(imx8=room.images.add("gateway-2", "imx8")), room.thing_arn("car-1"))
    assert room.left_out("A")
    room.work.run_blocking(lambda tx: room.jobs.delete(tx, room.account, JobId("A"), force=True))
    assert room.left_out("A") == {}


def test_failures_of_vehicles_count_for_the_abort_rule_of_the_whole_job(room: DirectorRoom) -> None:
    cars = [room.vehicle(f"car-{number}", group="fleet", gw="imx8") for number in range(3)]
    room.add_things("esp", group="fleet")
    criterion = AbortCriterion(failure_type=FailureType.FAILED, threshold_percentage=50, things_executed_min=1)
    update = room.update(imx8=room.images.add("gateway-2", "imx8"))
    room.ship("A", update, room.group_arn("fleet"), document='{"operation":"x"}', settings=JobSettings(abort=(criterion,)))
    for car in cars[:2]:
        car.refresh()
    cars[0].fail()
    assert room.job("A").status is JobStatus.CANCELED
    room.work.run_blocking(lambda tx: room.jobs.planner.step(tx, now=room.clock.now()))
    assert cars[1].execution("A").status is S.IN_PROGRESS, "what has begun goes on"
    assert room.execution("esp", "A").status is S.CANCELED
    assert cars[2].refresh().view is View.EMPTY


def test_the_status_of_a_vehicle_follows_its_assignments(room: DirectorRoom) -> None:
    car = room.vehicle("car-1", gw="imx8")
    assert room.device("car-1").status is DeviceStatus.UP_TO_DATE
    room.ship("A", room.update(imx8=room.images.add("gateway-2", "imx8")), room.thing_arn("car-1"))
    assert room.device("car-1").status is DeviceStatus.OUTDATED
    car.refresh()
    assert room.device("car-1").status is DeviceStatus.UPDATE_PENDING
    room.ship("B", room.update(imx8=room.images.add("gateway-3", "imx8")), room.thing_arn("car-1"))
    assert room.device("car-1").status is DeviceStatus.UPDATE_PENDING
    car.fail()
    assert room.device("car-1").status is DeviceStatus.OUTDATED
    room.cancel("B", force=False)
    assert room.device("car-1").status is DeviceStatus.UP_TO_DATE


def test_what_is_installed_or_assigned_is_in_use(room: DirectorRoom) -> None:
    old, new = room.images.add("gateway-1", "imx8"), room.images.add("gateway-2", "imx8")
    car = room.vehicle("car-1", gw="imx8")
    car.installed["gw"] = old.file
    car.send()
    names = ["gateway-1", "gateway-2", "gateway-3"]

    def in_use() -> dict[str, str]:
        return dict(room.work.read_blocking(lambda tx: room.director.targets_in_use(tx, room.account, names)))

    assert in_use() == {"gateway-1": "installed on 1 ECU"}
    room.ship("A", room.update(imx8=new), room.thing_arn("car-1"))
    assert in_use() == {"gateway-1": "installed on 1 ECU", "gateway-2": "assigned"}
    car.refresh()
    room.cancel("A", force=False)
    assert in_use() == {"gateway-1": "installed on 1 ECU", "gateway-2": "assigned"}, "a vehicle is at it"
    car.install()
    car.send(report=car.report())
    assert in_use() == {"gateway-2": "installed on 1 ECU"}


def test_a_malformed_name_of_an_update_is_refused(room: DirectorRoom) -> None:
    room.add_things("car-1")
    with pytest.raises(InvalidRequest):
        room.create("A", room.thing_arn("car-1"), document='{"uptane":{"multiTargetUpdate":["x"]}}')
