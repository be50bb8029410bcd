"""The Primary's own image goes into slots: on trial, testing itself, rolled back where it fails, reported after the restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from overair.agent.flash import read_status
from overair.agent.platform import FileContext, PlatformErrorCode, PlatformImageState, ResetRequested
from overair.agent.slots import SlotNotBootable, SlotTarget, verify_slot
from overair.agent.uptane.outcomes import Kind
from overair.wire.job_document import DocumentFile
from tests.support.device import cached_image
from tests.support.uptane_machine import UptaneMachine
from tests.support.uptane_vehicle import PRIMARY

NEW = "2.0.0"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[UptaneMachine]:
    machine = UptaneMachine(tmp_path)
    machine.run()
    yield machine
    machine.close()


def want(machine: UptaneMachine, version: str = NEW, **changes: bool) -> None:
    machine.want(f"app-{version}.zip", cached_image(version, **changes))  # type: ignore[arg-type]


def code(machine: UptaneMachine) -> tuple[str, str]:
    report = machine.report
    assert report is not None
    (item,) = report["items"]
    return item["result"]["code"], item["result"]["description"]


def test_an_image_is_installed_tried_accepted_and_reported_after_the_restart(machine: UptaneMachine) -> None:
    want(machine)
    with pytest.raises(ResetRequested):
        machine.round()
    assert machine.report is None, "nothing is reported before it has shown that it runs"
    assert machine.slots.read().image_state is PlatformImageState.PENDING_COMMIT
    machine.run()
    assert machine.boots == ["1.0.0", NEW]
    assert machine.slots.read().image_state is PlatformImageState.VALID
    assert code(machine) == ("OK", f"runs {NEW}")
    assert machine.image_of(PRIMARY) == f"app-{NEW}.zip"
    kinds = [event["eventType"]["id"] for event in machine.server.events]
    assert kinds[-3:] == ["EcuInstallationStarted", "EcuInstallationApplied", "EcuInstallationCompleted"]
    assert machine.run().kind is Kind.NOTHING_NEW


def test_the_slot_says_that_uptane_vouched_for_it_and_each_boot_checks_it(machine: UptaneMachine) -> None:
    want(machine)
    with pytest.raises(ResetRequested):
        machine.round()
    machine.run()
    record = machine.slots.read().b
    assert record is not None
    assert (record.trust, record.target, record.signature) == ("uptane", SlotTarget(name=f"app-{NEW}.zip"), None)
    members = json.loads((machine.directory.slots / "state.json").read_text())["slots"]["b"]
    assert (members["trust"], members["target"]) == ("uptane", {"name": f"app-{NEW}.zip"})
    path = machine.directory.slot_file("b")
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(SlotNotBootable, match="was changed"):
        verify_slot(machine.directory, "b", record)
    assert read_status(machine.directory).version == NEW


@pytest.mark.parametrize("failure", ["no", "exception"])
def test_an_image_that_fails_its_self_test_goes_back_and_is_reported(machine: UptaneMachine, failure: str) -> None:
    def self_test() -> bool:
        if failure == "exception":
            raise RuntimeError("broken")
        return False

    want(machine)
    with pytest.raises(ResetRequested):
        machine.round()
    machine.self_test = self_test
    machine.run()
    assert machine.boots == ["1.0.0", NEW, "1.0.0"]
    assert code(machine) == ("INSTALL_FAILED", "The new image failed its self-test: the previous one runs again.")
    assert machine.image_of(PRIMARY) == "unknown"
    assert machine.run().kind is Kind.NOTHING_NEW
    assert machine.boots[-1] == "1.0.0", "it isn't tried again by itself"


def test_an_image_that_crashes_before_its_self_test_is_reported_by_the_previous_one(machine: UptaneMachine) -> None:
    want(machine)
    with pytest.raises(ResetRequested):
        machine.round()
    machine.boot()  # and it dies at once
    machine.run()
    assert machine.boots == ["1.0.0", NEW, "1.0.0"]
    assert code(machine) == ("INSTALL_FAILED", "The new image was started and didn't stay: the previous one runs again.")


def test_an_older_version_is_refused_unless_the_image_allows_it(machine: UptaneMachine) -> None:
    want(machine)
    with pytest.raises(ResetRequested):
        machine.round()
    machine.run()
    want(machine, "1.5.0")
    assert machine.run().kind is Kind.FAILED
    assert machine.version == NEW
    assert code(machine)[0] == "VERIFICATION_FAILED"
    want(machine, "1.6.0", allow_downgrade=True)
    machine.run()
    assert machine.version == "1.6.0"


@pytest.mark.parametrize("content", [b"no image at all", b""])
def test_what_is_no_image_is_refused(machine: UptaneMachine, content: bytes) -> None:
    machine.want("app.zip", content or b"x")
    assert machine.run().kind is Kind.FAILED
    assert code(machine)[0] == "INSTALL_FAILED"
    assert machine.version == "1.0.0"


def test_an_image_that_is_too_large_for_the_slot_is_refused(tmp_path: Path) -> None:
    machine = UptaneMachine(tmp_path)
    object.__setattr__(machine.settings, "slot_size_bytes_max", 1000)
    want(machine)
    machine.run()
    assert code(machine)[0] == "INSTALL_FAILED"
    assert "don't fit" in code(machine)[1]
    machine.close()


def test_bytes_that_change_on_the_way_into_the_slot_are_found_there(machine: UptaneMachine) -> None:
    """The slot is verified in its own place, not only the file that was fetched."""
    want(machine)
    write_at = machine.disk.write_at

    def flip(descriptor: int, data: bytes, offset_bytes: int) -> None:
        slot = Path(f"/proc/self/fd/{descriptor}").readlink().name == "receiving.part"
        write_at(descriptor, bytes((data[0] ^ 1,)) + data[1:] if slot and offset_bytes == 0 else data, offset_bytes)

    machine.disk.write_at = flip  # type: ignore[method-assign]
    assert machine.round().kind is Kind.FAILED
    assert code(machine)[0] == "VERIFICATION_FAILED"
    assert machine.version == "1.0.0"


def test_secondaries_are_done_before_the_primary_restarts(tmp_path: Path) -> None:
    machine = UptaneMachine(tmp_path, secondaries=[{"virtual": "dash", "hardware_id": "posix-test", "ecu_serial": "dash-1"}])
    machine.run()
    machine.want("both.zip", cached_image(NEW), {PRIMARY: "posix-test", "dash-1": "posix-test"})
    with pytest.raises(ResetRequested):
        machine.round()
    assert (machine.directory.uptane / "secondaries" / "dash" / "files" / "dash.bin").exists()
    machine.run()
    report = machine.report
    assert report is not None
    assert {item["ecu"]: item["result"]["code"] for item in report["items"]} == {"dash-1": "OK", PRIMARY: "OK"}
    machine.close()


def test_a_slot_that_was_flashed_by_hand_since_is_an_unknown_image(machine: UptaneMachine) -> None:
    want(machine)
    with pytest.raises(ResetRequested):
        machine.round()
    machine.run()
    from overair.agent.flash import flash

    other = machine.root / "other.zip"
    other.write_bytes(cached_image("3.0.0"))
    flash(machine.directory, other, signature=None)
    machine.run()
    assert machine.image_of(PRIMARY) == "unknown"


def test_an_unsigned_file_without_a_target_is_refused_as_ever(machine: UptaneMachine) -> None:
    file = DocumentFile(path="firmware", size_bytes=10, file_id=0, certificate_path="signer")
    with pytest.raises(Exception, match="unsigned") as refused:
        machine.platform().create_file(FileContext(file=file, block_size_bytes=1024))
    assert refused.value.code is PlatformErrorCode.SIGNATURE_CHECK_FAILED  # type: ignore[attr-defined]
