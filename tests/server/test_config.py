"""Settings from three sources, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from overair.basics.errors import InvalidRequest
from overair.server.config import load_settings


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "overair.toml"
    file.write_text('region = "eu-west-1"\noperator_port = 1\nmqtt_port = 2\n')
    settings = load_settings(
        {"operator_port": 7, "device_port": None},
        environment={"OVERAIR_OPERATOR_PORT": "5", "OVERAIR_MQTT_PORT": "6"},
        file=file,
    )
    assert (settings.region, settings.operator_port, settings.mqtt_port, settings.device_port) == ("eu-west-1", 7, 6, 8443)


def test_the_environment_may_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "named.toml"
    file.write_text('log = "json"\n')
    assert load_settings({}, environment={"OVERAIR_CONFIG": str(file)}).log == "json"


def test_hosts_in_the_environment_are_separated_by_commas_or_blanks() -> None:
    assert load_settings({}, environment={"OVERAIR_HOST": "a.example, b.example 10.0.0.1"}).host == (
        "a.example",
        "b.example",
        "10.0.0.1",
    )


@pytest.mark.parametrize("name", ["OVERAIR_OPERATORPORT", "OVERAIR_operator_port", "OVERAIR_REGOIN", "OVERAIR_"])
def test_a_misspelt_environment_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="is no setting"):
        load_settings({}, environment={name: "1"})


def test_a_refusal_names_the_setting_that_was_probably_meant() -> None:
    with pytest.raises(InvalidRequest, match="Did you mean OVERAIR_REGION"):
        load_settings({}, environment={"OVERAIR_REGOIN": "eu-west-1"})


def test_an_unknown_name_in_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "overair.toml"
    file.write_text("operator-port = 1\n")
    with pytest.raises(InvalidRequest, match="Did you mean operator_port"):
        load_settings({}, environment={}, file=file)


@pytest.mark.parametrize("content", [b"= nonsense", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "overair.toml"
    file.write_bytes(content)
    with pytest.raises(InvalidRequest, match="isn't TOML"):
        load_settings({}, environment={}, file=file)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="can't be read"):
        load_settings({}, environment={}, file=tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("operator_port", 65536),
        ("operator_port", -1),
        ("operator_port", "many"),
        ("bind", "localhost"),
        ("account", "12345"),
        ("region", "Mars"),
        ("log", "xml"),
        ("limits", "none"),
        ("host", ("a b",)),
    ],
)
def test_a_value_out_of_its_bounds_is_refused_by_the_name_of_the_setting(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest, match=f"The setting {name.replace('_', '-')} "):
        load_settings({name: value}, environment={})


def test_a_wrong_database_address_is_not_shown_since_it_may_hold_a_password(tmp_path: Path) -> None:
    file = tmp_path / "overair.toml"
    file.write_text('database = ["postgresql://user:hidden@host/records"]\n')
    with pytest.raises(InvalidRequest) as refused:
        load_settings({}, environment={}, file=file)
    assert "database" in refused.value.message
    assert "hidden" not in refused.value.message
