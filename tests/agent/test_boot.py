"""The boot loader with real processes: small applications that aren't agents, so that each lives for a moment only."""

from __future__ import annotations

import hashlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import Queue

import pytest

from overair.agent.boot import BootLoader, NothingToBoot, Step, fallen_back, next_step
from overair.agent.device_directory import BadDeviceDirectory, DeviceDirectory
from overair.agent.durable import Disk
from overair.agent.flash import FlashRefused, flash, read_status
from overair.agent.platform import PlatformImageState
from overair.agent.slots import SlotRecord, SlotSignature, SlotState, SlotStore, load_anchors
from overair.wire.image_signature import SignatureAlgorithm
from tests.support.device import HARDWARE, Signer, cached_image, make_device
from tests.support.device_process import wait_until

SIGNER = Signer()
ACCEPT = """
state = json.loads((slots / "state.json").read_text())
state["image_state"] = "valid"
state["slots"][state["active"]]["accepted"] = True
(slots / "state.json").write_text(json.dumps(state))
"""
SERVE = "import threading; threading.Event().wait()\n"


def app(version: str, code: str, *, entry: str = "__main__.py") -> bytes:
    """An image whose application writes down that it ran, then runs ``code``."""
    stream = io.BytesIO()
    manifest = {"name": "app", "version": version, "hardware_id": HARDWARE, "entry": entry}
    prelude = (
        "import json, os, sys\nfrom pathlib import Path\n"
        "root = Path(sys.argv[sys.argv.index('--device') + 1])\nslots = root / 'slots'\n"
        "with (root / 'run' / 'ran').open('a') as log:\n"
        f"    log.write(json.dumps(['{version}', os.getpid(), sys.argv[0]]) + chr(10))\n"
        "runs = len((root / 'run' / 'ran').read_text().splitlines())\n"
    )
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("image.json", json.dumps(manifest))
        archive.writestr(entry, prelude + code)
    return stream.getvalue()


class Device:
    def __init__(self, root: Path, first: bytes, **settings: int) -> None:
        self.directory, self.settings = make_device(root, SIGNER, **settings)
        self.said: Queue[str] = Queue()
        image = root / "first.zip"
        image.write_bytes(first)
        flash(self.directory, image, signature=None)
        self.loader = BootLoader(self.directory, monotonic=time.monotonic, say=self.said.put)

    @property
    def slots(self) -> SlotStore:
        return SlotStore(self.directory, Disk())

    def put_on_trial(self, image: bytes, version: str) -> None:
        """What the platform leaves behind after ``activate``."""
        state = self.slots.read()
        self.directory.slot_file("b").write_bytes(image)
        record = SlotRecord(
            sha256=hashlib.sha256(image).hexdigest(),
            size_bytes=len(image),
            version=version,
            signature=SlotSignature(algorithm=SignatureAlgorithm.ECDSA_SHA256, value=SIGNER.sign(image), anchor="signer"),
            accepted=False,
        )
        on_trial = replace(state.with_record("b", record), active="b", image_state=PlatformImageState.PENDING_COMMIT, boots=0)
        self.slots.write(on_trial)

    def ran(self) -> list[tuple[str, int, str]]:
        return [tuple(json.loads(line)) for line in (self.directory.run / "ran").read_text().splitlines()]

    def versions(self) -> list[str]:
        return [version for version, _, _ in self.ran()]


def test_an_image_runs_as_a_process_of_its_own_and_names_its_slot(tmp_path: Path) -> None:
    device = Device(
        tmp_path / "d", app("1.0.0", "(root / 'run' / 'cmdline').write_bytes(Path('/proc/self/cmdline').read_bytes())")
    )
    assert device.loader.run() == 0
    ((version, pid, path),) = device.ran()
    assert (version, path) == ("1.0.0", str(device.directory.slot_file("a")))
    assert pid != os.getpid()
    command = (device.directory.run / "cmdline").read_bytes().split(b"\x00")
    assert str(device.directory.slot_file("a")).encode() in command
    assert device.slots.read().boots == 1


def test_an_entry_elsewhere_in_the_image_is_run(tmp_path: Path) -> None:
    device = Device(tmp_path / "d", app("1.0.0", "assert __name__ == '__main__'", entry="start/here.py"))
    assert device.loader.run() == 0
    assert device.ran()[0][2] == str(device.directory.slot_file("a"))


def test_status_75_restarts_at_once_and_every_boot_is_counted(tmp_path: Path) -> None:
    device = Device(tmp_path / "d", app("1.0.0", "sys.exit(75 if runs < 4 else 0)"))
    assert device.loader.run() == 0
    assert device.versions() == ["1.0.0"] * 4
    assert device.slots.read().boots == 4


def test_a_valid_image_that_dies_is_started_again(tmp_path: Path) -> None:
    device = Device(tmp_path / "d", app("1.0.0", "os.kill(os.getpid(), 9) if runs < 3 else None"))
    assert device.loader.run() == 0
    assert device.versions() == ["1.0.0"] * 3


