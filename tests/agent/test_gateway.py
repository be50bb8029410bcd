"""A Linux gateway whose own programs install its images."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from overair.agent.device_directory import BadDeviceDirectory
from overair.agent.platform import PlatformError, PlatformErrorCode, PlatformImageState, ResetRequested
from overair.wire.job_messages import ExecutionStatus
from tests.agent.test_crash_states import QuickDisk
from tests.support.device import Signer
from tests.support.fake_cloud import Execution
from tests.support.gateway_machine import GatewayMachine, image

SIGNER = Signer()
NEW = image("2.0.0")
ROAD = [f"install {hashlib.sha256(NEW).hexdigest()} {len(NEW)} 1.0.0", "activate", "reboot"]


def shipped(machine: GatewayMachine, data: bytes = NEW) -> Execution:
    return machine.cloud.ship("job", (SIGNER.file(data), data))


def steps(machine: GatewayMachine) -> list[str]:
    return [line for line in machine.log if not line.startswith("permit")]


def test_an_image_is_verified_installed_activated_tested_and_committed_by_hooks(tmp_path: Path) -> None:
    machine = GatewayMachine(tmp_path, SIGNER)
    execution = shipped(machine)
    machine.run()
    assert machine.log == ["permit download", ROAD[0], "permit restart", "activate", "reboot", "self_test", "commit"]
    assert (machine.version, machine.starts) == ("2.0.0", ["1.0.0", "2.0.0"])
    assert execution.status is ExecutionStatus.SUCCEEDED
    assert execution.details == {"reason": "accepted  v2.0.0", "updatedBy": "  v1.0.0"}
    assert not machine.directory.slot_file("b").exists(), "what was installed takes no room twice"
    assert machine.platform().digests.running == hashlib.sha256(NEW).hexdigest()


def test_bytes_that_do_not_verify_reach_no_hook(tmp_path: Path) -> None:
    machine = GatewayMachine(tmp_path, SIGNER)
    execution = machine.cloud.ship("job", (SIGNER.file(NEW, signed=b"other"), NEW))
    machine.run()
    assert (execution.details, steps(machine)) == ({"reason": "0x000000e3: 0x00000000"}, [])


def test_an_image_that_does_not_install_fails_with_the_hooks_status_and_nothing_restarts(tmp_path: Path) -> None:
    machine = GatewayMachine(tmp_path, SIGNER, install="echo no space; exit 28")
    execution = shipped(machine)
    machine.run()
    assert execution.details == {"reason": "0x000000ee: 0x0000001c"}
    assert machine.starts == ["1.0.0"]
    assert not machine.directory.slot_file("b").exists()


def test_an_image_that_cannot_be_activated_fails_and_nothing_restarts(tmp_path: Path) -> None:
    machine = GatewayMachine(tmp_path, SIGNER, activate="exit 1")
    execution = shipped(machine)
    machine.run()
    assert execution.details == {"reason": "0x00000016: 0x00000001"}
    assert (machine.starts, machine.platform().image_state()) == (["1.0.0"], PlatformImageState.VALID)


def test_an_image_whose_self_test_fails_is_rolled_back(tmp_path: Path) -> None:
    machine = GatewayMachine(tmp_path, SIGNER)
    (machine.world / "verdict").write_text("1")
    execution = shipped(machine)
    machine.run()
    assert steps(machine) == [*ROAD, "self_test", "roll_back", "reboot"]
    assert (machine.version, machine.starts) == ("1.0.0", ["1.0.0", "2.0.0", "1.0.0"])
    assert execution.details == {"reason": "rejected: 0x00000000"}
    (machine.world / "verdict").write_text("0")
    later = machine.cloud.ship("later", (SIGNER.file(image("2.0.1")), image("2.0.1")))
    machine.run()
    assert (machine.version, later.status) == ("2.0.1", ExecutionStatus.SUCCEEDED)


def test_an_image_that_does_not_last_is_told_as_such_when_the_machine_went_back_by_itself(tmp_path: Path) -> None:
    machine = GatewayMachine(tmp_path, SIGNER)
    execution = shipped(machine)
    with pytest.raises(ResetRequested):
        machine.settle(machine.start())
    machine.restart()
    (machine.world / "version").write_text("1.0.0\n")  # the machine's boot loader saw the new one fail
    machine.run()
    assert (machine.version, execution.details) == ("1.0.0", {"reason": "rejected: 0x00000011"})


def test_an_image_whose_agent_dies_in_its_trial_has_no_second_one(tmp_path: Path) -> None:
    machine = GatewayMachine(tmp_path, SIGNER)
    execution = shipped(machine)
    with pytest.raises(ResetRequested):
        machine.settle(machine.start())
    machine.restart()
    machine.start()  # and dies
    machine.run()
    assert steps(machine) == [*ROAD, "roll_back", "reboot"]
    assert (machine.version, execution.details) == ("1.0.0", {"reason": "rejected: 0x00000011"})


def test_a_lower_version_is_found_out_after_the_restart_and_rolled_back_as_c_agents_do(tmp_path: Path) -> None:
    machine = GatewayMachine(tmp_path, SIGNER)
    execution = shipped(machine, image("0.9.0"))
    machine.run()
    assert (machine.version, execution.details) == ("1.0.0", {"reason": "rejected: 0x0000000f"})


def test_a_service_that_starts_before_the_machine_has_restarted_waits_for_that(tmp_path: Path) -> None:
    machine = GatewayMachine(tmp_path, SIGNER)
    execution = shipped(machine)
    with pytest.raises(ResetRequested):
        machine.settle(machine.start())
    for _ in range(2):
        with pytest.raises(ResetRequested):
            machine.start()
    machine.restart()
    machine.run()
    assert (machine.version, execution.status) == ("2.0.0", ExecutionStatus.SUCCEEDED)


def test_without_a_reboot_hook_the_service_itself_is_what_restarts(tmp_path: Path) -> None:
    machine = GatewayMachine(tmp_path, SIGNER, without=("reboot", "permit", "self_test", "commit", "job"))
    execution = shipped(machine)
    machine.run()
    assert steps(machine) == ROAD[:2]
    assert (machine.version, execution.status) == ("2.0.0", ExecutionStatus.SUCCEEDED)


def test_a_roll_back_that_does_not_help_is_tried_a_few_times_and_then_told(tmp_path: Path) -> None:
    machine = GatewayMachine(tmp_path, SIGNER, roll_back="echo roll_back >> $W/log")
    (machine.world / "verdict").write_text("1")
    execution = shipped(machine)
    machine.run()
    assert execution.details == {"reason": "rejected: 0x00000000"}
    assert steps(machine).count("roll_back") == 4
    assert machine.version == "2.0.0"
    again = machine.cloud.ship("again", (SIGNER.file(image("3.0.0")), image("3.0.0")))
    machine.run()
    assert again.details == {"reason": "0x000000e6: 0x00000000"}, "nothing to go back to is known: no new image is taken"


def test_not_now_is_the_hooks_last_line(tmp_path: Path) -> None:
    machine = GatewayMachine(tmp_path, SIGNER)
    (machine.world / "not-now").write_text("looking at the road\ndriving\n")
    execution = shipped(machine)
    machine.run()
    assert execution.details == {"deferred": "driving", "before": "download", "again_in_s": "300"}


@pytest.mark.parametrize(("status", "told"), [(0, "SUCCEEDED"), (69, "REJECTED"), (1, "FAILED")])
def test_other_jobs_are_done_by_a_hook_that_reads_the_document(tmp_path: Path, status: int, told: str) -> None:
    machine = GatewayMachine(tmp_path, SIGNER)
    (machine.world / "verdict").write_text(str(status))
    execution = machine.cloud.queue("job", '{"operation":"echo"}')
    machine.run()
    assert execution.status.value == told
    assert execution.details["output"] == '{"operation": "echo"}'


def test_a_file_that_is_no_firmware_is_stored_and_no_hook_is_asked_to_install_it(tmp_path: Path) -> None:
    machine = GatewayMachine(tmp_path, SIGNER)
    execution = machine.cloud.ship("job", (SIGNER.file(NEW, path="a/b", file_type=3), NEW))
    machine.run()
    assert (machine.directory.files / "a/b").read_bytes() == NEW
    assert (execution.status, steps(machine)) == (ExecutionStatus.SUCCEEDED, [])


def test_a_version_hook_that_does_not_say_one_keeps_the_agent_from_starting(tmp_path: Path) -> None:
    machine = GatewayMachine(tmp_path, SIGNER, version="echo unknown; exit 3")
    with pytest.raises(BadDeviceDirectory, match=r"status 3: 'unknown'"):
        machine.platform()


def test_an_image_that_was_installed_but_not_activated_is_installed_again_and_not_fetched_again(tmp_path: Path) -> None:
    machine = GatewayMachine(tmp_path, SIGNER)
    execution = shipped(machine)

    def lose_the_line(sent: int) -> None:
        machine.cloud.online = sent != 9

    machine.cloud.block_hook = lose_the_line
    machine.run()
    assert steps(machine) == ROAD[:1]
    machine.cloud.online = True
    machine.run()
    assert steps(machine) == [ROAD[0], *ROAD, "self_test", "commit"]
    assert (execution.status, machine.cloud.blocks_sent) == (ExecutionStatus.SUCCEEDED, 9)


def test_a_commit_that_fails_ends_the_agent_and_the_image_goes_back(tmp_path: Path) -> None:
    machine = GatewayMachine(tmp_path, SIGNER, commit="exit 4")
    execution = shipped(machine)
    with pytest.raises(ResetRequested):
        machine.settle(machine.start())
    machine.restart()
    with pytest.raises(PlatformError) as caught:
        machine.settle(machine.start())
    assert (caught.value.code, caught.value.sub_code) == (PlatformErrorCode.COMMIT_FAILED, 4)
    machine.run()
    assert (machine.version, execution.details) == ("1.0.0", {"reason": "rejected: 0x00000011"})


class PowerCut(BaseException):
    """Not an Exception: nothing may catch it on the way."""


class CutDisk(QuickDisk):
    """The power fails before the step ``cut_at``; what came before it stays."""

    def __init__(self, cut_at: int) -> None:
        self.left = cut_at

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise PowerCut

    def create(self, path: Path, flags: int, mode: int = 0o600) -> int:
        self._step()
        return super().create(path, flags, mode)

    def write_at(self, descriptor: int, data: bytes, offset_bytes: int) -> None:
        self._step()
        super().write_at(descriptor, data, offset_bytes)

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        if path.exists():
            self._step()
        super().remove(path)


@pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.long)])
def test_the_power_fails_at_any_step_and_a_gateway_runs_the_old_or_the_new_image_and_tells_the_truth(
    tmp_path: Path, stride: int
) -> None:
    ended, step = set(), 0
    while True:
        machine = GatewayMachine(tmp_path / str(step), SIGNER, without=("permit", "job"))
        execution = shipped(machine)
        disk = machine.disk = CutDisk(step)
        try:
            machine.run()
        except PowerCut:
            machine.disk = QuickDisk()
            (machine.world / "rebooting").touch()  # the power came back: that is a restart of the machine
            machine.restart()
            machine.run()
        assert machine.platform().image_state() is PlatformImageState.VALID
        if execution.status is ExecutionStatus.SUCCEEDED:
            assert machine.version == "2.0.0", step
        else:
            assert (execution.details, machine.version) == ({"reason": "rejected: 0x00000011"}, "1.0.0"), step
        ended.add(machine.version)
        if disk.left >= 0:
            break
        step += stride
    assert step > 25
    assert ended == {"1.0.0", "2.0.0"}
