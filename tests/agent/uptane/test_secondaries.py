"""Secondaries believe nobody: full and partial verification, in the Primary's process and behind a socket."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import pytest

from overair.agent.durable import Disk
from overair.agent.uptane.outcomes import Kind
from overair.agent.uptane.secondaries import Bundle, SecondaryAway, SecondaryPort, SecondaryRefuses
from overair.agent.uptane.secondary import Secondary, SecondarySettings
from overair.agent.uptane.secondary_socket import FRAME_SIZE_BYTES_MAX, SecondaryServer, SocketSecondaryPort
from overair.agent.uptane.settings import CommandInstall, FileInstall, Verification
from overair.basics.clock import Clock, Instant, SettableClock, WallClock
from overair.wire.uptane.canonical import read
from overair.wire.uptane.ecus import read_registration
from overair.wire.uptane.manifest import is_signed_by, read_manifest, read_signed_report, verify_manifest
from overair.wire.uptane.metadata import Repository, Role
from overair.wire.uptane.refusals import Reason
from overair.wire.uptane.reports import InstallationResult
from tests.support.uptane_repository import DAY, UptaneRepository, assigned, target_file
from tests.support.uptane_vehicle import PRIMARY, PRIMARY_HARDWARE, Vehicle

DASH, DASH_HARDWARE = "dash-7", "cluster-s32"
LOCK, LOCK_HARDWARE = "lock-1", "lock-m0"
IMAGE = b"dashboard " * 5000


def secondary_in(folder: Path, *, clock: Clock | None = None, **changes: Any) -> Secondary:
    members: dict[str, Any] = {
        "hardware_id": DASH_HARDWARE,
        "ecu_serial": DASH,
        "verification": Verification.FULL,
        "install": FileInstall(path="firmware.bin"),
    }
    settings = SecondarySettings(**(members | changes))
    return Secondary(folder, settings, disk=Disk(), clock=clock or WallClock(), monotonic=time.monotonic)


class Cloud:
    """Both repositories, and what a Primary would hand on of them."""

    def __init__(self) -> None:
        clock = WallClock()
        self.director = UptaneRepository(Repository.DIRECTOR, now=clock.now)
        self.image = UptaneRepository(Repository.IMAGE, now=clock.now)

    def want(self, name: str = "dash-2", content: bytes = IMAGE, ecus: dict[str, str] | None = None, **custom: Any) -> None:
        chosen = ecus or {DASH: DASH_HARDWARE}
        target = target_file(name, content, hardware_ids=sorted(set(chosen.values())), **custom)
        self.image.put_targets(target)
        self.director.put_targets(assigned(target, chosen), custom={"correlationId": "urn:1"})

    def bundle(self, **changes: dict[str, bytes]) -> Bundle:
        director = {**self.director.files, **changes.get("director", {})}
        image = {**self.image.files, **changes.get("image", {})}
        return {Repository.DIRECTOR: director, Repository.IMAGE: image}

    def pin(self, folder: Path) -> None:
        for name, repository in (("director", self.director), ("repo", self.image)):
            (folder / "roots" / name).mkdir(parents=True)
            (folder / "roots" / name / "root.json").write_bytes(repository.files["1.root.json"])


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


@pytest.fixture(params=Verification)
def secondary(request: pytest.FixtureRequest, tmp_path: Path, cloud: Cloud) -> Secondary:
    cloud.pin(tmp_path)
    return secondary_in(tmp_path, verification=request.param)


def give(port: SecondaryPort, name: str, content: bytes, piece: int = 20_000) -> None:
    offset = port.begin_image(name, len(content))
    while offset < len(content):
        port.write_image(offset, content[offset : offset + piece])
        offset += piece


def now() -> Instant:
    return WallClock().now()


def report_of(port: SecondaryPort) -> Any:
    signed = read_signed_report(read(port.report(), size_bytes_max=1 << 16))
    assert is_signed_by(port.describe().key, signed.signed_bytes, signed.signatures)
    return signed.report


def test_it_verifies_installs_and_reports_under_its_own_key(secondary: Secondary, cloud: Cloud, tmp_path: Path) -> None:
    assert report_of(secondary).image_is_known is False
    cloud.want()
    secondary.put_metadata(cloud.bundle(), now())
    give(secondary, "dash-2", IMAGE)
    result = secondary.install()
    assert (result.success, result.code) == (True, "OK")
    assert (tmp_path / "files" / "firmware.bin").read_bytes() == IMAGE
    report = report_of(secondary)
    assert (report.ecu, report.installed.name) == (DASH, "dash-2")
    assert (tmp_path / "ecu.key").stat().st_mode & 0o777 == 0o600
    again = secondary_in(tmp_path, verification=secondary.describe().verification)
    assert again.report() == secondary.report()
    again.put_metadata(cloud.bundle(), now())
    with pytest.raises(SecondaryRefuses):
        again.begin_image("dash-2", len(IMAGE))  # it runs already


def test_it_refuses_an_image_that_its_metadata_dont_speak_of(secondary: Secondary, cloud: Cloud) -> None:
    cloud.want(ecus={"another": DASH_HARDWARE})
    secondary.put_metadata(cloud.bundle(), now())
    for name, length in (("dash-2", len(IMAGE)), ("else", 3)):
        with pytest.raises(SecondaryRefuses):
            secondary.begin_image(name, length)
    assert secondary.install().success is False


def test_it_refuses_an_image_for_other_hardware(secondary: Secondary, cloud: Cloud) -> None:
    cloud.want(ecus={DASH: "other-hw"})
    with pytest.raises(SecondaryRefuses) as refused:
        secondary.put_metadata(cloud.bundle(), now())
    assert refused.value.reason is Reason.BAD_HARDWARE_ID
    assert "BadHardwareId" in report_of(secondary).attacks_detected


def test_a_primary_that_was_taken_over_cant_make_it_install_other_bytes(secondary: Secondary, cloud: Cloud) -> None:
    cloud.want()
    secondary.put_metadata(cloud.bundle(), now())
    give(secondary, "dash-2", b"x" * len(IMAGE))
    result = secondary.install()
    assert (result.success, result.code) == (False, "VERIFICATION_FAILED")
    assert secondary.installed is None
    give(secondary, "dash-2", IMAGE)
    assert secondary.install().success


def test_more_bytes_than_were_signed_are_refused(secondary: Secondary, cloud: Cloud) -> None:
    cloud.want()
    secondary.put_metadata(cloud.bundle(), now())
    with pytest.raises(SecondaryRefuses):
        secondary.write_image(0, IMAGE + b"!")
    with pytest.raises(SecondaryRefuses):
        secondary.write_image(10, IMAGE[10:])  # out of order


def test_a_primary_that_was_taken_over_cant_bring_old_metadata(secondary: Secondary, cloud: Cloud) -> None:
    cloud.want("dash-1", b"old")
    old = cloud.bundle()
    secondary.put_metadata(old, now())
    cloud.want()
    secondary.put_metadata(cloud.bundle(), now())
    with pytest.raises(SecondaryRefuses) as refused:
        secondary.put_metadata(old, now())
    assert refused.value.reason is Reason.ROLLBACK


def test_expired_metadata_are_refused_by_its_own_clock_and_by_the_primarys(tmp_path: Path, cloud: Cloud) -> None:
    cloud.pin(tmp_path)
    clock = SettableClock(now())
    secondary = secondary_in(tmp_path, clock=clock)
    cloud.want()
    secondary.put_metadata(cloud.bundle(), Instant(0))
    with pytest.raises(SecondaryRefuses) as refused:
        secondary.put_metadata(cloud.bundle(), Instant(clock.now() + 31 * DAY))
    assert refused.value.reason is Reason.EXPIRED_METADATA
    with pytest.raises(SecondaryRefuses):
        secondary.put_metadata(cloud.bundle(), Instant(0))  # what the Primary said stays said
    secondary_in(tmp_path, clock=clock).put_metadata(cloud.bundle(), Instant(0))
    clock.advance(milliseconds=31 * DAY)
    with pytest.raises(SecondaryRefuses):
        secondary_in(tmp_path, clock=clock).put_metadata(cloud.bundle(), Instant(0))


def test_it_follows_chains_of_roots(secondary: Secondary, cloud: Cloud) -> None:
    for repository in (cloud.director, cloud.image):
        repository.rotate(Role.ROOT)
        repository.rotate(Role.TARGETS, count=2)
    cloud.want()
    secondary.put_metadata(cloud.bundle(), now())
    assert set(secondary.describe().roots.values()) == {3}
    other = Cloud()
    other.want()
    with pytest.raises(SecondaryRefuses):
        secondary.put_metadata(other.bundle(), now())


def test_full_verification_asks_the_image_repository_and_partial_cant(tmp_path: Path, cloud: Cloud) -> None:
    """What the Director alone says is enough for a Secondary with partial verification: that is its price."""
    cloud.want()
    evil = target_file("evil", b"evil", hardware_ids=[DASH_HARDWARE])
    cloud.director.put_targets(assigned(evil, {DASH: DASH_HARDWARE}))
    full, partial = tmp_path / "full", tmp_path / "partial"
    for folder in (full, partial):
        cloud.pin(folder)
    with pytest.raises(SecondaryRefuses) as refused:
        secondary_in(full).put_metadata(cloud.bundle(), now())
    assert refused.value.reason is Reason.TARGET_MISMATCH
    trusting = secondary_in(partial, verification=Verification.PARTIAL)
    trusting.put_metadata(cloud.bundle(), now())
    give(trusting, "evil", b"evil")
    assert trusting.install().success
    with pytest.raises(SecondaryRefuses):
        secondary_in(full).put_metadata({Repository.DIRECTOR: cloud.director.files}, now())


def test_full_verification_finds_delegated_targets(tmp_path: Path, cloud: Cloud) -> None:
    cloud.pin(tmp_path)
    target = target_file("vendor/dash", IMAGE, hardware_ids=[DASH_HARDWARE])
    cloud.image.delegate("vendor", ["vendor/*"], target)
    cloud.director.put_targets(assigned(target, {DASH: DASH_HARDWARE}))
    secondary = secondary_in(tmp_path)
    secondary.put_metadata(cloud.bundle(), now())
    give(secondary, "vendor/dash", IMAGE)
    assert secondary.install().success


def test_a_lower_release_is_refused(secondary: Secondary, cloud: Cloud, tmp_path: Path) -> None:
    cloud.want("dash-2", IMAGE, releaseCounter=2)
    director = cloud.director.targets.targets["dash-2"]
    counted = replace(director, custom={**director.custom, "releaseCounter": 2})
    cloud.director.put_targets(counted)
    secondary.put_metadata(cloud.bundle(), now())
    give(secondary, "dash-2", IMAGE)
    assert secondary.install().success
    cloud.want("dash-1", b"old", releaseCounter=1)
    old = cloud.director.targets.targets["dash-1"]
    cloud.director.put_targets(replace(old, custom={**old.custom, "releaseCounter": 1}))
    with pytest.raises(SecondaryRefuses) as refused:
        secondary.put_metadata(cloud.bundle(), now())
    assert refused.value.reason is Reason.ROLLBACK


def test_a_program_that_fails_leaves_what_runs(tmp_path: Path, cloud: Cloud) -> None:
    cloud.pin(tmp_path)
    for argv, description in ((("/bin/false",), "status 1"), (("/bin/sh", "-c", "exit 75"), "can't ask for a restart")):
        secondary = secondary_in(tmp_path, install=CommandInstall(argv=argv))
        cloud.want()
        secondary.put_metadata(cloud.bundle(), now())
        give(secondary, "dash-2", IMAGE)
        result = secondary.install()
        assert (result.success, result.code) == (False, "INSTALL_FAILED")
        assert description in result.description
        assert report_of(secondary).image_is_known is False


def test_a_reception_that_was_cut_goes_on(secondary: Secondary, cloud: Cloud, tmp_path: Path) -> None:
    cloud.want()
    secondary.put_metadata(cloud.bundle(), now())
    assert secondary.begin_image("dash-2", len(IMAGE)) == 0
    secondary.write_image(0, IMAGE[:30_000])
    again = secondary_in(tmp_path, verification=secondary.describe().verification)
    again.put_metadata(cloud.bundle(), now())
    assert again.begin_image("dash-2", len(IMAGE)) == 30_000
    again.write_image(30_000, IMAGE[30_000:])
    assert again.begin_image("dash-2", len(IMAGE)) == len(IMAGE)
    assert again.install().success


# --- behind a socket --------------------------------------------------------------------------------------------------


@contextmanager
def served(secondary: SecondaryPort, path: Path) -> Iterator[SocketSecondaryPort]:
    server = SecondaryServer(secondary, path)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield SocketSecondaryPort(path, answer_timeout_s=10)
    finally:
        server.stop()
        thread.join(10)


def test_the_socket_carries_everything(secondary: Secondary, cloud: Cloud, tmp_path: Path) -> None:
    with served(secondary, tmp_path / "s.sock") as port:
        assert port.describe() == secondary.describe()
        assert (tmp_path / "s.sock").stat().st_mode & 0o777 == 0o600
        cloud.want()
        port.put_metadata(cloud.bundle(), now())
        give(port, "dash-2", IMAGE)
        assert port.install() == InstallationResult(success=True, code="OK", description="stored as firmware.bin")
        assert report_of(port).installed.name == "dash-2"
        cloud.want(ecus={DASH: "other-hw"})
        with pytest.raises(SecondaryRefuses) as refused:
            port.put_metadata(cloud.bundle(), now())
        assert refused.value.reason is Reason.BAD_HARDWARE_ID
    with pytest.raises(SecondaryAway):
        port.describe()


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"op": "format"},
        {"op": "describe", "protocol": 2},
        {"op": "describe"},
        {"op": "put_metadata", "documents": {"director": {"a": "text"}}, "now": 0},
        {"op": "put_metadata", "documents": {"nobody": {}}, "now": 0},
        {"op": "put_metadata", "documents": {}, "now": "now"},
        {"op": "begin_image", "name": "a", "length": "long"},
        {"op": "write_image", "offset": 0, "data": "text"},
        {"op": "write_image"},
    ],
)
def test_a_request_that_makes_no_sense_is_answered_and_the_next_one_too(tmp_path: Path, request_: dict[str, Any]) -> None:
    with served(secondary_in(tmp_path), tmp_path / "s.sock") as port:
        with pytest.raises(SecondaryRefuses):
            port._ask(request_)
        assert port.describe().serial == DASH


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\xff", (FRAME_SIZE_BYTES_MAX + 1).to_bytes(4, "big")]
)
def test_bytes_that_are_no_frame_end_that_connection_alone(tmp_path: Path, data: bytes) -> None:
    with served(secondary_in(tmp_path), tmp_path / "s.sock") as port:
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(tmp_path / "s.sock"))
            stranger.sendall(data)
            stranger.shutdown(socket.SHUT_WR)
            assert stranger.recv(10) == b""
        assert port.describe().serial == DASH


@pytest.mark.parametrize(
    "answer", [{}, {"ok": True}, {"ok": True, "serial": 1}, [], {"ok": True, "offset": -1, "document": "x"}]
)
def test_a_secondary_that_answers_nonsense_counts_as_away(tmp_path: Path, answer: Any) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s.sock"))
    listener.listen()

    def serve() -> None:
        for _ in range(4):
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                data = cbor2.dumps(answer)
                connection.sendall(len(data).to_bytes(4, "big") + data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    port = SocketSecondaryPort(tmp_path / "s.sock", answer_timeout_s=5)
    refusals = (SecondaryAway, SecondaryRefuses)
    for ask in (port.describe, port.report, lambda: port.begin_image("a", 1), port.install):
        with pytest.raises(refusals):
            ask()
    thread.join(5)
    listener.close()


def test_a_socket_that_a_dead_process_left_is_taken_over_and_another_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with served(secondary_in(tmp_path), path) as port:
        assert port.describe().serial == DASH
    path.write_text("mine")
    with pytest.raises(OSError, match="in use"):
        SecondaryServer(secondary_in(tmp_path), path)
    assert path.read_text() == "mine"


def test_a_socket_may_lie_deeper_than_the_kernel_takes_names(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / ("d" * 100)
    folder.mkdir(parents=True)
    with served(secondary_in(tmp_path), folder / "s.sock") as port:
        assert port.describe().serial == DASH
        assert (folder / "s.sock").stat().st_mode & 0o777 == 0o600
    assert list(folder.iterdir()) == []
    with pytest.raises(SecondaryAway):
        port.describe()
    with pytest.raises(SecondaryAway):
        SocketSecondaryPort(folder / "nowhere" / "s.sock").describe()


# --- in a vehicle -----------------------------------------------------------------------------------------------------

VIRTUAL = [
    {"virtual": "dash", "hardware_id": DASH_HARDWARE, "ecu_serial": DASH},
    {"virtual": "lock", "hardware_id": LOCK_HARDWARE, "ecu_serial": LOCK, "verification": "partial"},
]
ALL = {PRIMARY: PRIMARY_HARDWARE, DASH: DASH_HARDWARE, LOCK: LOCK_HARDWARE}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Vehicle]:
    """A Primary with two virtual Secondaries, one of each kind."""
    vehicle = Vehicle(tmp_path, secondaries=VIRTUAL)
    vehicle.round()
    yield vehicle
    vehicle.close()


def file_of(vehicle: Vehicle, name: str) -> bytes | None:
    path = vehicle.directory.uptane / "secondaries" / name / "files" / f"{name}.bin"
    return path.read_bytes() if path.exists() else None


def test_a_bundle_for_all_ecus_is_installed_by_each_and_shown_in_the_manifest(fleet: Vehicle) -> None:
    registration = read_registration(fleet.server.calls[0].body)
    assert {ecu.serial: ecu.hardware_id for ecu in registration.ecus} == ALL
    assert len({ecu.key.id for ecu in registration.ecus}) == 3, "each with its own key"
    fleet.want("bundle-1", IMAGE, ALL)
    assert fleet.round().kind is Kind.INSTALLED
    assert (fleet.installed(), file_of(fleet, "dash"), file_of(fleet, "lock")) == (IMAGE, IMAGE, IMAGE)
    assert fleet.server.asked("GET /repo/targets/bundle-1") == ["GET /repo/targets/bundle-1"], "fetched once for all"
    assert [fleet.image_of(serial) for serial in ALL] == ["bundle-1"] * 3
    keys = {ecu.serial: ecu.key for ecu in registration.ecus}
    last = next(call.body for call in reversed(fleet.server.calls) if call.path == "/director/manifest")
    assert verify_manifest(read_manifest(last), keys, primary=PRIMARY).missing == ()  # type: ignore[union-attr]
    report = fleet.report
    assert report is not None
    assert {item["ecu"]: item["result"]["code"] for item in report["items"]} == dict.fromkeys(ALL, "OK")


def test_a_bundle_of_several_images_goes_to_its_ecus(fleet: Vehicle) -> None:
    targets = {
        serial: fleet.offer(f"{serial}.bin", serial.encode() * 100, hardware_ids=(hardware,))
        for serial, hardware in ALL.items()
    }
    fleet.assign(*(assigned(target, {serial: ALL[serial]}) for serial, target in targets.items()))
    assert fleet.round().kind is Kind.INSTALLED
    assert [fleet.image_of(serial) for serial in ALL] == [f"{serial}.bin" for serial in ALL]


def test_a_bundle_that_fails_in_part_stops_there_and_the_manifest_shows_the_mixture(tmp_path: Path) -> None:
    """Partial bundle, mixed bundle: the second of three fails; the third isn't begun; the Director sees what runs where."""
    broken = {**VIRTUAL[1], "install": {"command": ["/bin/false"]}}
    fleet = Vehicle(tmp_path, secondaries=[VIRTUAL[0], broken])
    fleet.want("bundle-1", IMAGE, ALL)
    assert fleet.round().kind is Kind.FAILED
    assert [fleet.image_of(serial) for serial in (DASH, LOCK, PRIMARY)] == ["bundle-1", "unknown", "unknown"]
    assert fleet.installed() is None
    report = fleet.report
    assert report is not None
    assert {item["ecu"]: item["result"]["code"] for item in report["items"]} == {
        DASH: "OK",
        LOCK: "INSTALL_FAILED",
        PRIMARY: "OPERATION_CANCELLED",
    }
    failed = {f"{LOCK_HARDWARE}:INSTALL_FAILED", f"{PRIMARY_HARDWARE}:OPERATION_CANCELLED"}
    assert set(report["result"]["code"].split("|")) == failed
    assert report["result"]["success"] is False
    assert fleet.round().kind is Kind.NOTHING_NEW, "it isn't tried again by itself"
    fleet.close()


