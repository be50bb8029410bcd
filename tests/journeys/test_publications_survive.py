"""Power cuts between signing and publishing, a server killed under load, a restore from an older copy: nothing half-signed is
ever served, no version number stands for two documents, and devices follow."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from overair.server.image_repository.model import VERSION_EPOCH_MS
from tests.support.aktualizr.curl import Curl, TlsCredentials
from tests.support.aktualizr.device import Aktualizr, Outcome, wall_clock_now
from tests.support.aktualizr.errors import MetadataFetchFailure
from tests.support.aktualizr.repositories import ImageRepository
from tests.support.aktualizr.storage import Repository
from tests.support.operator_rest import Refused
from tests.support.server_main import CUT_STATUS
from tests.support.server_process import ServerProcess
from tests.support.uptane_road import HARDWARE_ID, USER_REPO, UptaneRoad

ROLES = ("timestamp", "snapshot", "targets", "root")
PATIENCE_S = 30


def until_the_clock_has_passed(version: int) -> None:
    """Versions count seconds."""
    left_s = version + 1 + VERSION_EPOCH_MS / 1000 - time.time()
    assert left_s < PATIENCE_S
    time.sleep(max(0.0, left_s))


class Watcher:
    """A client that fetches everything that is served, verifies it as a whole, and remembers which number had which bytes."""

    def __init__(self) -> None:
        self.kept = Repository()
        self.seen: dict[tuple[str, str, int], bytes] = {}
        self.newest: dict[tuple[str, str], int] = {}

    def look(self, device: Aktualizr) -> None:
        """What is served now, in both flavours; the Director's documents for this device too."""
        curl, base = Curl(tls_of(device)), device.server_url

        class FromServer:
            def fetch(self, file_name: str, *, size_bytes_max: int) -> bytes:
                response = curl.get(f"{base}/repo/{file_name}", size_bytes_max=size_bytes_max)
                if not response.is_ok:
                    raise MetadataFetchFailure(f"{file_name}: {response.status}")
                return response.body

        repository = ImageRepository(self.kept, wall_clock_now)
        repository.update(FromServer())
        self.glance(device)

    def glance(self, device: Aktualizr) -> None:
        """The same while somebody publishes: between two requests there may be a newer set, so only numbers are compared."""
        curl, base = Curl(tls_of(device)), device.server_url
        for prefix in ("repo", "tuf", "director"):
            for role in ROLES:
                response = curl.get(f"{base}/{prefix}/{role}.json", size_bytes_max=8 * 1024 * 1024)
                assert response.status == 200, (prefix, role, response.status)
                self._remember(prefix, role, response.body)

    def _remember(self, prefix: str, role: str, data: bytes) -> None:
        version = json.loads(data)["signed"]["version"]
        known = self.seen.setdefault((prefix, role, version), data)
        assert known == data, f"{prefix}/{role} {version} is two documents"
        assert version >= self.newest.get((prefix, role), 0), f"{prefix}/{role} fell to {version}"
        self.newest[prefix, role] = version


def tls_of(device: Aktualizr) -> TlsCredentials:
    assert device.storage.tls is not None
    return device.storage.tls


@pytest.fixture
def make(new_server: Callable[..., ServerProcess], tmp_path: Path) -> Callable[[], tuple[ServerProcess, UptaneRoad, Aktualizr]]:
    def started() -> tuple[ServerProcess, UptaneRoad, Aktualizr]:
        server = new_server(driven=True).start()
        road = UptaneRoad(server, tmp_path / "devices")
        device = road.own_pki_device(road.fleet(), "car-survives")
        assert device.cycle() is Outcome.NO_UPDATES
        return server, road, device

    return started


def again(server: ServerProcess, road: UptaneRoad, device: Aktualizr) -> tuple[UptaneRoad, Aktualizr]:
    """After a restart: ports are new, and the device is told so by its configuration."""
    server.start()
    road = UptaneRoad(server, road.folder)
    return road, road.moved(device)


Made = Callable[[], tuple[ServerProcess, UptaneRoad, Aktualizr]]


@pytest.mark.parametrize("cuts", [(2, 6), pytest.param((1, 3, 4, 5), marks=pytest.mark.long)])
def test_a_power_cut_after_any_signature_of_a_publication_leaves_one_whole_set_and_burns_no_number(
    make: Made, cuts: tuple[int, ...]
) -> None:
    server, road, device = make()
    watcher = Watcher()
    road.upload("image-before", b"before", HARDWARE_ID)
    watcher.look(device)
    for signatures in cuts:
        server.tell(cut_after_signatures=signatures)
        with pytest.raises((OSError, Refused)):
            road.upload(f"image-{signatures}", b"cut", HARDWARE_ID)
        assert server.wait_until_cut() == CUT_STATUS
        road, device = again(server, road, device)
        watcher.look(device)
    road.upload("image-after", b"after", HARDWARE_ID)
    watcher.look(device)
    road.assign(road.multi_target_update({HARDWARE_ID: ("image-after", b"after")}), device.device_id)
    assert device.cycle() is Outcome.INSTALLED, device.last_error


