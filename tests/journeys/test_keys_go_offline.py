"""Root and targets leave the server, are rotated and come back; devices follow, whatever they have slept through."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.aktualizr.device import Aktualizr, Outcome
from tests.support.fleet_pki import FleetAuthority
from tests.support.server_process import ServerProcess
from tests.support.signing_tool import SigningTool
from tests.support.uptane_road import DIRECTOR, HARDWARE_ID, USER_REPO, UptaneRoad


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UptaneRoad]:
    folder = tmp_path_factory.mktemp("offline")
    with ServerProcess(folder / "data") as server:
        yield UptaneRoad(server, folder / "devices")


@pytest.fixture(scope="module")
def fleet(road: UptaneRoad) -> FleetAuthority:
    return road.fleet()


@pytest.fixture
def tool(road: UptaneRoad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SigningTool:
    return SigningTool(road.server, tmp_path / "alice", monkeypatch)


def ship_signed(road: UptaneRoad, tool: SigningTool, device: Aktualizr) -> str:
    """An image that was signed away from the server, assigned."""
    name = road.name("signed")
    data = f"signed away from the server: {name} ".encode() * 100
    target = tool.add(name, data, HARDWARE_ID)
    tool.push()
    road.assign(road.multi_target_update({HARDWARE_ID: (target, data)}), device.device_id)
    return target


def test_keys_go_offline_are_rotated_and_come_back_and_devices_follow_the_chain(
    road: UptaneRoad, fleet: FleetAuthority, tool: SigningTool
) -> None:
    device, sleeper = road.own_pki_device(fleet, "car-awake"), road.own_pki_device(fleet, "car-asleep")
    for each in (device, sleeper):
        each.cycle()
        road.send(each)
        assert each.cycle() is Outcome.INSTALLED

    tool.take_offline()
    first = ship_signed(road, tool, device)
    assert device.cycle() is Outcome.INSTALLED, device.last_error
    assert device.installed_image() == first
    assert sorted(device.storage.image.roots) == [1, 2]

    # The server alone can't add an image any more, and says what has to be signed.
    query = {"name": "x", "version": "1", "hardwareIds": HARDWARE_ID, "targetFormat": "BINARY"}
    refused = road.rest.ask("PUT", f"{USER_REPO}/targets/unsigned-1", body=b"unsigned", query=query)
    assert (refused.status, refused.code) == (412, "role_keys_not_found")
    assert device.cycle() is Outcome.NO_UPDATES

    tool.keys("root", "root-3", "root-4")
    tool.keys("targets", "targets-2")
    tool.run("rotate", "targets", "--new", "targets-2")
    tool.push()
    tool.run("rotate", "root", "--new", "root-3", "--new", "root-4")
    tool.push()
    second = ship_signed(road, tool, device)
    road.assign(road.multi_target_update({HARDWARE_ID: (second, device_bytes(road, second))}), sleeper.device_id)
    for each in (device, sleeper):
        assert each.cycle() is Outcome.INSTALLED, each.last_error
        assert each.installed_image() == second
        assert sorted(each.storage.image.roots) == [1, 2, 3, 4]

    tool.run("bring-online", "--yes")
    third, _ = road.send(sleeper)
    assert sleeper.cycle() is Outcome.INSTALLED, sleeper.last_error
    assert sleeper.installed_image() == third
    assert len(sleeper.storage.image.roots) >= 5


def device_bytes(road: UptaneRoad, target: str) -> bytes:
    return road.rest.expect(200, "GET", f"{USER_REPO}/targets/{target}").body


def test_the_directors_root_goes_offline_and_updates_go_on(road: UptaneRoad, fleet: FleetAuthority, tool: SigningTool) -> None:
    device = road.own_pki_device(fleet, "car-director")
    device.cycle()
    newest = max(device.storage.director.roots)
    tool.keys("root", "director-root-1", "director-root-2")
    tool.run("take-offline", "--repository", "director", "--yes")

    name, _ = road.send(device)
    assert device.cycle() is Outcome.INSTALLED, device.last_error
    assert device.installed_image() == name
    assert max(device.storage.director.roots) == newest + 1

    # The server can't make a new root by itself now.
    assert road.rest.ask("PUT", f"{DIRECTOR}/admin/repo/root/rotate").status in (409, 412)
    tool.run("bring-online", "--repository", "director", "--yes")
    assert device.cycle() is Outcome.NO_UPDATES, device.last_error
    assert max(device.storage.director.roots) > newest + 1


def test_two_operators_who_edit_the_same_targets_both_get_their_image_in(
    road: UptaneRoad, fleet: FleetAuthority, tool: SigningTool, tmp_path: Path
) -> None:
    device = road.own_pki_device(fleet, "car-crowded")
    device.cycle()
    tool.take_offline()
    bob = tool.copy(tmp_path / "bob")
    ours = tool.add(road.name("alices"), b"alice", HARDWARE_ID)
    theirs = bob.add(road.name("bobs"), b"bob", HARDWARE_ID)

    tool.push()
    bob.push()

    road.assign(road.multi_target_update({HARDWARE_ID: (ours, b"alice")}), device.device_id)
    assert device.cycle() is Outcome.INSTALLED, device.last_error
    assert device.image.targets is not None
    assert {ours, theirs} <= {target.name for target in device.image.targets.targets}
    tool.run("bring-online", "--yes")


def test_an_image_that_a_supplier_has_signed_reaches_the_primary_through_the_delegation(
    road: UptaneRoad, fleet: FleetAuthority, tool: SigningTool
) -> None:
    device = road.own_pki_device(fleet, "car-supplied")
    device.cycle()
    tool.take_offline()
    tool.keys("delegation", "supplier")
    tool.run("delegate", "vendor-b", "--paths", "vendor-b/*", "--key", "supplier")
    tool.push()
    target = tool.add("dash", b"by the supplier", HARDWARE_ID, more=["--target", "vendor-b/dash-1", "--role", "vendor-b"])
    tool.push()

    road.assign(road.multi_target_update({HARDWARE_ID: (target, b"by the supplier")}), device.device_id)
    assert device.cycle() is Outcome.INSTALLED, device.last_error
    assert "GET /repo/delegations/vendor-b.json" in {f"{call.method} {call.path}" for call in device.calls}
    tool.run("bring-online", "--yes")


def test_many_uploads_at_once_all_stand_in_the_targets(road: UptaneRoad, fleet: FleetAuthority) -> None:
    device = road.own_pki_device(fleet, "car-uploads")
    device.cycle()
    answers: list[int] = []
    names = [road.name("both") for _ in range(8)]

    def upload(name: str) -> None:
        query = {"name": name, "version": "1", "hardwareIds": HARDWARE_ID, "targetFormat": "BINARY"}
        answers.append(road.rest.ask("PUT", f"{USER_REPO}/targets/{name}", body=name.encode(), query=query).status)

    threads = [threading.Thread(target=upload, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) <= {200, 204}
    road.assign(road.multi_target_update({HARDWARE_ID: (names[0], names[0].encode())}), device.device_id)
    assert device.cycle() is Outcome.INSTALLED, device.last_error
    assert device.image.targets is not None
    assert set(names) <= {target.name for target in device.image.targets.targets}