def test_when_one_secondary_refuses_the_metadata_nobody_installs(tmp_path: Path) -> None:
    """The Primary trusts on first use; the Secondary has the true roots, and sees that the gateway is another's."""
    honest = Cloud()
    fleet = Vehicle(tmp_path, secondaries=VIRTUAL, roots=False)
    honest.pin(fleet.directory.uptane / "secondaries" / "dash")
    fleet.want("bundle-1", IMAGE, ALL)
    assert fleet.round().kind is Kind.FAILED
    assert (fleet.installed(), file_of(fleet, "dash"), file_of(fleet, "lock")) == (None, None, None)
    report = fleet.report
    assert report is not None
    codes = {item["ecu"]: item["result"]["code"] for item in report["items"]}
    assert codes == {DASH: "VERIFICATION_FAILED", LOCK: "OPERATION_CANCELLED", PRIMARY: "OPERATION_CANCELLED"}
    fleet.close()


def test_secondaries_hear_of_metadata_also_when_the_update_isnt_theirs(fleet: Vehicle) -> None:
    fleet.want("primary-1.bin", b"p")
    assert fleet.round().kind is Kind.INSTALLED
    for name, files in (("dash", ["director", "image"]), ("lock", ["director"])):
        folder = fleet.directory.uptane / "secondaries" / name
        assert [kind for kind in ("director", "image") if (folder / f"{kind}.trusted").exists()] == files


