"""The disk is full at any step of an update: the device keeps what runs, says why, and takes the next once there is room."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from overair.agent.boot import BootLoader, NothingToBoot
from overair.agent.durable import Disk
from overair.agent.platform import PlatformError, ResetRequested
from overair.agent.progress import Progress, ProgressFile, read_progress
from overair.agent.states import Event
from overair.wire.job_messages import ExecutionStatus
from tests.agent.test_crash_states import BLOCK_SIZE_BYTES, BLOCKS, QuickDisk, image_of_eight_blocks
from tests.support.device import Signer
from tests.support.machine import Machine

SIGNER = Signer()


class FullDisk(QuickDisk):
    """Whatever needs room fails from the ``full_at``-th time on, as long as ``full``."""

    def __init__(self, full_at: int, *, blocks_only: bool = False) -> None:
        self._left = full_at
        self._blocks_only = blocks_only
        self.full = True
        self.failures = 0

    def _need_room(self) -> None:
        self._left -= 1
        if self._left < 0 and self.full:
            self.failures += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def create(self, path: Path, flags: int, mode: int = 0o600) -> int:
        if not self._blocks_only:
            self._need_room()
        return super().create(path, flags, mode)

    def allocate(self, descriptor: int, size_bytes: int) -> None:
        if not self._blocks_only:
            self._need_room()
        super().allocate(descriptor, size_bytes)

    def write_at(self, descriptor: int, data: bytes, offset_bytes: int) -> None:
        if not self._blocks_only or len(data) > BLOCK_SIZE_BYTES // 2:
            self._need_room()
        super().write_at(descriptor, data, offset_bytes)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_storage_that_is_full_at_a_block_fails_the_job_with_the_reason_and_the_retry_succeeds(
    tmp_path: Path, block: int
) -> None:
    machine = Machine(tmp_path / "d", SIGNER, block_size_bytes=BLOCK_SIZE_BYTES)
    disk = FullDisk(block, blocks_only=True)
    machine.disk = disk
    image = image_of_eight_blocks()
    execution = machine.cloud.ship("job", (SIGNER.file(image), image))
    machine.run()
    assert disk.failures
    assert (execution.status, execution.details) == (
        ExecutionStatus.FAILED,
        {"reason": f"0x000000e1: 0x{errno.ENOSPC:08x}"},
    )
    assert machine.boots == ["1.0.0"]
    assert not list(machine.directory.slots.glob("receiving.*")), "what came is given up: it would fill the disk"
    disk.full = False
    retry = machine.cloud.ship("job", (SIGNER.file(image), image))
    machine.run()
    assert (machine.version, retry.status) == ("2.0.0", ExecutionStatus.SUCCEEDED)


def run_as_a_boot_loader_would(machine: Machine) -> None:
    """Start again what ends by itself, some times."""
    for _ in range(4):
        try:
            machine.run()
            return
        except (OSError, PlatformError):
            continue


def test_storage_that_is_full_from_any_step_on_keeps_a_verified_image_and_the_truth(tmp_path: Path) -> None:
    image = image_of_eight_blocks()
    step = 0
    ended = set()
    while True:
        machine = Machine(tmp_path / str(step), SIGNER, block_size_bytes=BLOCK_SIZE_BYTES)
        disk = machine.disk = FullDisk(step)
        execution = machine.cloud.ship("job", (SIGNER.file(image), image))
        run_as_a_boot_loader_would(machine)
        disk.full = False
        machine.run()
        assert execution.final, step
        assert (machine.version == "2.0.0") == (execution.status is ExecutionStatus.SUCCEEDED), step
        if execution.status is not ExecutionStatus.SUCCEEDED:
            retry = machine.cloud.ship("job", (SIGNER.file(image), image))
            machine.run()
            assert (machine.version, retry.status) == ("2.0.0", ExecutionStatus.SUCCEEDED)
        ended.add(execution.details["reason"])
        if not disk.failures:
            break
        step += 1
    assert step > 30
    assert {"accepted  v2.0.0", f"0x000000e1: 0x{errno.ENOSPC:08x}", "0x000000e5: 0x00000000"} <= ended


def test_a_file_that_is_written_whole_leaves_nothing_behind_on_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "file"
    Disk().write_whole(path, b"old")
    with pytest.raises(OSError, match="No space left"):
        FullDisk(1).write_whole(path, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_progress_that_cannot_be_shown_stops_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    sink = ProgressFile(folder / "progress.json")
    sink.show(Progress(state="waiting_for_job", version="1.0.0"))
    folder.mkdir()
    sink.show(Progress(state="creating_file", version="1.0.0"))
    shown = read_progress(folder / "progress.json")
    assert shown is not None
    assert shown.state == "creating_file"


def test_a_full_disk_keeps_no_accepted_image_from_booting_and_gives_one_on_trial_no_uncounted_boot(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "d", SIGNER)
    said: list[str] = []
    loader = BootLoader(machine.directory, disk=FullDisk(0), monotonic=machine.clock, say=said.append)
    assert loader.choose() == ("a", machine.directory.slot_file("a"))
    assert said == ["this boot can't be recorded: [Errno 28] No space left on device"]
    image = image_of_eight_blocks()
    machine.cloud.ship("job", (SIGNER.file(image), image))
    agent = machine.boot()
    agent.signal(Event.START)
    with pytest.raises(ResetRequested):
        machine.settle(agent)
    with pytest.raises(NothingToBoot, match="Make room"):
        loader.choose()
