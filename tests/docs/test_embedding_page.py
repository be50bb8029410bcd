"""What docs/embedding.md and the units beside it tell is true."""

from __future__ import annotations

import json
import re
import shlex
from configparser import ConfigParser
from dataclasses import fields
from pathlib import Path

import pytest
import typer.main

from overair.agent.device_directory import DeviceDirectory, read_settings
from overair.agent.hooks import HookSettings
from overair.cli.device_main import _parser
from overair.cli.main import app

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "embedding.md"
UNITS = sorted((DOCS / "systemd").glob("*.service"))


def test_each_hook_is_told_and_the_settings_that_are_shown_are_read(tmp_path: Path) -> None:
    text = PAGE.read_text()
    for field in fields(HookSettings):
        assert f"`{field.name}`" in text, field.name
    (shown,) = re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "device.json").write_text(shown)
    hooks = read_settings(DeviceDirectory(tmp_path)).hooks
    assert hooks is not None
    assert hooks.install == ("rauc", "install")
    assert json.loads(shown)["hooks"] == hooks.to_json()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.name))
def test_each_unit_starts_a_command_that_is_there(unit: Path) -> None:
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(unit.read_text())
    assert parser.sections() == ["Unit", "Service", "Install"]
    program, *words = shlex.split(parser["Service"]["ExecStart"])
    if Path(program).name == "overair-device":
        assert callable(_parser().parse_args(words).command)
        return
    group = typer.main.get_command(app)
    command = group.commands[words[0]]  # type: ignore[attr-defined]
    assert {word for word in words if word.startswith("--")} <= {name for each in command.params for name in each.opts}


def test_there_is_a_unit_for_the_server_a_device_and_a_gateway() -> None:
    assert [unit.stem for unit in UNITS] == ["overair-device", "overair-gateway", "overair"]
    for unit in UNITS:
        assert f"(systemd/{unit.name})" in PAGE.read_text()
