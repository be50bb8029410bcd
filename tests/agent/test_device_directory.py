from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from overair.agent.device_directory import BadDeviceDirectory, DeviceDirectory, read_settings, write_settings
from tests.support.device import Signer, make_device


def test_a_new_device_has_its_files_with_their_modes(tmp_path: Path) -> None:
    directory, settings = make_device(tmp_path / "d", Signer())
    assert read_settings(directory) == settings
    assert stat.S_IMODE(directory.private_key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.root.stat().st_mode) == 0o700
    assert (directory.trust / "signer.pem").is_file()
    assert directory.ca_file(settings) == directory.root / "identity/ca.pem"


def test_a_directory_that_holds_a_device_is_not_taken_again(tmp_path: Path) -> None:
    make_device(tmp_path / "d", Signer())
    with pytest.raises(BadDeviceDirectory, match="already holds"):
        make_device(tmp_path / "d", Signer())


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"thing_name": "a/b"},
        {"hardware_id": None},
        {"mqtt_port": 0},
        {"mqtt_port": "8883"},
        {"mqtt_host": "a b"},
        {"block_size_bytes": 255},
        {"slot_size_bytes_max": True},
        {"self_test_timeout_s": 1.5},
        {"mqtt_prot": 8883},
    ],
)
def test_settings_that_break_a_rule_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    directory, settings = make_device(tmp_path / "d", Signer())
    write_settings(directory, settings)
    members = json.loads(directory.device_file.read_text()) | change
    directory.device_file.write_text(json.dumps(members))
    with pytest.raises(BadDeviceDirectory):
        read_settings(directory)


def test_what_is_no_device_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BadDeviceDirectory, match="overair device enroll"):
        read_settings(DeviceDirectory(tmp_path))
    (tmp_path / "device.json").write_text("{")
    with pytest.raises(BadDeviceDirectory):
        read_settings(DeviceDirectory(tmp_path))