def test_a_secondary_that_is_away_repeats_its_last_report_and_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "dash.sock"
    cloud_folder = tmp_path / "dash"
    vehicle = Vehicle(tmp_path, secondaries=[{"socket": str(path)}])
    with served(secondary_in(cloud_folder), path):
        assert vehicle.round().kind is Kind.NOTHING_NEW
        present = vehicle.manifest["ecu_version_manifests"][DASH]
    vehicle.want("bundle-1", IMAGE, {PRIMARY: PRIMARY_HARDWARE, DASH: DASH_HARDWARE})
    outcome = vehicle.round()
    assert (outcome.kind, DASH in outcome.message) == (Kind.WAITING, True)
    assert vehicle.manifest["ecu_version_manifests"][DASH] == present
    assert vehicle.installed() is None, "nobody begins before all are there"
    assert vehicle.restart().round().kind is Kind.WAITING
    with served(secondary_in(cloud_folder), path):
        assert vehicle.round().kind is Kind.INSTALLED
        assert vehicle.image_of(DASH) == "bundle-1"
    assert len(vehicle.server.asked("GET /repo/targets/bundle-1")) == 1
    vehicle.close()


def test_a_secondary_that_dies_during_its_installation_is_asked_again(tmp_path: Path) -> None:
    path, secondary = tmp_path / "dash.sock", secondary_in(tmp_path / "dash")

    class Dying:
        def __getattr__(self, name: str) -> Any:
            return getattr(secondary, name)

        def install(self) -> Any:
            raise EOFError  # the connection ends without an answer

    vehicle = Vehicle(tmp_path, secondaries=[{"socket": str(path)}])
    with served(Dying(), path):
        vehicle.round()
        vehicle.want("bundle-1", IMAGE, {DASH: DASH_HARDWARE})
        assert vehicle.round().kind is Kind.WAITING
    assert vehicle.report is None
    with served(secondary_in(tmp_path / "dash"), path):
        assert vehicle.restart().round().kind is Kind.INSTALLED
    vehicle.close()


