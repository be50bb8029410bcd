"""The whole road with real processes: the boot loader, an image that runs the Primary, a gateway over TLS."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overair.agent.device_directory import DeviceDirectory
from overair.agent.flash import read_status
from overair.agent.progress import read_progress
from tests.support.device import HARDWARE, cached_image
from tests.support.device_process import wait_until
from tests.support.uptane_repository import assigned, target_file
from tests.support.uptane_server import UptaneServer
from tests.support.uptane_vehicle import device_pair, issuer

COMMAND = [sys.executable, "-m", "overair.cli.device_main"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[UptaneServer]:
    server = UptaneServer(tmp_path / "server", issuer=issuer())
    yield server
    server.close()


@pytest.fixture
def device(tmp_path: Path, server: UptaneServer) -> Iterator[DeviceDirectory]:
    """Provisioned from own PKI, flashed with 1.0.0, booted."""
    certificate, key = device_pair()
    for name, data in (("c.pem", certificate), ("k.pem", key), ("ca.pem", issuer().pem), ("first.zip", cached_image("1.0.0"))):
        (tmp_path / name).write_bytes(data)
    files = ["--certificate", "c.pem", "--private-key", "k.pem", "--ca", "ca.pem", "--server", server.url]
    root = tmp_path / "device"
    made = [*COMMAND, "uptane", "provision", str(root), *files, "--hardware-id", HARDWARE, "--polling-s", "1"]
    subprocess.run([*made, "--ecu-serial", "p-1"], check=True, cwd=tmp_path, capture_output=True)
    subprocess.run([*COMMAND, "flash", str(root), "first.zip"], check=True, cwd=tmp_path, capture_output=True)
    with (tmp_path / "log").open("wb") as log:
        loader = subprocess.Popen([*COMMAND, "boot", "--device", str(root)], stdout=log, stderr=log)
    yield DeviceDirectory(root)
    loader.terminate()
    assert loader.wait(20) == 0


def ship(server: UptaneServer, version: str, **changes: Any) -> None:
    name, content = f"app-{version}.zip", cached_image(version, **changes)
    server.images[name] = content
    target = server.image.add_target(target_file(name, content, hardware_ids=[HARDWARE]))
    server.director.put_targets(assigned(target, {"p-1": HARDWARE}), custom={"correlationId": f"urn:{version}"})


def reports(server: UptaneServer) -> dict[str, str]:
    found = {}
    for manifest in list(server.manifests):
        report = manifest["signed"].get("installation_report")
        if report is not None:
            found[report["report"]["correlation_id"]] = report["report"]["result"]["code"]
    return found


def test_one_image_build_serves_a_uptane_device_too(server: UptaneServer, device: DeviceDirectory, tmp_path: Path) -> None:
    def log() -> str:
        return (tmp_path / "log").read_text()[-4000:]

    wait_until(lambda: server.manifests, what=log)
    ship(server, "2.0.0")
    wait_until(lambda: "urn:2.0.0" in reports(server), what=log)
    assert reports(server) == {"urn:2.0.0": "OK"}
    status = read_status(device)
    assert (status.version, status.state) == ("2.0.0", "valid")
    ship(server, "3.0.0", self_test="crash")
    wait_until(lambda: "urn:3.0.0" in reports(server), what=log)
    assert reports(server)["urn:3.0.0"] == f"{HARDWARE}:INSTALL_FAILED"
    assert read_status(device).version == "2.0.0"
    progress = read_progress(device.run / "progress.json")
    assert progress is not None
    assert progress.version == "2.0.0"
    shown = subprocess.run([*COMMAND, "uptane", "status", str(device.root), "--json"], check=True, capture_output=True)
    assert json.loads(shown.stdout)["ecus"]["p-1"]["image"] == "app-2.0.0.zip"
