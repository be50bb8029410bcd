"""What vehicles are told, from the first poll to the cancelled assignment (Uptane reference §4.4, §5.4, §13)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from overair.basics.clock import Instant
from overair.basics.errors import NotFound, Unavailable
from overair.basics.ids import JobId, ThingName
from overair.server.director.documents import VERSIONS_BEGIN
from overair.server.director.model import CancelWay, DeviceStatus, View
from overair.server.jobs.model import FailureType, JobSettings, JobStatus, RetryCriterion
from overair.server.roots.service import RootsService
from overair.wire.job_messages import ExecutionStatus
from overair.wire.uptane.metadata import Repository, Role
from tests.support.director_room import DirectorRoom, Vehicle

pytestmark = pytest.mark.parametrize("work", ["sqlite"], indirect=True)
"""What these tests are about isn't SQL; other files of this room run on both databases."""

S = ExecutionStatus
HOUR_MS = 3_600_000


def signed(document: bytes) -> dict[str, Any]:
    return dict(json.loads(document)["signed"])


@pytest.fixture
def car(room: DirectorRoom) -> Vehicle:
    return room.vehicle("car-1", group="fleet", gw="imx8", dash="s32")


def test_an_idle_vehicle_is_told_nothing_in_a_document_that_names_it(car: Vehicle) -> None:
    view = car.refresh()
    assert view.view is View.EMPTY
    assert signed(view.targets)["targets"] == {}
    assert signed(view.targets)["custom"] == {"deviceId": "car-1"}
    assert car.would_install() == {}


def test_an_idle_poll_signs_nothing_until_the_document_nears_its_end(room: DirectorRoom, car: Vehicle) -> None:
    first = car.refresh()
    room.clock.advance(milliseconds=11 * HOUR_MS)
    assert car.refresh() == first
    room.clock.advance(milliseconds=2 * HOUR_MS)
    renewed = car.refresh()
    assert renewed.version > first.version
    assert renewed.expires_at - room.clock.now() == 24 * HOUR_MS
    assert signed(renewed.targets)["targets"] == {}


def test_versions_count_seconds_so_that_they_rise_after_a_restore_too(room: DirectorRoom, car: Vehicle) -> None:
    before = car.refresh()
    assert before.version == (room.clock.now() - VERSIONS_BEGIN) // 1000
    # The records come back as they were before the vehicle saw a higher version.
    car.versions.append(before.version + 3)
    room.clock.advance(milliseconds=10_000)
    room.restart()
    assert car.refresh().version > before.version + 3


def test_an_unregistered_vehicle_is_told_to_register(room: DirectorRoom) -> None:
    room.add_things("car-9")
    with pytest.raises(NotFound, match="/director/ecus"):
        room.work.run_blocking(lambda tx: room.director.metadata.refresh(tx, room.place, ThingName("car-9")))


def test_fetching_the_targets_begins_the_execution(room: DirectorRoom, car: Vehicle) -> None:
    car.refresh()
    image = room.images.add("gateway-2", "imx8")
    room.ship("A", room.update(imx8=image), room.thing_arn("car-1"))
    assert car.execution("A").status is S.QUEUED
    assert room.device("car-1").status is DeviceStatus.OUTDATED

    view = car.refresh()

    assert view.view is View.ASSIGNMENT
    assert car.would_install() == {"gw": "gateway-2"}
    [target] = signed(view.targets)["targets"].values()
    assert target["hashes"] == dict(image.hashes)
    assert target["length"] == image.length
    assert target["custom"] == {"ecuIdentifiers": {"gw": {"hardwareId": "imx8"}}}
    assert signed(view.targets)["custom"]["correlationId"] == "urn:overair:job:A"
    assert "delegations" not in signed(view.targets)
    execution = car.execution("A")
    assert execution.status is S.IN_PROGRESS
    assert execution.status_details == {"correlationId": "urn:overair:job:A"}
    assert room.device("car-1").status is DeviceStatus.UPDATE_PENDING
    assert car.refresh() == view, "asked again, it is the same document"


def test_one_image_for_two_ecus_is_one_entry(room: DirectorRoom, car: Vehicle) -> None:
    image = room.images.add("both-1", "imx8", "s32")
    room.ship("A", room.update(imx8=image, s32=image), room.thing_arn("car-1"))
    car.refresh()
    assert list(car.kept) == ["both-1"]
    assert car.kept["both-1"].ecus == {"gw": "imx8", "dash": "s32"}


