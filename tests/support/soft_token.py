"""A SoftHSM for this process. Its library reads where tokens lie once, when it is loaded: so all tests share one."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

LIBRARIES = ["/usr/lib/softhsm/libsofthsm2.so", *map(str, Path("/usr/lib").glob("*/softhsm/libsofthsm2.so"))]
LIBRARY = next((path for path in LIBRARIES if Path(path).exists()), None)
IS_THERE = LIBRARY is not None and shutil.which("softhsm2-util") is not None
PIN = "4711"

needs_a_token = pytest.mark.skipif(not IS_THERE and os.environ.get("CI") != "true", reason="not run: softhsm2 isn't installed")


def put_on_token(private_key_pem: bytes, label: str, folder: Path) -> None:
    """Carry a key pair that was made elsewhere onto the token."""
    softhsm()
    file = folder / f"{label}.pem"
    file.write_bytes(private_key_pem)
    command = ["softhsm2-util", "--import", str(file), "--token", "overair", "--label", label, "--id", label.encode().hex()]
    subprocess.run([*command, "--pin", PIN], check=True, capture_output=True)
    file.unlink()


@cache
def softhsm() -> Path:
    """Make a token called ``overair``, once, and name its configuration in the environment for the rest of the process. The
    configuration's path."""
    assert IS_THERE, "CI installs softhsm2 (.ci/run)"
    folder = Path(tempfile.mkdtemp(prefix="overair-token-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "tokens").mkdir()
    configuration = folder / "conf"
    configuration.write_text(f"directories.tokendir = {folder / 'tokens'}\n")
    os.environ["SOFTHSM2_CONF"] = str(configuration)
    command = ["softhsm2-util", "--init-token", "--free", "--label", "overair", "--pin", PIN, "--so-pin", "98765"]
    subprocess.run(command, check=True, capture_output=True)
    return configuration