@pytest.mark.parametrize("end", ["os.abort()", "sys.exit(75)", "sys.exit(3)", "raise SystemError"])
def test_an_image_on_trial_that_ends_without_accepting_itself_is_replaced(tmp_path: Path, end: str) -> None:
    device = Device(tmp_path / "d", app("1.0.0", ""))
    device.put_on_trial(app("2.0.0", end), "2.0.0")
    assert device.loader.run() == 0
    assert device.versions() == ["2.0.0", "1.0.0"]
    state = device.slots.read()
    assert (state.active, state.image_state, state.b) == ("a", PlatformImageState.VALID, None)


def test_an_image_on_trial_that_hangs_is_ended_and_replaced(tmp_path: Path) -> None:
    device = Device(tmp_path / "d", app("1.0.0", ""), self_test_timeout_s=1)
    device.put_on_trial(app("2.0.0", SERVE), "2.0.0")
    assert device.loader.run() == 0
    assert device.versions() == ["2.0.0", "1.0.0"]
    assert not Path(f"/proc/{device.ran()[0][1]}").exists()


def test_an_image_that_accepts_itself_stays_and_its_deadline_is_forgotten(tmp_path: Path) -> None:
    device = Device(tmp_path / "d", app("1.0.0", ""), self_test_timeout_s=1)
    wait = "import threading; threading.Event().wait(1.5)"
    device.put_on_trial(app("2.0.0", f"{ACCEPT}\n{wait}\nsys.exit(75 if runs < 2 else 0)"), "2.0.0")
    assert device.loader.run() == 0
    assert device.versions() == ["2.0.0", "2.0.0"]


@pytest.mark.parametrize("active", ["a", "b"])
def test_bytes_that_were_changed_never_run(tmp_path: Path, active: str) -> None:
    device = Device(tmp_path / "d", app("1.0.0", ""))
    device.put_on_trial(app("2.0.0", ""), "2.0.0")
    with device.directory.slot_file(active).open("ab") as file:
        file.write(b"x")
    if active == "b":
        assert device.loader.run() == 0
        assert device.versions() == ["1.0.0"]
    else:
        device.slots.write(replace(device.slots.read(), active="a", image_state=PlatformImageState.VALID))
        with pytest.raises(NothingToBoot):
            device.loader.run()
        assert not (device.directory.run / "ran").exists()


def test_an_image_on_trial_must_be_signed_by_a_trusted_signer_at_boot_too(tmp_path: Path) -> None:
    device = Device(tmp_path / "d", app("1.0.0", ""))
    device.put_on_trial(app("2.0.0", ""), "2.0.0")
    (device.directory.trust / "signer.pem").write_bytes(Signer().certificate_pem)
    assert device.loader.run() == 0
    assert device.versions() == ["1.0.0"]


def test_a_stop_ends_the_image_and_then_the_boot_loader(tmp_path: Path) -> None:
    device = Device(tmp_path / "d", app("1.0.0", SERVE))
    result: list[int] = []
    thread = threading.Thread(target=lambda: result.append(device.loader.run()))
    thread.start()
    assert "runs as process" in device.said.get(timeout=60)
    device.loader.stop()
    thread.join(10)
    assert result == [0]
    assert not (device.directory.run / "boot.json").exists()


def test_a_device_runs_under_one_boot_loader_only(tmp_path: Path) -> None:
    device = Device(tmp_path / "d", app("1.0.0", SERVE))
    thread = threading.Thread(target=device.loader.run)
    thread.start()
    device.said.get(timeout=60)
    with pytest.raises(BadDeviceDirectory, match="already running"):
        BootLoader(device.directory, monotonic=time.monotonic, say=lambda line: None).run()
    with pytest.raises(BadDeviceDirectory, match="already running"):
        flash(device.directory, tmp_path / "d/first.zip", signature=None)
    device.loader.stop()
    thread.join(10)


def test_a_device_that_was_never_flashed_says_what_to_do(tmp_path: Path) -> None:
    directory, _ = make_device(tmp_path / "d", SIGNER)
    with pytest.raises(NothingToBoot, match="overair-device flash"):
        BootLoader(directory, monotonic=time.monotonic, say=lambda line: None).run()


def test_what_boots_next_is_told_by_the_state_alone() -> None:
    record = SlotRecord(sha256="0" * 64, size_bytes=1, version="1.0.0", signature=None, accepted=True)
    good = SlotState(active="a", a=record, b=replace(record, accepted=False))
    trial = replace(good, active="b", image_state=PlatformImageState.PENDING_COMMIT)
    assert next_step(SlotState()) is Step.NOTHING
    assert next_step(replace(good, boots=99)) is Step.BOOT
    assert next_step(trial) is Step.BOOT
    assert next_step(replace(trial, boots=1)) is Step.FALL_BACK
    assert next_step(replace(trial, image_state=PlatformImageState.INVALID)) is Step.FALL_BACK
    assert fallen_back(trial) == SlotState(active="a", a=record)
    with pytest.raises(NothingToBoot):
        fallen_back(good)


