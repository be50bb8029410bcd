"""A Linux gateway at the real server: its own programs install, the service is started again as systemd would."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from overair.agent.device_directory import DeviceDirectory, read_settings, write_settings
from overair.agent.settings import EXIT_STATUS_RESET
from tests.support.device_process import DeviceProcess, command, wait_until
from tests.support.gateway_machine import hook_settings, image
from tests.support.server_process import ServerProcess, clean_environment

EMBEDDING = Path(__file__).parents[2] / "docs" / "embedding.md"
ACTIVATE = "head -n 1 $W/installed > $W/version.new; mv $W/version.new $W/version; echo activate >> $W/log"


class Gateway:
    """Enrolled, with hooks over files in ``world``; ``argv`` is what its service starts."""

    def __init__(self, server: ServerProcess, name: str, root: Path) -> None:
        self.server = server
        self.name = name
        self.world = root / "world"
        self.world.mkdir()
        (self.world / "version").write_text("1.0.0\n")
        (self.world / "verdict").write_text("0")
        self.directory = DeviceDirectory(root / name)
        self._log = root / "log"
        command("overair.cli.main", "device", "enroll", name, "--out", self.directory.root, "--data", server.data)
        hooks = hook_settings(self.world, without=("reboot", "permit"), activate=ACTIVATE)
        write_settings(self.directory, replace(read_settings(self.directory), hooks=hooks))
        self.process: subprocess.Popen[bytes] | None = None
        self.argv = [sys.executable, "-m", "overair.cli.device_main", "run", str(self.directory.root), "--json"]

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self.argv, stdout=log, stderr=log, env=clean_environment(), cwd=self.world)

    def start_again_after_75(self) -> None:
        """What the unit in docs/systemd says."""
        assert self.process is not None
        assert self.process.wait(60) == EXIT_STATUS_RESET, self.log()
        self.start()

    def ship(self, data: bytes, *flags: str) -> str:
        path = self.world / "shipped"
        path.write_bytes(data)
        arguments = ("ship", path, "--to", self.name, "--json", "--data", self.server.data, *flags)
        return str(json.loads(command("overair.cli.main", *arguments))["job"])

    def wait_for_end(self, job: str) -> dict[str, Any]:
        described = DeviceProcess(self.server, self.name, self.directory.root)
        return described.wait_for_end(job)

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(30) == 0, self.log()


@pytest.fixture
def new_gateway(server: ServerProcess, tmp_path: Path) -> Iterator[Callable[[str], Gateway]]:
    made: list[Gateway] = []

    def make(name: str) -> Gateway:
        made.append(Gateway(server, name, tmp_path))
        return made[-1]

    yield make
    for gateway in made:
        if gateway.process is not None and gateway.process.poll() is None:
            gateway.process.kill()
            gateway.process.wait()


def test_a_gateway_is_updated_by_its_own_programs_and_says_each_step(new_gateway: Callable[[str], Gateway]) -> None:
    gateway = new_gateway("gateway-1")
    gateway.start()
    job = gateway.ship(image("2.0.0", size_bytes=200_000))
    gateway.start_again_after_75()
    execution = gateway.wait_for_end(job)
    assert execution["status"] == "SUCCEEDED", gateway.log()
    assert execution["statusDetails"]["detailsMap"] == {"reason": "accepted  v2.0.0", "updatedBy": "  v1.0.0"}
    log = (gateway.world / "log").read_text().splitlines()
    assert log[0].startswith("install ")
    assert log[1:] == ["activate", "self_test", "commit"]
    gateway.stop()
    steps = [json.loads(line)["step"] for line in gateway.log().splitlines() if line.startswith('{"step"')]
    assert any("receives 'shipped'" in step for step in steps), steps
    assert any(step.startswith("version 2.0.0") and "told SUCCEEDED (accepted version 2.0.0)" in step for step in steps), steps


def test_the_example_of_the_page_puts_off_does_other_jobs_and_updates(
    server: ServerProcess, new_gateway: Callable[[str], Gateway]
) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", EMBEDDING.read_text(), re.MULTILINE | re.DOTALL)
    gateway = new_gateway("embedded-1")
    program = gateway.world / "agent.py"
    program.write_text(example)
    gateway.argv = [sys.executable, str(program), str(gateway.directory.root)]
    (gateway.world / "busy").touch()
    gateway.start()
    iot = server.client("iot")
    arn = iot.describe_thing(thingName="embedded-1")["thingArn"]
    for operation, status in (("greet", "SUCCEEDED"), ("dance", "REJECTED")):
        job = f"embedded-{operation}"
        iot.create_job(jobId=job, targets=[arn], document=json.dumps({"operation": operation}))
        execution = gateway.wait_for_end(job)
        assert execution["status"] == status, gateway.log()
    assert execution["statusDetails"]["detailsMap"] == {"reason": "unknown operation"}
    update = gateway.ship(image("2.0.0"))
    device = DeviceProcess(server, "embedded-1", gateway.directory.root)

    def put_off() -> bool:
        found = device.execution(update)
        return found.get("statusDetails", {}).get("detailsMap", {}).get("deferred") == "busy"

    wait_until(put_off, what=gateway.log)
    assert device.execution(update)["status"] == "IN_PROGRESS"
    (gateway.world / "busy").unlink()
    gateway.start_again_after_75()
    assert gateway.wait_for_end(update)["status"] == "SUCCEEDED", gateway.log()
    gateway.stop()