def test_where_and_how_an_image_is_to_be_had_is_handed_on(room: DirectorRoom, car: Vehicle) -> None:
    image = room.images.add("gateway-2", "imx8")
    to = {
        "target": image.name,
        "checksum": {"method": "sha256", "hash": image.hashes["sha256"].upper()},
        "targetLength": image.length,
        "uri": "https://cdn.example/gateway-2",
        "userDefinedCustom": {"acme": {"slot": 2}},
    }
    members = {"targets": {"imx8": {"to": to, "targetFormat": "BINARY", "generateDiff": False}}}
    update = room.work.run_blocking(lambda tx: room.director.assignments.create_update(tx, room.account, members))
    room.ship("A", update, room.thing_arn("car-1"))
    car.refresh()
    assert car.kept["gateway-2"].custom == {
        "ecuIdentifiers": {"gw": {"hardwareId": "imx8"}},
        "uri": "https://cdn.example/gateway-2",
        "targetFormat": "BINARY",
        "userDefinedCustom": {"acme": {"slot": 2}},
    }


def test_two_jobs_are_carried_out_one_after_the_other(room: DirectorRoom, car: Vehicle) -> None:
    one, two = room.images.add("gateway-2", "imx8"), room.images.add("gateway-3", "imx8")
    room.ship("A", room.update(imx8=one), room.thing_arn("car-1"))
    room.ship("B", room.update(imx8=two), room.thing_arn("car-1"))
    car.refresh()
    assert car.would_install() == {"gw": "gateway-2"}
    car.install()
    assert car.send(report=car.report()) is None
    assert car.execution("A").status is S.SUCCEEDED
    assert room.device("car-1").status is DeviceStatus.OUTDATED
    car.refresh()
    assert car.would_install() == {"gw": "gateway-3"}


def test_what_was_installed_by_other_means_before_it_was_fetched_has_succeeded(room: DirectorRoom, car: Vehicle) -> None:
    image = room.images.add("gateway-2", "imx8")
    room.ship("A", room.update(imx8=image), room.thing_arn("car-1"))
    car.installed["gw"] = image.file
    car.send()
    assert car.refresh().view is View.EMPTY
    execution = car.execution("A")
    assert execution.status is S.SUCCEEDED
    assert execution.status_details["resultCode"] == "ALREADY_PROCESSED"
    assert room.job("A").status is JobStatus.COMPLETED


def test_a_target_that_left_the_image_repository_meanwhile_fails_at_once(room: DirectorRoom, car: Vehicle) -> None:
    image = room.images.add("gateway-2", "imx8")
    room.ship("A", room.update(imx8=image), room.thing_arn("car-1"))
    del room.images.targets["gateway-2"]
    assert car.refresh().view is View.EMPTY
    assert car.execution("A").status is S.FAILED
    assert car.execution("A").status_details["resultCode"] == "target_not_in_image_repository"


def test_each_attempt_has_a_correlation_id_of_its_own(room: DirectorRoom, car: Vehicle) -> None:
    """A report of the first that comes late never ends the second."""
    image = room.images.add("gateway-2", "imx8")
    settings = JobSettings(retry=(RetryCriterion(failure_type=FailureType.FAILED, retries=2),))
    room.ship("A", room.update(imx8=image), room.thing_arn("car-1"), settings=settings)
    car.refresh()
    first = car.report("INSTALL_FAILED")
    car.send(report=first)
    car.refresh()
    assert car.correlation_id == "urn:overair:job:A:2"
    car.send(report=first)
    assert car.execution("A").status is S.IN_PROGRESS
    assert car.execution("A").number == 2


def test_a_job_deleted_and_made_again_under_its_id_correlates_anew(room: DirectorRoom, car: Vehicle) -> None:
    update = room.update(imx8=room.images.add("gateway-2", "imx8"))
    room.ship("A", update, room.thing_arn("car-1"))
    car.refresh()
    earlier = car.correlation_id
    room.work.run_blocking(lambda tx: room.jobs.delete(tx, room.account, JobId("A"), force=True))
    room.ship("A", update, room.thing_arn("car-1"))
    car.refresh()
    assert car.correlation_id.startswith("urn:overair:job:A:")
    assert car.correlation_id != earlier


# Cancelling ---------------------------------------------------------------------------------------------------------------


def ship_and_install(room: DirectorRoom, car: Vehicle, job: str, name: str, **hardware: str) -> None:
    image = room.images.add(name, *(hardware or {"gw": "imx8"}).values())
    room.ship(job, room.update(**dict.fromkeys((hardware or {"gw": "imx8"}).values(), image)), room.thing_arn(car.thing))
    car.refresh()
    car.install()
    car.send(report=car.report())
    assert car.execution(job).status is S.SUCCEEDED


