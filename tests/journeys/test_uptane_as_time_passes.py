"""What ends is signed anew in time, what only people can sign is told of in time, and devices that were away come back."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.aktualizr.device import Outcome
from tests.support.aktualizr.errors import ExpiredMetadata
from tests.support.uptane_world import HARDWARE_ID, SECOND_HARDWARE_ID, USER_REPO, UptaneWorld
from tests.support.whole_server import Template


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return Template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def world(template: Template, tmp_path: Path) -> Iterator[UptaneWorld]:
    server = template.open(tmp_path / "data")
    yield UptaneWorld(server, tmp_path)
    server.close()


def alarms(world: UptaneWorld) -> dict[str, int]:
    """Days that are left, by role, where there is an alarm."""
    told = world.expect(200, "GET", f"{USER_REPO}/status").json["expiries"]
    return {each["role"]: each["alarmDays"] for each in told if each["alarmDays"] is not None}


def test_at_the_default_level_nothing_has_to_be_remembered_for_two_years(world: UptaneWorld) -> None:
    device = world.device("car")
    assert device.cycle() is Outcome.NO_UPDATES, device.refusal
    for season in range(8):
        world.pass_time(days=91)
        assert alarms(world) == {}
        image = world.upload()
        world.assign({HARDWARE_ID: image}, "car")
        assert device.cycle() is Outcome.INSTALLED, (season, device.last_error)
        world.check_what_is_served(device)
    assert len(device.storage.image.roots) > 1
    assert len(device.storage.director.roots) > 1


def test_a_server_that_was_off_until_even_its_roots_had_ended_comes_back_by_itself_and_devices_follow(
    world: UptaneWorld,
) -> None:
    device = world.device("car")
    device.cycle()
    first = world.upload()
    world.assign({HARDWARE_ID: first}, "car")
    assert device.cycle() is Outcome.INSTALLED
    world.pass_time(days=430)
    assert alarms(world) == {}
    world.check_what_is_served(device)
    second = world.upload()
    world.assign({HARDWARE_ID: second}, "car")
    assert device.cycle() is Outcome.INSTALLED, device.last_error


def test_timestamps_are_fresh_every_day_and_the_rest_only_when_it_must_be(world: UptaneWorld) -> None:
    device = world.device("car")
    device.cycle()
    before = world.check_what_is_served(device)
    for _ in range(24):
        world.pass_time(hours=12)
        served = world.check_what_is_served(device)
    assert served["repo", "timestamp"][0] - before["repo", "timestamp"][0] >= 12
    assert served["repo", "targets"][0] - before["repo", "targets"][0] <= 1


def test_a_device_that_slept_for_half_a_year_wakes_and_is_updated(world: UptaneWorld) -> None:
    device = world.device("car", with_secondary=True)
    device.cycle()
    image = world.upload(HARDWARE_ID, SECOND_HARDWARE_ID)
    world.assign({HARDWARE_ID: image, SECOND_HARDWARE_ID: image}, "car")
    assert device.cycle() is Outcome.INSTALLED
    world.pass_time(days=180)
    assert device.cycle() is Outcome.NO_UPDATES, device.last_error
    newer = world.upload(HARDWARE_ID, SECOND_HARDWARE_ID)
    world.assign({HARDWARE_ID: newer, SECOND_HARDWARE_ID: newer}, "car")
    assert device.cycle() is Outcome.INSTALLED, device.last_error
    assert device.installed_image("car-dash") == newer[0]


def test_targets_that_are_signed_elsewhere_are_counted_down_refused_once_ended_and_good_again_when_renewed(
    world: UptaneWorld,
) -> None:
    device = world.device("car")
    device.cycle()
    world.upload()
    world.take_offline()
    image = ("image-7", b"signed elsewhere")
    query = {"name": "image", "version": "7", "hardwareIds": HARDWARE_ID, "targetFormat": "BINARY"}
    assert world.ask("PUT", f"{USER_REPO}/targets/image-7", body=image[1], query=query).status == 412
    assert world.push(image, days=60).status == 200
    assert alarms(world) == {}
    left, seen = 60.0, []
    for days in (29.5, 13.5, 6.5, 2.5, 0.5):
        world.pass_time(days=left - days)
        left = days
        seen.append(alarms(world)["targets"])
    assert seen == [30, 14, 7, 3, 1]

    world.assign({HARDWARE_ID: image}, "car")
    world.pass_time(days=1)
    assert alarms(world)["targets"] == 0
    assert device.cycle() is Outcome.CHECK_FAILED
    assert isinstance(device.last_error, ExpiredMetadata)
    assert device.installed_image() is None

    assert world.push(days=60).status == 200
    assert alarms(world) == {}
    assert device.cycle() is Outcome.INSTALLED, device.last_error


def test_of_two_pushes_from_one_copy_at_once_one_is_published_and_the_other_hears_that_it_is_stale(world: UptaneWorld) -> None:
    device = world.device("car")
    device.cycle()
    world.upload()
    world.take_offline()
    for number in range(5):
        before, checksum = world.targets()
        names = [f"image-{number}a", f"image-{number}b"]
        publications = [world.signed_targets(before, (name, name.encode())) for name in names]
        query = {"name": "image", "version": "1", "hardwareIds": HARDWARE_ID, "targetFormat": "BINARY"}
        for name in names:
            assert world.ask("PUT", f"{USER_REPO}/targets/{name}", body=name.encode(), query=query).status == 412

        with ThreadPoolExecutor(2) as both:
            pushed = [both.submit(world.push_signed, publication, checksum) for publication in publications]
        statuses = [each.result().status for each in pushed]

        assert sorted(statuses) == [200, 412]
        after, _ = world.targets()
        assert after.version == before.version + 1
        assert names[statuses.index(200)] in after.targets
        assert names[statuses.index(412)] not in after.targets
        world.check_what_is_served(device)


def test_an_assignment_that_was_cancelled_before_a_long_sleep_is_not_installed_after_it(world: UptaneWorld) -> None:
    device = world.device("car")
    device.cycle()
    first = world.upload()
    world.assign({HARDWARE_ID: first}, "car")
    assert device.cycle() is Outcome.INSTALLED
    second = world.upload()
    world.assign({HARDWARE_ID: second}, "car")
    assert [target.name for target in device.check_updates().updates] == [second[0]]
    assert world.cancel(device).status == 204
    world.pass_time(days=90)
    for _ in range(2):
        assert device.cycle() is Outcome.NO_UPDATES, device.last_error
    assert device.installed_image() == first[0]
