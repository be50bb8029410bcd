"""A Uptane Primary with a Secondary inside it, whose rounds a test begins one by one: our own client against a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from overair.cli import device_main
from tests.support.device_process import command
from tests.support.server_process import ServerProcess

ROUNDS_MAX = 10


class VehicleOnHand:
    """``overair-device uptane …`` in this process. ECUs: ``NAME-gw`` (the Primary) and ``NAME-door``."""

    def __init__(self, server: ServerProcess, name: str, folder: Path, *, gateway: str = "gw", door: str = "door") -> None:
        self.server, self.name, self.directory = server, name, folder / name
        self._hardware = (gateway, door)
        self._folder = folder

    def provision(self, *flags: str) -> VehicleOnHand:
        """Let in by a shared credential, and known by its first round."""
        credentials = self._folder / f"{self.name}.zip"
        command("overair.cli.main", "credentials", "device", "--out", credentials, "--data", self.server.data)
        gateway, door = self._hardware
        arguments = ["--credentials", str(credentials), "--device-id", self.name, "--hardware-id", gateway]
        arguments += ["--ecu-serial", f"{self.name}-gw", "--virtual", f"{self.name}-door:{door}"]
        flags = flags or ("--install-file", "firmware.bin")
        assert device_main.main(["uptane", "provision", str(self.directory), *arguments, *flags]) == 0
        self.round()
        return self

    def round(self) -> int:
        """One round; the command's exit status."""
        return device_main.main(["uptane", "once", str(self.directory)])

    def rounds_until_ended(self, job: str) -> dict[str, Any]:
        """Its execution of a job, once it has ended."""
        for _ in range(ROUNDS_MAX):
            self.round()
            execution = self.execution(job)
            if execution["status"] not in ("QUEUED", "IN_PROGRESS"):
                return execution
        raise AssertionError(f"{self.name} is not done with {job} after {ROUNDS_MAX} rounds: {execution}")

    def execution(self, job: str) -> dict[str, Any]:
        described = self.server.client("iot").describe_job_execution(jobId=job, thingName=self.name)
        return dict(described["execution"])

    def running(self, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
        """What it says of itself."""
        capsys.readouterr()
        assert device_main.main(["uptane", "status", str(self.directory), "--json"]) == 0
        return dict(json.loads(capsys.readouterr().out))