@pytest.mark.parametrize("cuts", [(2,), pytest.param((1, 3), marks=pytest.mark.long)])
def test_a_power_cut_while_an_assignment_is_signed_leaves_it_to_be_fetched_later(make: Made, cuts: tuple[int, ...]) -> None:
    server, road, device = make()
    image = road.new_image()
    road.assign(road.multi_target_update({HARDWARE_ID: image}), device.device_id)
    for signatures in cuts:
        server.tell(cut_after_signatures=signatures)
        assert device.check_updates().error is not None
        assert server.wait_until_cut() == CUT_STATUS
        road, device = again(server, road, device)
    assert device.cycle() is Outcome.INSTALLED, device.last_error


@pytest.mark.parametrize("cuts", [(3,), pytest.param((1, 5, 8), marks=pytest.mark.long)])
def test_a_power_cut_while_a_root_is_made_leaves_the_chain_whole(make: Made, cuts: tuple[int, ...]) -> None:
    server, road, device = make()
    watcher = Watcher()
    watcher.look(device)
    for signatures in cuts:
        server.tell(cut_after_signatures=signatures)
        with pytest.raises((OSError, Refused)):
            road.rest.expect((200, 204), "PUT", f"{USER_REPO}/root/rotate")
        assert server.wait_until_cut() == CUT_STATUS
        road, device = again(server, road, device)
        watcher.look(device)
    road.rest.expect((200, 204), "PUT", f"{USER_REPO}/root/rotate")
    watcher.look(device)
    assert sorted(watcher.kept.roots) == [1, 2]


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.long)])
def test_a_server_that_is_killed_under_load_serves_whole_sets_afterwards(make: Made, kills: int) -> None:
    server, road, device = make()
    watcher = Watcher()
    for attempt in range(kills):
        stop = threading.Event()

        def load(worker: int, attempt: int = attempt, stop: threading.Event = stop, road: UptaneRoad = road) -> None:
            number = 0
            while not stop.is_set():
                try:
                    road.upload(f"load-{attempt}-{worker}-{number}", f"{worker} {number}".encode(), HARDWARE_ID)
                except (OSError, Refused):
                    return
                number += 1

        workers = [threading.Thread(target=load, args=(worker,)) for worker in range(3)]
        for each in workers:
            each.start()
        for _ in range(5 + 3 * attempt):
            watcher.glance(device)
        server.kill()
        stop.set()
        for each in workers:
            each.join()
        road, device = again(server, road, device)
        watcher.look(device)
    road.send(device)
    assert device.cycle() is Outcome.INSTALLED, device.last_error


def test_a_server_restored_from_an_older_copy_of_its_directory_is_followed_by_its_devices(make: Made, tmp_path: Path) -> None:
    server, road, device = make()
    first = road.new_image()
    road.assign(road.multi_target_update({HARDWARE_ID: first}), device.device_id)
    assert device.cycle() is Outcome.INSTALLED
    server.stop()
    shutil.copytree(server.data, tmp_path / "backup")

    road, device = again(server, road, device)
    for _ in range(3):
        road.send(device)
        assert device.cycle() is Outcome.INSTALLED
    before = json.loads(device.storage.director.roles["targets"])["signed"]["version"]
    held = {role: json.loads(data)["signed"]["version"] for role, data in device.storage.image.roles.items()}
    server.stop()
    shutil.rmtree(server.data)
    shutil.copytree(tmp_path / "backup", server.data)

    # Several versions within one second run ahead of the clock (docs/security.md), and nothing here takes longer than that.
    until_the_clock_has_passed(max(before, *held.values()))
    road, device = again(server, road, device)
    assert device.cycle() is Outcome.NO_UPDATES, device.last_error
    road.upload("restored-1", b"after the restore", HARDWARE_ID)
    road.assign(road.multi_target_update({HARDWARE_ID: ("restored-1", b"after the restore")}), device.device_id)
    assert device.cycle() is Outcome.INSTALLED, device.last_error
    assert json.loads(device.storage.director.roles["targets"])["signed"]["version"] > before
    now = {role: json.loads(data)["signed"]["version"] for role, data in device.storage.image.roles.items()}
    assert all(now[role] > version for role, version in held.items())
