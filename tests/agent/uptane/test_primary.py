"""Rounds of a Primary against a gateway that means well."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from overair.agent.uptane.outcomes import Kind
from overair.basics.clock import Instant
from overair.wire.uptane.ecus import read_registration
from overair.wire.uptane.keys import KeyType
from overair.wire.uptane.manifest import read_manifest, verify_manifest
from overair.wire.uptane.metadata import Repository, Role
from tests.support.uptane_repository import DAY, assigned
from tests.support.uptane_server import Call, Handler
from tests.support.uptane_vehicle import DEVICE, PRIMARY, PRIMARY_HARDWARE, Vehicle


def refusing(status: int, code: str = "refused") -> Callable[[Handler, Call], None]:
    return lambda handler, call: handler.say(status, {"code": code, "description": "no"})


def test_the_first_round_registers_and_every_round_sends_a_manifest(vehicle: Vehicle) -> None:
    vehicle.round()
    registration = read_registration(vehicle.server.calls[0].body)
    assert (registration.primary, [ecu.hardware_id for ecu in registration.ecus]) == (PRIMARY, [PRIMARY_HARDWARE])
    assert vehicle.server.asked("POST /director/ecus") == ["POST /director/ecus"]
    assert len(vehicle.server.manifests) == 2, "also when nothing has changed"
    keys = {ecu.serial: ecu.key for ecu in registration.ecus}
    counters = []
    for call in vehicle.server.calls:
        if str(call) == "PUT /director/manifest":
            assert call.peer == DEVICE
            manifest = read_manifest(call.body)
            verified = verify_manifest(manifest, keys, primary=PRIMARY)
            assert verified.missing == ()  # type: ignore[union-attr]
            counters.append(manifest.report_counter)
    assert counters == [1, 2]
    assert vehicle.image_of(PRIMARY) == "unknown"


def test_report_counters_rise_over_restarts(vehicle: Vehicle) -> None:
    for _ in range(3):
        vehicle.restart().round()
    counters = [
        int(each["signed"]["ecu_version_manifests"][PRIMARY]["signed"]["report_counter"]) for each in vehicle.server.manifests
    ]
    assert counters == sorted(set(counters))


@pytest.mark.parametrize("kind", ["ED25519", "RSA2048", "RSA3072"])
def test_the_ecu_key_is_made_once_of_the_kind_that_is_asked_for(tmp_path: Path, kind: str) -> None:
    vehicle = Vehicle(tmp_path, key_type=kind, ecu_serial=None)
    vehicle.round()
    vehicle.restart().round()
    (registration,) = [read_registration(call.body) for call in vehicle.server.calls if call.path == "/director/ecus"]
    key = registration.ecus[0].key
    assert {"ED25519": (KeyType.ED25519, 256), "RSA2048": (KeyType.RSA, 2048), "RSA3072": (KeyType.RSA, 3072)}[kind] == (
        key.type,
        key.size_bits,
    )
    assert registration.primary == key.id
    assert (vehicle.directory.uptane / "ecu.key").stat().st_mode & 0o777 == 0o600
    manifest = read_manifest(_last_manifest(vehicle))
    assert verify_manifest(manifest, {key.id: key}, primary=key.id).missing == ()  # type: ignore[union-attr]
    vehicle.close()


def _last_manifest(vehicle: Vehicle) -> bytes:
    return next(call.body for call in reversed(vehicle.server.calls) if call.path == "/director/manifest")


def test_an_update_is_fetched_installed_and_reported(vehicle: Vehicle) -> None:
    image = bytes(range(256)) * 1000
    vehicle.want("app 1+u.bin", image)
    before = len(vehicle.server.calls)
    assert vehicle.round().kind is Kind.INSTALLED
    assert vehicle.installed() == image
    calls = [str(call) for call in vehicle.server.calls[before:]]
    assert (
        calls.index("PUT /director/manifest")
        < calls.index("GET /director/targets.json")
        < calls.index("GET /repo/targets.json")
    )
    assert "GET /repo/targets/app%201%2Bu.bin" in calls
    assert calls[-1] == "PUT /director/manifest"
    assert vehicle.image_of(PRIMARY) == "app 1+u.bin"
    report = vehicle.report
    assert report is not None
    assert report["correlation_id"] == "urn:here-ota:mtu:1"
    assert report["result"] == {"success": True, "code": "OK", "description": "Every ECU runs what was wanted."}
    assert [(item["ecu"], item["result"]["code"]) for item in report["items"]] == [(PRIMARY, "OK")]
    kinds = [(event["eventType"]["id"], event["event"].get("success")) for event in vehicle.server.events]
    assert kinds == [
        ("EcuDownloadStarted", None),
        ("EcuDownloadCompleted", True),
        ("EcuInstallationStarted", None),
        ("EcuInstallationCompleted", True),
    ]
    assert len({event["id"] for event in vehicle.server.events}) == 4
    vehicle.round()
    assert "installation_report" not in vehicle.manifest, "what the Director has heard isn't told again"
    assert list((vehicle.directory.uptane / "images").iterdir()) == []


def test_a_report_that_wasnt_acknowledged_is_told_again(vehicle: Vehicle) -> None:
    vehicle.want("a.bin", b"a")
    heard: list[bytes] = []

    def deaf_after_the_first(handler: Handler, call: Call) -> None:
        heard.append(call.body)
        handler.say(200 if len(heard) == 1 else 503, {})

    vehicle.server.instead["/director/manifest"] = deaf_after_the_first
    assert vehicle.round().kind is Kind.UNREACHABLE
    vehicle.server.instead.clear()
    vehicle.restart().round()
    assert vehicle.installed() == b"a"
    assert vehicle.report is not None
    assert vehicle.report["result"]["code"] == "OK"
    assert "installation_report" in vehicle.manifest


def test_a_target_that_runs_already_is_nothing_new(vehicle: Vehicle) -> None:
    target = vehicle.want("a.bin", b"a")
    vehicle.round()
    asked = len(vehicle.server.asked("GET /repo/"))
    vehicle.assign(assigned(target, {PRIMARY: PRIMARY_HARDWARE}), correlation_id="urn:stay")
    assert vehicle.round().kind is Kind.NOTHING_NEW
    assert len(vehicle.server.asked("GET /repo/")) == asked, "the Image repository is asked only for what is new"


def test_what_is_withdrawn_before_it_is_installed_is_forgotten(vehicle: Vehicle) -> None:
    vehicle.want("a.bin", b"a" * 100_000)
    vehicle.server.instead["/repo/targets/a.bin"] = refusing(503)
    assert vehicle.round().kind is Kind.UNREACHABLE
    vehicle.assign()
    assert vehicle.round().kind is Kind.NOTHING_NEW
    assert vehicle.state.update is None
    assert list((vehicle.directory.uptane / "images").iterdir()) == []
    assert vehicle.report is None


def test_what_is_withdrawn_during_its_download_is_not_installed(vehicle: Vehicle) -> None:
    vehicle.want("a.bin", b"a" * 1000)

    def withdraw(handler: Handler, call: Call) -> None:
        vehicle.assign()
        vehicle.server.send_image(handler, call, b"a" * 1000)

    vehicle.server.instead["/repo/targets/a.bin"] = withdraw
    assert vehicle.round().kind is Kind.NOTHING_NEW
    assert vehicle.installed() is None


def test_an_update_that_failed_is_tried_again_only_after_the_director_said_something_else(vehicle: Vehicle) -> None:
    vehicle.want("a.bin", b"a")
    vehicle.server.images["a.bin"] = b"b"
    assert vehicle.round().kind is Kind.FAILED
    report = vehicle.report
    assert report is not None
    assert (report["result"]["code"], report["items"]) == ("VERIFICATION_FAILED", [])
    vehicle.server.images["a.bin"] = b"a"
    vehicle.server.director.publish()  # signed anew, and wants the same
    assert vehicle.round().kind is Kind.NOTHING_NEW
    assert vehicle.restart().round().kind is Kind.NOTHING_NEW
    assert vehicle.installed() is None
    targets = list(vehicle.server.director.targets.targets.values())
    vehicle.assign()
    vehicle.round()
    vehicle.assign(*targets, correlation_id="urn:here-ota:mtu:1")
    assert vehicle.round().kind is Kind.INSTALLED


def test_a_download_goes_on_in_the_next_round_where_it_stood(vehicle: Vehicle) -> None:
    image = bytes(range(256)) * 4000
    vehicle.want("a.bin", image)

    def broken(handler: Handler, call: Call) -> None:
        first = int(call.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        headers = {"Content-Range": f"bytes {first}-{len(image) - 1}/{len(image)}"} if first else {}
        handler.send(206 if first else 200, image[first : first + 100_000], headers, length=len(image) - first)
        handler.close_connection = True

    vehicle.server.instead["/repo/targets/a.bin"] = broken
    assert vehicle.round().kind is Kind.UNREACHABLE
    assert vehicle.state.update is not None
    assert vehicle.state.update.failures == 1
    del vehicle.server.instead["/repo/targets/a.bin"]
    assert vehicle.restart().round().kind is Kind.INSTALLED
    assert vehicle.installed() == image
    ranges = [call.headers.get("range") for call in vehicle.server.calls if call.path == "/repo/targets/a.bin"]
    assert ranges == [None, "bytes=100000-", "bytes=200000-", "bytes=300000-"]


def test_an_image_that_never_comes_is_reported_in_the_end(vehicle: Vehicle) -> None:
    vehicle.want("a.bin", b"a")
    vehicle.server.instead["/repo/targets/a.bin"] = refusing(503)
    kinds = [vehicle.round().kind for _ in range(10)]
    assert kinds == [Kind.UNREACHABLE] * 9 + [Kind.FAILED]
    assert vehicle.report is not None
    assert vehicle.report["result"]["code"] == "DOWNLOAD_FAILED"


def test_an_image_that_isnt_there_is_reported_at_once(vehicle: Vehicle) -> None:
    vehicle.want("a.bin", b"a")
    vehicle.server.images.clear()
    assert vehicle.round().kind is Kind.FAILED
    assert vehicle.report is not None
    assert vehicle.report["result"]["code"] == "DOWNLOAD_FAILED"


def test_an_image_is_fetched_from_where_its_target_says(vehicle: Vehicle) -> None:
    target = vehicle.offer("a.bin", b"a", uri=f"{vehicle.server.url}/elsewhere")
    vehicle.server.instead["/elsewhere"] = lambda handler, call: handler.send(200, b"a")
    vehicle.assign(assigned(target, {PRIMARY: PRIMARY_HARDWARE}))
    assert vehicle.round().kind is Kind.INSTALLED
    other = vehicle.offer("b.bin", b"b", uri=f"{vehicle.server.url}/nowhere")
    vehicle.server.instead["/directors"] = lambda handler, call: handler.send(200, b"b")
    vehicle.assign(assigned(other, {PRIMARY: PRIMARY_HARDWARE}, uri=f"{vehicle.server.url}/directors"), correlation_id="urn:2")
    assert vehicle.round().kind is Kind.INSTALLED
    assert vehicle.installed() == b"b"


def test_targets_of_delegated_roles_are_found(vehicle: Vehicle) -> None:
    target = vehicle.offer("top.bin", b"top")
    inner = replace(target, name="vendor/a.bin")
    vehicle.server.images["vendor/a.bin"] = b"top"
    vehicle.server.image.delegate("outer", ["vendor/*"])
    vehicle.server.image.delegate("inner", ["vendor/*"], inner, below="outer")
    vehicle.assign(assigned(inner, {PRIMARY: PRIMARY_HARDWARE}))
    assert vehicle.round().kind is Kind.INSTALLED
    assert "GET /repo/delegations/inner.json" in vehicle.server.asked()
    stored = (vehicle.directory.uptane / "image.trusted").read_bytes()
    assert b"inner.json" in stored
    assert b"outer.json" in stored


def test_chains_of_roots_are_followed_in_both_repositories(vehicle: Vehicle) -> None:
    for repository in (vehicle.server.director, vehicle.server.image):
        repository.rotate(Role.ROOT)
        repository.rotate(Role.TARGETS, Role.SNAPSHOT, count=2)
        repository.rotate(Role.ROOT, Role.TIMESTAMP)
    vehicle.want("a.bin", b"a")
    assert vehicle.round().kind is Kind.INSTALLED
    for kind in Repository:
        assert vehicle.primary._parts.repositories[kind].root_version == 4
    assert vehicle.restart().round().kind is Kind.NOTHING_NEW
    assert vehicle.server.asked("GET /director/5.root.json")


def test_an_intermediate_root_may_have_expired_and_the_last_may_not(vehicle: Vehicle) -> None:
    director = vehicle.server.director
    director.publish_root(expires=Instant(vehicle.clock.now() - DAY))
    assert vehicle.round().kind is Kind.REFUSED
    assert vehicle.attacks == []
    director.publish_root()
    director.publish()
    assert vehicle.round().kind is Kind.NOTHING_NEW
    assert vehicle.attacks == ["ExpiredMetadata: The director root, version 2, has expired; there is no newer one."]


@pytest.mark.parametrize("status", [403, 424, 500])
def test_a_root_that_the_server_fails_to_look_for_hides_nothing_else(vehicle: Vehicle, status: int) -> None:
    vehicle.server.instead["/director/2.root.json"] = refusing(status)
    vehicle.want("a.bin", b"a")
    assert vehicle.round().kind is Kind.INSTALLED


def test_without_roots_the_first_that_the_server_sends_are_trusted_and_no_other_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vehicle = Vehicle(tmp_path, roots=False)
    vehicle.want("a.bin", b"a")
    assert vehicle.round().kind is Kind.INSTALLED
    assert "NO ROOT OF THE DIRECTOR WAS PROVISIONED" in caplog.text
    assert vehicle.primary._parts.repositories[Repository.DIRECTOR].origin.value == "first-use"
    before = len(vehicle.server.asked("GET /director/1.root.json"))
    vehicle.restart().round()
    assert len(vehicle.server.asked("GET /director/1.root.json")) == before == 1
    vehicle.close()


def test_a_director_without_timestamp_is_asked_for_targets_alone(tmp_path: Path) -> None:
    vehicle = Vehicle(tmp_path)
    for name in ("timestamp.json", "snapshot.json"):
        vehicle.server.instead[f"/director/{name}"] = refusing(404)
    vehicle.want("a.bin", b"a")
    assert vehicle.round().kind is Kind.INSTALLED
    vehicle.restart().round()
    assert vehicle.server.asked("GET /director/timestamp.json") == ["GET /director/timestamp.json"]
    # A new root may come with a new server, which has more to show.
    vehicle.server.instead.clear()
    vehicle.server.director.rotate(Role.TIMESTAMP)
    assert vehicle.round().kind is Kind.NOTHING_NEW
    assert vehicle.server.asked("GET /director/snapshot.json")
    vehicle.close()


def test_what_was_signed_anew_between_two_answers_is_asked_for_again(vehicle: Vehicle) -> None:
    vehicle.want("a.bin", b"a")

    def sign_anew(handler: Handler, call: Call) -> None:
        del vehicle.server.instead["/director/snapshot.json"]
        vehicle.server.director.publish()
        handler.send_document(vehicle.server.director.document("snapshot.json"))

    vehicle.server.instead["/director/snapshot.json"] = sign_anew
    assert vehicle.round().kind is Kind.INSTALLED


def test_a_registration_that_is_refused_ends_the_round_and_is_tried_again(tmp_path: Path) -> None:
    vehicle = Vehicle(tmp_path)
    vehicle.server.instead["/director/ecus"] = refusing(409, "ecu_replacement_disabled")
    outcome = vehicle.round()
    assert (outcome.kind, "ecu_replacement_disabled" in outcome.message) == (Kind.REFUSED, True)
    assert vehicle.server.manifests == []
    vehicle.server.instead.clear()
    assert vehicle.round().kind is Kind.NOTHING_NEW
    vehicle.close()


@pytest.mark.parametrize("status", [401, 403])
def test_a_blocked_device_asks_for_nothing_more(vehicle: Vehicle, status: int) -> None:
    vehicle.server.instead["/director/manifest"] = refusing(status, "device_blocked")
    before = len(vehicle.server.asked("GET "))
    outcome = vehicle.round()
    assert (outcome.kind, "device_blocked" in outcome.message) == (Kind.REFUSED, True)
    assert len(vehicle.server.asked("GET ")) == before


@pytest.mark.parametrize(("status", "batches"), [(200, [4]), (404, [4]), (413, [4, 2, 1, 1, 1, 1])])
def test_events_are_kept_halved_or_dropped_as_the_server_answers(vehicle: Vehicle, status: int, batches: list[int]) -> None:
    vehicle.server.instead["/events"] = refusing(503)
    vehicle.want("a.bin", b"a")
    vehicle.round()
    assert len(vehicle.state.events) == 4
    vehicle.server.calls.clear()
    vehicle.server.instead["/events"] = refusing(status)
    vehicle.restart().round()
    assert [len(batch) for batch in vehicle.server.bodies("POST /events")] == batches
    assert vehicle.state.events == ()


def test_what_needs_a_restart_of_the_machine_is_reported_after_it(tmp_path: Path) -> None:
    program = tmp_path / "install.py"
    log = tmp_path / "log"
    program.write_text(
        "import os, sys\n"
        f"open({str(log)!r}, 'a').write(' '.join(sys.argv[1:2]) + os.environ['OVERAIR_ECU_SERIAL'] + chr(10))\n"
        "sys.exit(75 if sys.argv[1] == 'install' else 0)\n"
    )
    command = [sys.executable, str(program)]
    vehicle = Vehicle(tmp_path, install={"command": [*command, "install"], "check": [*command, "check"]})
    vehicle.want("a.bin", b"a")
    assert vehicle.round().kind is Kind.WAITING
    assert vehicle.round().kind is Kind.WAITING
    assert vehicle.restart().round().kind is Kind.WAITING, "the program has restarted, the machine hasn't"
    assert vehicle.report is None
    assert vehicle.image_of(PRIMARY) == "unknown"
    assert "EcuInstallationApplied" in [event["eventType"]["id"] for event in vehicle.server.events]
    vehicle.machine_run = "run-2"
    vehicle.restart().round()
    assert vehicle.report is not None
    assert vehicle.report["result"]["code"] == "OK"
    assert vehicle.image_of(PRIMARY) == "a.bin"
    assert log.read_text() == f"install{PRIMARY}\ncheck{PRIMARY}\n"
    vehicle.close()


@pytest.mark.parametrize(
    ("argv", "description"),
    [
        (["/bin/sh", "-c", "echo broken; exit 3"], "ended with status 3. broken"),
        (["/nowhere/installer"], "can't be run"),
        ([sys.executable, "-c", "import threading; threading.Event().wait()"], "didn't end within 1 s"),
    ],
)
def test_a_program_that_fails_is_reported_with_what_it_said(tmp_path: Path, argv: list[str], description: str) -> None:
    vehicle = Vehicle(tmp_path, install={"command": argv, "timeout_s": 1})
    vehicle.want("a.bin", b"a")
    assert vehicle.round().kind is Kind.FAILED
    assert vehicle.report is not None
    (item,) = vehicle.report["items"]
    assert item["result"]["code"] == "INSTALL_FAILED"
    assert description in item["result"]["description"]
    assert vehicle.report["result"]["code"] == f"{PRIMARY_HARDWARE}:INSTALL_FAILED"
    vehicle.close()


def test_what_had_come_whole_is_installed_without_the_gateway(tmp_path: Path) -> None:
    """The line is lost just after the download; metadata that are still good are verified anew, and the image is installed."""
    vehicle = Vehicle(tmp_path)
    vehicle.want("a.bin", b"a")

    def last_answer(handler: Handler, call: Call) -> None:
        vehicle.server.send_image(handler, call, b"a")
        for path in ("/director/2.root.json", "/director/manifest"):
            vehicle.server.instead[path] = lambda handler, call: handler.hang_up()

    vehicle.server.instead["/repo/targets/a.bin"] = last_answer
    assert vehicle.round().kind is Kind.UNREACHABLE
    assert vehicle.installed() is None
    assert vehicle.restart().round().kind is Kind.INSTALLED
    assert vehicle.installed() == b"a"
    vehicle.server.instead.clear()
    vehicle.round()
    assert vehicle.report is not None
    assert vehicle.report["result"]["code"] == "OK"
    vehicle.close()


@pytest.mark.parametrize("spoilt", ["expired", "image", "root"])
def test_without_the_gateway_nothing_is_installed_that_isnt_still_good(tmp_path: Path, spoilt: str) -> None:
    vehicle = Vehicle(tmp_path)
    vehicle.want("a.bin", b"a")

    def last_answer(handler: Handler, call: Call) -> None:
        vehicle.server.send_image(handler, call, b"a")
        for path in ("/director/2.root.json", "/director/manifest"):
            vehicle.server.instead[path] = lambda handler, call: handler.hang_up()

    vehicle.server.instead["/repo/targets/a.bin"] = last_answer
    assert vehicle.round().kind is Kind.UNREACHABLE
    if spoilt == "expired":
        vehicle.clock.advance(milliseconds=31 * DAY)
    elif spoilt == "image":
        (image,) = (vehicle.directory.uptane / "images").iterdir()
        image.write_bytes(b"b")
    else:
        vehicle.clock.advance(milliseconds=400 * DAY)
    assert vehicle.restart().round().kind is Kind.UNREACHABLE
    assert vehicle.installed() is None
    vehicle.close()


def test_a_full_disk_ends_the_update_with_its_reason(vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch) -> None:
    vehicle.want("a.bin", b"a" * 1000)
    write_at = vehicle.disk.write_at

    def full(descriptor: int, data: bytes, offset_bytes: int) -> None:
        if len(data) == 1000:
            raise OSError(28, "No space left on device")
        write_at(descriptor, data, offset_bytes)

    monkeypatch.setattr(vehicle.disk, "write_at", full)
    assert vehicle.round().kind is Kind.FAILED
    assert vehicle.report is not None
    assert vehicle.report["result"]["code"] == "DOWNLOAD_FAILED"
    assert "No space left" in vehicle.report["result"]["description"]


def test_an_update_without_a_correlation_id_is_reported_too(vehicle: Vehicle) -> None:
    target = vehicle.offer("a.bin", b"a")
    vehicle.server.director.targets = replace(vehicle.server.director.targets, custom={})
    vehicle.server.director.put_targets(assigned(target, {PRIMARY: PRIMARY_HARDWARE}))
    assert vehicle.round().kind is Kind.INSTALLED
    report: dict[str, Any] | None = vehicle.report
    assert report is not None
    assert report["correlation_id"] == ""


def test_progress_tells_what_is_being_done(tmp_path: Path) -> None:
    shown: list[tuple[str, str | None]] = []

    class Sink:
        def show(self, progress: Any) -> None:
            if not shown or shown[-1] != (progress.state, progress.job):
                shown.append((progress.state, progress.job))

    vehicle = Vehicle(tmp_path)
    vehicle.primary._parts.progress = Sink()
    vehicle.want("a.bin", b"a" * 100_000)
    vehicle.round()
    job = "urn:here-ota:mtu:1"
    assert shown == [
        ("checking", None),
        ("registering", None),
        ("downloading", job),
        ("installing", job),
        ("waiting", None),
    ]
    vehicle.close()


def test_a_stop_ends_a_download_and_what_came_stays(vehicle: Vehicle) -> None:
    image = bytes(range(256)) * 4000
    vehicle.want("a.bin", image)
    pieces: list[float] = []

    def stop_after_three(seconds: float) -> bool:
        pieces.append(seconds)
        return len(pieces) > 3

    vehicle.restart().primary._downloads._pause = stop_after_three
    assert vehicle.round().kind is Kind.UNREACHABLE
    assert vehicle.restart().round().kind is Kind.INSTALLED
    ranges = [call.headers.get("range") for call in vehicle.server.calls if call.path == "/repo/targets/a.bin"]
    assert len(ranges) == 2
    assert ranges[0] is None
    assert ranges[1] is not None


def test_a_disk_that_takes_nothing_ends_the_round_and_not_the_program(
    vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch
) -> None:
    vehicle.want("a.bin", b"a")
    with monkeypatch.context() as broken:

        def full(descriptor: int, data: bytes, offset_bytes: int) -> None:
            raise OSError(28, "No space left on device")

        broken.setattr(vehicle.disk, "write_at", full)
        outcome = vehicle.round()
        assert (outcome.kind, "No space left" in outcome.message) == (Kind.REFUSED, True)
    assert vehicle.round().kind is Kind.INSTALLED
