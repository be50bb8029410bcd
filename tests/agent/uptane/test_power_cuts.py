"""The power fails at every step: what is on the disk then is what was acknowledged, or the state just before it; nothing that
is trusted goes back; and with the power back, the update ends as if nothing had been."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from overair.agent.durable import Disk
from overair.agent.uptane.metadata_store import MetadataStore, restored
from overair.agent.uptane.outcomes import Kind
from overair.basics.clock import WallClock
from overair.wire.uptane.metadata import Repository, Role, TargetFile
from tests.support.device import HARDWARE, cached_image
from tests.support.power_cut import FailingDisk, PowerCut
from tests.support.uptane_machine import UptaneMachine
from tests.support.uptane_repository import assigned, target_file
from tests.support.uptane_server import DirectClient, UptaneServer
from tests.support.uptane_vehicle import PRIMARY, PRIMARY_HARDWARE, Vehicle, issuer

DASH, LOCK, HW = "dash-1", "lock-1", "secondary-hw"
IMAGE = b"image " * 4000
SECONDARIES = [
    {"virtual": "dash", "hardware_id": HW, "ecu_serial": DASH},
    {"virtual": "lock", "hardware_id": HW, "ecu_serial": LOCK, "verification": "partial"},
]


class RecordingDisk(FailingDisk):
    """Remembers for each file that is replaced whole what it held, and what it was to hold when the power failed."""

    def __init__(self, cut_at: int, seed: int) -> None:
        super().__init__(cut_at, seed)
        self.acknowledged: dict[Path, bytes] = {}
        self.attempted: dict[Path, bytes] = {}

    def write_whole(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        if path not in self.acknowledged and path.exists():
            self.acknowledged[path] = path.read_bytes()
        if not self.dead:
            self.attempted[path] = data
        super().write_whole(path, data, mode=mode)
        self.acknowledged[path] = data


def check_the_disk(disk: RecordingDisk) -> None:
    """Each file of the client's own is what was acknowledged last, or what was being written."""
    kept = {path: data for path, data in disk.attempted.items() if path.parent.name not in ("slots", "images")}
    assert kept or disk.steps < 10
    for path, attempted in kept.items():
        now = path.read_bytes() if path.exists() else None
        assert now in (disk.acknowledged.get(path), attempted), f"{path.name} is neither what it was nor what it was to be"


def versions(device: Vehicle) -> dict[str, int]:
    """Every version that any ECU trusts, from the disk."""
    found: dict[str, int] = {}
    for path in sorted(device.directory.uptane.rglob("*.trusted")):
        stored = MetadataStore(path, Disk()).load()
        assert stored is not None
        kind = Repository(path.stem)
        trusted = restored(stored, repository=kind, vehicle=None, now=WallClock().now())
        place = str(path.relative_to(device.directory.uptane))
        found[f"{place} root"] = trusted.root.version
        for role in ("timestamp", "snapshot", "targets"):
            body = getattr(trusted, role)
            if body is not None:
                found[f"{place} {role}"] = body.version
    return found


def server_with_chains(folder: Path) -> UptaneServer:
    """Both repositories have three roots; the last change of keys lies behind whoever starts from the first."""
    server = UptaneServer(folder, issuer=issuer())
    for repository in (server.director, server.image):
        repository.rotate(Role.ROOT)
        repository.rotate(Role.TIMESTAMP)
    return server


Make = Callable[[Path], Vehicle]


def cut_at_every_step(make: Make, *, seed: int, stride: int, start: int, finish: Callable[[Vehicle], None]) -> int:
    """One device for each step; how many steps there were."""
    for step in itertools.count(start, stride):
        device = make(Path(str(step)))
        device.http = partial(DirectClient, device.server)
        disk = RecordingDisk(step, seed=1000 * seed + step)
        device.disk = disk
        try:
            finish(device)
        except PowerCut:
            check_the_disk(disk)
            kept = versions(device)
            device.disk = Disk()
            finish(device)
            for name, version in versions(device).items():
                assert version >= kept.get(name, 0), f"{name} went back"
            continue
        return step
    raise AssertionError("unreachable")


def update(vehicle: Vehicle) -> None:
    """Rounds until the update has ended, on one device; then it must have ended well, and the Director must know."""
    vehicle.restart()
    for _ in range(4):
        vehicle.round()
        if vehicle.report is not None and vehicle.state.report is None:
            break
    assert vehicle.installed() == IMAGE
    assert vehicle.state.update is None
    assert vehicle.state.report is None
    assert vehicle.state.failed == ""
    report = vehicle.report
    assert report is not None
    assert report["result"]["code"] == "OK"
    ecus = vehicle.manifest["ecu_version_manifests"]
    assert {serial: vehicle.image_of(serial) for serial in ecus} == dict.fromkeys(ecus, "bundle")
    if "dash-1" in ecus:
        folder = vehicle.directory.uptane / "secondaries"
        assert [(folder / name / "files" / f"{name}.bin").read_bytes() for name in ("dash", "lock")] == [IMAGE, IMAGE]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[dict[str, str]], UptaneServer]]:
    made: list[UptaneServer] = []

    def make(ecus: dict[str, str]) -> UptaneServer:
        server = server_with_chains(tmp_path_factory.mktemp("server"))
        made.append(server)
        target = _offered(server, IMAGE, sorted(set(ecus.values())))
        server.director.put_targets(assigned(target, ecus), custom={"correlationId": "urn:1"})
        return server

    yield make
    for server in made:
        server.close()


