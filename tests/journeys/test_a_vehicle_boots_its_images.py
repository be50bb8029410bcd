"""A Uptane device that boots its images from slots, against a real server: the same image build, boot loader and self-test as
the devices of the other road, shipped by one command."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overair.agent.device_directory import DeviceDirectory
from overair.agent.durable import Disk
from overair.agent.flash import read_status
from overair.agent.image_builder import build_image
from overair.agent.slots import SlotStore
from tests.support.device_process import command, wait_until
from tests.support.server_process import ServerProcess, clean_environment


class BootingVehicle:
    """Let in by a shared credential, flashed with 1.0.0, booted."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.name = f"truck-{uuid.uuid4().hex[:6]}"
        self.hardware = f"{self.name}-hw"
        self.directory = DeviceDirectory(folder / "device")
        credentials, first = folder / "credentials.zip", folder / "first.zip"
        command("overair.cli.main", "credentials", "device", "--out", credentials, "--data", server.data)
        flags = ("--device-id", self.name, "--hardware-id", self.hardware, "--polling-s", "1")
        command("overair.cli.device_main", "uptane", "provision", self.directory.root, "--credentials", credentials, *flags)
        first.write_bytes(build_image("app", "1.0.0", self.hardware))
        command("overair.cli.device_main", "flash", self.directory.root, first)
        with (folder / "log").open("wb") as log:
            self.loader = subprocess.Popen(
                [sys.executable, "-m", "overair.cli.device_main", "boot", "--device", str(self.directory.root)],
                stdout=log,
                stderr=log,
                env=clean_environment(),
            )

    def log(self) -> str:
        return (self.folder / "log").read_text()[-3000:]

    def status(self) -> dict[str, Any]:
        return dict(json.loads(command("overair.cli.device_main", "uptane", "status", self.directory.root, "--json")))

    def wait_until_registered(self) -> BootingVehicle:
        wait_until(lambda: self.status()["registered"], what=self.log)
        return self

    def ship(self, version: str, **changes: Any) -> str:
        image = self.folder / f"app-{version}.zip"
        image.write_bytes(build_image("app", version, self.hardware, **changes))
        named = ("--name", f"app-{self.name}", "--hardware-id", self.hardware)
        shipped = command("overair.cli.main", "ship", image, "--to", self.name, *named, "--json", "--data", self.server.data)
        return str(json.loads(shipped)["job"])

    def end_of(self, job: str) -> dict[str, Any]:
        iot = self.server.client("iot")

        def ended() -> dict[str, Any] | None:
            execution = iot.describe_job_execution(jobId=job, thingName=self.name)["execution"]
            return dict(execution) if execution["status"] not in ("QUEUED", "IN_PROGRESS") else None

        return dict(wait_until(ended, timeout_s=90, what=self.log))

    def stop(self) -> None:
        self.loader.terminate()
        assert self.loader.wait(20) == 0


@pytest.fixture
def truck(server: ServerProcess, tmp_path: Path) -> Iterator[BootingVehicle]:
    truck = BootingVehicle(server, tmp_path)
    yield truck.wait_until_registered()
    truck.stop()


def test_images_are_booted_tried_and_reported_by_uptane_as_by_jobs(truck: BootingVehicle) -> None:
    good = truck.ship("2.0.0")
    execution = truck.end_of(good)
    assert execution["status"] == "SUCCEEDED", truck.log()
    status = read_status(truck.directory)
    assert (status.version, status.state) == ("2.0.0", "valid")
    record = SlotStore(truck.directory, Disk()).read().b
    assert record is not None
    assert record.trust == "uptane"

    crashing = truck.ship("3.0.0", self_test="crash")
    execution = truck.end_of(crashing)
    assert execution["status"] == "FAILED"
    assert "INSTALL_FAILED" in json.dumps(execution["statusDetails"])
    assert read_status(truck.directory).version == "2.0.0"
    (ecu,) = truck.status()["ecus"].values()
    assert ecu["image"] == f"app-{truck.name}-2.0.0"
