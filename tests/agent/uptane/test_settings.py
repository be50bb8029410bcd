from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.agent.device_directory import BadDeviceDirectory, DeviceDirectory, read_settings
from overair.agent.uptane.secondary_directory import read_settings as read_secondary
from overair.agent.uptane.secondary_directory import write_settings as write_secondary
from overair.agent.uptane.settings import (
    BadUptaneSettings,
    CommandInstall,
    FileInstall,
    SlotInstall,
    Verification,
    parse_uptane,
)

FULL: dict[str, Any] = {
    "server": "https://gateway.example:8443",
    "director": "https://director.example/d",
    "repository": "https://images.example/r",
    "credentials": "credentials.zip",
    "import": {"certificate": "a", "private_key": "b", "ca": "c"},
    "roots": "roots",
    "renewal": True,
    "polling_s": 5.5,
    "key_type": "RSA3072",
    "ecu_serial": "primary-1",
    "install": {"command": ["/bin/true", "-x"], "check": ["/bin/true"], "timeout_s": 10.0},
    "secondaries": [
        {"socket": "dash.sock"},
        {
            "virtual": "lock",
            "hardware_id": "lock hw",
            "verification": "partial",
            "install": {"file": "a/b"},
            "ecu_serial": "l-1",
        },
    ],
}


def test_settings_are_read_and_written_alike() -> None:
    settings = parse_uptane(FULL)
    assert settings.to_json() == FULL
    assert parse_uptane(settings.to_json()) == settings
    assert isinstance(settings.install, CommandInstall)
    assert settings.secondaries[1].verification is Verification.PARTIAL  # type: ignore[union-attr]


def test_everything_may_be_left_out() -> None:
    settings = parse_uptane({})
    assert settings.install == SlotInstall()
    assert settings.renews
    assert not parse_uptane({"import": FULL["import"]}).renews
    assert parse_uptane({"import": FULL["import"], "renewal": True}).renews
    assert parse_uptane(settings.to_json()) == settings


@pytest.mark.parametrize(
    "change",
    [
        {"serv": "https://a"},
        {"server": "http://gateway.example"},
        {"server": "https://"},
        {"server": "https://[::1"},
        {"server": 8443},
        {"polling_s": 0},
        {"polling_s": True},
        {"polling_s": "10"},
        {"renewal": "yes"},
        {"key_type": "ED448"},
        {"ecu_serial": "a b"},
        {"ecu_serial": "a" * 65},
        {"import": {"certificate": "a"}},
        {"import": {**FULL["import"], "more": 1}},
        {"install": {}},
        {"install": {"slot": False}},
        {"install": {"slot": True, "file": "a"}},
        {"install": {"file": "/etc/passwd"}},
        {"install": {"file": "a/../../b"}},
        {"install": {"command": []}},
        {"install": {"command": "/bin/true"}},
        {"install": {"command": ["a"], "timeout_s": 0}},
        {"secondaries": {}},
        {"secondaries": [{}]},
        {"secondaries": [{"socket": "a"}, {"socket": "a"}]},
        {"secondaries": [{"virtual": "../a", "hardware_id": "h"}]},
        {"secondaries": [{"virtual": "a"}]},
        {"secondaries": [{"virtual": "a", "hardware_id": "h", "install": {"slot": True}}]},
        {"secondaries": [{"virtual": "a", "hardware_id": "h", "verification": "none"}]},
        {"secondaries": [{"socket": str(number)} for number in range(65)]},
        {"credentials": "a\x00b"},
    ],
)
def test_settings_that_break_a_rule_are_refused_with_their_name(change: dict[str, Any]) -> None:
    with pytest.raises(BadUptaneSettings):
        parse_uptane(FULL | change)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*FULL, "slot", "file", "virtual"]), inner),
        max_leaves=12,
    )
)
def test_whatever_stands_there_is_read_or_refused(value: Any) -> None:
    try:
        settings = parse_uptane(value)
    except BadUptaneSettings:
        return
    assert parse_uptane(settings.to_json()) == settings


DEVICE = {"format": 1, "hardware_id": "gw", "uptane": {"server": "https://gateway.example"}}


def put(root: Path, members: dict[str, Any]) -> DeviceDirectory:
    (root / "device.json").write_text(json.dumps(members))
    return DeviceDirectory(root)


def test_a_uptane_device_needs_no_broker_and_may_take_its_name_from_its_certificate(tmp_path: Path) -> None:
    settings = read_settings(put(tmp_path, DEVICE))
    assert (settings.thing_name, settings.mqtt_host, settings.mqtt_port) == ("", "", 0)
    both = {**DEVICE, "thing_name": "v-1", "mqtt_host": "broker", "mqtt_port": 8883}
    assert read_settings(put(tmp_path, both)).mqtt_host == "broker"


@pytest.mark.parametrize(
    "change", [{"uptane": {"servr": 1}}, {"uptane": None}, {"thing_name": ""}, {"mqtt_port": 0}, {"hardware_id": ""}]
)
def test_a_device_file_that_breaks_a_rule_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(BadDeviceDirectory):
        read_settings(put(tmp_path, DEVICE | change))


def test_without_the_member_name_and_broker_are_needed_as_ever(tmp_path: Path) -> None:
    with pytest.raises(BadDeviceDirectory):
        read_settings(put(tmp_path, {"format": 1, "hardware_id": "gw"}))


def test_a_secondarys_file_is_read_and_written_alike(tmp_path: Path) -> None:
    (tmp_path / "secondary.json").write_text(json.dumps({"format": 1, "hardware_id": "dash"}))
    settings = read_secondary(tmp_path)
    assert settings.secondary.install == FileInstall(path="firmware.bin")
    assert settings.socket == "secondary.sock"
    write_secondary(tmp_path / "other", settings)
    assert read_secondary(tmp_path / "other") == settings


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"format": 2, "hardware_id": "h"},
        {"format": 1},
        {"format": 1, "hardware_id": "h", "port": 1},
        {"format": 1, "hardware_id": "h", "install": {"slot": True}},
        {"format": 1, "hardware_id": "h", "socket": ""},
        {"format": 1, "hardware_id": "h", "verification": "some"},
    ],
)
def test_a_secondarys_file_that_breaks_a_rule_is_refused(tmp_path: Path, members: dict[str, Any]) -> None:
    (tmp_path / "secondary.json").write_text(json.dumps(members))
    with pytest.raises(BadUptaneSettings):
        read_secondary(tmp_path)
    (tmp_path / "secondary.json").write_text("{")
    with pytest.raises(BadUptaneSettings):
        read_secondary(tmp_path)
