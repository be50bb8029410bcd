"""A device as processes: enrolled, flashed, booted with the real commands."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from overair.agent.device_directory import DeviceDirectory, read_settings, write_settings
from overair.agent.progress import Progress, read_progress
from tests.support.server_process import ServerProcess, clean_environment
from tests.support.warm_process import WarmProcess, run

POLL_S = 0.005


def wait_until(condition: Callable[[], Any], *, timeout_s: float = 60, what: Callable[[], str] = str) -> Any:
    """Look again and again at what another process does; its first true answer."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what()}")
        time.sleep(POLL_S)
    return found


def command(module: str, *arguments: str | Path) -> str:
    """Run one of our commands to its end; its standard output."""
    ended = run(module, *map(str, arguments), environment=clean_environment(), timeout_s=120)
    assert ended.returncode == 0, f"{arguments}: {ended.returncode}\n{ended.stderr}\n{ended.stdout}"
    return ended.stdout


class DeviceProcess:
    """One device of ``server`` in ``root``."""

    def __init__(self, server: ServerProcess, name: str, root: Path) -> None:
        self.server = server
        self.name = name
        self.directory = DeviceDirectory(root)
        self._log = root.with_suffix(".log")
        self.process: WarmProcess | None = None

    def enroll(self, first_image: bytes) -> DeviceProcess:
        command("overair.cli.main", "device", "enroll", self.name, "--out", self.directory.root, "--data", self.server.data)
        image = self.directory.root.with_suffix(".first")
        image.write_bytes(first_image)
        command("overair.cli.device_main", "flash", self.directory.root, image)
        return self

    def change_settings(self, **changes: Any) -> DeviceProcess:
        """Rewrite ``device.json``; read at the next boot."""
        write_settings(self.directory, replace(read_settings(self.directory), **changes))
        return self

    def boot(self) -> DeviceProcess:
        with self._log.open("ab") as log:
            arguments = ["boot", "--device", str(self.directory.root)]
            environment = clean_environment()
            self.process = WarmProcess("overair.cli.device_main", arguments, environment=environment, stdout=log, stderr=log)
        wait_until(lambda: self.image_pid, what=self.log)
        return self

    def ship(self, image: bytes, *flags: str) -> str:
        """Ship to this device alone; the job's id."""
        path = self.directory.root.with_suffix(".image")
        path.write_bytes(image)
        arguments = ("ship", path, "--to", self.name, "--json", "--data", self.server.data, *flags)
        return str(json.loads(command("overair.cli.main", *arguments))["job"])

    def execution(self, job: str) -> dict[str, Any]:
        described = self.server.client("iot").describe_job_execution(jobId=job, thingName=self.name)
        return dict(described["execution"])

    def wait_for_end(self, job: str, *, timeout_s: float = 60) -> dict[str, Any]:
        """The execution, once it is in a terminal state."""

        iot = self.server.client("iot")

        def ended() -> dict[str, Any] | None:
            time.sleep(0.05)
            execution = iot.describe_job_execution(jobId=job, thingName=self.name)["execution"]
            return execution if execution["status"] not in ("QUEUED", "IN_PROGRESS") else None

        return dict(wait_until(ended, timeout_s=timeout_s, what=self.log))

    @property
    def image_pid(self) -> int | None:
        try:
            return int(json.loads((self.directory.run / "boot.json").read_bytes())["image_pid"])
        except FileNotFoundError:
            return None

    @property
    def progress(self) -> Progress | None:
        return read_progress(self.directory.run / "progress.json")

    def status(self) -> dict[str, Any]:
        return dict(json.loads(command("overair.cli.device_main", "status", self.directory.root, "--json")))

    def kill_image(self) -> None:
        """SIGKILL to the running image; returns when the boot loader has started it again."""
        pid = self.image_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self.image_pid not in (None, pid), what=self.log)

    def log(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-40:]) if self._log.exists() else ""

    def stop(self) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def wait_for_death(pid: int, *, timeout_s: float = 30) -> None:
    """Return when a process has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], timeout_s)[0], f"process {pid} still runs"
    finally:
        os.close(descriptor)
