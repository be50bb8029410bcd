"""What each install brings, from the wheel alone in an empty environment."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.support.server_process import clean_environment

REPOSITORY = Path(__file__).parents[2]
SERVER_ONLY = {"sqlalchemy", "alembic", "uvicorn", "starlette", "httptools", "uvloop", "typer", "rich", "boto3", "pydantic"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(REPOSITORY)],
        check=True,
        timeout=120,
    )
    (found,) = folder.glob("*.whl")
    return found


def _empty_environment(folder: Path) -> Path:
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin" / "python"


def _pip(python: Path, *arguments: str) -> str:
    """Our own pip at work on that environment: to bring it one of its own takes longer than what it is for."""
    command = [sys.executable, "-m", "pip", "--python", str(python), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=600).stdout


def _install(python: Path, *what: str) -> None:
    # The versions of the lock hold here too: what users get with a newer dependency isn't this test's question.
    _pip(python, "install", "-q", "--no-compile", "-c", str(_constraints(python)), *what)


def _constraints(python: Path) -> Path:
    lines = (REPOSITORY / "locks" / "runtime.txt").read_text().splitlines()
    file = python.parent / "constraints.txt"
    file.write_text("\n".join(line.rstrip(" \\") for line in lines if "==" in line and not line.startswith((" ", "#"))))
    return file


def _distributions(python: Path) -> set[str]:
    listed = _pip(python, "list", "--format", "json")
    return {each["name"].lower() for each in json.loads(listed)}


@pytest.mark.timeout(600)
def test_the_base_install_brings_the_device_and_no_database_or_web_framework(wheel: Path, tmp_path: Path) -> None:
    python = _empty_environment(tmp_path / "base")
    _install(python, str(wheel))
    brought = _distributions(python)
    assert {"overair", "cryptography", "paho-mqtt", "cbor2", "msgspec", "urllib3"} <= brought
    assert not brought & SERVER_ONLY
    shown = subprocess.run([python.parent / "overair-device", "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert "boot" in shown.stdout
    # Whoever brings Overair to another device needs nothing more: the example of docs/device.md runs here too.
    example = re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / "docs" / "device.md").read_text(), re.MULTILINE | re.DOTALL)[
        -1
    ]
    ran = subprocess.run([python, "-I", "-c", example], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=True)
    assert ran.stdout == "16 cases hold\n"


@pytest.mark.timeout(600)
def test_the_server_comes_up_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    python = _empty_environment(tmp_path / "server")
    _install(python, f"{wheel}[server]")
    assert "sqlalchemy" in _distributions(python)
    ports = [flag for port in ("operator", "mqtt", "device") for flag in (f"--{port}-port", "0")]
    process = subprocess.Popen(
        [str(python.parent / "overair"), "up", "--json", "--data", str(tmp_path / "data"), *ports],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=clean_environment(PATH=os.defpath),
    )
    try:
        assert process.stdout is not None
        text = ""
        for line in process.stdout:
            text += line
            if line.rstrip() == "}":
                break
        assert json.loads(text)["pid"] == process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
    assert status == 0