def test_the_first_registration_waits_for_secondaries_and_not_for_ever(tmp_path: Path) -> None:
    vehicle = Vehicle(tmp_path, secondaries=[{"socket": str(tmp_path / "dash.sock")}])
    seconds = [0.0]
    vehicle.monotonic = lambda: seconds[0]
    outcome = vehicle.round()
    assert (outcome.kind, vehicle.server.calls) == (Kind.WAITING, [])
    seconds[0] = 61
    assert vehicle.round().kind is Kind.NOTHING_NEW
    with served(secondary_in(tmp_path / "dash"), tmp_path / "dash.sock"):
        vehicle.round()
    sent = [read_registration(call.body) for call in vehicle.server.calls if call.path == "/director/ecus"]
    assert [{ecu.serial for ecu in registration.ecus} for registration in sent] == [{PRIMARY}, {PRIMARY, DASH}]
    assert set(vehicle.manifest["ecu_version_manifests"]) == {PRIMARY, DASH}
    vehicle.close()


def test_an_exchanged_secondary_is_registered_anew_and_told_of_loudly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "dash.sock"
    vehicle = Vehicle(tmp_path, secondaries=[{"socket": str(path)}])
    with served(secondary_in(tmp_path / "one"), path):
        vehicle.round()
    with served(secondary_in(tmp_path / "two"), path):  # the same serial, another key
        vehicle.round()
    assert "HAS ANOTHER KEY" in caplog.text
    with served(secondary_in(tmp_path / "three", ecu_serial="dash-8"), path):
        vehicle.round()
    sent = [read_registration(call.body) for call in vehicle.server.calls if call.path == "/director/ecus"]
    assert [sorted(ecu.serial for ecu in registration.ecus) for registration in sent] == [
        [DASH, PRIMARY],
        [DASH, PRIMARY],
        ["dash-8", PRIMARY],
    ]
    vehicle.close()