def way(room: DirectorRoom, car: Vehicle) -> CancelWay | None:
    view = room.facts(car.thing).view
    assert view is not None
    return None if view.cancelled is None else view.cancelled.way


def test_what_was_never_fetched_is_taken_back_by_empty_targets(room: DirectorRoom, car: Vehicle) -> None:
    car.refresh()
    room.ship("A", room.update(imx8=room.images.add("gateway-2", "imx8")), room.thing_arn("car-1"))
    room.cancel("A", force=False)
    assert car.refresh().view is View.EMPTY
    assert car.would_install() == {}
    assert way(room, car) is CancelWay.NEVER_FETCHED
    assert room.device("car-1").status is DeviceStatus.UP_TO_DATE


def test_what_was_fetched_is_taken_back_by_naming_what_runs(room: DirectorRoom, car: Vehicle) -> None:
    """Emptying the targets wouldn't: aktualizr keeps and installs what it has (§5.4)."""
    ship_and_install(room, car, "A", "gateway-2")
    room.ship("B", room.update(imx8=room.images.add("gateway-3", "imx8")), room.thing_arn("car-1"))
    car.refresh()
    assert car.would_install() == {"gw": "gateway-3"}
    taken = car.correlation_id

    room.cancel("B")
    view = car.refresh()

    assert view.view is View.STAY
    assert list(car.kept) == ["gateway-2"]
    assert car.would_install() == {}
    assert car.correlation_id not in ("", taken), "a fresh one"
    assert way(room, car) is CancelWay.STAY
    assert car.execution("B").status is S.CANCELED
    assert car.refresh() == view, "and it stays so without another signature"


def test_the_ecu_map_of_stay_targets_is_the_one_that_was_installed_under(room: DirectorRoom, car: Vehicle) -> None:
    ship_and_install(room, car, "A", "both-1", gw="imx8", dash="s32")
    room.ship("B", room.update(imx8=room.images.add("gateway-3", "imx8")), room.thing_arn("car-1"))
    car.refresh()
    room.cancel("B")
    car.refresh()
    assert car.kept["both-1"].ecus == {"gw": "imx8", "dash": "s32"}
    assert car.would_install() == {}


def test_an_ecu_whose_image_is_known_keeps_one_whose_image_is_not_from_updating(room: DirectorRoom, car: Vehicle) -> None:
    ship_and_install(room, car, "A", "dash-2", dash="s32")
    room.ship("B", room.update(imx8=room.images.add("gateway-2", "imx8")), room.thing_arn("car-1"))
    car.refresh()
    room.cancel("B")
    car.refresh()
    assert list(car.kept) == ["dash-2"]
    assert car.would_install() == {}


def test_with_no_image_known_a_new_root_makes_the_vehicle_drop_what_it_holds(room: DirectorRoom, car: Vehicle) -> None:
    room.ship("A", room.update(imx8=room.images.add("gateway-2", "imx8")), room.thing_arn("car-1"))
    car.refresh()
    assert car.trusted is not None
    assert car.trusted.root.version == 1
    room.cancel("A")
    assert car.would_install() == {"gw": "gateway-2"}, "until it polls"
    car.refresh()
    assert car.trusted.root.version == 2
    assert car.would_install() == {}
    assert way(room, car) is CancelWay.ROOT_ROTATION


def test_one_new_root_serves_all_vehicles_of_a_cancelled_job(room: DirectorRoom) -> None:
    cars = [room.vehicle(f"car-{number}", group="fleet", gw="imx8") for number in range(5)]
    room.ship("A", room.update(imx8=room.images.add("gateway-2", "imx8")), room.group_arn("fleet"))
    for car in cars:
        car.refresh()
    room.cancel("A")
    for car in cars:
        car.refresh()
        assert car.trusted is not None
        assert car.trusted.root.version == 2
        assert car.would_install() == {}


