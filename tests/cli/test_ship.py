"""``overair ship``, ``watch`` and ``why``: with a real server and real devices, each its own process."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overair.agent.image_builder import build_image
from tests.support.device_process import DeviceProcess
from tests.support.server_process import ServerProcess
from tests.support.server_process import overair as run

HARDWARE = "posix"


@pytest.fixture
def images(tmp_path: Path) -> Callable[..., Path]:
    def make(version: str, self_test: str = "pass") -> Path:
        path = tmp_path / f"app-{version}-{self_test}.zip"
        path.write_bytes(build_image("app", version, HARDWARE, self_test=self_test))  # type: ignore[arg-type]
        return path

    return make


@pytest.fixture
def device(server: ServerProcess, tmp_path: Path, images: Callable[..., Path]) -> Iterator[DeviceProcess]:
    name = f"ship-{uuid.uuid4().hex[:8]}"
    process = DeviceProcess(server, name, tmp_path / name).enroll(images("1.0.0").read_bytes()).boot()
    yield process
    process.stop()


def test_an_image_is_shipped_followed_and_runs(
    server: ServerProcess, device: DeviceProcess, images: Callable[..., Path]
) -> None:
    shipped = run(
        "ship", images("2.0.0"), "--to", device.name, "--version", "2.0.0", "--watch", "--json", "--data", server.data
    )
    assert shipped.returncode == 0, shipped.stderr
    document = json.loads(shipped.stdout)
    assert document["counts"] == {"SUCCEEDED": 1}
    assert document["devices"][0]["details"]["reason"] == "accepted  v2.0.0"
    assert device.status()["version"] == "2.0.0"


def test_devices_that_do_not_take_it_end_the_command_with_3(
    server: ServerProcess, device: DeviceProcess, images: Callable[..., Path]
) -> None:
    shipped = run("ship", images("2.0.0", "fail"), "--to", device.name, "--watch", "--data", server.data)
    assert shipped.returncode == 3
    assert device.name in shipped.stderr
    assert device.status()["version"] == "1.0.0"


def test_any_file_is_shipped_verified_and_stored_without_a_restart(
    server: ServerProcess, device: DeviceProcess, tmp_path: Path
) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"\x01\x02\x03" * 5000)
    boots = device.status()["boots"]
    words = ["--as", "models/model.bin", "--version", "7.1"]
    shipped = run("ship", file, "--to", device.name, *words, "--watch", "--data", server.data)
    assert shipped.returncode == 0, shipped.stderr
    assert "stored as a file of type 1" in " ".join(shipped.stdout.split())
    assert (device.directory.files / "models" / "model.bin").read_bytes() == file.read_bytes()
    assert device.status()["boots"] == boots


def test_an_update_that_nobody_takes_in_time_ends_with_4_and_why_says_what_is_missing(
    server: ServerProcess, images: Callable[..., Path]
) -> None:
    server.client("iot").create_thing(thingName="never-seen")
    shipped = run("ship", images("2.0.0"), "--to", "never-seen", "--watch", "--timeout", "1", "--data", server.data)
    assert shipped.returncode == 4
    assert "never-seen (QUEUED)" in shipped.stderr
    why = json.loads(run("why", "never-seen", "--json", "--data", server.data).stdout)
    assert why["thing"] == "never-seen"
    assert any("certificate" in reason for reason in why["reasons"])


def test_a_version_that_is_not_the_images_own_is_a_usage_error(server: ServerProcess, images: Callable[..., Path]) -> None:
    refused = run("ship", images("2.0.0"), "--to", "anybody", "--version", "2.0.1", "--data", server.data)
    assert refused.returncode == 1
    assert "2.0.0" in refused.stderr


def test_a_target_that_is_not_there_is_refused(server: ServerProcess, images: Callable[..., Path]) -> None:
    for target in ("no-such-thing", "group:no-such-group"):
        refused = run("ship", images("2.0.0"), "--to", target, "--data", server.data)
        assert refused.returncode == 2
        assert "ResourceNotFoundException" in refused.stderr


def test_a_dry_run_says_what_would_happen_and_changes_nothing(server: ServerProcess, images: Callable[..., Path]) -> None:
    iot = server.client("iot")
    iot.create_thing(thingName="dry")
    before = iot.list_ota_updates()["otaUpdates"]
    shown = run("ship", images("2.0.0"), "--to", "dry", "--dry-run", "--json", "--data", server.data)
    assert shown.returncode == 0, shown.stderr
    document = json.loads(shown.stdout)
    assert (document["dry_run"], document["things"], document["version"]) == (True, ["dry"], "2.0.0")
    assert document["signer_testing_only"] is True
    assert iot.list_ota_updates()["otaUpdates"] == before


def test_groups_and_all_mean_their_things(new_server: Callable[..., ServerProcess], images: Callable[..., Path]) -> None:
    server = new_server().start()
    iot = server.client("iot")
    iot.create_thing_group(thingGroupName="lab")
    for thing in ("a", "b", "c"):
        iot.create_thing(thingName=thing)
    for thing in ("a", "b"):
        iot.add_thing_to_thing_group(thingGroupName="lab", thingName=thing)
    for target, expected in (("group:lab", {"a", "b"}), ("all", {"a", "b", "c"})):
        shipped = run("ship", images("2.0.0"), "--to", target, "--json", "--data", server.data)
        assert shipped.returncode == 0, shipped.stderr
        document = json.loads(shipped.stdout)
        assert set(document["things"]) == expected
        listed = iot.list_job_executions_for_job(jobId=document["job"])["executionSummaries"]
        assert {summary["thingArn"].rsplit("/", 1)[1] for summary in listed} == expected


def test_status_says_who_signs_and_what_a_thief_could_do(server: ServerProcess) -> None:
    told = run("status", "--json", "--data", server.data)
    assert told.returncode == 0, told.stderr
    document = json.loads(told.stdout)
    assert document["account"] == server.endpoints["account"]
    assert document["keys_at_rest"] == "file"
    assert document["image_signing"]["profiles"][0]["testing_only"] is True
    assert any("--key-passphrase-file" in warning for warning in document["warnings"])
    assert "overair_default" in run("status", "--data", server.data).stdout