def test_a_refused_registration_of_a_changed_vehicle_leaves_the_old_one_working(tmp_path: Path) -> None:
    path = tmp_path / "dash.sock"
    vehicle = Vehicle(tmp_path, secondaries=[{"socket": str(path)}])
    with served(secondary_in(tmp_path / "one"), path):
        vehicle.round()
    vehicle.server.instead["/director/ecus"] = lambda handler, call: handler.say(
        412, {"code": "replace_ecu_assignment_exists", "description": "an assignment runs"}
    )
    with served(secondary_in(tmp_path / "two", ecu_serial="dash-8"), path):
        assert vehicle.round().kind is Kind.NOTHING_NEW
    assert set(vehicle.manifest["ecu_version_manifests"]) == {PRIMARY}, "the Director knows no dash-8"
    vehicle.close()


def test_a_report_that_isnt_the_secondarys_own_is_not_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "dash.sock"
    secondary, other = secondary_in(tmp_path / "one"), secondary_in(tmp_path / "two")

    class Forged:
        def __getattr__(self, name: str) -> Any:
            return getattr(secondary, name)

        def report(self) -> bytes:
            return other.report()

    vehicle = Vehicle(tmp_path, secondaries=[{"socket": str(path)}])
    with served(secondary, path):
        vehicle.round()
        honest = vehicle.manifest["ecu_version_manifests"][DASH]
    with served(Forged(), path):
        vehicle.round()
    assert vehicle.manifest["ecu_version_manifests"][DASH] == honest
    assert json.loads(other.report()) != honest
    vehicle.close()
