"""The power fails at every step of an update: the device always boots a verified image, and the job always ends truthfully."""

from __future__ import annotations

from pathlib import Path

import pytest

from overair.agent.durable import Disk
from overair.wire.job_messages import ExecutionStatus
from tests.support.device import Signer, cached_image
from tests.support.machine import Machine
from tests.support.power_cut import FailingDisk, PowerCut

SIGNER = Signer()


def update_with_cut(root: Path, cut_at: int, seed: int) -> tuple[Machine, bool]:
    """An update during which the power fails once; (the machine at rest, whether it did fail)."""
    machine = Machine(root, SIGNER, block_size_bytes=4096)
    image = cached_image("2.0.0", size_bytes=200_000)
    execution = machine.cloud.ship("job", (machine.signer.file(image), image))
    machine.disk = FailingDisk(cut_at, seed)
    try:
        machine.run()
        cut = False
    except PowerCut:
        cut = True
        machine.disk = Disk()
        machine.run()  # each boot verifies its slot, and fails the test if that can't be
    if execution.status is ExecutionStatus.SUCCEEDED:
        assert machine.version == "2.0.0"
        assert machine.directory.slot_file("b").read_bytes() == image
    else:
        # Cut during its trial: one boot is all that an image gets.
        assert execution.details == {"reason": "rejected: 0x00000011"}
        assert machine.version == "1.0.0"
    return machine, cut


@pytest.mark.parametrize("stride", [9, pytest.param(1, marks=pytest.mark.long)])
def test_the_power_fails_before_each_step_of_an_update(tmp_path: Path, stride: int) -> None:
    """What still runs while the power goes is run too; `test_crash_states.py` looks at every state that a cut may leave."""
    outcomes = set()
    step = 1
    while True:
        machine, cut = update_with_cut(tmp_path / str(step), step, seed=step)
        if not cut:
            break
        outcomes.add(machine.version)
        step += stride
    assert step > 25
    assert "2.0.0" in outcomes
    assert stride > 1 or outcomes == {"1.0.0", "2.0.0"}


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_the_power_fails_before_each_step_with_many_fates_of_unsynced_writes(tmp_path: Path, seed: int) -> None:
    step = 1
    while update_with_cut(tmp_path / str(step), step, seed=1000 * seed + step)[1]:
        step += 1