def _offered(server: UptaneServer, content: bytes, hardware_ids: list[str]) -> TargetFile:
    server.images["bundle"] = content
    return server.image.add_target(target_file("bundle", content, hardware_ids=hardware_ids))


def test_the_power_fails_before_every_step_of_an_update_of_the_primary(
    tmp_path: Path, servers: Callable[[dict[str, str]], UptaneServer]
) -> None:
    server = servers({PRIMARY: PRIMARY_HARDWARE})

    def make(name: Path) -> Vehicle:
        server.calls.clear()
        return Vehicle(tmp_path / name, server=server)

    assert cut_at_every_step(make, seed=0, stride=1, start=1, finish=update) > 100


@pytest.mark.parametrize("start", [1, 8])
def test_the_power_fails_in_an_update_of_three_ecus(
    tmp_path: Path, servers: Callable[[dict[str, str]], UptaneServer], start: int
) -> None:
    """Every fourteenth step; the long test takes all."""
    server = servers({PRIMARY: PRIMARY_HARDWARE, DASH: HW, LOCK: HW})

    def make(name: Path) -> Vehicle:
        server.calls.clear()
        return Vehicle(tmp_path / name, server=server, secondaries=SECONDARIES)

    assert cut_at_every_step(make, seed=start, stride=14, start=start, finish=update) > 250


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_the_power_fails_before_every_step_of_an_update_of_three_ecus(
    tmp_path: Path, servers: Callable[[dict[str, str]], UptaneServer], seed: int
) -> None:
    server = servers({PRIMARY: PRIMARY_HARDWARE, DASH: HW, LOCK: HW})

    def make(name: Path) -> Vehicle:
        server.calls.clear()
        return Vehicle(tmp_path / name, server=server, secondaries=SECONDARIES)

    cut_at_every_step(make, seed=seed, stride=1, start=1, finish=update)


def boot_through(machine: Vehicle) -> None:
    """Boots and rounds until the update has ended: well, or truthfully not, where the one boot of a trial was cut."""
    assert isinstance(machine, UptaneMachine)
    for _ in range(4):
        machine.run()
        if machine.report is not None and machine.state.report is None:
            break
    assert machine.state.update is None
    report = machine.report
    assert report is not None
    if report["result"]["success"]:
        assert machine.version == "2.0.0"
        assert machine.image_of(PRIMARY) == "bundle"
    else:
        assert machine.version == "1.0.0"
        assert report["result"]["code"] == f"{HARDWARE}:INSTALL_FAILED", report
        assert machine.image_of(PRIMARY) == "unknown"


@pytest.mark.parametrize("start", [1, 6])
def test_the_power_fails_in_an_update_into_slots(tmp_path: Path, start: int) -> None:
    """Every tenth step; the long test takes all."""
    _slots(tmp_path, seed=start, stride=10, start=start)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_the_power_fails_before_every_step_of_an_update_into_slots(tmp_path: Path, seed: int) -> None:
    _slots(tmp_path, seed=seed, stride=1, start=1)


def _slots(tmp_path: Path, *, seed: int, stride: int, start: int) -> None:
    server = server_with_chains(tmp_path / "server")
    target = _offered(server, cached_image("2.0.0"), [HARDWARE])
    server.director.put_targets(assigned(target, {PRIMARY: HARDWARE}), custom={"correlationId": "urn:1"})

    def make(name: Path) -> Vehicle:
        server.calls.clear()
        return UptaneMachine(tmp_path / name, server=server)

    assert cut_at_every_step(make, seed=seed, stride=stride, start=start, finish=boot_through) > 120
    server.close()


def test_a_failed_update_survives_a_cut_too(tmp_path: Path) -> None:
    server = UptaneServer(tmp_path / "server", issuer=issuer())
    target = _offered(server, IMAGE, [PRIMARY_HARDWARE])
    server.images["bundle"] = b"x" * len(IMAGE)
    server.director.put_targets(assigned(target, {PRIMARY: PRIMARY_HARDWARE}), custom={"correlationId": "urn:1"})

    def fails(vehicle: Vehicle) -> None:
        vehicle.restart()
        kinds = [vehicle.round().kind for _ in range(3)]
        assert kinds[-1] is Kind.NOTHING_NEW
        assert vehicle.installed() is None
        assert vehicle.state.report is None
        report = vehicle.report
        assert report is not None
        assert report["result"]["code"] == "VERIFICATION_FAILED"

    def make(name: Path) -> Vehicle:
        server.calls.clear()
        return Vehicle(tmp_path / name, server=server)

    cut_at_every_step(make, seed=1, stride=9, start=3, finish=fails)
    server.close()
