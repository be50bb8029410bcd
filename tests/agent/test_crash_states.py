"""An update of eight blocks, cut at every step with every fate of what wasn't synced: the device boots a verified image, old or
new, goes on where the disk stands, and tells the truth."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from overair.agent.durable import Disk
from overair.wire.job_messages import ExecutionStatus
from tests.support.crash_states import Cut, RecordingDisk, cuts
from tests.support.device import Signer, cached_image, image_of_size
from tests.support.fake_cloud import Execution, FakeCloud
from tests.support.machine import Machine

SIGNER = Signer()
BLOCK_SIZE_BYTES = 32 * 1024
BLOCKS = 8


class QuickDisk(Disk):
    """Nobody pulls the plug a second time: nothing need be synced."""

    def sync(self, descriptor: int) -> None:
        return

    def sync_directory(self, directory: Path) -> None:
        return


def image_of_eight_blocks() -> bytes:
    return image_of_size("2.0.0", BLOCKS * BLOCK_SIZE_BYTES - 5000)


@dataclass
class World:
    """A device's disk and its job as the server knows it, to be put into any state that a cut may leave."""

    machine: Machine
    document: str
    disk: RecordingDisk
    contents: dict[int, bytes]

    def after(self, cut: Cut, survived: frozenset[int], torn: frozenset[int]) -> tuple[Machine, Execution, dict[Path, bytes]]:
        directory, files = self.machine.directory, cut.files(survived, torn)
        for folder in (directory.slots, directory.files):
            shutil.rmtree(folder)
            folder.mkdir(mode=0o700)
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        cloud = self.machine.cloud = FakeCloud()
        cloud.files = dict(self.contents)
        status, details = cut.mark
        execution = Execution(job_id="job", document=self.document, status=status, details=dict(details))
        cloud.executions.append(execution)
        self.machine.boots.clear()
        return self.machine, execution, files


def recorded(root: Path, *files: Any, **changes: Any) -> World:
    """Run an update to its end on a recording disk."""
    machine = Machine(root, SIGNER, block_size_bytes=BLOCK_SIZE_BYTES, **changes)
    execution = machine.cloud.ship("job", *files)
    disk = RecordingDisk(machine.directory.root, lambda: (execution.status, dict(execution.details)))
    machine.disk = disk
    machine.run()
    assert execution.status is ExecutionStatus.SUCCEEDED
    contents = dict(machine.cloud.files)
    machine.disk = QuickDisk()
    return World(machine=machine, document=execution.document, disk=disk, contents=contents)


def check(world: World, cut: Cut, survived: frozenset[int], torn: frozenset[int] = frozenset()) -> str:
    """Boot what is left until nothing more is to be done; the version that runs then."""
    machine, execution, files = world.after(cut, survived, torn)
    slots = machine.directory.slots
    state = json.loads(files[slots / "state.json"])
    bitmap = files.get(slots / "receiving.bitmap", b"")
    goes_on = slots / "receiving.json" in files and len(files.get(slots / "receiving.part", b"")) == len(
        image_of_eight_blocks()
    )
    machine.run()  # each boot verifies its slot; without a verified image it fails
    images = {"1.0.0": cached_image("1.0.0"), "2.0.0": image_of_eight_blocks()}
    assert set(machine.boots) <= set(images)
    assert machine.version in images
    active = machine.slots.read().active
    assert active is not None
    assert machine.directory.slot_file(active).read_bytes() == images[machine.version]
    if execution.status is ExecutionStatus.SUCCEEDED:
        assert machine.version == "2.0.0"
    else:
        assert (execution.status, execution.details) == (ExecutionStatus.FAILED, {"reason": "rejected: 0x00000011"})
        assert machine.version == "1.0.0"
        assert state["image_state"] != "valid", "only an image that was cut during its trial has had its one boot"
        assert state["boots"] == 1
    if goes_on:
        assert machine.cloud.blocks_sent <= BLOCKS - sum(byte.bit_count() for byte in bitmap)
    assert machine.cloud.blocks_sent <= BLOCKS
    assert machine.platform_report() is None, "nothing is left to be told"
    return machine.version or ""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    image = image_of_eight_blocks()
    return recorded(tmp_path_factory.mktemp("crash") / "d", (SIGNER.file(image), image))


def test_the_record_has_every_block_and_ends_as_the_disk_does(world: World) -> None:
    steps = world.disk.steps
    data = [step for step in steps if step.kind == "write" and len(step.data) > BLOCK_SIZE_BYTES // 2]
    assert len(data) == BLOCKS
    assert {step.kind for step in steps} == {
        "create",
        "allocate",
        "write",
        "sync",
        "sync directory",
        "rename",
        "remove",
    }
    *_, last = cuts(world.disk)
    assert last.count == 1, "in the end everything was synced"
    root = world.machine.directory.root
    kept = {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file() and path.parent.name != "run"}
    assert {path: data for path, data in last.files(frozenset()).items() if path.parent.name != "run"} == kept


def test_whatever_survives_a_cut_before_each_step_the_device_runs_a_verified_image_and_tells_the_truth(world: World) -> None:
    chance = Random(20)
    ended = set()
    for cut in cuts(world.disk):
        every = frozenset((*cut.data, *cut.names))
        ended.add(check(world, cut, every))
        if not every:
            continue
        ended.add(check(world, cut, frozenset()))
        some = frozenset(number for number in cut.data if chance.random() < 0.5)
        torn = frozenset(number for number in cut.data if chance.random() < 0.5)
        ended.add(check(world, cut, some | frozenset(cut.names[: chance.randint(0, len(cut.names))]), torn))
    assert ended == {"1.0.0", "2.0.0"}


@pytest.mark.long
def test_every_fate_of_what_was_not_synced_before_each_step(world: World) -> None:
    checked = 0
    for cut in cuts(world.disk):
        for survived in cut.fates():
            check(world, cut, survived)
            checked += 1
            for torn in survived & frozenset(cut.data):
                check(world, cut, survived, frozenset((torn,)))
    assert checked == sum(cut.count for cut in cuts(world.disk)) > 200
