"""``overair ship`` over both families at once: a device of AWS's kind and a Uptane Primary with a Secondary, one job."""

from __future__ import annotations

import json
import shlex
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overair.agent.image_builder import build_image
from tests.support.device_process import DeviceProcess, command, wait_until
from tests.support.server_process import ServerProcess, overair
from tests.support.vehicle_on_hand import VehicleOnHand

BOTH = ("--hardware-id", "gw", "--hardware-id", "door")


class World:
    """A server, and names that are this test's own."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.iot = server.client("iot")
        self.mark = uuid.uuid4().hex[:6]
        self.group = f"mixed-{self.mark}"
        self.iot.create_thing_group(thingGroupName=self.group)
        self.running: list[DeviceProcess] = []

    def aws_device(self) -> DeviceProcess:
        """Enrolled and flashed; not booted."""
        name = f"aws-{self.mark}"
        device = DeviceProcess(self.server, name, self.folder / name).enroll(build_image("app", "1.0.0", "posix"))
        self.running.append(device)
        self.join(name)
        return device

    def vehicle(self, name: str = "car", *flags: str, gateway: str = "gw", door: str = "door") -> VehicleOnHand:
        vehicle = VehicleOnHand(self.server, f"{name}-{self.mark}", self.folder, gateway=gateway, door=door).provision(*flags)
        self.join(vehicle.name)
        return vehicle

    def join(self, thing: str) -> None:
        self.iot.add_thing_to_thing_group(thingGroupName=self.group, thingName=thing)

    def image(self, version: str) -> Path:
        path = self.folder / f"app-{version}.zip"
        if not path.exists():
            path.write_bytes(build_image("app", version, "posix", payload=self.mark.encode()))
        return path

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return overair(*arguments, folder=self.folder, OVERAIR_DATA=str(self.server.data))

    def ship(self, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
        """``overair ship … --to group:G --json``; its document."""
        # Names in the Image repository are this test's own: the server is shared.
        named = () if "--bundle" in arguments or not set(BOTH) & set(arguments) else ("--name", f"app-{self.mark}")
        ended = self.run("ship", *arguments, *named, "--to", f"group:{self.group}", "--json")
        assert ended.returncode == code, ended.stderr
        return dict(json.loads(ended.stdout)) if ended.stdout else {"error": ended.stderr}

    def watch(self, job: str) -> dict[str, Any]:
        return dict(json.loads(self.run("watch", job, "--json").stdout))


@pytest.fixture
def world(server: ServerProcess, tmp_path: Path) -> Iterator[World]:
    made = World(server, tmp_path)
    yield made
    for device in made.running:
        device.stop()


def test_one_job_reaches_a_device_and_a_vehicle_each_on_its_own_road(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    device, car = world.aws_device().boot(), world.vehicle()
    stranger = world.vehicle("boat", gateway="boat-gw", door="boat-door")
    shipped = world.ship(world.image("2.0.0"), *BOTH)
    job = shipped["job"]
    assert shipped["uptane_things"] == sorted([car.name, stranger.name])
    (left_out,) = shipped["left_out"]
    assert left_out["thing"] == stranger.name
    assert "boat-gw" in left_out["reason"]

    by_director = car.rounds_until_ended(job)
    by_document = device.wait_for_end(job)
    assert (by_director["status"], by_document["status"]) == ("SUCCEEDED", "SUCCEEDED")
    assert by_director["statusDetails"]["detailsMap"]["ecus"] == f"{car.name}-door=OK,{car.name}-gw=OK"
    assert {ecu["image"] for ecu in car.running(capsys)["ecus"].values()} == {f"app-{world.mark}-2.0.0"}
    assert device.status()["version"] == "2.0.0"

    watched = world.watch(job)
    assert watched["counts"] == {"SUCCEEDED": 2}
    assert {each["thing"] for each in watched["devices"]} == {device.name, car.name}
    assert [each["thing"] for each in watched["left_out"]] == [stranger.name]
    # For people: one table for all of them, and a chain of reasons for the vehicle that got nothing.
    table = world.run("watch", job).stdout
    assert "installed on" in table
    assert "accepted version" in table
    assert "LEFT OUT" in table
    why = world.run("why", stranger.name).stdout
    assert f"Job {job} left it out" in why
    assert "connected" not in why


def test_a_cancel_reaches_both_roads(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    device, car = world.aws_device(), world.vehicle()
    job = world.ship(world.image("2.0.0"), *BOTH)["job"]
    assert world.iot.cancel_job(jobId=job, force=True)["jobId"] == job
    car.round()
    assert car.execution(job)["status"] == "CANCELED"
    assert device.execution(job)["status"] == "CANCELED"
    assert {ecu["image"] for ecu in car.running(capsys)["ecus"].values()} == {None}
    assert world.watch(job)["counts"] == {"CANCELED": 2}


def test_a_vehicle_that_fails_ends_the_job_for_the_device_as_well_and_the_rate_is_the_jobs(world: World) -> None:
    device = world.aws_device()
    car = world.vehicle("car", "--install-command", "/bin/false")
    job = world.ship(world.image("2.0.0"), *BOTH, "--rate", "500/min", "--abort-on-failures", "50%")["job"]
    described = world.iot.describe_job(jobId=job)["job"]
    assert described["jobExecutionsRolloutConfig"]["maximumPerMinute"] == 500
    assert described["abortConfig"]["criteriaList"][0]["thresholdPercentage"] == 50
    wait_until(lambda: len(world.iot.list_job_executions_for_job(jobId=job)["executionSummaries"]) == 2)
    assert car.rounds_until_ended(job)["status"] == "FAILED"
    watched = world.run("watch", job, "--json", "--timeout", "30")
    assert watched.returncode == 3
    assert json.loads(watched.stdout)["counts"] == {"CANCELED": 1, "FAILED": 1}
    assert device.execution(job)["status"] == "CANCELED"
    assert "/bin/false" in world.run("why", car.name).stdout


def test_a_bundle_brings_each_kind_of_ecu_its_own_image_and_needs_no_file_for_anybody_else(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    car = world.vehicle()
    (world.folder / "gateway.bin").write_bytes(b"gateway 1 " * 100)
    (world.folder / "door.bin").write_bytes(b"door 1 " * 100)
    first = world.folder / "first.toml"
    first.write_text(
        f'[hardware.gw]\nimage = "gateway.bin"\nname = "gateway-{world.mark}"\nversion = "1"\n'
        f'[hardware.door]\nimage = "door.bin"\nname = "door-{world.mark}"\nversion = "1"\n'
    )
    shipped = world.ship("--bundle", first)
    job = shipped["job"]
    document = json.loads(world.iot.get_job_document(jobId=job)["document"])
    assert document == {"uptane": {"multiTargetUpdate": shipped["multi_target_update"]}}
    assert car.rounds_until_ended(job)["status"] == "SUCCEEDED"
    assert {ecu["hardware_id"]: ecu["image"] for ecu in car.running(capsys)["ecus"].values()} == {
        "gw": f"gateway-{world.mark}-1",
        "door": f"door-{world.mark}-1",
    }
    # The same images by the names that they have there; only for ECUs that run something else than these do.
    again = world.folder / "again.json"
    again.write_text(
        json.dumps({"hardware": {"gw": {"target": f"door-{world.mark}-1"}, "door": {"target": f"door-{world.mark}-1"}}})
    )
    refused = world.ship("--bundle", again, code=2)["error"]
    assert "is signed for hardware door, not for gw" in refused
    only_from = world.folder / "from.json"
    part = {"target": f"gateway-{world.mark}-1", "from": f"door-{world.mark}-1"}
    only_from.write_text(json.dumps({"hardware": {"gw": part}}))
    refused = world.ship("--bundle", only_from, code=2)["error"]
    assert "Nobody would get it" in refused


def test_where_nobody_has_ecus_nothing_goes_into_the_image_repository(world: World) -> None:
    world.iot.create_thing(thingName=f"plain-{world.mark}")
    world.join(f"plain-{world.mark}")
    shipped = world.ship(world.image("2.0.0"), *BOTH)
    assert (shipped["uptane_things"], shipped["multi_target_update"]) == ([], None)
    empty = world.folder / "empty.toml"
    empty.write_text('[hardware.gw]\ntarget = "anything"\n')
    assert "has registered ECUs" in world.ship("--bundle", empty, code=2)["error"]


def test_a_version_that_stands_for_other_bytes_is_refused_before_anything_is_on_its_way(world: World) -> None:
    world.vehicle()
    file = world.folder / "firmware.bin"
    file.write_bytes(b"one")
    world.ship(file, *BOTH, "--version", "7")
    before = world.iot.list_jobs()["jobs"]
    file.write_bytes(b"two")
    assert "with other bytes" in world.ship(file, *BOTH, "--version", "7", code=2)["error"]
    assert world.iot.list_jobs()["jobs"] == before
    assert "doesn't say its version" in world.ship(file, *BOTH, code=1)["error"]


def test_with_offline_keys_nothing_is_half_shipped_and_after_the_signature_the_same_words_go_on(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    world = World(new_server().start(), tmp_path)
    device, car = world.aws_device(), world.vehicle()
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("words that nobody guesses so soon\n")
    signing = ("--dir", tmp_path / "tree", "--passphrase-file", passphrase)
    command("overair.cli.main", "sign", "init", tmp_path / "tree", "--data", world.server.data)
    for role in ("root", "targets"):
        command("overair.cli.main", "sign", "keys", "new", f"our-{role}", "--role", role, *signing)
    command("overair.cli.main", "sign", "take-offline", "--yes", *signing)

    image = world.image("2.0.0")
    waits = world.ship(image, *BOTH, code=2)["needs_signature"]
    assert waits["targets"] == [f"app-{world.mark}-2.0.0"]
    assert waits["threshold"] == 1
    assert world.iot.list_jobs()["jobs"] == []
    assert world.iot.list_ota_updates()["otaUpdates"] == []
    # What it says is what is done, word by word.
    for line in waits["commands"]:
        program, sign, verb, *words = shlex.split(line)
        assert (program, sign) == ("overair", "sign")
        secret = signing if verb == "push" else signing[:2]
        command("overair.cli.main", sign, verb, *words, *secret)
    job = world.ship(image, *BOTH)["job"]
    assert car.rounds_until_ended(job)["status"] == "SUCCEEDED"
    assert device.execution(job)["status"] == "QUEUED"