def test_with_the_root_offline_what_is_held_runs_out_within_a_day(
    room: DirectorRoom, car: Vehicle, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.ship("A", room.update(imx8=room.images.add("gateway-2", "imx8")), room.thing_arn("car-1"))
    held = car.refresh()
    is_online = RootsService.is_online

    def offline(self: RootsService, tx: Any, account: Any, repository: Repository, role: Role) -> bool:
        return role is not Role.ROOT and is_online(self, tx, account, repository, role)

    monkeypatch.setattr(RootsService, "is_online", offline)
    room.cancel("A")
    car.refresh()
    assert car.would_install() == {"gw": "gateway-2"}, "nothing takes it away"
    view = room.facts("car-1").view
    assert view is not None
    assert view.cancelled is not None
    assert (view.cancelled.way, view.cancelled.held_until) == (CancelWay.EXPIRY, held.expires_at)
    room.clock.advance(milliseconds=24 * HOUR_MS)
    assert car.would_install() == {}


def test_an_installed_image_that_left_the_image_repository_is_none_to_stay_with(room: DirectorRoom, car: Vehicle) -> None:
    ship_and_install(room, car, "A", "gateway-2")
    room.ship("B", room.update(imx8=room.images.add("gateway-3", "imx8")), room.thing_arn("car-1"))
    car.refresh()
    del room.images.targets["gateway-2"]
    room.cancel("B")
    car.refresh()
    assert way(room, car) is CancelWay.ROOT_ROTATION
    assert car.would_install() == {}


def test_after_a_failure_that_the_vehicle_reported_empty_targets_do(room: DirectorRoom, car: Vehicle) -> None:
    room.ship("A", room.update(imx8=room.images.add("gateway-2", "imx8")), room.thing_arn("car-1"))
    car.refresh()
    assert car.fail("DOWNLOAD_FAILED") is None
    assert car.execution("A").status is S.FAILED
    assert car.refresh().view is View.EMPTY
    assert car.would_install() == {}
    assert room.device("car-1").status is DeviceStatus.ERROR


def test_a_timed_out_assignment_is_taken_back_like_a_cancelled_one(room: DirectorRoom, car: Vehicle) -> None:
    ship_and_install(room, car, "A", "gateway-2")
    update = room.update(imx8=room.images.add("gateway-3", "imx8"))
    room.ship("B", update, room.thing_arn("car-1"), settings=JobSettings(in_progress_timeout_minutes=1))
    car.refresh()
    room.clock.advance(milliseconds=61_000)
    room.work.run_blocking(lambda tx: room.jobs.executions.time_out_overdue(tx, now=room.clock.now()))
    assert car.execution("B").status is S.TIMED_OUT
    car.refresh()
    assert car.would_install() == {}


def test_stay_targets_follow_what_runs(room: DirectorRoom, car: Vehicle) -> None:
    """Else they would send the vehicle back to what ran when the assignment was cancelled."""
    ship_and_install(room, car, "A", "gateway-2")
    room.ship("B", room.update(imx8=room.images.add("gateway-3", "imx8")), room.thing_arn("car-1"))
    car.refresh()
    room.cancel("B")
    car.refresh()
    car.installed["gw"] = room.images.add("gateway-by-hand", "imx8").file
    car.send()
    assert car.would_install() == {"gw": "gateway-2"}
    car.refresh()
    assert car.would_install() == {}


def test_a_new_assignment_takes_the_place_of_what_was_cancelled(room: DirectorRoom, car: Vehicle) -> None:
    ship_and_install(room, car, "A", "gateway-2")
    room.ship("B", room.update(imx8=room.images.add("gateway-3", "imx8")), room.thing_arn("car-1"))
    car.refresh()
    room.cancel("B")
    car.refresh()
    ship_and_install(room, car, "C", "gateway-4")
    assert way(room, car) is None
    assert car.refresh().view is View.EMPTY


def test_a_new_director_root_has_everything_signed_anew(room: DirectorRoom, car: Vehicle) -> None:
    before = car.refresh()
    room.clock.advance(milliseconds=1000)
    room.work.run_blocking(
        lambda tx: room.roots.rotate(tx, room.place, Repository.DIRECTOR, roles=(Role.TARGETS, Role.TIMESTAMP))
    )
    after = car.refresh()
    assert after.version > before.version
    assert after.root_version == 2


def test_nothing_is_signed_by_a_clock_that_went_back(room: DirectorRoom, car: Vehicle) -> None:
    car.refresh()
    room.work.run_blocking(lambda tx: room.roots.renew(tx, room.place, Repository.DIRECTOR))
    room.clock.set(Instant(room.clock.now() - HOUR_MS))
    with pytest.raises(Unavailable, match="clock"):
        car.served()


def test_a_vehicle_of_the_same_name_never_sees_a_lower_version(room: DirectorRoom, car: Vehicle) -> None:
    for _ in range(3):
        room.work.run_blocking(lambda tx: room.roots.renew(tx, room.place, Repository.DIRECTOR))
        before = car.refresh()
    room.work.run_blocking(lambda tx: room.director.thing_deleted(tx, room.account, car.thing))
    room.work.run_blocking(lambda tx: room.jobs.thing_deleted(tx, room.account, car.thing))
    again = room.vehicle("car-1", gw="imx8")
    assert again.refresh().version > before.version
