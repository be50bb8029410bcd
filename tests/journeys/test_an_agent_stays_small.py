"""How much memory a real agent holds, at rest and while a large file comes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from overair.agent.image_builder import build_image
from tests.support.device_process import DeviceProcess, wait_until
from tests.support.server_process import ServerProcess

IDLE_MIB_MAX = 48
UPDATE_MIB_MAX = 8
MIB = 1024 * 1024


def resident_kib(pid: int, what: str) -> int:
    """``VmRSS``: now; ``VmHWM``: the most there ever was."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(what)))


@pytest.mark.parametrize("size_mib", [24, pytest.param(256, marks=pytest.mark.long)])
def test_an_agent_at_rest_is_small_and_an_update_adds_little(server: ServerProcess, tmp_path: Path, size_mib: int) -> None:
    name = f"small-{size_mib}"
    device = DeviceProcess(server, name, tmp_path / name).enroll(build_image("small", "1.0.0", "posix"))
    device.change_settings(slot_size_bytes_max=300 * MIB, block_size_bytes=32_768)
    try:
        device.boot()
        first = device.ship(os.urandom(5000), "--as", "first")
        assert device.wait_for_end(first)["status"] == "SUCCEEDED", device.log()
        wait_until(lambda: device.progress is not None and device.progress.state == "waiting_for_job", what=device.log)
        pid = device.image_pid
        assert pid is not None
        at_rest_kib = resident_kib(pid, "VmRSS")
        assert at_rest_kib <= IDLE_MIB_MAX * 1024, f"{at_rest_kib} KiB at rest"
        before_kib = resident_kib(pid, "VmHWM")
        job = device.ship(os.urandom(size_mib * MIB), "--as", "large.bin")
        assert device.wait_for_end(job, timeout_s=900)["status"] == "SUCCEEDED", device.log()
        assert device.image_pid == pid, "it is still the same process"
        assert (device.directory.files / "large.bin").stat().st_size == size_mib * MIB
        added_kib = resident_kib(pid, "VmHWM") - before_kib
        assert added_kib <= UPDATE_MIB_MAX * 1024, f"{added_kib} KiB more"
        print(f"{size_mib} MiB: {at_rest_kib} KiB at rest, {added_kib} KiB more at the most")
    finally:
        device.stop()