# --- overair-device, as a command ---


def device_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "overair.cli.device_main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def booted(tmp_path: Path) -> Iterator[tuple[DeviceDirectory, subprocess.Popen[str]]]:
    """A device that runs an image with the real agent; no server is there."""
    directory, _ = make_device(tmp_path / "d", SIGNER)
    image = tmp_path / "image.zip"
    image.write_bytes(cached_image("1.0.0"))
    assert device_command("flash", directory.root, image).returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "overair.cli.device_main", "boot", "--device", str(directory.root)],
        stderr=subprocess.PIPE,
        text=True,
    )
    yield directory, process
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_flash_status_and_boot_as_commands(booted: tuple[DeviceDirectory, subprocess.Popen[str]]) -> None:
    directory, process = booted
    assert process.stderr is not None
    assert "runs as process" in process.stderr.readline()
    image_pid = json.loads((directory.run / "boot.json").read_text())["image_pid"]
    named = str(directory.slot_file("a")).encode()
    # The kernel closes what tells of a successful start a moment before it shows the new command line.
    wait_until(lambda: named in Path(f"/proc/{image_pid}/cmdline").read_bytes().split(b"\x00"))
    shown = device_command("status", directory.root, "--json")
    assert json.loads(shown.stdout) == {
        "slot": "a",
        "version": "1.0.0",
        "sha256": hashlib.sha256(cached_image("1.0.0")).hexdigest(),
        "state": "valid",
        "boots": 1,
        "job": None,
        "trust": [{"name": "signer", "serial": 0, "signers": [load_anchors(directory, "signer")[0].fingerprint]}],
    }
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert not Path(f"/proc/{image_pid}").exists()


def test_what_the_boot_loader_does_is_told_in_json_when_asked(tmp_path: Path) -> None:
    directory, _ = make_device(tmp_path / "d", SIGNER)
    refused = device_command("boot", "--device", directory.root, "--json")
    assert refused.returncode == 2
    assert "No image was ever flashed" in refused.stderr
    (tmp_path / "image.zip").write_bytes(cached_image("1.0.0"))
    assert device_command("flash", directory.root, tmp_path / "image.zip").returncode == 0
    directory.slot_file("a").write_bytes(b"changed")
    told = device_command("boot", "--device", directory.root, "--json")
    assert told.returncode == 2
    assert all(set(json.loads(line)) == {"boot"} for line in told.stdout.splitlines())
    assert "Going back to slot b" in told.stdout


def test_an_image_does_not_outlive_its_boot_loader(booted: tuple[DeviceDirectory, subprocess.Popen[str]]) -> None:
    directory, process = booted
    assert process.stderr is not None
    assert "runs as process" in process.stderr.readline()
    image_pid = json.loads((directory.run / "boot.json").read_text())["image_pid"]
    image = os.pidfd_open(image_pid)
    process.kill()
    assert select.select([image], [], [], 15)[0], "the image still runs"
    os.close(image)


def test_a_signature_given_to_flash_is_checked(tmp_path: Path) -> None:
    directory, _ = make_device(tmp_path / "d", SIGNER)
    image, signature = tmp_path / "image.zip", tmp_path / "image.sig"
    image.write_bytes(cached_image("1.0.0"))
    signature.write_bytes(Signer().sign(image.read_bytes()))
    refused = device_command("flash", directory.root, image, "--signature", signature)
    assert (refused.returncode, read_status(directory).slot) == (2, None)
    assert "trusted signer" in refused.stderr
    signature.write_bytes(SIGNER.sign(image.read_bytes()))
    done = device_command("flash", directory.root, image, "--signature", signature, "--json")
    assert json.loads(done.stdout)["trust"] == "signed"


def test_flash_refuses_what_this_device_could_not_run(tmp_path: Path) -> None:
    directory, _ = make_device(tmp_path / "d", SIGNER, hardware_id="another-board")
    image = tmp_path / "image.zip"
    image.write_bytes(cached_image("1.0.0"))
    with pytest.raises(FlashRefused, match="hardware"):
        flash(directory, image, signature=None)
    image.write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(FlashRefused, match=r"image\.json"):
        flash(directory, image, signature=None)


@pytest.mark.parametrize(("arguments", "status"), [((), 1), (("fly",), 1), (("status", "/nowhere"), 2), (("boot",), 1)])
def test_wrong_use_ends_with_one_clear_line_and_its_code(arguments: tuple[str, ...], status: int) -> None:
    ended = device_command(*arguments)
    assert ended.returncode == status
    assert "overair-device: " in ended.stderr
    assert "Traceback" not in ended.stderr
