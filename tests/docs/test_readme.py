"""README shows only what was run: here it is run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from overair.agent.image_builder import build_image
from tests.support.device_process import wait_until
from tests.support.server_fixtures import new_server
from tests.support.server_process import ServerProcess, clean_environment

README = (Path(__file__).parents[2] / "README.md").read_text()
__all__ = ["new_server"]


def blocks(language: str, section: str | None = None) -> list[str]:
    """The fenced blocks of a language, in order; of one section alone where it is named."""
    text = README if section is None else README.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_ten_lines_of_boto3_ship_an_image(new_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    server = new_server(name="overair-data").start()
    overair = f"{sys.executable} -m overair.cli.main"
    (tmp_path / "app.zip").write_bytes(build_image("app", "2.0.0", "posix"))
    (program,) = blocks("python")
    assert len([line for line in program.splitlines() if line.strip()]) <= 10
    (tmp_path / "ship.py").write_text(program)
    # The shell block's own lines, but for starting the server: this test's is on free ports.
    lines = [line.replace(".venv/bin/overair", overair) for block in blocks("sh", "Start it") for line in block.splitlines()]
    wanted = [
        line.replace("aws ", f"{Path(sys.executable).parent}/aws ") for line in lines if re.match(r"eval|/.* device|aws", line)
    ]
    assert len(wanted) == 3
    script = "\n".join(["set -e", *wanted, f"{sys.executable} ship.py"])
    ended = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=100, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert '"thingName": "dev-1"' in ended.stdout
    job = json.loads((tmp_path / "overair-data" / "run" / "endpoints.json").read_text())
    assert job["account"] == server.endpoints["account"]
    update = server.client("iot").get_ota_update(otaUpdateId="app-2")["otaUpdateInfo"]
    assert update["awsIotJobId"] == "AFR_OTA-app-2"


def test_the_lines_for_uptane_devices_update_a_vehicle(new_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    new_server(name="overair-data").start()
    (tmp_path / "app.zip").write_bytes(build_image("app", "2.0.0", "posix"))
    outputs, running_count = run_lines(blocks("sh", "Uptane devices"), tmp_path)
    assert running_count == 2
    assert "SUCCEEDED" in outputs[-1]


def test_the_lines_for_a_fleet_ship_in_stages(new_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    new_server(name="overair-data").start()
    (tmp_path / "app.zip").write_bytes(build_image("app", "2.0.0", "posix"))
    outputs, running_count = run_lines(blocks("sh", "A fleet"), tmp_path)
    assert running_count == 1
    assert "50 of 50 devices took it." in outputs[1]
    assert "CONTINUOUS" in outputs[2]


def run_lines(shell_blocks: list[str], folder: Path) -> tuple[list[str], int]:
    """Run each line; (what those printed that end by themselves, how many ran beside them until the end)."""
    (block,) = shell_blocks
    running: list[subprocess.Popen[bytes]] = []
    outputs: list[str] = []
    try:
        for line in block.splitlines():
            program, *words = shlex.split(line, comments=True)
            module = {"overair": "overair.cli.main", "overair-device": "overair.cli.device_main"}[Path(program).name]
            command = [sys.executable, "-m", module, *(word for word in words if word != "&")]
            if words[-1] == "&":
                running.append(subprocess.Popen(command, cwd=folder, env=clean_environment()))
                continue
            if "once" in words:
                wait_until((folder / "door" / "secondary.sock").exists)
            ended = subprocess.run(
                command, cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=100, check=False
            )
            assert ended.returncode == 0, (line, ended.stderr)
            outputs.append(ended.stdout)
    finally:
        for process in running:
            process.terminate()
            process.wait(15)
    return outputs, len(running)
